"""MapperJITLinkMemoryManager: memory of another process, allocated from large reservations.

A `MemoryMapper` reserves memory in the executor, provides working memory for it in this process,
and gives it protections. The manager allocates page ranges of reservations, which all links of a
JITDylib share, so that their code and data reach each other; what is freed is used again.

Finalize-lifetime memory is initialised before the rest, and free as soon as the finalize actions
have run.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from jitlink.errors import AllocationError, JITLinkError
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
from jitlink.memory.reservation import REACH
from jitlink.memory.tls import TLSAllocation, release_tls
from jitlink.sps import AllocActionCallPair

RESERVATION_SIZE = 1 << 30
"""Bytes that are reserved at once by default. As much reaches all of itself."""
_LOW_RESERVATION_SIZE = 512 << 20
_LEAST_RESERVATION_SIZE = 16 << 20


class MappedSegment(NamedTuple):
    """A segment that is to be initialised.

    Attributes:
        prot: its protection.
        lifetime: its lifetime.
        address: its address in the executor, a multiple of the page size.
        size: its size in bytes, likewise.
        content: its first bytes; zeros follow.
    """

    prot: MemProt
    lifetime: MemLifetime
    address: int
    size: int
    content: memoryview


class MemoryMapper(ABC):
    """Memory of an executor.

    Attributes:
        page_size: the executor's page size in bytes.
        can_initialize_again: whether pages that were initialised can be initialised again. If not,
            what is initialised at once has to be one range, with nothing else within.
        is_shared: whether this process can write to memory that was initialised.
    """

    page_size: int
    can_initialize_again = True
    is_shared = False

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the executor is there; if not, so is its memory."""

    @abstractmethod
    async def reserve(self, size: int, limit: int = NO_ADDRESS_LIMIT) -> int:
        """Reserve memory, and return its address.

        Args:
            size: in bytes, a multiple of the page size.
            limit: it is to end at or below this address, but may not if the executor cannot do
                that.

        Raises:
            AllocationError: there is not so much.
            ExecutorError: the executor is gone.
        """

    @abstractmethod
    def prepare(self, address: int, size: int) -> memoryview:
        """Working memory, all zeros, for a range that is about to be initialised.

        Args:
            address: its address in the executor.
            size: its size in bytes.

        Raises:
            AllocationError: there is not so much memory.
        """

    def view(self, address: int, size: int) -> memoryview:
        """Memory that was prepared, and may have been initialised, if `is_shared`.

        Args:
            address: its address in the executor.
            size: its size in bytes.

        Raises:
            AllocationError: this process cannot write to it.
        """
        raise not_writable(address, size)

    @abstractmethod
    async def initialize(
        self,
        reservation: int,
        segments: Sequence[MappedSegment],
        actions: Sequence[AllocActionCallPair],
    ) -> int:
        """Give segments their content and protection, then run finalize actions.

        Args:
            reservation: address of the reservation that they are in.
            segments: at least one.
            actions: their deallocate halves belong to the key.

        Returns:
            A key for `deinitialize`.

        Raises:
            ExecutorError: an action failed, and those before it have been undone; or the executor
                refuses, or is gone.
        """

    def discard(self, address: int, size: int) -> None:  # noqa: B027 - mappers may hold nothing
        """Free what this process holds of pages that are free in the executor.

        Args:
            address: their address in the executor.
            size: their size in bytes, a multiple of the page size.
        """

    @abstractmethod
    async def deinitialize(self, keys: Sequence[int]) -> None:
        """Run the deallocate actions of keys, of the last key first.

        Raises:
            ExecutorError: some failed; all have been run.
        """

    @abstractmethod
    async def release(self, reservations: Sequence[int]) -> None:
        """Free reservations.

        Raises:
            ExecutorError: some could not be freed.
        """

    def close(self) -> None:  # noqa: B027 - mappers may have nothing in this process
        """Free what this process holds of the memory of an executor that has ended."""


class _Reservation:
    """A range of reserved memory.

    Attributes:
        address: its address.
        is_low: whether it is for position-dependent code, which addresses it in 32 bits.
        free: what is free of it.
        used: how many bytes are in use.
    """

    __slots__ = ("address", "free", "is_low", "used")

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.is_low = address < REACH
        self.free = FreeList(address, address + size)
        self.used = 0


class _Range(NamedTuple):
    """A range of pages of a reservation."""

    reservation: _Reservation
    address: int
    size: int


class _Finalized(NamedTuple):
    key: int | None
    ranges: Sequence[_Range]
    tls_allocations: Sequence[TLSAllocation]


_numbers = itertools.count(1)


