"""Dead-stripping: mark what is reachable from live symbols, remove the rest.

Liveness spreads from a live symbol to its block and along the block's edges to their targets.
Wide waves are computed over whole columns. A long thin chain of calls would need one wave per
call, so narrow waves go block by block instead, with set operations on each block's
neighbours; both are linear in blocks and edges.
"""

from __future__ import annotations

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

# Plain numbers: NumPy takes them faster than members of an enumeration.
_SYMBOL_LIVE, _BLOCK_LIVE, _REMOVED_BLOCK = (
    int(SymbolFlags.LIVE), int(BlockFlags.LIVE), int(BlockFlags.REMOVED))  # fmt: skip
_NO_ALLOC = int(MemLifetime.NO_ALLOC)
_NARROW = 48
"""Waves of fewer blocks, or edges, than this are cheaper one block at a time."""
_FEW_STEPS = 4


def mark_exported_live(graph: LinkGraph) -> None:
    """Mark every definition that others can refer to by name as live.

    A weak definition counts too: nobody has overridden it, or it would not be here.
    """
    table = graph.symbol_table
    table.flags[exported_rows(table)] |= _SYMBOL_LIVE


def prune(graph: LinkGraph) -> None:
    """Remove symbols, blocks and edges that no live symbol reaches.

    Blocks that carry the LIVE flag are roots like live symbols. Rows of blocks and symbols
    stay where they are; edges are compacted, so `Edge` views made before are void.

    Raises:
        ObjectError: what is loaded refers to a place that is not: in a NO_ALLOC section, or in
            a block that was discarded with its COMDAT group.
    """
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
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


def _check_references(graph: LinkGraph, referenced: BoolArray) -> None:
    """Refuse edges of loaded blocks to symbols that have no place in memory."""
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
            file=graph.origins[blocks.origin[block]] if graph.origins else graph.name,
        )


def _live_blocks(graph: LinkGraph) -> BoolArray:
    """Mask (bool, one per block row) of the blocks that live symbols reach."""
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    present: BoolArray = (blocks.flags & _REMOVED_BLOCK) == 0
    live: BoolArray = present & ((blocks.flags & _BLOCK_LIVE) != 0)
    defined = symbols.kind == DEFINED
    live[symbols.block[defined & ((symbols.flags & _SYMBOL_LIVE) != 0)]] = True
    order, sorted_blocks = edges.by_block()
    target_block = np.where(defined, symbols.block, -1)
    neighbours = target_block[edges.target[order]]
    neighbours[edges.kind[order] == 0] = -1
    starts = sorted_blocks.searchsorted(np.arange(blocks.rows + 1))
    spread(neighbours, starts, live)
    live &= present
    return live


def spread(neighbours: Int64Array, starts: Int64Array, live: BoolArray) -> None:
    """Let liveness spread along edges until nothing new is reached.

    Args:
        neighbours: where the edges of all nodes lead to, grouped by node; -1 for nowhere.
        starts: where the group of each node begins, and the end of the last (int64).
        live: mask (bool, one per node) of what is live; completed in place.
    """
    _Wave(neighbours, starts, live).run()


class _Wave:
    """Liveness on its way from block to block.

    Attributes:
        neighbours: block rows that edges lead to, grouped by the edges' blocks; -1 for none.
        starts: where the group of each block begins.
        live: mask (bool) of the blocks reached so far; the result.
    """

    def __init__(self, neighbours: Int64Array, starts: Int64Array, live: BoolArray) -> None:
        self.neighbours = neighbours
        self.starts = starts
        self.live = live
        self._seen: set[int] | None = None
        self._number = np.empty(len(live), np.int64)

    def run(self) -> None:
        """Spread until nothing new is reached."""
        front = rows_where(self.live)
        steps = 0
        while len(front):
            steps += 1
            # The first few steps are cheap either way, and most graphs need no more.
            narrow = steps > _FEW_STEPS and len(front) < _NARROW and not self._is_wide(front)
            front = self._creep(front) if narrow else self._spread(front)

    def _is_wide(self, front: Int64Array) -> bool:
        """Whether a block of the front has many edges."""
        return int((self.starts[front + 1] - self.starts[front]).max()) >= _NARROW

    def _spread(self, front: Int64Array) -> Int64Array:
        """One step of a wide front; returns the blocks that it reached first."""
        first = self.starts[front]
        reached = self.neighbours[ragged_arange(first, self.starts[front + 1] - first)]
        reached = reached[reached >= 0]
        reached = reached[~self.live[reached]]
        # Of several edges to a block one counts, whichever was written last. No step of a wave
        # looks at all blocks: there may be as many waves as blocks.
        numbers = np.arange(len(reached))
        self._number[reached] = numbers
        fresh: Int64Array = reached[self._number[reached] == numbers]
        self.live[fresh] = True
        if self._seen is not None:
            self._seen.update(fresh.tolist())
        return fresh

    def _creep(self, front: Int64Array) -> Int64Array:
        """Many steps of a narrow front, until it ends, widens or meets a block of many edges."""
        if self._seen is None:
            self._seen = {-1, *rows_where(self.live).tolist()}
        seen, neighbours, starts = self._seen, self.neighbours, self.starts
        pending: list[int] = front.tolist()
        reached: list[int] = []
        while pending and len(pending) < _NARROW:
            block = pending.pop()
            first, last = starts[block], starts[block + 1]
            if last - first >= _NARROW:
                pending.append(block)
                break
            fresh = set(neighbours[first:last].tolist()) - seen
            if fresh:
                seen |= fresh
                pending += fresh
                reached += fresh
        self.live[reached] = True
        return np.array(pending, np.int64)
