"""Lazy functions: linked by the first call, transparently, from any thread."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from jitlink.errors import UndefinedSymbolError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.memory.address_space import PROCESS
from jitlink.memory.mapping import mapped_ranges
from jitlink.orc import (
    ExecutionSession,
    FailedToMaterializeError,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    MaterializationResponsibility,
    ObjectLinkingLayer,
    Plugin,
    ResourceTrackerDefunctError,
    SessionEndedError,
    SessionError,
    SymbolState,
)
from jitlink.orc.lazy import lazy_reexports
from jitlink.orc.reentry import reentry_of
from jitlink.orc.stubs import IndirectStubsManager, LazyCallError
from jitlink.targets.registry import target_of_triple
from tests.orc.sessions import Slow, StubSession, reexport, run_threads, stub_session
from tests.toolchain import MACHINE, compile_c

ADD = "int add(int a, int b) { return a + b; }"
TWICE = "int add(int, int); int twice(int x) { return add(x, x); }"
ROOT = Path(__file__).parents[2]


def state(lazy: StubSession, dylib: JITDylib, name: str) -> SymbolState:
    return lazy.session.run(lambda: dylib.symbols[name].state)


def test_nothing_is_linked_before_the_first_call(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, ADD)
    lazy.add(lazy.main, TWICE)
    reexport(lazy, "add")
    twice = lazy.function("twice", ctypes.c_int, ctypes.c_int)
    assert state(lazy, lazy.main, "add") == SymbolState.READY
    assert state(lazy, lazy.bodies, "add") == SymbolState.NEVER_SEARCHED
    assert twice(21) == 42
    assert state(lazy, lazy.bodies, "add") == SymbolState.READY
    assert twice(4) == 8
    # Callers still use the stub, whose pointer now has the address of the body.
    assert lazy.pointer_of("add") == lazy.address("add", lazy.bodies)
    assert lazy.address("add") != lazy.address("add", lazy.bodies)
    assert lazy.errors == []


def test_aliases_have_their_own_names_and_flags(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, ADD)
    hidden = JITSymbolFlags.CALLABLE
    unit = lazy_reexports(lazy.stubs, lazy.bodies, {"plus": "add", "sum": "add"}, hidden)
    lazy.main.define(unit)
    found = lazy.session.lookup(lazy.main, ["plus", "sum"])
    assert {symbol.flags for symbol in found.values()} == {hidden}
    assert found["plus"].address != found["sum"].address
    assert lazy.function("plus", ctypes.c_int, ctypes.c_int, ctypes.c_int)(2, 3) == 5
    assert lazy.function("sum", ctypes.c_int, ctypes.c_int, ctypes.c_int)(4, 3) == 7
    assert lazy.counter.count("add") == 1


def test_concurrent_first_calls_all_enter_the_body(lazy: StubSession) -> None:
    names = [f"f{number}" for number in range(12)]
    for number, name in enumerate(names):
        lazy.add(lazy.bodies, f"int {name}(int x) {{ return x + {number}; }}")
    reexport(lazy, *names)
    functions = [lazy.function(name, ctypes.c_int, ctypes.c_int) for name in names]
    results: list[list[int]] = []

    def call_all() -> None:
        results.append([function(100) for function in functions])

    run_threads([call_all] * 8)
    assert results == [[100 + number for number in range(len(names))]] * 8
    assert [lazy.counter.count(name) for name in names] == [1] * len(names)


def test_calls_while_other_code_is_linked(lazy: StubSession) -> None:
    names = [f"lazy{number}" for number in range(10)]
    others = [f"other{number}" for number in range(10)]
    for name in names:
        lazy.add(lazy.bodies, f"int {name}(void) {{ return 1; }}")
    for name in others:
        lazy.add(lazy.main, f"int {name}(void) {{ return 2; }}")
    reexport(lazy, *names)
    functions = [lazy.function(name) for name in names]
    results: list[int] = []
    run_threads(
        [
            lambda: results.extend(function() for function in functions),
            lambda: results.extend(lazy.function(name)() for name in others),
        ]
    )
    assert sorted(results) == [1] * 10 + [2] * 10


def test_lazy_functions_call_lazy_functions(lazy: StubSession) -> None:
    count = 30
    names = [f"f{number}" for number in range(count)]
    for number, name in enumerate(names):
        below = f"f{number + 1}(x + 1)" if number + 1 < count else "x + 1"
        lazy.add(lazy.bodies, f"int f{number + 1}(int); int {name}(int x) {{ return {below}; }}")
    for name in names:
        lazy.main.define(lazy_reexports(lazy.stubs, lazy.bodies, {name: name}))
    # Bodies call the stubs, not each other.
    order = [(lazy.main, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
    lazy.bodies.set_link_order(order, link_against_this=False)
    function = lazy.function("f0", ctypes.c_int, ctypes.c_int)
    assert len(lazy.counter.links) == 1  # the stub of the first one
    assert function(0) == count
    assert function(1) == count + 1
    assert [lazy.counter.count(name) for name in names[1:]] == [1] * (count - 1)


def test_the_first_call_may_come_from_a_thread_without_python(
    lazy: StubSession,
) -> None:
    lazy.add(lazy.bodies, ADD)
    lazy.add(
        lazy.main,
        """
        #include <pthread.h>
        int add(int, int);
        static void *run(void *argument) { return (void *)(long)add((int)(long)argument, 1); }
        int sum(void) {
            pthread_t threads[4];
            void *result;
            int sum = 0;
            for (long i = 0; i < 4; i++) pthread_create(&threads[i], 0, run, (void *)i);
            for (int i = 0; i < 4; i++) { pthread_join(threads[i], &result); sum += (long)result; }
            return sum;
        }
        """,
    )
    reexport(lazy, "add")
    assert lazy.function("sum")() == 10
    assert lazy.counter.count("add") == 1


def test_a_failure_is_raised_in_python_and_can_be_repaired(lazy: StubSession) -> None:
    reexport(lazy, "add")
    add = lazy.function("add", ctypes.c_int, ctypes.c_int, ctypes.c_int)
    for number in (1, 2):
        with pytest.raises(LazyCallError) as caught:
            add(2, 3)
        assert (caught.value.dylib, caught.value.name) == ("main", "add")
        assert str(caught.value) == (
            "add in main was called and could not be linked: undefined symbol: add"
        )
        assert isinstance(caught.value, UndefinedSymbolError)
        cause = caught.value.__cause__
        assert isinstance(cause, UndefinedSymbolError)
        assert cause.names == ("add",)
        assert lazy.errors[number - 1 :] == [caught.value]
    lazy.add(lazy.bodies, ADD)
    assert add(2, 3) == 5


def test_a_body_that_does_not_link_fails_every_thread(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, "int nowhere(void); int f(void) { return nowhere(); }")
    reexport(lazy, "f")
    function = lazy.function("f")
    caught: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except LazyCallError as error:
            caught.append(error)

    run_threads([call] * 6)
    assert len(caught) == 6
    assert all(isinstance(error.__cause__, UndefinedSymbolError) for error in caught)
    assert all("undefined symbol: nowhere" in str(error) for error in caught)
    assert sorted(map(id, lazy.errors)) == sorted(map(id, caught))


def test_native_callers_continue_at_the_landing() -> None:
    source = "long landing(void) { return -5; } double other(void);"
    with stub_session() as place:
        place.add(place.main, source)
        with stub_session(place.address("landing")) as lazy:
            lazy.add(lazy.main, "long f(int); long caller(void) { return f(1) * 2; }")
            reexport(lazy, "f")
            assert lazy.function("caller", ctypes.c_long)() == -10
            assert lazy.function("f", ctypes.c_long)() == -5
            assert [isinstance(error, LazyCallError) for error in lazy.errors] == [True] * 2


ABORTS = """
import ctypes, sys
from jitlink.orc.lazy import lazy_reexports
from tests.orc.sessions import stub_session
with stub_session() as lazy:
    lazy.session.error_handler = lambda error: print(error, file=sys.stderr, flush=True)
    lazy.main.define(lazy_reexports(lazy.stubs, lazy.bodies, {"f": "f"}))
    lazy.add(lazy.main, "int f(void); int caller(void) { return f() + 1; }")
    lazy.function("caller")()
    print("went on")
