"""A link graph as readable text, in the order and with the fields of llvm-jitlink's dump.

Sections are ordered by name, the blocks of a section by address, the symbols of a block by
offset, linkage and scope, the edges of a block by offset. An anonymous target is written as its
block's address and its offset in that block::

    section .text:

      block 0x1000 size = 0x0000000a, align = 16, alignment-offset = 0
        symbols:
          0x1000 (block + 0x00000000): size: 0x0000000a, linkage: strong, scope: default, ...
        edges:
          0x1004 (block + 0x00000004), addend = -0x00000004, kind = Delta32, target = counter

LLVM differs: it writes an anonymous target as the *symbol's* address plus the offset, orders
names by their addresses in memory, and abbreviates the scope ``side-effects-only``. Attributes
that LLVM's symbols lack follow the name in parentheses, and sections that share a name have
their protection and lifetime beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph.columns import ADDRESS_MASK, BoolArray, Int64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID
from jitlink.graph.elements import Section
from jitlink.graph.tables import Linkage, Scope, SymbolFlags, SymbolKind

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph

_NOTES = (
    (SymbolFlags.WEAKLY_REFERENCED, "weakly referenced"),
    (SymbolFlags.INDIRECT, "ifunc"),
    (SymbolFlags.THREAD_LOCAL, "thread-local"),
    (SymbolFlags.UNIQUE, "unique"),
)


def printable(name: str) -> str:
    """A name with unprintable characters escaped, so that it is one line of valid text."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in name)


def _escaped(code: int) -> str:
    # A byte that is not UTF-8 was decoded to a surrogate escape.
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    if byte <= 0xFF:
        return f"\\x{byte:02x}"
    return f"\\u{byte:04x}" if byte <= 0xFFFF else f"\\U{byte:08x}"


