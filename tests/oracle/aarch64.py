"""Targets of relocated fields of AArch64 objects, decoded from the linked bytes.

The counterpart of `references`. Most addresses are computed by two instructions, each with a
relocation: one for the page, one for the low 12 bits. The target of either is decoded from both,
which are paired by their symbol. Only relocations of non-TLS compiler output are supported.

Specification: ELF for the Arm 64-bit Architecture, section 5.7; Arm Architecture Reference Manual.
"""

from typing import NamedTuple

from tests.oracle.elf_file import ElfFile, ElfRelocation, ElfSection
from tests.oracle.memory import Memory, Target

R_ABS64, R_PLT32, R_GOTPCREL32 = 257, 314, 315
R_GOT_PAGE, R_GOT_LO12, R_GOTPAGE_LO15, R_JUMP26, R_CALL26 = 311, 312, 313, 282, 283
GOT_SYMBOL = "_GLOBAL_OFFSET_TABLE_"
TLS_RELOCATIONS = {
    541: "R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21",
    542: "R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC",
    549: "R_AARCH64_TLSLE_ADD_TPREL_HI12",
    551: "R_AARCH64_TLSLE_ADD_TPREL_LO12_NC",
    562: "R_AARCH64_TLSDESC_ADR_PAGE21",
    563: "R_AARCH64_TLSDESC_LD64_LO12",
    564: "R_AARCH64_TLSDESC_ADD_LO12",
    569: "R_AARCH64_TLSDESC_CALL",
}

_ANYWHERE = frozenset(
    {
        R_ABS64,
        R_PLT32,
        R_GOTPCREL32,
        R_GOT_PAGE,
        R_GOT_LO12,
        R_GOTPAGE_LO15,
        R_JUMP26,
        R_CALL26,
    }
)
# Width in bytes of data, by type; of addresses, and of distances.
_ABSOLUTE = {257: 8, 258: 4, 259: 2}
_RELATIVE = {260: 8, 261: 4, 262: 2, R_PLT32: 4}
# Bits of the distance in words, and where they are in the instruction.
_BRANCHES = {279: (14, 5), 280: (19, 5), R_JUMP26: (26, 0), R_CALL26: (26, 0)}
_PAGES = frozenset({275, 276, R_GOT_PAGE})
_LOW = frozenset({277, 278, 284, 285, 286, 299, R_GOT_LO12})
_NOP, _BTI_C = 0xD503201F, 0xD503245F


class Page(NamedTuple):
    """A page without a relocation for the low bits, or the page of the GOT (zero)."""

    address: int


Meaning = Target | Page


def reaches_any_address(kind: int) -> bool:
    """Whether a relocation of this type is in range of every address."""
    return kind in _ANYWHERE


def touched(relocation: ElfRelocation) -> range:
    """Offsets in the section of the bytes that a linker may change for a relocation."""
    kind, offset = relocation.type, relocation.offset
    width = 0 if kind in {0, 256} else _ABSOLUTE.get(kind, _RELATIVE.get(kind, 4))
    return range(offset, offset + width)


def follow(memory: Memory, address: int) -> Target:
    """The target of a jump through the stub at an address."""
    start = address + 4 if _word(memory, address) == _BTI_C else address
    # The stub is the same pair of instructions, followed by a jump.
    return _pair(memory, start, start + 4)


def meaning(
    memory: Memory, place: int, relocation: ElfRelocation, elf: ElfFile, section: ElfSection
) -> Meaning:
    """The target of the field at an address.

    Raises:
        LookupError: nothing is at the target, or the instruction is unknown.
    """
    kind, addend = relocation.type, relocation.addend
    if kind in _ABSOLUTE:
        return memory.follow(memory.integer(place, _ABSOLUTE[kind], signed=False) - addend)
    if kind in _RELATIVE:
        return memory.follow(place + memory.integer(place, _RELATIVE[kind]) - addend)
    if kind == R_GOTPCREL32:
        return memory.load(place + memory.integer(place, 4) - addend)
    if kind == R_GOTPAGE_LO15:
        return memory.load(_got_page(memory) + 8 * (_word(memory, place) >> 10 & 0xFFF))
    if kind in _PAGES and elf.symbols[relocation.symbol].name == GOT_SYMBOL:
        return Page(_page(memory, place) - _got_page(memory))
    if kind in _BRANCHES:
        return _branch(memory, place, kind, addend)
    if kind in _PAGES | _LOW:
        page, rest = _partners(relocation, elf.relocations(section))
        base = place - relocation.offset
        if page is None or rest is None:
            return Page(_page(memory, place) if kind in _PAGES else _word(memory, place))
        target = _pair(memory, base + page.offset, base + rest.offset)
        return target - rest.addend if isinstance(target, int) else target
    raise LookupError(f"relocation type {kind}")


def _branch(memory: Memory, place: int, kind: int, addend: int) -> Target:
    bits, low = _BRANCHES[kind]
    code = _word(memory, place)
    # A branch to an undefined weak symbol is a nop.
    if code == _NOP:
        return 0
    target = place + 4 * _signed(code >> low, bits)
    end = memory.follow(target - addend)
    return 0 if target == end == place + 4 else end


def _partners(
    relocation: ElfRelocation, relocations: list[ElfRelocation]
) -> tuple[ElfRelocation | None, ElfRelocation | None]:
    """The relocations of the page and of the low bits of one address."""
    through_got = relocation.type in {R_GOT_PAGE, R_GOT_LO12}
    same = [
        each
        for each in relocations
        if each.symbol == relocation.symbol
        and (each.type in {R_GOT_PAGE, R_GOT_LO12}) == through_got
        and each.type in _PAGES | _LOW
    ]
    index = same.index(relocation)
    if relocation.type in _PAGES:
        rest = next((each for each in same[index:] if each.type in _LOW), None)
        # Basic blocks may be placed so that the use of a page is before its computation.
        return relocation, rest or next((each for each in same if each.type in _LOW), None)
    page = next((each for each in same[index::-1] if each.type in _PAGES), None)
    return page or next((each for each in same if each.type in _PAGES), None), relocation


def _pair(memory: Memory, first: int, second: int) -> Target:
    """The address that two instructions compute, in any relaxed form."""
    code = _word(memory, second)
    if _word(memory, first) == _NOP:
        if code & 0x9F000000 != 0x10000000:
            raise LookupError(f"no adr at {second:#x}")
        return memory.follow(second + _adr(code))
    page, low = _page(memory, first), code >> 10 & 0xFFF
    if code & 0xFFC00000 == 0x91000000:
        return memory.follow(page + low)
    if code & 0xFFC00000 == 0xF9400000:
        return memory.load(page + 8 * low)
    raise LookupError(f"instruction {code:08x} at {second:#x}")


def _got_page(memory: Memory) -> int:
    if memory.got is None:
        raise LookupError("no GOT")
    return memory.got & ~0xFFF


def _page(memory: Memory, place: int) -> int:
    code = _word(memory, place)
    if code & 0x9F000000 != 0x90000000:
        raise LookupError(f"no adrp at {place:#x}")
    return (place & ~0xFFF) + (_adr(code) << 12)


def _adr(code: int) -> int:
    return _signed((code >> 5 & 0x7FFFF) << 2 | code >> 29 & 3, 21)


def _word(memory: Memory, place: int) -> int:
    return memory.integer(place, 4, signed=False)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
