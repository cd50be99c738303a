"""The relocation engine: applies a table of fixups to the columns of a graph.

An architecture describes each edge kind by one `Fixup` row. The engine processes all edges of a
kind together: it evaluates the row's expression, checks range and alignment, and writes the
value through the row's bit slices, each with a few NumPy operations for any number of edges.
The same rows, inverted, extract implicit addends; the reference page is generated from them.

Expressions use the letters of the psABIs:

====== ====================================================================
A      the addend
S      address of the target symbol
P      address of the place to be modified
Z      size of the target symbol
GOT    address of the global offset table
DTP    address of the graph's TLS block, in the address range of its symbols
TP     address of the thread pointer, in the same range
MODULE number of the graph's TLS module
V      the value in place, read through the row's slices
====== ====================================================================

joined by ``+`` and ``-``, with decimal constants and ``Page(...)``, which clears the low
12 bits. Arithmetic is modulo 2**64; results are read as signed.

Several edges may modify one place. Only kinds whose expression has a V depend on the value in
place: they are applied after all others, kind by kind in the order of the table's rows, and of
several edges of such a kind at one place each reads what the one before has written.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache, cached_property
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np

from jitlink.errors import FixupError, GraphError, MisalignedTargetError, TargetOutOfRangeError
from jitlink.fixup_errors import fail
from jitlink.fixups_by_edge import UsualFixup, apply_by_edge, usual_fixups
from jitlink.graph.columns import (
    ADDRESS_MASK,
    Array,
    BoolArray,
    Int64Array,
    UInt8Array,
    UInt64Array,
    rows_where,
)
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION, EdgeKind
from jitlink.graph.elements import Block
from jitlink.graph.link_graph import LinkGraph
from jitlink.graph.tables import DEFINED, MemProt

_PAGE_MASK = ~0xFFF
_CHUNK = 1 << 14
"""Number of edges that are applied at a time, so that intermediate arrays stay in the cache."""
_ORDERS = {"little": "<", "big": ">"}
_BASES = {
    "GOT": "a global offset table; there is none",
    "DTP": "a TLS block; the graph has none",
    "TP": "a known offset from the thread pointer; there is none",
    "MODULE": "a TLS module that is loaded; there is none",
}
"""Letters with one value per graph, and what is missing where they have none, for messages."""


class Check(Enum):
    """How the range of a value is checked."""

    NONE = "any"
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    EITHER = "signed or unsigned"


class Flip(Enum):
    """Whether the bits of a slice are complemented in the container."""

    NEVER = "never"
    ALWAYS = "always"
    IF_NEGATIVE = "if the value is negative"


class BitSlice(NamedTuple):
    """`bits` bits of the value, from bit `value_low`, go to bit `place_low` of the container.

    Bit 63 is the value's sign. `flip` says whether the bits are complemented. With `rounding`
    the bits are those of the value rounded to a multiple of 2**`value_low`, because the bits
    below are added by another instruction as a signed number.
    """

    value_low: int
    bits: int
    place_low: int
    flip: Flip = Flip.NEVER
    rounding: bool = False

    @property
    def half(self) -> int:
        """What rounding adds to the value."""
        return 1 << (self.value_low - 1) if self.rounding else 0

    @property
    def place_mask(self) -> int:
        """The bits of the container that the slice replaces."""
        return ((1 << self.bits) - 1) << self.place_low


class Field(Protocol):
    """Reads and writes fields of variable width; all arguments are columns."""

    def measure(self, data: UInt8Array, places: Int64Array, ends: Int64Array) -> Int64Array:
        """Sizes in bytes (int64) of the fields at `places`; 0 if one does not end before `ends`."""

    def read(self, data: UInt8Array, places: Int64Array, sizes: Int64Array) -> Int64Array:
        """The values (int64) in fields of these sizes."""

    def write(
        self, data: UInt8Array, places: Int64Array, sizes: Int64Array, value: Int64Array
    ) -> None:
        """Store values, truncated to the fields; the sizes do not change."""


class Advice(NamedTuple):
    """How the source of code is to be compiled so that its targets are in range.

    Attributes:
        text: a clause for the message.
        outside_only: whether it helps only for targets outside the graph.
    """

    text: str
    outside_only: bool = False


class Fixup(NamedTuple):
    """One row of an architecture's relocation table.

    Attributes:
        kind: the edge kind that the row defines.
        expression: the value, in the letters above; empty for a kind that a pass must turn
            into another one before fixups are applied.
        width: size in bytes of the container that is modified.
        check: how the value is range-checked.
        bits: width in bits that the check assumes; by default that of the container.
        alignment: the value must be a multiple of this.
        slices: where the bits of the value go; by default the whole container.
        endianness: byte order of the container, if it differs from that of data.
        field: how the value is stored, if not in a container; `width` is then the least size.
        summary: the meaning of the kind, in one line.
        advice: what to do about a target of code that is out of range, if that is known.
    """

    kind: EdgeKind
    expression: str
    width: int
    check: Check = Check.NONE
    bits: int = 0
    alignment: int = 1
    slices: tuple[BitSlice, ...] = ()
    endianness: str = ""
    field: Field | None = None
    summary: str = ""
    advice: Advice | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that pass the check."""
        # A value that rounding would move out of range is out of range.
        half = max((part.half for part in self.slices), default=0)
        return _limits(self.check, self.bits or 8 * self.width, half)

    @property
    def evaluate(self) -> Callable[[Mapping[str, Any]], Any]:
        """The expression, compiled to a function of the letters' values (int64 arrays)."""
        return _evaluation(self.expression)

    @property
    def letters(self) -> frozenset[str]:
        """The letters that the expression uses."""
        return _letters(self.expression)

    @property
    def is_in_place(self) -> bool:
        """Whether the expression depends on the value in place."""
        # No other letter contains a V, so the expression need not be parsed.
        return "V" in self.expression

    def accepts(self, value: Int64Array) -> BoolArray:
        """Whether values (int64) pass the checks of range and alignment (bool each)."""
        low, high = self.limits
        fits: BoolArray = (value >= low) & (value <= high)
        fits &= value & (self.alignment - 1) == 0
        return fits

    def insert(self, value: Int64Array, container: Array[Any]) -> Array[Any]:
        """Containers (unsigned, native order) with `value` inserted into their slices."""
        dtype = container.dtype.type
        if not self.slices:
            return value.view(np.uint64).astype(dtype)
        mask = 0
        result = np.zeros(len(value), np.uint64)
        unsigned = value.view(np.uint64)
        for part in self.slices:
            source = unsigned if part.flip is Flip.NEVER else _flip(value, part.flip)
            if part.rounding:
                source = source + np.uint64(part.half)
            field = (source >> np.uint64(part.value_low)) & np.uint64((1 << part.bits) - 1)
            result |= field << np.uint64(part.place_low)
            mask |= part.place_mask
        keep = dtype(~mask & ((1 << 8 * self.width) - 1))
        inserted: Array[Any] = (container & keep) | result.astype(dtype)
        return inserted

    def extract(self, container: Array[Any]) -> Int64Array:
        """The values (int64) in containers: the inverse of `insert`.

        Bits that no slice holds are zero; the sign is extended from the highest bit held,
        unless the check is unsigned.
        """
        slices = self.slices or (BitSlice(0, 8 * self.width, 0),)
        unsigned = container.astype(np.uint64)
        value = np.zeros(len(container), np.uint64)
        # Slices that depend on the sign come after the slice that holds it.
        for part in sorted(slices, key=lambda part: part.flip is Flip.IF_NEGATIVE):
            mask = np.uint64((1 << part.bits) - 1)
            field = (unsigned >> np.uint64(part.place_low)) & mask
            if part.flip is not Flip.NEVER:
                field = _flip(value.view(np.int64), part.flip, field) & mask
            value |= field << np.uint64(part.value_low)
        for half in {part.half for part in slices} - {0}:
            # A negative lower part was compensated by rounding.
            value -= (value & np.uint64(half)) << np.uint64(1)
        top = max(part.value_low + part.bits for part in slices)
        result = value.view(np.int64)
        if self.check is Check.UNSIGNED or top >= 64:
            return result
        return (result << (64 - top)) >> (64 - top)


