"""Symbols: attributes, names, and what turns one kind into another."""

from collections.abc import Callable

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
    Symbol,
    SymbolFlags,
    SymbolKind,
)
from tests.graph.sample import READ, Kind, make_graph


@pytest.fixture
def graph() -> LinkGraph:
    return make_graph()


@pytest.fixture
def block(graph: LinkGraph) -> Block:
    section = graph.create_section(".text", READ)
    return graph.create_content_block(section, bytes(range(32)), 0x1000)


def state(symbol: Symbol) -> tuple[object, ...]:
    """All that a symbol is, to show that a refused operation changed nothing."""
    table = symbol.graph.symbol_table
    return tuple(getattr(table, column)[symbol.row].item() for column in table.FIELDS)


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
    assert symbol.symbol_content == bytes(range(4, 12))
    assert symbol.symbol_content.readonly
    assert repr(symbol) == "<Symbol f defined>"


def test_defaults_of_a_defined_symbol(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 32, "end")
    assert (symbol.size, symbol.linkage, symbol.scope) == (0, Linkage.STRONG, Scope.DEFAULT)
    assert symbol.flags == SymbolFlags(0)
    assert symbol.address == 0x1020
    assert symbol.symbol_content == b""


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


def test_undefined_symbols_have_no_block(graph: LinkGraph) -> None:
    for symbol in (graph.add_external_symbol("e"), graph.add_absolute_symbol("a", 4)):
        for use in (
            lambda: symbol.block,  # noqa: B023
            lambda: symbol.section,  # noqa: B023
            lambda: symbol.is_symbol_zero_fill,  # noqa: B023
            lambda: symbol.symbol_content,  # noqa: B023
        ):
            with pytest.raises(GraphError, match=f"symbol {symbol.name} is not defined in a block"):
                use()
        with pytest.raises(GraphError, match="not defined"):
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
    for add in (
        lambda: graph.add_defined_symbol(block, 0, ""),
        lambda: graph.add_absolute_symbol("", 0),
    ):
        with pytest.raises(GraphError, match="anonymous symbol can only have local scope"):
            add()
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


# Names


def test_external_names_are_unique(graph: LinkGraph, block: Block) -> None:
    graph.add_external_symbol("e")
    graph.add_defined_symbol(block, 0, "e")
    graph.add_absolute_symbol("e", 0)
    with pytest.raises(GraphError, match="external symbol e exists already"):
        graph.add_external_symbol("e")
    with pytest.raises(GraphError):
        graph.add_external_symbol("")
    assert graph.symbol_table.rows == 3


def test_only_local_symbols_may_share_a_name(graph: LinkGraph, block: Block) -> None:
    for number, add in enumerate(
        (
            lambda scope: graph.add_defined_symbol(block, 0, "s", scope=scope),
            lambda scope: graph.add_absolute_symbol("s", 0, scope=scope),
        )
    ):
        add(Scope.LOCAL)
        add(Scope.LOCAL)
        add(Scope.HIDDEN)
        add(Scope.LOCAL)
        with pytest.raises(GraphError, match="symbol s exists already"):
            add(Scope.DEFAULT)
        assert graph.symbol_table.rows == 4 * (number + 1)


def test_look_up_prefers_what_others_can_see(graph: LinkGraph, block: Block) -> None:
    local = graph.add_defined_symbol(block, 0, "s", scope=Scope.LOCAL)
    assert graph.find_defined_symbol_by_name("s") == local
    graph.add_defined_symbol(block, 0, "s", scope=Scope.LOCAL)
    assert graph.find_defined_symbol_by_name("s") == local
    hidden = graph.add_defined_symbol(block, 0, "s", scope=Scope.HIDDEN)
    assert graph.find_defined_symbol_by_name("s") == hidden


def test_look_up_follows_renaming(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 0, "old")
    symbol.name = "new"
    assert (symbol.name, symbol.has_name) == ("new", True)
    assert graph.find_defined_symbol_by_name("old") is None
    assert graph.find_defined_symbol_by_name("new") == symbol
    symbol.name = ""
    assert (symbol.name, symbol.has_name) == ("", False)
    assert graph.find_defined_symbol_by_name("new") is None
    graph.add_defined_symbol(block, 0, "new")


