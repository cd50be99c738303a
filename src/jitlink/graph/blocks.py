"""Creating and removing blocks: the block operations of `LinkGraph`, which documents them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import ADDRESS_MASK
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID
from jitlink.graph.elements import Block, Section, Symbol
from jitlink.graph.tables import BlockFlags, SymbolKind, check_alignment, check_block_size

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
    if isinstance(content, int):
        check_block_size(content)
        reference, size = ZERO_FILL, content
    else:
        reference, size = graph.contents.add(content), content.nbytes
    row = graph.block_table.extend(
        1,
        section=section.ordinal,
        content=reference,
        size=size,
        address=address & ADDRESS_MASK,
        alignment=alignment,
        alignment_offset=alignment_offset,
    )
    return Block(graph, row)


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
