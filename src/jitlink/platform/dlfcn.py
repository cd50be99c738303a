"""dlopen and its kin as linked code calls them: the session's side.

The runtime packs each call and hands it to a dispatch function with a tag, the address of a
variable that stands for the kind of call: that is how ORC's runtime calls its controller. In this
process the dispatch function ends in Python, on the thread that called.

Specification: POSIX, ``dlfcn.h``; `__jitlink_dlopen` and the others in ``runtime/dlfcn.c``.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from jitlink.errors import JITLinkError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.memory.actions import call_wrapper
from jitlink.orc.dylib import JITDylib, SearchOrder
from jitlink.orc.errors import SessionError
from jitlink.orc.symbols import JITDylibLookupFlags, LookupKind
from jitlink.platform.state import DylibState
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR, STRING, UINT64, Failure, WrapperSignature
from jitlink.sps.types import Expected, Tuple

if TYPE_CHECKING:
    from jitlink.platform.elf import ELFPlatform

_CALL = WrapperSignature(Expected(EXECUTOR_ADDR), EXECUTOR_ADDR, EXECUTOR_ADDR, STRING, UINT64)
_PLACE = Tuple(EXECUTOR_ADDR, STRING, EXECUTOR_ADDR, STRING)
_ONLY_JITDYLIBS = 1 << 30
_RTLD_NOLOAD = 4
_RTLD_DEFAULT, _RTLD_NEXT = 0, (1 << 64) - 1
_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY
_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS

Handler = Callable[[DylibState, int, str, int], int]
"""Takes the caller's JITDylib, a value, a text and a mode; returns the answer."""


class DynamicLoading:
    """Answers the calls of a platform's JITDylibs."""

    def __init__(self, platform: ELFPlatform) -> None:
        self._platform = platform
        self.number = next(_numbers)
        self._handlers: Mapping[str, Handler] = {
            "__jitlink_dlopen_tag": self._open,
            "__jitlink_dlsym_tag": self._symbol,
            "__jitlink_dlclose_tag": self._close,
            "__jitlink_dlupdate_tag": self._update,
            "__jitlink_dladdr_tag": self._address,
        }

    def answer(self, tag: str, data: bytes) -> bytes:
        """The packed answer to a call.

        Args:
            tag: name of the tag.
            data: the packed arguments.
        """
        try:
            caller, value, text, mode = _CALL.deserialize_arguments(data)
            answer: int | Failure = self._handlers[tag](self._state(caller), value, text, mode)
        except JITLinkError as error:
            answer = Failure(str(error))
        except Exception as error:  # noqa: BLE001 - C code calls, and is told
            answer = Failure(f"{type(error).__name__}: {error}")
        return _CALL.serialize_result(answer).data

    def _state(self, handle: int) -> DylibState:
        states = self._platform.session.run(lambda: list(self._platform.states.values()))
        for state in states:
            if state.handle == handle:
                return state
        raise SessionError(f"{handle:#x} is not the handle of a JITDylib")

    def _open_state(self, handle: int) -> DylibState:
        state = self._state(handle)
        if not state.is_initialized:
            raise SessionError(f"JITDylib {state.dylib.name} is not open")
        return state

    def _open(self, caller: DylibState, name_address: int, name: str, mode: int) -> int:
        """A handle; 0 if there is no such JITDylib and it may be something else."""
        platform = self._platform
        session = platform.session
        found = session.get_jitdylib_by_name(name) if name_address else caller.dylib
        state = None if found is None else session.run(lambda: platform.states.get(found))
        if state is None:
            if mode & _ONLY_JITDYLIBS:
                raise SessionError(f"there is no JITDylib {name}")
            return 0
        if mode & _RTLD_NOLOAD and not state.is_initialized:
            raise SessionError(f"JITDylib {name} is not open")
        session.wait(platform.handle_of(state))
        platform.open_again(state.dylib)
        return state.handle

    def _close(self, caller: DylibState, handle: int, text: str, mode: int) -> int:  # noqa: ARG002
        self._platform.close_once(self._open_state(handle).dylib)
        return 0

    def _update(self, caller: DylibState, handle: int, text: str, mode: int) -> int:  # noqa: ARG002
        self._platform.update(self._open_state(handle).dylib)
        return 0

    def _symbol(self, caller: DylibState, handle: int, name: str, mode: int) -> int:  # noqa: ARG002
        order: SearchOrder
        if handle == _RTLD_DEFAULT:
            order = caller.dylib.link_order
        elif handle == _RTLD_NEXT:
            order = [each for each in caller.dylib.link_order if each[0] is not caller.dylib]
        else:
            order = _seen_from_outside(self._open_state(handle).dylib)
        found = self._platform.session.lookup(order, name, kind=LookupKind.DLSYM)
        return found[name].address

    def _address(self, caller: DylibState, address: int, text: str, mode: int) -> int:  # noqa: ARG002
        """Address of a packed description of the place; 0 if it is nobody's."""
        place = self._platform.session.run(lambda: self._place_of(address))
        if place is None:
            return 0
        return _in_c_memory(_PLACE.serialize(place))

    def _place_of(self, address: int) -> tuple[int, str, int, str] | None:
        for state in self._platform.states.values():
            for code in state.code():
                here = [each for each in code.memory if address in each]
                if here:
                    symbol, name = _symbol_before(state.dylib, address, here[0].start)
                    base = min(each.start for each in code.memory)
                    return base, state.dylib.name, symbol, name
        return None