def test_rename_external(graph: LinkGraph) -> None:
    symbol, other = graph.add_external_symbol("a"), graph.add_external_symbol("b")
    for name, message in (("b", "external symbol b exists already"), ("", "needs a name")):
        with pytest.raises(GraphError, match=message):
            symbol.name = name
    assert (symbol.name, other.name) == ("a", "b")
    symbol.name = "a"
    symbol.name = "c"
    assert graph.find_external_symbol_by_name("c") == symbol
    graph.add_external_symbol("a")


def test_look_up_sees_columns_that_were_written_in_bulk(graph: LinkGraph, block: Block) -> None:
    base = graph.strings.add_table(b"\0barfoo\0")
    table = graph.symbol_table
    assert graph.find_external_symbol_by_name("foo") is None
    row = table.extend(
        3,
        name=np.array([base + 1, base + 4, base + 4]),
        kind=np.array([SymbolKind.EXTERNAL, SymbolKind.REMOVED, SymbolKind.DEFINED]),
        block=np.array([-1, -1, block.row]),
    )
    assert graph.find_external_symbol_by_name("barfoo") == Symbol(graph, row)
    assert graph.find_external_symbol_by_name("foo") is None
    assert graph.find_defined_symbol_by_name("foo") == Symbol(graph, row + 2)
    table.kind[row + 1] = SymbolKind.EXTERNAL
    with pytest.raises(GraphError, match="external symbol foo exists already"):
        graph.add_external_symbol("foo")
    table.name[row] = base + 3
    assert graph.find_external_symbol_by_name("barfoo") is None
    assert graph.find_external_symbol_by_name("rfoo") == Symbol(graph, row)
    table.keep(np.array([False, True, False]))
    assert graph.find_external_symbol_by_name("rfoo") is None
    assert graph.find_external_symbol_by_name("foo") == Symbol(graph, 0)
    graph.add_external_symbol("rfoo")


def test_names_need_not_be_utf8(graph: LinkGraph) -> None:
    base = graph.strings.add_table(b"\0caf\xe9\0gr\xc3\xb6\xc3\x9fe\0")
    names = np.array([base + 1, base + 6])
    graph.symbol_table.extend(2, kind=SymbolKind.EXTERNAL, name=names)
    symbols = list(graph.external_symbols)
    assert [symbol.name for symbol in symbols] == ["caf\udce9", "größe"]
    assert graph.find_external_symbol_by_name("caf\udce9") == symbols[0]
    assert graph.find_external_symbol_by_name("größe") == symbols[1]
    with pytest.raises(GraphError):
        graph.add_external_symbol("größe")


# From one kind to another


