"""The order of links with ifuncs: resolvers run when the memory of their graph is finalized.

What a resolver calls in other graphs has to be in executor memory by then. Links wait for each
other only until addresses are known, so a graph with ifuncs waits longer: until what its resolvers
refer to, directly or through other code of the graph, has been emitted. Graphs whose resolvers need
each other cannot all wait; the one that would close the circle does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary

import numpy as np

from jitlink.graph import LinkGraph
from jitlink.graph.tables import DEFINED, EXTERNAL
from jitlink.orc.dylib import Definition
from jitlink.orc.interface import SymbolState
from jitlink.orc.lookup import wait_until_emitted
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.passes.ifunc import RESOLVER_SECTION

_waits: WeakKeyDictionary[object, list[object]] = WeakKeyDictionary()
"""For each responsibility that waits, those whose symbols it waits for."""


async def wait_for_callees(
    responsibility: MaterializationResponsibility,
    graph: LinkGraph,
    found: Mapping[str, Definition],
) -> None:
    """Wait until what a graph's resolvers need of other graphs has been emitted.

    Args:
        responsibility: the graph's.
        graph: the graph, whose symbols have their addresses.
        found: the definitions of its external symbols, by name.

    Raises:
        FailedToMaterializeError: some of them could not be materialized, or were removed meanwhile.
        SessionEndedError: the session ends meanwhile.
    """
    needed: dict[str, Definition] = {}
    for name in _names_of_resolvers(graph):
        definition = found.get(name)
        if definition is not None and definition.is_in_progress:
            other = definition.responsibility
            if definition.state < SymbolState.EMITTED and not _leads_to(other, responsibility):
                needed[name] = definition
    if not needed:
        return
    _waits[responsibility] = [each.responsibility for each in needed.values()]
    try:
        await wait_until_emitted(responsibility.session, needed)
    finally:
        del _waits[responsibility]


def _leads_to(start: object, end: object) -> bool:
    """Whether a responsibility is another one, or waits for it, directly or not."""
    seen: list[object] = []
    left = [start]
    while left:
        each = left.pop()
        if each is end:
            return True
        if each is not None and not any(each is other for other in seen):
            seen.append(each)
            left += _waits.get(each, ())
    return False


def _names_of_resolvers(graph: LinkGraph) -> Iterable[str]:
    """Names of the external symbols that the resolvers of a graph can reach."""
    edges, symbols, blocks = graph.edge_table, graph.symbol_table, graph.block_table
    reached = np.zeros(blocks.rows, np.bool_)
    for ordinal in graph.section_list.ordinals_named(RESOLVER_SECTION):
        reached |= blocks.section == ordinal
    targets, count = np.empty(0, np.int64), 0
    while count != (count := int(np.count_nonzero(reached))):
        targets = edges.target[reached[edges.block]]
        reached[symbols.block[targets[symbols.kind[targets] == DEFINED]]] = True
    rows = np.unique(targets[symbols.kind[targets] == EXTERNAL])
    return graph.strings.get_many(symbols.name[rows])
