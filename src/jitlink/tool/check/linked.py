"""The linked files, symbols, sections and memory that expressions refer to.

Passes of the links record all of it. Contents are copied after fixups, so that loads neither depend
on what happens to the memory later nor reach beyond it.

Quirks, all of them LLVM's: a section's address is that of its lowest symbol, not of its first
byte; a section without symbols is unknown. The content of a section begins where the block of
that symbol does.

A local name is that of the first object that has it, unless a global symbol has it, too. LLVM takes
the last symbol of the name.

LLVM differs: objects share one GOT and one set of stubs, and calls between them need neither. A GOT
entry or stub belongs to each file that uses it, and unused ones are unknown. The name of an archive
member may be written with or without its number.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from jitlink.errors import JITLinkError
from jitlink.formats.archive import Archive
from jitlink.formats.archive_magic import is_archive
from jitlink.graph import LinkGraph, MemLifetime, Scope
from jitlink.graph.columns import BoolArray, Int64Array, UInt8Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED
from jitlink.inputs import open_input
from jitlink.link import PassConfiguration
from jitlink.passes.got_plt import (
    GOT_SECTION,
    GOT_SYMBOL,
    STUBS_SECTION,
    got_address,
    got_plt_blocks,
)
from jitlink.tool.check.decode import LONGEST_INSTRUCTION, Decoder, Instruction
from jitlink.tool.check.expressions import Place, UnknownPlaceError
from jitlink.tool.report import entry_names, entry_users

_STUB_KIND = "<unknown>"
"""The kind of all stubs: LLVM's name for an unnamed kind."""

_MEMBER = re.compile(r"(.+)\[(\d+)\](\(.*\))", re.DOTALL)


class DuplicateFileError(JITLinkError):
    """Two linked files with one name in expressions.

    Attributes:
        name: their name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f'when -check is passed, file names must be distinct (duplicate: "{name}")'
        )
        self.name = name


class _Region:
    """Contiguous memory: its bytes, or the number of zeros."""

    __slots__ = ("content", "end", "start")

    def __init__(self, start: int, size: int, content: bytes | None) -> None:
        self.start = start
        self.end = start + size
        self.content = content

    def read(self, address: int, size: int) -> bytes:
        """The bytes from an address in the region, at most `size`."""
        size = min(size, self.end - address)
        if self.content is None:
            return bytes(size)
        return self.content[address - self.start : address - self.start + size]


class _Memory:
    """All regions of linked memory."""

    def __init__(self) -> None:
        self._regions: list[_Region] = []
        self._starts: list[int] = []

    def add(self, regions: Iterator[_Region]) -> None:
        # An empty one has no bytes, and would hide another one at its address.
        added = [region for region in regions if region.end > region.start]
        self._regions = sorted([*self._regions, *added], key=lambda region: region.start)
        self._starts = [region.start for region in self._regions]

    def find(self, address: int) -> _Region | None:
        """The region that contains an address."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._regions[index].end:
            return None
        return self._regions[index]

    def read(self, address: int, size: int) -> bytes:
        """The bytes from an address, at most `size`: fewer if the memory ends."""
        found = b""
        while len(found) < size and (region := self.find(address + len(found))):
            found += region.read(address + len(found), size - len(found))
        return found


@dataclass(slots=True)
class _Symbol:
    place: Place
    size: int


@dataclass(slots=True)
class _File:
    """The places of one file.

    Attributes:
        path: the file as the command names it.
        sections: places by section.
        entries: places of GOT entries and stubs, by section and by target.
    """

    path: str
    sections: dict[str, Place] = field(default_factory=dict)
    entries: dict[str, dict[str, Place]] = field(
        default_factory=lambda: {GOT_SECTION: {}, STUBS_SECTION: {}}
    )


