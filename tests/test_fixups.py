"""The relocation engine, compared with a model in plain Python that works bit by bit.

The rows are those of the architectures, and made-up ones whose values are split as in the
instructions of AArch64, Arm and RISC-V.
"""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitlink.arch.aarch64_fixups import ROWS as AARCH64_ROWS
from jitlink.arch.riscv import FIXUPS as RISCV_FIXUPS
from jitlink.arch.x86_64 import FIXUPS, X86_64EdgeKind
from jitlink.errors import (
    FixupError,
    GraphError,
    MisalignedTargetError,
    TargetOutOfRangeError,
)
from jitlink.fixups import BitSlice, Check, Fixup, FixupTable, Flip, in_range
from jitlink.fixups_by_edge import apply_by_edge
from jitlink.graph import Block, EdgeKind, LinkGraph, MemProt, Symbol
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID, KEEP_ALIVE

TOP = 1 << 64
MASK = TOP - 1
ENDS = (0, 1, 0xFFF, 0x1000, 1 << 31, 1 << 32, 1 << 47, 1 << 63, TOP - 0x1000, TOP - 1)
ADDRESSES = st.one_of(
    st.sampled_from(ENDS).flatmap(lambda end: st.integers(-64, 64).map(lambda n: (end + n) & MASK)),
    st.integers(0, MASK),
)
ADDENDS = st.one_of(
    st.integers(-64, 64),
    st.sampled_from([(1 << 63) - 1, -(1 << 63), 1 << 31, -(1 << 31)]),
    st.integers(-(1 << 63), (1 << 63) - 1),
)


class MadeUp(EdgeKind):
    """Kinds of a made-up architecture with properties of several real ones."""

    INVALID = 0, "INVALID RELOCATION"
    KEEP_ALIVE = 1, "Keep-Alive"
    PAGE21 = 2, "Page21"
    BRANCH26 = 3, "Branch26"
    PAGE_OFFSET12 = 4, "PageOffset12"
    LOAD64_OFFSET12 = 5, "Load64Offset12"
    BRANCH12 = 6, "Branch12"
    JUMP20 = 7, "Jump20"
    CALL_PAIR = 8, "CallPair"
    COMPRESSED_BRANCH = 9, "CompressedBranch"
    MOVE_LOW16 = 10, "MoveLow16"
    SET6 = 11, "Set6"
    INVERTED = 12, "Inverted"
    SIGN_MAGNITUDE = 13, "SignMagnitude"
    UNSIGNED24 = 14, "Unsigned24"
    BIG_WORD = 15, "BigWord"
    REQUEST = 99, "Request"


def cuts(*parts: tuple[int, int, int]) -> tuple[BitSlice, ...]:
    return tuple(BitSlice(*part) for part in parts)


