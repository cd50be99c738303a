"""Sections: attributes, order, look-up, merging and removal."""

from random import Random

import numpy as np
import pytest

from jitlink.errors import GraphError
from jitlink.graph import LinkGraph, MemLifetime, MemProt, SectionRange
from jitlink.graph.sections import NameBeginnings
from tests.graph.sample import READ, READ_EXEC, READ_WRITE, make_graph


def ordinals(graph: LinkGraph) -> dict[str, int]:
    assert [section.ordinal for section in graph.sections] == list(range(graph.sections_size))
    return {section.name: section.ordinal for section in graph.sections}


def test_new_section() -> None:
    graph = make_graph()
    section = graph.create_section(".text", READ_EXEC)
    assert (section.graph, section.name, section.ordinal) == (graph, ".text", 0)
    assert (section.mem_prot, section.mem_lifetime) == (READ_EXEC, MemLifetime.STANDARD)
    assert section.empty
    assert section.blocks_size == section.symbols_size == 0
    assert list(section.blocks) == list(section.symbols) == []
    assert repr(section) == "<Section .text R-X>"
    assert list(graph.sections) == [section]


def test_name_of_protection() -> None:
    prots = (MemProt.NONE, READ, READ_WRITE, READ_EXEC, MemProt.READ | MemProt.WRITE | MemProt.EXEC)
    assert [str(prot) for prot in prots] == ["---", "R--", "RW-", "R-X", "RWX"]
    assert [str(lifetime) for lifetime in MemLifetime] == ["standard", "finalize", "noalloc"]


def test_sections_may_share_a_name_if_they_differ_otherwise() -> None:
    graph = make_graph()
    first = graph.create_section("a", READ)
    second = graph.create_section("a", READ_WRITE)
    third = graph.create_section("a", READ, MemLifetime.FINALIZE)
    assert [first.ordinal, second.ordinal, third.ordinal] == [0, 1, 2]
    for prot, lifetime in ((READ, MemLifetime.STANDARD), (READ, MemLifetime.FINALIZE)):
        with pytest.raises(GraphError, match=r"section a R-- .* exists already"):
            graph.create_section("a", prot, lifetime)
    assert graph.sections_size == 3
    assert graph.find_section_by_name("a") is first
    assert graph.find_section_by_name("b") is None


def test_obtain_section_creates_it_once() -> None:
    graph = make_graph()
    section = graph.obtain_section("a", READ)
    assert graph.obtain_section("a", READ) is section
    assert graph.obtain_section("a", READ_WRITE) is not section
    assert graph.obtain_section("a", READ, MemLifetime.NO_ALLOC) is not section
    assert graph.sections_size == 3


def test_name_beginnings_among_many_sections_that_change() -> None:
    graph = make_graph()
    sections = graph.section_list
    beginnings = NameBeginnings([".init_array", ".data"])

    def check() -> None:
        expected = [n for n, name in enumerate(sections.names) if name[:5] in (".init", ".data")]
        assert beginnings.ordinals(sections) == expected

    for batch in range(4):
        names = [f".text.{batch}.{n}" for n in range(600)]
        names[7:9] = [f".data.{batch}", f".init_array.{batch}"] if batch != 1 else names[7:9]
        sections.extend(names, bytes([READ]) * 600, bytes(600))
        check()
        check()
    graph.remove_section(sections[100])
    graph.move_section(sections[1208], 0)
    check()
    with pytest.raises(ValueError, match="is never found"):
        NameBeginnings([".text.hot"])


FUNCTIONS = [f".text.{number}" for number in range(600)]
UNREAD = [".text", ".data", *FUNCTIONS, "odd", ".init_array", ".textual", ".data.\u00e9"]


def unread_graph() -> LinkGraph:
    """A graph of sections whose names have not been read."""
    graph = make_graph()
    encoded = [name.encode() for name in UNREAD]
    base = graph.strings.add_table(b"\0".join(encoded) + b"\0")
    sizes = np.array([len(name) + 1 for name in encoded])
    count = len(UNREAD)
    found = graph.section_list.extend_unread(
        graph.strings, base + sizes.cumsum() - sizes, bytes([READ]) * count, bytes(count)
    )
    assert found.tolist() == list(range(count))
    return graph