class GraphText:
    """Writes a graph, or parts of it, as text; what the parts share is computed once.

    Args:
        graph: the graph, which must not change in between.

    Attributes:
        graph: the graph.
        addresses: address of each symbol, by row.
        names: printable name of each symbol, by row.
        symbols_of_block: rows of the symbols of each block, in order.
        kinds: names of the edge kinds, by number.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self.addresses: list[int] = graph.symbol_addresses().tolist()
        self.names = list(map(printable, graph.strings.get_many(graph.symbol_table.name)))
        self.symbols_of_block = self._symbols_of_block()
        self.kinds = {kind.value: kind.llvm_name for kind in graph.edge_kinds}

    def text(self, blocks: BoolArray | None = None, name: str | None = None) -> str:
        """The graph as lines of text, each with a newline.

        Args:
            blocks: mask (bool, one per block row) of the blocks to show, with the sections
                that have any and the absolute and external symbols that they refer to; None
                shows all.
            name: the graph's name in the text; None for its own.
        """
        title = self.graph.name if name is None else name
        return "".join(f"{line}\n" for line in self._lines(title, blocks))

    def _symbols_of_block(self) -> dict[int, list[int]]:
        """Rows of the defined symbols of each block row, in the order of the dump."""
        table, names = self.graph.symbol_table, self.names
        columns = (table.value, table.linkage, table.scope)
        offset, linkage, scope = (column.tolist() for column in columns)
        found: dict[int, list[int]] = {}
        rows = np.flatnonzero(table.kind == SymbolKind.DEFINED).tolist()
        # Of symbols that are otherwise equal the anonymous ones come last.
        rows.sort(
            key=lambda row: (offset[row], linkage[row], scope[row], not names[row], names[row])
        )
        for row in rows:
            found.setdefault(int(table.block[row]), []).append(row)
        return found

    def _lines(self, title: str, blocks: BoolArray | None) -> Iterator[str]:
        graph = self.graph
        yield f'LinkGraph "{printable(title)}" (triple = {graph.triple})'
        shared = Counter(section.name for section in graph.sections)
        rows_of = self.rows_of_sections(blocks)
        for section in sorted(graph.sections, key=lambda section: section.name):
            rows = rows_of.get(section.ordinal, [])
            if rows or blocks is None:
                yield from self._section(section, rows, shared[section.name] > 1)
        yield "Absolute symbols:"
        yield from self._addressables(SymbolKind.ABSOLUTE, blocks)
        yield ""
        yield "External symbols:"
        yield from self._addressables(SymbolKind.EXTERNAL, blocks)

    def rows_of_sections(self, blocks: BoolArray | None) -> dict[int, list[int]]:
        """Rows of the blocks to show, in order, by the ordinal of their section."""
        table, rows = self.graph.block_table, self.graph.block_rows()
        if blocks is not None:
            rows = rows[blocks[rows]]
        rows = rows[np.lexsort((rows, table.origin[rows], table.address[rows]))]
        found: dict[int, list[int]] = {}
        for row, ordinal in zip(rows.tolist(), table.section[rows].tolist(), strict=True):
            found.setdefault(ordinal, []).append(row)
        return found

    def _section(self, section: Section, rows: list[int], name_is_shared: bool) -> Iterator[str]:
        attributes = f" ({section.mem_prot} {section.mem_lifetime})" if name_is_shared else ""
        yield f"section {printable(section.name)}{attributes}:"
        yield ""
        for row in rows:
            yield from self._block(row)
            yield ""

    def _block(self, row: int) -> Iterator[str]:
        table = self.graph.block_table
        zero_fill = ", zero-fill" if table.content[row] == ZERO_FILL else ""
        yield (
            f"  block {table.address[row]:#x} size = {table.size[row]:#010x}, "
            f"align = {table.alignment[row]}, alignment-offset = {table.alignment_offset[row]}"
            f"{zero_fill}"
        )
        symbols = self.symbols_of_block.get(row, ())
        yield "    symbols:" if symbols else "    no symbols"
        for symbol in symbols:
            yield f"      {self._symbol(symbol, 'block')}"
        edges = self.graph.edge_table.rows_of_block(row)
        edges = edges[np.argsort(self.graph.edge_table.offset[edges], kind="stable")]
        yield "    edges:" if len(edges) else "    no edges"
        for edge in edges.tolist():
            yield f"      {self._edge(edge, int(table.address[row]))}"

    def _symbol(self, row: int, base: str) -> str:
        table = self.graph.symbol_table
        offset = int(table.value[row]) if table.kind[row] == SymbolKind.DEFINED else 0
        flags = SymbolFlags(int(table.flags[row]))
        if table.kind[row] != SymbolKind.EXTERNAL:
            flags &= ~SymbolFlags.WEAKLY_REFERENCED
        live = "live" if flags & SymbolFlags.LIVE else "dead"
        notes = "".join(f" ({note})" for flag, note in _NOTES if flags & flag)
        return (
            f"{self.addresses[row]:#x} ({base} + {offset:#010x}): size: {table.size[row]:#010x}, "
            f"linkage: {Linkage(table.linkage[row])}, scope: {Scope(table.scope[row])}, "
            f"{live}  -   {self.names[row] or '<anonymous symbol>'}{notes}"
        )

    def _edge(self, row: int, block_address: int) -> str:
        table = self.graph.edge_table
        offset, addend, kind = int(table.offset[row]), int(table.addend[row]), int(table.kind[row])
        return (
            f"{(block_address + offset) & ADDRESS_MASK:#x} (block + {offset:#010x}), "
            f"addend = {'-' if addend < 0 else '+'}{abs(addend):#010x}, "
            f"kind = {self.kinds.get(kind, f'<unknown kind {kind}>')}, "
            f"target = {self._target(int(table.target[row]))}"
        )

    def _target(self, row: int) -> str:
        if self.names[row]:
            return self.names[row]
        table = self.graph.symbol_table
        if table.kind[row] != SymbolKind.DEFINED:
            return f"addressable@{self.addresses[row]:#x}+{0:#010x}"
        base = self.graph.block_table.address[table.block[row]]
        return f"addressable@{base:#x}+{table.value[row]:#010x}"

    def addressable_rows(self, kind: SymbolKind, blocks: BoolArray | None) -> list[int]:
        """Rows of the symbols of a kind, in order; with `blocks`, only those they refer to."""
        rows: Int64Array = np.flatnonzero(self.graph.symbol_table.kind == kind)
        if blocks is not None:
            edges = self.graph.edge_table
            used = np.zeros(self.graph.symbol_table.rows, np.bool_)
            used[edges.target[blocks[edges.block] & (edges.kind != INVALID)]] = True
            rows = rows[used[rows]]
        return sorted(rows.tolist(), key=lambda row: (self.addresses[row], self.names[row]))

    def _addressables(self, kind: SymbolKind, blocks: BoolArray | None) -> Iterator[str]:
        ordered = self.addressable_rows(kind, blocks)
        for row in ordered:
            yield f"  {self.addresses[row]:#x}: {self._symbol(row, 'addressable')}"
        if not ordered:
            yield "  none"
