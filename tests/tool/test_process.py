"""What a program finds in the process that the command runs it in."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime_programs.building import build
from tests.runtime_programs.programs import SOURCES, Case, read_program
from tests.runtime_programs.running import linked_command
from tests.tool.command import compile_to, spawn

BUFFERED_BY_PYTHON = {**os.environ, "PYTHONUNBUFFERED": ""}
UNBUFFERED_BY_PYTHON = {**os.environ, "PYTHONUNBUFFERED": "1"}

LEAVES = """
#include <pthread.h>
#include <stdio.h>
int lazy(int);
int main(void) { printf("%d\\n", lazy(6)); pthread_exit(0); }
"""


def _commands(name: str) -> tuple[list[str], list[str]]:
    program = read_program(SOURCES / name)
    built = build(Case(program, "gcc", "-O0", True, (), ()))
    return [str(built.native)], linked_command(built.inputs)


@pytest.mark.parametrize("environment", [BUFFERED_BY_PYTHON, UNBUFFERED_BY_PYTHON], ids="BU")
@pytest.mark.parametrize("words", [b"", b"some words"])
def test_streams_are_buffered_as_natively(environment: dict[str, str], words: bytes) -> None:
    native, linked = (
        subprocess.run(command, input=words, env=environment, capture_output=True, check=True)
        for command in _commands("stdio_buffers.c")
    )
    assert linked.stdout == native.stdout
    assert native.stdout.startswith(b"written at once")


def _on_terminal(command: list[str]) -> bytes:
    main, other = pty.openpty()
    with open(main, "rb", buffering=0) as terminal, open(other, "rb") as program_side:  # noqa: PTH123
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=program_side, env=UNBUFFERED_BY_PYTHON,
            check=True,
        )  # fmt: skip
        assert done.returncode == 0
        return terminal.read(1000)


def test_a_terminal_is_line_buffered() -> None:
    native, linked = map(_on_terminal, _commands("stdio_buffers.c"))
    assert linked == native
    assert native.startswith(b"first -1")


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_descriptor(closed: int) -> None:
    for command in _commands("stdio_buffers.c"):
        done = subprocess.run(
            command, env=UNBUFFERED_BY_PYTHON, preexec_fn=lambda: os.close(closed), check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # Without standard output, it cannot write.
        assert done.returncode == closed


def test_a_program_of_lazy_functions_may_leave_its_main_thread() -> None:
    main, lazy = Path("main.o"), Path("lazy.o")
    compile_to(main, LEAVES, "zig", "-fPIC")
    compile_to(lazy, "int lazy(int x) { return 7 * x; }", "zig", "-fPIC")
    assert spawn(main, "-lazy", lazy) == (0, "42\n", "")


NAMES = """
import ctypes, sys
from jitlink.lljit import LLJIT
name = ctypes.c_char_p.in_dll(ctypes.CDLL(None), "program_invocation_name")
before = name.value
with LLJIT() as jit:
    jit.add_object(sys.argv[1])
    for argv in (["one/two"], []):
        assert jit.platform.run_main(jit.main, jit.lookup("main"), argv) == 7
        assert name.value == before
    jit.session.wait(jit.session.executor.run_as_main(jit.lookup("main"), ["three"]))
    assert name.value == before
"""


def test_the_name_of_the_process_is_restored() -> None:
    source = """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <stdio.h>
    int main(int argc) { return puts(argc ? program_invocation_short_name : "none"), 7; }
    """
    path = compile_to(Path("name.o"), source, "zig", "-fPIC")
    done = subprocess.run(
        [sys.executable, "-c", NAMES, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "two\nnone\nthree\n", "")


def test_a_program_without_arguments_is_named_by_its_first_input() -> None:
    source = """
    #include <assert.h>
    int main(int argc, char **argv) { assert(argc); return 0; }
    """
    Path("folder").mkdir()
    path = compile_to(Path("folder/failing.o"), source, "gcc", "-fPIC")
    done = spawn(path)
    assert done.err.startswith("failing.o: ")
    assert "Assertion `argc' failed" in done.err
    assert spawn(path, "-args", "some/program").status == 0
