# What the bytes in jitlink.arch.aarch64_reentry are assembled from.

    .section .trampoline,"ax"
    bti c
    adrp x17, identity
    ldr x17, [x17, :lo12:identity]
    ldr x16, reentry
    br x16
    nop
reentry:
    .quad 0

    .section .reentry,"ax"
    bti c
    stp x29, x30, [sp, #-0x10]!
    mov x29, sp
    sub sp, sp, #0x100
    stp x0, x1, [sp]
    stp x2, x3, [sp, #0x10]
    stp x4, x5, [sp, #0x20]
    stp x6, x7, [sp, #0x30]
    stp x8, x9, [sp, #0x40]
    stp x10, x11, [sp, #0x50]
    stp x12, x13, [sp, #0x60]
    stp x14, x15, [sp, #0x70]
    stp q0, q1, [sp, #0x80]
    stp q2, q3, [sp, #0xa0]
    stp q4, q5, [sp, #0xc0]
    stp q6, q7, [sp, #0xe0]
    mov x0, x17
    mov x1, x30
    ldr x16, callback
    blr x16
    mov x17, x0
    cbnz x17, 1f
    ldr x17, fallback
1:  ldp x0, x1, [sp]
    ldp x2, x3, [sp, #0x10]
    ldp x4, x5, [sp, #0x20]
    ldp x6, x7, [sp, #0x30]
    ldp x8, x9, [sp, #0x40]
    ldp x10, x11, [sp, #0x50]
    ldp x12, x13, [sp, #0x60]
    ldp x14, x15, [sp, #0x70]
    ldp q0, q1, [sp, #0x80]
    ldp q2, q3, [sp, #0xa0]
    ldp q4, q5, [sp, #0xc0]
    ldp q6, q7, [sp, #0xe0]
    mov sp, x29
    ldp x29, x30, [sp], #0x10
    br x17
callback:
    .quad 0
fallback:
    .quad 0

    .section .landing,"ax"
    bti c
    stp x29, x30, [sp, #-0x20]!
    mov x29, sp
    str x19, [sp, #0x10]
    ldr x16, PyGILState_Ensure
    blr x16
    mov w19, w0
    ldr x16, PyThread_get_thread_ident
    blr x16
    ldr x1, exception
    ldr x16, PyThreadState_SetAsyncExc
    blr x16
    mov w0, w19
    ldr x16, PyGILState_Release
    blr x16
    ldr x19, [sp, #0x10]
    ldp x29, x30, [sp], #0x20
    mov x0, xzr
    mov x1, xzr
    movi v0.2d, #0
    movi v1.2d, #0
    movi v2.2d, #0
    movi v3.2d, #0
    ret
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
    bti c
    adrp x16, record
    add x16, x16, :lo12:record
    ldr x17, [x16]
    br x17
