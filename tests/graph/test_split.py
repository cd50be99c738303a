"""Cutting blocks: edges and symbols move to the part that holds their offset."""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import GraphError
from jitlink.graph import Block, Edge, LinkGraph, Symbol
from tests.graph.sample import READ, Kind, make_graph

CONTENT = bytes(range(64))


@pytest.fixture
def graph() -> LinkGraph:
    return make_graph()


@pytest.fixture
def block(graph: LinkGraph) -> Block:
    return graph.create_content_block(graph.create_section("a", READ), CONTENT, 0x1000, 16, 3)


def places(blocks: list[Block]) -> list[tuple[int, int, int]]:
    return [(block.address, block.size, block.alignment_offset) for block in blocks]


def test_split_at_one_offset(graph: LinkGraph, block: Block) -> None:
    parts = graph.split_block(block, 8)
    assert parts[0] == block
    assert places(parts) == [(0x1000, 8, 3), (0x1008, 56, 11)]
    assert [bytes(part.content) for part in parts] == [CONTENT[:8], CONTENT[8:]]
    assert [part.alignment for part in parts] == [16, 16]
    assert list(block.section.blocks) == list(graph.blocks) == parts


def test_split_at_several_offsets(graph: LinkGraph, block: Block) -> None:
    parts = graph.split_block(block, [1, 13, 14, 63])
    bounds = [0, 1, 13, 14, 63, 64]
    assert [bytes(part.content) for part in parts] == [
        CONTENT[low:high] for low, high in pairwise(bounds)
    ]
    assert [part.alignment_offset for part in parts] == [3, 4, 0, 1, 2]
    assert [part.address for part in parts] == [0x1000 + low for low in bounds[:-1]]


def test_split_at_no_offset(graph: LinkGraph, block: Block) -> None:
    empty = graph.create_content_block(block.section, b"")
    assert graph.split_block(block, []) == [block]
    assert graph.split_block(empty, []) == [empty]
    assert (block.size, empty.size) == (64, 0)


@pytest.mark.parametrize("offsets", [0, 64, -1, 65, [0], [8, 8], [16, 8], [8, 64]])
def test_split_at_impossible_offsets(
    graph: LinkGraph, block: Block, offsets: int | list[int]
) -> None:
    with pytest.raises(GraphError, match="cannot split a block of size 0x40 at"):
        graph.split_block(block, offsets)
    assert list(graph.blocks) == [block]
    assert block.content == CONTENT


def test_edges_follow_their_bytes(graph: LinkGraph, block: Block) -> None:
    target = graph.add_external_symbol("t")
    offsets = (0, 7, 8, 8, 19, 20, 63, 64)
    edges = [
        block.add_edge(Kind.POINTER64, offset, target, number)
        for number, offset in enumerate(offsets)
    ]
    parts = graph.split_block(block, [8, 20])
    assert [[(edge.offset, edge.addend) for edge in part.edges] for part in parts] == [
        [(0, 0), (7, 1)],
        [(0, 2), (0, 3), (11, 4)],
        [(0, 5), (43, 6), (44, 7)],
    ]
    # Views that were created before are of the same edges.
    assert [edge.block for edge in edges] == [parts[number] for number in (0, 0, 1, 1, 1, 2, 2, 2)]
    assert [part.address + edge.offset for part in parts for edge in part.edges] == [
        0x1000 + offset for offset in offsets
    ]


def test_edges_that_were_read_before_follow_too(graph: LinkGraph, block: Block) -> None:
    target = graph.add_external_symbol("t")
    for offset in (*range(64), *range(64)):
        block.add_edge(Kind.KEEP_ALIVE, offset, target)
    # Reading many edges sorts them by block, and the sorted order is kept.
    assert block.edges_size == 128
    parts = graph.split_block(block, [16, 48])
    assert [part.edges_size for part in parts] == [32, 64, 32]
    assert [edge.offset for edge in parts[2].edges] == [*range(16), *range(16)]


