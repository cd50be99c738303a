"""RISC-V at known addresses: HI20 and LO12 are paired, GOT entries and stubs bypassed.

The target of a PC-relative LO12 is the label of its HI20. The two may be in different sections and
in any order, and several LO12 may share a HI20. Every LO12 gets the target of its HI20, and an
addend that includes the distance between the two instructions. In the same pass

- ``auipc; ld`` from a GOT entry becomes ``auipc; addi``, or ``lui; addi`` for an address below
  2 GiB, if the GOT entry's target is in range;
- ``auipc; op`` to an absolute address out of range becomes ``lui; op``, which matters for undefined
  weak symbols, whose address is null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jitlink.arch.riscv import (
    ADDI,
    AUIPC,
    FIXUPS,
    FUNCT3,
    GOT_PLT,
    LUI,
    OPCODE,
    UNIMP,
    CodeArray,
    K,
    fits_signed32,
    is_load_of_pointer,
    read_code,
    write_code,
)
from jitlink.errors import TargetOutOfRangeError
from jitlink.fixup_errors import fail
from jitlink.fixups import resolved
from jitlink.graph import LinkGraph
from jitlink.graph.columns import ADDRESS_MASK, BoolArray, Int64Array, rows_where
from jitlink.graph.tables import DEFINED, EXTERNAL
from jitlink.leb128 import ULEB128
from jitlink.passes.got_plt import BypassTargets, bypass

_HI = (
    K.R_RISCV_PCREL_HI20, K.GOT_LOAD_HI20, K.R_RISCV_TLS_GOT_HI20, K.R_RISCV_TLS_GD_HI20,
    K.R_RISCV_TLSDESC_HI20,
)  # fmt: skip
_LO = (K.R_RISCV_PCREL_LO12_I, K.PCREL_LO12_I_RELAXABLE, K.R_RISCV_PCREL_LO12_S)


@dataclass
class HiLoPairs:
    """The HI20 and LO12 edges of PC-relative addresses.

    Attributes:
        hi: edge rows of all HI20 (int64).
        lo: edge rows of all LO12 (int64).
        hi_of_lo: for each LO12, the index of its HI20 in `hi` (int64).
    """

    hi: Int64Array
    lo: Int64Array
    hi_of_lo: Int64Array


def find_hi_lo_pairs(graph: LinkGraph) -> HiLoPairs:
    """Find the HI20 of each LO12.

    Raises:
        FixupError: the target of a LO12 is not the label of a HI20, or the LO12 has an addend.
    """
    edges, symbols = graph.edge_table, graph.symbol_table
    hi, lo = rows_where(_is_one_of(graph, _HI)), rows_where(_is_one_of(graph, _LO))
    if len(lo) == 0:
        return HiLoPairs(hi, lo, lo)
    target = edges.target[lo]
    defined = symbols.kind[target] == DEFINED
    if not defined.all():
        fail(graph, lo[~defined], "refers to no label of a HI20 relocation")
    odd = edges.addend[lo] != 0
    if odd.any():
        fail(graph, lo[odd], "has an addend, which only its HI20 relocation may have")
    hi_of_lo = _find_edges_at(
        graph, hi, symbols.block[target], symbols.value[target].view(np.int64)
    )
    if (hi_of_lo < 0).any():
        fail(graph, lo[hi_of_lo < 0], "refers to a label without a HI20 relocation")
    return HiLoPairs(hi, lo, hi_of_lo)


def _find_edges_at(
    graph: LinkGraph, rows: Int64Array, blocks: Int64Array, offsets: Int64Array
) -> Int64Array:
    """For each block and offset, the index in `rows` of the edge there (int64), or -1."""
    if len(rows) == 0:
        return np.full(len(blocks), -1, np.int64)
    edges, sizes = graph.edge_table, graph.block_table.size
    # One key for block and offset.
    first = np.cumsum(sizes + 1) - (sizes + 1)
    keys = first[edges.block[rows]] + edges.offset[rows]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    sought = first[blocks] + offsets
    index = np.minimum(keys.searchsorted(sought), len(keys) - 1)
    return np.where(keys[index] == sought, order[index], -1)


def _is_one_of(graph: LinkGraph, kinds: tuple[K, ...]) -> BoolArray:
    wanted = np.zeros(len(K), np.bool_)
    wanted[list(kinds)] = True
    return wanted[graph.edge_table.kind]


def pair_hi_lo(graph: LinkGraph) -> None:
    """Give LO12 edges the target of their HI20, and bypass GOT entries and stubs (pre-fixup pass).

    Raises:
        FixupError: a LO12 has no HI20, an addition to or a subtraction from a ULEB128 field is
            without the other, or the field is too short for the difference.
    """
    pairs = find_hi_lo_pairs(graph)
    targets = BypassTargets(graph, GOT_PLT[8 * graph.pointer_size])
    if targets.any:
        _bypass_stubs(graph, targets)
        _relax_got_loads(graph, targets, pairs)
    _remove_undefined_jumps(graph)
    if graph.pointer_size == 8:
        _relax_far_to_absolute(graph, pairs)
    _check_uleb128(graph)
    edges, lo = graph.edge_table, pairs.lo
    hi = pairs.hi[pairs.hi_of_lo]
    absolute = edges.kind[hi] == K.R_RISCV_HI20
    is_store = edges.kind[lo] == K.R_RISCV_PCREL_LO12_S
    distance = np.where(absolute, 0, _places(graph, lo) - _places(graph, hi))
    edges.target[lo] = edges.target[hi]
    edges.addend[lo] = edges.addend[hi] + distance
    edges.kind[lo] = np.where(
        absolute,
        np.where(is_store, K.R_RISCV_LO12_S, K.R_RISCV_LO12_I),
        np.where(is_store, K.DELTA_LO12_S, K.DELTA_LO12_I),
    )


def _places(graph: LinkGraph, rows: Int64Array) -> Int64Array:
    """Addresses (int64) of the places of edges."""
    edges = graph.edge_table
    address = graph.block_table.address[edges.block[rows]].view(np.int64)
    return address + edges.offset[rows]


def _bypass_stubs(graph: LinkGraph, targets: BypassTargets) -> None:
    fixups = FIXUPS[8 * graph.pointer_size].by_kind
    bypass(graph, targets, fixups[K.R_RISCV_CALL], K.CALL_TO_PTR_JUMP_STUB_BYPASSABLE)
    bypass(graph, targets, fixups[K.R_RISCV_JAL], K.JAL_TO_PTR_JUMP_STUB_BYPASSABLE)


def _remove_undefined_jumps(graph: LinkGraph) -> None:
    """Replace jumps to undefined weak symbols by a trap: address zero is hardly ever in range."""
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = rows_where(edges.kind == K.JAL_WITHOUT_LINK)
    target = edges.target[rows]
    rows = rows[(symbols.kind[target] == EXTERNAL) & (symbols.value[target] == 0)]
    write_code(graph, edges.block[rows], edges.offset[rows], np.full(len(rows), UNIMP, np.uint32))
    edges.kind[rows] = K.KEEP_ALIVE


def _is_in_range(graph: LinkGraph, distance: Int64Array) -> BoolArray:
    if graph.pointer_size == 4:
        return np.ones(len(distance), np.bool_)
    return fits_signed32(distance)


def _relax_got_loads(graph: LinkGraph, targets: BypassTargets, pairs: HiLoPairs) -> None:
    """Compute addresses instead of loading them, where every LO12 of a HI20 is such a load."""
    edges, hi_of_lo = graph.edge_table, pairs.hi_of_lo
    is_load = edges.kind[pairs.hi] == K.GOT_LOAD_HI20
    target = np.full(len(pairs.hi), -1, np.int64)
    target[is_load] = targets.of(pairs.hi[is_load])
    chosen = is_load & (target >= 0) & (edges.addend[pairs.hi] == 0)
    chosen &= resolved(graph, target)
    if not chosen.any():
        return
    lo = rows_where(chosen[hi_of_lo] & (edges.kind[pairs.lo] == K.PCREL_LO12_I_RELAXABLE))
    lo_code = _read(graph, pairs.lo[lo])
    hi_code = _read(graph, pairs.hi)
    good = lo[is_load_of_pointer(lo_code, hi_code[hi_of_lo[lo]], 8 * graph.pointer_size)]
    uses = np.bincount(hi_of_lo, minlength=len(chosen))
    chosen &= (uses > 0) & (uses == np.bincount(hi_of_lo[good], minlength=len(chosen)))
    address = targets.addresses[target]
    near = _is_in_range(graph, address - _places(graph, pairs.hi))
    low_address = fits_signed32(address) & ~near & ((hi_code & OPCODE) == AUIPC)
    chosen &= near | low_address
    _auipc_to_lui(graph, pairs.hi[chosen & low_address])
    rows = pairs.hi[chosen]
    edges.target[rows] = target[chosen]
    edges.kind[pairs.hi[chosen & near]] = K.R_RISCV_PCREL_HI20
    rows = pairs.lo[chosen[hi_of_lo]]
    code = (_read(graph, rows) & ~np.uint32(OPCODE | FUNCT3)) | np.uint32(ADDI)
    write_code(graph, edges.block[rows], edges.offset[rows], code)


def _read(graph: LinkGraph, rows: Int64Array) -> CodeArray:
    return read_code(graph, graph.edge_table.block[rows], graph.edge_table.offset[rows])


def _check_uleb128(graph: LinkGraph) -> None:
    """Refuse differences that do not fit their ULEB128 field, which would truncate them.

    The difference is the sum of two edges, so the range check of neither edge can detect that.
    """
    edges = graph.edge_table
    sets = rows_where(edges.kind == K.R_RISCV_SET_ULEB128)
    subtractions = rows_where(edges.kind == K.R_RISCV_SUB_ULEB128)
    if len(sets) == len(subtractions) == 0:
        return
    _check_pairs(graph, sets, subtractions)
    index = _find_edges_at(graph, sets, edges.block[subtractions], edges.offset[subtractions])
    sets = sets[index]
    address = graph.symbol_addresses().view(np.int64)
    value = address[edges.target[sets]] + edges.addend[sets]
    value -= address[edges.target[subtractions]] + edges.addend[subtractions]
    block, offset = edges.block[subtractions], edges.offset[subtractions]
    place = graph.block_table.content[block] + offset
    end = place + graph.block_table.size[block] - offset
    for data, base, here in graph.contents.partition(place):
        sizes = ULEB128().measure(data, place[here] - base, end[here] - base)
        # The fixup table refuses fields that do not end.
        bits = np.where(sizes == 0, 63, np.minimum(7 * sizes, 63))
        bad = (value[here] < 0) | (value[here] >> bits != 0)
        if bad.any():
            rows, first = subtractions[here][bad], int(value[here][bad][0])
            fail(
                graph, rows, f"makes {first:#x}, which its field cannot hold",
                TargetOutOfRangeError, first, low=0, high=(1 << int(bits[bad][0])) - 1,
                target_address=int(address[edges.target[rows[0]]]) & ADDRESS_MASK,
            )  # fmt: skip


def _check_pairs(graph: LinkGraph, sets: Int64Array, subtractions: Int64Array) -> None:
    """Refuse ULEB128 edges that are not one of each kind at a place: neither has a value alone."""
    edges, rows = graph.edge_table, np.concatenate((sets, subtractions))
    places = np.stack((edges.block[rows], edges.offset[rows]))
    _, number = np.unique(places, axis=1, return_inverse=True)
    number = number.reshape(-1)
    counts = [
        np.bincount(number[part], minlength=len(rows))[number]
        for part in (slice(0, len(sets)), slice(len(sets), None))
    ]
    for kind, count in zip((K.R_RISCV_SET_ULEB128, K.R_RISCV_SUB_ULEB128), counts, strict=True):
        if (count == 0).any():
            fail(graph, rows[count == 0], f"has no {kind} at the same place")
        if (count > 1).any():
            fail(graph, rows[count > 1], f"has several {kind} at the same place")


def _auipc_to_lui(graph: LinkGraph, rows: Int64Array) -> None:
    """Rewrite ``auipc`` to ``lui``."""
    edges = graph.edge_table
    code = (_read(graph, rows) & ~np.uint32(OPCODE)) | np.uint32(LUI)
    write_code(graph, edges.block[rows], edges.offset[rows], code)
    edges.kind[rows] = K.R_RISCV_HI20


def _relax_far_to_absolute(graph: LinkGraph, pairs: HiLoPairs) -> None:
    """Rewrite ``auipc`` to ``lui`` where the target is in range of ``lui`` only."""
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = pairs.hi[edges.kind[pairs.hi] == K.R_RISCV_PCREL_HI20]
    rows = rows[symbols.kind[edges.target[rows]] != DEFINED]
    if len(rows) == 0:
        return
    address = symbols.value[edges.target[rows]].view(np.int64) + edges.addend[rows]
    far = ~fits_signed32(address - _places(graph, rows)) & fits_signed32(address)
    rows = rows[far]
    _auipc_to_lui(graph, rows[(_read(graph, rows) & OPCODE) == AUIPC])
