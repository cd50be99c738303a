"""Facts about each link, recorded for reports: its memory, its discarded blocks, its externals.

They are recorded at four points of a link: at its start, after dead-stripping, after addresses are
assigned, and after fixups. Every byte that a link loads is in one of its segments, in a block or in
padding.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from jitlink.graph import BlockFlags, LinkGraph, MemLifetime, MemProt, Scope, SymbolKind
from jitlink.graph.columns import BoolArray, Int32Array, Int64Array, rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.link import PassConfiguration
from jitlink.memory.layout import BasicLayout
from jitlink.orc import JITDylib, MaterializationResponsibility, Plugin
from jitlink.orc.interface import JITDylibLookupFlags
from jitlink.passes.got_plt import got_plt_blocks, got_plt_targets

_OWN_PREFIX = "$__"
"""Prefix of the names of sections that the linker creates."""


class PlacedSymbol(NamedTuple):
    """A named symbol.

    Attributes:
        address: its address.
        size: its size in bytes.
        name: its name.
        is_local: whether its scope is its own object.
    """

    address: int
    size: int
    name: str
    is_local: bool


class PlacedBlock(NamedTuple):
    """A block in memory.

    Attributes:
        address: its address.
        size: its size in bytes.
        alignment: its alignment in bytes, apart from its alignment offset.
        section: name of its section.
        file: display name of its object; empty for a block that the linker created.
        leads_to: the target's name, for a GOT entry or a stub.
        symbols: the named symbols in it.
    """

    address: int
    size: int
    alignment: int
    section: str
    file: str
    leads_to: str
    symbols: list[PlacedSymbol]


class PlacedSegment(NamedTuple):
    """Memory of one protection, with the blocks in it.

    Attributes:
        address: its start address.
        size: its size in bytes, padding included.
        alignment: its alignment in bytes.
        prot: its protection.
        lifetime: its lifetime.
        blocks: its blocks, in order of address.
    """

    address: int
    size: int
    alignment: int
    prot: MemProt
    lifetime: MemLifetime
    blocks: list[PlacedBlock]

    @property
    def padding(self) -> int:
        """Bytes outside of its blocks."""
        return self.size - sum(block.size for block in self.blocks)


class DiscardedBlock(NamedTuple):
    """A block that was read and not loaded.

    Attributes:
        file: display name of its object.
        number: its number among the object's blocks; None for a part of one.
        section: name of its section.
        size: its size in bytes.
        is_loadable: whether its section is loaded at all.
        is_of_discarded_group: whether another group of its COMDAT signature was kept.
    """

    file: str
    number: int | None
    section: str
    size: int
    is_loadable: bool
    is_of_discarded_group: bool


class External(NamedTuple):
    """An external symbol of a link.

    Attributes:
        name: its name.
        address: its address; 0 for an undefined weak reference.
        dylib: name of the JITDylib that defines it; empty if none does.
        source: what defines it there.
        users: display names of the objects that refer to it.
    """

    name: str
    address: int
    dylib: str
    source: str
    users: tuple[str, ...]


class GraphFacts:
    """One link.

    Attributes:
        files: display names of its objects.
        dylib: name of the JITDylib that it was linked into.
        segments: its memory.
        discarded: the blocks that it does not load.
        externals: the external symbols.
        absolutes: the absolute symbols.
    """

    def __init__(self, graph: LinkGraph, dylib: JITDylib) -> None:
        self.files = list(graph.origins)
        self.dylib = dylib.name
        self.segments: list[PlacedSegment] = []
        self.discarded: list[DiscardedBlock] = []
        self.externals: list[External] = []
        self.absolutes: list[PlacedSymbol] = []
        self._dylib = dylib
        self._discarded_groups: BoolArray = _is_removed(graph)
        self._number_of = _numbers(graph.block_table.origin)
        self._users: dict[int, list[int]] = {}

    def _file(self, origin: int) -> str:
        return self.files[origin] if 0 <= origin < len(self.files) else ""

    def find_discarded(self, graph: LinkGraph) -> None:
        """Record the blocks that dead-stripping has removed."""
        table, names = graph.block_table, graph.section_list.names
        read, lifetimes = len(self._discarded_groups), graph.section_lifetimes()
        for row in rows_where(_is_removed(graph)).tolist():
            section = int(table.section[row])
            self.discarded.append(
                DiscardedBlock(
                    self._file(int(table.origin[row])),
                    int(self._number_of[row]) if row < read else None,
                    names[section],
                    int(table.size[row]),
                    bool(lifetimes[section] != int(MemLifetime.NO_ALLOC)),
                    row < read and bool(self._discarded_groups[row]),
                )
            )

    def find_segments(self, graph: LinkGraph) -> None:
        """Record the segments."""
        layout = BasicLayout(graph)
        _, offsets = layout.block_offsets()
        # Before relaxation, which removes references to GOT entries and stubs.
        self._users = _users(graph, rows_where(graph.symbol_table.kind == SymbolKind.EXTERNAL))
        for segment in layout.segments:
            first = int(segment.block_rows[0])
            address = int(graph.block_table.address[first]) - int(offsets[first])
            size, alignment = segment.size, segment.alignment
            self.segments.append(
                PlacedSegment(address, size, alignment, segment.prot, segment.lifetime, [])
            )

    def find_contents(self, graph: LinkGraph) -> None:
        """Record the final contents of the segments."""
        sections = graph.section_list
        of_attributes = {(each.prot, each.lifetime): each for each in self.segments}
        table, rows = graph.block_table, graph.block_rows()
        symbols, targets = _symbols_of_blocks(graph), _entry_targets(graph)
        columns = (table.address, table.size, table.alignment, table.section, table.origin)
        values = (rows, *(column[rows] for column in columns))
        for row, address, size, alignment, ordinal, origin in zip(
            *(column.tolist() for column in values), strict=True
        ):
            section = sections[ordinal]
            segment = of_attributes.get((section.mem_prot, section.mem_lifetime))
            if segment is not None:
                file = "" if section.name.startswith(_OWN_PREFIX) else self._file(origin)
                entry, inside = targets.get(row, ""), symbols.get(row, [])
                segment.blocks.append(
                    PlacedBlock(address, size, alignment, section.name, file, entry, inside)
                )
        for segment in self.segments:
            segment.blocks.sort(key=lambda block: (block.address, block.size))
        self._find_names(graph)

    def _find_names(self, graph: LinkGraph) -> None:
        table = graph.symbol_table
        rows = rows_where((table.kind == SymbolKind.ABSOLUTE) & (table.name != NO_NAME))
        self.absolutes = _placed(graph, rows)
        rows = rows_where(table.kind == SymbolKind.EXTERNAL)
        for row, name in zip(rows.tolist(), graph.strings.get_many(table.name[rows]), strict=True):
            files = tuple(
                file for origin in self._users.get(row, ()) if (file := self._file(origin))
            )
            definer = _definer(self._dylib, name)
            self.externals.append(External(name, int(table.value[row]), *definer, files))


class LinkFacts(Plugin):
    """Records the facts about all links that succeed.

    Attributes:
        graphs: the links, in the order of their completion; to be read while none is running.
    """

    def __init__(self) -> None:
        self.graphs: list[GraphFacts] = []
        self._of_link: dict[int, GraphFacts] = {}

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add the passes that record a link."""
        facts = GraphFacts(graph, responsibility.dylib)
        self._of_link[id(responsibility)] = facts
        # Before any other pass adds blocks, and before and after others move them.
        config.post_prune.insert(0, facts.find_discarded)
        config.post_allocation.insert(0, facts.find_segments)
        config.post_fixup.append(partial(self._finish, facts))

    def _finish(self, facts: GraphFacts, graph: LinkGraph) -> None:
        facts.find_contents(graph)
        self.graphs.append(facts)

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Keep the facts of a link."""
        self._of_link.pop(id(responsibility), None)

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Drop the facts of a link; its objects may be linked again."""
        facts = self._of_link.pop(id(responsibility), None)
        if facts in self.graphs:
            self.graphs.remove(facts)


