"""GOT entries and PLT stubs, built for all edges of a graph that request them at once.

An architecture's `GotPltSpec` maps the edge kinds that request a GOT entry or a stub to the kinds
that they are transformed to, and holds the content of a GOT entry and of a stub. A graph has at
most one GOT entry and one stub for each target symbol.

Where the code of a graph is larger than the range of a branch, a shared stub, or a target in the
graph, may be out of range. Such a branch gets a stub beside its own block, an island, which it
shares with the other branches of that block to the same target. A later pass, when all addresses
are known, may bypass it.

A stub may change registers, which is allowed between a call and the entry of the callee. The island
of a branch that is no call is a plain jump, which changes none but must itself reach the target.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jitlink.fixups import Fixup, FixupTable, resolved
from jitlink.graph import Block, LinkGraph, MemProt, Scope, Section, Symbol, SymbolFlags
from jitlink.graph.columns import BoolArray, Int64Array, UInt8Array, rows_where
from jitlink.graph.edges import KEEP_ALIVE, EdgeKind
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED

GOT_SECTION = "$__GOT"
STUBS_SECTION = "$__STUBS"
TLS_INFO_SECTION = "$__TLSINFO"
GOT_SYMBOL = "_GLOBAL_OFFSET_TABLE_"
_NO_ROWS = np.empty(0, np.int64)
_FEW_EDGES = 64


class GotPltSpec(NamedTuple):
    """The GOT entries and PLT stubs of an architecture.

    Attributes:
        got_requests: edge kinds that request a GOT entry, and the kinds they are transformed to.
        stub_requests: edge kinds that request a stub, and the kinds they are transformed to.
        external_only: those of `stub_requests` that request a stub only if the target is not
            defined in the graph.
        got_users: edge kinds whose value depends on the address of the GOT.
        pointer: edge kind that fills a GOT entry.
        pointer_size: size and alignment of a GOT entry in bytes.
        stub: content of a stub.
        stub_edges: edges of a stub to the GOT entry of its target: kind, offset, addend.
        stub_alignment: alignment of a stub in bytes.
        reach: range in bytes, in either direction, of edge kinds in `external_only`, which are of
            branches; those that are not listed reach all of a graph.
        no_calls: those of `reach` whose branches are no calls, so that every register is live.
        jump: content of their islands.
        jump_edge: the edge of `jump` to the target: kind, offset.
        got_first: those of `got_requests` that reach only the beginning of the GOT.
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
    no_calls: frozenset[EdgeKind] = frozenset()
    jump: bytes = b""
    jump_edge: tuple[EdgeKind, int] | None = None
    got_first: frozenset[EdgeKind] = frozenset()

    @property
    def pointer_content(self) -> bytes:
        """Content of a GOT entry before fixups."""
        return bytes(self.pointer_size)


def build_got_and_stubs(graph: LinkGraph, spec: GotPltSpec) -> None:
    """Create the GOT entries and stubs that edges request, and retarget the edges to them."""
    edges = graph.edge_table
    present = _kinds_present(graph)
    got_symbol = graph.find_external_symbol_by_name(GOT_SYMBOL) if present else None
    asking = (spec.stub_requests, spec.got_requests, spec.got_users)
    if got_symbol is None and all(map(present.isdisjoint, asking)):
        return
    far = _far_kinds(graph, spec, present) if spec.reach else frozenset()
    stub_rows = _requests(graph, spec.stub_requests, spec.external_only, present, far)
    if spec.reach:
        _point_at_targets(graph, stub_rows, spec)
        stub_rows = _create_jump_islands(graph, stub_rows, spec)
    got_rows = _requests(graph, spec.got_requests, frozenset(), present)
    needs_base = got_symbol is not None or not present.isdisjoint(spec.got_users)
    if not len(stub_rows) and not len(got_rows) and not needs_base:
        return
    section = graph.obtain_section(GOT_SECTION, MemProt.READ)
    if needs_base:
        _create_base(graph, section, got_symbol, spec)
    edge_target = edges.target
    stub_targets = edge_target[stub_rows]
    first_rows = _requests(graph, spec.got_first, frozenset(), present)
    targets = np.concatenate((edge_target[got_rows], stub_targets))
    entry_of = _create_got_entries(graph, section, targets, edge_target[first_rows], spec)
    _transform(graph, got_rows, spec.got_requests, entry_of[edge_target[got_rows]])
    if spec.reach:
        stub_rows = _create_far_stubs(graph, section, stub_rows, entry_of, far, spec)
        stub_targets = edge_target[stub_rows]
    if len(stub_rows):
        stub_of = _create_stubs(graph, stub_targets, entry_of, spec)
        _transform(graph, stub_rows, spec.stub_requests, stub_of[stub_targets])


