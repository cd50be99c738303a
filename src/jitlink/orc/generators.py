"""Definition generators: where names come from that nobody has defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.symbols import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
)

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib

_FOUND = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE


class DynamicLibraryGenerator:
    """Names of a library that is loaded in the executor, or of all of them.

    Args:
        handle: handle of the library in the executor, None for the whole process.
        allow: which names may come from it; by default all.
    """

    def __init__(
        self, handle: int | None = None, allow: Callable[[str], bool] | None = None
    ) -> None:
        self._handle = handle
        self._allow = allow

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Sequence[str],
    ) -> None:
        """Define the names that the library has."""
        wanted = [name for name in names if self._allow is None or self._allow(name)]
        addresses = await dylib.session.executor.lookup_symbols(wanted, self._handle)
        found = {
            name: ExecutorSymbolDef(address, _FOUND)
            for name, address in zip(wanted, addresses, strict=True)
            if address is not None
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found))
