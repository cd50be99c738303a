"""Machine code of AArch64 for lazy calls, and for functions that another process implements.

The trampoline passes the identity in x17, which calls through stubs may change, as x16. The
reentry saves the registers that may hold arguments or the address for a result, also those of
vector functions but for SVE's. x18, the platform register, stays as it is.

Specification: Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64), 6.
"""

from __future__ import annotations

from jitlink.arch.aarch64 import GOT_PLT
from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.arch.reentry import LANDING_WORDS, HostFunctionCode, ReentryCode

_TRAMPOLINE = bytes.fromhex(
    "5f2403d5 11000090"  # bti c; adrp x17, identity
    "310240f9 70000058"  # ldr x17, [x17, :lo12:identity]; ldr x16, reentry
    "00021fd6 1f2003d5"  # br x16; nop
    "0000000000000000"  # reentry
)
_REENTRY = bytes.fromhex(
    "5f2403d5 fd7bbfa9"  # bti c; stp x29, x30, [sp, #-0x10]!
    "fd030091 ff0304d1"  # mov x29, sp; sub sp, sp, #0x100
    "e00700a9 e20f01a9"  # stp x0, x1, [sp]; stp x2, x3, [sp, #0x10]
    "e41702a9 e61f03a9"  # stp x4, x5, [sp, #0x20]; stp x6, x7, [sp, #0x30]
    "e82704a9 ea2f05a9"  # stp x8, x9, [sp, #0x40]; stp x10, x11, [sp, #0x50]
    "ec3706a9 ee3f07a9"  # stp x12, x13, [sp, #0x60]; stp x14, x15, [sp, #0x70]
    "e00704ad e20f05ad"  # stp q0, q1, [sp, #0x80]; stp q2, q3, [sp, #0xa0]
    "e41706ad e61f07ad"  # stp q4, q5, [sp, #0xc0]; stp q6, q7, [sp, #0xe0]
    "e00311aa e1031eaa"  # mov x0, x17; mov x1, x30
    "90020058 00023fd6"  # ldr x16, callback; blr x16
    "f10300aa 510000b5"  # mov x17, x0; cbnz x17, 1f
    "51020058 e00740a9"  # ldr x17, fallback; 1: ldp x0, x1, [sp]
    "e20f41a9 e41742a9"  # ldp x2, x3, [sp, #0x10]; ldp x4, x5, [sp, #0x20]
    "e61f43a9 e82744a9"  # ldp x6, x7, [sp, #0x30]; ldp x8, x9, [sp, #0x40]
    "ea2f45a9 ec3746a9"  # ldp x10, x11, [sp, #0x50]; ldp x12, x13, [sp, #0x60]
    "ee3f47a9 e00744ad"  # ldp x14, x15, [sp, #0x70]; ldp q0, q1, [sp, #0x80]
    "e20f45ad e41746ad"  # ldp q2, q3, [sp, #0xa0]; ldp q4, q5, [sp, #0xc0]
    "e61f47ad bf030091"  # ldp q6, q7, [sp, #0xe0]; mov sp, x29
    "fd7bc1a8 20021fd6"  # ldp x29, x30, [sp], #0x10; br x17
    "0000000000000000 0000000000000000"  # callback, fallback
)
_LANDING = bytes.fromhex(
    "5f2403d5 fd7bbea9"  # bti c; stp x29, x30, [sp, #-0x20]!
    "fd030091 f30b00f9"  # mov x29, sp; str x19, [sp, #0x10]
    "90020058 00023fd6"  # ldr x16, ensure; blr x16
    "f303002a 70020058"  # mov w19, w0; ldr x16, thread_ident
    "00023fd6 61020058"  # blr x16; ldr x1, exception
    "90020058 00023fd6"  # ldr x16, set_async_exc; blr x16
    "e003132a 70020058"  # mov w0, w19; ldr x16, release
    "00023fd6 f30b40f9"  # blr x16; ldr x19, [sp, #0x10]
    "fd7bc2a8 e0031faa"  # ldp x29, x30, [sp], #0x20; mov x0, xzr
    "e1031faa 00e4006f"  # mov x1, xzr; movi v0.2d, #0
    "01e4006f 02e4006f"  # movi v1.2d, #0; movi v2.2d, #0
    "03e4006f c0035fd6"  # movi v3.2d, #0; ret
) + bytes(8 * len(LANDING_WORDS))

REENTRY = ReentryCode(
    got_plt=GOT_PLT,
    trampoline=_TRAMPOLINE,
    identity_edges=((K.PAGE21, 4, 0), (K.PAGE_OFFSET12_SHIFT3, 8, 0)),
    reentry_edges=((K.POINTER64, 24, 0),),
    alignment=16,
    reentry=_REENTRY,
    landing=_LANDING,
)
"""Machine code for calls of functions that are not linked yet."""

# bti c; adrp x16, record; add x16, x16, :lo12:record; ldr x17, [x16]; br x17
HOST_FUNCTION = HostFunctionCode(
    bytes.fromhex("5f2403d5 10000090 10020091 110240f9 20021fd6"),
    ((K.PAGE21, 4, 0), (K.PAGE_OFFSET12, 8, 0)),
    4,
)
"""Machine code for functions that another process implements."""
