"""Static linking rules: which of several definitions of a name holds, and who refers to it.

Objects that share a graph resolve against each other before anything is looked up outside:

- two strong definitions of a name are an error; a strong one beats a common, a common one a
  weak, and of two equal ones the first in order of input holds (of two commons the larger);
- of COMDAT groups with one signature the first is kept; the others' blocks go, their global
  symbols become references to the kept ones;
- a reference binds to the definition in the graph, wherever it stands.

Specification: System V gABI, chapter 4, "Symbol table" (binding) and "Section groups".
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.formats.elf import ReadObjects
from jitlink.graph import Block, BlockFlags, Linkage, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import ADDRESS_MASK, Int64Array, rows_where
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.passes.got_plt import got_plt_blocks, got_plt_targets


class SymbolResolver:
    """Resolution among the objects of one graph, fed batch by batch.

    The names of a single object need no resolving: they are only indexed when somebody asks.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self._definitions: dict[str, int] = {}
        self._wanted: dict[str, int] = {}
        self._weakly_wanted: set[str] = set()
        self._unindexed: list[ReadObjects] = []
        self._objects = 0
        self._references: list[tuple[list[str], Int64Array]] = []
        self._overridden: list[tuple[int, int]] = []
        self._groups: set[str] = set()

    @property
    def definitions(self) -> dict[str, int]:
        """Row of the definition that holds, for each name defined in the graph."""
        self._index()
        return self._definitions

    @property
    def wanted(self) -> dict[str, int]:
        """Row of the first strong reference to each name that is not defined (yet)."""
        self._index()
        return self._wanted

    @property
    def is_indexed(self) -> bool:
        """Whether names have been asked for, or had to be resolved."""
        return not self._unindexed

    def undefined_among(self, names: AbstractSet[str]) -> set[str]:
        """Those of some names that objects refer to, if only weakly, and none defines."""
        self._index()
        return (names & (self._wanted.keys() | self._weakly_wanted)) - self._definitions.keys()

    def add(self, read: ReadObjects) -> None:
        """Take in what a reader has added to the graph.

        Raises:
            DuplicateDefinitionError: a name has two strong definitions.
        """
        self._unindexed.append(read)
        self._objects += len(read.first_symbol)
        if self._objects > 1:
            self._index()

    def _index(self) -> None:
        pending, self._unindexed = self._unindexed, []
        for read in pending:
            self._discard_groups(read)
            table = self.graph.symbol_table
            first, last = int(read.first_symbol[0]), read.last_symbol
            kind, scope = table.kind[first:last], table.scope[first:last]
            defined = (kind == SymbolKind.DEFINED) | (kind == SymbolKind.ABSOLUTE)
            self._define(rows_where(defined & (scope != Scope.LOCAL)) + first)
            self._refer(rows_where(kind == SymbolKind.EXTERNAL) + first)

    def define(self, name: str, address: int) -> None:
        """Define a name as an absolute address.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        self._index()
        # Not by the graph's own operation: an object may define the name too, and may lose.
        row = self.graph.symbol_table.extend(
            1,
            name=self.graph.strings.add(name),
            kind=SymbolKind.ABSOLUTE,
            block=NO_BLOCK,
            value=address & ADDRESS_MASK,
        )
        self._merge(name, row)
        self._wanted.pop(name, None)

    def define_block(self, name: str, block: Block) -> None:
        """Define a name as the beginning of a block of the graph.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        self._index()
        row = self.graph.symbol_table.extend(
            1,
            name=self.graph.strings.add(name),
            kind=SymbolKind.DEFINED,
            block=block.row,
            size=block.size,
        )
        self._merge(name, row)
        self._wanted.pop(name, None)

    def alias(self, alias: str, name: str) -> None:
        """Let a name stand for a symbol that is defined in the graph.

        Raises:
            UndefinedSymbolError: the graph defines no symbol `name`.
            DuplicateDefinitionError: `alias` has a strong definition.
        """
        row = self.definitions.get(name)
        if row is None:
            raise UndefinedSymbolError([name])
        table = self.graph.symbol_table
        copied = {column: getattr(table, column)[row] for column in table.FIELDS}
        copied["name"] = self.graph.strings.add(alias)
        self._merge(alias, table.extend(1, **copied))
        self._wanted.pop(alias, None)

    def hide_from(self, first: int) -> None:
        """Let nobody see, but who refers to them by now, what rows from `first` on define."""
        self._index()
        table = self.graph.symbol_table
        table.scope[first + rows_where(table.kind[first:] == SymbolKind.DEFINED)] = Scope.LOCAL

    def finish(self) -> None:
        """Bind all references: edges then point at the definitions that hold."""
        if not self._references:
            return
        table, edges = self.graph.symbol_table, self.graph.edge_table
        canonical = np.arange(table.rows)
        for loser, winner in self._overridden:
            canonical[loser] = winner
        held = dict(self._definitions)
        for names, rows in self._references:
            for name, row in zip(names, rows.tolist(), strict=True):
                canonical[row] = held.setdefault(name, row)
        # A loser may have lost to a definition that was itself beaten later.
        while not np.array_equal(canonical, further := canonical[canonical]):
            canonical = further
        self._strengthen(canonical)
        edges.target[:] = canonical[edges.target]
        table.kind[canonical != np.arange(table.rows)] = SymbolKind.REMOVED

    def _strengthen(self, canonical: Int64Array) -> None:
        """An external that anybody refers to strongly is required."""
        table = self.graph.symbol_table
        external = rows_where(table.kind == SymbolKind.EXTERNAL)
        weak = np.uint8(SymbolFlags.WEAKLY_REFERENCED)
        strong = external[table.flags[external] & weak == 0]
        table.flags[canonical[strong]] &= ~weak

    # Definitions and references

    def _define(self, rows: Int64Array) -> None:
        table = self.graph.symbol_table
        names = self.graph.strings.get_many(table.name[rows])
        fresh = dict(zip(names, rows.tolist(), strict=True))
        if len(fresh) == len(names) and self._definitions.keys().isdisjoint(fresh):
            self._definitions.update(fresh)
        else:
            for name, row in zip(names, rows.tolist(), strict=True):
                self._merge(name, row)
        for name in self._wanted.keys() & fresh.keys():
            del self._wanted[name]

    def _merge(self, name: str, row: int) -> None:
        held = self._definitions.setdefault(name, row)
        if held == row:
            return
        if self._rank(row) > self._rank(held):
            self._definitions[name] = row
            self._overridden.append((held, row))
        elif self._rank(row) == self._rank(held) == 2:
            raise DuplicateDefinitionError(name, first=self._file(held), second=self._file(row))
        else:
            self._overridden.append((row, self._hold(held, row)))

    def _hold(self, held: int, row: int) -> int:
        """The row that holds of two definitions of equal rank or falling rank."""
        table, blocks = self.graph.symbol_table, self.graph.block_table
        common = SymbolFlags.COMMON
        if table.flags[held] & table.flags[row] & common:
            first, second = table.block[held], table.block[row]
            blocks.size[first] = max(blocks.size[first], blocks.size[second])
            blocks.alignment[first] = max(blocks.alignment[first], blocks.alignment[second])
            table.size[held] = max(table.size[held], table.size[row])
        return held

    def _rank(self, row: int) -> int:
        table = self.graph.symbol_table
        if table.linkage[row] == Linkage.STRONG:
            return 2
        return 1 if table.flags[row] & SymbolFlags.COMMON else 0

    def _refer(self, rows: Int64Array) -> None:
        table = self.graph.symbol_table
        names = self.graph.strings.get_many(table.name[rows])
        self._references.append((names, rows))
        weak = table.flags[rows] & SymbolFlags.WEAKLY_REFERENCED != 0
        definitions, wanted = self._definitions, self._wanted
        for name, row, is_weak in zip(names, rows.tolist(), weak.tolist(), strict=True):
            if name not in definitions:
                if is_weak:
                    self._weakly_wanted.add(name)
                else:
                    wanted.setdefault(name, row)

    def _file(self, row: int) -> str:
        table = self.graph.symbol_table
        if table.kind[row] != SymbolKind.DEFINED:
            return "an absolute definition"
        return self.graph.origins[int(self.graph.block_table.origin[table.block[row]])]

    # COMDAT groups

    def _discard_groups(self, read: ReadObjects) -> None:
        comdats = read.comdats
        names = self.graph.strings.get_many(comdats.signature)
        fresh = set(names)
        if len(fresh) != len(names) or not self._groups.isdisjoint(fresh):
            dead = np.zeros(len(names), np.bool_)
            for number, name in enumerate(names):
                dead[number] = name in self._groups
                self._groups.add(name)
            self._discard(comdats.member_block[dead[comdats.member_group]])
        self._groups |= fresh

    def _discard(self, rows: Int64Array) -> None:
        """Remove blocks; their global symbols turn into references to the kept ones."""
        graph = self.graph
        blocks, table, edges = graph.block_table, graph.symbol_table, graph.edge_table
        blocks.flags[rows] |= np.uint8(BlockFlags.REMOVED)
        gone = np.zeros(blocks.rows, np.bool_)
        gone[rows] = True
        edges.kind[gone[edges.block]] = 0
        inside = rows_where(table.kind == SymbolKind.DEFINED)
        inside = inside[gone[table.block[inside]]]
        local = table.scope[inside] == Scope.LOCAL
        table.kind[inside] = np.where(local, SymbolKind.REMOVED, SymbolKind.EXTERNAL)
        table.block[inside] = NO_BLOCK
        table.value[inside] = 0
        table.scope[inside] = Scope.DEFAULT


def referrers(graph: LinkGraph, names: Mapping[str, int]) -> dict[str, list[str]]:
    """Display names of the objects that refer to symbols, directly or through GOT and stubs.

    Args:
        graph: the graph.
        names: the symbols' rows by name.
    """
    edges, blocks = graph.edge_table, graph.block_table
    wanted = np.zeros(graph.symbol_table.rows, np.bool_)
    wanted[list(names.values())] = True
    target = got_plt_targets(graph)[edges.target]
    rows = rows_where(wanted[target] & ~got_plt_blocks(graph)[edges.block])
    users: dict[int, set[int]] = {}
    origins = blocks.origin[edges.block[rows]]
    for symbol, origin in zip(target[rows].tolist(), origins.tolist(), strict=True):
        users.setdefault(symbol, set()).add(origin)
    return {
        name: [graph.origins[n] for n in sorted(users.get(row, ())) if 0 <= n < len(graph.origins)]
        for name, row in names.items()
    }
