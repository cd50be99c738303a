"""BasicLayout: the blocks of a graph, grouped into segments of one protection and lifetime.

A segment holds its content blocks first and then its zero-fill blocks; within each the blocks
are in order of section ordinal, origin (`LinkGraph.origins`), original address and creation.
A block's offset is the lowest one that follows the block before it and fits its alignment and
alignment offset, counted from the start of the segment, whose address must be a multiple of
the segment's alignment.

A memory manager creates a layout, gives each segment an address and working memory, and applies
the layout. Blocks of NO_ALLOC sections are in no segment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jitlink.errors import AllocationError, GraphError, WritableCodeError
from jitlink.graph import AddressRange, BlockFlags, LinkGraph, MemLifetime, MemProt
from jitlink.graph.columns import (
    ADDRESS_MASK,
    Array,
    Int64Array,
    UInt8Array,
    UInt64Array,
    rows_where,
)
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.tables import MEM_LIFETIMES, MEM_PROTS
from jitlink.memory.copying import copy_contents

# A segment is of sections of one group, which is in seven bits: three for their protection, one for
# their lifetime and three for their number. Without numbers, lifetimes have the bits of these, too.
_NO_ALLOC_GROUP = int(MemLifetime.NO_ALLOC) << 3
_NUMBER_SHIFT = 4
MOST_NUMBERS = 7
"""The highest number that `LinkGraph.segment_number` may return."""
_REMOVED = int(BlockFlags.REMOVED)
_WRITE_EXEC = int(MemProt.WRITE | MemProt.EXEC)
# More than any address space, and small enough that sums and differences do not overflow.
_SIZE_LIMIT = 1 << 62
# Below this many blocks a Python loop is faster than NumPy calls.
_FEW_BLOCKS = 300
_FEW_ROWS = 32
"""How many rows a block table may have whose blocks are arranged one by one."""


class Segment:
    """Blocks of one protection and lifetime.

    Attributes:
        prot: protection of the memory once finalized.
        lifetime: STANDARD or FINALIZE.
        number: that of its sections, see `LinkGraph.segment_number`.
        alignment: the segment's address must be a multiple of this, in bytes.
        content_size: bytes from the start to the end of the last content block.
        zero_fill_size: bytes from there to the end of the last zero-fill block.
        content_rows: rows (int64) of the content blocks in the block table, in layout order.
        zero_fill_rows: rows (int64) of the zero-fill blocks, likewise.
        address: address in the executor; set by the memory manager.
        working_memory: `content_size` zero bytes to write to; set by the memory manager or by
            `BasicLayout.apply`.
    """

    __slots__ = (
        "address",
        "alignment",
        "content_rows",
        "content_size",
        "lifetime",
        "number",
        "prot",
        "working_memory",
        "zero_fill_rows",
        "zero_fill_size",
    )

    def __init__(
        self,
        prot: MemProt,
        lifetime: MemLifetime,
        alignment: int,
        content_size: int,
        zero_fill_size: int,
        content_rows: Int64Array,
        zero_fill_rows: Int64Array,
        number: int = 0,
    ) -> None:
        self.prot = prot
        self.lifetime = lifetime
        self.number = number
        self.alignment = alignment
        self.content_size = content_size
        self.zero_fill_size = zero_fill_size
        self.content_rows = content_rows
        self.zero_fill_rows = zero_fill_rows
        self.address = 0
        self.working_memory = memoryview(b"")

    def __repr__(self) -> str:
        return f"<Segment {self.prot} {self.lifetime} {self.address:#x} size {self.size:#x}>"

    @property
    def size(self) -> int:
        """Size of contents and zero-fill together, in bytes."""
        return self.content_size + self.zero_fill_size

    @property
    def block_rows(self) -> Int64Array:
        """Rows (int64) of all blocks in the block table, in layout order."""
        return np.concatenate((self.content_rows, self.zero_fill_rows))


class ContiguousPageBasedLayoutSizes(NamedTuple):
    """Bytes that the segments take if each begins on a new page."""

    standard: int
    finalize: int

    @property
    def total(self) -> int:
        """Bytes for all segments."""
        return self.standard + self.finalize


class BasicLayout:
    """The segments of a graph, in order of lifetime and protection.

    Args:
        graph: its blocks are read when the layout is created and written when it is applied;
            in between it must not change.

    Raises:
        AllocationError: the total size exceeds any address space.
        GraphError: `LinkGraph.segment_number` returns no number from 0 to 7.

    Attributes:
        graph: the graph.
        segments: the segments, each of which has at least one block.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self._previous: tuple[UInt64Array, Int64Array] | None = None
        table = graph.block_table
        groups, self._end_of_groups = _groups(graph)
        if table.rows <= _FEW_ROWS and not graph.linked_to:
            key = self._arrange_few(groups.tolist())
        else:
            key = self._arrange(groups)
        self._sizes = table.size[self._rows]
        self.segments = self._make_segments(key, table.alignment[self._rows])

    def _arrange(self, groups: Array[np.integer[Any]]) -> bytes:
        """Find the order and the offsets of the blocks.

        Args:
            groups: the group of each section.

        Returns:
            One byte for each block that is allocated: its group, and whether it is zero-fill.
        """
        graph, table = self.graph, self.graph.block_table
        rows = graph.block_rows()
        group = groups[table.section[rows]]
        end = self._end_of_groups
        if np.count_nonzero(groups >= end):
            allocated = group < end
            rows, group = rows[allocated], group[allocated]
        key = (group << 1) | (table.content[rows] == ZERO_FILL)
        order = _order(graph, rows, key)
        if graph.linked_to:
            order = _order_linked(graph, rows, key, order)
        rows, key = rows[order], key[order]
        sizes, alignments = table.size[rows], table.alignment[rows]
        self._rows, self._content = rows, rows_where((key & 1) == 0)
        self._offsets = place(key >> 1, sizes, alignments, table.alignment_offset[rows])
        result: bytes = key.tobytes()
        return result

    def _arrange_few(self, groups: Sequence[int]) -> bytes:
        """`_arrange`, block by block."""
        table, end = self.graph.block_table, self._end_of_groups
        columns = (table.flags, table.section, table.content, table.origin, table.address)
        order = sorted(
            [
                (groups[section] << 1 | (content == ZERO_FILL), section, origin, address, row)
                for row, (flags, section, content, origin, address) in enumerate(
                    zip(*[column.tolist() for column in columns], strict=True)
                )
                if not flags & _REMOVED and groups[section] < end
            ]
        )
        rows = [each[-1] for each in order]
        key = bytes([each[0] for each in order])
        self._rows = np.array(rows, np.int64)
        self._content = np.array([n for n, each in enumerate(key) if not each & 1], np.int64)
        sizes, alignments = table.size[self._rows].tolist(), table.alignment[self._rows].tolist()
        alignment_offsets = table.alignment_offset[self._rows].tolist()
        offsets = _place_each([each >> 1 for each in key], sizes, alignments, alignment_offsets)
        self._offsets = np.array(offsets, np.int64)
        return key

    def _make_segments(self, key: bytes, alignments: Int64Array) -> list[Segment]:
        firsts, first = [], 0
        while first < len(key):
            firsts.append(first)
            first = bisect_left(key, (key[first] | 1) + 1, first)
        self._firsts = firsts
        if not firsts:
            return []
        segments = []
        lasts = [*firsts[1:], len(key)]
        strictest = np.maximum.reduceat(alignments, firsts).tolist()
        for first, last, alignment in zip(firsts, lasts, strictest, strict=True):
            group = key[first] >> 1
            middle = bisect_left(key, group << 1 | 1, first, last)
            content_size = self._end(middle - 1) if middle > first else 0
            segments.append(
                Segment(
                    MEM_PROTS[group & 7],
                    MEM_LIFETIMES[group >> 3 & 1],
                    alignment,
                    content_size,
                    self._end(last - 1) - content_size,
                    self._rows[first:middle],
                    self._rows[middle:last],
                    group >> _NUMBER_SHIFT,
                )
            )
        return segments

    def _end(self, index: int) -> int:
        return int(self._offsets[index]) + int(self._sizes[index])

    def block_offsets(self) -> tuple[Int64Array, Int64Array]:
        """Segment and offset of each block; no addresses are needed.

        Returns:
            The index of the block's segment in `segments`, and the offset in that segment (both
            int64, one per block row); -1 for a block that is in no segment.
        """
        rows = self.graph.block_table.rows
        segments, offsets = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
        segments[self._rows] = self._spread(list(range(len(self.segments))))
        offsets[self._rows] = self._offsets
        return segments, offsets

    def contiguous_page_based_layout_sizes(self, page_size: int) -> ContiguousPageBasedLayoutSizes:
        """How much memory the segments take, each rounded up to whole pages.

        Raises:
            AllocationError: a segment's alignment exceeds the page size.
        """
        sizes = {MemLifetime.STANDARD: 0, MemLifetime.FINALIZE: 0}
        for segment in self.segments:
            if segment.alignment > page_size:
                raise AllocationError(
                    f"in graph {self.graph.name}, segment {segment.prot} must be aligned to "
                    f"{segment.alignment:#x}, more than the page size {page_size:#x}",
                    size=segment.size,
                )
            sizes[segment.lifetime] += -(-segment.size // page_size) * page_size
        return ContiguousPageBasedLayoutSizes(
            sizes[MemLifetime.STANDARD], sizes[MemLifetime.FINALIZE]
        )

    def apply(self, memory: memoryview | None = None, address: int = 0) -> None:
        """Set the addresses of the blocks, and copy their contents to working memory.

        Args:
            memory: writable, zeroed working memory of all segments in one view. It becomes the
                buffer of all contents, so that the fixups of the whole graph are one operation.
                None if each segment has `working_memory` of its own.
            address: the executor address of the first byte of `memory`.

        Raises:
            AllocationError: a segment is not aligned or ends above the graph's address limit;
                the graph is unchanged.
        """
        for segment in self.segments:
            self._check(segment)
        if not self.segments:
            return
        self.graph.memory = [
            AddressRange(segment.address, segment.address + segment.size)
            for segment in self.segments
            if segment.lifetime is MemLifetime.STANDARD
        ]
        table, rows = self.graph.block_table, self._rows
        self._previous = table.address[rows], table.content[rows]
        if memory is not None and len(rows) <= _FEW_ROWS:
            self._apply_few(memory, address)
            return
        starts = [segment.address - address for segment in self.segments]
        places = self._offsets + self._spread(starts)
        table.address[rows] = places.view(np.uint64) + np.uint64(address)
        if memory is not None:
            for segment, start in zip(self.segments, starts, strict=True):
                segment.working_memory = memory[start : start + segment.content_size]
            self._fill(memory, self._content, places[self._content])
            return
        for segment, first in zip(self.segments, self._firsts, strict=True):
            blocks = np.arange(first, first + len(segment.content_rows))
            self._fill(segment.working_memory, blocks, self._offsets[blocks])

    def _apply_few(self, memory: memoryview, address: int) -> None:
        """`apply`, block by block."""
        graph, rows = self.graph, self._rows
        contents = graph.block_table.content[rows].tolist()
        sizes, offsets = self._sizes.tolist(), self._offsets.tolist()
        addresses: list[int] = []
        for segment, first in zip(self.segments, self._firsts, strict=True):
            start = segment.address - address
            segment.working_memory = memory[start : start + segment.content_size]
            middle = first + len(segment.content_rows)
            for number in range(first, middle + len(segment.zero_fill_rows)):
                place, size = start + offsets[number], sizes[number]
                addresses.append(address + place)
                if number < middle:
                    memory[place : place + size] = graph.contents.view(contents[number], size)
                    contents[number] = place
        base = graph.contents.add(memory)
        contents = [each if each == ZERO_FILL else base + each for each in contents]
        graph.block_table.address[rows] = np.array(addresses, np.uint64)
        graph.block_table.content[rows] = np.array(contents, np.int64)

    def _spread(self, values: list[int]) -> Int64Array:
        """Repeat one value per segment for each block of the segment (int64, modulo 2**64)."""
        lasts = [*self._firsts[1:], len(self._rows)]
        counts = [last - first for first, last in zip(self._firsts, lasts, strict=True)]
        words = np.array([value & ADDRESS_MASK for value in values], np.uint64)
        return words.repeat(counts).view(np.int64)

    def _check(self, segment: Segment) -> None:
        limit = self.graph.address_limit
        if segment.address & (segment.alignment - 1):
            problem = f"is not aligned to {segment.alignment:#x}"
        elif segment.address + segment.size > limit:
            problem = f"ends above the graph's address limit {limit:#x}"
        else:
            return
        raise AllocationError(
            f"in graph {self.graph.name}, segment {segment.prot} at {segment.address:#x} {problem}",
            size=segment.size,
        )

    def _fill(self, memory: memoryview, blocks: Int64Array, target: Int64Array) -> None:
        """Copy contents of blocks to their offsets in memory."""
        if self._previous is None or not len(blocks):
            return
        references = self._previous[1][blocks]
        copy_contents(self.graph, references, self._sizes[blocks], memory, target)
        base = self.graph.contents.add(memory)
        self.graph.block_table.content[self._rows[blocks]] = target + base

    def undo(self) -> None:
        """Restore the addresses and contents that the blocks had before `apply`."""
        if self._previous is not None:
            table = self.graph.block_table
            table.address[self._rows], table.content[self._rows] = self._previous


def _groups(graph: LinkGraph) -> tuple[Array[np.integer[Any]], int]:
    """The group of each section, and the first group that is not allocated."""
    groups, end = (graph.section_lifetimes() << 3) | graph.section_list.prots(), _NO_ALLOC_GROUP
    if graph.segment_number is not None:
        names = graph.section_list.names
        numbers = np.array([*map(graph.segment_number, names)], np.int64)
        wrong = rows_where((numbers < 0) | (numbers > MOST_NUMBERS))
        if len(wrong):
            name, number = names[int(wrong[0])], int(numbers[wrong[0]])
            raise GraphError(
                f"segment number {number} of section {name} is not from 0 to {MOST_NUMBERS}"
            )
        # All numbers are below the group of what is not allocated.
        groups, end = np.where(groups < end, groups | numbers << _NUMBER_SHIFT, 0x80), 0x80
    return groups, end


def _order(graph: LinkGraph, rows: Int64Array, key: UInt8Array) -> Int64Array:
    """The order of blocks by key, section ordinal, origin, original address and creation."""
    table = graph.block_table
    section, origin, address = table.section[rows], table.origin[rows], table.address[rows]
    if len(rows) >= _FEW_BLOCKS:
        # Format readers create the blocks of an object section by section, by address.
        rising = address[1:] >= address[:-1]
        rising = (origin[1:] > origin[:-1]) | ((origin[1:] == origin[:-1]) & rising)
        rising = (section[1:] > section[:-1]) | ((section[1:] == section[:-1]) & rising)
        if rising.all():
            # A stable sort of bytes is a radix sort.
            return np.argsort(key, kind="stable")
    return np.lexsort((address, origin, section, key))


def _order_linked(
    graph: LinkGraph, rows: Int64Array, key: UInt8Array, order: Int64Array
) -> Int64Array:
    """Reorder the blocks of each section that are linked to others, by the order of those."""
    rank = np.full(graph.block_table.rows, -1, np.int64)
    rank[rows[order]] = np.arange(len(order))
    section = graph.block_table.section
    places: dict[tuple[int, int], list[int]] = {}
    for row in sorted(graph.linked_to, key=rank.__getitem__):
        place = int(rank[row])
        if place >= 0:
            places.setdefault((int(section[row]), int(key[order[place]])), []).append(place)
    result = order.copy()
    for each in places.values():
        linked = sorted(each, key=lambda n: rank[graph.linked_to[int(rows[order[n]])]])
        result[each] = order[linked]
    return result


def place(
    group: Array[np.integer[Any]],
    sizes: Int64Array,
    alignments: Int64Array,
    alignment_offsets: Int64Array,
) -> Int64Array:
    """Place blocks one after the other, each at the lowest offset that its alignment allows.

    Args:
        group: number of the group of each (integers); the members of a group are consecutive.
        sizes: in bytes (int64).
        alignments: powers of two (int64).
        alignment_offsets: the offset modulo the alignment (int64).

    Returns:
        Offsets (int64), which start at the beginning of each group.
    """
    implementation = _place_few if len(sizes) < _FEW_BLOCKS else _place_many
    return implementation(group, sizes, alignments, alignment_offsets)


def _check_total(total: float, sizes: Sequence[int], alignments: Sequence[int]) -> None:
    """Refuse sizes whose sums and differences might overflow 64 bits.

    Args:
        total: the approximate sum of all sizes and alignments, which bounds every offset.
        sizes: the sizes.
        alignments: the alignments.
    """
    if total >= _SIZE_LIMIT:
        size = sum(sizes)
        raise AllocationError(
            f"blocks of {size:#x} bytes with alignments up to {max(alignments):#x} "
            "exceed every address space",
            size=size,
        )


def _place_few(
    group: Array[np.integer[Any]],
    sizes: Int64Array,
    alignments: Int64Array,
    alignment_offsets: Int64Array,
) -> Int64Array:
    """`place` with a loop over blocks."""
    columns = (group.tolist(), sizes.tolist(), alignments.tolist(), alignment_offsets.tolist())
    return np.array(_place_each(*columns), np.int64)


def _place_each(
    group: Sequence[int],
    sizes: Sequence[int],
    alignments: Sequence[int],
    alignment_offsets: Sequence[int],
) -> list[int]:
    """`place` for numbers."""
    offsets: list[int] = []
    current, end = -1, 0
    _check_total(sum(sizes) + sum(alignments), sizes, alignments)
    columns = zip(group, sizes, alignments, alignment_offsets, strict=True)
    for block_group, size, alignment, alignment_offset in columns:
        if block_group != current:
            current, end = block_group, 0
        end += (alignment_offset - end) & (alignment - 1)
        offsets.append(end)
        end += size
    return offsets


def _place_many(
    group: Array[np.integer[Any]],
    sizes: Int64Array,
    alignments: Int64Array,
    alignment_offsets: Int64Array,
) -> Int64Array:
    """`place` without a loop over blocks.

    The padding before a block of alignment A depends only on the offset modulo A of the closest
    earlier block of alignment A or more, which is known, and on the sizes and paddings in
    between. Those belong to blocks of smaller alignment, so processing alignments in ascending
    order finds all paddings.
    """
    total = float(sizes.sum(dtype=np.float64) + alignments.sum(dtype=np.float64))
    if total >= _SIZE_LIMIT:
        _check_total(total, sizes.tolist(), alignments.tolist())
    heads = np.empty(len(group), np.bool_)
    heads[0] = True
    np.not_equal(group[1:], group[:-1], out=heads[1:])
    # The distance from the start of each block to the start of the next.
    steps = sizes.copy()
    for alignment in sorted(set(alignments.tolist())):
        if alignment == 1:
            continue
        known = rows_where((alignments >= alignment) | heads)
        chosen = rows_where((alignments[known] == alignment) & ~heads[known])
        block, reference = known[chosen], known[chosen - 1]
        # Up to the end of the block before; paddings before `known` blocks are not included yet.
        ends = steps.cumsum()
        distance = ends[block - 1] - ends[reference] + steps[reference]
        gap = alignment_offsets[block] - alignment_offsets[reference] - distance
        steps[block - 1] += gap & (alignment - 1)
    starts = steps.cumsum() - steps
    first = rows_where(heads)
    base = starts[first] - alignment_offsets[first]
    offsets: Int64Array = starts - base[heads.cumsum() - 1]
    return offsets


def check_protections(layout: BasicLayout) -> None:
    """Check that no segment is writable and executable, unless the graph allows that.

    Raises:
        WritableCodeError: one is.
    """
    graph = layout.graph
    for segment in layout.segments:
        # As numbers: operators of flags are slow.
        is_both = int(segment.prot) & _WRITE_EXEC == _WRITE_EXEC
        if is_both and not graph.writable_code:
            sections = [
                section
                for section in graph.section_list
                if section.mem_prot == segment.prot and section.mem_lifetime == segment.lifetime
            ]
            rows = [block.row for section in sections for block in section.blocks]
            origins = set(graph.block_table.origin[rows].tolist())
            files = [graph.origins[n] for n in sorted(origins) if 0 <= n < len(graph.origins)]
            names = sorted(section.name for section in sections)
            raise WritableCodeError(graph.name, names, files, size=segment.size)
