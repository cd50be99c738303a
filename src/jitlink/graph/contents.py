"""The content bytes of a graph's blocks, in any number of buffers.

A content reference is an ``int64`` position in a virtual concatenation of buffers: a mapped
input file, the members of an archive, working memory, small buffers created by passes.
Blocks store a reference and a size, so a million blocks cost no object each and slices of
input are never copied.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from jitlink.graph.columns import Int64Array, UInt8Array, rows_where

ZERO_FILL = -1
"""The content reference of a block without content."""


class ContentSpace:
    """Registered buffers, each at a base reference."""

    __slots__ = ("_bases", "_buffers", "_end")

    def __init__(self) -> None:
        self._buffers: list[memoryview] = []
        self._bases: list[int] = []
        self._end = 0

    def copy(self) -> ContentSpace:
        """The same buffers at the same references; what is added to one is not in the other."""
        copied = ContentSpace()
        copied._buffers, copied._bases = self._buffers.copy(), self._bases.copy()
        copied._end = self._end
        return copied

    def add(self, buffer: bytes | bytearray | memoryview) -> int:
        """Register a buffer (not copied) and return the reference of its first byte."""
        view = memoryview(buffer).cast("B")
        base = self._end
        self._buffers.append(view)
        self._bases.append(base)
        self._end = base + max(len(view), 1)
        return base

    def view(self, reference: int, size: int) -> memoryview:
        """The `size` bytes at a reference; writable if the buffer is."""
        index = bisect_right(self._bases, reference) - 1
        start = reference - self._bases[index]
        return self._buffers[index][start : start + size]

    def locate(self, references: Int64Array) -> tuple[Int64Array, Int64Array]:
        """The buffer that each reference lies in, by number, and the offset there (both int64).

        `ZERO_FILL` must not be among them.
        """
        lowest, highest = self._bounds(references)
        if lowest == highest:
            numbers: Int64Array = np.full(len(references), lowest, np.int64)
            return numbers, references - self._bases[lowest]
        bases = np.array(self._bases, np.int64)
        numbers = bases.searchsorted(references, side="right") - 1
        return numbers, references - bases[numbers]

    @property
    def buffers(self) -> Sequence[memoryview]:
        """All buffers, by number."""
        return self._buffers

    def partition(
        self, references: Int64Array
    ) -> Iterator[tuple[UInt8Array, int, Int64Array | slice]]:
        """Group references by buffer, for code that works on whole columns.

        Yields for each buffer that is referred to: its bytes (uint8), its base reference, and
        an index of the references that lie in it: their positions (int64), or a slice of all.
        `ZERO_FILL` lies in no buffer.
        """
        if len(references) == 0:
            return
        lowest, highest = self._bounds(references)
        if lowest == highest:
            # The usual case: everything lies in one file, or in working memory.
            if lowest >= 0:
                array = np.frombuffer(self._buffers[lowest], np.uint8)
                yield array, self._bases[lowest], slice(None)
            return
        used = np.searchsorted(self._bases, references, side="right") - 1
        # Not np.unique, whose first use imports numpy.ma.
        for index in (rows_where(np.bincount(used + 1) > 0) - 1).tolist():
            if index >= 0:
                array = np.frombuffer(self._buffers[index], np.uint8)
                yield array, self._bases[index], rows_where(used == index)

    def _bounds(self, references: Int64Array) -> tuple[int, int]:
        """Numbers of the first and the last buffer that references lie in."""
        lowest = bisect_right(self._bases, int(references.min())) - 1
        return lowest, bisect_right(self._bases, int(references.max())) - 1