def test_make_defined_symbol_external(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(
        block, 8, "s", 4, Linkage.WEAK, Scope.LOCAL, is_callable=True, is_live=True
    )
    edge = block.add_edge(Kind.POINTER64, 0, symbol)
    graph.make_external(symbol)
    assert (symbol.is_external, symbol.address, symbol.offset) == (True, 0, 0)
    assert (symbol.scope, symbol.is_live) == (Scope.DEFAULT, False)
    assert (symbol.size, symbol.linkage, symbol.is_callable) == (4, Linkage.WEAK, True)
    assert edge.target == symbol
    assert list(graph.blocks) == [block]
    assert list(block.section.symbols) == list(graph.defined_symbols) == []
    assert graph.find_external_symbol_by_name("s") == symbol


def test_make_absolute_symbol_external(graph: LinkGraph) -> None:
    symbol = graph.add_absolute_symbol("s", 0x1234, 8, scope=Scope.LOCAL, is_live=True)
    graph.make_external(symbol)
    assert (symbol.is_external, symbol.address, symbol.size) == (True, 0, 8)
    assert (symbol.scope, symbol.is_live) == (Scope.DEFAULT, True)
    assert list(graph.absolute_symbols) == []


def test_what_cannot_be_made_external(graph: LinkGraph, block: Block) -> None:
    external = graph.add_external_symbol("e")
    anonymous = graph.add_anonymous_symbol(block, 4, 2, is_live=True)
    twin = graph.add_defined_symbol(block, 4, "e", 2, is_live=True)
    for symbol, message in (
        (external, "symbol e is external already"),
        (anonymous, "needs a name"),
        (twin, "external symbol e exists already"),
    ):
        before = state(symbol)
        with pytest.raises(GraphError, match=message):
            graph.make_external(symbol)
        assert state(symbol) == before


def test_make_defined_symbol_absolute(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(
        block, 8, "s", 4, Linkage.WEAK, Scope.HIDDEN, is_callable=True, is_live=True
    )
    graph.make_absolute(symbol, -16)
    assert (symbol.is_absolute, symbol.address, symbol.offset) == (True, 2**64 - 16, 0)
    assert (symbol.size, symbol.linkage, symbol.scope) == (4, Linkage.WEAK, Scope.HIDDEN)
    assert (symbol.is_callable, symbol.is_live) == (True, True)
    assert list(graph.defined_symbols) == []


def test_make_external_symbol_absolute_and_so_local(graph: LinkGraph) -> None:
    symbol = graph.add_external_symbol("e", 4)
    graph.make_absolute(symbol, 0x1000)
    assert (symbol.is_absolute, symbol.address, symbol.size) == (True, 0x1000, 4)
    assert symbol.scope is Scope.LOCAL
    graph.add_external_symbol("e")
    with pytest.raises(GraphError, match="symbol e is absolute already"):
        graph.make_absolute(symbol, 0)
    assert symbol.address == 0x1000


def test_make_anonymous_symbol_absolute(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_anonymous_symbol(block, 0)
    graph.make_absolute(symbol, 0x20)
    assert (symbol.address, symbol.scope, symbol.name) == (0x20, Scope.LOCAL, "")


def test_make_defined(graph: LinkGraph, block: Block) -> None:
    for symbol in (
        graph.add_external_symbol("e", weakly_referenced=True),
        graph.add_absolute_symbol("a", 0x10, is_live=True),
    ):
        addressable = symbol.addressable
        assert isinstance(addressable, Addressable)
        graph.make_defined(symbol, block, 4, 8, Linkage.WEAK, Scope.HIDDEN)
        assert (symbol.block, symbol.offset, symbol.size) == (block, 4, 8)
        assert (symbol.linkage, symbol.scope, symbol.is_live) == (Linkage.WEAK, Scope.HIDDEN, False)
        assert not symbol.is_weakly_referenced
        with pytest.raises(GraphError, match="defined in a block"):
            addressable.address = 0x1000
        assert symbol.address == 0x1004
    assert list(block.section.symbols) == list(graph.defined_symbols)
    defaults = graph.add_external_symbol("d")
    graph.make_defined(defaults, block, 32, 0, is_live=True)
    assert (defaults.linkage, defaults.scope) == (Linkage.STRONG, Scope.DEFAULT)
    assert defaults.is_live


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [(-1, 0, "offset"), (33, 0, "offset"), (30, 3, "past the end"), (0, -1, "past the end")],
)
def test_make_defined_outside_the_block(
    graph: LinkGraph, block: Block, offset: int, size: int, message: str
) -> None:
    symbol = graph.add_external_symbol("e")
    before = state(symbol)
    with pytest.raises(GraphError, match=message):
        graph.make_defined(symbol, block, offset, size)
    assert state(symbol) == before


def test_make_defined_checks_name_and_kind(graph: LinkGraph, block: Block) -> None:
    nameless = graph.add_absolute_symbol("", 4, scope=Scope.LOCAL)
    defined = graph.add_defined_symbol(block, 0, "d")
    for symbol, message in ((nameless, "local scope"), (defined, "symbol d is defined already")):
        before = state(symbol)
        with pytest.raises(GraphError, match=message):
            graph.make_defined(symbol, block, 0, 0)
        assert state(symbol) == before
    graph.make_defined(nameless, block, 0, 0, scope=Scope.LOCAL)
    assert nameless.is_defined


def test_flags_of_a_definition_go_with_it(graph: LinkGraph, block: Block) -> None:
    common = graph.add_common_symbol("c", Scope.DEFAULT, block.section, 0, 8, 8)
    resolver = graph.add_defined_symbol(block, 0, "f", is_callable=True)
    resolver.flags |= SymbolFlags.INDIRECT
    graph.make_external(common)
    graph.make_absolute(resolver, 0x1000)
    assert common.flags == SymbolFlags(0)
    assert resolver.flags == SymbolFlags.CALLABLE


def test_transfer_defined_symbol(graph: LinkGraph, block: Block) -> None:
    other = graph.create_content_block(graph.create_section(".data", READ), bytes(16), 0x8000)
    symbol = graph.add_defined_symbol(
        block, 8, "s", 12, Linkage.WEAK, Scope.HIDDEN, is_callable=True, is_live=True
    )
    graph.transfer_defined_symbol(symbol, other, 2)
    assert (symbol.block, symbol.offset, symbol.address) == (other, 2, 0x8002)
    assert symbol.size == 12
    graph.transfer_defined_symbol(symbol, other, 10)
    assert symbol.size == 6
    graph.transfer_defined_symbol(symbol, block, 0)
    assert symbol.size == 6
    graph.transfer_defined_symbol(symbol, block, 0, 32)
    assert symbol.size == 32
    graph.transfer_defined_symbol(symbol, other, 16)
    assert symbol.size == 0
    assert (symbol.linkage, symbol.scope) == (Linkage.WEAK, Scope.HIDDEN)
    assert (symbol.is_callable, symbol.is_live) == (True, True)
    assert list(other.section.symbols) == [symbol]


def test_what_cannot_be_transferred(graph: LinkGraph, block: Block) -> None:
    external = graph.add_external_symbol("e")
    symbol = graph.add_defined_symbol(block, 0, "s", 4)
    for each, offset, size, message in (
        (external, 0, None, "symbol e is not defined"),
        (symbol, 33, None, "symbol offset"),
        (symbol, -1, None, "symbol offset"),
        (symbol, 30, 3, "extends past"),
    ):
        before = state(each)
        with pytest.raises(GraphError, match=message):
            graph.transfer_defined_symbol(each, block, offset, size)
        assert state(each) == before


def test_remove_symbols(graph: LinkGraph, block: Block) -> None:
    external, absolute = graph.add_external_symbol("s"), graph.add_absolute_symbol("s", 0)
    defined = graph.add_defined_symbol(block, 0, "s")
    removals: list[tuple[Symbol, Callable[[Symbol], None]]] = [
        (external, graph.remove_external_symbol),
        (absolute, graph.remove_absolute_symbol),
        (defined, graph.remove_defined_symbol),
    ]
    for symbol, _ in removals:
        for other, remove in removals:
            if other is not symbol:
                with pytest.raises(GraphError, match=r"symbol s is not (external|absolute|defined)"):
                    remove(symbol)
    for symbol, remove in removals:
        edge = block.add_edge(Kind.POINTER64, 0, symbol)
        with pytest.raises(GraphError, match="an edge still refers to symbol s"):
            remove(symbol)
        edge.remove()
        remove(symbol)
        with pytest.raises(GraphError, match="symbol s has been removed"):
            remove(symbol)
    for symbols in (graph.external_symbols, graph.absolute_symbols, graph.defined_symbols):
        assert list(symbols) == []
    assert list(graph.blocks) == [block]
    # The names are free again.
    graph.add_external_symbol("s")
    graph.add_absolute_symbol("s", 0)
    graph.add_defined_symbol(block, 0, "s")


def uses_of(graph: LinkGraph, block: Block, symbol: Symbol) -> list[Callable[[], object]]:
    return [
        lambda: graph.make_external(symbol),
        lambda: graph.make_absolute(symbol, 0),
        lambda: graph.make_defined(symbol, block, 0, 0),
        lambda: graph.transfer_defined_symbol(symbol, block, 0),
        lambda: graph.rename_symbol(symbol, "x"),
        lambda: graph.remove_defined_symbol(symbol),
        lambda: graph.add_edge(block, Kind.POINTER64, 0, symbol),
    ]


def test_removed_symbol_cannot_be_used(graph: LinkGraph, block: Block) -> None:
    symbol = graph.add_defined_symbol(block, 0, "s")
    graph.remove_defined_symbol(symbol)
    for use in uses_of(graph, block, symbol):
        with pytest.raises(GraphError, match="symbol s has been removed"):
            use()
    assert graph.edge_table.rows == 0


def test_symbol_of_another_graph_cannot_be_used(graph: LinkGraph, block: Block) -> None:
    other = make_graph()
    foreign = other.add_external_symbol("s")
    graph.add_external_symbol("t")
    for use in uses_of(graph, block, foreign):
        with pytest.raises(GraphError, match="symbol s belongs to another graph"):
            use()
    assert [symbol.name for symbol in graph.external_symbols] == ["t"]
