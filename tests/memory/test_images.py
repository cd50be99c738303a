"""Memory of JITDylibs that are images: reservations of their own, and the segments that are listed.

The images are stand-ins, which reserve addresses and record what is listed; those that the dynamic
linker loads are tested with the executor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from jitlink.errors import AllocationError
from jitlink.graph import MemLifetime
from jitlink.memory import AddressSpace, InProcessMemoryManager, JITLinkDylib, mapping
from jitlink.memory.images import Image, Images, ImageSymbols
from jitlink.memory.pages import PageRange, PageRequest
from tests.memory.graphs import READ, READ_EXEC, READ_WRITE, accessible, drive, small_graph

PAGE = mapping.PAGE_SIZE
MEGABYTE = 1 << 20


class RecordingImage(Image):
    """An image whose segments are recorded: offset and size by index."""

    def __init__(self, start: int, size: int) -> None:
        self.start, self.size = start, size
        self.segments: dict[int, tuple[int, int]] = {}
        self.is_loaded = True

    def list_segment(self, index: int, offset: int, size: int) -> None:
        if size:
            self.segments[index] = offset, size
        else:
            self.segments.pop(index, None)

    def unload(self) -> None:
        assert self.is_loaded
        assert not self.segments
        self.is_loaded = False
        mapping.release(self.start, self.size)


class RecordingImages(Images):
    """Images that are recorded. `refusals`: how many loads are refused first."""

    exports = False

    def __init__(self, refusals: int = 0) -> None:
        super().__init__()
        self.loaded: list[RecordingImage] = []
        self.refusals = refusals
        self.requests: list[tuple[int, int]] = []

    def load(self, size: int, address: int) -> Image:
        self.requests.append((size, address))
        place = None if len(self.requests) <= self.refusals else mapping.reserve(size, address)
        if place is None:
            raise AllocationError("refused", size=size)
        self.loaded.append(RecordingImage(place, size))
        return self.loaded[-1]

    @property
    def current(self) -> list[RecordingImage]:
        """The images that are loaded; some are not because another place was better."""
        return [image for image in self.loaded if image.is_loaded]

    @property
    def bias(self) -> int:
        raise NotImplementedError

    def define(self, symbols: ImageSymbols) -> None:
        raise NotImplementedError

    def remove(self, symbols: ImageSymbols) -> None:
        raise NotImplementedError

    def open_library(self, path: bytes, mode: int) -> int:
        raise NotImplementedError


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    space = AddressSpace()
    yield space
    assert not any(reservation.used_size for reservation in space.reservations)
    space.close()


def visible(refusals: int = 0) -> tuple[JITLinkDylib, RecordingImages]:
    dylib, images = JITLinkDylib("visible"), RecordingImages(refusals)
    dylib.images = images
    return dylib, images


def request(size: int, prot: object = READ_WRITE, *, temporary: bool = False) -> PageRequest:
    lifetime = MemLifetime.FINALIZE if temporary else MemLifetime.STANDARD
    return PageRequest(size, PAGE, prot, lifetime)  # type: ignore[arg-type]


def allocate(space: AddressSpace, dylib: JITLinkDylib, *requests: PageRequest) -> list[PageRange]:
    return space.allocate(dylib, requests, 1 << 64)


def test_segments_grow_and_shrink_at_their_end(space: AddressSpace) -> None:
    dylib, images = visible()
    first = allocate(space, dylib, request(PAGE), request(2 * PAGE, READ_EXEC))
    (image,) = images.current
    part = image.size // 4 // PAGE * PAGE
    assert image.segments == {1: (part, 2 * PAGE), 2: (2 * part, PAGE)}
    assert first[0].address == image.start + 2 * part
    second = allocate(space, dylib, request(3 * PAGE))
    assert image.segments[2] == (2 * part, 4 * PAGE)
    # What is free in between stays listed, and readable.
    space.make_writable(first[0], PAGE)
    space.view(first[0].address, PAGE)[0] = 1
    assert space.free([first[0]]) == []
    assert image.segments[2] == (2 * part, 4 * PAGE)
    assert ctypes.string_at(first[0].address, PAGE) == bytes(PAGE)
    assert space.free(second) == []
    assert image.segments == {1: (part, 2 * PAGE)}
    assert space.free(first[1:]) == []
    assert images.current == []
    assert space.reservations == ()


def test_all_memory_of_an_image_is_readable(space: AddressSpace) -> None:
    dylib, images = visible()
    ranges = allocate(space, dylib, request(PAGE, READ))
    (image,) = images.current
    for offset in range(0, image.size - 8, MEGABYTE):
        assert ctypes.string_at(image.start + offset, 8) == bytes(8)
    space.free(ranges)


def test_temporary_memory_is_not_listed(space: AddressSpace) -> None:
    dylib, images = visible()
    temporary = allocate(space, dylib, request(PAGE, READ_EXEC, temporary=True), request(PAGE))
    (image,) = images.current
    assert set(image.segments) == {2}
    odd = allocate(space, dylib, request(PAGE, READ_EXEC | READ_WRITE))
    assert set(image.segments) == {2, 3}
    space.free(odd)
    assert set(image.segments) == {2}
    space.free(temporary)


def test_an_image_has_memory_of_one_jitdylib_only(space: AddressSpace) -> None:
    dylib, images = visible()
    other, others = visible()
    plain = JITLinkDylib("plain")
    ranges = [allocate(space, each, request(PAGE))[0] for each in (dylib, plain, other, dylib)]
    inside = [
        [image.start <= pages.address < image.start + image.size for pages in ranges]
        for image in (*images.current, *others.current)
    ]
    assert inside == [[True, False, False, True], [False, False, True, False]]
    assert len(images.current) == len(others.current) == 1
    space.free(ranges)


def test_a_full_image_is_followed_by_another(space: AddressSpace) -> None:
    dylib, images = visible()
    ranges = [allocate(space, dylib, request(6 * MEGABYTE))[0] for _ in range(6)]
    first, *others = images.current
    assert len(others) == 2
    # A segment has one protection, so memory of another one is not used.
    assert all(set(image.segments) == {2} for image in images.current)
    space.free(ranges[:2])
    assert images.current == others
    assert not first.is_loaded
    ranges = [*ranges[2:], *allocate(space, dylib, request(PAGE))]
    assert images.current == others
    space.free(ranges)


@pytest.mark.parametrize("size", [PAGE, 7 * MEGABYTE, 100 * MEGABYTE, 1 << 32])
def test_large_allocations_get_large_images(space: AddressSpace, size: int) -> None:
    dylib, images = visible()
    requests = [request(size, prot) for prot in (READ, READ_EXEC, READ_WRITE)]
    ranges = allocate(space, dylib, *requests)
    assert len(images.current) == 1
    assert images.requests[0][0] >= 4 * size
    space.free(ranges)


def test_an_image_is_as_small_as_the_addresses_require(space: AddressSpace) -> None:
    dylib, images = visible(refusals=4)
    ranges = allocate(space, dylib, request(20 * MEGABYTE))
    sizes = [size for size, _ in images.requests]
    assert sizes[-1] < sizes[0]
    assert images.current[0].size == sizes[-1]
    space.free(ranges)


def test_impossible_images(space: AddressSpace) -> None:
    dylib, images = visible(refusals=100)
    with pytest.raises(AllocationError, match="refused"):
        allocate(space, dylib, request(PAGE))
    assert images.current == []
    dylib, images = visible()
    with pytest.raises(AllocationError):
        allocate(space, dylib, request(1 << 60))
    assert images.current == []
    assert space.reservations == ()


def test_an_image_whose_memory_cannot_be_prepared_is_unloaded(
    space: AddressSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: int, size: int, protection: int = 0) -> None:  # noqa: ARG001
        raise AllocationError("refused", size=size)

    dylib, images = visible()
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "discard", refuse)
        with pytest.raises(AllocationError, match="refused"):
            allocate(space, dylib, request(PAGE))
    assert images.loaded
    assert images.current == []


def test_images_below_2_gib(space: AddressSpace) -> None:
    dylib, images = visible()
    (pages,) = space.allocate(dylib, [request(PAGE)], 1 << 31)
    assert pages.address + pages.size <= 1 << 31
    assert all(address for _, address in images.requests)
    space.free([pages])


def test_images_are_near_the_c_library(space: AddressSpace) -> None:
    made = [visible() for _ in range(4)]
    ranges = [allocate(space, dylib, request(PAGE))[0] for dylib, _ in made]
    for pages in ranges:
        assert abs(pages.address - mapping.library_address()) < 1 << 31
    space.free(ranges)


def test_a_link_that_is_abandoned_leaves_no_image(space: AddressSpace) -> None:
    dylib, images = visible()
    manager = InProcessMemoryManager(space)
    assert manager.supports_images
    alloc = drive(manager.allocate(dylib, small_graph()))
    assert len(images.current) == 1
    drive(alloc.abandon())
    assert images.current == []
    alloc = drive(manager.allocate(dylib, small_graph()))
    finalized = drive(alloc.finalize())
    (image,) = images.current
    assert image.segments
    listed = sorted((image.start + start, size) for start, size in image.segments.values())
    protections = [accessible([(start, start + size)]) for start, size in listed]
    assert [parts[0][2] for parts in protections] == ["r--", "r-x", "rw-"]
    drive(manager.deallocate([finalized]))
    assert not image.is_loaded
