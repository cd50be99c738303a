"""When Python ends: platforms close what may call Python, after Python's exit handlers.

Natively, exit handlers and finalisers run when the C library's do. At that time Python functions
cannot be called. What may call one is therefore closed earlier, but after all handlers that were
registered with Python's `atexit`, whichever module registered them first: these may call the code.

`atexit` calls handlers in reverse order of registration, then drops all of them, while the
interpreter is whole. So a handler that is registered at any time can act after the last one: when
it is deleted. Without a GIL that may be later: an object whose thread has ended may be left to
another thread with the same identity. Python has then ended all threads but the main one.
"""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from typing import Protocol

from jitlink.orc.driver import forget_other_threads


class Closable(Protocol):
    """What `close_when_python_ends` takes."""

    def close_at_exit(self) -> None:
        """Close what may call Python."""


_open: list[weakref.ref[Closable]] = []
_lock = threading.Lock()


class _LastHandler:
    """An exit handler that closes platforms when `atexit` deletes it, the last platform first."""

    is_registered = False

    def __init__(self) -> None:
        self._is_called = False

    def __call__(self) -> None:
        """Record that the exit handlers run: `atexit` may be cleared without that."""
        self._is_called = True

    def __del__(self) -> None:
        """Close the platforms."""
        _LastHandler.is_registered = False
        if sys.is_finalizing():
            forget_other_threads()
        references = list(_open) if self._is_called else []
        for reference in reversed(references):
            platform = reference()
            if platform is not None:
                try:
                    platform.close_at_exit()
                except BaseException:  # noqa: BLE001 - a handler may raise anything
                    # As `atexit` does.
                    sys.excepthook(*sys.exc_info())


def close_when_python_ends(platform: Closable) -> None:
    """Have a platform closed when Python ends, if it still exists."""
    _open.append(weakref.ref(platform, _open.remove))
    with _lock:
        is_first, _LastHandler.is_registered = not _LastHandler.is_registered, True
    if is_first:
        # Only `atexit` refers to it.
        atexit.register(_LastHandler())


def forget(platform: Closable) -> None:
    """Undo `close_when_python_ends`, if it has been called."""
    _open[:] = [reference for reference in _open if reference() is not platform]
