"""Names: string tables added as a whole, and strings added one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import GraphError
from jitlink.graph.columns import Int64Array
from jitlink.graph.strings import NO_NAME, StringHeap


def names_at(heap: StringHeap, references: Int64Array) -> list[str]:
    """The names, read both ways, which must agree."""
    many = heap.get_many(references)
    assert many == [heap.get(reference) for reference in references.tolist()]
    return many


def test_no_name_is_the_empty_string() -> None:
    assert names_at(StringHeap(), np.array([NO_NAME, NO_NAME])) == ["", ""]
    assert StringHeap().get_many(np.empty(0, np.int64)) == []


def test_single_strings() -> None:
    heap = StringHeap()
    first = heap.add("one")
    more = heap.add_many(["two", "", "one"])
    assert names_at(heap, np.array([first, *more, NO_NAME])) == ["one", "two", "", "one", ""]
    assert len({first, *more.tolist(), NO_NAME}) == 5


def test_table_with_tail_merged_names() -> None:
    heap = StringHeap()
    base = heap.add_table(b"\0barfoo\0baz\0")
    positions = np.array([0, 1, 2, 4, 7, 8, 10])
    assert names_at(heap, base + positions) == ["", "barfoo", "arfoo", "foo", "", "baz", "z"]


def test_tails_of_a_very_long_name_are_refused_in_bulk() -> None:
    heap = StringHeap()
    base = heap.add_table(b"\0" + b"x" * 100_000 + b"\0")
    with pytest.raises(GraphError, match="overlap in a table of 100002 bytes"):
        heap.get_many(base + np.arange(1, 50_000))
    assert heap.get(base + 99_999) == "xx"
    # Many symbols may have one name: it is not copied for each.
    assert len(set(map(id, heap.get_many(base + np.full(50_000, 1))))) == 1
    # Linkers produce a few of them, or many short ones.
    assert [len(name) for name in heap.get_many(base + np.arange(1, 9))] == [
        *range(100_000, 99_992, -1)
    ]
    assert len(heap.get_many(np.full(50_000, base + 99_990))[7]) == 11


def test_table_without_final_nul() -> None:
    heap = StringHeap()
    base = heap.add_table(b"\0foo\0bar")
    other = heap.add_table(b"next")
    references = np.array([base + 5, base + 7, base + 8, other, other + 4])
    assert names_at(heap, references) == ["bar", "r", "", "next", ""]


def test_names_that_are_not_ascii() -> None:
    heap = StringHeap()
    data = "\0naïve\0Größe\0日本\0ascii\0".encode()
    base = heap.add_table(data)
    positions = [data.index(name.encode()) for name in ("naïve", "Größe", "日本", "本", "ascii")]
    expected = ["naïve", "Größe", "日本", "本", "ascii"]
    assert names_at(heap, base + np.array(positions)) == expected


def test_invalid_utf8_goes_in_and_comes_out_unchanged() -> None:
    heap = StringHeap()
    raw = [b"caf\xe9", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"ok"]
    data = b"\0" + b"\0".join(raw) + b"\0"
    base = heap.add_table(data)
    references = base + np.array([data.index(name) for name in raw])
    names = names_at(heap, references)
    assert [name.encode("utf-8", "surrogateescape") for name in names] == raw
    assert [heap.find(name).tolist() for name in names] == [
        [reference] for reference in references.tolist()
    ]
    # A name may begin inside a character.
    inner = data.index(b"\xc3") + 0
    assert heap.get(base + inner) == "\udcc3"


def test_names_of_several_tables_and_strings_in_any_order() -> None:
    heap = StringHeap()
    first = heap.add_table(b"\0a\0bb\0")
    single = heap.add("single")
    second = heap.add_table(b"\0ccc\0")
    references = np.array([second + 1, single, first + 3, NO_NAME, first + 1, second + 2])
    assert names_at(heap, references) == ["ccc", "single", "bb", "", "a", "cc"]


def test_find_returns_every_reference_of_a_name() -> None:
    heap = StringHeap()
    first = heap.add_table(b"\0barfoo\0foo\0foot\0")
    one = heap.add("foo")
    heap.add("foobar")
    second = heap.add_table(b"xfoo")
    assert sorted(heap.find("foo").tolist()) == [one, first + 4, first + 8, second + 1]
    another = heap.add("foo")
    assert another in heap.find("foo").tolist()
    assert heap.find("fo").tolist() == []
    assert heap.find("fo").dtype == np.int64


def test_text_in_any_name() -> None:
    heap = StringHeap()
    assert not heap.has_text("a")
    heap.add_table(b"\0first\0b\xc3\xa4r\0")
    heap.add("second")
    assert [heap.has_text(text) for text in ("irs", "b\xe4", "eco", "tb", "third")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "\udcc3\udca9"])
def test_find_of_names_that_no_table_can_hold(name: str) -> None:
    heap = StringHeap()
    heap.add_table(b"\0a\0b\0\xc3\xa9\0")
    assert heap.find(name).tolist() == []
    reference = heap.add(name)
    assert heap.get(reference) == name
    assert heap.find(name).tolist() == [reference]


@given(st.lists(st.binary(max_size=6), max_size=8), st.data())
def test_every_position_reads_what_find_finds(pieces: list[bytes], data: st.DataObject) -> None:
    heap = StringHeap()
    heap.add("ab")
    table = b"\0".join(pieces)
    base = heap.add_table(table)
    positions = np.arange(len(table) + 1)
    names = names_at(heap, base + positions)
    for position, name in zip(positions.tolist(), names, strict=True):
        raw = table[position:].split(b"\0", 1)[0]
        assert name == raw.decode("utf-8", "surrogateescape")
    chosen = data.draw(st.sampled_from([*names, "ab", "b"]))
    expected = {base + place for place, name in enumerate(names) if name == chosen and name}
    found = set(heap.find(chosen).tolist())
    assert found - {-2} == expected
    assert (-2 in found) == (chosen == "ab")


def test_beginnings_of_names() -> None:
    strings = StringHeap()
    strings.add_table(b"other\0")
    base = strings.add_table(b"ab\0abc\0xab\0a\0ab")
    places = np.array([0, 3, 5, 7, 8, 11, 13])
    texts = ["ab", "abc", "c", "xab", "ab", "a", "ab"]
    assert strings.get_many(base + places) == texts
    for text in ("a", "ab", "abc", "b", "abcdefghijklmnopqrs"):
        found = strings.begin_with(base + places, text)
        assert found.tolist() == [each.startswith(text) for each in texts]


@pytest.mark.parametrize(("longest", "is_short"), [(0, True), (400, True), (1100, False)])
def test_tables_of_short_names(longest: int, is_short: bool) -> None:
    strings = StringHeap()
    first = strings.add_table(b"a\0" * 700)
    second = strings.add_table(b"a\0" * 700 + b"b" * longest + b"\0" + b"a\0" * 700)
    places = np.arange(0, 1400, 2)
    assert strings.are_short(second + places) == is_short
    assert strings.are_short(first + places)
    assert not strings.are_short(np.array([first, second]))
    assert not strings.are_short(np.array([NO_NAME, first]))
