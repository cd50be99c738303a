"""A link graph in the language of Graphviz: blocks are boxes, and arrows are edges.

``jitlink -noexec -show-graphs . -show-graphs-format dot main.o | dot -Tsvg`` draws it. A box is
within the frame of its section and has the block's symbols, address and size; an arrow is the set
of edges of one kind from one block to another. Absolute and external symbols are ovals.

Specification: "The DOT Language" in Graphviz's documentation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from jitlink.graph import LinkGraph, SymbolKind
from jitlink.graph.columns import BoolArray, Int64Array
from jitlink.graph.edges import INVALID
from jitlink.graph.text import GraphText, printable

_MOST_NAMES = 6
"""A box with more symbols than this shows the first ones, and how many more there are."""


class GraphDot:
    """A graph, or parts of it, for Graphviz.

    Args:
        graph: the graph, which must not be changed.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self._graph = graph
        self._text = GraphText(graph)

    def text(self, blocks: BoolArray | None = None, name: str | None = None) -> str:
        """The graph as lines of text, each terminated.

        Args:
            blocks: mask (bool, one per block row) of the blocks to show with their targets;
                None shows all.
            name: the name to show instead of the graph's.
        """
        title = _quoted(printable(self._graph.name if name is None else name))
        lines = [
            f"digraph {title} {{",
            f"  label={title} rankdir=LR",
            "  node [shape=box fontname=monospace]",
            *self._lines(blocks),
            "}",
        ]
        return "".join(f"{line}\n" for line in lines)

    def _lines(self, blocks: BoolArray | None) -> Iterator[str]:
        rows_of = self._text.rows_of_sections(blocks)
        shown = {row for rows in rows_of.values() for row in rows}
        for section in sorted(self._graph.sections, key=lambda each: each.name):
            rows = rows_of.get(section.ordinal, [])
            if rows:
                yield f"  subgraph cluster_{section.ordinal} {{"
                yield f"    label={_quoted(f'{printable(section.name)} {section.mem_prot}')}"
                yield from (f"    {self._box(row)}" for row in rows)
                yield "  }"
        arrows = self._arrows(np.array(sorted(shown), np.int64))
        # Blocks of other objects, and symbols in no block.
        for target in sorted({target for _, target, _ in arrows}):
            if target.startswith("s"):
                yield f"  {self._oval(int(target[1:]))}"
            elif int(target[1:]) not in shown:
                yield f"  {self._box(int(target[1:]))}"
        for (source, target, kind), count in arrows.items():
            times = f" x{count}" if count > 1 else ""
            yield f"  {source} -> {target} [label={_quoted(kind + times)}]"

    def _arrows(self, rows: Int64Array) -> Counter[tuple[str, str, str]]:
        """The number of edges of each kind from each block to each node."""
        edges, symbols = self._graph.edge_table, self._graph.symbol_table
        chosen = np.isin(edges.block, rows) & (edges.kind != INVALID)
        target = edges.target[chosen]
        defined = symbols.kind[target] == SymbolKind.DEFINED
        columns = (edges.block[chosen], defined, symbols.block[target], target, edges.kind[chosen])
        found: Counter[tuple[str, str, str]] = Counter()
        for block, is_defined, other, symbol, kind in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            node = f"b{other}" if is_defined else f"s{symbol}"
            found[f"b{block}", node, self._text.kinds.get(kind, f"unknown kind {kind}")] += 1
        return found

    def _box(self, row: int) -> str:
        table, names = self._graph.block_table, self._text.names
        named = [names[each] for each in self._text.symbols_of_block.get(row, ()) if names[each]]
        more = [f"and {len(named) - _MOST_NAMES} more"] if len(named) > _MOST_NAMES else []
        place = f"{int(table.address[row]):#x}, {int(table.size[row])} bytes"
        label = _quoted(*named[:_MOST_NAMES], *more, place)
        return f"b{row} [label={label}]"

    def _oval(self, row: int) -> str:
        name = self._text.names[row] or "anonymous"
        label = _quoted(name, f"{self._text.addresses[row]:#x}")
        return f"s{row} [shape=oval label={label}]"


def _quoted(*lines: str) -> str:
    """Lines as one quoted string; backslashes and quotes are escaped."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
