"""A thread that stops emulated code whose time is over.

What it stops is never resumed: Unicorn does not know then how far the code had come, and would
execute some of it again. A program counter of that time is only about right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_INTERVAL = 0.02
"""Seconds after which a stop is repeated that came while no code ran, as in a host function."""
_NEVER = float("inf")


class Watchdog:
    """Stops what runs at a deadline.

    The thread starts with the first call that has one. It sleeps until the deadline that it knows,
    so that many short calls do not wake it, and ends with `close`.

    Args:
        stop: stops what runs now; it must not keep the emulator.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._deadline = self._wakes_at = _NEVER
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set_deadline(self, deadline: float | None) -> None:
        """Stop what runs at a time of `time.monotonic`; None for never."""
        with self._changed:
            self._deadline = _NEVER if deadline is None else deadline
            if self._deadline == _NEVER:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jitlink emulator")
                self._thread.daemon = True
                self._thread.start()
            elif self._deadline < self._wakes_at:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                if self._deadline <= now:
                    self._stop()
                    self._wakes_at = now + _INTERVAL
                else:
                    self._wakes_at = self._deadline
                self._changed.wait(None if self._wakes_at == _NEVER else self._wakes_at - now)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