def _flip(value: Int64Array, flip: Flip, bits: UInt64Array | None = None) -> UInt64Array:
    """`bits` (by default the value itself), complemented as `flip` says."""
    mask = value >> 63 if flip is Flip.IF_NEGATIVE else np.int64(-1)
    result = (value if bits is None else bits.view(np.int64)) ^ mask
    return result.view(np.uint64)


@cache
def _limits(check: Check, bits: int, half: int) -> tuple[int, int]:
    return {
        Check.NONE: (-(1 << 63), (1 << 63) - 1),
        Check.SIGNED: (-(1 << (bits - 1)) - half, (1 << (bits - 1)) - half - 1),
        Check.UNSIGNED: (0, (1 << bits) - 1),
        Check.EITHER: (-(1 << (bits - 1)), (1 << bits) - 1),
    }[check]


@cache
def _letters(expression: str) -> frozenset[str]:
    tree = ast.parse(expression or "0", mode="eval")
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


@cache
def _evaluation(expression: str) -> Callable[[Mapping[str, Any]], Any]:
    return _compile(ast.parse(expression, mode="eval").body)


def _compile(node: ast.expr) -> Callable[[Mapping[str, Any]], Any]:
    match node:
        case ast.Name(id=letter):
            return lambda values: values[letter]
        case ast.Constant(value=int(number)):
            return lambda _values: number
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
    """

    def __init__(self, rows: Sequence[Fixup], *, endianness: str = "little") -> None:
        self.rows = tuple(rows)
        self.by_kind = {int(row.kind): row for row in rows}
        self.order = _ORDERS[endianness]
        count = max(self.by_kind) + 1
        self.widths = np.zeros(count, np.int64)
        self.is_in_place = np.zeros(count, np.bool_)
        for kind, row in self.by_kind.items():
            self.widths[kind] = row.width
            self.is_in_place[kind] = row.is_in_place

    @cached_property
    def usual(self) -> dict[int, UsualFixup]:
        """The rows that are applied edge by edge, by edge kind."""
        return usual_fixups(self.rows)

    def containers(self, data: UInt8Array, row: Fixup) -> Array[Any]:
        """A view of every (unaligned, overlapping) container of a row's kind in `data`."""
        width = row.width
        order = _ORDERS[row.endianness] if row.endianness else self.order
        dtype = np.dtype(f"{order}u{width}")
        count = max(len(data) - width + 1, 0)
        return np.ndarray((count,), dtype, data.data if count else bytes(width), strides=(1,))

    def read_addends(
        self, graph: LinkGraph, kinds: Int64Array, blocks: Int64Array, offsets: Int64Array
    ) -> Int64Array:
        """The implicit addends (int64) in the blocks' contents.

        Fields of zero-fill blocks read as zero. The caller must have checked the offsets.
        """
        addends = np.zeros(len(kinds), np.int64)
        content = graph.block_table.content[blocks]
        places = np.where(content == ZERO_FILL, ZERO_FILL, content + offsets)
        for data, base, here in graph.contents.partition(places):
            found, kind_of_place, position = addends[here], kinds[here], places[here] - base
            for kind in np.unique(kind_of_place).tolist():
                row = self.by_kind.get(kind)
                if row is None or row.width == 0 or row.field is not None:
                    continue
                chosen = rows_where(kind_of_place == kind)
                container = self.containers(data, row)[position[chosen]]
                found[chosen] = row.extract(container.astype(f"u{row.width}"))
            addends[here] = found
        return addends

    def apply(
        self,
        graph: LinkGraph,
        *,
        got_address: int | None = None,
        tls_bases: Mapping[str, int] | None = None,
        rows: Int64Array | None = None,
    ) -> None:
        """Apply fixups of a graph to the working memory of its blocks.

        Args:
            graph: the graph, which is allocated, with all externals resolved.
            got_address: address of the global offset table, if the graph has one.
            tls_bases: values of the letters DTP, TP and MODULE, as far as they are known.
            rows: rows (int64) of the edges to apply; by default all.

        Raises:
            FixupError: an edge's value does not fit, its offset lies outside its block's content,
                or no pass has turned its kind into one that can be applied; it is unspecified
                which other fixups have been applied.
            GraphError: the content of a block is read-only.
        """
        bases = dict(tls_bases or {})
        if got_address is not None:
            bases["GOT"] = got_address
        edges = graph.edge_table
        if rows is None:
            if apply_by_edge(self, graph, bases):
                return
            rows = rows_where(edges.kind >= FIRST_RELOCATION)
        else:
            rows = rows[edges.kind[rows] >= FIRST_RELOCATION]
        _Application(self, graph, bases).run(rows)


