"""Calls over a connection to an executor that a test plays, and every way in which it may end."""

import gc
import operator
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor import (
    ExecutorDisconnectedError,
    ExecutorTimeoutError,
    ProtocolError,
)
from jitlink.executor.remote.channels import PipeChannel
from jitlink.executor.remote.connection import Connection, MakeError, maker_of
from jitlink.executor.remote.messages import Message, OpCode
from jitlink.sps import ERROR, Failure, WrapperFunctionResult
from tests.executor.remote.fake import SETUP_PAYLOAD, FakeExecutor, encoded
from tests.executor.remote.resources import is_free_soon, open_descriptors

pytestmark = pytest.mark.serial("counts threads and descriptors")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    gc.collect()
    before = _resources()
    yield
    # What earlier tests have left may go meanwhile.
    assert is_free_soon(lambda: all(map(operator.le, _resources(), before)))


def _resources() -> tuple[int, int]:
    threads = [t for t in threading.enumerate() if t.name.startswith("jitlink executor")]
    return len(threads), len(open_descriptors())


class Caller:
    """A call, on a thread of its own."""

    def __init__(self, connection: Connection, tag: int, data: bytes = b"") -> None:
        self.result: WrapperFunctionResult | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._call, args=(connection, tag, data))
        self._thread.start()

    def _call(self, connection: Connection, tag: int, data: bytes) -> None:
        try:
            self.result = tasks.run(connection.call(tag, data))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def wait(self) -> None:
        """Wait until the call has returned or failed."""
        self._thread.join(20)
        assert not self._thread.is_alive()

    def join(self) -> bytes:
        """What the call returned."""
        self.wait()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result.data


def test_the_setup_is_read() -> None:
    with FakeExecutor() as executor:
        setup = executor.connection.setup(20)
        assert setup.triple == "x86_64-unknown-linux-gnu"
        assert setup.bootstrap_symbols == {"one": 1}


def test_results_arrive_in_any_order() -> None:
    with FakeExecutor() as executor:
        callers, messages = [], []
        for tag in range(1, 51):
            callers.append(Caller(executor.connection, tag, bytes([tag])))
            messages.append(executor.receive())
        assert [(m.tag, m.payload) for m in messages] == [(n, bytes([n])) for n in range(1, 51)]
        Random(1).shuffle(messages)
        for message in messages:
            executor.answer(message, message.payload * 2)
        assert [caller.join() for caller in callers] == [bytes([n, n]) for n in range(1, 51)]


def test_large_messages_pass_both_ways_at_once() -> None:
    """Neither side may wait for the other one to read."""
    size = 8 << 20
    with FakeExecutor(limit=2 * size) as executor:
        caller = Caller(executor.connection, 1, bytes(size))
        sender = threading.Thread(target=executor.send, args=(encoded(2, 0, payload=bytes(size)),))
        sender.start()
        message = executor.receive()
        sender.join(20)
        assert len(message.payload) == size == len(caller.join())


def test_an_executor_that_does_not_read_blocks_no_caller() -> None:
    with FakeExecutor() as executor:
        callers = [Caller(executor.connection, 1, bytes(1 << 20)) for _ in range(4)]
        executor.connection.setup(20)
        executor.close()
        for caller in callers:
            with pytest.raises(ExecutorDisconnectedError):
                caller.join()


