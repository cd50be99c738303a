"""Blocks: content, zero fill, alignment, addresses, transfer and removal."""

from collections.abc import Callable

import pytest

from jitlink.errors import GraphError
from jitlink.graph import AddressRange, Block, LinkGraph, Section, Symbol
from tests.graph.sample import READ, Kind, make_graph


@pytest.fixture
def graph() -> LinkGraph:
    return make_graph()


@pytest.fixture
def section(graph: LinkGraph) -> Section:
    return graph.create_section(".data", READ)


def test_content_block(graph: LinkGraph, section: Section) -> None:
    block = graph.create_content_block(section, b"0123456789", 0x1000, 16, 4)
    assert block.section is section
    assert (block.address, block.size) == (0x1000, 10)
    assert block.range == AddressRange(0x1000, 0x100A)
    assert (block.alignment, block.alignment_offset) == (16, 4)
    assert not block.is_zero_fill
    assert bytes(block.content) == b"0123456789"
    assert block.content.readonly
    assert block.is_defined
    assert not block.is_absolute
    assert repr(block) == "<Block 0x1000 size 0xa in .data>"
    assert list(graph.blocks) == [block]


def test_content_is_referred_to_but_not_written_to(graph: LinkGraph, section: Section) -> None:
    buffer = bytearray(b"abcd")
    block = graph.create_content_block(section, buffer)
    assert not block.is_content_mutable
    buffer[0] = ord("x")
    assert bytes(block.content) == b"xbcd"
    block.mutable_content()[1] = ord("y")
    assert bytes(block.content) == b"xycd"
    assert buffer == b"xbcd"


def test_read_only_input_is_copied_once_for_writing(graph: LinkGraph, section: Section) -> None:
    content = b"abcd"
    block = graph.create_content_block(section, memoryview(content)[1:])
    with pytest.raises(GraphError, match="not mutable"):
        _ = block.already_mutable_content
    view = block.mutable_content()
    view[0] = ord("x")
    assert block.is_content_mutable
    block.mutable_content()[1] = ord("y")
    block.already_mutable_content[2] = ord("z")
    assert bytes(view) == bytes(block.content) == b"xyz"
    assert content == b"abcd"


def test_mutable_content_block(graph: LinkGraph, section: Section) -> None:
    buffer = bytearray(b"abcd")
    block = graph.create_mutable_content_block(section, buffer, 0x20, 8, 1)
    assert (block.address, block.alignment, block.alignment_offset) == (0x20, 8, 1)
    assert block.is_content_mutable
    block.mutable_content()[0] = ord("x")
    assert buffer == b"xbcd"


def test_mutable_content_block_of_read_only_bytes(graph: LinkGraph, section: Section) -> None:
    content = b"abcd"
    block = graph.create_mutable_content_block(section, content)
    block.already_mutable_content[0] = ord("x")
    assert (bytes(block.content), content) == (b"xbcd", b"abcd")


def test_mutable_content_block_of_a_size(graph: LinkGraph, section: Section) -> None:
    block = graph.create_mutable_content_block(section, 5)
    assert block.content == bytes(5)
    assert block.is_content_mutable


def test_empty_content_is_not_zero_fill(graph: LinkGraph, section: Section) -> None:
    block = graph.create_content_block(section, b"")
    assert not block.is_zero_fill
    assert (block.size, bytes(block.content)) == (0, b"")


def test_zero_fill_block(graph: LinkGraph, section: Section) -> None:
    block = graph.create_zero_fill_block(section, 1 << 40, 0x2000, 32, 31)
    assert block.is_zero_fill
    assert not block.is_content_mutable
    assert (block.size, block.address) == (1 << 40, 0x2000)
    assert (block.alignment, block.alignment_offset) == (32, 31)
    uses: list[Callable[[], object]] = [
        lambda: block.content,
        block.mutable_content,
        lambda: block.already_mutable_content,
    ]
    for use in uses:
        with pytest.raises(GraphError, match="zero-fill block has no content"):
            use()


