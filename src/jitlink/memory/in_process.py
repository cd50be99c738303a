"""The memory manager for linking into this process.

Working memory is executor memory: a segment's pages are readable and writable at first, and get
their final protection on finalization. No page is ever writable and executable at once, unless a
graph is linked whose sections are, and may be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jitlink.errors import JITLinkError
from jitlink.graph import LinkGraph, MemLifetime
from jitlink.host import MACHINE
from jitlink.logs import Log
from jitlink.memory.actions import resolve_actions, run_deallocate_actions, run_finalize_actions
from jitlink.memory.address_space import PROCESS
from jitlink.memory.layout import BasicLayout, Segment, check_protections
from jitlink.memory.manager import (
    DeallocationError,
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
    take_finalized,
)
from jitlink.memory.pages import PageAllocator, PageRange, PageRequest
from jitlink.memory.tls import TLSAllocation, TLSRegistry, release_tls
from jitlink.memory.tls_glibc import PROCESS_TLS, GlibcLoader
from jitlink.sps import WrapperFunctionCall

log = Log("jitlink.memory")

_FINALIZE = MemLifetime.FINALIZE
# Larger zero-fill is populated by page faults: much of a large table may never be touched.
_POPULATED_ZERO_FILL = 64 << 10
# So is larger padding: an object may require any alignment.
_POPULATED_PADDING = 16 << 20
# Identifies a FinalizedAlloc. Addresses are not unique: finalize-lifetime memory is reused before
# its allocation is deallocated.
_numbers = itertools.count(1)


class _Finalized(NamedTuple):
    ranges: list[PageRange]
    deallocate_actions: list[WrapperFunctionCall]
    tls_allocations: list[TLSAllocation]


class InProcessMemoryManager(JITLinkMemoryManager):
    """Manages memory of this process. Its coroutines never suspend; threads may share one.

    Args:
        allocator: allocates the pages; by default the one that all managers share.

    Attributes:
        runs_code: whether allocation actions run and the C library allocates TLS; by default True.
    """

    tls: TLSRegistry | None = PROCESS_TLS

    def __init__(self, allocator: PageAllocator = PROCESS) -> None:
        self.runs_code = True
        self._allocator = allocator
        self.supports_images = allocator.supports_images
        self._unnamed = JITLinkDylib("unnamed")
        self._finalized: dict[int, _Finalized] = {}

    def link_only(self) -> None:
        """Run nothing from now on: what is linked is only looked at."""
        from jitlink.memory.tls_link_only import LinkOnlyTLS  # noqa: PLC0415 - seldom needed

        self.runs_code = False
        self.tls = LinkOnlyTLS(GlibcLoader())

    @property
    def finalized_count(self) -> int:
        """Number of allocations that are finalized and not deallocated."""
        return len(self._finalized)

    async def allocate(self, dylib: JITLinkDylib | None, graph: LinkGraph) -> InFlightAlloc:
        """Give the graph's blocks addresses and memory in this process."""
        allocator, layout = self._allocator, BasicLayout(graph)
        check_protections(layout)
        requests = [_request(segment, allocator.page_size) for segment in layout.segments]
        ranges: list[PageRange] = []
        if requests:
            owner = self._unnamed if dylib is None else dylib
            ranges = allocator.allocate(owner, requests, graph.address_limit)
        try:
            for segment, pages in zip(layout.segments, ranges, strict=True):
                segment.address = pages.address
                allocator.make_writable(pages, _populate(graph, segment))
            _apply(layout, allocator, ranges)
        except BaseException:
            allocator.free(ranges)
            raise
        _log_allocated(layout)
        return _InProcessAlloc(allocator, layout, ranges, self._register, self.runs_code)

    def _register(self, finalized: _Finalized) -> FinalizedAlloc:
        number = next(_numbers)
        self._finalized[number] = finalized
        return FinalizedAlloc(number)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Run the deallocate actions and free the memory."""
        finalized = take_finalized(self._finalized, allocs)
        for allocation in finalized:
            _log_ranges("freed", allocation.ranges)
        errors: list[JITLinkError] = []
        try:
            for allocation in reversed(finalized):
                errors += run_deallocate_actions(allocation.deallocate_actions)
        finally:
            ranges = itertools.chain.from_iterable(allocation.ranges for allocation in finalized)
            errors += self._allocator.free(ranges)
            for allocation in reversed(finalized):
                errors += await release_tls(allocation.tls_allocations)
        if errors:
            raise DeallocationError(errors)


def _request(segment: Segment, page_size: int) -> PageRequest:
    # Empty blocks have addresses too.
    size = -(-max(segment.size, 1) // page_size) * page_size
    alignment = max(segment.alignment, page_size)
    return PageRequest(size, alignment, segment.prot, segment.lifetime)


def _log_allocated(layout: BasicLayout) -> None:
    if log.is_on:
        for segment in layout.segments:
            log.debug(
                "%s: segment %s %s at %#x: %d bytes of content, %d of zeros, aligned to %d",
                layout.graph.name,
                segment.prot,
                segment.lifetime,
                segment.address,
                segment.content_size,
                segment.zero_fill_size,
                segment.alignment,
            )


def _log_ranges(what: str, ranges: Sequence[PageRange]) -> None:
    if log.is_on:
        for pages in ranges:
            log.debug("%s: %#x bytes at %#x", what, pages.size, pages.address)


def _populate(graph: LinkGraph, segment: Segment) -> int:
    """How many bytes at the start of a segment to populate at once."""
    if segment.content_size > _POPULATED_PADDING:
        contents = int(graph.block_table.size[segment.content_rows].sum())
        if segment.content_size - contents > _POPULATED_PADDING:
            return 0
    if segment.zero_fill_size <= _POPULATED_ZERO_FILL:
        return segment.size
    return segment.content_size


def _apply(layout: BasicLayout, allocator: PageAllocator, ranges: Sequence[PageRange]) -> None:
    """Apply a layout to one view of all its page ranges, gaps included."""
    if ranges:
        start = min(pages.address for pages in ranges)
        end = max(pages.address + pages.size for pages in ranges)
        layout.apply(allocator.view(start, end - start), start)


def _is_native(graph: LinkGraph) -> bool:
    """Whether this machine's processor runs the code of a graph."""
    return graph.triple.partition("-")[0] == MACHINE


