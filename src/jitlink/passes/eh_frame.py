"""`.eh_frame` sections, taken apart so that frames live and die with their functions.

The section is a sequence of records: a CIE describes conventions, an FDE the frame of one
function. Each becomes a block. An FDE's pointer to its CIE becomes an edge (records between
them may go), its pointer to the function is a relocation that the object has anyway, and the
function gets a keep-alive edge to the FDE. So a live function keeps its frame, with
personality and language-specific data, and the frame of a dead function vanishes.
The section of an object whose frames are all of one block of code stays a block of its own: nothing
of it could go alone. Its records are checked all the same.

Quirks: the CIE pointer counts backwards from its own position; a record whose length field is
all ones has a 64-bit length, but a CIE pointer of 32 bits all the same; a record of length
zero ends the section; the record does not say how wide its pointers are, only its CIE's
augmentation string does. GNU as writes CIEs of version 3 for RISC-V, which LLVM refuses.

Specification: Linux Standard Base, "Exception Frames"; DWARF 5, section 6.4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jitlink.errors import ObjectError
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, Scope
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import KEEP_ALIVE, EdgeKind
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED

SECTION = ".eh_frame"
DW_EH_PE_OMIT = 0xFF
_EXTENDED = 0xFFFFFFFF
_ENCODED_SIZES = {0x00: 0, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_CIE_VERSIONS = (1, 3, 4)
_TERMINATOR = bytes(4)
_HEAD_SIZE = 64
_FEW_BYTES = 1024
"""Sections of so few bytes are read record by record: guessing takes as long as 30 of them."""
_LAST_ORIGIN = np.iinfo(np.int32).max


def eh_frame_pass(
    *, neg_delta32: EdgeKind, section_name: str = SECTION, leaves_whole: bool = True
) -> Callable[[LinkGraph], None]:
    """A pre-prune pass that takes apart all sections of that name.

    Args:
        neg_delta32: edge kind for a 32-bit distance back to the target.
        section_name: name of the sections.
        leaves_whole: whether the section of an object stays one block if all its frames are of
            one block of code: they live and die together all the same.
    """

    def split_eh_frames(graph: LinkGraph) -> None:
        _Splitter(graph, neg_delta32, section_name, leaves_whole=leaves_whole).run()

    return split_eh_frames


class FrameSection:
    """An `.eh_frame` section as an unwinder wants it: without gaps, and with an end.

    Args:
        graph: its graph.
        rows: rows (int64) of its records.
    """

    def __init__(self, graph: LinkGraph, rows: Int64Array) -> None:
        self._graph, self._rows = graph, rows

    @property
    def address(self) -> int:
        """Address of the first record, once memory is allocated."""
        return int(self._graph.block_table.address[self._rows].min())

    @property
    def end(self) -> int:
        """Address behind the record that ends it, once memory is allocated."""
        return Block(self._graph, int(self._rows[0])).section.range().end


def terminate_eh_frames(graph: LinkGraph, section_name: str = SECTION) -> list[FrameSection]:
    """End each section of that name with a record of length zero (for a post-prune pass).

    Returns:
        The sections that have any records left.
    """
    found, blocks = [], graph.block_table
    for ordinal in graph.section_list.ordinals_named(section_name):
        section = graph.section_list[ordinal]
        rows = section.block_rows()
        if len(rows) == 0 or section.mem_lifetime == MemLifetime.NO_ALLOC:
            continue
        # As little aligned as can be, and behind the records of all objects.
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
    """Content of a terminator: zeros of a record, for contents of one buffer are copied at once."""
    content = int(graph.block_table.content[record])
    view = graph.contents.view(content, min(int(graph.block_table.size[record]), _HEAD_SIZE))
    # The identifier of a CIE is zero.
    found = bytes(view).find(_TERMINATOR) if view.readonly else -1
    return content + found if found >= 0 else graph.contents.add(memoryview(_TERMINATOR))


class _Places(NamedTuple):
    """Relocations of several blocks, block by block in rising order.

    Attributes:
        edge: rows of their edges (int64).
        number: number of the block that each is in (int64).
        offset: where in it (int64).
    """

    edge: Int64Array
    number: Int64Array
    offset: Int64Array


class _Guesses(NamedTuple):
    """Where records of several blocks may begin, block by block in rising order.

    Attributes:
        offsets: the offsets (int64).
        bounds: number of the first guess of each block, and the end of the last.
        plain: whether a record can begin there that is neither a terminator nor extended.
        follow: where that record ends (int64).
        ends: numbers of the guesses that are not followed by the next one (int64).
    """

    offsets: Int64Array
    bounds: list[int]
    plain: BoolArray
    follow: Int64Array
    ends: Int64Array


class _Records(NamedTuple):
    """The records of several blocks, block by block in rising order.

    Attributes:
        owners: row of the block that each is in (int64).
        numbers: number of that block among all (int64).
        starts: where each begins in its block (int64).
        alignment: of all of them, so that they follow one another without gaps.
        id_offset: where the identifier of each is, from its start (int64).
        fdes: numbers of the FDEs (int64).
        cies: number of the CIE of each FDE (int64).
        is_plain: whether each is a CIE or an FDE whose length has 32 bits (bool).
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
    def __init__(
        self, graph: LinkGraph, neg_delta32: EdgeKind, section_name: str, *, leaves_whole: bool
    ) -> None:
        self.graph = graph
        self.leaves_whole = leaves_whole
        self.neg_delta32 = neg_delta32
        self.section_name = section_name
        self.word = np.dtype("<u4" if graph.endianness == "little" else ">u4")
        self.pointer_sizes: dict[bytes, int] = {}

    def run(self) -> None:
        table = self.graph.block_table
        ordinals = self.graph.section_list.ordinals_named(self.section_name)
        if not ordinals:
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
        places = self._relocations(parents)
        records = self._read(parents, *self._records(parents, places))
        code = self._code(parents, places, records)
        whole = code >= 0
        if np.count_nonzero(whole):
            self._keep_whole(parents[whole], code[whole], records.alignment)
        if not whole.all():
            self._cut(records, ~whole[records.numbers])

    def _records(self, parents: Int64Array, places: _Places) -> tuple[Int64Array, Int64Array]:
        """Block and offset (int64) of all records of these blocks, in order."""
        if int(self.graph.block_table.size[parents].sum()) <= _FEW_BYTES:
            return self._few_records(parents)
        guesses = self._guess(parents, places)
        owners: list[Int64Array] = []
        starts: list[Int64Array] = []
        for number, parent in enumerate(parents.tolist()):
            found = self._chain(parent, guesses, number)
            starts += found
            owners.append(np.full(sum(map(len, found)), parent, np.int64))
        return np.concatenate(owners), np.concatenate(starts)

    def _few_records(self, parents: Int64Array) -> tuple[Int64Array, Int64Array]:
        """`_records`, one by one."""
        owners: list[int] = []
        starts: list[int] = []
        for parent in parents.tolist():
            size, position = int(self.graph.block_table.size[parent]), 0
            while position < size:
                owners.append(parent)
                starts.append(position)
                position = self._skip(parent, position, size)
        return np.array(owners, np.int64), np.array(starts, np.int64)

    def _guess(self, parents: Int64Array, places: _Places) -> _Guesses:
        """Where records may begin.

        An FDE has a relocation eight bytes into the record, so most records can be guessed from
        those, and all guesses are checked together.
        """
        table = self.graph.block_table
        number, offset = places.number, places.offset - 8
        size = table.size[parents][number]
        inside = (offset >= 0) & (offset <= size - 12)
        number, offset, size = number[inside], offset[inside], size[inside]
        # As compilers write them, relocations are in order.
        same = number[1:] == number[:-1]
        if np.count_nonzero((offset[1:] < offset[:-1]) & same):
            # A stable sort keeps the numbers, and the sizes with them.
            offset = offset[np.lexsort((offset, number))]
        length = self._words(table.content[parents][number] + offset)
        follow = offset + 4 + length
        plain = (length != 0) & (length != _EXTENDED) & (follow <= size)
        last = np.ones(len(offset), np.bool_)
        last[:-1] = ~(plain[:-1] & plain[1:] & (follow[:-1] == offset[1:]) & same)
        ends = rows_where(last)
        bounds = number.searchsorted(np.arange(len(parents) + 1)).tolist()
        return _Guesses(offset, bounds, plain, follow, ends)

    def _relocations(self, parents: Int64Array) -> _Places:
        """The relocations in some blocks."""
        edges = self.graph.edge_table
        if len(parents) == 1:
            rows = rows_where(edges.block == parents[0])
            return _Places(rows, np.zeros(len(rows), np.int64), edges.offset[rows])
        order, sorted_blocks = edges.by_block()
        first = sorted_blocks.searchsorted(parents)
        count = sorted_blocks.searchsorted(parents + 1) - first
        rows = order[ragged_arange(first, count)]
        return _Places(rows, np.arange(len(parents)).repeat(count), edges.offset[rows])

    def _chain(self, block: int, guesses: _Guesses, number: int) -> list[Int64Array]:
        """Offsets (int64) of the records of one block, in runs.

        Only where the chain of lengths leaves the guesses is a record taken by itself.
        """
        size = int(self.graph.block_table.size[block])
        low, high = guesses.bounds[number], guesses.bounds[number + 1]
        found: list[Int64Array] = []
        position = 0
        while position < size:
            index = low + int(guesses.offsets[low:high].searchsorted(position))
            if index < high and guesses.offsets[index] == position and guesses.plain[index]:
                end = int(guesses.ends[guesses.ends.searchsorted(index)])
                found.append(guesses.offsets[index : end + 1])
                position = int(guesses.follow[end])
            else:
                found.append(np.array([position], np.int64))
                position = self._skip(block, position, size)
        return found

    def _skip(self, block: int, position: int, size: int) -> int:
        """The end of the record at a position of a block."""
        view = self.graph.contents.view(int(self.graph.block_table.content[block]), size)
        length, position = self._number(block, view, position, 4)
        if length == _EXTENDED:
            length, position = self._number(block, view, position, 8)
        if length > size - position:
            raise self._fail(block, position, "record extends past the end of the section")
        return position + length

    def _number(self, block: int, view: memoryview, position: int, size: int) -> tuple[int, int]:
        """A number of so many bytes, and the position behind it."""
        end = position + size
        if end > len(view):
            raise self._fail(block, position, "record is truncated")
        return int.from_bytes(view[position:end], self.graph.endianness), end

    # Connecting them

    def _read(self, parents: Int64Array, owners: Int64Array, starts: Int64Array) -> _Records:
        """Look at all records, and find the CIE of each FDE."""
        table = self.graph.block_table
        numbers = np.zeros(len(owners), np.int64)
        numbers[1:] = (owners[1:] != owners[:-1]).cumsum()
        content = table.content[owners] + starts
        size = table.size[parents][numbers] - starts
        inner = rows_where(numbers[1:] == numbers[:-1])
        size[inner] = starts[inner + 1] - starts[inner]
        length = self._words(content)
        id_offset = np.where(length == _EXTENDED, 12, 4)
        is_mark = length == 0
        is_record = size >= id_offset + 4
        is_record &= ~is_mark
        if np.count_nonzero(is_record) == len(size):
            identifier = self._words(content + id_offset)
        else:
            short = rows_where(~is_mark & ~is_record)
            if len(short):
                place = int(owners[short[0]]), int(starts[short[0]])
                raise self._fail(*place, "record is too short")
            identifier = np.zeros(len(size), np.int64)
            identifier[is_record] = self._words((content + id_offset)[is_record])
        fdes = rows_where(identifier != 0)
        pointer_sizes = np.zeros(len(size), np.int64)
        for number in rows_where(is_record & (identifier == 0)).tolist():
            view = self.graph.contents.view(int(content[number]), int(size[number]))
            pointer_sizes[number] = self._pointer_size(
                view, int(owners[number]), int(starts[number])
            )
        cies = self._cie_of(fdes, owners, numbers, starts, id_offset, identifier, pointer_sizes)
        # Records must follow one another without gaps: zeros between them would end the list.
        alignment = 4 if (size & 3 == 0).all() else 1
        is_plain = is_record & (id_offset == 4)
        return _Records(owners, numbers, starts, alignment, id_offset, fdes, cies, is_plain)

    # What can stay as it is

    def _code(self, parents: Int64Array, places: _Places, records: _Records) -> Int64Array:
        """For each block the one (int64) whose frames are all that it has; -1 if there is none."""
        # LLVM differs: it takes all sections apart. These live and die with that one block, and
        # most code is compiled without a section for each function.
        found = np.full(len(parents), -1, np.int64)
        fdes = records.fdes
        span = int(self.graph.block_table.size[parents].max()) + 1
        keys = places.number * span + places.offset
        if not (self.leaves_whole and len(fdes) and len(keys)) or (keys[1:] < keys[:-1]).any():
            return found
        of_fde = records.numbers[fdes]
        wanted = of_fde * span + records.starts[fdes] + records.id_offset[fdes] + 4
        index = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
        symbols, target = self.graph.symbol_table, self.graph.edge_table.target[places.edge[index]]
        is_there = (keys[index] == wanted) & (symbols.kind[target] == DEFINED)
        code = np.where(is_there, symbols.block[target], -1)
        first = rows_where(np.concatenate((np.ones(1, np.bool_), of_fde[1:] != of_fde[:-1])))
        lowest, highest = np.minimum.reduceat(code, first), np.maximum.reduceat(code, first)
        found[of_fde[first]] = np.where(lowest == highest, lowest, -1)
        found[records.numbers[~records.is_plain]] = -1
        is_parent = np.zeros(self.graph.block_table.rows, np.bool_)
        is_parent[parents] = True
        found[is_parent[found]] = -1
        return found

    def _keep_whole(self, parents: Int64Array, code: Int64Array, alignment: int) -> None:
        """Let code keep its frames."""
        table = self.graph.block_table
        table.alignment[parents], table.alignment_offset[parents] = alignment, 0
        symbols = self._add_symbols(parents)
        self.graph.edge_table.extend(len(code), block=code, kind=KEEP_ALIVE, target=symbols)

    # Taking the others apart

    def _cut(self, records: _Records, chosen: BoolArray) -> None:
        """Make blocks of some records, all those of their blocks, and connect them."""
        made = self.graph.split_blocks(records.owners[chosen], records.starts[chosen])
        table = self.graph.block_table
        table.alignment[made], table.alignment_offset[made] = records.alignment, 0
        pieces = np.zeros(len(chosen), np.int64)
        pieces[chosen] = made
        symbols = np.zeros(len(chosen), np.int64)
        symbols[chosen] = self._add_symbols(made)
        here = chosen[records.fdes]
        fdes, cies = records.fdes[here], records.cies[here]
        self._add_edges(pieces[fdes], records.id_offset[fdes], symbols[fdes], symbols[cies])

    def _words(self, places: Int64Array) -> Int64Array:
        result = np.zeros(len(places), np.int64)
        for data, base, here in self.graph.contents.partition(places):
            words = np.ndarray((len(data) - 3,), self.word, data.data, strides=(1,))
            result[here] = words[places[here] - base]
        return result

    def _add_symbols(self, pieces: Int64Array) -> Int64Array:
        first = self.graph.symbol_table.extend(
            len(pieces), name=NO_NAME, kind=DEFINED, block=pieces, scope=Scope.LOCAL
        )
        return np.arange(first, first + len(pieces))

    def _cie_of(
        self,
        fdes: Int64Array,
        owners: Int64Array,
        numbers: Int64Array,
        starts: Int64Array,
        id_offset: Int64Array,
        identifier: Int64Array,
        pointer_sizes: Int64Array,
    ) -> Int64Array:
        """Numbers (int64) of the CIEs that FDEs name."""
        wanted = starts[fdes] + id_offset[fdes] - identifier[fdes]
        known = rows_where(pointer_sizes != 0)
        if len(known) == 1 and owners[0] == owners[-1] and (wanted == starts[known]).all():
            # The usual section of one object.
            return known.repeat(len(fdes))
        # Pieces ascend by owner, then by start, so one key orders them all.
        span = int(starts.max()) + 1
        keys = numbers * span + starts
        sought = numbers[fdes] * span + wanted
        index = np.minimum(keys.searchsorted(sought), len(keys) - 1)
        bad = (wanted < 0) | (keys[index] != sought) | (pointer_sizes[index] == 0)
        if bad.any():
            piece = fdes[rows_where(bad)[0]]
            raise self._fail(int(owners[piece]), int(starts[piece]), "FDE names no CIE")
        return index

    def _add_edges(
        self,
        fdes: Int64Array,
        offset: Int64Array,
        symbols: Int64Array,
        cie_symbols: Int64Array,
    ) -> None:
        """Connect each FDE with its CIE, and the function's block with its FDE."""
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
        """Block rows of functions, and for each the symbol row of its FDE."""
        edges, table = self.graph.edge_table, self.graph.symbol_table
        place = np.full(self.graph.block_table.rows, -1, np.int64)
        place[fdes] = id_offset + 4
        frame = np.full(self.graph.block_table.rows, -1, np.int64)
        frame[fdes] = symbols
        rows = rows_where(edges.offset == place[edges.block])
        target = edges.target[rows]
        # The function of a discarded COMDAT group is not there any more.
        defined = table.kind[target] == DEFINED
        rows, target = rows[defined], target[defined]
        return table.block[target], frame[edges.block[rows]]

    # CIEs

    def _pointer_size(self, cie: memoryview, block: int, start: int) -> int:
        """Size in bytes of the function pointers in the FDEs of a CIE in a block."""
        content = bytes(cie)
        known = self.pointer_sizes.get(content)
        if known is None:
            try:
                known = self._parse_cie(content)
            except IndexError:
                known = 0
            if known == 0:
                raise self._fail(block, start, "CIE is not understood")
            self.pointer_sizes[content] = known
        return known

    def _parse_cie(self, content: bytes) -> int:
        """The size that a CIE says; 0 if it is malformed, IndexError if it is truncated."""
        position = 16 if content[:4] == b"\xff\xff\xff\xff" else 8
        version = content[position]
        end = content.find(b"\0", position + 1)
        if version not in _CIE_VERSIONS or end < 0:
            return 0
        augmentation = content[position + 1 : end]
        position = end + 1
        if version == 4:
            position += 2
        position = _skip_leb(content, _skip_leb(content, position))
        position = position + 1 if version == 1 else _skip_leb(content, position)
        pointer_size = self.graph.pointer_size
        if not augmentation.startswith(b"z"):
            return pointer_size if augmentation in (b"", b"eh") else 0
        position = _skip_leb(content, position)
        for letter in augmentation[1:]:
            if letter == ord("R"):
                pointer_size = self._encoded_size(content[position])
                position += 1
            elif letter == ord("L"):
                position += 1
            elif letter == ord("P"):
                position += 1 + self._encoded_size(content[position])
            elif letter not in b"SBG":
                return 0
        return pointer_size

    def _encoded_size(self, encoding: int) -> int:
        """Size in bytes of a pointer of a DW_EH_PE encoding; IndexError if it has none."""
        if encoding == DW_EH_PE_OMIT or encoding & 0xF not in _ENCODED_SIZES:
            raise IndexError(encoding)
        return _ENCODED_SIZES[encoding & 0xF] or self.graph.pointer_size


def _skip_leb(content: bytes, position: int) -> int:
    while content[position] & 0x80:
        position += 1
    return position + 1