def test_unread_names_are_found_without_those_of_functions() -> None:
    graph = unread_graph()
    sections = graph.section_list
    graph.create_section("odd", READ_WRITE)
    late = graph.create_section(".text.late", READ_EXEC)
    names = [*UNREAD, "odd", ".text.late"]
    for name in ("odd", ".init_array", ".text.17", ".text", ".textual", ".data.\u00e9", "none"):
        assert sections.ordinals_named(name) == [n for n, each in enumerate(names) if each == name]
    assert graph.find_section_by_name(".text.late") is late
    assert sections.others() == [n for n, name in enumerate(names) if name[:5] != ".text"]
    beginnings = NameBeginnings([".init_array", ".data"])
    assert [names[n] for n in beginnings.ordinals(sections)] == [".data", ".init_array", UNREAD[-1]]
    assert [sections.name(n) for n in (0, 1, 5, len(names) - 1)] == [
        ".text", ".data", ".text.3", ".text.late",
    ]  # fmt: skip
    assert sections[7].name == ".text.5"
    assert [name for name in sections.read_names if name] == [
        ".data", "odd", ".init_array", ".data.\u00e9", "odd", ".text.late",
    ]  # fmt: skip
    assert list(sections.names) == names


@pytest.mark.parametrize("is_read", [False, True])
def test_unread_sections_are_changed_like_others(is_read: bool) -> None:
    graph = unread_graph()
    sections = graph.section_list
    names: list[str] = list(sections.names) if is_read else UNREAD.copy()
    graph.remove_section(sections[2])
    del names[2]
    graph.move_section(sections[600], 0)
    names.insert(0, names.pop(600))
    found = sections.obtain([".text.9", "new", "odd"], bytes([READ, READ, READ]), bytes(3))
    names.append("new")
    assert found.tolist() == [names.index(name) for name in (".text.9", "new", "odd")]
    assert list(sections.names) == names
    assert sections.ordinals_named("odd") == [names.index("odd")]


def test_obtained_sections_are_those_of_their_first_properties() -> None:
    """Sections of one name in one call, with several protections and lifetimes."""
    random = Random(0)
    bulk, single = make_graph(), make_graph()
    for _ in range(20):
        names = [f"s{random.randrange(40)}" for _ in range(30)]
        prots = bytes(random.choice((READ, READ, READ_WRITE)) for _ in names)
        lifetimes = bytes(random.choice((0, 0, 0, 2)) for _ in names)
        found = bulk.section_list.obtain(names, prots, lifetimes).tolist()
        expected = [
            single.obtain_section(name, MemProt(prot), MemLifetime(lifetime))
            for name, prot, lifetime in zip(names, prots, lifetimes, strict=True)
        ]
        of_bulk = [bulk.section_list[ordinal] for ordinal in found]
        assert [(each.name, each.mem_prot, each.mem_lifetime) for each in of_bulk] == [
            (each.name, each.mem_prot, each.mem_lifetime) for each in expected
        ]
    assert bulk.sections_size == single.sections_size


def test_many_sections_are_obtained_without_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = make_graph()
    first = graph.create_section("a", READ)
    second = graph.create_section("a", READ_WRITE)
    monkeypatch.setattr("jitlink.graph.sections.Section", None)
    names, prots = ["b", "a", "a", "b", "a"], (READ, READ_WRITE, READ, READ, READ_EXEC)
    found = graph.section_list.obtain(names, bytes(prots), bytes(5))
    assert found.tolist() == [2, second.ordinal, first.ordinal, 2, 3]
    no_alloc = bytes([MemLifetime.NO_ALLOC])
    assert graph.section_list.obtain(["b"], bytes([READ]), no_alloc).tolist() == [4]
    monkeypatch.undo()
    described = [(each.name, each.mem_prot, each.mem_lifetime) for each in graph.sections][2:]
    assert described == [
        ("b", READ, MemLifetime.STANDARD),
        ("a", READ_EXEC, MemLifetime.STANDARD),
        ("b", READ, MemLifetime.NO_ALLOC),
    ]
    assert graph.obtain_section("a", READ_EXEC).ordinal == 3


def test_look_up_follows_a_change_of_protection_and_lifetime() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ_WRITE)
    section.mem_prot = READ
    section.mem_lifetime = MemLifetime.FINALIZE
    assert graph.obtain_section("a", READ, MemLifetime.FINALIZE) is section
    fresh = graph.create_section("a", READ_WRITE)
    assert fresh is not section
    graph.remove_section(section)
    assert list(graph.sections) == [fresh]
    assert graph.find_section_by_name("a") is fresh
    assert graph.section_list.ordinals_named("a") == [0]


def test_removed_section_has_no_attributes_left() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    graph.remove_section(section)
    assert repr(section) == "<removed Section a>"
    with pytest.raises(GraphError, match="section a has been removed"):
        _ = section.mem_prot
    with pytest.raises(GraphError, match="section a has been removed"):
        section.mem_lifetime = MemLifetime.FINALIZE


