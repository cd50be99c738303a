"""Programs: graphs that are linked as a whole, and asked for names only afterwards.

A promise has every name that it is about, which for a library of a hundred thousand functions
takes longer than linking it. A program promises nothing, and is linked at once. What it defines
is found by a generator, which searches the graph's own string tables for the few names that
anybody asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jitlink.exports import Exports
from jitlink.graph import LinkGraph
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import ExecutorSymbolDef, JITDylibLookupFlags, LookupKind
from jitlink.orc.lookup import REQUESTER
from jitlink.orc.materialization import (
    AbsoluteSymbols,
    MaterializationResponsibility,
    forget_frames,
)
from jitlink.orc.objects import symbol_flags
from jitlink.tasks import Event

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer


class Program:
    """A program, and a generator of its symbols.

    The JITDylib that it is linked into must have no other definitions of names that the graph
    defines.

    Args:
        layer: links it.
        graph: the graph, which the layer owns from now on.
        phony_externals: whether symbols that nobody defines get an address all the same.

    Attributes:
        name: its display name.
        exports: addresses of what it defines, once it is linked.
    """

    def __init__(
        self, layer: ObjectLinkingLayer, graph: LinkGraph, *, phony_externals: bool = False
    ) -> None:
        self.layer = layer
        self.name = graph.name
        self.exports = Exports(graph)
        self._phony_externals = phony_externals
        self._graph: LinkGraph | None = graph
        self._flags = partial(symbol_flags, graph.symbol_table, graph.block_table)
        self._maker: MaterializationResponsibility | None = None
        self._is_over = Event()
        self._is_linked = False

    async def link_into(self, dylib: JITDylib) -> None:
        """Link the program, and wait until all of it can be used; on the session's thread.

        Only its symbols are kept of the graph. The JITDylib's default tracker owns the rest.

        Raises:
            JITDylibDefunctError: the JITDylib was removed.
            JITLinkError: it could not be linked.
        """
        graph, self._graph = self._graph, None
        if graph is None:
            raise SessionError(f"program {self.name} has been linked before")
        dylib.add_generator(self)
        maker = MaterializationResponsibility(dylib.default_tracker, self.name, ())
        self._maker = maker
        take_back = REQUESTER.set(maker)
        try:
            await self.layer.emit_program(maker, graph, phony_externals=self._phony_externals)
            self._is_linked = True
        except BaseException as error:
            # It may be kept for long; what the link had in its hands is not to be.
            forget_frames(error)
            raise
        finally:
            take_back()
            self._maker = None
            self._is_over.set()

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
        await self._is_over.wait()
        if not self._is_linked:
            return
        found = {
            name: ExecutorSymbolDef(self.exports[name], flags)
            for name, flags in zip(rows, self._flags(np.array([*rows.values()])), strict=True)
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