def add_stub(graph: LinkGraph, section: Section, spec: GotPltSpec) -> tuple[Block, Symbol]:
    """Add one stub, and the pointer in `section` that it jumps through.

    Returns:
        The stub's block, and an anonymous symbol of the pointer, whose content is zero.
    """
    slot = graph.create_content_block(section, spec.pointer_content, 0, spec.pointer_size)
    pointer = graph.add_anonymous_symbol(slot, 0, spec.pointer_size)
    code = graph.obtain_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
    stub = graph.create_content_block(code, spec.stub, 0, spec.stub_alignment)
    for kind, offset, addend in spec.stub_edges:
        stub.add_edge(kind, offset, pointer, addend)
    return stub, pointer


def got_address(graph: LinkGraph) -> int | None:
    """Address of a graph's GOT, or None if the graph has none."""
    section = graph.find_section_by_name(GOT_SECTION)
    return None if section is None or section.empty else section.range().start


class BypassTargets:
    """The targets of GOT entries and stubs, for passes that bypass these.

    Args:
        graph: the graph, after `build_got_and_stubs`.
        spec: the same that `build_got_and_stubs` was given.

    Attributes:
        any: whether the graph has GOT entries or islands; if not, nothing else may be used.
        addresses: addresses of all symbols (int64).
    """

    def __init__(self, graph: LinkGraph, spec: GotPltSpec) -> None:
        edges, blocks = graph.edge_table, graph.block_table
        self.graph = graph
        self.jumps = _jumps_of_islands(graph, spec)
        got = graph.find_section_by_name(GOT_SECTION)
        self.any = got is not None or len(self.jumps) > 0
        if not self.any:
            return
        self._of_block = np.full(blocks.rows, -1, np.int64)
        self.addresses = graph.symbol_addresses().view(np.int64)
        if len(self.jumps):
            plain = self.jumps[edges.addend[self.jumps] == 0]
            self._of_block[edges.block[plain]] = edges.target[plain]
        if got is not None:
            self._find_stubs(got.ordinal, spec)

    def _find_stubs(self, got: int, spec: GotPltSpec) -> None:
        graph = self.graph
        edges, blocks, symbols = graph.edge_table, graph.block_table, graph.symbol_table
        section = blocks.section[edges.block]
        pointers = rows_where((section == got) & (edges.kind == int(spec.pointer)))
        pointers = pointers[edges.addend[pointers] == 0]
        self._of_block[edges.block[pointers]] = edges.target[pointers]
        stubs = graph.find_section_by_name(STUBS_SECTION)
        is_stub = np.zeros(blocks.rows, np.bool_)
        if stubs is not None:
            is_stub = blocks.section == stubs.ordinal
        if spec.reach:
            # Islands are not in the stubs section.
            is_stub |= _islands(graph, spec, spec.reach.keys() - spec.no_calls)
        jumps = rows_where(is_stub[edges.block] & (edges.kind == int(spec.stub_edges[0][0])))
        entry = symbols.block[edges.target[jumps]]
        self._of_block[edges.block[jumps]] = self._of_block[entry]

    def of(self, rows: Int64Array) -> Int64Array:
        """Symbol rows (int64) that edges reach through a GOT entry or stub; -1 for other edges."""
        symbols = self.graph.symbol_table
        target = self.graph.edge_table.target[rows]
        # An edge into the middle of a GOT entry or past its end is not to be bypassed.
        plain = (symbols.kind[target] == DEFINED) & (symbols.value[target] == 0)
        return np.where(plain, self._of_block[symbols.block[target]], -1)


