"""Faults on the wire, as controllers see them: bounded time, the right exception, nothing left."""

import gc
import operator
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from jitlink.errors import ExecutorError, JITLinkError
from jitlink.executor import (
    ExecutorDisconnectedError,
    ExecutorTimeoutError,
    ProtocolError,
    RemoteExecutorProcessControl,
)
from jitlink.executor.remote import control
from jitlink.executor.remote.channels import SocketChannel
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.orc import FailedToMaterializeError
from tests.executor.remote.conversation import link_and_run, played, recorded
from tests.executor.remote.resources import is_free_soon, open_descriptors
from tests.mutations import Region, mutant

LONG = os.environ.get("JITLINK_LONG") == "1"
MUTANTS = 10000 if LONG else 300
STRIDE = 1 if LONG else 3
"""At every how many bytes a conversation is cut."""
SECONDS = 20


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    recorded()
    gc.collect()
    before = _resources()
    yield
    assert is_free_soon(lambda: all(map(operator.le, _resources(), before)))


def _resources() -> tuple[int, int]:
    return threading.active_count(), len(open_descriptors())


def converse(
    script: Sequence[Sequence[bytes]], memory: MemoryKind = "generic", timeout: float = SECONDS
) -> None:
    """Have a controller talk to an executor that follows a script."""
    begun = time.monotonic()
    try:
        with (
            played(script) as connected,
            RemoteExecutorProcessControl(
                SocketChannel(connected), memory=memory, timeout=timeout
            ) as executor,
        ):
            link_and_run(executor)
    finally:
        assert time.monotonic() - begun < SECONDS + timeout


def cause_of(error: BaseException) -> BaseException:
    """What a lookup failed for."""
    return error.reason if isinstance(error, FailedToMaterializeError) else error


def test_the_conversation_can_be_repeated() -> None:
    converse([[message] for message in recorded()])


def test_byte_by_byte() -> None:
    converse([[message[n : n + 1] for n in range(len(message))] for message in recorded()])


def test_cut_at_every_byte() -> None:
    """The executor is gone after so many bytes, at whatever moment that is."""
    messages = recorded()
    # The last answer is about memory that is released: no error for an executor that is gone.
    for number, message in enumerate(messages[:-1]):
        for cut in range(0, len(message), STRIDE):
            script = [[each] for each in messages[:number]]
            with pytest.raises(JITLinkError) as caught:
                converse([*script, [message[:cut]]])
            expected = ProtocolError if cut else ExecutorDisconnectedError
            assert type(cause_of(caught.value)) is expected, (number, cut)
    for cut in range(0, len(messages[-1]), STRIDE):
        converse([*([each] for each in messages[:-1]), [messages[-1][:cut]]])


def test_it_ends_the_connection_without_a_word() -> None:
    with pytest.raises(ExecutorDisconnectedError, match="has closed the connection"):
        converse([[]])


def _fields(message: bytes) -> list[Region]:
    """Headers matter more than what they announce."""
    return [Region(0, 32, 2), Region(32, max(len(message) - 32, 1), 3)]


def _scripts(number: int) -> list[list[bytes]]:
    """A conversation with a fault; the same number is the same fault."""
    chance = random.Random(number)
    script = [[message] for message in recorded()]
    place = chance.randrange(len(script))
    (message,) = script[place]
    kind = chance.choice(("mutated", "mutated", "mutated", "repeated", "swapped", "lost", "noise"))
    if kind == "mutated":
        # One byte more, so that there is a payload to mutate.
        script[place] = [mutant(message + b"\0", _fields(message), number)[: len(message)]]
    elif kind == "repeated":
        script[place] = [message, message]
    elif kind == "swapped":
        other = chance.randrange(len(script))
        script[place], script[other] = script[other], script[place]
    elif kind == "lost":
        script[place] = []
    else:
        script[place] = [message, chance.randbytes(chance.randrange(1, 100))]
    return script


@pytest.mark.parametrize("memory", ["generic", "simple-remote"])
def test_mutated_messages(memory: MemoryKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an executor says may be anything: it is an error, or harmless."""
    monkeypatch.setattr(control, "_SETUP_TIMEOUT", 0.1)
    allowed = (JITLinkError, AssertionError)
    outcomes: dict[str, int] = {}
    for number in range(MUTANTS // 2):
        try:
            converse(_scripts(number), memory, 0.1)
        except allowed as error:
            reason = cause_of(error)
            # A wrong number is what the function may have returned.
            assert isinstance(reason, JITLinkError) or "== 42" in str(reason), (number, reason)
            name = type(reason).__name__
        else:
            name = "none"
        outcomes[name] = outcomes.get(name, 0) + 1
    assert outcomes["ProtocolError"] > MUTANTS // 20
    assert outcomes["none"] > 0


@pytest.mark.parametrize("size", [1 << 33, (1 << 64) - 1])
def test_oversized_messages(size: int) -> None:
    script = [[message] for message in recorded()]
    script[2] = [size.to_bytes(8, "little") + script[2][0][8:]]
    with pytest.raises(JITLinkError) as caught:
        converse(script)
    assert isinstance(cause_of(caught.value), ProtocolError)
    assert f"has {size} bytes, more than the limit" in str(cause_of(caught.value))


def test_an_executor_that_goes_on_but_says_no_more() -> None:
    script = [[message] for message in recorded()]
    with pytest.raises(JITLinkError) as caught:
        converse([*script[:3], [], []], timeout=0.2)
    assert isinstance(cause_of(caught.value), ExecutorTimeoutError)


def test_results_that_come_too_early() -> None:
    messages = recorded()
    with pytest.raises(ExecutorError, match="a result of no call, 0"):
        converse([messages])
