"""ELF shared objects from which a C library makes thread-local storage, written from nothing.

A template has no code: one writable segment, in it the initial image of the storage, and
relocations that make the dynamic linker store what it has decided. Its parts, in this order::

    ELF header, program headers
    symbols     1 the storage, under the template's name; 2 `RESULTS_SYMBOL`; then what is
                referred to in other libraries
    hash table  of one bucket: there are few symbols
    strings
    relocations one for each request
    dynamic section
    results     where the relocations store their values, in order of the requests
    image       at an offset and an address that both fit its alignment

The first address of the segment is chosen so that the image's fits any alignment, without a hole.

A header that says that the stack need not be executable is there because the dynamic linker
would otherwise make all stacks executable.

Specification: System V gABI, chapter 5 (program loading and dynamic linking); "ELF Handling For
Thread-Local Storage", chapter 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jitlink.formats.elf_layout import (
    ELFCLASS64,
    STB_GLOBAL,
    STB_WEAK,
    STT_NOTYPE,
    STT_OBJECT,
    STT_TLS,
    Identity,
    ProgramHeader,
    write_headers,
)
from jitlink.memory.tls import (
    RESULTS_SYMBOL,
    UNDEFINED_SYMBOL,
    TLSModuleSpec,
    TLSValue,
)

PT_LOAD, PT_DYNAMIC, PT_TLS, PT_GNU_STACK = 1, 2, 7, 0x6474E551
PF_W, PF_R = 2, 4
DT_NULL, DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA = 0, 1, 4, 5, 6, 7
DT_RELASZ, DT_RELAENT, DT_STRSZ, DT_SYMENT, DT_SONAME = 8, 9, 10, 11, 14
_STORAGE, _RESULTS, _FIRST_REFERENCE = 1, 2, 3
_PLACED = 1  # The section index of a symbol that is defined; there are no sections.


class TLSModuleFormat:
    """What the templates of an architecture are.

    Args:
        identity: what the ELF header says.
        page_size: the largest page size that the ABI allows, in bytes.
        relocations: type of the relocation that stores each value.

    Raises:
        ValueError: the identity is that of 32-bit ELF, in which there are none.
    """

    def __init__(
        self, identity: Identity, page_size: int, relocations: Mapping[TLSValue, int]
    ) -> None:
        if identity.elf_class != ELFCLASS64:
            raise ValueError("a storage template is 64-bit ELF")
        self.identity, self.page_size, self.relocations = identity, page_size, relocations

    def write(self, image: TLSModuleSpec) -> bytes:
        """The bytes of a template.

        Zeros behind the initial image's content take no room in it.
        """
        return _Writer(self, image).write()


class _Writer:
    def __init__(self, template: TLSModuleFormat, image: TLSModuleSpec) -> None:
        self.template = template
        self.image = image
        self.layout = template.identity.layout
        self.has_storage = image.size > 0
        self.strings = bytearray(b"\0")
        references = dict.fromkeys(each.symbol for each in image.requests if each.symbol)
        self.numbers = {name: n for n, name in enumerate(references, _FIRST_REFERENCE)}

    def write(self) -> bytes:
        """Lay the parts out one behind the other, each on a multiple of 8, and write them."""
        image, parts = self.image, {}
        name = self._string(image.name)
        needed = [self._string(each) for each in image.needed]
        names = [self._string(each) for each in (RESULTS_SYMBOL, *self.numbers)]
        segments = 4 if self.has_storage else 3
        results = sum(each.value.size for each in image.requests)
        sizes = {
            "headers": self.layout.header.itemsize + segments * self.layout.program_header.itemsize,
            "symbols": self.layout.symbol.itemsize * (_FIRST_REFERENCE + len(self.numbers)),
            "hash": 4 * (2 + 1 + _FIRST_REFERENCE + len(self.numbers)),
            "strings": len(self.strings),
            "relocations": self.layout.rela.itemsize * len(image.requests),
            "dynamic": self.layout.dynamic.itemsize * (len(needed) + 10),
            "results": results,
        }
        offset, offsets = 0, {}
        for part, size in sizes.items():
            offsets[part] = offset
            offset = -(-(offset + size) // 8) * 8
        page = self.template.page_size
        start = -(-offset // min(image.alignment, page)) * min(image.alignment, page)
        # So that the image's address, which is `base + start`, is a multiple of its alignment.
        base = -(-start // image.alignment) * image.alignment - start
        total = start + len(image.content)

        parts["headers"] = self._headers(offsets, sizes, base, start, total)
        parts["symbols"] = self._symbols([name, *names], base + offsets["results"], results)
        parts["hash"] = self._hash()
        parts["strings"] = bytes(self.strings)
        parts["relocations"] = self._relocations(base + offsets["results"])
        parts["dynamic"] = self._dynamic(offsets, sizes, base, name, needed)
        data = bytearray(total)
        for part, content in parts.items():
            data[offsets[part] : offsets[part] + len(content)] = content
        data[start:] = image.content
        return bytes(data)

    def _string(self, text: str) -> int:
        offset = len(self.strings)
        self.strings += text.encode("utf-8", "surrogateescape") + b"\0"
        return offset

    def _headers(
        self,
        offsets: Mapping[str, int],
        sizes: Mapping[str, int],
        base: int,
        start: int,
        total: int,
    ) -> bytes:
        image, access = self.image, PF_R | PF_W
        dynamic, size, page = offsets["dynamic"], sizes["dynamic"], self.template.page_size
        rows = [
            ProgramHeader(PT_LOAD, access, 0, base, total, total, page),
            ProgramHeader(PT_DYNAMIC, access, dynamic, base + dynamic, size, size, 8),
            ProgramHeader(PT_GNU_STACK, access, 0, 0, 0, 0, 16),
        ]
        if self.has_storage:
            content_size = len(image.content)
            rows.append(
                ProgramHeader(
                    PT_TLS, PF_R, start, base + start, content_size, image.size, image.alignment
                )
            )
        return write_headers(self.template.identity, rows)

    def _symbols(self, names: Sequence[int], results: int, size: int) -> bytes:
        symbols = np.zeros(_FIRST_REFERENCE + len(self.numbers), self.layout.symbol)
        symbols["name"][1:] = names
        symbols["info"][1:] = STB_GLOBAL << 4 | STT_NOTYPE
        # Without storage its name is only a name: it must not hide another template's.
        if self.has_storage:
            symbols["info"][_STORAGE] = STB_GLOBAL << 4 | STT_TLS
            symbols["shndx"][_STORAGE], symbols["size"][_STORAGE] = _PLACED, self.image.size
        else:
            symbols[_STORAGE] = 0
        symbols["info"][_RESULTS] = STB_GLOBAL << 4 | STT_OBJECT
        symbols["shndx"][_RESULTS], symbols["size"][_RESULTS] = _PLACED, size
        symbols["value"][_RESULTS] = results
        symbols["info"][_FIRST_REFERENCE:] = [
            (STB_WEAK if self.image.is_weak or name == UNDEFINED_SYMBOL else STB_GLOBAL) << 4
            | STT_TLS
            for name in self.numbers
        ]
        return symbols.tobytes()

    def _hash(self) -> bytes:
        """One bucket, whose chain goes through all symbols from the last to the first."""
        count = _FIRST_REFERENCE + len(self.numbers)
        chain = [0, *range(count - 1)]
        return np.array([1, count, count - 1, *chain], self.layout.word).tobytes()

    def _relocations(self, place: int) -> bytes:
        rows = []
        shift = self.layout.symbol_shift
        for value, symbol, addend in self.image.requests:
            number = self.numbers[symbol] if symbol else 0
            rows.append((place, number << shift | self.template.relocations[value], addend))
            place += value.size
        return np.array(rows, self.layout.rela).tobytes()

    def _dynamic(
        self,
        offsets: Mapping[str, int],
        sizes: Mapping[str, int],
        base: int,
        name: int,
        needed: Sequence[int],
    ) -> bytes:
        tags = [(DT_NEEDED, each) for each in needed]
        tags += [
            (DT_SONAME, name),
            (DT_HASH, base + offsets["hash"]),
            (DT_STRTAB, base + offsets["strings"]),
            (DT_STRSZ, sizes["strings"]),
            (DT_SYMTAB, base + offsets["symbols"]),
            (DT_SYMENT, self.layout.symbol.itemsize),
            (DT_RELA, base + offsets["relocations"]),
            (DT_RELASZ, sizes["relocations"]),
            (DT_RELAENT, self.layout.rela.itemsize),
            (DT_NULL, 0),
        ]
        return np.array(tags, self.layout.dynamic).tobytes()
