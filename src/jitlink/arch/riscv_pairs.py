"""RISC-V at known addresses: halves are paired, GOT entries and stubs bypassed.

The lower half of a PC-relative address names the label of its upper half. Labels and halves may be
in different sections and in any order, and several lower halves may share an upper one. Here
every lower half gets the target of its upper half, and an addend that makes up for the distance
between the two instructions. In the same step

- ``auipc; ld`` from a GOT entry becomes ``auipc; addi``, or ``lui; addi`` for an address below
  2 GiB: the load's target is known and in reach;
- ``auipc; op`` to an absolute address that is out of reach becomes ``lui; op``: a weak symbol that
  nobody defines, at address null, is the case that matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jitlink.arch.riscv import (
    ADDI,
    AUIPC,
    ENTRIES,
    FUNCT3,
    LUI,
    OPCODE,
    CodeArray,
    K,
    fits_signed32,
    is_load_of_pointer,
    read_code,
    write_code,
)
from jitlink.errors import TargetOutOfRangeError
from jitlink.fixups import fail, resolved
from jitlink.graph import LinkGraph
from jitlink.graph.columns import ADDRESS_MASK, BoolArray, Int64Array, rows_where
from jitlink.graph.tables import DEFINED
from jitlink.leb128 import ULEB128
from jitlink.passes.got_plt import Pointees

_HIGH = (K.R_RISCV_PCREL_HI20, K.GOT_LOAD_HI20)
_LOW = (K.R_RISCV_PCREL_LO12_I, K.PCREL_LO12_I_RELAXABLE, K.R_RISCV_PCREL_LO12_S)


@dataclass
class Halves:
    """Upper and lower halves of PC-relative addresses.

    Attributes:
        high: edge rows of all upper halves (int64).
        low: edge rows of all lower halves (int64).
        owner: for each lower half the index of its upper half in `high` (int64).
    """

    high: Int64Array
    low: Int64Array
    owner: Int64Array


def find_halves(graph: LinkGraph) -> Halves:
    """Find the upper half of each lower half.

    Raises:
        FixupError: a lower half's target is no label of an upper half, or it has an addend.
    """
    edges, symbols = graph.edge_table, graph.symbol_table
    high, low = rows_where(_is(graph, _HIGH)), rows_where(_is(graph, _LOW))
    if len(low) == 0:
        return Halves(high, low, low)
    target = edges.target[low]
    defined = symbols.kind[target] == DEFINED
    if not defined.all():
        fail(graph, low[~defined], "names no label of an upper half")
    odd = edges.addend[low] != 0
    if odd.any():
        fail(graph, low[odd], "has an addend, which only its upper half may have")
    owner = _find_places(graph, high, symbols.block[target], symbols.value[target].view(np.int64))
    if (owner < 0).any():
        fail(graph, low[owner < 0], "names a label where no upper half is")
    return Halves(high, low, owner)


def _find_places(
    graph: LinkGraph, rows: Int64Array, blocks: Int64Array, offsets: Int64Array
) -> Int64Array:
    """For each place the index of the edge there among edges `rows` (int64), or -1."""
    if len(rows) == 0:
        return np.full(len(blocks), -1, np.int64)
    edges, sizes = graph.edge_table, graph.block_table.size
    # A line on which every place has a number of its own.
    line = np.cumsum(sizes + 1) - (sizes + 1)
    keys = line[edges.block[rows]] + edges.offset[rows]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    sought = line[blocks] + offsets
    index = np.minimum(keys.searchsorted(sought), len(keys) - 1)
    return np.where(keys[index] == sought, order[index], -1)


def _is(graph: LinkGraph, kinds: tuple[K, ...]) -> BoolArray:
    wanted = np.zeros(len(K), np.bool_)
    wanted[list(kinds)] = True
    return wanted[graph.edge_table.kind]


def pair_halves(graph: LinkGraph) -> None:
    """Give lower halves the target of their upper half, and bypass what can be (pre-fixup pass).

    Raises:
        FixupError: there is a lower half without an upper one.
    """
    halves = find_halves(graph)
    pointees = Pointees(graph, ENTRIES[8 * graph.pointer_size])
    if pointees.any:
        _bypass_stubs(graph, pointees)
        _bypass_loads(graph, pointees, halves)
    if graph.pointer_size == 8:
        _make_far_absolute(graph, halves)
    _check_lengths(graph)
    edges, low = graph.edge_table, halves.low
    high = halves.high[halves.owner]
    absolute = edges.kind[high] == K.R_RISCV_HI20
    is_store = edges.kind[low] == K.R_RISCV_PCREL_LO12_S
    apart = np.where(absolute, 0, _places(graph, low) - _places(graph, high))
    edges.target[low] = edges.target[high]
    edges.addend[low] = edges.addend[high] + apart
    edges.kind[low] = np.where(
        absolute,
        np.where(is_store, K.R_RISCV_LO12_S, K.R_RISCV_LO12_I),
        np.where(is_store, K.DELTA_LO12_S, K.DELTA_LO12_I),
    )


def _places(graph: LinkGraph, rows: Int64Array) -> Int64Array:
    """Addresses (int64) of the places of edges."""
    edges = graph.edge_table
    address = graph.block_table.address[edges.block[rows]].view(np.int64)
    return address + edges.offset[rows]


def _bypass_stubs(graph: LinkGraph, pointees: Pointees) -> None:
    edges = graph.edge_table
    rows = rows_where(edges.kind == K.CALL_TO_PTR_JUMP_STUB_BYPASSABLE)
    pointee = pointees.of(rows)
    rows, pointee = rows[pointee >= 0], pointee[pointee >= 0]
    distance = pointees.addresses[pointee] + edges.addend[rows] - _places(graph, rows)
    near = _reaches(graph, distance) & resolved(graph, pointee)
    edges.target[rows[near]] = pointee[near]
    edges.kind[rows[near]] = K.R_RISCV_CALL


def _reaches(graph: LinkGraph, distance: Int64Array) -> BoolArray:
    if graph.pointer_size == 4:
        return np.ones(len(distance), np.bool_)
    return fits_signed32(distance)


def _bypass_loads(graph: LinkGraph, pointees: Pointees, halves: Halves) -> None:
    """Compute what would be loaded, where all that an ``auipc`` is for is to load it."""
    edges, owner = graph.edge_table, halves.owner
    is_load = edges.kind[halves.high] == K.GOT_LOAD_HI20
    pointee = np.full(len(halves.high), -1, np.int64)
    pointee[is_load] = pointees.of(halves.high[is_load])
    chosen = is_load & (pointee >= 0) & (edges.addend[halves.high] == 0)
    chosen &= resolved(graph, pointee)
    if not chosen.any():
        return
    low = rows_where(chosen[owner] & (edges.kind[halves.low] == K.PCREL_LO12_I_RELAXABLE))
    low_code = _read(graph, halves.low[low])
    high_code = _read(graph, halves.high)
    good = low[is_load_of_pointer(low_code, high_code[owner[low]], 8 * graph.pointer_size)]
    uses = np.bincount(owner, minlength=len(chosen))
    chosen &= (uses > 0) & (uses == np.bincount(owner[good], minlength=len(chosen)))
    address = pointees.addresses[pointee]
    near = _reaches(graph, address - _places(graph, halves.high))
    low_address = fits_signed32(address) & ~near & ((high_code & OPCODE) == AUIPC)
    chosen &= near | low_address
    _make_absolute(graph, halves.high[chosen & low_address])
    rows = halves.high[chosen]
    edges.target[rows] = pointee[chosen]
    edges.kind[halves.high[chosen & near]] = K.R_RISCV_PCREL_HI20
    rows = halves.low[chosen[owner]]
    code = (_read(graph, rows) & ~np.uint32(OPCODE | FUNCT3)) | np.uint32(ADDI)
    write_code(graph, edges.block[rows], edges.offset[rows], code)


def _read(graph: LinkGraph, rows: Int64Array) -> CodeArray:
    return read_code(graph, graph.edge_table.block[rows], graph.edge_table.offset[rows])


def _check_lengths(graph: LinkGraph) -> None:
    """Refuse differences that their ULEB128 field cannot hold; it would store them modulo that.

    Neither of the two edges of a difference knows the other, so no check of theirs can tell.
    """
    edges = graph.edge_table
    lows = rows_where(edges.kind == K.R_RISCV_SUB_ULEB128)
    if len(lows) == 0:
        return
    sets = rows_where(edges.kind == K.R_RISCV_SET_ULEB128)
    owner = _find_places(graph, sets, edges.block[lows], edges.offset[lows])
    lows, highs = lows[owner >= 0], sets[owner[owner >= 0]]
    address = graph.symbol_addresses().view(np.int64)
    value = address[edges.target[highs]] + edges.addend[highs]
    value -= address[edges.target[lows]] + edges.addend[lows]
    place = graph.block_table.content[edges.block[lows]] + edges.offset[lows]
    end = place + graph.block_table.size[edges.block[lows]] - edges.offset[lows]
    for data, base, here in graph.contents.partition(place):
        sizes = ULEB128().measure(data, place[here] - base, end[here] - base)
        # A field that does not end is found by the engine.
        bits = np.where(sizes == 0, 63, np.minimum(7 * sizes, 63))
        bad = (value[here] < 0) | (value[here] >> bits != 0)
        if bad.any():
            rows, first = lows[here][bad], int(value[here][bad][0])
            fail(
                graph, rows, f"makes {first:#x}, which its field cannot hold",
                TargetOutOfRangeError, first, low=0, high=(1 << int(bits[bad][0])) - 1,
                target_address=int(address[edges.target[rows[0]]]) & ADDRESS_MASK,
            )  # fmt: skip


def _make_absolute(graph: LinkGraph, rows: Int64Array) -> None:
    """Turn ``auipc`` into ``lui``."""
    edges = graph.edge_table
    code = (_read(graph, rows) & ~np.uint32(OPCODE)) | np.uint32(LUI)
    write_code(graph, edges.block[rows], edges.offset[rows], code)
    edges.kind[rows] = K.R_RISCV_HI20


def _make_far_absolute(graph: LinkGraph, halves: Halves) -> None:
    """Let ``auipc`` for a target that it does not reach be ``lui``, if that reaches it."""
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = halves.high[edges.kind[halves.high] == K.R_RISCV_PCREL_HI20]
    rows = rows[symbols.kind[edges.target[rows]] != DEFINED]
    if len(rows) == 0:
        return
    address = symbols.value[edges.target[rows]].view(np.int64) + edges.addend[rows]
    far = ~fits_signed32(address - _places(graph, rows)) & fits_signed32(address)
    rows = rows[far]
    _make_absolute(graph, rows[(_read(graph, rows) & OPCODE) == AUIPC])
