"""Relaxation of AArch64 code: GOT entries and stubs whose targets are in range are bypassed.

All functions process the instructions of many edges at once.

Specification: ELF for the Arm 64-bit Architecture (AAELF64), section 5.7; Arm Architecture
Reference Manual, C6 (encodings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from jitlink.arch.aarch64 import GOT_PLT
from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.arch.aarch64_fixups import FIXUPS
from jitlink.fixups import resolved
from jitlink.graph import LinkGraph
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import EdgeKind
from jitlink.graph.tables import EXTERNAL
from jitlink.passes.got_plt import BypassTargets, accepts, bypass_stubs

UInt32Array = npt.NDArray[np.uint32]

_NOP = 0xD503201F
_ADRP_MASK, _ADRP_CODE = 0x9F000000, 0x90000000
_IMM12_MASK, _ADD_CODE, _LDR_CODE = 0xFFC00000, 0x91000000, 0xF9400000
_ADR_CODE = 0x10000000


def relax(graph: LinkGraph) -> None:
    """Bypass GOT entries and stubs whose targets are in range (pre-fixup pass).

    =============================================== ============= ==========================
    instructions                                    target within become
    =============================================== ============= ==========================
    bl stub, b stub, b.cond island, tbz island      their range   the same to the target
    adrp r, f@GOT; ldr r, [r, f@GOT]                4 GiB         adrp r, f; add r, r, f
    adrp r, f; add r, r, f                          1 MiB         nop; adr r, f
    =============================================== ============= ==========================

    The two instructions of a pair must be adjacent. If an ``adrp`` or ``ldr`` of a GOT entry is not
    in such a pair, a jump may combine it with one of any pair, so no pair of the same entry in its
    block is relaxed. The target may be an absolute symbol. As the ABI requires, a branch to an
    undefined weak symbol becomes ``nop``.
    """
    # LLVM differs: version 22 relaxes no loads. Later ones also relax a load to another register
    # than the adrp's, which other code may use, so that the ABI excludes it.
    select_moves(graph)
    targets = BypassTargets(graph, GOT_PLT)
    if targets.any:
        _remove_undefined_branches(graph, targets)
        bypass_stubs(graph, targets, GOT_PLT, FIXUPS)
        _relax_loads(graph, targets)
    _relax_additions(graph)


_KEPT_MOVES = {
    K.MOVE_WIDE16_PCREL_G0: K.MOVE_KEEP16_PCREL_G0,
    K.MOVE_WIDE16_PCREL_G1: K.MOVE_KEEP16_PCREL_G1,
    K.MOVE_WIDE16_PCREL_G2: K.MOVE_KEEP16_PCREL_G2,
    K.MOVE_WIDE16_PCREL_G3: K.MOVE_KEEP16_PCREL_G3,
    K.MOVE_WIDE16_FROM_GOT_G0: K.MOVE_KEEP16_FROM_GOT_G0,
    K.MOVE_WIDE16_FROM_GOT_G1: K.MOVE_KEEP16_FROM_GOT_G1,
    K.MOVE_WIDE16_FROM_GOT_G2: K.MOVE_KEEP16_FROM_GOT_G2,
    K.MOVE_WIDE16_FROM_GOT_G3: K.MOVE_KEEP16_FROM_GOT_G3,
    K.MOVE_WIDE16_TPOFF_G0: K.MOVE_KEEP16_TPOFF_G0,
    K.MOVE_WIDE16_TPOFF_G1: K.MOVE_KEEP16_TPOFF_G1,
    K.MOVE_WIDE16_TPOFF_G2: K.MOVE_KEEP16_TPOFF_G2,
    K.MOVE_WIDE16_DTPOFF_G0: K.MOVE_KEEP16_DTPOFF_G0,
    K.MOVE_WIDE16_DTPOFF_G1: K.MOVE_KEEP16_DTPOFF_G1,
    K.MOVE_WIDE16_DTPOFF_G2: K.MOVE_KEEP16_DTPOFF_G2,
}
_MOVK_BIT = 1 << 29


def select_moves(graph: LinkGraph) -> None:
    """Give edges on ``movk`` the kinds that do not modify its opcode (pre-fixup pass)."""
    edges = graph.edge_table
    present = np.bincount(edges.kind, minlength=max(K) + 1)
    for kind, kept in _KEPT_MOVES.items():
        if present[kind]:
            rows = rows_where(edges.kind == kind)
            for words, at, mask in _instructions(graph, rows):
                edges.kind[rows[mask][words[at] & _MOVK_BIT != 0]] = kept


def _instructions(
    graph: LinkGraph, rows: Int64Array
) -> Iterator[tuple[UInt32Array, Int64Array, BoolArray]]:
    """The instructions that edges modify, by buffer of working memory.

    Yields an overlapping view of the words at all bytes of a buffer, the index in it of each edge's
    instruction, and the mask of the edges whose instructions are in the buffer.
    """
    edges = graph.edge_table
    block, offset = edges.block[rows], edges.offset[rows]
    content = graph.block_table.content[block]
    places = content + offset
    # Edges outside the content of their block are refused when fixups are applied.
    inside = (offset >= 0) & (offset <= graph.block_table.size[block] - 4)
    inside &= content != ZERO_FILL
    for code, base, here in graph.contents.partition(places):
        chosen = np.zeros(len(rows), np.bool_)
        chosen[here] = inside[here]
        if code.flags.writeable and chosen.any():
            words = np.ndarray((len(code) - 3,), "<u4", code.data, strides=(1,))
            yield words, places[chosen] - base, chosen


def _remove_undefined_branches(graph: LinkGraph, targets: BypassTargets) -> None:
    """Replace branches to undefined weak symbols by ``nop``."""
    edges, symbols = graph.edge_table, graph.symbol_table
    for kind in GOT_PLT.reach:
        rows = rows_where(edges.kind == GOT_PLT.stub_requests[kind])
        target = targets.of(rows)
        undefined = (target >= 0) & (symbols.kind[target] == EXTERNAL)
        rows = rows[undefined & (symbols.value[target] == 0)]
        for words, at, mask in _instructions(graph, rows):
            words[at] = _NOP
            edges.kind[rows[mask]] = K.KEEP_ALIVE


def _relax_loads(graph: LinkGraph, targets: BypassTargets) -> None:
    """Rewrite pairs that load an address from the GOT to compute it."""
    edges = graph.edge_table
    rows = rows_where((edges.kind == K.PAGE21) | (edges.kind == K.PAGE_OFFSET12_SHIFT3))
    target = targets.of(rows)
    rows, target = rows[target >= 0], target[target >= 0]
    if not len(rows):
        return
    is_page = edges.kind[rows] == K.PAGE21
    first = rows_where(is_page[:-1] & ~is_page[1:])
    first = first[_follow(graph, rows[first], rows[first + 1])]
    first = first[_match(graph, rows[first + 1], _LDR_CODE)]
    alone = np.ones(len(rows), np.bool_)
    alone[first] = alone[first + 1] = False
    entry = edges.block[rows] * graph.symbol_table.rows + target
    first = first[~np.isin(entry[first], entry[alone])]
    first = first[(edges.addend[rows[first]] == 0) & resolved(graph, target[first])]
    address = targets.addresses[target[first]]
    first = first[accepts(graph, FIXUPS.by_kind[K.PAGE21], rows[first], address)]
    _relax_pairs(graph, rows[first], rows[first + 1], _load_to_add, target[first])


def _relax_additions(graph: LinkGraph) -> None:
    """Rewrite pairs of ``adrp`` and ``add`` to ``adr``, where the address is in its range."""
    edges = graph.edge_table
    rows = rows_where((edges.kind == K.PAGE21) | (edges.kind == K.PAGE_OFFSET12))
    first, second = rows[:-1], rows[1:]
    pairs = (edges.kind[first] == K.PAGE21) & (edges.kind[second] == K.PAGE_OFFSET12)
    pairs &= _follow(graph, first, second)
    first, second = first[pairs], second[pairs]
    address = graph.symbol_addresses().view(np.int64)[edges.target[second]]
    near = accepts(graph, FIXUPS.by_kind[K.ADR_LITERAL21], second, address)
    _relax_pairs(graph, first[near], second[near], _add_to_adr, edges.target[first[near]])


def _follow(graph: LinkGraph, first: Int64Array, second: Int64Array) -> BoolArray:
    """Whether pairs of edges refer to one address and are on adjacent instructions (bool)."""
    edges = graph.edge_table
    result: BoolArray = edges.block[second] == edges.block[first]
    result &= edges.offset[second] == edges.offset[first] + 4
    result &= edges.target[second] == edges.target[first]
    result &= edges.addend[second] == edges.addend[first]
    return result


def _match(graph: LinkGraph, second: Int64Array, code: int) -> BoolArray:
    """Whether pairs are an ``adrp`` and an instruction whose operands are its register (bool)."""
    result = np.zeros(len(second), np.bool_)
    for words, at, mask in _instructions(graph, second):
        result[mask], _ = _matches(words, at - 4, code)
    return result


Rewrite = Callable[[UInt32Array, Int64Array], tuple[BoolArray, EdgeKind, EdgeKind]]
"""Rewrites the pairs of instructions at indices of words, where they match.

