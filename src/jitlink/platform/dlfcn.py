"""dlopen and its kin as linked code calls them: the session's side.

The runtime dispatches each call to the session; the tag is the address of a variable that stands
for the function, as in ORC's runtime.

Specification: POSIX, ``dlfcn.h``; `__jitlink_dlopen` and the others in ``runtime/dlfcn.c``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITDylibLookupFlags, LookupKind, SearchOrder
from jitlink.orc.session import ExecutionSession
from jitlink.platform.dispatch import Dispatcher, connect_dispatcher, copy_to_c, wrap_with_sps
from jitlink.platform.state import DylibState
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR, STRING, UINT64, WrapperSignature
from jitlink.sps.types import Expected, Tuple

_CALL = WrapperSignature(Expected(EXECUTOR_ADDR), EXECUTOR_ADDR, EXECUTOR_ADDR, STRING, UINT64)
_INFORMATION = Tuple(EXECUTOR_ADDR, STRING, EXECUTOR_ADDR, STRING)
_ONLY_JITDYLIBS = 1 << 30
_RTLD_DEFAULT, _RTLD_NEXT = 0, (1 << 64) - 1
_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY

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
        self._dispatcher = Dispatcher()
        self._connection: tuple[int, int] | None = None
        self._functions: Mapping[str, _Function] = {
            "__jitlink_dlopen_tag": self._dlopen,
            "__jitlink_dlsym_tag": self._dlsym,
            "__jitlink_dlclose_tag": self._dlclose,
            "__jitlink_dlupdate_tag": self._dlupdate,
            "__jitlink_dladdr_tag": self._dladdr,
        }

    def connect(self, runtime: Runtime) -> tuple[int, int]:
        """Address of the dispatch function for the runtime, and its context.

        Both are 0 for executors that dispatch no calls: there, ``dlopen`` fails, with a message.

        Raises:
            ExecutorError: the executor is another process, and dispatches calls to another session.
        """
        if self._connection is None:
            self._dispatcher.handlers = {
                runtime.addresses[tag]: wrap_with_sps(_CALL, partial(self._call, function))
                for tag, function in self._functions.items()
            }
            executor = self._platform.session.executor
            self._connection = connect_dispatcher(executor, runtime, self._dispatcher)
        return self._connection

    def disconnect(self) -> None:
        """Take no more calls: the session ends, and another one may use its executor."""
        if self._connection is not None:
            self._platform.session.executor.set_dispatch_handler(None)

    def _call(self, function: _Function, caller: int, value: int, text: str, mode: int) -> int:
        return function(self._platform.state_of_handle(caller), value, text, mode)

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
        found = self._platform.session.lookup(order, name, kind=LookupKind.DLSYM)
        return found[name].address

    def _dladdr(self, caller: DylibState, address: int, text: str, mode: int) -> int:  # noqa: ARG002
        """Address of the serialized information; 0 if the address is in no JITDylib."""
        information = self._platform.session.run(lambda: self._information(address))
        if information is None:
            return 0
        content = _INFORMATION.serialize(information)
        return copy_to_c(UINT64.serialize(len(content)) + content)

    def _information(self, address: int) -> tuple[int, str, int, str] | None:
        """Base and name of the JITDylib, address and name of the nearest symbol."""
        for state in self._platform.states.values():
            for link in state.link_records():
                ranges = [memory for memory in link.memory if address in memory]
                if ranges:
                    symbol, name = _symbol_before(state.dylib, address, ranges[0].start)
                    base = min(memory.start for memory in link.memory)
                    return base, state.dylib.name, symbol, name
        return None


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
