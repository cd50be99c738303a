"""Mappers of an executor's memory: by shared memory, and by content that crosses the wire."""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Sequence

from jitlink.errors import AllocationError, ExecutorError, JITLinkError
from jitlink.executor.remote.errors import ExecutorDisconnectedError, ProtocolError
from jitlink.executor.remote.memory_services import (
    check_reservation,
    finalize_request,
    group_of,
    reserve,
    reserve_by,
    working_memory,
)
from jitlink.executor.remote.services import Services
from jitlink.executor.remote.shared_memory import SharedMemory, named_memory, remove_files
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.mapper import MappedSegment, MemoryMapper, not_writable
from jitlink.sps import AllocActionCallPair
from jitlink.sps.services import SharedFinalizeRequest, SharedSegmentFinalizeRequest


class _ServiceMapper(MemoryMapper):
    """What the mappers have in common."""

    def __init__(self, services: Services, page_size: int) -> None:
        self._services = services
        self.page_size = page_size

    @property
    def is_open(self) -> bool:
        """Whether the executor is there."""
        return self._services.connection.is_open


class SimpleRemoteMemoryMapper(_ServiceMapper):
    """Memory whose content crosses the wire.

    LLVM's executors initialise each part of a reservation once: what was initialised at an address
    stays recorded, and other content is refused there.

    Raises:
        ExecutorError: the executor cannot initialise parts of a reservation.
    """

    def __init__(self, services: Services, page_size: int) -> None:
        super().__init__(services, page_size)
        deinitialize = services.dialect.memory.deinitialize
        if deinitialize is None:
            message = f"memory of the kind simple-remote is not for {services.dialect.name}"
            raise ExecutorError(f"{message}, which has no service that deinitializes a part")
        self._deinitialize = deinitialize
        self.can_initialize_again = services.dialect.can_initialize_again

    async def reserve(self, size: int, limit: int = NO_ADDRESS_LIMIT) -> int:
        """Reserve memory."""
        return await reserve(self._services, size, limit)

    def prepare(self, address: int, size: int) -> memoryview:  # noqa: ARG002 - part of the interface
        """A buffer of this process."""
        return working_memory(size)

    async def initialize(
        self,
        reservation: int,  # noqa: ARG002 - part of the interface
        segments: Sequence[MappedSegment],
        actions: Sequence[AllocActionCallPair],
    ) -> int:
        """Send content and actions."""
        memory = self._services.dialect.memory
        key = await self._services.call(memory.initialize, finalize_request(segments, actions))
        return segments[0].address if key is None else key

    async def deinitialize(self, keys: Sequence[int]) -> None:
        """Run the deallocate actions."""
        await self._services.call(self._deinitialize, keys)

    async def release(self, reservations: Sequence[int]) -> None:
        """Free reservations."""
        await self._services.call(self._services.dialect.memory.release, reservations)


