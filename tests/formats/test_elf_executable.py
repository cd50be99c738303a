"""Executables of placed code that other tools do not show: their limits, and symbols at bounds."""

import numpy as np
import pytest

from jitlink.formats.elf_executable import write_executable
from jitlink.formats.elf_layout import ELFCLASS64, SHN_ABS, Identity
from jitlink.formats.elf_writer import MOST_SECTIONS
from jitlink.graph import MemProt
from jitlink.memory.images import ImageSymbols
from jitlink.memory.regions import MemoryRegion, PlacedSegment

IDENTITY = Identity(243, ELFCLASS64, "little")
REGION = MemoryRegion("memory", 0, 1 << 40)


def segment(address: int, size: int = 16) -> PlacedSegment:
    content = memoryview(bytes(8))
    return PlacedSegment(REGION, address, address, content, size, MemProt.READ)


def symbols_at(*addresses: int) -> ImageSymbols:
    count = len(addresses)
    no, none = np.zeros(count, np.bool_), np.zeros(count, np.uint64)
    places = np.array(addresses, np.uint64)
    names = [f"s{number}" for number in range(count)]
    return ImageSymbols(names, places, none, no, no, no, no)


def test_symbols_are_in_the_section_that_has_them_or_ends_there() -> None:
    # Sections: contents at 0x100 and zeros at 0x108; the same at 0x110 and 0x118.
    rows = {0xFF: SHN_ABS, 0x100: 1, 0x107: 1, 0x108: 2, 0x110: 3, 0x120: 4, 0x121: SHN_ABS}
    segments = [segment(0x100), segment(0x110)]
    data = write_executable(IDENTITY, segments, symbols_at(*rows), 0)
    layout = IDENTITY.layout
    (header,) = np.frombuffer(data, layout.header, 1)
    sections = np.frombuffer(data, layout.section, header["shnum"], int(header["shoff"]))
    table = sections[5]
    count = int(table["size"]) // layout.symbol.itemsize
    found = np.frombuffer(data, layout.symbol, count, int(table["offset"]))
    assert dict(zip(found["value"][1:].tolist(), found["shndx"][1:].tolist(), strict=True)) == rows


def test_no_segments() -> None:
    assert write_executable(IDENTITY, [], symbols_at(), 0)[:4] == b"\x7fELF"


def test_more_segments_than_a_file_has_sections_for() -> None:
    segments = [segment(number * 16) for number in range(MOST_SECTIONS // 2)]
    with pytest.raises(ValueError, match="32639 segments are too many"):
        write_executable(IDENTITY, segments, symbols_at(), 0)