Returns the mask of the pairs that match, and the new kinds of their two edges."""


def _relax_pairs(
    graph: LinkGraph, first: Int64Array, second: Int64Array, rewrite: Rewrite, target: Int64Array
) -> None:
    """Rewrite pairs of instructions, and retarget their edges (`target` has symbol rows)."""
    edges = graph.edge_table
    for words, at, mask in _instructions(graph, second):
        done, *kinds = rewrite(words, at - 4)
        for rows, kind in zip((first, second), kinds, strict=True):
            chosen = rows[mask][done]
            edges.kind[chosen] = kind
            edges.target[chosen] = target[mask][done]


def _load_to_add(words: UInt32Array, at: Int64Array) -> tuple[BoolArray, EdgeKind, EdgeKind]:
    """Rewrite ``adrp`` and ``ldr`` of one register to ``adrp`` and ``add``."""
    done, register = _matches(words, at, _LDR_CODE)
    words[at[done] + 4] = _ADD_CODE | register[done] << 5 | register[done]
    return done, K.PAGE21, K.PAGE_OFFSET12


def _add_to_adr(words: UInt32Array, at: Int64Array) -> tuple[BoolArray, EdgeKind, EdgeKind]:
    """Rewrite ``adrp`` and ``add`` of one register to ``nop`` and ``adr``."""
    done, register = _matches(words, at, _ADD_CODE)
    words[at[done]] = _NOP
    words[at[done] + 4] = _ADR_CODE | register[done]
    return done, K.KEEP_ALIVE, K.ADR_LITERAL21


def _matches(words: UInt32Array, at: Int64Array, code: int) -> tuple[BoolArray, UInt32Array]:
    """Whether pairs are an ``adrp`` and an instruction whose operands are its register."""
    first, second = words[at], words[at + 4]
    register = first & np.uint32(31)
    done: BoolArray = (first & _ADRP_MASK) == _ADRP_CODE
    done &= (second & _IMM12_MASK) == code
    return done & ((second >> 5 & 31) == register) & ((second & 31) == register), register
