"""Taking bytes out of blocks: symbols, sizes and edges follow what is left.

A `Shrinkage` is a plan: a list of *sites*, each the end of a range in a block, and how many bytes
before that end are to go. The numbers may change as often as one likes, which costs nothing but
a sum; `moved` says where any place would then be. `apply` carries the plan out.

A place in a range that goes moves to where the range was; a place at a range's end stays with
the bytes behind it. An edge whose target is a symbol and a positive addend means the place that far
behind the symbol, so its addend shrinks with the bytes between; a negative addend, as in
``end - 1``, is kept as it is.
"""

from __future__ import annotations

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import LinkGraph
from jitlink.graph.tables import SymbolKind

_DEFINED = int(SymbolKind.DEFINED)


class Shrinkage:
    """Which bytes of which blocks are to go.

    Args:
        graph: its blocks, symbols and edges must not change until the plan is carried out.
        blocks: block row of each site (int64, ascending).
        ends: offset of the end of each site (int64, ascending in each block).
        limits: how many bytes before its end each site may take (int64).

    Raises:
        GraphError: a site lies outside its block, in zero-fill, or overlaps another one.

    Attributes:
        blocks: as given.
        ends: as given.
        counts: bytes to take out at each site (int64), at first none; to be written to.
    """

    def __init__(
        self, graph: LinkGraph, blocks: Int64Array, ends: Int64Array, limits: Int64Array
    ) -> None:
        table = graph.block_table
        self.graph, self.blocks, self.ends = graph, blocks, ends
        self.counts = np.zeros(len(blocks), np.int64)
        bad = (ends > table.size[blocks]) | (table.content[blocks] == ZERO_FILL)
        before = np.zeros(len(blocks), np.int64)
        before[1:] = np.where(blocks[1:] == blocks[:-1], ends[:-1], 0)
        bad |= (limits < 0) | (ends - limits < before)
        if bad.any():
            row = int(rows_where(bad)[0])
            raise GraphError(
                f"{int(limits[row])} bytes cannot be taken out of block {int(blocks[row])} "
                f"before offset {int(ends[row]):#x}"
            )
        # The blocks are put end to end on one line, with one byte between, so that a place at
        # the very end of one is not taken for the beginning of the next.
        first = np.append(True, blocks[1:] != blocks[:-1])[: len(blocks)]
        self.block_rows = blocks[first]
        self._sizes = table.size[self.block_rows]
        spans = self._sizes + 1
        self._position = np.full(table.rows, -1, np.int64)
        self._position[self.block_rows] = np.cumsum(spans) - spans
        self._first = np.zeros(table.rows, np.int64)
        self._first[self.block_rows] = rows_where(first)
        self._line = self._position[blocks] + ends

    def sites_before(self, blocks: Int64Array, offsets: Int64Array) -> Int64Array:
        """How many sites end before or at each place, plus those of other blocks.

        Args:
            blocks: block rows (int64).
            offsets: offsets in them (int64).

        Returns:
            What `moved` needs to know (int64); it does not depend on `counts`.
        """
        return self._line.searchsorted(self._position[blocks] + offsets, side="right")

    def moved(
        self, blocks: Int64Array, offsets: Int64Array, sites: Int64Array | None = None
    ) -> Int64Array:
        """Offsets (int64) that places will have once the bytes are gone.

        Args:
            blocks: block rows (int64).
            offsets: offsets in them (int64).
            sites: what `sites_before` says about them; asked for if None.
        """
        if len(self.blocks) == 0:
            return offsets
        if sites is None:
            sites = self.sites_before(blocks, offsets)
        total = np.zeros(len(self.counts) + 1, np.int64)
        np.cumsum(self.counts, out=total[1:])
        gone = total[sites] - total[self._first[blocks]]
        following = np.minimum(sites, len(self.blocks) - 1)
        inside = (sites < len(self.blocks)) & (self.blocks[following] == blocks)
        partly = self.counts[following] - (self.ends[following] - offsets)
        gone += np.where(inside, np.maximum(partly, 0), 0)
        return np.where(self._position[blocks] >= 0, offsets - gone, offsets)

    def new_sizes(self) -> Int64Array:
        """Sizes (int64) of the blocks in `block_rows` once the bytes are gone."""
        return self.moved(self.block_rows, self._sizes)

    def apply(self, counts_from_target: BoolArray) -> None:
        """Take the bytes out; the blocks get contents of their own, which may be written to.

        Args:
            counts_from_target: by edge kind, whether an addend is a distance from the target.
        """
        if len(self.blocks) == 0:
            return
        self._move_addends(counts_from_target)
        self._move_symbols()
        edges, table = self.graph.edge_table, self.graph.block_table
        rows = rows_where(self._position[edges.block] >= 0)
        edges.offset[rows] = self.moved(edges.block[rows], edges.offset[rows])
        sizes = self.new_sizes()
        table.content[self.block_rows] = self._shrink_contents(sizes)
        table.size[self.block_rows] = sizes

    def _move_addends(self, counts_from_target: BoolArray) -> None:
        edges, symbols = self.graph.edge_table, self.graph.symbol_table
        rows = rows_where((edges.addend > 0) & counts_from_target[edges.kind])
        target = edges.target[rows]
        chosen = symbols.kind[target] == _DEFINED
        chosen &= self._position[symbols.block[target]] >= 0
        rows, target = rows[chosen], target[chosen]
        block, offset = symbols.block[target], symbols.value[target].view(np.int64)
        size = np.zeros(self.graph.block_table.rows, np.int64)
        size[self.block_rows] = self._sizes
        inside = edges.addend[rows] <= size[block] - offset
        rows, block, offset = rows[inside], block[inside], offset[inside]
        end = self.moved(block, offset + edges.addend[rows])
        edges.addend[rows] = end - self.moved(block, offset)

    def _move_symbols(self) -> None:
        symbols = self.graph.symbol_table
        rows = rows_where(symbols.kind == _DEFINED)
        rows = rows[self._position[symbols.block[rows]] >= 0]
        block, start = symbols.block[rows], symbols.value[rows].view(np.int64)
        end = start + symbols.size[rows].view(np.int64)
        new_start = self.moved(block, start)
        symbols.value[rows] = new_start.view(np.uint64)
        symbols.size[rows] = (self.moved(block, end) - new_start).view(np.uint64)

    def _shrink_contents(self, sizes: Int64Array) -> Int64Array:
        """Copy what is left of the blocks; their new content references (int64)."""
        graph, table = self.graph, self.graph.block_table
        references = table.content[self.block_rows].tolist()
        pieces = [
            np.frombuffer(graph.contents.view(reference, size), np.uint8)
            for reference, size in zip(references, self._sizes.tolist(), strict=True)
        ]
        content = np.concatenate(pieces)
        keep = np.ones(len(content), np.bool_)
        starts = np.cumsum(self._sizes) - self._sizes
        index = np.cumsum(np.append(False, self.blocks[1:] != self.blocks[:-1]))
        keep[ragged_arange(starts[index] + self.ends - self.counts, self.counts)] = False
        base = graph.contents.add(content[keep].data)
        return base + np.cumsum(sizes) - sizes
