"""Relocations where functions compute their own address: `-add-self-relocations`.

A compiler needs no relocation to compute a function's address within the function, because it knows
the distance; a linker then cannot replace the address by that of a stub. The relocation is added
where the last four bytes of an instruction are a PC-relative displacement to the function's start.

As in LLVM, only x86-64 is supported; graphs of other architectures are left alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from jitlink.arch.x86_64 import X86_64EdgeKind
from jitlink.graph import Block, LinkGraph, Symbol, SymbolFlags, SymbolKind
from jitlink.graph.columns import rows_where
from jitlink.link import PassConfiguration
from jitlink.orc import MaterializationResponsibility, Plugin
from jitlink.tool.options import CommandLineError

_FIELD = 4
# A ModRM byte with mod 0 and r/m 5: RIP-relative memory.
_MODRM_MASK, _MODRM_RELATIVE = 0xC7, 0x05


class SelfRelocations(Plugin):
    """Adds the relocations to all links.

    Raises:
        CommandLineError: the package that decodes instructions is not installed.
    """

    def __init__(self) -> None:
        try:
            capstone = importlib.import_module("capstone")
        except ImportError as error:
            raise CommandLineError(
                "needs the package capstone, which is not installed", option="add-self-relocations"
            ) from error
        self._decoder: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add the pass to the links of this architecture."""
        if graph.edge_kinds is X86_64EdgeKind:
            config.post_prune.append(self.add)

    def add(self, graph: LinkGraph) -> None:
        """Add the relocations to a graph that has no addresses yet."""
        table = graph.symbol_table
        functions = (table.kind == int(SymbolKind.DEFINED)) & (
            table.flags & int(SymbolFlags.CALLABLE) != 0
        )
        for row in rows_where(functions).tolist():
            symbol = Symbol(graph, row)
            if not symbol.block.is_zero_fill:
                self._add_to(symbol)

    def _add_to(self, symbol: Symbol) -> None:
        block, start = symbol.block, symbol.offset
        content = memoryview(block.content)[start : start + symbol.size]
        # Instructions are decoded only in functions with candidates.
        candidates = _distances_to_start(content)
        if not candidates:
            return
        relocated = {edge.offset for edge in block.edges}
        for offset in self._fields(content, candidates):
            if start + offset not in relocated:
                _relocate(block, start + offset, symbol)

    def _fields(self, content: memoryview, candidates: set[int]) -> list[int]:
        """The candidates that are the RIP-relative displacement at the end of an instruction."""
        found = []
        for instruction in self._decoder.disasm(bytes(content), 0):
            field = instruction.address + instruction.size - _FIELD
            if (
                field in candidates
                and instruction.modrm & _MODRM_MASK == _MODRM_RELATIVE
                and instruction.disp_offset == instruction.size - _FIELD
            ):
                found.append(field)
        return found


def _distances_to_start(content: memoryview) -> set[int]:
    """Offsets of four bytes that hold the distance from their end to the start of the content."""
    if len(content) < _FIELD:
        return set()
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(content, np.uint8), _FIELD)
    values = np.ascontiguousarray(windows).view("<i4").ravel()
    offsets = np.arange(len(values), dtype=np.int64)
    return set(offsets[values == -(offsets + _FIELD)].tolist())


def _relocate(block: Block, offset: int, symbol: Symbol) -> None:
    block.add_edge(X86_64EdgeKind.DELTA32, offset, symbol, -_FIELD)
