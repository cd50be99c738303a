"""A memory manager with one slab of memory of a given size, and perhaps at a given address.

Segments are placed in the slab in order of allocation, each on a page of its own, so that one
object always gets the same addresses in a slab at one address. If the process cannot have
memory at that address, or the slab's pages are smaller than its own, the slab's memory is
elsewhere: contents and fixups are as if it were there, but nothing can be run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.memory import mapping
from jitlink.memory.address_space import joined
from jitlink.memory.free_list import FreeList
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.memory.manager import JITLinkDylib
from jitlink.memory.pages import PageAllocator, Request, Run


class SlabMemoryManager(InProcessMemoryManager):
    """Hands out memory from one slab.

    A protection is applied, and an allocation action run, only if code can be run in place.

    Args:
        size: size of the slab in bytes.
        address: where code in the slab is to think it is; anywhere if None.
        page_size: what segments are aligned to, a power of two; by default the process's own.

    Raises:
        AllocationError: there is no memory of that size, or it would not end below 2**64.
        ValueError: the size is not above zero, the page size is no power of two, or the address
            no multiple of it.
    """

    def __init__(self, size: int, address: int | None = None, page_size: int | None = None) -> None:
        self._slab = _Slab(size, address, mapping.PAGE_SIZE if page_size is None else page_size)
        super().__init__(self._slab)

    @property
    def address(self) -> int:
        """The address that code in the slab thinks the slab is at."""
        return self._slab.address

    @property
    def size(self) -> int:
        """Size of the slab in bytes."""
        return self._slab.size

    @property
    def page_size(self) -> int:
        """What segments are aligned to, in bytes."""
        return self._slab.page_size

    @property
    def is_executable_in_place(self) -> bool:
        """Whether the slab is where its code thinks it is, so that it can be run."""
        return self._slab.is_executable_in_place

    def close(self) -> None:
        """Unmap the slab, whatever is in it."""
        self._slab.close()


class _Slab(PageAllocator):
    def __init__(self, size: int, address: int | None, page_size: int) -> None:
        if size < 1:
            raise ValueError(f"a slab of {size} bytes is too small")
        if page_size < 1 or page_size & (page_size - 1):
            raise ValueError(f"page size {page_size} is not a power of two")
        if address is not None and address % page_size:
            raise ValueError(f"slab address {address:#x} is not a multiple of {page_size:#x}")
        self.page_size = page_size
        self.size = size
        self._lock = threading.Lock()
        self._memory, self._memory_size, self.is_executable_in_place = self._reserve(address)
        # Any address is a page boundary to a slab that is only looked at.
        start = -(-self._memory // page_size) * page_size
        self.address = start if address is None else address
        self._distance = start - self.address if address is None else self._memory - address
        self._free = FreeList(self.address, self.address + size)

    def _reserve(self, address: int | None) -> tuple[int, int, bool]:
        """Get memory: its address, its size, whether it is in place."""
        pages = -(-self.size // mapping.PAGE_SIZE) * mapping.PAGE_SIZE
        whole_pages = self.page_size % mapping.PAGE_SIZE == 0
        if address and whole_pages and mapping.reserve(pages, address):
            return address, pages, True
        if address is None:
            # Room to align the start, where the slab's pages are larger than the process's.
            pages += self.page_size if self.page_size > mapping.PAGE_SIZE else 0
        memory = mapping.reserve(pages)
        if memory is None or (address or 0) + self.size > 1 << 64:
            raise AllocationError(f"no room for a slab of {self.size:#x} bytes", size=self.size)
        in_place = address is None and whole_pages
        if not in_place:
            mapping.map_zeroed(memory, pages, 0)
        return memory, pages, in_place

    def take(self, dylib: JITLinkDylib, requests: Sequence[Request], limit: int) -> list[Run]:
        """Serve requests for runs of pages."""
        runs: list[Run] = []
        with self._lock:
            for size, alignment, _, _ in requests:
                address = self._free.take(size, alignment, limit)
                if address is None:
                    self._put(runs)
                    raise self._no_room(dylib, size, alignment, limit)
                runs.append(Run(address, size, resident=False))
        return runs

    def _no_room(
        self, dylib: JITLinkDylib, size: int, alignment: int, limit: int
    ) -> AllocationError:
        aligned = f" aligned to {alignment:#x}" if alignment > self.page_size else ""
        below = f" below {limit:#x}" if limit < self.address + self.size else ""
        return AllocationError(
            f"the slab of {self.size:#x} bytes at {self.address:#x} has no room for a segment of "
            f"{size:#x} bytes{aligned}{below} of {dylib.name}: {self._free.size:#x} bytes are free",
            size=size,
        )

    def _put(self, runs: Iterable[Run]) -> None:
        for address, size, _ in runs:
            self._free.put(address, address + size)

    def make_writable(self, run: Run, populate: int) -> None:
        """Make a run readable, writable and zero."""
        if self.is_executable_in_place:
            mapping.map_zeroed(run.address, run.size, populate)

    def view(self, address: int, size: int) -> memoryview:
        """The working memory of a range of the slab."""
        return mapping.view(address + self._distance, size)

    def protect(self, run: Run, prot: MemProt) -> None:
        """Give a writable run its own protection."""
        if self.is_executable_in_place:
            mapping.protect_written(run.address, run.size, prot)

    def give_back(self, runs: Iterable[Run]) -> list[AllocationError]:
        """Make runs inaccessible and free."""
        errors = []
        for address, size in joined(runs):
            try:
                if self.is_executable_in_place:
                    mapping.discard(address, size)
                else:
                    mapping.clear(address + self._distance, size)
            except AllocationError as error:
                errors.append(error)
                continue
            with self._lock:
                self._put([Run(address, size, resident=False)])
        return errors

    def close(self) -> None:
        mapping.release(self._memory, self._memory_size)
