"""Global offset table entries and call stubs, made for all edges that ask for them at once.

An architecture names, in one `EntryKinds`, which edge kinds ask for a GOT entry or for a stub
and what they become once it exists; what a pointer and a stub look like is data too. Entries
are shared: there is one per target symbol and graph, however many edges ask.

Where a graph's code is larger than a branch reaches, a shared stub may be too far away, and so
may a target in the graph. Such branches get a stub beside the block that they stand in, an
island, which they share with the others of that block; a pass that knows all addresses may let
them bypass it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jitlink.fixups import FixupTable, resolved
from jitlink.graph import LinkGraph, MemProt, Scope, Section, Symbol, SymbolFlags
from jitlink.graph.columns import BoolArray, Int64Array, UInt8Array, rows_where
from jitlink.graph.edges import EdgeKind
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED

GOT_SECTION = "$__GOT"
STUBS_SECTION = "$__STUBS"
TLS_INFO_SECTION = "$__TLSINFO"
GOT_SYMBOL = "_GLOBAL_OFFSET_TABLE_"


class EntryKinds(NamedTuple):
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
        reach: how many bytes, either way, the edge kinds of `external_only` reach; those not
            named reach all of a graph.
        got_first: those of `got_requests` that reach only the beginning of the table.
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
    reach: Mapping[EdgeKind, int] = MappingProxyType({})
    got_first: frozenset[EdgeKind] = frozenset()

    @property
    def pointer_content(self) -> bytes:
        """Content of a GOT entry that is not filled yet."""
        return bytes(self.pointer_size)


def build_entries(graph: LinkGraph, kinds: EntryKinds) -> None:
    """Create the GOT entries and stubs that edges ask for and point the edges at them."""
    edges = graph.edge_table
    counts = np.bincount(edges.kind, minlength=1)
    present = set(rows_where(counts != 0).tolist())
    far = _far_kinds(graph, kinds, counts) if kinds.reach else frozenset()
    stub_rows = _requests(graph, kinds.stub_requests, kinds.external_only, present, far)
    got_rows = _requests(graph, kinds.got_requests, frozenset(), present)
    base = graph.find_external_symbol_by_name(GOT_SYMBOL) if present else None
    needs_base = base is not None or not present.isdisjoint(kinds.got_users)
    if not len(stub_rows) and not len(got_rows) and not needs_base:
        return
    section = graph.obtain_section(GOT_SECTION, MemProt.READ)
    if needs_base:
        _place_base(graph, section, base, kinds)
    edge_target = edges.target
    stub_targets = edge_target[stub_rows]
    first_rows = _requests(graph, kinds.got_first, frozenset(), present)
    targets = np.concatenate((edge_target[got_rows], stub_targets))
    entry_of = _create_pointers(graph, section, targets, edge_target[first_rows], kinds)
    _transform(graph, got_rows, kinds.got_requests, entry_of[edge_target[got_rows]])
    if far:
        is_far = np.isin(edges.kind[stub_rows], list(far))
        _create_islands(graph, stub_rows[is_far], entry_of, kinds)
        stub_rows, stub_targets = stub_rows[~is_far], stub_targets[~is_far]
    if len(stub_rows):
        stub_of = _create_stubs(graph, stub_targets, entry_of, kinds)
        _transform(graph, stub_rows, kinds.stub_requests, stub_of[stub_targets])


def got_address(graph: LinkGraph) -> int | None:
    """Address of the graph's global offset table, or None if it has none."""
    section = graph.find_section_by_name(GOT_SECTION)
    return None if section is None or section.empty else section.range().start


class Pointees:
    """What the GOT entries and stubs of a graph lead to.

    Args:
        graph: after `build_entries`.
        kinds: what its entries are made of.

    Attributes:
        any: whether there are entries at all; if not, nothing else is there.
        addresses: addresses of all symbols (int64).
    """

    def __init__(self, graph: LinkGraph, kinds: EntryKinds) -> None:
        edges, blocks, symbols = graph.edge_table, graph.block_table, graph.symbol_table
        self.graph = graph
        got = graph.find_section_by_name(GOT_SECTION)
        stubs = graph.find_section_by_name(STUBS_SECTION)
        self.any = got is not None
        if got is None:
            return
        section = blocks.section[edges.block]
        self._of_block = np.full(blocks.rows, -1, np.int64)
        pointers = rows_where((section == got.ordinal) & (edges.kind == kinds.pointer))
        pointers = pointers[edges.addend[pointers] == 0]
        self._of_block[edges.block[pointers]] = edges.target[pointers]
        is_stub = np.zeros(blocks.rows, np.bool_)
        if stubs is not None:
            is_stub = blocks.section == stubs.ordinal
        for kind in kinds.reach:
            # Islands are where edges lead that were given one.
            given = edges.target[edges.kind == kinds.stub_requests[kind]]
            is_stub[symbols.block[given[symbols.kind[given] == DEFINED]]] = True
        jumps = rows_where(is_stub[edges.block] & (edges.kind == kinds.stub_edges[0][0]))
        entry = symbols.block[edges.target[jumps]]
        self._of_block[edges.block[jumps]] = self._of_block[entry]
        self.addresses = graph.symbol_addresses().view(np.int64)

    def of(self, rows: Int64Array) -> Int64Array:
        """Symbol rows (int64) that the entries which edges target lead to, or -1."""
        symbols = self.graph.symbol_table
        target = self.graph.edge_table.target[rows]
        # An edge into the middle of an entry, or past it, is none of ours.
        plain = (symbols.kind[target] == DEFINED) & (symbols.value[target] == 0)
        return np.where(plain, self._of_block[symbols.block[target]], -1)