PCREL = "S + A - P"
MADE_UP = [
    Fixup(
        MadeUp.PAGE21, "Page(S + A) - Page(P)", 4, Check.SIGNED, 33,
        slices=cuts((12, 2, 29), (14, 19, 5)),
    ),
    Fixup(MadeUp.BRANCH26, PCREL, 4, Check.SIGNED, 28, 4, cuts((2, 26, 0))),
    Fixup(MadeUp.PAGE_OFFSET12, "S + A", 4, slices=cuts((0, 12, 10))),
    Fixup(MadeUp.LOAD64_OFFSET12, "S + A", 4, alignment=8, slices=cuts((3, 9, 10))),
    Fixup(
        MadeUp.BRANCH12, PCREL, 4, Check.SIGNED, 13, 2,
        cuts((12, 1, 31), (5, 6, 25), (1, 4, 8), (11, 1, 7)),
    ),
    Fixup(
        MadeUp.JUMP20, PCREL, 4, Check.SIGNED, 21, 2,
        cuts((20, 1, 31), (1, 10, 21), (11, 1, 20), (12, 8, 12)),
    ),
    Fixup(
        MadeUp.CALL_PAIR, PCREL, 8, Check.SIGNED, 32,
        slices=(BitSlice(12, 20, 12, rounding=True), BitSlice(0, 12, 52)),
    ),
    Fixup(
        MadeUp.COMPRESSED_BRANCH, PCREL, 2, Check.SIGNED, 9, 2,
        cuts((8, 1, 12), (3, 2, 10), (6, 2, 5), (1, 2, 3), (5, 1, 2)),
    ),
    Fixup(MadeUp.MOVE_LOW16, "S + A", 4, slices=cuts((0, 12, 0), (12, 4, 16))),
    Fixup(MadeUp.SET6, "S + A", 1, slices=cuts((0, 6, 0))),
    Fixup(MadeUp.INVERTED, "S + A - 3", 4, slices=(BitSlice(4, 20, 7, Flip.ALWAYS),)),
    Fixup(
        MadeUp.SIGN_MAGNITUDE, PCREL, 4, Check.SIGNED, 17,
        slices=(BitSlice(0, 16, 5, Flip.IF_NEGATIVE), BitSlice(63, 1, 30)),
    ),
    Fixup(MadeUp.UNSIGNED24, "A - S", 4, Check.UNSIGNED, 24, slices=cuts((0, 24, 8))),
    Fixup(MadeUp.BIG_WORD, "S + A", 4, Check.EITHER, endianness="big"),
]  # fmt: skip
REQUEST = Fixup(MadeUp.REQUEST, "", 4)
# Values in place and fields of variable width are tested with the architecture.
RISCV_ROWS = [
    row
    for table in RISCV_FIXUPS.values()
    for row in table.rows
    if "V" not in row.letters and row.field is None
]
ROWS = [
    *(row for row in (*FIXUPS.rows, *AARCH64_ROWS, *RISCV_ROWS) if row.expression),
    *MADE_UP,
]
LINEAR = [row for row in ROWS if "Page" not in row.expression]
CHECKED = [row for row in LINEAR if row.check is not Check.NONE]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind.name)
each_linear = pytest.mark.parametrize("row", LINEAR, ids=lambda row: row.kind.name)
each_checked = pytest.mark.parametrize("row", CHECKED, ids=lambda row: row.kind.name)


# The model


class Letters(NamedTuple):
    """Values of the letters of an expression."""

    S: int
    A: int = 0
    P: int = 0
    Z: int = 0
    GOT: int = 0
    DTP: int = 0
    TP: int = 0
    MODULE: int = 0


def signed(value: int) -> int:
    return ((value + (1 << 63)) & MASK) - (1 << 63)


def evaluate(row: Fixup, letters: Letters) -> int:
    names = {**letters._asdict(), "Page": lambda address: address & ~0xFFF}
    return signed(eval(row.expression, names))


def solve(row: Fixup, letters: Letters, value: int) -> Letters:
    """The letters with an addend that gives this value; every expression adds A."""
    return letters._replace(A=signed(value - evaluate(row, letters._replace(A=0))))


def insert(row: Fixup, value: int, container: int) -> int:
    for part in row.slices or cuts((0, 8 * row.width, 0)):
        flips = part.flip is Flip.ALWAYS or (part.flip is Flip.IF_NEGATIVE and value < 0)
        source = ~value if flips else value
        if part.rounding:
            source += 1 << (part.value_low - 1)
        for bit in range(part.bits):
            place = 1 << (part.place_low + bit)
            container &= ~place
            if source >> (part.value_low + bit) & 1:
                container |= place
    return container


def is_accepted(row: Fixup, value: int) -> bool:
    bits = row.bits or 8 * row.width
    half = max((1 << (s.value_low - 1) for s in row.slices if s.rounding), default=0)
    signed_fits = -(1 << (bits - 1)) <= value + half < 1 << (bits - 1)
    unsigned_fits = 0 <= value < 1 << bits
    fits = {
        Check.NONE: True,
        Check.SIGNED: signed_fits,
        Check.UNSIGNED: unsigned_fits,
        Check.EITHER: signed_fits or unsigned_fits,
    }
    return fits[row.check] and value % row.alignment == 0


def byte_order(row: Fixup, order: str) -> str:
    return row.endianness or order


# The engine


class Place(NamedTuple):
    """A graph with one block to apply fixups to."""

    graph: LinkGraph
    block: Block
    content: bytearray
    table: FixupTable


OFFSET = 5
FILL = bytes((0x5A, 0xA5) * 16)


def make_place(row: Fixup, address: int, order: str = "little") -> Place:
    kinds = type(row.kind)
    graph = LinkGraph("graph.o", "none", edge_kinds=kinds)
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    content = bytearray(FILL)
    block = graph.create_mutable_content_block(section, content, address)
    table = FixupTable([row, REQUEST], endianness=order)
    return Place(graph, block, content, table)


def add_target(place: Place, letters: Letters) -> Symbol:
    return place.graph.add_absolute_symbol("target", letters.S, letters.Z)