def bypass_stubs(
    graph: LinkGraph, targets: BypassTargets, spec: GotPltSpec, fixups: FixupTable
) -> None:
    """Retarget edges from stubs to the stubs' targets, where these are in range.

    These are the edges of the kinds that `GotPltSpec.external_only` is transformed to.
    """
    edges, jumps = graph.edge_table, targets.jumps
    is_lost = np.zeros(graph.block_table.rows, np.bool_)
    if spec.jump_edge is not None:
        fixup = fixups.by_kind[int(spec.jump_edge[0])]
        jumps = jumps[~accepts(graph, fixup, jumps, targets.addresses[edges.target[jumps]])]
        is_lost[edges.block[jumps]] = True
    for kind in spec.external_only:
        if fixups.by_kind[int(kind)].expression:
            bypass(graph, targets, fixups.by_kind[int(kind)], spec.stub_requests[kind], is_lost)
    # No edge goes to these islands any more.
    edges.kind[jumps] = KEEP_ALIVE


def bypass(
    graph: LinkGraph,
    targets: BypassTargets,
    fixup: Fixup,
    kind: EdgeKind,
    is_lost: BoolArray | None = None,
) -> None:
    """Retarget edges of a kind from stubs to the stubs' targets, where these are in range.

    They get the kind of `fixup`. Where neither the target nor the stub is in range, so do they, and
    applying them fails with an error that names the target.

    Args:
        graph: the graph.
        targets: targets of its stubs.
        fixup: how an edge to the target itself is applied.
        kind: kind of the edges to stubs.
        is_lost: whether blocks are islands that do not reach their target (bool, one per row).
    """
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = rows_where(edges.kind == int(kind))
    target = targets.of(rows)
    rows, target = rows[target >= 0], target[target >= 0]
    if not len(rows):
        return
    stub = edges.target[rows]
    chosen = accepts(graph, fixup, rows, targets.addresses[target]) & resolved(graph, target)
    chosen |= ~accepts(graph, fixup, rows, targets.addresses[stub])
    if is_lost is not None:
        chosen |= is_lost[symbols.block[stub]]
    edges.target[rows[chosen]] = target[chosen]
    edges.kind[rows[chosen]] = fixup.kind


def accepts(graph: LinkGraph, fixup: Fixup, rows: Int64Array, address: Int64Array) -> BoolArray:
    """Whether edges can be applied in the way of a fixup, with targets at these addresses."""
    return fixup.accepts(stored_values(graph, fixup, rows, address))


def stored_values(
    graph: LinkGraph, fixup: Fixup, rows: Int64Array, address: Int64Array
) -> Int64Array:
    """What edges store (int64) in the way of a fixup, with targets at these addresses."""
    edges = graph.edge_table
    place = graph.block_table.address[edges.block[rows]].view(np.int64) + edges.offset[rows]
    value: Int64Array = fixup.evaluate({"S": address, "A": edges.addend[rows], "P": place})
    return value


def _jumps_of_islands(graph: LinkGraph, spec: GotPltSpec) -> Int64Array:
    """Rows (int64) of the edges of all islands that are plain jumps."""
    if spec.jump_edge is None:
        return _NO_ROWS
    edges = graph.edge_table
    is_island = _islands(graph, spec, spec.no_calls)
    return rows_where(is_island[edges.block] & (edges.kind == int(spec.jump_edge[0])))


def _islands(graph: LinkGraph, spec: GotPltSpec, kinds: Collection[EdgeKind]) -> BoolArray:
    """The blocks that edges of these kinds were retargeted to (bool, one per block row)."""
    edges, symbols = graph.edge_table, graph.symbol_table
    found = np.zeros(graph.block_table.rows, np.bool_)
    for kind in kinds:
        target = edges.target[edges.kind == spec.stub_requests[kind]]
        found[symbols.block[target[symbols.kind[target] == DEFINED]]] = True
    return found


def got_plt_targets(graph: LinkGraph) -> Int64Array:
    """By symbol row, the symbol row that a reference reaches in the end (int64).

    For the symbol of a GOT entry, of a stub or of a TLS GOT entry that is the entry's target, for
    any other symbol the symbol itself.
    """
    table, edges = graph.symbol_table, graph.edge_table
    result = np.arange(table.rows)
    for name in (GOT_SECTION, STUBS_SECTION, TLS_INFO_SECTION):
        section = graph.find_section_by_name(name)
        if section is None:
            continue
        rows = rows_where(graph.block_table.section[edges.block] == section.ordinal)
        of_block = np.full(graph.block_table.rows, -1, np.int64)
        of_block[edges.block[rows]] = result[edges.target[rows]]
        symbols = rows_where(table.kind == DEFINED)
        symbols = symbols[of_block[table.block[symbols]] >= 0]
        result[symbols] = of_block[table.block[symbols]]
    return result


