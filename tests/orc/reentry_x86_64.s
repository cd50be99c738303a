# What the bytes in jitlink.arch.x86_64_reentry are assembled from.

    .section .trampoline,"ax"
    push identity(%rip)
    jmp reentry

    .section .reentry,"ax"
    push %rbp
    mov %rsp, %rbp
    push %rbx
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    mov $1, %eax
    cpuid
    bt $27, %ecx
    jnc 1f
    mov $13, %eax
    xor %ecx, %ecx
    cpuid
    sub %rbx, %rsp
    and $-64, %rsp
    lea 512(%rsp), %rdi
    xor %eax, %eax
    mov $8, %ecx
    rep stosq
    mov $0x800e7, %eax
    xor %edx, %edx
    xsave64 (%rsp)
    mov $1, %ebx
    jmp 2f
1:  sub $512, %rsp
    and $-64, %rsp
    fxsave64 (%rsp)
    xor %ebx, %ebx
2:  mov 8(%rbp), %rdi
    mov 16(%rbp), %rsi
    call *callback(%rip)
    test %rax, %rax
    cmovz fallback(%rip), %rax
    mov %rax, 8(%rbp)
    test %ebx, %ebx
    jz 3f
    mov $0x800e7, %eax
    xor %edx, %edx
    xrstor64 (%rsp)
    jmp 4f
3:  fxrstor64 (%rsp)
4:  lea -80(%rbp), %rsp
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    pop %rbx
    pop %rbp
    lea 8(%rsp), %rsp
    jmp *-8(%rsp)
    nop
    nop
callback:
    .quad 0
fallback:
    .quad 0

    .section .landing,"ax"
    push %rbx
    call *PyGILState_Ensure(%rip)
    mov %eax, %ebx
    call *PyThread_get_thread_ident(%rip)
    mov %rax, %rdi
    mov exception(%rip), %rsi
    call *PyThreadState_SetAsyncExc(%rip)
    mov %ebx, %edi
    call *PyGILState_Release(%rip)
    pop %rbx
    xor %eax, %eax
    xor %edx, %edx
    pxor %xmm0, %xmm0
    pxor %xmm1, %xmm1
    ret
    nop
    nop
    nop
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
    lea record(%rip), %r11
    jmp *(%r11)
