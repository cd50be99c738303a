"""WaitingOnGraph, against its specification, and the number of super-nodes that it visits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jitlink.orc import ExecutionSession, JITDylib, SymbolState
from jitlink.orc.dylib import Definition
from jitlink.orc.errors import Failure
from jitlink.orc.waiting_on_graph import WaitingOnGraph
from tests.orc.units import EXPORTED, IS_LONG

COUNT = 9
READY, EMITTED = SymbolState.READY, SymbolState.EMITTED


@pytest.fixture(scope="module")
def dylib() -> Iterator[JITDylib]:
    with ExecutionSession() as session:
        yield session.create_jitdylib("main")


def make(dylib: JITDylib, count: int) -> list[Definition]:
    return [Definition(dylib, {str(n): EXPORTED}, dylib.default_tracker) for n in range(count)]


Graph = WaitingOnGraph[Definition]


def emit(
    graph: Graph, definitions: Sequence[Definition], batch: Sequence[int], needs: Sequence[set[int]]
) -> None:
    graph.emit(
        [([definitions[n]], {definitions[need]: {str(need)} for need in needs[n]}) for n in batch]
    )


@settings(max_examples=2000 if IS_LONG else 200)
@given(data=st.data())
def test_what_is_ready(dylib: JITDylib, data: st.DataObject) -> None:
    numbers = st.integers(0, COUNT - 1)
    needs = data.draw(st.lists(st.sets(numbers, max_size=3), min_size=COUNT, max_size=COUNT))
    order = data.draw(st.permutations(range(COUNT)))
    cuts = sorted(data.draw(st.sets(numbers)) | {0, COUNT})
    lost_at = data.draw(st.none() | st.sampled_from(cuts))
    definitions, graph = make(dylib, COUNT), Graph()
    emitted: set[int] = set()
    lost: set[int] = set()
    for low, high in pairwise(cuts):
        if low == lost_at:
            victim = order[data.draw(numbers)]
            if definitions[victim].state < READY:
                failed = graph.fail([definitions[victim]])
                lost.add(victim)
                for _ in range(COUNT):
                    lost |= {n for n in emitted if definitions[n].state < READY and needs[n] & lost}
                assert {int(next(iter(definition.flags))) for definition in failed} == lost
                for definition in failed:
                    definition.failure = Failure("unit", None)
        batch = [n for n in order[low:high] if n not in lost and not needs[n] & lost]
        emit(graph, definitions, batch, needs)
        emitted |= set(batch)
        ready = set(emitted) - lost
        while any(not needs[n] <= ready for n in ready):
            ready = {n for n in ready if needs[n] <= ready}
        for number in emitted - lost:
            assert (definitions[number].state is READY) == (number in ready)
            assert (definitions[number].super_node is None) == (number in ready)
    for number, definition in enumerate(definitions):
        if number not in emitted:
            assert all(waiter.elements for waiter in definition.waiters)
        else:
            assert not definition.waiters


def chain(count: int) -> list[set[int]]:
    return [{number + 1} if number + 1 < count else set() for number in range(count)]


def cycle(count: int) -> list[set[int]]:
    return [{(number + 1) % count} for number in range(count)]


def random_needs(count: int) -> list[set[int]]:
    generator = random.Random(1)
    return [{generator.randrange(count) for _ in range(3)} for _ in range(count)]


TOPOLOGIES = {"chain": chain, "cycle": cycle, "random": random_needs}


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_search_grows_with_the_symbols(dylib: JITDylib, topology: str, order: str) -> None:
    for count in (1000, 2000, 4000):
        needs, definitions, graph = TOPOLOGIES[topology](count), make(dylib, count), Graph()
        numbers = list(range(count))
        if order == "backwards":
            numbers.reverse()
        elif order == "shuffled":
            random.Random(2).shuffle(numbers)
        for number in numbers:
            emit(graph, definitions, [number], needs)
        assert all(definition.state is READY for definition in definitions)
        assert graph.searched <= 10 * count
