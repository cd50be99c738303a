"""Columns that grow together."""

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.graph.columns import Columns, Int64Array, UInt8Array, ragged_arange


class Pairs(Columns):
    """Two columns of different type."""

    FIELDS: ClassVar = {"number": np.int64, "small": np.uint8}
    number: Int64Array
    small: UInt8Array


def contents(table: Pairs) -> list[tuple[int, int]]:
    return list(zip(table.number.tolist(), table.small.tolist(), strict=True))


def test_empty_table_has_empty_columns_of_its_types() -> None:
    table = Pairs()
    assert table.rows == 0
    assert table.number.dtype == np.int64
    assert table.small.dtype == np.uint8
    assert len(table.number) == len(table.small) == 0


def test_extend_returns_first_row_and_fills_with_zero() -> None:
    table = Pairs()
    assert table.extend(2, number=np.array([5, 6])) == 0
    assert table.extend(1, small=7) == 2
    assert table.extend(0) == 3
    assert contents(table) == [(5, 0), (6, 0), (0, 7)]


def test_rows_after_a_shrink_do_not_show_what_was_there() -> None:
    table = Pairs()
    table.extend(20, number=1, small=1)
    table.keep(np.zeros(20, np.bool_))
    table.extend(20)
    assert contents(table) == [(0, 0)] * 20


def test_writing_through_a_column_writes_to_the_table() -> None:
    table = Pairs()
    table.extend(3)
    table.number[1:] = (8, 9)
    table.extend(100)
    assert table.number[:4].tolist() == [0, 8, 9, 0]


def test_scalar_that_does_not_fit_adds_no_row() -> None:
    table = Pairs()
    table.extend(1, number=1, small=2)
    with pytest.raises(OverflowError):
        table.extend(1, number=3, small=256)
    assert table.rows == 1
    table.number[0] = 4
    table.extend(1, small=5)
    assert contents(table) == [(4, 2), (0, 5)]


def test_array_of_another_length_adds_no_row() -> None:
    table = Pairs()
    table.extend(40, number=np.arange(40))
    with pytest.raises(ValueError, match="broadcast"):
        table.extend(3, number=np.arange(4))
    # The failed call may have moved the columns: they are still the table's.
    table.number[39] = -1
    table.extend(1)
    assert table.number[38:].tolist() == [38, -1, 0]


def test_unknown_column_is_refused() -> None:
    table = Pairs()
    with pytest.raises(TypeError, match="smal"):
        table.extend(1, smal=1)
    assert table.rows == 0


def test_keep_drops_rows_and_keeps_order() -> None:
    table = Pairs()
    table.extend(5, number=np.arange(5), small=np.arange(5))
    table.keep(np.array([True, False, True, False, True]))
    assert contents(table) == [(0, 0), (2, 2), (4, 4)]
    assert table.extend(1, number=9) == 3
    assert contents(table) == [(0, 0), (2, 2), (4, 4), (9, 0)]


def test_growth_is_amortised() -> None:
    table = Pairs()
    moves = 0
    last = table._storage["number"]
    for number in range(5000):
        table.extend(1, number=number)
        moves += table._storage["number"] is not last
        last = table._storage["number"]
    assert table.number.tolist() == list(range(5000))
    assert moves < 40


@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 255)), max_size=40),
            st.integers(0, 2**32 - 1),
        )
    )
)
def test_any_sequence_of_extend_and_keep(steps: list[list[tuple[int, int]] | int]) -> None:
    table = Pairs()
    model: list[tuple[int, int]] = []
    for step in steps:
        if isinstance(step, list):
            numbers = np.array([number for number, _ in step], np.int64)
            small = np.array([value for _, value in step], np.uint8)
            assert table.extend(len(step), number=numbers, small=small) == len(model)
            model += step
        else:
            mask = [bool(step >> (row % 32) & 1) for row in range(len(model))]
            table.keep(np.array(mask, np.bool_))
            model = [row for row, kept in zip(model, mask, strict=True) if kept]
        assert table.rows == len(model)
        assert contents(table) == model


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 20))))
def test_ragged_arange(pairs: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in pairs], np.int64)
    counts = np.array([count for _, count in pairs], np.int64)
    expected = [number for start, count in pairs for number in range(start, start + count)]
    assert ragged_arange(starts, counts).tolist() == expected
