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
def made() -> Iterator[StubSession]:
    with stub_session() as session:
        session.add(session.bodies, VERSIONS)
        session.add(session.main, CALLER)
        yield session


def test_a_function_leads_where_it_is_told(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    found = made.session.lookup(made.bodies, ["one", "two", "three"])
    redirector.create(made.main, {"f": found["one"].address})
    caller = made.function("caller")
    assert caller() == 1
    redirector.redirect(made.main, {"f": found["two"]})
    assert caller() == 2
    redirector.redirect(made.main, {"f": (made.bodies, "three")})
    assert caller() == 3
    # A pointer that was taken is the stub's, and follows.
    pointer = made.function("pointer", ctypes.c_void_p)()
    assert pointer == made.address("f")
    redirector.redirect(made.main, {"f": found["one"].address})
    assert ctypes.CFUNCTYPE(ctypes.c_int)(pointer)() == 1
    assert made.errors == []


def test_named_definitions_are_linked_when_they_are_needed(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    redirector.create(made.main, {"f": (made.bodies, "one")})
    caller = made.function("caller")
    assert made.counter.count("one") == 0
    made.add(made.bodies, "int four(void) { return 4; }")
    redirector.redirect(made.main, {"f": (made.bodies, "four")})
    assert made.counter.count("four") == 1
    assert caller() == 4
    # The first one was never called.
    assert made.counter.count("one") == 0
    redirector.redirect(made.main, {"f": (made.bodies, "one")})
    assert made.counter.count("one") == 1
    assert caller() == 1


def test_a_function_may_be_redirected_before_anybody_looked_it_up(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    redirector.create(made.main, {"f": (made.bodies, "one"), "g": 0})
    redirector.redirect(made.main, {"f": (made.bodies, "two")})
    state = made.session.run(lambda: made.main.symbols["f"].state)
    assert state == SymbolState.NEVER_SEARCHED
    assert made.function("caller")() == 2


def test_calls_under_load_go_to_the_old_function_or_to_the_new_one(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    found = made.session.lookup(made.bodies, ["one", "two"])
    redirector.create(made.main, {"f": found["one"]})
    many = made.function("many", ctypes.c_int, ctypes.c_int)
    done = threading.Event()
    results: list[int] = []
    seen: set[int] = set()

    def call() -> None:
        while not done.is_set():
            results.append(many(100_000))

    def redirect() -> None:
        caller = made.function("caller")
        for number in range(1_000):
            redirector.redirect(made.main, {"f": found["two" if number % 2 else "one"]})
            seen.add(caller())
        done.set()

    run_threads([call, call, call, redirect])
    assert len(results) > 3
    assert set(results) == {0}
    assert seen == {1, 2}


def test_a_redirection_while_the_body_is_linked_wins(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    found = made.session.lookup(made.bodies, ["one", "two"])
    slow = Slow("late", found["one"].address)
    made.bodies.define(slow)
    redirector.create(made.main, {"f": (made.bodies, "late")})
    function = made.function("f")
    results: list[int] = []

    def redirect() -> None:
        assert slow.started.wait(30)
        redirector.redirect(made.main, {"f": found["two"]})
        slow.finish(made.session)

    run_threads([lambda: results.append(function()), redirect])
    # The call that waited for one body gets the other, too.
    assert results == [2]
    assert function() == 2


def test_what_is_no_stub_cannot_be_redirected(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    redirector.create(made.main, {"f": (made.bodies, "one")})
    caller = made.function("caller")
    assert caller() == 1
    with pytest.raises(NotRedirectableError) as caught:
        redirector.redirect(made.main, {"f": (made.bodies, "two"), "caller": 1, "absent": 2})
    assert caught.value.dylib == "main"
    assert caught.value.names == ("absent", "caller")
    assert str(caught.value) == "not redirectable in main: absent, caller"
    assert caller() == 1


def test_a_definition_that_cannot_be_had_changes_nothing(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    redirector.create(made.main, {"f": (made.bodies, "one"), "g": (made.bodies, "one")})
    made.add(made.bodies, "int nowhere(void); int broken(void) { return nowhere(); }")
    caller = made.function("caller")
    with pytest.raises(UndefinedSymbolError) as undefined:
        redirector.redirect(made.main, {"g": (made.bodies, "two"), "f": (made.bodies, "absent")})
    assert undefined.value.names == ("absent",)
    with pytest.raises(FailedToMaterializeError):
        redirector.redirect(made.main, {"f": (made.bodies, "broken")})
    assert caller() == 1
    assert made.function("g")() == 1


def test_a_name_can_be_defined_once(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    with pytest.raises(DuplicateDefinitionError) as caught:
        redirector.create(made.main, {"caller": 0})
    assert caught.value.name == "caller"
    assert caught.value.second == "<stubs>"


def test_a_body_that_goes_is_not_called_any_more(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    tracker = made.bodies.create_resource_tracker()
    made.add(made.bodies, "int passing(void) { return 7; }", tracker=tracker)
    redirector.create(made.main, {"f": (made.bodies, "one")})
    function = made.function("f")
    redirector.redirect(made.main, {"f": (made.bodies, "passing")})
    assert function() == 7
    tracker.remove()
    with pytest.raises(LazyCallError) as caught:
        function()
    assert isinstance(caught.value.__cause__, UndefinedSymbolError)
    redirector.redirect(made.main, {"f": (made.bodies, "one")})
    assert function() == 1


def test_a_stub_that_leads_elsewhere_does_not_care_for_its_old_body(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    tracker = made.bodies.create_resource_tracker()
    made.add(made.bodies, "int passing(void) { return 7; }", tracker=tracker)
    redirector.create(made.main, {"f": (made.bodies, "passing")})
    function = made.function("f")
    assert function() == 7
    redirector.redirect(made.main, {"f": made.address("two", made.bodies)})
    tracker.remove()
    assert function() == 2


def test_removed_functions_cannot_be_redirected(made: StubSession) -> None:
    redirector = RedirectableSymbolManager(made.stubs)
    tracker = made.main.create_resource_tracker()
    redirector.create(made.main, {"f": (made.bodies, "one")}, tracker=tracker)
    assert made.function("f")() == 1
    tracker.remove()
    with pytest.raises(NotRedirectableError):
        redirector.redirect(made.main, {"f": 1})
    redirector.create(made.main, {"f": (made.bodies, "two")})
    assert made.function("f")() == 2


def test_a_body_without_an_address_leaves_all_stubs_where_they_led(made: StubSession) -> None:
    made.bodies.define(AbsoluteSymbols({"nowhere": ExecutorSymbolDef(0, JITSymbolFlags.EXPORTED)}))
    redirector = RedirectableSymbolManager(made.stubs)
    redirector.create(made.main, {"x": (made.bodies, "one"), "y": (made.bodies, "one")})
    x, y = made.function("x"), made.function("y")
    assert (x(), y()) == (1, 1)
    with pytest.raises(UndefinedSymbolError, match="nowhere"):
        redirector.redirect(made.main, {"x": (made.bodies, "two"), "y": (made.bodies, "nowhere")})
    assert (x(), y()) == (1, 1)
    redirector.redirect(made.main, {"x": (made.bodies, "two"), "y": (made.bodies, "three")})
    assert (x(), y()) == (2, 3)
