"""Objects in a JITDylib: read when they are added, linked when one of their symbols is needed.

Objects that are added together are read together, into one graph, which tells what each of
them defines and refers to. If all of them are needed, that graph is what is linked; if only
some are, those are read again by themselves.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import Linkage, LinkGraph, Scope, Symbol, SymbolFlags, SymbolKind
from jitlink.graph.columns import rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.inputs import GraphBuilder, InputFile
from jitlink.orc.materialization import MaterializationResponsibility, MaterializationUnit
from jitlink.orc.symbols import JITSymbolFlags

if TYPE_CHECKING:
    from jitlink.orc.object_layer import ObjectLinkingLayer

_WEAK_BIT, _COMMON_BIT, _CALLABLE_BIT, _HIDDEN_BIT, _ABSOLUTE_BIT = 1, 2, 4, 8, 16


def _flags(code: int) -> JITSymbolFlags:
    flags = JITSymbolFlags.NONE if code & _HIDDEN_BIT else JITSymbolFlags.EXPORTED
    for bit, flag in (
        (_WEAK_BIT, JITSymbolFlags.WEAK),
        (_COMMON_BIT, JITSymbolFlags.COMMON),
        (_CALLABLE_BIT, JITSymbolFlags.CALLABLE),
        (_ABSOLUTE_BIT, JITSymbolFlags.ABSOLUTE),
    ):
        if code & bit:
            flags |= flag
    return flags


# One object for each combination: a symbol then costs no arithmetic on enumerations.
_FLAGS = tuple(_flags(code) for code in range(32))


class Exported:
    """The named definitions of a graph that are not local to it, as they were when it was made.

    Attributes:
        rows: their symbol rows (int64), which stay the same whatever becomes of the graph.
        names: their names.
    """

    def __init__(self, graph: LinkGraph) -> None:
        table = graph.symbol_table
        kind = table.kind
        named = (kind == int(SymbolKind.DEFINED)) | (kind == int(SymbolKind.ABSOLUTE))
        named &= (table.scope != int(Scope.LOCAL)) & (table.name != NO_NAME)
        self.rows = rows_where(named)
        self.names = graph.strings.get_many(table.name[self.rows])

    def flags(self, graph: LinkGraph) -> list[JITSymbolFlags]:
        """JIT flags of the symbols."""
        table, rows = graph.symbol_table, self.rows
        flags = table.flags[rows]
        code = np.where(table.linkage[rows] == int(Linkage.WEAK), _WEAK_BIT, 0)
        code |= np.where(flags & int(SymbolFlags.COMMON), _COMMON_BIT, 0)
        code |= np.where(flags & int(SymbolFlags.CALLABLE), _CALLABLE_BIT, 0)
        code |= np.where(table.scope[rows] == int(Scope.HIDDEN), _HIDDEN_BIT, 0)
        code |= np.where(table.kind[rows] == int(SymbolKind.ABSOLUTE), _ABSOLUTE_BIT, 0)
        return list(map(_FLAGS.__getitem__, code.tolist()))

    def addresses(self, graph: LinkGraph) -> dict[str, int]:
        """Addresses of those that the graph still defines."""
        kind = graph.symbol_table.kind[self.rows]
        addresses = graph.symbol_addresses()[self.rows].tolist()
        found = dict(zip(self.names, addresses, strict=True))
        gone = (kind != int(SymbolKind.DEFINED)) & (kind != int(SymbolKind.ABSOLUTE))
        for each in rows_where(gone).tolist():
            found.pop(self.names[each], None)
        return found


class ObjectBatch:
    """Objects that were read together.

    Attributes:
        files: the objects.
        definitions: what each of them defines, with flags.
        references: names that each of them refers to and does not define.
    """

    def __init__(self, files: Sequence[InputFile]) -> None:
        self.files = list(files)
        self._graph: GraphBuilder | None = self._read(range(len(files)))
        self._exported = Exported(self._graph.target_graph)
        self.definitions, self.references = _interfaces(self._graph, self._exported)

    def _read(self, numbers: Iterable[int]) -> GraphBuilder:
        builder = GraphBuilder()
        builder.add([self.files[number] for number in numbers])
        return builder

    def take(self, numbers: Sequence[int]) -> tuple[GraphBuilder, Exported]:
        """A graph of some of the objects, for the caller to change, and what it exports."""
        graph, self._graph = self._graph, None
        if graph is None or len(numbers) < len(self.files):
            # The graph of all of them is of no use any more: they are not linked together.
            graph = self._read(numbers)
            return graph, Exported(graph.target_graph)
        return graph, self._exported


def _interfaces(
    builder: GraphBuilder, exported: Exported
) -> tuple[list[dict[str, JITSymbolFlags]], list[list[str]]]:
    """Definitions and references of each object that was read into a graph."""
    graph = builder.target_graph
    table = graph.symbol_table
    bounds = builder.symbol_bounds
    names, flags = exported.names, exported.flags(graph)
    cuts = exported.rows.searchsorted(bounds).tolist()
    definitions = [
        dict(zip(names[low:high], flags[low:high], strict=True))
        for low, high in pairwise(cuts)
    ]
    rows = rows_where(table.kind == int(SymbolKind.EXTERNAL))
    names = graph.strings.get_many(table.name[rows])
    cuts = rows.searchsorted(bounds).tolist()
    references = [names[low:high] for low, high in pairwise(cuts)]
    return definitions, references


class ObjectUnit(MaterializationUnit):
    """The promise of one or several objects."""

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        parts: Sequence[tuple[ObjectBatch, int]],
        symbols: Mapping[str, JITSymbolFlags],
    ) -> None:
        self.layer = layer
        self.parts = list(parts)
        self.symbols = symbols
        first = self.parts[0]
        self.name = first[0].files[first[1]].name

    def merge_key(self) -> Hashable | None:
        """All objects of a layer can be linked together."""
        return self.layer if self.layer.batch_objects else None

    def merge(self, others: Sequence[MaterializationUnit]) -> MaterializationUnit:
        """The promise of all these objects together."""
        units = [self, *(unit for unit in others if isinstance(unit, ObjectUnit))]
        symbols = {name: flags for unit in units for name, flags in unit.symbols.items()}
        return ObjectUnit(self.layer, [part for unit in units for part in unit.parts], symbols)

    def anticipated(self) -> Iterable[str]:
        """Everything that the objects refer to."""
        return [name for batch, number in self.parts for name in batch.references[number]]

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the objects."""
        builder, exported = self._gather()
        builder.resolver.finish()
        await self.layer.emit(responsibility, builder.target_graph, exported)

    def _gather(self) -> tuple[GraphBuilder, Exported]:
        """One graph of all the objects, and what it exports."""
        batches: dict[ObjectBatch, list[int]] = {}
        for batch, number in self.parts:
            batches.setdefault(batch, []).append(number)
        if len(batches) == 1:
            ((batch, numbers),) = batches.items()
            return batch.take(sorted(numbers))
        builder = GraphBuilder()
        builder.add([batch.files[number] for batch, number in self.parts])
        return builder, Exported(builder.target_graph)


class GraphUnit(MaterializationUnit):
    """The promise of a graph that somebody built."""

    def __init__(self, layer: ObjectLinkingLayer, graph: LinkGraph) -> None:
        self.layer = layer
        self.graph = graph
        self.name = graph.name
        exported = Exported(graph)
        self.symbols = dict(zip(exported.names, exported.flags(graph), strict=True))

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the graph."""
        await self.layer.emit(responsibility, self.graph, Exported(self.graph))


def discard_overridden(
    graph: LinkGraph, responsibility: MaterializationResponsibility, exported: Exported
) -> None:
    """Turn definitions that hold elsewhere into references to there."""
    promised: set[str] = set()
    for definition in responsibility.definitions:
        promised |= definition.flags.keys()
    if promised.issuperset(exported.names):
        return
    table = graph.symbol_table
    for name, row in zip(exported.names, exported.rows.tolist(), strict=True):
        if name not in promised and table.kind[row] != int(SymbolKind.REMOVED):
            graph.make_external(Symbol(graph, row))