def test_calls_of_the_executor_may_call_in_turn() -> None:
    with FakeExecutor() as executor:

        def handle(data: bytes) -> WrapperFunctionResult:
            inner = tasks.run(executor.connection.call(101, data + b"!"))
            return WrapperFunctionResult(inner.data + b"?")

        executor.connection.handlers[100] = handle
        for number in range(20):
            executor.send(encoded(OpCode.CALL_WRAPPER, number, 100, b"x%d" % number))
        inner = [executor.receive() for _ in range(20)]
        assert {(m.opcode, m.tag) for m in inner} == {(OpCode.CALL_WRAPPER, 101)}
        for message in reversed(inner):
            executor.answer(message, message.payload)
        results = {m.sequence: m.payload for m in (executor.receive() for _ in range(20))}
        assert results == {n: b"x%d!?" % n for n in range(20)}


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_handler_that_fails_sends_an_empty_result(error: type[BaseException]) -> None:
    with FakeExecutor() as executor:

        def handle(data: bytes) -> WrapperFunctionResult:
            raise error(f"{data!r}")

        executor.send(encoded(OpCode.CALL_WRAPPER, 5, 1))
        assert executor.receive() == Message(OpCode.RESULT, 5, 0, b"")
        executor.connection.handlers[1] = handle
        executor.send(encoded(OpCode.CALL_WRAPPER, 6, 1))
        assert executor.receive() == Message(OpCode.RESULT, 6, 0, b"")


ENDS: dict[str, tuple[Callable[[FakeExecutor], None], type[ExecutorError], str]] = {
    "closed": (FakeExecutor.close, ExecutorDisconnectedError, "has closed the connection"),
    "reset": (FakeExecutor.reset, ExecutorDisconnectedError, "closed the connection|broke"),
    "hangup": (
        lambda e: e.send(encoded(OpCode.HANGUP, payload=ERROR.serialize(None))),
        ExecutorDisconnectedError,
        "the executor has hung up$",
    ),
    "hangup with a reason": (
        lambda e: e.send(encoded(OpCode.HANGUP, payload=ERROR.serialize(Failure("bored")))),
        ExecutorDisconnectedError,
        "the executor has hung up: bored",
    ),
    "hangup with garbage": (
        lambda e: e.send(encoded(OpCode.HANGUP, payload=b"\x07")),
        ExecutorDisconnectedError,
        "the executor has hung up$",
    ),
    "garbage": (lambda e: e.send(b"\xff" * 64), ProtocolError, "more than the limit"),
    "truncated": (
        lambda e: e.send_part(encoded(OpCode.RESULT, payload=b"abc")[:-1]),
        ProtocolError,
        "ended within a message",
    ),
    "second setup": (
        lambda e: e.send(encoded(OpCode.SETUP, payload=SETUP_PAYLOAD)),
        ProtocolError,
        "second setup message",
    ),
    "result of no call": (
        lambda e: e.send(encoded(OpCode.RESULT, 99)),
        ProtocolError,
        "a result of no call, 99",
    ),
    "result of a call twice": (
        lambda e: e.send(encoded(OpCode.RESULT, 0) * 2),
        ProtocolError,
        "a result of no call, 0",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_all_calls_fail_when_the_connection_ends(end: str) -> None:
    act, kind, reason = ENDS[end]
    with FakeExecutor() as executor:
        callers = [Caller(executor.connection, n) for n in range(3)]
        for _ in callers:
            executor.receive()
        act(executor)
        for caller in callers:
            caller.wait()
        # The first one may have had its result before.
        errors = [caller.error for caller in callers if caller.error is not None]
        assert len(errors) >= 2
        assert {type(error) for error in errors} == {kind}
        assert all(re.search(reason, str(error)) for error in errors)
        with pytest.raises(kind, match=reason):
            tasks.run(executor.connection.call(1, b""))
        assert not executor.connection.is_open


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(OpCode.RESULT), "began with a message RESULT, not with its setup"),
        (encoded(OpCode.SETUP, payload=b"\x05"), "setup cannot be read"),
        (encoded(OpCode.SETUP, payload=SETUP_PAYLOAD[:-1]), "setup cannot be read"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n<html>", "limit|opcode"),
    ],
)
def test_what_is_no_executor_is_refused(data: bytes, reason: str) -> None:
    with FakeExecutor(sets_up=False) as executor:
        executor.send(data)
        with pytest.raises(ProtocolError, match=reason):
            executor.connection.setup(20)


def test_an_executor_that_says_nothing() -> None:
    with (
        FakeExecutor(sets_up=False) as executor,
        pytest.raises(ExecutorDisconnectedError, match=r"said nothing for 0\.05 s"),
    ):
        executor.connection.setup(0.05)


