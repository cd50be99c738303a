"""RISC-V linker relaxation: shorter instructions, before memory is allocated.

Compilers emit the longest form of calls and addresses and mark them (R_RISCV_RELAX); the linker
shortens those whose target is near, and removes surplus nops from paddings (R_RISCV_ALIGN), which
is mandatory.

====================== ========================== =================================
instructions           become                     if
====================== ========================== =================================
auipc rd; jalr rd      c.j (rd = x0)              target within 2 KiB, C extension
.                      c.jal (rd = ra, RV32 only) target within 2 KiB, C extension
.                      jal rd                     target within 1 MiB
lui rd; op lo(rd)      op lo(x0)                  address -2048 .. 2047
.                      c.lui rd; op lo(rd)        address below 128 KiB, C extension
auipc rd; op lo(rd)    op lo(x0)                  address -2048 .. 2047
====================== ========================== =================================

The gp register belongs to the executable of the process, so there is no gp-relative form; before
allocation only absolute symbols have addresses.

Distances are computed in a provisional layout, with the blocks in the order of `BasicLayout`.
Removing bytes moves code closer together, but a padding may grow by up to its alignment, so that
much is added to each distance: a shortened instruction stays in range whatever is shortened later,
no instruction is lengthened again, and the iteration reaches a fixed point. Padding in a block
depends only on the code before it in the block, because the alignment of a block is at least that
of its paddings.

LLVM differs: it relaxes calls only, and after allocation, so that no memory is saved.

Specification: RISC-V ELF psABI, chapter "Linker Relaxation".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from jitlink.arch.riscv import (
    AUIPC,
    C_J,
    C_JAL,
    C_LUI,
    C_NOP,
    FIXUPS,
    JAL,
    JALR,
    LUI,
    NOP,
    OPCODE,
    RD,
    RS1,
    CodeArray,
    K,
    read_code,
    write_code,
)
from jitlink.arch.riscv_pairs import find_hi_lo_pairs
from jitlink.fixup_errors import fail
from jitlink.graph import LinkGraph
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.shrink import Places, Shrinkage, impossible_sites
from jitlink.graph.tables import ABSOLUTE, DEFINED
from jitlink.memory.layout import BasicLayout, place

EF_RISCV_RVC = 1

# Whether the addend of an edge kind is a distance from the target (bool, one per kind).
_COUNTS_FROM_TARGET = np.ones(len(K), np.bool_)
_COUNTS_FROM_TARGET[[K.INVALID, K.KEEP_ALIVE, K.NEG_DELTA32, K.ALIGN_RELAXABLE]] = False
_RA = 1


def relax(graph: LinkGraph) -> None:
    """Shorten code and align paddings (post-prune pass; no later pass may add code).

    Raises:
        FixupError: a padding is malformed or too short.
    """
    _Relaxation(graph).run(shorten=True)


def align(graph: LinkGraph) -> None:
    """Align paddings only (post-prune pass, in place of `relax`).

    Raises:
        FixupError: a padding is malformed or too short.
    """
    _Relaxation(graph).run(shorten=False)


@dataclass
class _RelaxableEdges:
    """Edges whose instructions or padding may be shortened or rewritten.

    Attributes:
        rows: their rows (int64).
        spans: size in bytes of the instructions or padding at each edge (int64).
        limits: how many of these bytes may be removed (int64).
        index: index of each edge in the `Shrinkage` (int64).
    """

    rows: Int64Array
    spans: Int64Array
    limits: Int64Array
    index: Int64Array = field(init=False)


class _Relaxation:
    """One run of `relax` or `align`."""

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self.edges = graph.edge_table
        self.bits = 8 * graph.pointer_size

    def run(self, *, shorten: bool) -> None:
        edges = self.edges
        present = np.bincount(edges.kind, minlength=len(K)) > 0
        if not present[K.RELAX] and not present[K.ALIGN_RELAXABLE]:
            return
        paddings = _Paddings(self.graph, rows_where(edges.kind == K.ALIGN_RELAXABLE))
        marked = self._marked()
        edges.kind[marked & (edges.kind == K.R_RISCV_PCREL_LO12_I)] = K.PCREL_LO12_I_RELAXABLE
        none = np.empty(0, np.int64)
        calls = _Calls(self.graph, self._calls(marked) if shorten else none)
        addresses = _Addresses(self.graph, marked if shorten else np.zeros(len(marked), np.bool_))
        parts = (paddings, calls, addresses)
        shrinkage = self._plan([part.relaxable for part in parts])
        if shrinkage is not None:
            addresses.shorten(shrinkage)
            paddings.shorten(shrinkage)
            if len(calls.relaxable.rows):
                self._shorten_calls(shrinkage, paddings, calls)
            shrinkage.apply(_COUNTS_FROM_TARGET)
            for part in parts:
                part.rewrite(shrinkage)
        dropped = (edges.kind == K.RELAX) | (edges.kind == K.ALIGN_RELAXABLE)
        edges.keep(~dropped & (edges.kind != K.INVALID))

    def _marked(self) -> BoolArray:
        """Mask of the edges that may be relaxed: each is followed by a RELAX edge."""
        edges = self.edges
        rows = rows_where(edges.kind[1:] == K.RELAX)
        rows = rows[edges.block[rows] == edges.block[rows + 1]]
        marked = np.zeros(edges.rows, np.bool_)
        marked[rows[edges.offset[rows] == edges.offset[rows + 1]]] = True
        return marked

    def _calls(self, marked: BoolArray) -> Int64Array:
        """Rows of calls of symbols in the graph."""
        kind, symbols = self.edges.kind, self.graph.symbol_table
        is_call = (kind == K.R_RISCV_CALL_PLT) | (kind == K.R_RISCV_CALL)
        is_call &= marked & (symbols.kind[self.edges.target] == DEFINED)
        return rows_where(is_call)

    def _plan(self, relaxable: list[_RelaxableEdges]) -> Shrinkage | None:
        rows = np.concatenate([each.rows for each in relaxable])
        if len(rows) == 0:
            return None
        spans = np.concatenate([each.spans for each in relaxable])
        limits = np.concatenate([each.limits for each in relaxable])
        blocks, ends = self.edges.block[rows], self.edges.offset[rows] + spans
        order = np.lexsort((ends, blocks))
        index = np.empty(len(rows), np.int64)
        index[order] = np.arange(len(rows))
        first = 0
        for each in relaxable:
            each.index = index[first : first + len(each.rows)]
            first += len(each.rows)
        sites = (blocks[order], ends[order], limits[order])
        bad = impossible_sites(self.graph, *sites)
        if bad.any():
            fail(self.graph, rows[order][bad], "overlaps another edge that may be relaxed")
        return Shrinkage(self.graph, *sites)

    def _shorten_calls(self, shrinkage: Shrinkage, paddings: _Paddings, calls: _Calls) -> None:
        """Shorten calls, and align again, up to a fixed point."""
        table = self.graph.block_table
        calls.locate(shrinkage)
        while True:
            table.size[shrinkage.block_rows] = shrinkage.new_sizes()
            if not calls.shorten(shrinkage, BasicLayout(self.graph), paddings.reserve):
                return
            paddings.shorten(shrinkage)


class _Paddings:
    """Paddings of nops that align the code behind them.

    Attributes:
        relaxable: their edges.
        reserve: by block row, by how many bytes a padding in the block may grow (int64).
    """

    def __init__(self, graph: LinkGraph, rows: Int64Array) -> None:
        self.graph = graph
        edges, table = graph.edge_table, graph.block_table
        rows = rows[edges.addend[rows] != 0]
        order = np.lexsort((edges.offset[rows], edges.block[rows]))
        rows = rows[order]
        self.blocks, self.starts, self.sizes = (
            edges.block[rows], edges.offset[rows], edges.addend[rows])  # fmt: skip
        rest = table.size[self.blocks] - self.starts
        bad = (self.sizes < 0) | (self.sizes > rest) | (self.sizes & 1 != 0)
        if bad.any():
            fail(graph, rows[bad], "is a padding of an invalid size")
        # The alignment is the smallest power of two above the size of the nops.
        self.alignments = np.int64(1) << np.frexp(self.sizes + 1)[1].astype(np.int64)
        self.reserve = np.zeros(table.rows, np.int64)
        np.maximum.at(self.reserve, self.blocks, self.alignments)
        np.maximum.at(table.alignment, self.blocks, self.alignments)
        self.relaxable = _RelaxableEdges(rows, self.sizes, self.sizes)
        self.places: Places | None = None

    def shorten(self, shrinkage: Shrinkage) -> None:
        """Count the surplus bytes of nops."""
        if len(self.blocks) == 0:
            return
        index, table = self.relaxable.index, self.graph.block_table
        shrinkage.counts[index] = 0
        if self.places is None:
            self.places = shrinkage.locate(self.blocks, self.starts)
        starts = shrinkage.moved(self.places)
        # Each block is a head and, behind every padding, a part that must be aligned.
        first = np.append(True, self.blocks[1:] != self.blocks[:-1])
        gaps = starts.copy()
        gaps[1:] -= np.where(first[1:], 0, starts[:-1] + self.sizes[:-1])
        part = np.arange(len(gaps)) + np.cumsum(first)
        count = int(part[-1]) + 1
        group, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
        alignments, alignment_offsets = np.ones(count, np.int64), np.zeros(count, np.int64)
        group[part], group[part[first] - 1] = self.blocks, self.blocks[first]
        sizes[part - 1] = gaps
        alignments[part] = self.alignments
        alignments[part[first] - 1] = table.alignment[self.blocks[first]]
        alignment_offsets[part[first] - 1] = table.alignment_offset[self.blocks[first]]
        offsets = place(group, sizes, alignments, alignment_offsets)
        needed = offsets[part] - (offsets[part - 1] + gaps)
        short = needed > self.sizes
        if short.any():
            fail(self.graph, self.relaxable.rows[short], "is a padding that is too short")
        shrinkage.counts[index] = self.sizes - needed

    def rewrite(self, shrinkage: Shrinkage) -> None:
        """Write the remaining nops: 32-bit ones, and a compressed one last if needed."""
        edges, rows = self.graph.edge_table, self.relaxable.rows
        if len(rows) == 0:
            return
        units = (self.sizes - shrinkage.counts[self.relaxable.index]) // 2
        unit = ragged_arange(np.zeros(len(units), np.int64), units)
        long = unit < (units & ~1).repeat(units)
        code = np.where(long, np.where(unit & 1, 0, NOP), C_NOP).astype(np.uint16)
        offsets = edges.offset[rows].repeat(units) + 2 * unit
        write_code(self.graph, self.blocks.repeat(units), offsets, code)


class _Calls:
    """Pairs of ``auipc`` and ``jalr`` that call, or jump to, a target in the graph."""

    def __init__(self, graph: LinkGraph, rows: Int64Array) -> None:
        self.graph = graph
        edges, symbols, table = graph.edge_table, graph.symbol_table, graph.block_table
        rows = rows[edges.offset[rows] <= table.size[edges.block[rows]] - 8]
        block, offset = edges.block[rows], edges.offset[rows]
        high, low = read_code(graph, block, offset), read_code(graph, block, offset + 4)
        good = ((high & OPCODE) == AUIPC) & ((low & OPCODE) == JALR)
        good &= (high & RD) >> 7 == (low & RS1) >> 15
        target = edges.target[rows]
        end = symbols.value[target].view(np.int64) + edges.addend[rows]
        good &= (end >= 0) & (end <= table.size[symbols.block[target]])
        rows, self.link = rows[good], low[good] & RD
        self.blocks, self.offsets = block[good], offset[good]
        self.target_blocks, self.target_offsets = symbols.block[target[good]], end[good]
        self.has_short = self.link == 0
        if graph.pointer_size == 4:
            self.has_short |= self.link == _RA << 7
        self.has_short &= has_compressed(graph)[self.blocks]
        size = np.full(len(rows), 8)
        self.relaxable = _RelaxableEdges(rows, size, size - 2)

    def locate(self, shrinkage: Shrinkage) -> None:
        """Locate the calls and their targets in the shrinkage."""
        self.places = shrinkage.locate(self.blocks, self.offsets)
        self.target_places = shrinkage.locate(self.target_blocks, self.target_offsets)

    def shorten(self, shrinkage: Shrinkage, layout: BasicLayout, block_reserve: Int64Array) -> bool:
        """Shorten the calls whose target is in range in a layout; whether any call changed."""
        segment, offset = layout.block_offsets()
        there, here = self.target_blocks, self.blocks
        distance = offset[there] + shrinkage.moved(self.target_places)
        distance -= offset[here] + shrinkage.moved(self.places)
        alignments = np.array([each.alignment for each in layout.segments] or [1], np.int64)
        reserve = np.where(there == here, block_reserve[here], alignments[segment[here]])
        together = (segment[there] == segment[here]) & (segment[here] >= 0)
        index = self.relaxable.index
        counts = np.where(together & _is_in_range(K.R_RISCV_JAL, distance, reserve), 4, 0)
        short = together & self.has_short & _is_in_range(K.R_RISCV_RVC_JUMP, distance, reserve)
        counts[short] = 6
        # A shortened call is never lengthened again.
        np.maximum(counts, shrinkage.counts[index], out=counts)
        changed = bool((counts != shrinkage.counts[index]).any())
        shrinkage.counts[index] = counts
        return changed

    def rewrite(self, shrinkage: Shrinkage) -> None:
        """Write the shortened instructions."""
        edges, rows = self.graph.edge_table, self.relaxable.rows
        counts = shrinkage.counts[self.relaxable.index]
        jal, short = rows[counts == 4], rows[counts == 6]
        code = JAL | self.link[counts == 4]
        write_code(self.graph, edges.block[jal], edges.offset[jal], code.astype(np.uint32))
        edges.kind[jal] = K.R_RISCV_JAL
        code = np.where(self.link[counts == 6] == 0, C_J, C_JAL)
        write_code(self.graph, edges.block[short], edges.offset[short], code.astype(np.uint16))
        edges.kind[short] = K.R_RISCV_RVC_JUMP


def _is_in_range(kind: K, distance: Int64Array, reserve: Int64Array) -> BoolArray:
    low, high = FIXUPS[64].by_kind[kind].limits
    near: BoolArray = (distance - reserve >= low) & (distance + reserve <= high)
    return near


def has_compressed(graph: LinkGraph) -> BoolArray:
    """By block row, whether the block's object has compressed instructions (bool)."""
    flags = np.array([*graph.origin_flags, 0], np.int64)
    origin = graph.block_table.origin
    known = (origin >= 0) & (origin < len(graph.origin_flags))
    result: BoolArray = flags[np.where(known, origin, -1)] & EF_RISCV_RVC != 0
    return result


