"""JIT dispatch: calls from an executor into the session.

A runtime serializes the arguments of a call and hands them to a dispatch function, with a context
and a tag. The context identifies the dispatcher; the tag, the address of a variable of the
runtime, identifies the handler. In this process the dispatch function calls Python on the calling
thread, so a handler may wait for the session.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from jitlink.errors import JITLinkError
from jitlink.executor import ExecutorProcessControl
from jitlink.host import c_library
from jitlink.memory.actions import call_wrapper
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR, Failure, WrapperFunctionResult, WrapperSignature

T = TypeVar("T")
JITDispatchHandler = Callable[[bytes], WrapperFunctionResult]
"""Takes serialized arguments and returns a serialized result."""

_contexts = itertools.count(1)
_ENDED = "the session has ended"


class Dispatcher:
    """The handlers of one context; calls are dispatched for as long as it is referenced.

    Attributes:
        context: the first argument of the dispatch function of this process.
        handlers: handlers by address of their tag.
    """

    def __init__(self) -> None:
        self.context = next(_contexts)
        self.handlers: Mapping[int, JITDispatchHandler] = {}
        self._executor: weakref.ref[ExecutorProcessControl] | None = None

    def connect(self, executor: ExecutorProcessControl, runtime: Runtime) -> tuple[int, int]:
        """Address of the dispatch function of an executor, and its first argument.

        Both are 0 for executors that dispatch no calls.
        """
        if not executor.is_this_process:
            self._executor = weakref.ref(executor)
            return executor.dispatch or (0, 0)
        _dispatchers[self.context] = self
        with _lock:
            _set_callback(runtime)
        return runtime.addresses["__jitlink_dispatch"], self.context

    def handle(self, handlers: Mapping[int, JITDispatchHandler]) -> None:
        """Have handlers take calls; in another process their tags must be those of no others.

        Args:
            handlers: by address of their tag.
        """
        self.handlers = handlers
        executor = None if self._executor is None else self._executor()
        if executor is not None and executor.dispatch is not None:
            # The connection must not keep the dispatcher.
            run = partial(_run_handler, weakref.ref(self))
            executor.handle_calls({tag: partial(run, tag) for tag in handlers})

    def run_handler(self, tag: int, data: bytes) -> WrapperFunctionResult:
        """The serialized result of a call, or an out-of-band error.

        Args:
            tag: address of the tag.
            data: the serialized arguments.
        """
        handler = self.handlers.get(tag)
        if handler is None:
            return _out_of_band(f"no handler is registered for tag {tag:#x}")
        try:
            return handler(data)
        except Exception as error:  # noqa: BLE001 - the caller is C code
            return _out_of_band(f"{type(error).__name__}: {error}")


def _run_handler(
    reference: weakref.ref[Dispatcher], tag: int, data: bytes
) -> WrapperFunctionResult:
    dispatcher = reference()
    return _out_of_band(_ENDED) if dispatcher is None else dispatcher.run_handler(tag, data)


def _out_of_band(message: str) -> WrapperFunctionResult:
    return WrapperFunctionResult(out_of_band_error=message)


def wrap_with_sps(
    signature: WrapperSignature[T | Failure], function: Callable[..., T]
) -> JITDispatchHandler:
    """A handler that calls a function; an exception becomes a failure in the serialized result.

    Args:
        signature: of the call; the result is an Expected.
        function: takes the arguments and returns the value.
    """

    def handler(data: bytes) -> WrapperFunctionResult:
        result: T | Failure
        try:
            result = function(*signature.deserialize_arguments(data))
        except JITLinkError as error:
            result = Failure(str(error))
        except Exception as error:  # noqa: BLE001 - the caller is C code
            result = Failure(f"{type(error).__name__}: {error}")
        return signature.serialize_result(result)

    return handler


_Callback = ctypes.CFUNCTYPE(
    None, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
)
_malloc = c_library()["malloc"]
_malloc.argtypes = (ctypes.c_size_t,)
_malloc.restype = ctypes.c_void_p
_dispatchers: WeakValueDictionary[int, Dispatcher] = WeakValueDictionary()
_lock = threading.Lock()


class _Result(ctypes.Structure):
    # As in runtime/wrapper.h.
    _fields_ = (("value", ctypes.c_char * 8), ("size", ctypes.c_size_t))


@functools.cache
def _set_callback(runtime: Runtime) -> object:
    """Give the runtime the function that it calls; returns that function, which is never freed."""

    def call(context: int, tag: int, data: int, size: int, result: int) -> None:
        dispatcher = _dispatchers.get(context)
        if dispatcher is None:
            returned = _out_of_band(_ENDED)
        else:
            returned = dispatcher.run_handler(tag, ctypes.string_at(data, size) if size else b"")
        _store(_Result.from_address(result), returned)

    callback = _Callback(call)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    setter = runtime.addresses["__jitlink_set_callback"]
    call_wrapper(setter, EXECUTOR_ADDR.serialize(address))
    return callback


def _store(result: _Result, returned: WrapperFunctionResult) -> None:
    """Store what a handler returned as the C structure."""
    value, data = ctypes.addressof(result), returned.data
    if returned.out_of_band_error is not None:
        text = returned.out_of_band_error.encode("utf-8", "surrogateescape")
        ctypes.c_void_p.from_address(value).value = copy_to_c(text.replace(b"\0", b"?") + b"\0")
        result.size = 0
        return
    if len(data) > ctypes.sizeof(ctypes.c_void_p):
        ctypes.c_void_p.from_address(value).value = copy_to_c(data)
    else:
        ctypes.memmove(value, data, len(data))
    result.size = len(data)


def copy_to_c(content: bytes) -> int:
    """Address of a copy from malloc, which C code frees."""
    address = _malloc(len(content) or 1)
    if not address:
        raise MemoryError
    ctypes.memmove(address, content, len(content))
    return int(address)
