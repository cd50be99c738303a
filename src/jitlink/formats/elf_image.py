"""Images as ELF shared objects.

The file of an image has a header page and the beginning of its tables. Between them the dynamic
linker leaves a range of addresses free, for the memory of linked code::

    ELF header, program headers     a page; the rows of the memory's segments are PT_NULL at first
    memory                          not in the file
    dynamic section
    hash table, strings, symbols    zeros at first, with room for what is exported later

The dynamic linker keeps using the program headers, the dynamic section and the tables where they
are mapped, so what is written there takes effect at once. It may read them at any time, on any
thread. A row of a segment never changes but in its type and its size, which are one store each. A
symbol and its name are complete before the head of its bucket refers to it, and nothing moves. A
symbol that is removed becomes hidden, which is one store: a lookup that has found it already gets
the address that it had. It stays in its chain; its name gets the same place when it is defined
again.

There are no relocations, no initialisers and no frames: linked code has all that without an image.
PT_GNU_STACK is there because without it the dynamic linker would make all stacks executable.

Specification: System V gABI, chapter 5 (program loading and dynamic linking).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jitlink.errors import AllocationError
from jitlink.formats.elf_layout import (
    DEFINED,
    PF_R,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    PT_GNU_STACK,
    PT_LOAD,
    PT_NULL,
    SHN_ABS,
    STB_GLOBAL,
    STB_WEAK,
    STT_FUNC,
    STT_OBJECT,
    STV_DEFAULT,
    STV_HIDDEN,
    Identity,
    ProgramHeader,
    check_class,
    dynamic_section,
    dynamic_size,
    write_headers,
)
from jitlink.graph import MemProt
from jitlink.graph.columns import Int64Array, UInt64Array
from jitlink.memory.images import SEGMENT_PROTECTIONS, ImageSymbols

_ACCESS = ((MemProt.READ, PF_R), (MemProt.WRITE, PF_W), (MemProt.EXEC, PF_X))
_FIRST_SEGMENT = 1
_ROWS = _FIRST_SEGMENT + len(SEGMENT_PROTECTIONS) + 3
_TABLES = _FIRST_SEGMENT + len(SEGMENT_PROTECTIONS)
_TABLES_SHARE = 8
_TABLES_LIMIT = 1 << 31
"""The tables get this part of an image's size, up to this limit in bytes."""
_SYMBOL_SHARE = 128
"""Bytes of tables for each symbol: itself, its place in the hash table, and its name."""
_CHAIN_LENGTH = 8
_SONAME_LIMIT = 64
_HASH_BITS = 0x0FFFFFFF
_FEW_NAMES, _LONG_NAME = 32, 512
"""Up to so many names, and those that are longer, are hashed one by one."""