class SharedMemoryMapper(_ServiceMapper):
    """Memory that both processes map: writable here, and as linked in the executor.

    No byte of content crosses the wire, and no page is ever writable and executable in one process.

    Args:
        services: the executor's services.
        page_size: its page size in bytes.
        given: the only memory there is, if the executor was started with it.
        pid: its process, if that is on this machine.
    """

    is_shared = True

    def __init__(
        self,
        services: Services,
        page_size: int,
        given: SharedMemory | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(services, page_size)
        self._pid = pid
        self._may_have_left_files = False
        self._memory = services.dialect.shared_memory
        self._given = given
        # In order of address.
        self._addresses: list[int] = []
        self._maps: dict[int, SharedMemory] = {}
        # An executor may be stopped by one thread while another one links.
        self._lock = threading.Lock()
        self._is_closed = False

    async def reserve(self, size: int, limit: int = NO_ADDRESS_LIMIT) -> int:
        """Reserve memory, and map it here."""
        memory = self._memory
        try:
            address, name = await reserve_by(
                self._services, memory.reserve, memory.reserve_below, size, limit
            )
            check_reservation(address, size)
            self._check_apart(address, size)
        except JITLinkError:
            self._may_have_left_files = True
            raise
        try:
            mapped = self._shared_memory(name, size)
        except (OSError, OverflowError, ValueError) as error:
            await self._services.call(self._memory.release, [address])
            message = f"cannot map {size:#x} bytes of shared memory: {error}"
            raise AllocationError(message, size=size) from error
        with self._lock:
            self._check_open(mapped)
            self._maps[address] = mapped
            insort(self._addresses, address)
        return address

    def _shared_memory(self, name: str, size: int) -> SharedMemory:
        given = self._given
        if name or given is None:
            return named_memory(name, size)
        if size > given.size:
            raise ValueError(f"the executor was given {given.size:#x} bytes")
        self._given = None
        return given

    def _check_apart(self, address: int, size: int) -> None:
        """Check that the executor has not reserved memory twice.

        Raises:
            ProtocolError: it has.
        """
        with self._lock:
            place = bisect_right(self._addresses, address)
            for other in self._addresses[max(place - 1, 0) : place + 1]:
                if other < address + size and address < other + self._maps[other].size:
                    message = f"the executor has reserved memory at {address:#x} a second time"
                    raise ProtocolError(message)

    def _check_open(self, memory: SharedMemory | None = None) -> None:
        """Raise the error of the connection's end if all is unmapped; `memory` is unmapped, too."""
        if self._is_closed:
            if memory is not None:
                memory.close()
            self._services.connection.check_open()
            raise ExecutorDisconnectedError("the executor was stopped")

    def prepare(self, address: int, size: int) -> memoryview:
        """The memory that this process maps."""
        with self._lock:
            self._check_open()
            start = self._reservation_of(address, size)
            return self._maps[start].prepare(address - start, size)

    def view(self, address: int, size: int) -> memoryview:
        """The same, with the content that it has."""
        with self._lock:
            self._check_open()
            start = self._reservation_of(address, size)
            return self._maps[start].view(address - start, size)

    def _reservation_of(self, address: int, size: int) -> int:
        """The address of the reservation that contains a range.

        Raises:
            AllocationError: none does.
        """
        index = bisect_right(self._addresses, address) - 1
        start = self._addresses[index] if index >= 0 else None
        if start is None or address + size > start + self._maps[start].size:
            raise not_writable(address, size)
        return start

    async def initialize(
        self,
        reservation: int,
        segments: Sequence[MappedSegment],
        actions: Sequence[AllocActionCallPair],
    ) -> int:
        """Have the executor protect the pages and run the actions."""
        requests = [
            SharedSegmentFinalizeRequest(group_of(each), each.address, each.size)
            for each in segments
        ]
        request = SharedFinalizeRequest(requests, list(actions))
        with self._lock:
            self._check_open()
            for each in segments:
                self._maps[reservation].withdraw(each.address - reservation, each.size)
        return await self._services.call(self._memory.initialize, reservation, request)

    def discard(self, address: int, size: int) -> None:
        """Give pages back to the system."""
        with self._lock:
            if not self._is_closed:
                start = self._reservation_of(address, size)
                self._maps[start].discard(address - start, size)

    async def deinitialize(self, keys: Sequence[int]) -> None:
        """Run the deallocate actions."""
        await self._services.call(self._memory.deinitialize, keys)

    async def release(self, reservations: Sequence[int]) -> None:
        """Unmap reservations here and there."""
        with self._lock:
            self._check_open()
            for address in reservations:
                self._addresses.remove(address)
                self._maps.pop(address).close()
        await self._services.call(self._memory.release, reservations)

    def close(self) -> None:
        """Unmap all, and remove the files of reservations that have failed."""
        with self._lock:
            self._is_closed = True
            self._addresses.clear()
            while self._maps:
                self._maps.popitem()[1].close()
        if self._may_have_left_files and self._pid is not None:
            remove_files(self._pid)
        if self._given is not None:
            self._given.close()
            self._given = None
