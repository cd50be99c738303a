"""SimpleSegmentAlloc: memory for code that builds its bytes without a link graph."""

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
    """What memory of one segment has in common."""

    prot: MemProt
    lifetime: MemLifetime = MemLifetime.STANDARD


class SegmentRequest(NamedTuple):
    """How much memory a segment is to have, in bytes, and the alignment of its start."""

    size: int
    alignment: int = 1


class SegmentInfo(NamedTuple):
    """Where a segment is.

    Attributes:
        address: its address in the executor.
        working_memory: what to write its bytes to until it is finalized; zero at first.
    """

    address: int
    working_memory: memoryview


class SimpleSegmentAlloc:
    """Raw segments in flight; `create` makes one.

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
            manager: where the memory is to come from.
            dylib: the library that the memory is for.
            segments: what is wanted for each protection and lifetime; not NO_ALLOC.
            triple: the executor's target triple.

        Raises:
            AllocationError: there is no such memory.
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
                raise AllocationError(f"no room for {size:#x} bytes", size=size) from error
        return cls(graph, blocks, await manager.allocate(dylib, graph))

    def segment_info(self, group: AllocGroup) -> SegmentInfo:
        """Where the segment of a protection and lifetime is.

        Raises:
            KeyError: none was asked for.
        """
        block = self._blocks[group]
        return SegmentInfo(block.address, block.already_mutable_content)

    async def finalize(self) -> FinalizedAlloc:
        """Apply protections and run the finalize actions, as `InFlightAlloc.finalize`."""
        return await self._alloc.finalize()

    async def abandon(self) -> None:
        """Free the memory, as `InFlightAlloc.abandon`."""
        await self._alloc.abandon()