def apply(row: Fixup, letters: Letters, order: str = "little") -> bytes:
    """The bytes of the block where the row was applied, alone or with others as columns."""
    alone, as_columns = (
        apply_once(row, letters, order, as_columns=as_columns) for as_columns in (False, True)
    )
    assert alone == as_columns
    return alone


def apply_once(row: Fixup, letters: Letters, order: str, *, as_columns: bool) -> bytes:
    """The bytes of the block where the row was applied; all others must be unchanged."""
    place = make_place(row, (letters.P - OFFSET) & MASK, order)
    place.block.add_edge(row.kind, OFFSET, add_target(place, letters), letters.A)
    bases = {"DTP": letters.DTP, "TP": letters.TP, "MODULE": letters.MODULE}
    rows = np.arange(1) if as_columns else None
    place.table.apply(place.graph, got_address=letters.GOT, tls_bases=bases, rows=rows)
    end = OFFSET + row.width
    assert place.content[:OFFSET] == FILL[:OFFSET]
    assert place.content[end:] == FILL[end:]
    return bytes(place.content[OFFSET:end])


def expected(row: Fixup, value: int, order: str) -> bytes:
    before = FILL[OFFSET : OFFSET + row.width]
    container = int.from_bytes(before, byte_order(row, order))  # type: ignore[arg-type]
    result = insert(row, value, container)
    return result.to_bytes(row.width, byte_order(row, order))  # type: ignore[arg-type]


@each_row
@pytest.mark.parametrize("order", ["little", "big"])
@settings(max_examples=20)
@given(letters=st.builds(Letters, ADDRESSES, ADDENDS, *[ADDRESSES] * 6))
def test_any_value_is_written_or_refused(row: Fixup, order: str, letters: Letters) -> None:
    value = evaluate(row, letters)
    if is_accepted(row, value):
        assert apply(row, letters, order) == expected(row, value, order)
    else:
        with pytest.raises((TargetOutOfRangeError, MisalignedTargetError)) as caught:
            apply(row, letters, order)
        assert caught.value.value == value


def near_limits(row: Fixup) -> list[int]:
    low, high = row.limits
    near = {low, high, 0, low + row.alignment, high - row.alignment, row.alignment}
    values = {value - value % row.alignment for value in near}
    return sorted(value for value in values if is_accepted(row, value))


@each_linear
@pytest.mark.parametrize("order", ["little", "big"])
def test_values_within_the_limits(row: Fixup, order: str) -> None:
    for value in near_limits(row):
        letters = solve(row, Letters(0x7000_1234, P=0x7000_4321, GOT=0x123), value)
        assert evaluate(row, letters) == value
        assert apply(row, letters, order) == expected(row, value, order)


@each_checked
def test_values_one_beyond_the_limits(row: Fixup) -> None:
    low, high = row.limits
    assert is_accepted(row, low - low % -row.alignment)
    assert is_accepted(row, high - high % row.alignment)
    for value in (low - 1, high + 1):
        letters = solve(row, Letters(0x7000_1234, P=0x7000_4321, GOT=0x123), value)
        with pytest.raises(TargetOutOfRangeError) as caught:
            apply(row, letters)
        error = caught.value
        assert (error.graph, error.section) == ("graph.o", ".text")
        assert (error.block_address, error.offset) == (letters.P - OFFSET, OFFSET)
        assert (error.kind, error.target) == (str(row.kind), "target")
        assert (error.value, error.low, error.high) == (value, low, high)
        assert (error.target_address, error.count) == (letters.S, 1)
        message = str(error)
        for part in ("graph.o", ".text", f"{letters.P:#x}", str(row.kind), "target"):
            assert part in message
        advice = row.advice.text if row.advice else ""
        assert message.endswith(f"; {advice}" if advice else f" .. {high:#x}")


@pytest.mark.parametrize(
    "row", [row for row in LINEAR if row.alignment > 1], ids=lambda row: row.kind.name
)
def test_values_that_are_not_aligned(row: Fixup) -> None:
    for value in range(1, row.alignment):
        letters = solve(row, Letters(0x7000_1000, P=0x7000_1010), value)
        with pytest.raises(MisalignedTargetError) as caught:
            apply(row, letters)
        error = caught.value
        assert (error.value, error.alignment, error.count) == (value, row.alignment, 1)
        assert (error.block_address, error.offset) == (letters.P - OFFSET, OFFSET)
        assert (error.kind, error.target) == (str(row.kind), "target")


