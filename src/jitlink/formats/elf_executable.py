"""ELF executables of placed code: a segment for each range of memory, and a symbol table.

They are for tools that load code into the memory of a machine, debug it there or convert it to
other formats: debug probes, emulators, objcopy. The physical address of a segment is where its
contents are stored (load address); start-up code may copy them elsewhere.

Specification: System V gABI, chapters 4 (sections and symbols) and 5 (program headers).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jitlink.formats.elf_layout import (
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PT_LOAD,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_ABS,
    SHT_NOBITS,
    SHT_PROGBITS,
    Identity,
    ProgramHeader,
    write_headers,
)
from jitlink.formats.elf_writer import (
    MOST_SECTIONS,
    OutputSection,
    symbol_sections,
    write_sections,
)
from jitlink.graph import MemProt
from jitlink.graph.columns import Int64Array, UInt64Array
from jitlink.memory.images import ImageSymbols
from jitlink.memory.regions import PlacedSegment


def write_executable(
    identity: Identity, segments: Sequence[PlacedSegment], symbols: ImageSymbols, entry: int
) -> bytes:
    """The bytes of an executable.

    Args:
        identity: what tells its target apart.
        segments: the segments, in order of address.
        symbols: the symbols; those at no address of a segment are absolute ones.
        entry: the address of the entry point; 0 for none.

    Raises:
        ValueError: there are too many segments for sections of their own.
    """
    layout = identity.layout
    offset = layout.header.itemsize + len(segments) * layout.program_header.itemsize
    headers: list[ProgramHeader] = []
    sections: list[OutputSection] = []
    for segment in segments:
        headers.append(_program_header(segment, offset))
        sections += _sections(segment)
        offset += len(segment.content)
    if len(sections) + 2 > MOST_SECTIONS:
        raise ValueError(f"{len(segments)} segments are too many for one executable")
    numbers = _section_numbers(sections, symbols.addresses)
    sections += symbol_sections(identity, symbols, numbers, 0, len(sections) + 1)
    return write_sections(identity, write_headers(identity, headers, ET_EXEC, entry), sections)


def _program_header(segment: PlacedSegment, offset: int) -> ProgramHeader:
    access = (
        PF_R * bool(segment.prot & MemProt.READ)
        | PF_W * bool(segment.prot & MemProt.WRITE)
        | PF_X * bool(segment.prot & MemProt.EXEC)
    )
    address, size = segment.address, segment.size
    return ProgramHeader(
        PT_LOAD, access, offset, address, len(segment.content), size, 1, segment.load_address
    )


def _sections(segment: PlacedSegment) -> list[OutputSection]:
    """A section for the contents of a segment, and one for the zeros behind them."""
    flags = SHF_ALLOC
    flags |= SHF_WRITE if segment.prot & MemProt.WRITE else 0
    flags |= SHF_EXECINSTR if segment.prot & MemProt.EXEC else 0
    name, content, address = f".{segment.region.name}", segment.content, segment.address
    zeros = segment.size - len(content)
    sections = [OutputSection(name, SHT_PROGBITS, content, flags, address)] if content else []
    if zeros:
        start = address + len(content)
        sections.append(OutputSection(f"{name}.bss", SHT_NOBITS, b"", flags, start, zeros))
    return sections


def _section_numbers(sections: Sequence[OutputSection], addresses: UInt64Array) -> Int64Array:
    """The number of the section that each address is in, or at the end of (int64)."""
    numbers = np.full(len(addresses), SHN_ABS, np.int64)
    if sections:
        starts = np.array([each.address for each in sections], np.uint64)
        sizes = np.array([each.size or len(each.content) for each in sections], np.uint64)
        # An address between two sections is rather the start of the second one.
        index = np.searchsorted(starts, addresses, "right") - 1
        inside = (index >= 0) & (addresses - starts[index] <= sizes[index])
        numbers[inside] = index[inside] + 1
    return numbers
