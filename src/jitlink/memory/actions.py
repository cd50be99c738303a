"""Running allocation actions in this process."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator, Sequence

from jitlink.errors import ActionError, JITLinkError
from jitlink.graph import AllocActionPair, Symbol, WrapperCall
from jitlink.host import c_library
from jitlink.sps import (
    NO_CALL,
    AllocActionCallPair,
    SPSError,
    WrapperFunctionCall,
    WrapperFunctionResult,
)


class _CWrapperFunctionResult(ctypes.Structure):
    # In C the first member is union {char *pointer; char bytes[8]}.
    _fields_ = (("value", ctypes.c_uint64), ("size", ctypes.c_size_t))


_SIGNATURE = (_CWrapperFunctionResult, ctypes.c_char_p, ctypes.c_size_t)


class _ThreadCalls(threading.local):
    """How the calling thread calls wrapper functions."""

    prototype: type[ctypes._CFunctionType] = ctypes.CFUNCTYPE(*_SIGNATURE)


_calls = _ThreadCalls()
_free = c_library()["free"]
_free.argtypes = (ctypes.c_void_p,)
_free.restype = None
_INLINE_SIZE = 8


@contextlib.contextmanager
def interpreter_lock_held() -> Iterator[None]:
    """Have the calling thread keep the interpreter lock in wrapper functions that it calls.

    For code that uses the Python C API: ctypes releases the lock during other calls.
    """
    previous, _calls.prototype = _calls.prototype, ctypes.PYFUNCTYPE(*_SIGNATURE)
    try:
        yield
    finally:
        _calls.prototype = previous


def call_wrapper(address: int, arguments: bytes) -> WrapperFunctionResult:
    """Call the wrapper function at an address of this process."""
    result = _calls.prototype(address)(arguments, len(arguments))
    value, size = int(result.value), int(result.size)
    if size > _INLINE_SIZE:
        data = ctypes.string_at(value, size)
        _free(value)
        return WrapperFunctionResult(data)
    if size == 0 and value:
        message = ctypes.string_at(value).decode("utf-8", "surrogateescape")
        _free(value)
        return WrapperFunctionResult(out_of_band_error=message)
    return WrapperFunctionResult(value.to_bytes(_INLINE_SIZE, sys.byteorder)[:size])


def resolve_actions(pairs: Sequence[AllocActionPair]) -> list[AllocActionCallPair]:
    """The calls for a graph's allocation actions; all addresses must be known."""
    resolved: list[AllocActionCallPair] = []
    for finalize, deallocate in pairs:
        first = _resolve(finalize, None)
        # Functions that serialize arguments take longer than all else here.
        shares = finalize and deallocate and finalize.arguments is deallocate.arguments
        resolved.append(
            AllocActionCallPair(first, _resolve(deallocate, first.arguments if shares else None))
        )
    return resolved


def _resolve(call: WrapperCall | None, serialized: bytes | None) -> WrapperFunctionCall:
    """The call, with arguments that are serialized already if there are any."""
    if call is None:
        return NO_CALL
    function, arguments = call.function, call.arguments
    if serialized is None:
        serialized = arguments if isinstance(arguments, bytes) else arguments()
    return WrapperFunctionCall(
        function.address if isinstance(function, Symbol) else function, serialized
    )


def _run(call: WrapperFunctionCall) -> None:
    try:
        failure = call_wrapper(call.callee, call.arguments).failure()
    except SPSError as error:
        raise ActionError(f"unreadable result: {error}", address=call.callee) from error
    if failure is not None:
        raise ActionError(failure.message, address=call.callee)


def run_finalize_actions(pairs: Sequence[AllocActionCallPair]) -> list[WrapperFunctionCall]:
    """Run the finalize halves in order.

    Returns:
        The deallocate halves, in the same order.

    Raises:
        ActionError: one failed; the deallocate halves of those before it have been run, and
            their errors are in the notes of this one.
    """
    deallocate_halves: list[WrapperFunctionCall] = []
    for finalize, deallocate in pairs:
        try:
            if finalize.callee:
                _run(finalize)
        except ActionError as error:
            for other in run_deallocate_actions(deallocate_halves):
                error.add_note(str(other))
            raise
        if deallocate.callee:
            deallocate_halves.append(deallocate)
    return deallocate_halves


def run_deallocate_actions(calls: Sequence[WrapperFunctionCall]) -> list[JITLinkError]:
    """Run calls in reverse order.

    Returns:
        The errors of those that failed.
    """
    errors: list[JITLinkError] = []
    for call in reversed(calls):
        try:
            _run(call)
        except ActionError as error:
            errors.append(error)
    return errors