class _Rejected(NamedTuple):
    """Edges whose values do not pass a check of their row of the table."""

    fixup: Fixup
    rows: Int64Array
    value: Int64Array
    is_misaligned: bool


class _Application:
    """One run of `FixupTable.apply`."""

    def __init__(self, table: FixupTable, graph: LinkGraph, bases: Mapping[str, int]) -> None:
        self.table = table
        self.graph = graph
        self.edges = graph.edge_table
        self.bases = bases
        self.addresses = graph.symbol_addresses().view(np.int64)
        self._rejected: list[_Rejected] = []

    def run(self, rows: Int64Array) -> None:
        self._apply_all(rows)
        if self._rejected:
            self._fail_rejected()

    def _apply_all(self, rows: Int64Array) -> None:
        edges = self.edges
        kind_of_row = edges.kind[rows]
        kinds = rows_where(np.bincount(kind_of_row) != 0).tolist()
        for kind in kinds:
            fixup = self.table.by_kind.get(kind)
            if fixup is None or not fixup.expression:
                self._fail(
                    FixupError, rows[kind_of_row == kind], 0, "has a kind that cannot be applied"
                )
        in_place = self.table.is_in_place[kind_of_row]
        if np.count_nonzero(in_place):
            rows, later = rows[~in_place], rows[in_place]
            self._apply_chunks(kinds, rows)
            present = set(kinds)
            for kind in (int(row.kind) for row in self.table.rows if row.is_in_place):
                if kind in present:
                    for part in self._rounds(later[edges.kind[later] == kind]):
                        self._apply_chunks([kind], part)
        else:
            self._apply_chunks(kinds, rows)

    def _rounds(self, rows: Int64Array) -> Iterator[Int64Array]:
        """Split rows of edges into groups with no two edges at one place."""
        block = self.edges.block[rows]
        places = self.graph.block_table.content[block] + self.edges.offset[rows]
        if (places[1:] > places[:-1]).all():
            yield rows
            return
        order = np.argsort(places, kind="stable")
        places = places[order]
        first = np.append(True, places[1:] != places[:-1])
        number = np.arange(len(rows))
        number -= np.maximum.accumulate(np.where(first, number, 0))
        by_round = np.argsort(number, kind="stable")
        yield from np.split(rows[order[by_round]], np.bincount(number).cumsum()[:-1])

    def _apply_chunks(self, kinds: list[int], rows: Int64Array) -> None:
        for first in range(0, len(rows), _CHUNK):
            self._apply_rows(kinds, rows[first : first + _CHUNK])

    def _apply_rows(self, kinds: list[int], rows: Int64Array) -> None:
        """Apply edges of several kinds."""
        edges, blocks = self.edges, self.graph.block_table
        block, offset, kind = edges.block[rows], edges.offset[rows], edges.kind[rows]
        content = blocks.content[block]
        bad = (offset < 0) | (offset > blocks.size[block] - self.table.widths[kind])
        bad |= content == ZERO_FILL
        if np.count_nonzero(bad):
            self._fail(FixupError, rows[bad], 0, "lies outside its block's content")
        content += offset
        for data, base, here in self.graph.contents.partition(content):
            if not data.flags.writeable:
                raise GraphError("a block to be fixed up has read-only content")
            kind_here, rows_here, places = kind[here], rows[here], content[here] - base
            for kind_number in kinds:
                chosen = rows_where(kind_here == kind_number)
                if len(chosen):
                    fixup = self.table.by_kind[kind_number]
                    self._apply(fixup, rows_here[chosen], data, places[chosen])

    def _apply(self, fixup: Fixup, rows: Int64Array, data: UInt8Array, places: Int64Array) -> None:
        """Apply one row of the table to edges whose fields are at `places` of `data`."""
        letters = fixup.letters
        values = self._values(letters, rows)
        if fixup.field is not None:
            self._apply_fields(fixup, fixup.field, rows, data, places, values)
            return
        container = self.table.containers(data, fixup)
        if "V" in letters:
            values["V"] = fixup.extract(container[places].astype(f"u{fixup.width}"))
        value = fixup.evaluate(values)
        self._check(fixup, rows, value)
        if fixup.slices:
            old = container[places].astype(f"u{fixup.width}")
            container[places] = fixup.insert(value, old)
        else:
            # The conversion drops the upper bits, which have been checked.
            container[places] = value.view(np.uint64).astype(f"u{fixup.width}")

    def _apply_fields(
        self,
        fixup: Fixup,
        field: Field,
        rows: Int64Array,
        data: UInt8Array,
        places: Int64Array,
        values: dict[str, Any],
    ) -> None:
        to_end = self.graph.block_table.size[self.edges.block[rows]] - self.edges.offset[rows]
        sizes = field.measure(data, places, places + to_end)
        if not sizes.all():
            self._fail(FixupError, rows[sizes == 0], 0, "has no field that ends in its block")
        if "V" in fixup.letters:
            values["V"] = field.read(data, places, sizes)
        value = fixup.evaluate(values)
        self._check(fixup, rows, value)
        field.write(data, places, sizes, value)

    def _values(self, letters: frozenset[str], rows: Int64Array) -> dict[str, Any]:
        """The values of letters (int64 arrays), except for V."""
        edges = self.edges
        values: dict[str, Any] = {"A": edges.addend[rows]}
        if "S" in letters:
            values["S"] = self.addresses[edges.target[rows]]
        if "P" in letters:
            address = self.graph.block_table.address[edges.block[rows]]
            values["P"] = address.view(np.int64) + edges.offset[rows]
        if "Z" in letters:
            values["Z"] = self.graph.symbol_table.size[edges.target[rows]].view(np.int64)
        for letter in _BASES.keys() & letters:
            if letter not in self.bases:
                self._fail(FixupError, rows, 0, f"needs {_BASES[letter]}")
            values[letter] = np.array(self.bases[letter], np.uint64).view(np.int64)
        return values

    def _check(self, fixup: Fixup, rows: Int64Array, value: Int64Array) -> None:
        if fixup.check is not Check.NONE:
            low, high = fixup.limits
            bad = (value < low) | (value > high)
            if np.count_nonzero(bad):
                self._rejected.append(_Rejected(fixup, rows[bad], value[bad], is_misaligned=False))
        if fixup.alignment > 1:
            bad = value & (fixup.alignment - 1) != 0
            if np.count_nonzero(bad):
                self._rejected.append(_Rejected(fixup, rows[bad], value[bad], is_misaligned=True))

    # Errors

    def _fail_rejected(self) -> NoReturn:
        """Raise an error about all edges whose values were rejected."""
        (fixup, rows, value, is_misaligned), *others = self._rejected
        # An edge may be both out of range and misaligned.
        also = np.concatenate([other.rows for other in others]) if others else rows[:0]
        also = also[~np.isin(also, rows)]
        _, positions = np.unique(also, return_index=True)
        also = also[np.sort(positions)]
        first = int(value[0])
        if is_misaligned:
            reason = f"is misaligned: value {first:#x} is not a multiple of {fixup.alignment}"
            error, alignment = MisalignedTargetError, fixup.alignment
            fail(self.graph, rows, reason, error, first, (also,), alignment=alignment)
        low, high = fixup.limits
        address = int(self.addresses[self.edges.target[rows[0]]]) & ADDRESS_MASK
        limits = f"value {first:#x} is not in {low:#x} .. {high:#x}"
        fail(
            self.graph,
            rows,
            f"at {address:#x} is out of range: {limits}{self._advice(fixup, int(rows[0]))}",
            TargetOutOfRangeError,
            first,
            (also,),
            low=low,
            high=high,
            target_address=address,
        )

    def _advice(self, fixup: Fixup, row: int) -> str:
        """What the compiler can do about an edge that is out of range, as a clause."""
        advice, edges, graph = fixup.advice, self.edges, self.graph
        section = Block(graph, int(edges.block[row])).section
        if advice is None or not section.mem_prot & MemProt.EXEC:
            return ""
        is_inside = graph.symbol_table.kind[edges.target[row]] == DEFINED
        return "" if advice.outside_only and is_inside else f"; {advice.text}"

    def _fail(self, error: type[FixupError], rows: Int64Array, value: int, reason: str) -> NoReturn:
        fail(self.graph, rows, reason, error, value)


def in_range(value: Int64Array, bits: int) -> BoolArray:
    """Whether values fit a signed field of `bits` bits (bool each)."""
    return (value >= -(1 << (bits - 1))) & (value < (1 << (bits - 1)))


def resolved(graph: LinkGraph, rows: Int64Array) -> BoolArray:
    """Whether symbol rows are defined or have an address that is not null (bool each)."""
    table = graph.symbol_table
    is_resolved: BoolArray = (table.kind[rows] == DEFINED) | (table.value[rows] != 0)
    return is_resolved
