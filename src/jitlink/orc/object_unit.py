"""Units of objects: those of one layer can be merged, and are then linked as one graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

from jitlink.formats.small import are_few, may_be_small
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array
from jitlink.graph.tables import exported_rows
from jitlink.input_reader import InputReader
from jitlink.inputs import InputFile
from jitlink.orc.interface import JITSymbolFlags, MaterializationUnit, Symbols
from jitlink.orc.linker_sets import LinkerSets, companions, separate
from jitlink.orc.object_batch import ObjectBatch
from jitlink.orc.objects import ExportedSymbols
from jitlink.passes.initializers import (
    add_initializer_symbols,
    initializer_symbol_name,
    next_serials,
    objects_with_arrays,
)
from jitlink.passes.linker_defined import SetUse, add_element_symbols

if TYPE_CHECKING:
    from jitlink.input_reader import SymbolRules
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.materialization import MaterializationResponsibility


class UnitLayer(Protocol):
    """An `ObjectLinkingLayer`, which documents all of this, as units use it."""

    batch_objects: bool
    adds_initializer_symbols: bool
    symbol_rules: SymbolRules | None

    def __hash__(self) -> int:
        """Units of one layer have it as their merge key."""

    def linker_sets(self, dylib: JITDylib) -> LinkerSets:
        """The linker sets of a JITDylib."""

    async def emit(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: ExportedSymbols | None = None,
    ) -> None:
        """Link a graph for a responsibility."""


class Transform(Protocol):
    """Changes the symbols of objects to those that their unit defines."""

    def apply(self, graph: LinkGraph, rows: Int64Array) -> None:
        """Transform definitions of a graph, given by the rows (int64) of their symbols."""


class ObjectPart(NamedTuple):
    """One object of a unit.

    Attributes:
        batch: the objects that were added with it.
        number: its number among them.
        transform: how its symbols are changed; None if they are not.
    """

    batch: ObjectBatch
    number: int
    transform: Transform | None = None

    @property
    def file(self) -> InputFile:
        """The object."""
        return self.batch.files[self.number]

    @property
    def serial(self) -> int:
        """A number that sorts objects by the order in which they were added."""
        return self.batch.serial(self.number)


class ObjectUnit(MaterializationUnit):
    """A unit of one or several objects."""

    def __init__(
        self,
        layer: UnitLayer,
        parts: Sequence[ObjectPart],
        symbols: Mapping[str, JITSymbolFlags],
        initializers: Sequence[str] = (),
    ) -> None:
        self.layer = layer
        self.parts = sorted(parts, key=lambda part: part.serial)
        self.symbols = symbols
        self.initializers = initializers
        self.name = self.parts[0].file.name

    @cached_property
    def set_use(self) -> SetUse:
        """What the objects have to do with linker sets."""
        if len(self.parts) == 1:
            return self.parts[0].batch.set_use(self.parts[0].number)
        return SetUse.of_all(part.batch.set_use(part.number) for part in self.parts)

    # Merging

    def merge_key(self) -> Hashable | None:
        """All objects of a layer can be linked together.

        Members of archives are a link of their own, for which they are read already.
        """
        if not self.layer.batch_objects and not self.set_use:
            return None
        batch = self.parts[0].batch
        return (self.layer, batch) if batch.is_extracted else self.layer

    def merge(self, others: Sequence[MaterializationUnit]) -> ObjectUnit:
        """One unit of all these objects."""
        units = [self, *(unit for unit in others if isinstance(unit, ObjectUnit))]
        return ObjectUnit(
            self.layer,
            [part for unit in units for part in unit.parts],
            {name: flags for unit in units for name, flags in unit.symbols.items()},
            [name for unit in units for name in unit.initializers],
        )

    def separate(self, units: Sequence[MaterializationUnit]) -> list[list[MaterializationUnit]]:
        """Objects that share a linker set or an image cannot be linked apart."""
        return separate([(unit, unit.set_use) for unit in units if isinstance(unit, ObjectUnit)])

    def anticipated(self) -> Iterable[str]:
        """All external symbols of the objects."""
        if not self.layer.batch_objects:
            return ()
        return [name for part in self.parts for name in part.batch.references[part.number]]

    def required(self) -> Mapping[str, str]:
        """The external symbols that are not referred to weakly, each with the first referrer."""
        return {
            name: part.batch.files[part.number].name
            for part in reversed(self.parts)
            for name in part.batch.strong_references[part.number]
        }

    def companions(self, definition: Definition, handled: set[Hashable]) -> Iterable[Definition]:
        """Definitions of the objects that must be linked with these; see `linker_sets`."""
        sets, use = self.layer.linker_sets(definition.dylib), self.set_use
        if not sets and not use:
            return ()
        return [
            other
            for other in companions(sets, use, definition, handled)
            if isinstance(other.unit, ObjectUnit) and other.unit.layer is self.layer
        ]

    def renewed(self, symbols: Mapping[str, JITSymbolFlags]) -> ObjectUnit:
        """The same objects, which are read again."""
        initializers = [name for name in self.initializers if name in symbols]
        return type(self)(self.layer, self.parts, symbols, initializers)

    # Materialization

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the objects."""
        builder, exported = self._read()
        graph = builder.target_graph
        # What the objects were resolved with may be as large as the graph.
        del builder
        added = [part.batch.element_symbol(part.number) for part in self.parts]
        symbols = [name for name in added if name is not None]
        if self.initializers:
            add_initializer_symbols(graph, self._initializer_names())
        if symbols:
            add_element_symbols(graph, symbols)
            sets, names = self.layer.linker_sets(responsibility.dylib), exported.names
            sets.define_bounds(responsibility, graph, self.set_use.elements, names)
        if self.initializers or symbols:
            exported = exported.updated(graph)
        await self.layer.emit(responsibility, graph, exported)

    def _initializer_names(self) -> dict[int, str]:
        """Names of the initializer symbols, by index of the object in the link."""
        named = [part.batch.initializers.get(part.number) for part in self.parts]
        return {origin: name for origin, name in enumerate(named) if name is not None}

    def _read(self) -> tuple[InputReader, ExportedSymbols]:
        """One graph of all the objects, resolved, and its exported symbols."""
        transforms = {part.transform for part in self.parts}
        if len(transforms) == 1:
            builder, exported = self._read_alike()
            builder.resolver.finish()
            transform = transforms.pop()
            if transform is not None:
                transform.apply(builder.target_graph, exported.rows)
                exported = exported.updated(builder.target_graph)
            return builder, exported
        # References of one object must not be bound to what another one's transform renames.
        rules = _TransformRules(self.parts, self.layer.symbol_rules)
        builder = InputReader(rules=rules)
        builder.add([part.file for part in self.parts])
        builder.resolver.finish()
        return builder, ExportedSymbols(builder.target_graph)

    def _read_alike(self) -> tuple[InputReader, ExportedSymbols]:
        batch = self.parts[0].batch
        if all(part.batch is batch for part in self.parts):
            return batch.take([part.number for part in self.parts])
        builder = InputReader(rules=self.layer.symbol_rules)
        files = [part.file for part in self.parts]
        small = [part.batch.small for part in self.parts if part.batch.small is not None]
        if len(small) == len(files) and may_be_small(len(files)) and are_few(small):
            builder.add_small(files, small)
        else:
            builder.add(files)
        return builder, ExportedSymbols(builder.target_graph)


