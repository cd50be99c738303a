"""SPS types: exact bytes, round trips, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink import sps
from jitlink.errors import JITLinkError
from jitlink.sps import ExecutorAddrRange, Failure, SPSError, SPSType

PAIR = sps.Tuple(sps.STRING, sps.BOOL)

# type, value, bytes
CASES: list[tuple[SPSType[Any], Any, str]] = [
    (sps.BOOL, False, "00"),
    (sps.BOOL, True, "01"),
    (sps.UINT8, 255, "ff"),
    (sps.INT8, -1, "ff"),
    (sps.UINT16, 0x1234, "3412"),
    (sps.INT16, -2, "feff"),
    (sps.UINT32, 0x12345678, "78563412"),
    (sps.INT32, -(1 << 31), "00000080"),
    (sps.UINT64, (1 << 64) - 1, "ff" * 8),
    (sps.INT64, 1104, "5004000000000000"),
    (sps.EXECUTOR_ADDR, 0x7F0000001000, "00100000007f0000"),
    (sps.EXECUTOR_ADDR_RANGE, ExecutorAddrRange(16, 32), "1000000000000000 2000000000000000"),
    (sps.STRING, "", "00" * 8),
    (sps.STRING, "é\udcff", "0300000000000000 c3a9ff"),
    (sps.CHARS, b"\x00\xff", "0200000000000000 00ff"),
    (sps.Sequence(sps.UINT16), [1, 2], "0200000000000000 0100 0200"),
    (sps.Sequence(sps.EMPTY), [None, None], "0200000000000000"),
    (PAIR, ("a", True), "0100000000000000 61 01"),
    (sps.Tuple(), (), ""),
    (sps.Map(sps.STRING, sps.UINT8), {"k": 7}, "0100000000000000 0100000000000000 6b 07"),
    (sps.Optional(sps.UINT8), None, "00"),
    (sps.Optional(sps.UINT8), 0, "01 00"),
    (sps.EMPTY, None, ""),
    (sps.ERROR, None, "00"),
    (sps.ERROR, Failure("no"), "01 0200000000000000 6e6f"),
    (sps.Expected(sps.UINT8), 5, "01 05"),
    (sps.Expected(sps.UINT8), Failure("no"), "00 0200000000000000 6e6f"),
    (sps.Expected(sps.EMPTY), None, "01"),
]


@pytest.mark.parametrize(("kind", "value", "packed"), CASES)
def test_bytes(kind: SPSType[Any], value: Any, packed: str) -> None:  # noqa: ANN401
    data = bytes.fromhex(packed)
    assert kind.serialize(value) == data
    assert kind.deserialize(data) == value
    assert type(kind.deserialize(data)) is type(value)
    assert kind.min_size <= len(data)


@pytest.mark.parametrize(("kind", "_value", "packed"), CASES)
def test_truncated(kind: SPSType[Any], _value: object, packed: str) -> None:
    data = bytes.fromhex(packed)
    for size in range(len(data)):
        with pytest.raises(SPSError):
            kind.deserialize(data[:size])


@pytest.mark.parametrize(("kind", "value", "packed"), CASES)
def test_bytes_that_follow_are_ignored(
    kind: SPSType[Any],
    value: Any,  # noqa: ANN401
    packed: str,
) -> None:
    assert kind.deserialize(memoryview(bytes.fromhex(packed) + b"\xff\xff")) == value


@pytest.mark.parametrize(
    ("kind", "packed", "message"),
    [
        (sps.BOOL, "02", "bool is 2 at offset 0"),
        (sps.Optional(sps.UINT8), "ff", "bool is 255"),
        (sps.STRING, "ff" * 8, "but only 0 are left"),
        (sps.CHARS, "0500000000000000 01", "5 bytes expected at offset 8"),
        (sps.Sequence(sps.UINT64), "0200000000000000" + "00" * 15, "2 elements cannot fit the 15"),
        (sps.Sequence(sps.EMPTY), "ff" * 8, "elements cannot fit"),
        (sps.Map(sps.UINT8, sps.UINT8), "ffffffff00000000", "elements cannot fit"),
    ],
)
def test_wrong_bytes(kind: SPSType[Any], packed: str, message: str) -> None:
    with pytest.raises(SPSError, match=message) as caught:
        kind.deserialize(bytes.fromhex(packed))
    assert isinstance(caught.value, JITLinkError)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (sps.UINT8, 256),
        (sps.UINT8, -1),
        (sps.INT64, 1 << 63),
        (sps.EXECUTOR_ADDR, -1),
        (sps.UINT32, "1"),
        (PAIR, ("a",)),
        (PAIR, ("a", True, 1)),
    ],
)
def test_wrong_values(kind: SPSType[Any], value: object) -> None:
    with pytest.raises(SPSError):
        kind.serialize(value)


def test_types_compose() -> None:
    kind = sps.Expected(
        sps.Sequence(sps.Tuple(sps.EXECUTOR_ADDR, sps.Optional(sps.Sequence(PAIR))))
    )
    value = [(1, [("a", True), ("b", False)]), (2, None), (3, [])]
    assert kind.deserialize(kind.serialize(value)) == value


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_an_error(data: bytes) -> None:
    kind = sps.Sequence(
        sps.Tuple(sps.Expected(sps.Map(sps.STRING, sps.CHARS)), sps.ERROR, sps.Sequence(sps.EMPTY))
    )
    try:
        value = kind.deserialize(data)
    except SPSError:
        return
    assert kind.deserialize(kind.serialize(value)) == value
