# int straddling(int count): calls old so many times, and returns how many have returned 1 or 2.
# The four bytes of the call's distance are on two pages.
    .text
    .balign 4096
    .zero 4096 - 11, 0x90
    .globl straddling
straddling:
    push %rbx
    xor %ebx, %ebx
1:  mov $0, %eax
    call old@PLT
    cmp $1, %eax
    je 2f
    cmp $2, %eax
    jne 3f
2:  inc %ebx
    dec %edi
    jnz 1b
3:  mov %ebx, %eax
    pop %rbx
    ret
