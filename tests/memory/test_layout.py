"""BasicLayout: order, offsets, sizes, contents."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import AllocationError
from jitlink.graph import Block, LinkGraph, MemLifetime, MemProt
from jitlink.memory import BasicLayout
from jitlink.memory import layout as layout_module
from tests.memory.graphs import (
    FINALIZE,
    NO_ALLOC,
    READ,
    READ_EXEC,
    READ_WRITE,
    add_section,
    check_blocks,
    contents_of,
    empty_graph,
    random_graph,
    state,
)


def place_plainly(graph: LinkGraph) -> dict[tuple[MemProt, MemLifetime], Any]:
    """For each segment its block rows, their offsets, content size and zero-fill size."""

    def group(block: Block) -> tuple[int, int]:
        return block.section.mem_lifetime, block.section.mem_prot

    def position(block: Block) -> tuple[int, ...]:
        origin = int(graph.block_table.origin[block.row])
        where = (block.section.ordinal, origin, block.address, block.row)
        return (*group(block), block.is_zero_fill, *where)

    segments = {}
    blocks = [block for block in graph.blocks if block.section.mem_lifetime != NO_ALLOC]
    for (lifetime, prot), members in groupby(sorted(blocks, key=position), group):
        rows, offsets, end, content_size = [], [], 0, 0
        for block in members:
            while (end - block.alignment_offset) % block.alignment:
                end += 1
            rows.append(block.row)
            offsets.append(end)
            end += block.size
            content_size = content_size if block.is_zero_fill else end
        key = (MemProt(prot), MemLifetime(lifetime))
        segments[key] = (rows, offsets, content_size, end - content_size)
    return segments


def check_against_plain(graph: LinkGraph) -> None:
    expected = place_plainly(graph)
    layout = BasicLayout(graph)
    assert [(segment.prot, segment.lifetime) for segment in layout.segments] == list(expected)
    base = 1 << 20
    for segment, (rows, _, content_size, zero_fill_size) in zip(
        layout.segments, expected.values(), strict=True
    ):
        assert segment.block_rows.tolist() == rows
        assert (segment.content_size, segment.zero_fill_size) == (content_size, zero_fill_size)
        assert segment.alignment == max(int(graph.block_table.alignment[row]) for row in rows)
        segment.address = base
        base += 1 << 20
    contents = contents_of(graph)
    memory = memoryview(bytearray(base - (1 << 20)))
    layout.apply(memory, 1 << 20)
    for segment in layout.segments:
        start = segment.address - (1 << 20)
        assert segment.working_memory == memory[start : start + segment.content_size]
    for segment, (rows, offsets, _, _) in zip(layout.segments, expected.values(), strict=True):
        found = graph.block_table.address[rows].tolist()
        assert found == [segment.address + offset for offset in offsets]
    check_blocks(graph, contents)
    layout.undo()


@given(seed=st.integers(0, 1 << 32), blocks=st.integers(0, 120))
def test_layout_agrees_with_a_plain_loop(seed: int, blocks: int) -> None:
    check_against_plain(random_graph(seed, blocks))


@pytest.mark.parametrize("few", [0, 200])
@given(seed=st.integers(0, 1 << 32), blocks=st.integers(0, 80))
def test_few_blocks_and_many_are_laid_out_alike(few: int, seed: int, blocks: int) -> None:
    graph = random_graph(seed, blocks)
    random = np.random.default_rng(seed)
    graph.block_table.origin[:] = random.integers(-1, 2, blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_FEW_ROWS", few)
        check_against_plain(graph)


@pytest.mark.parametrize("blocks", [299, 300, 301, 1500])
def test_large_layout_agrees_with_a_plain_loop(blocks: int) -> None:
    check_against_plain(random_graph(blocks, blocks))


@st.composite
def _columns(draw: st.DrawFn) -> tuple[Any, ...]:
    blocks = draw(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.integers(0, 40) | st.integers(0, 1 << 50),
                st.integers(0, 5) | st.integers(0, 50),
                st.floats(0, 1, exclude_max=True),
            ),
            min_size=1,
            max_size=40,
        )
    )
    group = np.array(sorted(block[0] for block in blocks), np.uint8)
    sizes = np.array([block[1] for block in blocks], np.int64)
    alignments = np.array([1 << block[2] for block in blocks], np.int64)
    offsets = [int(share * (1 << power)) for _, _, power, share in blocks]
    return group, sizes, alignments, np.array(offsets, np.int64)


@given(_columns())
def test_both_implementations_of_place_agree(columns: tuple[Any, ...]) -> None:
    assert (
        layout_module._place_many(*columns).tolist() == layout_module._place_few(*columns).tolist()
    )


def test_segments_come_by_lifetime_and_protection() -> None:
    graph = empty_graph()
    groups = [
        (READ_WRITE, FINALIZE),
        (READ_EXEC, MemLifetime.STANDARD),
        (READ, FINALIZE),
        (READ_WRITE, MemLifetime.STANDARD),
        (READ, MemLifetime.STANDARD),
    ]
    for prot, lifetime in groups:
        graph.create_content_block(add_section(graph, prot, lifetime), b"x")
    graph.create_content_block(add_section(graph, READ, NO_ALLOC), b"debug")
    segments = BasicLayout(graph).segments
    assert [(segment.prot, segment.lifetime) for segment in segments] == [
        groups[4],
        groups[3],
        groups[1],
        groups[2],
        groups[0],
    ]


def test_blocks_come_by_section_address_and_creation_and_zero_fill_last() -> None:
    graph = empty_graph()
    first, second = add_section(graph, READ), add_section(graph, READ)
    blocks = [
        graph.create_content_block(second, b"e", address=1),
        graph.create_zero_fill_block(first, 7, address=0),
        graph.create_content_block(first, b"c", address=9),
        graph.create_content_block(first, b"b", address=5),
        graph.create_content_block(first, b"d", address=9),
    ]
    (segment,) = BasicLayout(graph).segments
    expected = [blocks[index].row for index in (3, 2, 4, 0, 1)]
    assert segment.block_rows.tolist() == expected
    assert (segment.content_size, segment.zero_fill_size, segment.size) == (4, 7, 11)


@pytest.mark.parametrize("few", [0, 200])
def test_removed_blocks_are_left_out(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "_FEW_ROWS", few)
    graph = empty_graph()
    section = add_section(graph, READ)
    graph.remove_block(graph.create_content_block(section, b"removed"))
    assert BasicLayout(graph).segments == []
    kept = graph.create_content_block(section, b"kept")
    (segment,) = BasicLayout(graph).segments
    assert segment.block_rows.tolist() == [kept.row]


@pytest.mark.parametrize("few", [0, 200])
def test_linked_blocks_are_in_the_order_of_others(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "_FEW_ROWS", few)
    graph = empty_graph()
    code, data = add_section(graph, READ_EXEC), add_section(graph, READ)
    first, second = (graph.create_content_block(code, b"code") for _ in range(2))
    of_second, of_first = (graph.create_content_block(data, b"data") for _ in range(2))
    graph.linked_to = {of_second.row: second.row, of_first.row: first.row}
    rows = [segment.block_rows.tolist() for segment in BasicLayout(graph).segments]
    assert sorted(rows) == [[first.row, second.row], [of_first.row, of_second.row]]


def test_block_offsets_are_known_without_addresses() -> None:
    graph = empty_graph()
    sections = [add_section(graph, prot) for prot in (READ_EXEC, READ)]
    debug = add_section(graph, READ, NO_ALLOC)
    blocks = [
        graph.create_content_block(sections[0], b"abc"),
        graph.create_content_block(debug, b"not loaded"),
        graph.create_content_block(sections[0], b"d", alignment=16),
        graph.create_zero_fill_block(sections[1], 8, alignment=8),
    ]
    layout = BasicLayout(graph)
    segments, offsets = layout.block_offsets()
    rows = [block.row for block in blocks]
    code, data = (next(i for i, s in enumerate(layout.segments) if s.prot == p)
                  for p in (READ_EXEC, READ))  # fmt: skip
    assert segments[rows].tolist() == [code, -1, code, data]
    assert offsets[rows].tolist() == [0, -1, 16, 0]


def test_contiguous_page_based_layout_sizes() -> None:
    graph = empty_graph()
    for prot, lifetime, size in (
        (READ, MemLifetime.STANDARD, 1),
        (READ_WRITE, MemLifetime.STANDARD, 4097),
        (READ, FINALIZE, 4096),
    ):
        graph.create_zero_fill_block(add_section(graph, prot, lifetime), size, alignment=16)
    layout = BasicLayout(graph)
    sizes = layout.contiguous_page_based_layout_sizes(4096)
    assert (sizes.standard, sizes.finalize, sizes.total) == (12288, 4096, 16384)
    with pytest.raises(AllocationError, match="aligned to 0x10, more than the page size") as caught:
        layout.contiguous_page_based_layout_sizes(8)
    assert caught.value.size == 1


def test_working_memory_of_each_segment() -> None:
    graph = random_graph(7, 60)
    contents = contents_of(graph)
    before = state(graph)
    layout = BasicLayout(graph)
    for number, segment in enumerate(layout.segments):
        segment.address = (number + 1) << 16
        segment.working_memory = memoryview(bytearray(segment.content_size))
    layout.apply()
    check_blocks(graph, contents)
    blocks = graph.block_table
    first = layout.segments[0]
    row = int(first.content_rows[-1])
    offset, size = int(blocks.address[row]) - first.address, int(blocks.size[row])
    first.working_memory[offset : offset + size] = bytes(size)
    assert bytes(Block(graph, row).content) == bytes(size)
    layout.undo()
    assert state(graph) == before


def test_addresses_above_the_middle_of_the_address_space() -> None:
    graph = empty_graph()
    block = graph.create_content_block(add_section(graph, READ), b"high", alignment=8)
    layout = BasicLayout(graph)
    layout.segments[0].address = (1 << 64) - 16
    layout.apply(memoryview(bytearray(16)), (1 << 64) - 16)
    assert block.address == (1 << 64) - 16
    assert bytes(block.content) == b"high"


@pytest.mark.parametrize(
    ("address", "message"),
    [(8, "not aligned to 0x10"), (0xFFF0, "above the graph's address limit 0x10000")],
)
def test_segment_at_a_wrong_address(address: int, message: str) -> None:
    graph = empty_graph()
    graph.create_content_block(add_section(graph, READ), bytes(17), alignment=16)
    graph.address_limit = 1 << 16
    before = state(graph)
    layout = BasicLayout(graph)
    layout.segments[0].address = address
    with pytest.raises(AllocationError, match=message):
        layout.apply(memoryview(bytearray(32)), address)
    assert state(graph) == before


@pytest.mark.parametrize("buffers", [1, 2, 16, 17, 40])
def test_contents_from_many_buffers(buffers: int) -> None:
    """References into successive buffers are contiguous, although the buffers are not."""
    graph = empty_graph()
    section = add_section(graph, READ)
    pieces = [bytes([number]) * 20 for number in range(buffers)]
    for piece in pieces:
        block = graph.create_content_block(section, piece, address=20 * piece[0])
        graph.split_block(block, [5, 10])
    layout = BasicLayout(graph)
    memory = bytearray(20 * buffers)
    layout.apply(memoryview(memory))
    assert memory == b"".join(pieces)
