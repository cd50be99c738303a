"""Calls from an executor's code: what takes them, and on which threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jitlink.sps import WrapperFunctionResult

Handler = Callable[[int, bytes], WrapperFunctionResult]
"""Takes the tag and the serialized arguments of a call from the executor; returns its result."""


class IncomingCalls:
    """Takes the calls of an executor's code.

    Attributes:
        handlers: what takes calls, by tag.
    """

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[bytes], WrapperFunctionResult]] = {}

    def __call__(self, tag: int, data: bytes) -> WrapperFunctionResult:
        """Take a call; without a handler its result is empty."""
        handler = self.handlers.get(tag)
        return WrapperFunctionResult() if handler is None else handler(data)


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
