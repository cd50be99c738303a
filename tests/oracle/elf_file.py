"""A reader of little-endian ELF files, objects and linked outputs, for comparisons.

It shares no code with jitlink's reader, so that it does not repeat errors of that one. It checks
nothing: the files come from compilers and linkers.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOBITS, SHT_REL, SHT_DYNSYM, SHT_GROUP, SHT_SYMTAB_SHNDX = 8, 9, 11, 17, 18
SHT_LLVM_ADDRSIG = 0x6FFF4C03
SHF_WRITE, SHF_ALLOC, SHF_TLS, SHF_COMPRESSED, SHF_EXCLUDE = 0x1, 0x2, 0x400, 0x800, 0x80000000
SHN_XINDEX = 0xFFFF
STB_LOCAL = 0
STT_TLS = 6


class _Layout(NamedTuple):
    """Record layouts of one ELF class; `symbol_fields` are positions of name, value, size, ..."""

    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    # Positions of name, info, other, section index, value and size.
    symbol_fields: tuple[int, ...]
    rela: struct.Struct
    symbol_shift: int
    pointer_size: int


_LAYOUTS = {
    1: _Layout(
        struct.Struct("<16sHHIIIIIHHHHHH"),
        struct.Struct("<10I"),
        struct.Struct("<IIIBBH"),
        (0, 3, 4, 5, 1, 2),
        struct.Struct("<IIi"),
        8,
        4,
    ),
    2: _Layout(
        struct.Struct("<16sHHIQQQIHHHHHH"),
        struct.Struct("<IIQQQQIIQQ"),
        struct.Struct("<IBBHQQ"),
        (0, 1, 2, 3, 4, 5),
        struct.Struct("<QQq"),
        32,
        8,
    ),
}

# Sections that describe others, and are not linked.
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
        """Whether a linker links the section's content."""
        return self.type not in _METADATA and not self.flags & SHF_EXCLUDE

    @property
    def is_allocated(self) -> bool:
        """Whether the section is loaded."""
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
    """A relocation with its addend; `symbol` is an index of the symbol table."""

    offset: int
    type: int
    symbol: int
    addend: int


class ElfFile:
    """One ELF file.

    Args:
        data: its bytes.

    Attributes:
        machine: e_machine.
        flags: e_flags.
        pointer_size: size of its addresses in bytes.
        sections: its sections, in order.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._layout = layout = _LAYOUTS[data[4]]
        self.pointer_size = layout.pointer_size
        header = layout.header.unpack_from(data)
        self.machine: int = header[2]
        self.flags: int = header[7]
        shoff, shnum, shstrndx = header[6], header[12], header[13]
        first = layout.section.unpack_from(data, shoff)
        count = shnum or first[5]
        names = first[6] if shstrndx == SHN_XINDEX else shstrndx
        raw = list(layout.section.iter_unpack(data[shoff : shoff + count * layout.section.size]))
        strings = raw[names][4]
        self.sections = [
            ElfSection(index, self._string(strings + row[0]), *row[1:9])
            for index, row in enumerate(raw)
        ]

    def _string(self, offset: int) -> str:
        return self.data[offset : self.data.index(b"\0", offset)].decode()

    def content(self, section: ElfSection) -> bytes:
        """The section's bytes; empty for SHT_NOBITS."""
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
        symbols = []
        for record in self._layout.symbol.iter_unpack(self.content(table)):
            name, info, other, *rest = (record[each] for each in self._layout.symbol_fields)
            text = self._string(strings + name)
            symbols.append(ElfSymbol(text, info >> 4, info & 15, other & 3, *rest))
        return symbols

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
        """The relocations in a section of type SHT_RELA."""
        shift = self._layout.symbol_shift
        return [
            ElfRelocation(offset, info & ((1 << shift) - 1), info >> shift, addend)
            for offset, info, addend in self._layout.rela.iter_unpack(self.content(table))
        ]


def externals_object(
    offsets: Mapping[str, int], size: int, like: ElfFile, tls_offsets: Mapping[str, int]
) -> bytes:
    """A relocatable object that defines symbols in sections of type SHT_NOBITS.

    They are `.externals`, and `.tbss.externals` if there are thread-local ones.

    Args:
        offsets: offset in the section of each symbol, by name, in bytes.
        size: size of the section in bytes.
        like: an object of the same machine.
        tls_offsets: the same as `offsets` for thread-local symbols.
    """
    layout = like._layout
    wide = layout.pointer_size == 8
    named = [(name, 1 << 4, 1, offset) for name, offset in offsets.items()]
    named += [(name, 1 << 4 | STT_TLS, 2, offset) for name, offset in tls_offsets.items()]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in named)
    section_names = b"\0.externals\0.tbss.externals\0.symtab\0.strtab\0"
    symbols = bytearray(layout.symbol.size)
    position = 1
    for name, info, section, offset in named:
        fields = [0] * 6
        values = (position, info, 0, section, offset, 0)
        for place, value in zip(layout.symbol_fields, values, strict=True):
            fields[place] = value
        symbols += layout.symbol.pack(*fields)
        position += len(name.encode()) + 1
    body = bytes(symbols) + strings + section_names
    body += bytes(-len(body) % 8)
    tls_size = max(tls_offsets.values(), default=0) + 16
    start, record = layout.header.size, layout.section.size
    string_start = start + len(symbols)
    names_start = string_start + len(strings)
    rows = (
        (0, SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, SHT_NOBITS, SHF_ALLOC, 0, start, size, 0, 0, 1, 0),
        (12, SHT_NOBITS, SHF_WRITE | SHF_ALLOC | SHF_TLS, 0, start, tls_size, 0, 0, 16, 0),
        (28, SHT_SYMTAB, 0, 0, start, len(symbols), 4, 1, 8, layout.symbol.size),
        (36, SHT_STRTAB, 0, 0, string_start, len(strings), 0, 0, 1, 0),
        (1, SHT_STRTAB, 0, 0, names_start, len(section_names), 0, 0, 1, 0),
    )
    if not tls_offsets:
        # An empty section would be a TLS segment, too.
        rows = (*rows[:2], (0,) * 10, *rows[3:])
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]).ljust(12, b"\0")
    ends = (like.flags, start, 0, 0, record, len(rows), 5)
    header = layout.header.pack(ident, 1, like.machine, 1, 0, 0, start + len(body), *ends)
    return header + body + b"".join(layout.section.pack(*row) for row in rows)
