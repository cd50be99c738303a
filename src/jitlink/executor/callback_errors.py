"""Exceptions of Python functions that linked code calls.

An exception cannot pass through C code. It is recorded for the innermost call from Python into
linked code that records exceptions, which raises it when it returns. Those that no such call can
raise go to `threading.excepthook`: one on a thread that C code has started, in a call by other
means, or after another one in the same call.

Where the code is in another process, calls have numbers, which that sends along with calls of
Python functions (`CallNumbers`).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Raised = list[BaseException]
"""The exception that a call will raise, if there is one."""


class _CallStack(threading.local):
    """The calls of linked code that a thread is in, each with the exception that it will raise."""

    def __init__(self) -> None:
        self.frames: list[Raised] = []


_calls = _CallStack()


def call_code(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as it says
    """Call linked code through a ctypes function.

    Raises:
        BaseException: raised by a Python function that the code called.
    """
    frames = _calls.frames
    raised: Raised = []
    frames.append(raised)
    try:
        result = function(*arguments)
    finally:
        frames.pop()
    if raised:
        raise raised[0]
    return result


@contextmanager
def callback_errors() -> Iterator[Raised]:
    """Raise, at the end of a ``with`` statement, what Python functions raise that code calls."""
    raised: Raised = []
    with recorded_in([raised]):
        yield raised
    if raised:
        raise raised[0]


@contextmanager
def recorded_in(calls: Sequence[Raised]) -> Iterator[None]:
    """Record exceptions for the last one of these calls, which another thread may have made."""
    frames = _calls.frames
    size = len(frames)
    frames.extend(calls)
    try:
        yield
    finally:
        del frames[size:]


def innermost_call() -> Raised | None:
    """What the innermost call of linked code by this thread will raise; None if there is none."""
    frames = _calls.frames
    return frames[-1] if frames else None


def calls_under_way() -> Sequence[Raised]:
    """What each call of linked code will raise that this thread is in; the innermost is last."""
    return tuple(_calls.frames)


def has_raised() -> bool:
    """Whether this thread's call of linked code will raise an exception when it returns."""
    return bool(innermost_call())


def report(error: BaseException) -> None:
    """Record an exception for the call that will raise it, or report it."""
    raised = innermost_call()
    if raised is not None and not raised:
        raised.append(error)
        return
    thread = threading.current_thread()
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
    )


def reporting(function: Callable[..., Any], prototype: type[Any]) -> Callable[..., object]:
    """What C code calls for a Python function: it raises nothing, and its result is a C value."""
    result_type = prototype._restype_
    # The result of a failed function for C: zero bits, converted as ctypes does it.
    zero = None if result_type is None else getattr(result_type(), "value", None)

    def call(*arguments: object) -> object:
        try:
            result = function(*arguments)
            if result_type is None:
                return None
            # ctypes would not raise an error for a result of a wrong type.
            return result_type(result).value
        except BaseException as error:  # noqa: BLE001 - raised in the caller of the code
            report(error)
            return zero

    return call


class CallNumbers:
    """The calls of linked code that are under way in another process, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._calls: dict[int, Sequence[Raised]] = {}

    @contextmanager
    def number_of(self, calls: Sequence[Raised]) -> Iterator[int]:
        """The number of the last one of calls, while it lasts; the others are around it."""
        number = next(self._numbers)
        self._calls[number] = calls
        try:
            yield number
        finally:
            del self._calls[number]

    @contextmanager
    def on_behalf_of(self, number: int) -> Iterator[None]:
        """Record exceptions for a call by its number; 0 is none."""
        with recorded_in(self._calls.get(number, ())):
            yield
