"""The elements of a link graph as Python objects: sections, blocks and symbols.

Blocks, symbols and edges are numerous, so their data is in NumPy columns
(`BlockTable` and `SymbolTable` in `jitlink.graph.tables`, `EdgeTable` in `jitlink.graph.edges`).
`Block` and `Symbol` are handles, a graph and a row number, created on access; two handles of
one row are equal and hash alike. A `Section` is created on access too, but a section never has
two of them at a time, since its ordinal may change (`jitlink.graph.sections`).

Numbers follow LLVM: addresses are unsigned 64-bit values in the executor, offsets count bytes
from the start of a block, sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import ADDRESS_MASK, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.ranges import AddressRange, SectionRange
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import (
    DEFINED,
    BlockFlags,
    Linkage,
    MemLifetime,
    MemProt,
    Scope,
    SymbolFlags,
    SymbolKind,
    check_alignment,
    check_block_size,
    check_linkage,
    check_scope,
    rows_of_section,
)

if TYPE_CHECKING:
    from jitlink.graph.edges import Edge, EdgeKind
    from jitlink.graph.link_graph import LinkGraph


class Section:
    """A named set of blocks with one protection and lifetime.

    Attributes:
        graph: the graph it belongs to.
        name: its name; a graph may hold several sections of one name if their protections
            or lifetimes differ.
        ordinal: position among the graph's sections; orders sections within a segment.
            `LinkGraph.move_section` changes it. -1 once the section has been removed.
    """

    __slots__ = ("__weakref__", "graph", "name", "ordinal")

    def __init__(self, graph: LinkGraph, name: str, ordinal: int) -> None:
        self.graph = graph
        self.name = name
        self.ordinal = ordinal

    def __repr__(self) -> str:
        if self.ordinal < 0:
            return f"<removed Section {self.name}>"
        return f"<Section {self.name} {self.mem_prot}>"

    @property
    def mem_prot(self) -> MemProt:
        """Protection of its memory once finalized; may be changed.

        Raises:
            GraphError: the section has been removed.
        """
        return self.graph.section_list.prot(self)

    @mem_prot.setter
    def mem_prot(self, mem_prot: MemProt) -> None:
        self.graph.section_list.set_prot(self, mem_prot)

    @property
    def mem_lifetime(self) -> MemLifetime:
        """How long its memory is needed; may be changed.

        Raises:
            GraphError: the section has been removed.
        """
        return self.graph.section_list.lifetime(self)

    @mem_lifetime.setter
    def mem_lifetime(self, lifetime: MemLifetime) -> None:
        self.graph.section_list.set_lifetime(self, lifetime)

    @property
    def blocks(self) -> Iterator[Block]:
        """The section's blocks, in order of creation."""
        return (Block(self.graph, row) for row in self.block_rows().tolist())

    @property
    def blocks_size(self) -> int:
        """Number of blocks in the section."""
        return len(self.block_rows())

    @property
    def symbols(self) -> Iterator[Symbol]:
        """The symbols that are defined in the section's blocks."""
        return (Symbol(self.graph, row) for row in self.symbol_rows().tolist())

    @property
    def symbols_size(self) -> int:
        """Number of symbols that are defined in the section's blocks."""
        return len(self.symbol_rows())

    def block_rows(self) -> Int64Array:
        """Rows (int64) of the section's blocks in the block table."""
        return rows_of_section(self.graph.block_table, self.ordinal)

    def symbol_rows(self) -> Int64Array:
        """Rows (int64) of the section's symbols in the symbol table."""
        table = self.graph.symbol_table
        defined = rows_where(table.kind == DEFINED)
        here = self.graph.block_table.section[table.block[defined]] == self.ordinal
        rows: Int64Array = defined[here]
        return rows

    @property
    def empty(self) -> bool:
        """Whether the section has no blocks."""
        return len(self.block_rows()) == 0

    def range(self) -> SectionRange:
        """The addresses that the section's blocks span; ``[0, 0)`` if there are none."""
        rows, table = self.block_rows(), self.graph.block_table
        if len(rows) == 0:
            return SectionRange(0, 0)
        # By size too: an empty block may have the address of another one.
        order = rows[np.lexsort((table.size[rows], table.address[rows]))]
        first, last = Block(self.graph, int(order[0])), Block(self.graph, int(order[-1]))
        return SectionRange(first.address, last.range.end, first, last)


