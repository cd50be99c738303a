"""An event loop that runs for as long as somebody calls it, on whichever thread that is.

asyncio's own loops belong to the thread that runs them until they are stopped. This one only
keeps what is due: `EventLoop.run_due` runs that and returns. It knows no files and no sockets;
what happens elsewhere is told with `call_soon_threadsafe`.

Specification: `asyncio.AbstractEventLoop`, as far as tasks, futures, locks and timeouts use it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
log = logging.getLogger("jitlink.orc")


class _Call(asyncio.Handle):
    """Something to be called."""

    def run(self) -> None:
        """Call it, unless it was cancelled; errors go to the loop's handler."""
        if not self._cancelled:
            self._run()


class _Timer(asyncio.TimerHandle, _Call):
    """Something to be called at a time."""


class EventLoop(asyncio.AbstractEventLoop):
    """Calls that are due, in order, and those that will be.

    Args:
        wake: called, on any thread, when another than the running one has made a call due.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._due: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()

    # Running

    @property
    def has_due(self) -> bool:
        """Whether something is due now."""
        return bool(self._due) or self.delay() == 0

    def delay(self) -> float | None:
        """Seconds until the next timer, 0 if it is due; None if there is none."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - self.time()) if timers else None

    def run_due(self) -> None:
        """Run what is due now; what that makes due in turn is left.

        To be called by one thread at a time. ``SystemExit`` and ``KeyboardInterrupt`` of a call
        are raised, and what was due after it is left.
        """
        while self._timers and self.delay() == 0:
            self._due.append(heapq.heappop(self._timers)[2])
        due = self._due
        for _ in range(len(due)):
            due.popleft().run()

    # What asyncio asks for

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Make a call due; for what runs on the loop."""
        call = _Call(callback, args, self, context)
        self._due.append(call)
        return call

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Make a call due, from any thread."""
        call = self.call_soon(callback, *args, context=context)
        self._wake()
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a call due in `delay` seconds; for what runs on the loop."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a call due at a time of `time`; for what runs on the loop."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: `delay` drops what was cancelled."""

    def time(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """A task of this loop, which begins when it is due."""
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def get_debug(self) -> bool:
        """False: asyncio's debugging aids are for its own loops."""
        return False

    def is_running(self) -> bool:
        """True: whatever is due will be run."""
        return True

    def is_closed(self) -> bool:
        """False: there is nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log an error that no task has taken."""
        log.error("%s", context.get("message"), exc_info=context.get("exception"))
