"""The free ranges of an address range, in order, adjacent ones merged."""

from __future__ import annotations

from bisect import bisect_right


class FreeList:
    """A set of half-open ranges of addresses, no two of which are adjacent.

    Attributes:
        size: bytes in all of them.
    """

    __slots__ = ("_ends", "_starts", "size")

    def __init__(self, start: int = 0, end: int = 0) -> None:
        self._starts = [start] if end > start else []
        self._ends = [end] if end > start else []
        self.size = end - start

    def ranges(self) -> list[tuple[int, int]]:
        """All ranges (start, end), in order."""
        return list(zip(self._starts, self._ends, strict=True))

    def take(self, size: int, alignment: int, limit: int) -> int | None:
        """Take `size` bytes from the lowest range that they fit into.

        Args:
            size: bytes, more than zero.
            alignment: power of two that the address must be a multiple of.
            limit: the range taken ends at or below this address.

        Returns:
            The address, or None if they fit into no range.
        """
        if size > self.size:
            return None
        mask = alignment - 1
        for index, start in enumerate(self._starts):
            address = (start + mask) & ~mask
            last = address + size
            if last > limit:
                return None
            if last <= self._ends[index]:
                self._remove(index, address, last)
                return address
        return None

    def take_at(self, address: int, size: int) -> bool:
        """Take `size` bytes at an address; returns whether all of them were free."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address + size > self._ends[index]:
            return False
        self._remove(index, address, address + size)
        return True

    def _remove(self, index: int, start: int, end: int) -> None:
        first, last = self._starts[index], self._ends[index]
        self.size -= end - start
        if first == start and end < last:
            # The usual case.
            self._starts[index] = end
            return
        # Zero, one or two ranges remain.
        pieces = [(a, b) for a, b in ((first, start), (end, last)) if a < b]
        self._starts[index : index + 1] = [a for a, _ in pieces]
        self._ends[index : index + 1] = [b for _, b in pieces]

    def put(self, start: int, end: int) -> None:
        """Add a range, no part of which may be free already."""
        index = bisect_right(self._starts, start)
        self.size += end - start
        joins_next = index < len(self._starts) and self._starts[index] == end
        if index and self._ends[index - 1] == start:
            if joins_next:
                self._ends[index - 1] = self._ends.pop(index)
                del self._starts[index]
            else:
                self._ends[index - 1] = end
        elif joins_next:
            self._starts[index] = start
        else:
            self._starts.insert(index, start)
            self._ends.insert(index, end)
