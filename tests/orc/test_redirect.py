"""Redirectable functions: replaced while code that calls them runs."""

import ctypes
import threading
from collections.abc import Iterator

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.orc import (
    AbsoluteSymbols,
    ExecutorSymbolDef,
    FailedToMaterializeError,
    JITSymbolFlags,
    SymbolState,
)
from jitlink.orc.stubs import LazyCallError, NotRedirectableError, RedirectableSymbolManager
from tests.orc.sessions import Slow, StubSession, run_threads, stub_session
from tests.orc.units import IS_LONG

ROUNDS = 1_000 if IS_LONG else 300
VERSIONS = "int one(void) { return 1; } int two(void) { return 2; } int three(void) { return 3; }"
CALLER = """
    int f(void);
    int caller(void) { return f(); }
    int (*pointer(void))(void) { return f; }
    /* Whether every one of many calls returns 1 or 2. */
    int many(int count) {
        for (int i = 0; i < count; i++) {
            int got = f();
            if (got != 1 && got != 2) return got;
        }
        return 0;
    }
"""


@pytest.fixture
def session() -> Iterator[StubSession]:
    with stub_session() as session:
        session.add(session.bodies, VERSIONS)
        session.add(session.main, CALLER)
        yield session


def test_a_function_is_redirected(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    found = session.session.lookup(session.bodies, ["one", "two", "three"])
    redirector.create(session.main, {"f": found["one"].address})
    caller = session.function("caller")
    assert caller() == 1
    redirector.redirect(session.main, {"f": found["two"]})
    assert caller() == 2
    redirector.redirect(session.main, {"f": (session.bodies, "three")})
    assert caller() == 3
    # A pointer to the function has the address of the stub.
    pointer = session.function("pointer", ctypes.c_void_p)()
    assert pointer == session.address("f")
    redirector.redirect(session.main, {"f": found["one"].address})
    assert session.function_at(pointer)() == 1
    assert session.errors == []


def test_definitions_given_by_name_are_linked_when_they_are_called(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    redirector.create(session.main, {"f": (session.bodies, "one")})
    caller = session.function("caller")
    assert session.counter.count("one") == 0
    session.add(session.bodies, "int four(void) { return 4; }")
    redirector.redirect(session.main, {"f": (session.bodies, "four")})
    assert session.counter.count("four") == 1
    assert caller() == 4
    # The first one was never called.
    assert session.counter.count("one") == 0
    redirector.redirect(session.main, {"f": (session.bodies, "one")})
    assert session.counter.count("one") == 1
    assert caller() == 1


def test_a_function_may_be_redirected_before_it_is_looked_up(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    redirector.create(session.main, {"f": (session.bodies, "one"), "g": 0})
    redirector.redirect(session.main, {"f": (session.bodies, "two")})
    state = session.session.run(lambda: session.main.symbols["f"].state)
    assert state == SymbolState.NEVER_SEARCHED
    assert session.function("caller")() == 2


def test_calls_under_load_go_to_the_old_function_or_to_the_new_one(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    found = session.session.lookup(session.bodies, ["one", "two"])
    redirector.create(session.main, {"f": found["one"]})
    many = session.function("many", ctypes.c_int, ctypes.c_int)
    done = threading.Event()
    results: list[int] = []
    seen: set[int] = set()

    def call() -> None:
        while not done.is_set():
            results.append(many(100_000))

    def redirect() -> None:
        caller = session.function("caller")
        for number in range(ROUNDS):
            redirector.redirect(session.main, {"f": found["two" if number % 2 else "one"]})
            seen.add(caller())
        done.set()

    run_threads([call, call, call, redirect])
    assert len(results) > 3
    assert set(results) == {0}
    assert seen == {1, 2}


def test_a_redirection_while_the_body_is_linked_prevails(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    found = session.session.lookup(session.bodies, ["one", "two"])
    slow = Slow("late", found["one"].address)
    session.bodies.define(slow)
    redirector.create(session.main, {"f": (session.bodies, "late")})
    function = session.function("f")
    results: list[int] = []

    def redirect() -> None:
        assert slow.started.wait(30)
        redirector.redirect(session.main, {"f": found["two"]})
        slow.finish(session.session)

    run_threads([lambda: results.append(function()), redirect])
    # The call that waited for one body enters the other, too.
    assert results == [2]
    assert function() == 2


def test_only_stubs_can_be_redirected(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    redirector.create(session.main, {"f": (session.bodies, "one")})
    caller = session.function("caller")
    assert caller() == 1
    with pytest.raises(NotRedirectableError) as caught:
        redirector.redirect(session.main, {"f": (session.bodies, "two"), "caller": 1, "absent": 2})
    assert caught.value.dylib == "main"
    assert caught.value.names == ("absent", "caller")
    assert str(caught.value) == "not redirectable in main: absent, caller"
    assert caller() == 1


def test_a_definition_that_cannot_be_linked_changes_nothing(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    redirector.create(session.main, {"f": (session.bodies, "one"), "g": (session.bodies, "one")})
    session.add(session.bodies, "int nowhere(void); int broken(void) { return nowhere(); }")
    caller = session.function("caller")
    with pytest.raises(UndefinedSymbolError) as undefined:
        redirector.redirect(
            session.main, {"g": (session.bodies, "two"), "f": (session.bodies, "absent")}
        )
    assert undefined.value.names == ("absent",)
    with pytest.raises(FailedToMaterializeError):
        redirector.redirect(session.main, {"f": (session.bodies, "broken")})
    assert caller() == 1
    assert session.function("g")() == 1


def test_a_name_can_be_defined_once(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    with pytest.raises(DuplicateDefinitionError) as caught:
        redirector.create(session.main, {"caller": 0})
    assert caught.value.name == "caller"
    assert caught.value.second == "<stubs>"


def test_a_removed_body_is_not_called_any_more(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    tracker = session.bodies.create_resource_tracker()
    session.add(session.bodies, "int passing(void) { return 7; }", tracker=tracker)
    redirector.create(session.main, {"f": (session.bodies, "one")})
    function = session.function("f")
    redirector.redirect(session.main, {"f": (session.bodies, "passing")})
    assert function() == 7
    tracker.remove()
    with pytest.raises(LazyCallError) as caught:
        function()
    assert isinstance(caught.value.__cause__, UndefinedSymbolError)
    redirector.redirect(session.main, {"f": (session.bodies, "one")})
    assert function() == 1


def test_removal_of_the_old_body_does_not_affect_a_redirected_stub(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    tracker = session.bodies.create_resource_tracker()
    session.add(session.bodies, "int passing(void) { return 7; }", tracker=tracker)
    redirector.create(session.main, {"f": (session.bodies, "passing")})
    function = session.function("f")
    assert function() == 7
    redirector.redirect(session.main, {"f": session.address("two", session.bodies)})
    tracker.remove()
    assert function() == 2


def test_removed_functions_cannot_be_redirected(session: StubSession) -> None:
    redirector = RedirectableSymbolManager(session.stubs)
    tracker = session.main.create_resource_tracker()
    redirector.create(session.main, {"f": (session.bodies, "one")}, tracker=tracker)
    assert session.function("f")() == 1
    tracker.remove()
    with pytest.raises(NotRedirectableError):
        redirector.redirect(session.main, {"f": 1})
    redirector.create(session.main, {"f": (session.bodies, "two")})
    assert session.function("f")() == 2


def test_a_body_without_an_address_changes_no_stub(session: StubSession) -> None:
    session.bodies.define(
        AbsoluteSymbols({"nowhere": ExecutorSymbolDef(0, JITSymbolFlags.EXPORTED)})
    )
    redirector = RedirectableSymbolManager(session.stubs)
    redirector.create(session.main, {"x": (session.bodies, "one"), "y": (session.bodies, "one")})
    x, y = session.function("x"), session.function("y")
    assert (x(), y()) == (1, 1)
    with pytest.raises(UndefinedSymbolError, match="nowhere"):
        redirector.redirect(
            session.main, {"x": (session.bodies, "two"), "y": (session.bodies, "nowhere")}
        )
    assert (x(), y()) == (1, 1)
    redirector.redirect(
        session.main, {"x": (session.bodies, "two"), "y": (session.bodies, "three")}
    )
    assert (x(), y()) == (2, 3)
