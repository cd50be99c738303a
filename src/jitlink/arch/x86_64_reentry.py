"""Machine code of x86-64 for lazy calls, and for functions that another process implements.

No register is clobbered, not even those that the ABI lets linkage code change: the trampoline
pushes the identity below the return address, the reentry replaces it by the address to jump to,
and the last jump reads that from below the stack pointer, where the red zone protects it. Vector
registers are saved with XSAVE, whose area size is from CPUID (its header must be zero), or with
FXSAVE on processors without it: x87, SSE, AVX, AVX-512 and APX state, the components 0xe7 and
0x80000.

Specification: System V psABI, AMD64 supplement, 3.2; Intel 64 and IA-32 Architectures Software
Developer's Manual, volume 1, chapter 13 (XSAVE).
"""

from __future__ import annotations

from jitlink.arch.reentry import LANDING_WORDS, HostFunctionCode, ReentryCode
from jitlink.arch.x86_64 import GOT_PLT
from jitlink.arch.x86_64 import X86_64EdgeKind as K

_REENTRY = bytes.fromhex(
    "55 4889e5"  # push %rbp; mov %rsp, %rbp
    "53 50 51 52 56 57"  # push %rbx, %rax, %rcx, %rdx, %rsi, %rdi
    "4150 4151 4152 4153"  # push %r8, %r9, %r10, %r11
    "b801000000 0fa2"  # mov $1, %eax; cpuid
    "0fbae11b 7335"  # bt $27, %ecx; jnc 1f
    "b80d000000 31c9 0fa2"  # mov $13, %eax; xor %ecx, %ecx; cpuid
    "4829dc 4883e4c0"  # sub %rbx, %rsp; and $-64, %rsp
    "488dbc2400020000"  # lea 512(%rsp), %rdi
    "31c0 b908000000 f348ab"  # xor %eax, %eax; mov $8, %ecx; rep stosq
    "b8e7000800 31d2"  # mov $0x800e7, %eax; xor %edx, %edx
    "480fae2424 bb01000000 eb12"  # xsave64 (%rsp); mov $1, %ebx; jmp 2f
    "4881ec00020000 4883e4c0"  # 1: sub $512, %rsp; and $-64, %rsp
    "480fae0424 31db"  # fxsave64 (%rsp); xor %ebx, %ebx
    "488b7d08 488b7510"  # 2: mov 8(%rbp), %rdi; mov 16(%rbp), %rsi
    "ff1544000000"  # call *callback(%rip)
    "4885c0 480f440541000000"  # test %rax, %rax; cmovz fallback(%rip), %rax
    "48894508"  # mov %rax, 8(%rbp)
    "85db 740e"  # test %ebx, %ebx; jz 3f
    "b8e7000800 31d2"  # mov $0x800e7, %eax; xor %edx, %edx
    "480fae2c24 eb05"  # xrstor64 (%rsp); jmp 4f
    "480fae0c24"  # 3: fxrstor64 (%rsp)
    "488d65b0"  # 4: lea -80(%rbp), %rsp
    "415b 415a 4159 4158"  # pop %r11, %r10, %r9, %r8
    "5f 5e 5a 59 58 5b 5d"  # pop %rdi, %rsi, %rdx, %rcx, %rax, %rbx, %rbp
    "488d642408 ff6424f8"  # lea 8(%rsp), %rsp; jmp *-8(%rsp)
    "90 90"  # nop; nop
    "0000000000000000 0000000000000000"  # callback, fallback
)
_LANDING = bytes.fromhex(
    "53 ff1531000000 89c3"  # push %rbx; call *ensure(%rip); mov %eax, %ebx
    "ff1531000000 4889c7"  # call *thread_ident(%rip); mov %rax, %rdi
    "488b352f000000 ff1531000000"  # mov exception(%rip), %rsi; call *set_async_exc(%rip)
    "89df ff1531000000 5b"  # mov %ebx, %edi; call *release(%rip); pop %rbx
    "31c0 31d2"  # xor %eax, %eax; xor %edx, %edx
    "660fefc0 660fefc9 c3"  # pxor %xmm0, %xmm0; pxor %xmm1, %xmm1; ret
    "90 90 90"  # nop; nop; nop
) + bytes(8 * len(LANDING_WORDS))

REENTRY = ReentryCode(
    got_plt=GOT_PLT,
    trampoline=b"\xff\x35\0\0\0\0\xe9\0\0\0\0",  # push identity(%rip); jmp reentry
    identity_edges=((K.PCREL32, 2, 0),),
    reentry_edges=((K.BRANCH_PCREL32, 7, 0),),
    alignment=16,
    reentry=_REENTRY,
    landing=_LANDING,
)
"""Machine code for calls of functions that are not linked yet."""

# lea record(%rip), %r11; jmp *(%r11)
HOST_FUNCTION = HostFunctionCode(b"\x4c\x8d\x1d\0\0\0\0\x41\xff\x23", ((K.PCREL32, 3, 0),), 16)
"""Machine code for functions that another process implements."""
