"""The driver thread of a session: which thread runs the session's loop.

At most one thread drives the loop at a time: the driver thread. A thread that waits for a call
becomes the driver if there is none, so that the call needs no switch of threads. What is due when
the driver leaves, and what is scheduled while there is no driver, is run by a fallback thread,
which is started when it is first needed.

Every call that is scheduled before the loop is closed runs, or its caller gets a
`SessionEndedError`; no caller waits for ever. Nothing that runs in the loop can end the fallback
thread, not even ``SystemExit``; and a ``KeyboardInterrupt`` is deferred until the calls that it
would interrupt are done.

Garbage may be collected anywhere, also while the thread holds a lock. A finalizer must not wait for
a lock that other code may hold; `is_collecting` says whether one runs, and another thread then does
the work.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from jitlink.orc.errors import SessionEndedError, SessionError
from jitlink.tasks import (
    CancelledError,
    DeferredInterrupts,
    Loop,
    Task,
    TaskInterruptedError,
    action_threads,
)


class _CollectorGuard:
    """Records which thread collects garbage; only one can at a time."""

    thread: int | None = None

    def __call__(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002 - the interface
        """Called by the interpreter when a collection starts and when it stops."""
        self.thread = threading.get_ident() if phase == "start" else None


_collector_guard = _CollectorGuard()
gc.callbacks.append(_collector_guard)


def is_collecting() -> bool:
    """Whether the calling thread is collecting garbage."""
    return _collector_guard.thread == threading.get_ident()


T = TypeVar("T")

_CANCEL_TIMEOUT = 5.0
"""Seconds that cancelled tasks have to end when a driver is stopped."""
_IDLE_TIMEOUT = 0.005
"""Seconds for which the fallback thread stays when it is idle."""
_SETTLE_TIMEOUT = 0.2
"""Seconds for which `SessionDriver.settle` waits for threads that are busy."""


class _Call(Generic[T]):
    """A coroutine that a thread waits for.

    Attributes:
        task: runs it, once it has been started.
    """

    __slots__ = ("_coroutine", "_is_wanted", "_loop", "_pending", "task")

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.task: Task[T] | None = None
        self._loop = loop
        self._coroutine = coroutine
        self._is_wanted = True
        # Held until it is done. One thread waits, once, so a lock is enough.
        self._pending = threading.Lock()
        self._pending.acquire()

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return self.task is not None and self.task.is_done

    def start(self) -> None:
        """Start it; on the driver thread."""
        if self._is_wanted:
            # An empty context: the caller's settings (NumPy's error handling, say) are its own.
            self.task = Task(self._loop, self._coroutine, Context())
            self.task.add_done_callback(self._pending.release)
        else:
            self._coroutine.close()

    def result(self) -> T:
        """Wait for it, and return or raise what it does.

        Raises:
            SessionEndedError: it was cancelled.
        """
        task = self.task
        if task is None or not task.is_done:
            self._pending.acquire()
            task = self.task
        if task is None:
            raise SessionEndedError
        try:
            return task.result()
        except CancelledError:
            raise SessionEndedError from None
        finally:
            # The traceback of an error refers to this frame, and the task to the error.
            del self, task

    def abandon(self) -> None:
        """Cancel it unless it is done, because the thread was interrupted while it waited."""
        self._is_wanted = False
        if not self.is_done:
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.task is None:
            # The wait was interrupted before it was scheduled.
            self._coroutine.close()
        else:
            self.task.cancel(TaskInterruptedError())


class SessionDriver:
    """Runs a session's loop, until it is stopped or its owner is collected.

    Args:
        owner: the session, which has to stop it.
    """

    def __init__(self, owner: object) -> None:
        self._role = _DriverRole()
        # The role has no reference to the owner, so the owner can be collected.
        self._finalizer = weakref.finalize(owner, _close_dropped, self._role)
        self._finalizer.atexit = False

    @property
    def loop(self) -> Loop:
        """The loop."""
        return self._role.loop

    @property
    def is_stopped(self) -> bool:
        """Whether calls are refused."""
        return self._role.is_closed

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is the driver thread."""
        return self._role.driver == threading.get_ident()

    def check_is_other(self) -> None:
        """Check that the calling thread may wait for the driver thread.

        Raises:
            SessionError: it is the driver thread.
        """
        if self.is_current:
            raise SessionError("the driver thread cannot wait for itself; use the async form")

    def call(self, action: Callable[[], None]) -> bool:
        """Call a function soon, without waiting for it; False if the driver was stopped."""
        # An empty context, as for a coroutine.
        return self._role.call(partial(Context().run, action))

    def call_later(self, delay: float, action: Callable[[], None]) -> bool:
        """Call a function after `delay` seconds; False if the driver was stopped."""
        loop = self._role.loop

        def schedule() -> None:
            loop.call_later(delay, partial(Context().run, action))

        return self.call(schedule)

    def run(self, action: Callable[[], T]) -> T:
        """Call a function on the driver thread and return its result.

        Raises:
            SessionEndedError: the driver was stopped.
        """
        if self.is_current:
            return action()
        with DeferredInterrupts():
            if self._role.try_acquire():
                try:
                    return Context().run(action)
                finally:
                    self._role.release()

        async def act() -> T:
            return action()

        return self.wait(act(), may_drive=False)

    def wait(self, coroutine: Coroutine[Any, Any, T], *, may_drive: bool = True) -> T:
        """Run a coroutine and return its result.

        If the wait is interrupted, the coroutine is cancelled.

        Args:
            coroutine: the coroutine.
            may_drive: whether the calling thread may become the driver; not if native code has
                called it, because little of its stack may be left, or an exception may be pending.

        Raises:
            SessionError: called on the driver thread.
            SessionEndedError: the driver was stopped.
        """
        call = _Call(self._role.loop, coroutine)
        try:
            self.check_is_other()
            is_scheduled = (may_drive and self._drive(call)) or self._role.call(call.start)
        except SessionError:
            coroutine.close()
            raise
        except BaseException:
            call.abandon()
            raise
        if not is_scheduled:
            coroutine.close()
            raise SessionEndedError
        try:
            if not may_drive:
                self._drive_stranded(call)
            return call.result()
        except BaseException:
            call.abandon()
            raise
        finally:
            del call, coroutine

    def _drive_stranded(self, call: _Call[Any]) -> None:
        """Run what was handed over to another thread, if there is none."""
        if self._role.is_stranded:
            self._role.drive_if_free(lambda: call.is_done)

    def _drive(self, call: _Call[Any]) -> bool:
        """Start a call and drive until it is done or nothing is due; False if another drives."""
        try:
            with DeferredInterrupts() as interrupts:
                if not self._role.try_acquire():
                    return False
                try:
                    call.start()
                    self._role.drive(lambda: call.is_done or interrupts.is_any)  # noqa: F821 - see below
                finally:
                    self._role.release()
        finally:
            # Frames of an error lead back to this one, and the call has the error.
            del call
        return True

    def call_from_finalizer(self, create: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine now if possible, otherwise soon, without waiting for it.

        While garbage is collected, when any lock may be held, another thread runs it.
        """
        loop = self._role.loop
        self._role.call_from_finalizer(lambda: _running_task(loop, create()))

    def settle(self) -> None:
        """Wait until the session's threads have ended, unless they have more to run."""
        self._role.settle()

    def stop(self) -> None:
        """Stop, when everything scheduled is done or cancelled; a second call does nothing."""
        self._finalizer.detach()
        self._role.close()
        self._role.join()


class _DriverRole:
    """Decides which thread drives a loop.

    Attributes:
        loop: the loop.
        driver: identity of the driver thread, or None.
        is_closed: whether calls are refused.
    """

    def __init__(self) -> None:
        self.loop = Loop(self._wake)
        self.driver: int | None = None
        self.is_closed = False
        # Reentrant: a finalizer that runs while it is held may close the role, or call. It is
        # entered itself, not through the condition, whose methods an interrupt could leave with
        # the lock held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._fallback: threading.Thread | None = None
        self._ended: threading.Thread | None = None
        self._is_settling = False
        _all_roles.add(self)

    def try_acquire(self) -> bool:
        """Become the driver; False if another thread is, or the loop is closed."""
        with self._lock:
            if self.driver is not None or self.is_closed:
                return False
            self.driver = threading.get_ident()
        return True

    def release(self) -> None:
        """Stop being the driver, and leave what is due to the fallback thread."""
        with self._lock:
            self.driver = None
            self._wake()

    def drive_if_free(self, is_done: Callable[[], bool]) -> None:
        """`drive` as the driver; nothing happens if another thread is, or the loop is closed."""
        with DeferredInterrupts():
            if self.try_acquire():
                try:
                    self.drive(is_done)
                finally:
                    self.release()

    def drive(self, is_done: Callable[[], bool]) -> None:
        """Run what is due until nothing is, or `is_done` returns True; on the driver thread."""
        while self.loop.has_due:
            self.loop.run_due()
            if is_done():
                # What has just been done has usually scheduled its last callbacks.
                self.loop.run_due()
                return

    def call(self, action: Callable[[], None]) -> bool:
        """Schedule a call; False if the loop is closed."""
        with self._lock:
            if not self.is_closed:
                self.loop.call_soon_threadsafe(action)
                return True
            return False

    def call_from_finalizer(self, action: Callable[[], object]) -> None:
        """Schedule a call without blocking, and run it if no other thread does."""
        # A driver sees it when it leaves.
        self.loop.call_soon(action)
        with DeferredInterrupts():
            if self._lock.acquire(blocking=False):
                try:
                    if is_collecting():
                        self._wake()
                    else:
                        self.drive_if_free(lambda: False)
                finally:
                    self._lock.release()
            else:
                # The thread that holds the lock may be about to wait without looking again. A
                # process that is ending starts no threads, and frees everything.
                with contextlib.suppress(RuntimeError):
                    _thread.start_new_thread(self._wake, ())

    def close(self) -> None:
        """Refuse calls from now on."""
        with self._lock:
            self.is_closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until no thread drives, and everything scheduled is done or cancelled."""
        fallback = self._fallback
        if fallback is None:
            self.finish()
        else:
            fallback.join()

    def finish(self) -> None:
        """Run or cancel what was scheduled before the loop was closed."""
        with self._lock:
            self._changed.wait_for(lambda: self.driver is None)
            self.driver = threading.get_ident()
        try:
            end = time.monotonic() + _CANCEL_TIMEOUT
            cancelled: set[Task[Any]] = set()
            # Scheduled calls may still start tasks.
            while (self.loop.has_due or self.loop.unfinished) and time.monotonic() < end:
                for task in self.loop.unfinished:
                    if task not in cancelled:
                        cancelled.add(task)
                        task.cancel()
                self._run_or_wait(end)
            for task in self.loop.unfinished:
                # Its callers must not wait for ever.
                task.abandon()
            # What a timer would start now could not run any more.
            self.loop.discard_timers()
            self.loop.run_due()
        finally:
            self.release()

    def _run_or_wait(self, end: float) -> None:
        """Run what is due, or wait until something is, at most until the time `end`."""
        if self.loop.has_due:
            with DeferredInterrupts():
                self.drive(lambda: time.monotonic() > end)
            return
        delays = (end - time.monotonic(), self.loop.delay())
        with self._lock:
            if not self.loop.has_due:
                self._changed.wait(max(0.0, min(delay for delay in delays if delay is not None)))

    # The fallback thread

    def _wake(self) -> None:
        """Wake a waiting thread if something is due; start the fallback thread if necessary."""
        with self._lock:
            if self.driver is None and not self.is_closed:
                if not self.loop.has_due and self.loop.delay() is None:
                    return
                if self._fallback is None:
                    name = "jitlink session"
                    fallback = threading.Thread(target=self._serve, name=name, daemon=True)
                    # An interpreter that ends starts no threads; see `is_stranded`.
                    with contextlib.suppress(RuntimeError):
                        fallback.start()
                        self._fallback = fallback
            self._changed.notify_all()

    def _serve(self) -> None:
        while self._wait_until_due():
            self.drive_if_free(lambda: self.is_closed)
        if self._fallback is threading.current_thread():
            self.finish()

    def _wait_until_due(self) -> bool:
        """Wait until something is due and no thread drives; False if this thread is to end.

        It ends soon after it has become idle: a program that runs is to have no threads but its
        own. Not at once, because calls of lazy functions come in bursts.
        """
        end: float | None = None
        with self._lock:
            while not self.is_closed:
                if self.driver is None and self.loop.has_due:
                    return True
                delay = self.loop.delay() if self.driver is None else None
                if delay is None:
                    end = end or time.monotonic() + _IDLE_TIMEOUT
                    delay = end - time.monotonic()
                    if delay <= 0 or self._is_settling:
                        # `_wake` starts another thread when there is something for it.
                        self._ended, self._fallback = self._fallback, None
                        self._changed.notify_all()
                        return False
                self._changed.wait(delay)
        return False

    @property
    def is_stranded(self) -> bool:
        """Whether something is due and no thread is going to run it."""
        with self._lock:
            return self.driver is None and self._fallback is None and self.loop.has_due

    def settle(self) -> None:
        """Have the session's threads end, unless they are kept busy, and wait until they have."""
        end = time.monotonic() + _SETTLE_TIMEOUT
        # Those of `in_thread` finalise code that is being removed.
        ended = [each for each in list(action_threads) if each is not threading.current_thread()]
        for thread in ended:
            thread.join(max(0.0, end - time.monotonic()))
        with self._lock:
            self._is_settling = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._fallback is None or self.loop.delay() is not None,
                max(0.0, end - time.monotonic()),
            )
            self._is_settling = False
            if self._ended is not None:
                ended.append(self._ended)
                self._ended = None
        for thread in ended:
            thread.join(max(0.0, end - time.monotonic()))
            # `join` returns before the system has removed the thread.
            entry = f"/proc/self/task/{thread.native_id}"
            while os.path.exists(entry) and time.monotonic() < end:  # noqa: PTH110 - slow to import
                time.sleep(0.0001)
            if not thread.is_alive():
                action_threads.discard(thread)

    def forget_other_threads(self) -> None:
        """Forget all threads but the calling one, because they have ended wherever they were."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._fallback = self._ended = None
        if self.driver != threading.get_ident():
            self.driver = None


_all_roles: weakref.WeakSet[_DriverRole] = weakref.WeakSet()


def forget_other_threads() -> None:
    """Have no session wait for other threads, in a forked process or when Python has ended."""
    for role in list(_all_roles):
        role.forget_other_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_other_threads)


def _close_dropped(role: _DriverRole) -> None:
    # A fallback thread finishes what is left. Without one, only tasks can be left that wait for
    # something that can no longer happen.
    role.close()
    warnings.warn("a session was dropped without being ended", ResourceWarning, stacklevel=2)


# A loop has only weak references to its tasks.
_running: set[Task[None]] = set()


def _running_task(loop: Loop, coroutine: Coroutine[Any, Any, None]) -> Task[None]:
    task = Task(loop, coroutine, Context())
    _running.add(task)
    task.add_done_callback(partial(_running.discard, task))
    return task
