"""The thread of a session: an event loop, and how other threads hand things to it.

Whatever is handed over before the thread is stopped runs, or its waiter is told that the
session has ended; nobody waits for a thread that is gone. Nothing that runs there can end the
thread, not even ``SystemExit``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from jitlink.orc.errors import SessionEndedError, SessionError

T = TypeVar("T")
log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that tasks have to end after they were cancelled, when the thread stops."""


class SessionThread:
    """A thread that runs an event loop until it is stopped or its owner is collected.

    Args:
        owner: whoever has to stop it.
    """

    def __init__(self, owner: object) -> None:
        self._gate = _Gate()
        loop = self._gate.loop
        self._thread = threading.Thread(
            target=_serve, args=(loop,), name="jitlink session", daemon=True
        )
        self._thread.start()
        # Neither the thread nor this knows the owner, which can so be collected.
        self._finalizer = weakref.finalize(owner, _stop_forgotten, self._gate)
        self._finalizer.atexit = False

    @property
    def is_stopped(self) -> bool:
        """Whether nothing can be handed over any more."""
        return self._gate.is_closed

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the thread."""
        return threading.current_thread() is self._thread

    def check_is_other(self) -> None:
        """Check that the caller may wait for the thread.

        Raises:
            SessionError: it runs on the thread itself.
        """
        if self.is_current:
            raise SessionError("the session's thread cannot wait for itself; use the async form")

    def call(self, action: Callable[[], None]) -> bool:
        """Run something soon, without waiting for it; False if the thread was stopped."""
        return self._gate.call(action)

    def call_later(self, delay: float, action: Callable[[], None]) -> bool:
        """Run something after `delay` seconds; False if the thread was stopped."""
        loop = self._gate.loop

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
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            if not self.call(partial(_act, action, result)):
                raise SessionEndedError
            return result.result()
        finally:
            # An error that was raised knows this frame, and the future knows the error.
            del result

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return what it returns.

        If the wait is interrupted, the coroutine is cancelled.

        Raises:
            SessionError: called on the thread itself.
            SessionEndedError: the thread was stopped.
        """
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            self.check_is_other()
            if not self.call(partial(_start, coroutine, result)):
                raise SessionEndedError
        except SessionError:
            coroutine.close()
            raise
        try:
            return result.result()
        except BaseException:
            result.cancel()
            raise
        finally:
            del result, coroutine

    def stop(self) -> None:
        """Stop the thread and wait for it; a second call does nothing."""
        self._finalizer.detach()
        self._gate.close()
        self._thread.join()


class _Gate:
    """The way to an event loop, until it is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.is_closed = False
        # Reentrant: a collection that happens under the lock may close or call.
        self._lock = threading.RLock()

    def call(self, action: Callable[[], None]) -> bool:
        with self._lock:
            if not self.is_closed:
                self.loop.call_soon_threadsafe(action)
                return True
            return False

    def close(self) -> None:
        with self._lock:
            if not self.is_closed:
                self.is_closed = True
                self.loop.call_soon_threadsafe(self.loop.stop)


def _stop_forgotten(gate: _Gate) -> None:
    gate.close()
    warnings.warn("a session was dropped without being ended", ResourceWarning, stacklevel=2)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        while True:
            try:
                loop.run_forever()
                break
            except BaseException:
                # SystemExit and KeyboardInterrupt of a task leave the loop; it goes on.
                log.exception("a task of the session tried to end its thread")
        _drain(loop)
    finally:
        loop.close()


def _drain(loop: asyncio.AbstractEventLoop) -> None:
    """End what was handed over and is not done."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_PATIENCE))
    loop.run_until_complete(loop.shutdown_asyncgens())


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


def _start(coroutine: Coroutine[Any, Any, T], result: concurrent.futures.Future[T]) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(_deliver(coroutine, result))
    _running.add(task)

    def finish(task: asyncio.Task[None]) -> None:
        _running.discard(task)
        # Cancelled before it began.
        coroutine.close()
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if not result.done():
                result.set_exception(SessionEndedError())

    def cancel(result: concurrent.futures.Future[T]) -> None:
        if result.cancelled():
            with contextlib.suppress(RuntimeError):
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
