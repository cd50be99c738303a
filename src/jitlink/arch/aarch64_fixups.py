"""AArch64: the fixups of its edge kinds.

Specification: ELF for the Arm 64-bit Architecture (AAELF64), section 5.7; Arm Architecture
Reference Manual, C6 (encodings).
"""

from __future__ import annotations

from collections.abc import Iterator

from jitlink.arch.aarch64 import GOT_PLT, TLS_GOT_REQUESTS
from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.fixups import Advice, BitSlice, Check, Fixup, FixupTable, Flip
from jitlink.graph.edges import EdgeKind

_PCREL, _PAGES, _FROM_GOT = "S + A - P", "Page(S + A) - Page(P)", "S + A - GOT"
_TPOFF, _DTPOFF = "S + A - TP", "S + A - DTP"
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


def _tls_low12(expression: str, place: str, what: str) -> Iterator[Fixup]:
    """Fixups for the low 12 bits of an offset in units of 1, 2, 4, ... bytes: checked, and not."""
    for shift in range(5):
        name = f"{place}_LOW12" + (f"_SHIFT{shift}" if shift else "")
        slices = (BitSlice(shift, 12 - shift, 10),)
        summary = f"low 12 bits of the {what}, in units of {1 << shift}"
        for kind, check in ((K[name], Check.UNSIGNED), (K[f"{name}_NC"], Check.NONE)):
            yield _code(kind, expression, slices, summary, check, 12, 1 << shift)


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
        for expression, place in ((_PCREL, "PCREL"), (_FROM_GOT, "FROM_GOT"))
        for row in (
            *(_signed_move(K[f"MOVE_WIDE16_{place}_G{n}"], expression, n) for n in range(4)),
            *(_move(K[f"MOVE_WIDE16_{place}_G{n}_NC"], expression, n) for n in range(3)),
            *(_move(K[f"MOVE_KEEP16_{place}_G{n}"], expression, n, _S) for n in range(3)),
            _move(K[f"MOVE_KEEP16_{place}_G3"], expression, 3),
        )
    ),
    *(
        row
        for expression, place, what in (
            (_TPOFF, "TPOFF", "offset from the thread pointer"),
            (_DTPOFF, "DTPOFF", "offset in the TLS block"),
        )
        for row in (
            *(_signed_move(K[f"MOVE_WIDE16_{place}_G{n}"], expression, n) for n in range(3)),
            *(_move(K[f"MOVE_WIDE16_{place}_G{n}_NC"], expression, n) for n in range(2)),
            *(_move(K[f"MOVE_KEEP16_{place}_G{n}"], expression, n, _S) for n in range(3)),
            _code(
                K[f"{place}_HIGH12"], expression, (BitSlice(12, 12, 10),),
                f"bits 12 to 23 of the {what}", _U, 24,
            ),
            *_tls_low12(expression, place, what),
        )
    ),
    *(
        Fixup(
            kind, "", 4, endianness="" if kind in _DATA_REQUESTS else "little",
            summary="request for a GOT entry; transformed to the kind it names",
        )
        for kind in (*GOT_PLT.got_requests, *TLS_GOT_REQUESTS)
    ),
)  # fmt: skip

FIXUPS = FixupTable(ROWS)
BIG_ENDIAN_FIXUPS = FixupTable(ROWS, endianness="big")
