"""ELF relocatable objects, many at a time: bytes to sections, blocks, symbols and raw relocations.

The reader works on a *batch*: a buffer (a mapped archive, a mapped object, small files read
into one buffer) with the positions of the objects in it. Headers, section headers, symbols and
relocations of all objects are read as columns, so a thousand small objects cost little more than
one large one. The reader is independent of machines: `read_objects` returns raw relocations, and a
target turns them into edges.

Quirks: a section count and an index of the name table that do not fit their fields are in section
header 0 (SHN_XINDEX); MIPS64 stores r_info in an order of its own (not handled here); the size of a
section of type SHT_NOBITS is not one in the file.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from typing import NamedTuple

from jitlink.formats.batch import Batch, ComdatGroups
from jitlink.formats.elf_layout import Identity
from jitlink.formats.elf_relocations import RawRelocations, read_groups, read_relocations
from jitlink.formats.elf_symbols import ObjectTables
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array


class ELFObjects(NamedTuple):
    """What `read_objects` has added to a graph.

    Attributes:
        first_symbol: row of the first symbol-table entry of each object (int64).
        symbol_counts: number of symbol-table entries of each object (int64).
        last_symbol: one past the last symbol row.
        has_default_versions: whether symbols may have default versions.
        first_block: row of the first block.
        comdats: the COMDAT groups.
    """

    first_symbol: Int64Array
    symbol_counts: Int64Array
    last_symbol: int
    has_default_versions: bool
    first_block: int
    comdats: ComdatGroups

    @property
    def null_symbols(self) -> Int64Array:
        """Rows of the null symbols, the first of each symbol table."""
        return self.first_symbol[self.symbol_counts > 0]


def read_objects(
    graph: LinkGraph, batch: Batch, identity: Identity
) -> tuple[ELFObjects, RawRelocations]:
    """Add the sections, blocks and symbols of all objects of a batch to a graph.

    Returns:
        What was added, and all relocations of the batch.

    Raises:
        ObjectError: an object is malformed; the graph must then be discarded.
        UnsupportedObjectError: an object is not relocatable, or of another identity.
    """
    tables = ObjectTables(graph, batch, identity)
    relocations, groups = read_relocations(tables), read_groups(tables)
    read = ELFObjects(
        tables.symbol_base,
        tables.symbol_counts,
        tables.symbol_end,
        tables.has_default_versions,
        tables.first_block,
        groups,
    )
    return read, relocations
