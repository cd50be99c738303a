"""Errors about edges: what a message says of an edge's place and target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from jitlink.errors import FailedTarget, FixupError
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.elements import Block, Symbol
from jitlink.graph.link_graph import LinkGraph
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED, REMOVED, MemProt

_MOST_PLACES = 21
"""For how many targets places are looked up: those that a message has."""
_LABEL_PREFIXES = ("$", ".L")
"""How the names of mapping symbols and of labels of compilers begin."""


def fail(
    graph: LinkGraph,
    rows: Int64Array,
    reason: str,
    error: type[FixupError] = FixupError,
    value: int = 0,
    also: Sequence[Int64Array] = (),
    **attributes: int,
) -> NoReturn:
    """Raise an error about the first of some edges.

    Args:
        graph: the graph.
        rows: rows of all edges that fail in this way.
        reason: what is wrong, as a predicate whose subject is the edge.
        error: class of the error.
        value: the value that the edge would have stored.
        also: rows of edges that fail in other ways.
        **attributes: further attributes of the error.
    """
    edges, row = graph.edge_table, int(rows[0])
    block, offset = Block(graph, int(edges.block[row])), int(edges.offset[row])
    place = _place(graph, row)
    failure = error(
        reason,
        graph=graph.name,
        object=place.object,
        section=place.section,
        within=place.within,
        block_address=block.address,
        offset=offset,
        kind=str(graph.edge_kinds(int(edges.kind[row]))),
        target=place.target,
        value=value,
        targets=_targets(graph, np.concatenate([rows, *also])),
    )
    for name, number in attributes.items():
        setattr(failure, name, number)
    raise failure


def _targets(graph: LinkGraph, rows: Int64Array) -> list[FailedTarget]:
    """The targets of edges, in order of the first edge of each; only the first ones have places."""
    _, first, counts = np.unique(
        graph.edge_table.target[rows], return_index=True, return_counts=True
    )
    order = np.argsort(first)
    targets: list[FailedTarget] = []
    for position, count in zip(first[order].tolist(), counts[order].tolist(), strict=True):
        row = int(rows[position])
        if len(targets) < _MOST_PLACES:
            target = _place(graph, row)
            target.count = count
            targets.append(target)
        else:
            name = describe(Symbol(graph, int(graph.edge_table.target[row])))
            targets.append(FailedTarget(name, count=count))
    return targets


def _place(graph: LinkGraph, row: int) -> FailedTarget:
    """The target of an edge, and where the edge is."""
    edges = graph.edge_table
    block, offset = Block(graph, int(edges.block[row])), int(edges.offset[row])
    around = enclosing_symbol(block, offset)
    origin = int(graph.block_table.origin[block.row])
    return FailedTarget(
        target=describe(Symbol(graph, int(edges.target[row]))),
        object=graph.origins[origin] if 0 <= origin < len(graph.origins) else "",
        section=block.section.name,
        within="" if around is None else f"{_kind(around)} {around.name}",
    )


def describe(symbol: Symbol) -> str:
    """A symbol's name; its section and offset, or its address, if it has none."""
    if symbol.has_name:
        return symbol.name
    if symbol.is_defined:
        return f"{symbol.section.name}+{symbol.offset:#x}"
    return f"address {symbol.address:#x}"


def enclosing_symbol(block: Block, offset: int) -> Symbol | None:
    """The named symbol whose extent covers an offset of a block.

    Of several it is the one that starts last; if none has such a size, it is the last one before
    the offset whose size is unknown (zero), as that of a label in assembly usually is.
    """
    graph, table = block.graph, block.graph.symbol_table
    # Symbols that no edge refers to have been removed, but still say what is in their block.
    is_defined = (table.kind == DEFINED) | (table.kind == REMOVED)
    rows = rows_where(is_defined & (table.block == block.row) & (table.name != NO_NAME))
    start, size = table.value[rows].view(np.int64), table.size[rows].view(np.int64)
    covers, has_no_size = start + size > offset, size == 0
    for mask in (covers, has_no_size):
        chosen = mask & (start <= offset)
        for row in rows[chosen][np.argsort(-start[chosen], kind="stable")].tolist():
            symbol = Symbol(graph, row)
            if not symbol.name.startswith(_LABEL_PREFIXES):
                return symbol
    return None


def _kind(symbol: Symbol) -> str:
    if not symbol.size:
        return "label"
    is_code = symbol.is_callable or symbol.section.mem_prot & MemProt.EXEC
    return "function" if is_code else "variable"