def got_plt_blocks(graph: LinkGraph) -> BoolArray:
    """Mask (bool, one per block row) of the GOT entries and stubs that the linker has built."""
    built = {GOT_SECTION, STUBS_SECTION, TLS_INFO_SECTION}
    sections = [name in built for name in graph.section_list.names]
    mask: BoolArray = np.array(sections, np.bool_)[graph.block_table.section]
    return mask


def _requests(
    graph: LinkGraph,
    requests: Collection[EdgeKind],
    external_only: frozenset[EdgeKind],
    present: set[int],
    far: frozenset[EdgeKind] = frozenset(),
) -> Int64Array:
    """Rows (int64) of the edges of these kinds that request a GOT entry or stub."""
    edges, symbols = graph.edge_table, graph.symbol_table
    found = []
    for kind in requests:
        if int(kind) in present:
            rows = rows_where(edges.kind == int(kind))
            if kind in external_only:
                target = edges.target[rows]
                wanted = symbols.kind[target] != DEFINED
                if kind in far:
                    # Within a section the ABIs allow stubs for functions at most.
                    wanted |= symbols.block[target] != edges.block[rows]
                rows = rows[wanted]
            found.append(rows)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _is_of(graph: LinkGraph, rows: Int64Array, kinds: Collection[EdgeKind]) -> BoolArray:
    """Whether edges are of some kinds (bool each)."""
    if not kinds:
        return np.zeros(len(rows), np.bool_)
    return np.isin(graph.edge_table.kind[rows], [int(kind) for kind in kinds])


def _kinds_present(graph: LinkGraph) -> set[int]:
    """The kinds of all edges."""
    kinds = graph.edge_table.kind
    found = kinds if len(kinds) <= _FEW_EDGES else rows_where(np.bincount(kinds) != 0)
    return set(found.tolist())


def _far_kinds(graph: LinkGraph, spec: GotPltSpec, kinds: set[int]) -> frozenset[EdgeKind]:
    """The edge kinds present whose range may be smaller than the graph's code and stubs."""
    present = [kind for kind in spec.reach if kind in kinds]
    if not present:
        return frozenset()
    counts = np.bincount(graph.edge_table.kind)
    sections, blocks = graph.section_list, graph.block_table
    prots, lifetimes = sections.prots(), sections.lifetimes()
    rows = graph.block_rows()
    rows = rows[prots[blocks.section[rows]] & np.uint8(MemProt.EXEC) != 0]
    # An upper bound: padding is below the alignment, and each request adds at most one stub.
    size = int(blocks.size[rows].sum()) + int(blocks.alignment[rows].sum())
    stubs = sum(int(counts[int(k)]) for k in spec.stub_requests if int(k) < len(counts))
    size += stubs * (len(spec.stub) + spec.stub_alignment)
    lifetime = lifetimes[blocks.section[rows]]
    if (lifetime != lifetime[:1]).any() and _leaves_lifetime(graph, present, lifetimes):
        # Segments of different lifetimes may be any distance apart.
        return frozenset(present)
    return frozenset(kind for kind in present if spec.reach[kind] < size)


def _leaves_lifetime(graph: LinkGraph, present: Sequence[EdgeKind], lifetime: UInt8Array) -> bool:
    """Whether an edge of these kinds targets a block of another lifetime."""
    edges, symbols, section = graph.edge_table, graph.symbol_table, graph.block_table.section
    rows = rows_where(np.isin(edges.kind, present))
    rows = rows[symbols.kind[edges.target[rows]] == DEFINED]
    target = lifetime[section[symbols.block[edges.target[rows]]]]
    return bool((lifetime[section[edges.block[rows]]] != target).any())