def test_a_call_that_takes_too_long() -> None:
    with FakeExecutor() as executor:
        executor.connection.setup(20)
        with pytest.raises(ExecutorTimeoutError, match=r"did not return within 0\.05 s"):
            tasks.run(executor.connection.call(1, b"", 0.05))
        with pytest.raises(ExecutorTimeoutError):
            tasks.run(executor.connection.call(1, b""))


def test_calls_in_time_do_not_stop_the_executor() -> None:
    with FakeExecutor() as executor:
        for number in range(3):
            future = Caller(executor.connection, number)
            executor.answer(executor.receive(), b"%d" % number)
            assert future.join() == b"%d" % number


def test_closing_hangs_up() -> None:
    with FakeExecutor() as executor:
        executor.connection.setup(20)
        closer = threading.Thread(target=executor.connection.close)
        closer.start()
        assert executor.receive() == Message(OpCode.HANGUP, 0, 0, b"\0")
        with pytest.raises(EOFError):
            executor.receive()
        executor.close()
        closer.join(20)
        executor.connection.close()
        with pytest.raises(ExecutorDisconnectedError, match="closed"):
            tasks.run(executor.connection.call(1, b""))


def test_closing_cuts_the_connection_of_an_executor_that_goes_on() -> None:
    with FakeExecutor() as executor:
        executor.connection.setup(20)
        caller = Caller(executor.connection, 1)
        executor.receive()
        executor.connection.close(0.05)
        with pytest.raises(ExecutorDisconnectedError, match="the connection was closed"):
            caller.join()


def test_a_flood_of_calls_ends_the_connection() -> None:
    go_on = threading.Event()

    def handle(_data: bytes) -> WrapperFunctionResult:
        go_on.wait(20)
        return WrapperFunctionResult()

    with FakeExecutor() as executor:
        executor.connection.handlers[0] = handle
        executor.send(encoded(OpCode.CALL_WRAPPER) * 1001)
        caller = Caller(executor.connection, 1)
        with pytest.raises(ProtocolError, match="more than 1000 calls at once"):
            caller.join()
        go_on.set()


def test_a_failure_of_the_connection_itself_ends_all_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with FakeExecutor() as executor:
        caller = Caller(executor.connection, 1)
        executor.receive()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            executor.send(encoded(OpCode.CALL_WRAPPER))
            caller.wait()
        with pytest.raises(ExecutorDisconnectedError, match="connection failed: RuntimeError"):
            caller.join()


def test_a_connection_that_has_ended_writes_nowhere(tmp_path: Path) -> None:
    """The system uses the number of a closed descriptor again, at once."""
    to_controller, from_executor = os.pipe()
    to_executor, from_controller = os.pipe()
    others: list[int] = []
    is_ended, go_on = threading.Event(), threading.Event()

    def explain(error: ExecutorError) -> Callable[[], ExecutorError]:
        # The lowest numbers are used first.
        while not others or others[-1] < from_controller:
            path = tmp_path / str(len(others))
            others.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
        is_ended.set()
        go_on.wait(20)
        return lambda: error

    connection = Connection(PipeChannel(to_controller, from_controller), explain=explain)
    os.write(from_executor, encoded(OpCode.SETUP, payload=SETUP_PAYLOAD))
    connection.setup(20)
    os.close(from_executor)
    assert is_ended.wait(20)
    assert from_controller in others
    caller = Caller(connection, 1)
    time.sleep(0.05)
    go_on.set()
    caller.wait()
    assert not any(path.stat().st_size for path in tmp_path.iterdir())
    for descriptor in (*others, to_executor):
        os.close(descriptor)
    connection.close()


CONVERSATION = (
    encoded(OpCode.SETUP, payload=SETUP_PAYLOAD)
    + encoded(OpCode.RESULT, 0, payload=b"first")
    + encoded(OpCode.CALL_WRAPPER, 0, 77, b"question")
    + encoded(OpCode.RESULT, 1, payload=b"second")
    + encoded(OpCode.HANGUP, payload=ERROR.serialize(None))
)


