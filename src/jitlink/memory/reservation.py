"""Windows: reserved ranges of addresses, from which runs of pages are served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jitlink.errors import AllocationError
from jitlink.graph import MemLifetime, MemProt
from jitlink.memory import mapping
from jitlink.memory.free_list import FreeList
from jitlink.memory.mapping import MappedRange
from jitlink.memory.pages import Request, Run

REACH = (1 << 31) - (16 << 20)
"""Displacements of 32 bits reach this far, less what addends may add to them."""

_ALIGNMENT = 2 << 20
# Room that the process's own heap and stack are left to grow.
_GROWTH = 256 << 20
# Nothing is placed below, so that null pointers with an offset still fault.
_LOWEST = 1 << 20
# Where the kernel does not say what is mapped, so many places are tried.
_TRIES = 16


_PARTS = 4
_LAST_PART = _PARTS - 1
_STANDARD = MemLifetime.STANDARD
# Indexed by protection.
_PART_OF_PROT = [_LAST_PART] * 8
_PART_OF_PROT[MemProt.READ] = 0
_PART_OF_PROT[MemProt.READ | MemProt.EXEC] = 1
_PART_OF_PROT[MemProt.READ | MemProt.WRITE] = 2


class _Part:
    """One protection's share of a window: pages without storage, and pages with it."""

    __slots__ = ("empty", "end", "resident", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.empty = FreeList(start, end)
        self.resident = FreeList()

    def take(self, size: int, alignment: int, limit: int) -> Run | None:
        for pages in (self.resident, self.empty):
            address = pages.take(size, alignment, limit)
            if address is not None:
                return Run(address, size, pages is self.resident)
        if not self.resident.size or self.resident.size + self.empty.size < size:
            return None
        self._discard_resident()
        address = self.empty.take(size, alignment, limit)
        return None if address is None else Run(address, size, resident=False)

    def _discard_resident(self) -> None:
        kept = FreeList()
        for start, end in self.resident.runs():
            try:
                mapping.discard(start, end - start)
            except AllocationError:
                kept.put(start, end)
            else:
                self.empty.put(start, end)
        self.resident = kept


class Reservation:
    """A reserved range.

    Args:
        start: its first address.
        size: its size in bytes, a multiple of the page size.
        dedicated: it was made for one large allocation, and serves that only.

    Attributes (besides the arguments):
        end: the address after its last.
        used_size: bytes that have been served and not been given back.
    """

    def __init__(self, start: int, size: int, *, dedicated: bool = False) -> None:
        self.start = start
        self.end = start + size
        self.dedicated = dedicated
        parts = 1 if dedicated else _PARTS
        page = mapping.PAGE_SIZE
        share = self._share = size // parts // page * page
        # The last page of a part is never served, so no run touches another part's.
        self._parts = [
            _Part(first, first + share - page)
            for first in range(start, start + parts * share, share)
        ]
        self.used_size = 0

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.end - self.start

    @property
    def resident_size(self) -> int:
        """Bytes of free pages that have storage."""
        return sum([part.resident.size for part in self._parts])

    def take(self, requests: Sequence[Request], limit: int) -> list[Run] | None:
        """Serve all requests at addresses below `limit`, or none."""
        runs: list[Run] = []
        for request in requests:
            run = self._take(request, limit)
            if run is None:
                self.put(runs)
                return None
            self.used_size += run.size
            runs.append(run)
        return runs

    def _take(self, request: Request, limit: int) -> Run | None:
        size, alignment, prot, lifetime = request
        own = _PART_OF_PROT[prot] if lifetime == _STANDARD else _LAST_PART
        own = min(own, len(self._parts) - 1)
        run = self._parts[own].take(size, alignment, limit)
        if run is None:
            others = self._parts[:own] + self._parts[own + 1 :]
            served = (part.take(size, alignment, limit) for part in others)
            run = next((found for found in served if found is not None), None)
        return run

    def put(self, runs: Iterable[Run]) -> None:
        """Take back runs that nothing can access any more."""
        for address, size, resident in runs:
            part = self._parts[(address - self.start) // self._share]
            pages = part.resident if resident else part.empty
            pages.put(address, address + size)
            self.used_size -= size

    def reaches(self, other: Reservation) -> bool:
        """Whether everything in either reaches everything in the other."""
        return max(self.end, other.end) - min(self.start, other.start) <= REACH


def library_span(mapped: Sequence[MappedRange]) -> tuple[int, int]:
    """The addresses (start, end) that the C library and the libraries around it take.

    Args:
        mapped: all mappings of the process.
    """
    center = mapping.library_address()
    ranges = [
        each
        for each in mapped
        if each.path.startswith("/") and center - REACH // 2 <= each.start <= center + REACH // 2
    ]
    libraries = {each.path for each in ranges if "x" in each.permissions}
    ranges = [each for each in ranges if each.path in libraries]
    if not ranges:
        return center, center
    return ranges[0].start, ranges[-1].end


def reserve_near(start: int, end: int, size: int, mapped: Sequence[MappedRange]) -> int | None:
    """Reserve a range that reaches, and is reached from, all of ``[start, end)``.

    It is placed as far off as that allows: libraries that are loaded later find room in
    between.

    Args:
        start: first address of the range.
        end: its end.
        size: how many bytes to reserve.
        mapped: all mappings of the process.

    Returns:
        The address, or None if there is no gap of that size.
    """
    gaps = _gaps(max(end - REACH, _LOWEST), start + REACH, mapped)
    for gap in sorted(gaps, key=_length, reverse=True):
        address = _reserve_in(gap, size, from_top=gap[0] >= end)
        if address is not None:
            return address
    return None


def reserve_below(limit: int, size: int) -> int | None:
    """Reserve a range that ends at or below `limit`, as high as there is room.

    Returns:
        The address, or None if there is no gap of that size.
    """
    for gap in reversed(list(_gaps(_LOWEST, limit, mapping.mapped_ranges()))):
        address = _reserve_in(gap, size, from_top=True)
        if address is not None:
            return address
    return None


def _length(gap: tuple[int, int]) -> int:
    return gap[1] - gap[0]


def _gaps(start: int, end: int, mapped: Sequence[MappedRange]) -> Iterator[tuple[int, int]]:
    """Ranges between `start` and `end` where nothing is mapped."""
    for each in mapped:
        first = each.start - (_GROWTH if each.path == "[stack]" else 0)
        last = each.end + (_GROWTH if each.path == "[heap]" else 0)
        if first > start:
            yield start, min(first, end)
        start = max(start, last)
        if start >= end:
            return
    yield start, end


def _reserve_in(gap: tuple[int, int], size: int, *, from_top: bool) -> int | None:
    low = -(-gap[0] // _ALIGNMENT) * _ALIGNMENT
    high = (gap[1] - size) // _ALIGNMENT * _ALIGNMENT
    if high < low:
        return None
    step = max((high - low) // _TRIES // _ALIGNMENT, 1) * _ALIGNMENT
    places = range(high, low - 1, -step) if from_top else range(low, high + 1, step)
    tried = (mapping.reserve(size, place) for place in places)
    return next((address for address in tried if address is not None), None)
