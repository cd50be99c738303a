"""One ELF object of few sections: its symbols and relocations as columns, without those of a batch.

Compilers that are not asked for a section for each function write such objects. What concerns many
objects or sections in `jitlink.formats.elf` is a number here; the rest is the same. Unusual objects
are left to that reader, as small ones are (`jitlink.formats.elf_headers`).

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitlink.formats.batch import ReadObjects
from jitlink.formats.elf_headers import (
    ObjectHeaders,
    RelocationColumns,
    RelocationSection,
    UnusualError,
)
from jitlink.formats.elf_layout import (
    ELFCLASS64,
    ELFDATA2LSB,
    RECORD_LAYOUTS,
    SHN_ABS,
    SHN_LORESERVE,
    SHN_UNDEF,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    Identity,
)
from jitlink.formats.elf_symbols import SCOPES, TYPE_FLAGS, WEAKLY_REFERENCED
from jitlink.formats.small import ColumnsOfRows, SmallObject, add_columns
from jitlink.graph import LinkGraph, Scope
from jitlink.graph.columns import INT64_MAX, Array, UInt8Array
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL, REMOVED

_LAYOUT = RECORD_LAYOUTS[ELFCLASS64, ELFDATA2LSB]
_LOCAL = int(Scope.LOCAL)


def add_single_object(
    graph: LinkGraph,
    data: memoryview,
    name: str,
    identity: Identity,
    relocations: RelocationColumns,
) -> ReadObjects | None:
    """Add an object to a graph; None if it has many sections, is unusual, or malformed.

    Args:
        graph: the graph, which is as it was if the object is not added.
        data: the object.
        name: its display name.
        identity: class, byte order and machine that it must have.
        relocations: the relocation types of the machine.
    """
    try:
        headers = ObjectHeaders(data, identity)
        symbols = _symbols(headers)
        groups = headers.groups(symbols["name"])
        edges = _edges(headers.relocations(), symbols["kind"], relocations)
    except UnusualError:
        return None
    sections = SmallObject(
        data, headers.flags, headers.names, bytes(headers.prots), bytes(headers.lifetimes),
        headers.blocks, (), (), headers.strings, groups, may_limit_address=False,
    )  # fmt: skip
    return add_columns(graph, name, sections, symbols, edges)


def _symbols(headers: ObjectHeaders) -> ColumnsOfRows:
    records = np.frombuffer(headers.symbols, _LAYOUT.symbol)
    if not len(records) or any(headers.symbols[: _LAYOUT.symbol.itemsize]):
        raise UnusualError
    name, section = records["name"].astype(np.int64), records["shndx"]
    binding, of_type = records["info"] >> 4, records["info"] & 15
    is_absolute = section >= SHN_LORESERVE
    if np.count_nonzero(is_absolute):
        if np.count_nonzero(section[is_absolute] != SHN_ABS):
            raise UnusualError
        section = np.where(is_absolute, SHN_UNDEF, section)
    _check_maximum(name, len(headers.strings) - 1)
    _check_maximum(section, len(headers.block_of) - 1)
    _check_maximum(binding, STB_WEAK)
    _check_maximum(records["value"], INT64_MAX)
    _check_maximum(records["size"], INT64_MAX)
    # Index 0 stands for no section, whatever header 0 is.
    block_of = [NO_BLOCK, *headers.block_of[1:]]
    block = np.array(block_of)[section]
    in_block = block != NO_BLOCK
    sizes = [0 if b == NO_BLOCK else headers.blocks[b][0] for b in block_of]
    if np.count_nonzero(in_block & (records["value"] > np.array(sizes, np.uint64)[section])):
        raise UnusualError
    is_local, is_weak = binding == STB_LOCAL, binding == STB_WEAK
    is_external = (records["shndx"] == SHN_UNDEF) & ~is_local
    is_external &= name != 0
    kind = np.full(len(records), REMOVED, np.uint8)
    kind[is_external], kind[is_absolute], kind[in_block] = EXTERNAL, ABSOLUTE, DEFINED
    kind[of_type == STT_FILE] = REMOVED
    is_external = kind == EXTERNAL
    flags, scope = TYPE_FLAGS[of_type], SCOPES[records["other"] & 3]
    scope[is_local] = _LOCAL
    flags[is_external] = 0
    flags[is_external & is_weak] = WEAKLY_REFERENCED
    name[name == 0] = NO_NAME
    return {
        "name": name, "kind": kind, "block": block, "value": records["value"],
        "size": records["size"], "linkage": is_weak & ~is_external, "scope": scope, "flags": flags,
    }  # fmt: skip


def _check_maximum(column: Array[Any], most: int) -> None:
    if int(column.max()) > most:
        raise UnusualError


def _edges(
    sections: Sequence[RelocationSection], kind_of: UInt8Array, types: RelocationColumns
) -> ColumnsOfRows:
    parts = [np.frombuffer(section.records, _LAYOUT.rela) for section in sections]
    if not any(map(len, parts)):
        return {}
    records = np.concatenate(parts) if len(parts) > 1 else parts[0]
    counts = list(map(len, parts))
    block = np.array([section.block for section in sections]).repeat(counts)
    size = np.array([section.size for section in sections]).repeat(counts)
    target = (records["info"] >> 32).view(np.int64)
    _check_maximum(target, len(kind_of) - 1)
    index = (records["info"] & 0xFFFFFFFF).view(np.int64)
    index = np.minimum(index, len(types.kinds) - 1)
    kind, offset = types.kinds[index], records["offset"].view(np.int64)
    addend = records["addend"] + types.biases[index]
    columns = {"block": block, "offset": offset, "kind": kind, "target": target, "addend": addend}
    linked = kind != 0
    if np.count_nonzero(linked) < len(linked):
        if not types.ignored[index[~linked]].all():
            raise UnusualError
        columns = {name: column[linked] for name, column in columns.items()}
        size, kind, offset = size[linked], columns["kind"], columns["offset"]
    bad = (offset < 0) | (offset > size - types.widths[kind])
    bad |= kind_of[columns["target"]] == REMOVED
    if np.count_nonzero(bad):
        raise UnusualError
    return columns
