"""RISC-V linker relaxation: code that says with less what it says, before memory is allocated.

Compilers write the longest form of calls and addresses and mark them (R_RISCV_RELAX); whoever
links shortens what turns out to be near, and takes surplus nops out of paddings
(R_RISCV_ALIGN), which is never optional.

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

Nobody reserves gp in a JIT, so there is no gp-relative form, and addresses are known beforehand
only of absolute symbols.

Distances are taken from a provisional layout in which blocks stand as `BasicLayout` will put
them. Taking bytes out brings code closer together, but padding may grow by what it is aligned
to, so that much is kept in reserve: an instruction that was shortened stays in reach whatever is
shortened later, nothing is ever taken back, and repeating until nothing changes ends. Padding
in a block depends only on what is before it in the block, because a block is at least as
aligned as its paddings.

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
from jitlink.arch.riscv_pairs import find_halves
from jitlink.fixups import fail
from jitlink.graph import LinkGraph
from jitlink.graph.columns import BoolArray, Int64Array, ragged_arange, rows_where
from jitlink.graph.shrink import Places, Shrinkage, impossible_sites
from jitlink.graph.tables import ABSOLUTE, DEFINED
from jitlink.memory.layout import BasicLayout, place

EF_RISCV_RVC = 1

_COUNTS_FROM_TARGET = np.ones(len(K), np.bool_)
_COUNTS_FROM_TARGET[[K.INVALID, K.KEEP_ALIVE, K.NEG_DELTA32, K.ALIGN_RELAXABLE]] = False
_RA = 1


def relax(graph: LinkGraph) -> None:
    """Shorten code and honour alignment (post-prune pass; nothing may add code behind it).

    Raises:
        FixupError: a padding is malformed or too short.
    """
    _Relaxation(graph).run(shorten=True)


def align(graph: LinkGraph) -> None:
    """Honour alignment only (post-prune pass, in place of `relax`).

    Raises:
        FixupError: a padding is malformed or too short.
    """
    _Relaxation(graph).run(shorten=False)


@dataclass
class _Sites:
    """Edges whose instructions or padding may shrink, or are rewritten.

    Attributes:
        rows: their rows (int64).
        spans: bytes, from the place of each edge, that are its instructions or padding (int64).
        limits: how many of them may go (int64).
        index: number of each in the shrinkage that was planned for them (int64).
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
        shrinkage = self._plan([part.sites for part in parts])
        if shrinkage is not None:
            addresses.shorten(shrinkage)
            paddings.shorten(shrinkage)
            if len(calls.sites.rows):
                self._settle(shrinkage, paddings, calls)
            shrinkage.apply(_COUNTS_FROM_TARGET)
            for part in parts:
                part.rewrite(shrinkage)
        dropped = (edges.kind == K.RELAX) | (edges.kind == K.ALIGN_RELAXABLE)
        edges.keep(~dropped & (edges.kind != K.INVALID))

    def _marked(self) -> BoolArray:
        """Mask of the edges that may be relaxed: each is followed by one that says so."""
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

    def _plan(self, sites: list[_Sites]) -> Shrinkage | None:
        rows = np.concatenate([each.rows for each in sites])
        if len(rows) == 0:
            return None
        spans = np.concatenate([each.spans for each in sites])
        limits = np.concatenate([each.limits for each in sites])
        blocks, ends = self.edges.block[rows], self.edges.offset[rows] + spans
        order = np.lexsort((ends, blocks))
        index = np.empty(len(rows), np.int64)
        index[order] = np.arange(len(rows))
        first = 0
        for each in sites:
            each.index = index[first : first + len(each.rows)]
            first += len(each.rows)
        sorted_sites = (blocks[order], ends[order], limits[order])
        bad = impossible_sites(self.graph, *sorted_sites)
        if bad.any():
            fail(self.graph, rows[order][bad], "overlaps another edge that may be relaxed")
        return Shrinkage(self.graph, *sorted_sites)

    def _settle(self, shrinkage: Shrinkage, paddings: _Paddings, calls: _Calls) -> None:
        """Shorten calls until nothing changes any more."""
        table = self.graph.block_table
        calls.locate(shrinkage)
        while True:
            table.size[shrinkage.block_rows] = shrinkage.new_sizes()
            if not calls.shorten(shrinkage, BasicLayout(self.graph), paddings.reserve):
                return
            paddings.shorten(shrinkage)


