"""References to bytes in many buffers."""

import sys
from array import array

import numpy as np

from jitlink.graph.contents import ZERO_FILL, ContentSpace


def test_buffers_are_referred_to_and_not_copied() -> None:
    space = ContentSpace()
    space.add(b"before")
    buffer = bytearray(b"0123456789")
    base = space.add(buffer)
    view = space.view(base + 2, 3)
    buffer[3] = ord("x")
    assert bytes(view) == b"2x4"


def test_view_is_as_writable_as_its_buffer() -> None:
    space = ContentSpace()
    fixed = space.add(b"abc")
    buffer = bytearray(b"abc")
    mutable = space.add(buffer)
    guarded = space.add(memoryview(buffer).toreadonly())
    assert space.view(fixed, 3).readonly
    assert space.view(guarded, 3).readonly
    space.view(mutable, 3)[0] = ord("x")
    assert buffer == b"xbc"


def test_buffers_of_other_items_are_seen_as_bytes() -> None:
    space = ContentSpace()
    words = array("I", [0x0403_0201, 0x0807_0605])
    if sys.byteorder == "big":
        words.byteswap()
    base = space.add(memoryview(words))
    assert bytes(space.view(base + 2, 4)) == b"\3\4\5\6"


def test_empty_buffers_have_references_of_their_own() -> None:
    space = ContentSpace()
    references = [space.add(b""), space.add(bytearray()), space.add(b"a"), space.add(b"")]
    assert len(set(references)) == 4
    assert [bytes(space.view(reference, 0)) for reference in references] == [b""] * 4
    assert not space.view(references[1], 0).readonly


def test_partition_groups_by_buffer() -> None:
    space = ContentSpace()
    first, _, third = space.add(b"first"), space.add(b"second"), space.add(b"third")
    references = np.array([third + 1, ZERO_FILL, first, first + 4, third])
    numbers = np.arange(len(references))
    parts = [
        (bytes(data), base, numbers[here].tolist())
        for data, base, here in space.partition(references)
    ]
    assert parts == [(b"first", first, [2, 3]), (b"third", third, [0, 4])]


def test_partition_of_one_buffer_and_of_none() -> None:
    space = ContentSpace()
    assert list(space.partition(np.empty(0, np.int64))) == []
    assert list(space.partition(np.array([ZERO_FILL]))) == []
    base = space.add(bytearray(b"abc"))
    ((data, at, here),) = space.partition(np.array([base + 1]))
    assert (at, np.arange(1)[here].tolist()) == (base, [0])
    data[1] = ord("x")
    assert bytes(space.view(base, 3)) == b"axc"
