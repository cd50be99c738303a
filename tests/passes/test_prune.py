"""Dead-stripping: what live symbols reach is kept, at a cost linear in the size of the graph.

Cost is counted, not timed: executed lines of Python, and elements that array operations process.
"""

import copy
import ctypes
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitlink.errors import ObjectError
from jitlink.graph import (
    Block,
    BlockFlags,
    EdgeKind,
    Linkage,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    Symbol,
    SymbolFlags,
    SymbolKind,
)
from jitlink.graph.columns import Int64Array
from jitlink.graph.edges import INVALID, KEEP_ALIVE
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME
from jitlink.passes import prune as module
from jitlink.passes.linker_defined import NO_OBJECT
from jitlink.passes.prune import mark_exported_live, mark_reachable, prune
from tests.linking import Linker
from tests.toolchain import compile_c


class Kind(EdgeKind):
    """Edge kinds, one of which modifies its block."""

    INVALID = 0, "INVALID RELOCATION"
    KEEP_ALIVE = 1, "Keep-Alive"
    POINTER = 2, "Pointer"


class Nodes:
    """A graph of small blocks, one symbol each."""

    def __init__(self, count: int) -> None:
        self.graph = LinkGraph("nodes.o", "none", edge_kinds=Kind)
        self.section = self.graph.create_section(".text", MemProt.READ | MemProt.EXEC)
        self.blocks = [
            self.graph.create_content_block(self.section, bytes(8)) for _ in range(count)
        ]
        self.symbols = [
            self.graph.add_defined_symbol(block, 0, f"s{number}", scope=Scope.HIDDEN)
            for number, block in enumerate(self.blocks)
        ]

    def connect(self, *pairs: tuple[int, int], kind: int = Kind.POINTER) -> None:
        for source, target in pairs:
            self.blocks[source].add_edge(kind, 0, self.symbols[target])

    def live_after(self, *roots: int) -> set[int]:
        """Prune from these roots; returns the indices of the blocks that are kept."""
        for root in roots:
            self.symbols[root].is_live = True
        prune(self.graph)
        rows = set(self.graph.block_rows().tolist())
        return {number for number, block in enumerate(self.blocks) if block.row in rows}


def test_only_what_roots_reach_is_kept() -> None:
    nodes = Nodes(6)
    nodes.connect((0, 1), (1, 2), (3, 4), (4, 0))
    assert nodes.live_after(0) == {0, 1, 2}
    names = {symbol.name for symbol in nodes.graph.defined_symbols}
    assert names == {"s0", "s1", "s2"}
    assert len(nodes.graph.edge_table.block) == 2


def test_several_roots() -> None:
    nodes = Nodes(6)
    nodes.connect((0, 1), (2, 3), (3, 2), (4, 5))
    assert nodes.live_after(0, 3) == {0, 1, 2, 3}


def test_no_roots() -> None:
    nodes = Nodes(3)
    nodes.connect((0, 1), (1, 2))
    assert nodes.live_after() == set()
    assert list(nodes.graph.defined_symbols) == []


@pytest.mark.parametrize("root", range(4))
def test_cycles(root: int) -> None:
    nodes = Nodes(6)
    nodes.connect((0, 1), (1, 2), (2, 3), (3, 0), (4, 4), (4, 5), (5, 4))
    assert nodes.live_after(root) == {0, 1, 2, 3}


def test_a_block_that_only_refers_to_itself() -> None:
    nodes = Nodes(2)
    nodes.connect((0, 0), (1, 1))
    assert nodes.live_after(1) == {1}


def test_keep_alive_edges() -> None:
    nodes = Nodes(4)
    nodes.connect((0, 1), (1, 2), kind=KEEP_ALIVE)
    nodes.connect((3, 0), kind=KEEP_ALIVE)
    assert nodes.live_after(0) == {0, 1, 2}


def test_removed_edges_keep_nothing() -> None:
    nodes = Nodes(3)
    nodes.connect((0, 1), (1, 2))
    next(iter(nodes.blocks[0].edges)).remove()
    assert nodes.live_after(0) == {0}
    assert INVALID not in nodes.graph.edge_table.kind


def test_live_blocks_are_roots() -> None:
    nodes = Nodes(3)
    nodes.connect((1, 2))
    nodes.graph.block_table.flags[nodes.blocks[1].row] |= BlockFlags.LIVE
    assert nodes.live_after() == {1, 2}


