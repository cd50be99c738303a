"""The memory of an emulated machine, and the manager that links allocate it from.

Each segment has pages of its own, with the protection of the segment as far as the region allows
it. Free pages of a sparse region are not mapped; those of other regions are memory like any other,
with the access of the region.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jitlink.errors import AllocationError, ExecutorError, JITLinkError
from jitlink.executor.emulated.memory_map import PAGE_SIZE
from jitlink.executor.emulated.processor import Processor
from jitlink.graph import LinkGraph, MemLifetime, MemProt
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.actions import resolve_actions
from jitlink.memory.free_list import FreeList
from jitlink.memory.layout import BasicLayout, Segment, check_protections
from jitlink.memory.manager import (
    DeallocationError,
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
    take_finalized,
)
from jitlink.memory.regions import MemoryRegion, SectionRegions
from jitlink.memory.tls import TLSAllocation, TLSRegistry, release_tls
from jitlink.sps import AllocActionCallPair, WrapperFunctionCall

Place = Callable[[Segment], int | None]
"""Chooses the address of a segment, a multiple of 4096; None for the next free one."""
RunWrapper = Callable[[WrapperFunctionCall], None]


class Pages(NamedTuple):
    """Allocated pages."""

    address: int
    size: int


class EmulatedMemory:
    """The memory of a machine, by pages; threads may share it.

    Args:
        processor: the processor.
        regions: the regions of its memory map.
        is_sparse: whether only what has been allocated exists; the rest faults.
    """

    def __init__(
        self, processor: Processor, regions: Sequence[MemoryRegion], *, is_sparse: bool = False
    ) -> None:
        self.processor, self.regions, self._is_sparse = processor, regions, is_sparse
        self.sections = SectionRegions(regions)
        self._free = [FreeList(region.start, region.end) for region in regions]
        for region in regions:
            if not is_sparse:
                processor.map(region.start, region.size, region.prot)

    def region_for(self, prot: MemProt) -> MemoryRegion:
        """The region where memory of a protection is allocated first.

        Raises:
            AllocationError: none allows that.
        """
        return self.regions[self._candidates(prot)[0]]

    def _candidates(self, prot: MemProt, named: int = 0) -> list[int]:
        """Indices of the regions for a protection, or for the sections of a segment's number."""
        only = self.sections.indices[named - 1] if named else None
        found = [
            (bool(each.prot & ~prot & MemProt.WRITE), int(each.prot & ~prot).bit_count(), n)
            for n, each in enumerate(self.regions)
            if prot & each.prot == prot and (not each.sections if only is None else n == only)
        ]
        if not found:
            which = "no region" if only is None else f"region {self.regions[only].name}"
            verb = "does not allow" if named else "allows"
            raise AllocationError(f"{which} of the memory map {verb} {prot}", size=0)
        return [number for *_, number in sorted(found)]

    def allocate(
        self,
        size: int,
        prot: MemProt,
        alignment: int = PAGE_SIZE,
        limit: int = NO_ADDRESS_LIMIT,
        *,
        at_end: bool = False,
        named: int = 0,
    ) -> Pages:
        """Allocate pages that can be written from here; code may not use them yet.

        Args:
            size: in bytes.
            prot: what `protect` will allow.
            alignment: of the address, in bytes.
            limit: they end at or below this address.
            at_end: whether the highest addresses are taken.
            named: number of a segment of `SectionRegions`; 0 for any other.

        Raises:
            AllocationError: there are none.
        """
        size, alignment = -(-size // PAGE_SIZE) * PAGE_SIZE, max(alignment, PAGE_SIZE)
        candidates = self._candidates(prot, named)
        with self.processor.lock:
            for number in candidates:
                region, free = self.regions[number], self._free[number]
                address = (
                    self._take_at(free, region.end - size, size)
                    if at_end
                    else free.take(size, alignment, limit)
                )
                if address is not None:
                    return self._map(number, address, size)
        names = ", ".join(self.regions[number].name for number in candidates)
        below = f" below {limit:#x}" if limit < NO_ADDRESS_LIMIT else ""
        rooms = ", ".join(
            f"{self.regions[number].name} has {self._free[number].size:#x} left"
            for number in candidates
        )
        message = f"{names} of the memory map cannot hold {size:#x} more bytes{below}: {rooms}"
        raise AllocationError(message, size=size)

    def allocate_at(self, address: int, size: int, prot: MemProt) -> Pages:
        """Allocate pages at an address.

        Raises:
            AllocationError: they are not free, or of no region that allows that.
        """
        size = -(-size // PAGE_SIZE) * PAGE_SIZE
        with self.processor.lock:
            for number in self._candidates(prot):
                if self._take_at(self._free[number], address, size) is not None:
                    return self._map(number, address, size)
        message = f"{size:#x} bytes at {address:#x} are not free in a region that allows {prot}"
        raise AllocationError(message, size=size)

    @staticmethod
    def _take_at(free: FreeList, address: int, size: int) -> int | None:
        return address if free.take_at(address, size) else None

    def _map(self, number: int, address: int, size: int) -> Pages:
        """Make pages that were taken from a region memory of zeros."""
        try:
            if self._is_sparse:
                self.processor.map(address, size, MemProt.READ | MemProt.WRITE)
            else:
                self.processor.write(address, bytes(size))
        except (ExecutorError, MemoryError) as error:
            self._free[number].put(address, address + size)
            raise AllocationError(str(error) or "out of memory", size=size) from None
        return Pages(address, size)

    def protect(self, pages: Pages, prot: MemProt) -> None:
        """Let code use pages."""
        self.processor.protect(pages.address, pages.size, prot)

    def release(self, pages: Pages) -> None:
        """Free pages; nothing in a machine that is closed."""
        if self.processor.is_closed:
            return
        with self.processor.lock:
            for number, region in enumerate(self.regions):
                if region.start <= pages.address < region.end:
                    if self._is_sparse:
                        self.processor.unmap(pages.address, pages.size)
                    else:
                        self.processor.protect(pages.address, pages.size, region.prot)
                    self._free[number].put(pages.address, pages.address + pages.size)


class _Finalized(NamedTuple):
    """Finalized memory: its pages, its deallocate actions, and what is released with it."""

    pages: Sequence[Pages]
    actions: Sequence[WrapperFunctionCall]
    tls_allocations: Sequence[TLSAllocation]


class EmulatedMemoryManager(JITLinkMemoryManager):
    """Manages memory of an emulated machine. Its coroutines never suspend.

    Args:
        memory: the memory.
        run: runs the call of an allocation action.
        tls: the machine's thread-local storage.
        place: chooses addresses.
    """

    def __init__(
        self,
        memory: EmulatedMemory,
        run: RunWrapper,
        tls: TLSRegistry | None = None,
        place: Place | None = None,
    ) -> None:
        self.memory, self.run, self.tls, self.place = memory, run, tls, place
        self._finalized: dict[int, _Finalized] = {}
        self._numbers = itertools.count(1)

    async def allocate(
        self,
        dylib: JITLinkDylib | None,  # noqa: ARG002 - memory is near enough
        graph: LinkGraph,
    ) -> InFlightAlloc:
        """Give the graph's blocks addresses in the machine and working memory here."""
        self.divide(graph)
        layout = BasicLayout(graph)
        check_protections(layout)
        alloc = _EmulatedAlloc(self, layout)
        try:
            for segment in layout.segments:
                alloc.allocate(segment)
            layout.apply()
        except BaseException:
            alloc.release()
            raise
        return alloc

    def divide(self, graph: LinkGraph) -> None:
        """Give the sections that regions name segments of their own."""
        self.memory.sections.divide(graph)

    def register(self, finalized: _Finalized) -> FinalizedAlloc:
        """Record finalized memory."""
        number = next(self._numbers)
        self._finalized[number] = finalized
        return FinalizedAlloc(number)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Run the deallocate actions and free the memory, the last allocation first."""
        errors: list[JITLinkError] = []
        for finalized in reversed(take_finalized(self._finalized, allocs)):
            errors += self.undo(finalized.actions)
            for pages in finalized.pages:
                self.memory.release(pages)
            errors += await release_tls(finalized.tls_allocations)
        if errors:
            raise DeallocationError(errors)

    def undo(self, calls: Sequence[WrapperFunctionCall]) -> list[JITLinkError]:
        """Run deallocate actions, the last one first; returns the errors."""
        errors: list[JITLinkError] = []
        for call in reversed(calls):
            try:
                self.run(call)
            except JITLinkError as error:
                errors.append(error)
        return errors


class _EmulatedAlloc(InFlightAlloc):
    """Memory of a link: pages of the machine, and working memory here."""

    def __init__(self, manager: EmulatedMemoryManager, layout: BasicLayout) -> None:
        self._manager, self._layout = manager, layout
        self._pages: list[tuple[Segment, Pages]] = []
        self._tls_allocations: list[TLSAllocation] = []
        self._done = False

    def hold(self, tls_allocation: TLSAllocation) -> None:
        """Release thread-local storage together with the memory."""
        self._tls_allocations.append(tls_allocation)

    def allocate(self, segment: Segment) -> None:
        """Place a segment."""
        manager, memory = self._manager, self._manager.memory
        wanted = manager.place(segment) if manager.place is not None else None
        size, limit = max(segment.size, 1), self._layout.graph.address_limit
        if wanted is None:
            pages = memory.allocate(
                size, segment.prot, segment.alignment, limit, named=segment.number
            )
        else:
            pages = memory.allocate_at(wanted, size, segment.prot)
        self._pages.append((segment, pages))
        segment.address = pages.address
        segment.working_memory = memoryview(bytearray(segment.content_size))

    def _mark_done(self) -> None:
        if self._done:
            raise RuntimeError("the allocation was finalized or abandoned before")
        self._done = True

    async def finalize(self) -> FinalizedAlloc:
        """Write the segments, run the finalize actions, free finalize-lifetime memory."""
        self._mark_done()
        manager, memory, graph = self._manager, self._manager.memory, self._layout.graph
        undo: list[WrapperFunctionCall] = []
        try:
            # The graph drops them: functions that serialize their arguments refer to it.
            actions, graph.alloc_actions = resolve_actions(graph.alloc_actions), []
            for segment, pages in self._pages:
                memory.processor.write(pages.address, segment.working_memory)
                memory.protect(pages, segment.prot)
            self._run(actions, undo)
        except BaseException as error:
            for other in manager.undo(undo):
                error.add_note(str(other))
            self._layout.undo()
            self.release()
            await release_tls(self._tls_allocations)
            raise
        kept = []
        for segment, pages in self._pages:
            if segment.lifetime is MemLifetime.FINALIZE:
                memory.release(pages)
            else:
                kept.append(pages)
        return manager.register(_Finalized(kept, undo, self._tls_allocations))

    def _run(self, actions: Sequence[AllocActionCallPair], undo: list[WrapperFunctionCall]) -> None:
        for finalize, deallocate in actions:
            if finalize.callee:
                self._manager.run(finalize)
            if deallocate.callee:
                undo.append(deallocate)

    async def abandon(self) -> None:
        """Free the memory, and restore the graph's blocks to their state before `allocate`."""
        self._mark_done()
        self._layout.undo()
        self.release()
        await release_tls(self._tls_allocations)

    def release(self) -> None:
        """Free the pages."""
        for _, pages in self._pages:
            self._manager.memory.release(pages)
