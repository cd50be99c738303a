"""What the symbols of a graph reach, compared with a search of one symbol after the other."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from jitlink.graph import LinkGraph, Scope
from jitlink.orc import ExecutionSession, JITDylib
from jitlink.orc import link_context as module
from jitlink.orc.dylib import Definition
from jitlink.orc.link_context import dependence_groups
from jitlink.orc.objects import ExportedSymbols
from tests.graph.sample import READ_EXEC, Kind, make_graph
from tests.orc.units import EXPORTED

BLOCKS, EXTERNALS = 8, 5


def build(edges: Sequence[tuple[int, int]], blocks: int, externals: int) -> LinkGraph:
    """Blocks b0, b1, ... with a symbol each; targets from `blocks` on are externals e0, ..."""
    graph = make_graph()
    section = graph.create_section("text", READ_EXEC)
    created = [graph.create_content_block(section, bytes(64)) for _ in range(blocks)]
    symbols = [graph.add_defined_symbol(block, 0, f"b{n}") for n, block in enumerate(created)]
    symbols += [graph.add_external_symbol(f"e{number}") for number in range(externals)]
    for number, (block, target) in enumerate(edges):
        kind = Kind.KEEP_ALIVE if number % 3 == 0 else Kind.POINTER64
        created[block].add_edge(kind, 0, symbols[target])
    return graph


def definitions(dylib: JITDylib, names: Sequence[str]) -> dict[str, Definition]:
    tracker = dylib.default_tracker
    return {name: Definition(dylib, {name: EXPORTED}, tracker) for name in names}


def needs(graph: LinkGraph, unready: dict[str, Definition]) -> dict[str, set[tuple[str, str]]]:
    """The dependencies of each symbol in a group, with the name of the JITDylib."""
    found: dict[str, set[tuple[str, str]]] = {}
    for group in dependence_groups(graph, ExportedSymbols(graph), unready):
        needed = {(dylib.name, n) for dylib, names in group.dependencies.items() for n in names}
        assert needed
        for name in group.symbols:
            assert name not in found
            found[name] = needed
    return found


@given(
    edges=st.lists(st.tuples(st.integers(0, BLOCKS - 1), st.integers(0, BLOCKS + EXTERNALS - 1)),
                   max_size=25),
    ready=st.sets(st.integers(0, EXTERNALS - 1)),
)  # fmt: skip
def test_what_is_reached(edges: list[tuple[int, int]], ready: set[int]) -> None:
    reached: list[set[int]] = [set() for _ in range(BLOCKS)]
    for _ in range(BLOCKS):
        for block, target in edges:
            if target < BLOCKS:
                reached[block] |= reached[target]
            elif target - BLOCKS not in ready:
                reached[block].add(target - BLOCKS)
    with ExecutionSession() as session:
        dylibs = [session.create_jitdylib(name) for name in ("even", "odd")]
        unready: dict[str, Definition] = {}
        for number in set(range(EXTERNALS)) - ready:
            unready |= definitions(dylibs[number % 2], [f"e{number}"])
        graph = build(edges, BLOCKS, EXTERNALS)
        assert needs(graph, unready) == {
            f"b{block}": {(("even", "odd")[n % 2], f"e{n}") for n in numbers}
            for block, numbers in enumerate(reached)
            if numbers
        }


@pytest.mark.parametrize("words_at_once", [1, 1 << 22])
def test_a_cycle_of_many(monkeypatch: pytest.MonkeyPatch, words_at_once: int) -> None:
    """Every function of a cycle calls an external one: each of them depends on all."""
    monkeypatch.setattr(module, "_WORDS_AT_ONCE", words_at_once)
    count = 150
    edges = [(n, (n + 1) % count) for n in range(count)] + [(n, count + n) for n in range(count)]
    with ExecutionSession() as session:
        unready = definitions(session.create_jitdylib("main"), [f"e{n}" for n in range(count)])
        graph = build(edges, count, count)
        (group,) = dependence_groups(graph, ExportedSymbols(graph), unready)
        assert group.symbols == {f"b{number}" for number in range(count)}
        assert list(group.dependencies.values()) == [set(unready)]


def test_removed_edges_and_local_symbols_do_not_count() -> None:
    graph = build([(0, 2), (1, 2)], 2, 1)
    first, second = (graph.find_defined_symbol_by_name(name) for name in ("b0", "b1"))
    assert first
    assert second
    first.block.remove_edge(next(iter(first.block.edges)))
    graph.add_defined_symbol(second.block, 8, "hidden", scope=Scope.LOCAL)
    with ExecutionSession() as session:
        unready = definitions(session.create_jitdylib("main"), ["e0"])
        assert needs(graph, unready) == {"b1": {("main", "e0")}}
        assert needs(graph, {}) == {}
