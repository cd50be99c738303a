"""The bytes of sections as text: `-show-relocated-section-contents`.

::

    Relocated section contents for main.o:
    .text content:
    0x7f20f0001000: 48 8d 05 f9 ff ff ff b8 07 00 00 00 c3

A line has sixteen bytes, from an address that is a multiple of sixteen; bytes that are not the
object's are blank.

LLVM differs: it prints the bytes that symbols cover, and does not terminate if two of them overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jitlink.graph import Block
from jitlink.graph.text import printable

_WIDTH = 16


def section_lines(name: str, blocks: Iterable[Block]) -> Iterator[str]:
    """The lines of one section.

    Args:
        name: the section.
        blocks: one object's blocks in it, by ascending address.
    """
    yield f"{printable(name)} content:"
    line, cells = -1, [""]
    for block in blocks:
        content = bytes(block.size) if block.is_zero_fill else bytes(block.content)
        position = 0
        while position < len(content):
            address = block.address + position
            start = address - address % _WIDTH
            if start != line:
                yield from _text(line, cells)
                line, cells = start, ["  "] * _WIDTH
            first = address - start
            piece = content[position : position + _WIDTH - first]
            cells[first : first + len(piece)] = piece.hex(" ").split(" ")
            position += len(piece)
    yield from _text(line, cells)


def _text(line: int, cells: list[str]) -> Iterator[str]:
    if line >= 0:
        yield f"{line:#x}: {' '.join(cells).rstrip()}"
