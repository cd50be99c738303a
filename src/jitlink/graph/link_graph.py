"""LinkGraph: sections, blocks, symbols and edges of one or several objects being linked.

The graph is independent of file format, architecture and process. A format reader can build it,
or a program by hand, or both, and passes may change all of it. Code that handles few elements
uses the methods here and the handles of `jitlink.graph.elements`; code that handles all of them
uses the tables `block_table`, `symbol_table` and `edge_table`, whose columns it may read and
write in place.

LLVM differs: one graph may hold many objects, which are then laid out and linked together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph import blocks, split, symbols
from jitlink.graph.actions import AllocActionPair, WrapperCall
from jitlink.graph.columns import Int64Array, UInt8Array, UInt64Array, rows_where
from jitlink.graph.contents import ContentSpace
from jitlink.graph.edges import (
    FIRST_RELOCATION,
    KEEP_ALIVE,
    Edge,
    EdgeKind,
    EdgeTable,
    GenericEdgeKind,
    check_addend,
)
from jitlink.graph.elements import Block, Section, Symbol
from jitlink.graph.ranges import AddressRange
from jitlink.graph.sections import NO_SECTION, SectionList
from jitlink.graph.strings import NO_NAME, StringHeap
from jitlink.graph.symbols import NO_BLOCK
from jitlink.graph.tables import (
    BlockFlags,
    BlockTable,
    Linkage,
    MemLifetime,
    MemProt,
    Scope,
    SymbolFlags,
    SymbolKind,
    SymbolTable,
    symbol_addresses,
)
from jitlink.graph.text import GraphText
from jitlink.host import check_can_link

__all__ = ["NO_BLOCK", "NO_SECTION", "AllocActionPair", "LinkGraph", "WrapperCall"]


NO_ADDRESS_LIMIT = 1 << 64
"""The address limit of code that may be anywhere."""


class LinkGraph:
    """A graph of blocks, symbols that point into them, and edges between the two.

    Args:
        name: usually the name of the object file.
        triple: the executor's target triple, such as ``x86_64-unknown-linux-gnu``.
        pointer_size: size of a pointer in bytes, 4 or 8.
        endianness: byte order of the executor.
        edge_kinds: the architecture's enumeration of edge kinds.
        features: CPU features that the code was compiled for.

    Attributes:
        address_limit: every block must lie below this address; an architecture lowers it
            for code that holds addresses in fewer bits than a pointer has.
        writable_code: whether sections may be both writable and executable in memory.
        origins: display names of the objects that blocks came from; empty if built by hand.
        origin_flags: architecture-specific flags from the header of each origin (ELF's e_flags).
        alloc_actions: calls to make when the graph's memory is finalized and deallocated; the
            memory manager empties the list on finalization.
        memory: address ranges of the segments that outlive finalization, once allocated.
        target: the target that made the graph, which means nothing to the graph; None for a graph
            that was made without one.
        is_defined_elsewhere: whether something outside of the graph defines a name that the linker
            would define otherwise.
        linked_to: for each block that lives and dies with another one, the other one's row. Those
            of a section are in the order of the blocks that they are linked to.
        segment_number: a number for each name of a section, from 0 to 7; sections of different
            numbers are in different segments. None if all of them have the same.
    """

    def __init__(
        self,
        name: str,
        triple: str,
        *,
        pointer_size: int = 8,
        endianness: Literal["little", "big"] = "little",
        edge_kinds: type[EdgeKind] = GenericEdgeKind,
        features: Sequence[str] = (),
    ) -> None:
        check_can_link()
        self.name = name
        self.triple = triple
        self.pointer_size = pointer_size
        self.endianness: Literal["little", "big"] = endianness
        self.edge_kinds = edge_kinds
        self.features = tuple(features)
        self.target: object | None = None
        self.address_limit = NO_ADDRESS_LIMIT
        self.writable_code = False
        self.memory: list[AddressRange] = []
        self.origins: list[str] = []
        self.origin_flags: list[int] = []
        self.section_list = SectionList(self)
        self.block_table = BlockTable()
        self.symbol_table = SymbolTable()
        self.edge_table = EdgeTable()
        self.strings = StringHeap()
        self.contents = ContentSpace()
        self.alloc_actions: list[AllocActionPair] = []
        self.is_defined_elsewhere: Callable[[str], bool] = lambda _name: False
        self.linked_to: dict[int, int] = {}
        self.segment_number: Callable[[str], int] | None = None
        self._external_names = symbols.ExternalNames()

    def __repr__(self) -> str:
        return f"<LinkGraph {self.name}>"

    def dump(self) -> str:
        """The whole graph as readable text, in the format that `jitlink.graph.text` describes."""
        return GraphText(self).text()

    # Sections

    def create_section(
        self, name: str, mem_prot: MemProt, lifetime: MemLifetime = MemLifetime.STANDARD
    ) -> Section:
        """Add a section.

        Raises:
            GraphError: a section of that name, protection and lifetime exists.
        """
        if self.section_list.find(name, mem_prot, lifetime) is not None:
            raise GraphError(f"section {name} {mem_prot} {lifetime} exists already")
        return self.section_list.create(name, mem_prot, lifetime)

    def obtain_section(
        self, name: str, mem_prot: MemProt, lifetime: MemLifetime = MemLifetime.STANDARD
    ) -> Section:
        """The section of that name, protection and lifetime, created if there is none."""
        found = self.section_list.find(name, mem_prot, lifetime)
        return found or self.section_list.create(name, mem_prot, lifetime)

    def find_section_by_name(self, name: str) -> Section | None:
        """The first section of that name, or None."""
        return self.section_list.find_by_name(name)

    @property
    def sections(self) -> Iterator[Section]:
        """All sections in order."""
        # Not an iterator of the list, which does not keep the graph alive.
        for ordinal in range(len(self.section_list)):
            yield self.section_list[ordinal]

    def section_lifetimes(self) -> UInt8Array:
        """Lifetimes (uint8, `MemLifetime`) of all sections, by ordinal."""
        return self.section_list.lifetimes()

    @property
    def sections_size(self) -> int:
        """Number of sections."""
        return len(self.section_list)

    def merge_sections(
        self, destination: Section, source: Section, *, preserve_source: bool = False
    ) -> None:
        """Move all blocks, and so all symbols, of one section into another.

        The source is then removed, unless it is to be preserved or is the destination.
        """
        self.section_list.merge(destination, source)
        if destination is not source and not preserve_source:
            self.remove_section(source)

    def move_section(self, section: Section, ordinal: int) -> None:
        """Move a section to another ordinal; the ordinals of the sections between shift by one.

        LLVM differs: ordinals are positions, so no two sections have the same.

        Raises:
            GraphError: the ordinal is out of range.
        """
        self.section_list.move(section, ordinal)

    def remove_section(self, section: Section) -> None:
        """Remove an empty section; the ordinals of later ones decrease by one.

        Raises:
            GraphError: the section still has blocks.
        """
        self.section_list.discard(section)

    # Blocks

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks in order of creation."""
        return (Block(self, row) for row in self.block_rows().tolist())

    def block_rows(self) -> Int64Array:
        """Rows (int64) of all blocks that have not been removed."""
        return rows_where((self.block_table.flags & int(BlockFlags.REMOVED)) == 0)

    def origin_name(self, block_row: int) -> str:
        """Display name of the object that a block came from; that of the graph if from none."""
        origin = int(self.block_table.origin[block_row])
        return self.origins[origin] if 0 <= origin < len(self.origins) else self.name

    def create_content_block(
        self,
        section: Section,
        content: bytes | bytearray | memoryview,
        address: int = 0,
        alignment: int = 1,
        alignment_offset: int = 0,
    ) -> Block:
        """Add a block with content, which is neither copied nor written to.

        Raises:
            GraphError: the alignment is no power of two, or not above its offset.
        """
        view = memoryview(content).toreadonly()
        return blocks.create(self, section, view, address, alignment, alignment_offset)

    def create_mutable_content_block(
        self,
        section: Section,
        content: int | bytes | bytearray | memoryview,
        address: int = 0,
        alignment: int = 1,
        alignment_offset: int = 0,
    ) -> Block:
        """Add a block with writable content.

        `content` is a writable buffer (referred to), bytes (copied) or a size (zeros).
        """
        if isinstance(content, int) or memoryview(content).readonly:
            content = bytearray(content)
        view = memoryview(content)
        return blocks.create(self, section, view, address, alignment, alignment_offset)

    def create_zero_fill_block(
        self,
        section: Section,
        size: int,
        address: int = 0,
        alignment: int = 1,
        alignment_offset: int = 0,
    ) -> Block:
        """Add a block of `size` zero bytes without content."""
        return blocks.create(self, section, size, address, alignment, alignment_offset)

    def remove_block(self, block: Block) -> None:
        """Remove a block and its edges.

        Raises:
            GraphError: a symbol still points into it.
        """
        blocks.remove(self, block)

    def transfer_block(self, block: Block, section: Section) -> None:
        """Move a block, with its symbols, into another section of this graph."""
        blocks.check_owner(self, block)
        self.section_list.check_owner(section)
        self.block_table.section[block.row] = section.ordinal

    def split_block(self, block: Block, offsets: int | Sequence[int]) -> list[Block]:
        """Cut a block at one or several offsets; edges and symbols follow their bytes.

        The given block keeps its first part. Edges and symbols at a cut belong to the part that
        begins there; a symbol that would extend past the end of its part is shortened.

        Returns:
            All parts in order, the given block first.

        Raises:
            GraphError: an offset is at an end of the block or outside, or they do not ascend.
        """
        blocks.check_owner(self, block)
        return split.split_block(self, block, offsets)

    def split_blocks(self, parents: Int64Array, starts: Int64Array) -> Int64Array:
        """Cut many blocks at once.

        Args:
            parents: block row of each part (int64, ascending, one run per parent).
            starts: offset at which each part begins (int64, ascending within a parent, 0 for
                its first part).

        Returns:
            Block rows (int64) of the parts; the first part of a parent keeps its row.
        """
        return split.split_blocks(self, parents, starts)

    def allocate_buffer(self, size: int) -> memoryview:
        """Zeroed writable memory that lives as long as the graph."""
        return memoryview(bytearray(size))

    def allocate_content(self, source: bytes | bytearray | memoryview | str) -> memoryview:
        """Writable memory with a copy of `source`; text is encoded as UTF-8."""
        if isinstance(source, str):
            source = source.encode("utf-8", "surrogateescape")
        return memoryview(bytearray(source))

    def allocate_string(self, text: str) -> memoryview:
        """Writable memory with the UTF-8 bytes of `text`."""
        return self.allocate_content(text)

    def allocate_c_string(self, text: str) -> memoryview:
        """Writable memory with the UTF-8 bytes of `text` and a NUL byte."""
        return self.allocate_content(text + "\0")

    # Symbols

    def _symbols_of_kind(self, kind: SymbolKind) -> Iterator[Symbol]:
        rows = np.flatnonzero(self.symbol_table.kind == kind)
        return (Symbol(self, row) for row in rows.tolist())

    @property
    def defined_symbols(self) -> Iterator[Symbol]:
        """All symbols that point into blocks."""
        return self._symbols_of_kind(SymbolKind.DEFINED)

    @property
    def external_symbols(self) -> Iterator[Symbol]:
        """All symbols that are to be looked up outside the graph."""
        return self._symbols_of_kind(SymbolKind.EXTERNAL)

    @property
    def absolute_symbols(self) -> Iterator[Symbol]:
        """All symbols with fixed addresses."""
        return self._symbols_of_kind(SymbolKind.ABSOLUTE)

    def find_defined_symbol_by_name(self, name: str) -> Symbol | None:
        """The first defined symbol of that name, or None; a local one only if all are local."""
        return symbols.find(self, SymbolKind.DEFINED, name)

    def external_names(self) -> tuple[Int64Array, Sequence[str]]:
        """Rows (int64) of the external symbols, and the name of each."""
        return self._external_names.of(self)

    def find_external_symbol_by_name(self, name: str) -> Symbol | None:
        """The external symbol of that name, or None."""
        return symbols.find(self, SymbolKind.EXTERNAL, name)

    def find_absolute_symbol_by_name(self, name: str) -> Symbol | None:
        """The first absolute symbol of that name, or None; a local one only if all are local."""
        return symbols.find(self, SymbolKind.ABSOLUTE, name)

    def rename_symbol(self, symbol: Symbol, name: str) -> None:
        """Give a symbol another name; the empty string makes it anonymous.

        Scope and linkage stay as they are: an anonymous symbol should be local and strong.

        Raises:
            GraphError: the symbol is external, and the name is empty or that of another one.
        """
        symbols.check_owner(self, symbol)
        if symbol.is_external and name != symbol.name:
            if not name:
                raise GraphError("an external symbol needs a name")
            symbols.check_unique(self, SymbolKind.EXTERNAL, name)
        self.symbol_table.name[symbol.row] = self.strings.add(name) if name else NO_NAME

    def add_external_symbol(
        self, name: str, size: int = 0, *, weakly_referenced: bool = False
    ) -> Symbol:
        """Add a symbol that is defined outside the graph.

        Raises:
            GraphError: the name is empty, or an external symbol of that name exists.
        """
        flags = SymbolFlags.WEAKLY_REFERENCED if weakly_referenced else SymbolFlags(0)
        return symbols.add(self, SymbolKind.EXTERNAL, name, size=size, flags=flags)

    def add_absolute_symbol(
        self,
        name: str,
        address: int,
        size: int = 0,
        linkage: Linkage = Linkage.STRONG,
        scope: Scope = Scope.DEFAULT,
        *,
        is_live: bool = False,
    ) -> Symbol:
        """Add a symbol with a fixed address.

        Raises:
            GraphError: an absolute symbol of that name exists and neither is local, the name is
                empty but the scope is not local, or the linkage is weak.
        """
        return symbols.add(
            self,
            SymbolKind.ABSOLUTE,
            name,
            value=address,
            size=size,
            linkage=linkage,
            scope=scope,
            flags=SymbolFlags.LIVE if is_live else SymbolFlags(0),
        )

    def add_common_symbol(
        self,
        name: str,
        scope: Scope,
        section: Section,
        address: int,
        size: int,
        alignment: int,
        *,
        is_live: bool = False,
    ) -> Symbol:
        """Add a zero-fill block and a weak symbol for it (a tentative definition).

        Raises:
            GraphError: as for `create_zero_fill_block` and `add_defined_symbol`.
        """
        symbols.check_new(self, SymbolKind.DEFINED, name, Linkage.WEAK, scope)
        block = self.create_zero_fill_block(section, size, address, alignment)
        symbol = self.add_defined_symbol(block, 0, name, size, Linkage.WEAK, scope, is_live=is_live)
        symbol.flags |= SymbolFlags.COMMON
        return symbol

    def add_anonymous_symbol(
        self,
        block: Block,
        offset: int,
        size: int = 0,
        *,
        is_callable: bool = False,
        is_live: bool = False,
    ) -> Symbol:
        """Add an anonymous local symbol at an offset of a block.

        Raises:
            GraphError: the symbol would lie outside the block.
        """
        return self.add_defined_symbol(
            block, offset, "", size, scope=Scope.LOCAL, is_callable=is_callable, is_live=is_live
        )

    def add_defined_symbol(
        self,
        block: Block,
        offset: int,
        name: str,
        size: int = 0,
        linkage: Linkage = Linkage.STRONG,
        scope: Scope = Scope.DEFAULT,
        *,
        is_callable: bool = False,
        is_live: bool = False,
    ) -> Symbol:
        """Add a symbol at an offset of a block.

        Raises:
            GraphError: the symbol would lie outside the block, a defined symbol of that name
                exists and neither is local, or the name is empty but the scope is not local or
                the linkage is weak.
        """
        blocks.check_owner(self, block)
        symbols.check_place(block, offset, size)
        flags = SymbolFlags.CALLABLE if is_callable else SymbolFlags(0)
        return symbols.add(
            self,
            SymbolKind.DEFINED,
            name,
            block=block.row,
            value=offset,
            size=size,
            linkage=linkage,
            scope=scope,
            flags=flags | (SymbolFlags.LIVE if is_live else SymbolFlags(0)),
        )

    def make_external(self, symbol: Symbol) -> None:
        """Turn a defined or absolute symbol into an external one.

        Edges to it remain, and so does its block. Its scope becomes default, and if it was
        defined it is no longer live; size, linkage and callability do not change.

        Raises:
            GraphError: it is external, has no name, or an external symbol has the same name.
        """
        symbols.make_external(self, symbol)

    def make_absolute(self, symbol: Symbol, address: int) -> None:
        """Turn a defined or external symbol into an absolute one at `address`.

        If it was external its scope becomes local; its other attributes do not change.

        Raises:
            GraphError: it is absolute already.
        """
        symbols.make_absolute(self, symbol, address)

    def make_defined(
        self,
        symbol: Symbol,
        block: Block,
        offset: int,
        size: int,
        linkage: Linkage = Linkage.STRONG,
        scope: Scope = Scope.DEFAULT,
        *,
        is_live: bool = False,
    ) -> None:
        """Turn an external or absolute symbol into one defined at an offset of a block.

        Raises:
            GraphError: it is defined already, or would lie outside the block.
        """
        blocks.check_owner(self, block)
        symbols.make_defined(self, symbol, block, offset, size, linkage, scope)
        symbol.is_live = is_live

    def transfer_defined_symbol(
        self, symbol: Symbol, block: Block, offset: int, size: int | None = None
    ) -> None:
        """Point a defined symbol to another offset or block.

        Its size becomes `size`; if that is None it stays, reduced to what fits the block.

        Raises:
            GraphError: it is not defined, or would lie outside the block.
        """
        blocks.check_owner(self, block)
        symbols.transfer(self, symbol, block, offset, size)

    def remove_external_symbol(self, symbol: Symbol) -> None:
        """Remove an external symbol.

        Raises (as do the other two):
            GraphError: it is of another kind, or an edge still refers to it.
        """
        symbols.remove(self, symbol, SymbolKind.EXTERNAL)

    def remove_absolute_symbol(self, symbol: Symbol) -> None:
        """Remove an absolute symbol; no edge may refer to it."""
        symbols.remove(self, symbol, SymbolKind.ABSOLUTE)

    def remove_defined_symbol(self, symbol: Symbol) -> None:
        """Remove a defined symbol but not its block; no edge may refer to it."""
        symbols.remove(self, symbol, SymbolKind.DEFINED)

    def symbol_addresses(self) -> UInt64Array:
        """Addresses (uint64, one per symbol row); rows of removed symbols are meaningless."""
        return symbol_addresses(self.symbol_table, self.block_table)

    # Edges

    def edge_kind(self, kind: EdgeKind | int) -> EdgeKind:
        """The graph's edge kind of that number.

        Raises:
            GraphError: it is a kind of another architecture.
            ValueError: no kind has that number.
        """
        foreign = isinstance(kind, EdgeKind) and not isinstance(kind, self.edge_kinds)
        if foreign and kind >= FIRST_RELOCATION:
            raise GraphError(f"{kind} is no edge kind of graph {self.name}")
        return self.edge_kinds(kind)

    def add_edge(
        self, block: Block, kind: EdgeKind | int, offset: int, target: Symbol, addend: int = 0
    ) -> Edge:
        """Add an edge; `Block.add_edge` is the usual way to call this."""
        blocks.check_owner(self, block)
        symbols.check_owner(self, target)
        kind = self.edge_kind(kind)
        check_addend(addend)
        if not 0 <= offset <= block.size:
            raise GraphError(f"edge offset {offset:#x} lies outside its block")
        if kind != KEEP_ALIVE and block.is_zero_fill:
            raise GraphError(f"a {kind} edge cannot modify a zero-fill block")
        row = self.edge_table.extend(
            1,
            block=block.row,
            offset=offset,
            kind=kind,
            target=target.row,
            addend=addend,
        )
        return Edge(self, row)
