"""Fragments of functions: code in ``.init`` and ``.fini``.

A static linker strings what objects have there together to the functions ``_init`` and ``_fini``,
which ``crti.o`` begins and ``crtn.o`` ends. Here each fragment becomes a function of its own, and
an array of one pointer stands for it among the initialisers and finalisers.

Specification: System V gABI, chapter 5, "Initialization and Termination Functions".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jitlink.errors import UnsupportedObjectError
from jitlink.graph import Block, EdgeKind, LinkGraph, MemLifetime, MemProt, Section
from jitlink.graph.columns import Int64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.tables import DEFINED

INIT_CALLS, FINI_CALLS = "$__INIT_CALLS", "$__FINI_CALLS"
"""Sections of the pointers to what were fragments."""

_CALLS = {".init": INIT_CALLS, ".fini": FINI_CALLS}


class FunctionFrame(NamedTuple):
    """What makes a fragment a function.

    Attributes:
        prologue: code before it, a multiple of 16 bytes so that the fragment stays aligned.
        epilogue: code behind it.
        pointer: kind of an edge that stores an address.
    """

    prologue: bytes
    epilogue: bytes
    pointer: EdgeKind


def rows_with_content(graph: LinkGraph, section: Section) -> Int64Array:
    """Rows of those blocks of a section that have bytes, and not only zeros."""
    table, rows = graph.block_table, section.block_rows()
    chosen: Int64Array = rows[(table.size[rows] > 0) & (table.content[rows] != ZERO_FILL)]
    return chosen


def init_fini_sections(graph: LinkGraph) -> Iterator[Section]:
    """The sections of fragments that are loaded and have code, complete or not."""
    for name in _CALLS:
        for ordinal in graph.section_list.ordinals_named(name):
            section = graph.section_list[ordinal]
            if section.mem_lifetime != MemLifetime.NO_ALLOC and len(
                rows_with_content(graph, section)
            ):
                yield section


def complete_init_fini(graph: LinkGraph, frame: FunctionFrame | None) -> None:
    """Make functions of all fragments, and arrays of pointers to them (before pruning).

    To be called once for a graph.

    Args:
        graph: the graph.
        frame: what its architecture has around them; None if that is not known.

    Raises:
        UnsupportedObjectError: there are fragments, and no frame.
    """
    for section in list(init_fini_sections(graph)):
        calls = graph.obtain_section(_CALLS[section.name], MemProt.READ | MemProt.WRITE)
        for row in rows_with_content(graph, section).tolist():
            origin = int(graph.block_table.origin[row])
            if frame is None:
                file = graph.origins[origin] if 0 <= origin < len(graph.origins) else graph.name
                raise UnsupportedObjectError(
                    f"section {section.name} holds a fragment of a function, which cannot be "
                    "completed for this architecture; use .init_array and .fini_array",
                    file=file,
                )
            fragment = Block(graph, row)
            _complete(graph, fragment, frame)
            size = graph.pointer_size
            call = graph.create_content_block(calls, bytes(size), 0, size)
            graph.block_table.origin[call.row] = origin
            graph.add_edge(call, frame.pointer, 0, graph.add_anonymous_symbol(fragment, 0))


def _complete(graph: LinkGraph, fragment: Block, frame: FunctionFrame) -> None:
    """Put the frame around a fragment; what is in it and refers into it moves along."""
    shift, symbols, edges = len(frame.prologue), graph.symbol_table, graph.edge_table
    content = b"".join((frame.prologue, fragment.content, frame.epilogue))
    fragment.set_content(content)
    edges.offset[edges.rows_of_block(fragment.row)] += shift
    inside = (symbols.kind == DEFINED) & (symbols.block == fragment.row)
    symbols.value[inside] += np.uint64(shift)
