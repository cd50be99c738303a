"""The manager of regions at fixed addresses: where segments are placed, and what is refused."""

from collections.abc import Sequence

import pytest

from jitlink.errors import AllocationError, GraphError
from jitlink.graph import AllocActionPair, LinkGraph, WrapperCall
from jitlink.memory.layout import MOST_NUMBERS, BasicLayout
from jitlink.memory.manager import FinalizedAlloc
from jitlink.memory.regions import MemoryRegion, PlacedSegment, RegionMemoryManager
from tests.memory.graphs import (
    FINALIZE,
    NO_ALLOC,
    READ,
    READ_EXEC,
    READ_WRITE,
    RETURN_42,
    add_section,
    drive,
    empty_graph,
    small_graph,
    state,
)

FLASH = MemoryRegion("flash", 0x0800_0000, 0x4000, "rx")
RAM = MemoryRegion("ram", 0x2000_0000, 0x4000, "rw")


def place(
    manager: RegionMemoryManager, graph: LinkGraph
) -> tuple[list[PlacedSegment], FinalizedAlloc]:
    alloc = drive(drive(manager.allocate(None, graph)).finalize())
    return manager.segments(), alloc


def summary(segments: Sequence[PlacedSegment]) -> list[tuple[str, int, int, int]]:
    return [(each.region.name, each.address, each.load_address, each.size) for each in segments]


def test_segments_are_placed_by_protection() -> None:
    manager = RegionMemoryManager([FLASH, RAM])
    graph = small_graph()
    segments, alloc = place(manager, graph)
    assert summary(segments) == [
        ("flash", 0x0800_0000, 0x0800_0000, 8),  # constants come before code
        ("flash", 0x0800_0010, 0x0800_0010, len(RETURN_42)),
        ("ram", 0x2000_0000, 0x2000_0000, 32 + 5000),
    ]
    assert [bytes(each.content) for each in segments] == [b"constant", RETURN_42, b"variable"]
    assert [str(each.prot) for each in segments] == ["R--", "R-X", "RW-"]
    (symbol,) = graph.defined_symbols
    assert symbol.address == 0x0800_0010
    drive(manager.deallocate([alloc]))
    assert manager.segments() == []
    (first, *_), alloc = place(manager, small_graph())
    assert first.address == 0x0800_0000
    drive(manager.deallocate([alloc]))


