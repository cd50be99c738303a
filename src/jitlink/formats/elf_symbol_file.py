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
    Identity,
    write_headers,
)
from jitlink.formats.elf_writer import OutputSection, symbol_sections, write_sections
from jitlink.memory.images import ImageSymbols


def write_symbol_file(identity: Identity, symbols: ImageSymbols, bias: int) -> bytes:
    """The bytes of a symbol file.

    Args:
        identity: that of the process's program.
        symbols: the symbols, at their addresses.
        bias: the address at which the image is loaded.
    """
    starts = symbols.addresses - np.uint64(bias)
    start = int(starts.min()) if len(starts) else 0
    end = int((starts + symbols.sizes).max()) if len(starts) else 0
    text = OutputSection(
        ".text", SHT_NOBITS, flags=SHF_ALLOC | SHF_EXECINSTR, address=start, size=end - start,
        alignment=16,
    )  # fmt: skip
    numbers = np.ones(len(starts), np.int64)
    sections = [text, *symbol_sections(identity, symbols, numbers, bias, 2)]
    return write_sections(identity, write_headers(identity), sections)
