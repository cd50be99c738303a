"""The memory manager for linking into this process.

Contents are written where they will run: a segment's pages are first readable and writable,
and get their own protection when they are finalized. No page is ever writable and executable
at once; a section that asks for both is an error.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jitlink.errors import AllocationError, JITLinkError
from jitlink.graph import LinkGraph, MemLifetime, MemProt
from jitlink.memory.actions import resolve_actions, run_deallocate_actions, run_finalize_actions
from jitlink.memory.address_space import PROCESS
from jitlink.memory.layout import BasicLayout, Segment
from jitlink.memory.manager import (
    DeallocationError,
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
)
from jitlink.memory.pages import PageAllocator, Request, Run
from jitlink.memory.tls import TLSAllocation
from jitlink.memory.tls_glibc import PROCESS_TLS
from jitlink.sps import WrapperFunctionCall

log = logging.getLogger("jitlink.memory")

_WRITABLE_AND_EXECUTABLE = tuple(
    read | MemProt.WRITE | MemProt.EXEC for read in (MemProt.NONE, MemProt.READ)
)
_FINALIZE = MemLifetime.FINALIZE
# Zero-fill beyond this is left to page faults: much of a large table may never be touched.
_POPULATED_ZERO_FILL = 64 << 10
# So is much padding: an object may ask for any alignment.
_POPULATED_PADDING = 16 << 20
# What a FinalizedAlloc holds. Addresses would not do: finalize-lifetime memory is reused while
# its allocation still stands.
_numbers = itertools.count(1)


class _Finalized(NamedTuple):
    runs: list[Run]
    deallocate_actions: list[WrapperFunctionCall]
    tls: list[TLSAllocation]


class InProcessMemoryManager(JITLinkMemoryManager):
    """Hands out memory of this process. Its coroutines never suspend; threads may share one.

    Args:
        pages: where the memory comes from, by default what all managers share.
    """

    tls = PROCESS_TLS

    def __init__(self, pages: PageAllocator = PROCESS) -> None:
        self._pages = pages
        self._unnamed = JITLinkDylib("unnamed")
        self._finalized: dict[int, _Finalized] = {}

    @property
    def finalized_count(self) -> int:
        """Number of allocations that have been finalized and not deallocated."""
        return len(self._finalized)

    async def allocate(self, dylib: JITLinkDylib | None, graph: LinkGraph) -> InFlightAlloc:
        """Give the graph's blocks addresses and memory in this process."""
        pages, layout = self._pages, BasicLayout(graph)
        requests = [_request(graph, segment, pages.page_size) for segment in layout.segments]
        runs: list[Run] = []
        if requests:
            owner = self._unnamed if dylib is None else dylib
            runs = pages.take(owner, requests, graph.address_limit)
        try:
            for segment, run in zip(layout.segments, runs, strict=True):
                segment.address = run.address
                pages.make_writable(run, _populate(graph, segment))
            _apply(layout, pages, runs)
        except BaseException:
            pages.give_back(runs)
            raise
        _log_allocated(layout)
        return _InProcessAlloc(pages, layout, runs, self._register)

    def _register(self, finalized: _Finalized) -> FinalizedAlloc:
        number = next(_numbers)
        self._finalized[number] = finalized
        return FinalizedAlloc(number)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Run the deallocate actions and free the memory."""
        numbers = {alloc.address for alloc in allocs}
        if len(numbers) < len(allocs) or not numbers <= self._finalized.keys():
            raise ValueError("not an allocation of this manager, or deallocated before")
        finalized = [self._finalized.pop(alloc.release()) for alloc in allocs]
        for each in finalized:
            _log_runs("given back", each.runs)
        errors: list[JITLinkError] = []
        try:
            for each in reversed(finalized):
                errors += run_deallocate_actions(each.deallocate_actions)
        finally:
            runs = itertools.chain.from_iterable(each.runs for each in finalized)
            errors += self._pages.give_back(runs)
            for each in reversed(finalized):
                errors += await _release_tls(each.tls)
        if errors:
            raise DeallocationError(errors)


async def _release_tls(allocations: Sequence[TLSAllocation]) -> list[JITLinkError]:
    """Release TLS allocations; what failed."""
    return list(itertools.chain.from_iterable([await each.release() for each in allocations]))


def _request(graph: LinkGraph, segment: Segment, page_size: int) -> Request:
    if segment.prot in _WRITABLE_AND_EXECUTABLE:
        names = sorted(
            section.name
            for section in graph.section_list
            if section.mem_prot == segment.prot and section.mem_lifetime == segment.lifetime
        )
        raise AllocationError(
            f"in graph {graph.name}, sections are to be writable and executable at once: "
            + ", ".join(names),
            size=segment.size,
        )
    # Blocks without bytes have addresses all the same.
    size = -(-max(segment.size, 1) // page_size) * page_size
    alignment = max(segment.alignment, page_size)
    return Request(size, alignment, segment.prot, segment.lifetime)


def _log_allocated(layout: BasicLayout) -> None:
    if log.isEnabledFor(logging.DEBUG):
        for each in layout.segments:
            log.debug(
                "%s: segment %s %s at %#x: %d bytes of content, %d of zeros, aligned to %d",
                layout.graph.name,
                each.prot,
                each.lifetime,
                each.address,
                each.content_size,
                each.zero_fill_size,
                each.alignment,
            )


def _log_runs(what: str, runs: Sequence[Run]) -> None:
    if log.isEnabledFor(logging.DEBUG):
        for run in runs:
            log.debug("%s: %#x bytes at %#x", what, run.size, run.address)


def _populate(graph: LinkGraph, segment: Segment) -> int:
    """How many bytes at the start of a segment to give storage at once."""
    if segment.content_size > _POPULATED_PADDING:
        contents = int(graph.block_table.size[segment.content_rows].sum())
        if segment.content_size - contents > _POPULATED_PADDING:
            return 0
    if segment.zero_fill_size <= _POPULATED_ZERO_FILL:
        return segment.size
    return segment.content_size


def _apply(layout: BasicLayout, pages: PageAllocator, runs: Sequence[Run]) -> None:
    """Apply a layout over one view from its first run to its last, gaps included."""
    if runs:
        start = min(run.address for run in runs)
        end = max(run.address + run.size for run in runs)
        layout.apply(pages.view(start, end - start), start)


def _runs_here(graph: LinkGraph) -> bool:
    """Whether this process's processor runs the code of a graph, which may only be looked at."""
    return graph.triple.partition("-")[0] == os.uname().machine


