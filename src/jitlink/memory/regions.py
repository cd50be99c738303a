"""Memory that this process holds for a machine with regions of memory at fixed addresses.

Boards have flash and RAM at addresses of their own, and no memory management unit: a region is a
range of addresses with a protection. A segment is placed in the first region that allows its
protection and has room, as tightly as its alignment permits. A region may name sections instead; it
then holds these alone, whatever other regions allow, such as a vector table at the address of the
reset vector.

Data that code changes must be in RAM, which has no contents when a board starts. A region may have
a *load region*, such as flash, where its contents are stored, and start-up code copies them from
there: GNU ld's ``AT>``. Addresses in linked code are those of the first region.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

from jitlink.errors import AllocationError
from jitlink.graph import LinkGraph, MemLifetime, MemProt
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.free_list import FreeList
from jitlink.memory.layout import MOST_NUMBERS, BasicLayout, Segment, check_protections
from jitlink.memory.manager import (
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
    take_finalized,
)
from jitlink.memory.tls import END_ADDRESS, FIRST_ADDRESS

_LETTERS = {"r": MemProt.READ, "w": MemProt.WRITE, "x": MemProt.EXEC}


def protection(letters: str) -> MemProt:
    """The protection that letters stand for, as in ``rx``.

    Raises:
        ValueError: one is none of ``r``, ``w`` and ``x``.
    """
    result = MemProt.NONE
    for letter in letters:
        if letter not in _LETTERS:
            raise ValueError(f"{letter!r} in protection {letters!r} is none of r, w and x")
        result |= _LETTERS[letter]
    return result


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """A range of addresses of a machine.

    Attributes:
        name: its name, for messages and files.
        start: its first address.
        size: its size in bytes.
        access: what is allowed there, as letters: ``rx`` for flash, ``rw`` for RAM.
        sections: patterns (`fnmatch`) of the names of the sections that it is for; without any, it
            is for all sections that no other region names.
        load_region: name of the region where its contents are stored; empty for itself.

    Raises:
        ValueError: the name is empty, the range is empty, ends above 64 bits or has addresses that
            stand for thread-local variables, or the letters are no protection.
        TypeError: the sections are one string.
    """

    name: str
    start: int
    size: int
    access: str = "rwx"
    sections: Sequence[str] = ()
    load_region: str = ""

    def __post_init__(self) -> None:
        if not self.name or "\0" in self.name:
            raise ValueError(f"{self.name!r} is no name of a region")
        if self.size <= 0 or self.start < 0 or self.end > 1 << 64:
            raise ValueError(f"region {self.name} of {self.size:#x} bytes at {self.start:#x}")
        if self.start < END_ADDRESS and self.end > FIRST_ADDRESS:
            raise ValueError(
                f"region {self.name} has addresses from {FIRST_ADDRESS:#x} to {END_ADDRESS:#x}, "
                "which stand for thread-local variables while code is linked"
            )
        if isinstance(self.sections, str):
            raise TypeError(f"the sections of region {self.name} are a string, not several")
        protection(self.access)

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.start + self.size

    @property
    def prot(self) -> MemProt:
        """What is allowed there."""
        return protection(self.access)

    def names(self, section: str) -> bool:
        """Whether it is for the section of a name."""
        return any(fnmatchcase(section, pattern) for pattern in self.sections)


class SectionRegions:
    """Those regions of a machine that name sections, which are segments of their own.

    Args:
        regions: all regions of the machine.

    Attributes:
        indices: which of the regions name sections; numbers of segments count them from one.

    Raises:
        ValueError: more of them name sections than segments can be told apart.
    """

    def __init__(self, regions: Sequence[MemoryRegion]) -> None:
        self.indices = [index for index, each in enumerate(regions) if each.sections]
        self._named = [regions[index] for index in self.indices]
        if len(self._named) > MOST_NUMBERS:
            raise ValueError(
                f"{len(self._named)} regions name sections; the most is {MOST_NUMBERS}"
            )

    def divide(self, graph: LinkGraph) -> None:
        """Give the sections that regions name segments of their own."""
        if self._named:
            graph.segment_number = self._number_of

    def _number_of(self, section: str) -> int:
        """The number of the region that names a section; 0 if none does."""
        return next((n for n, each in enumerate(self._named, 1) if each.names(section)), 0)


class PlacedSegment(NamedTuple):
    """A segment of linked code in a region.

    Attributes:
        region: the region.
        address: its address.
        load_address: where its contents are stored; the address, if not elsewhere.
        content: its contents, which are at its beginning.
        size: its size in bytes, with the zeros behind the contents.
        prot: its protection.
    """

    region: MemoryRegion
    address: int
    load_address: int
    content: memoryview
    size: int
    prot: MemProt


class _Region:
    """A region, and what is free of it."""

    def __init__(self, region: MemoryRegion) -> None:
        self.region = region
        self.free = FreeList(region.start, region.end)


class _Placement(NamedTuple):
    """What a segment occupies: pairs of a region and a range in it, its own first."""

    segment: Segment
    ranges: tuple[tuple[_Region, int, int], ...]

    def placed(self) -> PlacedSegment:
        """The segment, with its contents."""
        segment, (home, address, _) = self.segment, self.ranges[0]
        load_address = self.ranges[-1][1]
        content = segment.working_memory
        prot, size = segment.prot, segment.size
        return PlacedSegment(home.region, address, load_address, content, size, prot)


class RegionMemoryManager(JITLinkMemoryManager):
    """Places segments in the regions of a machine; their contents are in this process.

    Args:
        regions: the regions, in the order in which they are filled.

    Raises:
        ValueError: regions overlap, two have one name, one has a load region that does not exist or
            is itself, or more of them name sections than segments can be told apart.
    """

    def __init__(self, regions: Iterable[MemoryRegion]) -> None:
        self._regions = [_Region(region) for region in regions]
        self._by_name = {each.region.name: each for each in self._regions}
        self._sections = SectionRegions(self.regions)
        _check([each.region for each in self._regions])
        self._lock = threading.Lock()
        self._in_flight: list[list[_Placement]] = []
        self._finalized: dict[int, list[_Placement]] = {}
        self._next_number = 1

    @property
    def regions(self) -> list[MemoryRegion]:
        """The regions."""
        return [each.region for each in self._regions]

    def segments(self, *, in_flight: bool = False) -> list[PlacedSegment]:
        """The segments of all finalized allocations, in order of address.

        Args:
            in_flight: whether those are wanted, too, whose contents are not finished.
        """
        with self._lock:
            lists = [*self._finalized.values(), *(self._in_flight if in_flight else ())]
            placements = [each for those in lists for each in those]
        return sorted((each.placed() for each in placements), key=lambda each: each.address)

    def divide(self, graph: LinkGraph) -> None:
        """Give the sections that regions name segments of their own."""
        self._sections.divide(graph)

    async def allocate(
        self,
        dylib: JITLinkDylib | None,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,
    ) -> InFlightAlloc:
        """Give the graph's blocks addresses in the regions, and memory in this process."""
        self.divide(graph)
        layout = BasicLayout(graph)
        check_protections(layout)
        placements: list[_Placement] = []
        try:
            placements.extend(self._place(segment, graph) for segment in layout.segments)
            layout.apply()
        except BaseException:
            self._free(placements)
            raise
        with self._lock:
            self._in_flight.append(placements)
        return _RegionAlloc(self, layout, placements)

    def _place(self, segment: Segment, graph: LinkGraph) -> _Placement:
        home, address = self._take(segment, graph)
        size = max(segment.size, 1)
        ranges = [(home, address, size)]
        segment.address = address
        segment.working_memory = memoryview(bytearray(segment.content_size))
        load_region = home.region.load_region
        if load_region and segment.content_size and segment.lifetime == MemLifetime.STANDARD:
            store, size = self._by_name[load_region], segment.content_size
            with self._lock:
                place = store.free.take(size, segment.alignment, NO_ADDRESS_LIMIT)
            if place is None:
                with self._lock:
                    home.free.put(address, address + ranges[0][2])
                raise _full([store], segment, size, graph)
            ranges.append((store, place, size))
        return _Placement(segment, tuple(ranges))

    def _take(self, segment: Segment, graph: LinkGraph) -> tuple[_Region, int]:
        """Take room for a segment from the first region that has it."""
        unnamed = [each for each in self._regions if not each.region.sections]
        named = self._sections.indices[segment.number - 1] if segment.number else None
        candidates = unnamed if named is None else [self._regions[named]]
        allowed = [each for each in candidates if not segment.prot & ~each.region.prot]
        if not allowed:
            where = ", ".join(f"{each.region.name} is {each.region.prot}" for each in candidates)
            raise AllocationError(
                f"in graph {graph.name}, no region is for a segment {segment.prot}: "
                f"{where or 'there is none'}",
                size=segment.size,
            )
        for each in allowed:
            with self._lock:
                size, limit = max(segment.size, 1), graph.address_limit
                address = each.free.take(size, segment.alignment, limit)
            if address is not None:
                return each, address
        raise _full(allowed, segment, segment.size, graph)

    def _free(self, placements: Iterable[_Placement]) -> None:
        with self._lock:
            for placement in placements:
                for region, address, size in placement.ranges:
                    region.free.put(address, address + size)

    def _land(self, placements: list[_Placement]) -> None:
        """Forget placements that are no longer in flight."""
        with self._lock:
            self._in_flight = [each for each in self._in_flight if each is not placements]

    def _register(self, placements: list[_Placement]) -> FinalizedAlloc:
        with self._lock:
            number, self._next_number = self._next_number, self._next_number + 1
            self._finalized[number] = placements
        return FinalizedAlloc(number)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Free the memory."""
        with self._lock:
            taken = take_finalized(self._finalized, allocs)
        for placements in taken:
            self._free(placements)


class _RegionAlloc(InFlightAlloc):
    """Memory in regions that can be written."""

    def __init__(
        self, manager: RegionMemoryManager, layout: BasicLayout, placements: list[_Placement]
    ) -> None:
        self._manager = manager
        self._layout = layout
        self._placements: list[_Placement] | None = placements

    def _take_placements(self) -> list[_Placement]:
        placements, self._placements = self._placements, None
        if placements is None:
            raise RuntimeError("the allocation was finalized or abandoned before")
        self._manager._land(placements)  # noqa: SLF001 - one class in two parts
        return placements

    async def finalize(self) -> FinalizedAlloc:
        """Free finalize-lifetime memory.

        Raises:
            AllocationError: the graph has allocation actions, which nothing can run.
        """
        placements = self._take_placements()
        if self._layout.graph.alloc_actions:
            self._layout.undo()
            self._manager._free(placements)  # noqa: SLF001
            raise AllocationError(
                f"graph {self._layout.graph.name} has code that is to run when it is placed, such "
                "as the resolver of an IFUNC, and nothing runs in a memory image"
            )
        kept: list[_Placement] = []
        dropped: list[_Placement] = []
        for each in placements:
            (kept if each.segment.lifetime == MemLifetime.STANDARD else dropped).append(each)
        self._manager._free(dropped)  # noqa: SLF001
        return self._manager._register(kept)  # noqa: SLF001

    async def abandon(self) -> None:
        """Free the memory, and restore the graph's blocks to their state before `allocate`."""
        placements = self._take_placements()
        self._layout.undo()
        self._manager._free(placements)  # noqa: SLF001


