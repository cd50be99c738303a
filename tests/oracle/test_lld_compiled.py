"""The output of jitlink equals that of ld.lld, for more compiler options.

Debian's archives are position-independent code of the small code model. These tests add other code
models, absolute addresses, debug information, and, in assembly, every relocation type and every
instruction that a linker may rewrite.
"""

from pathlib import Path

import pytest

from tests.oracle.check import LAYOUTS, linkers
from tests.oracle.compare import Comparison
from tests.oracle.placement import ObjectFile
from tests.toolchain import CompilerName, compile_c

SOURCES = Path(__file__).resolve().parent.parent / "sources"

FLAGS = {
    "unoptimized": ("-O0",),
    "PIC": ("-O2", "-fPIC"),
    "PIC, no stubs": ("-O2", "-fPIC", "-fno-plt"),
    "many sections": ("-O2", "-fPIE", "-ffunction-sections", "-fdata-sections"),
    "debug information": ("-O1", "-g"),
    "medium code model": ("-O2", "-fPIC", "-mcmodel=medium"),
    "large code model": ("-O2", "-fPIC", "-mcmodel=large"),
}
# Code with 32-bit absolute addresses can be at low addresses only. That of the large code model can
# be at any address, but ld.lld refuses its frames where they need dynamic relocations.
ABSOLUTE = {
    "absolute": ("-O2", "-fno-pic"),
    "absolute, common symbols": ("-O0", "-fno-pic", "-fcommon"),
    "absolute, medium code model": ("-O2", "-fno-pic", "-mcmodel=medium"),
    "absolute, large code model": ("-O2", "-fno-pic", "-mcmodel=large"),
}

# ld.lld supports neither R_X86_64_GOTPCREL64, R_X86_64_GOTPLT64, nor PC64 to far symbols.
EVERYTHING = """
    .text
    .globl f, hidden_function, local_data
    .hidden hidden_function, near_data, near_function
    .weak weak_function
    .type f, @function
f:
    .cfi_startproc
    movq extern_data@GOTPCREL(%rip), %rax
    movl extern_data@GOTPCREL(%rip), %eax
    movq extern_data@GOTPCREL(%rip), %r13
    testq %rcx, extern_data@GOTPCREL(%rip)
    testl %ecx, extern_data@GOTPCREL(%rip)
    testl %r9d, extern_data@GOTPCREL(%rip)
    addq extern_data@GOTPCREL(%rip), %r8
    orq extern_data@GOTPCREL(%rip), %rdx
    adcq extern_data@GOTPCREL(%rip), %r15
    sbbq extern_data@GOTPCREL(%rip), %rsi
    andl extern_data@GOTPCREL(%rip), %esi
    subq local_data@GOTPCREL(%rip), %rdi
    xorl local_data@GOTPCREL(%rip), %r14d
    cmpq local_data@GOTPCREL(%rip), %r12
    call *extern_function@GOTPCREL(%rip)
    jmp *extern_function@GOTPCREL(%rip)
    call *hidden_function@GOTPCREL(%rip)
    jmp *hidden_function@GOTPCREL(%rip)
    pushq extern_data@GOTPCREL(%rip)
    imulq extern_data@GOTPCREL(%rip), %rbx
    cmpb $0, extern_data@GOTPCREL(%rip)
    movq extern_data@GOTPCREL+4(%rip), %rax
    call extern_function@PLT
    call extern_function
    jmp extern_function@PLT
    jne extern_function
    jmp near_function+8
    call weak_function@PLT
    cmpq $0, weak_function@GOTPCREL(%rip)
    call ifunc
    call *ifunc@GOTPCREL(%rip)
    movq ifunc@GOTPCREL(%rip), %rax
    leaq ifunc(%rip), %rax
    leaq _GLOBAL_OFFSET_TABLE_(%rip), %rbx
    movabsq $_GLOBAL_OFFSET_TABLE_-., %r11
    movabsq $local_data@GOTOFF, %rax
    movabsq $near_data@GOTOFF, %rax
    movabsq $extern_data@GOT, %rax
    movabsq $extern_function@PLTOFF, %rax
    movabsq $hidden_function@PLTOFF, %rax
    movl $extern_data@GOT, %eax
    movabsq $extern_data, %rax
    leaq local_data+12(%rip), %rax
    movb $1, local_data+3(%rip)
    movl $77, local_data+4(%rip)
    leaq near_data(%rip), %rax
    ret
    .cfi_endproc
    .size f, .-f
    .type hidden_function, @function
hidden_function:
    .cfi_startproc
    .cfi_def_cfa_offset 16
    ret
    .cfi_endproc
    .size hidden_function, .-hidden_function
resolver:
    .cfi_startproc
    leaq hidden_function(%rip), %rax
    ret
    .cfi_endproc
    .globl ifunc
    .type ifunc, @gnu_indirect_function
    .set ifunc, resolver

    .section .text.other,"ax",@progbits
    .cfi_startproc
    jmp f+1
    jmp .text
    .cfi_endproc

    .data
    .type local_data, @object
    .balign 32
local_data:
    .quad f
    .quad extern_data+8
    .quad extern_near-.
    .quad f-.
    .quad ifunc
    .quad weak_function
    .quad .bss+4
    .quad f@SIZE
    .long f@SIZE
    .quad local_data@SIZE+7
    .long f-.
    .long near_data+3-.
    .long extern_data@GOTPCREL
    .reloc ., R_X86_64_GOTPC32, _GLOBAL_OFFSET_TABLE_
    .long 0
    .reloc ., R_X86_64_GOTPC64, _GLOBAL_OFFSET_TABLE_+5
    .quad 0
    .reloc ., R_X86_64_PC16, .data
    .word 0
    .reloc ., R_X86_64_PC8, .Lnear
.Lnear:
    .byte 0
    .quad common_data
    .quad common_byte
    .size local_data, .-local_data
    .bss
    .zero 40
    .comm common_data,24,16
    .comm common_byte,1,1
"""

