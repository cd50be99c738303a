"""Equally long NumPy columns that grow together: the storage of blocks, symbols and edges.

A subclass lists its columns in `FIELDS`. Each column is an attribute that holds exactly the
rows in use, so vectorised code reads and writes ``table.offset[rows]`` directly. Growing a
table may move its columns: keep the table and fetch the column again, do not keep the column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_Scalar = TypeVar("_Scalar", bound=np.generic)
# As numpy.typing.NDArray, which takes half a millisecond to import.
Array = np.ndarray[tuple[Any, ...], np.dtype[_Scalar]]
Int64Array = Array[np.int64]
Int32Array = Array[np.int32]
UInt64Array = Array[np.uint64]
UInt16Array = Array[np.uint16]
UInt8Array = Array[np.uint8]
BoolArray = Array[np.bool_]

ADDRESS_MASK = (1 << 64) - 1
INT64_MAX = (1 << 63) - 1
_MORE_ROWS = 64
"""Spare rows in a table's first allocation, so that small graphs need not grow."""


class Columns:
    """A table of named columns with amortised constant-time append.

    Attributes:
        rows: how many rows are in use; also the length of every column.
    """

    FIELDS: ClassVar[Mapping[str, type[np.generic]]]

    _EMPTY: ClassVar[Mapping[str, Array[Any]]]

    def __init_subclass__(cls) -> None:
        """Create the empty columns that all new tables of a class start with."""
        cls._EMPTY = {name: np.empty(0, dtype) for name, dtype in cls.FIELDS.items()}

    def __init__(self) -> None:
        self.rows = 0
        self._capacity = 0
        self._storage: dict[str, Array[Any]] = dict(self._EMPTY)
        self.__dict__.update(self._EMPTY)

    def extend(self, count: int, **values: npt.ArrayLike) -> int:
        """Append `count` rows and return the number of the first.

        `values` gives a scalar or an array of length `count` for a column; columns that are
        not named are filled with zero.

        Raises:
            TypeError: a name is not that of a column.
            OverflowError: a scalar does not fit its column; no row is added.
            ValueError: an array has another length; no row is added.
        """
        if not values.keys() <= self._storage.keys():
            raise TypeError(f"no columns {sorted(values.keys() - self._storage.keys())}")
        first = self.rows
        last = first + count
        if last > self._capacity:
            self._grow(last)
        try:
            for name, value in values.items():
                self._storage[name][first:last] = value
        except BaseException:
            # Storage past the last row is always zero.
            for column in self._storage.values():
                column[first:last] = 0
            self._publish(first)
            raise
        self._publish(last)
        return first

    def _grow(self, rows: int) -> None:
        """Enlarge the storage to hold `rows` rows; the caller then publishes the columns."""
        # The first allocation leaves spare rows for what passes add: fresh zeros take no memory
        # until they are written to. It doubles later, so that single rows are amortised.
        self._capacity = max(rows, self._capacity * 2 or 2 * rows + _MORE_ROWS)
        for name, column in self._storage.items():
            larger = np.zeros(self._capacity, column.dtype)
            if self.rows:
                larger[: self.rows] = column[: self.rows]
            self._storage[name] = larger

    def _publish(self, rows: int) -> None:
        self.rows = rows
        self.__dict__.update({name: column[:rows] for name, column in self._storage.items()})

    def keep(self, mask: BoolArray) -> None:
        """Drop the rows where `mask` (bool, one per row) is false; row numbers change."""
        kept = rows_where(mask)
        count = len(kept)
        if count == self.rows:
            return
        # Passes add a few rows to what is kept, which would move all columns again.
        self._capacity = count + count // 8 + _MORE_ROWS
        for name, column in self._storage.items():
            smaller = np.zeros(self._capacity, column.dtype)
            # Any mode but "raise" writes without a buffer; all rows are valid.
            column.take(kept, out=smaller[:count], mode="clip")
            self._storage[name] = smaller
        self._publish(count)


def rows_where(mask: BoolArray) -> Int64Array:
    """Row numbers (int64) at which a mask is true; `np.flatnonzero` without its overhead."""
    return mask.nonzero()[0]


def ragged_arange(starts: Int64Array, counts: Int64Array) -> Int64Array:
    """Concatenate ``arange(start, start + count)`` of all pairs, without a Python loop."""
    if len(starts) == 1:
        return np.arange(starts[0], starts[0] + counts[0], dtype=np.int64)
    ends: Int64Array = counts.cumsum()
    numbers: Int64Array = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64)
    numbers += (starts - (ends - counts)).repeat(counts)
    return numbers