class LinkedFiles:
    """Passes that record the links, and lookups in the records.

    Args:
        definitions: names and addresses of `-abs`.
    """

    def __init__(self, definitions: Iterable[tuple[str, int]] = ()) -> None:
        self._memory = _Memory()
        self._symbols = {name: _Symbol(Place(address, None), 0) for name, address in definitions}
        self._locals: dict[str, _Symbol] = {}
        self._files: dict[str, _File] = {}
        self._triple = ""
        self._byte_order: Literal["little", "big"] = "little"

    def configure(self, graph: LinkGraph, passes: PassConfiguration) -> None:
        """Add the passes that record a link."""
        del graph
        entries: dict[str, Int64Array] = {}

        def find_entries(graph: LinkGraph) -> None:
            # Before relaxation, which removes references to GOT entries and stubs.
            entries.update(
                {name: entry_users(graph, name) for name in (GOT_SECTION, STUBS_SECTION)}
            )

        passes.post_allocation.append(find_entries)
        passes.post_fixup.append(lambda graph: self._add(graph, entries))

    # Recording

    def _add(self, graph: LinkGraph, entries: dict[str, Int64Array]) -> None:
        self._triple = self._triple or graph.triple
        self._byte_order = graph.endianness
        self._memory.add(_regions(graph))
        self._add_symbols(graph)
        files = self._add_files(graph)
        for origin, ordinal, place in _sections(graph):
            self._add_section(files[origin], graph.section_list.names[ordinal], place)
        names = entry_names(graph)
        for section, users in entries.items():
            for origin, row in users.tolist():
                if origin in files:
                    self._add_entry(graph, files[origin], section, row, names.get(row))

    def _add_symbols(self, graph: LinkGraph) -> None:
        table = graph.symbol_table
        defined = table.kind == DEFINED
        rows = rows_where((defined | (table.kind == ABSOLUTE)) & (table.name != NO_NAME))
        names = graph.strings.get_many(table.name[rows])
        local = table.scope[rows] == Scope.LOCAL
        columns = (graph.symbol_addresses()[rows], defined[rows], table.size[rows], local)
        values = zip(names, *(each.tolist() for each in columns), strict=True)
        for name, address, has_place, size, is_local in values:
            place = Place(address, address if has_place else None)
            symbols = self._locals if is_local else self._symbols
            symbols.setdefault(name, _Symbol(place, size))
        got = got_address(graph)
        if got is not None:
            self._symbols.setdefault(GOT_SYMBOL, _Symbol(Place(got, got), 0))

    def _add_files(self, graph: LinkGraph) -> dict[int, _File]:
        """The files of a graph, by origin.

        Raises:
            DuplicateFileError: two files have one name.
        """
        blocks = graph.block_table
        rows = rows_where(_loaded(graph) & ~got_plt_blocks(graph))
        files = {}
        for origin in np.unique(blocks.origin[rows]).tolist():
            if not 0 <= origin < len(graph.origins):
                continue
            path = graph.origins[origin]
            name = _base_name(path)
            if name in self._files:
                raise DuplicateFileError(name)
            files[origin] = self._files[name] = _File(path)
        return files

    def _add_entry(
        self, graph: LinkGraph, file: _File, section: str, row: int, name: str | None
    ) -> None:
        """Record that a file uses a GOT entry or stub, whose target has this name."""
        address = int(graph.block_table.address[row])
        place = Place(address, address)
        self._add_section(file, section, place)
        if name is not None:
            file.entries[section][name] = place
        if section == GOT_SECTION:
            # The section begins at the GOT's symbol, not at the first entry that the file uses.
            self._add_section(file, section, self._symbols[GOT_SYMBOL].place)

    @staticmethod
    def _add_section(file: _File, name: str, place: Place) -> None:
        known = file.sections.get(name)
        if known is None or place.address < known.address:
            file.sections[name] = place

    # Lookups

    def symbol(self, name: str) -> Place | None:
        """The place of a symbol, or None."""
        symbol = self._find(name)
        return None if symbol is None else symbol.place

    def _find(self, name: str) -> _Symbol | None:
        return self._symbols.get(name) or self._locals.get(name)

    def section(self, file: str, name: str) -> Place:
        """The place of a file's part of a section.

        Raises:
            UnknownPlaceError: there is no such file or section.
        """
        place = self._file(file).sections.get(name)
        if place is None:
            raise UnknownPlaceError(
                f'RTDyldChecker: no section "{name}" registered for file "{file}"'
            )
        return place

    def got_entry(self, file: str, symbol: str) -> Place:
        """The place of the GOT entry that a file uses for a symbol.

        Raises:
            UnknownPlaceError: there is no such file or entry.
        """
        return self._entry(file, symbol, GOT_SECTION, "GOT entry")

    def stub(self, file: str, symbol: str, kind: str) -> Place:
        """The place of the stub that a file uses for a symbol.

        Args:
            file: name of the file.
            symbol: name of the symbol.
            kind: a part of the name of the stub's kind; empty for any.

        Raises:
            UnknownPlaceError: there is no such file or stub.
        """
        place = self._entry(file, symbol, STUBS_SECTION, "stub")
        if kind:
            raise UnknownPlaceError(
                f'RTDyldChecker: "{symbol}" has 1 stubs in file "{file}", but none of them '
                f'matches the stub-kind filter "{kind}" (all encountered kinds are '
                f'"{_STUB_KIND}").'
            )
        return place

    def load(self, address: int, size: int) -> int:
        """The number in `size` bytes at an address; 0 at address zero, unless memory is there.

        Raises:
            UnknownPlaceError: these bytes are not linked memory.
        """
        if address == 0 and self._memory.find(0) is None:
            return 0
        content = self._memory.read(address, size)
        if len(content) < size:
            raise UnknownPlaceError(f"Nothing was linked at {address + len(content):#x}")
        return int.from_bytes(content, self._byte_order)

    def instruction(self, symbol: str, offset: int) -> Instruction | None:
        """The instruction at an offset from a symbol, in bytes, or None if there is none.

        An instruction that begins within the symbol must end within it; there is no limit beyond.

        Raises:
            UnknownPlaceError: the architecture's instructions cannot be decoded.
        """
        known = self._find(symbol)
        if known is None:
            return None
        content = known.place.content
        if not known.size or content is None:
            return None
        limit = known.size - offset if offset <= known.size else LONGEST_INSTRUCTION
        address = content + offset
        code = self._memory.read(address, min(limit, LONGEST_INSTRUCTION))
        return self._decoder.decode(code, address) if code else None

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._triple)

    def _entry(self, file: str, symbol: str, section: str, what: str) -> Place:
        place = self._file(file).entries[section].get(symbol)
        if place is None:
            raise UnknownPlaceError(
                f'RTDyldChecker: no {what} for "{symbol}" registered for file "{file}"'
            )
        return place

    def _file(self, name: str) -> _File:
        file = self._files.get(name)
        if file is None and (member := _MEMBER.fullmatch(name)):
            archive, number, rest = member.groups()
            file = self._files.get(archive + rest)
            if file is not None and int(number) not in _numbers(file.path):
                file = None
        if file is None:
            raise UnknownPlaceError(f'RTDyldChecker: file "{name}" not recognized')
        return file


