# What the bytes in jitlink.arch.riscv_reentry are assembled from.

    .option norelax
    .option norvc

    .section .trampoline,"ax"
1:  auipc t1, %pcrel_hi(identity)
    ld t1, %pcrel_lo(1b)(t1)
1:  auipc t3, %pcrel_hi(reentry)
    ld t3, %pcrel_lo(1b)(t3)
    jr t3
    nop
reentry:
    .quad 0

    .section .reentry,"ax"
    addi sp, sp, -192
    sd ra, 184(sp)
    sd s0, 176(sp)
    addi s0, sp, 192
    sd t0, 0(sp)
    sd t2, 8(sp)
    sd a0, 16(sp)
    sd a1, 24(sp)
    sd a2, 32(sp)
    sd a3, 40(sp)
    sd a4, 48(sp)
    sd a5, 56(sp)
    sd a6, 64(sp)
    sd a7, 72(sp)
    sd t4, 80(sp)
    sd t5, 88(sp)
    sd t6, 96(sp)
    fsd fa0, 104(sp)
    fsd fa1, 112(sp)
    fsd fa2, 120(sp)
    fsd fa3, 128(sp)
    fsd fa4, 136(sp)
    fsd fa5, 144(sp)
    fsd fa6, 152(sp)
    fsd fa7, 160(sp)
    mv a0, t1
    mv a1, ra
1:  auipc t1, %pcrel_hi(callback)
    ld t1, %pcrel_lo(1b)(t1)
    jalr t1
    mv t1, a0
    bnez t1, 2f
1:  auipc t1, %pcrel_hi(fallback)
    ld t1, %pcrel_lo(1b)(t1)
2:  ld t0, 0(sp)
    ld t2, 8(sp)
    ld a0, 16(sp)
    ld a1, 24(sp)
    ld a2, 32(sp)
    ld a3, 40(sp)
    ld a4, 48(sp)
    ld a5, 56(sp)
    ld a6, 64(sp)
    ld a7, 72(sp)
    ld t4, 80(sp)
    ld t5, 88(sp)
    ld t6, 96(sp)
    fld fa0, 104(sp)
    fld fa1, 112(sp)
    fld fa2, 120(sp)
    fld fa3, 128(sp)
    fld fa4, 136(sp)
    fld fa5, 144(sp)
    fld fa6, 152(sp)
    fld fa7, 160(sp)
    ld ra, 184(sp)
    ld s0, 176(sp)
    addi sp, sp, 192
    jr t1
    .balign 8
callback:
    .quad 0
fallback:
    .quad 0

    .section .landing,"ax"
    addi sp, sp, -32
    sd ra, 24(sp)
    sd s0, 16(sp)
    sd s1, 8(sp)
    addi s0, sp, 32
1:  auipc t1, %pcrel_hi(PyGILState_Ensure)
    ld t1, %pcrel_lo(1b)(t1)
    jalr t1
    mv s1, a0
1:  auipc t1, %pcrel_hi(PyThread_get_thread_ident)
    ld t1, %pcrel_lo(1b)(t1)
    jalr t1
1:  auipc a1, %pcrel_hi(exception)
    ld a1, %pcrel_lo(1b)(a1)
1:  auipc t1, %pcrel_hi(PyThreadState_SetAsyncExc)
    ld t1, %pcrel_lo(1b)(t1)
    jalr t1
    mv a0, s1
1:  auipc t1, %pcrel_hi(PyGILState_Release)
    ld t1, %pcrel_lo(1b)(t1)
    jalr t1
    ld ra, 24(sp)
    ld s0, 16(sp)
    ld s1, 8(sp)
    addi sp, sp, 32
    li a0, 0
    li a1, 0
    fmv.d.x fa0, zero
    fmv.d.x fa1, zero
    ret
    .balign 8
PyGILState_Ensure:
    .quad 0
PyThread_get_thread_ident:
    .quad 0
exception:
    .quad 0
PyThreadState_SetAsyncExc:
    .quad 0
PyGILState_Release:
    .quad 0

    .section .host_function,"ax"
1:  auipc t1, %pcrel_hi(record)
    addi t1, t1, %pcrel_lo(1b)
    ld t2, 0(t1)
    jr t2
