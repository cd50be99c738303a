"""Machine code of RISC-V of 64 bits for lazy calls, and for functions of another process.

The trampoline passes the identity in t1, which calls through stubs may change, as t3. The reentry
saves the registers that may hold arguments or a return address, which for compiler support
functions is t0, and the other temporaries; of functions of the vector calling convention, which
lazy stubs cannot stand for, not the vector registers. The floating-point registers are those of
LP64D, which Linux requires. Landing pads of Zicfilp are not written, as in stubs: no system
enforces them yet.

Specification: RISC-V Calling Conventions (psABI), "Integer Calling Convention" and "Hardware
Floating-Point Calling Convention"; t1 and t2 hold no arguments.
"""

from __future__ import annotations

from jitlink.arch.reentry import LANDING_WORDS, HostFunctionCode, ReentryCode
from jitlink.arch.riscv import GOT_PLT
from jitlink.arch.riscv import RISCVEdgeKind as K

_TRAMPOLINE = bytes.fromhex(
    "17030000 03330300"  # auipc t1, %pcrel_hi(identity); ld t1, %pcrel_lo(identity)(t1)
    "170e0000 033e0e01"  # auipc t3, 0; ld t3, reentry
    "67000e00 13000000"  # jr t3; nop
    "0000000000000000"  # reentry
)
_REENTRY = bytes.fromhex(
    "130101f4 233c110a"  # addi sp, sp, -192; sd ra, 184(sp)
    "2338810a 1304010c"  # sd s0, 176(sp); addi s0, sp, 192
    "23305100 23347100"  # sd t0, 0(sp); sd t2, 8(sp)
    "2338a100 233cb100"  # sd a0, 16(sp); sd a1, 24(sp)
    "2330c102 2334d102"  # sd a2, 32(sp); sd a3, 40(sp)
    "2338e102 233cf102"  # sd a4, 48(sp); sd a5, 56(sp)
    "23300105 23341105"  # sd a6, 64(sp); sd a7, 72(sp)
    "2338d105 233ce105"  # sd t4, 80(sp); sd t5, 88(sp)
    "2330f107 2734a106"  # sd t6, 96(sp); fsd fa0, 104(sp)
    "2738b106 273cc106"  # fsd fa1, 112(sp); fsd fa2, 120(sp)
    "2730d108 2734e108"  # fsd fa3, 128(sp); fsd fa4, 136(sp)
    "2738f108 273c0109"  # fsd fa5, 144(sp); fsd fa6, 152(sp)
    "2730110b 13050300"  # fsd fa7, 160(sp); mv a0, t1
    "93850000 17030000"  # mv a1, ra; auipc t1, 0
    "03334308 e7000300"  # ld t1, callback; jalr t1
    "13030500 63160300"  # mv t1, a0; bnez t1, 1f
    "17030000 03338307"  # auipc t1, 0; ld t1, fallback
    "83320100 83338100"  # 1: ld t0, 0(sp); ld t2, 8(sp)
    "03350101 83358101"  # ld a0, 16(sp); ld a1, 24(sp)
    "03360102 83368102"  # ld a2, 32(sp); ld a3, 40(sp)
    "03370103 83378103"  # ld a4, 48(sp); ld a5, 56(sp)
    "03380104 83388104"  # ld a6, 64(sp); ld a7, 72(sp)
    "833e0105 033f8105"  # ld t4, 80(sp); ld t5, 88(sp)
    "833f0106 07358106"  # ld t6, 96(sp); fld fa0, 104(sp)
    "87350107 07368107"  # fld fa1, 112(sp); fld fa2, 120(sp)
    "87360108 07378108"  # fld fa3, 128(sp); fld fa4, 136(sp)
    "87370109 07388109"  # fld fa5, 144(sp); fld fa6, 152(sp)
    "8738010a 8330810b"  # fld fa7, 160(sp); ld ra, 184(sp)
    "0334010b 1301010c"  # ld s0, 176(sp); addi sp, sp, 192
    "67000300 13000000"  # jr t1; nop
    "0000000000000000 0000000000000000"  # callback, fallback
)
_LANDING = bytes.fromhex(
    "130101fe 233c1100"  # addi sp, sp, -32; sd ra, 24(sp)
    "23388100 23349100"  # sd s0, 16(sp); sd s1, 8(sp)
    "13040102 17030000"  # addi s0, sp, 32; auipc t1, 0
    "03334306 e7000300"  # ld t1, ensure; jalr t1
    "93040500 17030000"  # mv s1, a0; auipc t1, 0
    "0333c305 e7000300"  # ld t1, thread_ident; jalr t1
    "97050000 83b58505"  # auipc a1, 0; ld a1, exception
    "17030000 03338305"  # auipc t1, 0; ld t1, set_async_exc
    "e7000300 13850400"  # jalr t1; mv a0, s1
    "17030000 03330305"  # auipc t1, 0; ld t1, release
    "e7000300 83308101"  # jalr t1; ld ra, 24(sp)
    "03340101 83348100"  # ld s0, 16(sp); ld s1, 8(sp)
    "13010102 13050000"  # addi sp, sp, 32; li a0, 0
    "93050000 530500f2"  # li a1, 0; fmv.d.x fa0, zero
    "d30500f2 67800000"  # fmv.d.x fa1, zero; ret
) + bytes(8 * len(LANDING_WORDS))

REENTRY = ReentryCode(
    got_plt=GOT_PLT[64],
    trampoline=_TRAMPOLINE,
    identity_edges=((K.R_RISCV_PCREL_HI20, 0, 0), (K.DELTA_LO12_I, 4, 4)),
    reentry_edges=((K.R_RISCV_64, 24, 0),),
    alignment=16,
    reentry=_REENTRY,
    landing=_LANDING,
)
"""Machine code for calls of functions that are not linked yet."""

# auipc t1, %pcrel_hi(record); addi t1, t1, %pcrel_lo(record); ld t2, 0(t1); jr t2
HOST_FUNCTION = HostFunctionCode(
    bytes.fromhex("17030000 13030300 83330300 67800300"),
    ((K.R_RISCV_PCREL_HI20, 0, 0), (K.DELTA_LO12_I, 4, 4)),
    4,
)
"""Machine code for functions that another process implements."""
