"""Dynamic symbols of shared objects in files, looked up by name through their hash tables.

As for the dynamic linker, program headers lead to the tables, so that files without section headers
have symbols, too. A look-up reads a few words of a file of any size. Nothing here is loaded.

Quirks: a definition of any version counts, as for `dlsym` of a name that has just one version.
Chains in DT_HASH may be cyclic, and those of both tables may be as long as the file; a look-up
follows `_LONGEST_CHAIN` links of one.

Specification: System V gABI, chapter 5, "Dynamic Section" and "Hash Table"; "ELF: symbol lookup via
DT_HASH and DT_GNU_HASH" in the generic ABI's discussion of ``DT_GNU_HASH``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jitlink.errors import ObjectError
from jitlink.formats.elf_image import elf_hash
from jitlink.formats.elf_layout import (
    DT_HASH,
    DT_NULL,
    DT_STRTAB,
    DT_SYMTAB,
    PT_DYNAMIC,
    PT_LOAD,
    SHN_UNDEF,
    STB_GLOBAL,
    STB_GNU_UNIQUE,
    STB_WEAK,
    STV_HIDDEN,
    STV_INTERNAL,
    identify,
    is_shared_object,
)

_DT_GNU_HASH = 0x6FFFFEF5
_LONGEST_CHAIN = 256
_MOST_DYNAMIC_ENTRIES = 1024
_WORD = 4


class DynamicSymbols:
    """The dynamic symbols of a shared object.

    Args:
        data: the file.
        file: its name, for errors.

    Raises:
        ObjectError: it is no shared object with dynamic symbols, or is malformed.
    """

    def __init__(self, data: memoryview, file: str) -> None:
        self._data, self._file = data, file
        if not is_shared_object(data):
            raise self._error("not a shared object")
        identity = identify(data, file)
        self._layout, self._byte_order = identity.layout, identity.byte_order
        self._segments = self._program_headers()
        tables = self._dynamic_entries()
        if DT_STRTAB not in tables or DT_SYMTAB not in tables:
            raise self._error("no dynamic symbols")
        self._symbols, self._strings = self._at(tables[DT_SYMTAB]), self._at(tables[DT_STRTAB])
        self._gnu_hash = self._at(tables[_DT_GNU_HASH]) if _DT_GNU_HASH in tables else None
        self._hash = self._at(tables[DT_HASH]) if DT_HASH in tables else None

    def _error(self, message: str) -> ObjectError:
        return ObjectError(message, file=self._file)

    def _program_headers(self) -> list[tuple[int, int, int, int]]:
        """Type, position, address and size in the file of each segment that matters."""
        header = np.frombuffer(self._data, self._layout.header, 1)[0]
        layout, start, count = self._layout.program_header, int(header["phoff"]), header["phnum"]
        if not count or header["phentsize"] != layout.itemsize:
            raise self._error(f"{count} program headers of {header['phentsize']} bytes")
        rows = self._part(self._data, start, int(count) * layout.itemsize)
        table = np.frombuffer(rows, layout)
        table = table[(table["type"] == PT_LOAD) | (table["type"] == PT_DYNAMIC)]
        columns = (table[name].tolist() for name in ("type", "offset", "vaddr", "filesz"))
        return list(zip(*columns, strict=True))

    def _part(self, view: memoryview, start: int, size: int) -> memoryview:
        if start + size > len(view):
            raise self._error(f"{size} bytes at {start:#x} of a part of {len(view)} bytes")
        return view[start : start + size]

    def _dynamic_entries(self) -> dict[int, int]:
        place = next((row for row in self._segments if row[0] == PT_DYNAMIC), None)
        if place is None:
            raise self._error("no dynamic section")
        layout = self._layout.dynamic
        size = min(place[3] // layout.itemsize, _MOST_DYNAMIC_ENTRIES) * layout.itemsize
        table = np.frombuffer(self._part(self._data, place[1], size), layout)
        entries: dict[int, int] = {}
        for tag, value in zip(table["tag"].tolist(), table["value"].tolist(), strict=True):
            if tag == DT_NULL:
                break
            entries[tag] = value
        return entries

    def _at(self, address: int) -> memoryview:
        """The bytes in the file from an address on, to the end of its segment."""
        for kind, offset, start, size in self._segments:
            if kind == PT_LOAD and start <= address < start + size:
                return self._data[offset + address - start : offset + size]
        raise self._error(f"nothing in the file is at {address:#x}")

    def defines(self, name: str) -> bool:
        """Whether the object has a definition of a name for others.

        Raises:
            ObjectError: a table is malformed.
        """
        encoded = name.encode("utf-8", "surrogateescape")
        if self._gnu_hash is not None:
            rows = self._gnu_candidates(self._gnu_hash, encoded)
        elif self._hash is not None:
            rows = self._candidates(self._hash, encoded)
        else:
            return False
        return any(self._is_definition(row, encoded) for row in rows)

    def _word(self, view: memoryview, index: int) -> int:
        return int.from_bytes(self._part(view, index * _WORD, _WORD), self._byte_order)

    def _gnu_candidates(self, table: memoryview, name: bytes) -> Iterator[int]:
        """The rows of symbols whose hash is that of a name, by DT_GNU_HASH."""
        buckets, first, filter_size, shift = (self._word(table, index) for index in range(4))
        if not buckets or not filter_size:
            return
        value, bits = _gnu_hash(name), 8 * self._layout.dynamic.itemsize // 2
        width = bits // 8
        part = self._part(table, 4 * _WORD + value // bits % filter_size * width, width)
        mask = 1 << value % bits | 1 << (value >> min(shift, 32)) % bits
        if int.from_bytes(part, self._byte_order) & mask != mask:
            return
        start = 4 + filter_size * (width // _WORD)
        row = self._word(table, start + value % buckets)
        if row < first:
            return
        for each in range(row, row + _LONGEST_CHAIN):
            link = self._word(table, start + buckets + each - first)
            if link | 1 == value | 1:
                yield each
            if link & 1:
                return

    def _candidates(self, table: memoryview, name: bytes) -> Iterator[int]:
        """The rows of symbols in the chain of a name, by DT_HASH."""
        buckets = self._word(table, 0)
        row = self._word(table, 2 + elf_hash(name) % buckets) if buckets else 0
        for _ in range(_LONGEST_CHAIN):
            if not row:
                return
            yield row
            row = self._word(table, 2 + buckets + row)

    def _is_definition(self, row: int, name: bytes) -> bool:
        layout = self._layout.symbol
        symbol = np.frombuffer(
            self._part(self._symbols, row * layout.itemsize, layout.itemsize), layout
        )[0]
        start = int(symbol["name"])
        return (
            bytes(self._strings[start : start + len(name) + 1]) == name + b"\0"
            and int(symbol["shndx"]) != SHN_UNDEF
            and int(symbol["info"]) >> 4 in {STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE}
            and int(symbol["other"]) & 3 not in {STV_INTERNAL, STV_HIDDEN}
        )


def _gnu_hash(name: bytes) -> int:
    """The hash of a name in DT_GNU_HASH: Bernstein's, with 32 bits."""
    value = 5381
    for character in name:
        value = (value * 33 + character) & 0xFFFFFFFF
    return value
