"""ELF files with sections and a symbol table, for debuggers, symbolizers and tools.

Specification: System V gABI, chapter 4 (sections and symbols).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jitlink.formats.elf_layout import (
    SHN_LORESERVE,
    SHT_NOBITS,
    SHT_STRTAB,
    SHT_SYMTAB,
    STB_GLOBAL,
    STB_LOCAL,
    STT_FUNC,
    STT_NOTYPE,
    STT_OBJECT,
    Identity,
)
from jitlink.graph.columns import Int64Array
from jitlink.memory.images import ImageSymbols

MOST_SECTIONS = SHN_LORESERVE - 2
"""How many sections are written: more would need headers of another form."""


class OutputSection(NamedTuple):
    """A section of a file that is written.

    Attributes:
        name: its name.
        type: sh_type.
        content: its bytes; none if it is SHT_NOBITS.
        flags: sh_flags.
        address: sh_addr.
        size: sh_size if it is SHT_NOBITS; that of others is the size of the content.
        alignment: sh_addralign, and the alignment of the content in the file, in bytes.
        link, info, entry_size: as in the section header.
    """

    name: str
    type: int
    content: bytes | memoryview = b""
    flags: int = 0
    address: int = 0
    size: int = 0
    alignment: int = 1
    link: int = 0
    info: int = 0
    entry_size: int = 0


def symbol_sections(
    identity: Identity, symbols: ImageSymbols, sections: Int64Array, bias: int, number: int
) -> list[OutputSection]:
    """The sections of a symbol table and of its names.

    Args:
        identity: that of the file.
        symbols: the symbols, at their addresses.
        sections: the number of the section that each is in (int64).
        bias: what is subtracted from the addresses.
        number: the number of the first of the two sections.
    """
    # Local symbols come first.
    order = np.argsort(~symbols.is_local, kind="stable")
    symbols, sections = symbols.take(order.tolist()), sections[order]
    names = [name.encode("utf-8", "surrogateescape").replace(b"\0", b"?") for name in symbols.names]
    strings = b"\0" + b"\0".join(names) + b"\0"
    lengths = np.array([len(name) + 1 for name in names], np.int64)
    binding = np.where(symbols.is_local, STB_LOCAL, STB_GLOBAL)
    kind = np.where(symbols.sizes == 0, STT_NOTYPE, STT_OBJECT)
    kind[symbols.is_callable] = STT_FUNC
    table = np.zeros(1 + len(names), identity.layout.symbol)
    table["name"][1:] = 1 + np.cumsum(lengths) - lengths
    table["info"][1:], table["shndx"][1:] = binding << 4 | kind, sections
    table["value"][1:], table["size"][1:] = symbols.addresses - np.uint64(bias), symbols.sizes
    first_global = 1 + int(np.count_nonzero(symbols.is_local))
    size, content = table.dtype.itemsize, table.tobytes()
    return [
        OutputSection(
            ".symtab", SHT_SYMTAB, content, alignment=8, link=number + 1, info=first_global,
            entry_size=size,
        ),
        OutputSection(".strtab", SHT_STRTAB, strings),
    ]  # fmt: skip


def write_sections(identity: Identity, headers: bytes, sections: Sequence[OutputSection]) -> bytes:
    """A file of headers and sections, which one with the names of the sections is added to.

    Args:
        identity: that of the file.
        headers: what `write_headers` returned. The contents follow in order of the sections.
        sections: the sections, whose numbers begin at one; at most `MOST_SECTIONS`.
    """
    layout, content = identity.layout, bytearray(headers)
    encoded = [section.name.encode() + b"\0" for section in sections]
    own = b".shstrtab\0"
    names = b"\0" + b"".join(encoded) + own
    rows = np.zeros(len(sections) + 2, layout.section)
    name = 1
    for row, section, text in zip(
        rows[1:],
        [*sections, OutputSection("", SHT_STRTAB, names)],
        [*encoded, own],
        strict=True,
    ):
        content += bytes(-len(content) % section.alignment)
        row["name"], row["type"], row["flags"] = name, section.type, section.flags
        row["addr"], row["addralign"] = section.address, section.alignment
        row["offset"] = len(content)
        row["size"] = section.size if section.type == SHT_NOBITS else len(section.content)
        row["link"], row["info"], row["entsize"] = section.link, section.info, section.entry_size
        content += section.content
        name += len(text)
    content += bytes(-len(content) % 8)
    header = np.frombuffer(content, layout.header, 1).copy()
    header["shoff"], header["shentsize"] = len(content), layout.section.itemsize
    header["shnum"], header["shstrndx"] = len(rows), len(rows) - 1
    content[: layout.header.itemsize] = header.tobytes()
    return bytes(content + rows.tobytes())
