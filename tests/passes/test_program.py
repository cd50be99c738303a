"""Which objects a program needs, on random graphs, against the definition in so many words."""

import random

import numpy as np
import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind
from jitlink.graph import BlockFlags, LinkGraph, MemProt, Scope, Symbol, SymbolFlags
from jitlink.passes.program import mark_program_live
from jitlink.passes.prune import prune


class _Objects:
    """A graph of objects with blocks, one symbol a block; every third one is exported."""

    def __init__(self, objects: int, blocks: int) -> None:
        self.graph = LinkGraph("g", "x86_64-unknown-linux-gnu", edge_kinds=X86_64EdgeKind)
        self.graph.origins += [f"{number}.o" for number in range(objects)]
        section = self.graph.create_section("s", MemProt.READ)
        self.symbols: list[Symbol] = []
        self.owner: list[int] = []
        self.edges: list[set[int]] = [set() for _ in range(blocks)]
        for number in range(blocks):
            block = self.graph.create_content_block(section, b"12345678")
            scope = Scope.LOCAL if number % 3 else Scope.DEFAULT
            self.symbols.append(
                self.graph.add_defined_symbol(block, 0, f"s{number}", 0, scope=scope)
            )
            self.owner.append(number % objects)
            self.graph.block_table.origin[block.row] = number % objects

    def connect(self, source: int, target: int) -> None:
        self.edges[source].add(target)
        block = self.symbols[source].block
        self.graph.add_edge(block, X86_64EdgeKind.POINTER64, 0, self.symbols[target])

    def mark(self, *roots: int) -> None:
        rows = np.array([self.symbols[root].row for root in roots], np.int64)
        mark_program_live(self.graph, rows)

    def live(self) -> set[int]:
        flags = self.graph.symbol_table.flags
        return {n for n, s in enumerate(self.symbols) if flags[s.row] & SymbolFlags.LIVE}

    def expected(self, root: int) -> set[int]:
        """What is marked: the root, and what objects export that are reached from it."""
        seen, pending, objects = {root}, [root], set[int]()
        while pending:
            block = pending.pop()
            found = set(self.edges[block])
            if self.owner[block] not in objects:
                objects.add(self.owner[block])
                found |= self.exported(self.owner[block])
            pending += found - seen
            seen |= found
        return {root}.union(*(self.exported(each) for each in objects))

    def exported(self, owner: int) -> set[int]:
        return {n for n, each in enumerate(self.owner) if each == owner and n % 3 == 0}


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs(seed: int) -> None:
    chosen = random.Random(seed)
    objects = _Objects(chosen.randint(2, 30), 120)
    for _ in range(chosen.randint(0, 200)):
        objects.connect(chosen.randrange(120), chosen.randrange(120))
    objects.mark(0)
    assert objects.live() == objects.expected(0)


def test_dead_code_of_an_object_leads_nowhere() -> None:
    objects = _Objects(2, 6)
    # Block 2 is a local one of the first object, and nothing leads to it.
    objects.connect(2, 3)
    objects.mark(0)
    assert objects.live() == {0}
    objects.connect(0, 2)
    objects.mark(0)
    assert objects.live() == {0, 3}


def test_local_symbols_may_be_roots() -> None:
    objects = _Objects(2, 6)
    objects.mark(1)
    assert objects.live() == {1, 3}


def test_blocks_that_live_by_themselves_go_with_their_object() -> None:
    objects = _Objects(2, 12)
    for kept in (4, 5):
        objects.graph.block_table.flags[objects.symbols[kept].block.row] |= BlockFlags.LIVE
    # In the object that is needed such a block is a root, and leads to what it needs.
    objects.connect(4, 8)
    objects.mark(0)
    prune(objects.graph)
    names = {symbol.name for symbol in objects.graph.defined_symbols}
    assert names == {"s0", "s6", "s8"}
    assert len(list(objects.graph.blocks)) == 4


def test_blocks_of_the_linker_bring_in_no_object() -> None:
    objects = _Objects(3, 3)
    graph = objects.graph
    section = graph.create_section("$__X", MemProt.READ)
    own = graph.create_content_block(section, b"")
    graph.block_table.origin[own.row] = -1
    handle = graph.add_defined_symbol(own, 0, "__handle", 0, scope=Scope.HIDDEN)
    graph.add_defined_symbol(own, 0, "__unused", 0, scope=Scope.HIDDEN)
    graph.add_edge(objects.symbols[0].block, X86_64EdgeKind.POINTER64, 0, handle)
    objects.mark(0)
    prune(graph)
    assert {symbol.name for symbol in graph.defined_symbols} == {"s0", "__handle"}


def test_one_object_is_all_that_a_program_of_one_object_needs() -> None:
    objects = _Objects(1, 7)
    objects.mark(1)
    assert objects.live() == {0, 1, 3, 6}


def test_absolute_symbols_are_kept() -> None:
    objects = _Objects(2, 2)
    absolute = objects.graph.add_absolute_symbol("a", 16)
    mark_program_live(objects.graph, np.array([absolute.row]))
    assert objects.live() == set()
    assert objects.graph.symbol_table.flags[absolute.row] & SymbolFlags.LIVE


def test_long_chains_of_objects_are_followed() -> None:
    objects = _Objects(3000, 3000)
    for number in range(0, 2997, 3):
        objects.connect(number, number + 3)
    objects.mark(0)
    assert objects.live() == set(range(0, 3000, 3))
