"""Memory in the executor: layout, memory managers, allocation actions (layer 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

if TYPE_CHECKING:
    from jitlink.memory.address_space import AddressSpace as AddressSpace
    from jitlink.memory.in_process import InProcessMemoryManager as InProcessMemoryManager
    from jitlink.memory.layout import BasicLayout as BasicLayout
    from jitlink.memory.layout import Segment as Segment
    from jitlink.memory.manager import DeallocationError as DeallocationError
    from jitlink.memory.manager import FinalizedAlloc as FinalizedAlloc
    from jitlink.memory.manager import InFlightAlloc as InFlightAlloc
    from jitlink.memory.manager import JITLinkDylib as JITLinkDylib
    from jitlink.memory.manager import JITLinkMemoryManager as JITLinkMemoryManager
    from jitlink.memory.regions import MemoryRegion as MemoryRegion
    from jitlink.memory.regions import PlacedSegment as PlacedSegment
    from jitlink.memory.regions import RegionMemoryManager as RegionMemoryManager
    from jitlink.memory.segment_alloc import AllocGroup as AllocGroup
    from jitlink.memory.segment_alloc import SegmentInfo as SegmentInfo
    from jitlink.memory.segment_alloc import SegmentRequest as SegmentRequest
    from jitlink.memory.segment_alloc import SimpleSegmentAlloc as SimpleSegmentAlloc
    from jitlink.memory.slab import SlabMemoryManager as SlabMemoryManager
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.memory.address_space": ("AddressSpace",),
            "jitlink.memory.in_process": ("InProcessMemoryManager",),
            "jitlink.memory.layout": ("BasicLayout", "Segment"),
            "jitlink.memory.manager": (
                "DeallocationError",
                "FinalizedAlloc",
                "InFlightAlloc",
                "JITLinkDylib",
                "JITLinkMemoryManager",
            ),
            "jitlink.memory.regions": ("MemoryRegion", "PlacedSegment", "RegionMemoryManager"),
            "jitlink.memory.segment_alloc": (
                "AllocGroup",
                "SegmentInfo",
                "SegmentRequest",
                "SimpleSegmentAlloc",
            ),
            "jitlink.memory.slab": ("SlabMemoryManager",),
        },
    )