class _Paddings:
    """Nops whose number depends on where they are.

    Attributes:
        sites: the paddings.
        reserve: by block row, by how much padding in it may grow (int64).
    """

    def __init__(self, graph: LinkGraph, rows: Int64Array) -> None:
        self.graph = graph
        edges, table = graph.edge_table, graph.block_table
        rows = rows[edges.addend[rows] != 0]
        order = np.lexsort((edges.offset[rows], edges.block[rows]))
        rows = rows[order]
        self.blocks, self.starts, self.sizes = (
            edges.block[rows], edges.offset[rows], edges.addend[rows])  # fmt: skip
        room = table.size[self.blocks] - self.starts
        bad = (self.sizes < 0) | (self.sizes > room) | (self.sizes & 1 != 0)
        if bad.any():
            fail(graph, rows[bad], "is a padding of a size that cannot be")
        # The smallest power of two above the number of nops is what they can align to.
        self.alignments = np.int64(1) << np.frexp(self.sizes + 1)[1].astype(np.int64)
        self.reserve = np.zeros(table.rows, np.int64)
        np.maximum.at(self.reserve, self.blocks, self.alignments)
        np.maximum.at(table.alignment, self.blocks, self.alignments)
        self.sites = _Sites(rows, self.sizes, self.sizes)
        self.places: Places | None = None

    def shorten(self, shrinkage: Shrinkage) -> None:
        """Count the nops that are too many."""
        if len(self.blocks) == 0:
            return
        index, table = self.sites.index, self.graph.block_table
        shrinkage.counts[index] = 0
        if self.places is None:
            self.places = shrinkage.locate(self.blocks, self.starts)
        starts = shrinkage.moved(self.places)
        # Each block is a head and, behind every padding, a part that has to be aligned.
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
            fail(self.graph, self.sites.rows[short], "is a padding that is too short")
        shrinkage.counts[index] = self.sizes - needed

    def rewrite(self, shrinkage: Shrinkage) -> None:
        """Write the nops that are left: as few as possible, a short one last."""
        edges, rows = self.graph.edge_table, self.sites.rows
        if len(rows) == 0:
            return
        units = (self.sizes - shrinkage.counts[self.sites.index]) // 2
        unit = ragged_arange(np.zeros(len(units), np.int64), units)
        long = unit < (units & ~1).repeat(units)
        code = np.where(long, np.where(unit & 1, 0, NOP), C_NOP).astype(np.uint16)
        offsets = edges.offset[rows].repeat(units) + 2 * unit
        write_code(self.graph, self.blocks.repeat(units), offsets, code)


class _Calls:
    """Pairs of ``auipc`` and ``jalr`` that call or jump to a place in the graph."""

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
        self.sites = _Sites(rows, size, size - 2)

    def locate(self, shrinkage: Shrinkage) -> None:
        """Take down what does not change while bytes are taken out."""
        self.places = shrinkage.locate(self.blocks, self.offsets)
        self.target_places = shrinkage.locate(self.target_blocks, self.target_offsets)

    def shorten(self, shrinkage: Shrinkage, layout: BasicLayout, block_reserve: Int64Array) -> bool:
        """Shorten what is in reach in a layout; whether anything changed."""
        segment, offset = layout.block_offsets()
        there, here = self.target_blocks, self.blocks
        distance = offset[there] + shrinkage.moved(self.target_places)
        distance -= offset[here] + shrinkage.moved(self.places)
        alignments = np.array([each.alignment for each in layout.segments] or [1], np.int64)
        reserve = np.where(there == here, block_reserve[here], alignments[segment[here]])
        together = (segment[there] == segment[here]) & (segment[here] >= 0)
        index = self.sites.index
        counts = np.where(together & _reaches(K.R_RISCV_JAL, distance, reserve), 4, 0)
        short = together & self.has_short & _reaches(K.R_RISCV_RVC_JUMP, distance, reserve)
        counts[short] = 6
        # What was shortened stays so.
        np.maximum(counts, shrinkage.counts[index], out=counts)
        changed = bool((counts != shrinkage.counts[index]).any())
        shrinkage.counts[index] = counts
        return changed

    def rewrite(self, shrinkage: Shrinkage) -> None:
        """Write the instructions that are left."""
        edges, rows = self.graph.edge_table, self.sites.rows
        counts = shrinkage.counts[self.sites.index]
        jal, short = rows[counts == 4], rows[counts == 6]
        code = JAL | self.link[counts == 4]
        write_code(self.graph, edges.block[jal], edges.offset[jal], code.astype(np.uint32))
        edges.kind[jal] = K.R_RISCV_JAL
        code = np.where(self.link[counts == 6] == 0, C_J, C_JAL)
        write_code(self.graph, edges.block[short], edges.offset[short], code.astype(np.uint16))
        edges.kind[short] = K.R_RISCV_RVC_JUMP


def _reaches(kind: K, distance: Int64Array, reserve: Int64Array) -> BoolArray:
    low, high = FIXUPS[64].by_kind[kind].limits
    near: BoolArray = (distance - reserve >= low) & (distance + reserve <= high)
    return near


def has_compressed(graph: LinkGraph) -> BoolArray:
    """By block row, whether the object that it came from has compressed instructions."""
    flags = np.array([*graph.origin_flags, 0], np.int64)
    origin = graph.block_table.origin
    known = (origin >= 0) & (origin < len(graph.origin_flags))
    result: BoolArray = flags[np.where(known, origin, -1)] & EF_RISCV_RVC != 0
    return result


