"""RISC-V, 32 and 64 bits: edge kinds, their fixups, GOT entries and stubs.

Instructions are 32 bits, or 16 with the C extension, and little-endian. An address takes two
instructions: the first holds bits 12 to 31 (HI20; ``lui`` absolute, ``auipc`` relative to itself),
the second adds the low 12 bits (LO12) *as a signed number*, so HI20 is rounded
(`BitSlice.rounding`). The symbol of a PC-relative LO12 is not that of the address but the label of
its ``auipc``, which may be at any place and may have several LO12;
`jitlink.arch.riscv_pairs.pair_hi_lo` gives each LO12 the target of its HI20 when addresses are
known. That is so for GOT entries of thread-local variables and for TLS descriptors as well.

Code of the local exec model adds an offset to the thread pointer, tp, and is not relaxed to the
forms for offsets of 12 bits: the C library chooses the offset after memory has been allocated.

A difference of labels is a pair of edges at one place that add and subtract, or set and subtract,
because relaxation (`riscv_relax`) may reduce the difference. The fixup table has sets first, then
additions, then subtractions, and applies them in that order.

A pointer jump stub is ``auipc t3; l[wd] t3; jr t3``, which modifies t3 only. Calls to stubs and
loads from GOT entries are relaxed to refer to their target directly if it is in range. The ABI has
stubs for calls: a jump that stores no return address (``j``) must reach its target.

On RV64 ``lui`` and ``auipc`` sign-extend: absolute code must be below 2 GiB, relative code within
2 GiB of its data. On RV32 every address is in range, modulo 2**32.

Edge kinds keep LLVM's names (JITLink/riscv.h) or, where it has none, the psABI's. Specification:
RISC-V ELF psABI, chapter "Relocations"; RISC-V Instruction Set Manual, volume I, for encodings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jitlink.arch.reentry import Jump
from jitlink.fixups import Advice, BitSlice, Check, Fixup, FixupTable
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID, KEEP_ALIVE, EdgeKind
from jitlink.graph.link_graph import LinkGraph
from jitlink.leb128 import ULEB128
from jitlink.memory.tls_module import TLSValue
from jitlink.passes.got_plt import GotPltSpec
from jitlink.passes.tls import TLSGOTEntry

CodeArray = npt.NDArray[np.uint32]


class RISCVEdgeKind(EdgeKind):
    """Edge kinds of RISC-V; `FIXUPS` has their fixups."""

    INVALID = INVALID, "INVALID RELOCATION"
    KEEP_ALIVE = KEEP_ALIVE, "Keep-Alive"
    R_RISCV_32 = 2, "R_RISCV_32"
    R_RISCV_64 = 3, "R_RISCV_64"
    R_RISCV_BRANCH = 4, "R_RISCV_BRANCH"
    R_RISCV_JAL = 5, "R_RISCV_JAL"
    R_RISCV_CALL = 6, "R_RISCV_CALL"
    R_RISCV_CALL_PLT = 7, "R_RISCV_CALL_PLT"
    R_RISCV_GOT_HI20 = 8, "R_RISCV_GOT_HI20"
    R_RISCV_PCREL_HI20 = 9, "R_RISCV_PCREL_HI20"
    R_RISCV_PCREL_LO12_I = 10, "R_RISCV_PCREL_LO12_I"
    R_RISCV_PCREL_LO12_S = 11, "R_RISCV_PCREL_LO12_S"
    R_RISCV_HI20 = 12, "R_RISCV_HI20"
    R_RISCV_LO12_I = 13, "R_RISCV_LO12_I"
    R_RISCV_LO12_S = 14, "R_RISCV_LO12_S"
    R_RISCV_ADD8 = 15, "R_RISCV_ADD8"
    R_RISCV_ADD16 = 16, "R_RISCV_ADD16"
    R_RISCV_ADD32 = 17, "R_RISCV_ADD32"
    R_RISCV_ADD64 = 18, "R_RISCV_ADD64"
    R_RISCV_SUB8 = 19, "R_RISCV_SUB8"
    R_RISCV_SUB16 = 20, "R_RISCV_SUB16"
    R_RISCV_SUB32 = 21, "R_RISCV_SUB32"
    R_RISCV_SUB64 = 22, "R_RISCV_SUB64"
    R_RISCV_RVC_BRANCH = 23, "R_RISCV_RVC_BRANCH"
    R_RISCV_RVC_JUMP = 24, "R_RISCV_RVC_JUMP"
    R_RISCV_SUB6 = 25, "R_RISCV_SUB6"
    R_RISCV_SET6 = 26, "R_RISCV_SET6"
    R_RISCV_SET8 = 27, "R_RISCV_SET8"
    R_RISCV_SET16 = 28, "R_RISCV_SET16"
    R_RISCV_SET32 = 29, "R_RISCV_SET32"
    R_RISCV_32_PCREL = 30, "R_RISCV_32_PCREL"
    ALIGN_RELAXABLE = 31, "AlignRelaxable"
    NEG_DELTA32 = 32, "NegDelta32"
    R_RISCV_SET_ULEB128 = 33, "R_RISCV_SET_ULEB128"
    R_RISCV_SUB_ULEB128 = 34, "R_RISCV_SUB_ULEB128"
    # LLVM differs: it has none of the kinds below. Its CallRelaxable is here an edge of kind Relax
    # beside the call's, because other instructions can be relaxed too.
    RELAX = 35, "Relax"
    R_RISCV_PLT32 = 36, "R_RISCV_PLT32"
    R_RISCV_GOT32_PCREL = 37, "R_RISCV_GOT32_PCREL"
    GOT_LOAD_HI20 = 38, "GOTLoadHI20"
    PCREL_LO12_I_RELAXABLE = 39, "PCRelLO12IRelaxable"
    DELTA_LO12_I = 40, "DeltaLO12I"
    DELTA_LO12_S = 41, "DeltaLO12S"
    CALL_TO_PTR_JUMP_STUB_BYPASSABLE = 42, "CallToPtrJumpStubBypassable"
    RVC_LUI = 43, "RVCLui"
    JAL_WITHOUT_LINK = 44, "JALWithoutLink"
    JAL_TO_PTR_JUMP_STUB_BYPASSABLE = 45, "JALToPtrJumpStubBypassable"
    R_RISCV_TLS_GOT_HI20 = 46, "R_RISCV_TLS_GOT_HI20"
    R_RISCV_TLS_GD_HI20 = 47, "R_RISCV_TLS_GD_HI20"
    R_RISCV_TLSDESC_HI20 = 48, "R_RISCV_TLSDESC_HI20"
    R_RISCV_TPREL_HI20 = 49, "R_RISCV_TPREL_HI20"
    R_RISCV_TPREL_LO12_I = 50, "R_RISCV_TPREL_LO12_I"
    R_RISCV_TPREL_LO12_S = 51, "R_RISCV_TPREL_LO12_S"
    R_RISCV_TLS_DTPREL32 = 52, "R_RISCV_TLS_DTPREL32"
    R_RISCV_TLS_DTPREL64 = 53, "R_RISCV_TLS_DTPREL64"
    REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_POINTER = (
        54, "RequestTLSIndexInGOTAndTransformToPointer")  # fmt: skip


K = RISCVEdgeKind
S = BitSlice

# Immediate operands by instruction format.
_U_TYPE = (S(12, 20, 12, rounding=True),)
_I_TYPE = (S(0, 12, 20),)
_S_TYPE = (S(5, 7, 25), S(0, 5, 7))
_B_TYPE = (S(12, 1, 31), S(5, 6, 25), S(1, 4, 8), S(11, 1, 7))
_J_TYPE = (S(20, 1, 31), S(1, 10, 21), S(11, 1, 20), S(12, 8, 12))
_CB_TYPE = (S(8, 1, 12), S(3, 2, 10), S(6, 2, 5), S(1, 2, 3), S(5, 1, 2))
_CJ_TYPE = (
    S(11, 1, 12), S(4, 1, 11), S(8, 2, 9), S(10, 1, 8), S(6, 1, 7), S(7, 1, 6), S(1, 3, 3),
    S(5, 1, 2),
)  # fmt: skip
_C_LUI = (S(17, 1, 12), S(12, 5, 2))
_AUIPC_JALR = (*_U_TYPE, S(0, 12, 32 + 20))
_LOW6 = (S(0, 6, 0),)

DTP_BIAS = 0x800
"""What `__tls_get_addr` adds to an offset in a TLS block (TLS_DTV_OFFSET)."""

_PCREL = "S + A - P"
_TPREL = "S + A - TP"
_DTPREL = f"S + A - DTP - {DTP_BIAS}"
_ADD, _SUB = "V + S + A", "V - S - A"
_GOT_REQUEST = "request for a GOT entry; transformed to the kind it names"
_TLS_GOT_REQUEST = "request for a GOT entry for a thread-local variable"
_ABSOLUTE_CODE = Advice("compile with -fPIC")
_THROUGH_GOT = Advice("compile with -fPIC", outside_only=True)
_NEEDS_HI20 = "low 12 bits of the address whose HI20 is at the target"


def _fixups(bits: int) -> FixupTable:
    # Addresses of 32 bits wrap around, so every distance is in range.
    wide = bits == 64
    word, page = (Check.EITHER, Check.SIGNED) if wide else (Check.NONE, Check.NONE)
    delta = Check.SIGNED if wide else Check.NONE

    def call(kind: EdgeKind, summary: str) -> Fixup:
        return Fixup(kind, _PCREL, 8, page, 32, 2, slices=_AUIPC_JALR, summary=summary)

    def jal(kind: EdgeKind, summary: str) -> Fixup:
        return Fixup(kind, _PCREL, 4, Check.SIGNED, 21, 2, _J_TYPE, summary=summary)

    def hi20(kind: EdgeKind, expression: str, summary: str, advice: Advice | None = None) -> Fixup:
        return Fixup(kind, expression, 4, page, 32, slices=_U_TYPE, summary=summary, advice=advice)

    rows = [
        Fixup(K.R_RISCV_32, "S + A", 4, word, summary="pointer, or 32 bits of one"),
        Fixup(K.R_RISCV_64, "S + A", 8, summary="pointer"),
        Fixup(K.R_RISCV_32_PCREL, _PCREL, 4, delta, summary="distance from the place"),
        Fixup(K.R_RISCV_PLT32, _PCREL, 4, delta, summary="distance to a function or its stub"),
        Fixup(K.NEG_DELTA32, "P - S + A", 4, Check.SIGNED, summary="distance back to the target"),
        Fixup(K.R_RISCV_BRANCH, _PCREL, 4, Check.SIGNED, 13, 2, _B_TYPE, summary="branch"),
        jal(K.R_RISCV_JAL, "short call; a jump is given the next kind"),
        jal(K.JAL_WITHOUT_LINK, "jump, which cannot go through a stub"),
        jal(K.JAL_TO_PTR_JUMP_STUB_BYPASSABLE, "short call to a stub that may be bypassed"),
        Fixup(K.R_RISCV_RVC_BRANCH, _PCREL, 2, Check.SIGNED, 9, 2, _CB_TYPE, summary="c.beqz"),
        Fixup(K.R_RISCV_RVC_JUMP, _PCREL, 2, Check.SIGNED, 12, 2, _CJ_TYPE, summary="c.j, c.jal"),
        call(K.R_RISCV_CALL, "call or tail call"),
        call(K.R_RISCV_CALL_PLT, "call or tail call, which may go through a stub"),
        call(K.CALL_TO_PTR_JUMP_STUB_BYPASSABLE, "call to a stub that may be bypassed"),
        hi20(K.R_RISCV_HI20, "S + A", "bits 12 to 31 of an address (lui)", _ABSOLUTE_CODE),
        hi20(K.R_RISCV_PCREL_HI20, _PCREL, "bits 12 to 31 of a distance (auipc)", _THROUGH_GOT),
        hi20(K.GOT_LOAD_HI20, _PCREL, "bits 12 to 31 of the distance to a GOT entry"),
        Fixup(
            K.RVC_LUI, "S + A + 2048", 2, Check.SIGNED, 18, slices=_C_LUI,
            summary="bits 12 to 17 of an address (c.lui)",
        ),
        Fixup(
            K.R_RISCV_LO12_I, "S + A", 4, slices=_I_TYPE,
            summary="low 12 bits of an address, I-type",
        ),
        Fixup(
            K.R_RISCV_LO12_S, "S + A", 4, slices=_S_TYPE,
            summary="low 12 bits of an address, S-type",
        ),
        Fixup(
            K.DELTA_LO12_I, _PCREL, 4, slices=_I_TYPE,
            summary="low 12 bits of a distance, I-type; A includes the distance to the HI20",
        ),
        Fixup(
            K.DELTA_LO12_S, _PCREL, 4, slices=_S_TYPE,
            summary="low 12 bits of a distance, S-type; A includes the distance to the HI20",
        ),
        Fixup(K.R_RISCV_SET6, "S + A", 1, slices=_LOW6, summary="low 6 bits of a label"),
        Fixup(K.R_RISCV_SET8, "S + A", 1, summary="low 8 bits of a label"),
        Fixup(K.R_RISCV_SET16, "S + A", 2, summary="low 16 bits of a label"),
        Fixup(K.R_RISCV_SET32, "S + A", 4, summary="low 32 bits of a label"),
        Fixup(K.R_RISCV_SET_ULEB128, "S + A", 1, field=ULEB128(), summary="low bits of a label"),
        Fixup(K.R_RISCV_ADD8, _ADD, 1, summary="label to be added"),
        Fixup(K.R_RISCV_ADD16, _ADD, 2, summary="label to be added"),
        Fixup(K.R_RISCV_ADD32, _ADD, 4, summary="label to be added"),
        Fixup(K.R_RISCV_ADD64, _ADD, 8, summary="label to be added"),
        Fixup(K.R_RISCV_SUB6, _SUB, 1, slices=_LOW6, summary="label to be subtracted"),
        Fixup(K.R_RISCV_SUB8, _SUB, 1, summary="label to be subtracted"),
        Fixup(K.R_RISCV_SUB16, _SUB, 2, summary="label to be subtracted"),
        Fixup(K.R_RISCV_SUB32, _SUB, 4, summary="label to be subtracted"),
        Fixup(K.R_RISCV_SUB64, _SUB, 8, summary="label to be subtracted"),
        Fixup(K.R_RISCV_SUB_ULEB128, _SUB, 1, field=ULEB128(), summary="label to be subtracted"),
        hi20(K.R_RISCV_TPREL_HI20, _TPREL, "bits 12 to 31 of an offset from tp (lui)"),
        Fixup(
            K.R_RISCV_TPREL_LO12_I, _TPREL, 4, slices=_I_TYPE,
            summary="low 12 bits of an offset from tp, I-type",
        ),
        Fixup(
            K.R_RISCV_TPREL_LO12_S, _TPREL, 4, slices=_S_TYPE,
            summary="low 12 bits of an offset from tp, S-type",
        ),
        Fixup(K.R_RISCV_TLS_DTPREL32, _DTPREL, 4, delta, summary="offset in the TLS block"),
        Fixup(K.R_RISCV_TLS_DTPREL64, _DTPREL, 8, summary="offset in the TLS block"),
        Fixup(K.R_RISCV_TLS_GOT_HI20, "", 4, summary=_TLS_GOT_REQUEST),
        Fixup(K.R_RISCV_TLS_GD_HI20, "", 4, summary=_TLS_GOT_REQUEST),
        Fixup(K.R_RISCV_TLSDESC_HI20, "", 4, summary="request for a TLS descriptor"),
        Fixup(
            K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_POINTER, "", bits // 8,
            summary=_TLS_GOT_REQUEST,
        ),
        Fixup(K.R_RISCV_GOT_HI20, "", 4, summary=_GOT_REQUEST),
        Fixup(K.R_RISCV_GOT32_PCREL, "", 4, summary=_GOT_REQUEST),
        Fixup(K.R_RISCV_PCREL_LO12_I, "", 4, summary=_NEEDS_HI20),
        Fixup(K.PCREL_LO12_I_RELAXABLE, "", 4, summary=_NEEDS_HI20 + "; may be relaxed"),
        Fixup(K.R_RISCV_PCREL_LO12_S, "", 4, summary=_NEEDS_HI20),
        Fixup(K.RELAX, "", 0, summary="the instructions of the edge before may be relaxed"),
        Fixup(K.ALIGN_RELAXABLE, "", 0, summary="alignment of the code after A bytes of nops"),
    ]  # fmt: skip
    return FixupTable(rows)


FIXUPS = {bits: _fixups(bits) for bits in (32, 64)}
"""Fixups of RV32 and RV64, which differ in their range checks."""

_LOAD = {32: 0x2003, 64: 0x3003}
"""The instruction that loads a pointer, without its registers, by pointer size in bits."""


def _code(*words: int) -> bytes:
    return np.array(words, "<u4").tobytes()


def _got_plt(bits: int) -> GotPltSpec:
    return GotPltSpec(
        got_requests={
            K.R_RISCV_GOT_HI20: K.GOT_LOAD_HI20,
            K.R_RISCV_GOT32_PCREL: K.R_RISCV_32_PCREL,
        },
        stub_requests={
            K.R_RISCV_CALL_PLT: K.CALL_TO_PTR_JUMP_STUB_BYPASSABLE,
            K.R_RISCV_JAL: K.JAL_TO_PTR_JUMP_STUB_BYPASSABLE,
            K.R_RISCV_PLT32: K.R_RISCV_32_PCREL,
        },
        external_only=frozenset({K.R_RISCV_CALL_PLT, K.R_RISCV_JAL, K.R_RISCV_PLT32}),
        got_users=frozenset(),
        pointer=K.R_RISCV_64 if bits == 64 else K.R_RISCV_32,
        pointer_size=bits // 8,
        # auipc t3, 0; l[wd] t3, 0(t3); jr t3
        stub=_code(0x00000E17, _LOAD[bits] | 0xE0E00, 0x000E0067),
        stub_edges=((K.R_RISCV_PCREL_HI20, 0, 0), (K.DELTA_LO12_I, 4, 4)),
        stub_alignment=4,
        reach={K.R_RISCV_JAL: 1 << 20},
    )


GOT_PLT = {bits: _got_plt(bits) for bits in (32, 64)}
"""GOT entries and stubs of RV32 and RV64."""

_TLS_INDEX = (TLSValue.DTPMOD, TLSValue.DTPOFF)
TLS_GOT_REQUESTS: dict[int, dict[EdgeKind, TLSGOTEntry]] = {
    bits: {
        K.R_RISCV_TLS_GD_HI20: TLSGOTEntry(_TLS_INDEX, K.R_RISCV_PCREL_HI20),
        K.R_RISCV_TLS_GOT_HI20: TLSGOTEntry((TLSValue.TPOFF,), K.R_RISCV_PCREL_HI20),
        K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_POINTER: TLSGOTEntry(
            _TLS_INDEX, GOT_PLT[bits].pointer
        ),
    }
    for bits in (32, 64)
}
"""GOT entries of the general dynamic and initial exec models, and of TLS descriptors."""
TPREL_KINDS = frozenset((K.R_RISCV_TPREL_HI20, K.R_RISCV_TPREL_LO12_I, K.R_RISCV_TPREL_LO12_S))
DTPREL_KINDS = frozenset((K.R_RISCV_TLS_DTPREL32, K.R_RISCV_TLS_DTPREL64))
"""Kinds whose value is an offset from the thread pointer, and one in the TLS block."""

APPLY_IRELATIVE = {
    64: _code(
        0xFE010113, 0x00113C23, 0x00813823, 0x00913423,  # save ra, s0, s1
        0x00050413, 0x00B504B3,  # mv s0, a0; add s1, a0, a1
        0x02947263,  # 1: bgeu s0, s1, 2f
        0x00000513, 0x00000593,  # li a0, 0; li a1, 0: no hwcap, no hwprobe function
        0x00043283, 0x000280E7,  # ld t0, 0(s0); jalr t0
        0x00843283, 0x00A2B023,  # ld t0, 8(s0); sd a0, 0(t0)
        0x01040413, 0xFE1FF06F,  # addi s0, s0, 16; j 1b
        0x00000513, 0x00100593,  # 2: li a0, 0; li a1, 1
        0x01813083, 0x01013403, 0x00813483, 0x02010113,  # restore them
        0x00008067,  # ret
    ),
    32: _code(
        0xFF010113, 0x00112623, 0x00812423, 0x00912223, 0x01212023,  # save ra, s0, s1, s2
        0x00050913, 0x00058413, 0x00C584B3,  # mv s2, a0; mv s0, a1; add s1, a1, a2
        0x02947263,  # 1: bgeu s0, s1, 2f
        0x00000513, 0x00000593,
        0x00042283, 0x000280E7,
        0x00442283, 0x00A2A023,
        0x00840413, 0xFE1FF06F,
        0x00090023, 0x00100513,  # 2: sb zero, 0(s2); li a0, 1
        0x00A92423, 0x00090513,  # sw a0, 8(s2); mv a0, s2
        0x00C12083, 0x00812403, 0x00412483, 0x00012903, 0x01010113,
        0x00008067,
    ),
}  # fmt: skip
"""Calls the resolver in each pair of pointers in its arguments and stores the result through the
second pointer of the pair; returns the one zero byte of SPS success, in a0 and a1. The result has
12 bytes on RV32, so it is returned in memory there, whose address is the first argument."""

# auipc t1, 0; jr t1. Compilers use t1 for tail calls too.
JUMP = Jump(bytes.fromhex("17030000 67000300"), ((K.R_RISCV_CALL_PLT, 0, 0),))

BRANCHES = frozenset(
    {
        K.R_RISCV_CALL,
        K.R_RISCV_CALL_PLT,
        K.CALL_TO_PTR_JUMP_STUB_BYPASSABLE,
        K.R_RISCV_JAL,
        K.JAL_WITHOUT_LINK,
        K.JAL_TO_PTR_JUMP_STUB_BYPASSABLE,
        K.R_RISCV_RVC_JUMP,
    }
)
"""The edge kinds of direct calls and jumps."""

# Instruction fields and opcodes.
OPCODE, FUNCT3, RD, RS1 = 0x7F, 0x7000, 0x1F << 7, 0x1F << 15
LUI, AUIPC, JAL, JALR, ADDI, LOAD, NOP = 0x37, 0x17, 0x6F, 0x67, 0x13, 0x03, 0x13
C_NOP, C_J, C_JAL, C_LUI = 0x0001, 0xA001, 0x2001, 0x6001
UNIMP = 0xC0001073
_T3 = 28 << 7


def select_jumps(graph: LinkGraph) -> None:
    """Give edges on ``jal`` that is no call the kind that requests no stub (post-prune pass).

    A call with the return address in t3, which a stub overwrites, is treated likewise.
    """
    edges, table = graph.edge_table, graph.block_table
    rows = rows_where(edges.kind == K.R_RISCV_JAL)
    block, offset = edges.block[rows], edges.offset[rows]
    # Edges outside the content of their block are refused when fixups are applied.
    inside = (offset >= 0) & (offset <= table.size[block] - 4) & (table.content[block] != ZERO_FILL)
    rows = rows[inside]
    link = read_code(graph, edges.block[rows], edges.offset[rows]) & RD
    edges.kind[rows[(link == 0) | (link == _T3)]] = K.JAL_WITHOUT_LINK


def read_code(graph: LinkGraph, blocks: Int64Array, offsets: Int64Array) -> CodeArray:
    """The 32-bit instructions at offsets of blocks (uint32); the caller has checked the offsets."""
    code = np.zeros(len(blocks), np.uint32)
    places = graph.block_table.content[blocks] + offsets
    for data, base, here in graph.contents.partition(places):
        words: npt.NDArray[Any] = _words(data, np.dtype("<u4"))
        code[here] = words[places[here] - base]
    return code


def write_code(
    graph: LinkGraph, blocks: Int64Array, offsets: Int64Array, code: npt.NDArray[Any]
) -> None:
    """Write instructions at offsets of blocks; `code` is uint32, or uint16 for compressed ones."""
    places = graph.block_table.content[blocks] + offsets
    for data, base, here in graph.contents.partition(places):
        words = _words(data, code.dtype.newbyteorder("<"))
        words[places[here] - base] = code[here]


def _words(data: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An overlapping view of the words at all bytes of `data`."""
    count = max(len(data) - dtype.itemsize + 1, 0)
    return np.ndarray((count,), dtype, data.data if count else bytes(8), strides=(1,))


def is_load_of_pointer(code: CodeArray, base: CodeArray, bits: int) -> BoolArray:
    """Whether instructions load a pointer with the destination of `base` instructions as base."""
    loads: BoolArray = (code & np.uint32(OPCODE | FUNCT3)) == _LOAD[bits]
    loads &= (code & np.uint32(RS1)) >> 15 == (base & np.uint32(RD)) >> 7
    return loads


def fits_signed32(value: Int64Array) -> BoolArray:
    """Whether a HI20 and a LO12 can hold the values (bool)."""
    low, high = FIXUPS[64].by_kind[K.R_RISCV_HI20].limits
    fits: BoolArray = (value >= low) & (value <= high)
    return fits
