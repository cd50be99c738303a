"""The relocation engine: evaluates a table of fixups over the columns of a graph.

An architecture describes each edge kind as one `Fixup` row. The engine takes all edges of a
kind together: it evaluates the row's expression, checks range and alignment, and writes the
value through the row's bit slices, each as a handful of NumPy operations however many edges
there are. The same rows, read backwards, extract implicit addends and draw reference pages.

Expressions use the letters of the psABIs:

===== =====================================================================
A     the addend
S     address of the target symbol
P     address of the place to be modified
Z     size of the target symbol
GOT   address of the global offset table
===== =====================================================================

joined by ``+`` and ``-``, with decimal constants and ``Page(...)``, which clears the low
12 bits. Arithmetic is modulo 2**64; results are read as signed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from jitlink.errors import FixupError, GraphError, MisalignedTargetError, TargetOutOfRangeError
from jitlink.graph.columns import ADDRESS_MASK, BoolArray, Int64Array, UInt8Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION, EdgeKind
from jitlink.graph.elements import Block, Symbol, SymbolKind
from jitlink.graph.link_graph import LinkGraph

_PAGE_MASK = ~0xFFF


class Check(Enum):
    """How a value is tested against its width."""

    NONE = "any"
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    EITHER = "signed or unsigned"


@dataclass(frozen=True, slots=True)
class BitSlice:
    """`bits` bits of the value, from bit `value_low`, go to bit `place_low` of the container."""

    value_low: int
    bits: int
    place_low: int

    @property
    def place_mask(self) -> int:
        """The bits of the container that the slice replaces."""
        return ((1 << self.bits) - 1) << self.place_low


@dataclass(frozen=True)
class Fixup:
    """One row of an architecture's relocation table.

    Attributes:
        kind: the edge kind that the row defines.
        expression: the value, in the letters above; empty for a kind that a pass must have
            turned into another one before fixups are applied.
        width: size in bytes of the container that is modified.
        check: how the value is range-checked.
        bits: width in bits that the check allows; by default that of the container.
        alignment: the value must be a multiple of this.
        slices: where the bits of the value go; by default the whole container.
        summary: what the kind is for, in one line.
    """

    kind: EdgeKind
    expression: str
    width: int
    check: Check = Check.NONE
    bits: int = 0
    alignment: int = 1
    slices: tuple[BitSlice, ...] = ()
    summary: str = ""

    @cached_property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that passes the check."""
        bits = self.bits or 8 * self.width
        return {
            Check.NONE: (-(1 << 63), (1 << 63) - 1),
            Check.SIGNED: (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            Check.UNSIGNED: (0, (1 << bits) - 1),
            Check.EITHER: (-(1 << (bits - 1)), (1 << bits) - 1),
        }[self.check]

    @cached_property
    def evaluate(self) -> Callable[[Mapping[str, Any]], Any]:
        """The expression, compiled to a function of the letters' values (int64 arrays)."""
        return _compile(ast.parse(self.expression, mode="eval").body)

    @cached_property
    def letters(self) -> frozenset[str]:
        """The letters that the expression uses."""
        tree = ast.parse(self.expression or "0", mode="eval")
        return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))

    def insert(self, value: Int64Array, container: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Containers (unsigned, native order) with `value` entered into their slices."""
        dtype = container.dtype.type
        if not self.slices:
            return value.view(np.uint64).astype(dtype)
        mask = 0
        result = np.zeros(len(value), np.uint64)
        unsigned = value.view(np.uint64)
        for each in self.slices:
            field = (unsigned >> np.uint64(each.value_low)) & np.uint64((1 << each.bits) - 1)
            result |= field << np.uint64(each.place_low)
            mask |= each.place_mask
        keep = dtype(~mask & ((1 << 8 * self.width) - 1))
        return (container & keep) | result.astype(dtype)

    def extract(self, container: npt.NDArray[Any]) -> Int64Array:
        """The values (int64) that stand in containers: `insert` backwards.

        Bits that no slice holds are zero; the sign is extended from the highest bit held
        unless the check is unsigned.
        """
        slices = self.slices or (BitSlice(0, 8 * self.width, 0),)
        unsigned = container.astype(np.uint64)
        value = np.zeros(len(container), np.uint64)
        for each in slices:
            field = (unsigned >> np.uint64(each.place_low)) & np.uint64((1 << each.bits) - 1)
            value |= field << np.uint64(each.value_low)
        top = max(each.value_low + each.bits for each in slices)
        result = value.view(np.int64)
        if self.check is Check.UNSIGNED or top >= 64:
            return result
        return (result << (64 - top)) >> (64 - top)


def _compile(node: ast.expr) -> Callable[[Mapping[str, Any]], Any]:
    match node:
        case ast.Name(id=letter):
            return lambda values: values[letter]
        case ast.Constant(value=int(number)):
            return lambda values: number
        case ast.BinOp(left=left, op=op, right=right):
            first, second = _compile(left), _compile(right)
            if isinstance(op, ast.Add):
                return lambda values: first(values) + second(values)
            if isinstance(op, ast.Sub):
                return lambda values: first(values) - second(values)
        case ast.Call(func=ast.Name(id="Page"), args=[argument]):
            inner = _compile(argument)
            return lambda values: inner(values) & _PAGE_MASK
    raise ValueError(f"not a fixup expression: {ast.unparse(node)}")


class FixupTable:
    """All fixups of one architecture.

    Args:
        rows: one `Fixup` per edge kind.
        endianness: byte order in which containers are stored.
        advice: what to tell a user whose target is out of range, as a clause.
    """

    def __init__(
        self, rows: Sequence[Fixup], *, endianness: str = "little", advice: str = ""
    ) -> None:
        self.rows = tuple(rows)
        self.by_kind = {int(row.kind): row for row in rows}
        self.order = "<" if endianness == "little" else ">"
        self.advice = advice
        count = max(self.by_kind) + 1
        self.widths = np.zeros(count, np.int64)
        for kind, row in self.by_kind.items():
            self.widths[kind] = row.width

    def containers(self, data: UInt8Array, width: int) -> npt.NDArray[Any]:
        """A view on every (unaligned, overlapping) container of `width` bytes in `data`."""
        dtype = np.dtype(f"{self.order}u{width}")
        count = max(len(data) - width + 1, 0)
        return np.ndarray((count,), dtype, data.data if count else bytes(width), strides=(1,))

    def read_addends(
        self, graph: LinkGraph, kinds: Int64Array, blocks: Int64Array, offsets: Int64Array
    ) -> Int64Array:
        """The implicit addends (int64) that stand in the blocks' contents.

        Fields of zero-fill blocks read as zero. The caller has checked the offsets.
        """
        addends = np.zeros(len(kinds), np.int64)
        content = graph.block_table.content[blocks]
        places = np.where(content == ZERO_FILL, ZERO_FILL, content + offsets)
        for data, base, mask in graph.contents.partition(places):
            for kind in np.unique(kinds[mask]).tolist():
                row = self.by_kind.get(kind)
                if row is None or row.width == 0:
                    continue
                chosen = rows_where(mask & (kinds == kind))
                container = self.containers(data, row.width)[places[chosen] - base]
                addends[chosen] = row.extract(container.astype(f"u{row.width}"))
        return addends

    def apply(self, graph: LinkGraph, *, got_address: int | None = None) -> None:
        """Apply all fixups of a graph to the working memory of its blocks.

        Args:
            graph: allocated and with all externals resolved.
            got_address: address of the global offset table, if the graph has one.

        Raises:
            FixupError: an edge's value does not fit, or its kind is one that no pass has
                turned into a fixup; nothing is said about how many others were written.
            GraphError: an edge lies outside its block or in zero-fill.
        """
        _Application(self, graph, got_address).run()


class _Application:
    """One run of `FixupTable.apply`."""

    def __init__(self, table: FixupTable, graph: LinkGraph, got_address: int | None) -> None:
        self.table = table
        self.graph = graph
        self.edges = graph.edge_table
        self.got_address = got_address
        self.addresses = graph.symbol_addresses().view(np.int64)

    def run(self) -> None:
        edges, blocks = self.edges, self.graph.block_table
        count = np.bincount(edges.kind, minlength=FIRST_RELOCATION)
        kinds = rows_where(count)
        kinds = kinds[kinds >= FIRST_RELOCATION].tolist()
        for kind in kinds:
            fixup = self.table.by_kind.get(kind)
            if fixup is None or not fixup.expression:
                rows = rows_where(edges.kind == kind)
                self._fail(FixupError, rows, 0, "has a kind that cannot be applied")
        rows = rows_where(edges.kind >= FIRST_RELOCATION)
        block, offset, kind = edges.block[rows], edges.offset[rows], edges.kind[rows]
        content = blocks.content[block]
        bad = (offset < 0) | (offset > blocks.size[block] - self.table.widths[kind])
        bad |= content == ZERO_FILL
        if np.count_nonzero(bad):
            self._fail(FixupError, rows[bad], 0, "lies outside its block's content")
        content += offset
        for data, base, mask in self.graph.contents.partition(content):
            if not data.flags.writeable:
                raise GraphError("a block to be fixed up has read-only content")
            for each in kinds:
                chosen = rows_where((kind == each) & mask)
                self._apply(self.table.by_kind[each], rows[chosen], data, content[chosen] - base)

    def _apply(
        self, fixup: Fixup, rows: Int64Array, data: UInt8Array, places: Int64Array
    ) -> None:
        """Apply one row of the table to edges whose fields are at `places` of `data`."""
        value = fixup.evaluate(self._letters(fixup, rows))
        self._check(fixup, rows, value)
        container = self.table.containers(data, fixup.width)
        if fixup.slices:
            old = container[places].astype(f"u{fixup.width}")
            container[places] = fixup.insert(value, old)
        else:
            # The assignment drops the upper bits, which the check has looked at.
            container[places] = value.view(np.uint64).astype(f"u{fixup.width}")

    def _letters(self, fixup: Fixup, rows: Int64Array) -> dict[str, Any]:
        edges = self.edges
        values: dict[str, Any] = {"A": edges.addend[rows]}
        if "S" in fixup.letters:
            values["S"] = self.addresses[edges.target[rows]]
        if "P" in fixup.letters:
            address = self.graph.block_table.address[edges.block[rows]]
            values["P"] = address.view(np.int64) + edges.offset[rows]
        if "Z" in fixup.letters:
            values["Z"] = self.graph.symbol_table.size[edges.target[rows]].view(np.int64)
        if "GOT" in fixup.letters:
            if self.got_address is None:
                self._fail(FixupError, rows, 0, "needs a global offset table; there is none")
            values["GOT"] = np.array(self.got_address, np.uint64).view(np.int64)
        return values

    def _check(self, fixup: Fixup, rows: Int64Array, value: Int64Array) -> None:
        if fixup.check is not Check.NONE:
            low, high = fixup.limits
            bad = (value < low) | (value > high)
            if np.count_nonzero(bad):
                self._reject_range(fixup, rows[bad], value[bad])
        if fixup.alignment > 1:
            bad = value & (fixup.alignment - 1) != 0
            if np.count_nonzero(bad):
                self._reject_alignment(fixup, rows[bad], value[bad])

    # Errors

    def _reject_range(self, fixup: Fixup, rows: Int64Array, value: Int64Array) -> NoReturn:
        low, high = fixup.limits
        address = int(self.addresses[self.edges.target[rows[0]]]) & ADDRESS_MASK
        reason = f"at {address:#x} is out of range: value {int(value[0]):#x} is not in {low:#x} .. {high:#x}"
        if self.table.advice:
            reason += f"; {self.table.advice}"
        self._fail(
            TargetOutOfRangeError,
            rows,
            int(value[0]),
            reason,
            low=low,
            high=high,
            target_address=address,
        )

    def _reject_alignment(self, fixup: Fixup, rows: Int64Array, value: Int64Array) -> NoReturn:
        reason = f"is misaligned: value {int(value[0]):#x} is not a multiple of {fixup.alignment}"
        self._fail(MisalignedTargetError, rows, int(value[0]), reason, alignment=fixup.alignment)

    def _fail(
        self, error: type[FixupError], rows: Int64Array, value: int, reason: str, **attributes: int
    ) -> NoReturn:
        row = int(rows[0])
        block = Block(self.graph, int(self.edges.block[row]))
        failure = error(
            reason,
            graph=self.graph.name,
            section=block.section.name,
            block_address=block.address,
            offset=int(self.edges.offset[row]),
            kind=str(self.graph.edge_kinds(int(self.edges.kind[row]))),
            target=describe(Symbol(self.graph, int(self.edges.target[row]))),
            value=value,
            count=len(rows),
        )
        for name, number in attributes.items():
            setattr(failure, name, number)
        raise failure


def describe(symbol: Symbol) -> str:
    """A symbol's name, or where it points if it has none."""
    if symbol.has_name:
        return symbol.name
    if symbol.is_defined:
        return f"{symbol.section.name}+{symbol.offset:#x}"
    return f"address {symbol.address:#x}"


def in_range(value: Int64Array, bits: int) -> BoolArray:
    """Whether values fit a signed field of `bits` bits."""
    return (value >= -(1 << (bits - 1))) & (value < (1 << (bits - 1)))


def resolved(graph: LinkGraph, rows: Int64Array) -> BoolArray:
    """Whether symbol rows are defined or have an address that is not null."""
    table = graph.symbol_table
    return (table.kind[rows] == SymbolKind.DEFINED) | (table.value[rows] != 0)