class ImageLayout:
    """Where the parts of an image are, in bytes from its first address.

    Args:
        identity: that of the process's program.
        page_size: the system's, in bytes.
        size: size of the image in bytes, a multiple of the page size.
        has_symbols: whether symbols are going to be exported.

    Attributes:
        memory: start of the memory, which ends where the tables start.
        tables: start of the tables, which begin with the dynamic section.
        hash, strings, symbols: offsets in the tables.
        tables_size: size of the tables.
        buckets: how many the hash table has.
        symbol_limit: how many symbols there can be, the null symbol included.
        string_limit: bytes of all names.

    Raises:
        ValueError: the identity is that of 32-bit ELF, which is not written; or the size is less
            than some pages.
    """

    def __init__(self, identity: Identity, page_size: int, size: int, *, has_symbols: bool) -> None:
        check_class(identity)
        self.identity, self.page_size = identity, page_size
        layout = identity.layout
        share = min(size // _TABLES_SHARE, _TABLES_LIMIT) if has_symbols else 0
        self.tables_size = max(share // page_size, 1) * page_size
        self.memory, self.tables = page_size, size - self.tables_size
        self.symbol_limit = 1 + share // _SYMBOL_SHARE
        self.buckets = 1 + self.symbol_limit // _CHAIN_LENGTH
        self.hash = dynamic_size(identity)
        hash_size = layout.word.itemsize * (2 + self.buckets + self.symbol_limit)
        self.symbols = -(-(self.hash + hash_size) // 8) * 8
        self.strings = self.symbols + layout.symbol.itemsize * self.symbol_limit
        self.string_limit = self.tables_size - self.strings
        if self.tables <= self.memory or self.string_limit < _SONAME_LIMIT:
            raise ValueError(f"an image of {size:#x} bytes is too small")

    def write(self, address: int) -> bytes:
        """The bytes of the file.

        Args:
            address: where the image should be mapped; 0 for anywhere.
        """
        layout, dynamic = self.identity.layout, address + self.tables
        section = dynamic_section(
            self.identity,
            soname=1,
            hash_table=dynamic + self.hash,
            strings=(dynamic + self.strings, self.string_limit),
            symbols=dynamic + self.symbols,
        )
        hash_start = np.array([self.buckets, 1], layout.word).tobytes()
        tables = section + hash_start
        headers_size = layout.header.itemsize + _ROWS * layout.program_header.itemsize
        page, segment = self.page_size, ProgramHeader(PT_NULL, 0, 0, 0, 0, 0, self.page_size)
        rows = [
            ProgramHeader(PT_LOAD, PF_R, 0, address, headers_size, headers_size, page),
            *(segment._replace(flags=_access(prot)) for prot in SEGMENT_PROTECTIONS),
            ProgramHeader(PT_LOAD, PF_R | PF_W, page, dynamic, len(tables), self.tables_size, page),
            ProgramHeader(PT_DYNAMIC, PF_R | PF_W, page, dynamic, self.hash, self.hash, 8),
            ProgramHeader(PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 16),
        ]
        return write_headers(self.identity, rows).ljust(page, b"\0") + tables


class ProgramHeaders:
    """The program headers of a loaded image.

    Args:
        layout: the image's.
        memory: the image's first page, writable.
        address: the address that the image was written for.
    """

    def __init__(self, layout: ImageLayout, memory: memoryview, address: int) -> None:
        records = layout.identity.layout
        self._rows = np.frombuffer(memory, records.program_header, _ROWS, records.header.itemsize)
        self._start = address + layout.memory
        # Natively these tables are not writable either, once the dynamic linker has relocated
        # them. A garbage collector searches what is writable for pointers.
        self._rows["flags"][_TABLES:-1] = PF_R

    def list_segment(self, index: int, offset: int, size: int) -> None:
        """List a segment; see `jitlink.memory.images.Image`."""
        rows, row = self._rows, _FIRST_SEGMENT + index
        if not size:
            rows["type"][row] = PT_NULL
        rows["vaddr"][row] = rows["paddr"][row] = self._start + offset
        rows["memsz"][row] = size
        if size:
            rows["type"][row] = PT_LOAD


class DynamicSymbols:
    """The dynamic symbols of a loaded image.

    Args:
        layout: the image's.
        memory: the image's tables, writable.
        bias: the difference between addresses and those that the image was written for.
        soname: a name that no other module has.

    Attributes:
        count: number of symbols, removed ones and the null symbol included.
    """

    def __init__(self, layout: ImageLayout, memory: memoryview, bias: int, soname: str) -> None:
        records = layout.identity.layout
        self._layout, self._bias = layout, bias
        words = np.frombuffer(memory, records.word, layout.symbols // 4, 0)[layout.hash // 4 :]
        self._header = words[:2]
        self._heads = words[2 : 2 + layout.buckets]
        self._chain = words[2 + layout.buckets :][: layout.symbol_limit]
        self._symbols = np.frombuffer(memory, records.symbol, layout.symbol_limit, layout.symbols)
        self._strings = memory[layout.strings :]
        self._string_end = 1
        self.count = 1
        # Rows by name, those of removed symbols included.
        self._rows: dict[bytes, int] = {}
        self._add_string(soname.encode() + b"\0")

    def _add_string(self, content: bytes) -> int:
        start, self._string_end = self._string_end, self._string_end + len(content)
        self._strings[start : self._string_end] = content
        return start

    def define(self, symbols: ImageSymbols) -> None:
        """Define symbols; those that are defined already stay as they are.

        Raises:
            AllocationError: there is no room for so many, or for their names; none was defined.
        """
        rows, names = self._rows, _encoded(symbols.names)
        # The first of each name; no lookup asks for a name with a null character.
        index = dict(zip(reversed(names), range(len(names) - 1, -1, -1), strict=True))
        is_new = len(index) == len(names) and index.keys().isdisjoint(rows)
        if is_new and not any(b"\0" in name for name in names):
            self._reserve(names)
            self._append(names, symbols)
            return
        index = {name: index[name] for name in names if b"\0" not in name}
        added = [name for name in index if name not in rows]
        known = [name for name in index if name in rows]
        again = [name for name in known if self._symbols["other"][rows[name]] == STV_HIDDEN]
        self._reserve(added)
        self._write(
            np.array([rows[name] for name in again], np.int64),
            symbols.rows([index[name] for name in again]),
        )
        self._append(added, symbols.rows([index[name] for name in added]))

    def _reserve(self, names: Sequence[bytes]) -> None:
        """Check that there is room for new symbols."""
        size = sum(map(len, names)) + len(names)
        limits = self._layout.symbol_limit, self._layout.string_limit
        if self.count + len(names) > limits[0] or self._string_end + size > limits[1]:
            message = (
                f"an image has room for {limits[0] - self.count} more dynamic symbols and "
                f"{limits[1] - self._string_end} bytes of their names, not for {len(names)} "
                f"and {size} bytes"
            )
            raise AllocationError(message, size=size)

    def _append(self, names: Sequence[bytes], symbols: ImageSymbols) -> None:
        if not names:
            return
        first, last = self.count, self.count + len(names)
        joined = b"\0".join(names) + b"\0"
        lengths = np.array(list(map(len, names)), np.int64)
        starts = np.cumsum(lengths + 1) - (lengths + 1)
        hashes = _hash_many(names, np.frombuffer(joined, np.uint8), starts, lengths)
        rows = np.arange(first, last)
        self._symbols["name"][first:last] = starts + self._add_string(joined)
        self._write(rows, symbols)
        buckets = hashes % self._layout.buckets
        order = np.argsort(buckets, kind="stable")
        of_row, sorted_rows = buckets[order], rows[order]
        is_first = np.append(True, of_row[1:] != of_row[:-1])
        # Each symbol is followed by the one before it in its bucket.
        previous = np.append(0, sorted_rows[:-1])
        previous[is_first] = self._heads[of_row[is_first]]
        self._chain[sorted_rows] = previous
        self._header[1] = self.count = last
        is_last = np.append(is_first[1:], True)
        self._heads[of_row[is_last]] = sorted_rows[is_last]
        self._rows.update(zip(names, rows.tolist(), strict=True))

    def _write(self, rows: Int64Array, symbols: ImageSymbols) -> None:
        """Write all of some symbols but their names; the visibility comes last."""
        if not len(rows):
            return
        table, binding = self._symbols, np.where(symbols.is_weak, STB_WEAK, STB_GLOBAL)
        table["info"][rows] = binding << 4 | np.where(symbols.is_callable, STT_FUNC, STT_OBJECT)
        table["size"][rows] = symbols.sizes
        table["value"][rows] = self._values(symbols)
        table["shndx"][rows] = np.where(symbols.is_absolute, SHN_ABS, DEFINED)
        table["other"][rows] = STV_DEFAULT

    def _values(self, symbols: ImageSymbols) -> UInt64Array:
        biases = np.array([self._bias, 0], np.uint64)
        return symbols.addresses - biases[symbols.is_absolute.astype(np.int64)]

    def remove(self, symbols: ImageSymbols) -> None:
        """Remove those of some symbols that are defined, with just these addresses."""
        row_of = self._rows.get
        rows = np.array([row_of(name, 0) for name in _encoded(symbols.names)], np.int64)
        # The null symbol stands for names that are not here, and is never removed.
        rows = rows[(self._symbols["value"][rows] == self._values(symbols)) & (rows != 0)]
        self._symbols["other"][rows] = STV_HIDDEN


def _encoded(names: Sequence[str]) -> list[bytes]:
    """The bytes of names; all at once, unless there is a null character in one."""
    encoded = "\0".join(names).encode("utf-8", "surrogateescape").split(b"\0") if names else []
    if len(encoded) == len(names):
        return encoded
    return [name.encode("utf-8", "surrogateescape") for name in names]


def _access(prot: MemProt) -> int:
    return sum(flag for bit, flag in _ACCESS if prot & bit)


def _hash_many(
    names: Sequence[bytes],
    characters: np.ndarray[tuple[int], np.dtype[np.uint8]],
    starts: Int64Array,
    lengths: Int64Array,
) -> Int64Array:
    """Hashes of names at some positions of an array, all characters of an index at once."""
    is_short = lengths <= (_LONG_NAME if len(names) > _FEW_NAMES else -1)
    hashes = np.zeros(len(names), np.int64)
    for number in np.flatnonzero(~is_short).tolist():
        hashes[number] = elf_hash(names[number])
    # The longest first, so that those with a character of an index are the first ones.
    short = np.flatnonzero(is_short)
    short = short[np.argsort(-lengths[short], kind="stable")]
    places, ends = starts[short], -lengths[short]
    values = np.zeros(len(short), np.int64)
    for index in range(int(lengths[short].max(initial=0))):
        count = int(np.searchsorted(ends, -index, side="left"))
        part = (values[:count] << 4) + characters[places[:count] + index]
        high = part & ~_HASH_BITS
        values[:count] = (part ^ (high >> 24)) & _HASH_BITS
    hashes[short] = values
    return hashes


def elf_hash(name: bytes) -> int:
    """The hash of a name in DT_HASH (gABI, chapter 5, "Hash Table")."""
    value = 0
    for character in name:
        value = (value << 4) + character
        high = value & ~_HASH_BITS
        value = (value ^ (high >> 24)) & _HASH_BITS
    return value