"""


def run_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a Python process that can import jitlink and the tests."""
    paths = [str(ROOT / "src"), str(ROOT), *sys.path]
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_native_callers_without_a_landing_abort() -> None:
    done = run_python("-c", ABORTS)
    assert done.returncode == -signal.SIGABRT
    assert done.stdout == ""
    assert "f in main was called and could not be linked" in done.stderr


def test_the_example() -> None:
    examples = ROOT / "examples"
    objects = [compile_c(examples / f"lazy-{name}.c") for name in ("caller", "body")]
    done = run_python(examples / "lazy.py", *objects)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "linked: <stubs> area",
        "linked: lazy-caller.o room",
        "not called yet",
        "linked: lazy-body.o area",
        "room: 20",
        "calls repointed: 1",
        "room: 20",
        "room: 18",
    ]


def test_an_error_handler_that_fails_has_no_effect(
    lazy: StubSession, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: BaseException) -> None:
        raise LookupError(str(error))

    lazy.session.error_handler = fail
    reexport(lazy, "f")
    with pytest.raises(LazyCallError):
        lazy.function("f")()
    first, second = (record.exc_info[1] for record in caplog.records if record.exc_info)
    assert isinstance(first, LazyCallError)
    assert isinstance(second, LookupError)


def test_a_body_that_is_removed_is_looked_up_again(lazy: StubSession) -> None:
    tracker = lazy.bodies.create_resource_tracker()
    lazy.add(lazy.bodies, "int f(void) { return 1; }", tracker=tracker)
    reexport(lazy, "f")
    function = lazy.function("f")
    assert function() == 1
    # The body has been transferred to another tracker when it is removed.
    other = lazy.bodies.create_resource_tracker()
    tracker.transfer_to(other)
    assert function() == 1
    other.remove()
    with pytest.raises(LazyCallError):
        function()
    lazy.add(lazy.bodies, "int f(void) { return 2; }")
    assert function() == 2


