"""Harness mode: objects under test, and what a test harness makes of them.

A harness is what a test consists of besides the objects under test: objects, Python functions, or
both. `HarnessRules` bends the rules of static linking for it, as objects are read:

- What the harness defines, the objects under test do not: theirs becomes a reference to the
  harness's, whatever the binding of either. That is how functions are mocked.
- What the harness refers to may be local to an object under test (``static`` in C): it becomes
  visible to all. If another object under test defines the name too, that is an
  `AmbiguousReferenceError`: which of them is meant cannot be told.

All else is as ever: two strong definitions in objects under test, or in the harness, are an
error. Members of archives are under test like objects.

Assemblers resolve calls of local functions by themselves, or express them by a distance from the
beginning of a section, so such calls name no symbol that could be bound to something else. The
overridden function's entry becomes a jump to what overrides it, which catches them all. Only
copies that the compiler has inlined go on as they were.

Specification: JITLink and ORC's ObjectLinkingLayer, "Harness mode".

LLVM differs: its harness mode leaves calls alone that name no symbol; takes local variables of
the harness's names out of the objects; makes weak definitions strong, so that weak and strong
definitions of one name clash; and fails for common symbols and for weak ones in archives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jitlink.errors import SymbolError
from jitlink.graph import Block, LinkGraph, MemLifetime, Scope, SymbolFlags
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION, INVALID
from jitlink.graph.strings import NO_NAME
from jitlink.graph.symbols import externalize
from jitlink.graph.tables import ABSOLUTE, DEFINED
from jitlink.inputs import InputFile
from jitlink.orc.objects import ObjectBatch
from jitlink.targets.base import Jump
from jitlink.targets.registry import target_of_graph

_LOCAL, _LIVE = int(Scope.LOCAL), int(SymbolFlags.LIVE)
_CALLABLE, _INDIRECT = int(SymbolFlags.CALLABLE), int(SymbolFlags.INDIRECT)


class AmbiguousReferenceError(SymbolError):
    """The harness refers to a local symbol, and that is not the only one of its name.

    Attributes:
        name: the symbol.
        files: display names of the objects that define it.
    """

    def __init__(self, name: str, files: Sequence[str]) -> None:
        self.name, self.files = name, tuple(files)
        super().__init__(
            f"the harness refers to {name}, which is a local symbol that more than one object "
            f"defines: {' and '.join(self.files)}"
        )


class OverrideError(SymbolError):
    """A definition that nothing can take the place of.

    Attributes:
        name: the symbol.
        file: display name of the object that defines it.
    """

    def __init__(self, name: str, file: str, reason: str) -> None:
        self.name, self.file = name, file
        super().__init__(f"{name} in {file} cannot be overridden: {reason}")


class _Entry(NamedTuple):
    """Where an overridden function begins, and the symbol that it has become.

    Attributes:
        row: row of the symbol.
        name: its name.
        file: display name of the object.
        block: row of the block.
        offset: in the block.
        room: bytes that are the function's, with the padding behind it.
        is_local: whether the symbol was local.
    """

    row: int
    name: str
    file: str
    block: int
    offset: int
    room: int
    is_local: bool


class HarnessRules:
    """The rules, for one harness.

    Args:
        definitions: names that the harness defines.
        references: names that it refers to.
        files: its objects; all others are under test.
        keep_locals: whether local functions and variables that nobody uses are linked too.

    Attributes:
        overridden: names, of those that the harness defines, that objects under test define too.
    """

    def __init__(
        self,
        definitions: Iterable[str],
        references: Iterable[str] = (),
        files: Iterable[InputFile] = (),
        *,
        keep_locals: bool = False,
    ) -> None:
        self.overridden: set[str] = set()
        self._definitions = frozenset(definitions)
        self._references = frozenset(references) - self._definitions
        # The files are kept, so that the identity of each stays its own.
        self._harness = {id(file): file for file in files}
        self._noted: dict[int, InputFile] = {}
        self._definers: dict[str, list[tuple[str, bool]]] = {}
        self._keep_locals = keep_locals

    @classmethod
    def of(cls, harness: ObjectBatch) -> HarnessRules:
        """The rules for a harness of objects."""
        definitions = {name for symbols in harness.definitions for name in symbols}
        references = {name for names in harness.references for name in names}
        return cls(definitions, references, harness.files)

    def apply(self, graph: LinkGraph, files: Sequence[InputFile], bounds: Int64Array) -> None:
        """Change the symbols of objects under test; see `jitlink.inputs.SymbolRules`.

        Raises:
            AmbiguousReferenceError: it cannot be told which local symbol the harness means.
            OverrideError: a local function is too short for a jump.
        """
        chosen, owner = self._named(graph, files, bounds)
        table = graph.symbol_table
        if self._keep_locals:
            kept = chosen[(table.scope[chosen] == _LOCAL) & (table.kind[chosen] == DEFINED)]
            loaded = graph.section_lifetimes() != int(MemLifetime.NO_ALLOC)
            kept = kept[loaded[graph.block_table.section[table.block[kept]]]]
            table.flags[kept] |= _LIVE
        overridden: list[tuple[int, str, str]] = []
        promoted: list[int] = []
        names = graph.strings.get_many(table.name[chosen])
        for row, number, name in zip(chosen.tolist(), owner.tolist(), names, strict=True):
            if name in self._definitions:
                overridden.append((row, name, files[number].name))
            elif name in self._references:
                promoted.append(row)
                self._note(name, files[number], is_local=bool(table.scope[row] == _LOCAL))
        self._noted |= {id(file): file for file in files}
        if promoted:
            self._check_references(promoted, graph)
            table.scope[promoted] = int(Scope.DEFAULT)
            table.flags[promoted] |= _LIVE
        if overridden:
            self._override(graph, overridden)

    def _named(
        self, graph: LinkGraph, files: Sequence[InputFile], bounds: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """Rows (int64) of the named definitions of objects under test, and number of the object."""
        table = graph.symbol_table
        first, last = int(bounds[0]), int(bounds[-1])
        kind = table.kind[first:last]
        named = ((kind == DEFINED) | (kind == ABSOLUTE)) & (table.name[first:last] != NO_NAME)
        rows = rows_where(named) + first
        owner = bounds.searchsorted(rows, side="right") - 1
        tested = np.array([id(file) not in self._harness for file in files], np.bool_)
        under_test: BoolArray = tested[owner]
        return rows[under_test], owner[under_test]

    def _note(self, name: str, file: InputFile, *, is_local: bool) -> None:
        """Take note of who defines what the harness refers to, each object once."""
        if id(file) not in self._noted:
            self._definers.setdefault(name, []).append((file.name, is_local))

    def _check_references(self, rows: Sequence[int], graph: LinkGraph) -> None:
        for name in graph.strings.get_many(graph.symbol_table.name[rows]):
            definers = self._definers[name]
            if len(definers) > 1 and any(is_local for _, is_local in definers):
                raise AmbiguousReferenceError(name, [file for file, _ in definers])

    # Overriding

    def _override(self, graph: LinkGraph, found: Sequence[tuple[int, str, str]]) -> None:
        """Turn definitions into references, and the functions' entries into jumps."""
        table = graph.symbol_table
        rows: list[int] = []
        entries: list[_Entry] = []
        for row, name, file in found:
            is_local = bool(table.scope[row] == _LOCAL)
            is_function = bool(table.kind[row] == DEFINED and table.flags[row] & _CALLABLE)
            if is_local and not is_function:
                # Code reaches it without naming it, so some of the code would go on to.
                continue
            rows.append(row)
            self.overridden.add(name)
            # Calls of a function with a resolver always name it.
            if is_function and not table.flags[row] & _INDIRECT:
                place = int(table.block[row]), int(table.value[row])
                entries.append(_Entry(row, name, file, *place, _room(graph, row), is_local))
        externalize(graph, np.array(rows, np.int64))
        jump = target_of_graph(graph).jump
        if jump is not None:
            for entry in entries:
                _catch(graph, entry, jump)


