"""Symbol files: ELF shared objects with nothing but a symbol table, for symbolizers.

A symbolizer opens the file that an image of the process is named after, and looks addresses up in
its `.symtab`, less the address at which the dynamic linker says that the image is loaded.

Specification: System V gABI, chapter 4 (sections and symbols).
"""

from __future__ import annotations

import numpy as np

from jitlink.formats.elf_layout import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHT_NOBITS,
    SHT_STRTAB,
    SHT_SYMTAB,
    STB_GLOBAL,
    STT_FUNC,
    STT_OBJECT,
    Identity,
    write_headers,
)
from jitlink.memory.images import ImageSymbols

_SECTION_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
_TEXT, _SYMTAB, _STRTAB, _SHSTRTAB = 1, 2, 3, 4


def write_symbol_file(identity: Identity, symbols: ImageSymbols, bias: int) -> bytes:
    """The bytes of a symbol file.

    Args:
        identity: that of the process's program.
        symbols: the symbols, at their addresses.
        bias: the address at which the image is loaded.
    """
    layout = identity.layout
    names = [name.encode("utf-8", "surrogateescape").replace(b"\0", b"?") for name in symbols.names]
    strings = b"\0" + b"\0".join(names) + b"\0"
    lengths = np.array([len(name) + 1 for name in names], np.int64)
    values = symbols.addresses - np.uint64(bias)
    table = np.zeros(1 + len(names), layout.symbol)
    table["name"][1:] = 1 + np.cumsum(lengths) - lengths
    table["info"][1:] = STB_GLOBAL << 4 | np.where(symbols.is_callable, STT_FUNC, STT_OBJECT)
    table["shndx"][1:] = _TEXT
    table["value"][1:], table["size"][1:] = values, symbols.sizes
    contents = [table.tobytes(), strings, _SECTION_NAMES]
    sections = np.zeros(5, layout.section)
    sections["name"] = [0, *(_SECTION_NAMES.index(name) for name in _names())]
    sections["type"] = [0, SHT_NOBITS, SHT_SYMTAB, SHT_STRTAB, SHT_STRTAB]
    sections["flags"][_TEXT] = SHF_ALLOC | SHF_EXECINSTR
    if len(values):
        start, end = values.min(), (values + symbols.sizes).max()
        sections["addr"][_TEXT], sections["size"][_TEXT] = start, end - start
    sections["addralign"] = [0, 16, 8, 1, 1]
    sections["entsize"][_SYMTAB], sections["link"][_SYMTAB] = layout.symbol.itemsize, _STRTAB
    # The first symbol that is not local.
    sections["info"][_SYMTAB] = 1
    content = bytearray(write_headers(identity))
    for number, part in enumerate(contents, _SYMTAB):
        content += bytes(-len(content) % 8)
        sections["offset"][number], sections["size"][number] = len(content), len(part)
        content += part
    content += bytes(-len(content) % 8)
    header = np.frombuffer(content, layout.header, 1).copy()
    header["shoff"], header["shentsize"] = len(content), layout.section.itemsize
    header["shnum"], header["shstrndx"] = len(sections), _SHSTRTAB
    content[: layout.header.itemsize] = header.tobytes()
    return bytes(content + sections.tobytes())


def _names() -> list[bytes]:
    """The names of the sections but the first, each with what precedes and follows it."""
    return [name + b"\0" for name in _SECTION_NAMES.split(b"\0")[1:-1]]