class _Handle:
    """A row of one of a graph's tables."""

    __slots__ = ("graph", "row")

    def __init__(self, graph: LinkGraph, row: int) -> None:
        self.graph = graph
        self.row = row

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Handle)
            and type(self) is type(other)
            and self.row == other.row
            and self.graph is other.graph
        )

    def __hash__(self) -> int:
        return hash((type(self), id(self.graph), self.row))


class Addressable(_Handle):
    """What an external or absolute symbol points to: an address without content.

    LLVM differs: an addressable belongs to exactly one symbol here, so the symbol's row
    identifies it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Addressable {self.address:#x}>"

    @property
    def address(self) -> int:
        """Address in the executor; 0 for an external that has not been resolved."""
        return int(self.graph.symbol_table.value[self.row])

    @address.setter
    def address(self, address: int) -> None:
        if self.graph.symbol_table.kind[self.row] == SymbolKind.DEFINED:
            raise GraphError("the symbol of the addressable has been defined in a block")
        self.graph.symbol_table.value[self.row] = address & ADDRESS_MASK

    @property
    def is_defined(self) -> bool:
        """Whether this is a `Block` rather than an `Addressable`."""
        return False

    @property
    def is_absolute(self) -> bool:
        """Whether the address is fixed."""
        return bool(self.graph.symbol_table.kind[self.row] == SymbolKind.ABSOLUTE)


class Block(_Handle):
    """A run of bytes that stays together: the unit of layout and of dead-stripping."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Block {self.address:#x} size {self.size:#x} in {self.section.name}>"

    @property
    def section(self) -> Section:
        """The section that holds the block."""
        return self.graph.section_list[int(self.graph.block_table.section[self.row])]

    @property
    def is_defined(self) -> bool:
        """Whether this is a `Block` rather than an `Addressable`."""
        return True

    @property
    def is_absolute(self) -> bool:
        """Whether the address is fixed; a block's never is."""
        return False

    @property
    def address(self) -> int:
        """Address in the executor once allocated; before that, the address in the object."""
        return int(self.graph.block_table.address[self.row])

    @address.setter
    def address(self, address: int) -> None:
        self.graph.block_table.address[self.row] = address & ADDRESS_MASK

    @property
    def size(self) -> int:
        """Size in bytes."""
        return int(self.graph.block_table.size[self.row])

    @property
    def range(self) -> AddressRange:
        """The addresses that the block covers."""
        return AddressRange(self.address, self.address + self.size)

    @property
    def alignment(self) -> int:
        """Alignment in bytes, a power of two that is above the alignment offset."""
        return int(self.graph.block_table.alignment[self.row])

    @alignment.setter
    def alignment(self, alignment: int) -> None:
        check_alignment(alignment, self.alignment_offset)
        self.graph.block_table.alignment[self.row] = alignment

    @property
    def alignment_offset(self) -> int:
        """How many bytes past a multiple of its alignment the block's address lies."""
        return int(self.graph.block_table.alignment_offset[self.row])

    @alignment_offset.setter
    def alignment_offset(self, offset: int) -> None:
        check_alignment(self.alignment, offset)
        self.graph.block_table.alignment_offset[self.row] = offset

    @property
    def is_zero_fill(self) -> bool:
        """Whether the block has no content, only a size."""
        return bool(self.graph.block_table.content[self.row] == ZERO_FILL)

    def set_zero_fill_size(self, size: int) -> None:
        """Drop the block's content, if any, and make it `size` zero bytes.

        Raises:
            GraphError: the size is negative or does not fit, or the block has been removed.
        """
        check_block_size(size)
        self._replace_content(ZERO_FILL, size)

    @property
    def content(self) -> memoryview:
        """The block's bytes (read-only view).

        Raises:
            GraphError: the block is zero-fill.
        """
        return self._content().toreadonly()

    def _content(self) -> memoryview:
        reference = int(self.graph.block_table.content[self.row])
        if reference == ZERO_FILL:
            raise GraphError("a zero-fill block has no content")
        return self.graph.contents.view(reference, self.size)

    def set_content(self, content: bytes | bytearray | memoryview) -> None:
        """Point the block to other bytes (not copied), which are read-only to it.

        The size may change; edges and symbols are not moved.
        """
        view = memoryview(content).toreadonly()
        self._replace_content(self.graph.contents.add(view), view.nbytes)

    def set_mutable_content(self, content: bytearray | memoryview) -> None:
        """Point the block to a writable buffer (not copied).

        Raises:
            GraphError: the buffer is read-only.
        """
        view = memoryview(content)
        if view.readonly:
            raise GraphError("mutable content needs a writable buffer")
        self._replace_content(self.graph.contents.add(view), view.nbytes)

    def _replace_content(self, reference: int, size: int) -> None:
        table = self.graph.block_table
        if table.flags[self.row] & BlockFlags.REMOVED:
            raise GraphError("the block has been removed")
        table.content[self.row], table.size[self.row] = reference, size

    @property
    def is_content_mutable(self) -> bool:
        """Whether the block has content that is writable without a copy."""
        return not self.is_zero_fill and not self._content().readonly

    def mutable_content(self) -> memoryview:
        """The block's bytes for writing; read-only content is copied first.

        Raises:
            GraphError: the block is zero-fill.
        """
        view = self._content()
        if view.readonly:
            self.set_mutable_content(bytearray(view))
            view = self._content()
        return view

    @property
    def already_mutable_content(self) -> memoryview:
        """The block's bytes for writing.

        Raises:
            GraphError: the content is read-only, or the block is zero-fill.
        """
        view = self._content()
        if view.readonly:
            raise GraphError("the block's content is not mutable yet")
        return view

    @property
    def edges(self) -> Iterator[Edge]:
        """Live views of the block's edges, in order of creation.

        Iteration skips edges that are added during it, and edges that are removed before they
        are reached.
        """
        return self.graph.edge_table.of_block(self.graph, self.row)

    def edges_at(self, offset: int) -> Iterator[Edge]:
        """Live views of the edges at one offset of the block."""
        return (edge for edge in self.edges if edge.offset == offset)

    @property
    def edges_size(self) -> int:
        """Number of the block's edges."""
        return len(self.graph.edge_table.rows_of_block(self.row))

    @property
    def edges_empty(self) -> bool:
        """Whether the block has no edges."""
        return self.edges_size == 0

    def add_edge(self, kind: EdgeKind | int, offset: int, target: Symbol, addend: int = 0) -> Edge:
        """Add an edge at `offset` of this block.

        Raises:
            GraphError: the offset lies outside the block, the block is zero-fill and the edge
                would modify it, or the target is in another graph.
        """
        return self.graph.add_edge(self, kind, offset, target, addend)

    def remove_edge(self, edge: Edge) -> None:
        """Remove one of the block's edges; views of other edges stay valid.

        Raises:
            GraphError: the edge is in another block.
        """
        if edge.block != self:
            raise GraphError("the edge belongs to another block")
        edge.remove()

    def fixup_address(self, edge: Edge) -> int:
        """Address in the executor that an edge modifies."""
        return (self.address + edge.offset) & ADDRESS_MASK


