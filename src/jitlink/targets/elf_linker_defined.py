"""Linker-defined symbols of ELF: encapsulation symbols, the DSO handle, the bounds of a program.

`synthesize_elf_symbols` defines `__start_X` and `__stop_X` of section X and `__dso_handle`.
`ELFLinkerDefinedSymbols` defines those that a linker script defines for a program, ``_end`` and the
like (`jitlink.passes.image_bounds`). ``__ehdr_start`` and ``__executable_start`` are at an ELF
header that is added to the graph, in front of its code. It has no program headers, because memory
of a JIT is not the image of a file.

Specification: GNU ld manual, "Encapsulation symbols", "PROVIDE" and the default linker script
(``ld --verbose``); Itanium C++ ABI, 3.3.6 (`__dso_handle`); System V gABI, chapter 4, "ELF Header".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from jitlink.formats.elf_layout import Identity, write_headers
from jitlink.graph import Block, LinkGraph, MemProt, Scope, Symbol
from jitlink.passes.image_bounds import ImageBounds
from jitlink.passes.linker_defined import (
    NO_OBJECT,
    START,
    STOP,
    Definer,
    define_section_start,
    define_section_stop,
    synthesize_symbols,
)


def define_dso_handle(graph: LinkGraph, symbol: Symbol, _name: str) -> None:
    """Define the handle at a word of its own, whose address identifies the graph at run time."""
    section = graph.obtain_section("$__DSO_HANDLE", MemProt.READ)
    block = graph.create_content_block(section, bytes(graph.pointer_size), 0, graph.pointer_size)
    graph.block_table.origin[block.row] = NO_OBJECT
    graph.make_defined(symbol, block, 0, graph.pointer_size, scope=Scope.LOCAL)


ELF_EXACT: Mapping[str, Definer] = {"__dso_handle": define_dso_handle}
ELF_PREFIXES: Mapping[str, Definer] = {START: define_section_start, STOP: define_section_stop}


def synthesize_elf_symbols(graph: LinkGraph) -> None:
    """The pre-prune pass that defines encapsulation symbols and the DSO handle."""
    synthesize_symbols(graph, ELF_EXACT, ELF_PREFIXES)


class ELFLinkerDefinedSymbols(ImageBounds):
    """The linker-script symbols of one graph.

    Args:
        identity: the identity that the graph's ELF header gets.
    """

    def __init__(self, identity: Identity) -> None:
        super().__init__(partial(_add_header, identity))


def _add_header(identity: Identity, graph: LinkGraph) -> Block:
    # The first section of code: programs take what is from here to etext as their code.
    section = graph.obtain_section("$__EHDR", MemProt.READ | MemProt.EXEC)
    graph.section_list.move(section, 0)
    block = graph.create_content_block(section, write_headers(identity), 0, 8)
    graph.block_table.origin[block.row] = NO_OBJECT
    return block
