"""A thread that stops emulated code now and then.

While Unicorn runs, Python handles no signals and looks at no clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_INTERVAL = 0.05
"""Seconds for which code runs at most, before Python handles signals and looks at the clock."""


class Watchdog:
    """Stops what runs, every twentieth of a second.

    The thread starts with the first call, sleeps while nothing runs, and ends with `close`.

    Args:
        stop: stops what runs now; it must not keep the emulator.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._running = 0
        self._is_closed = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        """Begin a call."""
        self._running += 1
        # So that many short calls do not wake the thread.
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jitlink emulator")
                self._thread.daemon = True
                self._thread.start()

    def leave(self) -> None:
        """End a call."""
        self._running -= 1

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._is_closed:
                return
            time.sleep(_INTERVAL)
            if self._running:
                self._stop()
            else:
                self._wake.clear()
                # What has happened meanwhile has found it set.
                if self._is_needed():
                    self._wake.set()

    def _is_needed(self) -> bool:
        return self._is_closed or self._running > 0

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
