"""A reader of 64-bit little-endian ELF files, objects and linked outputs alike, for comparisons.

It shares nothing with jitlink's own reader, so that an error in that one cannot hide itself.
Files come from compilers and linkers that are trusted: nothing is checked.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOBITS, SHT_REL, SHT_DYNSYM, SHT_GROUP, SHT_SYMTAB_SHNDX = 8, 9, 11, 17, 18
SHT_LLVM_ADDRSIG = 0x6FFF4C03
SHF_ALLOC, SHF_COMPRESSED, SHF_EXCLUDE = 0x2, 0x800, 0x80000000
SHN_XINDEX = 0xFFFF
STB_LOCAL = 0
STT_TLS = 6

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")

# What describes other sections, and is not itself linked.
_METADATA = frozenset(
    {
        SHT_NULL,
        SHT_SYMTAB,
        SHT_STRTAB,
        SHT_RELA,
        SHT_REL,
        SHT_GROUP,
        SHT_SYMTAB_SHNDX,
        SHT_LLVM_ADDRSIG,
    }
)


@dataclass(frozen=True, slots=True)
class ElfSection:
    """A section header, with its name and its index."""

    index: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int

    @property
    def is_linked(self) -> bool:
        """Whether a linker takes the section's content over, if anything needs it."""
        return self.type not in _METADATA and not self.flags & SHF_EXCLUDE

    @property
    def is_allocated(self) -> bool:
        """Whether the section is in memory when the program runs."""
        return bool(self.flags & SHF_ALLOC)

    @property
    def is_compressed(self) -> bool:
        """Whether the content is stored in compressed form."""
        return bool(self.flags & SHF_COMPRESSED)


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A symbol-table entry."""

    name: str
    binding: int
    type: int
    visibility: int
    shndx: int
    value: int
    size: int


class ElfRelocation(NamedTuple):
    """A relocation with its addend; `symbol` is the number of an entry of the symbol table."""

    offset: int
    type: int
    symbol: int
    addend: int


class ElfFile:
    """One ELF file.

    Args:
        data: all of it.

    Attributes:
        machine: what it is for.
        flags: what its header says for that machine.
        sections: its sections, in order.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        header = _HEADER.unpack_from(data)
        self.machine: int = header[2]
        self.flags: int = header[7]
        shoff, shnum, shstrndx = header[6], header[12], header[13]
        first = _SECTION.unpack_from(data, shoff)
        count = shnum or first[5]
        names = first[6] if shstrndx == SHN_XINDEX else shstrndx
        raw = list(_SECTION.iter_unpack(data[shoff : shoff + count * _SECTION.size]))
        strings = raw[names][4]
        self.sections = [
            ElfSection(index, self._string(strings + row[0]), *row[1:9])
            for index, row in enumerate(raw)
        ]

    def _string(self, offset: int) -> str:
        return self.data[offset : self.data.index(b"\0", offset)].decode()

    def content(self, section: ElfSection) -> bytes:
        """The section's bytes; none if the file holds none."""
        if section.type == SHT_NOBITS:
            return b""
        return self.data[section.offset : section.offset + section.size]

    def section_named(self, name: str) -> ElfSection | None:
        """The first section of that name."""
        return next((each for each in self.sections if each.name == name), None)

    @cached_property
    def symbols(self) -> list[ElfSymbol]:
        """The symbols of `.symtab`."""
        return self._symbols(SHT_SYMTAB)

    @cached_property
    def dynamic_symbols(self) -> list[ElfSymbol]:
        """The symbols of `.dynsym`."""
        return self._symbols(SHT_DYNSYM)

    def _symbols(self, kind: int) -> list[ElfSymbol]:
        table = next((each for each in self.sections if each.type == kind), None)
        if table is None:
            return []
        strings = self.sections[table.link].offset
        return [
            ElfSymbol(
                self._string(strings + name), info >> 4, info & 15, other & 3, shndx, value, size
            )
            for name, info, other, shndx, value, size in _SYMBOL.iter_unpack(self.content(table))
        ]

    @cached_property
    def _relocation_sections(self) -> dict[int, list[ElfSection]]:
        found: dict[int, list[ElfSection]] = {}
        for each in self.sections:
            if each.type == SHT_RELA:
                found.setdefault(each.info, []).append(each)
        return found

    def relocations(self, section: ElfSection) -> list[ElfRelocation]:
        """The relocations of an object's section, in order of offset."""
        tables = self._relocation_sections.get(section.index, [])
        return sorted(each for table in tables for each in self.records(table))

    def records(self, table: ElfSection) -> list[ElfRelocation]:
        """The relocations that a section of type SHT_RELA holds."""
        return [
            ElfRelocation(offset, info & 0xFFFFFFFF, info >> 32, addend)
            for offset, info, addend in _RELA.iter_unpack(self.content(table))
        ]


def externals_object(
    offsets: Mapping[str, int], size: int, machine: int, flags: int = 0
) -> bytes:
    """A relocatable object whose section `.externals`, without content, defines symbols.

    Args:
        offsets: where in the section each name is, in bytes.
        size: size of the section in bytes.
        machine: what the object is for.
        flags: what its header says for that machine.
    """
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in offsets)
    section_names = b"\0.externals\0.symtab\0.strtab\0"
    symbols = bytearray(_SYMBOL.size)
    position = 1
    for name, offset in offsets.items():
        symbols += _SYMBOL.pack(position, 1 << 4, 0, 1, offset, 0)
        position += len(name.encode()) + 1
    body = bytes(symbols) + strings + section_names
    start = _HEADER.size
    string_start = start + len(symbols)
    names_start = string_start + len(strings)
    rows = (
        (0, SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, SHT_NOBITS, SHF_ALLOC, 0, start, size, 0, 0, 1, 0),
        (12, SHT_SYMTAB, 0, 0, start, len(symbols), 3, 1, 8, _SYMBOL.size),
        (20, SHT_STRTAB, 0, 0, string_start, len(strings), 0, 0, 1, 0),
        (1, SHT_STRTAB, 0, 0, names_start, len(section_names), 0, 0, 1, 0),
    )
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    shoff = start + len(body)
    header = _HEADER.pack(ident, 1, machine, 1, 0, 0, shoff, flags, 64, 0, 0, 64, len(rows), 4)
    return header + body + b"".join(_SECTION.pack(*row) for row in rows)