def _room(graph: LinkGraph, row: int) -> int:
    """Bytes from the beginning of a function to that of the next, or the end of the block."""
    table = graph.symbol_table
    block, start = int(table.block[row]), int(table.value[row])
    if graph.block_table.content[block] == ZERO_FILL:
        return 0
    rows = rows_where((table.kind == DEFINED) & (table.block == block))
    rows = rows[(table.flags[rows] & _CALLABLE != 0) | (table.size[rows] > 0)]
    values = table.value[rows]
    later = values[values > np.uint64(start)].tolist()
    return int(min([*later, int(graph.block_table.size[block])])) - start


def _catch(graph: LinkGraph, entry: _Entry, jump: Jump) -> None:
    """Let a function's entry jump to the symbol that it has become.

    A global function that has another name too stays what it is under that.
    """
    fits = entry.room >= len(jump.content)
    if not entry.is_local and (_has_function_at(graph, entry) or not fits):
        return
    if not fits:
        reason = f"it has {entry.room} bytes, a jump takes {len(jump.content)}"
        raise OverrideError(entry.name, entry.file, reason)
    end = entry.offset + len(jump.content)
    Block(graph, entry.block).mutable_content()[entry.offset : end] = jump.content
    edges = graph.edge_table
    covered = edges.rows_of_block(entry.block)
    covered = covered[edges.kind[covered] >= FIRST_RELOCATION]
    covered = covered[(edges.offset[covered] >= entry.offset) & (edges.offset[covered] < end)]
    edges.kind[covered] = INVALID
    for kind, offset, addend in jump.edges:
        edges.extend(
            1,
            block=entry.block,
            offset=entry.offset + offset,
            kind=int(kind),
            target=entry.row,
            addend=addend,
        )


def _has_function_at(graph: LinkGraph, entry: _Entry) -> bool:
    """Whether a function begins where an overridden one did."""
    table = graph.symbol_table
    here = (table.kind == DEFINED) & (table.block == entry.block)
    here &= (table.value == np.uint64(entry.offset)) & (table.flags & _CALLABLE != 0)
    return bool(here.any())
