"""Global offset table entries and call stubs, made for all edges that ask for them at once.

An architecture names, in one `EntryKinds`, which edge kinds ask for a GOT entry or for a stub
and what they become once it exists; what a pointer and a stub look like is data too. Entries
are shared: there is one per target symbol and graph, however many edges ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jitlink.graph import LinkGraph, MemProt, Scope, Section, Symbol, SymbolFlags, SymbolKind
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.edges import EdgeKind
from jitlink.graph.strings import NO_NAME

GOT_SECTION = "$__GOT"
STUBS_SECTION = "$__STUBS"
GOT_SYMBOL = "_GLOBAL_OFFSET_TABLE_"


@dataclass(frozen=True)
class EntryKinds:
    """What an architecture's GOT entries and stubs are made of.

    Attributes:
        got_requests: edge kinds that ask for a GOT entry, and what they become.
        stub_requests: edge kinds that ask for a stub, and what they become.
        external_only: those of `stub_requests` that ask only if the target is not defined in
            the graph.
        got_users: edge kinds whose value needs the address of the GOT.
        pointer: edge kind that fills a GOT entry.
        pointer_size: size and alignment of a GOT entry in bytes.
        stub: content of a stub.
        stub_edges: edges of a stub to the GOT entry of its target: kind, offset, addend.
        stub_alignment: alignment of a stub in bytes.
    """

    got_requests: Mapping[EdgeKind, EdgeKind]
    stub_requests: Mapping[EdgeKind, EdgeKind]
    external_only: frozenset[EdgeKind]
    got_users: frozenset[EdgeKind]
    pointer: EdgeKind
    pointer_size: int
    stub: bytes
    stub_edges: tuple[tuple[EdgeKind, int, int], ...]
    stub_alignment: int
    pointer_content: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pointer_content", bytes(self.pointer_size))


def build_entries(graph: LinkGraph, kinds: EntryKinds) -> None:
    """Create the GOT entries and stubs that edges ask for and point the edges at them."""
    edges = graph.edge_table
    present = set(rows_where(np.bincount(edges.kind, minlength=1)).tolist())
    stub_rows = _requests(graph, kinds.stub_requests, kinds.external_only, present)
    got_rows = _requests(graph, kinds.got_requests, frozenset(), present)
    base = graph.find_external_symbol_by_name(GOT_SYMBOL) if present else None
    if not len(stub_rows) and not len(got_rows):
        if base is None and present.isdisjoint(kinds.got_users):
            return
    section = graph.obtain_section(GOT_SECTION, MemProt.READ)
    if base is not None or not present.isdisjoint(kinds.got_users):
        _place_base(graph, section, base, kinds)
    edge_target = edges.target
    stub_targets = edge_target[stub_rows]
    entry_of = _create_pointers(
        graph, section, np.concatenate((edge_target[got_rows], stub_targets)), kinds
    )
    _transform(graph, got_rows, kinds.got_requests, entry_of)
    if len(stub_rows):
        stub_of = _create_stubs(graph, stub_targets, entry_of, kinds)
        _transform(graph, stub_rows, kinds.stub_requests, stub_of)


def got_address(graph: LinkGraph) -> int | None:
    """Address of the graph's global offset table, or None if it has none."""
    section = graph.find_section_by_name(GOT_SECTION)
    return None if section is None or section.empty else section.range().start


def _requests(
    graph: LinkGraph,
    requests: Mapping[EdgeKind, EdgeKind],
    external_only: frozenset[EdgeKind],
    present: set[int],
) -> Int64Array:
    """Rows (int64) of the edges of these kinds."""
    edges = graph.edge_table
    found = []
    for kind in requests:
        if int(kind) in present:
            rows = rows_where(edges.kind == kind)
            if kind in external_only:
                target_kind = graph.symbol_table.kind[edges.target[rows]]
                rows = rows[target_kind != SymbolKind.DEFINED]
            found.append(rows)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _place_base(
    graph: LinkGraph, section: Section, symbol: Symbol | None, kinds: EntryKinds
) -> None:
    """Make sure that the table exists, and let the symbol that names it point at its start."""
    block = graph.create_content_block(
        section, kinds.pointer_content, alignment=kinds.pointer_size
    )
    # Entries of any object sort behind this block, so that its address is the table's.
    graph.block_table.origin[block.row] = -1
    if symbol is not None:
        graph.make_defined(symbol, block, 0, 0, scope=Scope.LOCAL, is_live=True)


def _distinct(graph: LinkGraph, targets: Int64Array) -> Int64Array:
    wanted = np.zeros(graph.symbol_table.rows, np.bool_)
    wanted[targets] = True
    return rows_where(wanted)


def _add_blocks(
    graph: LinkGraph, section: Section, count: int, content: bytes, alignment: int, flags: int
) -> tuple[Int64Array, Int64Array]:
    """Add equal blocks, each with an anonymous symbol; rows of the blocks and the symbols."""
    first_block = graph.block_table.extend(
        count,
        section=section.ordinal,
        content=graph.contents.add(content),
        size=len(content),
        alignment=alignment,
    )
    blocks = np.arange(first_block, first_block + count)
    first_symbol = graph.symbol_table.extend(
        count,
        name=NO_NAME,
        kind=SymbolKind.DEFINED,
        block=blocks,
        size=len(content),
        scope=Scope.LOCAL,
        flags=flags,
    )
    return blocks, np.arange(first_symbol, first_symbol + count)


def _create_pointers(
    graph: LinkGraph, section: Section, targets: Int64Array, kinds: EntryKinds
) -> Int64Array:
    """A GOT entry for each distinct target; the entry's symbol row by target row."""
    wanted = _distinct(graph, targets)
    blocks, entries = _add_blocks(
        graph, section, len(wanted), kinds.pointer_content, kinds.pointer_size, 0
    )
    graph.edge_table.extend(len(wanted), block=blocks, kind=kinds.pointer, target=wanted)
    entry_of = np.full(graph.symbol_table.rows, -1, np.int64)
    entry_of[wanted] = entries
    return entry_of


def _create_stubs(
    graph: LinkGraph, targets: Int64Array, entry_of: Int64Array, kinds: EntryKinds
) -> Int64Array:
    """A stub for each distinct target; the stub's symbol row by target row."""
    section = graph.obtain_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
    wanted = _distinct(graph, targets)
    blocks, stubs = _add_blocks(
        graph, section, len(wanted), kinds.stub, kinds.stub_alignment, int(SymbolFlags.CALLABLE)
    )
    for kind, offset, addend in kinds.stub_edges:
        graph.edge_table.extend(
            len(wanted),
            block=blocks,
            offset=offset,
            kind=kind,
            target=entry_of[wanted],
            addend=addend,
        )
    stub_of = np.full(graph.symbol_table.rows, -1, np.int64)
    stub_of[wanted] = stubs
    return stub_of


def _transform(
    graph: LinkGraph,
    rows: Int64Array,
    requests: Mapping[EdgeKind, EdgeKind],
    entry_of: Int64Array,
) -> None:
    edges = graph.edge_table
    becomes = np.arange(max(map(int, requests)) + 1)
    for kind, result in requests.items():
        becomes[int(kind)] = int(result)
    edges.kind[rows] = becomes[edges.kind[rows]]
    edges.target[rows] = entry_of[edges.target[rows]]
