"""Ifuncs (STT_GNU_IFUNC): symbols whose value is what a resolver function returns.

Each ifunc becomes a stub that jumps through a pointer. An allocation action fills the pointers when
memory is finalized: a few instructions, in memory of the graph with finalize lifetime, call the
resolvers in the executor, so that the executor needs no support for ifuncs. Code and data refer to
the stub, so the address of an ifunc is the same everywhere.

Specification: "STT_GNU_IFUNC" in the System V psABI's GNU extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jitlink.graph import (
    AllocActionPair,
    Block,
    LinkGraph,
    MemLifetime,
    MemProt,
    Symbol,
    SymbolFlags,
    WrapperCall,
)
from jitlink.graph.columns import rows_where
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.graph.tables import DEFINED
from jitlink.passes.got_plt import GotPltSpec, add_stub

POINTERS_SECTION = "$__IRELATIVE"
RESOLVER_SECTION = "$__IRELATIVE_RESOLVER"


def ifunc_pass(
    spec: GotPltSpec, apply_irelative: bytes, imports: Mapping[str, int] | None = None
) -> Callable[[LinkGraph], None]:
    """A post-prune pass that replaces each ifunc by a stub.

    Args:
        spec: the architecture's GOT entries and stubs.
        apply_irelative: machine code of a wrapper function whose arguments are pairs of pointers:
            a resolver to call, and where to store its result. The code must be position
            independent and return SPS success.
        imports: functions that the code calls if they are defined: by name, the offset in the code
            of the pointer to the function, which is null if the function is not defined.
    """

    def build_ifunc_stubs(graph: LinkGraph) -> None:
        table = graph.symbol_table
        rows = rows_where((table.flags & int(SymbolFlags.INDIRECT)) != 0)
        rows = rows[table.kind[rows] == DEFINED] if len(rows) else rows
        if len(rows):
            pairs = [_build_stub(graph, spec, Symbol(graph, row)) for row in rows.tolist()]
            block = _add_action(graph, apply_irelative, pairs)
            for name, offset in (imports or {}).items():
                block.add_edge(spec.pointer, offset, _find(graph, name))

    return build_ifunc_stubs


def _build_stub(graph: LinkGraph, spec: GotPltSpec, ifunc: Symbol) -> tuple[Symbol, Symbol]:
    """Move an ifunc's symbol to a new stub; symbols of its resolver and of its pointer."""
    resolver = graph.add_anonymous_symbol(ifunc.block, ifunc.offset, is_callable=True)
    data = graph.obtain_section(POINTERS_SECTION, MemProt.READ | MemProt.WRITE)
    stub, pointer = add_stub(graph, data, spec)
    graph.transfer_defined_symbol(ifunc, stub, 0, len(spec.stub))
    ifunc.flags &= ~SymbolFlags.INDIRECT
    return resolver, pointer


def _find(graph: LinkGraph, name: str) -> Symbol:
    """The symbol of that name; a weakly referenced external one if the graph has none."""
    return (
        graph.find_defined_symbol_by_name(name)
        or graph.find_absolute_symbol_by_name(name)
        or graph.find_external_symbol_by_name(name)
        or graph.add_external_symbol(name, weakly_referenced=True)
    )


def _add_action(
    graph: LinkGraph, apply_irelative: bytes, pairs: list[tuple[Symbol, Symbol]]
) -> Block:
    """Add the code that calls the resolvers, and the allocation action that runs it."""
    section = graph.obtain_section(
        RESOLVER_SECTION, MemProt.READ | MemProt.EXEC, MemLifetime.FINALIZE
    )
    block = graph.create_content_block(section, apply_irelative, 0, 16)
    function = graph.add_anonymous_symbol(block, 0, len(apply_irelative), is_callable=True)
    # The graph must show what the code calls.
    for resolver, _ in pairs:
        block.add_edge(KEEP_ALIVE, 0, resolver, 0)
    order = "<" if graph.endianness == "little" else ">"

    def arguments() -> bytes:
        addresses = [symbol.address for pair in pairs for symbol in pair]
        return np.array(addresses, f"{order}u{graph.pointer_size}").tobytes()

    graph.alloc_actions.append(AllocActionPair(WrapperCall(function, arguments)))
    return block