ABSOLUTE_ADDRESSES = """
    .globl f
f:
    movl $data, %eax
    movq $data+4, %rax
    movl extern_data(,%rcx,4), %eax
    movl extern_data, %eax
    movabsl data, %eax
    call f
    .data
data:
    .long data
    .long extern_data+3
"""


def compare(layout: str, directory: Path, path: Path) -> Comparison:
    source = ObjectFile(path.name, path.read_bytes())
    with linkers(layout, directory) as both:
        return both.compare([source], both.place([source]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("source", ["everything.c", "shapes.cpp"])
def test_compiled(
    source: str, flags: str, layout: str, compiler: CompilerName, tmp_path: Path
) -> None:
    result = compare(layout, tmp_path, compile_c(SOURCES / source, compiler, FLAGS[flags]))
    assert result.differences == []
    assert result.sections > 5
    assert result.frames > 2


# The pinned compiler generates position-independent code only.
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", ABSOLUTE)
@pytest.mark.parametrize("source", ["everything.c", "shapes.cpp"])
def test_compiled_for_low_addresses(
    source: str, flags: str, compiler: CompilerName, tmp_path: Path
) -> None:
    result = compare("low", tmp_path, compile_c(SOURCES / source, compiler, ABSOLUTE[flags]))
    assert result.differences == []
    assert result.sections > 5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_relocation_type(layout: str, tmp_path: Path) -> None:
    result = compare(layout, tmp_path, compile_c(EVERYTHING, "clang", suffix=".s"))
    assert result.differences == []
    assert result.frames == 4
    # Fields of these types have different bytes and the same target, with each layout.
    assert {3, 9, 25, 26, 27, 29, 31} <= result.resolved.keys()


def test_absolute_addresses(tmp_path: Path) -> None:
    result = compare("low", tmp_path, compile_c(ABSOLUTE_ADDRESSES, "clang", suffix=".s"))
    assert result.differences == []
    assert not result.resolved
