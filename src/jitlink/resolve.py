"""Static linking rules: which of several definitions of a name prevails, and what refers to it.

`precedence` is the one answer, for objects that share a graph (`SymbolResolver`), for the
definitions of a JITDylib (`jitlink.orc.dylib`), and so for everything that is built on them:

- a strong definition takes the place of a common or a weak one, a common one that of a weak one;
- of two definitions of equal rank the first in order of input prevails; of two common ones it
  gets the larger size and the larger alignment of the two;
- two strong definitions are an error, unless both are members of COMDAT groups;
- an absolute symbol is a strong definition, or a weak one, like any other; visibility and symbol
  type have no influence.

Objects that share a graph are resolved before anything is looked up outside. There, of COMDAT
groups with one signature the first is kept: the blocks of the others are removed, and their
global symbols become references. A reference binds to the definition in the graph, wherever it
stands in the order of inputs. What no object defines is left external; only strong references
extract members of archives.

Specification: System V gABI, chapter 4, "Symbol table" (binding) and "Section groups"; for common
symbols the GNU ld manual, `--warn-common`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum, IntEnum

import numpy as np

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.formats.batch import ReadObjects
from jitlink.graph import Block, BlockFlags, Linkage, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import ADDRESS_MASK, Int64Array, rows_where
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.symbols import externalize
from jitlink.graph.tables import exported_rows
from jitlink.passes.got_plt import got_plt_blocks, got_plt_targets

_COMMON, _UNIQUE, _COMDAT = int(SymbolFlags.COMMON), int(SymbolFlags.UNIQUE), int(BlockFlags.COMDAT)


class Strength(IntEnum):
    """What competes with other definitions of a name.

    COMDAT is a strong definition in a COMDAT group; a weak one in a group is WEAK. A unique
    definition (``STB_GNU_UNIQUE``) is a strong one.
    """

    WEAK = 0
    COMMON = 1
    COMDAT = 2
    STRONG = 3


class Precedence(Enum):
    """What becomes of a definition when another one of its name is added.

    HELD: the one that was there prevails. ADDED: the one that is added prevails. MERGED: the one
    that was there prevails, with the larger size and alignment of both. DUPLICATE: an error.
    """

    HELD = "held"
    ADDED = "added"
    MERGED = "merged"
    DUPLICATE = "duplicate"


_HELD, _ADDED = Precedence.HELD, Precedence.ADDED
_PRECEDENCE = (
    # Added:  WEAK, COMMON, COMDAT, STRONG. Held:
    (_HELD, _ADDED, _ADDED, _ADDED),  # WEAK
    (_HELD, Precedence.MERGED, _ADDED, _ADDED),  # COMMON
    (_HELD, _HELD, _HELD, Precedence.DUPLICATE),  # COMDAT
    (_HELD, _HELD, Precedence.DUPLICATE, Precedence.DUPLICATE),  # STRONG
)


def precedence(held: Strength, added: Strength) -> Precedence:
    """Which of two definitions of one name prevails, by what they are in order of input."""
    return _PRECEDENCE[held][added]


def strength_of(graph: LinkGraph, row: int) -> Strength:
    """What a definition of a graph, given by its symbol row, competes as."""
    table = graph.symbol_table
    if table.flags[row] & _COMMON:
        return Strength.COMMON
    if table.linkage[row] == Linkage.WEAK and not table.flags[row] & _UNIQUE:
        return Strength.WEAK
    is_defined = table.kind[row] == SymbolKind.DEFINED
    if is_defined and graph.block_table.flags[table.block[row]] & _COMDAT:
        return Strength.COMDAT
    return Strength.STRONG


class SymbolResolver:
    """Resolution among the objects of one graph, fed batch by batch.

    The names of a single object need no resolving: they are indexed when they are first asked for.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self._definitions: dict[str, int] = {}
        self._undefined: dict[str, int] = {}
        self._weakly_undefined: set[str] = set()
        self._unindexed: list[ReadObjects] = []
        self._objects = 0
        self._references: list[tuple[list[str], Int64Array]] = []
        self._overridden: list[tuple[int, int]] = []
        self._groups: set[str] = set()

    @property
    def definitions(self) -> dict[str, int]:
        """Row of the definition that prevails, for each name defined in the graph."""
        self._index()
        return self._definitions

    @property
    def undefined(self) -> dict[str, int]:
        """Row of the first strong reference to each name that is not defined (yet)."""
        self._index()
        return self._undefined

    @property
    def is_indexed(self) -> bool:
        """Whether the names of all objects have been resolved or asked for."""
        return not self._unindexed

    def undefined_among(self, names: AbstractSet[str]) -> set[str]:
        """Those of some names that objects refer to, if only weakly, and none defines."""
        self._index()
        referenced = self._undefined.keys() | self._weakly_undefined
        return (names & referenced) - self._definitions.keys()

    def add(self, read: ReadObjects) -> None:
        """Resolve what a reader has added to the graph.

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
            self._define(exported_rows(table, first, last))
            self._refer(rows_where(table.kind[first:last] == SymbolKind.EXTERNAL) + first)

    def define(self, name: str, address: int) -> None:
        """Define a name as an absolute address.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        # Not by the graph's own operation: an object may define the name too, with less strength.
        self._add_definition(
            name, kind=SymbolKind.ABSOLUTE, block=NO_BLOCK, value=address & ADDRESS_MASK
        )

    def define_block(self, name: str, block: Block) -> None:
        """Define a name as the beginning of a block of the graph.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        self._add_definition(name, kind=SymbolKind.DEFINED, block=block.row, size=block.size)

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
        columns = {column: getattr(table, column)[row] for column in table.FIELDS}
        self._add_definition(alias, **columns)

    def _add_definition(self, defined: str, **columns: int) -> None:
        """Append a symbol row of that name and resolve it."""
        self._index()
        columns["name"] = self.graph.strings.add(defined)
        self._merge(defined, self.graph.symbol_table.extend(1, **columns))
        self._undefined.pop(defined, None)

    def hide_from(self, first: int) -> None:
        """Make what rows from `first` on define local: only references that are bound see it."""
        self._index()
        table = self.graph.symbol_table
        table.scope[first + rows_where(table.kind[first:] == SymbolKind.DEFINED)] = Scope.LOCAL

    def finish(self) -> None:
        """Bind all references: edges then point at the definitions that prevail."""
        if not self._references:
            return
        table, edges = self.graph.symbol_table, self.graph.edge_table
        canonical = np.arange(table.rows)
        for overridden, prevailing in self._overridden:
            canonical[overridden] = prevailing
        held = dict(self._definitions)
        for names, rows in self._references:
            for name, row in zip(names, rows.tolist(), strict=True):
                canonical[row] = held.setdefault(name, row)
        # What overrode a definition may itself have been overridden later.
        while not np.array_equal(canonical, further := canonical[canonical]):
            canonical = further
        self._strengthen(canonical)
        edges.target[:] = canonical[edges.target]
        table.kind[canonical != np.arange(table.rows)] = SymbolKind.REMOVED

    def _strengthen(self, canonical: Int64Array) -> None:
        """Make an external required if any of the references to it is strong."""
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
        for name in self._undefined.keys() & fresh.keys():
            del self._undefined[name]

    def _merge(self, name: str, row: int) -> None:
        """Enter a definition, which another one of that name may override."""
        held = self._definitions.setdefault(name, row)
        if held == row:
            return
        outcome = precedence(strength_of(self.graph, held), strength_of(self.graph, row))
        if outcome is Precedence.DUPLICATE:
            raise DuplicateDefinitionError(name, first=self._file(held), second=self._file(row))
        if outcome is Precedence.ADDED:
            self._definitions[name] = row
            self._overridden.append((held, row))
            return
        if outcome is Precedence.MERGED:
            self._enlarge(held, row)
        self._overridden.append((row, held))

    def _enlarge(self, held: int, row: int) -> None:
        """Give a common symbol the size and alignment of another one, where these are larger."""
        table, blocks = self.graph.symbol_table, self.graph.block_table
        first, second = table.block[held], table.block[row]
        blocks.size[first] = max(blocks.size[first], blocks.size[second])
        blocks.alignment[first] = max(blocks.alignment[first], blocks.alignment[second])
        table.size[held] = max(table.size[held], table.size[row])

    def _refer(self, rows: Int64Array) -> None:
        table = self.graph.symbol_table
        names = self.graph.strings.get_many(table.name[rows])
        self._references.append((names, rows))
        weak = table.flags[rows] & SymbolFlags.WEAKLY_REFERENCED != 0
        definitions, undefined = self._definitions, self._undefined
        for name, row, is_weak in zip(names, rows.tolist(), weak.tolist(), strict=True):
            if name not in definitions:
                if is_weak:
                    self._weakly_undefined.add(name)
                else:
                    undefined.setdefault(name, row)

    def _file(self, row: int) -> str:
        table = self.graph.symbol_table
        if table.kind[row] != SymbolKind.DEFINED:
            return "an absolute definition"
        return self.graph.origins[int(self.graph.block_table.origin[table.block[row]])]

    # COMDAT groups

    def _discard_groups(self, read: ReadObjects) -> None:
        """Remove the groups of which another one has the signature."""
        comdats = read.comdats
        names = self.graph.strings.get_many(comdats.signature)
        fresh = set(names)
        if len(fresh) != len(names) or not self._groups.isdisjoint(fresh):
            duplicate = np.zeros(len(names), np.bool_)
            for number, name in enumerate(names):
                duplicate[number] = name in self._groups
                self._groups.add(name)
            self._discard(read, comdats.member_block[duplicate[comdats.member_group]])
        self._groups |= fresh

    def _discard(self, read: ReadObjects, rows: Int64Array) -> None:
        """Remove blocks that were just read; their global symbols become references.

        Only the rows of `read` are looked at: nothing else can refer to the blocks yet.
        """
        graph = self.graph
        blocks, table, edges = graph.block_table, graph.symbol_table, graph.edge_table
        blocks.flags[rows] |= np.uint8(BlockFlags.REMOVED)
        first = read.first_block
        removed = np.zeros(blocks.rows - first, np.bool_)
        removed[rows - first] = True
        within = slice(read.first_edge, read.last_edge)
        edges.kind[within][removed[edges.block[within] - first]] = 0
        start = int(read.first_symbol[0])
        defined = rows_where(table.kind[start : read.last_symbol] == SymbolKind.DEFINED) + start
        inside = defined[removed[table.block[defined] - first]]
        local = table.scope[inside] == Scope.LOCAL
        table.kind[inside[local]] = SymbolKind.REMOVED
        table.block[inside[local]] = NO_BLOCK
        externalize(graph, inside[~local])


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