class _InProcessAlloc(InFlightAlloc):
    """Memory that can be read and written.

    Args:
        pages: where the memory comes from.
        layout: the applied layout.
        runs: the memory of each of its segments.
        register: makes the manager remember finalized memory.
    """

    def __init__(
        self,
        pages: PageAllocator,
        layout: BasicLayout,
        runs: Sequence[Run],
        register: Callable[[_Finalized], FinalizedAlloc],
    ) -> None:
        self._pages = pages
        self._layout = layout
        self._runs = runs
        self._register = register
        self._tls: list[TLSAllocation] = []
        self._done = False

    def _claim(self) -> None:
        if self._done:
            raise RuntimeError("the allocation was finalized or abandoned before")
        self._done = True

    def hold(self, allocation: TLSAllocation) -> None:
        """Keep a TLS allocation for as long as the memory."""
        self._tls.append(allocation)

    async def finalize(self) -> FinalizedAlloc:
        """Apply protections, run the finalize actions, free finalize-lifetime memory."""
        self._claim()
        try:
            undo = self._finalize()
        except BaseException as error:
            for other in await self._free():
                error.add_note(str(other))
            raise
        standard: list[Run] = []
        temporary: list[Run] = []
        for segment, run in zip(self._layout.segments, self._runs, strict=True):
            of_lifetime = temporary if segment.lifetime == _FINALIZE else standard
            of_lifetime.append(run)
        _log_runs("protected", standard)
        # What the system does not take back is lost, but the code is as good as ever.
        self._pages.give_back(temporary)
        return self._register(_Finalized(standard, undo, self._tls))

    def _finalize(self) -> list[WrapperFunctionCall]:
        graph = self._layout.graph
        # They belong to the memory now, and what makes their arguments has the graph.
        actions, graph.alloc_actions = resolve_actions(graph.alloc_actions), []
        for segment, run in zip(self._layout.segments, self._runs, strict=True):
            self._pages.protect(run, segment.prot)
        runnable = self._pages.is_executable_in_place and _runs_here(graph)
        return run_finalize_actions(actions) if runnable else []

    async def abandon(self) -> None:
        """Free the memory; the graph's blocks are again what they were before."""
        self._claim()
        errors = await self._free()
        if errors:
            raise errors[0]

    async def _free(self) -> list[JITLinkError]:
        _log_runs("abandoned", self._runs)
        # The graph must not be left with contents in memory that is gone.
        self._layout.undo()
        return [*self._pages.give_back(self._runs), *await _release_tls(self._tls)]