def test_stubs_are_removed_with_their_tracker(lazy: StubSession) -> None:
    reentry = reentry_of(target_of_triple(MACHINE), SelfExecutorProcessControl.shared())
    assert reentry is not None
    known = len(reentry._continuations)
    lazy.add(lazy.bodies, ADD)
    assert lazy.address("add", lazy.bodies)
    used = lazy.used_size
    for _ in range(20):
        tracker = lazy.main.create_resource_tracker()
        aliases = {f"add{number}": "add" for number in range(50)}
        lazy.main.define(lazy_reexports(lazy.stubs, lazy.bodies, aliases), tracker)
        add = lazy.function("add7", ctypes.c_int, ctypes.c_int, ctypes.c_int)
        assert add(1, 2) == 3
        assert len(reentry._continuations) == known + 50
        owner = lazy.main.create_resource_tracker()
        tracker.transfer_to(owner)
        assert add(1, 2) == 3
        owner.remove()
        assert lazy.used_size == used
        assert len(reentry._continuations) == known
    assert not lazy.stubs._stubs
    assert not lazy.stubs._owned.keys
    assert not lazy.stubs._bound.keys


def test_a_link_of_stubs_that_fails_leaves_nothing_registered(lazy: StubSession) -> None:
    reentry = reentry_of(target_of_triple(MACHINE), SelfExecutorProcessControl.shared())
    assert reentry is not None
    known = len(reentry._continuations)

    class Failing(Plugin):
        def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
            raise LookupError(responsibility.unit_name)

    lazy.layer.add_plugin(Failing())
    reexport(lazy, "f")
    with pytest.raises(FailedToMaterializeError):
        lazy.address("f")
    assert len(reentry._continuations) == known
    assert not lazy.stubs._stubs


def test_a_call_that_waits_when_the_session_ends_continues_at_the_landing() -> None:
    caught: list[BaseException] = []
    with stub_session() as lazy:
        slow = Slow("f", 0)
        lazy.bodies.define(slow)
        reexport(lazy, "f")
        function = lazy.function("f")

        def call() -> None:
            try:
                function()
            except LazyCallError as error:
                caught.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert slow.started.wait(30)
        lazy.session.call_later(0.1, slow.may_finish.set)
        lazy.session.end()
        thread.join(30)
        assert not thread.is_alive()
        # The lookup fails because its body is removed, or because the session has ended.
        (error,) = caught
        assert isinstance(error.__cause__, ResourceTrackerDefunctError | SessionEndedError)


