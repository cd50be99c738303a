"""Objects of a JITDylib: read when they are added, linked when one of their symbols is looked up.

Objects that are added together are read together, into one graph, from which the definitions and
references of each are known. If all of them are needed, that graph is linked; if only some are,
those are read again by themselves.

Precedence between objects is decided when they are added, by the flags of their definitions: the
JITDylib's definitions override weak and common ones that are added, and definitions in COMDAT
groups that it has already. A definition of an object that is overridden when the object is linked
becomes a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import BlockFlags, Linkage, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.symbols import externalize
from jitlink.graph.tables import BlockTable, SymbolTable, exported_rows
from jitlink.inputs import InputFile, InputReader, SymbolRules
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITSymbolFlags, SymbolState
from jitlink.passes.initializers import initializer_symbol_name, next_serials, objects_with_arrays
from jitlink.passes.linker_defined import NO_USE, SetUse, element_symbol_name, linker_sets, set_uses
from jitlink.targets.registry import target_of_graph

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.interface import ResourceTracker

_F = JITSymbolFlags
# The flags that the bits of a code represent, the lowest first.
_FLAG_OF_BIT = (
    _F.WEAK, _F.COMMON, _F.COMDAT, _F.CALLABLE, _F.ABSOLUTE, _F.SIDE_EFFECTS_ONLY, _F.EXPORTED,
)  # fmt: skip


class _FlagsByCode(dict[int, JITSymbolFlags]):
    """One object for each combination, because operators of enumerations are slow."""

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


class ExportedSymbols:
    """The named definitions of a graph that are not local, at the time of construction.

    Args:
        graph: the graph.
        names: returns names of symbols for their rows (int64); by default they are decoded.

    Attributes:
        rows: their symbol rows (int64), which do not change with the graph.
        names: their names.
    """

    def __init__(
        self, graph: LinkGraph, names: Callable[[Int64Array], list[str]] | None = None
    ) -> None:
        table = graph.symbol_table
        self.rows = exported_rows(table)
        self._references = table.name[self.rows]
        self.names = names(self.rows) if names else graph.strings.get_many(self._references)

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
        """Addresses of those symbols that the graph still defines."""
        rows, names = self.rows, self.names
        kind = graph.symbol_table.kind[rows]
        is_defined = (kind == int(SymbolKind.DEFINED)) | (kind == int(SymbolKind.ABSOLUTE))
        if not is_defined.all():
            kept = rows_where(is_defined)
            rows, names = rows[kept], [names[number] for number in kept.tolist()]
        return dict(zip(names, graph.symbol_addresses()[rows].tolist(), strict=True))

    def externalize(self, graph: LinkGraph, names: Iterable[str]) -> None:
        """Turn definitions into external symbols."""
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

    def updated(self, graph: LinkGraph) -> ExportedSymbols:
        """The present definitions of the graph; this object itself if they are the same."""
        rows, references = exported_rows(graph.symbol_table), graph.symbol_table.name
        same = np.array_equal(rows, self.rows) and np.array_equal(
            references[rows], self._references
        )
        return self if same else ExportedSymbols(graph, partial(self._names_now, graph))

    def _names_now(self, graph: LinkGraph, rows: Int64Array) -> list[str]:
        """Names of symbols of the graph; those that have not changed are the same strings."""
        references = graph.symbol_table.name[rows]
        number = self.rows.searchsorted(rows)
        known = number < len(self.rows)
        known[known] = self.rows[number[known]] == rows[known]
        known[known] = self._references[number[known]] == references[known]
        fresh = iter(graph.strings.get_many(references[~known]))
        old = zip(number.tolist(), known.tolist(), strict=True)
        return [self.names[each] if is_known else next(fresh) for each, is_known in old]


class CommonSizeError(SessionError):
    """A common symbol is larger than the memory that its name has already.

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

    The first definition is linked, with the largest size and alignment of all that were added
    until then.
    """

    def __init__(self) -> None:
        # The largest size and alignment, and the size of what is linked, in bytes.
        self._largest: dict[str, tuple[int, int]] = {}
        self._linked: dict[str, int] = {}

    def add(self, graph: LinkGraph, rows: Int64Array) -> None:
        """Record common symbols that were added."""
        for name, _, size, alignment in _commons(graph, rows):
            largest = self._largest.get(name, (0, 0))
            self._largest[name] = max(largest[0], size), max(largest[1], alignment)

    def enlarge(self, graph: LinkGraph, rows: Int64Array) -> None:
        """Enlarge common symbols that are about to be linked to the largest size recorded."""
        table, blocks = graph.symbol_table, graph.block_table
        for name, row, size, alignment in _commons(graph, rows):
            largest = self._largest.get(name, (0, 0))
            table.size[row] = blocks.size[table.block[row]] = max(largest[0], size)
            blocks.alignment[table.block[row]] = max(largest[1], alignment)
            self._linked[name] = max(largest[0], size)

    def check(self, graph: LinkGraph, rows: Int64Array, dylib: JITDylib) -> None:
        """Check that common symbols are no larger than those that are linked already.

        Raises:
            CommonSizeError: one is.
        """
        for name, _, size, _ in _commons(graph, rows):
            found = dylib.symbols.get(name)
            is_common = found is not None and found.flags[name] & JITSymbolFlags.COMMON
            linked = self._linked.get(name, size)
            if is_common and found and found.state > SymbolState.NEVER_SEARCHED and linked < size:
                raise CommonSizeError(name, size=size, linked_size=linked)


def _commons(graph: LinkGraph, rows: Int64Array) -> list[tuple[str, int, int, int]]:
    """Name, row, size and alignment of common symbols."""
    table, blocks = graph.symbol_table, graph.block_table
    block = table.block[rows]
    columns = (rows, blocks.size[block], blocks.alignment[block])
    names = graph.strings.get_many(table.name[rows])
    return list(zip(names, *(column.tolist() for column in columns), strict=True))


class ObjectBatch:
    """Objects that were read together.

    Args:
        files: at least one object.
        rules: applied to them, also when they are read again.
        is_extracted: whether they are members of archives that were extracted together.

    Attributes:
        files: the objects.
        is_extracted: the same.

    Raises:
        InputError: an object cannot be read.
        DuplicateDefinitionError: two of them have strong definitions of one name.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        rules: SymbolRules | None = None,
        *,
        is_extracted: bool = False,
    ) -> None:
        self.files = list(files)
        self.is_extracted = is_extracted
        self._serials = next_serials(len(self.files))
        # The hidden definitions that `definitions_for` has left out.
        self._discarded_hidden: set[str] = set()
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

    def undefined(self, known: AbstractSet[str] = frozenset()) -> dict[str, str]:
        """Names with a strong reference that no object defines, each with the first referrer.

        Args:
            known: names that are left out.
        """
        builder = self._whole()
        rows = {n: row for n, row in builder.resolver.undefined.items() if n not in known}
        numbers = builder.objects_of(rows.values())
        return {name: self.files[n].name for name, n in zip(rows, numbers, strict=True)}

    @property
    def commons(self) -> list[str]:
        """The names whose definition is a common symbol."""
        return self._whole().resolver.commons

    def extend(self, files: Sequence[InputFile]) -> None:
        """Read more objects, before anything but `undefined` and `commons` is used.

        Raises:
            InputError: an object cannot be read.
            DuplicateDefinitionError: two objects have strong definitions of one name.
        """
        self._whole().add(files)
        self.files += files
        self._serials += next_serials(len(files))

    @cached_property
    def _exported(self) -> ExportedSymbols:
        builder = self._whole()
        return ExportedSymbols(builder.target_graph, builder.resolver.names)

    @cached_property
    def definitions(self) -> list[dict[str, JITSymbolFlags]]:
        """The definitions of each object, with flags."""
        builder = self._whole()
        names, flags = self._exported.names, self._exported.flags(builder.target_graph)
        cuts = self._exported.rows.searchsorted(builder.symbol_bounds).tolist()
        return [
            dict(zip(names[low:high], flags[low:high], strict=True)) for low, high in pairwise(cuts)
        ]

    @cached_property
    def comdats(self) -> list[dict[str, list[str]]]:
        """For each object, the names that it defines in COMDAT groups, by signature."""
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

    @property
    def hidden_references(self) -> set[str]:
        """The names that references of hidden visibility are to."""
        graph = self._whole().target_graph
        table = graph.symbol_table
        hidden = table.scope == int(Scope.HIDDEN)
        rows = rows_where(hidden & (table.kind == int(SymbolKind.EXTERNAL)))
        return set(graph.strings.get_many(table.name[rows])) if len(rows) else set()

    def definitions_for(self, dylib: JITDylib) -> list[dict[str, JITSymbolFlags]]:
        """The definitions of each object, without those in groups that a JITDylib has already."""
        definitions = list(self.definitions)
        self._discarded_hidden = set()
        for number, groups in enumerate(self.comdats):
            discarded = {
                name
                for signature, names in groups.items()
                if signature in dylib.comdat_groups
                for name in names
                if name in dylib.symbols
            }
            if discarded:
                own = definitions[number]
                hidden = {name for name in discarded if not own[name].is_exported}
                self._discarded_hidden |= hidden
                definitions[number] = {n: f for n, f in own.items() if n not in discarded}
        return definitions

    def record_definitions(
        self, dylib: JITDylib, sizes: CommonSizes, tracker: ResourceTracker | None
    ) -> None:
        """Record what concerns other objects of the JITDylib, those that are added later, too.

        These are COMDAT groups, common symbols, hidden references and discarded definitions, and
        the address limit.
        """
        hidden = self.hidden_references | self._discarded_hidden
        dylib.hide(hidden, tracker or dylib.default_tracker)
        for groups in self.comdats:
            dylib.comdat_groups.update(groups)
        graph = self._whole().target_graph
        sizes.add(graph, self._exported.common_rows(graph))
        if not dylib.is_placed:
            dylib.limit_addresses(target_of_graph(graph).address_limit(graph))

    @cached_property
    def initializers(self) -> Mapping[int, str]:
        """Names of the initializer symbols, by number of the object."""
        return {
            number: initializer_symbol_name(self.files[number].name, self._serials[number])
            for number in sorted(objects_with_arrays(self._whole().target_graph))
        }

    @cached_property
    def references(self) -> list[list[str]]:
        """The names of each object's external symbols."""
        return self._referenced(0)

    @cached_property
    def strong_references(self) -> list[list[str]]:
        """The names of each object's external symbols that must be defined."""
        return self._referenced(int(SymbolFlags.WEAKLY_REFERENCED))

    def _referenced(self, without: int) -> list[list[str]]:
        """The names of each object's external symbols without a flag."""
        builder = self._whole()
        table = builder.target_graph.symbol_table
        external = table.kind == int(SymbolKind.EXTERNAL)
        rows = rows_where(external & (table.flags & without == 0) if without else external)
        names = builder.resolver.names(rows)
        cuts = rows.searchsorted(builder.symbol_bounds).tolist()
        return [names[low:high] for low, high in pairwise(cuts)]

    @cached_property
    def elements(self) -> Mapping[int, list[str]]:
        """Names of the linker sets that objects have elements of, by number of the object."""
        return linker_sets(self._whole().target_graph)

    def element_symbol(self, number: int) -> str | None:
        """Name of the element symbol of an object that has elements of linker sets."""
        if number not in self.elements:
            return None
        return element_symbol_name(self.files[number].name, self._serials[number])

    def serial(self, number: int) -> int:
        """A number that sorts objects by the order in which they were added."""
        return self._serials[number]

    def set_use(self, number: int) -> SetUse:
        """What an object has to do with linker sets."""
        return self._set_uses.get(number, NO_USE)

    @cached_property
    def _set_uses(self) -> Mapping[int, SetUse]:
        resolver = self._whole().resolver
        undefined = resolver.unresolved if resolver.is_indexed else self.references[0]
        return set_uses(self.elements, undefined, self.references)

    def take(self, numbers: Sequence[int]) -> tuple[InputReader, ExportedSymbols]:
        """A graph of some of the objects, owned by the caller, and its exported symbols."""
        builder, self._builder = self._builder, None
        # What is known about all objects is needed again only if they are read again.
        for cached in ("comdats", "references", "strong_references"):
            self.__dict__.pop(cached, None)
        if builder is None or len(numbers) < len(self.files):
            # The graph of all of them is not used: they are not linked together.
            builder = self._read(numbers)
            return builder, ExportedSymbols(builder.target_graph)
        return builder, self._exported
