"""Ranges of addresses in the executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jitlink.graph.elements import Block


@dataclass(frozen=True, slots=True)
class AddressRange:
    """The half-open range of addresses ``[start, end)`` in the executor.

    `end` of a range that reaches the top of the address space is ``1 << 64``.
    """

    start: int
    end: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    @property
    def empty(self) -> bool:
        """Whether no address lies in the range."""
        return self.end == self.start

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


@dataclass(frozen=True, slots=True)
class SectionRange(AddressRange):
    """The addresses from the start of a section's first block to the end of its last.

    Attributes:
        first_block: the block with the lowest address, None if the section has no blocks.
        last_block: the block with the highest address, None if the section has no blocks.
    """

    first_block: Block | None = None
    last_block: Block | None = None
