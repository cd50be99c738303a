"""Contents of blocks, copied to working memory.

Contents that are contiguous before and after are one copy, and so are many small ones of one size:
an object with a section for each function has tens of thousands, of few sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jitlink.graph import BlockFlags, LinkGraph, MemLifetime
from jitlink.graph.columns import Array, BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION

_NO_ALLOC, _REMOVED = int(MemLifetime.NO_ALLOC), int(BlockFlags.REMOVED)
_FEW = 20
"""Up to this many contents are copied one by one, and blocks looked at."""
_MANY_OF_A_SIZE = 48
"""So many pieces of one size are one operation on arrays, which then takes less time."""
_SMALL_SIZE = 4095
"""The largest size in bytes for which that is considered."""


class _Pieces(NamedTuple):
    """Contiguous bytes to be copied.

    Attributes:
        buffer: number of the buffer that each is in (int64).
        source: its offset there (int64).
        target: its offset in the memory that it is copied to (int64).
        size: its size in bytes (int64).
    """

    buffer: Int64Array
    source: Int64Array
    target: Int64Array
    size: Int64Array


def copy_contents(
    graph: LinkGraph,
    references: Int64Array,
    sizes: Int64Array,
    memory: memoryview,
    target: Int64Array,
) -> None:
    """Copy contents to memory.

    Args:
        graph: the graph whose contents they are.
        references: content references (int64, shape (n,)), not `ZERO_FILL`.
        sizes: bytes of each (int64, shape (n,)).
        memory: where to copy to.
        target: offset of each in `memory` (int64, shape (n,)).
    """
    contents = graph.contents
    if len(sizes) <= _FEW:
        columns = (references.tolist(), sizes.tolist(), target.tolist())
        for reference, size, to in zip(*columns, strict=True):
            memory[to : to + size] = contents.view(reference, size)
        return
    pieces = _contiguous(*contents.locate(references), target, sizes)
    if len(pieces.size) >= _MANY_OF_A_SIZE:
        pieces = _copy_equal(pieces, contents.buffers, memory)
    buffers = contents.buffers
    for buffer, source, to, size in zip(*(column.tolist() for column in pieces), strict=True):
        memory[to : to + size] = buffers[buffer][source : source + size]


def _contiguous(
    buffer: Int64Array, source: Int64Array, target: Int64Array, size: Int64Array
) -> _Pieces:
    """As few pieces as possible: those that follow each other before and after are one."""
    breaks = source[1:] != source[:-1] + size[:-1]
    breaks |= target[1:] != target[:-1] + size[:-1]
    breaks |= buffer[1:] != buffer[:-1]
    last = np.append(rows_where(breaks), len(size) - 1)
    first = np.empty_like(last)
    first[0], first[1:] = 0, last[:-1] + 1
    start = target[first]
    return _Pieces(buffer[first], source[first], start, target[last] + size[last] - start)


def _copy_equal(pieces: _Pieces, buffers: Sequence[memoryview], memory: memoryview) -> _Pieces:
    """Copy the small pieces of one buffer and size wherever they are many; returns the others."""
    size = np.minimum(pieces.size, _SMALL_SIZE + 1).astype(np.uint16)
    order = np.argsort(size, kind="stable")
    if np.count_nonzero(pieces.buffer != pieces.buffer[0]):
        order = order[np.argsort(pieces.buffer[order], kind="stable")]
    size, buffer = size[order], pieces.buffer[order]
    first = np.append(0, rows_where((size[1:] != size[:-1]) | (buffer[1:] != buffer[:-1])) + 1)
    count = np.append(first[1:], len(size)) - first
    is_common = (count >= _MANY_OF_A_SIZE) & (size[first] > 0) & (size[first] <= _SMALL_SIZE)
    is_left = np.ones(len(size), np.bool_)
    for begin, end in zip(
        first[is_common].tolist(), (first + count)[is_common].tolist(), strict=True
    ):
        rows, each = order[begin:end], int(size[begin])
        data = buffers[int(buffer[begin])]
        _windows(memory, each)[pieces.target[rows]] = _windows(data, each)[pieces.source[rows]]
        is_left[rows] = False
    return _Pieces(*(column[is_left] for column in pieces))


def _windows(memory: memoryview, size: int) -> Array[np.void]:
    """The elements of that size in bytes that begin at each offset of memory."""
    return np.ndarray((len(memory) - size + 1,), np.dtype((np.void, size)), memory, strides=(1,))


def copy_unallocated_contents(graph: LinkGraph) -> None:
    """Give blocks of NO_ALLOC sections that have fixups writable contents of their own.

    Blocks of all other sections get theirs when a layout is applied.
    """
    # Dead-stripping has removed them all, unless they were marked live.
    unallocated = _unallocated(graph)
    if unallocated is None:
        return
    table, edges = graph.block_table, graph.edge_table
    edited = np.zeros(table.rows, np.bool_)
    edited[edges.block[edges.kind >= FIRST_RELOCATION]] = True
    rows = rows_where(edited & unallocated & (table.content != ZERO_FILL))
    sizes = table.size[rows]
    places = sizes.cumsum() - sizes
    memory = memoryview(bytearray(int(sizes.sum())))
    copy_contents(graph, table.content[rows], sizes, memory, places)
    table.content[rows] = graph.contents.add(memory) + places


def _unallocated(graph: LinkGraph) -> BoolArray | None:
    """Which blocks are in NO_ALLOC sections (bool, one per block row); None if none is."""
    table, lifetimes = graph.block_table, graph.section_lifetimes()
    if table.rows <= _FEW:
        of_section = lifetimes.tolist()
        blocks = zip(table.section.tolist(), table.flags.tolist(), strict=True)
        if not any(of_section[n] == _NO_ALLOC and not flags & _REMOVED for n, flags in blocks):
            return None
    unallocated: BoolArray = (lifetimes == _NO_ALLOC)[table.section]
    unallocated &= (table.flags & _REMOVED) == 0
    return unallocated if np.count_nonzero(unallocated) else None
