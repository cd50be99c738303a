"""Adding symbols, finding them by name, and turning one kind of symbol into another.

These are the symbol operations of `LinkGraph`, which documents them. They enforce these rules:

- An external symbol has a name, and no other external symbol of the graph has the same.
- Two absolute symbols, or two defined ones, may have one name only if one of them is local.
- A symbol without a name is local.
- A defined symbol does not extend past the end of its block.

Code that writes to columns directly must keep the rules itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import ADDRESS_MASK, Int64Array, rows_where
from jitlink.graph.elements import Block, Symbol
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import (
    EXTERNAL,
    Linkage,
    Scope,
    SymbolFlags,
    SymbolKind,
    check_linkage,
    check_scope,
)

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph

NO_BLOCK = -1

_NO_FLAGS = SymbolFlags(0)

# Flags that only a defined symbol has.
_DEFINITION_FLAGS = SymbolFlags.COMMON | SymbolFlags.INDIRECT
_NOT_LIVE, _NOT_OF_DEFINITIONS = 0xFF ^ int(SymbolFlags.LIVE), 0xFF ^ int(_DEFINITION_FLAGS)


def rows_named(graph: LinkGraph, kind: SymbolKind, name: str) -> Int64Array:
    """Rows (int64) of the symbols of one kind that have this name."""
    # The heap finds all references of the name, so that no name need be decoded here, and
    # there is no index that writes to columns would have to keep up to date.
    table = graph.symbol_table
    if kind not in table.kind.tobytes():
        return np.empty(0, np.int64)
    references = graph.strings.find(name)
    if len(references) == 0:
        return references
    return np.flatnonzero((table.kind == kind) & np.isin(table.name, references))


class ExternalNames:
    """The names of a graph's external symbols, which several passes ask for and few change."""

    def __init__(self) -> None:
        self._references: Int64Array = np.empty(0, np.int64)
        self._names: Sequence[str] = ()

    def of(self, graph: LinkGraph) -> tuple[Int64Array, Sequence[str]]:
        """Rows (int64) of the external symbols, and the name of each."""
        table = graph.symbol_table
        # Bytes are searched much faster than a column is compared.
        if EXTERNAL not in table.kind.tobytes():
            return np.empty(0, np.int64), ()
        rows = rows_where(table.kind == EXTERNAL)
        references = table.name[rows]
        if not np.array_equal(references, self._references):
            self._references, self._names = references, graph.strings.get_many(references)
        return rows, self._names


def find(graph: LinkGraph, kind: SymbolKind, name: str) -> Symbol | None:
    """The first symbol of one kind that has this name; non-local ones take precedence."""
    rows = rows_named(graph, kind, name)
    if len(rows) == 0:
        return None
    local = graph.symbol_table.scope[rows] == Scope.LOCAL
    return Symbol(graph, int(rows[np.argmin(local)]))


def check_unique(graph: LinkGraph, kind: SymbolKind, name: str) -> None:
    """Check that a symbol that is not local can have that name.

    Raises:
        GraphError: another symbol of that kind has it and is not local.
    """
    rows = rows_named(graph, kind, name)
    if (graph.symbol_table.scope[rows] != Scope.LOCAL).any():
        raise GraphError(f"{kind.name.lower()} symbol {name} exists already")


def check_owner(graph: LinkGraph, symbol: Symbol) -> None:
    """Check that a symbol is one of the graph's.

    Raises:
        GraphError: it is another graph's, or has been removed.
    """
    if symbol.graph is not graph:
        raise GraphError(f"symbol {symbol.label} belongs to another graph")
    if graph.symbol_table.kind[symbol.row] == SymbolKind.REMOVED:
        raise GraphError(f"symbol {symbol.label} has been removed")


def check_place(block: Block, offset: int, size: int = 0) -> None:
    """Check that a symbol of that size fits at that offset of a block.

    Raises:
        GraphError: it would lie outside the block.
    """
    if not 0 <= offset <= block.size:
        raise GraphError(f"symbol offset {offset:#x} lies outside its block")
    if not 0 <= size <= block.size - offset:
        raise GraphError(f"a symbol of size {size:#x} extends past the end of its block")


def check_new(
    graph: LinkGraph, kind: SymbolKind, name: str, linkage: Linkage, scope: Scope
) -> None:
    """Check that a symbol can be added.

    Raises:
        GraphError: it would break one of the rules above.
    """
    check_linkage(kind, name, linkage)
    check_scope(kind, name, scope)
    if scope != Scope.LOCAL:
        check_unique(graph, kind, name)


