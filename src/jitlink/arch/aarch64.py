"""AArch64: edge kinds, GOT entries and stubs.

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

from jitlink.arch.reentry import Jump
from jitlink.graph.edges import INVALID, KEEP_ALIVE, EdgeKind
from jitlink.memory.tls_module import TLSValue
from jitlink.passes.got_plt import GotPltSpec
from jitlink.passes.init_fini import CrtiCrtn
from jitlink.passes.tls import TLSGOTEntry


class AArch64EdgeKind(EdgeKind):
    """Edge kinds of AArch64; `aarch64_fixups` has their fixups."""

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

    # TLS. LLVM has the first two only. A tls_index is a module ID and an offset in its TLS block.
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE21 = 24, "RequestTLSDescEntryAndTransformToPage21"
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE_OFFSET12 = (
        25, "RequestTLSDescEntryAndTransformToPageOffset12")  # fmt: skip
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE_OFFSET12_SHIFT3 = (
        96, "RequestTLSDescEntryAndTransformToPageOffset12Shift3")  # fmt: skip
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_ADR_LITERAL21 = (
        97, "RequestTLSDescEntryAndTransformToADRLiteral21")  # fmt: skip
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_LDR_LITERAL19 = (
        98, "RequestTLSDescEntryAndTransformToLDRLiteral19")  # fmt: skip
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_MOVE_WIDE16_G1 = (
        99, "RequestTLSDescEntryAndTransformToMoveWide16G1")  # fmt: skip
    REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC = (
        100, "RequestTLSDescEntryAndTransformToMoveWide16G0NC")  # fmt: skip
    REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_PAGE21 = (
        101, "RequestTLSIndexInGOTAndTransformToPage21")  # fmt: skip
    REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12 = (
        102, "RequestTLSIndexInGOTAndTransformToPageOffset12")  # fmt: skip
    REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_ADR_LITERAL21 = (
        103, "RequestTLSIndexInGOTAndTransformToADRLiteral21")  # fmt: skip
    REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1 = (
        104, "RequestTLSIndexInGOTAndTransformToMoveWide16G1")  # fmt: skip
    REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC = (
        105, "RequestTLSIndexInGOTAndTransformToMoveWide16G0NC")  # fmt: skip
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_PAGE21 = 106, "RequestDTPModInGOTAndTransformToPage21"
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12 = (
        107, "RequestDTPModInGOTAndTransformToPageOffset12")  # fmt: skip
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_ADR_LITERAL21 = (
        108, "RequestDTPModInGOTAndTransformToADRLiteral21")  # fmt: skip
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_LDR_LITERAL19 = (
        109, "RequestDTPModInGOTAndTransformToLDRLiteral19")  # fmt: skip
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1 = (
        110, "RequestDTPModInGOTAndTransformToMoveWide16G1")  # fmt: skip
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC = (
        111, "RequestDTPModInGOTAndTransformToMoveWide16G0NC")  # fmt: skip
    REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_PAGE21 = 112, "RequestTPOffInGOTAndTransformToPage21"
    REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12_SHIFT3 = (
        113, "RequestTPOffInGOTAndTransformToPageOffset12Shift3")  # fmt: skip
    REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_LDR_LITERAL19 = (
        114, "RequestTPOffInGOTAndTransformToLDRLiteral19")  # fmt: skip
    REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1 = (
        115, "RequestTPOffInGOTAndTransformToMoveWide16G1")  # fmt: skip
    REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC = (
        116, "RequestTPOffInGOTAndTransformToMoveWide16G0NC")  # fmt: skip
    MOVE_WIDE16_TPOFF_G0 = 117, "MoveWide16TPOffG0"
    MOVE_WIDE16_TPOFF_G0_NC = 118, "MoveWide16TPOffG0NC"
    MOVE_WIDE16_TPOFF_G1 = 119, "MoveWide16TPOffG1"
    MOVE_WIDE16_TPOFF_G1_NC = 120, "MoveWide16TPOffG1NC"
    MOVE_WIDE16_TPOFF_G2 = 121, "MoveWide16TPOffG2"
    MOVE_KEEP16_TPOFF_G0 = 122, "MoveKeep16TPOffG0"
    MOVE_KEEP16_TPOFF_G1 = 123, "MoveKeep16TPOffG1"
    MOVE_KEEP16_TPOFF_G2 = 124, "MoveKeep16TPOffG2"
    TPOFF_HIGH12 = 125, "TPOffHigh12"
    TPOFF_LOW12 = 126, "TPOffLow12"
    TPOFF_LOW12_NC = 127, "TPOffLow12NC"
    TPOFF_LOW12_SHIFT1 = 128, "TPOffLow12Shift1"
    TPOFF_LOW12_SHIFT1_NC = 129, "TPOffLow12Shift1NC"
    TPOFF_LOW12_SHIFT2 = 130, "TPOffLow12Shift2"
    TPOFF_LOW12_SHIFT2_NC = 131, "TPOffLow12Shift2NC"
    TPOFF_LOW12_SHIFT3 = 132, "TPOffLow12Shift3"
    TPOFF_LOW12_SHIFT3_NC = 133, "TPOffLow12Shift3NC"
    TPOFF_LOW12_SHIFT4 = 134, "TPOffLow12Shift4"
    TPOFF_LOW12_SHIFT4_NC = 135, "TPOffLow12Shift4NC"
    MOVE_WIDE16_DTPOFF_G0 = 136, "MoveWide16DTPOffG0"
    MOVE_WIDE16_DTPOFF_G0_NC = 137, "MoveWide16DTPOffG0NC"
    MOVE_WIDE16_DTPOFF_G1 = 138, "MoveWide16DTPOffG1"
    MOVE_WIDE16_DTPOFF_G1_NC = 139, "MoveWide16DTPOffG1NC"
    MOVE_WIDE16_DTPOFF_G2 = 140, "MoveWide16DTPOffG2"
    MOVE_KEEP16_DTPOFF_G0 = 141, "MoveKeep16DTPOffG0"
    MOVE_KEEP16_DTPOFF_G1 = 142, "MoveKeep16DTPOffG1"
    MOVE_KEEP16_DTPOFF_G2 = 143, "MoveKeep16DTPOffG2"
    DTPOFF_HIGH12 = 144, "DTPOffHigh12"
    DTPOFF_LOW12 = 145, "DTPOffLow12"
    DTPOFF_LOW12_NC = 146, "DTPOffLow12NC"
    DTPOFF_LOW12_SHIFT1 = 147, "DTPOffLow12Shift1"
    DTPOFF_LOW12_SHIFT1_NC = 148, "DTPOffLow12Shift1NC"
    DTPOFF_LOW12_SHIFT2 = 149, "DTPOffLow12Shift2"
    DTPOFF_LOW12_SHIFT2_NC = 150, "DTPOffLow12Shift2NC"
    DTPOFF_LOW12_SHIFT3 = 151, "DTPOffLow12Shift3"
    DTPOFF_LOW12_SHIFT3_NC = 152, "DTPOffLow12Shift3NC"
    DTPOFF_LOW12_SHIFT4 = 153, "DTPOffLow12Shift4"
    DTPOFF_LOW12_SHIFT4_NC = 154, "DTPOffLow12Shift4NC"


K = AArch64EdgeKind

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
_V = TLSValue
_GOT_LOAD = K.PAGE_OFFSET12_SHIFT3
_GOT_G1, _GOT_G0_NC = K.MOVE_WIDE16_FROM_GOT_G1, K.MOVE_WIDE16_FROM_GOT_G0_NC
TLS_GOT_REQUESTS: dict[EdgeKind, TLSGOTEntry] = {
    request: TLSGOTEntry(values, kind, per_module)
    for values, per_module, kinds in (
        (
            (_V.TLSDESC,), False,
            {
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE21: K.PAGE21,
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE_OFFSET12: K.PAGE_OFFSET12,
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE_OFFSET12_SHIFT3: _GOT_LOAD,
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_ADR_LITERAL21: K.ADR_LITERAL21,
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_LDR_LITERAL19: K.LDR_LITERAL19,
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_MOVE_WIDE16_G1: _GOT_G1,
                K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC: _GOT_G0_NC,
            },
        ),
        (
            (_V.DTPMOD, _V.DTPOFF), False,
            {
                K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_PAGE21: K.PAGE21,
                K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12: K.PAGE_OFFSET12,
                K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_ADR_LITERAL21: K.ADR_LITERAL21,
                K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1: _GOT_G1,
                K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC: _GOT_G0_NC,
            },
        ),
        (
            (_V.DTPMOD, _V.DTPOFF), True,
            {
                K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_PAGE21: K.PAGE21,
                K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12: K.PAGE_OFFSET12,
                K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_ADR_LITERAL21: K.ADR_LITERAL21,
                K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_LDR_LITERAL19: K.LDR_LITERAL19,
                K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1: _GOT_G1,
                K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC: _GOT_G0_NC,
            },
        ),
        (
            (_V.TPOFF,), False,
            {
                K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_PAGE21: K.PAGE21,
                K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12_SHIFT3: _GOT_LOAD,
                K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_LDR_LITERAL19: K.LDR_LITERAL19,
                K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1: _GOT_G1,
                K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC: _GOT_G0_NC,
            },
        ),
    )
    for request, kind in kinds.items()
}  # fmt: skip
"""GOT entries of the TLS models: TLS descriptors, the arguments of `__tls_get_addr` in general and
local dynamic, and an offset from the thread pointer in initial exec."""
TPOFF_KINDS, DTPOFF_KINDS = (
    frozenset(kind for kind in K if f"_{name}_" in f"_{kind.name}" and "REQUEST" not in kind.name)
    for name in ("TPOFF", "DTPOFF")
)
"""Kinds whose value is an offset from the thread pointer, and one in the TLS block."""
BRANCHES = frozenset({K.BRANCH26_PCREL, K.BRANCH26_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE})
"""Direct calls and jumps, those to stubs included."""

# bti c; b
JUMP = Jump(bytes.fromhex("5f2403d5 00000014"), ((K.BRANCH26_PCREL, 4, 0),))

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
    got_users=frozenset(
        {
            K.DELTA64_FROM_GOT,
            K.DELTA32_FROM_GOT,
            *(each for each, got in TLS_GOT_REQUESTS.items() if "FROM_GOT" in got.edge_kind.name),
        }
    ),
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

CRTI_CRTN = CrtiCrtn(
    # bti c; stp x29, x30, [sp, #-16]!; mov x29, sp; nop
    bytes.fromhex("5f2403d5 fd7bbfa9 fd030091 1f2003d5"),
    # ldp x29, x30, [sp], #16; ret
    bytes.fromhex("fd7bc1a8 c0035fd6"),
    K.POINTER64,
)

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
