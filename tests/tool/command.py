"""Runs the command, in a process of its own or in this one, and compiles its inputs."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink.tool.main import main
from tests.toolchain import CompilerName, compile_c, run, zig_command


class Done(NamedTuple):
    """The exit status and output of a command."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


def spawn(*words: str | Path, cwd: Path | None = None) -> Done:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "jitlink", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def in_process(capture: pytest.CaptureFixture[str]) -> Command:
    """A function that runs the command in this process; its programs must not call exit."""

    def command(*words: str | Path) -> Done:
        capture.readouterr()
        status = main(list(map(str, words)))
        return Done(status, *capture.readouterr())

    return command


def error(message: str) -> Done:
    """The outcome of a command that fails with a message."""
    return Done(1, "", f"jitlink: error: {message}\n")


def compile_to(
    place: Path, source: str | Path, compiler: CompilerName = "zig", *flags: str
) -> Path:
    """Compile C to an object with this name."""
    shutil.copyfile(compile_c(source, compiler, ("-O1", *flags)), place)
    return place


def archive(place: Path, *members: Path) -> Path:
    """Create an archive of objects."""
    run([*zig_command("ar"), "rcs", place, *members])
    return place


def shared_library(place: Path, source: str) -> Path:
    """Compile C to a shared library."""
    object_file = compile_c(source, "zig", ("-O1", "-fPIC"))
    run([*zig_command("cc"), "-shared", object_file, "-o", place])
    return place
