"""Instructions that are executed out of line do what they do in place."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import TargetOutOfRangeError
from tests.toolchain import compile_c

COUNT = 8
_MAP_32BIT = 0x40
VALUES = [0x1122334455667788, 2, 3, 40, 50, 60, 70, 80]

# Functions of a buffer (%rdi) and a small number (%rsi), which may return an address.
FORMS = """
mov var(%rip), %rax
movq var, %rcx; mov %rcx, %rax
movl var(%rip), %eax
movslq var+4(%rip), %rax
movzbl var+1(%rip), %eax
movsbq var+1(%rip), %rax
push %r12; mov var+8(%rip), %r12; mov %r12, %rax; pop %r12
mov %rbx, %r8; mov var+8(%rip), %rbx; mov %rbx, %rax; mov %r8, %rbx
mov var+8(%rip), %rsi; mov %rsi, %rax
mov var+8(%rip), %rdi; mov %rdi, %rax
mov var+1(%rip), %dl; movzbl %dl, %eax
lea var(%rip), %rax
lea var+16(%rip), %r11; mov %r11, %rax
mov $var, %eax
mov $var+8, %r9d; mov %r9, %rax
mov $var, %rax
mov $var, %r10; mov %r10, %rax
xor %eax, %eax; lea var(%rip), %rdx; cmp $var, %rdx; sete %al
xor %eax, %eax; cmp %rsi, var(%rip); seta %al
xor %eax, %eax; cmp var+8(%rip), %rsi; sete %al
addq $5, var(%rip); mov var(%rip), %rax
addq $500, var+8(%rip)
movq $7, var+24(%rip)
movq $-7, var(,%rsi,8)
movw $0x1234, var(%rip)
movb $5, var+3(%rip)
movq $var, (%rdi); mov (%rdi), %rax
movq $var+8, 8(%rdi,%rsi,8); mov 24(%rdi), %rax
mov %rdi, %r13; movq $var, 8(%r13); mov 8(%rdi), %rax
push %rbp; mov %rdi, %rbp; movq $var, 8(%rbp); mov 8(%rdi), %rax; pop %rbp
mov var(,%rsi,8), %rax
mov var(%rsi), %rax
mov %rsi, %r12; mov var+8(%r12,%r12,8), %rax
mov var+8(%rsi,%rsi,4), %rax
mov %rsi, %r13; mov var(%r13), %rax
mov %rsi, %r9; movl var+8(,%r9,4), %r8d; mov %r8, %rax
push %rbx; mov %rsi, %rbx; mov var(%rbx), %rax; pop %rbx
movsd var(%rip), %xmm4; movq %xmm4, %rax
movq var(%rip), %xmm11; movq %xmm11, %rax
movdqu var(%rip), %xmm3; movdqu %xmm3, (%rdi)
movq %rsi, %xmm6; movsd %xmm6, var(%rip)
cvttsd2si var+8(%rip), %rax
xor %eax, %eax; test $var, %rdi; setne %al
mov %rsi, %rax; add $var, %rax
mov %rsi, %r8; add $var, %r8; mov %r8, %rax
push %r15; movslq var+4(%rsi), %r15; mov %r15, %rax; pop %r15
mov var+1(%rsi), %dh; movzbl %dh, %eax
cmp %rsi, %rsi; mov %rdi, %rax; cmove var+8(%rip), %rax
imul $300, var+8(%rip), %rax
imul $3, var+8(%rip), %rax
mov %rsi, %rcx; shlq %cl, var(%rip)
shlq $3, var+8(%rip)
lock incq var(%rip)
mov $9, %eax; lock xadd %rax, var+8(%rip)
mov $9, %eax; xchg %rax, var+8(%rip)
mov $2, %eax; lock cmpxchg %rsi, var+8(%rip)
negq var+8(%rip)
notb var+8(%rip)
mov $6, %eax; xor %edx, %edx; divq var+8(%rip)
mov $6, %eax; mulq var+8(%rip); add %rdx, %rax
stc; mov var(%rip), %rax; sbb %rax, %rax
mov %rsi, -8(%rsp); mov %rsi, -128(%rsp); mov var+8(%rip), %rax; add -8(%rsp), %rax; add -128(%rsp), %rax
fildq var+8(%rip); fistpq (%rdi)
andl $-16, var(%rip)
btsq $5, var+8(%rip)
pcmpeqd var(%rip), %xmm0; movq %xmm0, %rax; xor %eax, %eax
pmovzxbw var+8(%rip), %xmm3; movq %xmm3, %rax
pxor %xmm3, %xmm3; pinsrq $0, var+8(%rip), %xmm3; movq %xmm3, %rax
xor %eax, %eax; crc32q var+8(%rip), %rax
movzwl var+2(%rip), %eax
mov var+2(%rip), %ax; movzwl %ax, %eax
testb $8, var(%rip); setne %al; movzbl %al, %eax
testl $0x8000, var(%rip); setne %al; movzbl %al, %eax
mov $3, %ecx; 1: addq $5, var(%rip); dec %ecx; jnz 1b; jmp 2f; 2: mov var(%rip), %rax; jrcxz 3f; 3:
.data; .quad 1f; .text; xor %eax, %eax; 1: mov var(%rip), %rax
""".strip().splitlines()  # noqa: E501

# These have an address as operand or result that is 32 bits wide, use the stack, or registers that
# they do not name, may be entered elsewhere than at their beginning, are behind what cannot be
# decoded, or have two relocations.
REFUSED = """
pushq var(%rip); pop %rax
mov %rsp, %rdx; mov var(%rip), %rsp; mov %rdx, %rsp
call *var(%rip)
vmovsd var(%rip), %xmm0
pushq $var; pop %rax
cmpl $var, %edi
movl $var, (%rdi)
movq $var, (%rsp)
movq $var, other(%rip)
mov var(%rbx,%rsi,8), %rdi
mov var(%eip), %rax
mov var+1(%rip), %ah
lock cmpxchg16b var(%rip)
sgdt var(%rip)
jne 1f; lock; 1: incq var(%rip)
jmp 1f; .byte 0x48; 1: mov var(%rip), %eax
lea 1f(%rip), %rax; jmp *%rax; .byte 0x48; 1: mov var(%rip), %eax
jne 1f; lock; middle: incq var(%rip); 1:
.byte 0x40; mov var(%rip), %rax
.byte 0x48; mov var(%rip), %ax
extrq $2, $3, %xmm0; mov var(%rip), %rax
mov var(%rip), %rax; jmp 1f; .byte 0x06; 1:
.section .text.cold, "ax"; .globl cold; cold: jmp 1f; .text; lock; 1: incq var(%rip)
.data; .quad 1f; .text; lock; 1: incq var(%rip)
.reloc .+1, R_X86_64_8, other; mov var(%rip), %rax
""".strip().splitlines()


def _assembly(forms: list[str]) -> str:
    functions = [
        f".globl form{n}\n.type form{n}, @function\nform{n}: {form}; ret\n"
        f".size form{n}, .-form{n}\n"
        for n, form in enumerate(forms)
    ]
    return ".text\n" + "".join(functions) + ".data\nother: .quad 0\n"


@cache
def _object() -> Path:
    return compile_c(_assembly(FORMS), "gcc", suffix=".s")


def _run(library: jitlink.Library, number: int, address: int) -> tuple[int, list[int], list[int]]:
    """What a function returns, and leaves in the variable and the buffer."""
    variable = (ctypes.c_uint64 * COUNT).from_address(address)
    buffer = (ctypes.c_uint64 * COUNT)(*VALUES[::-1])
    for index, value in enumerate(VALUES):
        variable[index] = value
    function = library.function(f"form{number}")
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_long), ctypes.c_uint64
    result = function(ctypes.addressof(buffer), 2)
    span = range(address, address + 8 * COUNT)
    relative = [each - address if each in span else each for each in (result, *buffer)]
    return relative[0], list(variable), relative[1:]


def test_what_is_far_away_is_used_as_what_is_near() -> None:
    near = compile_c(f"long var[{COUNT}] = {{1}};", "gcc", ["-fno-pic"])
    variable = (ctypes.c_uint64 * COUNT)()
    address = ctypes.addressof(variable)
    assert address > 1 << 31
    with (
        jitlink.load(_object(), near) as expected,
        jitlink.load(_object(), definitions={"var": address}) as library,
    ):
        assert expected["var"] < 1 << 31
        assert library["form0"] < 1 << 31
        for number, form in enumerate(FORMS):
            done = _run(library, number, address)
            assert done == _run(expected, number, expected["var"]), form


def test_a_given_address_that_pie_code_does_not_reach() -> None:
    source = """
    extern int counter;
    int *place(void) { return &counter; }
    int step(int k) { return counter += k; }
    """
    compiled = compile_c(source, "gcc", ["-O1", "-fPIE"])
    # Libraries, and linked code, are more than 2 GiB above.
    with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | _MAP_32BIT) as memory:
        variable = ctypes.c_int.from_buffer(memory)
        variable.value = 40
        address = ctypes.addressof(variable)
        with jitlink.load(compiled, definitions={"counter": address}) as library:
            assert library["step"] > 1 << 32
            assert library.step(2) == 42
            assert variable.value == 42
            place = library.function("place")
            place.restype = ctypes.c_void_p
            assert place() == address
        del variable


def test_a_given_address_that_other_code_does_not_reach() -> None:
    compiled = compile_c(_assembly(["pushq var(%rip); pop %rax"]), "gcc", suffix=".s")
    with pytest.raises(TargetOutOfRangeError) as caught:
        jitlink.load(compiled, definitions={"var": 0x1234})
    error = caught.value
    assert (error.target, error.target_address) == ("var", 0x1234)
    assert (error.low, error.high) == (-(1 << 31), (1 << 31) - 1)
    assert error.value == 0x1234 - 4 - (error.block_address + error.offset)
    assert "an address of which nothing is known" in str(error)


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_moved_is_refused(form: str) -> None:
    # Absolute addresses elsewhere keep the code low.
    compiled = compile_c(_assembly([form, "mov $other, %eax"]), "gcc", suffix=".s")
    variable = (ctypes.c_uint64 * COUNT)()
    with pytest.raises(TargetOutOfRangeError) as caught:
        jitlink.load(compiled, definitions={"var": ctypes.addressof(variable)})
    assert caught.value.target == "var"
    assert "function form0" in str(caught.value)
