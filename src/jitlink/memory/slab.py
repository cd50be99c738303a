"""A memory manager with one slab of memory of a given size, optionally at a given address.

Segments are placed in the slab in order of allocation, each on a new page, so that an object
always gets the same addresses in a slab at a given address. If the process cannot map memory at
that address, or the slab's pages are smaller than its own, the slab's working memory is
elsewhere: contents and fixups are those for the given address, but no code can be run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory import mapping
from jitlink.memory.address_space import merged
from jitlink.memory.free_list import FreeList
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.memory.manager import JITLinkDylib
from jitlink.memory.pages import PageAllocator, PageRange, PageRequest
from jitlink.memory.reservation import reserve_below


class SlabMemoryManager(InProcessMemoryManager):
    """Allocates memory from one slab.

    Protections are applied, and allocation actions run, only if code can be run in place.

    Args:
        size: size of the slab in bytes.
        address: the address to link the slab for; any address if None.
        page_size: alignment of segments in bytes, a power of two; by default the process's page
            size.
        address_limit: the slab ends at or below this address, if its own is not given.

    Raises:
        AllocationError: so much memory cannot be reserved, or it would not end below 2**64.
        ValueError: the size is not above zero, the page size is no power of two, or the address
            no multiple of it.
    """

    def __init__(
        self,
        size: int,
        address: int | None = None,
        page_size: int | None = None,
        *,
        address_limit: int = NO_ADDRESS_LIMIT,
    ) -> None:
        page_size = mapping.PAGE_SIZE if page_size is None else page_size
        self._slab = _Slab(size, address, page_size, address_limit)
        super().__init__(self._slab)

    @property
    def address(self) -> int:
        """The address that the slab is linked for."""
        return self._slab.address

    @property
    def size(self) -> int:
        """Size of the slab in bytes."""
        return self._slab.size

    @property
    def page_size(self) -> int:
        """Alignment of segments, in bytes."""
        return self._slab.page_size

    @property
    def is_executable_in_place(self) -> bool:
        """Whether the slab is mapped at the address it is linked for, so that code can be run."""
        return self._slab.is_executable_in_place

    def close(self) -> None:
        """Unmap the slab, even if it is in use."""
        self._slab.close()


class _Slab(PageAllocator):
    def __init__(self, size: int, address: int | None, page_size: int, address_limit: int) -> None:
        if size < 1:
            raise ValueError(f"a slab of {size} bytes is too small")
        if page_size < 1 or page_size & (page_size - 1):
            raise ValueError(f"page size {page_size} is not a power of two")
        if address is not None and address % page_size:
            raise ValueError(f"slab address {address:#x} is not a multiple of {page_size:#x}")
        self.page_size = page_size
        self.size = size
        self._lock = threading.Lock()
        self._memory, self._memory_size, self.is_executable_in_place = self._reserve(
            address, address_limit
        )
        # Working memory that is elsewhere than at a given address need not be aligned.
        start = -(-self._memory // page_size) * page_size
        self.address = start if address is None else address
        self._distance = start - self.address if address is None else self._memory - address
        self._free = FreeList(self.address, self.address + size)

    def _reserve(self, address: int | None, limit: int) -> tuple[int, int, bool]:
        """Reserve memory; return its address, its size, and whether code can be run in place."""
        pages = -(-self.size // mapping.PAGE_SIZE) * mapping.PAGE_SIZE
        whole_pages = self.page_size % mapping.PAGE_SIZE == 0
        if address and whole_pages and mapping.reserve(pages, address):
            return address, pages, True
        if address is None:
            # To align the start if the slab's pages are larger than the process's.
            pages += self.page_size if self.page_size > mapping.PAGE_SIZE else 0
        is_limited = address is None and limit < NO_ADDRESS_LIMIT
        memory = reserve_below(limit, pages) if is_limited else mapping.reserve(pages)
        if memory is None or (address or 0) + self.size > 1 << 64:
            raise AllocationError(f"cannot reserve a slab of {self.size:#x} bytes", size=self.size)
        in_place = address is None and whole_pages
        if not in_place:
            mapping.map_zeroed(memory, pages, 0)
        return memory, pages, in_place

    def allocate(
        self, dylib: JITLinkDylib, requests: Sequence[PageRequest], limit: int
    ) -> list[PageRange]:
        """Allocate page ranges."""
        ranges: list[PageRange] = []
        with self._lock:
            for request in requests:
                address = self._free.take(request.size, request.alignment, limit)
                if address is None:
                    raise self._exhausted(dylib, request, requests, ranges, limit)
                ranges.append(PageRange(address, request.size, resident=False))
        return ranges

    def _exhausted(
        self,
        dylib: JITLinkDylib,
        request: PageRequest,
        requests: Sequence[PageRequest],
        taken: Sequence[PageRange],
        limit: int,
    ) -> AllocationError:
        """Return the ranges that were taken; an error for a request that does not fit."""
        self._put(taken)
        left = self._free.size
        size, alignment = request.size, request.alignment
        aligned = f" aligned to {alignment:#x}" if alignment > self.page_size else ""
        below = f" below {limit:#x}" if limit < self.address + self.size else ""
        needed = self.size - left + sum(each.size for each in requests)
        advice = (
            f"; the link needs a slab of at least {needed:#x} bytes" if needed > self.size else ""
        )
        return AllocationError(
            f"the slab of {self.size:#x} bytes at {self.address:#x} is too full for a segment of "
            f"{size:#x} bytes{aligned}{below} of {dylib.name}: {left:#x} bytes are free{advice}",
            size=size,
        )

    def _put(self, ranges: Iterable[PageRange]) -> None:
        for address, size, _ in ranges:
            self._free.put(address, address + size)

    def make_writable(self, pages: PageRange, populate: int) -> None:
        """Make pages readable, writable and zero."""
        if self.is_executable_in_place:
            mapping.map_zeroed(pages.address, pages.size, populate)

    def view(self, address: int, size: int) -> memoryview:
        """The working memory of a range of the slab."""
        return mapping.view(address + self._distance, size)

    def protect(self, pages: PageRange, prot: MemProt) -> None:
        """Give writable pages their final protection."""
        if self.is_executable_in_place:
            mapping.protect_written(pages.address, pages.size, prot)

    def free(self, ranges: Iterable[PageRange]) -> list[AllocationError]:
        """Make page ranges inaccessible and free."""
        errors = []
        for address, size in merged(ranges):
            try:
                if self.is_executable_in_place:
                    mapping.discard(address, size)
                else:
                    mapping.clear(address + self._distance, size)
            except AllocationError as error:
                errors.append(error)
                continue
            with self._lock:
                self._put([PageRange(address, size, resident=False)])
        return errors

    def close(self) -> None:
        mapping.release(self._memory, self._memory_size)
