"""The columns of blocks and symbols, and the enumerations of their values.

`EdgeTable`, the third table of a graph, is in `jitlink.graph.edges`.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import ClassVar

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import (
    INT64_MAX,
    Columns,
    Int32Array,
    Int64Array,
    UInt8Array,
    UInt64Array,
    rows_where,
)
from jitlink.graph.strings import NO_NAME


class MemProt(IntFlag):
    """Protection of memory in the executor."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4

    def __str__(self) -> str:
        letters = ((MemProt.READ, "R"), (MemProt.WRITE, "W"), (MemProt.EXEC, "X"))
        return "".join(letter if self & flag else "-" for flag, letter in letters)


class MemLifetime(IntEnum):
    """How long the memory of a section is needed.

    STANDARD: until the allocation is deallocated. FINALIZE: until the finalize actions have run.
    NO_ALLOC: never in the executor; the content stays with the graph (debug sections).
    """

    STANDARD = 0
    FINALIZE = 1
    NO_ALLOC = 2

    def __str__(self) -> str:
        return ("standard", "finalize", "noalloc")[self]


# Indexed by value: looking up a member in an enumeration is slow.
MEM_PROTS = tuple(map(MemProt, range(8)))
MEM_LIFETIMES = tuple(MemLifetime)


class Linkage(IntEnum):
    """Whether another definition of the same name may override this one."""

    STRONG = 0
    WEAK = 1

    def __str__(self) -> str:
        return self.name.lower()


class Scope(IntEnum):
    """Where a symbol can be referred to.

    DEFAULT: everywhere. HIDDEN: in its own JITDylib. SIDE_EFFECTS_ONLY: nowhere, but a lookup
    of it materializes its definition. LOCAL: in its own graph. An external symbol that is HIDDEN
    makes its definition so, in the same graph or JITDylib.
    """

    DEFAULT = 0
    HIDDEN = 1
    SIDE_EFFECTS_ONLY = 2
    LOCAL = 3

    def __str__(self) -> str:
        return ("default", "hidden", "side-effects-only", "local")[self]


class SymbolKind(IntEnum):
    """The kind of symbol in a row of the symbol table."""

    DEFINED = 0
    EXTERNAL = 1
    ABSOLUTE = 2
    REMOVED = 3


# Plain numbers for whole columns: NumPy handles them several times faster than enum members.
DEFINED, EXTERNAL, ABSOLUTE, REMOVED = (int(kind) for kind in SymbolKind)
_LOCAL = int(Scope.LOCAL)


class SymbolFlags(IntFlag):
    """Bits of the symbol table's `flags` column."""

    LIVE = 1
    CALLABLE = 2
    WEAKLY_REFERENCED = 4
    COMMON = 8
    """A tentative definition: of several, the largest takes precedence."""
    INDIRECT = 16
    """An ifunc: the symbol's content is a resolver function that returns the address to use."""
    THREAD_LOCAL = 32
    """The symbol's content is the initialisation image of a thread-local variable."""
    UNIQUE = 64
    """At most one definition in the whole process (GNU unique binding)."""


class BlockFlags(IntFlag):
    """Bits of the block table's `flags` column."""

    REMOVED = 1
    LIVE = 2
    THREAD_LOCAL = 4
    """The block is part of the TLS initialisation image."""
    COMDAT = 8
    """The block is a member of a COMDAT group."""


_REMOVED_BLOCK = int(BlockFlags.REMOVED)


class BlockTable(Columns):
    """One row per block.

    Columns: section (section ordinal), origin (number of the object in `LinkGraph.origins`
    that the block came from; blocks within a section are ordered by origin, then by address),
    address (uint64), size, alignment, alignment_offset, content (content reference, or
    `ZERO_FILL`), flags (`BlockFlags`).
    """

    FIELDS: ClassVar = {
        "section": np.int32,
        "origin": np.int32,
        "address": np.uint64,
        "size": np.int64,
        "alignment": np.int64,
        "alignment_offset": np.int64,
        "content": np.int64,
        "flags": np.uint8,
    }
    section: Int32Array
    origin: Int32Array
    address: UInt64Array
    size: Int64Array
    alignment: Int64Array
    alignment_offset: Int64Array
    content: Int64Array
    flags: UInt8Array


