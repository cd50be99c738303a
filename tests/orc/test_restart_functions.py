"""Functions, pointers and graphs when their executor is restarted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pytest

import jitlink
from jitlink.executor import ExecutorRestartedError, RemoteExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.lljit import LLJIT
from jitlink.orc import IndirectStubsManager, NotRestartableError, RedirectableSymbolManager
from jitlink.orc.lazy import lazy_reexports
from tests.executor.remote.executors import started
from tests.orc.test_restart import CRASH, OWN, STATE, c, crash
from tests.toolchain import compile_c

COUNTER = "int counter = 40; int next(void) { return ++counter; }"


@pytest.fixture
def executor() -> Iterator[RemoteExecutorProcessControl]:
    with started(OWN) as executor:
        yield executor


def test_python_functions(executor: RemoteExecutorProcessControl) -> None:
    calls: list[int] = []

    def sensor(channel: ctypes.c_int) -> ctypes.c_int:
        calls.append(int(channel))
        return channel

    source = c("int sensor(int); int f(int x) { return sensor(x) + 1; }")
    with LLJIT(executor=executor) as jit:
        jit.define({"sensor": sensor})
        jit.add_object(source)
        jit.add_object(c(CRASH))
        for round_ in range(3):
            assert jit.lookup("f")(round_) == round_ + 1
            crash(jit.lookup("crash"))
            jit.restart_executor()
    with jitlink.load(source, definitions={"sensor": sensor}, executor=executor) as lib:
        for round_ in range(2):
            assert lib.f(round_) == round_ + 1
            lib.restart_executor()
    assert calls == [0, 1, 2, 0, 1]


def test_functions_of_another_library(executor: RemoteExecutorProcessControl) -> None:
    with jitlink.load(c(STATE), executor=executor) as first:
        given = {"next": first.next}
        source = c("int next(void); int f(void) { return next(); }")
        with jitlink.load(source, definitions=given, executor=executor) as second:
            assert second.f() == 41
            first.restart_executor()
            with pytest.raises(ExecutorRestartedError):
                second.f()
            second.restart_executor()
            assert [second.f(), first.next()] == [41, 42]


@pytest.mark.parametrize("flag", ["-fno-pic", "-fPIE"])
def test_variables_of_another_library(executor: RemoteExecutorProcessControl, flag: str) -> None:
    with jitlink.load(c(COUNTER), executor=executor) as first:
        # Referred to in 32 bits, which do not reach it.
        source = "extern int counter; int f(void) { return ++counter; } int (*g)(void) = f;"
        file = compile_c(source, "gcc", ("-O1", flag))
        with jitlink.load(file, definitions=first, executor=executor) as second:
            assert second.f() == 41
            for _ in range(2):
                first.restart_executor()
                second.restart_executor()
                assert [second.f(), first.next()] == [41, 42]


def test_addresses_that_a_library_was_given(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(COUNTER))
        given = {"next": jit.lookup("next"), "also": jit.lookup("next"), "third": 3}
        source = c("int next(void); int f(void) { return next(); }")
        with jitlink.load(source, definitions=given, executor=executor) as library:
            assert library.f() == 41
            with pytest.raises(NotRestartableError) as caught:
                library.restart_executor()
            lost = [f"{name}, an address of the executor," for name in ("next", "also")]
            assert caught.value.names == tuple(lost)
            assert library.f() == 42


def test_lazy_functions(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        bodies = jit.create_jitdylib("bodies")
        jit.add_object(c(STATE), dylib=bodies)
        stubs = IndirectStubsManager(jit.layer)
        jit.main.define(lazy_reexports(stubs, bodies, {"following": "next"}))
        jit.add_object(c("int following(void); int f(void) { return following(); }"))
        for _ in range(3):
            assert [jit.lookup("f")(), jit.lookup("f")()] == [41, 42]
            jit.restart_executor()


def test_redirected_functions(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        main = jit.main
        jit.add_object(c("int slow(void) { return 1; } int fast(void) { return 2; }"))
        manager = RedirectableSymbolManager(IndirectStubsManager(jit.layer))
        manager.create(main, {"step": (main, "slow")})
        assert jit.lookup("step")() == 1
        manager.redirect(main, {"step": (main, "fast")})
        for _ in range(2):
            assert jit.lookup("step")() == 2
            jit.restart_executor()
        manager.redirect(main, {"step": int(jit.lookup("slow"))})
        with pytest.raises(NotRestartableError, match="step, which leads to an address"):
            jit.restart_executor()


def test_graphs(executor: RemoteExecutorProcessControl) -> None:
    def graph(source: str) -> LinkGraph:
        reader = InputReader()
        reader.add([open_input(c(source))])
        reader.resolver.finish()
        return reader.target_graph

    with LLJIT(executor=executor) as jit:
        jit.add_graph(graph("int f(void) { return 1; }"))
        jit.restart_executor()
        assert jit.lookup("f")() == 1
        with pytest.raises(NotRestartableError, match=r"graph .*, which its link has changed"):
            jit.restart_executor()


def test_pointers(executor: RemoteExecutorProcessControl) -> None:
    source = "static int n = 7; int *where(void) { return &n; } int read(int *p) { return *p; }"
    with jitlink.load(c(source), executor=executor) as lib:
        lib.where.restype = ctypes.POINTER(ctypes.c_int)
        pointer = lib.where()
        read = lib.read
        assert [pointer[0], pointer.contents.value, read(pointer)] == [7, 7, 7]
        contents = pointer.contents
        lib.restart_executor()
        uses: list[Callable[[], object]] = [
            lambda: pointer[0],
            lambda: contents.value,
            lambda: read(pointer),
            lambda: pointer.__setitem__(0, 1),
        ]
        for use in uses:
            with pytest.raises(ExecutorRestartedError, match="is an address of an executor"):
                use()
        assert lib.where()[0] == 7


def test_a_harness_is_not_linked_again(executor: RemoteExecutorProcessControl) -> None:
    source = "static int hidden(int x) { return x; } int f(void) { return hidden(3); }"
    with jitlink.harness(c(source, "-O0"), executor=executor) as tested:
        with pytest.raises(NotRestartableError):
            tested.restart_executor()
        hidden = tested.hidden
        assert [tested.f(), hidden(4)] == [3, 4]
        executor.restart()
        with pytest.raises(ExecutorRestartedError):
            hidden(4)