class _InProcessAlloc(InFlightAlloc):
    """Memory that can be read and written.

    Args:
        allocator: where the pages are allocated.
        layout: the applied layout.
        ranges: the page range of each of its segments.
        register: registers finalized memory with the manager.
        runs_code: whether allocation actions run.
    """

    def __init__(
        self,
        allocator: PageAllocator,
        layout: BasicLayout,
        ranges: Sequence[PageRange],
        register: Callable[[_Finalized], FinalizedAlloc],
        runs_code: bool,
    ) -> None:
        self._allocator = allocator
        self._layout = layout
        self._ranges = ranges
        self._register = register
        self._runs_code = runs_code
        self._tls_allocations: list[TLSAllocation] = []
        self._done = False

    def _mark_done(self) -> None:
        if self._done:
            raise RuntimeError("the allocation was finalized or abandoned before")
        self._done = True

    def hold(self, tls_allocation: TLSAllocation) -> None:
        """Release thread-local storage together with the memory."""
        self._tls_allocations.append(tls_allocation)

    async def finalize(self) -> FinalizedAlloc:
        """Apply protections, run the finalize actions, free finalize-lifetime memory."""
        self._mark_done()
        try:
            deallocate_actions = self._finalize()
        except BaseException as error:
            for other in await self._free():
                error.add_note(str(other))
            raise
        standard: list[PageRange] = []
        temporary: list[PageRange] = []
        for segment, pages in zip(self._layout.segments, self._ranges, strict=True):
            of_lifetime = temporary if segment.lifetime == _FINALIZE else standard
            of_lifetime.append(pages)
        _log_ranges("protected", standard)
        # Errors are ignored: the pages are lost, but the linked code is usable.
        if temporary:
            self._allocator.free(temporary)
        return self._register(_Finalized(standard, deallocate_actions, self._tls_allocations))

    def _finalize(self) -> list[WrapperFunctionCall]:
        graph = self._layout.graph
        # The graph drops them, because functions that serialize their arguments refer to it.
        actions, graph.alloc_actions = resolve_actions(graph.alloc_actions), []
        for segment, pages in zip(self._layout.segments, self._ranges, strict=True):
            self._allocator.protect(pages, segment.prot)
        runnable = self._runs_code and self._allocator.is_executable_in_place
        runnable = runnable and _is_native(graph)
        return run_finalize_actions(actions) if runnable else []

    async def abandon(self) -> None:
        """Free the memory, and restore the graph's blocks to their state before `allocate`."""
        self._mark_done()
        errors = await self._free()
        if errors:
            raise errors[0]

    async def _free(self) -> list[JITLinkError]:
        _log_ranges("abandoned", self._ranges)
        # No content of the graph may refer to freed memory.
        self._layout.undo()
        return [*self._allocator.free(self._ranges), *await release_tls(self._tls_allocations)]
