"""Relocations and section groups of ELF objects, many at a time.

Relocations are raw: types are the ABI's numbers, and implicit addends are not read.

Specification: see `jitlink.formats.elf_layout`; for CREL see `jitlink.formats.crel`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jitlink.errors import ObjectError
from jitlink.formats.batch import NO_COMDAT_GROUPS, ComdatGroups
from jitlink.formats.elf_layout import (
    ELFCLASS64,
    GRP_COMDAT,
    SHF_ALLOC,
    SHF_EXCLUDE,
    SHT_CREL,
    SHT_GROUP,
    SHT_REL,
    SHT_RELA,
)
from jitlink.formats.elf_sections import LINKONCE, int64, is_one_of
from jitlink.formats.elf_symbols import ObjectTables
from jitlink.formats.records import gather
from jitlink.graph import BlockFlags
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.sections import NameBeginnings
from jitlink.graph.strings import NO_NAME
from jitlink.logs import Log

log = Log("jitlink.formats")

_LINKONCE = LINKONCE.decode()
_LINKONCE_SECTIONS = NameBeginnings([_LINKONCE])


class RawRelocations(NamedTuple):
    """Relocations as in the file; arrays of equal length, one element each.

    Attributes:
        block: row of the block to be modified (int64).
        offset: offset in that block (int64).
        type: relocation type (int64).
        symbol: row of the symbol referred to (int64).
        addend: explicit addend (int64); where `implicit`, to be added to the implicit one.
        implicit: whether the addend is in the block's content (bool).
    """

    block: Int64Array
    offset: Int64Array
    type: Int64Array
    symbol: Int64Array
    addend: Int64Array
    implicit: BoolArray


def read_relocations(tables: ObjectTables) -> RawRelocations:
    """All relocations of a batch that modify blocks.

    Those of a section that is not loaded, such as debug information, are left out if they cannot be
    read: they must not stop a link.
    """
    rows = rows_where(is_one_of(tables.sh_type, (SHT_RELA, SHT_REL, SHT_CREL)))
    target = tables.linked(rows, tables.sh_info)
    placed = tables.section_block[target] != NO_BLOCK
    if not placed.all():
        # Relocations of sections that are excluded from the link are dropped. Any other section
        # without a block may not have relocations.
        bad = np.zeros(len(tables.sh_type), np.bool_)
        bad[rows] = ~placed & (tables.sh_flags[target] & SHF_EXCLUDE == 0)
        tables.check_sections(bad, "relocates a section that has no content of its own")
        rows = rows[placed]
    rows = _without_bad(
        tables,
        rows,
        _lacks_symtab(tables, rows),
        "is a relocation section that names no symbol table",
    )
    rows = _without_bad(
        tables, rows, _has_odd_size(tables, rows), "is a relocation section of odd size"
    )
    kinds = tables.sh_type[rows]
    parts = [_read_fixed(tables, rows[kinds == SHT_RELA], explicit=True)]
    if np.count_nonzero(kinds != SHT_RELA):
        parts.append(_read_fixed(tables, rows[kinds == SHT_REL], explicit=False))
        parts += [_read_compact(tables, row) for row in rows[kinds == SHT_CREL].tolist()]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _without_bad(
    tables: ObjectTables, rows: Int64Array, bad: BoolArray, message: str
) -> Int64Array:
    """Relocation sections without the bad ones, which are an error if they relocate loaded content.

    Args:
        tables: the batch.
        rows: rows (int64) of relocation sections.
        bad: whether each of them is bad (bool).
        message: what is wrong with the bad ones.
    """
    if not np.count_nonzero(bad):
        return rows
    errors = np.zeros(len(tables.sh_type), np.bool_)
    errors[rows[bad]] = _relocates_loaded(tables, rows[bad])
    tables.check_sections(errors, message)
    log.debug("left out, because it is not loaded: a section that %s", message)
    return rows[~bad]


def _relocates_loaded(tables: ObjectTables, rows: Int64Array) -> BoolArray:
    loaded: BoolArray = tables.sh_flags[tables.linked(rows, tables.sh_info)] & SHF_ALLOC != 0
    return loaded


def _joined(parts: list[RawRelocations]) -> RawRelocations:
    return RawRelocations(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _lacks_symtab(tables: ObjectTables, rows: Int64Array) -> BoolArray:
    linked, owner = tables.linked(rows, tables.sh_link), tables.section_object[rows]
    # A relocation section without a symbol table may have no symbols, which `_place` checks.
    lacks: BoolArray = (linked != tables.symtab[owner]) & (tables.sh_link[rows] != 0)
    return lacks


def _has_odd_size(tables: ObjectTables, rows: Int64Array) -> BoolArray:
    explicit, compact = tables.sh_type[rows] == SHT_RELA, tables.sh_type[rows] == SHT_CREL
    record = np.where(explicit, tables.layout.rela.itemsize, tables.layout.rel.itemsize)
    odd: BoolArray = (tables.sh_entsize[rows] != record) | (tables.sh_size[rows] % record != 0)
    odd &= ~compact
    return odd


def _read_fixed(tables: ObjectTables, rows: Int64Array, *, explicit: bool) -> RawRelocations:
    """The relocations of REL or RELA sections."""
    dtype = tables.layout.rela if explicit else tables.layout.rel
    record = dtype.itemsize
    counts = tables.sh_size[rows] // record
    positions = ragged_arange(np.zeros(len(rows), np.int64), counts) * record
    positions += tables.sh_position[rows].repeat(counts)
    records = gather(tables.data, dtype, positions)
    info, shift = int64(records["info"]), tables.layout.symbol_shift
    # int64 keeps the bits of an unsigned 64-bit r_info; the mask undoes the sign.
    symbol, kind = (info >> shift) & 0xFFFFFFFF, info & ((1 << shift) - 1)
    count = len(records)
    del positions, info  # There are as many as relocations, and more are to come.
    return _place(
        tables,
        rows,
        counts,
        int64(records["offset"]),
        symbol,
        kind,
        int64(records["addend"]) if explicit else np.zeros(count, np.int64),
        np.full(count, not explicit),
    )


def _read_compact(tables: ObjectTables, row: int) -> RawRelocations:
    """The relocations of one CREL section."""
    from jitlink.formats.crel import decode_crel  # noqa: PLC0415 - seldom needed

    start = int(tables.sh_position[row])
    try:
        offset, symbol, kind, addend, explicit = decode_crel(
            tables.data[start : start + int(tables.sh_size[row])],
            wide=tables.identity.elf_class == ELFCLASS64,
            file=tables.batch.names[int(tables.section_object[row])],
            position=int(tables.sh_offset[row]),
        )
    except ObjectError as error:
        if _relocates_loaded(tables, np.array([row])).all():
            raise
        log.debug("left out, because it is not loaded: %s", error)
        return _read_fixed(tables, np.zeros(0, np.int64), explicit=True)
    implicit = np.full(len(offset), not explicit)
    counts = np.array([len(offset)])
    return _place(tables, np.array([row]), counts, offset, symbol, kind, addend, implicit)


def _place(
    tables: ObjectTables,
    rows: Int64Array,
    counts: Int64Array,
    offset: Int64Array,
    symbol: Int64Array,
    kind: Int64Array,
    addend: Int64Array,
    implicit: BoolArray,
) -> RawRelocations:
    """Relocations of sections `rows`, `counts` of each, with block rows and symbol rows."""
    owner = tables.section_object[rows]
    limit = tables.symbol_counts[owner].repeat(counts)
    missing = (symbol < 0) | (symbol >= limit)
    if np.count_nonzero(missing):
        bad = np.bincount(np.arange(len(rows)).repeat(counts)[missing], minlength=len(rows)) > 0
        _without_bad(tables, rows, bad, "has a relocation whose symbol does not exist")
        kept = (~bad).repeat(counts)
        offset, symbol, kind, addend = offset[kept], symbol[kept], kind[kept], addend[kept]
        implicit = implicit[kept]
        rows, counts, owner = rows[~bad], counts[~bad], owner[~bad]
    block = tables.section_block[tables.section_base[owner] + tables.sh_info[rows]]
    if tables.st_beyond is not None:
        addend = addend + tables.st_beyond[tables.entry_base[owner].repeat(counts) + symbol]
    symbol += tables.symbol_base[owner].repeat(counts)
    return RawRelocations(block.repeat(counts), offset, kind, symbol, addend, implicit)


def read_groups(tables: ObjectTables) -> ComdatGroups:
    """All COMDAT groups of a batch, in order of their objects.

    A section ``.gnu.linkonce.KIND.NAME``, the form before there were groups, is one that its own
    name signs.
    """
    groups = _read_section_groups(tables)
    if tables.has_linkonce:
        groups = _with_linkonce(tables, groups)
    tables.graph.block_table.flags[groups.member_block] |= np.uint8(BlockFlags.COMDAT)
    return groups


def _read_section_groups(tables: ObjectTables) -> ComdatGroups:
    rows = rows_where(tables.sh_type == SHT_GROUP)
    if len(rows) == 0:
        return NO_COMDAT_GROUPS
    bad = np.zeros(len(tables.sh_type), np.bool_)
    bad[rows] = (tables.sh_size[rows] < 4) | (tables.sh_size[rows] % 4 != 0)
    tables.check_sections(bad, "is a section group of odd size")
    bad[rows] = _lacks_symtab(tables, rows)
    tables.check_sections(bad, "is a section group without a symbol table")
    number, signature = tables.section_object[rows], tables.sh_info[rows]
    bad[rows] = (signature < 0) | (signature >= tables.symbol_counts[number])
    tables.check_sections(bad, "is a section group whose signature does not exist")
    first = int64(gather(tables.data, tables.layout.word, tables.sh_position[rows]))
    rows = rows[first & GRP_COMDAT != 0]
    counts = tables.sh_size[rows] // 4 - 1
    group = np.arange(len(rows)).repeat(counts)
    owner = rows[group]
    place = tables.sh_position[owner] + 4 * ragged_arange(np.ones(len(rows), np.int64), counts)
    member = int64(gather(tables.data, tables.layout.word, place))
    bad[owner[member >= tables.shnum[tables.section_object[owner]]]] = True
    tables.check_sections(bad, "is a section group of sections that do not exist")
    block = tables.section_block[tables.section_base[tables.section_object[owner]] + member]
    kept = block != NO_BLOCK
    return ComdatGroups(_signatures(tables, rows), group[kept], block[kept])


def _with_linkonce(tables: ObjectTables, groups: ComdatGroups) -> ComdatGroups:
    graph = tables.graph
    blocks, signatures = [groups.member_block], [groups.signature]
    for ordinal in _LINKONCE_SECTIONS.ordinals(graph.section_list):
        section = graph.section_list[ordinal]
        rows = section.block_rows()
        blocks.append(rows[rows >= tables.first_block])
        signatures.append(np.full(len(blocks[-1]), graph.strings.add(section.name)))
    signature, block = np.concatenate(signatures), np.concatenate(blocks)
    added = np.arange(len(groups.signature), len(signature))
    group = np.concatenate([groups.member_group, added])
    # Blocks are in order of the objects, so a group comes where its first block does.
    first = np.full(len(signature), np.iinfo(np.int64).max)
    np.minimum.at(first, group, block)
    place = np.empty(len(signature), np.int64)
    place[first.argsort(kind="stable")] = np.arange(len(signature))
    order = place[group].argsort(kind="stable")
    return ComdatGroups(signature[place.argsort()], place[group][order], block[order])


def _signatures(tables: ObjectTables, rows: Int64Array) -> Int64Array:
    """References of the names of the symbols that identify groups."""
    number, signature = tables.section_object[rows], tables.sh_info[rows]
    names: Int64Array = tables.graph.symbol_table.name[tables.symbol_base[number] + signature]
    # Old assemblers use the section symbol of the first member, which has no name.
    for each in rows_where(names == NO_NAME).tolist():
        owner = int(number[each])
        entry = int(tables.entry_base[owner] + signature[each])
        names[each] = _section_reference(tables, owner, int(tables.st_shndx[entry]))
    return names


def _section_reference(tables: ObjectTables, number: int, index: int) -> int:
    """Reference of the name of a section of one object."""
    row = int(tables.section_base[number]) + index
    named = 0 < index < tables.shnum[number] and tables.name_base[number] >= 0
    if not named or tables.sh_name[row] >= tables.name_limit[number]:
        tables.fail(number, None, "a section group has a signature without a name")
    return int(tables.name_base[number] + tables.sh_name[row])
