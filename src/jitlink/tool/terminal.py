"""Output for terminals only: colour, and a bar for long links.

There is no colour if the environment sets ``NO_COLOR`` (https://no-color.org) or the terminal does
not support it. The bar appears after a second and is erased before other output. It has a thread of
its own, because the main thread is busy linking.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self, TextIO

_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
_ERASE_LINE = "\r\x1b[K"
_DELAY = 1.0
"""Seconds before a bar is drawn."""
_PERIOD = 0.1
_BAR_WIDTH = 24


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that understands escape sequences."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # It is closed.
        return False


def in_red(text: str, stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> str:
    """A text, in red if the stream is a terminal that shows colour."""
    if not is_terminal(stream) or environment.get("NO_COLOR"):
        return text
    return f"{_RED}{text}{_PLAIN}"


class ProgressBar:
    """A progress bar that a ``with`` statement shows, if the stream is a terminal.

    Args:
        stream: the stream to draw on.
        state: returns the fraction of the work that is done, between 0 and 1, and the current
            step; called from another thread.
    """

    def __init__(self, stream: TextIO | None, state: Callable[[], tuple[float, str]]) -> None:
        self._stream = stream if is_terminal(stream) else None
        self._state = state
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        if self._stream is not None:
            self._thread = threading.Thread(target=self._draw, name="jitlink bar", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._thread is not None:
            self._stopped.set()
            self._thread.join()
            self._thread = None

    def _draw(self) -> None:
        started, drawn = time.monotonic(), False
        while not self._stopped.wait(_PERIOD if drawn else _DELAY):
            drawn = self._write(self._line(time.monotonic() - started))
            if not drawn:
                return
        if drawn:
            self._write(_ERASE_LINE)

    def _line(self, seconds: float) -> str:
        done, what = self._state()
        # New work makes the fraction smaller; the bar does not follow.
        self._shown = max(self._shown, min(max(done, 0.0), 1.0))
        filled = int(self._shown * _BAR_WIDTH)
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        text = f"[{bar}] {self._shown:4.0%} {seconds:.0f} s  {what}"
        return _ERASE_LINE + text[: max(_columns(self._stream) - 1, 0)]

    def _write(self, text: str) -> bool:
        """Write to the terminal, and return whether that worked."""
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):
            return False
        return True


def _columns(stream: TextIO | None) -> int:
    try:
        columns = os.get_terminal_size(stream.fileno()).columns if stream is not None else 0
    except OSError:
        columns = 0
    # A terminal whose size is not set reports 0.
    return columns or 80
