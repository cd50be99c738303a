"""Memory in the executor: layout, memory managers, allocation actions (layer 2)."""

from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.memory.layout import BasicLayout, Segment
from jitlink.memory.manager import (
    DeallocationError,
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
)
from jitlink.memory.segment_alloc import (
    AllocGroup,
    SegmentInfo,
    SegmentRequest,
    SimpleSegmentAlloc,
)
from jitlink.memory.slab import SlabMemoryManager

__all__ = [
    "AddressSpace",
    "AllocGroup",
    "BasicLayout",
    "DeallocationError",
    "FinalizedAlloc",
    "InFlightAlloc",
    "InProcessMemoryManager",
    "JITLinkDylib",
    "JITLinkMemoryManager",
    "Segment",
    "SegmentInfo",
    "SegmentRequest",
    "SimpleSegmentAlloc",
    "SlabMemoryManager",
]
