"""x86-64: where instructions begin and end, and where their fields are.

`instruction_with_field` finds the instruction that a relocation is in, from the beginning of its
function. Of what instructions do, only that is known where branches lead; what is not certain, such
as an encoding that a later extension may have changed, is not decoded.

Specification: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2
and appendix A; AMD64 Architecture Programmer's Manual, volume 3, appendix A.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

LONGEST = 15
"""The longest instruction, in bytes."""

_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_OPERAND_SIZE, _ADDRESS_SIZE, _REPNE, _REX_W = 0x66, 0x67, 0xF2, 8
_REX, _REX2, _ESCAPE, _EXTRQ_INSERTQ = range(0x40, 0x50), 0xD5, 0x0F, 0x78
_VEX = frozenset(b"\xc4\xc5\x62")
"""First bytes of VEX and EVEX prefixes."""
_VOID_REX = _LEGACY_PREFIXES | _VEX | {*_REX, _REX2}
"""Prefixes that a REX prefix has no effect before, or must not be before."""
_INVALID = frozenset(
    b"\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x82\x9a\xce\xd4\xd6\xea"
)


def _opcodes(*parts: int | Iterable[int]) -> frozenset[int]:
    found: set[int] = set()
    for part in parts:
        found |= {part} if isinstance(part, int) else set(part)
    return frozenset(found)


_ARITHMETIC = range(0, 0x40, 8)
_WITH_MODRM = (
    _opcodes(
        *((row, row + 1, row + 2, row + 3) for row in _ARITHMETIC),
        (0x63, 0x69, 0x6B, 0x80, 0x81, 0xC0, 0xC1, 0xC6, 0xC7, 0xF6, 0xF7, 0xFE, 0xFF),
        range(0x83, 0x90), range(0xD0, 0xD4), range(0xD8, 0xE0),
    ),
    _opcodes(range(256)) - _opcodes(
        (0x05, 0x06, 0x07, 0x08, 0x09, 0x0B, 0x0E, 0x77),
        range(0x30, 0x38), range(0x80, 0x90), range(0xA0, 0xA3), range(0xA8, 0xAB),
        range(0xC8, 0xD0),
    ),
)  # fmt: skip
"""Opcodes with a ModRM byte, of the one-byte map and of map 0F."""

_BYTE_IMMEDIATES = (
    _opcodes(
        (row + 4 for row in _ARITHMETIC), (0x6A, 0x6B, 0x80, 0x83, 0xA8, 0xC0, 0xC1, 0xC6),
        (0xCD, 0xEB), range(0x70, 0x80), range(0xB0, 0xB8), range(0xE0, 0xE8),
    ),
    _opcodes((0x0F, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6), range(0x70, 0x74)),
)  # fmt: skip
_WORD_IMMEDIATES = _opcodes((row + 5 for row in _ARITHMETIC), (0x68, 0x69, 0x81, 0xA9, 0xC7))
"""Opcodes of the one-byte map with an immediate of the operand's size, of 4 bytes at most."""

_BRANCHES = (
    _opcodes(range(0x70, 0x80), range(0xE0, 0xE4), (0xE8, 0xE9, 0xEB)),
    _opcodes(range(0x80, 0x90)),
)
"""Opcodes whose immediate is a distance from the end of the instruction."""
_RIP_MASK, _RIP_RELATIVE = 0xC7, 0x05


class Instruction(NamedTuple):
    """Positions of the fields of an instruction.

    Attributes:
        start: where it begins.
        is_legacy: whether it has no VEX, EVEX or XOP prefix.
        rex: its REX prefix, 0 without.
        rex_position: position of that, or where it would be.
        has_legacy_prefix: whether it has a prefix before that.
        has_address_size_prefix: whether its addresses have 32 bits.
        map: the opcode map: 0 without an escape, 1 for 0F, 2 for 0F38, 3 for 0F3A.
        opcode: position of the opcode.
        modrm: position of the ModRM byte; -1 without.
        displacement: position of the displacement of its memory operand; -1 without.
        displacement_size: its size in bytes.
        immediate: position of the immediate, or where it would be.
        end: where it ends.
    """

    start: int
    is_legacy: bool
    rex: int
    rex_position: int
    has_legacy_prefix: bool
    has_address_size_prefix: bool
    map: int
    opcode: int
    modrm: int
    displacement: int
    displacement_size: int
    immediate: int
    end: int


class _Opcode(NamedTuple):
    """The opcode of an instruction, and what is before it."""

    is_legacy: bool
    rex: int
    prefixes: frozenset[int]
    prefix_count: int
    map: int
    position: int


def instruction_with_field(code: bytes, field: int) -> Instruction | None:
    """The instruction that has a displacement or immediate of four bytes at a position.

    Args:
        code: the code of a function, from its first instruction.
        field: the position.

    Returns:
        The instruction; None if not all of the code can be decoded, a branch of it leads into the
        instruction, or there is no such field.
    """
    layout = _layout(code)
    if layout is None or not 0 <= field < len(code):
        return None
    found = decode(code, layout.starts[bisect_right(layout.starts, field) - 1])
    if found is None or not layout.entries.isdisjoint(range(found.start + 1, found.end)):
        return None
    is_displacement = found.displacement == field and found.displacement_size == 4
    is_immediate = found.immediate == field and found.end == field + 4
    return found if is_displacement or is_immediate else None


