"""What code of an executor is at an address, for backtraces.

Linked code is known by its graphs: of these the tables of symbols and blocks are kept, and the line
tables of objects with debug information, all of it as it was read. Libraries are known by the
system's list of mappings and the symbols in their files.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from jitlink.errors import JITLinkError
from jitlink.executor.control import LibrarySymbol
from jitlink.formats.dwarf_lines import LineSection
from jitlink.formats.elf_file_symbols import FileSymbol, FileSymbols
from jitlink.graph import BlockFlags, LinkGraph, MemLifetime, Scope, SymbolFlags
from jitlink.graph.columns import BoolArray, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED, REMOVED
from jitlink.memory.images import ImageSymbols
from jitlink.memory.mapping import MappedRange, mapping_at

_LINE_SECTION, _FRAME_SECTION = ".debug_line", ".eh_frame"
_LONGEST_PATH = 1 << 12

_Targets = Mapping[int, tuple[int, int]]
"""Row of the symbol and addend of the fields of a table, by their offset."""


class CodeLocation(NamedTuple):
    """What code is at an address.

    Attributes:
        address: the address.
        symbol: the function; empty if it is not known.
        offset: bytes from the beginning of the function, or without one of the file.
        file: display name of the linked object, or path of the program or library; empty if it is
            not known.
        graph: display name of the graph that was linked; empty for libraries.
        source: the source file, if the object has debug information for it; else empty.
        line: the line in it; 0 if it is not known.
    """

    address: int
    symbol: str = ""
    offset: int = 0
    file: str = ""
    graph: str = ""
    source: str = ""
    line: int = 0

    def __str__(self) -> str:
        name = f"{self.symbol} + {self.offset}" if self.symbol else "??"
        where = f" ({self.file})" if self.file else ""
        if not self.symbol and self.file and not self.graph:
            where = f" ({self.file} + {self.offset:#x})"
        source = f" at {self.source}:{self.line}" if self.source else ""
        return f"{self.address:#018x} {name}{where}{source}"


class LinkedGraph:
    """A graph that is being linked, or has been; made before dead-stripping.

    Args:
        graph: the graph.

    Attributes:
        name: its display name.
        origin_flags: see `LinkGraph.origin_flags`.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.name = graph.name
        self._origins = graph.origins
        self._strings = graph.strings
        self._symbols, self._blocks = graph.symbol_table, graph.block_table
        self._sections = graph.section_list
        self.origin_flags = graph.origin_flags
        section = graph.find_section_by_name(_LINE_SECTION)
        self._lines = None if section is None else _DebugLines(graph, section.ordinal)

    def find(self, address: int) -> CodeLocation | None:
        """What is at an address, without the source; None if none of the graph is there."""
        block = self._block_at(address)
        if block is None:
            return None
        origin = int(self._blocks.origin[block])
        file = self._origins[origin] if origin < len(self._origins) else self.name
        start = int(self._blocks.address[block])
        row = self._symbol_at(block, address - start)
        if row is None:
            return CodeLocation(address, file=file, graph=self.name)
        (name,) = self._strings.get_many(self._symbols.name[[row]])
        offset = address - start - int(self._symbols.value[row])
        return CodeLocation(address, name, offset, file, self.name)

    def symbols(self) -> ImageSymbols:
        """The named symbols in memory, local ones too, once they have their addresses.

        Dead-stripping removes symbols that nothing refers to; those of blocks that stay are here.
        """
        table, blocks = self._symbols, self._blocks
        there = (table.kind == DEFINED) | (table.kind == REMOVED)
        there &= (table.name != NO_NAME) & (table.scope != int(Scope.SIDE_EFFECTS_ONLY))
        rows = rows_where(there & (table.block >= 0))
        block = table.block[rows]
        kept = self._sections.lifetimes()[blocks.section[block]] == int(MemLifetime.STANDARD)
        # Thread-local variables have no address.
        excluded = int(BlockFlags.REMOVED | BlockFlags.THREAD_LOCAL)
        rows = rows[kept & (blocks.flags[block] & excluded == 0)]
        neither = np.zeros(len(rows), np.bool_)
        return ImageSymbols(
            self._strings.get_many(table.name[rows]),
            blocks.address[table.block[rows]] + table.value[rows],
            table.size[rows],
            table.flags[rows] & int(SymbolFlags.CALLABLE) != 0,
            neither,
            neither,
            table.scope[rows] == int(Scope.LOCAL),
        )

    def frames(self) -> list[tuple[int, int]]:
        """Addresses and sizes of the blocks of its unwind information, in order of address."""
        blocks, names = self._blocks, self._sections.ordinals_named(_FRAME_SECTION)
        inside = np.isin(blocks.section, names) & (blocks.flags & int(BlockFlags.REMOVED) == 0)
        rows = rows_where(inside & (blocks.address != 0))
        places = zip(blocks.address[rows].tolist(), blocks.size[rows].tolist(), strict=True)
        return sorted(places)

    def _block_at(self, address: int) -> int | None:
        blocks, place = self._blocks, np.uint64(address)
        inside = (blocks.address <= place) & (place - blocks.address < blocks.size.view(np.uint64))
        inside &= blocks.flags & int(BlockFlags.REMOVED) == 0
        inside &= self._sections.lifetimes()[blocks.section] == int(MemLifetime.STANDARD)
        rows = rows_where(inside)
        return int(rows[0]) if len(rows) else None

    def _symbol_at(self, block: int, offset: int) -> int | None:
        """The last named symbol at or before an offset in a block, a function if there is one."""
        table = self._symbols
        # Dead-stripping removes symbols that nothing refers to, also those of live blocks.
        present = (table.kind == DEFINED) | (table.kind == REMOVED)
        rows = rows_where(present & (table.block == block))
        rows = rows[(table.name[rows] != NO_NAME) & (table.value[rows] <= np.uint64(offset))]
        functions = rows[table.flags[rows] & int(SymbolFlags.CALLABLE) != 0]
        rows = functions if len(functions) else rows
        # Of several at one address one that others can refer to, not an alias of the compiler.
        order = np.lexsort((-table.scope[rows].astype(np.int64), table.value[rows]))
        return int(rows[order[-1]]) if len(rows) else None

    def sources(self, addresses: Sequence[int]) -> dict[int, tuple[str, int]]:
        """Source files and lines at addresses, of those that are known."""
        found: dict[int, tuple[str, int]] = {}
        for section in self._lines.sections() if self._lines is not None else ():
            found |= section.find(addresses)
        return found


