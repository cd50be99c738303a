"""The slab manager, by its conformance and by where it puts things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jitlink.errors import AllocationError
from jitlink.graph import AllocActionPair, LinkGraph, WrapperCall
from jitlink.memory import FinalizedAlloc, InProcessMemoryManager, SlabMemoryManager, mapping
from tests.memory.conformance import MemoryManagerConformance, Ranges
from tests.memory.graphs import (
    READ,
    accessible,
    add_section,
    check_blocks,
    contents_of,
    drive,
    empty_graph,
    small_graph,
    state,
)

# No process of this system has memory there.
NOWHERE = 0xFFFF_8000_0000_0000


@pytest.fixture
def manager() -> Iterator[SlabMemoryManager]:
    made = SlabMemoryManager(1 << 20)
    yield made
    made.close()


@pytest.fixture
def ranges(manager: SlabMemoryManager) -> Ranges:
    return lambda: [(manager.address, manager.address + manager.size)]


class TestSlab(MemoryManagerConformance):
    """All of the conformance suite."""


class TestSlabAtAnAddress(MemoryManagerConformance):
    """The same at an address that happens to be free."""

    @pytest.fixture
    def manager(self) -> Iterator[SlabMemoryManager]:
        address = mapping.reserve(1 << 20)
        assert address is not None
        mapping.release(address, 1 << 20)
        made = SlabMemoryManager(1 << 20, address)
        assert (made.address, made.is_executable_in_place) == (address, True)
        yield made
        made.close()


class TestSlabOfLargePages(MemoryManagerConformance):
    """The same with pages larger than the process's own."""

    @pytest.fixture
    def manager(self) -> Iterator[SlabMemoryManager]:
        made = SlabMemoryManager(1 << 20, page_size=1 << 16)
        assert (made.address % (1 << 16), made.is_executable_in_place) == (0, True)
        yield made
        made.close()


def link(manager: InProcessMemoryManager, graph: LinkGraph) -> FinalizedAlloc:
    return drive(drive(manager.allocate(None, graph)).finalize())


def addresses(graph: LinkGraph) -> list[int]:
    return [block.address for block in graph.blocks]


@pytest.mark.parametrize(("page_size", "step"), [(None, 0x1000), (4096, 0x1000), (65536, 0x10000)])
def test_segments_follow_one_another(page_size: int | None, step: int) -> None:
    """As llvm-jitlink places them: constants, variables, code, and the next object after that."""
    manager = SlabMemoryManager(1 << 20, NOWHERE, page_size)
    first, second = small_graph(), small_graph()
    allocs = [link(manager, first), link(manager, second)]
    pages = -(-5032 // step)
    code = (1 + pages) * step
    expected = [code, 0, step, step + 32]
    assert addresses(first) == [NOWHERE + offset for offset in expected]
    assert addresses(second) == [NOWHERE + code + step + offset for offset in expected]
    drive(manager.deallocate(allocs))
    third = small_graph()
    allocs = [link(manager, third)]
    assert addresses(third) == addresses(first)
    drive(manager.deallocate(allocs))
    manager.close()


@pytest.mark.parametrize(
    ("address", "page_size"), [(NOWHERE, None), (None, 1), (None, 64), (0, None)]
)
def test_slab_that_is_only_looked_at(address: int | None, page_size: int | None) -> None:
    """Contents are all there, but protections and actions would mean nothing."""
    manager = SlabMemoryManager(1 << 16, address, page_size)
    assert not manager.is_executable_in_place
    assert address in {None, manager.address}
    for _ in range(2):
        graph = small_graph()
        graph.alloc_actions = [AllocActionPair(WrapperCall(1), WrapperCall(1))]
        contents = contents_of(graph)
        finalized = link(manager, graph)
        check_blocks(graph, contents)
        for block in graph.blocks:
            assert block.address >= manager.address
            reference = int(graph.block_table.content[block.row])
            if not block.is_zero_fill:
                written = block.size if manager.page_size < 100 else 100
                graph.contents.view(reference, written)[:] = b"\xff" * written
        drive(manager.deallocate([finalized]))
    # What was written over is zero again between the blocks of the next object.
    graph = empty_graph()
    section = add_section(graph, READ)
    first = graph.create_content_block(section, b"a")
    graph.create_content_block(section, b"b", alignment=64)
    alloc = drive(manager.allocate(None, graph))
    memory = graph.contents.view(int(graph.block_table.content[first.row]), 65)
    assert bytes(memory) == b"a" + bytes(63) + b"b"
    drive(alloc.abandon())
    manager.close()


def test_slab_where_something_else_is() -> None:
    taken = mapping.reserve(1 << 16)
    assert taken is not None
    manager = SlabMemoryManager(1 << 16, taken)
    assert (manager.address, manager.is_executable_in_place) == (taken, False)
    graph = small_graph()
    drive(manager.deallocate([link(manager, graph)]))
    assert accessible([(taken, taken + (1 << 16))]) == []
    manager.close()
    mapping.release(taken, 1 << 16)


def test_out_of_room() -> None:
    manager = SlabMemoryManager(5 << 12)
    first, second = small_graph(), small_graph()
    finalized = link(manager, first)
    before = state(second)
    with pytest.raises(AllocationError) as caught:
        link(manager, second)
    assert caught.value.size == 0x2000
    assert str(caught.value) == (
        f"the slab of 0x5000 bytes at {manager.address:#x} has no room for a segment of 0x2000 "
        "bytes of unnamed: 0x1000 bytes are free"
    )
    assert state(second) == before
    drive(manager.deallocate([finalized]))
    drive(manager.deallocate([link(manager, second)]))
    manager.close()


def test_slab_that_is_no_whole_number_of_pages() -> None:
    manager = SlabMemoryManager(5000)
    graph = empty_graph()
    graph.create_content_block(add_section(graph, READ), b"x")
    finalized = link(manager, graph)
    with pytest.raises(AllocationError, match="0x388 bytes are free"):
        link(manager, small_graph())
    drive(manager.deallocate([finalized]))
    manager.close()


def test_address_limit() -> None:
    manager = SlabMemoryManager(1 << 20, NOWHERE)
    graph = small_graph()
    graph.address_limit = NOWHERE + 0x2000
    with pytest.raises(AllocationError, match="below 0xffff800000002000 of unnamed"):
        link(manager, graph)
    graph.address_limit = NOWHERE + 0x4000
    drive(manager.deallocate([link(manager, graph)]))
    manager.close()


@pytest.mark.parametrize(
    ("size", "address", "page_size", "message"),
    [
        (0, None, None, "0 bytes is too small"),
        (-1, None, None, "-1 bytes is too small"),
        (4096, None, 0, "page size 0 is not a power of two"),
        (4096, None, 1000, "page size 1000 is not a power of two"),
        (4096, 0x123450000010, None, "0x123450000010 is not a multiple of 0x1000"),
    ],
)
def test_wrong_arguments(
    size: int, address: int | None, page_size: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SlabMemoryManager(size, address, page_size)


@pytest.mark.parametrize(("size", "address"), [(1 << 60, None), (8192, (1 << 64) - 4096)])
def test_impossible_slab(size: int, address: int | None) -> None:
    with pytest.raises(AllocationError, match="no room for a slab") as caught:
        SlabMemoryManager(size, address)
    assert caught.value.size == size
