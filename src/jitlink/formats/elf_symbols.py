"""Blocks and symbols of ELF objects, many at a time.

Every ELF section that is linked becomes one block; the blocks of sections with the same name,
protection and lifetime are in one graph section. Every symbol-table entry becomes a symbol row at a
fixed distance from its index, so that relocations need no lookup.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jitlink.errors import InputError, UnsupportedObjectError
from jitlink.formats.batch import Batch
from jitlink.formats.elf_layout import (
    ELFCLASS64,
    SHF_ALLOC,
    SHF_COMPRESSED,
    SHF_EXCLUDE,
    SHF_EXECINSTR,
    SHF_GNU_RETAIN,
    SHF_LINK_ORDER,
    SHF_TLS,
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
    STT_NOTYPE,
    STT_TLS,
    Identity,
)
from jitlink.formats.elf_sections import (
    MAX_SIZE,
    SectionTables,
    int64,
    is_odd_alignment,
    is_one_of,
)
from jitlink.formats.records import gather
from jitlink.graph import (
    BlockFlags,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    SymbolFlags,
)
from jitlink.graph.columns import (
    Array,
    BoolArray,
    Int64Array,
    UInt8Array,
    UInt64Array,
    ragged_arange,
    rows_where,
)
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import (
    ABSOLUTE,
    DEFINED,
    EXTERNAL,
    REMOVED,
)
from jitlink.logs import Log

log = Log("jitlink.formats")

ZDEBUG, _SLIM_LTO = ".zdebug_", "__gnu_lto_slim"
_METADATA_TYPES = (
    SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_REL, SHT_CREL, SHT_GROUP,
    SHT_SYMTAB_SHNDX, SHT_LLVM_ADDRSIG,
)  # fmt: skip
_EXTERNAL = EXTERNAL
WEAKLY_REFERENCED = int(SymbolFlags.WEAKLY_REFERENCED)
_COMMON, _UNIQUE = np.uint8(SymbolFlags.COMMON), np.uint8(SymbolFlags.UNIQUE)
SCOPES = np.array([Scope.DEFAULT, Scope.HIDDEN, Scope.HIDDEN, Scope.DEFAULT], np.uint8)
"""Scope by visibility: STV_DEFAULT, STV_INTERNAL, STV_HIDDEN, STV_PROTECTED. References have one,
too, which constrains the definition."""
TYPE_FLAGS = np.zeros(16, np.uint8)
"""Flags of a definition by symbol type."""
TYPE_FLAGS[STT_FUNC] = SymbolFlags.CALLABLE
TYPE_FLAGS[STT_GNU_IFUNC] = SymbolFlags.CALLABLE | SymbolFlags.INDIRECT
TYPE_FLAGS[STT_TLS] = SymbolFlags.THREAD_LOCAL
ACCESS = SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR
THREAD_LOCAL_DATA, THREAD_LOCAL = SHF_TLS | SHF_ALLOC, int(BlockFlags.THREAD_LOCAL)
# `MemProt` and `MemLifetime` (uint8) by the bits of `ACCESS`, which are the lowest three.
PROTS = np.array(
    [
        MemProt.READ
        | (MemProt.WRITE if access & SHF_WRITE else MemProt.NONE)
        | (MemProt.EXEC if access & SHF_EXECINSTR else MemProt.NONE)
        for access in range(ACCESS + 1)
    ],
    np.uint8,
)
LIFETIMES = np.array(
    [
        MemLifetime.STANDARD if access & SHF_ALLOC else MemLifetime.NO_ALLOC
        for access in range(ACCESS + 1)
    ],
    np.uint8,
)

_MANY = 256
"""From so many sections on, names are not read if that can be avoided."""


def _properties(flags: Int64Array) -> tuple[bytes, bytes]:
    """`MemProt` and `MemLifetime` of sections with these flags, one byte each."""
    access = flags & ACCESS
    return PROTS[access].tobytes(), LIFETIMES[access].tobytes()


class ObjectTables(SectionTables):
    """All sections and symbols of a batch, with their blocks and symbol rows.

    Columns named ``st_`` and `entry_object` have an element for each symbol-table entry of
    each object, in order.

    Attributes:
        first_origin: index of the first object in ``graph.origins``.
        first_block: row of the first block.
        section_block: block row of each section header, or `NO_BLOCK` (int64).
        symbol_counts: number of each object's symbol-table entries (int64).
        symbol_base: symbol row of the first of them (int64).
        symbol_end: one past the last symbol row.
        entry_base: its index among all entries of the batch (int64).
        entry_object: index of the object of each entry (int64).
        st_shndx: section index of each entry; negative for the reserved ones (int64).
        st_beyond: distance in bytes of each entry's value behind its symbol (int64), or None if all
            are 0.
    """

    def __init__(self, graph: LinkGraph, batch: Batch, identity: Identity) -> None:
        super().__init__(graph, batch, identity)
        self.first_origin, self.first_block = len(graph.origins), graph.block_table.rows
        graph.origins.extend(batch.names)
        graph.origin_flags.extend(self.flags)
        self._content_base = graph.contents.add(batch.buffer.toreadonly())
        self._add_blocks()
        self._read_symbols()
        self._add_symbols()

    def _check_symbols(self, bad: BoolArray, message: str) -> None:
        if np.count_nonzero(bad):
            entry = int(rows_where(bad)[0])
            number = int(np.searchsorted(self.entry_base, entry, side="right")) - 1
            index = entry - int(self.entry_base[number])
            self.fail(number, None, f"symbol {index}: {message}")

    # Blocks

    def _add_blocks(self) -> None:
        kept = ~is_one_of(self.sh_type, _METADATA_TYPES)
        kept &= (self.sh_flags & SHF_EXCLUDE) == 0
        rows = rows_where(kept)
        flags, size = self.sh_flags[rows], self.sh_size[rows].copy()
        references = self.section_references(rows)
        nobits = self.sh_type[rows] == SHT_NOBITS
        content = np.where(nobits, ZERO_FILL, self._content_base + self.sh_position[rows])
        alignment = self.sh_align[rows].copy()
        if self._may_stay_unread(references, flags):
            ordinals = self.graph.section_list.extend_unread(
                self.graph.strings, references, *_properties(flags)
            )
        else:
            names = self.section_names(references)
            unreadable = self._decompress(rows, names, content, size, alignment)
            if unreadable:
                # From here on they are like sections that the object excludes from the link.
                self.sh_flags[rows[unreadable]] |= SHF_EXCLUDE
                kept = np.ones(len(rows), np.bool_)
                kept[unreadable] = False
                names = [name for name, each in zip(names, kept.tolist(), strict=True) if each]
                rows, flags, size = rows[kept], flags[kept], size[kept]
                content, alignment = content[kept], alignment[kept]
            ordinals = self.graph.section_list.obtain(names, *_properties(flags))
        first = self.graph.block_table.extend(
            len(rows),
            section=ordinals,
            origin=self.first_origin + self.section_object[rows],
            size=size,
            alignment=alignment,
            content=content,
            flags=np.where(flags & SHF_GNU_RETAIN, int(BlockFlags.LIVE), 0)
            | np.where(flags & THREAD_LOCAL_DATA == THREAD_LOCAL_DATA, THREAD_LOCAL, 0),
        )
        self.section_block = np.full(len(self.sh_type), NO_BLOCK, np.int64)
        self.section_block[rows] = np.arange(first, first + len(rows))
        ordered = rows[flags & (SHF_LINK_ORDER | SHF_ALLOC) == SHF_LINK_ORDER | SHF_ALLOC]
        if len(ordered):
            self._link_blocks(ordered[self.sh_link[ordered] != 0])

    def _link_blocks(self, rows: Int64Array) -> None:
        """Record the blocks that sections with SHF_LINK_ORDER are linked to."""
        blocks, others = (
            self.section_block[rows],
            self.section_block[self.linked(rows, self.sh_link)],
        )
        known = others != NO_BLOCK
        pairs = zip(blocks[known].tolist(), others[known].tolist(), strict=True)
        self.graph.linked_to.update(pairs)

    def _may_stay_unread(self, references: Int64Array, flags: Int64Array) -> bool:
        """Whether the names of the sections of an object can be read when one asks for them.

        They must be distinct, as assemblers store them, and those of the first object.
        """
        if len(self.batch.names) > 1 or len(references) < _MANY or len(self.graph.section_list):
            return False
        if np.count_nonzero(flags & SHF_COMPRESSED) or not self.graph.strings.are_short(references):
            return False
        unloaded = self.section_names(references[flags & SHF_ALLOC == 0])
        if any(name.startswith(ZDEBUG) for name in unloaded):
            return False
        seen = np.zeros(int(np.ptp(references)) + 1, np.bool_)
        seen[references - references.min()] = True
        return int(np.count_nonzero(seen)) == len(references)

    def _decompress(
        self,
        rows: Int64Array,
        names: list[str],
        content: Int64Array,
        size: Int64Array,
        alignment: Int64Array,
    ) -> list[int]:
        """Decompress sections in place; those in the older form get their usual names.

        Returns:
            Indices of sections that are not loaded and cannot be decompressed. They must not stop
            a link.
        """
        flags = self.sh_flags[rows]
        chosen: list[int] = []
        if np.count_nonzero(flags & SHF_COMPRESSED):
            chosen = rows_where((flags & SHF_COMPRESSED != 0) & (content != ZERO_FILL)).tolist()
        unloaded = rows_where(flags & SHF_ALLOC == 0).tolist()
        chosen += [each for each in unloaded if names[each].startswith(ZDEBUG)]
        unreadable = []
        for each in chosen:
            try:
                data, alignment[each] = self._decompressed(int(rows[each]))
            except InputError as error:
                if flags[each] & SHF_ALLOC:
                    raise
                log.debug("section %s is left out: %s", names[each], error)
                unreadable.append(each)
                continue
            names[each] = names[each].replace(ZDEBUG, ".debug_", 1)
            content[each] = self.graph.contents.add(data)
            size[each] = len(data)
        return unreadable

    def _decompressed(self, row: int) -> tuple[bytes, int]:
        """Content of a compressed section, and its alignment in bytes."""
        from jitlink.formats.compression import (  # noqa: PLC0415 - seldom needed
            decompress_gnu_section,
            decompress_section,
        )

        start = int(self.sh_position[row])
        data = self.batch.buffer[start : start + int(self.sh_size[row])]
        file, offset = self.batch.names[int(self.section_object[row])], int(self.sh_offset[row])
        if not self.sh_flags[row] & SHF_COMPRESSED:
            content = decompress_gnu_section(data, file=file, offset=offset)
            return content, int(self.sh_align[row])
        return decompress_section(
            data,
            wide=self.identity.elf_class == ELFCLASS64,
            byte_order=self.identity.byte_order,
            file=file,
            offset=offset,
        )

    # Symbols

    def _read_symbols(self) -> None:
        tables = self.symtab[self.symtab >= 0]
        record = self.layout.symbol.itemsize
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[tables] = (self.sh_entsize[tables] != record) | (self.sh_size[tables] % record != 0)
        self.check_sections(bad, "is a symbol table of odd size")
        self.symbol_counts = np.zeros(len(self.symtab), np.int64)
        owners = self.section_object[tables]
        self.symbol_counts[owners] = self.sh_size[tables] // record
        self.entry_base = self.symbol_counts.cumsum() - self.symbol_counts
        self.entry_object = np.arange(len(self.symtab)).repeat(self.symbol_counts)
        counts = self.symbol_counts[owners]
        index = ragged_arange(np.zeros(len(tables), np.int64), counts)
        positions = self.sh_position[tables].repeat(counts) + index * record
        self._entries = gather(self.data, self.layout.symbol, positions)
        self.st_shndx = self._section_indices()

    def _section_indices(self) -> Int64Array:
        """st_shndx of all entries, with SHN_XINDEX replaced; reserved ones become negative."""
        raw = int64(self._entries["shndx"])
        result = np.where(raw >= SHN_LORESERVE, raw - 0x10000, raw)
        extended = rows_where(raw == SHN_XINDEX)
        if len(extended) == 0:
            return result
        tables = rows_where(self.sh_type == SHT_SYMTAB_SHNDX)
        table_of = np.full(len(self.symtab), -1, np.int64)
        table_of[self.section_object[tables]] = tables
        number = self.entry_object[extended]
        table, index = table_of[number], extended - self.entry_base[number]
        bad = np.zeros(len(raw), np.bool_)
        bad[extended] = (table < 0) | ((index + 1) * 4 > self.sh_size[table])
        self._check_symbols(bad, "has no entry in the table of extended section indices")
        positions = self.sh_position[table] + index * 4
        result[extended] = int64(gather(self.data, self.layout.word, positions))
        return result

    def _add_symbols(self) -> None:
        entries, shndx = self._entries, self.st_shndx
        info: UInt8Array = entries["info"]
        binding, kind_of_symbol = info >> 4, info & 15
        value, size = int64(entries["value"]), entries["size"].astype(np.uint64)
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
        name = self._symbol_names()
        kind = np.full(len(shndx), REMOVED, np.uint8)
        kind[(shndx == SHN_UNDEF) & ~local & (name != NO_NAME)] = _EXTERNAL
        kind[is_absolute] = ABSOLUTE
        kind[block >= 0] = DEFINED
        kind[kind_of_symbol == STT_FILE] = REMOVED
        # Entry 0 is the null symbol, whatever its fields in the file are.
        null = self.entry_base[self.symbol_counts > 0]
        kind[null], block[null], value[null] = REMOVED, NO_BLOCK, 0
        is_common[null] = False
        self._check_offsets(block, value, local & (kind_of_symbol == STT_NOTYPE))
        is_common &= kind_of_symbol != STT_FILE
        if np.count_nonzero(is_common):
            is_thread_local = kind_of_symbol == STT_TLS
            for common, section, flag in (
                (is_common & ~is_thread_local, ".common", 0),
                (is_common & is_thread_local, ".tcommon", THREAD_LOCAL),
            ):
                self._place_commons(common, value, size, block, kind, section, flag)
            self._refuse_slim_lto(name, is_common & (size == 1))

        external = kind == _EXTERNAL
        weak = ((binding == STB_WEAK) | (binding == STB_GNU_UNIQUE) | is_common) & ~external
        scope = SCOPES[entries["other"] & 3]
        scope[local] = Scope.LOCAL
        flags = TYPE_FLAGS[kind_of_symbol]
        flags[external] = np.where(binding[external] == STB_WEAK, WEAKLY_REFERENCED, 0)
        flags[is_common] |= _COMMON
        flags[binding == STB_GNU_UNIQUE] |= _UNIQUE
        columns: dict[str, Array[Any]] = {
            "name": name,
            "kind": kind,
            "block": block,
            "value": value.view(np.uint64),
            "size": size,
            "linkage": weak,
            "scope": scope,
            "flags": flags,
        }
        rows = self.entry_base
        if self.has_default_versions:
            columns, rows = self._split_default_versions(columns)
        first = self.graph.symbol_table.extend(len(columns["name"]), **columns)
        self.symbol_base = first + rows
        self.symbol_end = self.graph.symbol_table.rows

    def _split_default_versions(
        self, columns: dict[str, Array[Any]]
    ) -> tuple[dict[str, Array[Any]], Int64Array]:
        """Give symbols with a default version the names by which they are referred to.

        Returns:
            The columns with further rows behind the last one of an object, and the number of the
            first row of each object (int64).
        """
        from jitlink.formats.elf_versions import (  # noqa: PLC0415 - seldom needed
            GlobalSymbol,
            default_versions,
        )

        name, kind, strings = columns["name"], columns["kind"], self.graph.strings
        entries = rows_where(
            (name != NO_NAME) & (columns["scope"] != Scope.LOCAL) & (kind != REMOVED)
        )
        keys = (self.entry_object[entries], columns["block"][entries], columns["value"][entries])
        places = zip(*(key.tolist() for key in keys), strict=True)
        is_reference = (kind[entries] == _EXTERNAL).tolist()
        names = strings.get_many(name[entries])
        found = default_versions(
            GlobalSymbol(entry, text, None if is_external else place)
            for entry, text, place, is_external in zip(
                entries.tolist(), names, places, is_reference, strict=True
            )
        )
        name[list(found.names)] = strings.add_many(found.names.values())
        added = np.array(list(found.added), np.int64)
        owner = self.entry_object[added]
        place = (self.entry_base + self.symbol_counts)[owner]
        extended = {
            field: np.insert(column, place, column[added]) for field, column in columns.items()
        }
        counts = np.bincount(owner, minlength=len(self.entry_base))
        rows = self.entry_base + counts.cumsum() - counts
        last = rows[owner] + self.symbol_counts[owner]
        within = np.arange(len(added)) - (counts.cumsum() - counts)[owner]
        extended["name"][last + within] = strings.add_many(found.added.values())
        return extended, rows

    def _refuse_slim_lto(self, name: Int64Array, candidates: BoolArray) -> None:
        """Refuse objects with the common symbol of one byte that marks GCC's slim LTO objects."""
        rows = rows_where(candidates)
        for row, each in zip(rows.tolist(), self.graph.strings.get_many(name[rows]), strict=True):
            if each == _SLIM_LTO:
                raise UnsupportedObjectError(
                    "has GCC's intermediate code for link-time optimization and no machine code: "
                    "compile it without -flto, or with -ffat-lto-objects",
                    file=self.batch.names[int(self.entry_object[row])],
                )

    def _symbol_names(self) -> Int64Array:
        st_name = int64(self._entries["name"])
        number = self.entry_object
        bad = (st_name >= self.string_limit[number]) & (st_name != 0)
        self._check_symbols(bad, "name lies outside the string table")
        return np.where(st_name == 0, NO_NAME, self.string_base[number] + st_name)

    def _check_offsets(self, block: Int64Array, value: Int64Array, anchor: BoolArray) -> None:
        """Check that symbols are in their sections.

        Compilers put section anchors at regular distances and address data relative to them. The
        last anchor may be beyond the end of its section: it moves to the end, and `st_beyond` has
        the distance.
        """
        self.st_beyond: Int64Array | None = None
        rows = rows_where(block >= 0)
        limit = self.graph.block_table.size[block[rows]]
        outside = (value[rows] < 0) | (value[rows] > limit)
        if not np.count_nonzero(outside):
            return
        rows, limit = rows[outside], limit[outside]
        bad = np.zeros(len(block), np.bool_)
        bad[rows] = (value[rows] < 0) | (value[rows] > limit + MAX_SIZE) | ~anchor[rows]
        self._check_symbols(bad, "lies beyond the end of its section")
        self.st_beyond = np.zeros(len(block), np.int64)
        self.st_beyond[rows] = value[rows] - limit
        value[rows] = limit

    def _place_commons(
        self,
        common: BoolArray,
        value: Int64Array,
        size: UInt64Array,
        block: Int64Array,
        kind: UInt8Array,
        section_name: str,
        flag: int,
    ) -> None:
        """Create a zero-fill block, with a flag, for each common symbol."""
        rows = rows_where(common)
        if len(rows) == 0:
            return
        alignment, sizes = np.maximum(value[rows], 1), size[rows].view(np.int64)
        bad = np.zeros(len(value), np.bool_)
        bad[rows] = is_odd_alignment(value[rows])
        self._check_symbols(bad, "has an alignment that is not a power of two")
        bad[rows] = (sizes < 0) | (sizes > MAX_SIZE)
        self._check_symbols(bad, "has a size beyond any memory")
        section = self.graph.obtain_section(section_name, MemProt.READ | MemProt.WRITE)
        first = self.graph.block_table.extend(
            len(rows),
            section=section.ordinal,
            origin=self.first_origin + self.entry_object[rows],
            size=sizes,
            alignment=alignment,
            content=ZERO_FILL,
            flags=flag,
        )
        block[rows] = np.arange(first, first + len(rows))
        value[rows] = 0
        kind[rows] = DEFINED
