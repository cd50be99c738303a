"""Mappers of an executor's memory: by shared memory, and by content that crosses the wire."""

from __future__ import annotations

import contextlib
import mmap
import os
from bisect import bisect_right
from collections.abc import Sequence

from jitlink.errors import AllocationError, ExecutorError, JITLinkError
from jitlink.executor.remote.errors import ProtocolError
from jitlink.executor.remote.memory_services import (
    check_reservation,
    finalize_request,
    group_of,
    reserve,
    reserve_by,
    working_memory,
)
from jitlink.executor.remote.services import Services
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.mapper import MappedSegment, MemoryMapper
from jitlink.sps import AllocActionCallPair
from jitlink.sps.services import SharedFinalizeRequest, SharedSegmentFinalizeRequest

_SHARED_MEMORY_DIRECTORY = "/dev/shm"
_NAME_PREFIX = "/jitlink_"
"""How names of shared memory begin in all executors: others belong to other programs."""


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
    """

    is_shared = True

    def __init__(self, services: Services, page_size: int, pid: int | None = None) -> None:
        super().__init__(services, page_size)
        self._pid = pid
        self._may_have_left_files = False
        self._memory = services.dialect.shared_memory
        # In order of address.
        self._addresses: list[int] = []
        self._maps: dict[int, _SharedMemory] = {}

    async def reserve(self, size: int, limit: int = NO_ADDRESS_LIMIT) -> int:
        """Reserve memory, and map it here."""
        memory = self._memory
        try:
            address, name = await reserve_by(
                self._services, memory.reserve, memory.reserve_below, size, limit
            )
        except JITLinkError:
            self._may_have_left_files = True
            raise
        check_reservation(address, size)
        place = bisect_right(self._addresses, address)
        for other in self._addresses[max(place - 1, 0) : place + 1]:
            if other < address + size and address < other + self._maps[other].size:
                message = f"the executor has reserved memory at {address:#x} a second time"
                raise ProtocolError(message)
        try:
            self._maps[address] = _SharedMemory(name, size)
        except (OSError, OverflowError, ValueError) as error:
            await self._services.call(self._memory.release, [address])
            message = f"cannot map {size:#x} bytes of shared memory: {error}"
            raise AllocationError(message, size=size) from error
        self._addresses.insert(place, address)
        return address

    def prepare(self, address: int, size: int) -> memoryview:
        """The memory that this process maps."""
        start = self._addresses[bisect_right(self._addresses, address) - 1]
        return self._maps[start].prepare(address - start, size)

    def view(self, address: int, size: int) -> memoryview:
        """The same, with the content that it has."""
        index = bisect_right(self._addresses, address) - 1
        start = self._addresses[index] if index >= 0 else 0
        if index < 0 or address + size > start + self._maps[start].size:
            return super().view(address, size)
        return self._maps[start].view(address - start, size)

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
        for each in segments:
            self._maps[reservation].withdraw(each.address - reservation, each.size)
        return await self._services.call(self._memory.initialize, reservation, request)

    def discard(self, address: int, size: int) -> None:
        """Give pages back to the system."""
        start = self._addresses[bisect_right(self._addresses, address) - 1]
        self._maps[start].discard(address - start, size)

    async def deinitialize(self, keys: Sequence[int]) -> None:
        """Run the deallocate actions."""
        await self._services.call(self._memory.deinitialize, keys)

    async def release(self, reservations: Sequence[int]) -> None:
        """Unmap reservations here and there."""
        for address in reservations:
            self._addresses.remove(address)
            self._maps.pop(address).close()
        await self._services.call(self._memory.release, reservations)

    def close(self) -> None:
        """Unmap all, and remove the files of reservations that have failed."""
        self._addresses.clear()
        while self._maps:
            self._maps.popitem()[1].close()
        if self._may_have_left_files and self._pid is not None:
            _remove_files(self._pid)


def _remove_files(pid: int) -> None:
    """Remove the files of shared memory of an executor that has ended.

    LLVM's executors leave those that they could not map, and each one that is ended before its
    controller knows the name.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(_SHARED_MEMORY_DIRECTORY):  # noqa: PTH208 - slow to import
            if name.startswith(f"{_NAME_PREFIX[1:]}{pid}_"):
                os.unlink(f"{_SHARED_MEMORY_DIRECTORY}/{name}")  # noqa: PTH108


class _SharedMemory:
    """A shared memory object, mapped readable and writable.

    Args:
        name: its name, which is removed.
        size: its size in bytes.

    Attributes:
        size: the same.

    Raises:
        OSError: it cannot be mapped.
        OverflowError: it is larger than an address space.
        ValueError: it is smaller than its size.
    """

    def __init__(self, name: str, size: int) -> None:
        if not name.startswith(_NAME_PREFIX) or "/" in name[1:] or "\0" in name:
            raise OSError(f"{name!r} is no name of an executor's shared memory")
        self.size = size
        path = _SHARED_MEMORY_DIRECTORY + name
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        finally:
            # Both processes have it; it is freed with the last of them, whatever happens.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
        try:
            # Refused by mmap if the object has fewer bytes.
            self._map = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            raise

    def prepare(self, offset: int, size: int) -> memoryview:
        """A range of it, all zeros; its pages exist, so that writing to them cannot fail."""
        try:
            os.posix_fallocate(self._file, offset, max(size, 1))
        except OSError as error:
            message = f"cannot allocate {size:#x} bytes of shared memory: {error.strerror}"
            raise AllocationError(message, size=size) from error
        return self.view(offset, size)

    def view(self, offset: int, size: int) -> memoryview:
        """A range of it, whose pages exist."""
        return memoryview(self._map)[offset : offset + size]

    def withdraw(self, offset: int, size: int) -> None:
        """Have pages count no longer as memory of this process, until they are used again."""
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_DONTNEED, offset, size)

    def discard(self, offset: int, size: int) -> None:
        """Free pages, which are zeros in both processes from now on."""
        try:
            self._map.madvise(mmap.MADV_REMOVE, offset, size)
        except OSError:
            # Not all kinds of file systems can do it.
            self.view(offset, size)[:] = bytes(size)

    def close(self) -> None:
        """Unmap it, unless a view of it is still in use; it is unmapped with the last one then."""
        os.close(self._file)
        try:
            self._map.close()
        except BufferError:
            del self._map
