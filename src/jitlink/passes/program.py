"""The objects that a program needs: those reached from where it starts, and no others.

A program is linked from its entry point: an object that nothing leads to is left out, with all
its definitions and with whatever it would have needed. An object that something leads to is
linked with all its exported symbols, used or not, like a library. Within it dead code leads
nowhere.
"""

from __future__ import annotations

import numpy as np

from jitlink.graph import BlockFlags, LinkGraph, Scope, SymbolFlags
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED
from jitlink.passes.prune import spread


def mark_program_live(graph: LinkGraph, roots: Int64Array) -> None:
    """Mark the exported symbols of all objects that are reached from some symbols as live.

    Blocks that are live by themselves lose that if their object is not reached.

    Args:
        graph: a graph of one or more objects.
        roots: rows (int64) of the symbols that reaching starts from.
    """
    table, blocks = graph.symbol_table, graph.block_table
    exported = (table.kind == DEFINED) | (table.kind == ABSOLUTE)
    exported &= (table.scope != Scope.LOCAL) & (table.name != NO_NAME)
    if len(graph.origins) > 1 and blocks.rows:
        left_out = _left_out_blocks(graph, rows_where(exported), roots)
        exported &= (table.kind == ABSOLUTE) | ~left_out[table.block]
        blocks.flags[left_out] &= ~np.uint8(BlockFlags.LIVE)
    exported[roots] = True
    table.flags[exported] |= np.uint8(SymbolFlags.LIVE)


def _left_out_blocks(graph: LinkGraph, exported: Int64Array, roots: Int64Array) -> BoolArray:
    """Mask (bool, one per block row) of the blocks of objects that are not reached.

    Reaching is a walk over blocks and objects: a block leads to its edges' targets and to its
    object, an object to its exported symbols and to the blocks that are live by themselves.
    """
    table, blocks, edges = graph.symbol_table, graph.block_table, graph.edge_table
    objects = len(graph.origins)
    has_object = (blocks.origin >= 0) & (blocks.origin < objects)
    owner = np.where(has_object, blocks.rows + blocks.origin, -1)
    edge_rows = rows_where((edges.kind != 0) & (table.kind[edges.target] == DEFINED))
    roots = roots[table.kind[roots] == DEFINED]
    exported = table.block[exported[table.kind[exported] == DEFINED]]
    kept = rows_where(blocks.flags & BlockFlags.LIVE != 0)
    of_objects = np.concatenate((exported, kept))
    of_objects = of_objects[has_object[of_objects]]
    sources = np.concatenate((edges.block[edge_rows], np.arange(blocks.rows), owner[of_objects]))
    targets = np.concatenate((table.block[edges.target[edge_rows]], owner, of_objects))
    order = np.argsort(sources, kind="stable")
    nodes = blocks.rows + objects
    live = np.zeros(nodes, np.bool_)
    live[table.block[roots]] = True
    spread(targets[order].astype(np.int32), sources[order].searchsorted(np.arange(nodes + 1)), live)
    # What the linker has added belongs to no object: it stays if something leads to it.
    left_out: BoolArray = ~(has_object & live[owner])
    return left_out
