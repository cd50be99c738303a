"""ULEB128 fields of relocations: numbers of variable size, seven bits per byte.

A relocation cannot change the size of a field, because the bytes that follow would have to move;
a number that needs fewer bytes is padded.

Specification: DWARF 5, section 7.6.
"""

from __future__ import annotations

import numpy as np

from jitlink.graph.columns import Int64Array, UInt8Array

_MAX_SIZE = 10
"""Bytes of the longest number that 64 bits can hold."""


class ULEB128:
    """Unsigned numbers of variable size; implements `jitlink.fixups.Field`."""

    def measure(self, data: UInt8Array, places: Int64Array, ends: Int64Array) -> Int64Array:
        """Sizes in bytes (int64); 0 for a number that is too long or does not end before `ends`."""
        sizes = np.zeros(len(places), np.int64)
        last = len(data) - 1
        for index in range(_MAX_SIZE):
            at = places + index
            ends_here = (sizes == 0) & (at < ends) & (data[np.minimum(at, last)] < 0x80)
            sizes[ends_here] = index + 1
        return sizes

    def read(self, data: UInt8Array, places: Int64Array, sizes: Int64Array) -> Int64Array:
        """The numbers (int64), modulo 2**64."""
        value = np.zeros(len(places), np.int64)
        for index in range(int(sizes.max(initial=0))):
            chosen = sizes > index
            byte = data[places[chosen] + index].astype(np.int64)
            value[chosen] |= (byte & 0x7F) << 7 * index
        return value

    def write(
        self, data: UInt8Array, places: Int64Array, sizes: Int64Array, value: Int64Array
    ) -> None:
        """Store numbers, truncated to what each field holds."""
        for index in range(int(sizes.max(initial=0))):
            chosen = sizes > index
            byte = (value[chosen] >> 7 * index) & 0x7F
            byte |= np.where(sizes[chosen] > index + 1, 0x80, 0)
            data[places[chosen] + index] = byte
