"""Static linking rules: which of several definitions of a name prevails, and what refers to it.

`precedence` decides this for objects that share a graph (`SymbolResolver`) and for the definitions
of a JITDylib (`jitlink.orc.dylib`), and so for everything that is built on them:

- a strong definition overrides a common or a weak one, and a common one overrides a weak one;
- of two definitions of equal strength the first in order of input prevails; of two common ones it
  gets the larger size and the larger alignment of the two;
- two strong definitions are an error, unless both are members of COMDAT groups;
- an absolute symbol is a strong definition, or a weak one, like any other; visibility and symbol
  type have no influence. The prevailing definition gets the most constraining visibility of all
  definitions of the name and references to it.

Objects that share a graph are resolved before anything is looked up outside of it. There, the
first of the COMDAT groups with one signature is kept: the blocks of the others are removed, and
their global symbols become references. A reference binds to the definition in the graph, wherever
that is in the order of inputs. A name that no object defines stays external.

Specification: System V gABI, chapter 4, "Symbol table" (binding, visibility) and "Section groups";
for common symbols the GNU ld manual, `--warn-common`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum, IntEnum
from itertools import compress, repeat
from operator import not_

import numpy as np

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.formats.batch import ReadObjects
from jitlink.graph import Block, BlockFlags, Linkage, LinkGraph, Scope, SymbolFlags
from jitlink.graph.columns import ADDRESS_MASK, Int64Array, rows_where
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.symbols import externalize
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL, REMOVED, exported_rows
from jitlink.passes.got_plt import got_plt_blocks, got_plt_targets

_WEAKLY_REFERENCED = int(SymbolFlags.WEAKLY_REFERENCED)
_WEAK, _LOCAL, _HIDDEN, _DEFAULT = (
    int(Linkage.WEAK), int(Scope.LOCAL), int(Scope.HIDDEN), int(Scope.DEFAULT))  # fmt: skip
_COMMON, _UNIQUE, _COMDAT = int(SymbolFlags.COMMON), int(SymbolFlags.UNIQUE), int(BlockFlags.COMDAT)


class Strength(IntEnum):
    """The strength of a definition, which decides its precedence.

    COMDAT is a strong definition in a COMDAT group; a weak one in a group is WEAK. A unique
    definition (``STB_GNU_UNIQUE``) is a strong one.
    """

    WEAK = 0
    COMMON = 1
    COMDAT = 2
    STRONG = 3


class Precedence(Enum):
    """Which of two definitions of a name prevails: the existing one, or one that is added.

    EXISTING: the existing one. ADDED: the added one. MERGED: the existing one, with the larger size
    and alignment of both. DUPLICATE: an error.
    """

    EXISTING = "existing"
    ADDED = "added"
    MERGED = "merged"
    DUPLICATE = "duplicate"


_EXISTING, _ADDED = Precedence.EXISTING, Precedence.ADDED
_MERGED, _DUPLICATE = Precedence.MERGED, Precedence.DUPLICATE
_PRECEDENCE = (
    # Added: WEAK, COMMON, COMDAT, STRONG. Existing:
    (_EXISTING, _ADDED, _ADDED, _ADDED),  # WEAK
    (_EXISTING, _MERGED, _ADDED, _ADDED),  # COMMON
    (_EXISTING, _EXISTING, _EXISTING, _DUPLICATE),  # COMDAT
    (_EXISTING, _EXISTING, _DUPLICATE, _DUPLICATE),  # STRONG
)


def precedence(existing: Strength, added: Strength) -> Precedence:
    """Which of two definitions of one name prevails, by their strengths in order of input."""
    return _PRECEDENCE[existing][added]


def strength_of(graph: LinkGraph, row: int) -> Strength:
    """The strength of a definition of a graph, given by its symbol row."""
    table = graph.symbol_table
    if table.flags[row] & _COMMON:
        return Strength.COMMON
    if table.linkage[row] == _WEAK and not table.flags[row] & _UNIQUE:
        return Strength.WEAK
    is_defined = table.kind[row] == DEFINED
    if is_defined and graph.block_table.flags[table.block[row]] & _COMDAT:
        return Strength.COMDAT
    return Strength.STRONG


class SymbolResolver:
    """Resolves names among the objects of one graph, batch by batch.

    The names of a single object need no resolution: they are indexed on first use.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self._definitions: dict[str, int] = {}
        self._undefined: dict[str, int] = {}
        self._weakly_undefined: set[str] = set()
        self._unindexed: list[ReadObjects] = []
        self._objects = 0
        # Names and rows of the definitions, and of the references, that were indexed.
        self._defined: list[tuple[list[str], Int64Array]] = []
        self._references: list[tuple[list[str], Int64Array]] = []
        self._overridden: list[tuple[int, int]] = []
        # Number of the first group of each signature, and how many groups there are.
        self._groups: dict[str, int] = {}
        self._group_count = 0

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
        """Whether the names of all objects have been indexed."""
        return not self._unindexed

    def names(self, rows: Int64Array) -> list[str]:
        """Names of symbols, given by rows (int64): the strings by which they were resolved, if any.

        Many names take more memory than all else that is known about their symbols.
        """
        table = self.graph.symbol_table
        if not self._defined:
            return self.graph.strings.get_many(table.name[rows])
        known, is_known = np.full(table.rows, "", object), np.zeros(table.rows, np.bool_)
        for names, named in (*self._defined, *self._references):
            known[named], is_known[named] = names, True
        others = rows[~is_known[rows]]
        known[others] = self.graph.strings.get_many(table.name[others])
        found: list[str] = known[rows].tolist()
        return found

    @property
    def unresolved(self) -> AbstractSet[str]:
        """The names that objects refer to and none defines, and perhaps others."""
        self._index()
        return self._undefined.keys() | self._weakly_undefined

    @property
    def commons(self) -> list[str]:
        """The names whose definition is a common symbol."""
        table = self.graph.symbol_table
        rows = rows_where((table.flags & np.uint8(_COMMON) != 0) & (table.kind == DEFINED))
        if not len(rows):
            return []
        definitions, names = self.definitions, self.graph.strings.get_many(table.name[rows])
        named = zip(names, rows.tolist(), strict=True)
        return [name for name, row in named if definitions.get(name) == row]

    def undefined_among(self, names: AbstractSet[str]) -> set[str]:
        """Those of some names that objects refer to, weakly or not, and none defines."""
        return (names & self.unresolved) - self.definitions.keys()

    def add(self, read: ReadObjects) -> None:
        """Resolve objects that were read into the graph.

        Raises:
            DuplicateDefinitionError: a name has two strong definitions.
        """
        self._unindexed.append(read)
        self._objects += len(read.first_symbol)
        if self._objects > 1 or read.refers_to_itself:
            self._index()

    def _index(self) -> None:
        pending, self._unindexed = self._unindexed, []
        for read in pending:
            self._discard_groups(read)
            table = self.graph.symbol_table
            first, last = int(read.first_symbol[0]), read.last_symbol
            self._define(exported_rows(table, first, last))
            self._refer(rows_where(table.kind[first:last] == EXTERNAL) + first)

    def define(self, name: str, address: int) -> None:
        """Define a name as an absolute address.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        # Not with the graph's own method: an object may have a weaker definition of the name.
        self._add_definition(name, kind=ABSOLUTE, block=NO_BLOCK, value=address & ADDRESS_MASK)

    def define_block(self, name: str, block: Block) -> None:
        """Define a name as the start of a block of the graph.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        self._add_definition(name, kind=DEFINED, block=block.row, size=block.size)

    def alias(self, alias: str, name: str) -> None:
        """Define a name as an alias of a symbol that is defined in the graph.

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
        """Make definitions in rows from `first` on local, after resolving references to them."""
        self._index()
        table = self.graph.symbol_table
        kind = table.kind[first:]
        is_definition = (kind == DEFINED) | (kind == ABSOLUTE)
        table.scope[first + rows_where(is_definition)] = Scope.LOCAL

    def finish(self) -> None:
        """Bind all references: the targets of edges become the definitions that prevail."""
        if not self._references:
            return
        table, edges = self.graph.symbol_table, self.graph.edge_table
        canonical = np.arange(table.rows)
        for overridden, prevailing in self._overridden:
            canonical[overridden] = prevailing
        definitions, external = self._definitions, dict[str, int]()
        references, self._references, self._defined = self._references, [], []
        for names, rows in references:
            found = np.fromiter(map(definitions.get, names, repeat(-1)), np.int64, len(names))
            missing = rows_where(found < 0)
            absent = [names[number] for number in missing.tolist()]
            found[missing] = list(map(external.setdefault, absent, rows[missing].tolist()))
            canonical[rows] = found
        # An overriding definition may itself have been overridden later.
        while not np.array_equal(canonical, further := canonical[canonical]):
            canonical = further
        self._strengthen(canonical)
        self._constrain(canonical)
        edges.target[:] = canonical[edges.target]
        table.kind[canonical != np.arange(table.rows)] = REMOVED

    def _strengthen(self, canonical: Int64Array) -> None:
        """Make an external symbol strongly referenced if any of the references to it is strong."""
        table = self.graph.symbol_table
        external = rows_where(table.kind == EXTERNAL)
        weak = np.uint8(_WEAKLY_REFERENCED)
        strong = external[table.flags[external] & weak == 0]
        table.flags[canonical[strong]] &= ~weak

    def _constrain(self, canonical: Int64Array) -> None:
        """Give symbols the most constraining visibility of all symbols of their names."""
        table = self.graph.symbol_table
        hidden = canonical[rows_where(table.scope == _HIDDEN)]
        table.scope[hidden[table.scope[hidden] == _DEFAULT]] = _HIDDEN

    # Definitions and references

    def _define(self, rows: Int64Array) -> None:
        table = self.graph.symbol_table
        names = self.graph.strings.get_many(table.name[rows])
        self._defined.append((names, rows))
        # Most names have one definition: the dictionary is filled without a loop.
        found = np.fromiter(
            map(self._definitions.setdefault, names, rows.tolist()), np.int64, len(names)
        )
        for number in rows_where(found != rows).tolist():
            self._merge(names[number], int(rows[number]))
        # Not of all definitions: archives may be read member by member.
        for name in self._undefined.keys() & names if self._undefined else ():
            del self._undefined[name]

    def _merge(self, name: str, row: int) -> None:
        """Add a definition, and resolve it with an existing one of that name."""
        existing = self._definitions.setdefault(name, row)
        if existing == row:
            return
        outcome = precedence(strength_of(self.graph, existing), strength_of(self.graph, row))
        if outcome is Precedence.DUPLICATE:
            raise DuplicateDefinitionError(name, first=self._file(existing), second=self._file(row))
        if outcome is Precedence.ADDED:
            self._definitions[name] = row
            self._overridden.append((existing, row))
            return
        if outcome is Precedence.MERGED:
            self._enlarge(existing, row)
        self._overridden.append((row, existing))

    def _enlarge(self, existing: int, row: int) -> None:
        """Give a common symbol the size and alignment of another one if these are larger."""
        table, blocks = self.graph.symbol_table, self.graph.block_table
        first, second = table.block[existing], table.block[row]
        blocks.size[first] = max(blocks.size[first], blocks.size[second])
        blocks.alignment[first] = max(blocks.alignment[first], blocks.alignment[second])
        table.size[existing] = max(table.size[existing], table.size[row])

    def _refer(self, rows: Int64Array) -> None:
        table = self.graph.symbol_table
        names = self.graph.strings.get_many(table.name[rows])
        self._references.append((names, rows))
        weak = table.flags[rows] & _WEAKLY_REFERENCED != 0
        definitions, undefined = self._definitions, self._undefined
        is_missing = map(not_, map(definitions.__contains__, names))
        columns = zip(names, rows.tolist(), weak.tolist(), strict=True)
        for name, row, is_weak in compress(columns, is_missing):
            if is_weak:
                self._weakly_undefined.add(name)
            else:
                undefined.setdefault(name, row)

    def _file(self, row: int) -> str:
        table = self.graph.symbol_table
        if table.kind[row] != DEFINED:
            return "an absolute definition"
        return self.graph.origin_name(int(table.block[row]))

    # COMDAT groups

    def _discard_groups(self, read: ReadObjects) -> None:
        """Remove the groups whose signature another group has already."""
        comdats = read.comdats
        names = self.graph.strings.get_many(comdats.signature)
        numbers = np.arange(self._group_count, self._group_count + len(names))
        self._group_count += len(names)
        found = np.fromiter(
            map(self._groups.setdefault, names, numbers.tolist()), np.int64, len(names)
        )
        duplicate = found != numbers
        if duplicate.any():
            self._discard(read, comdats.member_block[duplicate[comdats.member_group]])

    def _discard(self, read: ReadObjects, rows: Int64Array) -> None:
        """Remove blocks that were just read; their global symbols become references.

        Only the rows of `read` are examined: nothing else can refer to the blocks yet.
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
        defined = rows_where(table.kind[start : read.last_symbol] == DEFINED) + start
        inside = defined[removed[table.block[defined] - first]]
        local = table.scope[inside] == _LOCAL
        table.kind[inside[local]] = REMOVED
        table.block[inside[local]] = NO_BLOCK
        references = inside[~local]
        scope = table.scope[references]
        externalize(graph, references)
        table.scope[references] = scope


def referrers(graph: LinkGraph, names: Mapping[str, int]) -> dict[str, list[str]]:
    """Display names of the objects that refer to symbols, directly or through GOT and PLT.

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