def test_symbols_follow_their_bytes_and_fit_their_part(graph: LinkGraph, block: Block) -> None:
    expected = {
        (0, 64): (0, 0, 8),
        (0, 0): (0, 0, 0),
        (0, 8): (0, 0, 8),
        (4, 60): (0, 4, 4),
        (7, 2): (0, 7, 1),
        (8, 0): (1, 0, 0),
        (8, 12): (1, 0, 12),
        (8, 13): (1, 0, 12),
        (19, 45): (1, 11, 1),
        (20, 0): (2, 0, 0),
        (20, 44): (2, 0, 44),
        (63, 1): (2, 43, 1),
        (64, 0): (2, 44, 0),
    }
    symbols = {
        (offset, size): graph.add_defined_symbol(block, offset, f"s{offset}_{size}", size)
        for offset, size in expected
    }
    addresses = {key: symbol.address for key, symbol in symbols.items()}
    parts = graph.split_block(block, [8, 20])
    assert {
        key: (parts.index(symbol.block), symbol.offset, symbol.size)
        for key, symbol in symbols.items()
    } == expected
    assert {key: symbol.address for key, symbol in symbols.items()} == addresses


def test_zero_fill_blocks_split_likewise(graph: LinkGraph, block: Block) -> None:
    zeros = graph.create_zero_fill_block(block.section, 64, 0x2000, 16, 3)
    symbols = [graph.add_defined_symbol(zeros, offset, f"z{offset}", 4) for offset in (0, 20, 60)]
    edge = zeros.add_edge(Kind.KEEP_ALIVE, 20, symbols[0])
    parts = graph.split_block(zeros, [8, 20])
    assert places(parts) == [(0x2000, 8, 3), (0x2008, 12, 11), (0x2014, 44, 7)]
    assert all(part.is_zero_fill for part in parts)
    assert [symbol.block for symbol in symbols] == [parts[0], parts[2], parts[2]]
    assert (edge.block, edge.offset) == (parts[2], 0)


def test_other_blocks_stay_as_they_are(graph: LinkGraph, block: Block) -> None:
    other = graph.create_content_block(block.section, CONTENT)
    symbol = graph.add_defined_symbol(other, 32, "s", 32)
    edge = other.add_edge(Kind.POINTER64, 40, symbol)
    removed = other.add_edge(Kind.POINTER64, 48, symbol)
    removed.remove()
    graph.split_block(block, [16, 32, 48])
    assert (symbol.block, symbol.offset, symbol.size) == (other, 32, 32)
    assert list(other.edges) == [edge]
    assert edge.offset == 40
    assert other.content == CONTENT


def test_parts_stay_in_the_section_and_origin_of_their_block(
    graph: LinkGraph, block: Block
) -> None:
    section = graph.create_section("b", READ)
    graph.transfer_block(block, section)
    graph.block_table.origin[block.row] = 7
    parts = graph.split_block(block, [4, 8])
    assert [part.section for part in parts] == [section] * 3
    assert graph.block_table.origin[[part.row for part in parts]].tolist() == [7] * 3


def test_parts_of_mutable_content_are_mutable(graph: LinkGraph, block: Block) -> None:
    buffer = bytearray(CONTENT)
    mutable = graph.create_mutable_content_block(block.section, buffer)
    for number, part in enumerate(graph.split_block(mutable, [8, 16])):
        part.already_mutable_content[0] = 0xF0 + number
    assert [buffer[0], buffer[8], buffer[16]] == [0xF0, 0xF1, 0xF2]
    assert [part.is_content_mutable for part in graph.split_block(block, 1)] == [False, False]


def test_parts_can_be_split_again(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 40, "s", 24)
    _, second = graph.split_block(block, 32)
    assert list(second.edges) == []
    edge = second.add_edge(Kind.POINTER64, 8, symbol)
    first, last = graph.split_block(second, 8)
    assert first == second
    assert (symbol.block, symbol.offset, symbol.size) == (last, 0, 24)
    assert list(last.edges) == [edge]
    assert edge.offset == 0


@dataclass
class Whole:
    """A block before it is cut, with its cuts, symbols and edges."""

    content: bytes | None
    size: int
    cuts: list[int]
    symbols: list[tuple[int, int]]
    edges: list[int]
    block: Block = field(init=False)

    def place(self, offset: int) -> tuple[int, int]:
        """Number of the part that holds an offset, and the offset in that part."""
        part = bisect_right(self.cuts, offset)
        return part, offset - [0, *self.cuts][part]

    def bounds(self) -> list[tuple[int, int]]:
        return list(pairwise([0, *self.cuts, self.size]))