class _Layout(NamedTuple):
    """Where the instructions of a function begin, in order, and where its own code leads to."""

    starts: list[int]
    entries: frozenset[int]


@lru_cache(maxsize=8)
def _layout(code: bytes) -> _Layout | None:
    """The layout of a function; None if not all of it can be decoded.

    It is kept, because functions that refer to a variable tend to do so many times.
    """
    starts: list[int] = []
    entries: set[int] = set()
    position = 0
    while position < len(code):
        try:
            found = decode(code, position)
        except IndexError:
            return None
        if found is None or found.end > len(code):
            return None
        starts.append(position)
        entry = _entry(code, found)
        # A field that a relocation will fill may hold anything.
        if not position < entry < found.end:
            entries.add(entry)
        position = found.end
    return _Layout(starts, frozenset(entries))


def _entry(code: bytes, found: Instruction) -> int:
    """The position that a branch or an operand relative to %rip means; the end for others."""
    field, end = found.immediate, found.end
    if found.modrm >= 0 and code[found.modrm] & _RIP_MASK == _RIP_RELATIVE:
        field, end = found.displacement, found.displacement + found.displacement_size
    elif not found.is_legacy or found.map > 1 or code[found.opcode] not in _BRANCHES[found.map]:
        return found.end
    return found.end + int.from_bytes(code[field:end], "little", signed=True)


def decode(code: bytes, start: int) -> Instruction | None:
    """The instruction that begins at a position; None if it cannot be decoded.

    Raises:
        IndexError: the code ends within it.
    """
    opcode = _opcode(code, start)
    if opcode is None:
        return None
    value, table = code[opcode.position], min(opcode.map, 1)
    if opcode.map == 0 and value in _INVALID:
        return None
    # With these prefixes it has two immediates, and is of SSE4a.
    if opcode.map == 1 and value == _EXTRQ_INSERTQ and opcode.prefixes & {_OPERAND_SIZE, _REPNE}:
        return None
    position, modrm, displacement, size = opcode.position + 1, -1, -1, 0
    if opcode.map >= 2 or value in _WITH_MODRM[table]:
        modrm = position
        displacement, size = _displacement(code, modrm)
        position = displacement + size
    return Instruction(
        start,
        opcode.is_legacy,
        opcode.rex,
        start + opcode.prefix_count,
        bool(opcode.prefixes),
        _ADDRESS_SIZE in opcode.prefixes,
        opcode.map,
        opcode.position,
        modrm,
        displacement if size else -1,
        size,
        position,
        position + _immediate_size(code, opcode, modrm),
    )


def _opcode(code: bytes, start: int) -> _Opcode | None:
    position = start
    while code[position] in _LEGACY_PREFIXES:
        position += 1
        if position - start >= LONGEST:
            return None
    prefixes, count = frozenset(code[start:position]), position - start
    first = code[position]
    if first in _VEX:
        return _vex_opcode(code, position, prefixes, count)
    # XOP, and REX2.
    if first == _REX2 or (first == 0x8F and code[position + 1] & 0x1F >= 8):
        return None
    rex = first if first in _REX else 0
    position += bool(rex)
    if rex and code[position] in _VOID_REX:
        return None
    number = 0
    if code[position] == _ESCAPE:
        position, number = position + 1, 1
        if code[position] in {0x38, 0x3A}:
            number = 2 if code[position] == 0x38 else 3
            position += 1
    return _Opcode(True, rex, prefixes, count, number, position)


def _vex_opcode(code: bytes, position: int, prefixes: frozenset[int], count: int) -> _Opcode | None:
    first, second = code[position], code[position + 1]
    if first == 0xC5:
        number, size = 1, 2
    elif first == 0xC4:
        number, size = second & 0x1F, 3
    else:
        number, size = second & 7, 4
    if not 1 <= number <= 3:
        return None
    return _Opcode(False, 0, prefixes, count, number, position + size)


def _displacement(code: bytes, modrm: int) -> tuple[int, int]:
    """Position and size of the displacement, or where it would be and 0."""
    mode, register, position = code[modrm] >> 6, code[modrm] & 7, modrm + 1
    if mode == 3:
        return position, 0
    base = register
    if register == 4:
        base = code[position] & 7
        position += 1
    if mode == 0:
        return position, 4 if base == 5 else 0
    return position, 1 if mode == 1 else 4


def _immediate_size(code: bytes, opcode: _Opcode, modrm: int) -> int:
    value, number = code[opcode.position], opcode.map
    if number == 3:
        return 1
    if number == 2:
        return 0
    if value in _BYTE_IMMEDIATES[number]:
        return 1
    if number == 1:
        return 4 if opcode.is_legacy and 0x80 <= value < 0x90 else 0
    word = 2 if _OPERAND_SIZE in opcode.prefixes and not opcode.rex & _REX_W else 4
    if value in _WORD_IMMEDIATES:
        return word
    if value in {0xF6, 0xF7}:
        has_immediate = code[modrm] >> 3 & 7 < 2
        return (1 if value == 0xF6 else word) if has_immediate else 0
    if 0xB8 <= value <= 0xBF:
        return 8 if opcode.rex & _REX_W else word
    if 0xA0 <= value <= 0xA3:
        return 4 if _ADDRESS_SIZE in opcode.prefixes else 8
    return {0xC2: 2, 0xCA: 2, 0xC8: 3, 0xE8: 4, 0xE9: 4}.get(value, 0)
