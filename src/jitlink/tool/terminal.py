"""What is shown on a terminal only: colour, and a bar for what takes long.

Colour is left out where the environment has ``NO_COLOR`` (https://no-color.org) or a terminal that
cannot show it. The bar appears once a second has passed and is gone when something else is to be
written. A thread draws it, because the one that links has other things to do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
_ERASE_LINE = "\r\x1b[K"
_DELAY = 1.0
"""Seconds before a bar is drawn."""
_PERIOD = 0.1
_BAR_WIDTH = 24


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a stream on a terminal that can do more than print."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # It is closed.
        return False


def in_red(text: str, stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> str:
    """A text as it is to be written to a stream to stand out."""
    if not is_terminal(stream) or environment.get("NO_COLOR"):
        return text
    return f"{_RED}{text}{_PLAIN}"


class ProgressBar:
    """A bar on a terminal, for as long as a ``with`` statement lasts; elsewhere it is nothing.

    Args:
        stream: where to draw.
        state: what has been done so far, between 0 and 1, and what goes on; called from
            another thread.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        # What turns up on the way makes the whole larger; a bar that goes back is no help.
        self._shown = max(self._shown, min(max(done, 0.0), 1.0))
        filled = int(self._shown * _BAR_WIDTH)
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        text = f"[{bar}] {self._shown:4.0%} {seconds:.0f} s  {what}"
        return _ERASE_LINE + text[: max(_columns(self._stream) - 1, 0)]

    def _write(self, text: str) -> bool:
        """Write to the terminal; whether it is still there."""
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
    # A terminal that nobody has told its size says 0.
    return columns or 80
