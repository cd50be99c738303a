"""Cooperative multitasking with coroutines: tasks, futures, locks, and the loop that runs them.

A loop is a queue of due calls, run by any thread that calls `Loop.run_due`: it is bound to no
thread, handles no files or sockets, and does not run by itself. Other threads schedule calls with
`Loop.call_soon_threadsafe`. This is the part of asyncio that a session needs; importing asyncio
takes longer than most links, and its loops are bound to the thread that runs them.

The only thing that a task can suspend on is a `Future` of its loop; coroutines that await only one
another need no loop. Tasks, futures and locks must be used on the thread that runs the loop.

Specification: PEP 492; names and meanings are asyncio's.
"""

from __future__ import annotations

# What `signal` wraps, in conversions to enumerations: with these, an entry of `DeferredInterrupts`
# takes eight times as long (CPython 3.11), and a lookup of what is linked already twice as long.
import _signal  # type: ignore[import-not-found]
import heapq
import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Generic, Self, TypeVar

from jitlink.logs import Log

T = TypeVar("T")
log = Log("jitlink.orc")

_CANCEL_TIMEOUT = 5.0
"""Seconds that a coroutine has to end when the thread that runs it was interrupted."""


class CancelledError(BaseException):
    """Raised in a task that is cancelled, where it waits."""


class TaskInterruptedError(CancelledError):
    """Raised in a task that is cancelled because the thread that waits for it was interrupted."""


class Future(Generic[T]):
    """A result that is not available yet; tasks can await it.

    Args:
        loop: the loop that resumes waiting tasks; by default that of the running task.

    Raises:
        RuntimeError: no loop is given, and no task is running.

    Attributes:
        loop: the loop.
        is_done: whether it has a result, has failed or was cancelled.
    """

    __slots__ = ("_callbacks", "_error", "_value", "is_done", "loop")

    def __init__(self, loop: Loop | None = None) -> None:
        self.loop: Loop = loop or current_task().loop
        self.is_done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], object]] = []

    @property
    def has_result(self) -> bool:
        """Whether it is done, and neither failed nor was cancelled."""
        return self.is_done and self._error is None

    def result(self) -> T:
        """The result of a future that is done.

        Raises:
            CancelledError: it was cancelled.
            BaseException: the error that it failed with.
        """
        error = self._error
        if error is None:
            return self._value  # type: ignore[return-value]
        try:
            raise error
        finally:
            # The error refers to this frame, and the future to the error: avoid a cycle.
            del error, self

    def set_result(self, value: T) -> None:
        """Complete it with a result."""
        self._finish()
        self._value = value

    def set_result_unless_done(self, value: T) -> None:
        """Complete it with a result, unless it is done, for example cancelled."""
        if not self.is_done:
            self.set_result(value)

    def set_exception(self, error: BaseException) -> None:
        """Complete it with an error."""
        self._finish()
        self._error = error

    def cancel(self, error: CancelledError | None = None) -> bool:
        """Complete it with `CancelledError`, or one of its kind; return False if it is done."""
        if self.is_done:
            return False
        self.set_exception(error or CancelledError())
        return True

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Schedule a call for when it is done."""
        if self.is_done:
            self.loop.call_soon(callback)
        else:
            self._callbacks.append(callback)

    def _finish(self) -> None:
        if self.is_done:
            raise RuntimeError("the future is done already")
        self.is_done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.loop.call_soon(callback)

    def __await__(self) -> Generator[Future[Any], None, T]:
        if not self.is_done:
            yield self
        try:
            return self.result()
        finally:
            del self


class Task(Future[T]):
    """A coroutine that runs in a loop, and the future of its result.

    The loop has only a weak reference to a task: while it waits, what it waits for keeps it alive.

    Args:
        loop: the loop.
        coroutine: the coroutine; its first step is scheduled at once.
        context: its context variables; by default a copy of the caller's.

    Attributes:
        variables: values of `TaskVariable`s; never changed in place.
    """

    __slots__ = ("__weakref__", "_context", "_coroutine", "_thrown", "_waits_for", "variables")

    def __init__(
        self, loop: Loop, coroutine: Coroutine[Any, Any, T], context: Context | None = None
    ) -> None:
        super().__init__(loop)
        self._coroutine = coroutine
        self._context = context or copy_context()
        outer = _current.task
        self.variables: dict[TaskVariable[Any], Any] = {}
        if outer is not None and outer.loop is loop:
            self.variables = outer.variables
        self._waits_for: Future[Any] | None = None
        # Raised in the coroutine when it resumes.
        self._thrown: BaseException | None = None
        loop.tasks.add(self)
        loop.call_soon(self._step)

    def cancel(self, error: CancelledError | None = None) -> bool:
        """Raise `CancelledError` where it waits or next waits; return False if it is done."""
        if self.is_done:
            return False
        if self._waits_for is None or not self._waits_for.cancel(error):
            self._thrown = error or CancelledError()
        return True

    def abandon(self) -> None:
        """Complete it with `CancelledError` without resuming the coroutine again."""
        super().cancel()

    def _step(self) -> None:
        """Run the coroutine until it waits or ends."""
        if self.is_done:
            return
        _current.task = self
        thrown, self._thrown, self._waits_for = self._thrown, None, None
        try:
            if thrown is None:
                awaited = self._context.run(self._coroutine.send, None)
            else:
                awaited = self._context.run(self._coroutine.throw, thrown)
        except StopIteration as stop:
            self.set_result(stop.value)
        except BaseException as error:
            if not self._callbacks and not isinstance(error, CancelledError):
                log.logger.exception("a task failed, and nothing waits for it")
            # Without this frame, which refers to the task.
            self.set_exception(error.with_traceback(_without_first(error.__traceback__)))
        else:
            self._wait_for(awaited)
        finally:
            _current.task = None
            # Frames of an error lead back to this one, and the task has the error.
            del thrown, self

    def _wait_for(self, awaited: object) -> None:
        """Resume when a future is done."""
        if not isinstance(awaited, Future) or awaited.loop is not self.loop:
            message = f"a task can wait for a future of its own loop, not for {awaited!r}"
            self._thrown = TypeError(message)
            self.loop.call_soon(self._step)
            return
        awaited.add_done_callback(self._step)
        self._waits_for = awaited
        if self._thrown is not None and awaited.cancel():
            # It was cancelled while it ran.
            self._thrown = None


def _without_first(traceback: TracebackType | None) -> TracebackType | None:
    return None if traceback is None else traceback.tb_next


class _Current(threading.local):
    """The running task of each thread."""

    task: Task[Any] | None = None


_current = _Current()


def current_task() -> Task[Any]:
    """The task that is running on this thread.

    Raises:
        RuntimeError: there is none.
    """
    if _current.task is None:
        raise RuntimeError("no task is running on this thread, so nothing can be awaited")
    return _current.task


class TaskVariable(Generic[T]):
    """A variable with a value per task, which a task inherits from the task that created it.

    Unlike a `ContextVar`, which slows down every call of NumPy once it is set.

    Args:
        default: the value where none was set, and where no task is running.
    """

    __slots__ = ("_default",)

    def __init__(self, default: T) -> None:
        self._default = default

    def get(self) -> T:
        """The value in the running task."""
        task = _current.task
        if task is None:
            return self._default
        value: T = task.variables.get(self, self._default)
        return value

    def set(self, value: T) -> Callable[[], None]:
        """Set the value in the running task; return a function that restores the old one."""
        task = current_task()
        # Bound to this task: a coroutine may be closed while another task is running.
        restore = partial(setattr, task, "variables", task.variables)
        task.variables = {**task.variables, self: value}
        return restore


class Lock:
    """A lock between tasks, acquired in first-come, first-served order."""

    __slots__ = ("_waiters", "is_held")

    def __init__(self) -> None:
        self.is_held = False
        self._waiters: deque[Future[None]] = deque()

    async def acquire(self) -> None:
        """Wait until it is free, and acquire it."""
        if self.is_held:
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            try:
                await waiter
            except CancelledError:
                if waiter.has_result:
                    # It was passed to this task just before.
                    self.release()
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        self.is_held = True

    def release(self) -> None:
        """Pass it to the first waiting task, or free it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.is_done:
                waiter.set_result(None)
                return
        self.is_held = False