class _TransformRules:
    """Applies the transform of each object when all of them have been read."""

    def __init__(self, parts: Sequence[ObjectPart], rules: SymbolRules | None) -> None:
        self._parts = parts
        self._rules = rules

    def apply(self, graph: LinkGraph, files: Sequence[InputFile], bounds: Int64Array) -> None:
        """See `SymbolRules.apply`."""
        if self._rules is not None:
            self._rules.apply(graph, files, bounds)
        for part, (first, last) in zip(self._parts, pairwise(bounds.tolist()), strict=True):
            if part.transform is not None:
                part.transform.apply(graph, exported_rows(graph.symbol_table, first, last))


class GraphUnit(MaterializationUnit):
    """A unit of one graph."""

    def __init__(self, layer: UnitLayer, graph: LinkGraph) -> None:
        self.layer = layer
        self.graph = graph
        self.name = graph.name
        self._is_linked = False
        if layer.adds_initializer_symbols:
            self._add_initializers()
        exported = ExportedSymbols(graph)
        self.symbols = dict(zip(exported.names, exported.flags(graph), strict=True))

    def _add_initializers(self) -> None:
        origins = sorted(objects_with_arrays(self.graph))
        serials = next_serials(len(origins))
        names = {
            o: initializer_symbol_name(self.name, s) for o, s in zip(origins, serials, strict=True)
        }
        add_initializer_symbols(self.graph, names)
        self.initializers = list(names.values())

    def restart_obstacles(self, symbols: Symbols) -> Iterable[str]:  # noqa: ARG002
        """The graph, if it was linked, which has changed it."""
        return [f"graph {self.name}, which its link has changed,"] if self._is_linked else []

    def renewed(self, symbols: Symbols) -> GraphUnit:
        """The unit itself: its graph is as it was added."""
        self.symbols = dict(symbols)
        return self

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the graph."""
        self._is_linked = True
        await self.layer.emit(responsibility, self.graph)
