"""Stubs for personality routines that frames of position-dependent code name in 32 bits.

A personality routine may be in a shared library, out of reach of a 32-bit address. A static linker
gives such a routine a canonical PLT entry in the program; here the CIE refers to a stub of it.

Specification: Linux Standard Base, "Exception Frames", augmentation ``P``.
"""

from __future__ import annotations

from jitlink.graph import LinkGraph, MemProt, Symbol
from jitlink.graph.columns import BoolArray, rows_where
from jitlink.graph.tables import EXTERNAL
from jitlink.passes.eh_frame import SECTION
from jitlink.passes.got_plt import GOT_SECTION, GotPltSpec, add_stub


def build_personality_stubs(graph: LinkGraph, spec: GotPltSpec, narrow: BoolArray) -> None:
    """Retarget 32-bit edges of frames from external functions to stubs (for a post-prune pass).

    Args:
        graph: the graph.
        spec: the architecture's GOT entries and stubs.
        narrow: whether an edge kind holds an address in 32 bits (bool, one per kind).
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
                stubs[target] = _build_stub(graph, spec, Symbol(graph, target)).row
            graph.edge_table.target[row] = stubs[target]


def _build_stub(graph: LinkGraph, spec: GotPltSpec, function: Symbol) -> Symbol:
    got = graph.obtain_section(GOT_SECTION, MemProt.READ)
    stub, pointer = add_stub(graph, got, spec)
    graph.add_edge(pointer.block, spec.pointer, 0, function)
    return graph.add_anonymous_symbol(stub, 0, len(spec.stub), is_callable=True)