def test_a_call_after_the_end_continues_at_the_landing() -> None:
    with stub_session() as lazy:
        lazy.add(lazy.bodies, ADD)
        reexport(lazy, "add")
        assert lazy.address("add")
        stub = lazy.stubs._stubs[lazy.main]["add"]
        lazy.session.end()
        # The stub itself has been freed: this is a thread that had entered it before.
        reentry = lazy.stubs._reentry
        assert stub.resume_address(0) == reentry.abort
        (error,) = lazy.errors
        assert isinstance(error, LazyCallError)
        assert isinstance(error.__cause__, SessionEndedError)


def test_a_call_of_a_deregistered_trampoline_is_an_error(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, ADD)
    reexport(lazy, "add")
    add = lazy.function("add", ctypes.c_int, ctypes.c_int, ctypes.c_int)
    lazy.stubs._reentry.deregister(lazy.stubs._stubs[lazy.main]["add"].identity)
    with pytest.raises(Exception, match="has been removed"):
        add(1, 2)


def test_a_call_on_the_driver_thread_is_an_error_and_no_deadlock(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, ADD)
    reexport(lazy, "add")
    add = lazy.function("add", ctypes.c_int, ctypes.c_int, ctypes.c_int)
    with pytest.raises(LazyCallError) as caught:
        lazy.session.run(lambda: add(1, 2))
    assert isinstance(caught.value.__cause__, SessionError)
    assert add(1, 2) == 3
    assert lazy.session.run(lambda: add(3, 2)) == 5


def interrupt_when_started(slow: Slow, session: ExecutionSession, *, finish: bool) -> None:
    def run() -> None:
        slow.started.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        if finish:
            session.call_later(0.1, slow.may_finish.set)

    threading.Thread(target=run, daemon=True).start()


def test_python_callers_can_be_interrupted(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, "int one(void) { return 1; }")
    slow = Slow("f", lazy.address("one", lazy.bodies))
    lazy.bodies.define(slow)
    reexport(lazy, "f")
    function = lazy.function("f")
    interrupt_when_started(slow, lazy.session, finish=False)
    with pytest.raises(KeyboardInterrupt):
        function()
    assert lazy.errors == []
    slow.finish(lazy.session)
    assert function() == 1


def test_native_callers_are_interrupted_when_they_return(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, "int one(void) { return 1; }")
    lazy.add(
        lazy.main,
        "int f(void), usleep(unsigned); int seen;"
        "int caller(void) { seen = f() + 6; usleep(100000); return seen; }",
    )
    slow = Slow("f", lazy.address("one", lazy.bodies))
    lazy.bodies.define(slow)
    reexport(lazy, "f")
    function = lazy.function("caller")
    interrupt_when_started(slow, lazy.session, finish=True)
    with pytest.raises(KeyboardInterrupt):
        function()
    assert ctypes.c_int.from_address(lazy.address("seen")).value == 7
    assert lazy.errors == []


def test_a_dropped_session_can_be_collected() -> None:
    created = StubSession()
    reexport(created, "f")
    assert created.address("f")
    created.session.end()
    space, manager = created.space, weakref.ref(created.stubs)
    del created
    gc.collect()
    assert manager() is None
    space.close()


def test_no_memory_is_writable_and_executable(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, ADD)
    reexport(lazy, "add")
    assert lazy.function("add", ctypes.c_int, ctypes.c_int, ctypes.c_int)(1, 2) == 3
    # The reentry is in memory that the whole process shares.
    reservations = [*lazy.space.reservations, *PROCESS.reservations]
    ours = {
        mapping.permissions
        for mapping in mapped_ranges()
        if any(own.start <= mapping.start < own.end for own in reservations)
    }
    assert ours >= {"r-xp", "rw-p"}
    assert not [permissions for permissions in ours if "w" in permissions and "x" in permissions]


@pytest.mark.parametrize("triple", ["riscv32-unknown-linux-gnu", "vax-dec-ultrix"])
def test_architectures_without_a_reentry_are_refused(triple: str) -> None:
    executor = SelfExecutorProcessControl()
    executor.triple = triple
    with ExecutionSession(executor) as session:
        layer = ObjectLinkingLayer(session)
        with pytest.raises(SessionError, match=f"there are no stubs for {triple}"):
            IndirectStubsManager(layer)
