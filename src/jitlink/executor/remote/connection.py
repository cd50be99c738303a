"""A connection to an executor: calls in both directions over one byte stream.

A thread of the connection receives messages, and sends what the system did not take at once. It
waits for nothing else: it completes the futures of calls whose results arrive, and each call from
the executor runs on a thread of its own, which may make calls in turn. Any thread may call.

When the connection ends, for whatever reason, all calls that are under way fail with the error that
says why, and so do later ones.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice

from jitlink.errors import ExecutorError
from jitlink.executor.remote.channels import RECEIVED_AT_ONCE, Channel
from jitlink.executor.remote.errors import (
    ExecutorDisconnectedError,
    ExecutorInterruptedError,
    ExecutorTimeoutError,
    ProtocolError,
)
from jitlink.executor.remote.incoming import Handler, mark_handler
from jitlink.executor.remote.messages import (
    DEFAULT_LIMIT,
    Message,
    MessageReader,
    OpCode,
    ResultKind,
    header_of,
)
from jitlink.sps import ERROR, STRING, Failure, SPSError, WrapperFunctionResult
from jitlink.sps.services import SETUP, Setup
from jitlink.tasks import Future, TaskInterruptedError

_BUFFERS_AT_ONCE = 64
_MOST_HANDLERS = 1000
"""How many calls from an executor may be under way."""
_IDLE_SECONDS = 5.0
"""Seconds that a thread for such calls waits for the next one."""
_RETURN_TIMEOUT = 0.02
"""Seconds that a call has to return by itself when its caller was interrupted."""
_INTERRUPT_TIMEOUT = 0.5
"""Seconds that a call has to return when the executor was interrupted for it."""
_STOP_TIMEOUT = 5.0
"""Seconds that a caller waits for its call to be stopped."""
_CLOSE_TIMEOUT = 5.0
"""Seconds that an executor has to finish when a connection is closed."""

MakeError = Callable[[], ExecutorError]


class _Call:
    """A call that is under way.

    Attributes:
        future: of its result.
        seconds: how long it may take, or None.
        deadline: until when, by the monotonic clock.
        is_interrupted: whether the executor was interrupted for it.
        ended: set when it has ended, if its caller was interrupted.
    """

    __slots__ = ("deadline", "ended", "future", "is_interrupted", "seconds")

    def __init__(self, future: Future[WrapperFunctionResult], seconds: float | None) -> None:
        self.future, self.seconds = future, seconds
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.is_interrupted = False
        self.ended: threading.Event | None = None

    def succeed(self, result: WrapperFunctionResult) -> None:
        self._complete(partial(self.future.set_result_unless_done, result))

    def fail(self, error: BaseException) -> None:
        future = self.future
        self._complete(lambda: None if future.is_done else future.set_exception(error))

    def _complete(self, action: Callable[[], object]) -> None:
        self.future.loop.call_soon_threadsafe(action)
        if self.ended is not None:
            self.ended.set()


class Connection:
    """A connection to an executor.

    Args:
        channel: the byte stream; the connection closes it.
        limit: bytes of the largest message that is accepted.
        explain: called once when the connection ends, with what was seen of that; returns a
            function that makes the error of calls from then on. It may wait.
        stop: called when a call has not returned in time, to end the executor; it may wait.
        interrupt: called when a caller was interrupted, to have its call return; does not wait.

    Attributes:
        handlers: functions that take the arguments of calls from the executor, by tag. They are
            called on threads of their own; a call without one has an empty result.
        is_inherited: whether it belongs to the process that this one was forked from.
        notices: functions that take the arguments of calls that are not answered, by tag. They are
            called at once, and must not wait.

    Raises:
        ExecutorError: this process has no more descriptors or threads; the channel is closed.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        limit: int = DEFAULT_LIMIT,
        explain: Callable[[ExecutorError], MakeError] | None = None,
        stop: Callable[[], None] = lambda: None,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self.handlers: dict[int, Handler] = {}
        self.is_inherited = False
        self.notices: dict[int, Callable[[bytes], None]] = {}
        self._channel = channel
        self._reader = MessageReader(limit)
        self._explain = explain or maker_of
        self._stop, self._interrupt = stop, interrupt
        self._setup: Setup | None = None
        self._has_setup = threading.Event()
        # Guards all below.
        self._lock = threading.Lock()
        self._queue: deque[memoryview] = deque()
        self._calls: dict[int, _Call] = {}
        self._next = 0
        self._handlers = 0
        # What threads that are idle take.
        self._messages: deque[Message] = deque()
        self._has_message = threading.Condition(self._lock)
        self._idle_handlers = 0
        self._is_closing = False
        self._reason: MakeError | None = None
        self._make_error: MakeError | None = None
        self._thread = threading.Thread(target=self._serve, name="jitlink executor", daemon=True)
        with contextlib.ExitStack() as made:
            made.callback(channel.close)
            try:
                self._woken, self._wake_up = os.pipe()
                for descriptor in (self._woken, self._wake_up):
                    made.callback(os.close, descriptor)
                    os.set_blocking(descriptor, False)
                # Before the thread begins, which may end at once and remove it.
                _connections.add(self)
                made.callback(_connections.discard, self)
                self._thread.start()
            except (OSError, RuntimeError) as error:
                raise ExecutorError(f"cannot make a connection: {error}") from error
            made.pop_all()

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._make_error is None and not self._is_closing

    def check_open(self) -> None:
        """Check that calls can be made.

        Raises:
            ExecutorDisconnectedError: the connection has ended; a subclass says how.
        """
        with self._lock:
            if not self.is_open:
                raise self._error()

    def setup(self, timeout: float | None = None) -> Setup:
        """What the executor says of itself; waits for that.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            ExecutorError: it said nothing in that time, or the connection has ended.
        """
        if not self._has_setup.wait(timeout):
            raise ExecutorDisconnectedError(f"the executor said nothing for {timeout:g} s")
        if self._setup is None:
            raise self._error()
        return self._setup

    async def call(
        self,
        function: int,
        arguments: bytes | bytearray,
        seconds: float | None = None,
        *,
        runs_program: bool = False,
    ) -> WrapperFunctionResult:
        """Call a wrapper function.

        Args:
            function: its address in the executor.
            arguments: its serialized arguments.
            seconds: how long it may take before the executor is stopped; None for any time.
            runs_program: whether it may take long, and is to be stopped if the caller is
                interrupted. The executor is interrupted for that, and if the call does not return,
                ended. Other calls are left alone then.

        Raises:
            ExecutorDisconnectedError: the connection has ended; a subclass says how.
        """
        call = _Call(Future(), seconds)
        with self._lock:
            if not self.is_open:
                raise self._error()
            number = self._next
            self._next += 1
            self._calls[number] = call
            self._send(OpCode.CALL_WRAPPER, number, function, arguments)
            if seconds is not None:
                self._wake()
        try:
            return await call.future
        except (TaskInterruptedError, KeyboardInterrupt):
            if runs_program:
                self._stop_call(number, call)
            raise
        finally:
            # The traceback of an error refers to this frame, and the future to the error: avoid a
            # cycle, which would keep the code that has made the call.
            del call

    def _stop_call(self, number: int, call: _Call) -> None:
        """Stop a call whose caller was interrupted, and wait until it has ended."""
        ended = threading.Event()
        with self._lock:
            if number not in self._calls:
                return
            call.ended = ended
        if ended.wait(_RETURN_TIMEOUT):
            return
        with self._lock:
            call.is_interrupted = True
            call.deadline = time.monotonic() + _INTERRUPT_TIMEOUT
            self._wake()
        self._interrupt()
        ended.wait(_STOP_TIMEOUT)

    def close(self, timeout: float = _CLOSE_TIMEOUT, make_error: MakeError | None = None) -> None:
        """Hang up, and wait for the executor to end the connection; a second call does nothing.

        Args:
            timeout: seconds to wait. After that the connection is cut.
            make_error: makes the error of calls from then on; by default it says how the
                connection has ended.
        """
        with self._lock:
            self._reason = make_error
            if not self._is_closing and self._make_error is None:
                self._send(OpCode.HANGUP, 0, 0, ERROR.serialize(None))
                self._is_closing = True
            self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        self.abort()

    def abort(self) -> None:
        """Cut the connection, without waiting for anything."""
        with self._lock:
            self._is_closing = True
            if self._make_error is None:
                closed = partial(ExecutorDisconnectedError, "the connection was closed")
                self._make_error = self._reason or closed
            self._wake()

    # Sending, with the lock held

    def _send(self, opcode: OpCode, sequence: int, tag: int, payload: bytes | bytearray) -> None:
        is_idle = not self._queue
        self._queue.append(memoryview(header_of(opcode, sequence, tag, len(payload))))
        if payload:
            self._queue.append(memoryview(payload))
        if is_idle:
            self._flush()
        if self._queue:
            self._wake()

    def _flush(self) -> None:
        """Write as much as the system takes now."""
        queue = self._queue
        while queue:
            try:
                written = self._channel.send(list(islice(queue, _BUFFERS_AT_ONCE)))
            except BlockingIOError:
                return
            except OSError:
                # The other side has gone, which is seen as the end of what it sends.
                queue.clear()
                return
            while queue and written >= len(queue[0]):
                written -= len(queue.popleft())
            if written:
                queue[0] = queue[0][written:]

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_up, b"\0")

    def _error(self) -> ExecutorError:
        if self._make_error is None:
            return ExecutorDisconnectedError("the connection is being closed")
        return self._make_error()

    # The thread

    def _serve(self) -> None:
        error: ExecutorError
        try:
            self._exchange()
            self._reader.end()
            error = ExecutorDisconnectedError("the executor has closed the connection")
        except ExecutorError as seen:
            error = seen
        except OSError as seen:
            error = ExecutorDisconnectedError(f"the connection broke: {seen}")
        except Exception as seen:  # noqa: BLE001 - without an end, all calls would wait for ever
            error = ExecutorDisconnectedError(f"the connection failed: {seen!r}")
        self._end(error)

    def _exchange(self) -> None:
        """Receive and send until the connection ends."""
        incoming, outgoing = self._channel.incoming, self._channel.outgoing
        is_ended = False
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(incoming, selectors.EVENT_READ)
            is_writing = False
            while True:
                ready = {key.fd: events for key, events in selector.select(self._patience())}
                if self._woken in ready:
                    os.read(self._woken, RECEIVED_AT_ONCE)
                with self._lock:
                    if self._make_error is not None:
                        return
                    self._flush()
                    if self._is_closing and not self._queue and not is_ended:
                        is_ended = True
                        if is_writing and outgoing != incoming:
                            selector.unregister(outgoing)
                        is_writing = False
                        self._channel.end_output()
                    wants = bool(self._queue)
                if wants != is_writing:
                    _watch_output(selector, incoming, outgoing, wants=wants)
                    is_writing = wants
                if ready.get(incoming, 0) & selectors.EVENT_READ and not self._receive():
                    return
                self._check_time()

    def _patience(self) -> float | None:
        """Seconds until a call has taken too long."""
        with self._lock:
            deadlines = [c.deadline for c in self._calls.values() if c.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _check_time(self) -> None:
        """Stop the executor if a call has taken too long."""
        now = time.monotonic()
        with self._lock:
            late = [
                call
                for call in self._calls.values()
                if call.deadline is not None and call.deadline <= now
            ]
        if late:
            self._stop()
            if late[0].is_interrupted or late[0].seconds is None:
                raise ExecutorInterruptedError
            raise ExecutorTimeoutError(late[0].seconds)

    def _receive(self) -> bool:
        """Handle what has arrived; False if nothing more will."""
        try:
            data = self._channel.receive()
        except BlockingIOError:
            return True
        for message in self._reader.feed(data):
            self._handle(message)
        return bool(data)

    def _handle(self, message: Message) -> None:
        if message.opcode is OpCode.HANGUP:
            # Before the setup, too: so clients are refused.
            raise ExecutorDisconnectedError(f"the executor has hung up{_reason(message.payload)}")
        if (message.opcode is OpCode.SETUP) != (self._setup is None):
            raise ProtocolError(
                "the executor has sent a second setup message"
                if self._setup
                else f"the executor began with a message {message.opcode.name}, not with its setup"
            )
        if message.opcode is OpCode.SETUP:
            self._set_up(message)
        elif message.opcode is OpCode.RESULT:
            self._complete(message)
        else:
            self._begin_handler(message)

    def _set_up(self, message: Message) -> None:
        try:
            self._setup = SETUP.deserialize(message.payload)
        except SPSError as error:
            raise ProtocolError(f"the executor's setup cannot be read: {error}") from error
        self._has_setup.set()

    def _complete(self, message: Message) -> None:
        with self._lock:
            call = self._calls.pop(message.sequence, None)
        if call is None:
            raise ProtocolError(f"the executor has sent a result of no call, {message.sequence}")
        try:
            result = _result_of(message)
        except ProtocolError as error:
            call.fail(error)
            raise
        call.succeed(result)

    # Calls from the executor

    def _begin_handler(self, message: Message) -> None:
        notice = self.notices.get(message.tag)
        if notice is not None:
            notice(message.payload)
            return
        with self._lock:
            self._handlers += 1
            if self._handlers > _MOST_HANDLERS:
                raise ProtocolError(f"the executor makes more than {_MOST_HANDLERS} calls at once")
            self._messages.append(message)
            is_taken = len(self._messages) <= self._idle_handlers
            self._has_message.notify()
        if not is_taken:
            name = "jitlink executor call"
            threading.Thread(target=self._run_handlers, name=name, daemon=True).start()

    def _run_handlers(self) -> None:
        """Run handlers until there is nothing to do for a while."""
        while True:
            with self._lock:
                if not self._messages and not self._wait_for_message():
                    return
                message = self._messages.popleft()
            self._run_handler(message)

    def _wait_for_message(self) -> bool:
        """Wait until a message is left to this thread; with the lock held."""
        self._idle_handlers += 1
        end = time.monotonic() + _IDLE_SECONDS
        while not self._messages and self._make_error is None:
            if not self._has_message.wait(end - time.monotonic()):
                break
        self._idle_handlers -= 1
        return bool(self._messages)

    def _run_handler(self, message: Message) -> None:
        handler = self.handlers.get(message.tag)
        result = WrapperFunctionResult()
        mark_handler()
        if handler is not None:
            # What cannot be expressed as a result is an empty one. Code waits for that, so that
            # SystemExit, too, must not end this thread.
            with contextlib.suppress(BaseException):
                result = handler(message.payload)
        with self._lock:
            self._handlers -= 1
            if self._make_error is None:
                self._send(OpCode.RESULT, message.sequence, 0, result.data)

    # The end

    def _end(self, error: ExecutorError) -> None:
        with self._lock:
            is_own = self._make_error is not None
            if any(call.is_interrupted for call in self._calls.values()):
                error = ExecutorInterruptedError()
            self._channel.close()
        try:
            make_error = maker_of(error) if is_own else self._explain(error)
        except Exception:  # noqa: BLE001 - without an error, all calls would wait for ever
            make_error = maker_of(error)
        if self._reason is not None:
            make_error = self._reason
        with self._lock:
            if self._make_error is None:
                self._make_error = make_error
            self._has_message.notify_all()
            calls, self._calls = self._calls, {}
            ends, self._wake_up = (self._woken, self._wake_up), -1
            for descriptor in ends:
                os.close(descriptor)
            # Not before: in a process that is forked meanwhile no thread goes on here.
            _connections.discard(self)
        for call in calls.values():
            call.fail(self._error())
        self._has_setup.set()

    def after_fork(self) -> None:
        """Leave the connection to the process that has forked."""
        self.is_inherited = True
        self._lock = threading.Lock()
        self._has_message = threading.Condition(self._lock)
        self._idle_handlers = 0
        self._queue.clear()
        self._channel.close()
        # The other ends of the pipe are the connection's, which must not be woken from here.
        if self._wake_up >= 0:
            for descriptor in (self._woken, self._wake_up):
                os.close(descriptor)
        self._wake_up = -1
        self._make_error = partial(
            ExecutorDisconnectedError, "the connection belongs to the process that has forked"
        )
        self._has_setup.set()


def maker_of(error: ExecutorError, stderr: str = "") -> MakeError:
    """A function that makes errors like one, each with a traceback of its own."""
    if isinstance(error, ExecutorTimeoutError):
        return partial(ExecutorTimeoutError, error.seconds, stderr)
    if isinstance(error, ExecutorInterruptedError):
        return partial(ExecutorInterruptedError, stderr)
    if isinstance(error, ProtocolError):
        return partial(ProtocolError, str(error))
    return partial(ExecutorDisconnectedError, str(error), stderr)


def _result_of(message: Message) -> WrapperFunctionResult:
    """The result in a message.

    Raises:
        ProtocolError: it is of no kind that is known.
    """
    if message.tag == ResultKind.VALUE:
        return WrapperFunctionResult(message.payload)
    if message.tag != ResultKind.OUT_OF_BAND_ERROR:
        raise ProtocolError(f"the executor has sent a result of the unknown kind {message.tag}")
    try:
        text = STRING.deserialize(message.payload)
    except SPSError as error:
        text = f"for a reason that cannot be read: {error}"
    return WrapperFunctionResult(out_of_band_error=text)


def _reason(payload: bytes) -> str:
    """Why an executor has hung up, if it says so."""
    try:
        failure = ERROR.deserialize(payload)
    except SPSError:
        return ""
    return f": {failure.message}" if isinstance(failure, Failure) else ""


def _watch_output(
    selector: selectors.BaseSelector, incoming: int, outgoing: int, *, wants: bool
) -> None:
    if incoming == outgoing:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants else 0)
        selector.modify(incoming, events)
    elif wants:
        selector.register(outgoing, selectors.EVENT_WRITE)
    else:
        selector.unregister(outgoing)


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_connections):
        connection.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