def _base_name(path: str) -> str:
    """The last component of a file's path; for a member, that of the archive and the member."""
    archive, bracket, member = path.partition("(")
    return os.path.basename(archive) + bracket + member  # noqa: PTH119 - as it is spelled


def _numbers(path: str) -> list[int]:
    """The positions, in their archive, of the members with this display name."""
    archive = path.partition("(")[0]
    data = open_input(archive).data
    if not is_archive(data):
        return []
    members = enumerate(Archive(data, archive).members())
    return [number for number, member in members if member.display_name == path]


# Columns


def _loaded(graph: LinkGraph) -> BoolArray:
    """Mask (bool, one per block row) of the blocks that are loaded."""
    mask = np.zeros(graph.block_table.rows, np.bool_)
    mask[graph.block_rows()] = True
    lifetimes = graph.section_lifetimes()
    loaded: BoolArray = mask & (lifetimes[graph.block_table.section] != MemLifetime.NO_ALLOC)
    return loaded


def _sections(graph: LinkGraph) -> Iterator[tuple[int, int, Place]]:
    """Origin, section ordinal and place of each object's part of each section."""
    table, blocks = graph.symbol_table, graph.block_table
    rows = rows_where(table.kind == DEFINED)
    of_objects = _loaded(graph) & ~got_plt_blocks(graph)
    of_objects &= (blocks.origin >= 0) & (blocks.origin < len(graph.origins))
    rows = rows[of_objects[table.block[rows]]]
    block = table.block[rows]
    address = graph.symbol_addresses()[rows]
    keys = np.stack((blocks.origin[block], blocks.section[block]))
    order = np.lexsort((address, keys[1], keys[0]))
    keys = keys[:, order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    chosen = order[first]
    columns = (address[chosen], blocks.address[block[chosen]])
    places = map(Place, *(each.tolist() for each in columns))
    yield from zip(*keys[:, first].tolist(), places, strict=True)


def _regions(graph: LinkGraph) -> Iterator[_Region]:
    """Copies of all memory, one per contiguous part."""
    table = graph.block_table
    rows = rows_where(_loaded(graph))
    references = table.content[rows]
    for buffer, base, here in graph.contents.partition(references):
        yield from _copies(graph, rows[here], buffer, base)
    for row in rows[references == ZERO_FILL].tolist():
        yield _Region(int(table.address[row]), int(table.size[row]), None)


def _copies(graph: LinkGraph, rows: Int64Array, buffer: UInt8Array, base: int) -> Iterator[_Region]:
    """Copies of the blocks in one buffer, with the padding between them."""
    table, sections = graph.block_table, graph.section_list
    rows = rows[np.argsort(table.content[rows], kind="stable")]
    start = table.content[rows] - base
    end = np.maximum.accumulate(start + table.size[rows])
    # Between blocks of one segment there is only padding.
    section = table.section[rows]
    distance = table.address[rows].view(np.int64) - start
    segment = np.stack((distance, sections.prots()[section], sections.lifetimes()[section]))
    apart = (segment[:, 1:] != segment[:, :-1]).any(axis=0)
    firsts = np.concatenate(([0], rows_where(apart) + 1))
    lasts = np.concatenate((rows_where(apart), [len(rows) - 1]))
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        low, high = int(start[first]), int(end[last])
        yield _Region(int(table.address[rows[first]]), high - low, buffer[low:high].tobytes())
