"""Calls from an executor into the session: what ORC calls JIT dispatch.

A runtime packs a call and hands it to a dispatch function, with a context and a tag. The context
tells whose call it is; the tag, the address of a variable of the runtime, what is called. In this
process the dispatch function ends in Python, on the thread that called, so a handler may wait for
the session.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar
from weakref import WeakValueDictionary

from jitlink.errors import JITLinkError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.memory.actions import call_wrapper
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR, Failure, WrapperFunctionResult, WrapperSignature

T = TypeVar("T")
Handler = Callable[[bytes], WrapperFunctionResult]
"""Takes packed arguments and returns a packed result."""

_numbers = itertools.count(1)


class Dispatcher:
    """Answers the calls of one context, as long as somebody holds on to it.

    Attributes:
        number: the context: what the dispatch function gets as its first argument.
        handlers: what answers, by address of the tag.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.handlers: Mapping[int, Handler] = {}

    def answer(self, tag: int, data: bytes) -> WrapperFunctionResult:
        """The packed result of a call, or an out-of-band error.

        Args:
            tag: address of the tag.
            data: the packed arguments.
        """
        handler = self.handlers.get(tag)
        if handler is None:
            return _failed(f"nothing answers calls with tag {tag:#x}")
        try:
            return handler(data)
        except Exception as error:  # noqa: BLE001 - C code calls, and is told
            return _failed(f"{type(error).__name__}: {error}")


def _failed(message: str) -> WrapperFunctionResult:
    return WrapperFunctionResult(out_of_band_error=message)


def answers(signature: WrapperSignature[T | Failure], function: Callable[..., T]) -> Handler:
    """A handler that calls a function; what it raises becomes a failure in the packed result.

    Args:
        signature: of the call; the result is an Expected.
        function: takes the arguments and returns the value.
    """

    def handler(data: bytes) -> WrapperFunctionResult:
        answer: T | Failure
        try:
            answer = function(*signature.deserialize_arguments(data))
        except JITLinkError as error:
            answer = Failure(str(error))
        except Exception as error:  # noqa: BLE001 - C code calls, and is told
            answer = Failure(f"{type(error).__name__}: {error}")
        return signature.serialize_result(answer)

    return handler


def dispatch_in_process(
    executor: ExecutorProcessControl, runtime: Runtime, dispatcher: Dispatcher
) -> tuple[int, int]:
    """Address of the dispatch function of an executor, and the context of a dispatcher.

    Executors that are other processes have none yet: for those, both are 0.
    """
    if not isinstance(executor, SelfExecutorProcessControl):
        return 0, 0
    _dispatchers[dispatcher.number] = dispatcher
    with _lock:
        _callback_of(runtime)
    return runtime.addresses["__jitlink_dispatch"], dispatcher.number


_Callback = ctypes.CFUNCTYPE(
    None, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
)
_C = ctypes.CDLL(None)
_malloc = _C.malloc
_malloc.argtypes = (ctypes.c_size_t,)
_malloc.restype = ctypes.c_void_p
_dispatchers: WeakValueDictionary[int, Dispatcher] = WeakValueDictionary()
_lock = threading.Lock()


class _Result(ctypes.Structure):
    # As in runtime/wrapper.h.
    _fields_ = (("value", ctypes.c_char * 8), ("size", ctypes.c_size_t))


@functools.cache
def _callback_of(runtime: Runtime) -> object:
    """The one function that the runtime calls; it stays for ever."""

    def call(context: int, tag: int, data: int, size: int, result: int) -> None:
        dispatcher = _dispatchers.get(context)
        if dispatcher is None:
            answer = _failed("the session has ended")
        else:
            answer = dispatcher.answer(tag, ctypes.string_at(data, size) if size else b"")
        _store(_Result.from_address(result), answer)

    callback = _Callback(call)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    setter = runtime.addresses["__jitlink_set_callback"]
    call_wrapper(setter, EXECUTOR_ADDR.serialize(address))
    return callback


def _store(result: _Result, answer: WrapperFunctionResult) -> None:
    """Put an answer where C expects it."""
    place, data = ctypes.addressof(result), answer.data
    if answer.out_of_band_error is not None:
        text = answer.out_of_band_error.encode("utf-8", "surrogateescape")
        ctypes.c_void_p.from_address(place).value = copy_to_c(text.replace(b"\0", b"?") + b"\0")
        result.size = 0
        return
    if len(data) > ctypes.sizeof(ctypes.c_void_p):
        ctypes.c_void_p.from_address(place).value = copy_to_c(data)
    else:
        ctypes.memmove(place, data, len(data))
    result.size = len(data)


def copy_to_c(content: bytes) -> int:
    """Address of a copy in memory of malloc, which C code frees."""
    address = _malloc(len(content) or 1)
    if not address:
        raise MemoryError
    ctypes.memmove(address, content, len(content))
    return int(address)
