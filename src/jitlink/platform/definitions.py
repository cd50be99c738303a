"""What a platform defines: handles, the functions of each JITDylib, and those of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jitlink.graph import MemProt, Scope
from jitlink.inputs import InputReader
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
)
from jitlink.orc.materialization import AbsoluteSymbols, MaterializationResponsibility
from jitlink.runtime import EXPORTS, PER_DYLIB, find_in_providers, open_object
from jitlink.targets.registry import target_of_triple

if TYPE_CHECKING:
    from jitlink.platform.base import Platform
    from jitlink.platform.elf import ELFPlatform

DSO_HANDLE = "__dso_handle"
_FOUND = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE | JITSymbolFlags.CALLABLE


PER_DYLIB_FUNCTIONS: Mapping[str, str] = {
    name: owner for owner, names in PER_DYLIB.items() for name in names
}
"""Functions of which each JITDylib has its own copy, and the objects that define them."""


class HandleUnit(MaterializationUnit):
    """The promise of a JITDylib's `__dso_handle`; the runtime knows the JITDylib by its address."""

    def __init__(self, platform: Platform) -> None:
        self.name = "<handle>"
        self.symbols = {DSO_HANDLE: JITSymbolFlags.NONE}
        self._platform = platform

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link one word, and let the runtime know of it."""
        platform, dylib = self._platform, responsibility.dylib
        target = target_of_triple(platform.session.executor.triple)
        graph = target.new_graph(f"<handle of {dylib.name}>")
        graph.address_limit = platform.states[dylib].address_limit
        section = graph.create_section("$__DSO_HANDLE", MemProt.READ)
        word = bytes(graph.pointer_size)
        block = graph.create_content_block(section, word, 0, graph.pointer_size)
        symbol = graph.add_defined_symbol(block, 0, DSO_HANDLE, len(word), scope=Scope.HIDDEN)
        graph.alloc_actions += await platform.handle_actions(dylib, symbol)
        await platform.layer.emit(responsibility, graph)
        platform.states[dylib].handle = symbol.address


class PerDylibFunctionsUnit(MaterializationUnit):
    """The promise of functions of which each JITDylib has its own copy.

    They are weak: what the program defines itself holds.
    """

    def __init__(self, platform: Platform, name: str) -> None:
        self.name = name
        flags = JITSymbolFlags.WEAK | JITSymbolFlags.CALLABLE
        self.symbols = dict.fromkeys(PER_DYLIB[name], flags)
        self._platform = platform

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the functions."""
        builder = InputReader()
        builder.add([open_object(self._platform.session.executor.triple, self.name)])
        builder.resolver.finish()
        await self._platform.layer.emit(responsibility, builder.target_graph)


class PerDylibGenerator:
    """What each JITDylib has its own copy of: its handle, and functions that use it.

    It is seen by the JITDylib's own code only.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Promise the objects that define names, and the handle."""
        if kind is LookupKind.DLSYM or flags is JITDylibLookupFlags.MATCH_EXPORTED_ONLY:
            return
        own = self._platform.per_dylib_functions
        owners = {own[name]: None for name in sorted(own.keys() & names.keys())}
        if not owners and DSO_HANDLE not in names:
            return
        tracker = self._platform.states[dylib].tracker
        dylib.put_first(tracker)
        if DSO_HANDLE in names:
            dylib.add_unit(HandleUnit(self._platform), tracker)
        for name in owners:
            dylib.add_unit(PerDylibFunctionsUnit(self._platform, name), tracker)


class RuntimeGenerator:
    """Functions of the runtime that take the place of the process's; it is linked when needed."""

    def __init__(self, platform: ELFPlatform) -> None:
        self._platform = platform

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that the runtime has."""
        if EXPORTS.keys().isdisjoint(names.keys()):
            return
        wanted = [name for name in names if name in EXPORTS]
        runtime = await self._platform.runtime()
        self._platform.has_handlers = True
        found = {
            name: ExecutorSymbolDef(runtime.exports[name], _FOUND)
            for name in wanted
            if name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found))


class ProviderGenerator:
    """Names that are not in the process yet, but in a library that may be loaded for them."""

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that such a library has."""
        addresses = await find_in_providers(dylib.session.executor, list(names))
        found = {
            name: ExecutorSymbolDef(address, JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE)
            for name, address in addresses.items()
            if name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found))