class _DebugLines:
    """The line tables of a graph as they were read, and what their fields refer to."""

    def __init__(self, graph: LinkGraph, ordinal: int) -> None:
        blocks, edges = graph.block_table, graph.edge_table
        is_line: BoolArray = (blocks.section == ordinal) & (blocks.content != ZERO_FILL)
        self._rows = rows_where(is_line & (blocks.flags & int(BlockFlags.REMOVED) == 0))
        chosen = rows_where(is_line[edges.block])
        self._edges = tuple(
            column[chosen] for column in (edges.block, edges.offset, edges.target, edges.addend)
        )
        self._byte_order = graph.endianness
        self._symbols, self._blocks = graph.symbol_table, graph.block_table
        # Without what is added when they are placed in memory.
        self._contents, self._references = graph.contents.copy(), blocks.content.copy()

    def sections(self) -> Iterator[LineSection]:
        """The tables of each object."""
        targets: dict[int, dict[int, tuple[int, int]]] = {}
        for block, offset, *target in zip(*(each.tolist() for each in self._edges), strict=True):
            targets.setdefault(block, {})[offset] = target[0], target[1]
        for row in self._rows.tolist():
            own = targets.get(row, {})
            yield LineSection(
                self._content(row),
                self._byte_order,
                partial(self._address, own),
                partial(self._text, own),
            )

    def _content(self, block: int) -> memoryview:
        return self._contents.view(int(self._references[block]), int(self._blocks.size[block]))

    def _target(self, targets: _Targets, place: int) -> tuple[int, int] | None:
        """The block that a field refers to, and the offset there; None if there is none."""
        row, addend = targets.get(place, (-1, 0))
        block = -1 if row < 0 else int(self._symbols.block[row])
        return None if block < 0 else (block, int(self._symbols.value[row]) + addend)

    def _address(self, targets: _Targets, place: int) -> int | None:
        block, offset = self._target(targets, place) or (-1, 0)
        if block < 0 or self._blocks.flags[block] & int(BlockFlags.REMOVED):
            return None
        return int(self._blocks.address[block]) + offset

    def _text(self, targets: _Targets, place: int) -> bytes | None:
        block, offset = self._target(targets, place) or (-1, 0)
        if block < 0 or offset < 0 or self._references[block] == ZERO_FILL:
            return None
        return bytes(self._content(block)[offset : offset + _LONGEST_PATH])