@each_row
def test_limits_and_accepts_agree_with_the_model(row: Fixup) -> None:
    low, high = row.limits
    interesting = {low, high, 0, 1, 2, 4, 8, -1, -2, 1 << 62, -(1 << 63), (1 << 63) - 1}
    values = sorted({signed(v + d) for v in interesting for d in (-2, -1, 0, 1, 2)})
    accepted = row.accepts(np.array(values, np.int64))
    assert accepted.tolist() == [is_accepted(row, value) for value in values]


# Reading back


def unchanged_by_reading(row: Fixup, value: int) -> bool:
    """Whether all of a value goes into the container, but for copies of its sign."""
    slices = row.slices or cuts((0, 8 * row.width, 0))
    held = sum(((1 << part.bits) - 1) << part.value_low for part in slices)
    top = held.bit_length()
    read = value & held
    if row.check is not Check.UNSIGNED and read >> (top - 1):
        read -= 1 << top
    return signed(read) == value


@each_row
@pytest.mark.parametrize("order", ["little", "big"])
@settings(max_examples=20)
@given(data=st.data())
def test_implicit_addends_are_what_was_written(row: Fixup, order: str, data: st.DataObject) -> None:
    top = max((part.value_low + part.bits for part in row.slices), default=8 * row.width)
    span = 1 << (min(top, 62) - 1)
    value = data.draw(st.integers(-span, 2 * span - 1) | st.integers(-span, span - 1))
    value -= value % max(row.alignment, *(1 << part.value_low for part in row.slices), 1)
    if not unchanged_by_reading(row, value) or not is_accepted(row, value):
        return
    place = make_place(row, 0x1000, order)
    place.content[OFFSET : OFFSET + row.width] = expected(row, value, order)
    column = np.array([int(row.kind)] * 2)
    blocks, offsets = np.zeros(2, np.int64), np.full(2, OFFSET)
    assert place.table.read_addends(place.graph, column, blocks, offsets).tolist() == [value] * 2


@pytest.mark.parametrize("row", FIXUPS.rows, ids=lambda row: row.kind.name)
def test_implicit_addends_of_every_x86_64_kind(row: Fixup) -> None:
    """Also of kinds that a pass transforms before fixups are applied."""
    place = make_place(row, 0)
    place.content[OFFSET : OFFSET + row.width] = b"\xfc" + b"\xff" * (row.width - 1)
    column = np.array([int(row.kind)])
    (addend,) = FIXUPS.read_addends(
        place.graph, column, np.zeros(1, np.int64), np.full(1, OFFSET)
    ).tolist()
    whole = (1 << 8 * row.width) - 4
    assert addend == (whole if row.check is Check.UNSIGNED and row.width < 8 else -4)


def test_zero_fill_has_addends_of_zero() -> None:
    place = make_place(LINEAR[0], 0)
    section = place.block.section
    zeros = place.graph.create_zero_fill_block(section, 64)
    kinds = np.array([int(LINEAR[0].kind)])
    rows, offsets = np.array([zeros.row]), np.array([8])
    assert place.table.read_addends(place.graph, kinds, rows, offsets).tolist() == [0]


# Addresses that wrap around


@pytest.mark.parametrize(
    ("target", "place", "distance"),
    [
        (0x10, TOP - 0x10, 0x20),
        (TOP - 0x10, 0x10, -0x20),
        (0, TOP - 1, 1),
        (TOP - 1, 0, -1),
        ((1 << 31) - 2, TOP - 1, (1 << 31) - 1),
        (TOP - (1 << 31), 0, -(1 << 31)),
        (1 << 63, (1 << 63) - 5, 5),
        ((1 << 63) - 5, 1 << 63, -5),
    ],
)
def test_distances_across_the_ends_of_the_address_space(
    target: int, place: int, distance: int
) -> None:
    letters = Letters(target, P=place)
    for kind, width in ((X86_64EdgeKind.DELTA32, 4), (X86_64EdgeKind.DELTA64, 8)):
        written = apply(FIXUPS.by_kind[kind], letters)
        assert int.from_bytes(written, "little", signed=True) == distance
        assert len(written) == width
    negative = apply(FIXUPS.by_kind[X86_64EdgeKind.NEG_DELTA64], letters)
    assert int.from_bytes(negative, "little", signed=True) == -distance