def test_set_content_changes_size(graph: LinkGraph, section: Section) -> None:
    block = graph.create_zero_fill_block(section, 4)
    block.set_content(bytearray(b"abcdef"))
    assert (bytes(block.content), block.size, block.is_zero_fill) == (b"abcdef", 6, False)
    assert not block.is_content_mutable
    buffer = bytearray(b"xy")
    block.set_mutable_content(buffer)
    block.already_mutable_content[0] = ord("z")
    assert (bytes(buffer), block.size) == (b"zy", 2)
    block.set_zero_fill_size(9)
    assert (block.is_zero_fill, block.size) == (True, 9)


def test_mutable_content_must_be_writable(graph: LinkGraph, section: Section) -> None:
    block = graph.create_content_block(section, b"abc")
    with pytest.raises(GraphError, match="writable"):
        block.set_mutable_content(memoryview(b"xyz"))
    assert bytes(block.content) == b"abc"


@pytest.mark.parametrize("size", [-1, 1 << 63])
def test_impossible_sizes(graph: LinkGraph, section: Section, size: int) -> None:
    with pytest.raises(GraphError, match="block size"):
        graph.create_zero_fill_block(section, size)
    block = graph.create_content_block(section, b"abc")
    with pytest.raises(GraphError, match="block size"):
        block.set_zero_fill_size(size)
    assert list(graph.blocks) == [block]
    assert bytes(block.content) == b"abc"


@pytest.mark.parametrize(
    ("alignment", "offset", "message"),
    [
        (0, 0, "power of two"),
        (-8, 0, "power of two"),
        (24, 0, "power of two"),
        (1 << 63, 0, "power of two"),
        (8, 8, "alignment offset 8 is not below alignment 8"),
        (8, -1, "alignment offset -1"),
    ],
)
def test_impossible_alignments(
    graph: LinkGraph, section: Section, alignment: int, offset: int, message: str
) -> None:
    creations: list[Callable[[], Block]] = [
        lambda: graph.create_content_block(section, b"x", 0, alignment, offset),
        lambda: graph.create_mutable_content_block(section, 1, 0, alignment, offset),
        lambda: graph.create_zero_fill_block(section, 1, 0, alignment, offset),
    ]
    for create in creations:
        with pytest.raises(GraphError, match=message):
            create()
    assert list(graph.blocks) == []


def test_alignment_can_be_changed_within_its_rules(graph: LinkGraph, section: Section) -> None:
    block = graph.create_zero_fill_block(section, 8, alignment=1)
    block.alignment = 1 << 62
    block.alignment_offset = 7
    with pytest.raises(GraphError, match="alignment offset 7 is not below alignment 4"):
        block.alignment = 4
    with pytest.raises(GraphError, match="power of two"):
        block.alignment = 12
    block.alignment = 8
    with pytest.raises(GraphError, match="alignment offset 8"):
        block.alignment_offset = 8
    assert (block.alignment, block.alignment_offset) == (8, 7)


def test_addresses_are_unsigned_64_bit(graph: LinkGraph, section: Section) -> None:
    block = graph.create_zero_fill_block(section, 0x10, 2**64 - 0x10)
    assert block.address == 2**64 - 0x10
    assert block.range.end == 2**64
    block.address = -1
    assert block.address == 2**64 - 1


def test_handles_of_one_row_are_equal(graph: LinkGraph, section: Section) -> None:
    block, other = (graph.create_zero_fill_block(section, 1) for _ in range(2))
    same = Block(graph, block.row)
    assert same == block
    assert hash(same) == hash(block)
    assert block != other
    assert len({block, same, other}) == 2
    # Handles of other tables and of other graphs differ.
    assert block != Symbol(graph, block.row)
    assert block != Block(make_graph(), block.row)
    assert block != block.row


def test_transfer_block_takes_its_symbols_along(graph: LinkGraph, section: Section) -> None:
    other = graph.create_section(".text", READ)
    block, stays = (graph.create_zero_fill_block(section, 8) for _ in range(2))
    symbol = graph.add_defined_symbol(block, 4, "s")
    graph.transfer_block(block, other)
    assert (block.section, symbol.section) == (other, other)
    assert (list(section.blocks), list(other.blocks)) == ([stays], [block])
    assert (section.symbols_size, other.symbols_size) == (0, 1)
    graph.transfer_block(block, other)
    assert list(other.blocks) == [block]


