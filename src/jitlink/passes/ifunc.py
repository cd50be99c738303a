"""Indirect functions (IFUNC): symbols whose value is what a resolver function returns.

Each becomes a stub that jumps through a pointer; the pointer is filled when memory is
finalized, by a few instructions that call the resolvers in the executor. They travel with the
graph in memory that is freed right afterwards, so nothing needs to be there beforehand. Code
and data that refer to the symbol refer to the stub, so its address is one and the same
everywhere.

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
from jitlink.graph.tables import DEFINED
from jitlink.passes.got_plt import STUBS_SECTION, EntryKinds

POINTERS_SECTION = "$__IRELATIVE"
RESOLVER_SECTION = "$__IRELATIVE_RESOLVER"


def ifunc_pass(
    kinds: EntryKinds, resolver: bytes, imports: Mapping[str, int] | None = None
) -> Callable[[LinkGraph], None]:
    """A post-prune pass that gives each indirect function its stub.

    Args:
        kinds: the architecture's stub and pointer.
        resolver: machine code of a wrapper function whose arguments are pairs of pointers,
            a function to call and where to store what it returns; it must be position
            independent and return SPS success.
        imports: what it uses if it is there, by name, with the offset in `resolver` of the
            pointer to it, which is null otherwise.
    """

    def resolve_indirect_functions(graph: LinkGraph) -> None:
        table = graph.symbol_table
        indirect = (table.flags & int(SymbolFlags.INDIRECT)) != 0
        rows = rows_where(indirect & (table.kind == DEFINED))
        if len(rows):
            pairs = [_add_stub(graph, kinds, Symbol(graph, row)) for row in rows.tolist()]
            block = _add_action(graph, resolver, pairs)
            for name, offset in (imports or {}).items():
                block.add_edge(kinds.pointer, offset, _find(graph, name))

    return resolve_indirect_functions


def _add_stub(graph: LinkGraph, kinds: EntryKinds, symbol: Symbol) -> tuple[Symbol, Symbol]:
    """Turn an indirect symbol into a stub; returns its resolver and its pointer."""
    resolver = graph.add_anonymous_symbol(symbol.block, symbol.offset, is_callable=True)
    data = graph.obtain_section(POINTERS_SECTION, MemProt.READ | MemProt.WRITE)
    slot = graph.create_content_block(data, kinds.pointer_content, 0, kinds.pointer_size)
    pointer = graph.add_anonymous_symbol(slot, 0, kinds.pointer_size)
    code = graph.obtain_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
    stub = graph.create_content_block(code, kinds.stub, 0, kinds.stub_alignment)
    for kind, offset, addend in kinds.stub_edges:
        stub.add_edge(kind, offset, pointer, addend)
    graph.transfer_defined_symbol(symbol, stub, 0, len(kinds.stub))
    symbol.flags &= ~SymbolFlags.INDIRECT
    return resolver, pointer


def _find(graph: LinkGraph, name: str) -> Symbol:
    """The symbol of that name; one that need not be found if the graph has none."""
    return (
        graph.find_defined_symbol_by_name(name)
        or graph.find_absolute_symbol_by_name(name)
        or graph.find_external_symbol_by_name(name)
        or graph.add_external_symbol(name, weakly_referenced=True)
    )


def _add_action(graph: LinkGraph, resolver: bytes, pairs: list[tuple[Symbol, Symbol]]) -> Block:
    """Add the code that calls the resolvers, and let it be called; returns its block."""
    section = graph.obtain_section(
        RESOLVER_SECTION, MemProt.READ | MemProt.EXEC, MemLifetime.FINALIZE
    )
    block = graph.create_content_block(section, resolver, 0, 16)
    function = graph.add_anonymous_symbol(block, 0, len(resolver), is_callable=True)
    order = "<" if graph.endianness == "little" else ">"

    def arguments() -> bytes:
        addresses = [symbol.address for pair in pairs for symbol in pair]
        return np.array(addresses, f"{order}u{graph.pointer_size}").tobytes()

    graph.alloc_actions.append(AllocActionPair(WrapperCall(function, arguments)))
    return block
