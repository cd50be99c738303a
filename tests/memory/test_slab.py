"""The slab manager: conformance and addresses."""

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

# An address that no process of this system can use.
NOWHERE = 0xFFFF_8000_0000_0000


@pytest.fixture
def manager() -> Iterator[SlabMemoryManager]:
    slab = SlabMemoryManager(1 << 20)
    yield slab
    slab.close()


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
        slab = SlabMemoryManager(1 << 20, address)
        assert (slab.address, slab.is_executable_in_place) == (address, True)
        yield slab
        slab.close()


class TestSlabOfLargePages(MemoryManagerConformance):
    """The same with pages larger than the process's own."""

    @pytest.fixture
    def manager(self) -> Iterator[SlabMemoryManager]:
        slab = SlabMemoryManager(1 << 20, page_size=1 << 16)
        assert (slab.address % (1 << 16), slab.is_executable_in_place) == (0, True)
        yield slab
        slab.close()


def link(manager: InProcessMemoryManager, graph: LinkGraph) -> FinalizedAlloc:
    return drive(drive(manager.allocate(None, graph)).finalize())


def addresses(graph: LinkGraph) -> list[int]:
    return [block.address for block in graph.blocks]


@pytest.mark.parametrize(("page_size", "step"), [(None, 0x1000), (4096, 0x1000), (65536, 0x10000)])
def test_order_of_segments(page_size: int | None, step: int) -> None:
    """As in llvm-jitlink: constants, variables, code, then the next object."""
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
def test_slab_that_is_not_executable_in_place(address: int | None, page_size: int | None) -> None:
    """Contents are in place, but protections are not applied and actions not run."""
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
    # The padding between the blocks of the next object is zero again.
    graph = empty_graph()
    section = add_section(graph, READ)
    first = graph.create_content_block(section, b"a")
    graph.create_content_block(section, b"b", alignment=64)
    alloc = drive(manager.allocate(None, graph))
    memory = graph.contents.view(int(graph.block_table.content[first.row]), 65)
    assert bytes(memory) == b"a" + bytes(63) + b"b"
    drive(alloc.abandon())
    manager.close()


def test_slab_at_an_address_in_use() -> None:
    used = mapping.reserve(1 << 16)
    assert used is not None
    manager = SlabMemoryManager(1 << 16, used)
    assert (manager.address, manager.is_executable_in_place) == (used, False)
    graph = small_graph()
    drive(manager.deallocate([link(manager, graph)]))
    assert accessible([(used, used + (1 << 16))]) == []
    manager.close()
    mapping.release(used, 1 << 16)


def test_full_slab() -> None:
    manager = SlabMemoryManager(5 << 12)
    first, second = small_graph(), small_graph()
    finalized = link(manager, first)
    before = state(second)
    with pytest.raises(AllocationError) as caught:
        link(manager, second)
    assert caught.value.size == 0x2000
    assert str(caught.value) == (
        f"the slab of 0x5000 bytes at {manager.address:#x} is too full for a segment of 0x2000 "
        "bytes of unnamed: 0x1000 bytes are free; the link needs a slab of at least 0x8000 bytes"
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
    with pytest.raises(AllocationError, match="cannot reserve a slab") as caught:
        SlabMemoryManager(size, address)
    assert caught.value.size == size
