"""Fixups of a few edges, one by one: an array operation takes as long as a whole edge here.

What is applied here is the usual: a value that fills its container and passes its checks. If one
edge is of another kind, nothing is written, and `jitlink.fixups` applies all of them as columns, or
says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jitlink.graph.columns import ADDRESS_MASK
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION
from jitlink.graph.tables import DEFINED

if TYPE_CHECKING:
    from jitlink.fixups import Fixup, FixupTable
    from jitlink.graph import LinkGraph

_MOST_EDGES, _MOST_ROWS = 64, 400
"""How many edges, and how many other rows, a graph may have that is handled here."""
_SIGN = 1 << 63
_OF_EDGES = frozenset(("A", "S", "P"))
_OF_GRAPHS = frozenset(("GOT", "DTP", "TP", "MODULE"))


class UsualFixup(NamedTuple):
    """What it takes to apply a row of a fixup table.

    Attributes:
        evaluate: as `Fixup.evaluate`.
        bases: the letters with one value for the graph that it uses.
        width: size in bytes of the container.
        low, high: the smallest and the largest value.
    """

    evaluate: Callable[[Mapping[str, Any]], Any]
    bases: frozenset[str]
    width: int
    low: int
    high: int


def usual_fixups(rows: Iterable[Fixup]) -> dict[int, UsualFixup]:
    """Those rows of a fixup table that are applied here, by edge kind."""
    return {
        int(row.kind): UsualFixup(row.evaluate, row.letters - _OF_EDGES, row.width, *row.limits)
        for row in rows
        if _is_usual(row)
    }


def _is_usual(fixup: Fixup) -> bool:
    """Whether a value fills its container, of the usual byte order, if it is in range."""
    is_whole = not fixup.slices and fixup.field is None and not fixup.endianness
    is_known = fixup.letters <= _OF_EDGES | _OF_GRAPHS
    return bool(fixup.expression) and is_whole and fixup.alignment == 1 and is_known


def apply_by_edge(table: FixupTable, graph: LinkGraph, bases: Mapping[str, int]) -> bool:
    """Apply all fixups of a graph, if it is small; False if nothing was done.

    Args:
        table: the fixups.
        graph: the graph, as for `FixupTable.apply`.
        bases: values of the letters that have one value for the graph.
    """
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    if edges.rows > _MOST_EDGES or max(blocks.rows, symbols.rows) > _MOST_ROWS:
        return False
    contents, sizes = blocks.content.tolist(), blocks.size.tolist()
    starts = blocks.address.tolist()
    kinds, in_block, values = symbols.kind.tolist(), symbols.block.tolist(), symbols.value.tolist()
    written: list[tuple[memoryview, bytes]] = []
    order: Literal["little", "big"] = "little" if table.order == "<" else "big"
    letters = dict(bases)
    columns = (edges.kind, edges.block, edges.offset, edges.target, edges.addend)
    for kind, block, offset, target, addend in zip(*(c.tolist() for c in columns), strict=True):
        if kind < FIRST_RELOCATION:
            continue
        fixup, content = table.usual.get(kind), contents[block]
        if fixup is None or content == ZERO_FILL or not fixup.bases <= bases.keys():
            return False
        evaluate, _, width, low, high = fixup
        if not 0 <= offset <= sizes[block] - width:
            return False
        start = starts[in_block[target]] if kinds[target] == DEFINED else 0
        letters["A"], letters["S"] = addend, start + values[target]
        letters["P"] = starts[block] + offset
        value = evaluate(letters) & ADDRESS_MASK
        if not low <= (value ^ _SIGN) - _SIGN <= high:
            return False
        memory = graph.contents.view(content + offset, width)
        if memory.readonly:
            return False
        written.append((memory, (value & ((1 << 8 * width) - 1)).to_bytes(width, order)))
    for memory, data in written:
        memory[:] = data
    return True
