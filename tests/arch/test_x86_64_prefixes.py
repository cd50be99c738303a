"""Relaxation of instructions with prefixes: the rewritten code computes what the original does.

Prefixes are written as bytes before each instruction, so that the relocation is of the type that
may be relaxed; what assemblers emit for the same mnemonics is checked beside it. The code runs on
this processor, and its bytes are those of ld.lld, except where ld.lld's are wrong.
"""

import ctypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.arch.disassembly import disassemble
from tests.arch.test_x86_64 import (
    ARGUMENT,
    FORMS,
    LOW,
    TARGET,
    Form,
    assemble,
    call,
    code_between,
    pretend_far,
)
from tests.linking import Linker
from tests.oracle.elf_file import ElfFile
from tests.toolchain import COMPILERS, CompilerName, compile_c, require, run

BRANCH_PREFIXES = {
    "none": "",
    "notrack": "3e",
    "bnd": "f2",
    "cs": "2e",
    "addr32": "67",
    "rex": "40",
    "rex64": "48",
    "notrack rex64": "3e 48",
    "data16 rex64": "66 48",
    "data16 data16 rex64": "66 66 48",
    "data16 cs rex64": "66 2e 48",
    "cs data16 rex64": "2e 66 48",
}
"""Prefixes of calls and jumps; those of call thunks and of TLS sequences are among them."""
OPERAND_PREFIXES = {
    "none": "",
    "data16": "66",
    "data16 data16": "66 66",
    "data16 cs": "66 2e",
    "cs data16": "2e 66",
    "cs": "2e",
    "repz": "f3",
}


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


def directive(prefixes: str) -> str:
    return "".join(f".byte {int(each, 16):#x}\n" for each in prefixes.split())


def with_prefixes(form: Form, prefixes: str) -> str:
    """The function of a form, with prefixes before its instruction."""
    label = f"{form.name}.at:"
    return form.body.replace(label, f"{label}\n{directive(prefixes)}")


# Calls and jumps


def branches(prefixes: str) -> str:
    return f"""
        .globl calls, calls.at, calls.end, jumps, jumps.at, jumps.end
    calls:
        sub $8, %rsp
        test %rsp, %rsp
    calls.at:
        {directive(prefixes)}
        call *target@GOTPCREL(%rip)
    calls.end:
        add $8, %rsp
        inc %rax
        ret
    jumps:
        test %rsp, %rsp
    jumps.at:
        {directive(prefixes)}
        jmp *target@GOTPCREL(%rip)
    jumps.end:
    """


@pytest.mark.parametrize("name", BRANCH_PREFIXES)
def test_calls_and_jumps(linker: Linker, name: str) -> None:
    prefixes = bytes.fromhex(BRANCH_PREFIXES[name])
    linked = linker.link(assemble(branches(BRANCH_PREFIXES[name])), assemble(TARGET))
    assert [call(linked, each, 1) for each in ("calls", "jumps")] == [43, 42]
    # A processor that obeys the operand-size prefix must find the REX.W that overrides it.
    is_kept = 0x66 in prefixes
    expected = b"\xff\x15" if is_kept else b"\x67\xe8"
    assert code_between(linked, "calls")[: len(prefixes) + 2] == prefixes + expected
    assert code_between(linked, "jumps")[: len(prefixes) + 1] == prefixes + b"\xe9"


@pytest.mark.parametrize("name", BRANCH_PREFIXES)
def test_bytes_of_calls_and_jumps_are_those_of_lld(
    linker: Linker, name: str, tmp_path: Path
) -> None:
    path = compile_c(".text\n" + branches(BRANCH_PREFIXES[name]), suffix=".s")
    linked = linker.link(path, assemble(TARGET))
    theirs = lld_bytes(path, compile_c(TARGET, suffix=".s"), tmp_path)
    for symbol in ("calls", "jumps"):
        mine, other = code_between(linked, symbol), theirs(symbol)
        assert len(mine) == len(other)
        if (symbol, "66" in BRANCH_PREFIXES[name]) == ("calls", True):
            # ld.lld makes REX.W void.
            assert other[-6:-4] == b"\x67\xe8"
        else:
            field = slice(-5, -1) if symbol == "jumps" else slice(-4, None)
            assert without(mine, field) == without(other, field)


def without(code: bytes, part: slice) -> bytes:
    changed = bytearray(code)
    changed[part] = bytes(4)
    return bytes(changed)


def lld_bytes(
    path: Path, target: Path, directory: Path, kind: str = "-pie"
) -> Callable[[str], bytes]:
    """Link with ld.lld; a function that returns the code between the labels of a name."""
    output = directory / "linked"
    run([require("ld.lld-22"), kind, "-e0", "-o", output, path, target])
    elf = ElfFile(output.read_bytes())
    addresses = {each.name: each.value for each in elf.symbols}

    def between(name: str) -> bytes:
        start, end = addresses[f"{name}.at"], addresses[f"{name}.end"]
        text = next(s for s in elf.sections if s.address <= start < s.address + s.size)
        return elf.content(text)[start - text.address : end - text.address]

    return between


