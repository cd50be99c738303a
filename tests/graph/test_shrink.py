"""Removing bytes from blocks, compared with a model that works byte by byte."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import GraphError
from jitlink.graph import Block, LinkGraph
from jitlink.graph.shrink import Shrinkage
from tests.graph.sample import READ, Kind, make_graph

SIZE = 40
KINDS = np.ones(len(Kind), np.bool_)


class Site(NamedTuple):
    """The end of a range, how many bytes before it may be removed, and how many are."""

    end: int
    limit: int
    removed: int


@st.composite
def plans(draw: st.DrawFn) -> list[Site]:
    bounds = sorted(draw(st.sets(st.integers(0, SIZE), min_size=2, max_size=8)))
    sites = []
    for start, end in zip(bounds[::2], bounds[1::2], strict=False):
        limit = draw(st.integers(0, end - start))
        sites.append(Site(end, limit, draw(st.integers(0, limit))))
    return sites


def left_before(sites: list[Site], offset: int) -> int:
    """How many of the bytes before an offset are left."""
    removed = {at for site in sites for at in range(site.end - site.removed, site.end)}
    return sum(at not in removed for at in range(offset))


def make_blocks(graph: LinkGraph, count: int) -> list[Block]:
    section = graph.create_section("a", READ)
    contents = [bytes(range(64 * n, 64 * n + SIZE)) for n in range(count)]
    return [graph.create_content_block(section, content) for content in contents]


def make_plan(graph: LinkGraph, blocks: list[Block], sites: list[list[Site]]) -> Shrinkage:
    rows = [block.row for block, own in zip(blocks, sites, strict=True) for _ in own]
    flat = [site for own in sites for site in own]
    ends, limits = ([getattr(site, name) for site in flat] for name in ("end", "limit"))
    plan = Shrinkage(graph, *(np.array(column, np.int64) for column in (rows, ends, limits)))
    plan.counts[:] = [site.removed for site in flat]
    return plan


@given(sites=st.lists(plans(), min_size=3, max_size=3))
def test_symbols_and_edges_follow_the_bytes(sites: list[list[Site]]) -> None:
    graph = make_graph()
    blocks = make_blocks(graph, 3)
    old = [bytes(block.content) for block in blocks]
    sites[1] = []
    for number, block in enumerate(blocks):
        for offset in range(SIZE + 1):
            symbol = graph.add_defined_symbol(
                block, offset, f"s{number}.{offset}", SIZE - offset if offset % 3 else 0
            )
            blocks[1].add_edge(Kind.POINTER64, offset % SIZE, symbol, SIZE - offset)
            block.add_edge(Kind.POINTER64, offset, symbol, -1)
    edges = [(edge, b, edge.offset, edge.addend) for b in blocks for edge in b.edges]
    plan = make_plan(graph, blocks, sites)
    offsets = np.arange(SIZE + 1)
    expected = [plan.moved(plan.locate(np.full(SIZE + 1, b.row), offsets)).tolist() for b in blocks]
    sizes = dict(zip(plan.block_rows.tolist(), plan.new_sizes().tolist(), strict=True))
    plan.apply(KINDS)

    for number, (block, own) in enumerate(zip(blocks, sites, strict=True)):
        moved = [left_before(own, offset) for offset in range(SIZE + 1)]
        assert expected[number] == moved
        assert block.size == moved[-1] == sizes.get(block.row, SIZE)
        kept = bytes(old[number][at] for at in range(SIZE) if moved[at] != moved[at + 1])
        assert bytes(block.content) == kept
        for offset in range(SIZE + 1):
            found = graph.find_defined_symbol_by_name(f"s{number}.{offset}")
            assert found is not None
            size = moved[-1] - moved[offset] if offset % 3 else 0
            assert (found.offset, found.size) == (moved[offset], size)
    rows = [block.row for block in blocks]
    for edge, block, offset, addend in edges:
        assert edge.offset == left_before(sites[rows.index(block.row)], offset)
        own = sites[rows.index(edge.target.block.row)]
        end = left_before(own, SIZE)
        assert edge.addend == (addend if addend <= 0 else end - edge.target.offset)


def test_symbol_that_is_larger_than_its_block_stays_so() -> None:
    graph = make_graph()
    (block,) = make_blocks(graph, 1)
    symbol = graph.add_defined_symbol(block, 4, "s", SIZE - 4)
    graph.symbol_table.size[symbol.row] = 1000
    make_plan(graph, [block], [[Site(10, 6, 6)]]).apply(KINDS)
    assert (symbol.offset, symbol.size, block.size) == (4, 994, SIZE - 6)


def test_addends_that_count_from_elsewhere_stay() -> None:
    graph = make_graph()
    (block,) = make_blocks(graph, 1)
    symbol = graph.add_defined_symbol(block, 0, "s")
    edge = block.add_edge(Kind.POINTER64, 20, symbol, 30)
    beyond = block.add_edge(Kind.DELTA32, 20, symbol, SIZE + 1)
    counts = KINDS.copy()
    counts[Kind.POINTER64] = False
    make_plan(graph, [block], [[Site(10, 6, 6)]]).apply(counts)
    assert (edge.addend, beyond.addend) == (30, SIZE + 1)
    assert (edge.offset, beyond.offset) == (14, 14)


def test_plan_without_sites() -> None:
    graph = make_graph()
    (block,) = make_blocks(graph, 1)
    make_plan(graph, [block], [[]]).apply(KINDS)
    assert block.size == SIZE


@pytest.mark.parametrize(
    "sites",
    [
        [Site(SIZE + 1, 1, 0)],
        [Site(4, 5, 0)],
        [Site(4, -1, 0)],
        [Site(10, 4, 0), Site(12, 3, 0)],
    ],
)
def test_impossible_sites(sites: list[Site]) -> None:
    graph = make_graph()
    (block,) = make_blocks(graph, 1)
    with pytest.raises(GraphError, match="cannot be removed from block"):
        make_plan(graph, [block], [sites])


def test_zero_fill_has_no_bytes_to_remove() -> None:
    graph = make_graph()
    block = graph.create_zero_fill_block(graph.create_section("a", READ), SIZE)
    with pytest.raises(GraphError, match="cannot be removed from block"):
        make_plan(graph, [block], [[Site(4, 1, 0)]])
