"""What emulated code can do wrong, and how that is told."""

import ctypes as c
import time

import pytest

from jitlink.executor import (
    EmulatedCrashError,
    EmulatedExitError,
    EmulatedTimeoutError,
    ExecutorCrashedError,
    ExecutorTimeoutError,
)
from jitlink.memory.regions import MemoryRegion
from tests.executor.emulated.machines import MACHINES, loaded

SOURCE = r"""
#include <stdlib.h>
const int constant = 5;
int variable[4] = {1, 2, 3, 4};
__attribute__((noinline)) int read_at(int *p) { return *(volatile int *)p; }
__attribute__((noinline)) void write_at(int *p) { *(volatile int *)p = 1; }
__attribute__((noinline)) int outer(int *p) { return read_at(p) + 1; }
int read_null(void) { return outer(0) + 1; }
void write_constant(void) { write_at((int *)&constant); }
void write_code(void) { write_at((int *)read_at); }
typedef int Function(void);
int jump_to_null(void) { Function *volatile f = 0; return f() + 1; }
int run_data(void) { Function *volatile f = (Function *)variable; return f() + 1; }
int deep(int n) { volatile char frame[500]; frame[n % 500] = 1; return deep(n + 1) + frame[0]; }
int overflow(void) { return deep(0) + 1; }
__attribute__((noinline)) int spin(volatile int *stop) {
  volatile int n = 0;
  while (!*stop) ++n;
  return n;
}
int forever(void) { int stop = 0; return spin(&stop); }
void give_up(void) { abort(); }
void leave(int status) { exit(status); }
#ifdef __riscv
int debug(void) { __asm__ volatile("ebreak"); return 1; }
#elif defined(__x86_64__)
int debug(void) { __asm__ volatile("int3"); return 1; }
#else
int debug(void) { __asm__ volatile("brk #1"); return 1; }
#endif
void trap(void) { __builtin_trap(); }
int fine(int x) { return x + 1; }
"""


def crash_of(machine: str, name: str) -> EmulatedCrashError:
    with loaded(SOURCE, machine, None, "-g") as (_, lib):
        with pytest.raises(EmulatedCrashError) as caught:
            lib.function(name)()
        # The machine goes on.
        assert lib.fine(1) == 2
    return caught.value


@pytest.mark.parametrize("machine", MACHINES)
def test_a_read_of_null(machine: str) -> None:
    error = crash_of(machine, "read_null")
    assert isinstance(error, ExecutorCrashedError)
    assert (error.signal, error.fault_address) == (11, 0)
    assert error.cause == "a read of 4 bytes at 0x0, an address without memory"
    assert str(error).startswith(f"emulated code was stopped by SIGSEGV: {error.cause}\n#0 ")
    assert [frame.symbol for frame in error.frames] == ["read_at", "outer", "read_null"]
    lines = SOURCE.splitlines()
    assert [lines[frame.line - 1].split("(")[0] for frame in error.frames] == [
        "__attribute__",
        "__attribute__",
        "int read_null",
    ]
    pc = {"x86_64": "rip"}.get(machine, "pc")
    assert error.registers[pc] == error.frames[0].address


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["write_constant", "write_code"])
def test_writes_to_constants(machine: str, name: str) -> None:
    error = crash_of(machine, name)
    assert error.signal == 11
    assert "a write of 4 bytes at " in error.cause
    assert error.cause.endswith(", an address that does not allow a write")
    assert error.frames[0].symbol == "write_at"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_jump_to_null(machine: str) -> None:
    error = crash_of(machine, "jump_to_null")
    assert (error.signal, error.fault_address) == (11, 0)
    assert error.cause == "a jump to an address without memory, 0x0"
    assert [frame.symbol for frame in error.frames] == ["", "jump_to_null"]


@pytest.mark.parametrize("machine", MACHINES)
def test_data_is_not_run(machine: str) -> None:
    error = crash_of(machine, "run_data")
    assert error.signal == 11
    assert "execution of memory that is not executable" in error.cause
    assert error.frames[0].symbol == "variable"
    assert error.frames[1].symbol == "run_data"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_stack_overflow(machine: str) -> None:
    error = crash_of(machine, "overflow")
    assert error.cause.startswith("a stack overflow, a write of ")
    assert error.frames[0].symbol == "deep"
    assert len(error.frames) == 128


