"""dlopen and its kin as linked code calls them: the session's side.

The runtime dispatches each call to the session; the tag is the address of a variable that stands
for the function, as in ORC's runtime.

Specification: POSIX, ``dlfcn.h``; `__jitlink_dlopen` and the others in ``runtime/dlfcn.c``.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITDylibLookupFlags, LookupKind, SearchOrder
from jitlink.orc.session import ExecutionSession
from jitlink.platform.dispatch import (
    Dispatcher,
    JITDispatchHandler,
    copy_to_c,
    wrap_with_sps,
)
from jitlink.platform.state import DylibState
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR, STRING, UINT64, WrapperSignature
from jitlink.sps.types import Expected, Tuple

_CALL = WrapperSignature(
    Expected(EXECUTOR_ADDR), EXECUTOR_ADDR, EXECUTOR_ADDR, STRING, UINT64, UINT64
)
_INFORMATION = Tuple(EXECUTOR_ADDR, STRING, EXECUTOR_ADDR, STRING)
_ONLY_JITDYLIBS = 1 << 30
_RTLD_DEFAULT, _RTLD_NEXT = 0, (1 << 64) - 1
_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY

_TAGS = (
    "__jitlink_dlopen_tag", "__jitlink_dlsym_tag", "__jitlink_dlclose_tag",
    "__jitlink_dlupdate_tag", "__jitlink_dladdr_tag",
)  # fmt: skip
"""The functions of `DynamicLoading`, as the runtime names them."""

_Function = Callable[[DylibState, int, str, int], int]
"""Takes the caller's JITDylib, a value, a text and a mode; returns the result."""


class DlfcnPlatform(Protocol):
    """What `DynamicLoading` needs of its platform; the methods run on the calling thread.

    Attributes:
        session: the session.
        states: the state of each JITDylib; accessed on the driver thread.
    """

    session: ExecutionSession
    states: dict[JITDylib, DylibState]

    def state_of_handle(self, handle: int) -> DylibState:
        """The state of the JITDylib with a handle, or a SessionError."""

    def dlopen(self, dylib: JITDylib) -> int:
        """Open a JITDylib once more; returns its handle."""

    def dlupdate(self, dylib: JITDylib) -> None:
        """Run the initialisers of an open JITDylib that have not run."""

    def dlclose(self, dylib: JITDylib) -> None:
        """Take back one `dlopen`."""


class DynamicLoading:
    """Handles the calls from a platform's JITDylibs."""

    def __init__(self, platform: DlfcnPlatform) -> None:
        self._platform = platform
        self._dispatcher: Dispatcher | None = None
        self._connection: tuple[int, int] | None = None
        functions = self._dlopen, self._dlsym, self._dlclose, self._dlupdate, self._dladdr
        self._functions: Mapping[str, _Function] = dict(zip(_TAGS, functions, strict=True))

    def connect(self, runtime: Runtime) -> tuple[int, int]:
        """Address of the dispatch function for the runtime, and its first argument.

        Both are 0 for executors that dispatch no calls: there, ``dlopen`` fails, with a message.
        """
        if self._connection is None:
            executor = self._platform.session.executor
            if executor.is_this_process:
                self._dispatcher = Dispatcher()
                self._connection = self._dispatcher.connect(executor, runtime)
                self._dispatcher.handle(_handlers(runtime, _TAGS, self._call_here))
            else:
                callers = _callers_of(executor, runtime)
                callers.loadings.add(self)
                self._connection = callers.connection
        return self._connection

    def forget_connection(self) -> None:
        """Connect once more when that is needed: the executor was restarted."""
        self._connection = None

    def call(self, function: str, caller: int, value: int, text: str, mode: int) -> int:
        """Call the function of a tag for the JITDylib with a handle.

        Raises:
            SessionError: it is no JITDylib of this session, or the function fails.
        """
        state = self._platform.state_of_handle(caller)
        return self._functions[function](state, value, text, mode)

    def _call_here(
        self, function: str, caller: int, value: int, text: str, mode: int, number: int
    ) -> int:
        """Call a function for code of this process, which is on the same thread."""
        del number
        return self.call(function, caller, value, text, mode)

    def has_handle(self, handle: int) -> bool:
        """Whether a JITDylib of the session has a handle."""
        try:
            self._platform.state_of_handle(handle)
        except SessionError:
            return False
        return True

    def _open_dylib(self, handle: int) -> JITDylib:
        state = self._platform.state_of_handle(handle)
        if not state.is_initialized:
            raise SessionError(f"JITDylib {state.dylib.name} is not open")
        return state.dylib

    def _dlopen(self, caller: DylibState, name_address: int, name: str, mode: int) -> int:
        """A handle; 0 if there is no such JITDylib and the process's ``dlopen`` is to be called."""
        platform = self._platform
        session = platform.session
        found = session.get_jitdylib_by_name(name) if name_address else caller.dylib
        state = None if found is None else session.run(lambda: platform.states.get(found))
        if state is None:
            if mode & _ONLY_JITDYLIBS:
                raise SessionError(f"there is no JITDylib {name}")
            images = caller.dylib.images
            return 0 if images is None else images.open_library(os.fsencode(name), mode)
        if mode & os.RTLD_NOLOAD and not state.is_initialized:
            raise SessionError(f"JITDylib {name} is not open")
        return platform.dlopen(state.dylib)

    def _dlclose(self, caller: DylibState, handle: int, text: str, mode: int) -> int:  # noqa: ARG002
        self._platform.dlclose(self._open_dylib(handle))
        return 0

    def _dlupdate(self, caller: DylibState, handle: int, text: str, mode: int) -> int:  # noqa: ARG002
        self._platform.dlupdate(self._open_dylib(handle))
        return 0

    def _dlsym(self, caller: DylibState, handle: int, name: str, mode: int) -> int:  # noqa: ARG002
        order: SearchOrder
        if handle == _RTLD_DEFAULT:
            order = caller.dylib.link_order
        elif handle == _RTLD_NEXT:
            order = [linked for linked in caller.dylib.link_order if linked[0] is not caller.dylib]
        else:
            order = _exports_order(self._open_dylib(handle))
        session = self._platform.session
        # Not `lookup`: a call from an executor that has ended since does not restart it.
        found = session.wait(session.lookup_async(order, name, kind=LookupKind.DLSYM))
        return found[name].address

    def _dladdr(self, caller: DylibState, address: int, text: str, mode: int) -> int:  # noqa: ARG002
        """Address of the serialized information; 0 if the address is in no JITDylib."""
        information = self._platform.session.run(lambda: self._information(address))
        if information is None:
            return 0
        content = _INFORMATION.serialize(information)
        return _copy_to(self._platform.session.executor, UINT64.serialize(len(content)) + content)

    def _information(self, address: int) -> tuple[int, str, int, str] | None:
        """Base and name of the JITDylib, address and name of the nearest symbol."""
        for state in self._platform.states.values():
            for link in state.links:
                ranges = [memory for memory in link.memory if address in memory]
                if ranges:
                    symbol, name = _symbol_before(state.dylib, address, ranges[0].start)
                    base = min(memory.start for memory in link.memory)
                    return base, state.dylib.name, symbol, name
        return None


