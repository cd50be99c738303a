"""Reservations: reserved ranges of addresses, from which page ranges are allocated.

The memory of an image of the process is one too: see `jitlink.memory.images`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jitlink.errors import AllocationError
from jitlink.graph import MemLifetime, MemProt
from jitlink.memory import mapping
from jitlink.memory.free_list import FreeList
from jitlink.memory.images import Image, Images
from jitlink.memory.mapping import MappedRange
from jitlink.memory.pages import PageRange, PageRequest

REACH = (1 << 31) - (16 << 20)
"""How far 32-bit displacements reach, less a margin for addends."""

_ALIGNMENT = 2 << 20
# Address space that is left for the process's own heap and stack to grow.
_GROWTH = 256 << 20
# No reservation is below this, so that null pointers with an offset still fault.
_LOWEST = 1 << 20
# Addresses to try in a gap; where the kernel does not list mappings it may be in use.
_TRIES = 16


_PARTS = 4
_LAST_PART = _PARTS - 1
_STANDARD, _FINALIZE = MemLifetime.STANDARD, MemLifetime.FINALIZE
# Indexed by protection.
_PART_OF_PROT = [_LAST_PART] * 8
_PART_OF_PROT[MemProt.READ] = 0
_PART_OF_PROT[MemProt.READ | MemProt.EXEC] = 1
_PART_OF_PROT[MemProt.READ | MemProt.WRITE] = 2


class _Part:
    """The free pages of one part of a reservation: empty ones and resident ones."""

    __slots__ = ("empty", "end", "resident", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.empty = FreeList(start, end)
        self.resident = FreeList()

    @property
    def used_end(self) -> int:
        """The end of its last page that is not empty; its start if all are."""
        empty = self.empty.ranges()
        return empty[-1][0] if empty and empty[-1][1] == self.end else self.end

    def allocate(self, size: int, alignment: int, limit: int) -> PageRange | None:
        for free in (self.resident, self.empty):
            address = free.take(size, alignment, limit)
            if address is not None:
                return PageRange(address, size, free is self.resident)
        if not self.resident.size or self.resident.size + self.empty.size < size:
            return None
        self._discard_resident()
        address = self.empty.take(size, alignment, limit)
        return None if address is None else PageRange(address, size, resident=False)

    def _discard_resident(self) -> None:
        kept = FreeList()
        for start, end in self.resident.ranges():
            try:
                mapping.discard(start, end - start)
            except AllocationError:
                kept.put(start, end)
            else:
                self.empty.put(start, end)
        self.resident = kept


class Reservation:
    """A reserved range of addresses.

    It is divided into parts, one for each of the usual protections and one for all others, so
    that the kernel can merge neighbouring page ranges of one protection into one mapping.

    Args:
        start: its first address.
        size: its size in bytes, a multiple of the page size.
        dedicated: whether it is for one large allocation only.

    Attributes:
        end: the address after its last.
        used_size: bytes that are allocated.
    """

    def __init__(self, start: int, size: int, *, dedicated: bool = False) -> None:
        self.start = start
        self.end = start + size
        self.dedicated = dedicated
        parts = 1 if dedicated else _PARTS
        page = mapping.PAGE_SIZE
        part_size = self._part_size = size // parts // page * page
        # The last page of a part is never allocated, so page ranges of two parts never touch.
        self._parts = [
            _Part(first, first + part_size - page)
            for first in range(start, start + parts * part_size, part_size)
        ]
        self.used_size = 0

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.end - self.start

    @property
    def resident_size(self) -> int:
        """Bytes of free pages that are resident."""
        return sum([part.resident.size for part in self._parts])

    def allocate(self, requests: Sequence[PageRequest], limit: int) -> list[PageRange] | None:
        """Allocate page ranges below `limit` for all requests, or None if one does not fit."""
        ranges: list[PageRange] = []
        for request in requests:
            pages = self._allocate(request, limit)
            if pages is None:
                self.free(ranges)
                return None
            self.used_size += pages.size
            ranges.append(pages)
        return ranges

    def _allocate(self, request: PageRequest, limit: int) -> PageRange | None:
        size, alignment, prot, lifetime = request
        own = _PART_OF_PROT[prot] if lifetime == _STANDARD else _LAST_PART
        own = min(own, len(self._parts) - 1)
        pages = self._parts[own].allocate(size, alignment, limit)
        return self._allocate_elsewhere(own, request, limit) if pages is None else pages

    def _allocate_elsewhere(self, own: int, request: PageRequest, limit: int) -> PageRange | None:
        """Allocate from another part than that of the request's protection, which is full."""
        others = self._parts[:own] + self._parts[own + 1 :]
        allocated = (part.allocate(request.size, request.alignment, limit) for part in others)
        return next((found for found in allocated if found is not None), None)

    def make_inaccessible(self, address: int, size: int, *, keep: bool) -> bool:
        """Make pages inaccessible, before they are freed.

        Args:
            address: of the first one.
            size: of all of them, in bytes.
            keep: whether they may stay resident.

        Returns:
            Whether they stay resident.

        Raises:
            AllocationError: the system refuses.
        """
        if keep:
            mapping.protect(address, size, 0)
        else:
            mapping.discard(address, size)
        return keep

    def release(self) -> None:
        """Unmap it.

        Raises:
            AllocationError: the system refuses.
        """
        mapping.release(self.start, self.size)

    def _part_index(self, address: int) -> int:
        return (address - self.start) // self._part_size

    def free(self, ranges: Sequence[PageRange]) -> None:
        """Free page ranges, which must be inaccessible."""
        for address, size, resident in ranges:
            part = self._parts[self._part_index(address)]
            free = part.resident if resident else part.empty
            free.put(address, address + size)
            self.used_size -= size

    def reaches(self, other: Reservation) -> bool:
        """Whether all addresses of the two reach each other."""
        return max(self.end, other.end) - min(self.start, other.start) <= REACH


