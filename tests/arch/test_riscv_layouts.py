"""Relaxed RISC-V code of random layouts: shortened calls have their target in range."""

import struct
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from jitlink.arch.riscv import FIXUPS
from jitlink.arch.riscv import RISCVEdgeKind as K
from jitlink.arch.riscv_relax import relax
from jitlink.graph import Block, LinkGraph, MemProt, Symbol
from jitlink.memory.layout import BasicLayout

BASE = 0x4000_0000
CALL, JUMP = struct.pack("<II", 0x97, 0x80E7), struct.pack("<II", 0x317, 0x30067)
NOPS = struct.pack("<I", 0x13) * 16


class Call(NamedTuple):
    """A call of, or a jump to, the symbol of a block."""

    target: int
    is_jump: bool


class Filler(NamedTuple):
    """Bytes that are not removed."""

    size: int


class Padding(NamedTuple):
    """The nops of an alignment directive."""

    alignment: int


class Code(NamedTuple):
    """A block and its alignment."""

    alignment: int
    parts: list[Call | Filler | Padding]


@st.composite
def layouts(draw: st.DrawFn) -> list[Code]:
    count = draw(st.integers(1, 6))
    part = st.one_of(
        st.builds(Call, st.integers(0, count - 1), st.booleans()),
        st.integers(0, 40).map(lambda n: Filler(2 * n)),
        # Near the range of a short jump.
        st.integers(950, 1040).map(lambda n: Filler(2 * n)),
        st.integers(1, 5).map(lambda n: Padding(1 << n)),
    )
    parts = st.lists(part, min_size=1, max_size=8)
    alignments = st.integers(1, 10).map(lambda n: 1 << n)
    return draw(st.lists(st.builds(Code, alignments, parts), min_size=count, max_size=count))


class _Builder:
    """A graph of a layout, with symbols at all calls and aligned places."""

    def __init__(self, layout: list[Code], bits: int) -> None:
        self.graph = LinkGraph("g", "riscv", pointer_size=bits // 8, edge_kinds=K)
        self.graph.origins, self.graph.origin_flags = ["o"], [1]
        self.null = self.graph.add_absolute_symbol("null", 0)
        self.calls: list[tuple[Symbol, Symbol]] = []
        self.aligned: list[tuple[Symbol, int]] = []
        section = self.graph.create_section(".text", MemProt.READ | MemProt.EXEC)
        blocks = []
        for code in layout:
            content = b"".join(map(content_of, code.parts))
            blocks.append(self.graph.create_content_block(section, content, 0, code.alignment))
        self.targets = [
            self.graph.add_defined_symbol(block, block.size // 4 * 2, f"s{number}")
            for number, block in enumerate(blocks)
        ]
        for block, code in zip(blocks, layout, strict=True):
            self.add_edges(block, code)

    def add_edges(self, block: Block, code: Code) -> None:
        offset = 0
        for part in code.parts:
            end = offset + len(content_of(part))
            if isinstance(part, Call):
                block.add_edge(K.R_RISCV_CALL_PLT, offset, self.targets[part.target])
                block.add_edge(K.RELAX, offset, self.null)
                place = self.graph.add_anonymous_symbol(block, offset)
                self.calls.append((place, self.targets[part.target]))
            elif isinstance(part, Padding):
                block.add_edge(K.ALIGN_RELAXABLE, offset, self.null, end - offset)
                self.aligned.append((self.graph.add_anonymous_symbol(block, end), part.alignment))
            offset = end


def content_of(part: Call | Filler | Padding) -> bytes:
    match part:
        case Call(is_jump=is_jump):
            return JUMP if is_jump else CALL
        case Filler(size):
            return bytes(size)
        case Padding(alignment):
            return NOPS[: alignment - 2]


# Shortening the first call would move the target of the second one farther away.
GROWING = [
    Code(2, [Call(0, is_jump=False), Call(2, is_jump=False)]),
    Code(2, [Filler(1900)]),
    Code(256, [Filler(4)]),
]


@example(layout=GROWING, bits=32)
@settings(max_examples=200, deadline=None)
@given(layout=layouts(), bits=st.sampled_from((32, 64)))
def test_calls_reach_and_paddings_align(layout: list[Code], bits: int) -> None:
    builder = _Builder(layout, bits)
    graph = builder.graph
    relax(graph)
    placed = BasicLayout(graph)
    for segment in placed.segments:
        segment.address = BASE
        placed.apply(memoryview(bytearray(segment.size)), BASE)

    edges = {e.block.address + e.offset: e for block in graph.blocks for e in block.edges}
    assert len(edges) == len(builder.calls)
    for place, target in builder.calls:
        edge = edges[place.address]
        assert edge.target == target
        # No two places are farther apart than the range of a long jump.
        assert edge.kind in {K.R_RISCV_JAL, K.R_RISCV_RVC_JUMP}
        low, high = FIXUPS[bits].by_kind[edge.kind].limits
        assert low <= target.address - place.address <= high
    for end, alignment in builder.aligned:
        assert end.address % alignment == 0
    FIXUPS[bits].apply(graph)