class Event:
    """A flag that is set once; tasks can wait for it."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiters: list[Future[None]] = []

    async def wait(self) -> None:
        """Wait until it is set."""
        if not self.is_set:
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            await waiter

    def set(self) -> None:
        """Set it, on the thread that runs the loop of the waiting tasks."""
        self.is_set = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set_result_unless_done(None)


class Timer:
    """A delayed call that can be cancelled."""

    __slots__ = ("action", "is_cancelled")

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.is_cancelled = False

    def cancel(self) -> None:
        """Prevent the call."""
        self.is_cancelled = True


class Loop:
    """A queue of due calls, and timers for later ones.

    Args:
        wake: called by `call_soon_threadsafe` after it has scheduled a call, on the calling thread.

    Attributes:
        tasks: the tasks that have not been garbage-collected, including ones that are done.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.tasks: weakref.WeakSet[Task[Any]] = weakref.WeakSet()
        self._wake = wake
        self._due: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    @property
    def unfinished(self) -> list[Task[Any]]:
        """The tasks that are not done."""
        return [task for task in self.tasks if not task.is_done]

    @property
    def has_due(self) -> bool:
        """Whether a call is due now."""
        return bool(self._due) or (bool(self._timers) and self.delay() == 0)

    def delay(self) -> float | None:
        """Seconds until the next timer expires, 0 if it has; None if there is no timer."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - time.monotonic()) if timers else None

    def run_due(self) -> None:
        """Make the calls that are due now, but not those that they schedule in turn.

        Only one thread may call this at a time. Errors that calls raise are logged.
        """
        while self._timers and self.delay() == 0:
            self._due.append(heapq.heappop(self._timers)[2].action)
        # A task of another loop may be running further down the stack.
        outer, _current.task = _current.task, None
        due = self._due
        for _ in range(len(due)):
            try:
                due.popleft()()
            except BaseException:
                log.logger.exception("a call of the session failed")
        _current.task = outer

    def call_soon(self, action: Callable[[], object]) -> None:
        """Schedule a call; only on the thread that runs the loop."""
        self._due.append(action)

    def call_soon_threadsafe(self, action: Callable[[], object]) -> None:
        """Schedule a call, from any thread."""
        self._due.append(action)
        self._wake()

    def call_later(self, delay: float, action: Callable[[], object]) -> Timer:
        """Schedule a call in `delay` seconds; only on the thread that runs the loop."""
        timer = Timer(action)
        entry = (time.monotonic() + delay, next(self._numbers), timer)
        heapq.heappush(self._timers, entry)
        return timer

    def discard_timers(self) -> None:
        """Make no delayed call any more; only on the thread that runs the loop."""
        self._timers.clear()


async def sleep(seconds: float) -> None:
    """Wait while other tasks run; 0 lets every task that is ready run once."""
    elapsed: Future[None] = Future()
    if seconds > 0:
        await _wait_with_timeout(elapsed, seconds)
    else:
        elapsed.loop.call_soon(partial(elapsed.set_result_unless_done, None))
        await elapsed


async def _wait_with_timeout(future: Future[None], seconds: float) -> None:
    """Wait for a future; complete it when `seconds` have elapsed."""
    timer = future.loop.call_later(seconds, partial(future.set_result_unless_done, None))
    try:
        await future
    finally:
        timer.cancel()


action_threads: set[threading.Thread] = set()
"""The threads of `in_thread`; those that have ended are removed when there is another."""


async def in_thread(action: Callable[[], T]) -> T:
    """Run a function on a new thread, and wait for what it returns or raises."""
    future: Future[T] = Future()

    def finish_unless_cancelled(finish: Callable[[], None]) -> None:
        if not future.is_done:
            finish()

    def run_action() -> None:
        try:
            finish = partial(future.set_result, action())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting task
            finish = partial(future.set_exception, error)
        future.loop.call_soon_threadsafe(partial(finish_unless_cancelled, finish))

    thread = threading.Thread(target=run_action, name="jitlink task", daemon=True)
    thread.start()
    action_threads.difference_update([t for t in list(action_threads) if not t.is_alive()])
    action_threads.add(thread)
    return await future


async def wait_for_all(tasks: Collection[Task[Any]], seconds: float) -> None:
    """Wait until all tasks are done, successfully or not, but at most `seconds`."""
    pending = {task for task in tasks if not task.is_done}
    if not pending:
        return
    all_done: Future[None] = Future()

    def task_done(task: Task[Any]) -> None:
        pending.discard(task)
        if not pending:
            all_done.set_result_unless_done(None)

    for task in tuple(pending):
        task.add_done_callback(partial(task_done, task))
    await _wait_with_timeout(all_done, seconds)


class DeferredInterrupts:
    """Defers a ``KeyboardInterrupt`` to the end of a ``with`` statement.

    What a thread does inside of one is done completely: a loop that is interrupted between two
    statements would lose a call, and a lock would stay locked.

    Only on the main thread, which alone gets any, and only if SIGINT has Python's own handler.

    Attributes:
        is_any: whether one was deferred.
    """

    __slots__ = ("_is_installed", "is_any")

    def __init__(self) -> None:
        self.is_any = False
        is_main = threading.get_ident() == threading.main_thread().ident
        handler = _signal.default_int_handler
        self._is_installed = is_main and _signal.getsignal(_signal.SIGINT) is handler

    def __enter__(self) -> Self:
        if self._is_installed:
            _signal.signal(_signal.SIGINT, self._record)
        return self

    def _record(self, _number: int, _frame: FrameType | None) -> None:
        self.is_any = True

    def __exit__(self, *_exception: object) -> None:
        if self._is_installed:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
            if self.is_any:
                raise KeyboardInterrupt


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, on this thread, and return its result.

    If this thread is interrupted, the coroutine is cancelled with `TaskInterruptedError`.
    """
    # Held until the loop is woken. Not an event, whose own lock an interrupt could leave held.
    asleep = threading.Lock()
    asleep.acquire()

    def wake() -> None:
        with suppress(RuntimeError):  # It is awake.
            asleep.release()

    loop = Loop(wake)
    task = Task(loop, coroutine)
    # Its error is raised here: the loop is not to log it.
    task.add_done_callback(wake)

    def work(seconds: float) -> None:
        if not loop.has_due:
            asleep.acquire(timeout=seconds)
        with DeferredInterrupts():
            loop.run_due()

    try:
        while not task.is_done:
            delay = loop.delay()
            work(-1 if delay is None else delay)
    except BaseException:
        # What it does when it is cancelled is done, or begun if it takes long.
        task.cancel(TaskInterruptedError())
        end = time.monotonic() + _CANCEL_TIMEOUT
        while not task.is_done and (left := end - time.monotonic()) > 0:
            work(left)
        raise
    try:
        return task.result()
    finally:
        # The traceback of an error refers to this frame, and the task to the error.
        del task
