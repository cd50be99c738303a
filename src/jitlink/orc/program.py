"""Programs: graphs that are linked as a whole, and asked for names only afterwards.

A promise has every name that it is about, which for a library of a hundred thousand functions
takes longer than linking it. A program promises one name, that of the program itself; looking
that up links it. What it defines is found by a generator, which searches the graph's own
string tables for the few names that anybody asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from jitlink.exports import Exports
from jitlink.graph import LinkGraph
from jitlink.orc.errors import SessionError
from jitlink.orc.lookup import REQUESTER
from jitlink.orc.materialization import (
    AbsoluteSymbols,
    MaterializationResponsibility,
    MaterializationUnit,
)
from jitlink.orc.objects import symbol_flags
from jitlink.orc.symbols import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
)

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer


class Program(MaterializationUnit):
    """The promise of a program; also a generator of its symbols.

    Both are added by `define_in`. The JITDylib must have no other definitions of names that
    the graph defines.

    Args:
        layer: links it.
        graph: the graph, which the layer owns from now on.
        phony_externals: whether symbols that nobody defines get an address all the same.

    Attributes:
        handle: the name that is promised.
        exports: addresses of what it defines, once it is linked.
    """

    def __init__(
        self, layer: ObjectLinkingLayer, graph: LinkGraph, *, phony_externals: bool = False
    ) -> None:
        self.layer = layer
        self._phony_externals = phony_externals
        self.name = graph.name
        self._graph: LinkGraph | None = graph
        self._flags = partial(symbol_flags, graph.symbol_table)
        self._maker: MaterializationResponsibility | None = None
        # No object can define a name with a null in it.
        self.handle = f"{graph.name}\0program"
        self.symbols = {self.handle: JITSymbolFlags.SIDE_EFFECTS_ONLY}
        self.exports = Exports(graph)

    def define_in(self, dylib: JITDylib) -> None:
        """Add the program to a JITDylib.

        Raises:
            JITDylibDefunctError: the JITDylib was removed.
        """
        dylib.add_generator(self)
        dylib.define(self)

    async def link_async(self, dylib: JITDylib) -> None:
        """Link the program, and wait until all of it can be used; on the session's thread.

        Raises:
            FailedToMaterializeError: it could not be linked; the cause is chained.
        """
        await dylib.session.lookup_async(dylib, {self.handle: False})

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the graph, of which only the symbols are kept."""
        graph, self._graph, self._maker = self._graph, None, responsibility
        if graph is None:
            raise SessionError(f"program {self.name} has been linked before")
        try:
            await self.layer.emit_program(
                responsibility, graph, phony_externals=self._phony_externals
            )
        finally:
            self._maker = None

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that the graph does."""
        if self._maker is not None and REQUESTER.get() is self._maker:
            # The graph asks for what it does not define.
            return
        rows = self._rows(names)
        if not rows:
            return
        await self.link_async(dylib)
        found = {
            name: ExecutorSymbolDef(self.exports[name], flags)
            for name, flags in zip(rows, self._flags([*rows.values()]), strict=True)
            # Another search may have been faster while this one waited.
            if name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found))

    def _rows(self, names: Iterable[str]) -> dict[str, int]:
        """The symbol rows of those names that the graph defines."""
        rows: dict[str, int] = {}
        for name in names:
            with suppress(KeyError):
                rows[name] = self.exports.row(name)
        return rows