def _seen_from_outside(dylib: JITDylib) -> SearchOrder:
    """What a handle stands for: a JITDylib's exports, then those of what it is linked against."""
    others = [each for each in dylib.link_order if each[0] is not dylib]
    return [(dylib, _EXPORTED), *others]


def _symbol_before(dylib: JITDylib, address: int, least: int) -> tuple[int, str]:
    """Address and name of the symbol that an address most likely belongs to; 0 if there is none."""
    best, best_name = 0, ""
    for name, definition in dylib.symbols.items():
        place = definition.addresses.get(name, 0)
        if least <= place <= address and place > best:
            best, best_name = place, name
    return best, best_name


# Calls into this process's Python

_Callback = ctypes.CFUNCTYPE(
    None, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
)
_C = ctypes.CDLL(None)
_malloc = _C.malloc
_malloc.argtypes = (ctypes.c_size_t,)
_malloc.restype = ctypes.c_void_p
_numbers = itertools.count(1)
_answering: WeakValueDictionary[int, DynamicLoading] = WeakValueDictionary()
_lock = threading.Lock()


class _Result(ctypes.Structure):
    # As in runtime/wrapper.h.
    _fields_ = (("value", ctypes.c_char * 8), ("size", ctypes.c_size_t))


def dispatch_in_process(
    executor: ExecutorProcessControl, runtime: Runtime, loading: DynamicLoading
) -> tuple[int, int]:
    """The dispatch function of an executor, and what tells it whose call it is.

    Executors that are other processes have none yet: there, ``dlopen`` fails, with a message.
    """
    if not isinstance(executor, SelfExecutorProcessControl):
        return 0, 0
    _answering[loading.number] = loading
    with _lock:
        _callback_of(runtime)
    return runtime.addresses["__jitlink_dispatch"], loading.number


@functools.cache
def _callback_of(runtime: Runtime) -> object:
    """The one function that the runtime calls; it stays for ever."""
    tags = {runtime.addresses[name]: name for name in _TAGS}

    def call(context: int, tag: int, data: int, size: int, result: int) -> None:
        loading = _answering.get(context)
        if loading is None:
            answer = _CALL.serialize_result(Failure("the session has ended")).data
        else:
            answer = loading.answer(tags[tag], ctypes.string_at(data, size))
        _store(_Result.from_address(result), answer)

    callback = _Callback(call)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    setter = runtime.addresses["__jitlink_set_callback"]
    call_wrapper(setter, EXECUTOR_ADDR.serialize(address))
    return callback


_TAGS = (
    "__jitlink_dladdr_tag",
    "__jitlink_dlclose_tag",
    "__jitlink_dlopen_tag",
    "__jitlink_dlsym_tag",
    "__jitlink_dlupdate_tag",
)


def _store(result: _Result, answer: bytes) -> None:
    """Put an answer where C expects it."""
    place = ctypes.addressof(result)
    if len(answer) > ctypes.sizeof(ctypes.c_void_p):
        content = _copied(answer)
        ctypes.c_void_p.from_address(place).value = content
    else:
        ctypes.memmove(place, answer, len(answer))
    result.size = len(answer)


def _copied(content: bytes) -> int:
    """Address of a copy in memory of malloc."""
    address = _malloc(len(content) or 1)
    if not address:
        raise MemoryError
    ctypes.memmove(address, content, len(content))
    return int(address)


def _in_c_memory(content: bytes) -> int:
    """Address of a copy in memory of malloc, with its size in front."""
    return _copied(UINT64.serialize(len(content)) + content)
