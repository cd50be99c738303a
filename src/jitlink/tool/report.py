"""The reports of a link that the command prints: linked files, graphs, addresses, contents.

The lines of `-show-addrs` are those of llvm-jitlink, sorted; a local name occurs once for each
object that defines it. A section's line covers the blocks of one object in it.

LLVM differs: it links each object as a graph with its own GOT and stubs. Here objects share
them, and calls between objects need neither, so a GOT entry or stub is listed with each object that
uses it, and unused ones are not listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Protocol

import numpy as np

from jitlink.graph import Block, LinkGraph, MemLifetime, Scope, Section, SymbolKind
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.graph.text import GraphText, printable
from jitlink.link import PassConfiguration
from jitlink.orc import MaterializationResponsibility, Plugin
from jitlink.passes.got_plt import GOT_SECTION, STUBS_SECTION, got_plt_blocks, got_plt_targets
from jitlink.tool.options import GraphFormat

Write = Callable[[str], None]


class LinkReport(Plugin):
    """Prints graphs and contents while they are linked, and records addresses.

    Args:
        write: takes text for standard output.
        linked_files: print the name of each object when its link begins.
        graphs: print the graphs of the objects whose names match, after fixups.
        graph_format: the format of graphs.
        addresses: record all addresses, for `address_lines`.
        contents: print the bytes of all sections, after fixups.
        definitions: names and addresses of `-abs`.
    """

    def __init__(
        self,
        write: Write,
        *,
        linked_files: bool = False,
        graphs: re.Pattern[str] | None = None,
        graph_format: GraphFormat = "text",
        addresses: bool = False,
        contents: bool = False,
        definitions: Iterable[tuple[str, int]] = (),
    ) -> None:
        self._write = write
        self._linked_files = linked_files
        self._graphs = graphs
        self._graph_format = graph_format
        self._addresses = addresses
        self._contents = contents
        self._written: set[str] = set()
        self._symbol_lines = [
            (address, printable(name), "zero-fill: 0 bytes") for name, address in definitions
        ]
        self._file_lines: list[str] = []

    @property
    def _needs_passes(self) -> bool:
        return self._addresses or self._contents or self._graphs is not None

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add the passes of the reports to those of a link."""
        if self._linked_files:
            self._name_files(graph)
        if self._needs_passes:
            entries: dict[str, Int64Array] = {}
            # Before relaxation, which removes references to GOT entries and stubs.
            config.post_allocation.append(partial(_find_entries, entries))
            config.post_fixup.append(partial(self._report, entries))

    def _name_files(self, graph: LinkGraph) -> None:
        # Objects of a batch that has failed are linked again, one by one.
        for name in graph.origins:
            if name not in self._written:
                self._written.add(name)
                self._write(f"Linking {printable(name)}\n")

    def _report(self, entries: dict[str, Int64Array], graph: LinkGraph) -> None:
        if self._graphs:
            self._show_graphs(self._graphs, graph, entries)
        if self._contents:
            self._write("".join(f"{line}\n" for line in _content_lines(graph, entries)))
        if self._addresses:
            self._symbol_lines += _symbol_lines(graph)
            self._file_lines += _file_lines(graph, entries)

    def _show_graphs(
        self, pattern: re.Pattern[str], graph: LinkGraph, entries: dict[str, Int64Array]
    ) -> None:
        view, own = _view(graph, self._graph_format), ~got_plt_blocks(graph)
        if not graph.origins and pattern.search(graph.name):
            # A graph of the linker's own, such as one of stubs.
            self._show_graph(view, None, graph.name)
        for origin, name in enumerate(graph.origins):
            if pattern.search(name):
                blocks: BoolArray = (graph.block_table.origin == origin) & own
                for users in entries.values():
                    blocks[users[users[:, 0] == origin, 1]] = True
                self._show_graph(view, blocks, name)

    def _show_graph(self, view: _GraphView, blocks: BoolArray | None, name: str) -> None:
        if self._graph_format == "text":
            self._write(f'Link graph "{printable(name)}" post-fixup:\n')
        self._write(view.text(blocks, name))

    def address_lines(self) -> list[str]:
        """The lines of `-show-addrs` for all links."""
        symbols = [
            f'  "{name}" target addr = {address:#018x}, {where}'
            for address, name, where in sorted(self._symbol_lines)
        ]
        return ["Registered addresses:", "Symbols:", *symbols, *self._file_lines]


class _GraphView(Protocol):
    """A graph in one of the formats."""

    def text(self, blocks: BoolArray | None = None, name: str | None = None) -> str:
        """The text of some blocks of the graph, under a name."""


def _view(graph: LinkGraph, graph_format: GraphFormat) -> _GraphView:
    if graph_format == "json":
        from jitlink.tool.graph_json import GraphJSON  # noqa: PLC0415 - only for this format

        return GraphJSON(graph)
    if graph_format == "dot":
        from jitlink.tool.graph_dot import GraphDot  # noqa: PLC0415

        return GraphDot(graph)
    return GraphText(graph)


def _find_entries(entries: dict[str, Int64Array], graph: LinkGraph) -> None:
    for name in (GOT_SECTION, STUBS_SECTION):
        entries[name] = entry_users(graph, name)