@pytest.mark.parametrize("distance", [1 << 31, (1 << 31) + 1, (1 << 63) - 1])
@pytest.mark.parametrize("place", [0, TOP - 1, 1 << 63, (1 << 63) - 1])
def test_distances_that_are_too_far_either_way(place: int, distance: int) -> None:
    row = FIXUPS.by_kind[X86_64EdgeKind.DELTA32]
    for value in (distance, -distance - 1):
        with pytest.raises(TargetOutOfRangeError) as caught:
            apply(row, Letters((place + value) & MASK, P=place))
        assert caught.value.value == value
        assert caught.value.target_address == (place + value) & MASK


# Errors


def test_failing_edges_are_counted_and_the_first_is_reported() -> None:
    row = FIXUPS.by_kind[X86_64EdgeKind.POINTER32]
    place = make_place(row, 0x4000)
    near, far = (place.graph.add_absolute_symbol(n, a) for n, a in (("near", 1), ("far", 1 << 40)))
    for offset, target in ((0, near), (8, far), (12, near), (16, far), (20, far)):
        place.block.add_edge(row.kind, offset, target)
    with pytest.raises(TargetOutOfRangeError, match="2 more fixups fail: 2 to the same") as caught:
        place.table.apply(place.graph)
    assert (caught.value.offset, caught.value.target, caught.value.count) == (8, "far", 3)


def test_targets_without_names_are_described() -> None:
    row = FIXUPS.by_kind[X86_64EdgeKind.DELTA8]
    place = make_place(row, 0x4000)
    symbol = place.graph.add_anonymous_symbol(place.block, 7)
    place.block.add_edge(row.kind, 0, symbol, 1000)
    with pytest.raises(TargetOutOfRangeError) as caught:
        place.table.apply(place.graph)
    assert caught.value.target == ".text+0x7"
    assert caught.value.target_address == 0x4007


@pytest.mark.parametrize("kind", [MadeUp.REQUEST, MadeUp.PAGE21])
def test_kinds_that_cannot_be_applied(kind: MadeUp) -> None:
    """A request that no pass has transformed, and a kind that the table does not have."""
    place = make_place(MADE_UP[1], 0x4000)
    place.block.add_edge(kind, OFFSET, place.graph.add_absolute_symbol("target", 0))
    with pytest.raises(FixupError, match="cannot be applied") as caught:
        place.table.apply(place.graph)
    error = caught.value
    assert type(error) is FixupError
    assert (error.kind, error.offset, error.target, error.value) == (str(kind), OFFSET, "target", 0)


def test_expressions_may_need_a_got() -> None:
    row = FIXUPS.by_kind[X86_64EdgeKind.DELTA64_FROM_GOT]
    place = make_place(row, 0x4000)
    place.block.add_edge(row.kind, 0, place.graph.add_absolute_symbol("target", 0))
    with pytest.raises(FixupError, match="needs a global offset table; there is none") as caught:
        place.table.apply(place.graph)
    assert caught.value.kind == "Delta64FromGOT"


@each_row
def test_fields_that_leave_their_block(row: Fixup) -> None:
    place = make_place(row, 0)
    target = place.graph.add_absolute_symbol("target", 0)
    edge = place.block.add_edge(row.kind, len(FILL) - row.width + 1, target)
    with pytest.raises(FixupError, match="lies outside its block's content") as caught:
        place.table.apply(place.graph, got_address=0)
    assert caught.value.offset == edge.offset
    assert place.content == FILL


@pytest.mark.parametrize("offset", [-1, -(1 << 63), (1 << 63) - 1, 1 << 62])
def test_offsets_written_by_passes_are_checked(offset: int) -> None:
    row = FIXUPS.by_kind[X86_64EdgeKind.POINTER64]
    place = make_place(row, 0)
    edge = place.block.add_edge(row.kind, 0, place.graph.add_absolute_symbol("target", 0))
    place.graph.edge_table.offset[edge.row] = offset
    with pytest.raises(FixupError, match="lies outside its block's content"):
        place.table.apply(place.graph)
    assert place.content == FILL


def test_blocks_that_cannot_be_written() -> None:
    row = FIXUPS.by_kind[X86_64EdgeKind.POINTER64]
    place = make_place(row, 0)
    target = place.graph.add_absolute_symbol("target", 0)
    constant = place.graph.create_content_block(place.block.section, bytes(16))
    constant.add_edge(row.kind, 0, target)
    with pytest.raises(GraphError, match="read-only"):
        place.table.apply(place.graph)