def test_an_instruction_that_ends_like_prefixes(linker: Linker) -> None:
    """``mov $0x48660000, %eax`` ends in the bytes of a ``data16 rex64``."""
    source = """
        .globl f, g, f.at, g.at
    f:  sub $8, %rsp
        mov $0x48660000, %eax
    f.at:
        call *target@GOTPCREL(%rip)
        add $8, %rsp
        ret
    g:  sub $8, %rsp
        mov $0x48000000, %eax
    g.at:
        call *target@GOTPCREL(%rip)
        add $8, %rsp
        ret
    """
    linked = linker.link(assemble(source), assemble(TARGET))
    assert [call(linked, name, 1) for name in "fg"] == [42, 42]
    assert [linked.read(f"{name}.at", 2) for name in "fg"] == [b"\xff\x15", b"\x67\xe8"]


def test_bytes_of_another_block_are_no_prefixes(linker: Linker) -> None:
    source = """
        .section .text.a, "ax"
        .byte 0x66, 0x66, 0x48
        .section .text.b, "ax"
        .globl f
    f:  call *target@GOTPCREL(%rip)
        .section .text.c, "ax"
        .byte 0x66, 0x66, 0x66
        .section .text.d, "ax"
        .globl g
    g:  rex64 call *target@GOTPCREL(%rip)
        .section .text.e, "ax"
        .byte 0x66, 0x66, 0x66
        .section .text.f, "ax"
        .globl h
    h:  add low@GOTPCREL(%rip), %eax
    """
    linked = linker.link(assemble(source), assemble(TARGET), externals={"low": LOW})
    assert linked.read("f", 2) == b"\x67\xe8"
    assert linked.read("g", 3) == b"\x48\x67\xe8"
    assert linked.read("h", 2) == b"\x81\xc0"


# Instructions with an operand


@pytest.mark.parametrize("where", ["near", "low"])
@pytest.mark.parametrize("name", OPERAND_PREFIXES)
def test_operands(linker: Linker, name: str, where: str) -> None:
    """Every form computes what it does when it reads the operand from the GOT."""
    data = linker.link(assemble(".data\n.globl there\nthere: .quad 1"))
    address = {"near": data.address("there"), "low": LOW}[where]
    # The prefix makes operands of 32 bits have 16.
    source = assemble(
        "\n".join(labels() + [with_prefixes(f, OPERAND_PREFIXES[name]) for f in FORMS])
    )
    relaxed = linker.link(source, externals={"target": address})
    kept = linker.link(source, externals={"target": address}, configure=pretend_far(address))
    for form in FORMS:
        for argument in (ARGUMENT, address, 0):
            result = call(relaxed, form.name, argument)
            assert result == call(kept, form.name, argument), (form, hex(argument))
        is_wide = form.register.startswith("r") and not form.register.endswith("d")
        is_relaxed = code_between(relaxed, form.name)[:-4] != code_between(kept, form.name)[:-4]
        if where == "near":
            assert is_relaxed == (form.operation == "mov")
        else:
            assert is_relaxed == (is_wide or "data16" not in name)


def labels() -> list[str]:
    return [f".globl {form.name}.at\n.globl {form.name}.end" for form in FORMS]


def test_mov_with_an_address_size_prefix_is_not_relaxed(linker: Linker) -> None:
    """It reads 64 bits at an address of 32; ``lea`` would compute 32 bits only."""
    source = """
        .globl f, f.at, g
    f:  ret
    f.at:
        mov target@GOTPCREL(%eip), %rax
        ret
    g:  mov target@GOTPCREL(%rip), %rax
        ret
    """
    linked = linker.link(assemble(source), assemble(TARGET))
    assert linked.read("f.at", 4) == bytes.fromhex("67488b05")
    assert linked.read("g", 3) == bytes.fromhex("488d05")


@pytest.mark.parametrize("rex", ["44", "45", "41"])
def test_a_rex_prefix_that_the_relocation_does_not_tell_of(linker: Linker, rex: str) -> None:
    """Its register bits would be those of another operand."""
    source = f"""
        .globl f, f.at, f.end
    f:  mov %rdi, %rax
        mov %rdi, %r8
    f.at:
        .byte 0x{rex}
        add target@GOTPCREL(%rip), %eax
    f.end:
        lea (%rax, %r8, 2), %rax
        ret
    """
    relaxed = linker.link(assemble(source), externals={"target": LOW})
    kept = linker.link(assemble(source), externals={"target": LOW}, configure=pretend_far(LOW))
    assert call(relaxed, "f", 7) == call(kept, "f", 7)
    assert code_between(relaxed, "f")[:3] == bytes.fromhex(f"{rex} 03 05")


