"""Bounds-checked bulk reading of fixed-size records at arbitrary positions of a buffer."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitlink.graph.columns import Array, Int64Array, UInt8Array

Records = Array[Any]


def gather(data: UInt8Array, dtype: np.dtype[Any], positions: Int64Array) -> Records:
    """Copy the records of `dtype` that begin at `positions` (int64, any alignment).

    The caller has checked that every record lies within `data`.
    """
    count = len(positions)
    if count == 0 or len(data) < dtype.itemsize:
        return np.empty(0, dtype)
    first = int(positions[0])
    if int(positions[-1]) - first == (count - 1) * dtype.itemsize and (
        count < 3 or bool((positions[1:] - positions[:-1] == dtype.itemsize).all())
    ):
        return np.frombuffer(data, dtype, count, first)
    # This overlapping view has an element at every byte, so one fancy index gets all records.
    every = np.ndarray((len(data) - dtype.itemsize + 1,), dtype, data.data, strides=(1,))
    return every[positions]
