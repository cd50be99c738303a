"""The thread of a session: its event loop, and which thread runs it when.

One thread at a time is at the wheel and runs what is due; everything that says "the session's
thread" means that one. A thread that waits for something takes the wheel if nobody has it, so
that what it waits for costs no change of threads. What remains when it leaves, and what is
handed over while nobody is there, is for a spare thread, which is started when there is
something for it the first time.

Whatever is handed over before the wheel is locked runs, or its waiter is told that the session
has ended; nobody waits for a thread that is gone. Nothing that runs at the wheel can end the
spare thread, not even ``SystemExit``; and an interrupt from the keyboard waits until what it
would have broken off is done.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from jitlink.orc.errors import SessionEndedError, SessionError
from jitlink.orc.event_loop import EventLoop
from jitlink.orc.garbage import is_collecting

T = TypeVar("T")
log = logging.getLogger("jitlink.orc")

_PATIENCE = 5.0
"""Seconds that tasks have to end after they were cancelled, when the session's thread stops."""


class SessionThread:
    """What runs a session, until it is stopped or its owner is collected.

    Args:
        owner: whoever has to stop it.
    """

    def __init__(self, owner: object) -> None:
        self._wheel = _Wheel()
        # The wheel does not know the owner, which can so be collected.
        self._finalizer = weakref.finalize(owner, _stop_forgotten, self._wheel)
        self._finalizer.atexit = False

    @property
    def is_stopped(self) -> bool:
        """Whether nothing can be handed over any more."""
        return self._wheel.is_locked

    @property
    def is_current(self) -> bool:
        """Whether the caller is at the wheel."""
        return self._wheel.driver == threading.get_ident()

    def check_is_other(self) -> None:
        """Check that the caller may wait for what runs at the wheel.

        Raises:
            SessionError: it is at the wheel itself.
        """
        if self.is_current:
            raise SessionError("the session's thread cannot wait for itself; use the async form")

    def call(self, action: Callable[[], None]) -> bool:
        """Run something soon, without waiting for it; False if the thread was stopped."""
        return self._wheel.call(action)

    def call_later(self, delay: float, action: Callable[[], None]) -> bool:
        """Run something after `delay` seconds; False if the thread was stopped."""
        loop = self._wheel.loop

        def schedule() -> None:
            loop.call_later(delay, action)

        return self.call(schedule)

    def run(self, action: Callable[[], T]) -> T:
        """Run something and return what it returns.

        Raises:
            SessionEndedError: the thread was stopped.
        """
        if self.is_current:
            return action()
        if self._wheel.take():
            try:
                with _interrupts_later():
                    return Context().run(action)
            finally:
                self._wheel.leave()
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            if not self.call(partial(_act, action, result)):
                raise SessionEndedError
            return result.result()
        finally:
            # An error that was raised knows this frame, and the future knows the error.
            del result

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
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        begin = partial(_start, self._wheel.loop, coroutine, result)
        try:
            self.check_is_other()
            is_begun = (not aside and self._drive(begin, result)) or self.call(begin)
        except SessionError:
            coroutine.close()
            raise
        except BaseException:
            result.cancel()
            raise
        if not is_begun:
            coroutine.close()
            raise SessionEndedError
        try:
            return result.result()
        except BaseException:
            result.cancel()
            raise
        finally:
            del result, coroutine, begin

    def _drive(self, begin: Callable[[], None], result: concurrent.futures.Future[Any]) -> bool:
        """Begin something and run what is due until it is done or waits; False if not at all."""
        if not self._wheel.take():
            return False
        try:
            with _interrupts_later() as is_interrupted:
                begin()
                self._wheel.drive(lambda: result.done() or is_interrupted())
        finally:
            self._wheel.leave()
        return True

    def call_from_finalizer(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine now if that is possible, otherwise soon; it is never waited for.

        While garbage is collected, when any lock may be held, another thread runs it.
        """
        loop = self._wheel.loop
        self._wheel.call_from_finalizer(lambda: _running_task(loop, make()))

    def stop(self) -> None:
        """Stop the thread, when what runs on it is done or cancelled; again it does nothing."""
        self._finalizer.detach()
        self._wheel.lock()
        self._wheel.join()


class _Wheel:
    """Who may run the event loop.

    Attributes:
        loop: the event loop.
        driver: identity of the thread at the wheel, or None.
        is_locked: whether nothing can be handed over any more.
    """

    def __init__(self) -> None:
        # Of what asyncio defines it has what a session uses.
        self.loop = EventLoop(self._wake)  # type: ignore[abstract]
        self.driver: int | None = None
        self.is_locked = False
        # Reentrant: a collection that happens under the lock may lock the wheel, or call.
        self._changed = threading.Condition(threading.RLock())
        self._spare: threading.Thread | None = None
        _all_wheels.add(self)

    def take(self) -> bool:
        """Take the wheel, if that is possible; False if it is not."""
        # A thread in which another event loop runs cannot run this one in between.
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - it is public, if not by name
            return False
        with self._changed:
            if self.driver is not None or self.is_locked:
                return False
            self.driver = threading.get_ident()
        asyncio._set_running_loop(self.loop)  # noqa: SLF001
        return True

    def leave(self) -> None:
        """Leave the wheel, and what is due to the spare thread."""
        asyncio._set_running_loop(None)  # noqa: SLF001
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
            self._run_due()
            if is_done():
                # Whoever is done has usually left something that ends with it.
                self._run_due()
                return

    def _run_due(self) -> None:
        try:
            self.loop.run_due()
        except BaseException:
            # SystemExit and KeyboardInterrupt of a task leave the loop, but are for its waiter.
            log.exception("a task of the session tried to end its thread")

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
        self.loop.call_soon(action, context=Context())
        if self._changed.acquire(blocking=False):
            try:
                if is_collecting():
                    self._wake()
                else:
                    self.drive_if_free(lambda: False)
            finally:
                self._changed.release()

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
        asyncio._set_running_loop(self.loop)  # noqa: SLF001
        try:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            end = time.monotonic() + _PATIENCE
            while asyncio.all_tasks(self.loop) and time.monotonic() < end:
                self._run_or_wait(end)
            self.drive(lambda: False)
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
                    self._spare = threading.Thread(target=self._serve, name=name, daemon=True)
                    self._spare.start()
            self._changed.notify_all()

    def _serve(self) -> None:
        while self._await_turn():
            self.drive_if_free(lambda: self.is_locked)
        self.finish()

    def _await_turn(self) -> bool:
        """Wait until something is due and nobody is there; False if the wheel is locked."""
        with self._changed:
            while not self.is_locked:
                if self.driver is None and self.loop.has_due:
                    return True
                self._changed.wait(self.loop.delay() if self.driver is None else None)
        return False

    def forget_threads(self) -> None:
        """Begin anew in a forked process, which has none of its parent's other threads."""
        self._changed = threading.Condition(threading.RLock())
        self._spare = None
        if self.driver != threading.get_ident():
            self.driver = None


_all_wheels: weakref.WeakSet[_Wheel] = weakref.WeakSet()


def _forget_threads() -> None:
    for wheel in list(_all_wheels):
        wheel.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _stop_forgotten(wheel: _Wheel) -> None:
    # A spare thread ends what is left. Where there is none nothing can be on its way but what
    # waits for something that cannot happen any more.
    wheel.lock()
    warnings.warn("a session was dropped without being ended", ResourceWarning, stacklevel=2)


@contextlib.contextmanager
def _interrupts_later() -> Iterator[Callable[[], bool]]:
    """Raise an interrupt from the keyboard at the end; gives whether there was one.

    Only the main thread gets any, and only if that is what is done with them.
    """
    caught: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    is_main = threading.get_ident() == threading.main_thread().ident
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if caught:
            raise KeyboardInterrupt


def _act(action: Callable[[], T], result: concurrent.futures.Future[T]) -> None:
    try:
        value = action()
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
        result.set_exception(error)
    else:
        result.set_result(value)
    finally:
        del result


# Tasks are known to their loop only weakly.
_running: set[asyncio.Task[None]] = set()


def _running_task(loop: EventLoop, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    # What the caller has set for itself (NumPy's error handling, say) is not for the session.
    task = loop.create_task(coroutine, context=Context())
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def _start(
    loop: EventLoop, coroutine: Coroutine[Any, Any, T], result: concurrent.futures.Future[T]
) -> None:
    task = _running_task(loop, _deliver(coroutine, result))

    def finish(_task: asyncio.Task[None]) -> None:
        # Cancelled before it began.
        coroutine.close()
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if not result.done():
                result.set_exception(SessionEndedError())

    def cancel(result: concurrent.futures.Future[T]) -> None:
        if result.cancelled():
            loop.call_soon_threadsafe(task.cancel)

    task.add_done_callback(finish)
    result.add_done_callback(cancel)


async def _deliver(coroutine: Coroutine[Any, Any, T], result: concurrent.futures.Future[T]) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        try:
            value = await coroutine
        except asyncio.CancelledError:
            result.set_exception(SessionEndedError())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            result.set_exception(error)
        else:
            result.set_result(value)
        finally:
            del result, coroutine