def test_a_live_symbol_keeps_its_whole_block() -> None:
    nodes = Nodes(2)
    inner = nodes.graph.add_anonymous_symbol(nodes.blocks[1], 4)
    nodes.blocks[0].add_edge(Kind.POINTER, 0, inner)
    assert nodes.live_after(0) == {0, 1}
    # The block is kept, but not its unreferenced name.
    assert {symbol.name for symbol in nodes.graph.defined_symbols} == {"s0", ""}


def test_referenced_external_and_absolute_symbols_are_kept() -> None:
    nodes = Nodes(2)
    graph = nodes.graph
    used, unused = graph.add_external_symbol("used"), graph.add_external_symbol("unused")
    fixed = graph.add_absolute_symbol("fixed", 1, scope=Scope.LOCAL)
    graph.add_absolute_symbol("idle", 2, scope=Scope.LOCAL)
    graph.add_absolute_symbol("exported", 3, is_live=True)
    for target in (used, fixed):
        nodes.blocks[0].add_edge(Kind.POINTER, 0, target)
    nodes.blocks[1].add_edge(Kind.POINTER, 0, unused)
    assert nodes.live_after(0) == {0}
    assert [symbol.name for symbol in graph.external_symbols] == ["used"]
    assert {symbol.name for symbol in graph.absolute_symbols} == {"fixed", "exported"}


def test_exported_symbols_are_roots_by_default() -> None:
    graph = Nodes(0).graph
    section = graph.create_section(".data", MemProt.READ | MemProt.WRITE)

    def add(name: str, linkage: Linkage, scope: Scope) -> Symbol:
        block = graph.create_content_block(section, bytes(8))
        return graph.add_defined_symbol(block, 0, name, linkage=linkage, scope=scope)

    exported = [
        add("strong", Linkage.STRONG, Scope.DEFAULT),
        add("weak", Linkage.WEAK, Scope.DEFAULT),
        add("hidden", Linkage.STRONG, Scope.HIDDEN),
        graph.add_absolute_symbol("absolute", 1),
    ]
    others = [
        add("local", Linkage.STRONG, Scope.LOCAL),
        graph.add_anonymous_symbol(graph.create_content_block(section, bytes(8)), 0),
        graph.add_external_symbol("external"),
    ]
    mark_exported_live(graph)
    assert all(symbol.is_live for symbol in exported)
    assert not any(symbol.is_live for symbol in others)


@given(data=st.data(), count=st.integers(1, 60))
def test_any_graph(data: st.DataObject, count: int) -> None:
    """The result is that of a plain traversal, also where the frontier becomes small or large."""
    node = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=4 * count))
    hub = data.draw(st.integers(0, 3 * count))
    pairs += [(0, (number * 7) % count) for number in range(hub)]
    roots = data.draw(st.sets(node, max_size=count))
    found, pending = set(roots), list(roots)
    while pending:
        source = pending.pop()
        fresh = {target for origin, target in pairs if origin == source} - found
        found |= fresh
        pending += fresh
    pairs.sort()
    targets = np.array([target for _, target in pairs], np.int64)
    starts = np.searchsorted([source for source, _ in pairs], np.arange(count + 1))
    live = np.zeros(count, np.bool_)
    live[list(roots)] = True
    mark_reachable(targets, starts, live)
    assert set(np.flatnonzero(live).tolist()) == found


# Row by row

_TABLES = ("block_table", "symbol_table", "edge_table")


def random_graph(draw: Callable[..., Any]) -> LinkGraph:
    """Blocks and symbols of any kind, some of them removed, and edges of any kind."""
    graph = LinkGraph("any.o", "none", edge_kinds=Kind)
    for name, lifetime in ((".text", MemLifetime.STANDARD), (".debug", MemLifetime.NO_ALLOC)):
        graph.create_section(name, MemProt.READ, lifetime)
    count, most = draw(st.integers(1, 8)), BlockFlags.REMOVED | BlockFlags.LIVE

    def column(size: int, most: int) -> list[int]:
        found: list[int] = draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
        return found

    section = [int(each == 0) for each in column(count, 5)]
    graph.block_table.extend(count, section=section, size=8, alignment=1, flags=column(count, most))
    kinds = column(draw(st.integers(1, 16)), SymbolKind.REMOVED)
    block = [
        place if kind == SymbolKind.DEFINED else NO_BLOCK
        for kind, place in zip(kinds, column(len(kinds), count - 1), strict=True)
    ]
    flags = column(len(kinds), SymbolFlags.LIVE | SymbolFlags.CALLABLE)
    graph.symbol_table.extend(len(kinds), name=NO_NAME, kind=kinds, block=block, flags=flags)
    edges = draw(st.integers(0, 24))
    target, kind = column(edges, len(kinds) - 1), column(edges, Kind.POINTER)
    places = column(edges, count - 1)
    graph.edge_table.extend(edges, block=places, kind=kind, target=target, addend=range(edges))
    return graph


