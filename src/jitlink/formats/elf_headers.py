"""The section headers of one ELF object, read one by one: few take less time so than as columns.

What is read is what compilers write for 64-bit little-endian machines. Everything else is an
`UnusualError`: objects that are malformed, or have compressed sections, common symbols, versions of
symbols, extended indices, relocations without explicit addends, or another rarity. They are left to
`jitlink.formats.elf`, which reads them or says what is wrong.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from jitlink.formats.elf_layout import (
    ELFCLASS64,
    ET_REL,
    GRP_COMDAT,
    SHF_COMPRESSED,
    SHF_EXCLUDE,
    SHF_GNU_RETAIN,
    SHF_LINK_ORDER,
    SHN_LORESERVE,
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
    Identity,
)
from jitlink.formats.elf_sections import DEFAULT_VERSION, LINKONCE, MAX_SIZE
from jitlink.formats.elf_symbols import (
    ACCESS,
    LIFETIMES,
    PROTS,
    THREAD_LOCAL,
    THREAD_LOCAL_DATA,
    ZDEBUG,
)
from jitlink.graph import BlockFlags
from jitlink.graph.columns import BoolArray, Int64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME

MOST_SECTIONS = 100
"""How many sections an object has at most whose headers are read one by one."""
SYMBOL, RELA = Struct("<IBBHQQ"), Struct("<QQq")
_HEADER = Struct("<6s10xHHIQQQIHHHHHH")
_SECTION = Struct("<IIQQQQIIQQ")
_WORD = Struct("<I")
# By the bits of `ACCESS`, as in the other reader, whose elements are no Python numbers.
_PROTS, _LIFETIMES = PROTS.tolist(), LIFETIMES.tolist()
_LIVE, _COMDAT = int(BlockFlags.LIVE), int(BlockFlags.COMDAT)
# Those of other sections without a block are unusual.
_METADATA_TYPES = frozenset((SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_GROUP, SHT_LLVM_ADDRSIG))
_UNUSUAL_TYPES = frozenset((SHT_REL, SHT_CREL, SHT_SYMTAB_SHNDX))
_UNUSUAL_FLAGS = SHF_EXCLUDE | SHF_COMPRESSED | SHF_LINK_ORDER
_UNUSUAL_NAMES = (ZDEBUG, LINKONCE.decode())
_MOST_NAMES = 1 << 16


class UnusualError(Exception):
    """An object is left to the other reader."""


class RelocationColumns(NamedTuple):
    """What relocation types become, by number; the last element stands for all higher numbers.

    Attributes:
        kinds: edge kind of each, 0 for none (int64).
        biases: what is added to its addend (int64).
        ignored: whether it needs no edge (bool).
        widths: size in bytes of what each edge kind modifies (int64, by edge kind).
    """

    kinds: Int64Array
    biases: Int64Array
    ignored: BoolArray
    widths: Int64Array


class RelocationSection(NamedTuple):
    """A section of relocations.

    Attributes:
        records: the relocations, an Elf64_Rela each.
        block: number of the block that they modify.
        size: its size in bytes.
    """

    records: memoryview
    block: int
    size: int


class ObjectHeaders:
    """The header of an object, its sections, and what these say about its other tables.

    Args:
        data: the object.
        identity: class, byte order and machine that it must have.

    Attributes:
        data: the object.
        flags: e_flags.
        block_of: number of the block of each section, or `NO_BLOCK`.
        names: name of the section of each block.
        prots, lifetimes: protection and lifetime of that section, a byte each.
        blocks: size, alignment, content (an offset in the object, or `ZERO_FILL`) and flags of each
            block.
        symbols: the records of the symbol table, an Elf64_Sym each.
        strings: the string table of the symbols' names.

    Raises:
        UnusualError: the object is not of this identity, malformed, or unusual.
    """

    def __init__(self, data: memoryview, identity: Identity) -> None:
        self.data = data
        self._headers, names, self.flags = _read_header(data, identity)
        self.block_of = [NO_BLOCK] * len(self._headers)
        self.names: list[str] = []
        self.prots, self.lifetimes = bytearray(), bytearray()
        self.blocks: list[tuple[int, int, int, int]] = []
        # Indices of the sections without blocks, by type.
        self._metadata: dict[int, list[int]] = {kind: [] for kind in _METADATA_TYPES}
        self._read_sections(self._section_names(names))
        symtabs = self._metadata[SHT_SYMTAB]
        if len(symtabs) != 1:
            raise UnusualError
        self._symtab = symtabs[0]
        self.symbols = self._content(self._symtab, SYMBOL)
        self.strings = self._strings(self._headers[self._symtab][6])
        if DEFAULT_VERSION in self.strings:
            raise UnusualError

    def _strings(self, index: int) -> bytes:
        """The content of a string table, which may not have been checked yet."""
        if index >= len(self._headers):
            raise UnusualError
        _, kind, _, _, offset, size, _, _, _, _ = self._headers[index]
        if kind != SHT_STRTAB or offset + size > len(self.data):
            raise UnusualError
        return bytes(self.data[offset : offset + size])

    def _content(self, index: int, record: Struct) -> memoryview:
        """The content of a section of records, which must be complete."""
        _, _, _, _, offset, size, _, _, _, entry_size = self._headers[index]
        if entry_size != record.size or size % record.size:
            raise UnusualError
        return self.data[offset : offset + size]

    def _section_names(self, index: int) -> str:
        """The section name table."""
        table = self._strings(index)
        if not table.isascii() or len(table) > _MOST_NAMES:
            raise UnusualError
        names = table.decode("ascii")
        if any(each in names for each in _UNUSUAL_NAMES):
            raise UnusualError
        return names

    def _read_sections(self, names: str) -> None:
        available, metadata = len(self.data), self._metadata
        total = 0
        for index, header in enumerate(self._headers):
            name, kind, flags, _, offset, size, _, _, alignment, _ = header
            if kind == SHT_NULL:
                continue
            if alignment & (alignment - 1) or alignment > MAX_SIZE:
                raise UnusualError
            if kind != SHT_NOBITS:
                total += size
                if offset + size > available:
                    raise UnusualError
            if kind in metadata:
                metadata[kind].append(index)
                continue
            end = names.find("\0", name)
            if size > MAX_SIZE or kind in _UNUSUAL_TYPES or flags & _UNUSUAL_FLAGS or end < 0:
                raise UnusualError
            self.block_of[index] = len(self.blocks)
            self.names.append(names[name:end])
            self.prots.append(_PROTS[flags & ACCESS])
            self.lifetimes.append(_LIFETIMES[flags & ACCESS])
            content = ZERO_FILL if kind == SHT_NOBITS else offset
            self.blocks.append((size, alignment or 1, content, _block_flags(flags)))
        # If sections share bytes, their total size is not bounded by that of the file.
        if total > available:
            raise UnusualError

    # Tables

    def groups(self, name_of: Sequence[int] | Int64Array) -> list[tuple[int, list[int]]]:
        """The COMDAT groups, whose blocks are marked: the name of the signature, and the blocks.

        Args:
            name_of: the name of each symbol, an offset in the string table, or `NO_NAME`.
        """
        sections = self._metadata[SHT_GROUP]
        return [group for section in sections for group in self._group(section, name_of)]

    def _group(
        self, index: int, name_of: Sequence[int] | Int64Array
    ) -> list[tuple[int, list[int]]]:
        _, _, _, _, offset, size, link, signature, _, _ = self._headers[index]
        if size < 4 or size % 4 or link != self._symtab or signature >= len(name_of):
            raise UnusualError
        first, *members = [word for (word,) in _WORD.iter_unpack(self.data[offset:][:size])]
        if not first & GRP_COMDAT:
            return []
        name = int(name_of[signature])
        if name == NO_NAME or any(member >= len(self._headers) for member in members):
            raise UnusualError
        blocks = [self.block_of[member] for member in members]
        blocks = [block for block in blocks if block != NO_BLOCK]
        for block in blocks:
            size, alignment, content, flags = self.blocks[block]
            self.blocks[block] = size, alignment, content, flags | _COMDAT
        return [(name, blocks)]

    def relocations(self) -> list[RelocationSection]:
        """The sections of relocations, in order."""
        found = []
        for index in self._metadata[SHT_RELA]:
            link, section = self._headers[index][6:8]
            records = self._content(index, RELA)
            if link != self._symtab or section >= len(self._headers):
                raise UnusualError
            block = self.block_of[section]
            if block == NO_BLOCK or self.blocks[block][2] == ZERO_FILL:
                raise UnusualError
            found.append(RelocationSection(records, block, self.blocks[block][0]))
        return found


def _read_header(data: memoryview, identity: Identity) -> tuple[list[tuple[int, ...]], int, int]:
    """The section headers, the index of their name table, and e_flags."""
    if identity.elf_class != ELFCLASS64 or identity.byte_order != "little":
        raise UnusualError
    if len(data) < _HEADER.size:
        raise UnusualError
    (start, kind, machine, _, _, _, offset, flags, _, _, _, size, count, names) = (
        _HEADER.unpack_from(data)
    )
    if start != identity.start or machine != identity.machine or kind != ET_REL:
        raise UnusualError
    # Index 0 is no name table, and says that the header cannot hold the number.
    if size != _SECTION.size or not 0 < names < count <= min(MOST_SECTIONS, SHN_LORESERVE):
        raise UnusualError
    end = offset + count * size
    if not offset or end > len(data):
        raise UnusualError
    return list(_SECTION.iter_unpack(data[offset:end])), names, flags


def _block_flags(section_flags: int) -> int:
    flags = _LIVE if section_flags & SHF_GNU_RETAIN else 0
    if section_flags & THREAD_LOCAL_DATA == THREAD_LOCAL_DATA:
        flags |= THREAD_LOCAL
    return flags