class _Addresses:
    """HI20 and LO12 of the addresses of absolute symbols, which are known before allocation."""

    def __init__(self, graph: LinkGraph, marked: BoolArray) -> None:
        self.graph = graph
        none = np.empty(0, np.int64)
        self.hi, self.lo = none, none
        self.is_short = np.empty(0, np.bool_)
        self.registers = none
        absolute = graph.symbol_table.kind == ABSOLUTE
        rows = rows_where(marked)
        rows = rows[absolute[graph.edge_table.target[rows]]]
        if len(rows):
            self._find(marked, rows)
        rows = np.concatenate((self.hi, self.lo))
        limits = np.repeat((4, 0), (len(self.hi), len(self.lo)))
        self.relaxable = _RelaxableEdges(rows, np.full(len(rows), 4), limits)

    def _find(self, marked: BoolArray, rows: Int64Array) -> None:
        edges, graph = self.graph.edge_table, self.graph
        value = self._values(rows)
        is_lo = _is_one_of(edges.kind[rows], K.R_RISCV_LO12_I, K.R_RISCV_LO12_S)
        is_hi = edges.kind[rows] == K.R_RISCV_HI20
        # If one LO12 is not marked, it needs the register that the HI20 sets.
        kept = np.zeros(graph.symbol_table.rows, np.bool_)
        all_lo = _is_one_of(edges.kind, K.R_RISCV_LO12_I, K.R_RISCV_LO12_S)
        kept[edges.target[all_lo & ~marked]] = True
        free = ~kept[edges.target[rows]]
        null = (value >= -0x800) & (value < 0x800) & free
        # Edges of other kinds may be at the end of a block, with no four bytes to read.
        code = np.zeros(len(rows), np.uint32)
        code[is_hi] = read_code(graph, edges.block[rows[is_hi]], edges.offset[rows[is_hi]])
        is_hi &= (code & OPCODE) == LUI
        short = is_hi & ~null & self._fits_short(rows, value, code)
        relative_hi, relative_lo = self._relative(marked, rows, value)
        self.lo = np.concatenate((rows[is_lo & null], relative_lo))
        self.hi = np.concatenate((rows[(is_hi & null) | short], relative_hi))
        self.is_short = np.isin(self.hi, rows[short])
        block, offset = edges.block[self.hi], edges.offset[self.hi]
        self.registers = read_code(graph, block, offset).astype(np.int64) & RD
        self.registers = self.registers[self.is_short]

    def _values(self, rows: Int64Array) -> Int64Array:
        edges = self.graph.edge_table
        value = self.graph.symbol_table.value[edges.target[rows]].view(np.int64)
        value = value + edges.addend[rows]
        return value << 32 >> 32 if self.graph.pointer_size == 4 else value

    def _fits_short(self, rows: Int64Array, value: Int64Array, code: CodeArray) -> BoolArray:
        """Whether ``c.lui`` can replace ``lui``: not for x0, sp, or an operand of zero (bool)."""
        value = value + 0x800
        fits = FIXUPS[64].by_kind[K.RVC_LUI].accepts(value)
        fits &= value >> 12 != 0
        register = (code & RD) >> 7
        fits &= (register != 0) & (register != 2)
        fits &= has_compressed(self.graph)[self.graph.edge_table.block[rows]]
        return fits

    def _relative(
        self, marked: BoolArray, rows: Int64Array, value: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """Rows of HI20 edges whose ``auipc`` can be removed, and of their LO12, retargeted."""
        edges = self.graph.edge_table
        near = (edges.kind[rows] == K.R_RISCV_PCREL_HI20) & (value >= -0x800) & (value < 0x800)
        if not near.any():
            return rows[near], rows[near]
        pairs = find_hi_lo_pairs(self.graph)
        chosen = np.zeros(edges.rows, np.bool_)
        chosen[rows[near]] = True
        chosen[pairs.hi[pairs.hi_of_lo[~marked[pairs.lo]]]] = False
        paired = chosen[pairs.hi[pairs.hi_of_lo]]
        lo, hi = pairs.lo[paired], pairs.hi[pairs.hi_of_lo[paired]]
        edges.target[lo], edges.addend[lo] = edges.target[hi], edges.addend[hi]
        is_store = edges.kind[lo] == K.R_RISCV_PCREL_LO12_S
        edges.kind[lo] = np.where(is_store, K.R_RISCV_LO12_S, K.R_RISCV_LO12_I)
        return rows_where(chosen), lo

    def shorten(self, shrinkage: Shrinkage) -> None:
        """Count the removed bytes, which do not depend on the layout."""
        counts = np.where(self.is_short, 2, 4)
        shrinkage.counts[self.relaxable.index[: len(self.hi)]] = counts

    def rewrite(self, shrinkage: Shrinkage) -> None:  # noqa: ARG002 - same signature as the others
        """Write the shortened instructions."""
        graph, edges = self.graph, self.graph.edge_table
        short = self.hi[self.is_short]
        block, offset = edges.block[short], edges.offset[short]
        write_code(graph, block, offset, (C_LUI | self.registers).astype(np.uint16))
        edges.kind[short] = K.RVC_LUI
        edges.kind[self.hi[~self.is_short]] = K.INVALID
        block, offset = edges.block[self.lo], edges.offset[self.lo]
        code = read_code(graph, block, offset) & ~np.uint32(RS1)
        write_code(graph, block, offset, code)


def _is_one_of(kinds: npt.NDArray[np.uint16], first: K, second: K) -> BoolArray:
    result: BoolArray = (kinds == first) | (kinds == second)
    return result
