"""`.eh_frame` sections, split into records so that dead-stripping removes frames of dead functions.

The section is a sequence of records: a CIE holds what several functions have in common, an FDE
describes the frame of one function. Each record becomes a block. The pointer of an FDE to its CIE
becomes an edge, since records between them may be removed; its pointer to the function already has
a relocation in the object; and the function gets a keep-alive edge to the FDE. So a live function
keeps its FDE, with CIE, personality and LSDA, and the FDE of a dead function is removed.
If all FDEs of an object's section describe one block of code, the section stays one block, because
none of its records could be removed alone. So does a section that describes live symbols only, if
no pass reads frames before dead-stripping. Its records are checked all the same.

Quirks: the CIE pointer counts backwards from its own position; a record whose length field is all
ones has a 64-bit length, but still a 32-bit CIE pointer; a record of length zero ends the section.

Specification: Linux Standard Base, "Exception Frames"; DWARF 5, section 6.4.1.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from jitlink.errors import ObjectError
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, Scope
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import KEEP_ALIVE, EdgeKind
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED, rows_of_section
from jitlink.passes.cie import size_of_pointers
from jitlink.passes.eh_frame_few import MOST_BYTES, find_whole_sections
from jitlink.passes.prune import marked_blocks

SECTION = ".eh_frame"
_EXTENDED = 0xFFFFFFFF
_TERMINATOR = bytes(4)
_HEAD_SIZE = 64
_LAST_ORIGIN = np.iinfo(np.int32).max
_LIVE = int(BlockFlags.LIVE)
_NO_ALLOC = int(MemLifetime.NO_ALLOC)


class FramePass:
    """A pre-prune pass that splits all sections of one name.

    It is a `jitlink.link.WaitingPass`: with live symbols marked it leaves more sections whole.

    Args:
        neg_delta32: edge kind for a 32-bit distance back to the target.
        section_name: name of the sections.
        leaves_whole: whether the section of an object stays one block if all its FDEs describe one
            block of code.
    """

    def __init__(
        self, *, neg_delta32: EdgeKind, section_name: str = SECTION, leaves_whole: bool = True
    ) -> None:
        self.neg_delta32 = neg_delta32
        self.section_name = section_name
        self.leaves_whole = leaves_whole

    def __call__(self, graph: LinkGraph) -> None:
        """Split the sections of a graph."""
        _Splitter(graph, self, is_marked=False).run()

    def run_marked(self, graph: LinkGraph) -> None:
        """Split the sections of a graph whose live symbols are marked and stay so.

        Those that refer to live functions and nothing else stay whole.
        """
        _Splitter(graph, self, is_marked=True).run()


class FrameSection:
    """An `.eh_frame` section that an unwinder can register: without gaps, and terminated.

    Args:
        graph: its graph.
        rows: block rows (int64) of its records.
    """

    def __init__(self, graph: LinkGraph, rows: Int64Array) -> None:
        self._graph, self._rows = graph, rows

    @property
    def address(self) -> int:
        """Address of the first record, once memory is allocated."""
        return int(self._graph.block_table.address[self._rows].min())

    @property
    def end(self) -> int:
        """Address behind the terminator, once memory is allocated."""
        return Block(self._graph, int(self._rows[0])).section.range().end


def terminate_eh_frames(graph: LinkGraph, section_name: str = SECTION) -> list[FrameSection]:
    """Terminate each section of that name with a record of length zero (for a post-prune pass).

    Returns:
        The sections that still have records.
    """
    found, blocks = [], graph.block_table
    for ordinal in graph.section_list.ordinals_named(section_name):
        rows = rows_of_section(blocks, ordinal)
        if len(rows) == 0 or graph.section_lifetimes()[ordinal] == _NO_ALLOC:
            continue
        # Without padding before it, and behind the records of all objects.
        blocks.extend(
            1,
            section=ordinal,
            content=_zeros(graph, int(rows[0])),
            size=len(_TERMINATOR),
            alignment=1,
            origin=_LAST_ORIGIN,
        )
        found.append(FrameSection(graph, rows))
    return found


def _zeros(graph: LinkGraph, record: int) -> int:
    """Content of a terminator: zeros of a record, as contents of one buffer are copied at once."""
    content = int(graph.block_table.content[record])
    view = graph.contents.view(content, min(int(graph.block_table.size[record]), _HEAD_SIZE))
    # The id field of a CIE is zero.
    found = bytes(view).find(_TERMINATOR) if view.readonly else -1
    return content + found if found >= 0 else graph.contents.add(memoryview(_TERMINATOR))


class _Relocations(NamedTuple):
    """Relocations of several blocks, sorted by block.

    Attributes:
        edge: rows of their edges (int64).
        number: index of the block that each is in (int64).
        offset: offset in that block (int64).
    """

    edge: Int64Array
    number: Int64Array
    offset: Int64Array


class _Candidates(NamedTuple):
    """Places at which records of several blocks may start.

    The blocks are put end to end on one line, one byte apart, so that the end of one is distinct
    from the beginning of the next.

    Attributes:
        base: place of each block (int64).
        place: the places (int64, ascending); the first of each block is its base.
        follow: place at which that record ends, or -1 if it must be read by itself (int64).
        ends: whether it ends where its block does (bool).
        leads_on: whether it ends where the next candidate starts (bool).
    """

    base: Int64Array
    place: Int64Array
    follow: Int64Array
    ends: BoolArray
    leads_on: BoolArray


class _Records(NamedTuple):
    """The records of several blocks, sorted by block and offset.

    Attributes:
        owners: row of the block that each is in (int64).
        numbers: index of that block (int64).
        starts: offset of each in its block (int64).
        alignment: the alignment of all records that leaves no gaps between them, in bytes.
        id_offset: offset of the id field of each from its start (int64).
        fdes: indices of the FDEs (int64).
        cies: index of the CIE of each FDE (int64).
        is_plain: whether each is a CIE or an FDE with a 32-bit length (bool).
    """

    owners: Int64Array
    numbers: Int64Array
    starts: Int64Array
    alignment: int
    id_offset: Int64Array
    fdes: Int64Array
    cies: Int64Array
    is_plain: BoolArray


class _Splitter:
    def __init__(self, graph: LinkGraph, options: FramePass, *, is_marked: bool) -> None:
        self.graph = graph
        self.leaves_whole = options.leaves_whole
        self.is_marked = is_marked
        self.neg_delta32 = options.neg_delta32
        self.section_name = options.section_name
        self.word = np.dtype("<u4" if graph.endianness == "little" else ">u4")
        self.pointer_sizes: dict[bytes, int] = {}

    def run(self) -> None:
        table = self.graph.block_table
        ordinals = self.graph.section_list.ordinals_named(self.section_name)
        if not ordinals:
            return
        if self.leaves_whole:
            few = find_whole_sections(self.graph, ordinals, is_marked=self.is_marked)
            if few is not None:
                self._keep_live(np.array(few.live, np.int64), few.alignment)
                self._keep_with(
                    np.array(few.others, np.int64), np.array(few.code, np.int64), few.alignment
                )
                return
        present = (table.flags & int(BlockFlags.REMOVED)) == 0
        chosen = np.zeros(self.graph.sections_size, np.bool_)
        chosen[ordinals] = True
        parents = rows_where(chosen[table.section] & present)
        parents = parents[(table.content[parents] != ZERO_FILL) & (table.size[parents] > 0)]
        if len(parents):
            self._split(parents)

    def _fail(self, block: int, offset: int, message: str) -> ObjectError:
        table = self.graph.block_table
        origins = self.graph.origins
        file = origins[table.origin[block]] if origins else self.graph.name
        return ObjectError(f"{self.section_name}+{offset:#x}: {message}", file=file)

    # Finding the records

    def _split(self, parents: Int64Array) -> None:
        relocations = self._relocations(parents)
        records = self._read(parents, *self._find_records(parents, relocations))
        is_whole = np.zeros(len(parents), np.bool_)
        code = self._described_code(parents, relocations, records)
        if code is not None:
            is_whole = self._leave_whole(parents, relocations, records, code)
        if not is_whole.all():
            self._split_records(records, ~is_whole[records.numbers])

    def _find_records(
        self, parents: Int64Array, relocations: _Relocations
    ) -> tuple[Int64Array, Int64Array]:
        """Block and offset (int64) of all records of these blocks, in order."""
        if int(self.graph.block_table.size[parents].sum()) <= MOST_BYTES:
            return self._find_few_records(parents)
        candidates = self._find_candidates(parents, relocations)
        place, base = candidates.place, candidates.base
        if not (candidates.leads_on | candidates.ends).all():
            place = self._follow_lengths(parents, candidates)
        if len(parents) == 1:
            return parents.repeat(len(place)), place
        numbers = base.searchsorted(place, side="right") - 1
        return parents[numbers], place - base[numbers]

    def _find_few_records(self, parents: Int64Array) -> tuple[Int64Array, Int64Array]:
        """`_find_records`, record by record."""
        owners: list[int] = []
        starts: list[int] = []
        for parent in parents.tolist():
            size, position = int(self.graph.block_table.size[parent]), 0
            while position < size:
                owners.append(parent)
                starts.append(position)
                position = self._skip(parent, position, size)
        return np.array(owners, np.int64), np.array(starts, np.int64)

    def _find_candidates(self, parents: Int64Array, relocations: _Relocations) -> _Candidates:
        """Places at which records may start.

        The first record of a block starts at its beginning, and an FDE has a relocation at offset
        8: that finds most records, and all of them are checked together.
        """
        table = self.graph.block_table
        sizes, is_one = table.size[parents], len(parents) == 1
        base = (sizes + 1).cumsum() - (sizes + 1)
        number, offset = relocations.number, relocations.offset - 8
        inside = (offset > 0) & (offset <= (sizes if is_one else sizes[number]) - 4)
        number, offset = number[inside], offset[inside]
        # The beginning of each block is put before its relocations.
        first = number.searchsorted(np.arange(len(parents)))
        place = np.insert(offset if is_one else base[number] + offset, first, base)
        # Compilers write relocations in ascending order, and one at most places.
        if (place[1:] <= place[:-1]).any():
            place.sort()
            place = place[np.append(True, place[1:] > place[:-1])]
        # Columns of one block are of length one, and fit all places.
        end, content = base + sizes, table.content[parents] - base
        if not is_one:
            number = base.searchsorted(place, side="right") - 1
            end, content = end[number], content[number]
        content = content + place
        is_readable = place <= end - 4
        if is_readable.all():
            length = self._words(content)
        else:
            length = np.full(len(place), _EXTENDED, np.int64)
            length[is_readable] = self._words(content[is_readable])
        follow = place + 4 + length
        follow[(length == _EXTENDED) | (follow > end)] = -1
        leads_on = np.zeros(len(place), np.bool_)
        leads_on[:-1] = follow[:-1] == place[1:]
        return _Candidates(base, place, follow, follow == end, leads_on)

    def _follow_lengths(self, parents: Int64Array, candidates: _Candidates) -> Int64Array:
        """Places (int64) of the records if some are no candidates, or candidates no records.

        Goes from one run of candidates that lead on to each other to the next. A record that is no
        candidate is read by itself.
        """
        last = rows_where(~candidates.leads_on)
        place, lasts = candidates.place.tolist(), last.tolist()
        goals = candidates.follow[last].tolist()
        entered: list[int] = []
        left: list[int] = []
        others: list[int] = []
        columns = (parents, candidates.base, self.graph.block_table.size[parents])
        for parent, base, size in zip(*(column.tolist() for column in columns), strict=True):
            position, end = base, base + size
            while position < end:
                index = bisect_left(place, position)
                if index == len(place) or place[index] != position:
                    others.append(position)
                    position = base + self._skip(parent, position - base, size)
                    continue
                run = bisect_left(lasts, index)
                entered.append(index)
                left.append(lasts[run] + 1)
                position = goals[run]
                if position < 0:
                    position = base + self._skip(parent, place[lasts[run]] - base, size)
        change = np.zeros(len(place) + 1, np.int64)
        change[entered] += 1
        change[left] -= 1
        found = candidates.place[change[:-1].cumsum() > 0]
        return np.sort(np.concatenate((found, np.array(others, np.int64))))

    def _relocations(self, parents: Int64Array) -> _Relocations:
        """The relocations of these blocks."""
        edges = self.graph.edge_table
        if len(parents) == 1:
            rows = rows_where(edges.block == parents[0])
            return _Relocations(rows, np.zeros(len(rows), np.int64), edges.offset[rows])
        order, sorted_blocks = edges.by_block()
        first = sorted_blocks.searchsorted(parents)
        count = sorted_blocks.searchsorted(parents + 1) - first
        rows = order[ragged_arange(first, count)]
        return _Relocations(rows, np.arange(len(parents)).repeat(count), edges.offset[rows])

    def _skip(self, block: int, position: int, size: int) -> int:
        """End of the record at a position of a block."""
        view = self.graph.contents.view(int(self.graph.block_table.content[block]), size)
        length, position = self._number(block, view, position, 4)
        if length == _EXTENDED:
            length, position = self._number(block, view, position, 8)
        if length > size - position:
            raise self._fail(block, position, "record extends past the end of the section")
        return position + length

    def _number(self, block: int, view: memoryview, position: int, size: int) -> tuple[int, int]:
        """The integer of `size` bytes at a position, and the position behind it."""
        end = position + size
        if end > len(view):
            raise self._fail(block, position, "record is truncated")
        return int.from_bytes(view[position:end], self.graph.endianness), end

    # Reading the records

    def _read(self, parents: Int64Array, owners: Int64Array, starts: Int64Array) -> _Records:
        """Read the heads of all records, and find the CIE of each FDE."""
        table = self.graph.block_table
        numbers = np.zeros(len(owners), np.int64)
        numbers[1:] = (owners[1:] != owners[:-1]).cumsum()
        content = table.content[owners] + starts
        size = table.size[parents][numbers] - starts
        inner = rows_where(numbers[1:] == numbers[:-1])
        size[inner] = starts[inner + 1] - starts[inner]
        length = self._words(content)
        id_offset = np.where(length == _EXTENDED, 12, 4)
        is_terminator = length == 0
        is_record = size >= id_offset + 4
        is_record &= ~is_terminator
        if np.count_nonzero(is_record) == len(size):
            identifier = self._words(content + id_offset)
        else:
            short = rows_where(~is_terminator & ~is_record)
            if len(short):
                place = int(owners[short[0]]), int(starts[short[0]])
                raise self._fail(*place, "record is too short")
            identifier = np.zeros(len(size), np.int64)
            identifier[is_record] = self._words((content + id_offset)[is_record])
        fdes = rows_where(identifier != 0)
        pointer_sizes = np.zeros(len(size), np.int64)
        cies = rows_where(is_record & (identifier == 0))
        columns = (column[cies].tolist() for column in (content, size, owners, starts))
        pointer_sizes[cies] = [
            self._pointer_size(self.graph.contents.view(reference, length), *place)
            for reference, length, *place in zip(*columns, strict=True)
        ]
        cies = self._find_cies(fdes, owners, numbers, starts, id_offset, identifier, pointer_sizes)
        # There may be no gaps between records: padding of zeros would be a terminator.
        alignment = 4 if (size & 3 == 0).all() else 1
        is_plain = is_record & (id_offset == 4)
        return _Records(owners, numbers, starts, alignment, id_offset, fdes, cies, is_plain)

    # Sections that stay whole

    def _described_code(
        self, parents: Int64Array, relocations: _Relocations, records: _Records
    ) -> Int64Array | None:
        """The block row of the code that each FDE describes, or -1 (int64).

        None if relocations are not in order, or no section can stay whole.
        """
        fdes = records.fdes
        span = int(self.graph.block_table.size[parents].max()) + 1
        keys = relocations.number * span + relocations.offset
        if not (self.leaves_whole and len(fdes) and len(keys)) or (keys[1:] < keys[:-1]).any():
            return None
        wanted = records.numbers[fdes] * span + records.starts[fdes] + records.id_offset[fdes] + 4
        if np.array_equal(keys, wanted):
            index = np.arange(len(keys))  # Frames of C have no other relocations.
        else:
            index = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
        symbols = self.graph.symbol_table
        target = self.graph.edge_table.target[relocations.edge[index]]
        is_defined = (keys[index] == wanted) & (symbols.kind[target] == DEFINED)
        code: Int64Array = np.where(is_defined, symbols.block[target], -1)
        return code

    def _leave_whole(
        self,
        parents: Int64Array,
        relocations: _Relocations,
        records: _Records,
        code: Int64Array,
    ) -> BoolArray:
        """Keep sections alive as one block where that is possible; returns which (bool)."""
        # LLVM differs: it splits all sections. Most code is compiled without a section for each
        # function, and then dead-stripping keeps or removes all records of an object. Where all
        # functions are exported, none is removed.
        count, of_fde = len(parents), records.numbers[records.fdes]
        first = rows_where(np.append(True, of_fde[1:] != of_fde[:-1]))
        owner = of_fde[first]
        lowest, highest = np.minimum.reduceat(code, first), np.maximum.reduceat(code, first)
        may_stay, is_one = np.zeros((2, count), np.bool_)
        may_stay[owner], is_one[owner] = lowest >= 0, lowest == highest
        may_stay[records.numbers[~records.is_plain]] = False
        is_parent = np.zeros(self.graph.block_table.rows, np.bool_)
        is_parent[parents] = True
        may_stay[of_fde[is_parent[code]]] = False
        is_live = np.zeros(count, np.bool_)
        if self.is_marked:
            marked = marked_blocks(self.graph)
            is_live[owner] = marked[lowest]
            if not is_one[owner].all():
                is_live[owner] = np.logical_and.reduceat(marked[code], first)
            # Functions depend on what other relocations refer to, personalities and LSDAs.
            others = relocations.number.searchsorted(np.arange(count + 1))
            is_live &= may_stay & (np.bincount(of_fde, minlength=count) == np.diff(others))
            self._keep_live(parents[is_live], records.alignment)
        is_one &= may_stay & ~is_live
        one = np.zeros(count, np.int64)
        one[owner] = lowest
        self._keep_with(parents[is_one], one[is_one], records.alignment)
        return is_live | is_one

    def _keep_live(self, parents: Int64Array, alignment: int) -> None:
        """Keep sections in any case."""
        if not len(parents):
            return
        table = self.graph.block_table
        table.alignment[parents], table.alignment_offset[parents] = alignment, 0
        table.flags[parents] |= _LIVE

    def _keep_with(self, parents: Int64Array, code: Int64Array, alignment: int) -> None:
        """Add keep-alive edges from code to the sections that describe it."""
        if not len(parents):
            return
        table = self.graph.block_table
        table.alignment[parents], table.alignment_offset[parents] = alignment, 0
        symbols = self._add_symbols(parents)
        self.graph.edge_table.extend(len(code), block=code, kind=KEEP_ALIVE, target=symbols)

    # Splitting the others

    def _split_records(self, records: _Records, chosen: BoolArray) -> None:
        """Split the blocks of the chosen records, which are all records of these, and add edges."""
        split = self.graph.split_blocks(records.owners[chosen], records.starts[chosen])
        table = self.graph.block_table
        table.alignment[split], table.alignment_offset[split] = records.alignment, 0
        blocks = np.zeros(len(chosen), np.int64)
        blocks[chosen] = split
        symbols = np.zeros(len(chosen), np.int64)
        symbols[chosen] = self._add_symbols(split)
        here = chosen[records.fdes]
        fdes, cies = records.fdes[here], records.cies[here]
        self._add_edges(blocks[fdes], records.id_offset[fdes], symbols[fdes], symbols[cies])

    def _words(self, places: Int64Array) -> Int64Array:
        result = np.zeros(len(places), np.int64)
        for data, base, here in self.graph.contents.partition(places):
            words = np.ndarray((len(data) - 3,), self.word, data.data, strides=(1,))
            result[here] = words[places[here] - base]
        return result

    def _add_symbols(self, blocks: Int64Array) -> Int64Array:
        first = self.graph.symbol_table.extend(
            len(blocks), name=NO_NAME, kind=DEFINED, block=blocks, scope=Scope.LOCAL
        )
        return np.arange(first, first + len(blocks))

    def _find_cies(
        self,
        fdes: Int64Array,
        owners: Int64Array,
        numbers: Int64Array,
        starts: Int64Array,
        id_offset: Int64Array,
        identifier: Int64Array,
        pointer_sizes: Int64Array,
    ) -> Int64Array:
        """Indices (int64) of the CIEs that FDEs point to."""
        wanted = starts[fdes] + id_offset[fdes] - identifier[fdes]
        known = rows_where(pointer_sizes != 0)
        if len(known) == 1 and owners[0] == owners[-1] and (wanted == starts[known]).all():
            # The usual section of one object has one CIE.
            return known.repeat(len(fdes))
        # Records are sorted by block and start, so one key orders all of them.
        span = int(starts.max()) + 1
        keys = numbers * span + starts
        sought = numbers[fdes] * span + wanted
        index = np.minimum(keys.searchsorted(sought), len(keys) - 1)
        bad = (wanted < 0) | (keys[index] != sought) | (pointer_sizes[index] == 0)
        if bad.any():
            fde = fdes[rows_where(bad)[0]]
            raise self._fail(int(owners[fde]), int(starts[fde]), "FDE points to no CIE")
        return index

    def _add_edges(
        self,
        fdes: Int64Array,
        offset: Int64Array,
        symbols: Int64Array,
        cie_symbols: Int64Array,
    ) -> None:
        """Add edges from each FDE to its CIE, and keep-alive edges from functions to their FDEs."""
        functions, frames = self._functions(fdes, offset, symbols)
        at_start = np.zeros(len(functions), np.int64)
        self.graph.edge_table.extend(
            len(fdes) + len(functions),
            block=np.concatenate((fdes, functions)),
            offset=np.concatenate((offset, at_start)),
            kind=np.array((int(self.neg_delta32), KEEP_ALIVE)).repeat((len(fdes), len(functions))),
            target=np.concatenate((cie_symbols, frames)),
        )

    def _functions(
        self, fdes: Int64Array, id_offset: Int64Array, symbols: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """Block rows of functions, and the symbol row of the FDE of each."""
        edges, table = self.graph.edge_table, self.graph.symbol_table
        place = np.full(self.graph.block_table.rows, -1, np.int64)
        place[fdes] = id_offset + 4
        frame = np.full(self.graph.block_table.rows, -1, np.int64)
        frame[fdes] = symbols
        rows = rows_where(edges.offset == place[edges.block])
        target = edges.target[rows]
        # The function of an external reference or of a discarded COMDAT group has no block.
        defined = table.kind[target] == DEFINED
        rows, target = rows[defined], target[defined]
        return table.block[target], frame[edges.block[rows]]

    # CIEs

    def _pointer_size(self, cie: memoryview, block: int, start: int) -> int:
        """Size in bytes of the function pointers in the FDEs of a CIE in a block."""
        content = bytes(cie)
        known = self.pointer_sizes.get(content)
        if known is None:
            known = size_of_pointers(content, self.graph.pointer_size)
            if known == 0:
                raise self._fail(block, start, "CIE is malformed or not supported")
            self.pointer_sizes[content] = known
        return known
