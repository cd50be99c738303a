"""ELF relocatable objects, many at a time: bytes to sections, blocks, symbols and raw relocations.

The reader works on a *batch*: a buffer (a mapped archive, a mapped object, small files read
side by side) with the positions of the objects in it. Headers, section headers, symbols and
relocations of all objects are read as columns, so a thousand small objects cost little more
than one large one. Nothing here knows a relocation type: `read_objects` returns them raw and
a target turns them into edges.

Every ELF section with content becomes one block; the blocks of sections of one name,
protection and lifetime share a graph section. Every symbol-table entry becomes a symbol row
at a fixed distance from its index, so relocations need no look-up.

Quirks: the section count and the index of the name table move into section header 0 when
they do not fit (SHN_XINDEX); MIPS64 stores r_info in an order of its own (not handled here);
sections of type SHT_NOBITS have sizes that no file backs.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from jitlink.errors import ObjectError, UnsupportedObjectError
from jitlink.formats.compression import decompress_section
from jitlink.formats.crel import decode_crel
from jitlink.formats.elf_layout import (
    ELFCLASS64,
    ELFDATA2LSB,
    ELFDATA2MSB,
    ET_REL,
    GRP_COMDAT,
    MAGIC,
    RECORD_LAYOUTS,
    SHF_ALLOC,
    SHF_COMPRESSED,
    SHF_EXCLUDE,
    SHF_EXECINSTR,
    SHF_GNU_RETAIN,
    SHF_WRITE,
    SHN_ABS,
    SHN_COMMON,
    SHN_LORESERVE,
    SHN_UNDEF,
    SHN_X86_64_LCOMMON,
    SHN_XINDEX,
    SHT_CREL,
    SHT_GROUP,
    SHT_LLVM_ADDRSIG,
    SHT_NOBITS,
    SHT_NULL,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    SHT_SYMTAB_SHNDX,
    STB_GNU_UNIQUE,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    STT_FUNC,
    STT_GNU_IFUNC,
    STT_TLS,
    Identity,
)
from jitlink.formats.records import Records, gather
from jitlink.graph import (
    BlockFlags,
    MemLifetime,
    MemProt,
    Scope,
    SymbolFlags,
    SymbolKind,
)
from jitlink.graph.columns import BoolArray, Int64Array, UInt8Array, ragged_arange, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import NO_BLOCK, LinkGraph
from jitlink.graph.strings import NO_NAME

_METADATA_TYPES = (
    SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_REL, SHT_CREL, SHT_GROUP,
    SHT_SYMTAB_SHNDX, SHT_LLVM_ADDRSIG,
)  # fmt: skip
_EXTERNAL = int(SymbolKind.EXTERNAL)
_WEAKLY_REFERENCED = int(SymbolFlags.WEAKLY_REFERENCED)
_COMMON, _UNIQUE = np.uint8(SymbolFlags.COMMON), np.uint8(SymbolFlags.UNIQUE)
_SCOPES = np.array([Scope.DEFAULT, Scope.HIDDEN, Scope.HIDDEN, Scope.DEFAULT], np.uint8)
"""Scope by visibility: STV_DEFAULT, STV_INTERNAL, STV_HIDDEN, STV_PROTECTED."""
_TYPE_FLAGS = np.zeros(16, np.uint8)
"""Flags of a definition by symbol type."""
_TYPE_FLAGS[STT_FUNC] = SymbolFlags.CALLABLE
_TYPE_FLAGS[STT_GNU_IFUNC] = SymbolFlags.CALLABLE | SymbolFlags.INDIRECT
_TYPE_FLAGS[STT_TLS] = SymbolFlags.THREAD_LOCAL
_PROTECTIONS = {
    write | alloc | execute: (
        MemProt.READ
        | (MemProt.WRITE if write else MemProt.NONE)
        | (MemProt.EXEC if execute else MemProt.NONE),
        MemLifetime.STANDARD if alloc else MemLifetime.NO_ALLOC,
    )
    for write in (0, SHF_WRITE)
    for alloc in (0, SHF_ALLOC)
    for execute in (0, SHF_EXECINSTR)
}
_MAX_NOBITS = 1 << 47
"""No user address space is larger, so a larger zero-fill section is a corrupt one."""


@dataclass(frozen=True)
class Batch:
    """Objects that lie in one buffer.

    Attributes:
        buffer: the bytes that hold all of them.
        names: display name of each object.
        starts: position of each object in the buffer (int64, shape (n,)).
        sizes: size of each object in bytes (int64, shape (n,)).
    """

    buffer: memoryview
    names: Sequence[str]
    starts: Int64Array
    sizes: Int64Array


@dataclass
class RawRelocations:
    """Relocations as the file has them; arrays of equal length, one element each.

    Attributes:
        block: row of the block to be modified (int64).
        offset: offset in that block (int64).
        type: relocation type (int64).
        symbol: row of the symbol referred to (int64).
        addend: explicit addend (int64); zero where `implicit`.
        implicit: whether the addend stands in the block's content (bool).
    """

    block: Int64Array
    offset: Int64Array
    type: Int64Array
    symbol: Int64Array
    addend: Int64Array
    implicit: BoolArray


@dataclass
class Comdats:
    """COMDAT groups and their members.

    Attributes:
        signature: reference of the name of each group (int64).
        member_group: number of the group of each member, ascending (int64).
        member_block: block row of each member (int64).
    """

    signature: Int64Array
    member_group: Int64Array
    member_block: Int64Array


@dataclass
class ReadObjects:
    """What `read_objects` added to a graph.

    Attributes:
        first_origin: number of the first object in ``graph.origins``.
        first_symbol: row of the first symbol-table entry of each object (int64).
        symbol_counts: number of symbol-table entries of each object (int64).
        relocations: all relocations of the batch.
        comdats: the COMDAT groups.
    """

    first_origin: int
    first_symbol: Int64Array
    symbol_counts: Int64Array
    relocations: RawRelocations
    comdats: Comdats

    @property
    def null_symbols(self) -> Int64Array:
        """Rows of the null symbols, which every symbol table begins with."""
        return self.first_symbol[self.symbol_counts > 0]

    @property
    def last_symbol(self) -> int:
        """One past the last symbol row that was added."""
        return int(self.first_symbol[-1] + self.symbol_counts[-1])


def read_objects(graph: LinkGraph, batch: Batch, identity: Identity) -> ReadObjects:
    """Add the sections, blocks and symbols of all objects of a batch to a graph.

    Raises:
        ObjectError: an object is malformed; the graph is then of no further use.
        UnsupportedObjectError: an object is not relocatable or not for `identity`.
    """
    return _Reader(graph, batch, identity).read()


def _int64(column: Any) -> Int64Array:
    return np.asarray(column).astype(np.int64)


class _Reader:
    """One run of `read_objects`: a list of steps, each over all objects of the batch."""

    def __init__(self, graph: LinkGraph, batch: Batch, identity: Identity) -> None:
        self.graph = graph
        self.batch = batch
        self.identity = identity
        data = ELFDATA2LSB if identity.byte_order == "little" else ELFDATA2MSB
        self.layout = RECORD_LAYOUTS[identity.elf_class, data]
        self.data: UInt8Array = np.frombuffer(batch.buffer, np.uint8)
        self.content_base = graph.contents.add(batch.buffer)
        self.first_origin = len(graph.origins)
        graph.origins.extend(batch.names)

    def read(self) -> ReadObjects:
        self._read_headers()
        self._read_sections()
        self._read_strings()
        self._add_blocks()
        self._read_symbols()
        self._add_symbols()
        return ReadObjects(
            self.first_origin,
            self.symbol_base,
            self.symbol_counts,
            self._read_relocations(),
            self._read_groups(),
        )

    # Errors. Checks are made on whole columns; the first failing row tells what and where.

    def _fail(self, object_number: int, offset: int | None, message: str) -> NoReturn:
        raise ObjectError(message, file=self.batch.names[object_number], offset=offset)

    def _check_sections(self, bad: BoolArray, message: str) -> None:
        if np.count_nonzero(bad):
            row = int(rows_where(bad)[0])
            number = int(self.section_object[row])
            index = row - int(self.section_base[number])
            offset = int(self.shoff[number]) + index * self.layout.section.itemsize
            self._fail(number, offset, f"section {index}: {message}")

    def _check_symbols(self, bad: BoolArray, message: str) -> None:
        if np.count_nonzero(bad):
            entry = int(rows_where(bad)[0])
            number = int(np.searchsorted(self.entry_base, entry, side="right")) - 1
            index = entry - int(self.entry_base[number])
            self._fail(number, None, f"symbol {index}: {message}")

    # Headers

    def _read_headers(self) -> None:
        starts, sizes, names = self.batch.starts, self.batch.sizes, self.batch.names
        short = rows_where(sizes < self.layout.header.itemsize)
        if len(short):
            self._fail(int(short[0]), 0, "ELF header is truncated")
        headers = gather(self.data, self.layout.header, starts)
        wrong = (
            (headers["ident"][:, :4] != np.frombuffer(MAGIC, np.uint8)).any(axis=1)
            | (headers["ident"][:, 4] != self.identity.elf_class)
            | (headers["ident"][:, 5] != (1 if self.identity.byte_order == "little" else 2))
            | (headers["machine"] != self.identity.machine)
        )
        for number in rows_where(wrong)[:1].tolist():
            message = "not an ELF object of the same machine, class and byte order as the others"
            raise UnsupportedObjectError(message, file=names[number], offset=0)
        for number in rows_where(headers["type"] != ET_REL)[:1].tolist():
            message = f"ELF file type {headers['type'][number]} is not relocatable"
            raise UnsupportedObjectError(message, file=names[number], offset=16)
        self._count_sections(headers)

    def _count_sections(self, headers: Records) -> None:
        sizes, record = self.batch.sizes, self.layout.section.itemsize
        shoff = _int64(headers["shoff"])
        shnum = _int64(headers["shnum"])
        strndx = _int64(headers["shstrndx"])
        has_table = shoff != 0
        bad = has_table & (_int64(headers["shentsize"]) != record)
        bad |= (shoff < 0) | (has_table & (shoff > sizes - record))
        if np.count_nonzero(bad):
            self._fail(int(rows_where(bad)[0]), 0, "section header table lies outside the file")
        extended = rows_where(has_table & ((shnum == 0) | (strndx == SHN_XINDEX)))
        if len(extended):
            zero = gather(self.data, self.layout.section, (self.batch.starts + shoff)[extended])
            shnum[extended] = np.where(shnum[extended] == 0, _int64(zero["size"]), shnum[extended])
            strndx[extended] = np.where(
                strndx[extended] == SHN_XINDEX, _int64(zero["link"]), strndx[extended]
            )
        shnum[~has_table] = 0
        bad = has_table & ((shnum < 1) | (shnum > (sizes - shoff) // record))
        bad |= has_table & (strndx >= shnum)
        if np.count_nonzero(bad):
            self._fail(int(rows_where(bad)[0]), 0, "section header table lies outside the file")
        self.shoff, self.shnum, self.shstrndx = shoff, shnum, strndx

    # Sections

    def _read_sections(self) -> None:
        starts, shnum, record = self.batch.starts, self.shnum, self.layout.section.itemsize
        self.section_base = shnum.cumsum() - shnum
        self.section_object = np.arange(len(shnum)).repeat(shnum)
        index = ragged_arange(np.zeros(len(shnum), np.int64), shnum)
        positions = (starts + self.shoff)[self.section_object] + index * record
        sections = gather(self.data, self.layout.section, positions)
        self.sh_name = _int64(sections["name"])
        self.sh_type = _int64(sections["type"])
        self.sh_flags = _int64(sections["flags"])
        self.sh_offset = _int64(sections["offset"])
        self.sh_size = _int64(sections["size"])
        self.sh_link = _int64(sections["link"])
        self.sh_info = _int64(sections["info"])
        self.sh_align = _int64(sections["addralign"])
        self.sh_entsize = _int64(sections["entsize"])
        self._check_section_bounds()
        # From here on positions are in the buffer, not in the file.
        self.sh_position = self.sh_offset + starts[self.section_object]

    def _check_section_bounds(self) -> None:
        file_size = self.batch.sizes[self.section_object]
        backed = (self.sh_type != SHT_NOBITS) & (self.sh_type != SHT_NULL)
        outside = (self.sh_offset < 0) | (self.sh_size < 0)
        outside |= (self.sh_offset > file_size) | (self.sh_size > file_size - self.sh_offset)
        self._check_sections(backed & outside, "content lies outside the file")
        huge = (self.sh_size < 0) | (self.sh_size > _MAX_NOBITS)
        self._check_sections((self.sh_type == SHT_NOBITS) & huge, "size is beyond any memory")
        odd = _is_odd_alignment(self.sh_align) & (self.sh_type != SHT_NULL)
        self._check_sections(odd, "alignment is not a power of two")
        self.sh_align = np.maximum(self.sh_align, 1)

    def _linked(self, rows: Int64Array, link: Int64Array) -> Int64Array:
        """Section rows that `link` (a column of section indices) names, range-checked."""
        number = self.section_object[rows]
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[rows] = (link[rows] < 0) | (link[rows] >= self.shnum[number])
        self._check_sections(bad, "refers to a section that does not exist")
        return self.section_base[number] + link[rows]

    def _read_strings(self) -> None:
        """Take over the string tables of all objects, and find the symbol tables."""
        objects = len(self.shnum)
        self.symtab = np.full(objects, -1, np.int64)
        tables = rows_where(self.sh_type == SHT_SYMTAB)
        owners = self.section_object[tables]
        second = np.zeros(len(self.sh_type), np.bool_)
        second[tables[1:]] = owners[1:] == owners[:-1]
        self._check_sections(second, "is a second symbol table")
        self.symtab[owners] = tables
        name_tables = self.section_base + self.shstrndx
        name_tables = np.where((self.shnum > 0) & (self.shstrndx > 0), name_tables, -1)
        string_tables = np.full(objects, -1, np.int64)
        string_tables[owners] = self._linked(tables, self.sh_link)
        self._adopt_string_tables(name_tables, string_tables)

    def _adopt_string_tables(self, name_tables: Int64Array, string_tables: Int64Array) -> None:
        used = np.concatenate((name_tables, string_tables))
        rows = np.unique(used[used >= 0])
        wrong = np.zeros(len(self.sh_type), np.bool_)
        wrong[rows] = self.sh_type[rows] != SHT_STRTAB
        self._check_sections(wrong, "is used as a string table but is none")
        position, size = self.sh_position[rows], self.sh_size[rows]
        view = self.batch.buffer
        pieces = [
            view[start : start + length]
            for start, length in zip(position.tolist(), size.tolist(), strict=True)
        ]
        # The separator ends a last name that the file does not terminate.
        base = self.graph.strings.add_table(b"\0".join(pieces) + b"\0")
        references = np.full(len(self.sh_type) + 1, NO_NAME, np.int64)
        references[rows] = base + np.cumsum(size + 1) - (size + 1)
        sizes = np.zeros(len(self.sh_type) + 1, np.int64)
        sizes[rows] = size
        self.name_base, self.name_limit = references[name_tables], sizes[name_tables]
        self.string_base, self.string_limit = references[string_tables], sizes[string_tables]

    def _section_names(self, rows: Int64Array) -> list[str]:
        number = self.section_object[rows]
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[rows] = self.sh_name[rows] >= np.maximum(self.name_limit[number], 1)
        self._check_sections(bad, "name lies outside the section name table")
        references = self.name_base[number]
        references = np.where(references < 0, NO_NAME, references + self.sh_name[rows])
        return self.graph.strings.get_many(references)

    # Blocks

    def _add_blocks(self) -> None:
        kept = ~_is_one_of(self.sh_type, _METADATA_TYPES)
        kept &= (self.sh_flags & SHF_EXCLUDE) == 0
        rows = rows_where(kept)
        flags, size = self.sh_flags[rows], self.sh_size[rows].copy()
        nobits = self.sh_type[rows] == SHT_NOBITS
        content = np.where(nobits, ZERO_FILL, self.content_base + self.sh_position[rows])
        alignment = self.sh_align[rows].copy()
        self._decompress(rows, flags, content, size, alignment)
        ordinals = self._graph_sections(self._section_names(rows), flags)
        self.first_block = self.graph.block_table.extend(
            len(rows),
            section=ordinals,
            origin=self.first_origin + self.section_object[rows],
            size=size,
            alignment=alignment,
            content=content,
            flags=np.where(flags & SHF_GNU_RETAIN, int(BlockFlags.LIVE), 0),
        )
        self.section_block = np.full(len(self.sh_type), NO_BLOCK, np.int64)
        self.section_block[rows] = np.arange(self.first_block, self.first_block + len(rows))

    def _graph_sections(self, names: list[str], flags: Int64Array) -> Int64Array:
        """Ordinals of the graph sections for ELF sections with these names and flags."""
        codes = flags & (SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR)
        known: dict[tuple[str, int], int] = {}
        ordinals = []
        for key in zip(names, codes.tolist(), strict=True):
            ordinal = known.get(key)
            if ordinal is None:
                name, code = key
                prot, lifetime = _PROTECTIONS[code]
                ordinal = self.graph.obtain_section(name, prot, lifetime).ordinal
                known[key] = ordinal
            ordinals.append(ordinal)
        return np.array(ordinals, np.int64)

    def _decompress(
        self,
        rows: Int64Array,
        flags: Int64Array,
        content: Int64Array,
        size: Int64Array,
        alignment: Int64Array,
    ) -> None:
        compressed = rows_where((flags & SHF_COMPRESSED != 0) & (content != ZERO_FILL))
        for each in compressed.tolist():
            row = int(rows[each])
            start = int(self.sh_position[row])
            data, alignment[each] = decompress_section(
                self.batch.buffer[start : start + int(self.sh_size[row])],
                wide=self.identity.elf_class == ELFCLASS64,
                byte_order=self.identity.byte_order,
                file=self.batch.names[int(self.section_object[row])],
                offset=int(self.sh_offset[row]),
            )
            content[each] = self.graph.contents.add(data)
            size[each] = len(data)

    # Symbols

    def _read_symbols(self) -> None:
        tables = self.symtab[self.symtab >= 0]
        record = self.layout.symbol.itemsize
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[tables] = (self.sh_entsize[tables] != record) | (self.sh_size[tables] % record != 0)
        self._check_sections(bad, "is a symbol table of odd size")
        self.symbol_counts = np.zeros(len(self.symtab), np.int64)
        owners = self.section_object[tables]
        self.symbol_counts[owners] = self.sh_size[tables] // record
        self.entry_base = self.symbol_counts.cumsum() - self.symbol_counts
        self.entry_object = np.arange(len(self.symtab)).repeat(self.symbol_counts)
        counts = self.symbol_counts[owners]
        index = ragged_arange(np.zeros(len(tables), np.int64), counts)
        positions = self.sh_position[tables].repeat(counts) + index * record
        self.entries = gather(self.data, self.layout.symbol, positions)
        self.st_index = index
        self.st_shndx = self._section_indices()

    def _section_indices(self) -> Int64Array:
        """st_shndx of all entries, with SHN_XINDEX replaced; reserved ones become negative."""
        raw = _int64(self.entries["shndx"])
        result = np.where(raw >= SHN_LORESERVE, raw - 0x10000, raw)
        extended = rows_where(raw == SHN_XINDEX)
        if len(extended) == 0:
            return result
        tables = rows_where(self.sh_type == SHT_SYMTAB_SHNDX)
        table_of = np.full(len(self.symtab), -1, np.int64)
        table_of[self.section_object[tables]] = tables
        table = table_of[self.entry_object[extended]]
        index = self.st_index[extended]
        bad = np.zeros(len(raw), np.bool_)
        bad[extended] = (table < 0) | ((index + 1) * 4 > self.sh_size[table])
        self._check_symbols(bad, "has no entry in the table of extended section indices")
        word = np.dtype("<u4" if self.identity.byte_order == "little" else ">u4")
        result[extended] = _int64(gather(self.data, word, self.sh_position[table] + index * 4))
        return result

    def _add_symbols(self) -> None:
        entries, shndx = self.entries, self.st_shndx
        info = _int64(entries["info"])
        binding, kind_of_symbol = info >> 4, info & 15
        value, size = _int64(entries["value"]), entries["size"].astype(np.uint64)
        number = self.entry_object
        self._check_symbols(shndx >= self.shnum[number], "lies in a section that does not exist")
        known = (binding <= STB_WEAK) | (binding == STB_GNU_UNIQUE)
        self._check_symbols(~known, "has an unknown binding")

        block = np.full(len(shndx), NO_BLOCK, np.int64)
        in_section = rows_where(shndx > 0)
        block[in_section] = self.section_block[
            self.section_base[number[in_section]] + shndx[in_section]
        ]
        is_common = (shndx == SHN_COMMON - 0x10000) | (shndx == SHN_X86_64_LCOMMON - 0x10000)
        is_absolute = shndx == SHN_ABS - 0x10000
        self._check_symbols(
            (shndx < 0) & ~is_common & ~is_absolute, "lies in an unknown reserved section"
        )
        local = binding == STB_LOCAL
        name = self._symbol_names(local)
        kind = np.full(len(shndx), int(SymbolKind.REMOVED), np.uint8)
        kind[(shndx == SHN_UNDEF) & ~local & (name != NO_NAME)] = _EXTERNAL
        kind[is_absolute] = SymbolKind.ABSOLUTE
        kind[block >= 0] = SymbolKind.DEFINED
        kind[kind_of_symbol == STT_FILE] = SymbolKind.REMOVED
        # The null symbol stands for none, whatever the file has there.
        null = self.entry_base[self.symbol_counts > 0]
        kind[null], block[null], value[null] = SymbolKind.REMOVED, NO_BLOCK, 0
        is_common[null] = False
        self._check_offsets(block, value)
        self._place_commons(is_common & (kind_of_symbol != STT_FILE), value, size, block, kind)

        external = kind == _EXTERNAL
        weak = ((binding == STB_WEAK) | (binding == STB_GNU_UNIQUE) | is_common) & ~external
        scope = _SCOPES[entries["other"] & 3]
        scope[external] = Scope.DEFAULT
        scope[local] = Scope.LOCAL
        flags = _TYPE_FLAGS[kind_of_symbol]
        flags[external] = np.where(binding[external] == STB_WEAK, _WEAKLY_REFERENCED, 0)
        flags[is_common] |= _COMMON
        flags[binding == STB_GNU_UNIQUE] |= _UNIQUE
        first = self.graph.symbol_table.extend(
            len(shndx),
            name=name,
            kind=kind,
            block=block,
            value=value.view(np.uint64),
            size=size,
            linkage=weak,
            scope=scope,
            flags=flags,
        )
        self.symbol_base = first + self.entry_base

    def _symbol_names(self, local: BoolArray) -> Int64Array:
        st_name = _int64(self.entries["name"])
        number = self.entry_object
        bad = (st_name >= self.string_limit[number]) & (st_name != 0)
        self._check_symbols(bad, "name lies outside the string table")
        return np.where(st_name == 0, NO_NAME, self.string_base[number] + st_name)

    def _check_offsets(self, block: Int64Array, value: Int64Array) -> None:
        rows = rows_where(block >= 0)
        bad = np.zeros(len(block), np.bool_)
        limit = self.graph.block_table.size[block[rows]]
        bad[rows] = (value[rows] < 0) | (value[rows] > limit)
        self._check_symbols(bad, "lies beyond the end of its section")

    def _place_commons(
        self,
        common: BoolArray,
        value: Int64Array,
        size: Any,
        block: Int64Array,
        kind: UInt8Array,
    ) -> None:
        """Give each tentative definition a zero-fill block of its own."""
        rows = rows_where(common)
        if len(rows) == 0:
            return
        alignment, sizes = np.maximum(value[rows], 1), size[rows].view(np.int64)
        bad = np.zeros(len(value), np.bool_)
        bad[rows] = _is_odd_alignment(value[rows])
        self._check_symbols(bad, "has an alignment that is not a power of two")
        bad[rows] = (sizes < 0) | (sizes > _MAX_NOBITS)
        self._check_symbols(bad, "has a size beyond any memory")
        section = self.graph.obtain_section(".common", MemProt.READ | MemProt.WRITE)
        first = self.graph.block_table.extend(
            len(rows),
            section=section.ordinal,
            origin=self.first_origin + self.entry_object[rows],
            size=sizes,
            alignment=alignment,
            content=ZERO_FILL,
        )
        block[rows] = np.arange(first, first + len(rows))
        value[rows] = 0
        kind[rows] = SymbolKind.DEFINED

    # Relocations and groups

    def _read_relocations(self) -> RawRelocations:
        rows = rows_where(_is_one_of(self.sh_type, (SHT_RELA, SHT_REL, SHT_CREL)))
        target = self._linked(rows, self.sh_info)
        self._check_symtab_links(rows)
        rows = rows[self.section_block[target] != NO_BLOCK]
        by_type = {each: rows[self.sh_type[rows] == each] for each in (SHT_REL, SHT_CREL)}
        parts = [self._fixed_relocations(rows[self.sh_type[rows] == SHT_RELA], self.layout.rela)]
        if len(by_type[SHT_REL]):
            parts.append(self._fixed_relocations(by_type[SHT_REL], self.layout.rel))
        parts += self._compact_relocations(by_type[SHT_CREL])
        section, offset, symbol, kind, addend, implicit = (
            parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        )
        number = self.section_object[section]
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[section[(symbol < 0) | (symbol >= self.symbol_counts[number])]] = True
        self._check_sections(bad, "has a relocation whose symbol does not exist")
        return RawRelocations(
            self.section_block[self.section_base[number] + self.sh_info[section]],
            offset,
            kind,
            self.symbol_base[number] + symbol,
            addend,
            implicit,
        )

    def _check_symtab_links(self, rows: Int64Array) -> None:
        linked = self._linked(rows, self.sh_link)
        bad = np.zeros(len(self.sh_type), np.bool_)
        # A relocation section without entries may name no symbol table.
        bad[rows] = (linked != self.symtab[self.section_object[rows]]) & (self.sh_link[rows] != 0)
        self._check_sections(bad, "is a relocation section that names no symbol table")

    def _fixed_relocations(self, rows: Int64Array, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        record = dtype.itemsize
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[rows] = (self.sh_entsize[rows] != record) | (self.sh_size[rows] % record != 0)
        self._check_sections(bad, "is a relocation section of odd size")
        counts = self.sh_size[rows] // record
        index = ragged_arange(np.zeros(len(rows), np.int64), counts)
        positions = self.sh_position[rows].repeat(counts) + index * record
        records = gather(self.data, dtype, positions)
        info = _int64(records["info"])
        explicit = "addend" in (dtype.names or ())
        shift = self.layout.symbol_shift
        return (
            rows.repeat(counts),
            _int64(records["offset"]),
            # int64 keeps the bits of an unsigned 64-bit r_info; the mask undoes the sign.
            (info >> shift) & 0xFFFFFFFF,
            info & ((1 << shift) - 1),
            _int64(records["addend"]) if explicit else np.zeros(len(records), np.int64),
            np.full(len(records), not explicit),
        )

    def _compact_relocations(self, rows: Int64Array) -> list[tuple[Any, ...]]:
        parts = []
        for row in rows.tolist():
            start = int(self.sh_position[row])
            offset, symbol, kind, addend, explicit = decode_crel(
                self.data[start : start + int(self.sh_size[row])],
                wide=self.identity.elf_class == ELFCLASS64,
                file=self.batch.names[int(self.section_object[row])],
                position=int(self.sh_offset[row]),
            )
            count = len(offset)
            section = np.full(count, row, np.int64)
            parts.append((section, offset, symbol, kind, addend, np.full(count, not explicit)))
        return parts

    def _read_groups(self) -> Comdats:
        rows = rows_where(self.sh_type == SHT_GROUP)
        if len(rows) == 0:
            return Comdats(rows, rows, rows)
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[rows] = (self.sh_size[rows] < 4) | (self.sh_size[rows] % 4 != 0)
        self._check_sections(bad, "is a section group of odd size")
        self._check_symtab_links(rows)
        number = self.section_object[rows]
        bad[rows] = (self.sh_info[rows] < 0) | (self.sh_info[rows] >= self.symbol_counts[number])
        self._check_sections(bad, "is a section group whose signature does not exist")
        word = np.dtype("<u4" if self.identity.byte_order == "little" else ">u4")
        first = _int64(gather(self.data, word, self.sh_position[rows]))
        rows = rows[first & GRP_COMDAT != 0]
        counts = self.sh_size[rows] // 4 - 1
        group = np.repeat(np.arange(len(rows)), counts)
        index = ragged_arange(np.ones(len(rows), np.int64), counts)
        owner = rows[group]
        member = _int64(gather(self.data, word, self.sh_position[owner] + index * 4))
        bad[owner[member >= self.shnum[self.section_object[owner]]]] = True
        self._check_sections(bad, "is a section group of sections that do not exist")
        block = self.section_block[self.section_base[self.section_object[owner]] + member]
        kept = block != NO_BLOCK
        return Comdats(self._signatures(rows), group[kept], block[kept])

    def _signatures(self, rows: Int64Array) -> Int64Array:
        """References of the names that sign groups."""
        number = self.section_object[rows]
        names = self.graph.symbol_table.name[self.symbol_base[number] + self.sh_info[rows]]
        # Old assemblers sign a group with the section symbol of its first member.
        for each in rows_where(names == NO_NAME).tolist():
            owner = int(number[each])
            entry = int(self.entry_base[owner] + self.sh_info[rows[each]])
            names[each] = self._section_reference(owner, int(self.st_shndx[entry]))
        return names

    def _section_reference(self, number: int, index: int) -> int:
        if not 0 < index < self.shnum[number] or self.name_base[number] < 0:
            self._fail(number, None, "a section group has a signature without a name")
        row = int(self.section_base[number]) + index
        if self.sh_name[row] >= self.name_limit[number]:
            self._fail(number, None, "a section group has a signature without a name")
        return int(self.name_base[number] + self.sh_name[row])


def _is_odd_alignment(alignment: Int64Array) -> BoolArray:
    """Whether alignments are neither 0 nor a power of two; those from 2**63 on look negative."""
    return (alignment & (alignment - 1) != 0) | (alignment < 0) | (alignment > _MAX_NOBITS)


def _is_one_of(column: Int64Array, values: Sequence[int]) -> BoolArray:
    """`np.isin` for a few values, without its overhead."""
    result = column == values[0]
    for value in values[1:]:
        result |= column == value
    return result
