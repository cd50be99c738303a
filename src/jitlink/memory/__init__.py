"""Memory in the executor: layout, memory managers, allocation actions (layer 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import lazy_imports
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

if TYPE_CHECKING:
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

# Imported on first use: most links need none of them.
_HOMES = {
    "AllocGroup": "jitlink.memory.segment_alloc",
    "SegmentInfo": "jitlink.memory.segment_alloc",
    "SegmentRequest": "jitlink.memory.segment_alloc",
    "SimpleSegmentAlloc": "jitlink.memory.segment_alloc",
    "SlabMemoryManager": "jitlink.memory.slab",
}

__getattr__ = lazy_imports(__name__, _HOMES)