class CodeMap:
    """The code that has been linked into an executor; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._graphs: dict[LinkedGraph, None] = {}

    def add(self, graph: LinkedGraph) -> None:
        """Add what has been linked."""
        with self._lock:
            self._graphs[graph] = None

    def remove(self, graph: LinkedGraph) -> None:
        """Remove what was added."""
        with self._lock:
            self._graphs.pop(graph, None)

    def graphs(self) -> list[LinkedGraph]:
        """What has been linked, in that order."""
        with self._lock:
            return list(self._graphs)

    def frames_of(self, address: int) -> list[tuple[int, int]]:
        """`LinkedGraph.frames` of the graph that has code at an address; empty without one."""
        with self._lock:
            graphs = list(self._graphs)
        return next((each.frames() for each in graphs if each.find(address) is not None), [])

    def describe(self, addresses: Iterable[int]) -> dict[int, CodeLocation]:
        """What linked code is at addresses, for those where some is."""
        left, found = set(addresses), dict[int, CodeLocation]()
        for graph in self.graphs():
            inside = {each: place for each in left if (place := graph.find(each)) is not None}
            if inside:
                left -= inside.keys()
                for address, (source, line) in graph.sources(list(inside)).items():
                    inside[address] = inside[address]._replace(source=source, line=line)
                found |= inside
        return found


class LibraryFiles:
    """The programs and libraries that a process maps, in files of this machine.

    Args:
        mapped: what the process maps, in order of address.
    """

    def __init__(self, mapped: Sequence[MappedRange]) -> None:
        self._mapped = mapped
        self._files: dict[str, FileSymbols | None] = {}

    def mapping_at(self, address: int) -> MappedRange | None:
        """What is mapped at an address."""
        return mapping_at(address, self._mapped)

    def symbol_at(self, address: int) -> tuple[FileSymbol, int] | None:
        """The symbol of a file that contains an address, and bytes from its beginning."""
        place = self.mapping_at(address)
        if place is None or not place.path.startswith("/"):
            return None
        if place.path not in self._files:
            self._files[place.path] = _symbols_of(place.path)
        symbols = self._files[place.path]
        if symbols is None:
            return None
        own = symbols.address_of(address - place.start + place.offset)
        symbol = None if own is None else symbols.find(own)
        return None if symbol is None or own is None else (symbol, own - symbol.address)

    def describe_symbol(self, address: int) -> LibrarySymbol | None:
        """See `ExecutorProcessControl.describe_addresses`."""
        # Imported on use: crash reports do not need it.
        from jitlink.executor.library_symbols import library_symbol  # noqa: PLC0415
        from jitlink.memory.loaded_symbols import STT_FUNC, STT_OBJECT  # noqa: PLC0415

        place, found = self.mapping_at(address), self.symbol_at(address)
        if place is None or found is None or found[1]:
            return library_symbol(address, place, None)
        symbol = found[0]
        kind = STT_FUNC if symbol.is_function else STT_OBJECT
        return library_symbol(address, place, (place.path, kind, symbol.size))

    def describe(self, address: int) -> CodeLocation:
        """What is at an address of code."""
        place = self.mapping_at(address)
        if place is None:
            return CodeLocation(address)
        found = self.symbol_at(address)
        if found is None or not found[0].is_function:
            return CodeLocation(address, "", address - place.start + place.offset, place.path)
        return CodeLocation(address, found[0].name, found[1], place.path)


def _symbols_of(path: str) -> FileSymbols | None:
    """The symbols of a file; None if it cannot be read.

    An executor names it, whose code need not be trusted. To open a device may have effects, and
    access to a file that is mapped would be a SIGBUS if that code truncates it meanwhile.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - pathlib is slow to import
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            size = os.fstat(descriptor).st_size
            return FileSymbols(lambda start, count: os.pread(descriptor, count, start), size, path)
        finally:
            os.close(descriptor)
    except (OSError, ValueError, JITLinkError):
        return None


def describe_code(
    addresses: Sequence[int], code: CodeMap | None, mapped: Sequence[MappedRange]
) -> list[CodeLocation]:
    """What code is at addresses.

    Args:
        addresses: the addresses.
        code: what has been linked, if that is recorded.
        mapped: what the process maps; empty if that is not known.
    """
    linked = {} if code is None else code.describe(addresses)
    files = LibraryFiles(mapped)
    return [linked.get(each) or files.describe(each) for each in addresses]
