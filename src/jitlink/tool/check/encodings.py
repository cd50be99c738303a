"""Instruction encodings as tables, in the notation of the architectures' manuals.

A row is an instruction's name, its operands in LLVM's order, and its bits, highest first. The bits
are

- zeros and ones;
- ``rs1:5``, a field of five bits;
- ``imm[12|10:5]``, these bits of a value.

An operand is ``r``, anything but an immediate, or an immediate: the value of a field,
``imm``, signed, ``imm.s``, signed and truncated to 20 bits, ``imm.s20``, times a number, ``hw*16``,
plus a number, ``shift+128``, or a constant, ``#2``. The first row that matches decodes an
instruction. A row with ``!`` for operands matches reserved encodings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_OPERAND = re.compile(
    r"(?P<name>\w+)(?P<signed>\.s(?P<cut>\d*))?(\*(?P<factor>\d+))?(\+(?P<constant>\d+))?"
)


class _Slice(NamedTuple):
    """Bits of a value, and their place in the instruction."""

    value_low: int
    bits: int
    place_low: int


@dataclass(frozen=True, slots=True)
class _Immediate:
    """An immediate operand.

    Attributes:
        slices: its bits.
        signed: whether the highest bit is a sign.
        cut: the number of bits that it is truncated to; 0 for all.
        factor: the factor that it is multiplied by.
        constant: the constant that is added.
    """

    slices: tuple[_Slice, ...] = ()
    signed: bool = False
    cut: int = 0
    factor: int = 1
    constant: int = 0

    def value(self, word: int) -> int:
        """The value of the operand in an instruction."""
        value = 0
        for low, bits, place in self.slices:
            value |= (word >> place & (1 << bits) - 1) << low
        if self.signed:
            sign = 1 << max(low + bits for low, bits, _ in self.slices) >> 1
            value = (value ^ sign) - sign
        if self.cut:
            value &= (1 << self.cut) - 1
        return value * self.factor + self.constant


class Encoding(NamedTuple):
    """One form of an instruction.

    Attributes:
        name: the instruction.
        size: its length in bytes.
        mask: the bits that are fixed.
        bits: their values.
        operands: its operands, None for one that is not an immediate; None if it is reserved.
    """

    name: str
    size: int
    mask: int
    bits: int
    operands: tuple[_Immediate | None, ...] | None


class EncodingTable:
    """The instructions of an architecture.

    Args:
        rows: name, operands and bits of each form, in the notation of this module.
    """

    def __init__(self, rows: Sequence[tuple[str, str, str]]) -> None:
        self.rows = tuple(_encoding(*row) for row in rows)

    def find(self, code: bytes) -> tuple[int, str, tuple[int | None, ...]] | None:
        """Length, description and operands of the first instruction, or None if no row matches.

        Args:
            code: little-endian instructions.
        """
        words = {size: int.from_bytes(code[:size], "little") for size in (2, 4)}
        for name, size, mask, bits, operands in self.rows:
            if size <= len(code) and words[size] & mask == bits:
                if operands is None:
                    return None
                values = tuple(
                    None if each is None else each.value(words[size]) for each in operands
                )
                return size, _described(name, values), values
        return None


def _described(name: str, operands: Sequence[int | None]) -> str:
    return f"{name} " + ", ".join("register" if each is None else f"{each:#x}" for each in operands)


def _encoding(name: str, operands: str, bits: str) -> Encoding:
    fields: dict[str, list[_Slice]] = {}
    mask = value = 0
    place = width = sum(_width(word) for word in bits.split())
    for word in bits.split():
        place -= _width(word)
        if word.strip("01"):
            for field, part in _slices(word, place):
                fields.setdefault(field, []).append(part)
        else:
            mask |= ((1 << len(word)) - 1) << place
            value |= int(word, 2) << place
    if width not in {16, 32}:
        raise ValueError(f"encoding of {name} has {width} bits")
    found = None
    if operands != "!":
        found = tuple(_operand(each, fields) for each in operands.split())
    return Encoding(name, width // 8, mask, value, found)


def _width(word: str) -> int:
    """The number of bits of a word of an encoding."""
    if not word.strip("01"):
        return len(word)
    return sum(part.bits for _, part in _slices(word, 0))


def _slices(word: str, place: int) -> Iterator[tuple[str, _Slice]]:
    """The names of fields, and their slices, in a word of an encoding.

    Args:
        word: ``name:width`` or ``name[high:low|...]``.
        place: the lowest bit of the word in the instruction.
    """
    name, bracket, parts = word.partition("[")
    if not bracket:
        name, _, width = word.partition(":")
        yield name, _Slice(0, int(width), place)
        return
    for part in reversed(parts.rstrip("]").split("|")):
        high, _, low = part.partition(":")
        bits = int(high) - int(low or high) + 1
        yield name, _Slice(int(low or high), bits, place)
        place += bits


def _operand(text: str, fields: dict[str, list[_Slice]]) -> _Immediate | None:
    if text == "r":
        return None
    if text.startswith("#"):
        return _Immediate(constant=int(text[1:]))
    match = _OPERAND.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an operand")
    return _Immediate(
        tuple(fields[match["name"]]),
        match["signed"] is not None,
        int(match["cut"] or 0),
        int(match["factor"] or 1),
        int(match["constant"] or 0),
    )
