"""The memory map of an emulated machine: regions of memory, and devices.

What is linked goes to the first region that may hold it: code to an executable one, constants to a
readable one that cannot be written if there is one, variables to a writable one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from jitlink.errors import ExecutorError
from jitlink.memory.regions import MemoryRegion

PAGE_SIZE = 0x1000
"""Unit of protections and of addresses of memory, in bytes."""

ReadDevice = Callable[[int, int], int]
"""Takes the offset in a device and the size in bytes of a read; returns the value."""
WriteDevice = Callable[[int, int, int], None]
"""Takes the offset in a device, the size in bytes and the value of a write."""


class Device(NamedTuple):
    """Registers that code accesses like memory, and Python functions implement.

    Attributes:
        name: its name, for messages.
        start: its first address.
        size: its size in bytes.
        read: called for each read; without it a read is a fault.
        write: called for each write; without it a write is a fault.
    """

    name: str
    start: int
    size: int
    read: ReadDevice | None = None
    write: WriteDevice | None = None

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.start + self.size


DEFAULT_MEMORY = MemoryRegion("memory", 0x1000_0000, 0x4000_0000, "rwx")
"""The memory of a machine that nothing is said about; only what is allocated of it exists."""


def check_map(
    regions: Sequence[MemoryRegion], devices: Sequence[Device], pointer_size: int
) -> None:
    """Check that a memory map is possible.

    Raises:
        ValueError: something in it overlaps, is not aligned or is beyond the address space.
    """
    limit = 1 << 8 * pointer_size
    for region in regions:
        if region.load_region:
            raise ValueError(f"{_place(region)} has a load region: no start-up code copies from it")
        if region.start % PAGE_SIZE or region.size % PAGE_SIZE:
            raise ValueError(f"{_place(region)} is not aligned to {PAGE_SIZE} bytes")
    places: list[MemoryRegion | Device] = [*regions, *devices]
    for each in places:
        if each.start < 0 or each.size <= 0 or each.end > limit:
            raise ValueError(f"{_place(each)} is not in an address space of {limit:#x} bytes")
    _check_apart(regions)
    _check_apart(devices)
    # A device takes whole pages, which other devices may share.
    for device in devices:
        start, end = device_pages(device)
        for region in regions:
            if start < region.end and region.start < end:
                raise ValueError(f"pages of {_place(device)} are in {_place(region)}")


def _check_apart(several: Sequence[MemoryRegion] | Sequence[Device]) -> None:
    places: list[MemoryRegion | Device] = list(several)
    places.sort(key=lambda each: each.start)
    for left, right in pairwise(places):
        if right.start < left.end:
            raise ValueError(f"{_place(left)} and {_place(right)} overlap")


def _place(each: MemoryRegion | Device) -> str:
    return f"{each.name} at {each.start:#x}, of {each.size:#x} bytes,"


def device_pages(device: Device) -> tuple[int, int]:
    """The bounds of the pages that a device is in."""
    start = device.start // PAGE_SIZE * PAGE_SIZE
    return start, -(-device.end // PAGE_SIZE) * PAGE_SIZE


def find_gap(
    regions: Sequence[MemoryRegion],
    devices: Sequence[Device],
    size: int,
    wanted: int | None,
    pointer_size: int,
) -> int:
    """An address where `size` bytes of the address space are not in the map, below 2 GiB.

    Args:
        regions: the regions of the map.
        devices: its devices.
        size: in bytes, a power of two.
        wanted: the address, if it may be no other.
        pointer_size: bytes of a pointer.

    Raises:
        ValueError: `wanted` is not aligned, in the map, or beyond the lower half of 64 bits or the
            32 bits that there are.
        ExecutorError: there is none.
    """
    taken = [(each.start, each.end) for each in regions] + [device_pages(d) for d in devices]

    def is_free(address: int) -> bool:
        return all(end <= address or start >= address + size for start, end in taken)

    if wanted is not None:
        limit = 1 << min(8 * pointer_size, 63)
        if not 0 < wanted <= limit - size or wanted % PAGE_SIZE or not is_free(wanted):
            raise ValueError(f"{size:#x} bytes at {wanted:#x} are not beside the memory map")
        return wanted
    # Only where something begins can there be another gap than at the top.
    places = [0x8000_0000 - size, *(start // size * size - size for start, _ in taken)]
    found = [place for place in places if 0 < place <= places[0] and is_free(place)]
    if not found:
        raise ExecutorError(f"the memory map has no {size:#x} free addresses below 2 GiB")
    return max(found)
