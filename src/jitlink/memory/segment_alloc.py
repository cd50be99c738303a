"""SimpleSegmentAlloc: memory for code that is generated without a link graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jitlink.errors import AllocationError
from jitlink.graph import Block, LinkGraph, MemLifetime, MemProt
from jitlink.memory.manager import (
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
)


class AllocGroup(NamedTuple):
    """The protection and lifetime of a segment."""

    prot: MemProt
    lifetime: MemLifetime = MemLifetime.STANDARD


class SegmentRequest(NamedTuple):
    """Size and alignment of a requested segment, in bytes."""

    size: int
    alignment: int = 1


class SegmentInfo(NamedTuple):
    """Location of a segment.

    Attributes:
        address: its address in the executor.
        working_memory: where its bytes are written before finalization; initially zero.
    """

    address: int
    working_memory: memoryview


class SimpleSegmentAlloc:
    """Raw segments in flight, allocated by `create`.

    Exactly one of `finalize` and `abandon` is awaited, once. Allocation actions may be added
    to `graph` before that.

    Attributes:
        graph: a graph with one section and one block for each segment.
    """

    def __init__(
        self, graph: LinkGraph, blocks: Mapping[AllocGroup, Block], alloc: InFlightAlloc
    ) -> None:
        self.graph = graph
        self._blocks = blocks
        self._alloc = alloc

    @classmethod
    async def create(
        cls,
        manager: JITLinkMemoryManager,
        dylib: JITLinkDylib | None,
        segments: Mapping[AllocGroup, SegmentRequest],
        *,
        triple: str = "unknown",
    ) -> SimpleSegmentAlloc:
        """Allocate segments.

        Args:
            manager: the memory manager.
            dylib: the library that the memory is for.
            segments: requests by protection and lifetime, which must not be NO_ALLOC.
            triple: the executor's target triple.

        Raises:
            AllocationError: the memory cannot be allocated.
            GraphError: an alignment is no power of two.
        """
        graph = LinkGraph("segments", triple)
        blocks = {}
        for group, (size, alignment) in segments.items():
            section = graph.create_section(f"{group.prot} {group.lifetime}", *group)
            try:
                blocks[group] = graph.create_mutable_content_block(
                    section, size, alignment=alignment
                )
            except (MemoryError, OverflowError) as error:
                raise AllocationError(f"cannot allocate {size:#x} bytes", size=size) from error
        return cls(graph, blocks, await manager.allocate(dylib, graph))

    def segment_info(self, group: AllocGroup) -> SegmentInfo:
        """Location of the segment of a protection and lifetime.

        Raises:
            KeyError: none was requested.
        """
        block = self._blocks[group]
        return SegmentInfo(block.address, block.already_mutable_content)

    async def finalize(self) -> FinalizedAlloc:
        """Apply protections and run the finalize actions, as `InFlightAlloc.finalize`."""
        return await self._alloc.finalize()

    async def abandon(self) -> None:
        """Free the memory, as `InFlightAlloc.abandon`."""
        await self._alloc.abandon()