class MapperJITLinkMemoryManager(JITLinkMemoryManager):
    """Manages memory of another process through a mapper.

    Args:
        mapper: the mapper.
        reservation_size: bytes to reserve at once; links that need more reserve their own.
    """

    def __init__(self, mapper: MemoryMapper, reservation_size: int = RESERVATION_SIZE) -> None:
        self.mapper = mapper
        self._size = reservation_size
        self._reservations: list[_Reservation] = []
        self._by_dylib: WeakKeyDictionary[JITLinkDylib, _Reservation] = WeakKeyDictionary()
        self._finalized: dict[int, _Finalized] = {}
        self._retired: list[tuple[int, int]] = []
        # Sessions of one executor link on threads of their own, and so does the runtime.
        self._lock = threading.RLock()

    async def allocate(self, dylib: JITLinkDylib | None, graph: LinkGraph) -> InFlightAlloc:
        """Give the graph's blocks addresses in the executor and working memory here."""
        layout = BasicLayout(graph)
        check_protections(layout)
        requests = [self._request(segment) for segment in layout.segments]
        ranges = await self.take(dylib, requests, graph.address_limit)
        try:
            for segment, each in zip(layout.segments, ranges, strict=True):
                segment.address = each.address
                view = self.mapper.prepare(each.address, segment.size)
                segment.working_memory = view[: segment.content_size]
            layout.apply()
        except BaseException:
            self.free(ranges)
            raise
        return _MappedAlloc(self, layout, ranges)

    def _request(self, segment: Segment) -> tuple[int, int]:
        """Size and alignment of a segment's page range, in bytes."""
        page = self.mapper.page_size
        return -(-max(segment.size, 1) // page) * page, max(segment.alignment, page)

    async def take(
        self, dylib: JITLinkDylib | None, requests: Sequence[tuple[int, int]], limit: int
    ) -> list[_Range]:
        """Page ranges of one reservation, for requests of a size and an alignment in bytes.

        Raises:
            AllocationError: there are none below the limit.
            ExecutorError: the executor is gone.
        """
        if not requests:
            return []
        take_all = _take_all if self.mapper.can_initialize_again else _take_adjacent
        with self._lock:
            current = None if dylib is None else self._by_dylib.get(dylib)
            # Position-dependent code may come to what was placed elsewhere before.
            is_first = dylib is not None and (current is None or limit == NO_ADDRESS_LIMIT)
            for reservation in self._candidates(current, limit):
                ranges = take_all(reservation, requests, limit)
                if ranges is not None:
                    if dylib is not None and is_first:
                        self._by_dylib[dylib] = reservation
                    return ranges
        reservation, ranges = await self._reserve(requests, limit)
        with self._lock:
            self._reservations.append(reservation)
            if dylib is not None and is_first:
                self._by_dylib[dylib] = reservation
        return ranges

    def _candidates(self, current: _Reservation | None, limit: int) -> Iterator[_Reservation]:
        """Where memory below a limit may be: first where the JITDylib's memory is."""
        if current is not None:
            yield current
        for reservation in self._reservations:
            # Low addresses are scarce.
            if reservation is not current and (limit < NO_ADDRESS_LIMIT or not reservation.is_low):
                yield reservation

    async def reserve(self) -> None:
        """Reserve memory before a link needs it, because links do not wait for each other's.

        Raises:
            AllocationError: there is not so much.
            ExecutorError: the executor is gone.
        """
        address = await self.mapper.reserve(self._size)
        with self._lock:
            self._reservations.append(_Reservation(address, self._size))

    async def _reserve(
        self, requests: Sequence[tuple[int, int]], limit: int
    ) -> tuple[_Reservation, list[_Range]]:
        page = self.mapper.page_size
        take_all = _take_all if self.mapper.can_initialize_again else _take_adjacent
        need = sum(size + alignment for size, alignment in requests)
        size, address = await self._reserve_most(-(-need // page) * page, limit)
        reservation = _Reservation(address, size)
        ranges = take_all(reservation, requests, limit)
        if ranges is None:
            await self.mapper.release([reservation.address])
            raise not_below(limit, need, reservation.address)
        return reservation, ranges

    async def _reserve_most(self, need: int, limit: int) -> tuple[int, int]:
        """Reserve as much as is usual, less if the executor has not so much, but what is needed.

        Returns:
            Size in bytes, and address.
        """
        most = self._size
        if limit < NO_ADDRESS_LIMIT:
            most, limit = min(most, _LOW_RESERVATION_SIZE), min(limit, REACH)
        size = max(most, need)
        while True:
            try:
                return size, await self.mapper.reserve(size, limit)
            except AllocationError:
                if size == need:
                    raise
                size = size // 4 if size // 4 >= max(need, _LEAST_RESERVATION_SIZE) else need

    def register(
        self,
        key: int | None,
        ranges: Sequence[_Range],
        tls_allocations: Sequence[TLSAllocation],
    ) -> FinalizedAlloc:
        """Record finalized memory."""
        number = next(_numbers)
        self._finalized[number] = _Finalized(key, ranges, tls_allocations)
        return FinalizedAlloc(number)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Run the deallocate actions in one call, and use the memory again."""
        finalized = take_finalized(self._finalized, allocs)
        errors: list[JITLinkError] = []
        keys = [each.key for each in finalized if each.key is not None]
        if keys and self.mapper.is_open:
            try:
                await self.mapper.deinitialize(keys)
            except JITLinkError as error:
                if self.mapper.is_open:
                    errors.append(error)
        for each in reversed(finalized):
            self.free_initialized(each.ranges)
            released = await release_tls(each.tls_allocations)
            errors += released if self.mapper.is_open else []
        errors += await self._release_unused()
        if errors:
            raise DeallocationError(errors)

    def free_initialized(self, ranges: Iterable[_Range]) -> None:
        """Free pages that were initialised."""
        for each in ranges:
            is_retired = self.is_retired(each.address, each.size)
            if self.mapper.can_initialize_again and not is_retired:
                self.free([each])
            else:
                with self._lock:
                    each.reservation.used -= each.size

    def free(self, ranges: Iterable[_Range]) -> None:
        """Free pages, which can be used again."""
        for reservation, address, size in ranges:
            if self.mapper.is_open:
                self.mapper.discard(address, size)
            with self._lock:
                reservation.used -= size
                reservation.free.put(address, address + size)

    async def take_scratch(self, sizes: Sequence[int]) -> list[_Range]:
        """Page ranges that are prepared, and not for links.

        Args:
            sizes: of each, in bytes, a multiple of the page size.

        Raises:
            AllocationError: there is not so much memory.
            ExecutorError: the executor is gone.
        """
        page = self.mapper.page_size
        ranges = await self.take(None, [(size, page) for size in sizes], NO_ADDRESS_LIMIT)
        try:
            for each in ranges:
                self.mapper.prepare(each.address, each.size)
        except BaseException:
            self.free(ranges)
            raise
        return ranges

    def retire(self, address: int, size: int) -> None:
        """Have pages of a link never used again, because the executor maps other memory there."""
        self._retired.append((address, address + size))

    def is_retired(self, address: int, size: int) -> bool:
        """Whether some pages of a range were retired."""
        return any(start < address + size and address < end for start, end in self._retired)

    async def _release_unused(self) -> list[JITLinkError]:
        """Release the reservations of which nothing is in use and not all can be used again."""
        if self.mapper.can_initialize_again:
            return []
        with self._lock:
            unused = [each for each in self._reservations if not each.used]
            self._reservations = [each for each in self._reservations if each.used]
            for dylib in [key for key, value in self._by_dylib.items() if value in unused]:
                del self._by_dylib[dylib]
        if unused and self.mapper.is_open:
            try:
                await self.mapper.release([each.address for each in unused])
            except JITLinkError as error:
                return [error]
        return []

    def close(self) -> None:
        """Free what this process holds of the memory of an executor that has ended."""
        self.mapper.close()


def not_writable(address: int, size: int) -> AllocationError:
    """The error for memory of an executor that this process does not map."""
    message = f"this process cannot write to the executor's memory at {address:#x}"
    return AllocationError(message, size=size)


def not_below(limit: int, size: int, address: int) -> AllocationError:
    """The error for an executor that has reserved memory at an address above a limit."""
    return AllocationError(
        f"cannot allocate {size:#x} bytes below {limit:#x}: the executor reserves memory at "
        f"{address:#x}; compile with -fPIC, or use jitlink's executor",
        size=size,
    )


def _take_all(
    reservation: _Reservation, requests: Sequence[tuple[int, int]], limit: int
) -> list[_Range] | None:
    """Page ranges for all requests, or None."""
    taken: list[_Range] = []
    for size, alignment in requests:
        address = reservation.free.take(size, alignment, limit)
        if address is None:
            for each in taken:
                reservation.used -= each.size
                reservation.free.put(each.address, each.address + each.size)
            return None
        reservation.used += size
        taken.append(_Range(reservation, address, size))
    return taken


def _take_adjacent(
    reservation: _Reservation, requests: Sequence[tuple[int, int]], limit: int
) -> list[_Range] | None:
    """Page ranges for all requests within one range of their own, or None."""
    offsets, end = [], 0
    for size, alignment in requests:
        offsets.append(-(-end // alignment) * alignment)
        end = offsets[-1] + size
    start = reservation.free.take(end, max(alignment for _, alignment in requests), limit)
    if start is None:
        return None
    reservation.used += sum(size for size, _ in requests)
    return [
        _Range(reservation, start + offset, size)
        for offset, (size, _) in zip(offsets, requests, strict=True)
    ]


class _MappedAlloc(InFlightAlloc):
    """Memory of a link: page ranges in the executor, and working memory here.

    Args:
        manager: where it is from.
        layout: the applied layout.
        ranges: the page range of each of its segments.
    """

    def __init__(
        self, manager: MapperJITLinkMemoryManager, layout: BasicLayout, ranges: list[_Range]
    ) -> None:
        self._manager = manager
        self._layout = layout
        self._ranges = ranges
        self._tls_allocations: list[TLSAllocation] = []
        self._done = False

    def hold(self, tls_allocation: TLSAllocation) -> None:
        """Release thread-local storage together with the memory."""
        self._tls_allocations.append(tls_allocation)

    def _mark_done(self) -> None:
        if self._done:
            raise RuntimeError("the allocation was finalized or abandoned before")
        self._done = True

    async def finalize(self) -> FinalizedAlloc:
        """Initialise the segments, run the finalize actions, free finalize-lifetime memory."""
        self._mark_done()
        try:
            key = await self._initialize()
        except BaseException:
            self._layout.undo()
            # Some pages may have been initialised.
            self._manager.free_initialized(self._ranges)
            await release_tls(self._tls_allocations)
            raise
        temporary: list[_Range] = []
        kept: list[_Range] = []
        for pages, lifetime in self._pages():
            (temporary if lifetime is MemLifetime.FINALIZE else kept).append(pages)
        self._manager.free_initialized(temporary)
        return self._manager.register(key, kept, self._tls_allocations)

    def _pages(self) -> list[tuple[_Range, MemLifetime]]:
        """The page ranges, with their lifetimes."""
        lifetimes = [segment.lifetime for segment in self._layout.segments]
        # The page for actions, if there is one, is the last.
        lifetimes += [MemLifetime.STANDARD] * (len(self._ranges) - len(lifetimes))
        return list(zip(self._ranges, lifetimes, strict=True))

    async def _initialize(self) -> int | None:
        """Returns the key of the segments that stay, if there are any."""
        mapper, graph = self._manager.mapper, self._layout.graph
        # The graph drops them, because functions that serialize their arguments refer to it.
        actions, graph.alloc_actions = resolve_actions(graph.alloc_actions), []
        standard = self._segments(MemLifetime.STANDARD)
        if actions and not standard:
            standard = [await self._empty_segment()]
        temporary = self._segments(MemLifetime.FINALIZE)
        keys = [await self._initialize_segments(temporary, ())] if temporary else []
        try:
            if standard:
                keys.append(await self._initialize_segments(standard, actions))
            if temporary:
                await mapper.deinitialize([keys.pop(0)])
        except BaseException:
            if keys and mapper.is_open:
                await mapper.deinitialize(keys)
            raise
        return keys[0] if keys else None

    async def _initialize_segments(
        self, segments: Sequence[MappedSegment], actions: Sequence[AllocActionCallPair]
    ) -> int:
        place = next(each for each in self._ranges if each.address == segments[0].address)
        return await self._manager.mapper.initialize(place.reservation.address, segments, actions)

    def _segments(self, lifetime: MemLifetime) -> list[MappedSegment]:
        return [
            MappedSegment(segment.prot, lifetime, each.address, each.size, segment.working_memory)
            for segment, each in zip(self._layout.segments, self._ranges, strict=False)
            if segment.lifetime is lifetime
        ]

    async def _empty_segment(self) -> MappedSegment:
        """A page for the actions of a graph that has no other memory."""
        manager, page = self._manager, self._manager.mapper.page_size
        (added,) = await manager.take(None, [(page, page)], self._layout.graph.address_limit)
        self._ranges.append(added)
        content = manager.mapper.prepare(added.address, page)[:0]
        return MappedSegment(MemProt.READ, MemLifetime.STANDARD, added.address, page, content)

    async def abandon(self) -> None:
        """Free the memory, and restore the graph's blocks to their state before `allocate`."""
        self._mark_done()
        # No content of the graph may refer to freed memory.
        self._layout.undo()
        self._manager.free(self._ranges)
        await release_tls(self._tls_allocations)
