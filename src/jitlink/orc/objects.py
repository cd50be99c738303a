"""Objects in a JITDylib: read when they are added, linked when one of their symbols is needed.

Objects that are added together are read together, into one graph, which tells what each of
them defines and refers to. If all of them are needed, that graph is what is linked; if only
some are, those are read again by themselves.

What the static linking rules leave open within one object is decided between objects by their
promises: a weak or common definition yields to what the JITDylib has, and a definition in a
COMDAT group counts as weak whatever its binding, because another group of that signature may
take its place. What an object defines and the JITDylib has from elsewhere becomes a reference.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import BlockFlags, Linkage, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.symbols import externalize
from jitlink.graph.tables import BlockTable, SymbolTable, exported_rows
from jitlink.inputs import InputFile, InputReader, SymbolRules
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITSymbolFlags, MaterializationUnit, SymbolState
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.passes.initializers import (
    add_initializer_symbols,
    initializer_symbol_name,
    next_serials,
    objects_with_arrays,
)

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer

_F = JITSymbolFlags
# What the bits of a code stand for, the lowest first.
_FLAG_OF_BIT = (
    _F.WEAK, _F.COMMON, _F.COMDAT, _F.CALLABLE, _F.ABSOLUTE, _F.SIDE_EFFECTS_ONLY, _F.EXPORTED,
)  # fmt: skip


class _FlagsByCode(dict[int, JITSymbolFlags]):
    """One object for each combination: a symbol then costs no arithmetic on enumerations."""

    def __missing__(self, code: int) -> JITSymbolFlags:
        self[code] = flags = _F.NONE
        for number, flag in enumerate(_FLAG_OF_BIT):
            if code >> number & 1:
                self[code] = flags = flags | flag
        return flags


_FLAGS = _FlagsByCode()


def _codes(table: SymbolTable, blocks: BlockTable, rows: Int64Array) -> list[int]:
    """Keys of `_FLAGS` for definitions."""
    flags, scope = table.flags[rows], table.scope[rows]
    weak = table.linkage[rows] == int(Linkage.WEAK)
    weak &= flags & int(SymbolFlags.UNIQUE) == 0
    masks = (
        weak,
        flags & int(SymbolFlags.COMMON) != 0,
        ~weak & _are_in_groups(table, blocks, rows),
        flags & int(SymbolFlags.CALLABLE) != 0,
        table.kind[rows] == int(SymbolKind.ABSOLUTE),
        scope == int(Scope.SIDE_EFFECTS_ONLY),
        scope == int(Scope.DEFAULT),
    )
    code = np.zeros(len(rows), np.uint8)
    for number, mask in enumerate(masks):
        code |= mask.view(np.uint8) << np.uint8(number)
    codes: list[int] = code.tolist()
    return codes


def _are_in_groups(table: SymbolTable, blocks: BlockTable, rows: Int64Array) -> BoolArray:
    """Whether definitions are in COMDAT groups."""
    result: BoolArray = table.kind[rows] == int(SymbolKind.DEFINED)
    result[result] = blocks.flags[table.block[rows[result]]] & int(BlockFlags.COMDAT) != 0
    return result


def symbol_flags(table: SymbolTable, blocks: BlockTable, rows: Int64Array) -> list[JITSymbolFlags]:
    """JIT flags of definitions, given by their symbol rows (int64)."""
    return list(map(_FLAGS.__getitem__, _codes(table, blocks, rows)))


class Exported:
    """The named definitions of a graph that are not local to it, as they were when it was made.

    Args:
        graph: the graph.

    Attributes:
        rows: their symbol rows (int64), which stay the same whatever becomes of the graph.
        names: their names.
    """

    def __init__(self, graph: LinkGraph) -> None:
        table = graph.symbol_table
        self.rows = exported_rows(table)
        self._references = table.name[self.rows]
        self.names = graph.strings.get_many(self._references)

    def flags(self, graph: LinkGraph) -> list[JITSymbolFlags]:
        """JIT flags of the symbols."""
        return symbol_flags(graph.symbol_table, graph.block_table, self.rows)

    def flags_of(self, graph: LinkGraph, names: Iterable[str]) -> dict[str, JITSymbolFlags]:
        """JIT flags of some of the symbols."""
        chosen = self._rows_of(names)
        rows = np.array(list(chosen.values()), np.int64)
        flags = symbol_flags(graph.symbol_table, graph.block_table, rows)
        return dict(zip(chosen, flags, strict=True))

    def _rows_of(self, names: Iterable[str]) -> dict[str, int]:
        """Row of the first symbol of each name."""
        wanted = set(names)
        found: dict[str, int] = {}
        for name, row in zip(self.names, self.rows.tolist(), strict=True):
            if name in wanted:
                found.setdefault(name, row)
        return found

    def addresses(self, graph: LinkGraph) -> dict[str, int]:
        """Addresses of those that the graph still defines."""
        rows, names = self.rows, self.names
        kind = graph.symbol_table.kind[rows]
        held = (kind == int(SymbolKind.DEFINED)) | (kind == int(SymbolKind.ABSOLUTE))
        if not held.all():
            kept = rows_where(held)
            rows, names = rows[kept], [names[each] for each in kept.tolist()]
        return dict(zip(names, graph.symbol_addresses()[rows].tolist(), strict=True))

    def externalize(self, graph: LinkGraph, names: Iterable[str]) -> None:
        """Turn definitions into references to definitions elsewhere."""
        chosen = set(names)
        named = zip(self.names, self.rows.tolist(), strict=True)
        rows = np.array([row for name, row in named if name in chosen], np.int64)
        externalize(graph, rows[graph.symbol_table.kind[rows] != int(SymbolKind.REMOVED)])

    def common_rows(self, graph: LinkGraph) -> Int64Array:
        """Rows (int64) of the common symbols."""
        table = graph.symbol_table
        common = table.flags[self.rows] & int(SymbolFlags.COMMON) != 0
        common &= table.kind[self.rows] == int(SymbolKind.DEFINED)
        rows: Int64Array = self.rows[common]
        return rows

    def again(self, graph: LinkGraph) -> Exported:
        """What the graph defines now; this object itself if that is the same."""
        now = Exported(graph)
        same = np.array_equal(now.rows, self.rows)
        same = same and np.array_equal(now._references, self._references)
        return self if same else now


class CommonSizeError(SessionError):
    """A common symbol is larger than the one of that name that is in memory already.

    Attributes:
        name: the symbol.
        size: its size in bytes.
        linked_size: the size of the one in memory, in bytes.
    """

    def __init__(self, name: str, *, size: int, linked_size: int) -> None:
        super().__init__(
            f"common symbol {name} of {size} bytes: it is linked already, with {linked_size} bytes"
        )
        self.name, self.size, self.linked_size = name, size, linked_size


class CommonSizes:
    """Sizes and alignments of the common symbols of one JITDylib.

    The first definition is the one that is linked, but it must have room for all that were
    added until then.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, tuple[int, int]] = {}
        self._linked: dict[str, int] = {}

    def add(self, graph: LinkGraph, rows: Int64Array) -> None:
        """Take note of common symbols that were promised."""
        for name, _, size, alignment in _commons(graph, rows):
            held = self._wanted.get(name, (0, 0))
            self._wanted[name] = max(held[0], size), max(held[1], alignment)

    def enlarge(self, graph: LinkGraph, rows: Int64Array) -> None:
        """Give common symbols that are about to be linked the room that is wanted."""
        table, blocks = graph.symbol_table, graph.block_table
        for name, row, size, alignment in _commons(graph, rows):
            wanted = self._wanted.get(name, (0, 0))
            table.size[row] = blocks.size[table.block[row]] = max(wanted[0], size)
            blocks.alignment[table.block[row]] = max(wanted[1], alignment)
            self._linked[name] = max(wanted[0], size)

    def check(self, graph: LinkGraph, rows: Int64Array, dylib: JITDylib) -> None:
        """Refuse common symbols for which those in memory have no room.

        Raises:
            CommonSizeError: there is such a one.
        """
        for name, _, size, _ in _commons(graph, rows):
            held = dylib.symbols.get(name)
            is_common = held is not None and held.flags[name] & JITSymbolFlags.COMMON
            linked = self._linked.get(name, size)
            if is_common and held and held.state > SymbolState.NEVER_SEARCHED and linked < size:
                raise CommonSizeError(name, size=size, linked_size=linked)