@pytest.mark.parametrize("machine", MACHINES)
def test_a_trap(machine: str) -> None:
    error = crash_of(machine, "trap")
    assert error.signal in {4, 5}
    assert error.frames[0].symbol == "trap"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_breakpoint_instruction(machine: str) -> None:
    error = crash_of(machine, "debug")
    assert error.signal == 5
    assert error.cause.startswith("a breakpoint instruction")
    assert error.frames[0].symbol == "debug"


@pytest.mark.parametrize("machine", MACHINES)
def test_abort_and_exit(machine: str) -> None:
    assert crash_of(machine, "give_up").signal == 6
    with loaded(SOURCE, machine) as (_, lib):
        with pytest.raises(EmulatedExitError, match="exited with status 7") as caught:
            lib.leave(7)
        assert caught.value.status == 7
        assert lib.fine(1) == 2


@pytest.mark.parametrize("machine", MACHINES)
def test_limits(machine: str) -> None:
    with loaded(SOURCE, machine, time_limit=0.2) as (executor, lib):
        start = time.monotonic()
        with pytest.raises(EmulatedTimeoutError, match=r"after 0\.2 s\n#0 .* spin ") as caught:
            lib.forever()
        assert time.monotonic() - start < 30
        assert isinstance(caught.value, ExecutorTimeoutError)
        assert (caught.value.seconds, caught.value.steps) == (0.2, 0)
        assert [frame.symbol for frame in caught.value.frames] == ["spin", "forever"]
        executor.time_limit, executor.step_limit = None, 10_000
        # Code that was translated before counts, too.
        with pytest.raises(EmulatedTimeoutError, match="after 10000 instructions") as caught:
            lib.forever()
        assert caught.value.steps == 10_000
        executor.step_limit = 0
        lib.forever.timeout = 0.1
        with pytest.raises(EmulatedTimeoutError, match=r"after 0\.1 s"):
            lib.forever()
        assert lib.fine(1) == 2


@pytest.mark.parametrize("machine", MACHINES)
def test_a_deadline_does_not_change_what_code_does(machine: str) -> None:
    """Unicorn executes code again that was stopped and is resumed, so nothing resumes it."""
    source = """
    long f(long n) {
      long s = 0;
      volatile long v = 0;
      for (long i = 0; i < n; ++i) { v = v + 1; s += i % 3 == 0 ? 2 : 1; }
      return v * 10 - s;
    }
    """
    with loaded(source, machine, None, "-O2", time_limit=60) as (_, lib):
        assert lib.f(3_000_000) == 30_000_000 - 4_000_000
        for _ in range(100):
            lib.f.timeout = 0.05
            assert lib.f(30) == 300 - 40


def test_deadlines_of_nested_calls() -> None:
    prototype = c.CFUNCTYPE(c.c_int)
    source = SOURCE + "int call(int (*f)(void)) { int stop = 0; f(); return spin(&stop); }"
    with loaded(source, "aarch64", time_limit=0.5) as (_, lib):
        inner: list[BaseException] = []
        lib.forever.timeout = 0.1

        def python() -> int:
            try:
                return int(lib.forever())
            except EmulatedTimeoutError as error:
                inner.append(error)
                return 0

        with pytest.raises(EmulatedTimeoutError, match=r"after 0\.5 s"):
            lib.call(prototype(python))
        assert [str(error).split("\n")[0] for error in inner] == [
            "emulated code was stopped after 0.1 s"
        ]


def test_a_misaligned_access_is_one_of_memory() -> None:
    """Unicorn lets processors access memory at any address, as most of today's do."""
    source = "int word(const char *p) { return *(const int *)(p + 1); }"
    for machine in ("aarch64", "riscv64", "x86_64"):
        with loaded(source, machine) as (_, lib):
            assert lib.word(bytes(range(8))) == 0x04030201


def test_flash_is_not_written() -> None:
    regions = [
        MemoryRegion("flash", 0x0800_0000, 0x1_0000, "rx"),
        MemoryRegion("ram", 0x2000_0000, 0x1_0000, "rw"),
    ]
    source = "void store(volatile int *p) { *p = 3; } int load(volatile int *p) { return *p; }"
    with loaded(source, "riscv32", memory=regions) as (_, lib):
        lib.store.argtypes = lib.load.argtypes = [c.c_void_p]
        lib.store(0x2000_0000)
        assert lib.load(0x2000_0000) == 3
        assert lib.load(0x0800_8000) == 0
        for address, cause in (
            (0x0800_8000, "does not allow a write"),
            (0x0900_0000, "without memory"),
        ):
            with pytest.raises(EmulatedCrashError, match=cause) as caught:
                lib.store(address)
            assert caught.value.fault_address == address