def test_remove_block_and_its_edges(graph: LinkGraph, section: Section) -> None:
    block, stays = (graph.create_content_block(section, bytes(8)) for _ in range(2))
    target = graph.add_defined_symbol(stays, 0, "s")
    block.add_edge(Kind.POINTER64, 0, target)
    edge = stays.add_edge(Kind.POINTER64, 0, target)
    graph.remove_block(block)
    assert list(graph.blocks) == list(section.blocks) == [stays]
    assert list(stays.edges) == [edge]
    edge.remove()
    # The removed block's edge does not count as a reference.
    graph.remove_defined_symbol(target)


def test_block_with_symbols_is_not_removed(graph: LinkGraph, section: Section) -> None:
    block = graph.create_content_block(section, bytes(8))
    symbol = graph.add_anonymous_symbol(block, 8)
    with pytest.raises(GraphError, match="symbol <anonymous> still points into the block"):
        graph.remove_block(block)
    named = graph.add_defined_symbol(block, 0, "named")
    graph.remove_defined_symbol(symbol)
    with pytest.raises(GraphError, match="symbol named"):
        graph.remove_block(block)
    graph.make_external(named)
    graph.remove_block(block)
    assert list(graph.blocks) == []


def uses_of(graph: LinkGraph, block: Block) -> list[Callable[[], object]]:
    external = graph.find_external_symbol_by_name("e") or graph.add_external_symbol("e")
    section = graph.obtain_section(".other", READ)
    defined = graph.find_defined_symbol_by_name("d") or graph.add_defined_symbol(
        graph.create_zero_fill_block(section, 1), 0, "d"
    )
    return [
        lambda: graph.remove_block(block),
        lambda: graph.transfer_block(block, section),
        lambda: graph.split_block(block, 1),
        lambda: graph.add_defined_symbol(block, 0, "x"),
        lambda: graph.add_anonymous_symbol(block, 0),
        lambda: graph.make_defined(external, block, 0, 0),
        lambda: graph.transfer_defined_symbol(defined, block, 0),
        lambda: graph.add_edge(block, Kind.POINTER64, 0, external),
    ]


def test_removed_block_cannot_be_used(graph: LinkGraph, section: Section) -> None:
    block = graph.create_content_block(section, bytes(8))
    graph.remove_block(block)
    changes: list[Callable[[], object]] = [
        lambda: block.set_content(b"x"),
        lambda: block.set_mutable_content(bytearray(b"x")),
        lambda: block.set_zero_fill_size(1),
    ]
    for use in (*uses_of(graph, block), *changes):
        with pytest.raises(GraphError, match="the block has been removed"):
            use()


def test_block_of_another_graph_cannot_be_used(graph: LinkGraph) -> None:
    other = make_graph()
    block = other.create_content_block(other.create_section("a", READ), bytes(8))
    for use in uses_of(graph, block):
        with pytest.raises(GraphError, match="the block belongs to another graph"):
            use()


def test_allocated_memory_is_writable_and_a_copy(graph: LinkGraph, section: Section) -> None:
    source = bytearray(b"abc")
    buffer = graph.allocate_buffer(4)
    content = graph.allocate_content(source)
    source[0] = ord("x")
    assert (bytes(buffer), bytes(content)) == (bytes(4), b"abc")
    assert bytes(graph.allocate_content("é\udcff")) == b"\xc3\xa9\xff"
    assert bytes(graph.allocate_string("é")) == b"\xc3\xa9"
    assert bytes(graph.allocate_c_string("é")) == b"\xc3\xa9\0"
    for memory in (buffer, content, graph.allocate_string("a"), graph.allocate_c_string("a")):
        block = graph.create_mutable_content_block(section, memory)
        block.already_mutable_content[0] = 1
        assert memory[0] == 1