def _full(
    regions: Sequence[_Region], segment: Segment, size: int, graph: LinkGraph
) -> AllocationError:
    rooms = ", ".join(f"{each.region.name} has {each.free.size:#x} left" for each in regions)
    aligned = f" aligned to {segment.alignment:#x}" if segment.alignment > 1 else ""
    limited = graph.address_limit < NO_ADDRESS_LIMIT
    below = f" below {graph.address_limit:#x}" if limited else ""
    return AllocationError(
        f"in graph {graph.name}, no region has room for {size:#x} bytes{aligned}{below} of "
        f"segment {segment.prot}: {rooms}",
        size=size,
    )


def _check(regions: Sequence[MemoryRegion]) -> None:
    """Check that regions can be those of one machine."""
    names = [region.name for region in regions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two regions are named {twice}")
    ordered = sorted(regions, key=lambda region: region.start)
    for first, second in pairwise(ordered):
        if second.start < first.end:
            raise ValueError(
                f"region {second.name} at {second.start:#x} begins in region {first.name}, which "
                f"ends at {first.end:#x}"
            )
    for region in regions:
        if region.load_region == region.name:
            raise ValueError(f"region {region.name} is its own load region")
        if region.load_region and region.load_region not in names:
            raise ValueError(
                f"there is no region {region.load_region} for the contents of {region.name}"
            )
