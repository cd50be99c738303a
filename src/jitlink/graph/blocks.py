"""Adding blocks, giving them content, and removing them.

These are block operations of `LinkGraph`, which documents them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import ADDRESS_MASK, INT64_MAX
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID
from jitlink.graph.elements import Block, Section, Symbol
from jitlink.graph.tables import BlockFlags, SymbolKind, check_alignment

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph


def check_owner(graph: LinkGraph, block: Block) -> None:
    """Check that a block is one of the graph's.

    Raises:
        GraphError: it is another graph's, or has been removed.
    """
    if block.graph is not graph:
        raise GraphError("the block belongs to another graph")
    if graph.block_table.flags[block.row] & BlockFlags.REMOVED:
        raise GraphError("the block has been removed")


def _check_size(size: int) -> None:
    if not 0 <= size <= INT64_MAX:
        raise GraphError(f"block size {size:#x} is negative or beyond any memory")


def create(
    graph: LinkGraph,
    section: Section,
    content: memoryview | int,
    address: int,
    alignment: int,
    alignment_offset: int,
) -> Block:
    """Add a block with this content, or a zero-fill block of this size."""
    graph.section_list.check_owner(section)
    check_alignment(alignment, alignment_offset)
    size = content if isinstance(content, int) else content.nbytes
    _check_size(size)
    row = graph.block_table.extend(
        1,
        section=section.ordinal,
        content=ZERO_FILL,
        size=size,
        address=address & ADDRESS_MASK,
        alignment=alignment,
        alignment_offset=alignment_offset,
    )
    block = Block(graph, row)
    if isinstance(content, memoryview):
        set_content(graph, block, content)
    return block


def set_content(graph: LinkGraph, block: Block, content: bytes | bytearray | memoryview) -> None:
    """Point a block at other bytes."""
    check_owner(graph, block)
    view = memoryview(content).cast("B")
    graph.block_table.content[block.row] = graph.contents.add(view)
    graph.block_table.size[block.row] = len(view)


def set_zero_fill(graph: LinkGraph, block: Block, size: int) -> None:
    """Make a block zero-fill."""
    check_owner(graph, block)
    _check_size(size)
    graph.block_table.content[block.row] = ZERO_FILL
    graph.block_table.size[block.row] = size


def remove(graph: LinkGraph, block: Block) -> None:
    """Remove a block that no symbol points into, and its edges."""
    check_owner(graph, block)
    table = graph.symbol_table
    defined = (table.kind == SymbolKind.DEFINED) & (table.block == block.row)
    if defined.any():
        label = Symbol(graph, int(np.flatnonzero(defined)[0])).label
        raise GraphError(f"symbol {label} still points into the block")
    graph.block_table.flags[block.row] |= BlockFlags.REMOVED
    graph.edge_table.kind[graph.edge_table.rows_of_block(block.row)] = INVALID
