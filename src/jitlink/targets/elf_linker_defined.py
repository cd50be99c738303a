"""Symbols that a linker script defines: where a program begins and where its parts end.

Code refers to ``_end`` and its like, which no object defines. A graph is the program here:
`ELFLinkerDefinedSymbols.define` defines those that it refers to, and
`ELFLinkerDefinedSymbols.place` gives them their addresses once those of the graph are known.
``__ehdr_start`` and ``__executable_start`` are at an ELF header of the graph's own, which says
that there are no program headers: memory of a JIT is no image of a file.

The names without an underscore, such as ``end``, belong to programs, and are not taken.

Specification: GNU ld manual, "PROVIDE" and the default linker script (``ld --verbose``); System V
gABI, chapter 4, "ELF Header".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jitlink.formats.elf_layout import Identity, empty_header
from jitlink.graph import LinkGraph, MemLifetime, MemProt, Scope, Symbol
from jitlink.graph.columns import BoolArray, UInt64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.passes.linker_defined import synthesize_symbols


class _Extents:
    """Where the loaded blocks of an allocated graph are, and what they are."""

    def __init__(self, graph: LinkGraph) -> None:
        blocks, rows = graph.block_table, graph.block_rows()
        sections = graph.section_list
        section = blocks.section[rows]
        loaded = graph.section_lifetimes()[section] == int(MemLifetime.STANDARD)
        rows, section = rows[loaded], section[loaded]
        prots = np.array([int(each) for each in sections.prots()], np.uint8)[section]
        self.start: UInt64Array = blocks.address[rows]
        self.end: UInt64Array = self.start + blocks.size[rows].astype(np.uint64)
        self.is_code: BoolArray = prots & int(MemProt.EXEC) != 0
        self.is_data: BoolArray = prots & int(MemProt.WRITE) != 0
        self.is_zero: BoolArray = self.is_data & (blocks.content[rows] == ZERO_FILL)

    def end_of(self, chosen: BoolArray) -> int:
        """The end of the last of some blocks; of all if there are none, and 0 without any."""
        ends = self.end[chosen] if chosen.any() else self.end
        return int(ends.max()) if len(ends) else 0

    def start_of_zeros(self) -> int:
        """The first zero-filled block; the end of data if there is none."""
        if self.is_zero.any():
            return int(self.start[self.is_zero].min())
        return self.end_of(self.is_data)


_PLACES: Mapping[str, Callable[[_Extents], int]] = {
    "_etext": lambda extents: extents.end_of(extents.is_code),
    "__etext": lambda extents: extents.end_of(extents.is_code),
    "_edata": lambda extents: extents.end_of(extents.is_data & ~extents.is_zero),
    "__bss_start": lambda extents: extents.start_of_zeros(),
    "_end": lambda extents: extents.end_of(extents.is_data),
}
_HEADERS = ("__ehdr_start", "__executable_start")
NAMES = frozenset((*_PLACES, *_HEADERS))
"""The symbols that are taken on."""


class ELFLinkerDefinedSymbols:
    """The bounds of one graph.

    Args:
        identity: what its header says.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._placed: dict[str, Symbol] = {}

    def define(self, graph: LinkGraph) -> None:
        """Take on the symbols that the graph refers to (pre-prune pass)."""
        definers = dict.fromkeys(_PLACES, self._take) | dict.fromkeys(_HEADERS, self._add_header)
        synthesize_symbols(graph, definers, {})

    def place(self, graph: LinkGraph) -> None:
        """Give them their addresses (post-allocation pass)."""
        if self._placed:
            extents = _Extents(graph)
            for name, symbol in self._placed.items():
                graph.symbol_table.value[symbol.row] = _PLACES[name](extents)

    def _take(self, graph: LinkGraph, symbol: Symbol, name: str) -> None:
        # Until it is known it is far from everything, so that nothing is relaxed for it.
        graph.make_absolute(symbol, 1 << (8 * graph.pointer_size - 2))
        self._placed[name] = symbol

    def _add_header(self, graph: LinkGraph, symbol: Symbol, _name: str) -> None:
        section = graph.obtain_section("$__EHDR", MemProt.READ)
        block = next(iter(section.blocks), None)
        if block is None:
            block = graph.create_content_block(section, empty_header(self._identity), 0, 8)
            # It is part of no object.
            graph.block_table.origin[block.row] = -1
        graph.make_defined(symbol, block, 0, block.size, scope=Scope.LOCAL)
