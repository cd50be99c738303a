"""Calls from an executor's code: what takes them, and on which threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jitlink.sps import WrapperFunctionResult

Handler = Callable[[bytes], WrapperFunctionResult]
"""Takes the serialized arguments of a call from the executor; returns its result."""


class _Handling(threading.local):
    """Whether a thread handles a call from an executor."""

    is_active = False


_handling = _Handling()


def mark_handler() -> None:
    """Record that this thread handles calls."""
    _handling.is_active = True


def handles_call() -> bool:
    """Whether this thread handles a call from an executor, whose code waits for it."""
    return _handling.is_active