def _create_base(
    graph: LinkGraph, section: Section, symbol: Symbol | None, spec: GotPltSpec
) -> None:
    """Create the first block of the GOT, and define the symbol of the GOT there."""
    block = graph.create_content_block(section, spec.pointer_content, alignment=spec.pointer_size)
    # The blocks of all objects sort behind this one, so its address is the GOT's.
    graph.block_table.origin[block.row] = -1
    if symbol is not None:
        graph.make_defined(symbol, block, 0, 0, scope=Scope.LOCAL, is_live=True)


def _distinct(graph: LinkGraph, targets: Int64Array) -> Int64Array:
    wanted = np.zeros(graph.symbol_table.rows, np.bool_)
    wanted[targets] = True
    return rows_where(wanted)


def add_equal_blocks(
    graph: LinkGraph, section: Section, count: int, content: bytes, alignment: int, flags: int
) -> tuple[Int64Array, Int64Array]:
    """Add blocks of equal content, each with an anonymous symbol; rows (int64) of both."""
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


def _create_got_entries(
    graph: LinkGraph, section: Section, targets: Int64Array, first: Int64Array, spec: GotPltSpec
) -> Int64Array:
    """Create a GOT entry for each distinct target, those of `first` before the others.

    Returns:
        By target row, the symbol row of its GOT entry (int64).
    """
    wanted = _distinct(graph, targets)
    if len(first):
        is_later = np.ones(graph.symbol_table.rows, np.bool_)
        is_later[first] = False
        wanted = wanted[np.argsort(is_later[wanted], kind="stable")]
    entries = _add_pointers(graph, section, wanted, np.zeros(len(wanted), np.int64), spec)
    entry_of = np.full(graph.symbol_table.rows, -1, np.int64)
    entry_of[wanted] = entries
    return entry_of


def _add_pointers(
    graph: LinkGraph, section: Section, targets: Int64Array, addends: Int64Array, spec: GotPltSpec
) -> Int64Array:
    """Add a pointer to each of some symbols; rows of the pointers' symbols (int64)."""
    blocks, pointers = add_equal_blocks(
        graph, section, len(targets), spec.pointer_content, spec.pointer_size, 0
    )
    graph.edge_table.extend(
        len(targets), block=blocks, kind=spec.pointer, target=targets, addend=addends
    )
    return pointers


def _create_stubs(
    graph: LinkGraph, targets: Int64Array, entry_of: Int64Array, spec: GotPltSpec
) -> Int64Array:
    """Create a stub for each distinct target; by target row, the symbol row of its stub (int64)."""
    section = graph.obtain_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
    wanted = _distinct(graph, targets)
    blocks, stubs = add_equal_blocks(
        graph, section, len(wanted), spec.stub, spec.stub_alignment, int(SymbolFlags.CALLABLE)
    )
    _connect_stubs(graph, blocks, entry_of[wanted], spec)
    stub_of = np.full(graph.symbol_table.rows, -1, np.int64)
    stub_of[wanted] = stubs
    return stub_of


def _connect_stubs(
    graph: LinkGraph, blocks: Int64Array, entries: Int64Array, spec: GotPltSpec
) -> None:
    """Add the edges of stubs to the GOT entries of their targets."""
    for kind, offset, addend in spec.stub_edges:
        graph.edge_table.extend(
            len(blocks), block=blocks, offset=offset, kind=kind, target=entries, addend=addend
        )


def _point_at_targets(graph: LinkGraph, rows: Int64Array, spec: GotPltSpec) -> None:
    """Let branches to a place beside a symbol of the graph target a symbol at that place.

    An island jumps to a symbol; an addend of the branch itself would count from the island.
    """
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = rows[_is_of(graph, rows, spec.reach) & (edges.addend[rows] != 0)]
    rows = rows[symbols.kind[edges.target[rows]] == DEFINED]
    block = symbols.block[edges.target[rows]]
    offset = symbols.value[edges.target[rows]].view(np.int64) + edges.addend[rows]
    inside = (offset >= 0) & (offset <= graph.block_table.size[block])
    if not inside.any():
        return
    rows, places = rows[inside], np.stack((block[inside], offset[inside]))
    places, number = np.unique(places, axis=1, return_inverse=True)
    first = symbols.extend(
        places.shape[1],
        name=NO_NAME,
        kind=DEFINED,
        block=places[0],
        value=places[1].view(np.uint64),
        scope=Scope.LOCAL,
    )
    edges.target[rows] = first + number.reshape(-1)
    edges.addend[rows] = 0


