"""The same programs for other processors, in an executor under an emulator.

The oracle is the program that a cross compiler has linked, under the same emulator.
"""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.executor.remote.foreign import executor_command
from tests.foreign_packages import foreign_archive
from tests.runtime_programs.building import build, link_native
from tests.runtime_programs.programs import LEVELS, Case, Program, programs
from tests.runtime_programs.programs import SOURCES as FEATURES
from tests.runtime_programs.running import execute, linked_command
from tests.toolchain import compile_c, require

LONG = os.environ.get("JITLINK_LONG") == "1"
TARGETS = ("aarch64-linux-gnu", "riscv64-linux-gnu")
REAL_SOURCES = Path(__file__).parents[1] / "real_programs/sources"
# Programs that show how executors differ from a process of their own, or are for x86-64.
DIFFERENT = (
    "main_thread.c-*",  # There are other threads.
    "ends.c-*-return",  # What is buffered is written when main returns.
    # The command does not end by the signal that ends the executor.
    "ends.c-*-abort",
    "ends.c-*-signal",
    "process_name.c-*-assert",
    "terminate.cpp-*",
    "*-fcf-protection=full*",
    "processor.c-*",
)


def _cases(first: int, program: Program) -> Iterator[Case]:
    """Each option and each run once, or with each other; cross compilers of C++ are clang only."""
    compilers = [each for each in ("gcc", "clang") if each in program.compilers]
    compilers = ["clang"] if program.is_cxx else compilers
    if LONG:
        for parts in itertools.product(compilers, LEVELS, program.flags, program.runs):
            yield _case(program, *parts)
        return
    for number in range(max(len(program.flags), len(program.runs))):
        turn = first + number
        compiler, level = compilers[turn % len(compilers)], LEVELS[turn // 2 % 2]
        flags = program.flags[number % len(program.flags)]
        run = program.runs[number % len(program.runs)]
        yield _case(program, compiler, level, flags, run)


def _case(
    program: Program, compiler: str, level: str, flags: tuple[str, ...], run: tuple[str, ...]
) -> Case:
    if flags == ("-mtls-dialect=gnu2",):
        # TLS descriptors are the default here, and what they replace is gcc's only.
        compiler, flags = "gcc", ("-mtls-dialect=trad",)
    return Case(program, compiler, level, True, flags, run)


CASES = [
    case
    for first, program in enumerate(programs())
    if program.source.suffix in {".c", ".cpp"}
    for case in _cases(first, program)
    if not any(fnmatch(str(case), pattern) for pattern in DIFFERENT)
]


def _linked(inputs: list[Path], command: list[str]) -> list[str]:
    return linked_command(inputs, [f"-oop-executor={shlex.join(command)}"])


# gcc has one dialect for RISC-V; `tests/targets/test_elf_riscv_tls.py` runs the other.
RUNS = [
    (case, target)
    for target in TARGETS
    for case in CASES
    if not (target.startswith("riscv") and "-mtls-dialect=trad" in case.flags)
]


@pytest.mark.parametrize(("case", "target"), RUNS, ids=str)
def test_a_feature(case: Case, target: str) -> None:
    command = executor_command(target)
    built = build(case, target)
    native = execute([*command[:-1], str(built.native), *case.arguments])
    assert native.output, native
    assert execute([*_linked(list(built.inputs), command), *case.arguments]) == native


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.skipif(not LONG, reason="downloads packages; JITLINK_LONG=1 runs it")
@pytest.mark.parametrize(
    ("name", "package", "archive", "arguments", "expected"),
    [
        ("sqlite_shell.c", "libsqlite3-dev", "libsqlite3.a", ["DATABASE", "script.sql"], "80\nok"),
        ("lua_interpreter.c", "liblua5.4-dev", "liblua5.4.a", ["script.lua", "one"], "5050\ttrue"),
        ("zstd_stream.c", "libzstd-dev", "libzstd.a", [], "104857600 bytes"),
        ("zlib_levels.c", "zlib1g-dev", "libz.a", [], "4 9 "),
    ],
)
def test_a_real_program(
    name: str,
    package: str,
    archive: str,
    arguments: list[str],
    expected: str,
    target: str,
    tmp_path: Path,
) -> None:
    command = executor_command(target)
    compiled = compile_c(REAL_SOURCES / name, "gcc", ("-O2", "-fPIC"), target=target)
    inputs = [compiled, foreign_archive(target, package, archive)]
    program = link_native(name, inputs, "-lm", "-ldl", "-lpthread", target=target)

    def words(database: str) -> list[str]:
        places = {"DATABASE": str(tmp_path / database)}
        return [places.get(word, str(REAL_SOURCES / word)) for word in arguments]

    native = execute([*command[:-1], str(program), *words("native.db")])
    assert expected in native.output
    assert execute([*_linked(inputs, command), *words("linked.db")]) == native


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["text", "threads"])
def test_the_static_cxx_library(name: str, target: str) -> None:
    command = executor_command(target)
    source = FEATURES / f"{name}.cpp"
    compiled = compile_c(source, "clang", ("-O2", "-fPIC", "-std=c++17"), target=target)
    archives = [require(f"{target}/lib{each}.a") for each in ("stdc++", "gcc", "gcc_eh")]
    program = link_native(f"{name}.c", [compiled], "-lstdc++", "-lpthread", target=target)
    native = execute([*command[:-1], str(program)])
    assert native.output
    assert execute(_linked([compiled, *archives], command)) == native
