"""Dead-stripping: mark what is reachable from live symbols, remove the rest.

A live symbol makes its block live, and a live block the targets of its edges. The traversal is
breadth-first, over whole columns, while the frontier is large. A long chain of calls would take
one step for each call, so a small frontier is traversed block by block, with set operations on the
blocks' neighbours. Both are linear in blocks and edges.

A graph of few rows is pruned row by row instead: an array operation takes as long as several rows.
"""

from __future__ import annotations

from itertools import compress

import numpy as np

from jitlink.errors import ObjectError
from jitlink.graph import (
    BlockFlags,
    LinkGraph,
    MemLifetime,
    Symbol,
    SymbolFlags,
)
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.edges import FIRST_RELOCATION
from jitlink.graph.tables import DEFINED, EXTERNAL, REMOVED, exported_rows

# Plain integers: NumPy converts them faster than members of an enumeration.
_SYMBOL_LIVE, _BLOCK_LIVE, _REMOVED_BLOCK = (
    int(SymbolFlags.LIVE), int(BlockFlags.LIVE), int(BlockFlags.REMOVED))  # fmt: skip
_PRESENCE = _BLOCK_LIVE | _REMOVED_BLOCK
_NO_ALLOC = int(MemLifetime.NO_ALLOC)
_SMALL = 48
"""Frontiers of fewer blocks, or edges of a block, than this are cheaper block by block."""
_FEW_STEPS = 4
_FEW_ROWS = 100
"""How many rows the tables of a graph may have in all that is pruned row by row."""


def mark_exported_live(graph: LinkGraph) -> None:
    """Mark every definition that other graphs can refer to by name as live.

    That includes weak definitions: overridden ones have been removed from the graph before.
    """
    table = graph.symbol_table
    table.flags[exported_rows(table)] |= _SYMBOL_LIVE


def prune(graph: LinkGraph) -> None:
    """Remove symbols, blocks and edges that no live symbol reaches.

    Blocks with the LIVE flag are roots, as live symbols are. Rows of blocks and symbols do not
    change; edges are compacted, which invalidates existing `Edge` views.

    Raises:
        ObjectError: a loaded block refers to a symbol that has no address: in a NO_ALLOC section,
            or in a block that was discarded with its COMDAT group.
    """
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    if blocks.rows + symbols.rows + edges.rows <= _FEW_ROWS and _prune_few(graph):
        return
    live = _live_blocks(graph)
    edges.keep(live[edges.block] & (edges.kind != 0))
    referenced = np.zeros(symbols.rows, np.bool_)
    referenced[edges.target] = True
    _check_references(graph, referenced)
    flags = symbols.flags & _SYMBOL_LIVE != 0
    referenced |= flags & (symbols.kind != EXTERNAL)
    symbols.kind[~referenced] = REMOVED
    symbols.flags[referenced] |= _SYMBOL_LIVE
    blocks.flags[~live] |= _REMOVED_BLOCK


def _prune_few(graph: LinkGraph) -> bool:
    """`prune`, row by row; False if nothing was done, because a reference is to be checked."""
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    kinds, in_block = symbols.kind.tolist(), symbols.block.tolist()
    live, targets = _few_live_blocks(graph), edges.target.tolist()
    columns = (edges.block.tolist(), edges.kind.tolist())
    kept = [kind != 0 and block in live for block, kind in zip(*columns, strict=True)]
    referenced = set(compress(targets, kept))
    lifetimes, section = graph.section_lifetimes().tolist(), blocks.section.tolist()
    for target in referenced:
        is_inside = kinds[target] == DEFINED
        if kinds[target] == REMOVED or (
            is_inside and lifetimes[section[in_block[target]]] == _NO_ALLOC
        ):
            return False
    if not all(kept):
        edges.keep(np.array(kept, np.bool_))
    flags = symbols.flags.tolist()
    for row, kind in enumerate(kinds):
        if row in referenced or (flags[row] & _SYMBOL_LIVE and kind != EXTERNAL):
            flags[row] |= _SYMBOL_LIVE
        else:
            kinds[row] = REMOVED
    symbols.kind[:], symbols.flags[:] = kinds, flags
    flags = blocks.flags.tolist()
    blocks.flags[:] = [
        each if row in live else each | _REMOVED_BLOCK for row, each in enumerate(flags)
    ]
    return True


def few_marked_blocks(graph: LinkGraph) -> list[int]:
    """`marked_blocks` as rows, found row by row; some may be there more than once."""
    symbols = graph.symbol_table
    columns = (symbols.kind.tolist(), symbols.flags.tolist(), symbols.block.tolist())
    flags = graph.block_table.flags.tolist()
    marked = [row for row, each in enumerate(flags) if each & _PRESENCE == _BLOCK_LIVE]
    return marked + [
        block
        for kind, each, block in zip(*columns, strict=True)
        if kind == DEFINED and each & _SYMBOL_LIVE
    ]


def _few_live_blocks(graph: LinkGraph) -> set[int]:
    """Rows of the blocks that live symbols reach, found row by row."""
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    kinds, in_block, flags = symbols.kind.tolist(), symbols.block.tolist(), blocks.flags.tolist()
    neighbours: dict[int, list[int]] = {}
    columns = (edges.block.tolist(), edges.kind.tolist(), edges.target.tolist())
    for block, kind, target in zip(*columns, strict=True):
        if kind and kinds[target] == DEFINED:
            neighbours.setdefault(block, []).append(in_block[target])
    pending = few_marked_blocks(graph)
    reached: set[int] = set()
    while pending:
        block = pending.pop()
        if block not in reached:
            reached.add(block)
            pending += neighbours.get(block, ())
    return {row for row in reached if not flags[row] & _REMOVED_BLOCK}


