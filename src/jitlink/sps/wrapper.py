"""Wrapper functions: ``CWrapperFunctionResult f(const char *arguments, size_t size)``.

ORC makes calls in an executor through them. Arguments and results are serialized; a result is
either bytes or an *out-of-band* error: a message about a failure that the function could not
serialize as a result of its own type.
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
    """A call with serialized arguments; a `callee` of 0 means no call."""

    callee: int
    arguments: bytes


NO_CALL = WrapperFunctionCall(0, b"")


class AllocActionCallPair(NamedTuple):
    """The calls to make when memory is finalized and when it is deallocated."""

    finalize: WrapperFunctionCall
    deallocate: WrapperFunctionCall


WRAPPER_FUNCTION_CALL = Record(WrapperFunctionCall, EXECUTOR_ADDR, CHARS)
ALLOC_ACTION_CALL_PAIR = Record(AllocActionCallPair, WRAPPER_FUNCTION_CALL, WRAPPER_FUNCTION_CALL)


_SUCCESS = ERROR.serialize(None)


class WrapperFunctionResult(NamedTuple):
    """The result of a wrapper function.

    Attributes:
        data: the serialized result; empty for one without a value.
        out_of_band_error: the message of an out-of-band error, or None.
    """

    data: bytes = b""
    out_of_band_error: str | None = None

    def failure(self) -> Failure | None:
        """The error in the result of a function that returns an ERROR; empty data is success.

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
        """The serialized arguments of a call.

        Raises:
            SPSError: there are too many or too few values, or a type cannot hold one.
        """
        return bytes(self.pack_arguments(*values))

    def pack_arguments(self, *values: object) -> bytearray:
        """The same, without the copy that makes it immutable."""
        out = bytearray()
        self._arguments.write(values, out)
        return out

    def deserialize_arguments(self, data: bytes) -> tuple[Any, ...]:
        """The arguments in serialized form, deserialized.

        Raises:
            SPSError: the bytes are no values of the argument types.
        """
        return self._arguments.deserialize(data)

    def serialize_result(self, value: T) -> WrapperFunctionResult:
        """The result for a value.

        Raises:
            SPSError: the result type cannot hold the value.
        """
        return WrapperFunctionResult(self._result.serialize(value))

    def deserialize_result(self, result: WrapperFunctionResult) -> T:
        """The value that the function returned.

        Raises:
            SPSError: the result is an out-of-band error, or no value of the result type.
        """
        if result.out_of_band_error is not None:
            raise SPSError(f"the call failed: {result.out_of_band_error}")
        return self._result.deserialize(result.data)
