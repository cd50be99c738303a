"""Symbols of shared objects and programs in files, by address.

Those of the table `.symtab` if the file has one, else those that it exports, `.dynsym`. Nothing
here is loaded, and of a file of gigabytes only the tables are read.

Specification: System V gABI, chapters 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jitlink.errors import ObjectError
from jitlink.formats.elf_layout import (
    PT_LOAD,
    SHN_UNDEF,
    SHT_SYMTAB,
    STT_FUNC,
    STT_GNU_IFUNC,
    STT_OBJECT,
    identify,
)

_SHT_DYNSYM = 11
_ADDRESS_MASK = (1 << 64) - 1
_LARGEST_HEADER = 64
_LARGEST_TABLE = 1 << 28
"""Bytes of symbols or their names: a file may have holes, and claim any size."""
_LONGEST_NAME = 1 << 16


class FileSymbol(NamedTuple):
    """A symbol of a file.

    Attributes:
        name: its name, without a version.
        is_function: whether it is a function, and not a variable.
        address: its address in the file's own address space.
        size: its size in bytes; 0 if that is not known.
    """

    name: str
    is_function: bool
    address: int
    size: int


class FileSymbols:
    """The functions and variables of a shared object or program.

    Args:
        read: reads a number of bytes at an offset of the file; fewer if it has been truncated. Not
            called any more once this is made.
        size: bytes of the file.
        file: its name, for errors.

    Raises:
        ObjectError: it is no ELF file with symbols, is malformed, or has enormous tables.
        OSError: it cannot be read.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, file: str) -> None:
        self._read, self._size, self._file = read, size, file
        layout = identify(memoryview(self._part(0, min(size, _LARGEST_HEADER))), file).layout
        header = np.frombuffer(self._part(0, layout.header.itemsize), layout.header)[0]
        self._segments = self._table(header, "ph", layout.program_header)
        sections = self._table(header, "sh", layout.section)
        by_type = {int(each["type"]): each for each in sections[::-1]}
        table = by_type.get(SHT_SYMTAB, by_type.get(_SHT_DYNSYM))
        if table is None or int(table["link"]) >= len(sections):
            raise self._error("no symbols")
        count = int(table["size"]) // layout.symbol.itemsize
        content = self._part(int(table["offset"]), count * layout.symbol.itemsize)
        symbols = np.frombuffer(content, layout.symbol)
        strings = sections[int(table["link"])]
        self._strings = self._part(int(strings["offset"]), int(strings["size"]))
        kind = symbols["info"] & 15
        chosen = (kind == STT_FUNC) | (kind == STT_OBJECT) | (kind == STT_GNU_IFUNC)
        symbols = symbols[chosen & (symbols["shndx"] != SHN_UNDEF)]
        # Of several symbols at one address, the last is found: the largest one.
        self._symbols = symbols[np.lexsort((symbols["size"], symbols["value"]))]
        self._addresses = self._symbols["value"].astype(np.uint64)

    def _error(self, message: str) -> ObjectError:
        return ObjectError(message, file=self._file)

    def _part(self, start: int, size: int) -> bytes:
        if start + size > self._size:
            raise self._error(f"{size} bytes at {start:#x} of a file of {self._size} bytes")
        if size > _LARGEST_TABLE:
            raise self._error(f"a table of {size} bytes, more than the limit of {_LARGEST_TABLE}")
        part = self._read(start, size)
        if len(part) != size:
            raise self._error(f"{len(part)} of {size} bytes at {start:#x}: it was truncated")
        return part

    def _table(self, header: np.void, prefix: str, layout: np.dtype[np.void]) -> np.ndarray:
        count, size = int(header[f"{prefix}num"]), int(header[f"{prefix}entsize"])
        if count and size != layout.itemsize:
            raise self._error(f"{count} headers of {size} bytes")
        return np.frombuffer(self._part(int(header[f"{prefix}off"]), count * size), layout)

    def address_of(self, offset: int) -> int | None:
        """The address of what is at an offset in the file; None if that is not loaded."""
        for each in self._segments[self._segments["type"] == PT_LOAD]:
            start = int(each["offset"])
            if start <= offset < start + int(each["filesz"]):
                return (int(each["vaddr"]) + offset - start) & _ADDRESS_MASK
        return None

    def find(self, address: int) -> FileSymbol | None:
        """The symbol at or before an address that extends to it; one of unknown size does not."""
        place = int(self._addresses.searchsorted(np.uint64(address), side="right")) - 1
        if place < 0:
            return None
        row = self._symbols[place]
        start, size = int(row["value"]), int(row["size"])
        if address - start >= max(size, 1):
            return None
        text = int(row["name"])
        name = self._strings[text : text + _LONGEST_NAME].partition(b"\0")[0]
        is_function = int(row["info"]) & 15 != STT_OBJECT
        return FileSymbol(name.decode("utf-8", "surrogateescape"), is_function, start, size)