def _check_references(graph: LinkGraph, referenced: BoolArray) -> None:
    """Refuse edges of loaded blocks to symbols that have no address."""
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    absent = symbols.kind == REMOVED
    unloaded = graph.section_lifetimes() == _NO_ALLOC
    if unloaded.any():
        absent |= (symbols.kind == DEFINED) & unloaded[blocks.section[symbols.block]]
    absent &= referenced
    if not absent.any():
        return
    rows = rows_where(absent[edges.target] & (edges.kind >= FIRST_RELOCATION))
    rows = rows[~unloaded[blocks.section[edges.block[rows]]]]
    if len(rows):
        block, target = int(edges.block[rows[0]]), Symbol(graph, int(edges.target[rows[0]]))
        place = int(edges.offset[rows[0]])
        where = f"section {graph.section_list.names[int(blocks.section[block])]}+{place:#x}"
        removed = symbols.kind[target.row] == REMOVED
        why = "that was discarded" if removed else "that is not loaded"
        raise ObjectError(
            f"{where}: refers to {target.label}, in a section {why}",
            file=graph.origin_name(block),
        )


def marked_blocks(graph: LinkGraph) -> BoolArray:
    """Mask (bool, one per block row) of the blocks that dead-stripping starts from."""
    blocks, symbols = graph.block_table, graph.symbol_table
    marked: BoolArray = (blocks.flags & _PRESENCE) == _BLOCK_LIVE
    is_live = (symbols.kind == DEFINED) & ((symbols.flags & _SYMBOL_LIVE) != 0)
    marked[symbols.block[is_live]] = True
    return marked


def _live_blocks(graph: LinkGraph) -> BoolArray:
    """Mask (bool, one per block row) of the blocks that live symbols reach."""
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    live, defined = marked_blocks(graph), symbols.kind == DEFINED
    order, sorted_blocks = edges.by_block()
    target_block = np.where(defined, symbols.block, -1)
    neighbours = target_block[edges.target[order]]
    neighbours[edges.kind[order] == 0] = -1
    starts = sorted_blocks.searchsorted(np.arange(blocks.rows + 1))
    mark_reachable(neighbours, starts, live)
    live &= (blocks.flags & _REMOVED_BLOCK) == 0
    return live


def mark_reachable(neighbours: Int64Array, starts: Int64Array, live: BoolArray) -> None:
    """Mark all nodes of a directed graph that live nodes reach.

    Args:
        neighbours: target nodes of the edges, grouped by source node; -1 for an edge without one
            (int64).
        starts: index of the first edge of each node, and the number of edges (int64).
        live: mask (bool, one per node) of the live nodes; completed in place.
    """
    _Traversal(neighbours, starts, live).run()


class _Traversal:
    """Traversal of the block graph from the live blocks.

    Attributes:
        neighbours: target block rows of edges, grouped by the edges' blocks; -1 for none.
        starts: index of the first edge of each block, and the number of edges.
        live: mask (bool) of the blocks reached so far; the result.
    """

    def __init__(self, neighbours: Int64Array, starts: Int64Array, live: BoolArray) -> None:
        self.neighbours = neighbours
        self.starts = starts
        self.live = live
        self._seen: set[int] | None = None
        self._number = np.empty(len(live), np.int64)

    def run(self) -> None:
        """Traverse until no further block is reached."""
        frontier = rows_where(self.live)
        steps = 0
        while len(frontier):
            steps += 1
            # The first few steps are cheap either way, and most graphs need no more.
            is_small = steps > _FEW_STEPS and len(frontier) < _SMALL
            is_small = is_small and not self._has_many_edges(frontier)
            frontier = self._walk(frontier) if is_small else self._expand(frontier)

    def _has_many_edges(self, frontier: Int64Array) -> bool:
        """Whether a block of the frontier has many edges."""
        return int((self.starts[frontier + 1] - self.starts[frontier]).max()) >= _SMALL

    def _expand(self, frontier: Int64Array) -> Int64Array:
        """One breadth-first step; returns the next frontier."""
        first = self.starts[frontier]
        reached = self.neighbours[ragged_arange(first, self.starts[frontier + 1] - first)]
        reached = reached[reached >= 0]
        reached = reached[~self.live[reached]]
        # Of several edges to a block the last one counts. No step may look at all blocks: there
        # may be as many steps as blocks.
        numbers = np.arange(len(reached))
        self._number[reached] = numbers
        fresh: Int64Array = reached[self._number[reached] == numbers]
        self.live[fresh] = True
        if self._seen is not None:
            self._seen.update(fresh.tolist())
        return fresh

    def _walk(self, frontier: Int64Array) -> Int64Array:
        """Go on block by block while the frontier is small and its blocks have few edges."""
        if self._seen is None:
            self._seen = {-1, *rows_where(self.live).tolist()}
        seen, neighbours, starts = self._seen, self.neighbours, self.starts
        pending: list[int] = frontier.tolist()
        reached: list[int] = []
        while pending and len(pending) < _SMALL:
            block = pending.pop()
            first, last = starts[block], starts[block + 1]
            if last - first >= _SMALL:
                pending.append(block)
                break
            fresh = set(neighbours[first:last].tolist()) - seen
            if fresh:
                seen |= fresh
                pending += fresh
                reached += fresh
        self.live[reached] = True
        return np.array(pending, np.int64)
