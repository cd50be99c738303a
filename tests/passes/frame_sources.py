"""`.eh_frame` sections for tests: writers of records in assembly, and readers of linked ones."""

import ctypes
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jitlink.graph import LinkGraph
from tests.toolchain import require, run

PCREL, INDIRECT, OMIT = 0x10, 0x80, 0xFF
ENCODINGS = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
"""Formats of pointers that relocations can fill, and their sizes in bytes."""


@dataclass(frozen=True)
class Cie:
    """A CIE to be written; `data` is its augmentation data as directives."""

    label: str = "cie"
    version: int = 1
    augmentation: str = "zR"
    data: tuple[str, ...] = (".byte 0x1b",)
    extended: bool = False
    before_factors: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        data = "\n".join(self.data)
        size = f".uleb128 2f - 1f\n1:\n{data}\n2:" if self.augmentation.startswith("z") else ""
        return record(
            self.label,
            f"""
            .long 0
            .byte {self.version}
            .asciz "{self.augmentation}"
            {chr(10).join(self.before_factors)}
            .uleb128 1
            .sleb128 -8
            .uleb128 16
            {size}
            .byte 0x0c, 7, 8, 0x90, 1
            """,
            extended=self.extended,
        )


@dataclass(frozen=True)
class Fde:
    """An FDE to be written, for a function, with the encoding of its pointers."""

    function: str
    cie: Cie = field(default_factory=Cie)
    encoding: int = 0x1B
    extended: bool = False

    @property
    def text(self) -> str:
        directive = {8: ".quad", 4: ".long", 2: ".short"}[ENCODINGS[self.encoding & 0xF]]
        place = " - ." if self.encoding & PCREL else ""
        augmentation = ".uleb128 0" if self.cie.augmentation.startswith("z") else ""
        return record(
            f"fde_{self.function}",
            f"""
            .long . - {self.cie.label}
            {directive} {self.function}{place}
            {directive} 1
            {augmentation}
            """,
            extended=self.extended,
        )


def record(label: str, body: str, *, extended: bool = False) -> str:
    length = ".long 0xffffffff\n.quad" if extended else ".long"
    return f"""
        {label}:
            {length} {label}_end - {label}_begin
        {label}_begin:
            {body}
            .balign 4, 0
        {label}_end:
    """


def functions(*names: str) -> str:
    """A function of one byte for each name, each in its own section."""
    return "\n".join(
        f'.section .text.{name}, "ax", @progbits\n.globl {name}\n{name}: ret' for name in names
    )


def frame_section(*records: Cie | Fde | str, name: str = ".eh_frame") -> str:
    texts = [each if isinstance(each, str) else each.text for each in records]
    return "\n".join([f'.section {name}, "a", @progbits', *texts, ""])


class Entry(NamedTuple):
    """A record as dwarfdump prints it; `cie` and `start` are None for a CIE."""

    offset: int
    cie: int | None
    start: int | None


def dump_frames(path: Path) -> list[Entry]:
    """The records of an object's `.eh_frame`."""
    printed = run([require("llvm-dwarfdump-22"), "--eh-frame", path])
    number = "([0-9a-f]+)"
    pattern = rf"^{number} {number} {number} (?:CIE|FDE cie={number} pc={number}\.\.\.{number})$"
    entries = []
    for match in re.finditer(pattern, printed.split(".eh_frame contents")[1], re.MULTILINE):
        offset, cie, start = match.group(1, 4, 5)
        is_cie = cie is None
        entries.append(
            Entry(
                int(offset, 16),
                None if is_cie else int(cie, 16),
                None if is_cie else int(start, 16),
            )
        )
    return entries


class Frame(NamedTuple):
    """A record in memory; `cie` and `function` are addresses, and None for a CIE."""

    address: int
    size: int
    cie: int | None
    function: int | None


def linked_frames(graph: LinkGraph, encoding: int = 0x1B) -> list[Frame]:
    """The records of a linked graph's `.eh_frame`, in order of address."""
    section = graph.find_section_by_name(".eh_frame")
    if section is None or section.empty:
        return []
    frames, bounds = [], section.range()
    position = bounds.start
    while position < bounds.end:
        length, start = ctypes.c_uint32.from_address(position).value, position + 4
        if length == 0xFFFFFFFF:
            length, start = ctypes.c_uint64.from_address(start).value, start + 8
        identifier = ctypes.c_uint32.from_address(start).value
        end = start + length
        frames.append(Frame(position, end - position, None, None))
        if identifier:
            function = _pointer(start + 4, encoding)
            frames[-1] = Frame(position, end - position, start - identifier, function)
        position = end
    assert position == bounds.end
    return frames


def _pointer(address: int, encoding: int) -> int:
    raw = ctypes.string_at(address, ENCODINGS[encoding & 0xF])
    value = int.from_bytes(raw, "little", signed=encoding & 0x8 != 0 or encoding & PCREL != 0)
    return value + address if encoding & PCREL else value
