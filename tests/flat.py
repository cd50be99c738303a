"""A container of relocatable objects that only the tests have: the smallest that links.

A file is ``FLAT`` and a JSON object: sections (name, protection, content in hexadecimal), symbols
(name, section, offset, size, binding) and relocations (section, offset, edge kind, symbol, addend).
It is linked for x86-64, with that architecture's edge kinds, and is all that a new container takes:
this module and a line in the registry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jitlink.arch.x86_64 import BRANCHES, FIXUPS, GOT_PLT, JUMP, X86_64EdgeKind, relax
from jitlink.arch.x86_64_reentry import REENTRY
from jitlink.errors import ObjectError
from jitlink.fixups import FixupTable
from jitlink.graph import LinkGraph, MemProt
from jitlink.graph.edges import EdgeKind
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import DEFINED, EXTERNAL, Linkage, Scope
from jitlink.link import PassConfiguration
from jitlink.memory.images import ImageSymbols
from jitlink.memory.regions import PlacedSegment
from jitlink.passes.got_plt import build_got_and_stubs, got_address
from jitlink.passes.init_fini import CrtiCrtn
from jitlink.targets.base import (
    Batch,
    DirectAccess,
    HostFunctionCode,
    Jump,
    ReadObjects,
    ReentryCode,
    Relocation,
    RelocationTable,
    Target,
)

MAGIC = b"FLAT"
PROTECTIONS = {"code": MemProt.READ | MemProt.EXEC, "data": MemProt.READ | MemProt.WRITE}
RELOCATIONS = RelocationTable(
    [Relocation(int(kind), f"FLAT_{kind.name}", kind) for kind in X86_64EdgeKind]
)


@dataclass(frozen=True)
class FlatTarget:
    """The one target."""

    triple: str = "x86_64-unknown-linux-flat"
    pointer_size: int = 8
    byte_order: Literal["little", "big"] = "little"
    edge_kinds: type[EdgeKind] = X86_64EdgeKind
    fixups: FixupTable = FIXUPS
    relocations: RelocationTable = RELOCATIONS
    branches: frozenset[EdgeKind] = BRANCHES
    jump: Jump | None = JUMP
    reentry: ReentryCode | None = REENTRY
    host_function: HostFunctionCode | None = None
    direct_access: DirectAccess | None = None
    crti_crtn: CrtiCrtn | None = None

    def new_graph(self, name: str) -> LinkGraph:
        graph = LinkGraph(name, self.triple, edge_kinds=self.edge_kinds)
        graph.target = self
        return graph

    def configure(self, graph: LinkGraph) -> PassConfiguration:
        del graph
        return PassConfiguration(
            fixups=self.fixups,
            post_prune=[lambda graph: build_got_and_stubs(graph, GOT_PLT)],
            pre_fixup=[relax],
            got_address=got_address,
        )

    def address_limit(self, graph: LinkGraph) -> int:
        return graph.address_limit

    def links(self, graph: LinkGraph) -> bool:
        return graph.triple == self.triple

    def write_executable(
        self,
        segments: Sequence[PlacedSegment],
        symbols: ImageSymbols,
        entry: int,
        flags: Iterable[int],
    ) -> bytes:
        del symbols, entry, flags
        return MAGIC + b"".join(segment.content for segment in segments)

    def read_small(self, data: memoryview) -> None:
        """None: this format has one reader."""

    def add_objects(self, graph: LinkGraph, batch: Batch) -> ReadObjects:
        first_block, first_edge = graph.block_table.rows, graph.edge_table.rows
        ends = batch.starts + batch.sizes
        first_symbols = []
        for name, start, end in zip(batch.names, batch.starts.tolist(), ends.tolist(), strict=True):
            first_symbols.append(graph.symbol_table.rows)
            _add_object(graph, name, bytes(batch.buffer[start:end]))
        return ReadObjects(
            np.array(first_symbols, np.int64),
            graph.symbol_table.rows,
            first_block,
            first_edge,
            graph.edge_table.rows,
        )


def _add_object(graph: LinkGraph, name: str, data: bytes) -> None:
    try:
        parts: dict[str, list[Any]] = json.loads(data.removeprefix(MAGIC))
    except ValueError as error:
        raise ObjectError(str(error), file=name) from error
    graph.origins.append(name)
    graph.origin_flags.append(0)
    blocks = {}
    for section, protection, content in parts["sections"]:
        place = graph.obtain_section(section, PROTECTIONS[protection])
        blocks[section] = graph.create_content_block(place, bytes.fromhex(content), alignment=16)
        graph.block_table.origin[blocks[section].row] = len(graph.origins) - 1
    rows = {}
    for symbol, section, offset, size, binding in parts["symbols"]:
        rows[symbol] = graph.symbol_table.extend(
            1,
            name=graph.strings.add(symbol) if symbol else NO_NAME,
            kind=EXTERNAL if section is None else DEFINED,
            block=-1 if section is None else blocks[section].row,
            value=offset,
            size=size,
            linkage=int(Linkage.WEAK if binding == "weak" else Linkage.STRONG),
            scope=int(Scope.LOCAL if binding == "local" else Scope.DEFAULT),
        )
    for section, offset, kind, symbol, addend in parts["relocations"]:
        graph.edge_table.extend(
            1,
            block=blocks[section].row,
            offset=offset,
            kind=int(X86_64EdgeKind[kind]),
            target=rows[symbol],
            addend=addend,
        )


class _Flat:
    def target_of(self, data: memoryview, file: str) -> Target:
        del data, file
        return FLAT_TARGET

    def targets(self) -> Iterable[Target]:
        return [FLAT_TARGET]


FLAT_TARGET = FlatTarget()
FLAT = _Flat()


def flat_object(
    sections: list[tuple[str, str, str]],
    symbols: list[tuple[str, str | None, int, int, str]],
    relocations: list[tuple[str, int, str, str, int]],
) -> bytes:
    """A file."""
    parts = {"sections": sections, "symbols": symbols, "relocations": relocations}
    return MAGIC + json.dumps(parts).encode()