def _commons(graph: LinkGraph, rows: Int64Array) -> list[tuple[str, int, int, int]]:
    """Name, row, size and alignment of common symbols."""
    table, blocks = graph.symbol_table, graph.block_table
    held = table.block[rows]
    columns = (rows, blocks.size[held], blocks.alignment[held])
    names = graph.strings.get_many(table.name[rows])
    return list(zip(names, *(column.tolist() for column in columns), strict=True))


class ObjectBatch:
    """Objects that were read together.

    Args:
        files: at least one object.
        rules: applied to them, also when they are read again.

    Attributes:
        files: the objects.

    Raises:
        InputError: an object cannot be read.
        DuplicateDefinitionError: two of them have strong definitions of one name.
    """

    def __init__(self, files: Sequence[InputFile], rules: SymbolRules | None = None) -> None:
        self.files = list(files)
        self._serials = next_serials(len(self.files))
        self._rules = rules
        self._builder: InputReader | None = self._read(range(len(files)))

    def _read(self, numbers: Iterable[int]) -> InputReader:
        builder = InputReader(rules=self._rules)
        builder.add([self.files[number] for number in numbers])
        return builder

    def _whole(self) -> InputReader:
        if self._builder is None:
            self._builder = self._read(range(len(self.files)))
        return self._builder

    @property
    def undefined(self) -> dict[str, str]:
        """Names that objects need and none of them defines, each with the first that needs it."""
        builder = self._whole()
        rows = builder.resolver.undefined
        places = np.array(list(rows.values()), np.int64)
        numbers = builder.symbol_bounds.searchsorted(places, side="right") - 1
        return {
            name: self.files[number].name
            for name, number in zip(rows, numbers.tolist(), strict=True)
        }

    def extend(self, files: Sequence[InputFile]) -> None:
        """Read more objects, before anything was asked about what there is.

        Raises:
            InputError: an object cannot be read.
            DuplicateDefinitionError: two objects have strong definitions of one name.
        """
        self._whole().add(files)
        self.files += files
        self._serials += next_serials(len(files))

    @cached_property
    def _exported(self) -> Exported:
        return _exported(self._whole())

    @cached_property
    def definitions(self) -> list[dict[str, JITSymbolFlags]]:
        """What each of the objects defines, with flags."""
        builder = self._whole()
        names, flags = self._exported.names, self._exported.flags(builder.target_graph)
        cuts = self._exported.rows.searchsorted(builder.symbol_bounds).tolist()
        return [
            dict(zip(names[low:high], flags[low:high], strict=True)) for low, high in pairwise(cuts)
        ]

    @cached_property
    def comdats(self) -> list[dict[str, list[str]]]:
        """For each object, its COMDAT groups by signature, with what it defines in them."""
        builder, names = self._whole(), self._exported.names
        groups: list[dict[str, list[str]]] = [{} for _ in self.files]
        signatures = builder.comdat_signatures()
        if signatures:
            table, rows = builder.target_graph.symbol_table, self._exported.rows
            numbers = builder.symbol_bounds.searchsorted(rows, side="right") - 1
            blocks = table.block[rows].tolist()
            for name, number, block in zip(names, numbers.tolist(), blocks, strict=True):
                if block in signatures:
                    groups[number].setdefault(signatures[block], []).append(name)
        return groups

    def definitions_for(self, dylib: JITDylib) -> list[dict[str, JITSymbolFlags]]:
        """What each of the objects defines in a JITDylib, which may have some of their groups."""
        definitions = list(self.definitions)
        for number, groups in enumerate(self.comdats):
            discarded = {
                name
                for signature, names in groups.items()
                if signature in dylib.comdat_groups
                for name in names
                if name in dylib.symbols
            }
            if discarded:
                own = definitions[number].items()
                definitions[number] = {n: flags for n, flags in own if n not in discarded}
        return definitions

    def note_definitions(self, dylib: JITDylib, sizes: CommonSizes) -> None:
        """Record what later objects of a JITDylib are compared with: groups, common symbols."""
        for groups in self.comdats:
            dylib.comdat_groups.update(groups)
        graph = self._whole().target_graph
        sizes.add(graph, self._exported.common_rows(graph))

    @cached_property
    def initializers(self) -> Mapping[int, str]:
        """Names of the symbols that stand for initialisers, by number of the object."""
        return {
            number: initializer_symbol_name(self.files[number].name, self._serials[number])
            for number in sorted(objects_with_arrays(self._whole().target_graph))
        }

    @cached_property
    def references(self) -> list[list[str]]:
        """Names that each of the objects refers to and does not define."""
        builder = self._whole()
        table = builder.target_graph.symbol_table
        rows = rows_where(table.kind == int(SymbolKind.EXTERNAL))
        names = builder.target_graph.strings.get_many(table.name[rows])
        cuts = rows.searchsorted(builder.symbol_bounds).tolist()
        return [names[low:high] for low, high in pairwise(cuts)]

    def take(self, numbers: Sequence[int]) -> tuple[InputReader, Exported]:
        """A graph of some of the objects, for the caller to change, and what it exports."""
        builder, self._builder = self._builder, None
        if builder is None or len(numbers) < len(self.files):
            # The graph of all of them is of no use any more: they are not linked together.
            builder = self._read(numbers)
            return builder, _exported(builder)
        return builder, self._exported


