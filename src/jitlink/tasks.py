"""Coroutines that take turns: tasks, what they wait for, and the loop that runs them.

A loop keeps what is due, and whoever calls `Loop.run_due` runs it: it belongs to no thread, knows
no files and no sockets, and has no end. What happens elsewhere is told with
`Loop.call_soon_threadsafe`. This is what a session needs of asyncio, whose import takes longer than
most links, and whose loops belong to the thread that runs them.

A task can wait for a `Future` of its loop, and for nothing else that suspends; coroutines that only
await one another need no loop at all. Tasks, futures and locks are for the thread that runs the
loop.

Specification: PEP 492; names and meanings are asyncio's.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("jitlink.orc")


class CancelledError(BaseException):
    """Raised where a task waits that is to stop."""


class Future(Generic[T]):
    """Something that will be known, for tasks that await it.

    Args:
        loop: where what waits for it goes on; by default that of the running task.

    Raises:
        RuntimeError: no loop is given, and no task runs.

    Attributes:
        loop: the loop.
        is_done: whether it is known, has failed or was cancelled.
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
        """Whether it is known, and has neither failed nor was cancelled."""
        return self.is_done and self._error is None

    def result(self) -> T:
        """What it is; to be asked once it is done.

        Raises:
            CancelledError: it was cancelled.
            BaseException: what it failed with.
        """
        error = self._error
        if error is None:
            return self._value  # type: ignore[return-value]
        try:
            raise error
        finally:
            # An error that is raised knows this frame, and the future knows the error.
            del error, self

    def set_result(self, value: T) -> None:
        """Say what it is."""
        self._finish()
        self._value = value

    def tell(self, value: T) -> None:
        """Say what it is, unless it is done: cancelled, say."""
        if not self.is_done:
            self.set_result(value)

    def set_exception(self, error: BaseException) -> None:
        """Let it fail."""
        self._finish()
        self._error = error

    def cancel(self) -> bool:
        """Let it fail with `CancelledError`; False if it is done."""
        if self.is_done:
            return False
        self.set_exception(CancelledError())
        return True

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Call something soon after it is done."""
        if self.is_done:
            self.loop.call_soon(callback)
        else:
            self._callbacks.append(callback)

    def _finish(self) -> None:
        if self.is_done:
            raise RuntimeError("what is known already cannot change")
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
    """A coroutine that runs in a loop; also what it returns or raises.

    The loop knows a task only weakly: while it waits, it is kept by what it waits for.

    Args:
        loop: the loop.
        coroutine: begins when it is due.
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
        outer = _here.task
        self.variables: dict[TaskVariable[Any], Any] = {}
        if outer is not None and outer.loop is loop:
            self.variables = outer.variables
        self._waits_for: Future[Any] | None = None
        # Raised in the coroutine when it goes on.
        self._thrown: BaseException | None = None
        loop.tasks.add(self)
        loop.call_soon(self._step)

    def cancel(self) -> bool:
        """Raise `CancelledError` where it waits, or will wait next; False if it is done."""
        if self.is_done:
            return False
        if self._waits_for is None or not self._waits_for.cancel():
            self._thrown = CancelledError()
        return True

    def abandon(self) -> None:
        """Fail with `CancelledError` for those who wait; the coroutine is not run any more."""
        super().cancel()

    def _step(self) -> None:
        """Run until it waits or ends."""
        if self.is_done:
            return
        _here.task = self
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
                log.exception("a task failed that nobody waits for")
            # Without this frame, which knows the task.
            self.set_exception(error.with_traceback(_without_first(error.__traceback__)))
        else:
            self._wait_for(awaited)
        finally:
            _here.task = None
            del thrown

    def _wait_for(self, awaited: object) -> None:
        """Go on when something is done."""
        if not isinstance(awaited, Future) or awaited.loop is not self.loop:
            message = f"a task can wait for a future of its own loop, not for {awaited!r}"
            self._thrown = TypeError(message)
            self.loop.call_soon(self._step)
            return
        awaited.add_done_callback(self._step)
        self._waits_for = awaited
        if self._thrown is not None and awaited.cancel():
            # It was told to stop while it ran.
            self._thrown = None


def _without_first(traceback: TracebackType | None) -> TracebackType | None:
    return None if traceback is None else traceback.tb_next


class _Here(threading.local):
    """The task that runs on a thread."""

    task: Task[Any] | None = None


_here = _Here()


def current_task() -> Task[Any]:
    """The task that runs on this thread.

    Raises:
        RuntimeError: there is none.
    """
    if _here.task is None:
        raise RuntimeError("no task of a loop runs here, so nothing can be waited for")
    return _here.task