def _copy_to(executor: ExecutorProcessControl, content: bytes) -> int:
    """Address of a copy in memory of the executor from malloc, which C code frees.

    Raises:
        ExecutorError: the executor is gone, or has no memory left.
    """
    if executor.is_this_process:
        return copy_to_c(content)
    from jitlink.runtime.remote_calls import RemoteFunction  # noqa: PLC0415 - not in this process

    generation = executor.generation
    (malloc,) = tasks.run(executor.lookup_symbols(["malloc"]))
    if not malloc:
        raise ExecutorError("the executor has no function malloc")
    allocate = RemoteFunction(executor, malloc, generation)
    allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_size_t
    address = int(allocate(len(content)))
    if not address:
        raise ExecutorError(f"the executor has no memory for {len(content)} bytes")
    tasks.run(executor.write_memory(address, content, generation))
    return address


def _exports_order(dylib: JITDylib) -> SearchOrder:
    """The search order of a handle: a JITDylib's exports, then the rest of its link order."""
    others = [linked for linked in dylib.link_order if linked[0] is not dylib]
    return [(dylib, _EXPORTED), *others]


def _symbol_before(dylib: JITDylib, address: int, start: int) -> tuple[int, str]:
    """Address and name of the last symbol from `start` up to an address; 0 if there is none."""
    last, last_name = 0, ""
    for name, definition in dylib.symbols.items():
        symbol = definition.addresses.get(name, 0)
        if start <= symbol <= address and symbol > last:
            last, last_name = symbol, name
    return last, last_name


class _Callers:
    """The sessions of an executor that is another process: which one is meant, handles tell.

    Attributes:
        loadings: what handles the calls of each.
        connection: address of the executor's dispatch function, and its first argument.
    """

    def __init__(self, executor: ExecutorProcessControl, runtime: Runtime) -> None:
        self.loadings: WeakSet[DynamicLoading] = WeakSet()
        # Not the runtime itself, by which this is found.
        self._runtime = weakref.ref(runtime)
        self._dispatcher = Dispatcher()
        self.connection = self._dispatcher.connect(executor, runtime)
        self._dispatcher.handle(_handlers(runtime, _TAGS, self._call))

    def _call(
        self, function: str, caller: int, value: int, text: str, mode: int, number: int
    ) -> int:
        runtime = self._runtime()
        callbacks = None if runtime is None else runtime.callbacks
        for loading in list(self.loadings):
            if loading.has_handle(caller):
                with nullcontext() if callbacks is None else callbacks.calls.on_behalf_of(number):
                    return loading.call(function, caller, value, text, mode)
        raise SessionError(f"{caller:#x} is not the handle of a JITDylib")


def _handlers(
    runtime: Runtime, tags: Iterable[str], call: Callable[..., int]
) -> dict[int, JITDispatchHandler]:
    return {runtime.addresses[tag]: wrap_with_sps(_CALL, partial(call, tag)) for tag in tags}


_callers: WeakKeyDictionary[Runtime, _Callers] = WeakKeyDictionary()


def _callers_of(executor: ExecutorProcessControl, runtime: Runtime) -> _Callers:
    found = _callers.get(runtime)
    if found is None:
        found = _callers.setdefault(runtime, _Callers(executor, runtime))
    return found
