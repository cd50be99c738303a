"""Edges: live views, attributes, and the index by block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import GraphError
from jitlink.graph import Block, Edge, GenericEdgeKind, LinkGraph, Symbol
from tests.graph.sample import READ, Kind, OtherKind, make_graph


@pytest.fixture
def graph() -> LinkGraph:
    return make_graph()


@pytest.fixture
def block(graph: LinkGraph) -> Block:
    return graph.create_content_block(graph.create_section(".text", READ), bytes(32), 0x1000)


@pytest.fixture
def target(graph: LinkGraph) -> Symbol:
    return graph.add_external_symbol("target")


def offsets(block: Block) -> list[int]:
    found = [edge.offset for edge in block.edges]
    assert block.edges_size == len(found)
    assert block.edges_empty == (not found)
    return found


def test_kinds_print_as_llvm_names_them() -> None:
    assert str(Kind.DELTA32) == "Delta32"
    assert [str(kind) for kind in GenericEdgeKind] == ["INVALID RELOCATION", "Keep-Alive"]
    assert [kind.is_relocation for kind in Kind] == [False, False, True, True]
    assert Kind(3) is Kind.DELTA32


def test_new_edge(graph: LinkGraph, block: Block, target: Symbol) -> None:
    edge = block.add_edge(Kind.DELTA32, 4, target, -4)
    assert edge.block == block
    assert (edge.offset, edge.kind, edge.target, edge.addend) == (4, Kind.DELTA32, target, -4)
    assert edge.is_relocation
    assert edge.is_keep_alive
    assert block.fixup_address(edge) == 0x1004
    assert list(block.edges) == [edge]
    assert edge == Edge(graph, edge.row)
    assert hash(edge) == hash(Edge(graph, edge.row))
    assert edge != Edge(make_graph(), edge.row)
    assert edge != edge.row
    assert "Delta32 at 0x4" in repr(edge)


def test_kinds_of_every_architecture(graph: LinkGraph, block: Block, target: Symbol) -> None:
    for kind in (Kind.KEEP_ALIVE, GenericEdgeKind.KEEP_ALIVE, OtherKind.KEEP_ALIVE, 1):
        edge = block.add_edge(kind, 0, target)
        assert edge.kind is Kind.KEEP_ALIVE
        assert not edge.is_relocation
        assert edge.is_keep_alive
    with pytest.raises(GraphError, match="Branch26 is no edge kind of graph"):
        block.add_edge(OtherKind.BRANCH26, 0, target)
    with pytest.raises(GraphError, match="Branch26"):
        edge.kind = OtherKind.BRANCH26
    with pytest.raises(ValueError, match="99"):
        block.add_edge(99, 0, target)
    assert edge.kind is Kind.KEEP_ALIVE
    assert graph.edge_table.rows == 4


def test_edges_are_views(block: Block, graph: LinkGraph, target: Symbol) -> None:
    block.add_edge(Kind.POINTER64, 0, target)
    block.add_edge(Kind.POINTER64, 8, target)
    other = graph.add_external_symbol("other")
    for edge in block.edges:
        edge.kind = Kind.DELTA32
        edge.offset += 1
        edge.target = other
        edge.addend = edge.offset * 2
    assert [(edge.kind, edge.offset, edge.target, edge.addend) for edge in block.edges] == [
        (Kind.DELTA32, 1, other, 2),
        (Kind.DELTA32, 9, other, 18),
    ]
    assert graph.edge_table.kind.tolist() == [Kind.DELTA32, Kind.DELTA32]


def test_edges_come_in_order_of_creation(graph: LinkGraph, block: Block, target: Symbol) -> None:
    other = graph.create_content_block(block.section, bytes(8))
    for offset in (8, 0, 16, 0):
        block.add_edge(Kind.POINTER64, offset, target)
        other.add_edge(Kind.DELTA32, 4, target)
    assert offsets(block) == [8, 0, 16, 0]
    assert offsets(other) == [4, 4, 4, 4]


def test_edges_at_an_offset(block: Block, target: Symbol) -> None:
    edges = [block.add_edge(Kind.POINTER64, offset, target) for offset in (8, 0, 8)]
    assert list(block.edges_at(8)) == [edges[0], edges[2]]
    assert list(block.edges_at(4)) == []


def test_edge_that_is_added_during_iteration_is_not_seen(block: Block, target: Symbol) -> None:
    block.add_edge(Kind.POINTER64, 0, target)
    block.add_edge(Kind.POINTER64, 8, target)
    for edge in block.edges:
        block.add_edge(Kind.DELTA32, edge.offset + 1, target)
    assert offsets(block) == [0, 8, 1, 9]


def test_edge_that_is_removed_before_it_is_reached_is_skipped(block: Block, target: Symbol) -> None:
    edges = [block.add_edge(Kind.POINTER64, offset, target) for offset in (0, 8, 16)]
    seen = []
    for edge in block.edges:
        seen.append(edge)
        edges[1].remove()
    assert seen == [edges[0], edges[2]]
    assert offsets(block) == [0, 16]


def test_every_edge_removed_during_iteration(block: Block, target: Symbol) -> None:
    for offset in range(5):
        block.add_edge(Kind.DELTA32, offset, target)
    for edge in block.edges:
        block.remove_edge(edge)
    assert offsets(block) == []


def test_remove_edge(graph: LinkGraph, block: Block, target: Symbol) -> None:
    other = graph.create_content_block(block.section, bytes(8))
    edges = [block.add_edge(Kind.POINTER64, offset, target) for offset in (0, 8)]
    with pytest.raises(GraphError, match="another block"):
        other.remove_edge(edges[0])
    block.remove_edge(edges[0])
    assert list(block.edges) == [edges[1]]


def test_edge_made_invalid_vanishes(block: Block, target: Symbol) -> None:
    edge = block.add_edge(Kind.POINTER64, 0, target)
    edge.kind = GenericEdgeKind.INVALID
    assert offsets(block) == []


def test_offsets_outside_the_block_are_refused(block: Block, target: Symbol) -> None:
    edge = block.add_edge(Kind.KEEP_ALIVE, 32, target)
    for offset in (-1, 33):
        with pytest.raises(GraphError, match=r"edge offset .* outside its block"):
            block.add_edge(Kind.POINTER64, offset, target)
        with pytest.raises(GraphError, match=r"edge offset .* outside its block"):
            edge.offset = offset
    edge.offset = 0
    assert offsets(block) == [0]


def test_addends_are_signed_64_bit(block: Block, target: Symbol) -> None:
    edge = block.add_edge(Kind.POINTER64, 0, target, -(2**63))
    assert edge.addend == -(2**63)
    edge.addend = 2**63 - 1
    for addend in (2**63, -(2**63) - 1):
        with pytest.raises(GraphError, match="addend"):
            block.add_edge(Kind.POINTER64, 0, target, addend)
        with pytest.raises(GraphError, match="addend"):
            edge.addend = addend
    assert [edge.addend for edge in block.edges] == [2**63 - 1]


def test_zero_fill_blocks_only_keep_alive(graph: LinkGraph, block: Block, target: Symbol) -> None:
    zeros = graph.create_zero_fill_block(block.section, 8)
    with pytest.raises(GraphError, match="Pointer64 edge cannot modify a zero-fill block"):
        zeros.add_edge(Kind.POINTER64, 0, target)
    zeros.add_edge(Kind.KEEP_ALIVE, 0, target)
    assert offsets(zeros) == [0]


def test_target_must_be_of_the_graph(graph: LinkGraph, block: Block, target: Symbol) -> None:
    foreign = make_graph().add_external_symbol("foreign")
    removed = graph.add_external_symbol("removed")
    graph.remove_external_symbol(removed)
    edge = block.add_edge(Kind.POINTER64, 0, target)
    with pytest.raises(GraphError, match="symbol foreign belongs to another graph"):
        block.add_edge(Kind.POINTER64, 0, foreign)
    with pytest.raises(GraphError, match="symbol removed has been removed"):
        block.add_edge(Kind.POINTER64, 0, removed)
    with pytest.raises(GraphError, match="symbol foreign belongs to another graph"):
        edge.target = foreign
    with pytest.raises(GraphError, match="symbol removed has been removed"):
        edge.target = removed
    assert [edge.target for edge in block.edges] == [target]


def test_adding_and_reading_alternate_over_many_blocks(graph: LinkGraph, target: Symbol) -> None:
    section = graph.create_section("a", READ)
    blocks = [graph.create_content_block(section, bytes(8)) for _ in range(60)]
    for step in range(8):
        for number, block in enumerate(blocks):
            block.add_edge(Kind.KEEP_ALIVE, step, target, number)
            assert offsets(block) == list(range(step + 1))
    assert [[edge.addend for edge in block.edges] for block in blocks] == [
        [number] * 8 for number in range(60)
    ]


def test_columns_written_in_bulk_are_seen(graph: LinkGraph, block: Block, target: Symbol) -> None:
    other = graph.create_content_block(block.section, bytes(200))
    block.add_edge(Kind.POINTER64, 0, target)
    assert offsets(block) == [0]
    table = graph.edge_table
    table.extend(200, block=other.row, offset=np.arange(200), kind=Kind.DELTA32, target=target.row)
    assert offsets(other) == list(range(200))
    table.block[1:101] = block.row
    table.invalidate()
    assert offsets(block) == [0, *range(100)]
    assert offsets(other) == list(range(100, 200))
    table.keep((table.offset % 50 == 0) & (table.kind == Kind.DELTA32))
    assert offsets(block) == [0, 50]
    assert offsets(other) == [100, 150]


def test_by_block_sorts_all_rows(graph: LinkGraph, block: Block, target: Symbol) -> None:
    other = graph.create_content_block(block.section, bytes(8))
    for source in (other, block, other, block):
        source.add_edge(Kind.KEEP_ALIVE, 0, target)
    order, blocks = graph.edge_table.by_block()
    assert order.tolist() == [1, 3, 0, 2]
    assert blocks.tolist() == [block.row, block.row, other.row, other.row]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 3), st.integers(1, 40)),
            st.tuples(st.just("remove"), st.integers(0, 3), st.integers(0, 40)),
            st.tuples(st.just("move"), st.integers(0, 3), st.integers(0, 40)),
            st.tuples(st.just("prune"), st.just(0), st.just(0)),
        )
    )
)
def test_edges_by_block_against_a_plain_list(steps: list[tuple[str, int, int]]) -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    blocks = [graph.create_content_block(section, bytes(8)) for _ in range(4)]
    target = graph.add_external_symbol("t")
    model: list[tuple[int, int]] = []  # (block, addend) of each edge, in order of its row
    serial = 0
    for step, number, argument in steps:
        mine = [index for index, (block, _) in enumerate(model) if block == number]
        if step == "add":
            for _ in range(argument):
                serial += 1
                blocks[number].add_edge(Kind.DELTA32, 0, target, serial)
                model.append((number, serial))
        elif step == "prune":
            graph.edge_table.keep(graph.edge_table.kind != 0)
        elif argument < len(mine):
            chosen = mine[argument]
            edge = list(blocks[number].edges)[argument]
            assert edge.addend == model[chosen][1]
            if step == "remove":
                edge.remove()
                del model[chosen]
            else:
                graph.edge_table.block[edge.row] = blocks[3 - number].row
                graph.edge_table.invalidate()
                model[chosen] = (3 - number, model[chosen][1])
        for index, block in enumerate(blocks):
            expected = [addend for owner, addend in model if owner == index]
            assert [edge.addend for edge in block.edges] == expected
