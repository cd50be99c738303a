"""The graph of stubs: each jumps through a pointer, which leads to a trampoline at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from jitlink.graph import Linkage, MemProt, Scope, Section, SymbolFlags, SymbolKind
from jitlink.graph.columns import Int64Array
from jitlink.graph.strings import NO_NAME
from jitlink.orc.interface import JITSymbolFlags
from jitlink.orc.reentry import Reentry, absolute
from jitlink.targets.base import CodeEdges, Target

STUBS_SECTION = "$__INDIRECT_STUBS"
POINTERS_SECTION = "$__INDIRECT_POINTERS"


class IdentifiedStub(Protocol):
    """A stub that has its identity."""

    @property
    def identity(self) -> int:
        """The number that its trampoline passes to the reentry."""


class StubsGraph:
    """A graph of stubs, each with its pointer, its trampoline and its identity."""

    def __init__(
        self,
        target: Target,
        reentry: Reentry,
        stubs: Sequence[IdentifiedStub],
        symbols: Mapping[str, JITSymbolFlags],
    ) -> None:
        self.graph = graph = target.new_graph("<stubs>")
        self._count = count = len(stubs)
        code = reentry.code
        got_plt, alignment = code.got_plt, code.alignment
        text = graph.create_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
        data = graph.create_section(POINTERS_SECTION, MemProt.READ | MemProt.WRITE)
        words = [stub.identity.to_bytes(graph.pointer_size, graph.endianness) for stub in stubs]
        zeros = got_plt.pointer_content * count
        self._pointers, pointers = self._add(data, zeros, got_plt.pointer_size)
        self._trampolines, trampolines = self._add(text, code.trampoline * count, alignment)
        _, identities = self._add(data, b"".join(words), graph.pointer_size)
        stub_blocks, functions = self._add(text, got_plt.stub * count, got_plt.stub_alignment)
        self._name(functions, symbols)
        reentry_row = absolute(graph, "reentry", reentry.address).row
        self._connect(self._pointers, ((got_plt.pointer, 0, 0),), trampolines)
        self._connect(stub_blocks, got_plt.stub_edges, pointers)
        self._connect(self._trampolines, code.identity_edges, identities)
        self._connect(self._trampolines, code.reentry_edges, reentry_row)

    def _add(
        self, section: Section, content: bytes, alignment: int
    ) -> tuple[Int64Array, Int64Array]:
        """Add blocks of equal size, each with a symbol; rows (int64) of both."""
        graph, count = self.graph, self._count
        size = len(content) // count
        offsets = graph.contents.add(content) + size * np.arange(count)
        first = graph.block_table.extend(
            count, section=section.ordinal, content=offsets, size=size, alignment=alignment
        )
        blocks = np.arange(first, first + count)
        first = graph.symbol_table.extend(
            count, name=NO_NAME, kind=SymbolKind.DEFINED, block=blocks, size=size, scope=Scope.LOCAL
        )
        return blocks, np.arange(first, first + count)

    def _name(self, rows: Int64Array, symbols: Mapping[str, JITSymbolFlags]) -> None:
        table = self.graph.symbol_table
        table.name[rows] = self.graph.strings.add_many(symbols)
        flags = np.fromiter(map(int, symbols.values()), np.int64, self._count)
        exported = flags & int(JITSymbolFlags.EXPORTED) != 0
        weak = flags & int(JITSymbolFlags.WEAK | JITSymbolFlags.COMMON) != 0
        table.scope[rows] = np.where(exported, int(Scope.DEFAULT), int(Scope.HIDDEN))
        table.linkage[rows] = np.where(weak, int(Linkage.WEAK), int(Linkage.STRONG))
        table.flags[rows] = int(SymbolFlags.LIVE | SymbolFlags.CALLABLE)

    def _connect(
        self,
        blocks: Int64Array,
        edges: CodeEdges,
        targets: Int64Array | int,
    ) -> None:
        for kind, offset, addend in edges:
            self.graph.edge_table.extend(
                self._count, block=blocks, offset=offset, kind=kind, target=targets, addend=addend
            )

    def addresses(self) -> tuple[list[int], list[int]]:
        """Addresses of the pointers and of the trampolines, once the graph is linked."""
        addresses = self.graph.block_table.address
        return addresses[self._pointers].tolist(), addresses[self._trampolines].tolist()