def _is_removed(graph: LinkGraph) -> BoolArray:
    removed: BoolArray = graph.block_table.flags & int(BlockFlags.REMOVED) != 0
    return removed


def _numbers(origins: Int32Array) -> Int64Array:
    """Index of each block among the blocks of its origin (int64)."""
    order = np.argsort(origins, kind="stable")
    ordered = origins[order]
    numbers = np.empty(len(origins), np.int64)
    numbers[order] = np.arange(len(origins)) - ordered.searchsorted(ordered)
    return numbers


def _symbols_of_blocks(graph: LinkGraph) -> dict[int, list[PlacedSymbol]]:
    table = graph.symbol_table
    rows = rows_where((table.kind == SymbolKind.DEFINED) & (table.name != NO_NAME))
    found: dict[int, list[PlacedSymbol]] = {}
    for block, symbol in zip(table.block[rows].tolist(), _placed(graph, rows), strict=True):
        found.setdefault(block, []).append(symbol)
    for symbols in found.values():
        symbols.sort()
    return found


def _placed(graph: LinkGraph, rows: Int64Array) -> list[PlacedSymbol]:
    table = graph.symbol_table
    addresses, sizes = graph.symbol_addresses()[rows].tolist(), table.size[rows].tolist()
    local = (table.scope[rows] == Scope.LOCAL).tolist()
    return list(
        map(PlacedSymbol, addresses, sizes, graph.strings.get_many(table.name[rows]), local)
    )


def _entry_targets(graph: LinkGraph) -> dict[int, str]:
    """Names of the targets of GOT entries and stubs, by block row; some have no name."""
    table, target = graph.symbol_table, got_plt_targets(graph)
    rows = rows_where((table.kind == SymbolKind.DEFINED) & (target != np.arange(table.rows)))
    rows = rows[got_plt_blocks(graph)[table.block[rows]] & (table.name[target[rows]] != NO_NAME)]
    names = graph.strings.get_many(table.name[target[rows]])
    return dict(zip(table.block[rows].tolist(), names, strict=True))


def _users(graph: LinkGraph, rows: Int64Array) -> dict[int, list[int]]:
    """Origins that refer to symbols, directly or through GOT entries and stubs, by symbol row."""
    edges, table = graph.edge_table, graph.block_table
    wanted = np.zeros(graph.symbol_table.rows, np.bool_)
    wanted[rows] = True
    target = got_plt_targets(graph)[edges.target]
    used = rows_where(wanted[target] & ~got_plt_blocks(graph)[edges.block])
    pairs = np.stack((target[used], table.origin[edges.block[used]].astype(np.int64)), axis=1)
    found: dict[int, list[int]] = {}
    for symbol, origin in np.unique(pairs, axis=0).tolist():
        found.setdefault(symbol, []).append(origin)
    return found


def _definer(dylib: JITDylib, name: str) -> tuple[str, str]:
    """The JITDylib of a link order that defines a name, and what defines it there."""
    for each, flags in dylib.link_order:
        held = each.symbols.get(name)
        shown = flags is not JITDylibLookupFlags.MATCH_EXPORTED_ONLY
        if held is not None and (shown or held.flags[name].is_exported):
            return each.name, held.source
    return "", ""
