"""Graphs that are linked as a whole, and whose symbols are defined only when looked up.

A materialization unit lists every name that it defines, which for a library of a hundred thousand
functions takes longer than linking it. A `WholeGraph` defines no name before it is linked; then a
generator searches the graph's own string tables for the few names that are looked up. Its
responsibility is for no symbol.

An ordinary unit with a single symbol that stands for the whole link was tried, and costs 4 % of the
instructions of a small link: a query, a task and a super-node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jitlink.exports import Exports
from jitlink.graph import LinkGraph
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
)
from jitlink.orc.link_context import LayerContext
from jitlink.orc.lookup import REQUESTER, wait_until_ready
from jitlink.orc.materialization import AbsoluteSymbols, MaterializationResponsibility
from jitlink.orc.objects import symbol_flags
from jitlink.orc.tracebacks import clear_frames
from jitlink.tasks import Event

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer


class _Context(LayerContext):
    """Calls a function when the graph has its addresses."""

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        resolved: Callable[[], None],
    ) -> None:
        super().__init__(layer, responsibility, graph)
        self._resolved = resolved

    def notify_resolved(self, graph: LinkGraph) -> None:
        super().notify_resolved(graph)
        self._resolved()


class WholeGraph:
    """The link of a graph, and a generator of its symbols.

    The JITDylib that it is linked into must have no other definitions of names that the graph
    defines.

    Args:
        layer: links it.
        graph: the graph, which the layer owns from now on.
        phony_externals: whether undefined symbols get an address, even if the layer gives them
            none.
        executable_stack: whether stacks may be made executable, even if the layer forbids it.
        writable_code: whether sections may be writable and executable, likewise.

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
        writable_code: bool = False,
    ) -> None:
        self.name = graph.name
        self.exports = Exports(graph)
        self._layer = layer
        self._phony_externals = phony_externals
        self._executable_stack = executable_stack
        self._writable_code = writable_code
        self._graph: LinkGraph | None = graph
        self._flags = partial(symbol_flags, graph.symbol_table, graph.block_table)
        self._responsibility: MaterializationResponsibility | None = None
        self._is_resolved = Event()
        self._has_addresses = False

    async def link_into(self, dylib: JITDylib) -> None:
        """Link the graph, and wait until all of it is ready; on the driver thread.

        Of the graph only the symbols are kept. The JITDylib's default tracker owns the memory.

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
            context = _Context(self._layer, responsibility, graph, self._notify_resolved)
            context.phony_externals |= self._phony_externals
            if self._executable_stack:
                context.executable_stack = True
            context.writable_code |= self._writable_code
            await self._layer.link(responsibility, graph, context)
            # The tracker may own nothing else.
            dylib.trackers.setdefault(tracker)
            unready = context.unready()
            if unready:
                await wait_until_ready(dylib.session, unready)
        except BaseException as error:
            self._has_addresses = False
            clear_frames(error)
            raise
        finally:
            reset_requester()
            self._responsibility = None
            self._is_resolved.set()

    def _notify_resolved(self) -> None:
        # Before the graph's own lookup: what it needs may need it in turn.
        self._has_addresses = True
        self._is_resolved.set()

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define those names that the graph defines, once it is linked."""
        if self._responsibility is not None and REQUESTER.get() is self._responsibility:
            # The link of the graph itself looks up its external symbols.
            return
        rows = self.exports.rows(names)
        if not rows:
            return
        await self._is_resolved.wait()
        if not self._has_addresses:
            return
        found = {
            name: ExecutorSymbolDef(self.exports.address_of(rows[name]), given)
            for name, given in self._flags_of(rows).items()
            # Another search may have defined it while this one waited.
            if name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found, is_generated=True))

    def flags_of(self, names: Iterable[str]) -> dict[str, JITSymbolFlags]:
        """Flags of those names that the graph defines; it need not be linked yet."""
        return self._flags_of(self.exports.rows(names))

    def _flags_of(self, rows: Mapping[str, int]) -> dict[str, JITSymbolFlags]:
        return dict(zip(rows, self._flags(np.array([*rows.values()], np.int64)), strict=True))
