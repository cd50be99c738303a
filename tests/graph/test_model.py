"""Random changes of a graph, compared with a model of plain objects that refer to each other."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from jitlink.errors import GraphError
from jitlink.graph import (
    Block,
    Edge,
    EdgeKind,
    Linkage,
    MemProt,
    Scope,
    Section,
    Symbol,
    SymbolKind,
)
from tests.graph.sample import READ, READ_WRITE, Kind, make_graph

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(eq=False)
class ModelSection:
    """What a section should be."""

    handle: Section
    name: str
    mem_prot: MemProt


@dataclass(eq=False)
class ModelBlock:
    """What a block should be; its symbols and edges refer to it."""

    handle: Block
    section: ModelSection
    address: int
    size: int
    content: bytearray | None
    alignment: int
    alignment_offset: int


@dataclass(eq=False)
class ModelSymbol:
    """What a symbol should be; `value` is an offset in the block, or an address."""

    handle: Symbol
    kind: SymbolKind
    name: str
    block: ModelBlock | None = None
    value: int = 0
    size: int = 0
    linkage: Linkage = Linkage.STRONG
    scope: Scope = Scope.DEFAULT
    live: bool = False
    callable: bool = False


@dataclass(eq=False)
class ModelEdge:
    """What an edge should be."""

    handle: Edge
    block: ModelBlock
    kind: EdgeKind
    offset: int
    target: ModelSymbol
    addend: int


@dataclass
class Model:
    """What a graph should hold."""

    sections: list[ModelSection] = field(default_factory=list)
    blocks: list[ModelBlock] = field(default_factory=list)
    symbols: list[ModelSymbol] = field(default_factory=list)
    edges: list[ModelEdge] = field(default_factory=list)

    def taken(self, kind: SymbolKind, name: str, scope: Scope) -> bool:
        """Whether a symbol of that kind, name and scope would be a duplicate."""
        return scope != Scope.LOCAL and any(
            symbol.name == name and symbol.kind == kind and symbol.scope != Scope.LOCAL
            for symbol in self.symbols
        )


NUMBERS = st.integers(0, 1000)
NAMES = st.sampled_from(["", "a", "b", "c", "d"])
SIZES = st.integers(0, 24)
SCOPES = st.sampled_from(Scope)
LINKAGES = st.sampled_from(Linkage)


@contextmanager
def refused_if(condition: bool) -> Iterator[None]:
    """Expect a GraphError exactly if `condition`; the invariants then check the graph."""
    if condition:
        with pytest.raises(GraphError):
            yield
    else:
        yield


def nearly(number: int, limit: int) -> int:
    """A number from 0 to `limit`, rarely the one above, which is refused."""
    return number % (limit + 2)


has_sections = precondition(lambda self: self.model.sections)
has_blocks = precondition(lambda self: self.model.blocks)
has_symbols = precondition(lambda self: self.model.symbols)
has_edges = precondition(lambda self: self.model.edges)


class GraphMachine(RuleBasedStateMachine):
    """Applies the same operations to a graph and to a model; elements are chosen by number."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = make_graph()
        self.model = Model()

    @initialize()
    def begin(self) -> None:
        self.create_section("one", READ)
        self.create_section("two", READ_WRITE)
        for content in (20, bytes(range(24)), bytes(16)):
            self.create_block(len(self.model.blocks), content, True, 0x1000, 3, 5)
        self.add_external("a", 0)
        self.add_defined(1, "b", 4, 8, Linkage.WEAK, Scope.DEFAULT, True)

    # Sections

    @rule(name=NAMES, prot=st.sampled_from([READ, READ_WRITE]))
    def create_section(self, name: str, prot: MemProt) -> None:
        sections = self.model.sections
        exists = any((section.name, section.mem_prot) == (name, prot) for section in sections)
        with refused_if(exists):
            handle = self.graph.create_section(name, prot)
            sections.append(ModelSection(handle, name, prot))

    @has_sections
    @rule(number=NUMBERS, prot=st.sampled_from([READ, READ_WRITE]))
    def protect_section(self, number: int, prot: MemProt) -> None:
        section = self.pick_section(number)
        section.mem_prot = section.handle.mem_prot = prot

    @has_sections
    @rule(number=NUMBERS)
    def remove_section(self, number: int) -> None:
        section = self.pick_section(number)
        with refused_if(any(block.section is section for block in self.model.blocks)):
            self.graph.remove_section(section.handle)
            self.model.sections.remove(section)

    @has_sections
    @rule(number=NUMBERS, ordinal=NUMBERS)
    def move_section(self, number: int, ordinal: int) -> None:
        section = self.pick_section(number)
        ordinal = nearly(ordinal, len(self.model.sections) - 1)
        with refused_if(ordinal == len(self.model.sections)):
            self.graph.move_section(section.handle, ordinal)
            self.model.sections.remove(section)
            self.model.sections.insert(ordinal, section)

    @has_sections
    @rule(number=NUMBERS, other=NUMBERS, preserve=st.booleans())
    def merge_sections(self, number: int, other: int, preserve: bool) -> None:
        destination, source = self.pick_section(number), self.pick_section(other)
        self.graph.merge_sections(destination.handle, source.handle, preserve_source=preserve)
        for block in self.model.blocks:
            if block.section is source:
                block.section = destination
        if destination is not source and not preserve:
            self.model.sections.remove(source)

    def pick_section(self, number: int) -> ModelSection:
        return self.model.sections[number % len(self.model.sections)]

    # Blocks

    @has_sections
    @rule(
        number=NUMBERS,
        content=st.one_of(SIZES, st.binary(max_size=24)),
        mutable=st.booleans(),
        address=st.integers(0, 2**64 - 1),
        shift=st.integers(0, 4),
        offset=NUMBERS,
    )
    def create_block(
        self,
        number: int,
        content: int | bytes,
        mutable: bool,
        address: int,
        shift: int,
        offset: int,
    ) -> None:
        section = self.pick_section(number)
        offset = nearly(offset, (1 << shift) - 1)
        place = (address, 1 << shift, offset)
        with refused_if(offset >= 1 << shift):
            if isinstance(content, int):
                handle = self.graph.create_zero_fill_block(section.handle, content, *place)
            elif mutable:
                handle = self.graph.create_mutable_content_block(section.handle, content, *place)
            else:
                handle = self.graph.create_content_block(section.handle, content, *place)
            size = content if isinstance(content, int) else len(content)
            copy = None if isinstance(content, int) else bytearray(content)
            self.model.blocks.append(
                ModelBlock(handle, section, address, size, copy, 1 << shift, offset)
            )

    @has_blocks
    @rule(number=NUMBERS, position=NUMBERS, byte=st.integers(0, 255))
    def write_content(self, number: int, position: int, byte: int) -> None:
        block = self.pick_block(number)
        if block.content:
            position %= block.size
            block.handle.mutable_content()[position] = byte
            block.content[position] = byte

    @has_blocks
    @rule(number=NUMBERS, other=NUMBERS)
    def transfer_block(self, number: int, other: int) -> None:
        block = self.pick_block(number)
        section = self.pick_section(other)
        self.graph.transfer_block(block.handle, section.handle)
        block.section = section

    @has_blocks
    @rule(number=NUMBERS)
    def remove_block(self, number: int) -> None:
        block = self.pick_block(number)
        with refused_if(any(symbol.block is block for symbol in self.model.symbols)):
            self.graph.remove_block(block.handle)
            self.model.blocks.remove(block)
            self.model.edges = [edge for edge in self.model.edges if edge.block is not block]

    @has_blocks
    @rule(number=NUMBERS, cut=NUMBERS)
    def split_block(self, number: int, cut: int) -> None:
        block = self.pick_block(number)
        cut = nearly(cut, block.size - 1)
        with refused_if(not 0 < cut < block.size):
            _, handle = self.graph.split_block(block.handle, cut)
            self.model.blocks.append(
                ModelBlock(
                    handle,
                    block.section,
                    (block.address + cut) % 2**64,
                    block.size - cut,
                    None if block.content is None else block.content[cut:],
                    block.alignment,
                    (block.alignment_offset + cut) % block.alignment,
                )
            )
            self.follow_split(block, self.model.blocks[-1], cut)

    def follow_split(self, first: ModelBlock, second: ModelBlock, cut: int) -> None:
        first.size = cut
        first.content = None if first.content is None else first.content[:cut]
        for symbol in self.model.symbols:
            if symbol.block is first:
                if symbol.value >= cut:
                    symbol.block, symbol.value = second, symbol.value - cut
                symbol.size = min(symbol.size, symbol.block.size - symbol.value)
        for edge in self.model.edges:
            if edge.block is first and edge.offset >= cut:
                edge.block, edge.offset = second, edge.offset - cut

    def pick_block(self, number: int) -> ModelBlock:
        return self.model.blocks[number % len(self.model.blocks)]

    # Symbols

    @rule(name=NAMES, size=SIZES)
    def add_external(self, name: str, size: int) -> None:
        taken = self.model.taken(SymbolKind.EXTERNAL, name, Scope.DEFAULT)
        with refused_if(not name or taken):
            handle = self.graph.add_external_symbol(name, size)
            self.model.symbols.append(ModelSymbol(handle, SymbolKind.EXTERNAL, name, size=size))

    @rule(name=NAMES, address=st.integers(0, 2**64 - 1), scope=SCOPES, live=st.booleans())
    def add_absolute(self, name: str, address: int, scope: Scope, live: bool) -> None:
        taken = self.model.taken(SymbolKind.ABSOLUTE, name, scope)
        with refused_if(taken or (not name and scope != Scope.LOCAL)):
            handle = self.graph.add_absolute_symbol(name, address, scope=scope, is_live=live)
            self.model.symbols.append(
                ModelSymbol(
                    handle, SymbolKind.ABSOLUTE, name, value=address, scope=scope, live=live
                )
            )

    @has_blocks
    @rule(
        number=NUMBERS,
        name=NAMES,
        offset=NUMBERS,
        size=NUMBERS,
        linkage=LINKAGES,
        scope=SCOPES,
        live=st.booleans(),
    )
    def add_defined(
        self,
        number: int,
        name: str,
        offset: int,
        size: int,
        linkage: Linkage,
        scope: Scope,
        live: bool,
    ) -> None:
        block = self.pick_block(number)
        offset = nearly(offset, block.size)
        size = nearly(size, max(block.size - offset, 0))
        refused = self.model.taken(SymbolKind.DEFINED, name, scope) or offset + size > block.size
        refused |= not name and (scope != Scope.LOCAL or linkage != Linkage.STRONG)
        with refused_if(refused):
            handle = self.graph.add_defined_symbol(
                block.handle, offset, name, size, linkage, scope, is_live=live, is_callable=live
            )
            self.model.symbols.append(
                ModelSymbol(
                    handle,
                    SymbolKind.DEFINED,
                    name,
                    block,
                    offset,
                    size,
                    linkage,
                    scope,
                    live,
                    live,
                )
            )

    @has_symbols
    @rule(number=NUMBERS)
    def make_external(self, number: int) -> None:
        symbol = self.pick_symbol(number)
        refused = symbol.kind == SymbolKind.EXTERNAL or not symbol.name
        refused |= self.model.taken(SymbolKind.EXTERNAL, symbol.name, Scope.DEFAULT)
        with refused_if(refused):
            self.graph.make_external(symbol.handle)
            if symbol.kind == SymbolKind.DEFINED:
                symbol.live = False
            symbol.kind, symbol.block, symbol.value = SymbolKind.EXTERNAL, None, 0
            symbol.scope = Scope.DEFAULT

    @has_symbols
    @rule(number=NUMBERS, address=st.integers(0, 2**64 - 1))
    def make_absolute(self, number: int, address: int) -> None:
        symbol = self.pick_symbol(number)
        with refused_if(symbol.kind == SymbolKind.ABSOLUTE):
            self.graph.make_absolute(symbol.handle, address)
            if symbol.kind == SymbolKind.EXTERNAL:
                symbol.scope = Scope.LOCAL
            symbol.kind, symbol.block, symbol.value = SymbolKind.ABSOLUTE, None, address

    @has_blocks
    @has_symbols
    @rule(
        number=NUMBERS, other=NUMBERS, offset=NUMBERS, size=NUMBERS, linkage=LINKAGES, scope=SCOPES
    )
    def make_defined(
        self, number: int, other: int, offset: int, size: int, linkage: Linkage, scope: Scope
    ) -> None:
        symbol, block = self.pick_symbol(number), self.pick_block(other)
        offset = nearly(offset, block.size)
        size = nearly(size, max(block.size - offset, 0))
        refused = symbol.kind == SymbolKind.DEFINED or offset + size > block.size
        refused |= not symbol.name and (scope != Scope.LOCAL or linkage != Linkage.STRONG)
        with refused_if(refused):
            self.graph.make_defined(symbol.handle, block.handle, offset, size, linkage, scope)
            symbol.kind, symbol.block, symbol.value = SymbolKind.DEFINED, block, offset
            symbol.size, symbol.linkage, symbol.scope = size, linkage, scope
            symbol.live = False

    @has_blocks
    @has_symbols
    @rule(number=NUMBERS, other=NUMBERS, offset=NUMBERS, size=st.one_of(st.none(), NUMBERS))
    def transfer_defined_symbol(
        self, number: int, other: int, offset: int, size: int | None
    ) -> None:
        symbol, block = self.pick_symbol(number), self.pick_block(other)
        offset = nearly(offset, block.size)
        size = None if size is None else nearly(size, max(block.size - offset, 0))
        refused = symbol.kind != SymbolKind.DEFINED or offset + (size or 0) > block.size
        with refused_if(refused):
            self.graph.transfer_defined_symbol(symbol.handle, block.handle, offset, size)
            symbol.block, symbol.value = block, offset
            symbol.size = min(symbol.size, block.size - offset) if size is None else size

    @has_symbols
    @rule(number=NUMBERS, name=NAMES)
    def rename(self, number: int, name: str) -> None:
        symbol = self.pick_symbol(number)
        external = symbol.kind == SymbolKind.EXTERNAL and name != symbol.name
        taken = self.model.taken(SymbolKind.EXTERNAL, name, Scope.DEFAULT)
        with refused_if(external and (taken or not name)):
            symbol.handle.name = name
            symbol.name = name

    @has_symbols
    @rule(number=NUMBERS, wrong=st.sampled_from([None, None, None, *list(SymbolKind)[:3]]))
    def remove_symbol(self, number: int, wrong: SymbolKind | None) -> None:
        symbol = self.pick_symbol(number)
        kind = symbol.kind if wrong is None else wrong
        remove = {
            SymbolKind.EXTERNAL: self.graph.remove_external_symbol,
            SymbolKind.ABSOLUTE: self.graph.remove_absolute_symbol,
            SymbolKind.DEFINED: self.graph.remove_defined_symbol,
        }[kind]
        used = any(edge.target is symbol for edge in self.model.edges)
        with refused_if(kind != symbol.kind or used):
            remove(symbol.handle)
            self.model.symbols.remove(symbol)

    def pick_symbol(self, number: int) -> ModelSymbol:
        return self.model.symbols[number % len(self.model.symbols)]

    # Edges

    @has_blocks
    @has_symbols
    @rule(
        number=NUMBERS,
        other=NUMBERS,
        kind=st.sampled_from([Kind.KEEP_ALIVE, Kind.POINTER64, Kind.DELTA32]),
        offset=NUMBERS,
        addend=st.integers(-(2**63), 2**63 - 1),
    )
    def add_edge(self, number: int, other: int, kind: EdgeKind, offset: int, addend: int) -> None:
        block, target = self.pick_block(number), self.pick_symbol(other)
        offset = nearly(offset, block.size)
        zero_fill = block.content is None and kind != Kind.KEEP_ALIVE
        with refused_if(zero_fill or offset > block.size):
            handle = block.handle.add_edge(kind, offset, target.handle, addend)
            self.model.edges.append(ModelEdge(handle, block, kind, offset, target, addend))

    @has_edges
    @rule(number=NUMBERS, other=NUMBERS, addend=st.integers(-100, 100))
    def change_edge(self, number: int, other: int, addend: int) -> None:
        target = self.pick_symbol(other)
        edge = self.model.edges[number % len(self.model.edges)]
        edge.handle.target, edge.handle.addend = target.handle, addend
        edge.target, edge.addend = target, addend

    @has_edges
    @rule(number=NUMBERS)
    def remove_edge(self, number: int) -> None:
        edge = self.model.edges.pop(number % len(self.model.edges))
        edge.handle.block.remove_edge(edge.handle)

    # Invariants

    @invariant()
    def sections_agree(self) -> None:
        graph, model = self.graph, self.model
        assert list(graph.sections) == [section.handle for section in model.sections]
        for ordinal, section in enumerate(model.sections):
            assert section.handle.ordinal == ordinal
            expected = {block.handle for block in model.blocks if block.section is section}
            assert set(section.handle.blocks) == expected
            symbols = {
                symbol.handle
                for symbol in model.symbols
                if symbol.block is not None and symbol.block.section is section
            }
            assert set(section.handle.symbols) == symbols
            first = next(own for own in model.sections if own.name == section.name)
            assert graph.find_section_by_name(section.name) is first.handle

    @invariant()
    def blocks_agree(self) -> None:
        assert list(self.graph.blocks) == [block.handle for block in self.model.blocks]
        for block in self.model.blocks:
            handle = block.handle
            assert (handle.address, handle.size) == (block.address, block.size)
            assert handle.alignment == block.alignment
            assert handle.alignment_offset == block.alignment_offset
            assert handle.section is block.section.handle
            assert handle.is_zero_fill == (block.content is None)
            assert block.content is None or handle.content == block.content

    @invariant()
    def symbols_agree(self) -> None:
        graph, model = self.graph, self.model
        for kind, handles in (
            (SymbolKind.DEFINED, graph.defined_symbols),
            (SymbolKind.EXTERNAL, graph.external_symbols),
            (SymbolKind.ABSOLUTE, graph.absolute_symbols),
        ):
            expected = [symbol.handle for symbol in model.symbols if symbol.kind == kind]
            assert list(handles) == sorted(expected, key=lambda handle: handle.row)
        for symbol in model.symbols:
            handle = symbol.handle
            base = symbol.block.address if symbol.block else 0
            assert handle.address == (base + symbol.value) % 2**64
            assert handle.addressable.is_defined == (symbol.kind == SymbolKind.DEFINED)
            assert (handle.name, handle.size) == (symbol.name, symbol.size)
            assert (handle.linkage, handle.scope) == (symbol.linkage, symbol.scope)
            assert (handle.is_live, handle.is_callable) == (symbol.live, symbol.callable)
            if symbol.block is not None:
                assert (handle.block, handle.offset) == (symbol.block.handle, symbol.value)

    @invariant()
    def names_are_found(self) -> None:
        for kind, find in (
            (SymbolKind.DEFINED, self.graph.find_defined_symbol_by_name),
            (SymbolKind.EXTERNAL, self.graph.find_external_symbol_by_name),
            (SymbolKind.ABSOLUTE, self.graph.find_absolute_symbol_by_name),
        ):
            for name in "abcd":
                named = [
                    symbol
                    for symbol in self.model.symbols
                    if symbol.kind == kind and symbol.name == name
                ]
                named.sort(key=lambda symbol: (symbol.scope == Scope.LOCAL, symbol.handle.row))
                assert find(name) == (named[0].handle if named else None)

    @invariant()
    def edges_agree(self) -> None:
        for block in self.model.blocks:
            expected = [edge for edge in self.model.edges if edge.block is block]
            found = list(block.handle.edges)
            assert found == [edge.handle for edge in expected]
            for handle, edge in zip(found, expected, strict=True):
                assert (handle.block, handle.offset) == (block.handle, edge.offset)
                assert (handle.kind, handle.addend) == (edge.kind, edge.addend)
                assert handle.target == edge.target.handle

    def teardown(self) -> None:
        lines = self.graph.dump().splitlines()
        assert sum(line.startswith("  block ") for line in lines) == len(self.model.blocks)
        assert sum("linkage: " in line for line in lines) == len(self.model.symbols)
        assert sum("addend = " in line for line in lines) == len(self.model.edges)


TestGraphMachine = GraphMachine.TestCase
TestGraphMachine.settings = settings(max_examples=100, stateful_step_count=50)