def entry_users(graph: LinkGraph, section_name: str) -> Int64Array:
    """The users of GOT entries or stubs: pairs (int64, two columns) of origin and block row.

    The users of a stub also use the stub's GOT entry.
    """
    edges, table, blocks = graph.edge_table, graph.symbol_table, graph.block_table
    section = graph.find_section_by_name(section_name)
    if section is None:
        return np.empty((0, 2), np.int64)
    target = np.where(table.kind == SymbolKind.DEFINED, table.block, -1)[edges.target]
    leads_in = (target >= 0) & (blocks.section[target] == section.ordinal)
    by_entry = got_plt_blocks(graph)[edges.block]
    direct = rows_where(leads_in & ~by_entry)
    pairs = np.stack((blocks.origin[edges.block[direct]], target[direct]), axis=1)
    if section_name == GOT_SECTION:
        stub_users = entry_users(graph, STUBS_SECTION)
        of_stub = np.full(blocks.rows, -1, np.int64)
        through_stubs = rows_where(leads_in & by_entry)
        of_stub[edges.block[through_stubs]] = target[through_stubs]
        entries = of_stub[stub_users[:, 1]]
        indirect = np.stack((stub_users[:, 0], entries), axis=1)[entries >= 0]
        pairs = np.concatenate((pairs, indirect))
    return np.unique(pairs.astype(np.int64), axis=0)


def entry_names(graph: LinkGraph) -> dict[int, str]:
    """Names of the targets of GOT entries and stubs, by block row; some have none."""
    table, target = graph.symbol_table, got_plt_targets(graph)
    rows = rows_where((target != np.arange(table.rows)) & (table.name[target] != NO_NAME))
    names = graph.strings.get_many(table.name[target[rows]])
    return dict(zip(table.block[rows].tolist(), names, strict=True))


# Lines


def _symbol_lines(graph: LinkGraph) -> list[tuple[int, str, str]]:
    """Address, name and content of all named symbols."""
    table = graph.symbol_table
    shown = (table.kind == SymbolKind.DEFINED) | (table.kind == SymbolKind.ABSOLUTE)
    # Symbols for side effects only, of initialisers, have no address.
    shown &= table.scope != int(Scope.SIDE_EFFECTS_ONLY)
    rows = rows_where(shown & (table.name != NO_NAME))
    unallocated = [s.ordinal for s in graph.sections if s.mem_lifetime == MemLifetime.NO_ALLOC]
    found = []
    for symbol_row, name in zip(
        rows.tolist(), graph.strings.get_many(table.name[rows]), strict=True
    ):
        size, offset = int(table.size[symbol_row]), int(table.value[symbol_row])
        if table.kind[symbol_row] == SymbolKind.ABSOLUTE:
            found.append((offset, printable(name), f"zero-fill: {size} bytes"))
            continue
        block = Block(graph, int(table.block[symbol_row]))
        if block.section.ordinal not in unallocated:
            where = _content([block], offset, size)
            found.append((block.address + offset, printable(name), where))
    return found


def _file_lines(graph: LinkGraph, entries: dict[str, Int64Array]) -> Iterator[str]:
    own = ~got_plt_blocks(graph)
    names = entry_names(graph)
    for origin, file in enumerate(graph.origins):
        yield f'File "{printable(file)}":'
        rows = graph.block_rows()
        rows = rows[(graph.block_table.origin[rows] == origin) & own[rows]]
        yield from _section_lines(graph, rows)
        for section, label in ((GOT_SECTION, "GOT"), (STUBS_SECTION, "Stubs")):
            users = entries[section]
            used = users[users[:, 0] == origin, 1]
            yield from _section_lines(graph, used)
            for row in used.tolist():
                if row in names:
                    block = Block(graph, row)
                    where = _content([block], 0, block.size)
                    name = printable(names[row])
                    yield f'  {label} "{name}": target addr = {block.address:#018x}, {where}'


def _by_section(graph: LinkGraph, rows: Int64Array) -> Iterator[tuple[Section, list[Block]]]:
    """The loaded sections of some blocks, each with its blocks by ascending address."""
    table = graph.block_table
    rows = rows[np.lexsort((table.address[rows], table.section[rows]))]
    blocks = [Block(graph, row) for row in rows.tolist()]
    for section, group in groupby(blocks, key=lambda block: block.section):
        if section.mem_lifetime != MemLifetime.NO_ALLOC:
            yield section, list(group)


def _section_lines(graph: LinkGraph, rows: Int64Array) -> Iterator[str]:
    """A line for each section of some blocks."""
    for section, members in _by_section(graph, rows):
        start = members[0].address
        size = max(block.address + block.size for block in members) - start
        where = _content(members, 0, size)
        yield f'  Section "{printable(section.name)}": target addr = {start:#018x}, {where}'


def _content_lines(graph: LinkGraph, entries: dict[str, Int64Array]) -> Iterator[str]:
    from jitlink.tool.section_contents import section_lines  # noqa: PLC0415 - seldom needed

    own = ~got_plt_blocks(graph)
    for origin, file in enumerate(graph.origins):
        yield f"Relocated section contents for {printable(file)}:"
        rows = graph.block_rows()
        rows = rows[(graph.block_table.origin[rows] == origin) & own[rows]]
        used = [users[users[:, 0] == origin, 1] for users in entries.values()]
        rows = np.concatenate([rows, *used])
        for section, blocks in _by_section(graph, rows):
            yield from section_lines(section.name, blocks)


def _content(blocks: list[Block], offset: int, size: int) -> str:
    """The working memory, in this process, of a range that begins in the first block."""
    for block in blocks:
        if not block.is_zero_fill and block.size:
            memory = np.frombuffer(block.content, np.uint8).__array_interface__["data"][0]
            start = memory - (block.address - blocks[0].address) + offset
            return f"content: {start:#x} -- {start + size:#x} ({size} bytes)"
    return f"zero-fill: {size} bytes"
