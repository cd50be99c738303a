"""Linker-defined symbols: external symbols that the linker itself defines.

`synthesize_symbols` passes each external symbol to the definer of its exact name or of a prefix of
it; a definer turns the symbol into a defined one or leaves it external. Which symbols a format has
is a table of that format's. `define_section_start` and `define_section_stop` are the definers of
encapsulation symbols.

Specification: GNU ld manual, "Encapsulation symbols" (`__start_` and `__stop_` of sections
whose name is a C identifier).
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

# Origins that sort before and behind those of all objects.
_FIRST, _LAST = -1, np.iinfo(np.int32).max


def synthesize_symbols(
    graph: LinkGraph, exact: Mapping[str, Definer], prefixes: Mapping[str, Definer]
) -> None:
    """Call the definers of external symbols (for a pre-prune pass).

    Args:
        graph: the graph.
        exact: definers by name.
        prefixes: definers by prefix of a name.
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
    """Define a symbol at the start of a section, which the symbol then keeps alive."""
    _define_bound(graph, symbol, section_name, 0)


def define_section_stop(graph: LinkGraph, symbol: Symbol, section_name: str) -> None:
    """Define a symbol at the end of a section, which the symbol then keeps alive."""
    _define_bound(graph, symbol, section_name, 1)


def _define_bound(graph: LinkGraph, symbol: Symbol, section_name: str, side: int) -> None:
    if not section_name.isidentifier():
        return
    section = _output_section(graph, section_name)
    if section is not None:
        bounds = _find_bound_blocks(section) or _add_bound_blocks(section)
        graph.make_defined(symbol, bounds[side], 0, 0, scope=Scope.LOCAL)


def _output_section(graph: LinkGraph, name: str) -> Section | None:
    """One section of all loaded sections of a name, whose blocks are then contiguous.

    Constant and writable elements of a set are in sections of different protection. As in an output
    section of a static linker, the access that any of them needs holds for all. What would be
    writable and executable at once stays apart.
    """
    sections = [graph.section_list[each] for each in graph.section_list.ordinals_named(name)]
    loaded = [s for s in sections if s.mem_lifetime != MemLifetime.NO_ALLOC and not s.empty]
    if not loaded:
        return None
    output, *others = loaded
    for other in others:
        mem_prot = output.mem_prot | other.mem_prot
        if mem_prot & MemProt.WRITE and mem_prot & MemProt.EXEC:
            continue
        graph.block_table.section[other.block_rows()] = output.ordinal
        output.mem_prot = mem_prot
    return output


def _find_bound_blocks(section: Section) -> tuple[Block, Block] | None:
    """The empty blocks at the start and at the end of a section, if it has them."""
    graph, table = section.graph, section.graph.block_table
    rows = section.block_rows()
    first = rows[(table.origin[rows] == _FIRST) & (table.size[rows] == 0)]
    last = rows[(table.origin[rows] == _LAST) & (table.size[rows] == 0)]
    if len(first) == 0 or len(last) == 0:
        return None
    return Block(graph, int(first[0])), Block(graph, int(last[0]))


def _add_bound_blocks(section: Section) -> tuple[Block, Block]:
    """Add an empty block at each end of a section; the first keeps all others alive."""
    graph, table = section.graph, section.graph.block_table
    rows = section.block_rows()
    zero_fill = table.content[rows] == ZERO_FILL
    # The first block has the alignment of the section, so that no padding follows it.
    alignment = int(table.alignment[rows].max())
    first = _add_empty_block(section, _FIRST, alignment, zero_fill=bool(zero_fill.all()))
    last = _add_empty_block(section, _LAST, 1, zero_fill=bool(zero_fill.any()))
    targets = np.append(rows, last.row)
    symbol = graph.symbol_table.extend(
        len(targets), name=NO_NAME, kind=DEFINED, block=targets, scope=Scope.LOCAL
    )
    symbols = np.arange(symbol, symbol + len(targets))
    graph.edge_table.extend(len(targets), block=first.row, kind=KEEP_ALIVE, target=symbols)
    graph.add_edge(last, KEEP_ALIVE, 0, graph.add_anonymous_symbol(first, 0))
    return first, last


def _add_empty_block(section: Section, origin: int, alignment: int, *, zero_fill: bool) -> Block:
    graph = section.graph
    if zero_fill:
        block = graph.create_zero_fill_block(section, 0, 0, alignment)
    else:
        block = graph.create_content_block(section, b"", 0, alignment)
    graph.block_table.origin[block.row] = origin
    graph.block_table.flags[block.row] &= ~np.uint8(BlockFlags.LIVE)
    return block
