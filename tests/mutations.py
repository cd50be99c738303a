"""Seeded mutations of ELF objects and archives, biased towards the bytes that a linker reads.

A mutant differs from its original at one to four offsets. Most of these are in structures with
offsets, sizes and indices: headers, section headers, symbols, relocations, groups, frames, archive
indexes. A mutation flips a bit, replaces a byte, or writes an integer near a limit, where
arithmetic without overflow checks fails. The number of a mutant is its seed.
"""

import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_REL = 2, 3, 4, 9
_SHT_GROUP, _SHT_CREL = 17, 0x40000014
_SHF_COMPRESSED = 0x800

_LIMITS = sorted(
    {
        *(each + near for each in (0x80, 0x100, 0xFF00, 0x8000, 0x10000) for near in (-1, 0, 1)),
        *((1 << bits) + near for bits in (31, 32, 33, 47, 62, 63) for near in (-1, 0, 1)),
        *range(20),
        0x40000014,
        0x6FFF4C03,
        0x7F000000,
        0xFFF1,
        0xFFF2,
        (1 << 64) - 64,
        (1 << 64) - 8,
        (1 << 64) - 1,
    }
)


class Region(NamedTuple):
    """A range of bytes, and its weight in the random choice."""

    start: int
    size: int
    weight: int


def mutants(original: bytes, regions: list[Region], count: int, first: int = 0) -> Iterator[bytes]:
    """Mutants number `first` to `first + count`, each with at least one byte changed."""
    for number in range(first, first + count):
        yield mutant(original, regions, number)


def mutant(original: bytes, regions: list[Region], number: int) -> bytes:
    """One mutant."""
    chance = random.Random(number)
    weights = [region.weight for region in regions]
    while True:
        data = bytearray(original)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            region = chance.choices(regions, weights)[0]
            _mutate(data, region, chance)
        if data != original:
            return bytes(data)


def _mutate(data: bytearray, region: Region, chance: random.Random) -> None:
    place = region.start + chance.randrange(region.size)
    match chance.randrange(4):
        case 0:
            data[place] ^= 1 << chance.randrange(8)
        case 1:
            data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        case _:
            width = chance.choice((2, 4, 4, 8, 8))
            # In every structure of ELF, fields are at multiples of their size.
            place = region.start + (place - region.start) // width * width
            width = min(width, region.start + region.size - place)
            near_size = len(data) + chance.randrange(-2, 3)
            number = chance.choice((*chance.choices(_LIMITS, k=2), near_size))
            data[place : place + width] = (number & ((1 << 64) - 1)).to_bytes(8, "little")[:width]


def elf_regions(data: bytes) -> list[Region]:
    """The regions of a 64-bit little-endian ELF object."""
    shoff, shnum = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    regions = [Region(0, 64, 8), Region(shoff, 64 * shnum, 24), Region(0, len(data), 4)]
    for number in range(shnum):
        header = struct.unpack_from("<IIQQQQIIQQ", data, shoff + 64 * number)
        kind, flags, offset, size = header[1], header[2], header[4], header[5]
        weight = _weight(kind, flags, size)
        if weight and size:
            regions.append(Region(offset, size, weight))
    return regions


def _weight(kind: int, flags: int, size: int) -> int:
    weights = {_SHT_SYMTAB: 16, _SHT_STRTAB: 2, _SHT_GROUP: 4, _SHT_CREL: 8}
    if kind in (_SHT_RELA, _SHT_REL):
        # Each function may have a relocation section of its own.
        return 2 if size < 200 else 6
    if flags & _SHF_COMPRESSED:
        return 4
    return weights.get(kind, 2)


def archive_regions(data: bytes) -> list[Region]:
    """The regions of an archive with a SysV index: headers, index, long names, whole file."""
    regions = [Region(0, 8, 1), Region(0, len(data), 4)]
    position = 8
    while position < len(data):
        size = int(data[position + 48 : position + 58])
        regions.append(Region(position, 60, 8))
        if data[position : position + 2] in (b"/ ", b"//"):
            regions.append(Region(position + 60, size, 12))
        position += 60 + size + size % 2
    return regions