class SymbolTable(Columns):
    """One row per symbol.

    Columns: name (name reference), kind (`SymbolKind`), block (row of the block of a defined
    symbol, -1 otherwise), value (offset in the block, or the address of an external or absolute
    symbol), size, linkage, scope, flags (`SymbolFlags`), target_flags (the architecture's).
    """

    FIELDS: ClassVar = {
        "name": np.int64,
        "kind": np.uint8,
        "block": np.int64,
        "value": np.uint64,
        "size": np.uint64,
        "linkage": np.uint8,
        "scope": np.uint8,
        "flags": np.uint8,
        "target_flags": np.uint8,
    }
    name: Int64Array
    kind: UInt8Array
    block: Int64Array
    value: UInt64Array
    size: UInt64Array
    linkage: UInt8Array
    scope: UInt8Array
    flags: UInt8Array
    target_flags: UInt8Array


MAX_ALIGNMENT = 1 << 62


def check_alignment(alignment: int, offset: int = 0) -> None:
    """Check a block's alignment and alignment offset, both in bytes.

    Raises:
        GraphError: the alignment is no power of two, or not above its offset.
    """
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise GraphError(f"block alignment {alignment} is not a power of two up to 2**62")
    if not 0 <= offset < alignment:
        raise GraphError(f"alignment offset {offset} is not below alignment {alignment}")


def check_block_size(size: int) -> None:
    """Check the size of a block in bytes.

    Raises:
        GraphError: it is negative, or 2**63 or more.
    """
    if not 0 <= size <= INT64_MAX:
        raise GraphError(f"block size {size:#x} is not between 0 and {INT64_MAX:#x}")


def check_linkage(kind: SymbolKind, name: str, linkage: Linkage) -> None:
    """Check that a symbol of that kind and name can have that linkage.

    Raises:
        GraphError: the linkage is weak, and the symbol anonymous or absolute.
    """
    if linkage != Linkage.STRONG and (kind == SymbolKind.ABSOLUTE or not name):
        raise GraphError(f"symbol {name or '<anonymous>'} can only have strong linkage")


def check_scope(kind: SymbolKind, name: str, scope: Scope) -> None:
    """Check that a symbol of that kind and name can have that scope.

    Raises:
        GraphError: the symbol is anonymous and the scope not local, or external and local.
    """
    if scope != Scope.LOCAL and not name:
        raise GraphError("an anonymous symbol can only have local scope")
    if scope == Scope.LOCAL and kind == SymbolKind.EXTERNAL:
        raise GraphError(f"external symbol {name} cannot have local scope")


def rows_of_section(blocks: BlockTable, ordinal: int) -> Int64Array:
    """Rows (int64) of the blocks of the section of an ordinal."""
    return rows_where((blocks.section == ordinal) & (blocks.flags & _REMOVED_BLOCK == 0))


def exported_rows(symbols: SymbolTable, first: int = 0, last: int | None = None) -> Int64Array:
    """Rows (int64, ascending) of the symbols that other graphs can refer to by name.

    These are the defined and absolute symbols that have a name and are not local.

    Args:
        symbols: the table.
        first: earlier rows are left out.
        last: this row and later ones are left out; by default none.
    """
    part = slice(first, last)
    kind, scope, name = symbols.kind[part], symbols.scope[part], symbols.name[part]
    exported = (kind == DEFINED) | (kind == ABSOLUTE)
    exported &= scope != _LOCAL
    exported &= name != NO_NAME
    rows = rows_where(exported)
    return rows + first if first else rows


def symbol_addresses(symbols: SymbolTable, blocks: BlockTable) -> UInt64Array:
    """Addresses (uint64, one per symbol row); those of removed symbols are meaningless."""
    addresses: UInt64Array = symbols.value.copy()
    defined = rows_where(symbols.kind == DEFINED)
    addresses[defined] += blocks.address[symbols.block[defined]]
    return addresses