class ImageReservation(Reservation):
    """The memory of an image."""

    def __init__(self, image: Image, images: Images) -> None:
        super().__init__(image.start, image.size)
        # No other JITDylib allocates from it, and it is released when it is empty.
        self.dedicated = True
        self.images = images
        self._image = image
        # Ends of what was allocated in the last part to stay.
        self._last_ends: dict[int, int] = {}
        mapping.discard(self.start, self.size, MemProt.READ)

    def allocate(self, requests: Sequence[PageRequest], limit: int) -> list[PageRange] | None:
        """See `Reservation`; the segments are listed with their new sizes."""
        ranges = super().allocate(requests, limit)
        for request, pages in zip(requests, ranges or (), strict=False):
            last = self._parts[-1]
            if request.lifetime != _FINALIZE and pages.address >= last.start:
                self._last_ends[pages.address] = pages.address + pages.size
        if ranges:
            self._list_segments(ranges)
        return ranges

    def _allocate_elsewhere(
        self,
        own: int,  # noqa: ARG002 - a segment has one protection
        request: PageRequest,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> PageRange | None:
        """Nothing."""
        return None

    def make_inaccessible(self, address: int, size: int, *, keep: bool) -> bool:  # noqa: ARG002
        """Make pages zeros, which stay readable; none stays resident."""
        mapping.discard(address, size, MemProt.READ)
        return False

    def free(self, ranges: Sequence[PageRange]) -> None:
        """See `Reservation`; the segments are listed with their new sizes."""
        super().free(ranges)
        for pages in ranges:
            self._free_in_last_part(pages)
        self._list_segments(ranges)

    def _free_in_last_part(self, pages: PageRange) -> None:
        end = pages.address + pages.size
        for address in [each for each in self._last_ends if pages.address <= each < end]:
            del self._last_ends[address]

    def _list_segments(self, ranges: Sequence[PageRange]) -> None:
        """List the segments that some page ranges are in."""
        for index in {self._part_index(pages.address) for pages in ranges}:
            part = self._parts[index]
            end = part.used_end
            if index == len(self._parts) - 1:
                end = max(self._last_ends.values(), default=part.start)
            self._image.list_segment(index, part.start - self.start, end - part.start)

    def release(self) -> None:
        """Unload the image."""
        self._image.unload()


def library_span(mapped: Sequence[MappedRange]) -> tuple[int, int]:
    """The range of addresses (start, end) of the C library and the libraries near it.

    Args:
        mapped: all mappings of the process.
    """
    center = mapping.library_address()
    ranges = [
        region
        for region in mapped
        if region.path.startswith("/")
        and center - REACH // 2 <= region.start <= center + REACH // 2
    ]
    libraries = {region.path for region in ranges if "x" in region.permissions}
    ranges = [region for region in ranges if region.path in libraries]
    if not ranges:
        return center, center
    return ranges[0].start, ranges[-1].end


def reserve_near(start: int, end: int, size: int, mapped: Sequence[MappedRange]) -> int | None:
    """Reserve a range that reaches, and is reached from, all of ``[start, end)``.

    It is placed as far away as that allows, so that libraries that are loaded later fit in
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
    """Reserve a range that ends at or below `limit`, as high as possible.

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
    """The unmapped ranges between `start` and `end`."""
    for region in mapped:
        first = region.start - (_GROWTH if region.path == "[stack]" else 0)
        last = region.end + (_GROWTH if region.path == "[heap]" else 0)
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
    candidates = range(high, low - 1, -step) if from_top else range(low, high + 1, step)
    results = (mapping.reserve(size, candidate) for candidate in candidates)
    return next((address for address in results if address is not None), None)
