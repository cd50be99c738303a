"""The thread of a session: its loop, and which thread runs it when.

One thread at a time is at the wheel and runs what is due; everything that says "the session's
thread" means that one. A thread that waits for something takes the wheel if nobody has it, so
that what it waits for costs no change of threads. What remains when it leaves, and what is
handed over while nobody is there, is for a spare thread, which is started when there is
something for it the first time.

Whatever is handed over before the wheel is locked runs, or its waiter is told that the session
has ended; nobody waits for a thread that is gone. Nothing that runs at the wheel can end the
spare thread, not even ``SystemExit``; and an interrupt from the keyboard waits until what it
would have broken off is done.

Garbage collection may run anywhere, also where the thread holds a lock. What a finalizer does must
not wait for a lock that other code may hold; `is_collecting` tells, and another thread then does
the work.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import logging
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Generic, Self, TypeVar

from jitlink.orc.errors import SessionEndedError, SessionError
from jitlink.tasks import CancelledError, Loop, Task, action_threads


class _CollectorGuard:
    """Takes note of the interpreter's collections, of which there is one at a time."""

    thread: int | None = None

    def __call__(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002 - the interface
        """Called by the interpreter when a collection starts and when it stops."""
        self.thread = threading.get_ident() if phase == "start" else None


_collections = _CollectorGuard()
gc.callbacks.append(_collections)


def is_collecting() -> bool:
    """Whether the calling thread is in the middle of collecting garbage."""
    return _collections.thread == threading.get_ident()


T = TypeVar("T")
log = logging.getLogger("jitlink.orc")

_PATIENCE = 5.0
"""Seconds that tasks have to end after they were cancelled, when the session's thread stops."""
_LINGER = 0.005
"""Seconds for which the fallback thread stays when it is idle."""
_SETTLING = 0.2
"""Seconds that the start of a program waits for threads that are kept busy."""


class _Call(Generic[T]):
    """A coroutine that a thread waits for.

    Attributes:
        task: runs it, once it has begun.
    """

    __slots__ = ("_coroutine", "_is_wanted", "_loop", "_pending", "task")

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.task: Task[T] | None = None
        self._loop = loop
        self._coroutine = coroutine
        self._is_wanted = True
        # Held until it is over. One thread waits, once, so this is all that it needs.
        self._pending = threading.Lock()
        self._pending.acquire()

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return self.task is not None and self.task.is_done

    def begin(self) -> None:
        """Begin it; at the wheel."""
        if self._is_wanted:
            # What the caller has set for itself (NumPy's error handling, say) is not for it.
            self.task = Task(self._loop, self._coroutine, Context())
            self.task.add_done_callback(self._pending.release)
        else:
            self._coroutine.close()

    def take(self) -> T:
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
            # An error that is raised knows this frame, and the task knows the error.
            del self, task

    def abandon(self) -> None:
        """Cancel it unless it is done, because the thread does not wait any more."""
        self._is_wanted = False
        if not self.is_done:
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class SessionDriver:
    """What runs a session, until it is stopped or its owner is collected.

    Args:
        owner: whoever has to stop it.
    """

    def __init__(self, owner: object) -> None:
        self._driven = _DrivenLoop()
        # The wheel does not know the owner, which can so be collected.
        self._finalizer = weakref.finalize(owner, _stop_forgotten, self._driven)
        self._finalizer.atexit = False

    @property
    def loop(self) -> Loop:
        """What runs at the wheel."""
        return self._driven.loop

    @property
    def is_stopped(self) -> bool:
        """Whether nothing can be handed over any more."""
        return self._driven.is_locked

    @property
    def is_current(self) -> bool:
        """Whether the caller is at the wheel."""
        return self._driven.driver == threading.get_ident()

    def check_is_other(self) -> None:
        """Check that the caller may wait for what runs at the wheel.

        Raises:
            SessionError: it is at the wheel itself.
        """
        if self.is_current:
            raise SessionError("the session's thread cannot wait for itself; use the async form")

    def call(self, action: Callable[[], None]) -> bool:
        """Run something soon, without waiting for it; False if the thread was stopped."""
        # What the caller has set for itself (NumPy's error handling, say) is not for the session.
        return self._driven.call(partial(Context().run, action))

    def call_later(self, delay: float, action: Callable[[], None]) -> bool:
        """Run something after `delay` seconds; False if the thread was stopped."""
        loop = self._driven.loop

        def schedule() -> None:
            loop.call_later(delay, partial(Context().run, action))

        return self.call(schedule)

    def run(self, action: Callable[[], T]) -> T:
        """Run something and return what it returns.

        Raises:
            SessionEndedError: the thread was stopped.
        """
        if self.is_current:
            return action()
        if self._driven.take():
            try:
                with _InterruptsLater():
                    return Context().run(action)
            finally:
                self._driven.leave()

        async def act() -> T:
            return action()

        return self.wait(act(), aside=True)

    def wait(self, coroutine: Coroutine[Any, Any, T], *, aside: bool = False) -> T:
        """Run a coroutine and return what it returns.

        If the wait is interrupted, the coroutine is cancelled.

        Args:
            coroutine: what to run.
            aside: whether another thread is to run it, because this one has been called by
                native code: it may have little room left, or an exception on its way.

        Raises:
            SessionError: called on the thread itself.
            SessionEndedError: the thread was stopped.
        """
        call = _Call(self._driven.loop, coroutine)
        try:
            self.check_is_other()
            is_begun = (not aside and self._drive(call)) or self._driven.call(call.begin)
        except SessionError:
            coroutine.close()
            raise
        except BaseException:
            call.abandon()
            raise
        if not is_begun:
            coroutine.close()
            raise SessionEndedError
        try:
            if aside:
                self._drive_stranded(call)
            return call.take()
        except BaseException:
            call.abandon()
            raise
        finally:
            del call, coroutine

    def _drive_stranded(self, call: _Call[Any]) -> None:
        """Run what was handed over to another thread, if there is none."""
        if self._driven.is_stranded:
            self._driven.drive_if_free(lambda: call.is_done)

    def _drive(self, call: _Call[Any]) -> bool:
        """Begin something and run what is due until it is done or waits; False if not at all."""
        if not self._driven.take():
            return False
        try:
            with _InterruptsLater() as interrupts:
                call.begin()
                self._driven.drive(lambda: call.is_done or interrupts.is_any)
        finally:
            self._driven.leave()
        return True

    def call_from_finalizer(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine now if that is possible, otherwise soon; it is never waited for.

        While garbage is collected, when any lock may be held, another thread runs it.
        """
        loop = self._driven.loop
        self._driven.call_from_finalizer(lambda: _running_task(loop, make()))

    def settle(self) -> None:
        """Wait until the session's threads have ended, unless they have more to run."""
        self._driven.settle()

    def stop(self) -> None:
        """Stop the thread, when what runs on it is done or cancelled; again it does nothing."""
        self._finalizer.detach()
        self._driven.lock()
        self._driven.join()


class _DrivenLoop:
    """Who may run the loop.

    Attributes:
        loop: the loop.
        driver: identity of the thread at the wheel, or None.
        is_locked: whether nothing can be handed over any more.
    """

    def __init__(self) -> None:
        self.loop = Loop(self._wake)
        self.driver: int | None = None
        self.is_locked = False
        # Reentrant: a collection that happens under the lock may lock the wheel, or call.
        self._changed = threading.Condition(threading.RLock())
        self._spare: threading.Thread | None = None
        self._ended: threading.Thread | None = None
        self._is_settling = False
        _all_driven.add(self)

    def take(self) -> bool:
        """Take the wheel, if that is possible; False if it is not."""
        with self._changed:
            if self.driver is not None or self.is_locked:
                return False
            self.driver = threading.get_ident()
        return True

    def leave(self) -> None:
        """Leave the wheel, and what is due to the spare thread."""
        with self._changed:
            self.driver = None
            self._wake()

    def drive_if_free(self, is_done: Callable[[], bool]) -> None:
        """Take the wheel, `drive`, and leave it; nothing if that is not possible."""
        if self.take():
            try:
                self.drive(is_done)
            finally:
                self.leave()

    def drive(self, is_done: Callable[[], bool]) -> None:
        """Run what is due until there is nothing, or something is done; from the wheel."""
        while self.loop.has_due:
            self.loop.run_due()
            if is_done():
                # Whoever is done has usually left something that ends with it.
                self.loop.run_due()
                return

    def call(self, action: Callable[[], None]) -> bool:
        """Hand something over; False if the wheel is locked."""
        with self._changed:
            if not self.is_locked:
                self.loop.call_soon_threadsafe(action)
                return True
            return False

    def call_from_finalizer(self, action: Callable[[], object]) -> None:
        """Hand something over without waiting for anything, and run it if nobody else does."""
        # Whoever is at the wheel sees it when he leaves.
        self.loop.call_soon(action)
        if self._changed.acquire(blocking=False):
            try:
                if is_collecting():
                    self._wake()
                else:
                    self.drive_if_free(lambda: False)
            finally:
                self._changed.release()
        else:
            # Whoever has the lock may be about to wait, and may not look again. A process that
            # ends starts no threads, and all goes with it.
            with contextlib.suppress(RuntimeError):
                _thread.start_new_thread(self._wake, ())

    def lock(self) -> None:
        """Let nothing be handed over any more."""
        with self._changed:
            self.is_locked = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until nobody is at the wheel, and end what was handed over and is not done."""
        if self._spare is None:
            self.finish()
        else:
            self._spare.join()

    def finish(self) -> None:
        """End what was handed over before the wheel was locked, when nobody else is there."""
        with self._changed:
            self._changed.wait_for(lambda: self.driver is None)
            self.driver = threading.get_ident()
        try:
            end = time.monotonic() + _PATIENCE
            told: set[Task[Any]] = set()
            # What was handed over may still have to begin.
            while (self.loop.has_due or self.loop.unfinished) and time.monotonic() < end:
                for task in self.loop.unfinished:
                    if task not in told:
                        told.add(task)
                        task.cancel()
                self._run_or_wait(end)
            for task in self.loop.unfinished:
                # Nobody is to wait for what does not stop.
                task.abandon()
            self.loop.run_due()
        finally:
            self.leave()

    def _run_or_wait(self, end: float) -> None:
        """Run what is due, or wait until something is or a time has come."""
        if self.loop.has_due:
            self.drive(lambda: time.monotonic() > end)
            return
        delays = (end - time.monotonic(), self.loop.delay())
        with self._changed:
            if not self.loop.has_due:
                self._changed.wait(max(0.0, min(each for each in delays if each is not None)))

    # The spare thread

    def _wake(self) -> None:
        """See to it that somebody runs what is due."""
        with self._changed:
            if self.driver is None and not self.is_locked:
                if not self.loop.has_due and self.loop.delay() is None:
                    return
                if self._spare is None:
                    name = "jitlink session"
                    spare = threading.Thread(target=self._serve, name=name, daemon=True)
                    # An interpreter that ends starts no threads; see `is_stranded`.
                    with contextlib.suppress(RuntimeError):
                        spare.start()
                        self._spare = spare
            self._changed.notify_all()

    def _serve(self) -> None:
        while self._await_turn():
            self.drive_if_free(lambda: self.is_locked)
        if self._spare is threading.current_thread():
            self.finish()

    def _await_turn(self) -> bool:
        """Wait until something is due and no thread drives; False if this thread is to end.

        It ends soon after it has become idle: a program that runs is to have no threads but its
        own. Not at once, because calls of lazy functions come in bursts.
        """
        end: float | None = None
        with self._changed:
            while not self.is_locked:
                if self.driver is None and self.loop.has_due:
                    return True
                delay = self.loop.delay() if self.driver is None else None
                if delay is None:
                    end = end or time.monotonic() + _LINGER
                    delay = end - time.monotonic()
                    if delay <= 0 or self._is_settling:
                        # `leave` and `call` start another thread when there is something for it.
                        self._ended, self._spare = self._spare, None
                        self._changed.notify_all()
                        return False
                self._changed.wait(delay)
        return False

    @property
    def is_stranded(self) -> bool:
        """Whether something is due and no thread is going to run it."""
        with self._changed:
            return self.driver is None and self._spare is None and self.loop.has_due

    def settle(self) -> None:
        """Have the session's threads end, unless they are kept busy, and wait until they have."""
        end = time.monotonic() + _SETTLING
        # Those that finalise code which is being removed.
        ended = [each for each in list(action_threads) if each is not threading.current_thread()]
        for thread in ended:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            self._is_settling = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._spare is None or self.loop.delay() is not None,
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

    def forget_threads(self) -> None:
        """Begin anew in a forked process, which has none of its parent's other threads."""
        self._changed = threading.Condition(threading.RLock())
        self._spare = self._ended = None
        if self.driver != threading.get_ident():
            self.driver = None


_all_driven: weakref.WeakSet[_DrivenLoop] = weakref.WeakSet()


def _forget_threads() -> None:
    for wheel in list(_all_driven):
        wheel.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _stop_forgotten(wheel: _DrivenLoop) -> None:
    # A spare thread ends what is left. Where there is none nothing can be on its way but what
    # waits for something that cannot happen any more.
    wheel.lock()
    warnings.warn("a session was dropped without being ended", ResourceWarning, stacklevel=2)


class _InterruptsLater:
    """Raises an interrupt from the keyboard at the end of a ``with`` statement.

    Only the main thread gets any, and only if that is what is done with them.

    Attributes:
        is_any: whether there was one.
    """

    __slots__ = ("_is_ours", "is_any")

    def __init__(self) -> None:
        self.is_any = False
        is_main = threading.get_ident() == threading.main_thread().ident
        self._is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def __enter__(self) -> Self:
        if self._is_ours:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_any = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self.is_any:
                raise KeyboardInterrupt


# Tasks are known to their loop only weakly.
_running: set[Task[None]] = set()


def _running_task(loop: Loop, coroutine: Coroutine[Any, Any, None]) -> Task[None]:
    task = Task(loop, coroutine, Context())
    _running.add(task)
    task.add_done_callback(partial(_running.discard, task))
    return task
