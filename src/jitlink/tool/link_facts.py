"""What becomes of everything that is linked: taken down link by link, for reports.

A link is looked at in four places: as it begins, after dead-stripping, when it has addresses,
and when its fixups are done. Every byte that it loads is in one of its segments, and there in a
block or padding.
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
"""What names of sections begin with that the linker makes itself."""


class PlacedSymbol(NamedTuple):
    """A named symbol.

    Attributes:
        address: where it is.
        size: its size in bytes.
        name: its name.
        is_local: whether only its own object can see it.
    """

    address: int
    size: int
    name: str
    is_local: bool


class PlacedBlock(NamedTuple):
    """A block in memory.

    Attributes:
        address: where it is.
        size: its size in bytes.
        alignment: what its address is a multiple of, but for its alignment offset.
        section: name of its section.
        file: display name of the object that it is from; empty for what the linker makes.
        leads_to: for a GOT entry or a stub the name that it is for.
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
        address: where it begins.
        size: its size in bytes, padding included.
        alignment: what its address is a multiple of.
        prot: its protection.
        lifetime: how long it is needed.
        blocks: what is in it, in order of address.
    """

    address: int
    size: int
    alignment: int
    prot: MemProt
    lifetime: MemLifetime
    blocks: list[PlacedBlock]

    @property
    def padding(self) -> int:
        """Bytes that no block has."""
        return self.size - sum(block.size for block in self.blocks)


class LostBlock(NamedTuple):
    """A block that was read and not loaded.

    Attributes:
        file: display name of the object that it is from.
        number: its number among the object's blocks; None for a part of one.
        section: name of its section.
        size: its size in bytes.
        is_loadable: whether it is of a section that is loaded at all.
        is_of_lost_group: whether another group of its COMDAT signature was kept.
    """

    file: str
    number: int | None
    section: str
    size: int
    is_loadable: bool
    is_of_lost_group: bool


class Foreign(NamedTuple):
    """A name that a link found elsewhere.

    Attributes:
        name: the name.
        address: what it was found to be; 0 for a weak one that nobody defines.
        dylib: name of the JITDylib that has it; empty if none has.
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
        segments: the memory that it takes.
        lost: what it does not load.
        foreign: what it found elsewhere.
        absolutes: the absolute symbols.
    """

    def __init__(self, graph: LinkGraph, dylib: JITDylib) -> None:
        self.files = list(graph.origins)
        self.dylib = dylib.name
        self.segments: list[PlacedSegment] = []
        self.lost: list[LostBlock] = []
        self.foreign: list[Foreign] = []
        self.absolutes: list[PlacedSymbol] = []
        self._dylib = dylib
        self._lost_groups: BoolArray = _is_removed(graph)
        self._number_of = _numbers(graph.block_table.origin)
        self._users: dict[int, list[int]] = {}

    def _file(self, origin: int) -> str:
        return self.files[origin] if 0 <= origin < len(self.files) else ""

    def find_lost(self, graph: LinkGraph) -> None:
        """Take down what dead-stripping has left out."""
        table, names = graph.block_table, graph.section_list.names
        read, lifetimes = len(self._lost_groups), graph.section_lifetimes()
        for row in rows_where(_is_removed(graph)).tolist():
            section = int(table.section[row])
            self.lost.append(
                LostBlock(
                    self._file(int(table.origin[row])),
                    int(self._number_of[row]) if row < read else None,
                    names[section],
                    int(table.size[row]),
                    bool(lifetimes[section] != int(MemLifetime.NO_ALLOC)),
                    row < read and bool(self._lost_groups[row]),
                )
            )

    def find_segments(self, graph: LinkGraph) -> None:
        """Take down which memory there is."""
        layout = BasicLayout(graph)
        _, offsets = layout.block_offsets()
        # Before relaxation: afterwards less refers to the entries.
        self._users = _users(graph, rows_where(graph.symbol_table.kind == SymbolKind.EXTERNAL))
        for segment in layout.segments:
            first = int(segment.block_rows[0])
            address = int(graph.block_table.address[first]) - int(offsets[first])
            size, alignment = segment.size, segment.alignment
            self.segments.append(
                PlacedSegment(address, size, alignment, segment.prot, segment.lifetime, [])
            )

    def find_contents(self, graph: LinkGraph) -> None:
        """Take down what is in memory, once it is as it will be."""
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
            self.foreign.append(Foreign(name, int(table.value[row]), *definer, files))


class LinkFacts(Plugin):
    """Takes down all links that succeed.

    Attributes:
        graphs: the links, in the order in which they were done; to be read when none goes on.
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
        """Add the passes that look at a link."""
        facts = GraphFacts(graph, responsibility.dylib)
        self._of_link[id(responsibility)] = facts
        # Before any other pass adds blocks, and before and after others move them.
        config.post_prune.insert(0, facts.find_lost)
        config.post_allocation.insert(0, facts.find_segments)
        config.post_fixup.append(partial(self._finish, facts))

    def _finish(self, facts: GraphFacts, graph: LinkGraph) -> None:
        facts.find_contents(graph)
        self.graphs.append(facts)

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Keep the facts of a link."""
        self._of_link.pop(id(responsibility), None)

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Forget the facts of a link; its objects may be linked once more."""
        facts = self._of_link.pop(id(responsibility), None)
        if facts in self.graphs:
            self.graphs.remove(facts)


def _is_removed(graph: LinkGraph) -> BoolArray:
    removed: BoolArray = graph.block_table.flags & int(BlockFlags.REMOVED) != 0
    return removed


def _numbers(origins: Int32Array) -> Int64Array:
    """Number of each block among those of its origin (int64)."""
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
    """What GOT entries and stubs are for, by block row; some have no name."""
    table, target = graph.symbol_table, got_plt_targets(graph)
    rows = rows_where((table.kind == SymbolKind.DEFINED) & (target != np.arange(table.rows)))
    rows = rows[got_plt_blocks(graph)[table.block[rows]] & (table.name[target[rows]] != NO_NAME)]
    names = graph.strings.get_many(table.name[target[rows]])
    return dict(zip(table.block[rows].tolist(), names, strict=True))


def _users(graph: LinkGraph, rows: Int64Array) -> dict[int, list[int]]:
    """Origins that refer to symbols, directly or through entries, by symbol row."""
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
    """The JITDylib of a link order that has a name, and what defines it there."""
    for each, flags in dylib.link_order:
        held = each.symbols.get(name)
        shown = flags is not JITDylibLookupFlags.MATCH_EXPORTED_ONLY
        if held is not None and (shown or held.flags[name].is_exported):
            return each.name, held.source
    return "", ""
