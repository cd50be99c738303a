"""Requests to the memory services of an executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor.remote.dialects import Service
from jitlink.executor.remote.errors import ExecutorDisconnectedError, ProtocolError
from jitlink.executor.remote.services import Services
from jitlink.graph import MemLifetime, MemProt
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.mapper import MappedSegment
from jitlink.sps import AllocActionCallPair
from jitlink.sps.services import FinalizeRequest, RemoteAllocGroup, SegmentFinalizeRequest

T = TypeVar("T")
_GROUP_OF_BIT = {
    MemProt.READ: RemoteAllocGroup.READ,
    MemProt.WRITE: RemoteAllocGroup.WRITE,
    MemProt.EXEC: RemoteAllocGroup.EXEC,
}


def group_of(segment: MappedSegment) -> int:
    """Protection and lifetime of a segment, as a `RemoteAllocGroup`."""
    group = RemoteAllocGroup(0)
    for prot, bit in _GROUP_OF_BIT.items():
        if segment.prot & prot:
            group |= bit
    if segment.lifetime is MemLifetime.FINALIZE:
        group |= RemoteAllocGroup.FINALIZE
    return int(group)


def finalize_request(
    segments: Sequence[MappedSegment], actions: Sequence[AllocActionCallPair]
) -> FinalizeRequest:
    """A request with the content of segments."""
    requests = [
        SegmentFinalizeRequest(group_of(each), each.address, each.size, each.content)
        for each in segments
    ]
    return FinalizeRequest(requests, list(actions))


async def reserve(services: Services, size: int, limit: int = NO_ADDRESS_LIMIT) -> int:
    """Reserve memory in the executor, and return its address; see `reserve_by`."""
    memory = services.dialect.memory
    address = await reserve_by(services, memory.reserve, memory.reserve_below, size, limit)
    check_reservation(address, size)
    return address


def check_reservation(address: int, size: int) -> None:
    """Check where an executor says that it has reserved memory.

    Raises:
        ProtocolError: no memory can be there.
    """
    if not address or address + size > 1 << 64:
        raise ProtocolError(f"the executor has reserved {size:#x} bytes at {address:#x}")


async def reserve_by(
    services: Services,
    anywhere: Service[T],
    below: Service[T] | None,
    size: int,
    limit: int,
) -> T:
    """Reserve memory in the executor, and return what the service does.

    Args:
        services: the executor's services.
        anywhere: the one that reserves at any address.
        below: the one that reserves below an address, if the executor has it.
        size: in bytes.
        limit: the memory is to end at or below this address. The caller checks that: executors
            that cannot reserve below an address reserve anywhere.

    Raises:
        AllocationError: there is not so much.
        ExecutorDisconnectedError: the executor is gone.
    """
    try:
        if limit < NO_ADDRESS_LIMIT and below is not None:
            return await services.call(below, size, limit)
        return await services.call(anywhere, size)
    except (ExecutorDisconnectedError, ProtocolError):
        raise
    except ExecutorError as error:
        where = f" below {limit:#x}" if limit < NO_ADDRESS_LIMIT else ""
        message = f"the executor cannot reserve {size:#x} bytes{where}: {error}"
        raise AllocationError(message, size=size) from error


def working_memory(size: int) -> memoryview:
    """Working memory of this process, all zeros.

    Raises:
        AllocationError: there is not so much.
    """
    try:
        return memoryview(bytearray(size))
    except (MemoryError, OverflowError) as error:
        raise AllocationError(f"cannot allocate {size:#x} bytes: {error}", size=size) from error
