"""Linker-defined symbols of ELF: encapsulation symbols, the DSO handle, the bounds of a program.

`synthesize_elf_symbols` defines `__start_X` and `__stop_X` of section X and `__dso_handle`.

`ELFLinkerDefinedSymbols` defines those that a linker script defines for a program, ``_end`` and the
like: a graph counts as a program here. `ELFLinkerDefinedSymbols.define` defines the symbols that
the graph refers to, `ELFLinkerDefinedSymbols.place` sets their addresses once the graph's memory is
allocated. ``__ehdr_start`` and ``__executable_start`` are at an ELF header that is added to the
graph. It has no program headers, because memory of a JIT is not the image of a file.

Names without a leading underscore, such as ``end``, are in the namespace of programs; the linker
does not define them.

Specification: GNU ld manual, "Encapsulation symbols", "PROVIDE" and the default linker script
(``ld --verbose``); Itanium C++ ABI, 3.3.6 (`__dso_handle`); System V gABI, chapter 4, "ELF Header".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jitlink.formats.elf_layout import Identity, write_headers
from jitlink.graph import LinkGraph, MemLifetime, MemProt, Scope, Symbol
from jitlink.graph.columns import BoolArray, UInt64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.passes.linker_defined import (
    Definer,
    define_section_start,
    define_section_stop,
    synthesize_symbols,
)

_NO_OBJECT = -1
"""Origin of blocks that come from no object."""


def define_dso_handle(graph: LinkGraph, symbol: Symbol, _name: str) -> None:
    """Define the handle at a word of its own, whose address identifies the graph at run time."""
    section = graph.obtain_section("$__DSO_HANDLE", MemProt.READ)
    block = graph.create_content_block(section, bytes(graph.pointer_size), 0, graph.pointer_size)
    graph.block_table.origin[block.row] = _NO_OBJECT
    graph.make_defined(symbol, block, 0, graph.pointer_size, scope=Scope.LOCAL)


ELF_EXACT: Mapping[str, Definer] = {"__dso_handle": define_dso_handle}
ELF_PREFIXES: Mapping[str, Definer] = {
    "__start_": define_section_start,
    "__stop_": define_section_stop,
}


def synthesize_elf_symbols(graph: LinkGraph) -> None:
    """The pre-prune pass that defines encapsulation symbols and the DSO handle."""
    synthesize_symbols(graph, ELF_EXACT, ELF_PREFIXES)


class _Extents:
    """Addresses of the loaded blocks of an allocated graph, as columns."""

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
        """The highest end of the chosen blocks; of all blocks if none is chosen; 0 without any."""
        ends = self.end[chosen] if chosen.any() else self.end
        return int(ends.max()) if len(ends) else 0

    def start_of_zeros(self) -> int:
        """Address of the first zero-fill block; the end of data if there is none."""
        if self.is_zero.any():
            return int(self.start[self.is_zero].min())
        return self.end_of(self.is_data)


_BOUNDS: Mapping[str, Callable[[_Extents], int]] = {
    "_etext": lambda extents: extents.end_of(extents.is_code),
    "__etext": lambda extents: extents.end_of(extents.is_code),
    "_edata": lambda extents: extents.end_of(extents.is_data & ~extents.is_zero),
    "__bss_start": lambda extents: extents.start_of_zeros(),
    "_end": lambda extents: extents.end_of(extents.is_data),
}
_HEADERS = ("__ehdr_start", "__executable_start")
NAMES = frozenset((*_BOUNDS, *_HEADERS))
"""The names that `ELFLinkerDefinedSymbols` defines."""


class ELFLinkerDefinedSymbols:
    """The linker-script symbols of one graph.

    Args:
        identity: the identity that the graph's ELF header gets.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._bounds: dict[str, Symbol] = {}

    def define(self, graph: LinkGraph) -> None:
        """Define the symbols that the graph refers to (pre-prune pass)."""
        definers = dict.fromkeys(_BOUNDS, self._define) | dict.fromkeys(_HEADERS, self._add_header)
        synthesize_symbols(graph, definers, {})

    def place(self, graph: LinkGraph) -> None:
        """Set the addresses of the symbols (post-allocation pass)."""
        if self._bounds:
            extents = _Extents(graph)
            for name, symbol in self._bounds.items():
                graph.symbol_table.value[symbol.row] = _BOUNDS[name](extents)

    def _define(self, graph: LinkGraph, symbol: Symbol, name: str) -> None:
        # The provisional address is out of range of everything, so that no reference is relaxed.
        graph.make_absolute(symbol, 1 << (8 * graph.pointer_size - 2))
        self._bounds[name] = symbol

    def _add_header(self, graph: LinkGraph, symbol: Symbol, _name: str) -> None:
        section = graph.obtain_section("$__EHDR", MemProt.READ)
        block = next(iter(section.blocks), None)
        if block is None:
            block = graph.create_content_block(section, write_headers(self._identity), 0, 8)
            graph.block_table.origin[block.row] = _NO_OBJECT
        graph.make_defined(symbol, block, 0, block.size, scope=Scope.LOCAL)
