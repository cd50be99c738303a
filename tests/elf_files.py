"""ELF objects to be changed by hand: fields of headers, symbols and relocations by their names.

64-bit, little endian. Nothing is checked: most of what tests write here is wrong on purpose.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_Fields = dict[str, tuple[int, str]]

_HEADER: _Fields = {
    "type": (16, "H"),
    "machine": (18, "H"),
    "shoff": (40, "Q"),
    "shentsize": (58, "H"),
    "shnum": (60, "H"),
    "shstrndx": (62, "H"),
}
_SECTION: _Fields = {
    "name": (0, "I"),
    "type": (4, "I"),
    "flags": (8, "Q"),
    "offset": (24, "Q"),
    "size": (32, "Q"),
    "link": (40, "I"),
    "info": (44, "I"),
    "addralign": (48, "Q"),
    "entsize": (56, "Q"),
}
_SYMBOL: _Fields = {
    "name": (0, "I"),
    "info": (4, "B"),
    "other": (5, "B"),
    "shndx": (6, "H"),
    "value": (8, "Q"),
    "size": (16, "Q"),
}
_RELA: _Fields = {"offset": (0, "Q"), "type": (8, "I"), "symbol": (12, "I"), "addend": (16, "q")}

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 1, 2, 3, 4
SHT_NOBITS, SHT_REL, SHT_GROUP = 8, 9, 17


class ElfFile:
    """An object as a mutable buffer.

    Attributes:
        data: the bytes.
    """

    def __init__(self, source: Path | bytes) -> None:
        self.data = bytearray(source if isinstance(source, bytes) else source.read_bytes())

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def _get(self, at: int, fields: _Fields, name: str) -> int:
        offset, code = fields[name]
        return int(struct.unpack_from(f"<{code}", self.data, at + offset)[0])

    def _set(self, at: int, fields: _Fields, values: dict[str, int]) -> Self:
        for name, value in values.items():
            offset, code = fields[name]
            struct.pack_into(f"<{code}", self.data, at + offset, value)
        return self

    # Headers

    def header(self, name: str) -> int:
        return self._get(0, _HEADER, name)

    def set_header(self, **values: int) -> Self:
        return self._set(0, _HEADER, values)

    def section_at(self, index: int) -> int:
        """Position of a section header."""
        return self.header("shoff") + 64 * index

    def section(self, index: int, name: str) -> int:
        return self._get(self.section_at(index), _SECTION, name)

    def set_section(self, index: int, **values: int) -> Self:
        return self._set(self.section_at(index), _SECTION, values)

    @property
    def section_names(self) -> list[str]:
        table = self.content(self.header("shstrndx"))
        starts = [self.section(index, "name") for index in range(self.header("shnum"))]
        return [table[start : table.index(b"\0", start)].decode() for start in starts]

    def find(self, name: str) -> int:
        """Index of the first section of that name."""
        return self.section_names.index(name)

    def of_type(self, kind: int) -> list[int]:
        """Indices of all sections of a type."""
        count = self.header("shnum")
        return [index for index in range(count) if self.section(index, "type") == kind]

    def content(self, index: int) -> bytes:
        start = self.section(index, "offset")
        return bytes(self.data[start : start + self.section(index, "size")])

    def set_content(self, index: int, content: bytes) -> Self:
        """Give a section other bytes, at the end of the file."""
        self.data += b"\0" * (-len(self.data) % 16)
        self.set_section(index, offset=len(self.data), size=len(content))
        self.data += content
        return self

    # Symbols and relocations

    @property
    def symbol_table(self) -> int:
        return self.of_type(SHT_SYMTAB)[0]

    def _symbol_at(self, index: int) -> int:
        return self.section(self.symbol_table, "offset") + 24 * index

    def symbol(self, index: int, name: str) -> int:
        return self._get(self._symbol_at(index), _SYMBOL, name)

    def set_symbol(self, index: int, **values: int) -> Self:
        return self._set(self._symbol_at(index), _SYMBOL, values)

    @property
    def symbol_names(self) -> list[str]:
        strings = self.content(self.section(self.symbol_table, "link"))
        count = self.section(self.symbol_table, "size") // 24
        starts = [self.symbol(index, "name") for index in range(count)]
        return [strings[start : strings.index(b"\0", start)].decode() for start in starts]

    def find_symbol(self, name: str) -> int:
        return self.symbol_names.index(name)

    def relocations(self, index: int) -> list[dict[str, int]]:
        """The records of a RELA section."""
        start, size = self.section(index, "offset"), self.section(index, "size")
        return [
            {name: self._get(at, _RELA, name) for name in _RELA}
            for at in range(start, start + size, 24)
        ]

    def set_relocation(self, index: int, number: int, **values: int) -> Self:
        """Change one record of a RELA section."""
        return self._set(self.section(index, "offset") + 24 * number, _RELA, values)

    def make_implicit(self, index: int, addend_widths: Sequence[int]) -> Self:
        """Turn a RELA section into a REL one, with addends of these widths in the content."""
        records = self.relocations(index)
        target = self.section(self.section(index, "info"), "offset")
        for record, width in zip(records, addend_widths, strict=True):
            at = target + record["offset"]
            addend = record["addend"] & ((1 << 8 * width) - 1)
            self.data[at : at + width] = addend.to_bytes(width, "little")
        packed = [struct.pack("<QII", r["offset"], r["type"], r["symbol"]) for r in records]
        self.set_content(index, b"".join(packed))
        return self.set_section(index, type=SHT_REL, entsize=16)