def bypass_stubs(
    graph: LinkGraph, pointees: Pointees, kinds: EntryKinds, fixups: FixupTable
) -> None:
    """Let edges that were given a stub reach their targets directly where they can.

    Those are the edges of the kinds that `EntryKinds.external_only` become.
    """
    edges, addresses = graph.edge_table, graph.block_table.address
    for kind in kinds.external_only:
        fixup = fixups.by_kind[int(kind)]
        rows = rows_where(edges.kind == kinds.stub_requests[kind])
        if not fixup.expression or not len(rows):
            continue
        pointee = pointees.of(rows)
        rows, pointee = rows[pointee >= 0], pointee[pointee >= 0]
        letters = {
            "S": pointees.addresses[pointee],
            "A": edges.addend[rows],
            "P": addresses[edges.block[rows]].view(np.int64) + edges.offset[rows],
        }
        near = fixup.accepts(fixup.evaluate(letters)) & resolved(graph, pointee)
        edges.target[rows[near]] = pointee[near]
        edges.kind[rows[near]] = kind


def pointees(graph: LinkGraph) -> Int64Array:
    """What symbols stand for (int64, symbol row by symbol row).

    The symbol of a GOT entry, a stub or a thread-local variable's entry stands for what the
    entry leads to, others for themselves.
    """
    table, edges = graph.symbol_table, graph.edge_table
    result = np.arange(table.rows)
    for name in (GOT_SECTION, STUBS_SECTION, TLS_INFO_SECTION):
        section = graph.find_section_by_name(name)
        if section is None:
            continue
        leads = rows_where(graph.block_table.section[edges.block] == section.ordinal)
        of_block = np.full(graph.block_table.rows, -1, np.int64)
        of_block[edges.block[leads]] = result[edges.target[leads]]
        symbols = rows_where(table.kind == DEFINED)
        symbols = symbols[of_block[table.block[symbols]] >= 0]
        result[symbols] = of_block[table.block[symbols]]
    return result


def entry_blocks(graph: LinkGraph) -> BoolArray:
    """Mask (bool, one per block row) of the entries and stubs that the linker has made."""
    made = {GOT_SECTION, STUBS_SECTION, TLS_INFO_SECTION}
    sections = [name in made for name in graph.section_list.names]
    mask: BoolArray = np.array(sections, np.bool_)[graph.block_table.section]
    return mask


def _requests(
    graph: LinkGraph,
    requests: Collection[EdgeKind],
    external_only: frozenset[EdgeKind],
    present: set[int],
    far: frozenset[EdgeKind] = frozenset(),
) -> Int64Array:
    """Rows (int64) of the edges of these kinds."""
    edges, symbols = graph.edge_table, graph.symbol_table
    found = []
    for kind in requests:
        if int(kind) in present:
            rows = rows_where(edges.kind == kind)
            if kind in external_only:
                target = edges.target[rows]
                wanted = symbols.kind[target] != DEFINED
                if kind in far:
                    wanted |= symbols.block[target] != edges.block[rows]
                rows = rows[wanted]
            found.append(rows)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _far_kinds(graph: LinkGraph, kinds: EntryKinds, counts: Int64Array) -> frozenset[EdgeKind]:
    """The edge kinds present that may not reach all code of the graph with its stubs."""
    present = [kind for kind in kinds.reach if int(kind) < len(counts) and counts[int(kind)]]
    if not present:
        return frozenset()
    sections, blocks = graph.section_list, graph.block_table
    prots, lifetimes = sections.prots(), sections.lifetimes()
    rows = graph.block_rows()
    rows = rows[prots[blocks.section[rows]] & np.uint8(MemProt.EXEC) != 0]
    # A bound: no more padding than that, and no more stubs than edges that ask for them.
    size = int(blocks.size[rows].sum()) + int(blocks.alignment[rows].sum())
    stubs = sum(int(counts[int(k)]) for k in kinds.stub_requests if int(k) < len(counts))
    size += stubs * (len(kinds.stub) + kinds.stub_alignment)
    lifetime = lifetimes[blocks.section[rows]]
    if (lifetime != lifetime[:1]).any() and _leaves_lifetime(graph, present, lifetimes):
        # Segments may be anywhere.
        return frozenset(present)
    return frozenset(kind for kind in present if kinds.reach[kind] < size)


