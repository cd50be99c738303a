"""Small objects: what one adds to a graph, as records instead of columns.

NumPy takes about a microsecond for an operation, whatever it is about, and a reader for many
objects makes hundreds of them. A few dozen records are read faster one by one. A reader of small
objects reads what compilers usually write, and gives up on all that is unusual or wrong: the
format's other reader, which is asked next, reads it or says what is wrong.

The rows of a `SmallObject` are those that the other reader adds to a graph for the same object, in
the same order, with numbers that begin at 0 in each object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitlink.formats.batch import NO_COMDAT_GROUPS, ComdatGroups, ReadObjects
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Array, Columns, Int64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME

MOST_BYTES = 1 << 15
MOST_RECORDS = 200
"""How many bytes and records are read and added to a graph as records at once."""
_LEAST_RECORDS = 8
"""How many records most objects have at least."""


ColumnsOfRows = Mapping[str, Array[Any]]
"""Columns of a table by name, of equal length."""


class SmallObject(NamedTuple):
    """One object.

    Attributes:
        data: its bytes.
        flags: flags of the architecture, for `LinkGraph.origin_flags`.
        sections: names of the sections that the blocks are in, one for each.
        prots, lifetimes: protections and lifetimes of these, a byte each.
        blocks: size, alignment, content and flags of each block; the content is an offset in the
            object, or `ZERO_FILL`.
        symbols: name, kind, block, value, size, linkage, scope and flags of each symbol; the name
            is an offset in the string table, or `NO_NAME`.
        edges: block, offset, kind, target and addend of each edge.
        strings: the string table of the symbols' names.
        groups: for each COMDAT group, the name of its signature, an offset in the string table, and
            its blocks.
        may_limit_address: whether an edge may limit the addresses at which it can be linked.
    """

    data: memoryview
    flags: int
    sections: Sequence[str]
    prots: bytes
    lifetimes: bytes
    blocks: Sequence[tuple[int, int, int, int]]
    symbols: Sequence[tuple[int, int, int, int, int, int, int, int]]
    edges: Sequence[tuple[int, int, int, int, int]]
    strings: bytes
    groups: Sequence[tuple[int, Sequence[int]]]
    may_limit_address: bool

    @property
    def records(self) -> int:
        """How many records it has."""
        return len(self.blocks) + len(self.symbols) + len(self.edges)

    def string(self, offset: int) -> str:
        """The name at an offset in the string table, which ends it if nothing else does."""
        end = self.strings.find(b"\0", offset)
        return self.strings[offset : None if end < 0 else end].decode("utf-8", "surrogateescape")


def may_be_small(count: int, size: int = 0) -> bool:
    """Whether so many objects, of so many bytes in all, may have few records."""
    return count * _LEAST_RECORDS <= MOST_RECORDS and size <= MOST_BYTES


def are_few(objects: Sequence[SmallObject]) -> bool:
    """Whether it is faster to add objects to a graph as records than to read them as columns."""
    return sum([each.records for each in objects]) <= MOST_RECORDS


def add_small_objects(
    graph: LinkGraph, names: Sequence[str], objects: Sequence[SmallObject]
) -> ReadObjects:
    """Add small objects to a graph.

    Args:
        graph: the graph, which is one of their target.
        names: display names of the objects.
        objects: at least one object.
    """
    first_block, first_edge = graph.block_table.rows, graph.edge_table.rows
    blocks: list[tuple[int, ...]] = []
    symbols: list[tuple[int, ...]] = []
    edges: list[tuple[int, ...]] = []
    first_symbols: list[int] = []
    groups: list[tuple[int, Sequence[int]]] = []
    for origin, each in enumerate(objects, len(graph.origins)):
        content = graph.contents.add(each.data)
        string = graph.strings.add_table(each.strings + b"\0")
        block = first_block + len(blocks)
        symbol = graph.symbol_table.rows + len(symbols)
        first_symbols.append(symbol)
        blocks += _block_rows(each, origin, content)
        symbols += [
            (name if name == NO_NAME else string + name, kind,
             in_block if in_block == NO_BLOCK else block + in_block, *others)
            for name, kind, in_block, *others in each.symbols
        ]  # fmt: skip
        edges += [
            (block + in_block, offset, kind, symbol + target, addend)
            for in_block, offset, kind, target, addend in each.edges
        ]
        groups += [(string + name, [block + row for row in rows]) for name, rows in each.groups]
    graph.origins.extend(names)
    graph.origin_flags.extend([each.flags for each in objects])
    _add_blocks(graph, objects, blocks)
    _extend(graph.symbol_table, _SYMBOL_COLUMNS, symbols)
    _extend(graph.edge_table, _EDGE_COLUMNS, edges)
    return ReadObjects(
        np.array(first_symbols), graph.symbol_table.rows, first_block, first_edge,
        graph.edge_table.rows, _comdat_groups(groups),
    )  # fmt: skip


def add_columns(
    graph: LinkGraph,
    name: str,
    sections: SmallObject,
    symbols: ColumnsOfRows,
    edges: ColumnsOfRows,
) -> ReadObjects:
    """Add one object to a graph whose symbols and edges are columns.

    Args:
        graph: the graph, which is one of the object's target.
        name: display name of the object.
        sections: the object, without symbols and edges.
        symbols: columns of its symbols, with numbers and names as in a `SmallObject`.
        edges: columns of its edges, likewise; empty if there are none.
    """
    content = graph.contents.add(sections.data)
    string = graph.strings.add_table(sections.strings + b"\0")
    block = graph.block_table.rows
    _add_blocks(graph, [sections], _block_rows(sections, len(graph.origins), content))
    graph.origins.append(name)
    graph.origin_flags.append(sections.flags)
    names, in_block = symbols["name"], symbols["block"]
    names[names != NO_NAME] += string
    in_block[in_block != NO_BLOCK] += block
    first_symbol = graph.symbol_table.extend(len(names), **symbols)
    first_edge = graph.edge_table.rows
    if edges:
        placed = {"block": edges["block"] + block, "target": edges["target"] + first_symbol}
        graph.edge_table.extend(len(edges["kind"]), **{**edges, **placed})
    groups = [(string + n, [block + row for row in rows]) for n, rows in sections.groups]
    return ReadObjects(
        np.array([first_symbol]), graph.symbol_table.rows, block, first_edge,
        graph.edge_table.rows, _comdat_groups(groups),
    )  # fmt: skip


def _block_rows(each: SmallObject, origin: int, content: int) -> list[tuple[int, ...]]:
    return [
        (origin, size, alignment, place if place == ZERO_FILL else content + place, flags)
        for size, alignment, place, flags in each.blocks
    ]


_BLOCK_COLUMNS = ("origin", "size", "alignment", "content", "flags")
_SYMBOL_COLUMNS = ("name", "kind", "block", "value", "size", "linkage", "scope", "flags")
_EDGE_COLUMNS = ("block", "offset", "kind", "target", "addend")


def _add_blocks(
    graph: LinkGraph, objects: Sequence[SmallObject], rows: list[tuple[int, ...]]
) -> None:
    if rows:
        sections = [name for each in objects for name in each.sections]
        prots = b"".join([each.prots for each in objects])
        lifetimes = b"".join([each.lifetimes for each in objects])
        ordinals = graph.section_list.obtain(sections, prots, lifetimes)
        _extend(graph.block_table, _BLOCK_COLUMNS, rows, section=ordinals)


def _extend(
    table: Columns, names: Sequence[str], rows: list[tuple[int, ...]], **columns: Int64Array
) -> None:
    """Append rows, whose fields are those of some columns, to a table."""
    if rows:
        fields = np.array(rows, np.int64).T
        table.extend(len(rows), **dict(zip(names, fields, strict=True)), **columns)


def _comdat_groups(groups: Sequence[tuple[int, Sequence[int]]]) -> ComdatGroups:
    if not groups:
        return NO_COMDAT_GROUPS
    members = [(number, block) for number, (_, rows) in enumerate(groups) for block in rows]
    numbers, blocks = np.array(members, np.int64).reshape(-1, 2).T
    return ComdatGroups(np.array([name for name, _ in groups]), numbers, blocks)