def test_sections_of_one_name_are_found_in_order() -> None:
    graph = make_graph()
    first = graph.create_section("a", READ)
    graph.create_section("b", READ)
    second = graph.create_section("a", READ_WRITE)
    assert graph.section_list.ordinals_named("a") == [0, 2]
    assert graph.section_list.ordinals_named("c") == []
    graph.move_section(second, 0)
    assert (second.ordinal, first.ordinal) == (0, 1)
    assert graph.section_list.ordinals_named("a") == [0, 1]
    assert graph.find_section_by_name("a") is second
    third = graph.create_section("a", READ_EXEC)
    assert graph.section_list.ordinals_named("a") == [0, 1, third.ordinal]


def test_lifetimes_of_all_sections() -> None:
    graph = make_graph()
    assert graph.section_lifetimes().tolist() == []
    for name, lifetime in zip("abc", reversed(MemLifetime), strict=True):
        graph.create_section(name, READ, lifetime)
    assert graph.section_lifetimes().tolist() == [2, 1, 0]


def test_blocks_and_symbols_of_a_section() -> None:
    graph = make_graph()
    one, two = graph.create_section("one", READ), graph.create_section("two", READ)
    first, other = graph.create_zero_fill_block(one, 8), graph.create_zero_fill_block(two, 8)
    second = graph.create_zero_fill_block(one, 8)
    symbols = [graph.add_defined_symbol(block, 0, f"s{block.row}") for block in (other, second)]
    graph.add_external_symbol("e")
    graph.add_absolute_symbol("a", 0)
    anonymous = graph.add_anonymous_symbol(first, 4)
    assert list(one.blocks) == [first, second]
    assert (one.blocks_size, one.symbols_size) == (2, 2)
    assert list(one.symbols) == [symbols[1], anonymous]
    assert list(two.symbols) == [symbols[0]]
    assert not one.empty


def test_range_is_empty_without_blocks() -> None:
    found = make_graph().create_section("a", READ).range()
    assert found == SectionRange(0, 0)
    assert (found.size, found.empty, found.first_block, found.last_block) == (0, True, None, None)
    assert 0 not in found


def test_range_spans_blocks_in_any_order() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    last = graph.create_zero_fill_block(section, 0x10, 0x3000)
    first = graph.create_zero_fill_block(section, 0x10, 0x1000)
    graph.create_zero_fill_block(section, 0x10, 0x2000)
    graph.remove_block(graph.create_zero_fill_block(section, 0x10, 0x4000))
    graph.create_zero_fill_block(graph.create_section("b", READ), 1, 0x8000)
    found = section.range()
    assert found == SectionRange(0x1000, 0x3010, first, last)
    assert (found.size, found.empty) == (0x2010, False)
    assert 0x1000 in found
    assert 0x300F in found
    assert 0x3010 not in found
    assert 0xFFF not in found


@pytest.mark.parametrize("sizes", [(0, 16), (16, 0)])
def test_range_with_an_empty_block_at_the_same_address(sizes: tuple[int, int]) -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    for size in sizes:
        graph.create_zero_fill_block(section, size, 0x1000)
    assert (section.range().start, section.range().end) == (0x1000, 0x1010)


def test_range_up_to_the_top_of_the_address_space() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    graph.create_zero_fill_block(section, 0x1000, 2**64 - 0x1000)
    graph.create_zero_fill_block(section, 0x1000, 2**64 - 0x3000)
    found = section.range()
    assert (found.start, found.end, found.size) == (2**64 - 0x3000, 2**64, 0x3000)
    assert 2**64 - 1 in found


def test_merge_moves_blocks_and_symbols_and_removes_the_source() -> None:
    graph = make_graph()
    a, b, c = (graph.create_section(name, READ) for name in "abc")
    blocks = [graph.create_zero_fill_block(section, 8) for section in (a, b, c, b)]
    symbol = graph.add_defined_symbol(blocks[3], 2, "s")
    graph.merge_sections(c, b)
    assert ordinals(graph) == {"a": 0, "c": 1}
    assert list(c.blocks) == blocks[1:]
    assert list(a.blocks) == blocks[:1]
    assert symbol.section is c
    assert graph.find_section_by_name("b") is None
    assert graph.create_section("b", READ).ordinal == 2


def test_merge_can_preserve_the_source() -> None:
    graph = make_graph()
    a, b = graph.create_section("a", READ), graph.create_section("b", READ)
    block = graph.create_zero_fill_block(b, 8)
    graph.merge_sections(a, b, preserve_source=True)
    assert list(a.blocks) == [block]
    assert b.empty
    assert ordinals(graph) == {"a": 0, "b": 1}


def test_merge_of_a_section_with_itself_changes_nothing() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    block = graph.create_zero_fill_block(section, 8)
    graph.merge_sections(section, section)
    assert list(graph.sections) == [section]
    assert list(section.blocks) == [block]


