"""CREL: round trips through an encoder written from the specification, and malformed sections."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import ObjectError
from jitlink.formats.crel import decode_crel


class Record(NamedTuple):
    """One relocation."""

    offset: int
    symbol: int
    type: int
    addend: int


def uleb(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def sleb(value: int) -> bytes:
    encoded = bytearray()
    while not -0x40 <= value < 0x40:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value & 0x7F])


def wrap(value: int, bits: int = 64) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (1 << bits) - half


def encode(records: list[Record], *, explicit: bool = True, shift: int = 0) -> bytes:
    encoded = uleb(len(records) << 3 | explicit << 2 | shift)
    last = Record(0, 0, 0, 0)
    for record in records:
        flags = (record.symbol != last.symbol) | (record.type != last.type) << 1
        flags |= (record.addend != last.addend) << 2 if explicit else 0
        delta = (record.offset - last.offset) % (1 << 64) >> shift
        encoded += uleb(delta << (3 if explicit else 2) | flags)
        if flags & 1:
            encoded += sleb(wrap(record.symbol - last.symbol, 32))
        if flags & 2:
            encoded += sleb(wrap(record.type - last.type, 32))
        if flags & 4:
            encoded += sleb(wrap(record.addend - last.addend))
        last = record
    return encoded


def decode(data: bytes, *, wide: bool = True) -> tuple[list[Record], bool]:
    column = np.frombuffer(data, np.uint8)
    *columns, explicit = decode_crel(column, wide=wide, file="x.o", position=0x40)
    return [Record(*row) for row in zip(*(c.tolist() for c in columns), strict=True)], explicit


OFFSETS = st.integers(0, 300) | st.integers(0, (1 << 60) - 1)
NUMBERS = st.integers(0, 5) | st.integers(0, (1 << 32) - 1)
ADDENDS = st.integers(-70, 70) | st.integers(-(1 << 63), (1 << 63) - 1)
RECORDS = st.lists(st.builds(Record, OFFSETS, NUMBERS, NUMBERS, ADDENDS), max_size=40)


@given(records=RECORDS)
def test_explicit_addends(records: list[Record]) -> None:
    rising = sorted(records)
    assert decode(encode(rising)) == (rising, True)


@given(records=RECORDS)
def test_implicit_addends(records: list[Record]) -> None:
    rising = sorted(record._replace(addend=0) for record in records)
    assert decode(encode(rising, explicit=False)) == (rising, False)


@given(records=RECORDS, shift=st.integers(1, 3))
def test_shifted_offsets(records: list[Record], shift: int) -> None:
    rising = sorted(r._replace(offset=r.offset << shift & (1 << 60) - 1) for r in records)
    rising = [r._replace(offset=r.offset >> shift << shift) for r in rising]
    rising.sort()
    assert decode(encode(rising, shift=shift)) == (rising, True)


def test_an_addend_that_wraps_around() -> None:
    ends = [Record(n, 0, 1, end) for n, end in enumerate((-(1 << 63), (1 << 63) - 1, -1, 0))]
    assert decode(encode(ends)) == (ends, True)


def test_numbers_of_32_bit_objects_wrap_around() -> None:
    data = encode([Record(0xFFFFFFFF, 0xFFFFFFFF, 1, 0x7FFFFFFF), Record(1 << 32, 1, 1, 1 << 31)])
    records, _ = decode(data, wide=False)
    assert records == [
        Record(0xFFFFFFFF, 0xFFFFFFFF, 1, 0x7FFFFFFF),
        Record(0, 1, 1, -(1 << 31)),
    ]


def test_no_relocations() -> None:
    assert decode(uleb(4)) == ([], True)
    assert decode(uleb(0)) == ([], False)


def test_what_follows_the_last_relocation_is_padding() -> None:
    records = [Record(1, 2, 3, 4)]
    assert decode(encode(records) + bytes(5)) == (records, True)


SAMPLE = encode([Record(8 * n, n, 1, -n) for n in range(1, 9)])


@pytest.mark.parametrize("size", range(len(SAMPLE)))
def test_every_truncation(size: int) -> None:
    with pytest.raises(ObjectError, match="CREL section is truncated") as caught:
        decode(SAMPLE[:size])
    assert (caught.value.file, caught.value.offset) == ("x.o", 0x40)


@pytest.mark.parametrize("count", [9, 1 << 20, 1 << 32, (1 << 61) - 1])
def test_counts_beyond_the_end(count: int) -> None:
    with pytest.raises(ObjectError, match="CREL section is truncated"):
        decode(uleb(count << 3 | 4) + SAMPLE[1:])


@pytest.mark.parametrize(
    "data", [b"\x80" * 10 + b"\0", b"\x0c" + b"\xff" * 10 + b"\1", b"\xff" * 9]
)
def test_numbers_that_are_too_long(data: bytes) -> None:
    with pytest.raises(ObjectError, match="CREL section is truncated or corrupt"):
        decode(data)


@given(data=st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        records, _ = decode(data)
    except ObjectError:
        return
    assert len(records) <= len(data)
    for record in records:
        assert 0 <= record.symbol <= 0xFFFFFFFF
        assert 0 <= record.type <= 0xFFFFFFFF
