"""Allocation actions that call LLVM's ORC runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jitlink.graph import AllocActionPair, Symbol, WrapperCall
from jitlink.platform.orc_rt import protocol
from jitlink.platform.orc_rt.protocol import RuntimeFunction

Arguments = Callable[[], tuple[object, ...]]
"""Gives the arguments of a call, once all addresses are known."""

_Call = tuple[RuntimeFunction[Any], Arguments]
"""A function of the runtime and its arguments."""


class RuntimeActions:
    """Makes allocation actions of one session's runtime.

    Attributes:
        addresses: addresses of the runtime's functions by name, once it is linked.
    """

    def __init__(self) -> None:
        self.addresses: Mapping[str, int] = {}

    def _call(self, function: RuntimeFunction[Any], arguments: Arguments) -> WrapperCall:
        serialize = function.signature.serialize_arguments
        return WrapperCall(self.addresses[function.name], lambda: serialize(*arguments()))

    def _pair(self, finalize: _Call, deallocate: _Call) -> AllocActionPair:
        """Calls when memory is finalized and when it is deallocated."""
        return AllocActionPair(self._call(*finalize), self._call(*deallocate))

    def bootstrap(self, handle: int) -> AllocActionPair:
        """Start the runtime, and shut it down.

        Args:
            handle: of the platform's own JITDylib.
        """
        return self._pair((protocol.BOOTSTRAP, lambda: (handle,)), (protocol.SHUTDOWN, lambda: ()))

    def jitdylib(self, name: str, handle: int | Symbol) -> AllocActionPair:
        """Register a JITDylib, and deregister it."""

        def address() -> int:
            return handle.address if isinstance(handle, Symbol) else handle

        return self._pair(
            (protocol.REGISTER_JITDYLIB, lambda: (name, address())),
            (protocol.DEREGISTER_JITDYLIB, lambda: (address(),)),
        )

    def object_sections(self, arguments: Arguments) -> AllocActionPair:
        """Register frames or an initialisation image, and deregister the frames."""
        return self._pair(
            (protocol.REGISTER_OBJECT_SECTIONS, arguments),
            (protocol.DEREGISTER_OBJECT_SECTIONS, arguments),
        )

    def init_sections(self, arguments: Arguments) -> AllocActionPair:
        """Register initialisers, and deregister them."""
        return self._pair(
            (protocol.REGISTER_INIT_SECTIONS, arguments),
            (protocol.DEREGISTER_INIT_SECTIONS, arguments),
        )
