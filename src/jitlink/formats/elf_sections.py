"""The headers of ELF objects, many at a time: section headers as columns, string tables.

Every check applies to whole columns at once; the error is about the first row that fails.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from jitlink.errors import GraphError, ObjectError, UnsupportedObjectError
from jitlink.formats.batch import Batch
from jitlink.formats.elf_layout import (
    ET_REL,
    SHN_XINDEX,
    SHT_NOBITS,
    SHT_NULL,
    SHT_STRTAB,
    SHT_SYMTAB,
    Identity,
)
from jitlink.formats.identification import describe_elf_type
from jitlink.formats.records import Records, gather
from jitlink.graph import LinkGraph
from jitlink.graph.columns import (
    Array,
    BoolArray,
    Int64Array,
    UInt8Array,
    ragged_arange,
    rows_where,
)
from jitlink.graph.strings import NO_NAME

LINKONCE = b".gnu.linkonce."
DEFAULT_VERSION = b"@@"
MAX_SIZE = 1 << 47
"""No user address space is larger, so larger zero-fill or alignment is corrupt."""


def int64(column: Array[Any]) -> Int64Array:
    """A column of records as native int64; unsigned 64-bit integers keep their bits."""
    return column.astype(np.int64)


def is_odd_alignment(alignment: Int64Array) -> BoolArray:
    """Whether alignments are neither 0 nor a power of two; those from 2**63 on are negative."""
    odd: BoolArray = (alignment & (alignment - 1) != 0) | (alignment < 0) | (alignment > MAX_SIZE)
    return odd


def is_one_of(column: Int64Array, values: Sequence[int]) -> BoolArray:
    """`np.isin` for a few values, without its overhead."""
    result: BoolArray = column == values[0]
    for value in values[1:]:
        result |= column == value
    return result


class SectionTables:
    """Section headers and string tables of all objects of a batch.

    Columns named ``sh_`` have an element for each section header of each object, in order:
    the fields of the header as int64, and `sh_position`, the position of the content in the
    batch's buffer. Other columns have one for each object.

    Attributes:
        shoff, shnum, shstrndx: position and number of the section headers, and index of the
            section name table (int64).
        section_base: row of each object's first section header (int64).
        section_object: index of the object of each section header (int64).
        symtab: row of each object's symbol table, or -1 (int64).
        name_base, name_limit: string reference and size of each object's section name table.
        string_base, string_limit: the same of its symbol name table.
        flags: e_flags of each object, which the architecture interprets.
        has_linkonce: whether names of sections may begin with `LINKONCE`, those of any object.
        has_default_versions: whether names of symbols may have default versions, likewise.
    """

    def __init__(self, graph: LinkGraph, batch: Batch, identity: Identity) -> None:
        self.graph = graph
        self.batch = batch
        self.identity = identity
        self.layout = identity.layout
        self.data: UInt8Array = np.frombuffer(batch.buffer, np.uint8)
        self._read_headers()
        self._read_sections()
        self._read_strings()

    # Errors

    def fail(self, object_number: int, offset: int | None, message: str) -> NoReturn:
        """Raise an `ObjectError` about one object."""
        raise ObjectError(message, file=self.batch.names[object_number], offset=offset)

    def check_sections(self, bad: BoolArray, message: str) -> None:
        """Raise an `ObjectError` about the first section for which `bad` is true."""
        if np.count_nonzero(bad):
            row = int(rows_where(bad)[0])
            number = int(self.section_object[row])
            index = row - int(self.section_base[number])
            offset = int(self.shoff[number]) + index * self.layout.section.itemsize
            self.fail(number, offset, f"section {index}: {message}")

    # Headers

    def _read_headers(self) -> None:
        starts, sizes, names = self.batch.starts, self.batch.sizes, self.batch.names
        short = rows_where(sizes < self.layout.header.itemsize)
        if len(short):
            self.fail(int(short[0]), 0, "ELF header is truncated")
        headers = gather(self.data, self.layout.header, starts)
        wrong = headers["start"] != self.identity.start
        wrong |= headers["machine"] != self.identity.machine
        for number in rows_where(wrong)[:1].tolist():
            message = "not an ELF object of the same machine, class and byte order as the others"
            raise UnsupportedObjectError(message, file=names[number], offset=0)
        for number in rows_where(headers["type"] != ET_REL)[:1].tolist():
            message = describe_elf_type(int(headers["type"][number]))
            raise UnsupportedObjectError(message, file=names[number])
        self.flags: list[int] = headers["flags"].tolist()
        self._count_sections(headers)

    def _count_sections(self, headers: Records) -> None:
        sizes, record = self.batch.sizes, self.layout.section.itemsize
        shoff = int64(headers["shoff"])
        shnum = int64(headers["shnum"])
        strndx = int64(headers["shstrndx"])
        has_table = shoff != 0
        bad = has_table & (int64(headers["shentsize"]) != record)
        bad |= (shoff < 0) | (has_table & (shoff > sizes - record))
        if np.count_nonzero(bad):
            self.fail(int(rows_where(bad)[0]), 0, "section header table lies outside the file")
        extended = rows_where(has_table & ((shnum == 0) | (strndx == SHN_XINDEX)))
        if len(extended):
            zero = gather(self.data, self.layout.section, (self.batch.starts + shoff)[extended])
            shnum[extended] = np.where(shnum[extended] == 0, int64(zero["size"]), shnum[extended])
            strndx[extended] = np.where(
                strndx[extended] == SHN_XINDEX, int64(zero["link"]), strndx[extended]
            )
        shnum[~has_table] = 0
        bad = has_table & ((shnum < 1) | (shnum > (sizes - shoff) // record))
        bad |= has_table & (strndx >= shnum)
        if np.count_nonzero(bad):
            self.fail(int(rows_where(bad)[0]), 0, "section header table lies outside the file")
        self.shoff, self.shnum, self.shstrndx = shoff, shnum, strndx

    # Sections

    def _read_sections(self) -> None:
        starts, shnum, record = self.batch.starts, self.shnum, self.layout.section.itemsize
        self.section_base = shnum.cumsum() - shnum
        self.section_object = np.arange(len(shnum)).repeat(shnum)
        index = ragged_arange(np.zeros(len(shnum), np.int64), shnum)
        positions = (starts + self.shoff)[self.section_object] + index * record
        sections = gather(self.data, self.layout.section, positions)
        self.sh_name = int64(sections["name"])
        self.sh_type = int64(sections["type"])
        self.sh_flags = int64(sections["flags"])
        self.sh_offset = int64(sections["offset"])
        self.sh_size = int64(sections["size"])
        self.sh_link = int64(sections["link"])
        self.sh_info = int64(sections["info"])
        self.sh_align = int64(sections["addralign"])
        self.sh_entsize = int64(sections["entsize"])
        self._check_section_bounds()
        # Positions in the buffer, while offsets are in the file.
        self.sh_position = self.sh_offset + starts[self.section_object]

    def _check_section_bounds(self) -> None:
        file_size = self.batch.sizes[self.section_object]
        backed = (self.sh_type != SHT_NOBITS) & (self.sh_type != SHT_NULL)
        outside = (self.sh_offset < 0) | (self.sh_size < 0)
        outside |= (self.sh_offset > file_size) | (self.sh_size > file_size - self.sh_offset)
        self.check_sections(backed & outside, "content lies outside the file")
        if int(self.sh_size[backed].sum()) > int(self.batch.sizes.sum()):
            self._reject_overlaps(backed)
        huge = (self.sh_size < 0) | (self.sh_size > MAX_SIZE)
        self.check_sections((self.sh_type == SHT_NOBITS) & huge, "size is beyond any memory")
        odd = is_odd_alignment(self.sh_align) & (self.sh_type != SHT_NULL)
        self.check_sections(odd, "alignment is not a power of two")
        self.sh_align = np.maximum(self.sh_align, 1)

    def _reject_overlaps(self, backed: BoolArray) -> NoReturn:
        """Refuse sections that share bytes: their total size is not bounded by that of the file."""
        total = np.zeros(len(self.shnum), np.int64)
        np.add.at(total, self.section_object[backed], self.sh_size[backed])
        number = int(rows_where(total > self.batch.sizes)[0])
        message = f"sections overlap: they have {int(total[number])} bytes"
        self.fail(number, int(self.shoff[number]), message)

    def linked(self, rows: Int64Array, link: Int64Array) -> Int64Array:
        """Rows of the sections whose indices are in `link`, a column, at `rows`; range-checked."""
        number = self.section_object[rows]
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[rows] = (link[rows] < 0) | (link[rows] >= self.shnum[number])
        self.check_sections(bad, "refers to a section that does not exist")
        return self.section_base[number] + link[rows]

    def _read_strings(self) -> None:
        """Add the string tables of all objects to the graph, and find the symbol tables."""
        objects = len(self.shnum)
        self.symtab = np.full(objects, -1, np.int64)
        tables = rows_where(self.sh_type == SHT_SYMTAB)
        owners = self.section_object[tables]
        second = np.zeros(len(self.sh_type), np.bool_)
        second[tables[1:]] = owners[1:] == owners[:-1]
        self.check_sections(second, "is a second symbol table")
        self.symtab[owners] = tables
        name_tables = self.section_base + self.shstrndx
        name_tables = np.where((self.shnum > 0) & (self.shstrndx > 0), name_tables, -1)
        string_tables = np.full(objects, -1, np.int64)
        string_tables[owners] = self.linked(tables, self.sh_link)
        self._add_string_tables(name_tables, string_tables)

    def _add_string_tables(self, name_tables: Int64Array, string_tables: Int64Array) -> None:
        used = np.zeros(len(self.sh_type) + 1, np.bool_)
        used[name_tables] = used[string_tables] = True
        # Not np.unique, whose first use imports numpy.ma: as long as a small link takes.
        rows = rows_where(used[:-1])
        wrong = np.zeros(len(self.sh_type), np.bool_)
        wrong[rows] = self.sh_type[rows] != SHT_STRTAB
        self.check_sections(wrong, "is used as a string table but is none")
        position, size = self.sh_position[rows], self.sh_size[rows]
        view = self.batch.buffer
        pieces = [
            view[start : start + length]
            for start, length in zip(position.tolist(), size.tolist(), strict=True)
        ]
        # The separator terminates a last name that is not terminated in the file.
        text = b"\0".join(pieces) + b"\0"
        self.has_linkonce = LINKONCE in text
        self.has_default_versions = DEFAULT_VERSION in text
        base = self.graph.strings.add_table(text)
        references = np.full(len(self.sh_type) + 1, NO_NAME, np.int64)
        references[rows] = base + (size + 1).cumsum() - (size + 1)
        sizes = np.zeros(len(self.sh_type) + 1, np.int64)
        sizes[rows] = size
        self.name_base, self.name_limit = references[name_tables], sizes[name_tables]
        self.string_base, self.string_limit = references[string_tables], sizes[string_tables]

    def section_references(self, rows: Int64Array) -> Int64Array:
        """References (int64) of names of sections, range-checked."""
        number = self.section_object[rows]
        bad = np.zeros(len(self.sh_type), np.bool_)
        bad[rows] = self.sh_name[rows] >= np.maximum(self.name_limit[number], 1)
        self.check_sections(bad, "name lies outside the section name table")
        references = self.name_base[number]
        return np.where(references < 0, NO_NAME, references + self.sh_name[rows])

    def section_names(self, references: Int64Array) -> list[str]:
        """Names of sections by their references (int64)."""
        try:
            return self.graph.strings.get_many(references)
        except GraphError as error:
            # All string tables are one by now, so the file is known only if there is a single one.
            names = self.batch.names
            file = names[0] if len(names) == 1 else self.graph.name
            raise ObjectError(f"section names: {error}", file=file) from error