def test_bytes_that_are_no_such_prefix_are_not_changed(linker: Linker) -> None:
    """A relocation type that claims a REX prefix, where there is none."""
    source = """
        .globl f
    f:  .byte 0x90, 0x8b, 0x05
        .reloc ., R_X86_64_REX_GOTPCRELX, target - 4
        .long 0
        ret
        .globl g
    g:  .byte 0x90, 0x40, 0x8b, 0x05
        .reloc ., R_X86_64_CODE_4_GOTPCRELX, target - 4
        .long 0
        ret
        .globl h
    h:  .byte 0xd5, 0x88, 0x8b, 0x05
        .reloc ., R_X86_64_CODE_4_GOTPCRELX, target - 4
        .long 0
        ret
        .globl k
    k:  .byte 0x48, 0x8b, 0x87
        .reloc ., R_X86_64_REX_GOTPCRELX, target - 4
        .long 0
        ret
    """
    linked = linker.link(assemble(source), externals={"target": LOW})
    codes = [linked.read("f", 3), linked.read("g", 4), linked.read("h", 4), linked.read("k", 3)]
    assert codes == [bytes.fromhex(each) for each in ("908b05", "90408b05", "d5888b05", "488b87")]


# REX2

APX_REGISTERS = ["r16", "r17d", "r23", "r24", "r31", "r31d"]
APX = [f"{operation} target@GOTPCREL(%rip), %{register}"
       for operation in ("mov", "add", "cmp", "xor", "sbb")
       for register in APX_REGISTERS]  # fmt: skip
APX += [f"test %{register}, target@GOTPCREL(%rip)" for register in APX_REGISTERS]
APX_SOURCE = "\n".join(
    [".globl apx.at, apx.end", "apx.at:", *APX, "apx.end:", "ret"]
)  # fmt: skip


def test_registers_of_apx(linker: Linker, tmp_path: Path) -> None:
    """The upper bits of the register move in the REX2 prefix."""
    linked = linker.link(assemble(APX_SOURCE), externals={"target": LOW})
    texts = disassemble(code_between(linked, "apx"), tmp_path)
    assert len(texts) == len(APX)
    for source, text in zip(APX, texts, strict=True):
        operation, register = source.split(" ")[0], re.findall("%r[0-9]+d?", source)[-1]
        suffix = "l" if register.endswith("d") else "q"
        assert text.split(" ") == [operation + suffix, f"${LOW},", register]


def test_bytes_of_apx_instructions_are_those_of_lld(linker: Linker, tmp_path: Path) -> None:
    source = APX_SOURCE.replace("\nmov", "\n# mov")  # ld.lld writes lea.
    path = compile_c(".text\n" + source, suffix=".s")
    data = compile_c(".data\n.globl target\ntarget: .quad 1", suffix=".s")
    theirs = lld_bytes(path, data, tmp_path, "-no-pie")("apx")
    linked = linker.link(path, externals={"target": LOW})
    mine = code_between(linked, "apx")
    assert len(mine) == len(theirs)
    for start in range(0, len(mine), 8):
        assert mine[start : start + 4] == theirs[start : start + 4]


# Compilers and assemblers

THREAD_LOCAL = """
    __thread int x = 3;
    static __thread long y = 4;
    int f(void) { return x++; }
    long g(void) { y += 2; return y; }
"""


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("model", ["global-dynamic", "local-dynamic"])
def test_calls_of_tls_sequences(
    linker: Linker, compiler: CompilerName, level: str, model: str
) -> None:
    """The compiler's sequence has the prefixes that the linker must not void."""
    flags = (level, "-fPIC", "-fno-plt", f"-ftls-model={model}")
    compiled = compile_c(THREAD_LOCAL, compiler, flags)
    far = ctypes.cast(ctypes.CDLL(None).__tls_get_addr, ctypes.c_void_p).value
    assert far is not None
    # In range of the sequence's call.
    jump = ".globl near\nnear: jmp *pointer(%rip)\n.data\npointer: .quad far"
    near = linker.link(assemble(jump), externals={"far": far}).address("near")
    linked = linker.link(compiled, externals={"__tls_get_addr": near})
    assert [linked.function(name)() for name in "ffgg"] == [3, 4, 6, 8]


def test_what_assemblers_emit(linker: Linker) -> None:
    source = """
        .globl f, g, h, f.at, g.at, h.at, f.end, g.end, h.end, target
    f:  sub $8, %rsp
    f.at:
        data16 rex64 call *target@GOTPCREL(%rip)
    f.end:
        add $8, %rsp
        ret
    g:  sub $8, %rsp
    g.at:
        notrack call *target@GOTPCREL(%rip)
    g.end:
        add $8, %rsp
        ret
    h:
    h.at:
        rex64 jmp *target@GOTPCREL(%rip)
    h.end:
    target:
        mov $7, %eax
        ret
    """
    linked = linker.link(assemble(source))
    assert [call(linked, name, 0) for name in "fgh"] == [7, 7, 7]
    codes = [code_between(linked, name)[:4].hex(" ") for name in "fgh"]
    assert codes[0] == "66 48 ff 15"
    assert codes[1].startswith("3e 67 e8")
    assert codes[2].startswith("48 e9")
