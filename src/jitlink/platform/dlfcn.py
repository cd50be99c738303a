"""dlopen and its kin as linked code calls them: the session's side.

The runtime packs each call and hands it to a dispatch function with a tag, the address of a
variable that stands for the kind of call: that is how ORC's runtime calls its controller.

Specification: POSIX, ``dlfcn.h``; `__jitlink_dlopen` and the others in ``runtime/dlfcn.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITDylibLookupFlags, LookupKind, SearchOrder
from jitlink.platform.dispatch import Dispatcher, answers, copy_to_c, dispatch_in_process
from jitlink.platform.state import DylibState
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR, STRING, UINT64, WrapperSignature
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
        self._dispatcher = Dispatcher()
        self._handlers: Mapping[str, Handler] = {
            "__jitlink_dlopen_tag": self._open,
            "__jitlink_dlsym_tag": self._symbol,
            "__jitlink_dlclose_tag": self._close,
            "__jitlink_dlupdate_tag": self._update,
            "__jitlink_dladdr_tag": self._address,
        }

    def connect(self, runtime: Runtime) -> tuple[int, int]:
        """Address of the function that the runtime is to call, and its first argument.

        Executors that are other processes have none yet: there, ``dlopen`` fails, with a message.
        """
        self._dispatcher.handlers = {
            runtime.addresses[tag]: answers(_CALL, partial(self._call, handler))
            for tag, handler in self._handlers.items()
        }
        return dispatch_in_process(self._platform.session.executor, runtime, self._dispatcher)

    def _call(self, handler: Handler, caller: int, value: int, text: str, mode: int) -> int:
        return handler(self._platform.state_with(caller), value, text, mode)

    def _open_state(self, handle: int) -> DylibState:
        state = self._platform.state_with(handle)
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


def _in_c_memory(content: bytes) -> int:
    """Address of a copy in memory of malloc, with its size in front."""
    return copy_to_c(UINT64.serialize(len(content)) + content)
