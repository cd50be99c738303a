"""Small ELF shared objects without code, as jitlink has the dynamic linker load them.

One segment, readable and writable, has all that the dynamic linker needs. Its parts, in order::

    ELF header, program headers
    symbols
    hash table  of one bucket: there are few symbols
    strings
    relocations
    dynamic section
    data        zeros, where the relocations store
    TLS image   at an offset and an address that both fit its alignment

The first address of the segment is chosen so that the TLS image's fits any alignment, without a
hole.

PT_GNU_STACK is there because without it the dynamic linker would make all stacks executable. A
shared object that is to have that effect says so there.

Specification: System V gABI, chapter 5 (program loading and dynamic linking).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jitlink.formats.elf_layout import (
    PF_R,
    PF_W,
    PT_DYNAMIC,
    PT_GNU_STACK,
    PT_LOAD,
    PT_TLS,
    SHN_UNDEF,
    STB_GLOBAL,
    Identity,
    ProgramHeader,
    dynamic_section,
    dynamic_size,
    write_headers,
)

_MAX_PAGE_SIZE = 1 << 16
"""The largest page size of any architecture that Linux runs on with glibc, in bytes."""


class Symbol(NamedTuple):
    """A dynamic symbol.

    Attributes:
        name: its name; surrogate escapes stand for bytes that are not UTF-8.
        type: STT_*.
        binding: STB_*.
        section: `DEFINED`, SHN_ABS or SHN_UNDEF.
        value: its address; in the TLS block or the data, its offset in bytes.
        size: in bytes.
        is_data: whether it is in the data.
    """

    name: str
    type: int
    binding: int = STB_GLOBAL
    section: int = SHN_UNDEF
    value: int = 0
    size: int = 0
    is_data: bool = False


class Relocation(NamedTuple):
    """A dynamic relocation.

    Attributes:
        offset: where it stores, in bytes from the start of the data.
        type: the architecture's number.
        symbol: index of the symbol in `SharedObject.symbols`; None for none.
        addend: the addend.
    """

    offset: int
    type: int
    symbol: int | None
    addend: int


class TLSSegment(NamedTuple):
    """A TLS block.

    Attributes:
        image: its initialisation image; the rest is zero.
        size: in bytes.
        alignment: in bytes, a power of two.
    """

    image: bytes | bytearray
    size: int
    alignment: int


class SharedObject(NamedTuple):
    """The contents of a shared object.

    Attributes:
        soname: its name.
        needed: names of the shared objects that it depends on.
        symbols: its dynamic symbols.
        data_size: size of the data in bytes.
        relocations: its dynamic relocations.
        tls: its TLS block, if it has one.
        stack_access: access to stacks that it demands, of PF_*.
    """

    soname: str
    needed: Sequence[str] = ()
    symbols: Sequence[Symbol] = ()
    data_size: int = 0
    relocations: Sequence[Relocation] = ()
    tls: TLSSegment | None = None
    stack_access: int = PF_R | PF_W


def write_shared_object(
    identity: Identity, contents: SharedObject, page_size: int = _MAX_PAGE_SIZE
) -> bytes:
    """The bytes of a shared object, without the zeros after the TLS image.

    Args:
        identity: what the ELF header says.
        contents: the contents.
        page_size: the largest page size that the ABI allows, in bytes.
    """
    return _Writer(identity, contents, page_size).write()


class _Writer:
    def __init__(self, identity: Identity, contents: SharedObject, page_size: int) -> None:
        self.identity, self.contents, self.page_size = identity, contents, page_size
        self.layout = identity.layout
        self.strings = bytearray(b"\0")
        self.soname = self._string(contents.soname)
        self.needed = [self._string(each) for each in contents.needed]
        self.names = [self._string(each.name) for each in contents.symbols]

    def _string(self, text: str) -> int:
        offset = len(self.strings)
        self.strings += text.encode("utf-8", "surrogateescape") + b"\0"
        return offset

    def write(self) -> bytes:
        """Lay out the parts one after the other, each at a multiple of 8, and write them."""
        contents, layout = self.contents, self.layout
        segments, count = 3 + (contents.tls is not None), 1 + len(contents.symbols)
        has_relocations = bool(contents.relocations)
        sizes = {
            "headers": layout.header.itemsize + segments * layout.program_header.itemsize,
            "symbols": layout.symbol.itemsize * count,
            "hash": layout.word.itemsize * (2 + 1 + count),
            "strings": len(self.strings),
            "relocations": layout.rela.itemsize * len(contents.relocations),
            "dynamic": dynamic_size(
                self.identity, len(self.needed), has_relocations=has_relocations
            ),
            "data": contents.data_size,
        }
        offset, offsets = 0, {}
        for part, size in sizes.items():
            offsets[part] = offset
            offset = -(-(offset + size) // 8) * 8
        tls = contents.tls or TLSSegment(b"", 0, 1)
        aligned = min(tls.alignment, self.page_size)
        start = -(-offset // aligned) * aligned
        # So that the image's address, which is `base + start`, is a multiple of its alignment.
        base = -(-start // tls.alignment) * tls.alignment - start
        data = bytearray(start)
        parts = {
            "headers": self._headers(offsets, sizes, base, start),
            "symbols": self._symbols(base + offsets["data"]),
            "hash": self._hash(),
            "strings": bytes(self.strings),
            "relocations": self._relocations(base + offsets["data"]),
            "dynamic": self._dynamic(offsets, sizes, base),
        }
        for part, content in parts.items():
            data[offsets[part] : offsets[part] + len(content)] = content
        return bytes(data + tls.image)

    def _headers(
        self, offsets: Mapping[str, int], sizes: Mapping[str, int], base: int, start: int
    ) -> bytes:
        contents, access = self.contents, PF_R | PF_W
        tls, dynamic, size = contents.tls, offsets["dynamic"], sizes["dynamic"]
        total = start + (0 if tls is None else len(tls.image))
        rows = [
            ProgramHeader(PT_LOAD, access, 0, base, total, total, self.page_size),
            ProgramHeader(PT_DYNAMIC, access, dynamic, base + dynamic, size, size, 8),
            ProgramHeader(PT_GNU_STACK, contents.stack_access, 0, 0, 0, 0, 16),
        ]
        if tls is not None:
            place = start, base + start, len(tls.image), tls.size, tls.alignment
            rows.append(ProgramHeader(PT_TLS, PF_R, *place))
        return write_headers(self.identity, rows)

    def _symbols(self, data: int) -> bytes:
        symbols, given = np.zeros(1 + len(self.names), self.layout.symbol), self.contents.symbols
        symbols["name"][1:] = self.names
        symbols["info"][1:] = [each.binding << 4 | each.type for each in given]
        symbols["shndx"][1:] = [each.section for each in given]
        symbols["value"][1:] = [each.value + (data if each.is_data else 0) for each in given]
        symbols["size"][1:] = [each.size for each in given]
        return symbols.tobytes()

    def _hash(self) -> bytes:
        """One bucket, whose chain has all symbols from the last to the first."""
        count = 1 + len(self.names)
        chain = [0, *range(count - 1)]
        return np.array([1, count, count - 1, *chain], self.layout.word).tobytes()

    def _relocations(self, data: int) -> bytes:
        rows = []
        for offset, kind, symbol, addend in self.contents.relocations:
            number = 0 if symbol is None else 1 + symbol
            rows.append((data + offset, number << self.layout.symbol_shift | kind, addend))
        return np.array(rows, self.layout.rela).tobytes()

    def _dynamic(self, offsets: Mapping[str, int], sizes: Mapping[str, int], base: int) -> bytes:
        addresses = {part: base + offset for part, offset in offsets.items()}
        size = sizes["relocations"]
        return dynamic_section(
            self.identity,
            soname=self.soname,
            hash_table=addresses["hash"],
            strings=(addresses["strings"], sizes["strings"]),
            symbols=addresses["symbols"],
            needed=self.needed,
            relocations=(addresses["relocations"], size) if size else None,
        )