class _Addresses:
    """Upper and lower halves of absolute symbols' addresses, which are known."""

    def __init__(self, graph: LinkGraph, marked: BoolArray) -> None:
        self.graph = graph
        none = np.empty(0, np.int64)
        self.highs, self.lows = none, none
        self.is_short = np.empty(0, np.bool_)
        self.registers = none
        absolute = graph.symbol_table.kind == ABSOLUTE
        rows = rows_where(marked)
        rows = rows[absolute[graph.edge_table.target[rows]]]
        if len(rows):
            self._find(marked, rows)
        rows = np.concatenate((self.highs, self.lows))
        limits = np.repeat((4, 0), (len(self.highs), len(self.lows)))
        self.sites = _Sites(rows, np.full(len(rows), 4), limits)

    def _find(self, marked: BoolArray, rows: Int64Array) -> None:
        edges, graph = self.graph.edge_table, self.graph
        value = self._values(rows)
        is_low = _is_one_of(edges.kind[rows], K.R_RISCV_LO12_I, K.R_RISCV_LO12_S)
        is_high = edges.kind[rows] == K.R_RISCV_HI20
        # Where one lower half needs its register, the upper half has to stay.
        kept = np.zeros(graph.symbol_table.rows, np.bool_)
        all_low = _is_one_of(edges.kind, K.R_RISCV_LO12_I, K.R_RISCV_LO12_S)
        kept[edges.target[all_low & ~marked]] = True
        free = ~kept[edges.target[rows]]
        null = (value >= -0x800) & (value < 0x800) & free
        # Other kinds may stand at the very end of a block, where no instruction can be read.
        code = np.zeros(len(rows), np.uint32)
        code[is_high] = read_code(graph, edges.block[rows[is_high]], edges.offset[rows[is_high]])
        is_high &= (code & OPCODE) == LUI
        short = is_high & ~null & self._fits_short(rows, value, code)
        relative, relative_lows = self._relative(marked, rows, value)
        self.lows = np.concatenate((rows[is_low & null], relative_lows))
        self.highs = np.concatenate((rows[(is_high & null) | short], relative))
        self.is_short = np.isin(self.highs, rows[short])
        block, offset = edges.block[self.highs], edges.offset[self.highs]
        self.registers = read_code(graph, block, offset).astype(np.int64) & RD
        self.registers = self.registers[self.is_short]

    def _values(self, rows: Int64Array) -> Int64Array:
        edges = self.graph.edge_table
        value = self.graph.symbol_table.value[edges.target[rows]].view(np.int64)
        value = value + edges.addend[rows]
        return value << 32 >> 32 if self.graph.pointer_size == 4 else value

    def _fits_short(self, rows: Int64Array, value: Int64Array, code: CodeArray) -> BoolArray:
        """Whether ``c.lui`` can take the place of ``lui``: not for x0, sp, or zero bits."""
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
        """Rows of ``auipc`` that can go, and of their lower halves, which get their target."""
        edges = self.graph.edge_table
        near = (edges.kind[rows] == K.R_RISCV_PCREL_HI20) & (value >= -0x800) & (value < 0x800)
        if not near.any():
            return rows[near], rows[near]
        halves = find_halves(self.graph)
        chosen = np.zeros(edges.rows, np.bool_)
        chosen[rows[near]] = True
        chosen[halves.high[halves.owner[~marked[halves.low]]]] = False
        lows = chosen[halves.high[halves.owner]]
        low, high = halves.low[lows], halves.high[halves.owner[lows]]
        edges.target[low], edges.addend[low] = edges.target[high], edges.addend[high]
        is_store = edges.kind[low] == K.R_RISCV_PCREL_LO12_S
        edges.kind[low] = np.where(is_store, K.R_RISCV_LO12_S, K.R_RISCV_LO12_I)
        return rows_where(chosen), low

    def shorten(self, shrinkage: Shrinkage) -> None:
        """Count what goes, which depends on nothing else."""
        counts = np.where(self.is_short, 2, 4)
        shrinkage.counts[self.sites.index[: len(self.highs)]] = counts

    def rewrite(self, shrinkage: Shrinkage) -> None:  # noqa: ARG002 - as of the other parts
        """Write the instructions that are left."""
        graph, edges = self.graph, self.graph.edge_table
        short = self.highs[self.is_short]
        block, offset = edges.block[short], edges.offset[short]
        write_code(graph, block, offset, (C_LUI | self.registers).astype(np.uint16))
        edges.kind[short] = K.RVC_LUI
        edges.kind[self.highs[~self.is_short]] = K.INVALID
        block, offset = edges.block[self.lows], edges.offset[self.lows]
        code = read_code(graph, block, offset) & ~np.uint32(RS1)
        write_code(graph, block, offset, code)


def _is_one_of(kinds: npt.NDArray[np.uint16], first: K, second: K) -> BoolArray:
    result: BoolArray = (kinds == first) | (kinds == second)
    return result
