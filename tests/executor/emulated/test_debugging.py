"""Breakpoints, watches, coverage and snapshots."""

import ctypes as c

import pytest

import jitlink
from jitlink.errors import ExecutorError
from jitlink.executor import MemoryAccess
from tests.executor.emulated.machines import LITTLE, MACHINES, build, loaded

SOURCE = r"""
int counter = 5;
int add(int a, int b) { return a + b; }
__attribute__((noinline)) int step(int n) { counter += n; return counter; }
int many(int n) { int s = 0; for (int i = 0; i < n; ++i) s += step(i); return s; }
__attribute__((noinline)) int branch(int x) { if (x > 10) return step(x) + 1; return x; }
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_breakpoints(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        assert lib.many(4) == 5 + 6 + 8 + 11
        first = executor.processor.machine.integers[0].lower()
        seen: list[int] = []
        executor.add_breakpoint(
            lib["step"], lambda: seen.append(executor.registers[first] & 0xFFFF_FFFF)
        )
        assert lib.many(4) == 11 + 12 + 14 + 17
        assert seen == [0, 1, 2, 3]
        executor.remove_breakpoint(lib["step"])
        executor.remove_breakpoint(lib["step"])
        lib.many(4)
        assert len(seen) == 4


@pytest.mark.parametrize("machine", MACHINES)
def test_a_breakpoint_changes_registers(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        first = executor.processor.machine.integers[0]
        executor.add_breakpoint(lib["step"], lambda: executor.write_register(first.lower(), 100))
        assert lib.many(1) == 105
        with pytest.raises(ExecutorError, match=f"{machine} has no register NONE"):
            executor.write_register("none", 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_breakpoint_calls_code(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        results = []
        executor.add_breakpoint(lib["step"], lambda: results.append(lib.add(20, 22)))
        assert lib.many(3) == 5 + 6 + 8
        assert results == [42] * 3


def test_what_a_breakpoint_raises_ends_the_call() -> None:
    def stop() -> None:
        raise StopIteration("here")

    with loaded(SOURCE, "aarch64") as (executor, lib):
        executor.add_breakpoint(lib["step"], stop)
        for _ in range(3):
            with pytest.raises(StopIteration, match="here"):
                lib.step(3)
        with pytest.raises(StopIteration, match="here"):
            lib.many(3)
        executor.remove_breakpoint(lib["step"])
        assert lib.many(1) == 5


def test_a_breakpoint_calls_the_code_that_it_stops() -> None:
    with loaded(SOURCE, "riscv64") as (executor, lib):
        depths: list[int] = []

        def stop() -> None:
            depths.append(len(depths))
            if len(depths) < 3:
                lib.step(10)

        executor.add_breakpoint(lib["step"], stop)
        assert lib.step(1) == 26
        assert depths == [0, 1, 2]


@pytest.mark.parametrize("machine", LITTLE)
def test_watches(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        seen: list[MemoryAccess] = []
        with executor.watch(lib["counter"], 4, seen.append):
            lib.step(3)
        lib.step(3)
        writes = [each for each in seen if each.is_write]
        reads = [each for each in seen if not each.is_write]
        assert [(each.address, each.size, each.value) for each in writes] == [
            (lib["counter"], 4, 8)
        ]
        assert reads
        assert {each.address for each in reads} == {lib["counter"]}
        places = executor.code_map.describe([each.pc for each in seen])  # type: ignore[union-attr]
        assert {place.symbol for place in places.values()} == {"step"}


def test_what_a_watch_raises_ends_the_call() -> None:
    def stop(access: MemoryAccess) -> None:
        if access.is_write:
            raise ValueError(f"{access.value} is written")

    with loaded(SOURCE, "riscv32") as (executor, lib):
        with (
            executor.watch(lib["counter"], 4, stop),
            pytest.raises(ValueError, match="8 is written"),
        ):
            lib.step(3)
        assert lib.add(1, 2) == 3


@pytest.mark.parametrize("machine", MACHINES)
def test_coverage(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        lib.branch(1)
        with executor.coverage() as covered:
            lib.branch(1)
        assert lib["branch"] in covered
        assert lib["step"] not in covered
        with executor.coverage() as more:
            lib.branch(11)
            lib.branch(12)
        assert more.counts[lib["step"]] == 2
        names = {place.symbol for place in executor.describe(more.blocks)}
        assert {"branch", "step"} <= names
        lib.step(1)
        assert more.counts[lib["step"]] == 2


@pytest.mark.parametrize("machine", MACHINES)
def test_snapshots(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        snapshot = executor.snapshot()
        assert lib.step(1) == 6
        assert lib.step(1) == 7
        for _ in range(2):
            executor.restore(snapshot)
            assert lib.step(1) == 6
        later = executor.snapshot()
        executor.restore(snapshot)
        executor.restore(later)
        assert lib.step(0) == 6
        assert lib.variable("counter", c.c_int32).value or machine == "aarch64_be"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_snapshot_keeps_thread_local_storage(machine: str) -> None:
    other = build("_Thread_local int n = 7; int f(void) { return ++n; }", machine)
    with loaded(SOURCE, machine) as (executor, _):
        snapshot = executor.snapshot()
        with jitlink.load(other, executor=executor) as linked:
            assert linked.f() == 8
            executor.restore(snapshot)
            assert linked.f() == 9


def test_a_snapshot_of_code() -> None:
    other = build("int f(void) { static int n; return ++n; }", "aarch64")
    with loaded(SOURCE, "aarch64") as (executor, lib):
        snapshot = executor.snapshot()
        with jitlink.load(other, executor=executor) as linked:
            assert linked.f() == 1
            executor.restore(snapshot)
            # What was linked since keeps its contents.
            assert linked.f() == 2
        executor.restore(snapshot)
        assert lib.step(1) == 6
