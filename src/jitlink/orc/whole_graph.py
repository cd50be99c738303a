"""Graphs that are linked as a whole, and whose symbols are searched for only afterwards.

A materialization unit has every name that it defines, which for a library of a hundred thousand
functions takes longer than linking it. A `WholeGraph` defines no name before it is linked: what it
defines is found by a generator, which searches the graph's own string tables for the few names that
are looked up. Its responsibility is for no symbol.

An ordinary unit with a single symbol for the link of all of it was tried, and costs 4 % of the
instructions of a small link: a query, a task and a node of the graph of dependencies.
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
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    LookupKind,
)
from jitlink.orc.link_context import LayerContext
from jitlink.orc.lookup import REQUESTER, wait_until_ready
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


class WholeGraph:
    """The link of a graph, and a generator of its symbols.

    The JITDylib that it is linked into must have no other definitions of names that the graph
    defines.

    Args:
        layer: links it.
        graph: the graph, which the layer owns from now on.
        phony_externals: whether symbols that nothing defines get an address all the same, though
            the layer gives them none.
        executable_stack: whether stacks may be made executable, though the layer does not allow it.

    Attributes:
        name: its display name.
        exports: addresses of what the graph defines, once it is linked.
    """

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        graph: LinkGraph,
        *,
        phony_externals: bool = False,
        executable_stack: bool = False,
    ) -> None:
        self.name = graph.name
        self.exports = Exports(graph)
        self._layer = layer
        self._phony_externals = phony_externals
        self._executable_stack = executable_stack
        self._graph: LinkGraph | None = graph
        self._flags = partial(symbol_flags, graph.symbol_table, graph.block_table)
        self._responsibility: MaterializationResponsibility | None = None
        self._is_over = Event()
        self._is_linked = False

    async def link_into(self, dylib: JITDylib) -> None:
        """Link the graph, and wait until all of it can be used; on the driver thread.

        Only its symbols are kept of the graph. The JITDylib's default tracker owns the rest.

        Raises:
            JITDylibDefunctError: the JITDylib was removed.
            JITLinkError: it could not be linked.
        """
        graph, self._graph = self._graph, None
        if graph is None:
            raise SessionError(f"{self.name} has been linked before")
        dylib.add_generator(self)
        tracker = dylib.default_tracker
        responsibility = MaterializationResponsibility(tracker, self.name, ())
        self._responsibility = responsibility
        reset_requester = REQUESTER.set(responsibility)
        try:
            context = LayerContext(self._layer, responsibility, graph)
            context.phony_externals |= self._phony_externals
            context.executable_stack = context.executable_stack or self._executable_stack
            await self._layer.link(responsibility, graph, context)
            # The tracker may own nothing else.
            dylib.trackers.setdefault(tracker)
            unready = context.unready()
            if unready:
                await wait_until_ready(dylib.session, unready)
            self._is_linked = True
        except BaseException as error:
            # The error may be kept for long; what its frames refer to is not to be.
            forget_frames(error)
            raise
        finally:
            reset_requester()
            self._responsibility = None
            self._is_over.set()

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that the graph does."""
        if self._responsibility is not None and REQUESTER.get() is self._responsibility:
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
            # Another search may have defined it while this one waited.
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