def _create_jump_islands(graph: LinkGraph, rows: Int64Array, spec: GotPltSpec) -> Int64Array:
    """Create the islands of branches that are no calls; rows (int64) of the other edges."""
    if spec.jump_edge is None:
        return rows
    edges = graph.edge_table
    is_call = ~_is_of(graph, rows, spec.no_calls)
    if is_call.all():
        return rows
    blocks, target, addend = _create_islands(graph, rows[~is_call], spec.jump, spec)
    kind, offset = spec.jump_edge
    edges.extend(len(blocks), block=blocks, offset=offset, kind=kind, target=target, addend=addend)
    return rows[is_call]


def _create_far_stubs(
    graph: LinkGraph,
    section: Section,
    rows: Int64Array,
    entry_of: Int64Array,
    far: frozenset[EdgeKind],
    spec: GotPltSpec,
) -> Int64Array:
    """Create the islands of calls that may not reach a shared stub; rows (int64) of the others.

    Args:
        graph: the graph.
        section: the GOT.
        rows: rows of the edges that request stubs (int64).
        entry_of: rows of the symbols of GOT entries, by row of the target (int64).
        far: kinds of which no edge may reach a shared stub.
        spec: what is created.
    """
    addends = graph.edge_table.addend[rows]
    # A stub that is shared cannot add to the address of its target.
    is_far = _is_of(graph, rows, spec.reach) & (addends != 0)
    is_far |= _is_of(graph, rows, far)
    if not is_far.any():
        return rows
    blocks, target, addend = _create_islands(graph, rows[is_far], spec.stub, spec)
    entries = entry_of[target]
    odd = addend != 0
    entries[odd] = _add_pointers(graph, section, target[odd], addend[odd], spec)
    _connect_stubs(graph, blocks, entries, spec)
    others: Int64Array = rows[~is_far]
    return others


def _create_islands(
    graph: LinkGraph, rows: Int64Array, content: bytes, spec: GotPltSpec
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Create an island at the nearer end of each edge's block, one for each distinct target.

    Returns:
        Rows of the islands' blocks, rows of their target symbols, and addends (int64 each).
    """
    edges, table = graph.edge_table, graph.block_table
    _number_blocks(graph)
    home = edges.block[rows]
    # There may be padding between an island and the block behind it.
    behind = 2 * edges.offset[rows] + table.alignment[home] > table.size[home]
    places = np.stack((home * 2 + behind, edges.target[rows], edges.addend[rows]))
    places, number = np.unique(places, axis=1, return_inverse=True)
    home, behind = places[0] // 2, places[0] % 2
    blocks, islands = add_equal_blocks(
        graph,
        graph.section_list[0],
        places.shape[1],
        content,
        spec.stub_alignment,
        int(SymbolFlags.CALLABLE),
    )
    table.section[blocks] = table.section[home]
    table.origin[blocks] = table.origin[home]
    table.address[blocks] = (table.address[home].view(np.int64) + 2 * behind - 1).view(np.uint64)
    _transform(graph, rows, spec.stub_requests, islands[number.reshape(-1)])
    edges.addend[rows] = 0
    return blocks, places[1], places[2]


def _number_blocks(graph: LinkGraph) -> None:
    """Number the blocks in the order of the layout, with unused numbers between them for islands.

    The numbers replace the addresses in the object files, which from here on only order blocks.
    """
    table, rows = graph.block_table, graph.block_rows()
    order = np.lexsort((table.address[rows], table.origin[rows], table.section[rows]))
    table.address[rows[order]] = np.arange(len(rows), dtype=np.uint64) * np.uint64(4) + np.uint64(1)


def _transform(
    graph: LinkGraph, rows: Int64Array, requests: Mapping[EdgeKind, EdgeKind], target: Int64Array
) -> None:
    """Transform the kinds of requesting edges, and set new targets (int64, one per row)."""
    edges = graph.edge_table
    kinds = np.arange(max(map(int, requests)) + 1)
    for kind, result in requests.items():
        kinds[int(kind)] = int(result)
    edges.kind[rows] = kinds[edges.kind[rows]]
    edges.target[rows] = target