def outcome(graph: LinkGraph) -> object:
    """The tables of a graph after pruning, or the error."""
    try:
        prune(graph)
    except ObjectError as error:
        return str(error)
    tables = [getattr(graph, name) for name in _TABLES]
    return [{name: getattr(table, name).tolist() for name in table.FIELDS} for table in tables]


# A difference may be in one graph of a hundred.
@settings(max_examples=600)
@given(data=st.data())
def test_row_by_row_is_as_by_columns(data: st.DataObject) -> None:
    graph = random_graph(data.draw)
    other = copy.deepcopy({name: getattr(graph, name) for name in _TABLES})
    by_row = outcome(graph)
    vars(graph).update(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW_ROWS", 0)
        assert outcome(graph) == by_row


def test_a_graph_of_few_rows_is_pruned_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_live_blocks", None)
    nodes = Nodes(3)
    nodes.connect((0, 1))
    assert nodes.live_after(0) == {0, 1}


# References to symbols without an address


def test_references_to_sections_that_are_not_loaded() -> None:
    nodes = Nodes(1)
    debug = nodes.graph.create_section(".debug", MemProt.READ, MemLifetime.NO_ALLOC)
    block = nodes.graph.create_content_block(debug, bytes(8))
    target = nodes.graph.add_defined_symbol(block, 0, "note", scope=Scope.LOCAL)
    nodes.blocks[0].add_edge(Kind.POINTER, 4, target)
    graph, row = nodes.graph, nodes.blocks[0].row
    graph.origins[:] = ["first.o", "second.o"]
    for origin, name in ((1, "second.o"), (NO_OBJECT, graph.name)):
        graph.block_table.origin[row] = origin
        with pytest.raises(
            ObjectError, match=r".text\+0x4: refers to note, in a section that is not loa"
        ) as caught:
            nodes.live_after(0)
        assert caught.value.file == name


def test_keep_alive_edges_to_sections_that_are_not_loaded() -> None:
    nodes = Nodes(1)
    debug = nodes.graph.create_section(".debug", MemProt.READ, MemLifetime.NO_ALLOC)
    block = nodes.graph.create_content_block(debug, bytes(8))
    target = nodes.graph.add_defined_symbol(block, 0, "note", scope=Scope.LOCAL)
    nodes.blocks[0].add_edge(KEEP_ALIVE, 0, target)
    block.add_edge(Kind.POINTER, 0, target)
    assert nodes.live_after(0) == {0}
    assert [each.name for each in nodes.graph.defined_symbols] == ["s0", "note"]


def test_references_into_a_discarded_group() -> None:
    """A reference to a local symbol of the group would otherwise have the value 0."""
    source = """
        .section .text.shared, "axG", @progbits, shared, comdat
        .weak shared
    shared: ret
    inner:  ret
        .text
        .globl {0}
    {0}: jmp inner
    """
    first, second = (compile_c(source.format(name), "clang", suffix=".s") for name in ("f", "g"))
    with Linker() as linker:
        linker.link(first)
        with pytest.raises(
            ObjectError, match=r"section .text\+0x1: refers to .*discarded"
        ) as caught:
            linker.link(first, second)
        assert caught.value.file == str(second)


# Cost

Trace = Callable[[FrameType, str, Any], Any]


class Work:
    """Counts executed lines of the module, and elements that its array operations process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.amount = 0
        for name, size in (("rows_where", len), ("ragged_arange", len)):
            original = getattr(module, name)
            monkeypatch.setattr(module, name, self._counting(original, size))

    def _counting(
        self, original: Callable[..., Any], size: Callable[..., int]
    ) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:  # noqa: ANN401
            result = original(*arguments)
            self.amount += max(map(size, (*arguments, result)))
            return result

        return counted

    def _trace(self, frame: FrameType, event: str, argument: object) -> Trace | None:
        del argument
        if frame.f_code.co_filename != module.__file__:
            return None
        self.amount += event == "line"
        return self._trace

    def of(self, targets: Int64Array, starts: Int64Array, roots: int) -> int:
        """The work for one graph, all nodes of which the first `roots` nodes reach."""
        live = np.zeros(len(starts) - 1, np.bool_)
        live[:roots] = True
        self.amount = 0
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            mark_reachable(targets, starts, live)
        finally:
            sys.settrace(before)
        assert live.all()
        return self.amount


def fanned(count: int, step: int, fan: int) -> tuple[Int64Array, Int64Array]:
    """Each node has an edge to the node `step` after it, and `fan` more edges to the last node."""
    targets = np.full((count, fan + 1), count - 1, np.int64)
    targets[:, 0] = np.minimum(np.arange(count) + step, count - 1)
    return targets.reshape(-1), np.arange(count + 1) * (fan + 1)


def tree(count: int) -> tuple[Int64Array, Int64Array]:
    """A binary tree."""
    children = np.minimum(2 * np.arange(count)[:, None] + (1, 2), count - 1)
    return children.reshape(-1), np.arange(count + 1) * 2


def star(count: int) -> tuple[Int64Array, Int64Array]:
    """The first node has edges to all others."""
    return np.arange(count), np.append(0, np.full(count, count))


def cycle(count: int) -> tuple[Int64Array, Int64Array]:
    return (np.arange(count) + 1) % count, np.arange(count + 1)


GRAPHS: dict[str, tuple[Callable[[int], tuple[Int64Array, Int64Array]], int]] = {
    "chain": (lambda count: fanned(count, 1, 0), 1),
    "chain of large blocks": (lambda count: fanned(count, 1, 60), 1),
    "narrow layers": (lambda count: fanned(count, 10, 0), 10),
    "wide layers": (lambda count: fanned(count, 60, 0), 60),
    "tree": (tree, 1),
    "star": (star, 1),
    "cycle": (cycle, 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_work_is_linear(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, roots = GRAPHS[name]
    work = Work(monkeypatch)
    small, large = (work.of(*make(count), roots) for count in (1000, 10_000))
    assert large <= 12 * small


def test_a_cycle_is_no_more_work_than_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch)
    chain, round_trip = (work.of(*GRAPHS[name][0](5000), 1) for name in ("chain", "cycle"))
    assert round_trip <= 1.1 * chain


@pytest.fixture(scope="module")
def long_chain() -> LinkGraph:
    """100,000 blocks, each with an edge to the next, and as many in a cycle."""
    count = 100_000
    graph = LinkGraph("chain.o", "none", edge_kinds=Kind)
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    content = graph.contents.add(bytes(8))
    graph.block_table.extend(
        2 * count, section=section.ordinal, size=8, alignment=1, content=content
    )
    rows = np.arange(2 * count)
    graph.symbol_table.extend(2 * count, name=-1, block=rows, scope=Scope.LOCAL)
    graph.edge_table.extend(count - 1, block=rows[: count - 1], kind=2, target=rows[1:count])
    graph.edge_table.extend(count, block=rows[count:], kind=2, target=np.roll(rows[count:], 1))
    Symbol(graph, 0).is_live = True
    return graph


def test_a_chain_of_100000(long_chain: LinkGraph) -> None:
    prune(long_chain)
    assert np.array_equal(long_chain.block_rows(), np.arange(100_000))
    assert len(list(Block(long_chain, 99_999).edges)) == 0
    assert len(long_chain.edge_table.block) == 99_999


def test_dead_functions_of_a_program_are_removed() -> None:
    source = """
        static int dead_leaf(int n) { return n * 3; }
        int dead(int n) { return n ? dead(n - 1) : dead_leaf(n); }
        static int leaf(int n) { return n + 1; }
        int live(int n) { return leaf(n); }
    """
    data = compile_c(source, flags=["-O0", "-ffunction-sections"])
    with Linker() as linker:
        linked = linker.link(data)
        assert linked.function("live", ctypes.c_int, ctypes.c_int)(1) == 2
        names = {block.section.name for block in linked.graph.blocks}
        assert ".text.leaf" in names
        assert ".text.dead_leaf" in names
    with Linker() as linker:
        linked = linker.link(data, configure=lambda graph, _: only(graph, "live"))
        names = {block.section.name for block in linked.graph.blocks}
        assert {".text.live", ".text.leaf"} <= names
        assert names.isdisjoint({".text.dead", ".text.dead_leaf"})


def only(graph: LinkGraph, name: str) -> None:
    """Make all symbols but one local."""
    for symbol in graph.defined_symbols:
        if symbol.has_name and symbol.name != name:
            symbol.scope = Scope.LOCAL