def test_many_kinds_and_blocks_at_once() -> None:
    """More edges than the engine applies at a time, in several buffers."""
    graph = LinkGraph("graph.o", "none", edge_kinds=X86_64EdgeKind)
    section = graph.create_section(".data", MemProt.READ | MemProt.WRITE)
    target = graph.add_absolute_symbol("target", 0x1234_5678)
    contents = [bytearray(8 * 3000) for _ in range(8)]
    kinds = (X86_64EdgeKind.POINTER64, X86_64EdgeKind.POINTER32)
    for number, content in enumerate(contents):
        block = graph.create_mutable_content_block(section, content, 0x10000 * number)
        rows = np.arange(3000)
        graph.edge_table.extend(
            3000,
            block=block.row,
            offset=8 * rows,
            kind=np.where(rows % 2, *map(int, kinds)),
            target=target.row,
            addend=rows + 3000 * number,
        )
    FIXUPS.apply(graph)
    values = [np.frombuffer(content, "<u8") for content in contents]
    assert np.array_equal(np.concatenate(values), 0x1234_5678 + np.arange(24000))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (X86_64EdgeKind.POINTER32, 1 << 40),
        (X86_64EdgeKind.DELTA64_FROM_GOT, 0),
        (X86_64EdgeKind.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, 0),
    ],
)
def test_edges_are_applied_one_by_one_if_all_of_them_can(kind: X86_64EdgeKind, value: int) -> None:
    place = make_place(FIXUPS.by_kind[X86_64EdgeKind.POINTER64], 0x4000)
    targets = [place.graph.add_absolute_symbol(f"t{n}", n) for n in (7, value)]
    place.block.add_edge(X86_64EdgeKind.POINTER64, 8, targets[0])
    assert apply_by_edge(FIXUPS, place.graph, {})
    assert place.content[8:16] == (7).to_bytes(8, "little")
    place.content[8:16] = FILL[8:16]
    place.block.add_edge(kind, 16, targets[1])
    assert not apply_by_edge(FIXUPS, place.graph, {})
    assert place.content == FILL


def test_removed_and_keep_alive_edges_are_no_fixups() -> None:
    place = make_place(FIXUPS.by_kind[X86_64EdgeKind.POINTER64], 0x4000)
    target = place.graph.add_absolute_symbol("target", 7)
    for kind in (INVALID, KEEP_ALIVE, X86_64EdgeKind.POINTER64):
        place.block.add_edge(kind, 8, target)
    assert apply_by_edge(FIXUPS, place.graph, {})
    assert place.content[8:16] == (7).to_bytes(8, "little")


@pytest.mark.parametrize("what", ["zeros", "input", "end", "negative"])
def test_places_that_cannot_be_written_are_left_to_the_columns(what: str) -> None:
    place = make_place(FIXUPS.by_kind[X86_64EdgeKind.POINTER64], 0x4000)
    graph = place.graph
    place.block.add_edge(X86_64EdgeKind.POINTER64, 0, graph.add_absolute_symbol("target", 7))
    offsets, contents = graph.edge_table.offset, graph.block_table.content
    # Something follows the block.
    graph.contents.add(bytearray(FILL))
    if what == "zeros":
        contents[:] = ZERO_FILL
    if what == "input":
        contents[:] = graph.contents.add(FILL)
    if what == "end":
        offsets[:] = len(FILL) - 7
    if what == "negative":
        offsets[:] = -1
    assert not apply_by_edge(FIXUPS, graph, {})
    assert place.content == FILL


def test_most_rows_are_applied_one_by_one() -> None:
    rows = {X86_64EdgeKind(kind) for kind in FIXUPS.usual}
    assert {X86_64EdgeKind.POINTER64, X86_64EdgeKind.PCREL32, X86_64EdgeKind.DELTA32} <= rows


def test_expressions_are_only_sums() -> None:
    for expression in (
        "S * A",
        "S << 2",
        "min(S, A)",
        "Page(S, A)",
        "S + 1.5",
        "-S",
        "S if A else P",
    ):
        with pytest.raises(ValueError, match="not a fixup expression"):
            _ = Fixup(MadeUp.SET6, expression, 1).evaluate


@given(value=st.integers(-(1 << 63), (1 << 63) - 1), bits=st.integers(1, 63))
def test_in_range(value: int, bits: int) -> None:
    (result,) = in_range(np.array([value], np.int64), bits).tolist()
    assert result == (-(1 << (bits - 1)) <= value < 1 << (bits - 1))
