"""Ranges of addresses in the executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jitlink.graph.elements import Block


class AddressRange:
    """The half-open range of addresses ``[start, end)`` in the executor.

    `end` of a range that reaches the top of the address space is ``1 << 64``.
    """

    __slots__ = ("end", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressRange) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._parts()}"

    def _parts(self) -> tuple[object, ...]:
        return self.start, self.end


class SectionRange(AddressRange):
    """The addresses from the start of a section's first block to the end of its last.

    Attributes:
        first_block: the block with the lowest address, None if the section has no blocks.
        last_block: the block with the highest address, None if the section has no blocks.
    """

    __slots__ = ("first_block", "last_block")

    def __init__(
        self,
        start: int,
        end: int,
        first_block: Block | None = None,
        last_block: Block | None = None,
    ) -> None:
        super().__init__(start, end)
        self.first_block, self.last_block = first_block, last_block

    def _parts(self) -> tuple[object, ...]:
        return self.start, self.end, self.first_block, self.last_block
