"""What the symbols of a linked graph really reach outside it, computed from the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import LinkGraph, SymbolKind
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.orc.materialization import SymbolDependenceGroup
from jitlink.orc.objects import Exported

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition


def dependence_groups(
    graph: LinkGraph,
    exported: Exported,
    unready: Mapping[str, Definition],
) -> list[SymbolDependenceGroup]:
    """Group the symbols of a graph by what they reach.

    Args:
        graph: the graph, linked.
        exported: the symbols to be grouped.
        unready: external symbols that are not ready, with what defines them.
    """
    table = graph.symbol_table
    externals = rows_where(table.kind == int(SymbolKind.EXTERNAL))
    names = graph.strings.get_many(table.name[externals])
    numbered = enumerate(zip(externals.tolist(), names, strict=True))
    bit_of = {row: number for number, (row, name) in numbered if name in unready}
    reached = _reached_by_block(graph, bit_of)
    rows = exported.rows
    blocks = np.where(table.kind[rows] == int(SymbolKind.DEFINED), table.block[rows], -1)
    by_set: dict[int, set[str]] = {}
    for name, block in zip(exported.names, blocks.tolist(), strict=True):
        bits = reached.get(block, 0)
        if bits:
            by_set.setdefault(bits, set()).add(name)
    groups = []
    for bits, symbols in by_set.items():
        group = SymbolDependenceGroup(symbols)
        for number in bit_of.values():
            if bits >> number & 1:
                name = names[number]
                group.dependencies.setdefault(unready[name].dylib, set()).add(name)
        groups.append(group)
    return groups


def _reached_by_block(graph: LinkGraph, bit_of: Mapping[int, int]) -> dict[int, int]:
    """For each block that reaches one of some external symbols, which, as bits of a number."""
    starts, users = _adjacency(graph)
    edges = graph.edge_table
    direct: dict[int, int] = {}
    chosen = np.zeros(graph.symbol_table.rows, np.bool_)
    chosen[list(bit_of)] = True
    for row in rows_where(chosen[edges.target]).tolist():
        block = int(edges.block[row])
        direct[block] = direct.get(block, 0) | 1 << bit_of[int(edges.target[row])]
    # Sets of bits grow along edges backwards until nothing changes.
    reached = dict(direct)
    pending = list(direct)
    while pending:
        block = pending.pop()
        bits = reached[block]
        for user in set(users[starts[block] : starts[block + 1]].tolist()):
            held = reached.get(user, 0)
            if bits & ~held:
                reached[user] = held | bits
                pending.append(user)
    return reached


def _adjacency(graph: LinkGraph) -> tuple[Int64Array, Int64Array]:
    """For each block, the blocks whose edges lead to it."""
    edges, symbols = graph.edge_table, graph.symbol_table
    defined = symbols.kind == int(SymbolKind.DEFINED)
    target = np.where(defined, symbols.block, -1)[edges.target]
    inner = rows_where((target >= 0) & (edges.kind != 0))
    order = inner[np.argsort(target[inner], kind="stable")]
    starts = target[order].searchsorted(np.arange(graph.block_table.rows + 1))
    return starts, edges.block[order]
