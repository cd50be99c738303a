"""TLS modules as ELF shared objects.

A TLS module has no code: one writable segment with the initialisation image and what the dynamic
linker needs for its relocations. Its parts, in this order::

    ELF header, program headers
    symbols     1 the TLS block, under the module's name; 2 `VALUES_SYMBOL`; then those of
                other modules that relocations refer to; then exported variables;
                then absolute functions
    hash table  of one bucket: there are few symbols
    strings
    relocations
    dynamic section
    values      which the relocations store, in the order of the relocations
    image       at an offset and an address that both fit its alignment

The first address of the segment is chosen so that the image's fits any alignment, without a hole.

PT_GNU_STACK is there because without it the dynamic linker would make all stacks executable. A
module that is to have that effect has no other.

Specification: System V gABI, chapter 5 (program loading and dynamic linking); "ELF Handling For
Thread-Local Storage", chapter 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jitlink.formats.elf_layout import (
    DT_HASH,
    DT_NEEDED,
    DT_NULL,
    DT_RELA,
    DT_RELAENT,
    DT_RELASZ,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMENT,
    DT_SYMTAB,
    ELFCLASS64,
    PF_R,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    PT_GNU_STACK,
    PT_LOAD,
    PT_TLS,
    SHN_ABS,
    STB_GLOBAL,
    STB_WEAK,
    STT_FUNC,
    STT_NOTYPE,
    STT_OBJECT,
    STT_TLS,
    Identity,
    ProgramHeader,
    write_headers,
)
from jitlink.memory.tls import (
    UNDEFINED_SYMBOL,
    VALUES_SYMBOL,
    TLSModuleSpec,
    TLSValue,
)

_EM_X86_64 = 62
_BLOCK, _VALUES, _FIRST_EXTERNAL = 1, 2, 3
_DEFINED = 1  # The section index of a symbol that is defined; there are no sections.


class TLSModuleFormat:
    """The format of an architecture's TLS modules.

    Args:
        identity: what the ELF header says.
        page_size: the largest page size that the ABI allows, in bytes.
        relocation_types: type of the relocation that stores each value.

    Raises:
        ValueError: the identity is that of 32-bit ELF, which is not written.
    """

    def __init__(
        self, identity: Identity, page_size: int, relocation_types: Mapping[TLSValue, int]
    ) -> None:
        if identity.elf_class != ELFCLASS64:
            raise ValueError("a TLS module is 64-bit ELF")
        self.identity, self.page_size = identity, page_size
        self.relocation_types = relocation_types

    def write(self, spec: TLSModuleSpec) -> bytes:
        """The bytes of a TLS module, without the zeros after the initialisation image."""
        return _Writer(self, spec).write()


X86_64 = TLSModuleFormat(
    Identity(_EM_X86_64, ELFCLASS64, "little"),
    0x1000,
    {
        TLSValue.DTPMOD: 16,  # R_X86_64_DTPMOD64
        TLSValue.DTPOFF: 17,  # R_X86_64_DTPOFF64
        TLSValue.TPOFF: 18,  # R_X86_64_TPOFF64
        TLSValue.TLSDESC: 36,  # R_X86_64_TLSDESC
    },
)
"""TLS modules for x86-64."""


def write_stack_module(identity: Identity, page_size: int) -> bytes:
    """The bytes of a module whose loading makes all stacks executable, where that is supported.

    Args:
        identity: that of the process's program.
        page_size: the largest page size that the ABI allows, in bytes.

    Raises:
        ValueError: the identity is that of 32-bit ELF, which is not written.
    """
    spec = TLSModuleSpec("jitlink-executable-stack")
    return _Writer(TLSModuleFormat(identity, page_size, {}), spec, PF_R | PF_W | PF_X).write()


def write_scope_module(identity: Identity, page_size: int, needed: Sequence[str]) -> bytes:
    """The bytes of a module that has nothing but dependencies, which are searched in their order.

    Args:
        identity: that of the process's program.
        page_size: the largest page size that the ABI allows, in bytes.
        needed: names of modules or libraries.

    Raises:
        ValueError: the identity is that of 32-bit ELF, which is not written.
    """
    spec = TLSModuleSpec("jitlink-scope", needed=needed)
    return _Writer(TLSModuleFormat(identity, page_size, {}), spec).write()


def write_function_module(
    identity: Identity, page_size: int, soname: str, functions: Mapping[str, int]
) -> bytes:
    """The bytes of a module under whose name ``dlopen`` and ``dlsym`` find functions.

    Args:
        identity: that of the process's program.
        page_size: the largest page size that the ABI allows, in bytes.
        soname: the name for ``dlopen``; the C library compares it before it searches files.
        functions: addresses of the functions by name.

    Raises:
        ValueError: the identity is that of 32-bit ELF, which is not written.
    """
    module_format = TLSModuleFormat(identity, page_size, {})
    return _Writer(module_format, TLSModuleSpec(soname), functions=functions).write()


class _Writer:
    def __init__(
        self,
        module_format: TLSModuleFormat,
        spec: TLSModuleSpec,
        stack_access: int = PF_R | PF_W,
        functions: Mapping[str, int] | None = None,
    ) -> None:
        self.functions = functions or {}
        self.format = module_format
        self.spec = spec
        self.stack_access = stack_access
        self.layout = module_format.identity.layout
        self.has_block = spec.size > 0
        self.strings = bytearray(b"\0")
        externals = dict.fromkeys(each.symbol for each in spec.relocations if each.symbol)
        self.numbers = {name: n for n, name in enumerate(externals, _FIRST_EXTERNAL)}
        self.first_function = _FIRST_EXTERNAL + len(self.numbers) + len(spec.symbols)
        self.symbol_count = self.first_function + len(self.functions)

    def write(self) -> bytes:
        """Lay out the parts one after the other, each at a multiple of 8, and write them."""
        spec, parts = self.spec, {}
        name = self._string(spec.name)
        needed = [self._string(each) for each in spec.needed]
        exported = [*(each.name for each in spec.symbols), *self.functions]
        names = [self._string(each) for each in (VALUES_SYMBOL, *self.numbers, *exported)]
        segments = 4 if self.has_block else 3
        values = sum(each.value.size for each in spec.relocations)
        sizes = {
            "headers": self.layout.header.itemsize + segments * self.layout.program_header.itemsize,
            "symbols": self.layout.symbol.itemsize * self.symbol_count,
            "hash": 4 * (2 + 1 + self.symbol_count),
            "strings": len(self.strings),
            "relocations": self.layout.rela.itemsize * len(spec.relocations),
            "dynamic": self.layout.dynamic.itemsize * (len(needed) + 10),
            "values": values,
        }
        offset, offsets = 0, {}
        for part, size in sizes.items():
            offsets[part] = offset
            offset = -(-(offset + size) // 8) * 8
        page = self.format.page_size
        start = -(-offset // min(spec.alignment, page)) * min(spec.alignment, page)
        # So that the image's address, which is `base + start`, is a multiple of its alignment.
        base = -(-start // spec.alignment) * spec.alignment - start
        total = start + len(spec.image)

        parts["headers"] = self._headers(offsets, sizes, base, start, total)
        parts["symbols"] = self._symbols([name, *names], base + offsets["values"], values)
        parts["hash"] = self._hash()
        parts["strings"] = bytes(self.strings)
        parts["relocations"] = self._relocations(base + offsets["values"])
        parts["dynamic"] = self._dynamic(offsets, sizes, base, name, needed)
        data = bytearray(total)
        for part, content in parts.items():
            data[offsets[part] : offsets[part] + len(content)] = content
        data[start:] = spec.image
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
        spec, access = self.spec, PF_R | PF_W
        dynamic, size, page = offsets["dynamic"], sizes["dynamic"], self.format.page_size
        rows = [
            ProgramHeader(PT_LOAD, access, 0, base, total, total, page),
            ProgramHeader(PT_DYNAMIC, access, dynamic, base + dynamic, size, size, 8),
            ProgramHeader(PT_GNU_STACK, self.stack_access, 0, 0, 0, 0, 16),
        ]
        if self.has_block:
            image_size = len(spec.image)
            rows.append(
                ProgramHeader(
                    PT_TLS, PF_R, start, base + start, image_size, spec.size, spec.alignment
                )
            )
        return write_headers(self.format.identity, rows)

    def _symbols(self, names: Sequence[int], values: int, size: int) -> bytes:
        symbols = np.zeros(self.symbol_count, self.layout.symbol)
        symbols["name"][1:] = names
        symbols["info"][1:] = STB_GLOBAL << 4 | STT_NOTYPE
        # Without a TLS block there is no such symbol: it must not hide another module's.
        if self.has_block:
            symbols["info"][_BLOCK] = STB_GLOBAL << 4 | STT_TLS
            symbols["shndx"][_BLOCK], symbols["size"][_BLOCK] = _DEFINED, self.spec.size
        else:
            symbols[_BLOCK] = 0
        symbols["info"][_VALUES] = STB_GLOBAL << 4 | STT_OBJECT
        symbols["shndx"][_VALUES], symbols["size"][_VALUES] = _DEFINED, size
        symbols["value"][_VALUES] = values
        first = _FIRST_EXTERNAL + len(self.numbers)
        variables = symbols[first : self.first_function]
        variables["info"], variables["shndx"] = STB_GLOBAL << 4 | STT_TLS, _DEFINED
        variables["value"] = [each.offset for each in self.spec.symbols]
        variables["size"] = [each.size for each in self.spec.symbols]
        functions = symbols[self.first_function :]
        functions["info"], functions["shndx"] = STB_GLOBAL << 4 | STT_FUNC, SHN_ABS
        functions["value"] = list(self.functions.values())
        symbols["info"][_FIRST_EXTERNAL:first] = [
            (STB_WEAK if self.spec.is_weak or name == UNDEFINED_SYMBOL else STB_GLOBAL) << 4
            | STT_TLS
            for name in self.numbers
        ]
        return symbols.tobytes()

    def _hash(self) -> bytes:
        """One bucket, whose chain has all symbols from the last to the first."""
        count = self.symbol_count
        chain = [0, *range(count - 1)]
        return np.array([1, count, count - 1, *chain], self.layout.word).tobytes()

    def _relocations(self, place: int) -> bytes:
        rows = []
        shift = self.layout.symbol_shift
        for value, symbol, addend in self.spec.relocations:
            number = self.numbers[symbol] if symbol else 0
            rows.append((place, number << shift | self.format.relocation_types[value], addend))
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
