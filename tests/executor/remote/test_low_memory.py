"""Position-dependent code in executors: low memory, and what libraries have at an address."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jitlink import tasks
from jitlink.errors import AllocationError, JITLinkError, TargetOutOfRangeError
from jitlink.executor import RemoteExecutorProcessControl, SelfExecutorProcessControl
from jitlink.executor.remote.dialects import Service
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.executor.remote.memory_services import reserve
from jitlink.link import run_in_process
from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError
from tests.executor.remote.executors import PIPES, SETTINGS, Setting, started
from tests.toolchain import compile_c

LOW = 1 << 31
NO_PIC, PIC = ("-O1", "-fno-pic"), ("-O1", "-fPIC")
OWN = [setting for setting in SETTINGS if setting.kind == "jitlink"]
OWN_PIPES = [setting for setting in OWN if setting.transport == "pipes"]
OTHERS = [setting for setting in PIPES if setting.kind != "jitlink"]

TABLE = """
#include <stdlib.h>
extern char **environ;
int table[4] = {1, 2, 3, 4};
int at(int i) { return table[i]; }
int has_environment(void) { return environ != 0 && *environ != 0; }
void *(*narrow(void))(size_t) { return malloc; }
int same(void *(*pointer)(size_t)) { return pointer == malloc; }
"""
CALLER = """
#include <stdlib.h>
void *(*narrow(void))(size_t);
int compare(void) { return narrow() == malloc; }
"""


def run(executor: RemoteExecutorProcessControl, jit: LLJIT, name: str, argument: int = 0) -> int:
    """Call ``int f(int)``."""
    return jit.session.wait(executor.run_as_int_function(int(jit.lookup(name)), argument))


@pytest.mark.parametrize("setting", OWN, ids=str)
def test_code_and_data_of_the_process(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c(TABLE, "gcc", NO_PIC))
        jit.add_object(compile_c(CALLER, "gcc", PIC))
        assert int(jit.lookup("at")) < LOW
        assert run(executor, jit, "at", 2) == 3
        assert run(executor, jit, "has_environment") == 1
        # Code of every kind sees the canonical PLT entry.
        assert run(executor, jit, "compare") == 1


@pytest.mark.parametrize("setting", OWN_PIPES, ids=str)
def test_a_limit_of_ones_own(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor, address_limit=1 << 30) as jit:
        jit.add_object(compile_c(CALLER + "int number(void) { return 7; }", "gcc", PIC))
        jit.add_object(compile_c(TABLE, "gcc", PIC))
        assert int(jit.lookup("number")) < 1 << 30
        assert run(executor, jit, "number") == 7


@pytest.mark.parametrize("setting", OTHERS, ids=str)
def test_executors_that_cannot_do_it(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        low = jit.create_jitdylib("low")
        jit.add_object(compile_c(TABLE, "gcc", NO_PIC), dylib=low)
        for _ in range(2):
            with pytest.raises(FailedToMaterializeError) as caught:
                jit.lookup("at", dylib=low)
            assert isinstance(caught.value.reason, AllocationError)
            assert "below 0x80000000: the executor reserves memory at 0x" in str(caught.value)
            assert "compile with -fPIC, or use jitlink's executor" in str(caught.value)
        jit.add_object(compile_c(TABLE, "gcc", PIC))
        assert run(executor, jit, "at", 1) == 2


@pytest.mark.parametrize("setting", OWN_PIPES, ids=str)
def test_low_memory_is_for_what_needs_it(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        low = jit.create_jitdylib("low")
        jit.add_object(compile_c(TABLE, "gcc", NO_PIC), dylib=low)
        assert int(jit.lookup("at", dylib=low)) < LOW
        jit.add_object(compile_c(TABLE, "gcc", PIC))
        assert int(jit.lookup("at")) > LOW
        # Position-dependent code that comes later is placed below the limit all the same, and
        # what comes after it is where the first code is.
        late = compile_c("int u[2] = {5, 6}; int in(int i) { return u[i]; }", "gcc", NO_PIC)
        jit.add_object(late)
        assert run(executor, jit, "in", 1) == 6
        jit.add_object(compile_c("int last(void) { return 8; }", "gcc", PIC))
        assert int(jit.lookup("last")) > LOW


@pytest.mark.parametrize("setting", OWN_PIPES, ids=str)
def test_a_variable_that_cannot_be_reached(setting: Setting) -> None:
    source = """
    asm(".data; narrow: .long environ; .text");
    extern int narrow; int f(void) { return narrow; }
    int t[2]; int at(int i) { return t[i]; }
    """
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c(source, "gcc", NO_PIC))
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("f")
        assert isinstance(caught.value.reason, TargetOutOfRangeError)
        assert "is a variable of " in str(caught.value)
        assert "libc.so.6, of which a copy would be a second one" in str(caught.value)


@pytest.mark.parametrize("setting", OWN_PIPES, ids=str)
def test_low_memory_that_is_used_up(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        services = executor.services
        taken: list[int] = []
        for size in (256 << 20, 16 << 20, 1 << 20, 4096):
            with suppress(AllocationError):
                while len(taken) < 10_000:
                    taken.append(tasks.run(reserve(services, size, LOW)))
        with pytest.raises(AllocationError, match="bytes below 0x80000000: cannot reserve memory"):
            tasks.run(reserve(services, 1 << 20, LOW))
        assert len(set(taken)) == len(taken) >= 7
        assert all(each < LOW for each in taken)
        jit.add_object(compile_c(TABLE, "gcc", NO_PIC))
        with pytest.raises(FailedToMaterializeError, match="executor cannot reserve 0x") as caught:
            jit.lookup("at")
        assert isinstance(caught.value.reason, AllocationError)
        tasks.run(services.call(services.dialect.memory.release, taken))
        low = jit.create_jitdylib("low")
        jit.add_object(compile_c(TABLE, "gcc", NO_PIC), dylib=low)
        assert int(jit.lookup("at", dylib=low)) < LOW


NAMES = (
    "malloc", "environ", "stderr", "optind", "memcpy", "qsort",
    "_ZTVSt9exception", "_ZTIi", "_ZSt4cout", "_ZNSt9exceptionD1Ev",
)  # fmt: skip


def test_executors_describe_addresses_as_this_process_does() -> None:
    own = SelfExecutorProcessControl.shared()
    run_in_process(own.load_dylib("libstdc++.so.6"))
    found = run_in_process(own.lookup_symbols(NAMES))
    expected = run_in_process(own.describe_addresses([each or 0 for each in found]))
    assert None not in expected
    with started(OWN_PIPES[0]) as executor:
        tasks.run(executor.load_dylib("libstdc++.so.6"))
        addresses = [each or 0 for each in tasks.run(executor.lookup_symbols(NAMES))]
        assert tasks.run(executor.describe_addresses(addresses)) == expected
        inside = addresses[NAMES.index("environ")] + 1
        assert tasks.run(executor.describe_addresses([0, 8, inside, (1 << 64) - 1])) == [None] * 4
        assert tasks.run(executor.describe_addresses([])) == []


def test_code_without_a_symbol_is_a_function() -> None:
    with started(OWN_PIPES[0]) as executor, LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compile_c(TABLE, "gcc", PIC))
        places = [int(jit.lookup("at")), int(jit.lookup("table"))]
        code, data = tasks.run(executor.describe_addresses(places))
        assert code is not None
        assert code.is_function
        assert data is None


@pytest.mark.parametrize("setting", OWN_PIPES, ids=str)
def test_requests_that_are_malformed(setting: Setting) -> None:
    with started(setting) as executor:
        services = executor.services
        services_below: list[Service[Any] | None] = [
            services.dialect.memory.reserve_below,
            services.dialect.shared_memory.reserve_below,
        ]
        for service in services_below:
            assert service is not None
            for size, limit in (
                (0, LOW),
                (1 << 40, LOW),
                ((1 << 64) - 1, LOW),
                (LOW, LOW),
            ):
                with pytest.raises(JITLinkError, match=r"no size|cannot (reserve|map)"):
                    tasks.run(services.call(service, size, limit))
            short = services.arguments(service, 4096, LOW)[:-1]
            result = tasks.run(executor.call_wrapper(services.address(service), short))
            assert result.data[:1] == b"\0"
            assert b"malformed arguments" in result.data
        assert executor.is_alive


@pytest.mark.parametrize("memory", ["shared", "simple-remote"])
def test_a_reservation_that_is_not_low_is_released(memory: MemoryKind) -> None:
    with started(Setting("llvm22", "pipes", memory)) as executor:
        with LLJIT(executor=executor, platform=False) as jit:
            jit.add_object(compile_c(TABLE, "gcc", NO_PIC))
            with pytest.raises(FailedToMaterializeError):
                jit.lookup("at")
        assert executor.process is not None
        maps = Path(f"/proc/{executor.process.pid}/maps").read_text().splitlines()
        sizes = [int(end, 16) - int(start, 16) for start, end in map(_bounds, maps)]
        assert max(sizes) < 512 << 20


def _bounds(line: str) -> list[str]:
    return line.split(maxsplit=1)[0].split("-")