def _leaves_lifetime(graph: LinkGraph, present: Sequence[EdgeKind], lifetime: UInt8Array) -> bool:
    """Whether an edge of these kinds leads to a block of another lifetime."""
    edges, symbols, section = graph.edge_table, graph.symbol_table, graph.block_table.section
    rows = rows_where(np.isin(edges.kind, present))
    rows = rows[symbols.kind[edges.target[rows]] == DEFINED]
    target = lifetime[section[symbols.block[edges.target[rows]]]]
    return bool((lifetime[section[edges.block[rows]]] != target).any())


def _place_base(
    graph: LinkGraph, section: Section, symbol: Symbol | None, kinds: EntryKinds
) -> None:
    """Make sure that the table exists, and let the symbol that names it point at its start."""
    block = graph.create_content_block(section, kinds.pointer_content, alignment=kinds.pointer_size)
    # Entries of any object sort behind this block, so that its address is the table's.
    graph.block_table.origin[block.row] = -1
    if symbol is not None:
        graph.make_defined(symbol, block, 0, 0, scope=Scope.LOCAL, is_live=True)


def _distinct(graph: LinkGraph, targets: Int64Array) -> Int64Array:
    wanted = np.zeros(graph.symbol_table.rows, np.bool_)
    wanted[targets] = True
    return rows_where(wanted)


def add_entries(
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
        kind=DEFINED,
        block=blocks,
        size=len(content),
        scope=Scope.LOCAL,
        flags=flags,
    )
    return blocks, np.arange(first_symbol, first_symbol + count)


def _create_pointers(
    graph: LinkGraph, section: Section, targets: Int64Array, first: Int64Array, kinds: EntryKinds
) -> Int64Array:
    """A GOT entry for each distinct target, first those of `first`.

    Returns:
        The entry's symbol row by target row.
    """
    wanted = _distinct(graph, targets)
    if len(first):
        is_later = np.ones(graph.symbol_table.rows, np.bool_)
        is_later[first] = False
        wanted = wanted[np.argsort(is_later[wanted], kind="stable")]
    blocks, entries = add_entries(
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
    blocks, stubs = add_entries(
        graph, section, len(wanted), kinds.stub, kinds.stub_alignment, int(SymbolFlags.CALLABLE)
    )
    _connect_stubs(graph, blocks, entry_of[wanted], kinds)
    stub_of = np.full(graph.symbol_table.rows, -1, np.int64)
    stub_of[wanted] = stubs
    return stub_of


def _connect_stubs(
    graph: LinkGraph, blocks: Int64Array, entries: Int64Array, kinds: EntryKinds
) -> None:
    """Let stubs load the GOT entries of their targets."""
    for kind, offset, addend in kinds.stub_edges:
        graph.edge_table.extend(
            len(blocks), block=blocks, offset=offset, kind=kind, target=entries, addend=addend
        )


def _create_islands(
    graph: LinkGraph, rows: Int64Array, entry_of: Int64Array, kinds: EntryKinds
) -> None:
    """A stub beside the block of each edge, at the nearer end, one for each distinct target."""
    if len(rows) == 0:
        return
    edges, table = graph.edge_table, graph.block_table
    _number_places(graph)
    home, target = edges.block[rows], edges.target[rows]
    behind = edges.offset[rows] >= table.size[home] // 2
    places = np.stack((home * 2 + behind, target))
    places, number = np.unique(places, axis=1, return_inverse=True)
    home, behind = places[0] // 2, places[0] % 2
    blocks, stubs = add_entries(
        graph,
        graph.section_list[0],
        places.shape[1],
        kinds.stub,
        kinds.stub_alignment,
        int(SymbolFlags.CALLABLE),
    )
    table.section[blocks] = table.section[home]
    table.origin[blocks] = table.origin[home]
    table.address[blocks] = (table.address[home].view(np.int64) + 2 * behind - 1).view(np.uint64)
    _connect_stubs(graph, blocks, entry_of[places[1]], kinds)
    _transform(graph, rows, kinds.stub_requests, stubs[number.reshape(-1)])


def _number_places(graph: LinkGraph) -> None:
    """Number the blocks in the order of the layout, with room for others between them.

    The numbers replace the addresses of the object files, which only order blocks from here on.
    """
    table, rows = graph.block_table, graph.block_rows()
    order = np.lexsort((table.address[rows], table.origin[rows], table.section[rows]))
    table.address[rows[order]] = np.arange(len(rows), dtype=np.uint64) * np.uint64(4) + np.uint64(1)


def _transform(
    graph: LinkGraph, rows: Int64Array, requests: Mapping[EdgeKind, EdgeKind], target: Int64Array
) -> None:
    """Turn requests into what they become, with new targets (int64, one per row)."""
    edges = graph.edge_table
    becomes = np.arange(max(map(int, requests)) + 1)
    for kind, result in requests.items():
        becomes[int(kind)] = int(result)
    edges.kind[rows] = becomes[edges.kind[rows]]
    edges.target[rows] = target