class TaskVariable(Generic[T]):
    """Something that each task knows for itself, beginning with what the task knew that began it.

    As soon as a `ContextVar` is set, every call of NumPy takes longer; these cost it nothing.

    Args:
        default: what is known where nothing was set, and where no task runs.
    """

    __slots__ = ("_default",)

    def __init__(self, default: T) -> None:
        self._default = default

    def get(self) -> T:
        """What the running task knows."""
        task = _here.task
        if task is None:
            return self._default
        known: T = task.variables.get(self, self._default)
        return known

    def set(self, value: T) -> Callable[[], None]:
        """Let the running task know something else; returns what takes that back."""
        task = current_task()
        # Not for the task that runs then: a coroutine may be closed while another one runs.
        take_back = partial(setattr, task, "variables", task.variables)
        task.variables = {**task.variables, self: value}
        return take_back


class Lock:
    """Held by one task at a time, in order of asking."""

    __slots__ = ("_waiters", "is_held")

    def __init__(self) -> None:
        self.is_held = False
        self._waiters: deque[Future[None]] = deque()

    async def acquire(self) -> None:
        """Wait until nobody holds it, and hold it."""
        if self.is_held:
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            try:
                await waiter
            except CancelledError:
                if waiter.has_result:
                    # It was handed over just before.
                    self.release()
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        self.is_held = True

    def release(self) -> None:
        """Hand it to the next one who waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.is_done:
                waiter.set_result(None)
                return
        self.is_held = False


class Event:
    """Something that happens once, for tasks that wait for it."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiters: list[Future[None]] = []

    async def wait(self) -> None:
        """Wait until it has happened."""
        if not self.is_set:
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            await waiter

    def set(self) -> None:
        """Let it happen; where the loop of those who wait runs."""
        self.is_set = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.tell(None)


class Timer:
    """Something that is called later, unless it is cancelled."""

    __slots__ = ("action", "is_cancelled")

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not call it."""
        self.is_cancelled = True


class Loop:
    """Calls that are due, in order, and those that will be.

    Args:
        wake: called, on any thread, when another than the running one has made a call due.

    Attributes:
        tasks: the tasks that have not been collected; those that are done may be among them.
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
        """Whether something is due now."""
        return bool(self._due) or (bool(self._timers) and self.delay() == 0)

    def delay(self) -> float | None:
        """Seconds until the next timer, 0 if it is due; None if there is none."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - time.monotonic()) if timers else None

    def run_due(self) -> None:
        """Run what is due now; what that makes due in turn is left.

        To be called by one thread at a time. Nothing is raised: what calls raise is logged.
        """
        while self._timers and self.delay() == 0:
            self._due.append(heapq.heappop(self._timers)[2].action)
        # A task of another loop may be at work further down the stack.
        outer, _here.task = _here.task, None
        due = self._due
        for _ in range(len(due)):
            try:
                due.popleft()()
            except BaseException:
                log.exception("a call of the session failed")
        _here.task = outer

    def call_soon(self, action: Callable[[], object]) -> None:
        """Make a call due; for what runs in the loop."""
        self._due.append(action)

    def call_soon_threadsafe(self, action: Callable[[], object]) -> None:
        """Make a call due, from any thread."""
        self._due.append(action)
        self._wake()

    def call_later(self, delay: float, action: Callable[[], object]) -> Timer:
        """Make a call due in `delay` seconds; for what runs in the loop."""
        timer = Timer(action)
        entry = (time.monotonic() + delay, next(self._numbers), timer)
        heapq.heappush(self._timers, entry)
        return timer


async def sleep(seconds: float) -> None:
    """Wait, while other tasks run; 0 for one turn of each that can go on."""
    over: Future[None] = Future()
    if seconds > 0:
        await _at_most(over, seconds)
    else:
        over.loop.call_soon(partial(over.tell, None))
        await over


async def _at_most(over: Future[None], seconds: float) -> None:
    """Wait for something, or until some seconds are over."""
    timer = over.loop.call_later(seconds, partial(over.tell, None))
    try:
        await over
    finally:
        timer.cancel()


async def in_thread(action: Callable[[], T]) -> T:
    """Run something on a thread of its own, and wait for what it returns or raises."""
    future: Future[T] = Future()

    def tell(finish: Callable[[], None]) -> None:
        if not future.is_done:
            # Otherwise it was cancelled.
            finish()

    def run_action() -> None:
        try:
            finish = partial(future.set_result, action())
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            finish = partial(future.set_exception, error)
        future.loop.call_soon_threadsafe(partial(tell, finish))

    threading.Thread(target=run_action, name="jitlink task", daemon=True).start()
    return await future


async def wait_for_all(tasks: Collection[Task[Any]], seconds: float) -> None:
    """Wait until tasks are done, whatever comes of them, or some seconds are over."""
    pending = {task for task in tasks if not task.is_done}
    if not pending:
        return
    over: Future[None] = Future()

    def note(task: Task[Any]) -> None:
        pending.discard(task)
        if not pending:
            over.tell(None)

    for task in tuple(pending):
        task.add_done_callback(partial(note, task))
    await _at_most(over, seconds)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, on this thread, and return what it returns."""
    turn = threading.Event()
    loop = Loop(turn.set)
    task = Task(loop, coroutine)
    while not task.is_done:
        turn.clear()
        if not loop.has_due:
            turn.wait(loop.delay())
        loop.run_due()
    return task.result()
