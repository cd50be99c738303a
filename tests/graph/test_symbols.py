"""Symbols: names, and conversions from one kind to another."""

from collections.abc import Callable

import numpy as np
import pytest

from jitlink.errors import GraphError
from jitlink.graph import (
    Addressable,
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
    """All attributes of a symbol, to show that a refused operation changed nothing."""
    table = symbol.graph.symbol_table
    return tuple(getattr(table, column)[symbol.row].item() for column in table.FIELDS)


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


@pytest.mark.parametrize("kind", [SymbolKind.DEFINED, SymbolKind.ABSOLUTE])
def test_only_local_symbols_may_share_a_name(
    graph: LinkGraph, block: Block, kind: SymbolKind
) -> None:
    def add(scope: Scope) -> Symbol:
        if kind == SymbolKind.DEFINED:
            return graph.add_defined_symbol(block, 0, "s", scope=scope)
        return graph.add_absolute_symbol("s", 0, scope=scope)

    for scope in (Scope.LOCAL, Scope.LOCAL, Scope.HIDDEN, Scope.LOCAL):
        add(scope)
    with pytest.raises(GraphError, match="symbol s exists already"):
        add(Scope.DEFAULT)
    assert graph.symbol_table.rows == 4


def test_look_up_prefers_symbols_that_are_not_local(graph: LinkGraph, block: Block) -> None:
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


def test_flags_of_a_definition_are_removed_with_it(graph: LinkGraph, block: Block) -> None:
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
    for moved, offset, size, message in (
        (external, 0, None, "symbol e is not defined"),
        (symbol, 33, None, "symbol offset"),
        (symbol, -1, None, "symbol offset"),
        (symbol, 30, 3, "extends past"),
    ):
        before = state(moved)
        with pytest.raises(GraphError, match=message):
            graph.transfer_defined_symbol(moved, block, offset, size)
        assert state(moved) == before


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
                with pytest.raises(
                    GraphError, match=r"symbol s is not (external|absolute|defined)"
                ):
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
