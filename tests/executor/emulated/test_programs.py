"""Programs in emulated machines do what they do natively."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink import LLJIT
from jitlink.executor import Emulated, EmulatedCrashError
from tests.executor.emulated.machines import MACHINES, SOURCES, build
from tests.runtime_programs.programs import SOURCES as PROGRAMS
from tests.runtime_programs.programs import Program, read_program
from tests.toolchain import HOST_TARGET, CompilerName, compile_c, require


class Outcome(NamedTuple):
    """What a program has done."""

    status: int
    output: bytes
    errors: bytes


def run(machine: str, objects: Iterable[Path], arguments: Sequence[str]) -> Outcome:
    written = {1: bytearray(), 2: bytearray()}

    def write(descriptor: int, data: bytes) -> None:
        written[descriptor] += data

    with (
        Emulated(machine, output=write, time_limit=120) as executor,
        LLJIT(executor=executor) as jit,
    ):
        for each in objects:
            jit.add_object(each)
        assert jit.platform is not None
        status = jit.platform.run_main(jit.main, jit.lookup("main"), arguments)
    return Outcome(status, bytes(written[1]), bytes(written[2]))


@cache
def native(objects: tuple[Path, ...], arguments: tuple[str, ...]) -> Outcome:
    # Other processes of the test run make it, too.
    program = objects[0].with_suffix(f".{os.getpid()}")
    subprocess.run([require("gcc"), *objects, "-o", program, "-lm"], check=True)
    done = subprocess.run([program, *arguments[1:]], capture_output=True, check=False)
    program.unlink()
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_c_library(machine: str, level: str) -> None:
    source, arguments = SOURCES / "library.c", ("program", "one", "two")
    own = compile_c(source, "gcc", ("-O1",), target=HOST_TARGET)
    found = run(machine, [build(source, machine, level)], arguments)
    expected = native((own,), arguments)
    assert found.output.decode().splitlines() == expected.output.decode().splitlines()
    assert found == expected


NAMES = ("common", "constructors", "data", "exit_in_initializer", "int128", "sections", "variadic")


def _cases() -> Iterable[tuple[str, CompilerName, str, Program]]:
    for name in (*NAMES, "weak"):
        program = read_program(PROGRAMS / f"{name}.c")
        for machine in MACHINES:
            if (name, machine) == ("int128", "riscv32"):
                continue  # No compiler has the type there.
            compilers: tuple[CompilerName, ...] = ("zig",)
            if machine in {"aarch64", "riscv64"}:
                compilers = ("zig", "gcc", "clang")
            for number, compiler in enumerate(compilers):
                levels = ("-O0", "-O2") if compiler == "zig" else (("-O2", "-O0")[number % 2],)
                for level in levels:
                    yield machine, compiler, level, program


@pytest.mark.parametrize(
    ("machine", "compiler", "level", "program"),
    list(_cases()),
    ids=lambda value: value.source.stem if isinstance(value, Program) else value.strip("-"),
)
def test_programs(machine: str, compiler: CompilerName, level: str, program: Program) -> None:
    arguments = ("program", *program.runs[0])

    def objects(target: str, of: CompilerName) -> tuple[Path, ...]:
        flags = (level, "-fno-stack-protector", *program.flags[0])
        return tuple(
            compile_c(program.source, of, (*flags, f"-DPART={part + 1}"), target=target)
            for part in range(program.parts)
        )

    system = "musl" if compiler == "zig" else "gnu"
    found = run(machine, objects(f"{machine}-linux-{system}", compiler), arguments)
    assert found == native(objects(HOST_TARGET, compiler), arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_asserts(machine: str) -> None:
    source = """
    #include <assert.h>
    #include <stdio.h>
    int main(int argc, char **argv) { printf("before\\n"); assert(argc == 2); return 0; }
    """
    path = build(source, machine, "-UNDEBUG")
    assert run(machine, [path], ["program", "one"]) == Outcome(0, b"before\n", b"")
    with pytest.raises(EmulatedCrashError, match="SIGABRT: abort") as caught:
        run(machine, [path], ["program"])
    assert "main" in [frame.symbol for frame in caught.value.frames]


def test_memory_that_is_freed_twice() -> None:
    source = (
        "#include <stdlib.h>\nint main(void) { char *p = malloc(9); free(p); free(p); return 0; }"
    )
    path = build(source, "aarch64", "-fno-builtin")
    with pytest.raises(EmulatedCrashError, match="SIGABRT"):
        run("aarch64", [path], ["program"])


def test_a_program_defines_what_the_library_has() -> None:
    source = """
    #include <stdio.h>
    void *malloc(__SIZE_TYPE__ size) { (void)size; return 0; }
    int puts(const char *text) { return printf("mine: %s\\n", text); }
    int main(void) { puts("text"); return malloc(5) != 0; }
    """
    path = build(source, "riscv64", "-fno-builtin")
    assert run("riscv64", [path], ["program"]).output == b"mine: text\n"