class Symbol(_Handle):
    """A reference, named or anonymous, to an offset in a block or to an address outside."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Symbol {self.label} {self.kind.name.lower()}>"

    @property
    def kind(self) -> SymbolKind:
        """Whether the symbol is defined, external, absolute or removed."""
        return SymbolKind(self.graph.symbol_table.kind[self.row])

    @property
    def name(self) -> str:
        """The symbol's name, empty if it has none."""
        return self.graph.strings.get(int(self.graph.symbol_table.name[self.row]))

    @name.setter
    def name(self, name: str) -> None:
        self.graph.rename_symbol(self, name)

    @property
    def has_name(self) -> bool:
        """Whether the symbol has a name."""
        return bool(self.graph.symbol_table.name[self.row] != NO_NAME)

    @property
    def label(self) -> str:
        """The symbol's name for messages, ``<anonymous>`` if it has none."""
        return self.name or "<anonymous>"

    @property
    def is_defined(self) -> bool:
        """Whether the symbol points into a block of this graph."""
        return self.kind == SymbolKind.DEFINED

    @property
    def is_external(self) -> bool:
        """Whether the symbol is to be looked up outside this graph."""
        return self.kind == SymbolKind.EXTERNAL

    @property
    def is_absolute(self) -> bool:
        """Whether the symbol is a fixed address."""
        return self.kind == SymbolKind.ABSOLUTE

    @property
    def block(self) -> Block:
        """The block of a defined symbol.

        Raises:
            GraphError: the symbol is not defined in a block.
        """
        if not self.is_defined:
            raise GraphError(f"symbol {self.label} is not defined in a block")
        return Block(self.graph, int(self.graph.symbol_table.block[self.row]))

    @property
    def section(self) -> Section:
        """The section of a defined symbol's block."""
        return self.block.section

    @property
    def addressable(self) -> Block | Addressable:
        """What the symbol points to."""
        return self.block if self.is_defined else Addressable(self.graph, self.row)

    @property
    def offset(self) -> int:
        """Offset in the block; 0 for external and absolute symbols."""
        return int(self.graph.symbol_table.value[self.row]) if self.is_defined else 0

    @offset.setter
    def offset(self, offset: int) -> None:
        if not 0 <= offset <= self.block.size:
            raise GraphError(f"symbol offset {offset:#x} lies outside its block")
        self.graph.symbol_table.value[self.row] = offset

    @property
    def address(self) -> int:
        """Address in the executor; 0 for an external that has not been resolved."""
        table = self.graph.symbol_table
        value = int(table.value[self.row])
        if table.kind[self.row] == SymbolKind.DEFINED:
            value += int(self.graph.block_table.address[table.block[self.row]])
        return value & ADDRESS_MASK

    @property
    def size(self) -> int:
        """Size in bytes, 0 if unknown.

        Raises when set:
            GraphError: the symbol would extend past the end of its block, or is not defined
                and the size is not 0.
        """
        return int(self.graph.symbol_table.size[self.row])

    @size.setter
    def size(self, size: int) -> None:
        limit = self.block.size - self.offset if self.is_defined else 0
        if not 0 <= size <= limit:
            raise GraphError(f"symbol {self.label} cannot have size {size:#x}, only {limit:#x}")
        self.graph.symbol_table.size[self.row] = size

    @property
    def range(self) -> AddressRange:
        """The addresses that the symbol covers."""
        return AddressRange(self.address, self.address + self.size)

    @property
    def linkage(self) -> Linkage:
        """Strong or weak; an anonymous or absolute symbol cannot be made weak."""
        return Linkage(int(self.graph.symbol_table.linkage[self.row]))

    @linkage.setter
    def linkage(self, linkage: Linkage) -> None:
        check_linkage(self.kind, self.name, linkage)
        self.graph.symbol_table.linkage[self.row] = linkage

    @property
    def scope(self) -> Scope:
        """Visibility: an anonymous symbol can only be local, an external one never is."""
        return Scope(int(self.graph.symbol_table.scope[self.row]))

    @scope.setter
    def scope(self, scope: Scope) -> None:
        check_scope(self.kind, self.name, scope)
        self.graph.symbol_table.scope[self.row] = scope

    @property
    def flags(self) -> SymbolFlags:
        """All flags of the symbol."""
        return SymbolFlags(int(self.graph.symbol_table.flags[self.row]))

    @flags.setter
    def flags(self, flags: SymbolFlags) -> None:
        self.graph.symbol_table.flags[self.row] = flags

    def _set_flag(self, flag: SymbolFlags, value: bool) -> None:
        self.flags = self.flags | flag if value else self.flags & ~flag

    @property
    def is_live(self) -> bool:
        """Whether dead-stripping keeps the symbol and what it reaches."""
        return bool(self.flags & SymbolFlags.LIVE)

    @is_live.setter
    def is_live(self, live: bool) -> None:
        self._set_flag(SymbolFlags.LIVE, live)

    @property
    def is_callable(self) -> bool:
        """Whether the symbol is a function."""
        return bool(self.flags & SymbolFlags.CALLABLE)

    @is_callable.setter
    def is_callable(self, is_callable: bool) -> None:
        self._set_flag(SymbolFlags.CALLABLE, is_callable)

    @property
    def is_weakly_referenced(self) -> bool:
        """Whether an external symbol may remain undefined; its address is then 0."""
        return self.is_external and bool(self.flags & SymbolFlags.WEAKLY_REFERENCED)

    @is_weakly_referenced.setter
    def is_weakly_referenced(self, weakly: bool) -> None:
        if not self.is_external:
            raise GraphError(f"symbol {self.label} is not external")
        self._set_flag(SymbolFlags.WEAKLY_REFERENCED, weakly)

    @property
    def target_flags(self) -> int:
        """Flags that only the architecture interprets (8 bits)."""
        return int(self.graph.symbol_table.target_flags[self.row])

    @target_flags.setter
    def target_flags(self, flags: int) -> None:
        if not 0 <= flags <= 0xFF:
            raise GraphError(f"target flags {flags:#x} do not fit 8 bits")
        self.graph.symbol_table.target_flags[self.row] = flags

    @property
    def is_symbol_zero_fill(self) -> bool:
        """Whether the symbol lies in a zero-fill block."""
        return self.block.is_zero_fill

    @property
    def symbol_content(self) -> memoryview:
        """The bytes from the symbol's offset, for its size (read-only view)."""
        return self.block.content[self.offset : self.offset + self.size]