def add(
    graph: LinkGraph,
    kind: SymbolKind,
    name: str,
    *,
    block: int = NO_BLOCK,
    value: int = 0,
    size: int = 0,
    linkage: Linkage = Linkage.STRONG,
    scope: Scope = Scope.DEFAULT,
    flags: SymbolFlags = _NO_FLAGS,
) -> Symbol:
    """Add a symbol of any kind."""
    check_new(graph, kind, name, linkage, scope)
    if not 0 <= size <= ADDRESS_MASK:
        raise GraphError(f"symbol size {size:#x} is not an unsigned 64-bit number")
    row = graph.symbol_table.extend(
        1,
        kind=kind,
        name=graph.strings.add(name) if name else NO_NAME,
        block=block,
        value=value & ADDRESS_MASK,
        size=size,
        linkage=linkage,
        scope=scope,
        flags=flags,
    )
    return Symbol(graph, row)


def externalize(graph: LinkGraph, rows: Int64Array) -> None:
    """Turn definitions into strong references, whatever other symbols the graph has.

    Args:
        graph: the graph.
        rows: rows (int64) of defined or absolute symbols that have names.
    """
    table = graph.symbol_table
    defined = rows[table.kind[rows] == int(SymbolKind.DEFINED)]
    table.flags[defined] &= _NOT_LIVE
    table.kind[rows] = int(SymbolKind.EXTERNAL)
    table.block[rows] = NO_BLOCK
    table.value[rows] = 0
    table.scope[rows] = int(Scope.DEFAULT)
    table.flags[rows] &= _NOT_OF_DEFINITIONS


def make_external(graph: LinkGraph, symbol: Symbol) -> None:
    """Turn a defined or absolute symbol into an external one."""
    check_owner(graph, symbol)
    if symbol.is_external:
        raise GraphError(f"symbol {symbol.name} is external already")
    if not symbol.has_name:
        raise GraphError("an external symbol needs a name")
    check_unique(graph, SymbolKind.EXTERNAL, symbol.name)
    externalize(graph, np.array([symbol.row]))


def make_absolute(graph: LinkGraph, symbol: Symbol, address: int) -> None:
    """Turn a defined or external symbol into an absolute one."""
    check_owner(graph, symbol)
    if symbol.is_absolute:
        raise GraphError(f"symbol {symbol.label} is absolute already")
    was_external = symbol.is_external
    _retarget(symbol, SymbolKind.ABSOLUTE, NO_BLOCK, address & ADDRESS_MASK)
    if was_external:
        symbol.scope = Scope.LOCAL


def make_defined(
    graph: LinkGraph,
    symbol: Symbol,
    block: Block,
    offset: int,
    size: int,
    linkage: Linkage,
    scope: Scope,
) -> None:
    """Turn an external or absolute symbol into a defined one."""
    check_owner(graph, symbol)
    if symbol.is_defined:
        raise GraphError(f"symbol {symbol.label} is defined already")
    check_place(block, offset, size)
    check_linkage(SymbolKind.DEFINED, symbol.name, linkage)
    check_scope(SymbolKind.DEFINED, symbol.name, scope)
    _retarget(symbol, SymbolKind.DEFINED, block.row, offset)
    symbol.size = size
    symbol.linkage = linkage
    symbol.scope = scope


def transfer(graph: LinkGraph, symbol: Symbol, block: Block, offset: int, size: int | None) -> None:
    """Point a defined symbol to another offset or block."""
    check_owner(graph, symbol)
    if not symbol.is_defined:
        raise GraphError(f"symbol {symbol.label} is not defined in this graph")
    check_place(block, offset, size or 0)
    if size is None:
        size = min(symbol.size, block.size - offset)
    _retarget(symbol, SymbolKind.DEFINED, block.row, offset)
    symbol.size = size


def _retarget(symbol: Symbol, kind: SymbolKind, block: int, value: int) -> None:
    table = symbol.graph.symbol_table
    table.kind[symbol.row] = kind
    table.block[symbol.row] = block
    table.value[symbol.row] = value
    if kind != SymbolKind.DEFINED:
        symbol.flags &= ~_DEFINITION_FLAGS


def remove(graph: LinkGraph, symbol: Symbol, kind: SymbolKind) -> None:
    """Remove a symbol of that kind to which no edge refers."""
    check_owner(graph, symbol)
    table, edges = graph.symbol_table, graph.edge_table
    if table.kind[symbol.row] != kind:
        raise GraphError(f"symbol {symbol.label} is not {kind.name.lower()}")
    if ((edges.target == symbol.row) & (edges.kind != 0)).any():
        raise GraphError(f"an edge still refers to symbol {symbol.label}")
    table.kind[symbol.row] = SymbolKind.REMOVED
