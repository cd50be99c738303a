"""Symbols: attributes and the rules for their values."""

import numpy as np
import pytest

from jitlink.errors import GraphError
from jitlink.graph import (
    Addressable,
    AddressRange,
    Block,
    Linkage,
    LinkGraph,
    Scope,
    SymbolFlags,
    SymbolKind,
)
from jitlink.graph.tables import exported_rows
from tests.graph.sample import READ, Kind, make_graph


@pytest.fixture
def graph() -> LinkGraph:
    return make_graph()


@pytest.fixture
def block(graph: LinkGraph) -> Block:
    section = graph.create_section(".text", READ)
    return graph.create_content_block(section, bytes(range(32)), 0x1000)


def test_defined_symbol(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(
        block, 4, "f", 8, Linkage.WEAK, Scope.HIDDEN, is_callable=True, is_live=True
    )
    assert (symbol.name, symbol.has_name, symbol.label) == ("f", True, "f")
    assert (symbol.is_defined, symbol.is_external, symbol.is_absolute) == (True, False, False)
    assert symbol.kind is SymbolKind.DEFINED
    assert (symbol.block, symbol.section, symbol.addressable) == (block, block.section, block)
    assert (symbol.offset, symbol.address, symbol.size) == (4, 0x1004, 8)
    assert symbol.range == AddressRange(0x1004, 0x100C)
    assert (symbol.linkage, symbol.scope) == (Linkage.WEAK, Scope.HIDDEN)
    assert (symbol.is_callable, symbol.is_live) == (True, True)
    assert symbol.flags == SymbolFlags.CALLABLE | SymbolFlags.LIVE
    assert (symbol.target_flags, symbol.is_symbol_zero_fill) == (0, False)
    assert bytes(symbol.symbol_content) == bytes(range(4, 12))
    assert symbol.symbol_content.readonly
    assert repr(symbol) == "<Symbol f defined>"


def test_defaults_of_a_defined_symbol(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 32, "end")
    assert (symbol.size, symbol.linkage, symbol.scope) == (0, Linkage.STRONG, Scope.DEFAULT)
    assert symbol.flags == SymbolFlags(0)
    assert symbol.address == 0x1020
    assert bytes(symbol.symbol_content) == b""


def test_anonymous_symbol(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_anonymous_symbol(block, 2, 3, is_callable=True, is_live=True)
    assert (symbol.name, symbol.has_name, symbol.label) == ("", False, "<anonymous>")
    assert (symbol.scope, symbol.linkage) == (Scope.LOCAL, Linkage.STRONG)
    assert (symbol.is_callable, symbol.is_live) == (True, True)
    other = graph.add_anonymous_symbol(block, 2)
    assert other != symbol
    assert (other.is_callable, other.is_live, other.size) == (False, False, 0)
    assert graph.find_defined_symbol_by_name("") is None
    assert repr(symbol) == "<Symbol <anonymous> defined>"


def test_external_symbol(graph: LinkGraph) -> None:
    symbol = graph.add_external_symbol("puts", 7)
    assert (symbol.is_defined, symbol.is_external, symbol.is_absolute) == (False, True, False)
    assert (symbol.linkage, symbol.scope) == (Linkage.STRONG, Scope.DEFAULT)
    assert (symbol.size, symbol.offset, symbol.address) == (7, 0, 0)
    assert (symbol.is_weakly_referenced, symbol.is_live) == (False, False)
    assert graph.add_external_symbol("weak", weakly_referenced=True).is_weakly_referenced
    symbol.is_weakly_referenced = True
    assert symbol.is_weakly_referenced
    addressable = symbol.addressable
    assert isinstance(addressable, Addressable)
    assert (addressable.is_defined, addressable.is_absolute) == (False, False)
    addressable.address = 0x7FFF_0000
    assert symbol.address == 0x7FFF_0000
    assert symbol.range == AddressRange(0x7FFF_0000, 0x7FFF_0007)
    assert repr(addressable) == "<Addressable 0x7fff0000>"


def test_absolute_symbol(graph: LinkGraph) -> None:
    symbol = graph.add_absolute_symbol("abs", 2**64 - 8, 8, scope=Scope.HIDDEN, is_live=True)
    assert (symbol.is_defined, symbol.is_external, symbol.is_absolute) == (False, False, True)
    assert (symbol.address, symbol.offset, symbol.size) == (2**64 - 8, 0, 8)
    assert symbol.range == AddressRange(2**64 - 8, 2**64)
    assert (symbol.scope, symbol.is_live) == (Scope.HIDDEN, True)
    assert symbol.addressable == Addressable(graph, symbol.row)
    assert symbol.addressable.is_absolute
    assert graph.add_absolute_symbol("minus", -1).address == 2**64 - 1


def test_common_symbol(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_common_symbol("c", Scope.DEFAULT, block.section, 0x40, 24, 16, is_live=True)
    assert (symbol.linkage, symbol.scope, symbol.size) == (Linkage.WEAK, Scope.DEFAULT, 24)
    assert symbol.flags == SymbolFlags.COMMON | SymbolFlags.LIVE
    assert symbol.is_symbol_zero_fill
    assert (symbol.block.size, symbol.block.address, symbol.block.alignment) == (24, 0x40, 16)
    assert symbol.block.alignment_offset == 0
    assert symbol.section == block.section


def test_refused_common_symbol_leaves_no_block(graph: LinkGraph, block: Block) -> None:
    graph.add_defined_symbol(block, 0, "c")
    with pytest.raises(GraphError, match="defined symbol c exists already"):
        graph.add_common_symbol("c", Scope.DEFAULT, block.section, 0, 8, 8)
    with pytest.raises(GraphError, match="power of two"):
        graph.add_common_symbol("d", Scope.DEFAULT, block.section, 0, 8, 3)
    with pytest.raises(GraphError, match="block size"):
        graph.add_common_symbol("d", Scope.DEFAULT, block.section, 0, -8, 8)
    assert list(graph.blocks) == [block]
    assert [symbol.name for symbol in graph.defined_symbols] == ["c"]


def test_symbols_by_kind(graph: LinkGraph, block: Block) -> None:
    defined = [graph.add_defined_symbol(block, 0, name) for name in "ab"]
    externals = [graph.add_external_symbol(name) for name in "ab"]
    absolutes = [graph.add_absolute_symbol(name, 0) for name in "ab"]
    assert list(graph.defined_symbols) == defined
    assert list(graph.external_symbols) == externals
    assert list(graph.absolute_symbols) == absolutes
    assert graph.find_defined_symbol_by_name("b") == defined[1]
    assert graph.find_external_symbol_by_name("b") == externals[1]
    assert graph.find_absolute_symbol_by_name("b") == absolutes[1]
    for find in (
        graph.find_defined_symbol_by_name,
        graph.find_external_symbol_by_name,
        graph.find_absolute_symbol_by_name,
    ):
        assert find("c") is None
        assert find("") is None


@pytest.mark.parametrize("attribute", ["block", "section", "is_symbol_zero_fill", "symbol_content"])
def test_undefined_symbols_have_no_block(graph: LinkGraph, attribute: str) -> None:
    for symbol in (graph.add_external_symbol("e"), graph.add_absolute_symbol("a", 4)):
        with pytest.raises(GraphError, match=f"symbol {symbol.name} is not defined in a block"):
            getattr(symbol, attribute)
        with pytest.raises(GraphError, match=f"symbol {symbol.name} is not defined in a block"):
            symbol.offset = 0


def test_offset_may_reach_the_end_of_the_block(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 0, "s")
    symbol.offset = 32
    assert symbol.address == 0x1020
    for offset in (-1, 33):
        with pytest.raises(GraphError, match="symbol offset"):
            symbol.offset = offset
        with pytest.raises(GraphError, match="symbol offset"):
            graph.add_defined_symbol(block, offset, "t")
    assert symbol.offset == 32
    assert list(graph.defined_symbols) == [symbol]


def test_size_may_reach_the_end_of_the_block(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 30, "s", 2)
    symbol.size = 0
    symbol.size = 2
    for size in (-1, 3, 2**64):
        with pytest.raises(GraphError, match="symbol s cannot have size"):
            symbol.size = size
        with pytest.raises(GraphError, match="extends past the end of its block"):
            graph.add_defined_symbol(block, 30, "t", size)
        with pytest.raises(GraphError, match="extends past the end of its block"):
            graph.add_anonymous_symbol(block, 30, size)
    assert symbol.size == 2
    assert list(graph.defined_symbols) == [symbol]


def test_size_of_what_is_not_defined(graph: LinkGraph) -> None:
    for symbol in (graph.add_external_symbol("e", 4), graph.add_absolute_symbol("a", 0, 4)):
        with pytest.raises(GraphError, match=f"symbol {symbol.name} cannot have size"):
            symbol.size = 4
        symbol.size = 0
        assert symbol.size == 0
    for size in (-1, 2**64):
        with pytest.raises(GraphError, match="unsigned 64-bit"):
            graph.add_external_symbol("x", size)
        with pytest.raises(GraphError, match="unsigned 64-bit"):
            graph.add_absolute_symbol("x", 0, size)
    assert graph.symbol_table.rows == 2


def test_linkage(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 0, "s")
    symbol.linkage = Linkage.WEAK
    assert symbol.linkage is Linkage.WEAK
    external = graph.add_external_symbol("e")
    external.linkage = Linkage.WEAK
    assert external.linkage is Linkage.WEAK
    for strong in (graph.add_anonymous_symbol(block, 0), graph.add_absolute_symbol("a", 0)):
        with pytest.raises(GraphError, match="can only have strong linkage"):
            strong.linkage = Linkage.WEAK
        strong.linkage = Linkage.STRONG
        assert strong.linkage is Linkage.STRONG
    with pytest.raises(GraphError, match="strong linkage"):
        graph.add_absolute_symbol("x", 0, linkage=Linkage.WEAK)
    with pytest.raises(GraphError, match="strong linkage"):
        graph.add_defined_symbol(block, 0, "", linkage=Linkage.WEAK, scope=Scope.LOCAL)
    assert [str(linkage) for linkage in Linkage] == ["strong", "weak"]


def test_scope(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 0, "s")
    for scope in Scope:
        symbol.scope = scope
        assert symbol.scope is scope
    anonymous, external = graph.add_anonymous_symbol(block, 0), graph.add_external_symbol("e")
    for scope in (Scope.DEFAULT, Scope.HIDDEN, Scope.SIDE_EFFECTS_ONLY):
        with pytest.raises(GraphError, match="anonymous symbol can only have local scope"):
            anonymous.scope = scope
        external.scope = scope
    with pytest.raises(GraphError, match="external symbol e cannot have local scope"):
        external.scope = Scope.LOCAL
    with pytest.raises(GraphError, match="anonymous symbol can only have local scope"):
        graph.add_defined_symbol(block, 0, "")
    with pytest.raises(GraphError, match="anonymous symbol can only have local scope"):
        graph.add_absolute_symbol("", 0)
    assert graph.add_absolute_symbol("", 4, scope=Scope.LOCAL).address == 4
    assert [str(scope) for scope in Scope] == ["default", "hidden", "side-effects-only", "local"]


def test_flags(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 0, "s")
    symbol.is_live = symbol.is_callable = True
    symbol.flags |= SymbolFlags.INDIRECT
    symbol.is_live = False
    assert symbol.flags == SymbolFlags.CALLABLE | SymbolFlags.INDIRECT
    symbol.is_callable = False
    assert symbol.flags == SymbolFlags.INDIRECT
    assert not symbol.is_weakly_referenced
    with pytest.raises(GraphError, match="symbol s is not external"):
        symbol.is_weakly_referenced = True


def test_target_flags_are_8_bits(graph: LinkGraph) -> None:
    symbol = graph.add_external_symbol("s")
    symbol.target_flags = 0xFF
    for flags in (-1, 0x100):
        with pytest.raises(GraphError, match="8 bits"):
            symbol.target_flags = flags
    assert symbol.target_flags == 0xFF


def test_address_wraps(graph: LinkGraph, block: Block) -> None:
    block.address = 2**64 - 4
    symbol = graph.add_defined_symbol(block, 8, "s")
    edge = block.add_edge(Kind.POINTER64, 12, symbol)
    assert symbol.address == 4
    assert block.fixup_address(edge) == 8
    assert graph.symbol_addresses().tolist() == [4]


def test_addresses_of_all_symbols(graph: LinkGraph, block: Block) -> None:
    graph.add_defined_symbol(block, 3, "d")
    graph.add_external_symbol("e").addressable.address = 0x5000
    graph.add_absolute_symbol("a", 2**64 - 1)
    addresses = graph.symbol_addresses()
    assert addresses.dtype == np.uint64
    assert addresses.tolist() == [0x1003, 0x5000, 2**64 - 1]


def test_exported_rows(graph: LinkGraph, block: Block) -> None:
    exported = [
        graph.add_defined_symbol(block, 0, "default"),
        graph.add_absolute_symbol("side_effects", 0, scope=Scope.SIDE_EFFECTS_ONLY),
        graph.add_defined_symbol(block, 0, "hidden", scope=Scope.HIDDEN),
    ]
    graph.add_external_symbol("external")
    graph.add_anonymous_symbol(block, 0)
    graph.add_defined_symbol(block, 0, "local", scope=Scope.LOCAL)
    graph.remove_defined_symbol(graph.add_defined_symbol(block, 0, "removed"))
    exported.append(graph.add_absolute_symbol("absolute", 0))
    rows = exported_rows(graph.symbol_table)
    assert rows.dtype == np.int64
    assert rows.tolist() == [symbol.row for symbol in exported]
    assert exported_rows(graph.symbol_table, exported[2].row).tolist() == rows[2:].tolist()
    assert exported_rows(graph.symbol_table, graph.symbol_table.rows).tolist() == []
