"""Harness mode: the rules by which a test harness overrides symbols of objects under test.

A test consists of the objects under test and a harness: objects, Python functions, or both.
`HarnessRules` changes the rules of static linking for it, as objects are read:

- Definitions of the harness override those of the objects under test, which become references to
  them, whatever the binding of either. That is how functions are mocked.
- A name that the harness refers to may be local to an object under test (``static`` in C): it is
  then made visible to all. If another object under test defines the name too, that is an
  `AmbiguousReferenceError`.

Everything else is as usual: two strong definitions in objects under test, or in the harness, are an
error. Members of archives are under test like objects.

Assemblers resolve calls of local functions by themselves, or express them by an offset from the
beginning of a section, so such calls name no symbol that could be bound elsewhere. Therefore the
first instructions of an overridden function are replaced by a jump to the overriding one. Only
copies that the compiler has inlined are not overridden.

Specification: JITLink and ORC's ObjectLinkingLayer, "Harness mode".

LLVM differs: its harness mode does not redirect calls that name no symbol; removes local variables
that the harness defines from the objects; makes weak definitions strong, so that weak and strong
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
from jitlink.orc.object_batch import ObjectBatch
from jitlink.targets.base import Jump
from jitlink.targets.registry import target_of_graph

_LOCAL, _LIVE = int(Scope.LOCAL), int(SymbolFlags.LIVE)
_CALLABLE, _INDIRECT = int(SymbolFlags.CALLABLE), int(SymbolFlags.INDIRECT)


class AmbiguousReferenceError(SymbolError):
    """The harness refers to a local symbol, and several objects define the name.

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
    """A definition that cannot be overridden.

    Attributes:
        name: the symbol.
        file: display name of the object that defines it.
    """

    def __init__(self, name: str, file: str, reason: str) -> None:
        self.name, self.file = name, file
        super().__init__(f"{name} in {file} cannot be overridden: {reason}")


class _OverriddenFunction(NamedTuple):
    """A function whose symbol has become a reference to another one.

    Attributes:
        row: row of the symbol.
        name: its name.
        file: display name of the object.
        block: row of the function's block.
        offset: of the function in the block, in bytes.
        size: of the function with the padding behind it, in bytes.
        is_local: whether the symbol was local.
    """

    row: int
    name: str
    file: str
    block: int
    offset: int
    size: int
    is_local: bool


class HarnessRules:
    """The rules for one harness.

    Args:
        definitions: names that the harness defines.
        references: names that it refers to.
        files: its objects; all others are under test.
        keep_locals: whether local functions and variables are linked even if nothing refers to
            them.

    Attributes:
        overridden: names that both the harness and objects under test define.
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
        # The files are kept, so that no other file gets the identity of one.
        self._harness = {id(file): file for file in files}
        self._recorded: dict[int, InputFile] = {}
        self._definers: dict[str, list[tuple[str, bool]]] = {}
        self._keep_locals = keep_locals

    @classmethod
    def of(cls, harness: ObjectBatch) -> HarnessRules:
        """The rules for a harness of objects."""
        definitions = {name for symbols in harness.definitions for name in symbols}
        references = {name for names in harness.references for name in names}
        return cls(definitions, references, harness.files)

    def apply(self, graph: LinkGraph, files: Sequence[InputFile], bounds: Int64Array) -> None:
        """Change the symbols of objects under test; see `jitlink.input_reader.SymbolRules`.

        Raises:
            AmbiguousReferenceError: the harness refers to a local symbol, and several objects
                define the name.
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
                self._record(name, files[number], is_local=bool(table.scope[row] == _LOCAL))
        self._recorded |= {id(file): file for file in files}
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

    def _record(self, name: str, file: InputFile, *, is_local: bool) -> None:
        """Record that an object defines a name that the harness refers to, each object once."""
        if id(file) not in self._recorded:
            self._definers.setdefault(name, []).append((file.name, is_local))

    def _check_references(self, rows: Sequence[int], graph: LinkGraph) -> None:
        for name in graph.strings.get_many(graph.symbol_table.name[rows]):
            definers = self._definers[name]
            if len(definers) > 1 and any(is_local for _, is_local in definers):
                raise AmbiguousReferenceError(name, [file for file, _ in definers])

    # Overriding

    def _override(self, graph: LinkGraph, found: Sequence[tuple[int, str, str]]) -> None:
        """Turn definitions into references, and functions into jumps."""
        table = graph.symbol_table
        rows: list[int] = []
        functions: list[_OverriddenFunction] = []
        for row, name, file in found:
            is_local = bool(table.scope[row] == _LOCAL)
            is_function = bool(table.kind[row] == DEFINED and table.flags[row] & _CALLABLE)
            if is_local and not is_function:
                # Code that does not name the symbol would use the old variable all the same.
                continue
            rows.append(row)
            self.overridden.add(name)
            # Calls of a function with a resolver always name it.
            if is_function and not table.flags[row] & _INDIRECT:
                block, offset, size = (
                    int(table.block[row]),
                    int(table.value[row]),
                    _size(graph, row),
                )
                functions.append(
                    _OverriddenFunction(row, name, file, block, offset, size, is_local)
                )
        externalize(graph, np.array(rows, np.int64))
        jump = target_of_graph(graph).jump
        if jump is not None:
            for function in functions:
                _replace_by_jump(graph, function, jump)


def _size(graph: LinkGraph, row: int) -> int:
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


def _replace_by_jump(graph: LinkGraph, function: _OverriddenFunction, jump: Jump) -> None:
    """Replace the beginning of a function by a jump to the overriding one.

    A global function that has another name too is not changed, so that it stays what it is under
    that name.
    """
    fits = function.size >= len(jump.content)
    if not function.is_local and (_has_function_at(graph, function) or not fits):
        return
    if not fits:
        reason = f"it has {function.size} bytes, a jump takes {len(jump.content)}"
        raise OverrideError(function.name, function.file, reason)
    end = function.offset + len(jump.content)
    Block(graph, function.block).mutable_content()[function.offset : end] = jump.content
    edges = graph.edge_table
    covered = edges.rows_of_block(function.block)
    covered = covered[edges.kind[covered] >= FIRST_RELOCATION]
    covered = covered[(edges.offset[covered] >= function.offset) & (edges.offset[covered] < end)]
    edges.kind[covered] = INVALID
    for kind, offset, addend in jump.edges:
        edges.extend(
            1,
            block=function.block,
            offset=function.offset + offset,
            kind=int(kind),
            target=function.row,
            addend=addend,
        )


def _has_function_at(graph: LinkGraph, function: _OverriddenFunction) -> bool:
    """Whether another function begins at an overridden one."""
    table = graph.symbol_table
    here = (table.kind == DEFINED) & (table.block == function.block)
    here &= (table.value == np.uint64(function.offset)) & (table.flags & _CALLABLE != 0)
    return bool(here.any())
