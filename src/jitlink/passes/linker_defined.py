"""Symbols that a linker defines: bounds of sections, the handle of a shared object.

Objects refer to such symbols without anybody defining them. `synthesize_symbols` offers each
external symbol to a table of definers, by exact name or by prefix; a definer turns the symbol
into a defined one or leaves it alone. Whoever needs one more such symbol adds one row.

Specification: GNU ld manual, "Encapsulation symbols" (`__start_` and `__stop_` of sections
whose name is a C identifier); Itanium C++ ABI, 3.3.6 (`__dso_handle`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jitlink.graph import (
    Block,
    BlockFlags,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    Section,
    Symbol,
)
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED

Definer = Callable[[LinkGraph, Symbol, str], None]
"""Called with the graph, an external symbol, and its name without the prefix."""

_FIRST, _LAST = -1, np.iinfo(np.int32).max


def synthesize_symbols(
    graph: LinkGraph, exact: Mapping[str, Definer], prefixes: Mapping[str, Definer]
) -> None:
    """Let definers define external symbols (for a pre-prune pass).

    Args:
        graph: the graph.
        exact: definers by name.
        prefixes: definers by the beginning of a name.
    """
    rows, names = graph.external_names()
    beginnings = tuple(prefixes)
    for name, row in zip(names, rows.tolist(), strict=True):
        if name in exact:
            exact[name](graph, Symbol(graph, row), name)
        elif name.startswith(beginnings):
            prefix = next(each for each in beginnings if name.startswith(each))
            prefixes[prefix](graph, Symbol(graph, row), name[len(prefix) :])


def define_section_start(graph: LinkGraph, symbol: Symbol, section_name: str) -> None:
    """Point a symbol at the first byte of a section, and keep the section alive with it."""
    _define_bound(graph, symbol, section_name, 0)


def define_section_stop(graph: LinkGraph, symbol: Symbol, section_name: str) -> None:
    """Point a symbol behind the last byte of a section, and keep the section alive with it."""
    _define_bound(graph, symbol, section_name, 1)


def define_dso_handle(graph: LinkGraph, symbol: Symbol, _name: str) -> None:
    """Give the graph an address of its own, by which run-time registrations are told apart."""
    section = graph.obtain_section("$__DSO_HANDLE", MemProt.READ)
    block = graph.create_content_block(section, bytes(graph.pointer_size), 0, graph.pointer_size)
    # It is part of no object.
    graph.block_table.origin[block.row] = _FIRST
    graph.make_defined(symbol, block, 0, graph.pointer_size, scope=Scope.LOCAL)


ELF_EXACT: Mapping[str, Definer] = {"__dso_handle": define_dso_handle}
ELF_PREFIXES: Mapping[str, Definer] = {
    "__start_": define_section_start,
    "__stop_": define_section_stop,
}


def synthesize_elf_symbols(graph: LinkGraph) -> None:
    """The pre-prune pass for ELF graphs."""
    synthesize_symbols(graph, ELF_EXACT, ELF_PREFIXES)


def _define_bound(graph: LinkGraph, symbol: Symbol, section_name: str, side: int) -> None:
    section = graph.find_section_by_name(section_name)
    if not section_name.isidentifier() or section is None or section.empty:
        return
    if section.mem_lifetime == MemLifetime.NO_ALLOC:
        return
    anchors = _find_anchors(section) or _add_anchors(section)
    graph.make_defined(symbol, anchors[side], 0, 0, scope=Scope.LOCAL)


def _find_anchors(section: Section) -> tuple[Block, Block] | None:
    """The empty blocks that begin and end a section, if it has them."""
    graph, table = section.graph, section.graph.block_table
    rows = section.block_rows()
    first = rows[(table.origin[rows] == _FIRST) & (table.size[rows] == 0)]
    last = rows[(table.origin[rows] == _LAST) & (table.size[rows] == 0)]
    if len(first) == 0 or len(last) == 0:
        return None
    return Block(graph, int(first[0])), Block(graph, int(last[0]))


def _add_anchors(section: Section) -> tuple[Block, Block]:
    """Add an empty block at each end of a section; the first keeps all others alive."""
    graph, table = section.graph, section.graph.block_table
    rows = section.block_rows()
    zero_fill = table.content[rows] == ZERO_FILL
    # The anchor is as aligned as what follows it, so that no padding comes between.
    alignment = int(table.alignment[rows].max())
    first = _add_anchor(section, _FIRST, alignment, zero_fill=bool(zero_fill.all()))
    last = _add_anchor(section, _LAST, 1, zero_fill=bool(zero_fill.any()))
    targets = np.append(rows, last.row)
    symbol = graph.symbol_table.extend(
        len(targets), name=NO_NAME, kind=DEFINED, block=targets, scope=Scope.LOCAL
    )
    symbols = np.arange(symbol, symbol + len(targets))
    graph.edge_table.extend(len(targets), block=first.row, kind=KEEP_ALIVE, target=symbols)
    graph.add_edge(last, KEEP_ALIVE, 0, graph.add_anonymous_symbol(first, 0))
    return first, last


def _add_anchor(section: Section, origin: int, alignment: int, *, zero_fill: bool) -> Block:
    graph = section.graph
    if zero_fill:
        block = graph.create_zero_fill_block(section, 0, 0, alignment)
    else:
        block = graph.create_content_block(section, b"", 0, alignment)
    graph.block_table.origin[block.row] = origin
    graph.block_table.flags[block.row] &= ~np.uint8(BlockFlags.LIVE)
    return block
