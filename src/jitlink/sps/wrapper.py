"""Wrapper functions: ``CWrapperFunctionResult f(const char *arguments, size_t size)``.

They are how ORC calls anything in an executor. Arguments and result are packed bytes; a
result is either bytes or an *out-of-band* error, the text of something that went wrong before
the function could pack a result of its own type.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from jitlink.sps.types import (
    CHARS,
    ERROR,
    EXECUTOR_ADDR,
    Failure,
    Record,
    SPSError,
    SPSType,
    T,
    Tuple,
)


class WrapperFunctionCall(NamedTuple):
    """A call that is ready to be made; a `callee` of 0 means no call."""

    callee: int
    arguments: bytes


NO_CALL = WrapperFunctionCall(0, b"")


class AllocActionCallPair(NamedTuple):
    """What to call when memory is finalized, and what when it is deallocated."""

    finalize: WrapperFunctionCall
    deallocate: WrapperFunctionCall


WRAPPER_FUNCTION_CALL = Record(WrapperFunctionCall, EXECUTOR_ADDR, CHARS)
ALLOC_ACTION_CALL_PAIR = Record(AllocActionCallPair, WRAPPER_FUNCTION_CALL, WRAPPER_FUNCTION_CALL)


_SUCCESS = ERROR.serialize(None)


class WrapperFunctionResult(NamedTuple):
    """What a wrapper function returned.

    Attributes:
        data: the packed result; empty for one without a value.
        out_of_band_error: the text of an out-of-band error, or None.
    """

    data: bytes = b""
    out_of_band_error: str | None = None

    def failure(self) -> Failure | None:
        """Read the result of a function that returns an ERROR; an empty one is success.

        Raises:
            SPSError: the bytes are no ERROR.
        """
        if self.out_of_band_error is not None:
            return Failure(self.out_of_band_error)
        if self.data in (b"", _SUCCESS):
            return None
        return ERROR.deserialize(self.data)


class WrapperSignature(Generic[T]):
    """Result and argument types of a wrapper function.

    Args:
        result: the result's type, EMPTY for none.
        arguments: the arguments' types.
    """

    def __init__(self, result: SPSType[T], *arguments: SPSType[Any]) -> None:
        self._result = result
        self._arguments = Tuple(*arguments)

    def serialize_arguments(self, *values: object) -> bytes:
        """The bytes to call the function with.

        Raises:
            SPSError: there are too many or too few values, or one does not fit its type.
        """
        return self._arguments.serialize(values)

    def deserialize_arguments(self, data: bytes) -> tuple[Any, ...]:
        """The arguments that a call was made with.

        Raises:
            SPSError: the bytes are not what the signature says.
        """
        return self._arguments.deserialize(data)

    def serialize_result(self, value: T) -> WrapperFunctionResult:
        """What to return from the function.

        Raises:
            SPSError: the value does not fit the result's type.
        """
        return WrapperFunctionResult(self._result.serialize(value))

    def deserialize_result(self, result: WrapperFunctionResult) -> T:
        """The value that the function returned.

        Raises:
            SPSError: the result is an out-of-band error, or not what the signature says.
        """
        if result.out_of_band_error is not None:
            raise SPSError(f"the call failed: {result.out_of_band_error}")
        return self._result.deserialize(result.data)
