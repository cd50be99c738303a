"""AArch64: edge kinds, their fixups, GOT entries, stubs and relaxations.

Instructions are 32-bit words, little-endian in either byte order of data. Code addresses data by
page: ``adrp`` computes the address of a 4 KiB page within 4 GiB, and an instruction after it holds
the low 12 bits, divided by its access size if it is a load or store. Calls and jumps reach 128 MiB,
conditional branches 1 MiB, test-and-branch instructions 32 KiB; beyond that range calls and jumps
go through a stub, and the other branches, which are no calls, through a jump beside their own code,
which must reach the target. The large code model builds addresses from parts of 16 bits; for the
signed groups of relocations the linker chooses between ``movz`` and, for negative values, ``movn``.

A pointer jump stub is ``adrp x16, pointer; ldr x16, [x16, pointer]; br x16``; the ABI lets linkers
change x16 and x17 between a call and the entry of the callee. In code that is compiled for branch
target identification the stub begins with a landing pad, since its address may be taken.

Edge kinds keep LLVM's names (JITLink/aarch64.h). Specification: ELF for the Arm 64-bit
Architecture (AAELF64), section 5.7; Arm Architecture Reference Manual, C6 (encodings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from jitlink.arch.reentry import HostFunctionCode, Jump
from jitlink.fixups import Advice, BitSlice, Check, Fixup, FixupTable, Flip, resolved
from jitlink.graph import LinkGraph
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID, KEEP_ALIVE, EdgeKind
from jitlink.graph.tables import EXTERNAL
from jitlink.passes.got_plt import BypassTargets, GotPltSpec, accepts, bypass_stubs

UInt32Array = npt.NDArray[np.uint32]


class AArch64EdgeKind(EdgeKind):
    """Edge kinds of AArch64; `ROWS` has their fixups."""

    INVALID = INVALID, "INVALID RELOCATION"
    KEEP_ALIVE = KEEP_ALIVE, "Keep-Alive"
    POINTER64 = 2, "Pointer64"
    POINTER32 = 4, "Pointer32"
    DELTA64 = 5, "Delta64"
    DELTA32 = 6, "Delta32"
    NEG_DELTA64 = 7, "NegDelta64"
    NEG_DELTA32 = 8, "NegDelta32"
    BRANCH26_PCREL = 9, "Branch26PCRel"
    TEST_AND_BRANCH14_PCREL = 10, "TestAndBranch14PCRel"
    COND_BRANCH19_PCREL = 11, "CondBranch19PCRel"
    LDR_LITERAL19 = 13, "LDRLiteral19"
    ADR_LITERAL21 = 14, "ADRLiteral21"
    PAGE21 = 15, "Page21"
    PAGE_OFFSET12 = 16, "PageOffset12"
    GOT_PAGE_OFFSET15 = 17, "GotPageOffset15"
    REQUEST_GOT_AND_TRANSFORM_TO_PAGE21 = 18, "RequestGOTAndTransformToPage21"
    REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12 = 19, "RequestGOTAndTransformToPageOffset12"
    REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET15 = 20, "RequestGOTAndTransformToPageOffset15"
    REQUEST_GOT_AND_TRANSFORM_TO_DELTA32 = 21, "RequestGOTAndTransformToDelta32"
    # LLVM differs: a kind determines which bits are written where. For PageOffset12 and MoveWide16
    # LLVM decodes the instruction; here PageOffset12 is that of a byte access or an addition.
    PAGE_OFFSET12_SHIFT1 = 32, "PageOffset12Shift1"
    PAGE_OFFSET12_SHIFT2 = 33, "PageOffset12Shift2"
    PAGE_OFFSET12_SHIFT3 = 34, "PageOffset12Shift3"
    PAGE_OFFSET12_SHIFT4 = 35, "PageOffset12Shift4"
    MOVE_WIDE16_G0 = 36, "MoveWide16G0"
    MOVE_WIDE16_G0_NC = 37, "MoveWide16G0NC"
    MOVE_WIDE16_G1 = 38, "MoveWide16G1"
    MOVE_WIDE16_G1_NC = 39, "MoveWide16G1NC"
    MOVE_WIDE16_G2 = 40, "MoveWide16G2"
    MOVE_WIDE16_G2_NC = 41, "MoveWide16G2NC"
    MOVE_WIDE16_G3 = 42, "MoveWide16G3"
    # LLVM differs: it has none of the kinds below, whose relocations it refuses.
    POINTER16 = 48, "Pointer16"
    DELTA16 = 49, "Delta16"
    PAGE21_NC = 50, "Page21NC"
    DELTA64_FROM_GOT = 51, "Delta64FromGOT"
    DELTA32_FROM_GOT = 52, "Delta32FromGOT"
    DELTA32_TO_FUNCTION = 53, "Delta32ToFunction"
    DELTA32_TO_PTR_JUMP_STUB_BYPASSABLE = 54, "Delta32ToPtrJumpStubBypassable"
    BRANCH26_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE = 55, "Branch26PCRelToPtrJumpStubBypassable"
    TEST_AND_BRANCH14_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE = (
        56, "TestAndBranch14PCRelToPtrJumpStubBypassable")  # fmt: skip
    COND_BRANCH19_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE = (
        57, "CondBranch19PCRelToPtrJumpStubBypassable")  # fmt: skip
    GOT_OFFSET15 = 58, "GotOffset15"
    REQUEST_GOT_AND_TRANSFORM_TO_GOT_OFFSET15 = 59, "RequestGOTAndTransformToGotOffset15"
    REQUEST_GOT_AND_TRANSFORM_TO_LDR_LITERAL19 = 60, "RequestGOTAndTransformToLDRLiteral19"
    MOVE_WIDE16_SIGNED_G0 = 64, "MoveWide16SignedG0"
    MOVE_WIDE16_SIGNED_G1 = 65, "MoveWide16SignedG1"
    MOVE_WIDE16_SIGNED_G2 = 66, "MoveWide16SignedG2"
    MOVE_WIDE16_PCREL_G0 = 67, "MoveWide16PCRelG0"
    MOVE_WIDE16_PCREL_G0_NC = 68, "MoveWide16PCRelG0NC"
    MOVE_WIDE16_PCREL_G1 = 69, "MoveWide16PCRelG1"
    MOVE_WIDE16_PCREL_G1_NC = 70, "MoveWide16PCRelG1NC"
    MOVE_WIDE16_PCREL_G2 = 71, "MoveWide16PCRelG2"
    MOVE_WIDE16_PCREL_G2_NC = 72, "MoveWide16PCRelG2NC"
    MOVE_WIDE16_PCREL_G3 = 73, "MoveWide16PCRelG3"
    MOVE_WIDE16_FROM_GOT_G0 = 74, "MoveWide16FromGOTG0"
    MOVE_WIDE16_FROM_GOT_G0_NC = 75, "MoveWide16FromGOTG0NC"
    MOVE_WIDE16_FROM_GOT_G1 = 76, "MoveWide16FromGOTG1"
    MOVE_WIDE16_FROM_GOT_G1_NC = 77, "MoveWide16FromGOTG1NC"
    MOVE_WIDE16_FROM_GOT_G2 = 78, "MoveWide16FromGOTG2"
    MOVE_WIDE16_FROM_GOT_G2_NC = 79, "MoveWide16FromGOTG2NC"
    MOVE_WIDE16_FROM_GOT_G3 = 80, "MoveWide16FromGOTG3"
    # The same for `movk`, which keeps the other bits of the register and has no signed form.
    MOVE_KEEP16_PCREL_G0 = 81, "MoveKeep16PCRelG0"
    MOVE_KEEP16_PCREL_G1 = 82, "MoveKeep16PCRelG1"
    MOVE_KEEP16_PCREL_G2 = 83, "MoveKeep16PCRelG2"
    MOVE_KEEP16_PCREL_G3 = 84, "MoveKeep16PCRelG3"
    MOVE_KEEP16_FROM_GOT_G0 = 85, "MoveKeep16FromGOTG0"
    MOVE_KEEP16_FROM_GOT_G1 = 86, "MoveKeep16FromGOTG1"
    MOVE_KEEP16_FROM_GOT_G2 = 87, "MoveKeep16FromGOTG2"
    MOVE_KEEP16_FROM_GOT_G3 = 88, "MoveKeep16FromGOTG3"
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0 = 89, "RequestGOTAndTransformToMoveWide16G0"
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC = (
        90, "RequestGOTAndTransformToMoveWide16G0NC")  # fmt: skip
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1 = 91, "RequestGOTAndTransformToMoveWide16G1"
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1_NC = (
        92, "RequestGOTAndTransformToMoveWide16G1NC")  # fmt: skip
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G2 = 93, "RequestGOTAndTransformToMoveWide16G2"
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G2_NC = (
        94, "RequestGOTAndTransformToMoveWide16G2NC")  # fmt: skip
    REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G3 = 95, "RequestGOTAndTransformToMoveWide16G3"


K = AArch64EdgeKind

_PCREL, _PAGES, _FROM_GOT = "S + A - P", "Page(S + A) - Page(P)", "S + A - GOT"
_IMM26 = (BitSlice(2, 26, 0),)
_IMM19 = (BitSlice(2, 19, 5),)
_IMM14 = (BitSlice(2, 14, 5),)
_ADR = (BitSlice(0, 2, 29), BitSlice(2, 19, 5))
_ADRP = (BitSlice(12, 2, 29), BitSlice(14, 19, 5))


def _code(
    kind: EdgeKind,
    expression: str,
    slices: tuple[BitSlice, ...],
    summary: str,
    check: Check = Check.NONE,
    bits: int = 0,
    alignment: int = 1,
    advice: Advice | None = None,
) -> Fixup:
    """A fixup of an instruction."""
    return Fixup(
        kind, expression, 4, check, bits, alignment, slices,
        endianness="little", summary=summary, advice=advice,
    )  # fmt: skip


def _low12(kind: EdgeKind, shift: int, what: str) -> Fixup:
    """A fixup for the low 12 bits of an address in units of 2**shift bytes."""
    # The whole field is written: its upper bits are zero.
    slices = (BitSlice(shift, 12 - shift, 10),)
    return _code(kind, "S + A", slices, f"offset in the page, of {what}", alignment=1 << shift)


def _move(kind: EdgeKind, expression: str, group: int, check: Check = Check.NONE) -> Fixup:
    """A fixup for ``movz`` or ``movk``: 16 bits of the value, unmodified."""
    bits = 16 * (group + 1) + (check is Check.SIGNED)
    summary = f"bits {16 * group} to {16 * group + 15} of the value"
    return _code(kind, expression, (BitSlice(16 * group, 16, 5),), summary, check, bits)


def _signed_move(kind: EdgeKind, expression: str, group: int) -> Fixup:
    """A fixup for ``movz``, or for ``movn``, with complemented bits, if the value is negative."""
    bits = 16 * (group + 1) + 1
    slices = (BitSlice(16 * group, 16, 5, Flip.IF_NEGATIVE), BitSlice(63, 1, 30, Flip.ALWAYS))
    summary = f"bits {16 * group} to {16 * group + 15} of the value; movn if it is negative"
    check = Check.SIGNED if bits < 64 else Check.NONE
    return _code(kind, expression, slices, summary, check, bits)


_GOT_REQUESTS: dict[EdgeKind, EdgeKind] = {
    K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE21: K.PAGE21,
    K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12: K.PAGE_OFFSET12_SHIFT3,
    K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET15: K.GOT_PAGE_OFFSET15,
    K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32: K.DELTA32,
    K.REQUEST_GOT_AND_TRANSFORM_TO_GOT_OFFSET15: K.GOT_OFFSET15,
    K.REQUEST_GOT_AND_TRANSFORM_TO_LDR_LITERAL19: K.LDR_LITERAL19,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0: K.MOVE_WIDE16_FROM_GOT_G0,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC: K.MOVE_WIDE16_FROM_GOT_G0_NC,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1: K.MOVE_WIDE16_FROM_GOT_G1,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1_NC: K.MOVE_WIDE16_FROM_GOT_G1_NC,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G2: K.MOVE_WIDE16_FROM_GOT_G2,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G2_NC: K.MOVE_WIDE16_FROM_GOT_G2_NC,
    K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G3: K.MOVE_WIDE16_FROM_GOT_G3,
}
_DATA_REQUESTS = frozenset({K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32})
_S, _U, _E = Check.SIGNED, Check.UNSIGNED, Check.EITHER
_LARGE_GOT = Advice("compile with -fPIC instead of -fpic")

ROWS = (
    Fixup(K.POINTER64, "S + A", 8, summary="pointer"),
    # LLVM differs: the ABI allows signed and unsigned values in 32 and 16 bits.
    Fixup(K.POINTER32, "S + A", 4, _E, summary="pointer"),
    Fixup(K.POINTER16, "S + A", 2, _E, summary="pointer"),
    Fixup(K.DELTA64, _PCREL, 8, summary="distance from the place"),
    Fixup(K.DELTA32, _PCREL, 4, _E, summary="distance from the place"),
    Fixup(K.DELTA16, _PCREL, 2, _E, summary="distance from the place"),
    Fixup(K.NEG_DELTA64, "P - S + A", 8, summary="distance back to the target"),
    Fixup(K.NEG_DELTA32, "P - S + A", 4, _S, summary="distance back to the target"),
    Fixup(K.DELTA32_TO_FUNCTION, _PCREL, 4, _S, summary="distance to a function"),
    Fixup(
        K.DELTA32_TO_PTR_JUMP_STUB_BYPASSABLE, _PCREL, 4, _S,
        summary="distance to a stub that may be bypassed",
    ),
    Fixup(K.DELTA64_FROM_GOT, _FROM_GOT, 8, summary="distance from the GOT"),
    Fixup(K.DELTA32_FROM_GOT, _FROM_GOT, 4, _S, summary="distance from the GOT"),
    _code(K.BRANCH26_PCREL, _PCREL, _IMM26, "call or jump", _S, 28, 4),
    _code(K.COND_BRANCH19_PCREL, _PCREL, _IMM19, "conditional branch", _S, 21, 4),
    _code(K.TEST_AND_BRANCH14_PCREL, _PCREL, _IMM14, "test bit and branch", _S, 16, 4),
    _code(
        K.BRANCH26_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE, _PCREL, _IMM26,
        "call or jump to a stub that may be bypassed", _S, 28, 4,
    ),
    _code(
        K.COND_BRANCH19_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE, _PCREL, _IMM19,
        "conditional branch to an island that may be bypassed", _S, 21, 4,
    ),
    _code(
        K.TEST_AND_BRANCH14_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE, _PCREL, _IMM14,
        "test bit and branch to an island that may be bypassed", _S, 16, 4,
    ),
    _code(K.LDR_LITERAL19, _PCREL, _IMM19, "load from near the program counter", _S, 21, 4),
    _code(K.ADR_LITERAL21, _PCREL, _ADR, "address near the program counter", _S, 21),
    _code(
        K.PAGE21, _PAGES, _ADRP, "address of the page", _S, 33,
        advice=Advice(
            "compile with -fPIC, or with -mcmodel=large for code that must be position-dependent",
            outside_only=True,
        ),
    ),
    _code(K.PAGE21_NC, _PAGES, _ADRP, "address of the page"),
    _low12(K.PAGE_OFFSET12, 0, "a byte, or to be added"),
    _low12(K.PAGE_OFFSET12_SHIFT1, 1, "2 bytes"),
    _low12(K.PAGE_OFFSET12_SHIFT2, 2, "4 bytes"),
    _low12(K.PAGE_OFFSET12_SHIFT3, 3, "8 bytes"),
    _low12(K.PAGE_OFFSET12_SHIFT4, 4, "16 bytes"),
    _code(
        K.GOT_PAGE_OFFSET15, "S + A - Page(GOT)", (BitSlice(3, 12, 10),),
        "offset of a GOT entry from the GOT's first page", _U, 15, 8, _LARGE_GOT,
    ),
    _code(
        K.GOT_OFFSET15, _FROM_GOT, (BitSlice(3, 12, 10),),
        "offset of a GOT entry from the GOT", _U, 15, 8, _LARGE_GOT,
    ),
    _move(K.MOVE_WIDE16_G0, "S + A", 0, _U),
    _move(K.MOVE_WIDE16_G0_NC, "S + A", 0),
    _move(K.MOVE_WIDE16_G1, "S + A", 1, _U),
    _move(K.MOVE_WIDE16_G1_NC, "S + A", 1),
    _move(K.MOVE_WIDE16_G2, "S + A", 2, _U),
    _move(K.MOVE_WIDE16_G2_NC, "S + A", 2),
    _move(K.MOVE_WIDE16_G3, "S + A", 3),
    _signed_move(K.MOVE_WIDE16_SIGNED_G0, "S + A", 0),
    _signed_move(K.MOVE_WIDE16_SIGNED_G1, "S + A", 1),
    _signed_move(K.MOVE_WIDE16_SIGNED_G2, "S + A", 2),
    *(
        row
        for expression, (g0, g0_nc, g1, g1_nc, g2, g2_nc, g3), kept in (
            (
                _PCREL,
                (
                    K.MOVE_WIDE16_PCREL_G0, K.MOVE_WIDE16_PCREL_G0_NC,
                    K.MOVE_WIDE16_PCREL_G1, K.MOVE_WIDE16_PCREL_G1_NC,
                    K.MOVE_WIDE16_PCREL_G2, K.MOVE_WIDE16_PCREL_G2_NC,
                    K.MOVE_WIDE16_PCREL_G3,
                ),
                (
                    K.MOVE_KEEP16_PCREL_G0, K.MOVE_KEEP16_PCREL_G1,
                    K.MOVE_KEEP16_PCREL_G2, K.MOVE_KEEP16_PCREL_G3,
                ),
            ),
            (
                _FROM_GOT,
                (
                    K.MOVE_WIDE16_FROM_GOT_G0, K.MOVE_WIDE16_FROM_GOT_G0_NC,
                    K.MOVE_WIDE16_FROM_GOT_G1, K.MOVE_WIDE16_FROM_GOT_G1_NC,
                    K.MOVE_WIDE16_FROM_GOT_G2, K.MOVE_WIDE16_FROM_GOT_G2_NC,
                    K.MOVE_WIDE16_FROM_GOT_G3,
                ),
                (
                    K.MOVE_KEEP16_FROM_GOT_G0, K.MOVE_KEEP16_FROM_GOT_G1,
                    K.MOVE_KEEP16_FROM_GOT_G2, K.MOVE_KEEP16_FROM_GOT_G3,
                ),
            ),
        )
        for row in (
            *(_signed_move(kind, expression, n) for n, kind in enumerate((g0, g1, g2, g3))),
            *(_move(kind, expression, n) for n, kind in enumerate((g0_nc, g1_nc, g2_nc))),
            *(
                _move(kind, expression, n, _S if n < 3 else Check.NONE)
                for n, kind in enumerate(kept)
            ),
        )
    ),
    *(
        Fixup(
            kind, "", 4, endianness="" if kind in _DATA_REQUESTS else "little",
            summary="request for a GOT entry; transformed to the kind it names",
        )
        for kind in _GOT_REQUESTS
    ),
)  # fmt: skip

FIXUPS = FixupTable(ROWS)
BIG_ENDIAN_FIXUPS = FixupTable(ROWS, endianness="big")

# bti c; b
BRANCHES = frozenset({K.BRANCH26_PCREL, K.BRANCH26_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE})
"""Direct calls and jumps, those to stubs included."""
JUMP = Jump(bytes.fromhex("5f2403d5 00000014"), ((K.BRANCH26_PCREL, 4, 0),))

# bti c; adrp x16, record; add x16, x16, :lo12:record; ldr x17, [x16]; br x17
HOST_FUNCTION = HostFunctionCode(
    bytes.fromhex("5f2403d5 10000090 10020091 110240f9 20021fd6"),
    ((K.PAGE21, 4, 0), (K.PAGE_OFFSET12, 8, 0)),
    4,
)
"""Machine code for functions that another process implements."""

_BTI_C, _ADRP_X16, _LDR_X16, _BR_X16 = (
    bytes.fromhex("5f2403d5"), bytes.fromhex("10000090"), bytes.fromhex("100240f9"),
    bytes.fromhex("00021fd6"))  # fmt: skip

GOT_PLT = GotPltSpec(
    got_requests=_GOT_REQUESTS,
    stub_requests={
        K.BRANCH26_PCREL: K.BRANCH26_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE,
        K.COND_BRANCH19_PCREL: K.COND_BRANCH19_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE,
        K.TEST_AND_BRANCH14_PCREL: K.TEST_AND_BRANCH14_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE,
        K.DELTA32_TO_FUNCTION: K.DELTA32_TO_PTR_JUMP_STUB_BYPASSABLE,
    },
    external_only=frozenset(
        {
            K.BRANCH26_PCREL,
            K.COND_BRANCH19_PCREL,
            K.TEST_AND_BRANCH14_PCREL,
            K.DELTA32_TO_FUNCTION,
        }
    ),
    got_users=frozenset({K.DELTA64_FROM_GOT, K.DELTA32_FROM_GOT}),
    pointer=K.POINTER64,
    pointer_size=8,
    stub=_ADRP_X16 + _LDR_X16 + _BR_X16,
    stub_edges=((K.PAGE21, 0, 0), (K.PAGE_OFFSET12_SHIFT3, 4, 0)),
    stub_alignment=4,
    reach={
        K.BRANCH26_PCREL: 1 << 27,
        K.COND_BRANCH19_PCREL: 1 << 20,
        K.TEST_AND_BRANCH14_PCREL: 1 << 15,
    },
    no_calls=frozenset({K.COND_BRANCH19_PCREL, K.TEST_AND_BRANCH14_PCREL}),
    jump=bytes.fromhex("00000014"),  # b
    jump_edge=(K.BRANCH26_PCREL, 0),
    got_first=frozenset(
        {
            K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET15,
            K.REQUEST_GOT_AND_TRANSFORM_TO_GOT_OFFSET15,
        }
    ),
)

GOT_PLT_BTI = GOT_PLT._replace(
    stub=_BTI_C + GOT_PLT.stub,
    stub_edges=((K.PAGE21, 4, 0), (K.PAGE_OFFSET12_SHIFT3, 8, 0)),
)
"""`GOT_PLT` with a landing pad in stubs, for code with branch target identification."""

APPLY_IRELATIVE = bytes.fromhex(
    "5f2403d5 fd7bbba9"  # bti c; stp x29, x30, [sp, #-80]!
    "fd030091 f35301a9"  # mov x29, sp; stp x19, x20, [sp, #16]
    "f51300f9 f30300aa"  # str x21, [sp, #32]; mov x19, x0
    "1400018b 08038052"  # add x20, x0, x1; mov w8, #24
    "e81b00f9 ffff03a9"  # str x8, [sp, #48]; stp xzr, xzr, [sp, #56]
    "15030058 f50000b4"  # ldr x21, getauxval; cbz x21, 1f
    "00028052 a0023fd6"  # mov w0, #AT_HWCAP; blr x21
    "e01f00f9 40038052"  # str x0, [sp, #56]; mov w0, #AT_HWCAP2
    "a0023fd6 e02300f9"  # blr x21; str x0, [sp, #64]
    "7f0214eb 02010054"  # 1: cmp x19, x20; b.hs 2f
    "e01f40f9 000042b2"  # ldr x0, [sp, #56]; orr x0, x0, #_IFUNC_ARG_HWCAP
    "e1c30091 6856c1a8"  # add x1, sp, #48; ldp x8, x21, [x19], #16
    "00013fd6 a00200f9"  # blr x8; str x0, [x21]
    "f8ffff17 00008052"  # b 1b; 2: mov w0, #0
    "21008052 f51340f9"  # mov w1, #1; ldr x21, [sp, #32]
    "f35341a9 fd7bc5a8"  # ldp x19, x20, [sp, #16]; ldp x29, x30, [sp], #80
    "c0035fd6 1f2003d5"  # ret; nop
    "00000000 00000000"  # getauxval
)
"""Calls the resolver in each 16-byte pair of its arguments and stores the result through the
second pointer of the pair; returns the one zero byte of SPS success, in x0 and x1.

The arguments of a resolver are AT_HWCAP with the bit _IFUNC_ARG_HWCAP, and a structure of its size,
AT_HWCAP and AT_HWCAP2. Without `getauxval` both values are zero.
"""
APPLY_IRELATIVE_IMPORTS = {"getauxval": len(APPLY_IRELATIVE) - 8}


# Relaxation. All functions below process the instructions of many edges at once.

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