@st.composite
def wholes(draw: st.DrawFn) -> Whole:
    size = draw(st.integers(0, 40))
    cuts = draw(st.sets(st.integers(1, size - 1), max_size=6)) if size > 1 else set()
    interesting = st.sampled_from(sorted({0, size, *cuts, *(cut - 1 for cut in cuts)}))
    offsets = st.one_of(st.integers(0, size), interesting)
    symbols = [
        (offset, draw(st.one_of(st.just(0), st.just(size - offset), st.integers(0, size - offset))))
        for offset in draw(st.lists(offsets, max_size=8))
    ]
    content = draw(st.one_of(st.none(), st.binary(min_size=size, max_size=size)))
    return Whole(content, size, sorted(cuts), symbols, draw(st.lists(offsets, max_size=8)))


def build(graph: LinkGraph, models: list[Whole]) -> tuple[list[list[Symbol]], list[list[Edge]]]:
    section = graph.create_section("a", READ)
    target = graph.add_external_symbol("t")
    for model in models:
        if model.content is None:
            model.block = graph.create_zero_fill_block(section, model.size, 0x1000, 8, 5)
        else:
            model.block = graph.create_content_block(section, model.content, 0x1000, 8, 5)
    symbols = [
        [graph.add_anonymous_symbol(model.block, offset, size) for offset, size in model.symbols]
        for model in models
    ]
    edges = [
        [model.block.add_edge(Kind.KEEP_ALIVE, offset, target) for offset in model.edges]
        for model in models
    ]
    return symbols, edges


def check(model: Whole, parts: list[Block], symbols: list[Symbol], edges: list[Edge]) -> None:
    assert parts[0] == model.block
    for part, (start, end) in zip(parts, model.bounds(), strict=True):
        assert (part.address, part.size) == (0x1000 + start, end - start)
        assert (part.alignment, part.alignment_offset) == (8, (5 + start) % 8)
        if model.content is None:
            assert part.is_zero_fill
        else:
            assert part.content == model.content[start:end]
        mine = [edge for edge in edges if edge.block == part]
        assert list(part.edges) == mine
    for symbol, (offset, size) in zip(symbols, model.symbols, strict=True):
        number, inner = model.place(offset)
        assert (symbol.block, symbol.offset) == (parts[number], inner)
        assert symbol.size == min(size, parts[number].size - inner)
    for edge, offset in zip(edges, model.edges, strict=True):
        number, inner = model.place(offset)
        assert (edge.block, edge.offset) == (parts[number], inner)


@given(st.lists(wholes(), min_size=1, max_size=5), st.data())
def test_any_cuts_of_any_blocks_at_once(models: list[Whole], data: st.DataObject) -> None:
    graph = make_graph()
    symbols, edges = build(graph, models)
    chosen = [index for index in range(len(models)) if data.draw(st.booleans())]
    parents: list[int] = []
    starts: list[int] = []
    for index, model in enumerate(models):
        if index not in chosen:
            model.cuts = []
            continue
        parents += [model.block.row] * (len(model.cuts) + 1)
        starts += [0, *model.cuts]
    rows = graph.split_blocks(np.array(parents, np.int64), np.array(starts, np.int64)).tolist()
    for index, model in enumerate(models):
        parts = [model.block]
        if index in chosen:
            parts = [Block(graph, rows.pop(0)) for _ in range(len(model.cuts) + 1)]
        check(model, parts, symbols[index], edges[index])
    assert rows == []


@given(wholes(), st.randoms(use_true_random=False))
def test_cuts_one_after_the_other_are_cuts_at_once(model: Whole, random: Random) -> None:
    graph = make_graph()
    symbols, edges = build(graph, [model])
    parts = [model.block]
    order = list(model.cuts)
    random.shuffle(order)
    for cut in order:
        index = max(i for i, part in enumerate(parts) if part.address < 0x1000 + cut)
        inner = cut - (parts[index].address - 0x1000)
        parts[index : index + 1] = graph.split_block(parts[index], inner)
    check(model, parts, symbols[0], edges[0])
