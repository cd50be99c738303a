"""`.eh_frame` sections of a few records that stay whole: found record by record.

An array operation takes as long as a whole record here. What is found here is the usual: CIEs and
FDEs with 32-bit lengths, about code of the graph. If a section is of another kind,
`jitlink.passes.eh_frame`, whose rules these are, reads all of them as columns, or says what is
wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from jitlink.graph import BlockFlags, LinkGraph
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.tables import DEFINED
from jitlink.passes.cie import size_of_pointers
from jitlink.passes.prune import few_marked_blocks

MOST_BYTES = 1024
"""Sections of so many bytes in all are read record by record."""
MOST_ROWS = 64
"""How many blocks, and edges, a graph of such sections may have."""
_REMOVED = int(BlockFlags.REMOVED)
_HEADS = {"little": struct.Struct("<II"), "big": struct.Struct(">II")}
_size_of_pointers = lru_cache(maxsize=64)(size_of_pointers)


class WholeSections(NamedTuple):
    """Sections that stay whole.

    Attributes:
        live: block rows of those that are kept in any case.
        others: block rows of those that are kept by code, and
        code: the row of the block that keeps each.
        alignment: the alignment of all of them that leaves no gaps between records, in bytes.
    """

    live: Sequence[int]
    others: Sequence[int]
    code: Sequence[int]
    alignment: int


class _Section(NamedTuple):
    """What the records of a section refer to.

    Attributes:
        functions: symbol rows of the functions that its FDEs describe.
        is_aligned: whether the size of each record is a multiple of 4.
    """

    functions: Sequence[int]
    is_aligned: bool


def find_whole_sections(
    graph: LinkGraph, ordinals: Sequence[int], *, is_marked: bool
) -> WholeSections | None:
    """What becomes of sections if all of them stay whole; None if that is to be found otherwise.

    Args:
        graph: the graph.
        ordinals: ordinals of the sections.
        is_marked: whether live symbols of the graph are marked and stay so.
    """
    tables = (graph.block_table, graph.symbol_table, graph.edge_table)
    if max([table.rows for table in tables]) > MOST_ROWS:
        return None
    contents = _contents(graph, ordinals)
    relocations = _relocations(graph, contents)
    if relocations is None or sum(map(len, contents.values())) > MOST_BYTES:
        return None
    symbols = graph.symbol_table
    kinds, in_block = symbols.kind.tolist(), symbols.block.tolist()
    marked = set(few_marked_blocks(graph)) if is_marked else set()
    live: list[int] = []
    others: list[int] = []
    code: list[int] = []
    alignment = 4
    for row, data in contents.items():
        own = relocations[row]
        section = _read(data, own, graph)
        if section is None or any(kinds[each] != DEFINED for each in section.functions):
            return None
        described = {in_block[each] for each in section.functions}
        if not described.isdisjoint(contents):
            return None
        # Functions depend on what other relocations refer to.
        if described <= marked and len(own) == len(section.functions):
            live.append(row)
        elif len(described) == 1:
            others.append(row)
            code += described
        else:
            return None
        alignment = alignment if section.is_aligned else 1
    return WholeSections(live, others, code, alignment)


def _contents(graph: LinkGraph, ordinals: Sequence[int]) -> dict[int, bytes]:
    """Content of the blocks of sections, by block row; not of those without content."""
    blocks, view = graph.block_table, graph.contents.view
    columns = (blocks.section, blocks.flags, blocks.content, blocks.size)
    rows = enumerate(zip(*(column.tolist() for column in columns), strict=True))
    return {
        row: bytes(view(content, size))
        for row, (section, flags, content, size) in rows
        if section in ordinals and not flags & _REMOVED and content != ZERO_FILL and size
    }


def _relocations(graph: LinkGraph, contents: Collection[int]) -> dict[int, dict[int, int]] | None:
    """The relocations of blocks, by row: their targets by offset; None if not in order."""
    edges = graph.edge_table
    found: dict[int, dict[int, int]] = {row: {} for row in contents}
    last = dict.fromkeys(contents, -1)
    columns = (edges.block.tolist(), edges.offset.tolist(), edges.target.tolist())
    for block, offset, target in zip(*columns, strict=True):
        if block in found:
            if offset <= last[block]:
                return None
            found[block][offset], last[block] = target, offset
    return found


def _read(data: bytes, relocations: Mapping[int, int], graph: LinkGraph) -> _Section | None:
    """Read the records of a section; None if it is not as compilers write it, or malformed."""
    head, size, start, is_aligned = _HEADS[graph.endianness], len(data), 0, True
    cies: set[int] = set()
    wanted: set[int] = set()
    functions: list[int] = []
    while start <= size - head.size:
        length, identifier = head.unpack_from(data, start)
        end = start + 4 + length
        if length < 4 or end > size:
            return None
        if identifier:
            # At the pointer to the function.
            function = relocations.get(start + 8)
            if function is None:
                return None
            functions.append(function)
            wanted.add(start + 4 - identifier)
        elif _size_of_pointers(data[start:end], graph.pointer_size):
            cies.add(start)
        else:
            return None
        is_aligned = is_aligned and not end & 3
        start = end
    if start != size or not functions or not wanted <= cies:
        return None
    return _Section(functions, is_aligned)