def test_remove_section_renumbers_later_ones_and_their_blocks() -> None:
    graph = make_graph()
    a, b, c = (graph.create_section(name, READ) for name in "abc")
    blocks = [graph.create_zero_fill_block(section, 8) for section in (a, c)]
    graph.remove_section(b)
    assert ordinals(graph) == {"a": 0, "c": 1}
    assert [block.section for block in blocks] == [a, c]
    graph.remove_block(blocks[0])
    graph.remove_section(a)
    assert ordinals(graph) == {"c": 0}
    assert blocks[1].section is c


def test_remove_last_section_leaves_no_row_with_a_wrong_ordinal() -> None:
    graph = make_graph()
    a, b = graph.create_section("a", READ), graph.create_section("b", READ)
    graph.create_zero_fill_block(a, 8)
    graph.remove_block(graph.create_zero_fill_block(b, 8))
    graph.remove_section(b)
    # Passes index by this column without checking the rows' flags.
    assert graph.block_table.section.max() < graph.sections_size


def test_section_with_blocks_is_not_removed() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    block = graph.create_zero_fill_block(section, 8)
    with pytest.raises(GraphError, match="section a still has blocks"):
        graph.remove_section(section)
    assert block.section is section
    assert ordinals(graph) == {"a": 0}


def test_move_section() -> None:
    graph = make_graph()
    sections = [graph.create_section(name, READ) for name in "abcd"]
    blocks = [graph.create_zero_fill_block(section, 8) for section in sections]
    graph.move_section(sections[3], 1)
    assert ordinals(graph) == {"a": 0, "d": 1, "b": 2, "c": 3}
    graph.move_section(sections[0], 3)
    assert ordinals(graph) == {"d": 0, "b": 1, "c": 2, "a": 3}
    assert [block.section for block in blocks] == sections
    assert [list(section.blocks) for section in sections] == [[block] for block in blocks]


def test_first_of_a_name_follows_the_order() -> None:
    graph = make_graph()
    first, second = graph.create_section("a", READ), graph.create_section("a", READ_WRITE)
    graph.move_section(second, 0)
    assert graph.find_section_by_name("a") is second
    graph.remove_section(second)
    assert graph.find_section_by_name("a") is first


@pytest.mark.parametrize("ordinal", [-1, 2])
def test_move_section_out_of_range(ordinal: int) -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    graph.create_section("b", READ)
    with pytest.raises(GraphError, match="ordinal"):
        graph.move_section(section, ordinal)
    assert ordinals(graph) == {"a": 0, "b": 1}


def test_removed_section_cannot_be_used() -> None:
    graph = make_graph()
    section, other = graph.create_section("a", READ), graph.create_section("b", READ)
    block = graph.create_zero_fill_block(other, 8)
    graph.remove_section(section)
    assert section.ordinal == -1
    assert section.empty
    for use in (
        lambda: graph.create_content_block(section, b"x"),
        lambda: graph.transfer_block(block, section),
        lambda: graph.merge_sections(section, other),
        lambda: graph.merge_sections(other, section),
        lambda: graph.move_section(section, 0),
        lambda: graph.remove_section(section),
        lambda: graph.add_common_symbol("c", 0, section, 0, 8, 8),  # type: ignore[arg-type]
    ):
        with pytest.raises(GraphError, match="section a has been removed"):
            use()
    assert list(graph.blocks) == [block]
    assert block.section is other


def test_section_of_another_graph_cannot_be_used() -> None:
    graph, foreign = make_graph(), make_graph().create_section("a", READ)
    block = graph.create_zero_fill_block(graph.create_section("b", READ), 8)
    for use in (
        lambda: graph.create_zero_fill_block(foreign, 8),
        lambda: graph.transfer_block(block, foreign),
        lambda: graph.merge_sections(block.section, foreign),
        lambda: graph.remove_section(foreign),
    ):
        with pytest.raises(GraphError, match="section a belongs to another graph"):
            use()
    assert list(graph.blocks) == [block]


def test_sections_keep_their_graph() -> None:
    def two_sections() -> LinkGraph:
        graph = LinkGraph("two", "x86_64-unknown-linux-gnu")
        for name in ("one", "two"):
            graph.create_section(name, MemProt.READ)
        return graph

    assert [section.name for section in two_sections().sections] == ["one", "two"]
    (section, _) = two_sections().sections
    assert section.graph.section_list[0] is section
    columns = two_sections().section_list
    assert list(columns.names) == ["one", "two"]
    with pytest.raises(GraphError, match="has been freed"):
        columns[0]