def _play(data: bytes) -> list[bytes | BaseException]:
    """Two calls to an executor that sends these bytes and goes away."""
    with FakeExecutor(sets_up=False, limit=1 << 16) as executor:
        callers = [Caller(executor.connection, n) for n in range(2)]
        for _ in callers:
            executor.receive()
        executor.send(data)
        executor.close()
        results: list[bytes | BaseException] = []
        for caller in callers:
            try:
                results.append(caller.join())
            except ExecutorError as error:
                results.append(error)
        return results


def test_a_conversation_that_is_cut_at_every_byte() -> None:
    for cut in range(len(CONVERSATION)):
        results = _play(CONVERSATION[:cut])
        assert any(isinstance(each, ExecutorError) for each in results) or cut > 200
    assert set(map(str, _play(CONVERSATION))) == {str(b"first"), str(b"second")}


def test_mutated_conversations_end_in_bounded_time() -> None:
    random = Random(5)
    count = 10_000 if os.environ.get("JITLINK_LONG") else 300
    for _ in range(count):
        data = bytearray(CONVERSATION)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.choice(
                (0, 1, 0x7F, 0xFF, random.randrange(256))
            )
        if random.random() < 0.2:
            del data[random.randrange(len(data)) :]
        for each in _play(bytes(data)):
            assert isinstance(each, bytes | ExecutorError)


def test_pipes_that_close_one_by_one() -> None:
    to_controller, from_executor = os.pipe()
    to_executor, from_controller = os.pipe()
    connection = Connection(PipeChannel(to_controller, from_controller))
    os.write(from_executor, encoded(OpCode.SETUP, payload=SETUP_PAYLOAD))
    connection.setup(20)
    # The executor reads nothing any more, and what it has sent is still read.
    os.close(to_executor)
    caller = Caller(connection, 1)
    os.write(from_executor, encoded(OpCode.HANGUP, payload=ERROR.serialize(Failure("no more"))))
    with pytest.raises(ExecutorDisconnectedError, match="no more"):
        caller.join()
    os.close(from_executor)
    connection.close()


def test_a_forked_process_has_nothing_of_a_connection_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It closes no descriptors, which may be those of something else now."""
    start = threading.Thread.start

    def run(thread: threading.Thread) -> None:
        start(thread)
        thread.join(20)

    (to_us, from_them), (to_them, from_us) = os.pipe(), os.pipe()
    os.close(from_them)
    os.close(to_them)
    monkeypatch.setattr(threading.Thread, "start", run)
    connection = Connection(PipeChannel(to_us, from_us))
    assert not connection.is_open
    others = [*os.pipe(), *os.pipe()]
    try:
        child = os.fork()
        if not child:
            try:
                for descriptor in others:
                    os.fstat(descriptor)
            except OSError:
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        for descriptor in others:
            os.close(descriptor)


def test_a_forked_process_leaves_a_connection_alone_that_is_ending() -> None:
    asked, told = threading.Event(), threading.Event()

    def explain(error: ExecutorError) -> MakeError:
        asked.set()
        told.wait(20)
        return maker_of(error)

    (to_us, from_them), (to_them, from_us) = os.pipe(), os.pipe()
    connection = Connection(PipeChannel(to_us, from_us), explain=explain)
    os.close(from_them)
    assert asked.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(20)
        status = 1
        try:
            tasks.run(connection.call(1, b""))
        except ExecutorDisconnectedError:
            status = 0 if connection.is_inherited else 2
        finally:
            os._exit(status)
    told.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(to_them)
    connection.close()


def test_a_forked_process_leaves_the_connection_alone() -> None:
    with FakeExecutor() as executor:
        executor.connection.setup(20)
        before = open_descriptors()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                # The socket, and both ends of a pipe.
                assert len(before - open_descriptors()) == 3
                tasks.run(executor.connection.call(1, b""))
            except ExecutorDisconnectedError:
                executor.connection.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        caller = Caller(executor.connection, 3)
        executor.answer(executor.receive(), b"here")
        assert caller.join() == b"here"
