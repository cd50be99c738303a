"""Allocation of memory for linked code in the address space of this process.

A *reservation* is a reserved range of addresses, a gigabyte if possible, in which all code and
data reach each other with 32-bit displacements. The first one is placed so close to the
process's own libraries that it reaches those too; code whose addresses must fit 32 bits gets one
below 2 GiB. A JITDylib stays in the reservation of its first memory. Only when that is full does
it get another one, in reach of the first if there is a free range. The reservations of a JITDylib
whose memory is images of the process are its own.

A reservation is divided into parts, one for each of the usual protections and one for all
others, and allocates the lowest free pages. Pages of equal protection are thus neighbours, which
the kernel merges into one mapping.

Freed pages are inaccessible. Some megabytes of them stay resident: to clear a resident page and
use it again costs a tenth of what a new page costs.

Finding a free range near the libraries takes longer than linking a small object, so all memory
managers of a process share one address space by default.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.memory import mapping
from jitlink.memory.images import Image, Images
from jitlink.memory.manager import JITLinkDylib
from jitlink.memory.pages import PageAllocator, PageRange, PageRequest
from jitlink.memory.reservation import (
    REACH,
    ImageReservation,
    Reservation,
    library_span,
    reserve_below,
    reserve_near,
)

_RESERVATION_SIZES = (1 << 30, 512 << 20, 256 << 20, 64 << 20, 16 << 20)
_LOW_RESERVATION_SIZE = 512 << 20
_RESIDENT_SIZE = 16 << 20
# The least size of an image's memory: enough for most libraries, and little of what is in reach.
_IMAGE_SIZE = 64 << 20
_IMAGE_TRIES = 3
_SIZE_UNIT = 1 << 20
# An allocation of more than 1/8 of a reservation gets a dedicated one.
_DEDICATED_SHARE = 8
# Above all addresses that a process can use.
_USER_END = 1 << 48


class AddressSpace(PageAllocator):
    """The reservations, and which JITDylib uses which of them. Threads may share one.

    Args:
        reservation_sizes: sizes in bytes to try for a new reservation, largest first.
        resident_size: how many bytes of free pages may stay resident.
    """

    def __init__(
        self,
        reservation_sizes: Sequence[int] = _RESERVATION_SIZES,
        *,
        resident_size: int = _RESIDENT_SIZE,
    ) -> None:
        self.page_size = mapping.PAGE_SIZE
        self.is_executable_in_place = True
        self.supports_images = True
        self._reservation_sizes = tuple(reservation_sizes)
        self._resident_limit = resident_size
        self._reservations: list[Reservation] = []
        self._by_dylib: WeakKeyDictionary[JITLinkDylib, Reservation] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Make it usable in a child process, where a lock held by another thread stays held."""
        self._lock = threading.Lock()

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """All reservations, in order of creation."""
        return tuple(self._reservations)

    def reservation_of(self, dylib: JITLinkDylib) -> Reservation | None:
        """The reservation that a JITDylib allocates from, None if it has not allocated yet."""
        return self._by_dylib.get(dylib)

    def allocate(
        self, dylib: JITLinkDylib, requests: Sequence[PageRequest], limit: int
    ) -> list[PageRange]:
        """Allocate page ranges, all of them from one reservation."""
        if dylib.images is not None:
            return self._allocate_in_image(dylib.images, requests, limit)
        with self._lock:
            current = self._by_dylib.get(dylib)
            reservation, ranges = self._allocate(current, requests, limit)
            if current is None or current.dedicated:
                self._by_dylib[dylib] = reservation
        return ranges

    def _allocate(
        self, current: Reservation | None, requests: Sequence[PageRequest], limit: int
    ) -> tuple[Reservation, list[PageRange]]:
        for reservation in self._candidates(current, limit):
            ranges = reservation.allocate(requests, limit)
            if ranges is not None:
                return reservation, ranges
        size = _bound(requests)
        added = self._add_reservation(size, limit, current)
        ranges = added.allocate(requests, limit) if added else None
        if added is None or ranges is None:
            raise _too_large(size, limit)
        return added, ranges

    def _allocate_in_image(
        self, images: Images, requests: Sequence[PageRequest], limit: int
    ) -> list[PageRange]:
        with self._lock:
            mine = [
                each
                for each in self._reservations
                if isinstance(each, ImageReservation) and each.images is images
            ]
            for reservation in mine:
                ranges = reservation.allocate(requests, limit)
                if ranges is not None:
                    return ranges
        # Without the lock: the dynamic linker has one of its own, and may be calling Python.
        size = _bound(requests)
        added = _load_image(images, size, limit, mine[0] if mine else None)
        with self._lock:
            ranges = added.allocate(requests, limit)
            if ranges is not None:
                self._reservations.append(added)
                return ranges
        added.release()
        raise _too_large(size, limit)

    def _candidates(self, current: Reservation | None, limit: int) -> Iterator[Reservation]:
        if current is not None and not current.dedicated:
            yield current
        for reservation in self._reservations:
            if reservation is current or reservation.dedicated:
                continue
            if limit < _USER_END:
                fits = reservation.start < limit
            elif current is not None:
                fits = reservation.reaches(current)
            else:
                # The memory of a new library will grow, and low addresses are scarce.
                is_low = reservation.start < REACH
                fits = not is_low and reservation.used_size < reservation.size // 2
            if fits:
                yield reservation

    def _add_reservation(
        self, need: int, limit: int, current: Reservation | None
    ) -> Reservation | None:
        """Reserve a range for `need` bytes and more, or for `need` bytes only."""
        page = mapping.PAGE_SIZE
        dedicated = -(-need // page) * page + page
        most = _LOW_RESERVATION_SIZE if limit < _USER_END else _USER_END
        sizes = [s for s in self._reservation_sizes if need * _DEDICATED_SHARE <= s <= most]
        for size in (*sizes, dedicated):
            address = _reserve(size, limit, current)
            if address is not None:
                reservation = Reservation(address, size, dedicated=size == dedicated)
                self._reservations.append(reservation)
                return reservation
        return None

    def make_writable(self, pages: PageRange, populate: int) -> None:
        """Make pages readable, writable and zero."""
        if pages.resident:
            mapping.protect(pages.address, pages.size, mapping.READ_WRITE)
            mapping.clear(pages.address, pages.size)
        else:
            mapping.map_zeroed(pages.address, pages.size, populate)

    def view(self, address: int, size: int) -> memoryview:
        """The memory at an address."""
        return mapping.view(address, size)

    def protect(self, pages: PageRange, prot: MemProt) -> None:
        """Give writable pages their final protection."""
        mapping.protect_written(pages.address, pages.size, prot)

    def free(self, ranges: Iterable[PageRange]) -> list[AllocationError]:
        """Make page ranges inaccessible and free."""
        resident: list[PageRange] = []
        discarded: list[PageRange] = []
        resident_size = sum(reservation.resident_size for reservation in self._reservations)
        left = self._resident_limit - resident_size
        for pages in ranges:
            # Much of a large page range may never have been written to.
            if pages.size <= min(left, self._resident_limit // 4):
                left -= pages.size
                resident.append(pages)
            else:
                discarded.append(pages)
        return self._free(resident, keep=True) + self._free(discarded, keep=False)

    def _free(self, ranges: Sequence[PageRange], *, keep: bool) -> list[AllocationError]:
        errors: list[AllocationError] = []
        for address, size in merged(ranges):
            try:
                self._free_range(address, size, keep=keep)
            except AllocationError as error:
                errors.append(error)
        return errors

    def _free_range(self, address: int, size: int, *, keep: bool) -> None:
        # A copy, because other threads may remove theirs meanwhile.
        for reservation in self.reservations:
            if reservation.start <= address < reservation.end:
                break
        keep = reservation.make_inaccessible(address, size, keep=keep)
        with self._lock:
            reservation.free([PageRange(address, size, keep)])
            is_unused = reservation.dedicated and not reservation.used_size
            if is_unused:
                self._forget(reservation)
        if is_unused:
            reservation.release()

    def _forget(self, reservation: Reservation) -> None:
        self._reservations.remove(reservation)
        for dylib in [key for key, value in self._by_dylib.items() if value is reservation]:
            del self._by_dylib[dylib]

    def close(self) -> None:
        """Unmap all reservations, even if they are in use; for short-lived address spaces."""
        with self._lock:
            reservations = self.reservations
            for reservation in reservations:
                self._forget(reservation)
        for reservation in reservations:
            reservation.release()


def _bound(requests: Sequence[PageRequest]) -> int:
    """An upper bound of what requests take: less if the reservation is aligned already."""
    return sum(size + alignment for size, alignment, _, _ in requests)


def _too_large(size: int, limit: int) -> AllocationError:
    where = f" below {limit:#x}" if limit < _USER_END else ""
    return AllocationError(f"cannot allocate {size:#x} bytes of memory{where}", size=size)


def _load_image(
    images: Images, need: int, limit: int, current: Reservation | None
) -> ImageReservation:
    """Load an image with memory for `need` bytes of any protection, and more if possible."""
    # Each protection has a quarter of the memory, which is 7/8 of the image.
    least = (5 * need // _SIZE_UNIT + 1) * _SIZE_UNIT
    sizes = [max(_IMAGE_SIZE, 1 << (_DEDICATED_SHARE * need).bit_length()), least]
    failure: AllocationError = _too_large(need, limit)
    for size in dict.fromkeys(sizes):
        if least > size:
            continue
        for place in _image_places(size, limit, current):
            try:
                image = images.load(size, place)
            except AllocationError as error:
                failure = error
                continue
            if place or _is_in_reach(image, current):
                try:
                    return ImageReservation(image, images)
                except AllocationError as error:
                    failure = error
            image.unload()
    raise failure


def _image_places(size: int, limit: int, current: Reservation | None) -> Iterator[int]:
    """Addresses for an image, the best first; 0 is the dynamic linker's choice."""
    if limit >= _USER_END:
        # Usually beside the libraries that are loaded already.
        yield 0
    for _ in range(_IMAGE_TRIES):
        address = _reserve(size, limit, current)
        if address is None:
            return
        # Free again until the dynamic linker maps it; if another thread is faster, once more.
        mapping.release(address, size)
        yield address


def _is_in_reach(image: Image, current: Reservation | None) -> bool:
    """Whether an image reaches the C library, or its JITDylib's first memory."""
    near = mapping.library_address() if current is None else current.start
    return max(image.start + image.size, near) - min(image.start, near) <= REACH // 2


def _reserve(size: int, limit: int, current: Reservation | None) -> int | None:
    if limit < _USER_END:
        return reserve_below(min(limit, REACH), size) or reserve_below(limit, size)
    # Listed once, because that takes the system a quarter of a millisecond.
    mapped = mapping.mapped_ranges()
    start, end = (current.start, current.end) if current is not None else library_span(mapped)
    return reserve_near(start, end, size, mapped) or mapping.reserve(size)


def merged(ranges: Iterable[PageRange]) -> Iterator[tuple[int, int]]:
    """Page ranges (address, size) in order of address, adjacent ones merged."""
    start = end = 0
    for address, size, _ in sorted(ranges):
        if address == end:
            end += size
            continue
        if end > start:
            yield start, end - start
        start, end = address, address + size
    if end > start:
        yield start, end - start


PROCESS = AddressSpace()
"""The address space that all memory managers of this process share by default."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS.after_fork)
