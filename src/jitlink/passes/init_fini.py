"""Code in ``.init`` and ``.fini``, lowered to functions.

A static linker concatenates the ``.init`` and ``.fini`` sections of all objects to the functions
``_init`` and ``_fini``, whose prologues are in ``crti.o`` and whose epilogues are in ``crtn.o``.
Here the code of each object becomes a function of its own, and an array of one pointer lists it
among the initialisers or finalisers. If ``crti.o`` itself is among the objects, the function that
begins there is listed: the concatenation, in order of input, as in a static link.

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
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.graph.tables import DEFINED

INIT_CALLS, FINI_CALLS = "$__INIT_CALLS", "$__FINI_CALLS"
"""Sections of the pointers to the lowered functions."""

_CALLS = {".init": INIT_CALLS, ".fini": FINI_CALLS}
_FUNCTIONS = {".init": "_init", ".fini": "_fini"}


class CrtiCrtn(NamedTuple):
    """The instructions that ``crti.o`` and ``crtn.o`` put around ``.init`` and ``.fini`` code.

    Attributes:
        prologue: those of ``crti.o``; a multiple of 16 bytes, so that the code stays aligned.
        epilogue: those of ``crtn.o``.
        pointer: edge kind that stores an address.
    """

    prologue: bytes
    epilogue: bytes
    pointer: EdgeKind


def rows_with_content(graph: LinkGraph, section: Section) -> Int64Array:
    """Rows (int64) of the blocks of a section that are neither empty nor zero-fill."""
    table, rows = graph.block_table, section.block_rows()
    chosen: Int64Array = rows[(table.size[rows] > 0) & (table.content[rows] != ZERO_FILL)]
    return chosen


def init_fini_sections(graph: LinkGraph) -> Iterator[Section]:
    """The ``.init`` and ``.fini`` sections that are loaded and have content."""
    for name in _CALLS:
        for ordinal in graph.section_list.ordinals_named(name):
            section = graph.section_list[ordinal]
            if section.mem_lifetime != MemLifetime.NO_ALLOC and len(
                rows_with_content(graph, section)
            ):
                yield section


def lower_init_fini(graph: LinkGraph, crti_crtn: CrtiCrtn | None) -> None:
    """Turn ``.init`` and ``.fini`` code into functions, and add arrays of pointers to them.

    To be called once for a graph, before pruning.

    Args:
        graph: the graph.
        crti_crtn: prologue and epilogue of the graph's architecture; None if they are not known.

    Raises:
        UnsupportedObjectError: the graph has such code, and `crti_crtn` is None.
    """
    for section in list(init_fini_sections(graph)):
        rows = rows_with_content(graph, section)
        rows = rows[np.argsort(graph.block_table.origin[rows], kind="stable")]
        if crti_crtn is None:
            origin = int(graph.block_table.origin[rows[0]])
            file = graph.origins[origin] if 0 <= origin < len(graph.origins) else graph.name
            raise UnsupportedObjectError(
                f"section {section.name} holds part of a function whose prologue and epilogue "
                "are not known for this architecture; use .init_array and .fini_array",
                file=file,
            )
        function = graph.find_defined_symbol_by_name(_FUNCTIONS[section.name])
        is_whole = function is not None and function.section is section
        if is_whole:
            _concatenate(graph, rows)
        for row in rows[:1].tolist() if is_whole else rows.tolist():
            block = Block(graph, row)
            if not is_whole:
                _wrap(graph, block, crti_crtn)
            _add_call(graph, section, block, crti_crtn)


def _add_call(graph: LinkGraph, section: Section, block: Block, crti_crtn: CrtiCrtn) -> None:
    """Add an array of one pointer, to a function that begins with a block."""
    calls = graph.obtain_section(_CALLS[section.name], MemProt.READ | MemProt.WRITE)
    size = graph.pointer_size
    call = graph.create_content_block(calls, bytes(size), 0, size)
    graph.block_table.origin[call.row] = graph.block_table.origin[block.row]
    graph.add_edge(call, crti_crtn.pointer, 0, graph.add_anonymous_symbol(block, 0))


def _concatenate(graph: LinkGraph, rows: Int64Array) -> None:
    """Have the pieces of a function follow each other without padding, which is no code."""
    table = graph.block_table
    end = 0
    for row in rows.tolist():
        if end & (int(table.alignment[row]) - 1):
            table.alignment[row] = 1
        end += int(table.size[row])
    first = Block(graph, int(rows[0]))
    for row in rows[1:].tolist():
        graph.add_edge(first, KEEP_ALIVE, 0, graph.add_anonymous_symbol(Block(graph, row), 0))


def _wrap(graph: LinkGraph, block: Block, crti_crtn: CrtiCrtn) -> None:
    """Put prologue and epilogue around a block, and shift its edges and symbols."""
    shift, symbols, edges = len(crti_crtn.prologue), graph.symbol_table, graph.edge_table
    content = b"".join((crti_crtn.prologue, block.content, crti_crtn.epilogue))
    block.set_content(content)
    edges.offset[edges.rows_of_block(block.row)] += shift
    inside = (symbols.kind == DEFINED) & (symbols.block == block.row)
    symbols.value[inside] += np.uint64(shift)
