"""Runs programs, natively and linked in memory, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_SECONDS = 120


class Outcome(NamedTuple):
    """The outcome of a program; a negative status is the signal that ended it."""

    status: int
    output: str
    errors: str


def run_native(
    program: Path, arguments: Sequence[str] = (), *, seconds: float = _SECONDS
) -> Outcome:
    """Run a native program."""
    return execute([str(program), *arguments], seconds=seconds)


def run_linked(
    inputs: Sequence[Path],
    arguments: Sequence[str] = (),
    *,
    seconds: float = _SECONDS,
    options: Sequence[str] = (),
) -> Outcome:
    """Run a program that is linked in memory from objects and archives."""
    return execute([*linked_command(inputs, options), *arguments], seconds=seconds)


def linked_command(inputs: Sequence[Path], options: Sequence[str] = ()) -> list[str]:
    """The command that links and runs, to which the program's arguments are appended."""
    # As for llvm-jitlink, the first word after -args is argv[0].
    return [
        sys.executable, "-W", "error", "-m", "jitlink", *options, *map(str, inputs),
        "-args", "program",
    ]  # fmt: skip


def execute(command: Sequence[str], *, seconds: float = _SECONDS) -> Outcome:
    """Run a command with empty input, and with the same environment for all."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "LC_ALL": "C.UTF-8",
        # Backtraces have addresses, which differ.
        "GFORTRAN_ERROR_BACKTRACE": "0",
    }
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
        timeout=seconds,
        env=environment,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