def test_contents_of_data_are_stored_in_a_load_region() -> None:
    ram = MemoryRegion("ram", 0x2000_0000, 0x4000, "rw", load_region="flash")
    manager = RegionMemoryManager([FLASH, ram])
    segments, alloc = place(manager, small_graph())
    code, data = segments[1:]
    assert data.load_address == -(-(code.address + code.size) // 32) * 32
    assert data.address == 0x2000_0000
    drive(manager.deallocate([alloc]))
    # Zeros need no room there.
    graph = empty_graph()
    graph.create_zero_fill_block(add_section(graph, READ_WRITE), 100)
    (zeros,), alloc = place(manager, graph)
    assert zeros.load_address == zeros.address == 0x2000_0000
    assert len(zeros.content) == 0
    drive(manager.deallocate([alloc]))


def vectors(count: int = 4) -> LinkGraph:
    """Code and constants, and a vector table among the constants."""
    graph = small_graph()
    graph.create_content_block(graph.create_section(".vectors", READ), bytes(8 * count))
    return graph


def test_a_region_is_for_the_sections_that_it_names() -> None:
    table = MemoryRegion("table", 0x0800_0000, 0x100, "r", sections=(".vec*",))
    flash = MemoryRegion("flash", 0x0800_0100, 0x1000, "rx")
    manager = RegionMemoryManager([table, flash, RAM])
    segments, alloc = place(manager, vectors())
    assert summary(segments)[0] == ("table", 0x0800_0000, 0x0800_0000, 32)
    assert {each.region.name for each in segments[1:]} == {"flash", "ram"}
    drive(manager.deallocate([alloc]))
    with pytest.raises(AllocationError) as full:
        place(manager, vectors(33))
    assert str(full.value) == (
        "in graph test.o, no region has room for 0x108 bytes of segment R--: table has 0x100 left"
    )
    assert full.value.size == 0x108
    assert manager.segments() == []


def test_sections_that_no_region_names_and_unallocated_ones_are_as_without_numbers() -> None:
    graph = small_graph()
    graph.create_content_block(add_section(graph, READ, NO_ALLOC), b"debug")
    graph.create_content_block(add_section(graph, READ_EXEC, FINALIZE), b"once")
    plain = [repr(each) for each in BasicLayout(graph).segments]
    graph.segment_number = lambda _name: MOST_NUMBERS
    numbered = BasicLayout(graph).segments
    assert [repr(each) for each in numbered] == plain
    assert {each.number for each in numbered} == {MOST_NUMBERS}


@pytest.mark.parametrize("number", [-1, MOST_NUMBERS + 1, 1 << 40])
def test_numbers_of_segments_are_checked(number: int) -> None:
    graph = small_graph()
    graph.segment_number = lambda _name: number
    with pytest.raises(GraphError, match=rf"number {number} of section \.s0 is"):
        BasicLayout(graph)


def test_finalize_lifetime_memory_is_free_again() -> None:
    manager = RegionMemoryManager([FLASH, RAM])
    graph = empty_graph()
    graph.create_content_block(add_section(graph, READ_EXEC, FINALIZE), bytes(0x4000))
    segments, alloc = place(manager, graph)
    assert segments == []
    again, second = place(manager, small_graph())
    assert len(again) == 3
    drive(manager.deallocate([alloc, second]))


def test_a_region_that_is_full_is_followed_by_the_next() -> None:
    small = MemoryRegion("bank1", 0x1000, 0x10, "rw")
    manager = RegionMemoryManager([FLASH, small, RAM])
    segments, alloc = place(manager, small_graph())
    assert segments[-1].region is RAM
    drive(manager.deallocate([alloc]))


def test_nothing_stays_taken_after_an_error() -> None:
    manager = RegionMemoryManager([FLASH, MemoryRegion("ram", 0x2000_0000, 0x100, "rw")])
    graph = small_graph()
    before = state(graph)
    with pytest.raises(
        AllocationError, match="no region has room for 0x13a8 bytes aligned to 0x20"
    ):
        drive(manager.allocate(None, graph))
    assert state(graph) == before
    code = empty_graph()
    code.create_content_block(add_section(code, READ_EXEC), RETURN_42)
    (only,), placed = place(manager, code)
    assert only.address == FLASH.start
    drive(manager.deallocate([placed]))
    alloc = drive(RegionMemoryManager([FLASH, RAM]).allocate(None, graph))
    drive(alloc.abandon())
    assert state(graph) == before
    with pytest.raises(RuntimeError, match="finalized or abandoned"):
        drive(alloc.abandon())


def test_what_is_to_run_is_refused() -> None:
    graph = small_graph()
    graph.alloc_actions.append(AllocActionPair(finalize=WrapperCall(0x1234, b"")))
    manager = RegionMemoryManager([FLASH, RAM])
    with pytest.raises(AllocationError, match="nothing runs in a memory image"):
        place(manager, graph)
    (first, *_), alloc = place(manager, small_graph())
    assert first.address == 0x0800_0000
    drive(manager.deallocate([alloc]))


def test_no_region_for_a_protection() -> None:
    with pytest.raises(AllocationError) as error:
        place(RegionMemoryManager([FLASH]), small_graph())
    assert str(error.value) == ("in graph test.o, no region is for a segment RW-: flash is R-X")
    named = MemoryRegion("table", 0, 0x100, "rw", sections=(".vectors",))
    graph = empty_graph()
    code = graph.create_section(".vectors", READ_EXEC)
    graph.create_content_block(code, RETURN_42)
    with pytest.raises(AllocationError, match="R-X: table is RW-"):
        place(RegionMemoryManager([named, FLASH, RAM]), graph)


def test_an_address_limit_holds() -> None:
    graph = small_graph()
    graph.address_limit = 0x1000_0000
    with pytest.raises(AllocationError, match="below 0x10000000 of segment RW-"):
        place(RegionMemoryManager([FLASH, RAM]), graph)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (
            [FLASH, MemoryRegion("b", 0x0800_3FFF, 1)],
            "region b at 0x8003fff begins in region flash",
        ),
        ([FLASH, MemoryRegion("flash", 0, 1)], "two regions are named flash"),
        ([MemoryRegion("a", 0, 1, load_region="b")], "no region b for the contents of a"),
        ([MemoryRegion("a", 0, 1, load_region="a")], "region a is its own load region"),
        (
            [MemoryRegion(str(n), n, 1, sections=["s"]) for n in range(MOST_NUMBERS + 1)],
            "8 regions name sections; the most is 7",
        ),
    ],
)
def test_regions_that_no_machine_has(regions: list[MemoryRegion], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegionMemoryManager(regions)


def test_ranges_that_are_no_regions() -> None:
    with pytest.raises(ValueError, match="region a of 0x0 bytes at 0x5"):
        MemoryRegion("a", 5, 0)
    with pytest.raises(ValueError, match="0x2 bytes at 0xffffffffffffffff"):
        MemoryRegion("a", (1 << 64) - 1, 2)
    with pytest.raises(ValueError, match=r"region a has .* thread-local variables"):
        MemoryRegion("a", (1 << 63) - 1, 2)
    assert MemoryRegion("a", (1 << 63) + (1 << 62), 1).end
    for name in ("", "a\0"):
        with pytest.raises(ValueError, match="is no name of a region"):
            MemoryRegion(name, 0, 1)
    with pytest.raises(ValueError, match="'q' in protection 'rq' is none of r, w and x"):
        MemoryRegion("a", 0, 1, "rq")
    with pytest.raises(TypeError, match="are a string"):
        MemoryRegion("a", 0, 1, sections=".text")
