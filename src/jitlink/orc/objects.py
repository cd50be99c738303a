"""The definitions of graphs as those of JITDylibs: names, flags, and sizes of common symbols.

A definition of an object that is overridden when the object is linked becomes a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from jitlink.graph import BlockFlags, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.symbols import externalize
from jitlink.graph.tables import ABSOLUTE, DEFINED, BlockTable, SymbolTable, exported_rows
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib

_F = JITSymbolFlags


class _FlagsByKey(dict[int, JITSymbolFlags]):
    """JIT flags of definitions by `flags_key`; computed once, as operators of flags are slow."""

    def __missing__(self, key: int) -> JITSymbolFlags:
        kind, scope, of_symbol = key & 3, key >> 3 & 3, key >> 6
        is_weak = key & _WEAK and not of_symbol & SymbolFlags.UNIQUE
        flags = _F.WEAK if is_weak else _F.COMDAT if key & _IN_GROUP else _F.NONE
        if of_symbol & SymbolFlags.COMMON:
            flags |= _F.COMMON
        if of_symbol & SymbolFlags.CALLABLE:
            flags |= _F.CALLABLE
        if kind == ABSOLUTE:
            flags |= _F.ABSOLUTE
        if scope == Scope.SIDE_EFFECTS_ONLY:
            flags |= _F.SIDE_EFFECTS_ONLY
        if scope == Scope.DEFAULT:
            flags |= _F.EXPORTED
        self[key] = flags
        return flags


FLAGS = _FlagsByKey()
_Numbers = TypeVar("_Numbers", int, Int64Array)
# Bits of a key: see `flags_key`.
_WEAK, _IN_GROUP, _COMDAT_SHIFT = 1 << 2, 1 << 5, 2
_COMDAT = int(BlockFlags.COMDAT)
_COMMON = int(SymbolFlags.COMMON)


def flags_key(
    kind: _Numbers, linkage: _Numbers, scope: _Numbers, flags: _Numbers, block_flags: _Numbers
) -> _Numbers:
    """The key in `FLAGS` of a definition, or of many: all arguments are numbers, or arrays.

    Args:
        kind: `SymbolKind`.
        linkage: `Linkage`.
        scope: `Scope`.
        flags: `SymbolFlags`.
        block_flags: `BlockFlags` of the block of a defined symbol, otherwise 0.
    """
    in_group = (block_flags & _COMDAT) << _COMDAT_SHIFT
    return kind | (linkage << 2) | (scope << 3) | in_group | (flags << 6)


def symbol_flags(table: SymbolTable, blocks: BlockTable, rows: Int64Array) -> list[JITSymbolFlags]:
    """JIT flags of definitions, given by their symbol rows (int64)."""
    kind, block = table.kind[rows], table.block[rows]
    # Symbols in no block get the flags of some block first.
    block_flags = blocks.flags[block] if blocks.rows else np.zeros(len(rows), np.uint8)
    block_flags = np.where(kind == DEFINED, block_flags, 0)
    columns = (kind, table.linkage[rows], table.scope[rows], table.flags[rows], block_flags)
    keys: list[int] = flags_key(*(column.astype(np.int64) for column in columns)).tolist()
    return list(map(FLAGS.__getitem__, keys))


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
        rows, names, table = self.rows, self.names, graph.symbol_table
        kind = table.kind[rows]
        if not np.count_nonzero(kind != DEFINED):
            # The usual case: all are in blocks.
            found = table.value[rows] + graph.block_table.address[table.block[rows]]
            return dict(zip(names, found.tolist(), strict=True))
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
        common = rows_where((table.flags[self.rows] & _COMMON) != 0)
        rows: Int64Array = self.rows[common]
        return rows[table.kind[rows] == DEFINED] if len(rows) else rows

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
