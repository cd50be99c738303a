"""Personality routines that frames of position-dependent code name in 32 bits.

The routine is a function of a library, which may be anywhere. A static linker gives it a place
in the program that 32 bits reach; here it gets a stub, as a call of it would.

Specification: Linux Standard Base, "Exception Frames", augmentation ``P``.
"""

from __future__ import annotations

from jitlink.graph import LinkGraph, MemProt, Symbol
from jitlink.graph.columns import BoolArray, rows_where
from jitlink.graph.tables import EXTERNAL
from jitlink.passes.eh_frame import SECTION
from jitlink.passes.got_plt import GOT_SECTION, STUBS_SECTION, EntryKinds


def reach_personalities(graph: LinkGraph, kinds: EntryKinds, narrow: BoolArray) -> None:
    """Let frames refer to stubs of external functions (for a post-prune pass).

    Args:
        graph: the graph.
        kinds: the architecture's stub and pointer.
        narrow: whether edges of a kind hold an address in 32 bits (bool, one per kind).
    """
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = rows_where(narrow[edges.kind])
    rows = rows[symbols.kind[edges.target[rows]] == EXTERNAL] if len(rows) else rows
    if len(rows) == 0:
        return
    frames = graph.section_list.ordinals_named(SECTION)
    sections = graph.block_table.section[edges.block[rows]].tolist()
    stubs: dict[int, int] = {}
    for row, section in zip(rows.tolist(), sections, strict=True):
        if section in frames:
            target = int(edges.target[row])
            if target not in stubs:
                stubs[target] = _add_stub(graph, kinds, Symbol(graph, target)).row
            graph.edge_table.target[row] = stubs[target]


def _add_stub(graph: LinkGraph, kinds: EntryKinds, function: Symbol) -> Symbol:
    data = graph.obtain_section(GOT_SECTION, MemProt.READ)
    slot = graph.create_content_block(data, kinds.pointer_content, 0, kinds.pointer_size)
    graph.add_edge(slot, kinds.pointer, 0, function)
    pointer = graph.add_anonymous_symbol(slot, 0, kinds.pointer_size)
    code = graph.obtain_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
    stub = graph.create_content_block(code, kinds.stub, 0, kinds.stub_alignment)
    for kind, offset, addend in kinds.stub_edges:
        stub.add_edge(kind, offset, pointer, addend)
    return graph.add_anonymous_symbol(stub, 0, len(kinds.stub), is_callable=True)
