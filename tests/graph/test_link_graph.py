"""The graph as a whole: its attributes."""

import pytest

from jitlink.graph import (
    AllocActionPair,
    EdgeKind,
    GenericEdgeKind,
    LinkGraph,
    WrapperCall,
)
from tests.graph.sample import Kind, make_graph


def test_attributes() -> None:
    graph = LinkGraph(
        "a.o",
        "powerpc-unknown-linux-gnu",
        pointer_size=4,
        endianness="big",
        edge_kinds=Kind,
        features=["+altivec"],
    )
    assert (graph.name, graph.triple) == ("a.o", "powerpc-unknown-linux-gnu")
    assert (graph.pointer_size, graph.endianness) == (4, "big")
    assert (graph.edge_kinds, graph.features) == (Kind, ("+altivec",))
    assert repr(graph) == "<LinkGraph a.o>"


def test_defaults() -> None:
    graph = LinkGraph("a.o", "x86_64-unknown-linux-gnu")
    assert (graph.pointer_size, graph.endianness, graph.features) == (8, "little", ())
    assert graph.edge_kinds is GenericEdgeKind
    assert graph.address_limit == 1 << 64
    assert (graph.alloc_actions, graph.origins, graph.sections_size) == ([], [], 0)
    for elements in (
        graph.sections,
        graph.blocks,
        graph.defined_symbols,
        graph.external_symbols,
        graph.absolute_symbols,
    ):
        assert list(elements) == []


def test_edge_kind_by_number() -> None:
    graph = make_graph()
    kinds: list[EdgeKind | int] = [3, Kind.DELTA32, GenericEdgeKind.KEEP_ALIVE]
    assert [graph.edge_kind(kind) for kind in kinds] == [
        Kind.DELTA32,
        Kind.DELTA32,
        Kind.KEEP_ALIVE,
    ]
    with pytest.raises(ValueError, match="77"):
        graph.edge_kind(77)


def test_allocation_actions() -> None:
    graph = make_graph()
    function = graph.add_external_symbol("register")
    pair = AllocActionPair(WrapperCall(function, b"\1"), WrapperCall(0x1000))
    graph.alloc_actions.append(pair)
    assert pair.finalize == WrapperCall(function, b"\1")
    assert pair.deallocate is not None
    assert pair.deallocate.arguments == b""
    assert AllocActionPair() == AllocActionPair(None, None)
