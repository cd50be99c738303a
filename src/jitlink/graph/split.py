"""Cutting blocks into parts; edges and symbols move with their bytes.

A section that is a sequence of records (the frame descriptions of ``.eh_frame``) is cut into one
block per record, so that each record can be dead-stripped by itself. `split_blocks` cuts any
number of blocks at once, in whole columns; `split_block` cuts one.

A location at a cut belongs to the part that begins there, and a location at the end of a block
to its last part, for edges and symbols alike. A symbol that would extend past the end of its
part is shortened to it. Edges *to* such a symbol are not changed: where the addend of one
reaches beyond the cut, the location that it denotes is no longer next to the symbol.

LLVM differs: it leaves the edges and symbols of a zero-fill block with its first part, and
shortens a symbol only if it is longer than the whole part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.elements import Block
from jitlink.graph.tables import DEFINED

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph


def split_block(graph: LinkGraph, block: Block, offsets: int | Sequence[int]) -> list[Block]:
    """Cut a block at one or several offsets; see `LinkGraph.split_block`."""
    cuts = [offsets] if isinstance(offsets, int) else list(offsets)
    bounds = [0, *cuts, block.size]
    if cuts and any(low >= high for low, high in pairwise(bounds)):
        raise GraphError(f"cannot split a block of size {block.size:#x} at {cuts}")
    starts = np.array(bounds[:-1], np.int64)
    parts = split_blocks(graph, np.full(len(starts), block.row, np.int64), starts)
    return [Block(graph, row) for row in parts.tolist()]


def split_blocks(graph: LinkGraph, parents: Int64Array, starts: Int64Array) -> Int64Array:
    """Cut many blocks at once; see `LinkGraph.split_blocks`."""
    table = graph.block_table
    first = starts == 0
    parent_sizes = table.size[parents]
    # A part ends where the next one of the same parent begins, or at its parent's end.
    sizes = parent_sizes - starts
    sizes[:-1] = np.where(first[1:], sizes[:-1], starts[1:] - starts[:-1])
    rows = parents.copy()
    rest = ~first
    rows[rest] = _add_parts(graph, parents[rest], starts[rest], sizes[rest])
    table.size[parents[first]] = sizes[first]
    _Cuts(graph, parents, starts, rows, sizes, parent_sizes).follow()
    return rows


def _add_parts(
    graph: LinkGraph, source: Int64Array, offsets: Int64Array, sizes: Int64Array
) -> Int64Array:
    """Add blocks for the bytes at these offsets of these blocks; return their rows."""
    table = graph.block_table
    alignment, content = table.alignment[source], table.content[source]
    row = table.extend(
        len(source),
        section=table.section[source],
        origin=table.origin[source],
        address=table.address[source] + offsets.view(np.uint64),
        size=sizes,
        alignment=alignment,
        alignment_offset=(table.alignment_offset[source] + offsets) & (alignment - 1),
        content=np.where(content == ZERO_FILL, ZERO_FILL, content + offsets),
        flags=table.flags[source],
    )
    return np.arange(row, row + len(source))


class _Cuts:
    """Finds the part for each location in the blocks that were cut.

    The blocks are put end to end on one line, one byte apart, so that a location at the end of
    one is distinct from the beginning of the next.
    """

    def __init__(
        self,
        graph: LinkGraph,
        parents: Int64Array,
        starts: Int64Array,
        rows: Int64Array,
        sizes: Int64Array,
        parent_sizes: Int64Array,
    ) -> None:
        self.graph, self.starts, self.rows, self.sizes = graph, starts, rows, sizes
        first = starts == 0
        blocks, spans = parents[first], parent_sizes[first] + 1
        self.position = np.full(graph.block_table.rows, -1, np.int64)
        self.position[blocks] = spans.cumsum() - spans
        self.part_positions = self.position[parents] + starts

    def parts(self, blocks: Int64Array, offsets: Int64Array) -> Int64Array:
        """Numbers (int64) of the parts that hold these offsets of blocks that were cut."""
        positions = self.position[blocks] + offsets
        return self.part_positions.searchsorted(positions, side="right") - 1

    def follow(self) -> None:
        """Move edges and symbols to the parts that hold them."""
        edges = self.graph.edge_table
        moved = rows_where(self.position[edges.block] >= 0)
        part = self.parts(edges.block[moved].astype(np.int64), edges.offset[moved])
        edges.offset[moved] -= self.starts[part]
        edges.block[moved] = self.rows[part]
        edges.invalidate()

        symbols = self.graph.symbol_table
        moved = rows_where(symbols.kind == DEFINED)
        moved = moved[self.position[symbols.block[moved]] >= 0]
        offsets = symbols.value[moved].view(np.int64)
        part = self.parts(symbols.block[moved].astype(np.int64), offsets)
        offsets -= self.starts[part]
        symbols.value[moved] = offsets.view(np.uint64)
        symbols.block[moved] = self.rows[part]
        limit = (self.sizes[part] - offsets).view(np.uint64)
        symbols.size[moved] = np.minimum(symbols.size[moved], limit)
