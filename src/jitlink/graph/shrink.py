"""Removing bytes from blocks, and adjusting symbols, sizes, edges and addends accordingly.

A `Shrinkage` is a plan: a list of *sites*, each the end offset of a range in a block, and the
number of bytes to remove before that end. The counts may be changed any number of times; `moved`
computes from them the new offset of any location, at the cost of a cumulative sum. `apply`
carries out the plan.

A location inside a removed range moves to the start of that range; a location at the end of a
range stays with the bytes after it. A symbol with a positive addend denotes the location that
far past the symbol, so the addend shrinks by the bytes that are removed in between; a negative
addend, as in ``end - 1``, is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import LinkGraph
from jitlink.graph.tables import DEFINED


class Places(NamedTuple):
    """Locations in blocks, prepared by `Shrinkage.locate`; the fields are internal to it."""

    offsets: Int64Array
    sites: Int64Array
    first: Int64Array
    near: Int64Array
    following: Int64Array
    to_end: Int64Array


def impossible_sites(
    graph: LinkGraph, blocks: Int64Array, ends: Int64Array, limits: Int64Array
) -> BoolArray:
    """Mask (bool) of sites outside their block, in zero-fill, or that overlap the one before.

    The arguments are those of `Shrinkage`.
    """
    table = graph.block_table
    bad: BoolArray = (ends > table.size[blocks]) | (table.content[blocks] == ZERO_FILL)
    before = np.zeros(len(blocks), np.int64)
    before[1:] = np.where(blocks[1:] == blocks[:-1], ends[:-1], 0)
    bad |= (limits < 0) | (ends - limits < before)
    return bad


class Shrinkage:
    """A plan of which bytes to remove from which blocks.

    Args:
        graph: its blocks, symbols and edges must not change until the plan is carried out.
        blocks: block row of each site (int64, ascending).
        ends: offset of the end of each site (int64, ascending in each block).
        limits: how many bytes before its end may be removed at each site (int64).

    Raises:
        GraphError: a site lies outside its block, in zero-fill, or overlaps another one.

    Attributes:
        blocks: as given.
        ends: as given.
        counts: bytes to remove at each site (int64), initially 0; to be written to.
    """

    def __init__(
        self, graph: LinkGraph, blocks: Int64Array, ends: Int64Array, limits: Int64Array
    ) -> None:
        table = graph.block_table
        self.graph, self.blocks, self.ends, self._limits = graph, blocks, ends, limits
        self.counts = np.zeros(len(blocks), np.int64)
        bad = impossible_sites(graph, blocks, ends, limits)
        if bad.any():
            row = int(rows_where(bad)[0])
            raise GraphError(
                f"{int(limits[row])} bytes cannot be removed from block {int(blocks[row])} "
                f"before offset {int(ends[row]):#x}"
            )
        # The blocks are put end to end on one line, one byte apart, so that a location at the
        # end of one is distinct from the beginning of the next.
        first = np.append(True, blocks[1:] != blocks[:-1])[: len(blocks)]
        self.block_rows = blocks[first]
        self._sizes: Int64Array = table.size[self.block_rows]
        spans = self._sizes + 1
        self._position = np.full(table.rows, -1, np.int64)
        self._position[self.block_rows] = np.cumsum(spans) - spans
        self._first = np.zeros(table.rows, np.int64)
        self._first[self.block_rows] = rows_where(first)
        self._line = self._position[blocks] + ends

    def locate(self, blocks: Int64Array, offsets: Int64Array) -> Places:
        """Prepare locations for `moved`; valid for any counts.

        Args:
            blocks: block rows (int64).
            offsets: offsets in them (int64).
        """
        inside = self._position[blocks] >= 0
        line = self._position[blocks] + offsets
        sites = np.where(inside, self._line.searchsorted(line, side="right"), 0)
        following = np.minimum(sites, len(self.blocks) - 1)
        # Whether a location in the last bytes of a range is removed depends on the count.
        near = inside & (sites < len(self.blocks)) & (self.blocks[following] == blocks)
        near &= self.ends[following] - self._limits[following] < offsets
        rows = rows_where(near)
        to_end = self.ends[following[rows]] - offsets[rows]
        first = np.where(inside, self._first[blocks], 0)
        return Places(offsets, sites, first, rows, following[rows], to_end)

    def moved(self, places: Places) -> Int64Array:
        """Offsets (int64) that the locations have after the removal."""
        total = np.zeros(len(self.counts) + 1, np.int64)
        np.cumsum(self.counts, out=total[1:])
        result = places.offsets - (total[places.sites] - total[places.first])
        if len(places.near):
            partly = self.counts[places.following] - places.to_end
            result[places.near] -= np.maximum(partly, 0)
        return result

    def new_sizes(self) -> Int64Array:
        """Sizes (int64) that the blocks in `block_rows` have after the removal."""
        if len(self.blocks) == 0:
            return self._sizes
        sizes: Int64Array = self._sizes - np.add.reduceat(self.counts, self._first[self.block_rows])
        return sizes

    def apply(self, counts_from_target: BoolArray) -> None:
        """Remove the bytes; the blocks get writable contents of their own.

        Args:
            counts_from_target: by edge kind (bool), whether the addend counts from the target.
        """
        if len(self.blocks) == 0:
            return
        edges, table = self.graph.edge_table, self.graph.block_table
        keep = np.ones(int(self._position[self.block_rows[-1]] + self._sizes[-1]) + 2, np.bool_)
        keep[ragged_arange(self._line - self.counts, self.counts)] = False
        # For each position on the line, how many bytes before it are left.
        self._left = np.zeros(len(keep), np.int64)
        np.cumsum(keep[:-1], out=self._left[1:])
        self._move_addends(counts_from_target)
        self._move_symbols()
        rows = rows_where(self._position[edges.block] >= 0)
        edges.offset[rows] = self._final(edges.block[rows], edges.offset[rows])
        sizes = self.new_sizes()
        table.content[self.block_rows] = self._shrink_contents(keep, sizes)
        table.size[self.block_rows] = sizes

    def _final(self, blocks: Int64Array, offsets: Int64Array) -> Int64Array:
        """New offsets (int64), as from `moved`, of locations in blocks that have sites."""
        position = self._position[blocks]
        result: Int64Array = self._left[position + offsets] - self._left[position]
        return result

    def _old_sizes(self) -> Int64Array:
        """Sizes that blocks with sites had, by block row; 0 for others."""
        sizes = np.zeros(self.graph.block_table.rows, np.int64)
        sizes[self.block_rows] = self._sizes
        return sizes

    def _move_addends(self, counts_from_target: BoolArray) -> None:
        edges, symbols = self.graph.edge_table, self.graph.symbol_table
        rows = rows_where((edges.addend > 0) & counts_from_target[edges.kind])
        target = edges.target[rows]
        chosen = symbols.kind[target] == DEFINED
        chosen &= self._position[symbols.block[target]] >= 0
        rows, target = rows[chosen], target[chosen]
        block, offset = symbols.block[target], symbols.value[target].view(np.int64)
        inside = edges.addend[rows] <= self._old_sizes()[block] - offset
        rows, block, offset = rows[inside], block[inside], offset[inside]
        end = self._final(block, offset + edges.addend[rows])
        edges.addend[rows] = end - self._final(block, offset)

    def _move_symbols(self) -> None:
        symbols = self.graph.symbol_table
        # Removed symbols move too: messages name them.
        affected = np.append(self._position >= 0, False)
        rows = rows_where(affected[symbols.block])
        block, start = symbols.block[rows], symbols.value[rows].view(np.int64)
        new_start = self._final(block, start)
        symbols.value[rows] = new_start.view(np.uint64)
        sized = rows_where(symbols.size[rows] != 0)
        # In an input file a symbol may extend past the end of its block.
        limit = self._old_sizes()[block[sized]] - start[sized]
        size = np.minimum(symbols.size[rows[sized]], limit.view(np.uint64)).view(np.int64)
        new_size = self._final(block[sized], start[sized] + size) - new_start[sized]
        symbols.size[rows[sized]] -= (size - new_size).view(np.uint64)

    def _shrink_contents(self, keep: BoolArray, sizes: Int64Array) -> Int64Array:
        """Copy the bytes that are left of the blocks; return their content references (int64)."""
        graph = self.graph
        references = graph.block_table.content[self.block_rows].tolist()
        starts = self._position[self.block_rows].tolist()
        pieces = []
        for reference, size, start in zip(references, self._sizes.tolist(), starts, strict=True):
            content = np.frombuffer(graph.contents.view(reference, size), np.uint8)
            pieces.append(content[keep[start : start + size]])
        base = graph.contents.add(np.concatenate(pieces).data)
        return base + np.cumsum(sizes) - sizes
