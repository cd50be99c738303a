"""The memory manager that reserves memory for each link, as every version of executors can.

Each link has a reservation, and another one for finalize-lifetime memory, which is released as
soon as the finalize actions have run. Deallocation releases the reservations, which runs their
deallocate actions.

LLVM differs: its manager leaves finalize-lifetime memory to the executor, which keeps it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from jitlink.errors import JITLinkError
from jitlink.executor.remote.memory_services import finalize_request, reserve, working_memory
from jitlink.executor.remote.services import Services
from jitlink.graph import LinkGraph, MemLifetime, MemProt
from jitlink.memory.actions import resolve_actions
from jitlink.memory.layout import BasicLayout, check_protections
from jitlink.memory.manager import (
    DeallocationError,
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
    take_finalized,
)
from jitlink.memory.mapper import MappedSegment, not_below
from jitlink.memory.tls import TLSAllocation, release_tls
from jitlink.sps import AllocActionCallPair, WrapperFunctionCall

_numbers = itertools.count(1)


class _Finalized(NamedTuple):
    """Finalized memory.

    Attributes:
        reservation: its address; None if there is none.
        tls_allocations: what is to be released with it.
    """

    reservation: int | None
    tls_allocations: Sequence[TLSAllocation]


class GenericJITLinkMemoryManager(JITLinkMemoryManager):
    """Manages memory of an executor by its memory services.

    Args:
        services: the executor's services.
        page_size: its page size in bytes.
    """

    def __init__(self, services: Services, page_size: int) -> None:
        self.services = services
        self.page_size = page_size
        self._finalized: dict[int, _Finalized] = {}

    async def allocate(
        self,
        dylib: JITLinkDylib | None,  # noqa: ARG002 - the executor chooses the place
        graph: LinkGraph,
    ) -> InFlightAlloc:
        """Give the graph's blocks addresses in the executor and working memory here."""
        layout = BasicLayout(graph)
        check_protections(layout)
        sizes = layout.contiguous_page_based_layout_sizes(self.page_size)
        alloc = _GenericAlloc(self, layout)
        try:
            await alloc.reserve(MemLifetime.STANDARD, sizes.standard)
            await alloc.reserve(MemLifetime.FINALIZE, sizes.finalize)
            layout.apply()
        except BaseException:
            await alloc.release()
            raise
        return alloc

    def register(self, finalized: _Finalized) -> FinalizedAlloc:
        """Record finalized memory."""
        number = next(_numbers)
        self._finalized[number] = finalized
        return FinalizedAlloc(number)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Release the memory in one call; the executor takes the last allocation first."""
        finalized = take_finalized(self._finalized, allocs)
        errors: list[JITLinkError] = []
        try:
            await self.release([r.reservation for r in finalized if r.reservation is not None])
        except JITLinkError as error:
            errors.append(error)
        for each in reversed(finalized):
            released = await release_tls(each.tls_allocations)
            errors += released if self.services.connection.is_open else []
        if errors:
            raise DeallocationError(errors)

    async def release(self, reservations: Sequence[int]) -> None:
        """Free reservations; those of an executor that is gone are free.

        Raises:
            ExecutorError: some could not be freed.
        """
        services = self.services
        if reservations and services.connection.is_open:
            try:
                await services.call(services.dialect.memory.release, reservations)
            except JITLinkError:
                if services.connection.is_open:
                    raise


class _GenericAlloc(InFlightAlloc):
    """Memory of a link: reservations in the executor, and working memory here."""

    def __init__(self, manager: GenericJITLinkMemoryManager, layout: BasicLayout) -> None:
        self._manager = manager
        self._layout = layout
        self._reserved: dict[MemLifetime, int] = {}
        self._segments: dict[MemLifetime, list[MappedSegment]] = {}
        self._tls_allocations: list[TLSAllocation] = []
        self._done = False

    def hold(self, tls_allocation: TLSAllocation) -> None:
        """Release thread-local storage together with the memory."""
        self._tls_allocations.append(tls_allocation)

    async def reserve(self, lifetime: MemLifetime, size: int) -> None:
        """Reserve `size` bytes for the segments of a lifetime, and place them in these."""
        if not size:
            return
        manager = self._manager
        limit = self._layout.graph.address_limit
        address = self._reserved[lifetime] = await reserve(manager.services, size, limit)
        if address + size > limit:
            raise not_below(limit, size, address)
        segments = self._segments[lifetime] = []
        for segment in self._layout.segments:
            if segment.lifetime is lifetime:
                segment.address = address
                segment.working_memory = working_memory(segment.content_size)
                pages = -(-segment.size // manager.page_size) * manager.page_size
                content = segment.working_memory
                segments.append(MappedSegment(segment.prot, lifetime, address, pages, content))
                address += pages

    def _mark_done(self) -> None:
        if self._done:
            raise RuntimeError("the allocation was finalized or abandoned before")
        self._done = True

    async def finalize(self) -> FinalizedAlloc:
        """Initialise the segments, run the finalize actions, free finalize-lifetime memory."""
        self._mark_done()
        graph, manager = self._layout.graph, self._manager
        try:
            # The graph drops them: functions that serialize their arguments refer to it.
            actions, graph.alloc_actions = resolve_actions(graph.alloc_actions), []
            if actions and MemLifetime.STANDARD not in self._reserved:
                await self._reserve_empty_segment()
            await self._initialize(MemLifetime.FINALIZE, ())
            await self._initialize(MemLifetime.STANDARD, actions)
            temporary = self._reserved.pop(MemLifetime.FINALIZE, None)
            if temporary is not None:
                await manager.release([temporary])
        except BaseException as error:
            self._layout.undo()
            try:
                await self.release()
            except JITLinkError as other:
                error.add_note(str(other))
            raise
        reservation = self._reserved.get(MemLifetime.STANDARD)
        return manager.register(_Finalized(reservation, self._tls_allocations))

    async def _initialize(
        self, lifetime: MemLifetime, actions: Sequence[AllocActionCallPair]
    ) -> None:
        segments, services = self._segments.get(lifetime), self._manager.services
        if segments:
            if not services.dialect.accepts_null_finalize:
                actions = [self._without_null(pair) for pair in actions]
            request = finalize_request(segments, actions)
            await services.call(services.dialect.memory.initialize, request)

    def _without_null(self, pair: AllocActionCallPair) -> AllocActionCallPair:
        """The pair, with a call that does nothing in place of a finalize half that is none."""
        if pair.finalize.callee:
            return pair
        services = self._manager.services
        service = services.dialect.shared_memory.deinitialize
        nothing = WrapperFunctionCall(services.address(service), services.arguments(service, []))
        return AllocActionCallPair(nothing, pair.deallocate)

    async def _reserve_empty_segment(self) -> None:
        """Reserve a page for the actions of a graph that has no other memory."""
        page, lifetime = self._manager.page_size, MemLifetime.STANDARD
        address = self._reserved[lifetime] = await reserve(self._manager.services, page)
        content = working_memory(0)
        self._segments[lifetime] = [MappedSegment(MemProt.READ, lifetime, address, page, content)]

    async def abandon(self) -> None:
        """Free the memory, and restore the graph's blocks to their state before `allocate`."""
        self._mark_done()
        self._layout.undo()
        await self.release()

    async def release(self) -> None:
        """Free the memory."""
        try:
            await self._manager.release(list(self._reserved.values()))
        finally:
            await release_tls(self._tls_allocations)
