"""What the symbols of a linked graph really reach outside it, computed from the graph.

A symbol reaches an external symbol if there is a way along edges, keep-alive edges included,
from its block to it. For each block that is a set of bits, one for each external symbol. The
sets grow along the edges backwards, for all blocks at once, until nothing changes. This goes
on for as many rounds as the longest way has edges, but a round is only about the blocks that
changed in the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import LinkGraph, SymbolKind
from jitlink.graph.columns import BoolArray, Int64Array, UInt64Array, ragged_arange, rows_where
from jitlink.graph.edges import INVALID
from jitlink.orc.materialization import SymbolDependenceGroup
from jitlink.orc.objects import Exported

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition

_WORDS_AT_ONCE = 1 << 22
"""Words of bits that a round may have in its hands: 32 MiB."""


def dependence_groups(
    graph: LinkGraph,
    exported: Exported,
    unready: Mapping[str, Definition],
) -> list[SymbolDependenceGroup]:
    """Group the symbols of a graph by what they reach.

    Args:
        graph: the graph, linked.
        exported: the symbols to be grouped.
        unready: external symbols that are not ready, with what defines them.

    Returns:
        The groups; a symbol that reaches nothing is in none of them.
    """
    table = graph.symbol_table
    externals = rows_where(table.kind == int(SymbolKind.EXTERNAL))
    names = graph.strings.get_many(table.name[externals])
    wanted = [number for number, name in enumerate(names) if name in unready]
    if not wanted:
        return []
    needed = [names[number] for number in wanted]
    reached = _reached_by_block(graph, externals[wanted])

    blocks = np.where(table.kind == int(SymbolKind.DEFINED), table.block, -1)[exported.rows]
    reaches: BoolArray = (reached != 0).any(axis=1)
    with_bits = rows_where((blocks >= 0) & reaches[blocks])
    sets, group_of = np.unique(reached[blocks[with_bits]], axis=0, return_inverse=True)
    groups = [_group(each, needed, unready) for each in sets]
    for row, number in zip(with_bits.tolist(), group_of.ravel().tolist(), strict=True):
        groups[number].symbols.add(exported.names[row])
    return groups


def _group(
    bits: UInt64Array, needed: list[str], unready: Mapping[str, Definition]
) -> SymbolDependenceGroup:
    group = SymbolDependenceGroup(set())
    words = bits.astype("<u8").view(np.uint8)
    for number in np.unpackbits(words, bitorder="little").nonzero()[0].tolist():
        name = needed[number]
        group.dependencies.setdefault(unready[name].dylib, set()).add(name)
    return group


def _reached_by_block(graph: LinkGraph, externals: Int64Array) -> UInt64Array:
    """For each block, which of some external symbols it reaches, as bits of 64-bit words."""
    edges, symbols = graph.edge_table, graph.symbol_table
    number_of = np.full(symbols.rows, -1, np.int64)
    number_of[externals] = np.arange(len(externals))
    direct = rows_where((number_of[edges.target] >= 0) & (edges.kind != INVALID))
    numbers = number_of[edges.target[direct]]

    words = (len(externals) + 63) // 64
    reached = np.zeros((graph.block_table.rows, words), np.uint64)
    bits = np.uint64(1) << (numbers % 64).astype(np.uint64)
    np.bitwise_or.at(reached, (edges.block[direct], numbers // 64), bits)

    starts, users = _users_of_blocks(graph)
    # Some words at a time, so that what a round works on has a bound.
    step = max(1, _WORDS_AT_ONCE // max(1, len(users)))
    for first in range(0, words, step):
        part = reached[:, first : first + step]
        _spread(part, starts, users)
    return reached


def _spread(reached: UInt64Array, starts: Int64Array, users: Int64Array) -> None:
    """Let every block reach what the blocks reach that it refers to."""
    reaches: BoolArray = (reached != 0).any(axis=1)
    changed = rows_where(reaches)
    while len(changed):
        counts = starts[changed + 1] - starts[changed]
        user = users[ragged_arange(starts[changed], counts)]
        new = reached[np.repeat(changed, counts)] & ~reached[user]
        grows: BoolArray = (new != 0).any(axis=1)
        user = user[grows]
        np.bitwise_or.at(reached, user, new[grows])
        changed = np.unique(user)


def _users_of_blocks(graph: LinkGraph) -> tuple[Int64Array, Int64Array]:
    """For each block, the blocks whose edges lead to it: where they start, and all of them."""
    edges, symbols = graph.edge_table, graph.symbol_table
    count = graph.block_table.rows
    target = np.where(symbols.kind == int(SymbolKind.DEFINED), symbols.block, -1)[edges.target]
    inner = rows_where((target >= 0) & (edges.kind != INVALID) & (target != edges.block))
    # Each pair once, in order of the block that is referred to.
    pairs = np.unique(target[inner] * count + edges.block[inner])
    starts: Int64Array = (pairs // max(count, 1)).searchsorted(np.arange(count + 1))
    users: Int64Array = pairs % max(count, 1)
    return starts, users
