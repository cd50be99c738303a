"""Edges: an offset in a block, a kind, a target symbol and an addend.

Edges outnumber everything else in a graph by an order of magnitude, so they are rows of one
`EdgeTable`; an `Edge` is a view of a row. Removing an edge sets its kind to INVALID; iteration
skips such rows, and pruning drops them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import (
    INT64_MAX,
    BoolArray,
    Columns,
    Int64Array,
    UInt16Array,
)
from jitlink.graph.elements import Block, Symbol
from jitlink.graph.symbols import check_owner

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph

INVALID = 0
KEEP_ALIVE = 1
FIRST_RELOCATION = 2


def check_addend(addend: int) -> None:
    """Check that an addend is a signed 64-bit number.

    Raises:
        GraphError: it is not.
    """
    if not -INT64_MAX - 1 <= addend <= INT64_MAX:
        raise GraphError(f"edge addend {addend:#x} is not a signed 64-bit number")


class EdgeKind(IntEnum):
    """Base of every architecture's edge kinds; a member's value is ``number, LLVM name``.

    Numbers 0 and 1 are INVALID and KEEP_ALIVE in every architecture. A keep-alive edge changes no
    bytes; it only makes its target live whenever its block is.
    """

    llvm_name: str

    def __new__(cls, number: int, llvm_name: str = "") -> Self:
        """Create a member that compares as `number` and prints as `llvm_name`."""
        # The default is for type checkers, which take a lookup by number for this call.
        member = int.__new__(cls, number)
        member._value_ = number
        member.llvm_name = llvm_name
        return member

    def __str__(self) -> str:
        return self.llvm_name

    @property
    def is_relocation(self) -> bool:
        """Whether edges of this kind modify their block."""
        return self >= FIRST_RELOCATION


class GenericEdgeKind(EdgeKind):
    """The edge kinds that every architecture has."""

    INVALID = INVALID, "INVALID RELOCATION"
    KEEP_ALIVE = KEEP_ALIVE, "Keep-Alive"


class EdgeTable(Columns):
    """One row per edge.

    Columns: block (row of the block to be modified), offset (in that block, in bytes), kind,
    target (row of the target symbol), addend.
    """

    FIELDS: ClassVar = {
        "block": np.int64,
        "offset": np.int64,
        "kind": np.uint16,
        "target": np.int64,
        "addend": np.int64,
    }
    block: Int64Array
    offset: Int64Array
    kind: UInt16Array
    target: Int64Array
    addend: Int64Array

    def __init__(self) -> None:
        super().__init__()
        self.invalidate()

    def invalidate(self) -> None:
        """Drop the index by block, after writes to the `block` column or moves of rows."""
        self._order = np.empty(0, np.int64)
        self._sorted_blocks = np.empty(0, np.int64)

    def keep(self, mask: BoolArray) -> None:
        """Drop the rows where `mask` is false; existing `Edge` views become invalid."""
        super().keep(mask)
        self.invalidate()

    def by_block(self) -> tuple[Int64Array, Int64Array]:
        """All rows (int64) sorted by block (stable), and the block (int64) of each in that order.

        Rows of INVALID edges are included.
        """
        if len(self._order) != self.rows:
            self._order = np.argsort(self.block, kind="stable")
            self._sorted_blocks = self.block[self._order]
        return self._order, self._sorted_blocks

    def rows_of_block(self, block: int) -> Int64Array:
        """Rows (int64) of a block's edges, in order of creation."""
        indexed = len(self._order)
        # Rows that were appended since the last sort are scanned: a pass may alternate
        # between adding edges and reading them.
        if self.rows - indexed > max(64, indexed // 4):
            self.by_block()
            indexed = self.rows
        # Of the column's type, or the whole column would be converted on each call.
        bounds = np.array((block, block + 1), self._sorted_blocks.dtype)
        first, last = np.searchsorted(self._sorted_blocks, bounds)
        recent = np.flatnonzero(self.block[indexed:] == block) + indexed
        rows = np.concatenate((self._order[first:last], recent))
        valid: Int64Array = rows[self.kind[rows] != INVALID]
        return valid

    def of_block(self, graph: LinkGraph, block: int) -> Iterator[Edge]:
        """Views of a block's edges; one that is removed before it is reached is skipped."""
        rows = self.rows_of_block(block).tolist()
        return (Edge(graph, row) for row in rows if self.kind[row] != INVALID)


class Edge:
    """A view of one row of the edge table, valid until the graph is pruned."""

    __slots__ = ("graph", "row")

    def __init__(self, graph: LinkGraph, row: int) -> None:
        self.graph = graph
        self.row = row

    def __repr__(self) -> str:
        return f"<Edge {self.kind} at {self.offset:#x} to {self.target!r} + {self.addend:#x}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edge) and self.row == other.row and self.graph is other.graph

    def __hash__(self) -> int:
        return hash((id(self.graph), self.row))

    @property
    def block(self) -> Block:
        """The block that the edge modifies."""
        return Block(self.graph, int(self.graph.edge_table.block[self.row]))

    @property
    def offset(self) -> int:
        """Offset in the block, in bytes."""
        return int(self.graph.edge_table.offset[self.row])

    @offset.setter
    def offset(self, offset: int) -> None:
        if not 0 <= offset <= self.block.size:
            raise GraphError(f"edge offset {offset:#x} lies outside its block")
        self.graph.edge_table.offset[self.row] = offset

    @property
    def kind(self) -> EdgeKind:
        """What the edge does to the bytes: one of the graph's edge kinds.

        Raises when set:
            GraphError: it is a kind of another architecture.
            ValueError: no kind has that number.
        """
        return self.graph.edge_kinds(int(self.graph.edge_table.kind[self.row]))

    @kind.setter
    def kind(self, kind: EdgeKind | int) -> None:
        self.graph.edge_table.kind[self.row] = self.graph.edge_kind(kind)

    @property
    def target(self) -> Symbol:
        """The symbol that the edge refers to."""
        return Symbol(self.graph, int(self.graph.edge_table.target[self.row]))

    @target.setter
    def target(self, target: Symbol) -> None:
        check_owner(self.graph, target)
        self.graph.edge_table.target[self.row] = target.row

    @property
    def addend(self) -> int:
        """The constant of the kind's expression (signed 64-bit)."""
        return int(self.graph.edge_table.addend[self.row])

    @addend.setter
    def addend(self, addend: int) -> None:
        check_addend(addend)
        self.graph.edge_table.addend[self.row] = addend

    @property
    def is_relocation(self) -> bool:
        """Whether the edge modifies its block."""
        return self.kind.is_relocation

    @property
    def is_keep_alive(self) -> bool:
        """Whether the edge keeps its target alive while its block is, as every valid edge does."""
        return self.kind >= KEEP_ALIVE

    def remove(self) -> None:
        """Remove the edge from the graph."""
        self.graph.edge_table.kind[self.row] = INVALID
