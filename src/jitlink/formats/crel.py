"""CREL, the compact relocation section: a stream of LEB128 deltas, decoded without a loop.

A header holds the count, whether addends are explicit, and a shift for offsets. Each record begins
with a ULEB128 whose low 2 or 3 bits are flags: which of symbol, type and addend follow as SLEB128
deltas; the other bits are the delta of the offset. The start of a record depends on all records
before it, so the starts are found by pointer doubling.

Specification: "Compact relocations" (SHT_CREL) in LLVM's ELF extensions, after the proposal
to the generic ABI.
"""

from __future__ import annotations

import numpy as np

from jitlink.errors import ObjectError
from jitlink.graph.columns import BoolArray, Int64Array, UInt8Array

_LONGEST_LEB = 10
_Decoded = tuple[Int64Array, Int64Array, Int64Array, Int64Array, bool]


def decode_crel(data: UInt8Array, *, wide: bool, file: str, position: int) -> _Decoded:
    """Decode one CREL section.

    Args:
        data: content of the section (uint8).
        wide: whether the object is 64-bit; offsets and addends of a 32-bit one wrap.
        file: display name of the object, for errors.
        position: position of the section in the file, in bytes.

    Returns:
        Offset, symbol index, type and addend of each relocation (int64), and whether addends are
        explicit.

    Raises:
        ObjectError: the stream is truncated, or a LEB128 number in it is too long.
    """
    values, first_bytes, lengths = _split_lebs(data)
    if len(values) == 0 or (lengths > _LONGEST_LEB).any():
        raise ObjectError("CREL section is truncated or corrupt", file=file, offset=position)
    header = int(values[0])
    count, explicit, shift = header >> 3, bool(header & 4), header & 3
    flag_bits = 3 if explicit else 2
    flags = first_bytes & ((1 << flag_bits) - 1)
    if count >= len(values):
        raise ObjectError("CREL section is truncated", file=file, offset=position)
    step = 1 + (flags & 1) + (flags >> 1 & 1) + (flags >> 2 & 1)
    record = _chain(np.arange(len(values)) + step, 1, count)
    last = record[-1:] + step[record[-1:]]
    if len(record) < count or (last > len(values)).any():
        raise ObjectError("CREL section is truncated", file=file, offset=position)
    signed = _sign_extend(values, data, lengths)
    present = flags[record]
    has_symbol, has_type, has_addend = (present & 1 != 0, present & 2 != 0, present & 4 != 0)
    at_type = record + 1 + has_symbol
    offset = np.cumsum((values[record] >> np.uint64(flag_bits)).view(np.int64)) << shift
    symbol = np.cumsum(_pick(signed, record + 1, has_symbol)) & 0xFFFFFFFF
    kind = np.cumsum(_pick(signed, at_type, has_type)) & 0xFFFFFFFF
    addend = np.cumsum(_pick(signed, at_type + has_type, has_addend))
    if not wide:
        offset &= 0xFFFFFFFF
        addend = addend.astype(np.int32).astype(np.int64)
    return offset, symbol, kind, addend, explicit


def _split_lebs(data: UInt8Array) -> tuple[np.ndarray, Int64Array, Int64Array]:
    """Value (uint64), first byte and length (int64) of every LEB128 number of a stream."""
    ends = np.flatnonzero(data < 0x80)
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    lengths = ends - starts + 1
    used = data[: int(ends[-1]) + 1] if len(ends) else data[:0]
    place = np.arange(len(used)) - np.repeat(starts, lengths)
    bits = (used & 0x7F).astype(np.uint64) << (7 * np.minimum(place, 9)).astype(np.uint64)
    values = np.add.reduceat(bits, starts) if len(ends) else bits
    return values, data[starts].astype(np.int64), lengths


def _sign_extend(values: np.ndarray, data: UInt8Array, lengths: Int64Array) -> Int64Array:
    last = data[np.cumsum(lengths) - 1]
    width = np.minimum(7 * lengths, 63).astype(np.uint64)
    sign = np.where((last & 0x40 != 0) & (lengths < _LONGEST_LEB), ~np.uint64(0) << width, 0)
    return (values | sign.astype(np.uint64)).view(np.int64)


def _pick(values: Int64Array, index: Int64Array, present: BoolArray) -> Int64Array:
    return np.where(present, values[np.minimum(index, len(values) - 1)], 0)


def _chain(following: Int64Array, start: int, count: int) -> Int64Array:
    """The first `count` nodes of the list from `start`, where `following[i]` is the node after i.

    Pointer doubling: the map that skips n nodes, applied to the first n nodes, yields the next n.
    """
    size = len(following)
    jump = np.append(np.minimum(following, size), size)
    nodes = np.array([start], np.int64)[:count]
    while 0 < len(nodes) < count:
        nodes = np.concatenate((nodes, jump[nodes]))
        jump = jump[jump]
    nodes = nodes[:count]
    return nodes[nodes < size]
