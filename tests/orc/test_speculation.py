"""Speculation: functions are linked before they are called, in the suggested order."""

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from jitlink.inputs import open_input
from jitlink.orc.lazy import BODY_SUFFIX, LazyHiddenObjectLayer, Speculator, SymbolTransform
from jitlink.orc.stubs import FunctionBody, IndirectStubsManager
from tests.orc.jits import compiled
from tests.orc.sessions import StubSession, stub_session

NAMES = ("f", "g", "h")
CALLER = """
int f(void), g(void), h(void);
int call(int which) { return which == 0 ? f() : which == 1 ? g() : h(); }
"""


@pytest.fixture
def session() -> Iterator[StubSession]:
    with stub_session() as created:
        yield created


def set_up(session: StubSession, speculator: Speculator, *lacking: str) -> None:
    """Functions, each in a lazy object of its own; some refer to undefined symbols."""
    stubs = IndirectStubsManager(session.layer, listeners=[speculator])
    layer = LazyHiddenObjectLayer(session.layer, SymbolTransform(is_lazy=True), stubs)
    for number, name in enumerate(NAMES):
        text = f"int lacking(void); int {name}(void) {{ return {number} + 10; }}"
        if name in lacking:
            text = text.replace("10;", "lacking();")
        layer.add_objects(session.main, [open_input(compiled(text))])
    session.add(session.main, CALLER)


def linked(session: StubSession) -> list[str]:
    """The bodies that were linked, in order."""
    names = [name for _, symbols in session.counter.links for name in sorted(symbols)]
    return [name.removesuffix(BODY_SUFFIX) for name in names if name.endswith(BODY_SUFFIX)]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("order", [("h", "f", "g"), ("g", "h", "f"), ("f", "g", "h")])
def test_bodies_are_linked_in_the_suggested_order(
    session: StubSession, order: Sequence[str]
) -> None:
    suggestions = [("other", "f" + BODY_SUFFIX), *(("main", name + BODY_SUFFIX) for name in order)]
    set_up(session, Speculator(session.session, suggestions))
    assert linked(session) == []
    session.address("call")
    wait_until(lambda: len(linked(session)) == 3)
    assert linked(session) == list(order)


def test_without_suggestions_all_are_linked(session: StubSession) -> None:
    set_up(session, Speculator(session.session))
    # Only functions that are referred to.
    time.sleep(0.05)
    assert linked(session) == []
    call = session.function("call", ctypes.c_int, ctypes.c_int)
    assert [call(number) for number in range(3)] == [10, 11, 12]
    wait_until(lambda: sorted(linked(session)) == ["f", "g", "h"])


def test_a_body_that_cannot_be_linked_is_skipped(session: StubSession) -> None:
    set_up(session, Speculator(session.session, [("main", "f" + BODY_SUFFIX)]), "f")
    session.address("call")
    wait_until(lambda: linked(session) == ["g", "h"])
    assert session.errors == []
    with pytest.raises(Exception, match="f in main was called and could not be linked"):
        session.function("f")()


def test_nothing_is_linked_after_the_stop(session: StubSession) -> None:
    speculator = Speculator(session.session)
    set_up(session, speculator)
    bodies = [FunctionBody(session.main, name + BODY_SUFFIX) for name in NAMES]

    def make_and_stop() -> None:
        speculator.stubs_emitted(bodies)
        speculator.stop()

    session.session.run(make_and_stop)
    time.sleep(0.05)
    assert linked(session) == []
    # Stubs that are emitted later are candidates again.
    session.session.run(lambda: speculator.stubs_emitted(bodies[1:2]))
    wait_until(lambda: linked(session) == ["g"])


def test_called_bodies_are_left_to_the_call(session: StubSession) -> None:
    speculator = Speculator(session.session)
    set_up(session, speculator)
    body = FunctionBody(session.main, "f" + BODY_SUFFIX)

    def note() -> None:
        speculator.stubs_emitted([body, body])
        speculator.stub_called(body)

    session.session.run(note)
    time.sleep(0.05)
    assert linked(session) == []


def test_the_session_ends_during_speculation() -> None:
    for _ in range(5):
        with stub_session() as session:
            set_up(session, Speculator(session.session))
            session.address("call")
