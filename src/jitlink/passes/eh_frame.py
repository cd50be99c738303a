"""`.eh_frame` sections, taken apart so that frames live and die with their functions.

The section is a sequence of records: a CIE describes conventions, an FDE the frame of one
function. Each becomes a block. An FDE's pointer to its CIE becomes an edge (records between
them may go), its pointer to the function is a relocation that the object has anyway, and the
function gets a keep-alive edge to the FDE. So a live function keeps its frame, with
personality and language-specific data, and the frame of a dead function vanishes.

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
    *, neg_delta32: EdgeKind, section_name: str = SECTION
) -> Callable[[LinkGraph], None]:
    """A pre-prune pass that takes apart all sections of that name.

    Args:
        neg_delta32: edge kind for a 32-bit distance back to the target.
        section_name: name of the sections.
    """

    def split_eh_frames(graph: LinkGraph) -> None:
        _Splitter(graph, neg_delta32, section_name).run()

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


class _Splitter:
    def __init__(self, graph: LinkGraph, neg_delta32: EdgeKind, section_name: str) -> None:
        self.graph = graph
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
        owners, starts = self._records(parents)
        pieces = self.graph.split_blocks(owners, starts)
        # Records must follow one another without gaps: zeros between them would end the list.
        table = self.graph.block_table
        sizes = table.size[pieces]
        aligned = bool((sizes & 3 == 0).all())
        table.alignment[pieces] = 4 if aligned else 1
        table.alignment_offset[pieces] = 0
        self._connect(pieces, owners, starts)

    def _records(self, parents: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Block and offset (int64) of all records of these blocks, in order."""
        if int(self.graph.block_table.size[parents].sum()) <= _FEW_BYTES:
            return self._few_records(parents)
        guesses = self._guess(parents)
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

    def _guess(self, parents: Int64Array) -> _Guesses:
        """Where records may begin.

        An FDE has a relocation eight bytes into the record, so most records can be guessed from
        those, and all guesses are checked together.
        """
        table = self.graph.block_table
        number, offset = self._relocations(parents)
        offset -= 8
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

    def _relocations(self, parents: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Numbers of blocks, rising, and offsets of the relocations in them (int64)."""
        edges = self.graph.edge_table
        if len(parents) == 1:
            offset = edges.offset[rows_where(edges.block == parents[0])]
            return np.zeros(len(offset), np.int64), offset
        order, sorted_blocks = edges.by_block()
        first = sorted_blocks.searchsorted(parents)
        count = sorted_blocks.searchsorted(parents + 1) - first
        number = np.arange(len(parents)).repeat(count)
        return number, edges.offset[order[ragged_arange(first, count)]]

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

    def _connect(self, pieces: Int64Array, owners: Int64Array, starts: Int64Array) -> None:
        table = self.graph.block_table
        content, size = table.content[pieces], table.size[pieces]
        length = self._words(content)
        id_offset = np.where(length == _EXTENDED, 12, 4)
        is_mark = length == 0
        is_record = size >= id_offset + 4
        is_record &= ~is_mark
        if np.count_nonzero(is_record) == len(pieces):
            identifier = self._words(content + id_offset)
        else:
            short = rows_where(~is_mark & ~is_record)
            if len(short):
                place = int(owners[short[0]]), int(starts[short[0]])
                raise self._fail(*place, "record is too short")
            identifier = np.zeros(len(pieces), np.int64)
            identifier[is_record] = self._words((content + id_offset)[is_record])
        is_fde = rows_where(identifier != 0)
        is_cie = rows_where(is_record & (identifier == 0))
        symbols = self._add_symbols(pieces)
        pointer_sizes = np.zeros(len(pieces), np.int64)
        for piece in is_cie.tolist():
            pointer_sizes[piece] = self._pointer_size(int(pieces[piece]))
        cie = self._cie_of(is_fde, owners, starts, id_offset, identifier, pointer_sizes)
        self._add_edges(is_fde, pieces, id_offset, symbols, symbols[cie])

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
        starts: Int64Array,
        id_offset: Int64Array,
        identifier: Int64Array,
        pointer_sizes: Int64Array,
    ) -> Int64Array:
        """Piece numbers (int64) of the CIEs that FDEs name."""
        wanted = starts[fdes] + id_offset[fdes] - identifier[fdes]
        known = rows_where(pointer_sizes != 0)
        if len(known) == 1 and owners[0] == owners[-1] and (wanted == starts[known]).all():
            # The usual section of one object.
            return known.repeat(len(fdes))
        # Pieces ascend by owner, then by start, so one key orders them all.
        span = int(starts.max()) + 1
        rank = np.zeros(len(owners), np.int64)
        rank[1:] = (owners[1:] != owners[:-1]).cumsum()
        keys = rank * span + starts
        sought = rank[fdes] * span + wanted
        index = np.minimum(keys.searchsorted(sought), len(keys) - 1)
        bad = (wanted < 0) | (keys[index] != sought) | (pointer_sizes[index] == 0)
        if bad.any():
            piece = fdes[rows_where(bad)[0]]
            raise self._fail(int(owners[piece]), int(starts[piece]), "FDE names no CIE")
        return index

    def _add_edges(
        self,
        is_fde: Int64Array,
        pieces: Int64Array,
        id_offset: Int64Array,
        symbols: Int64Array,
        cie_symbols: Int64Array,
    ) -> None:
        """Connect each FDE with its CIE, and the function's block with its FDE."""
        fdes, offset = pieces[is_fde], id_offset[is_fde]
        functions, frames = self._functions(fdes, offset, symbols[is_fde])
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

    def _pointer_size(self, block: int) -> int:
        """Size in bytes of the function pointers in a CIE's FDEs."""
        table = self.graph.block_table
        view = self.graph.contents.view(int(table.content[block]), int(table.size[block]))
        content = bytes(view)
        known = self.pointer_sizes.get(content)
        if known is None:
            try:
                known = self._parse_cie(content)
            except IndexError:
                known = 0
            if known == 0:
                raise self._fail(block, int(table.address[block]), "CIE is not understood")
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