def _exported(builder: InputReader) -> Exported:
    return Exported(builder.target_graph)


class ObjectUnit(MaterializationUnit):
    """The promise of one or several objects."""

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        parts: Sequence[tuple[ObjectBatch, int]],
        symbols: Mapping[str, JITSymbolFlags],
        initializers: Sequence[str] = (),
    ) -> None:
        self.layer = layer
        self.parts = list(parts)
        self.symbols = symbols
        self.initializers = initializers
        first = self.parts[0]
        self.name = first[0].files[first[1]].name

    def merge_key(self) -> Hashable | None:
        """All objects of a layer can be linked together."""
        return self.layer if self.layer.batch_objects else None

    def merge(self, others: Sequence[MaterializationUnit]) -> MaterializationUnit:
        """The promise of all these objects together."""
        units = [self, *(unit for unit in others if isinstance(unit, ObjectUnit))]
        symbols = {name: flags for unit in units for name, flags in unit.symbols.items()}
        initializers = [name for unit in units for name in unit.initializers]
        return self.of([part for unit in units for part in unit.parts], symbols, initializers)

    def of(
        self,
        parts: Sequence[tuple[ObjectBatch, int]],
        symbols: Mapping[str, JITSymbolFlags],
        initializers: Sequence[str],
    ) -> ObjectUnit:
        """A promise of other objects, of the same kind as this one."""
        return ObjectUnit(self.layer, parts, symbols, initializers)

    def anticipated(self) -> Iterable[str]:
        """Everything that the objects refer to."""
        return [name for batch, number in self.parts for name in batch.references[number]]

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the objects."""
        builder, exported = self._gather()
        builder.resolver.finish()
        exported = self.transform(builder, exported)
        if self.initializers:
            add_initializer_symbols(builder.target_graph, self._markers())
            exported = exported.again(builder.target_graph)
        await self.layer.emit(responsibility, builder.target_graph, exported)

    def transform(self, builder: InputReader, exported: Exported) -> Exported:  # noqa: ARG002
        """Make what the graph defines what was promised; returns what it exports then."""
        return exported

    def _markers(self) -> dict[int, str]:
        """Names of the symbols that stand for initialisers, by place of the object in the link."""
        named = [batch.initializers.get(number) for batch, number in self._ordered()]
        return {origin: name for origin, name in enumerate(named) if name is not None}

    def _ordered(self) -> list[tuple[ObjectBatch, int]]:
        """The objects in the order in which they are linked."""
        if len({batch for batch, _ in self.parts}) > 1:
            return self.parts
        return sorted(self.parts, key=lambda part: part[1])

    def _gather(self) -> tuple[InputReader, Exported]:
        """One graph of all the objects, and what it exports."""
        parts = self._ordered()
        if len({batch for batch, _ in parts}) == 1:
            return parts[0][0].take([number for _, number in parts])
        builder = InputReader(rules=self.layer.symbol_rules)
        builder.add([batch.files[number] for batch, number in parts])
        return builder, _exported(builder)


class GraphUnit(MaterializationUnit):
    """The promise of a graph that somebody built."""

    def __init__(self, layer: ObjectLinkingLayer, graph: LinkGraph) -> None:
        self.layer = layer
        self.graph = graph
        self.name = graph.name
        if layer.adds_initializer_symbols:
            self._mark_initializers()
        exported = Exported(graph)
        self.symbols = dict(zip(exported.names, exported.flags(graph), strict=True))

    def _mark_initializers(self) -> None:
        origins = sorted(objects_with_arrays(self.graph))
        serials = next_serials(len(origins))
        names = {
            o: initializer_symbol_name(self.name, s) for o, s in zip(origins, serials, strict=True)
        }
        add_initializer_symbols(self.graph, names)
        self.initializers = list(names.values())

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the graph."""
        await self.layer.emit(responsibility, self.graph)
