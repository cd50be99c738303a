"""Programs that are linked natively and in memory, to be compared by what they print and return."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.toolchain import CompilerName, compile_c, require, run

SOURCES = Path(__file__).parents[1] / "programs" / "runtime"
ROOT = Path(__file__).parents[2]
_SECONDS = 120


class Outcome(NamedTuple):
    """Status and output of a program; a negative status is the signal that ended it."""

    status: int
    output: str
    errors: str


class Build(NamedTuple):
    """How a program is compiled."""

    compiler: CompilerName
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.compiler}{''.join(self.flags)}"


PIC = tuple(
    Build(compiler, (level, "-fPIC"))
    for compiler in ("gcc", "clang", "zig")
    for level in ("-O0", "-O2")
)
"""Every compiler, with and without optimisation."""
NON_PIC = (Build("gcc", ("-O2", "-fno-pic")), Build("clang", ("-O0", "-fno-pic")))


def objects(name: str, build: Build, parts: int = 1) -> list[Path]:
    """The objects of a program: its source, compiled once for each part."""
    flags = (*build.flags, "-fexceptions")
    return [
        compile_c(SOURCES / name, build.compiler, (*flags, f"-DPART={part}"))
        for part in range(1, parts + 1)
    ]


def native(inputs: Sequence[Path], arguments: Sequence[str] = (), *, pie: bool = True) -> Outcome:
    """The outcome of the program that the system's linker links from objects."""
    return _run([str(_native_program(inputs, pie)), *arguments])


def _native_program(inputs: Sequence[Path], pie: bool) -> Path:
    # Beside the first object; the folder of each object is named after its contents.
    names = " ".join([*map(str, inputs), str(pie)])
    place = inputs[0].with_suffix(f".{hashlib.sha256(names.encode()).hexdigest()[:16]}")
    if not place.exists():
        # Another run may link the same one at the same time.
        unfinished = place.with_suffix(f".{os.getpid()}")
        kind = "-pie" if pie else "-no-pie"
        run([require("g++"), kind, *inputs, "-o", unfinished, "-lpthread"])
        unfinished.replace(place)
    return place


def native_with_library(inputs: Sequence[Path], library: Sequence[Path], place: Path) -> Outcome:
    """The outcome of a native program that opens a library of its working directory."""
    run([require("g++"), "-shared", *library, "-o", place])
    return _run([str(_native_program(inputs, pie=True))], place.parent)


def native_against_library(
    inputs: Sequence[Path], library: Sequence[Path], place: Path, arguments: Sequence[str]
) -> Outcome:
    """The outcome of a native program that is linked against a library; both go to a folder."""
    shared, program = place / "library.so", place / "program"
    run([require("g++"), "-shared", *library, "-o", shared])
    run([require("g++"), *inputs, shared, "-o", program])
    return _run([str(program), *arguments])


def linked(
    inputs: Sequence[Path],
    arguments: Sequence[str] = (),
    libraries: Sequence[tuple[str, Sequence[Path]]] = (),
) -> Outcome:
    """The outcome of the same objects, linked in memory.

    Args:
        inputs: objects and archives of the program.
        arguments: its arguments.
        libraries: JITDylibs, each a name and its inputs. The program is linked against them,
            in this order, unless their name is a path.
    """
    dylibs = [("program", list(map(str, inputs)))]
    dylibs += [(name, list(map(str, parts))) for name, parts in libraries]
    runner = Path(__file__).with_name("runner.py")
    return _run([sys.executable, "-W", "error", str(runner), json.dumps(dylibs), *arguments])


def _run(command: Sequence[str], cwd: Path | None = None) -> Outcome:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LC_ALL": "C.UTF-8"}
    # It would change the buffering of C's streams, too.
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        env=environment,
        cwd=cwd,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
