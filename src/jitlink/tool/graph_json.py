"""A link graph as JSON, for programs: one line for each graph.

A graph is an object with these members; addresses are strings such as ``"0x1000"``, because many
JSON readers do not support integers of 64 bits, and all other numbers are integers::

    name, triple, pointer_size, endianness      of the graph; sizes are in bytes
    sections: [
      name, protection, lifetime                protection is three letters of RWX or -
      blocks: [
        address, size, alignment, alignment_offset, zero_fill, file
        symbols: [ id, name, offset, address, size, linkage, scope, live, callable ]
        edges: [ offset, kind, addend, target, target_name ]
      ]
    ]
    absolute_symbols: [ id, name, address, size, linkage, scope, live, callable ]
    external_symbols: [ the same, and weakly_referenced ]

The target of an edge is the id of a symbol; ids are unique among objects that are linked together.
The name of an anonymous symbol is null, and so is the file of a block that the linker created.
Sections are sorted by name, blocks by address, symbols and edges by offset, as in the text.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from jitlink.graph import Linkage, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import BoolArray
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.text import GraphText

Fields = dict[str, Any]


class GraphJSON:
    """A graph, or parts of it, as JSON.

    Args:
        graph: the graph, which must not be changed.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self._graph = graph
        self._text = GraphText(graph)
        self._names = graph.strings.get_many(graph.symbol_table.name)

    def text(self, blocks: BoolArray | None = None, name: str | None = None) -> str:
        """The graph as one line, terminated.

        Args:
            blocks: mask (bool, one per block row) of the blocks to show, with their sections and
                the absolute and external symbols that they refer to; None shows all.
            name: the name to show instead of the graph's.
        """
        graph = self._graph
        fields: Fields = {
            "name": _valid(graph.name if name is None else name),
            "triple": graph.triple,
            "pointer_size": graph.pointer_size,
            "endianness": graph.endianness,
            "sections": self._sections(blocks),
            "absolute_symbols": self._addressables(SymbolKind.ABSOLUTE, blocks),
            "external_symbols": self._addressables(SymbolKind.EXTERNAL, blocks),
        }
        return f"{json.dumps(fields)}\n"

    def _sections(self, blocks: BoolArray | None) -> list[Fields]:
        rows_of = self._text.rows_of_sections(blocks)
        return [
            {
                "name": _valid(section.name),
                "protection": str(section.mem_prot),
                "lifetime": str(section.mem_lifetime),
                "blocks": [self._block(row) for row in rows_of.get(section.ordinal, ())],
            }
            for section in sorted(self._graph.sections, key=lambda each: each.name)
            if blocks is None or section.ordinal in rows_of
        ]

    def _block(self, row: int) -> Fields:
        table, origins = self._graph.block_table, self._graph.origins
        origin, section = int(table.origin[row]), int(table.section[row])
        is_own = self._graph.section_list.names[section].startswith("$__")
        is_own = is_own or not 0 <= origin < len(origins)
        edges = self._graph.edge_table.rows_of_block(row)
        edges = edges[np.argsort(self._graph.edge_table.offset[edges], kind="stable")]
        symbols = self._text.symbols_of_block.get(row, ())
        return {
            "address": hex(int(table.address[row])),
            "size": int(table.size[row]),
            "alignment": int(table.alignment[row]),
            "alignment_offset": int(table.alignment_offset[row]),
            "zero_fill": bool(table.content[row] == ZERO_FILL),
            "file": None if is_own else _valid(origins[origin]),
            "symbols": [self._symbol(each) for each in symbols],
            "edges": [self._edge(each) for each in edges.tolist()],
        }

    def _symbol(self, row: int) -> Fields:
        table = self._graph.symbol_table
        flags = SymbolFlags(int(table.flags[row]))
        fields: Fields = {
            "id": row,
            "name": _valid(self._names[row]) or None,
            "address": hex(self._text.addresses[row]),
            "size": int(table.size[row]),
            "linkage": str(Linkage(int(table.linkage[row]))),
            "scope": str(Scope(int(table.scope[row]))),
            "live": bool(flags & SymbolFlags.LIVE),
            "callable": bool(flags & SymbolFlags.CALLABLE),
        }
        if table.kind[row] == SymbolKind.DEFINED:
            fields["offset"] = int(table.value[row])
        elif table.kind[row] == SymbolKind.EXTERNAL:
            fields["weakly_referenced"] = bool(flags & SymbolFlags.WEAKLY_REFERENCED)
        return fields

    def _edge(self, row: int) -> Fields:
        table = self._graph.edge_table
        kind, target = int(table.kind[row]), int(table.target[row])
        return {
            "offset": int(table.offset[row]),
            "kind": self._text.kinds.get(kind, f"unknown kind {kind}"),
            "addend": int(table.addend[row]),
            "target": target,
            "target_name": _valid(self._names[target]) or None,
        }

    def _addressables(self, kind: SymbolKind, blocks: BoolArray | None) -> list[Fields]:
        return [self._symbol(row) for row in self._text.addressable_rows(kind, blocks)]


def _valid(name: str) -> str:
    """A name as valid JSON text: bytes that are not UTF-8 become backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
