"""Relaxation of GOT loads, calls and jumps: the relaxed instructions and their results.

Each instruction form is assembled, linked with a target that is near, at a low address or far away,
disassembled, and run if the processor has the registers.
"""

import ctypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from tests.arch.disassembly import disassemble
from tests.linking import Linked, Linker
from tests.toolchain import compile_c

MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
LOW = 0x1234_5678
FAR = 0x0000_2345_6789_ABC0
NEGATIVE = MASK64 - 0x7654_3210
ARGUMENT = 0x0123_4567_89AB_CDEF

WIDE = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16))]
NARROW = ["eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", *(f"r{n}d" for n in range(8, 16))]
FULL_NAMES = dict(zip(NARROW, WIDE, strict=True))

OPERATIONS: dict[str, Callable[[int, int, int], int]] = {
    "mov": lambda _a, b, _c: b,
    "add": lambda a, b, _: a + b,
    "or": lambda a, b, _: a | b,
    "adc": lambda a, b, carry: a + b + carry,
    "sbb": lambda a, b, carry: a - b - carry,
    "and": lambda a, b, _: a & b,
    "sub": lambda a, b, _: a - b,
    "xor": lambda a, b, _: a ^ b,
}
"""The result of an instruction in its register, from register, operand and carry flag."""


class Form(NamedTuple):
    """One instruction, and the function that contains it."""

    operation: str
    register: str

    @property
    def name(self) -> str:
        return f"{self.operation}_{self.register}"

    @property
    def mask(self) -> int:
        return MASK32 if self.register in FULL_NAMES else MASK64

    @property
    def body(self) -> str:
        """A function of one argument; returns the result (``mov``, ``add``, ...) or the flags."""
        full = FULL_NAMES.get(self.register, self.register)
        operand = f"target@GOTPCREL(%rip), %{self.register}"
        result = f"mov %{full}, %rax"
        if self.operation == "test":
            operand = f"%{self.register}, target@GOTPCREL(%rip)"
        if self.operation in ("test", "cmp"):
            result = "setz %al\nsets %ah\nmovzwl %ax, %eax"
        return f"""
            .globl {self.name}
        {self.name}:
            push %{full}
            mov %rdi, %{full}
            stc
        {self.name}.at:
            {self.operation} {operand}
        {self.name}.end:
            {result}
            mov (%rsp), %{full if full != "rax" else "rdi"}
            add $8, %rsp
            ret
        """

    def expect(self, argument: int, address: int) -> int:
        """The result of the function."""
        if self.operation in OPERATIONS:
            value = OPERATIONS[self.operation](argument & self.mask, address & self.mask, 1)
            return value & self.mask
        compared = argument - address if self.operation == "cmp" else argument & address
        compared &= self.mask
        return (compared == 0) | (compared > self.mask // 2) << 8


FORMS = [Form(each, register) for each in (*OPERATIONS, "test", "cmp") for register in WIDE]
FORMS += [Form(each, register) for each in (*OPERATIONS, "test", "cmp") for register in NARROW]


def assemble(source: str) -> bytes:
    return compile_c(f".text\n{source}", suffix=".s").read_bytes()


@pytest.fixture(scope="module")
def forms() -> bytes:
    # Global labels around the instructions, so that the object has them as symbols.
    labels = [f".globl {form.name}.at\n.globl {form.name}.end" for form in FORMS]
    return assemble("\n".join([*labels, *(form.body for form in FORMS)]))


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


def code_between(linked: Linked, name: str) -> bytes:
    start, end = linked.address(f"{name}.at"), linked.address(f"{name}.end")
    return ctypes.string_at(start, end - start)


def call(linked: Linked, name: str, argument: int) -> int:
    return linked.function(name, ctypes.c_uint64, ctypes.c_uint64)(argument)


def check_results(linked: Linked, address: int) -> None:
    for form in FORMS:
        for argument in (ARGUMENT, address, 0):
            result = call(linked, form.name, argument)
            assert result == form.expect(argument, address), (form, hex(argument))


def test_instructions_with_far_targets_are_not_relaxed(
    linker: Linker, forms: bytes, tmp_path: Path
) -> None:
    linked = linker.link(forms, externals={"target": FAR})
    check_results(linked, FAR)
    for form in FORMS:
        code = code_between(linked, form.name)
        (text,) = disassemble(code, tmp_path) if form.register in ("rax", "r9d") else [""]
        assert not text or "(%rip)" in text
        entry = linked.address(f"{form.name}.end") + int.from_bytes(
            code[-4:], "little", signed=True
        )
        assert ctypes.c_uint64.from_address(entry).value == FAR


@pytest.mark.parametrize("address", [LOW, NEGATIVE, 1, (1 << 31) - 1, MASK64 - (1 << 31) + 1])
def test_low_targets_become_immediate_operands(
    linker: Linker, forms: bytes, tmp_path: Path, address: int
) -> None:
    """Low addresses, and the highest ones, fit a sign-extended field."""
    linked = linker.link(forms, externals={"target": address})
    check_results(linked, address)
    codes = [code_between(linked, form.name) for form in FORMS]
    texts = disassemble(b"".join(codes), tmp_path)
    assert len(texts) == len(FORMS)
    for form, text in zip(FORMS, texts, strict=True):
        operation, number, register = re.split(r" \$|, ", text)
        suffix = "l" if form.mask == MASK32 else "q"
        assert (operation, register) == (form.operation + suffix, "%" + form.register)
        assert int(number) & form.mask == address & form.mask


def test_near_targets_are_computed(linker: Linker, forms: bytes, tmp_path: Path) -> None:
    """``mov`` becomes ``lea``; an address above 2 GiB cannot be an immediate operand."""
    data = compile_c(".data\n.globl target\ntarget: .quad 1", suffix=".s").read_bytes()
    linked = linker.link(forms, data)
    address = linked.address("target")
    assert address > 1 << 32
    check_results(linked, address)
    for form in (form for form in FORMS if form.operation == "mov"):
        code = code_between(linked, form.name)
        distance = address - linked.address(f"{form.name}.end")
        assert code[-4:] == distance.to_bytes(4, "little", signed=True)
    texts = disassemble(b"".join(code_between(linked, form.name) for form in FORMS), tmp_path)
    for form, text in zip(FORMS, texts, strict=True):
        operation = "lea" if form.operation == "mov" else form.operation
        assert text.split(" ")[0].startswith(operation)
        assert "(%rip)" in text
        assert f"%{form.register}" in text


@pytest.mark.parametrize("past", [0, 1])
@pytest.mark.parametrize("end", [(1 << 31) - 1, -(1 << 31)])
def test_the_range_of_displacements(linker: Linker, end: int, past: int) -> None:
    """A displacement of 32 bits in either direction, and not one byte more."""
    source = ".globl get\nget: mov target@GOTPCREL(%rip), %rax\nend: ret\n.globl end"
    distance = end + past if end > 0 else end - past
    linked = linker.link(assemble(source), configure=place_target(distance))
    code = linked.read("get", 7)
    assert code[1] == (0x8B if past else 0x8D)
    assert linked.function("get", ctypes.c_uint64)() == linked.address("end") + distance


def place_target(distance: int) -> Callable[[LinkGraph, PassConfiguration], None]:
    """Place the external ``target`` at a distance from the label ``end``."""

    def place(graph: LinkGraph) -> None:
        target = graph.find_external_symbol_by_name("target")
        end = graph.find_defined_symbol_by_name("end")
        assert target is not None
        assert end is not None
        graph.symbol_table.value[target.row] = end.address + distance

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        passes.pre_fixup.insert(0, place)

    return configure


BRANCHES = """
    .globl calls, calls.end, jumps, jumps.end, pushes
calls:
    sub $8, %rsp
calls.at:
    call *target@GOTPCREL(%rip)
calls.end:
    add $8, %rsp
    inc %rax
    ret
jumps:
    jmp *target@GOTPCREL(%rip)
jumps.end:
pushes:
    push target@GOTPCREL(%rip)
    ret
    .globl calls.at
    .globl stub_call, stub_call.at, stub_call.end, stub_jump, stub_jump.end
stub_call:
    sub $8, %rsp
stub_call.at:
    call target@PLT
stub_call.end:
    add $8, %rsp
    inc %rax
    ret
stub_jump:
    jmp target@PLT
stub_jump.end:
"""
TARGET = ".text\n.globl target\ntarget: lea 41(%rdi), %rax\nret"


def results(linked: Linked) -> list[int]:
    names = ("calls", "jumps", "pushes", "stub_call", "stub_jump")
    return [call(linked, name, 0) for name in names]


def branch_target(linked: Linked, end: str) -> int:
    displacement = int.from_bytes(
        ctypes.string_at(linked.address(end) - 4, 4), "little", signed=True
    )
    return linked.address(end) + displacement


def test_calls_and_jumps_to_near_targets(linker: Linker, tmp_path: Path) -> None:
    linked = linker.link(assemble(BRANCHES), assemble(TARGET))
    assert code_between(linked, "calls")[:2] == b"\x67\xe8"
    assert branch_target(linked, "calls.end") == linked.address("target")
    jump = linked.read("jumps", 6)
    assert (jump[0], jump[5]) == (0xE9, 0x90)
    start = linked.address("jumps") + 5
    assert start + int.from_bytes(jump[1:5], "little", signed=True) == linked.address("target")
    texts = disassemble(code_between(linked, "calls") + jump, tmp_path)
    assert [text.split(" ")[0] for text in texts] == ["addr32", "jmp", "nop"]
    # The push cannot be relaxed: it reads the GOT entry.
    assert linked.read("pushes", 2) == b"\xff\x35"
    for end in ("stub_call.end", "stub_jump.end"):
        assert branch_target(linked, end) == linked.address("target")
    assert results(linked) == [42, 41, 41, 42, 41]


def test_calls_and_jumps_to_far_targets(linker: Linker, tmp_path: Path) -> None:
    """Through the GOT entry, or through a stub that jumps through the same GOT entry."""
    with Linker() as elsewhere:
        target = elsewhere.link(assemble(TARGET)).address("target")
        linked = linker.link(
            assemble(BRANCHES), externals={"target": target}, configure=pretend_far(target)
        )
        assert results(linked) == [42, 41, 41, 42, 41]
        assert code_between(linked, "calls")[:2] == b"\xff\x15"
        assert linked.read("jumps", 2) == b"\xff\x25"
        entry = branch_target(linked, "calls.end")
        assert entry == branch_target(linked, "jumps.end")
        assert ctypes.c_uint64.from_address(entry).value == target
        stub = branch_target(linked, "stub_call.end")
        assert stub == branch_target(linked, "stub_jump.end")
        code = ctypes.string_at(stub, 6)
        assert disassemble(code, tmp_path)[0].startswith("jmpq *")
        displacement = int.from_bytes(code[2:], "little", signed=True)
        assert stub + 6 + displacement == entry


def pretend_far(target: int) -> Callable[[LinkGraph, PassConfiguration], None]:
    """Give the target a far address for the relaxation only."""

    def move(graph: LinkGraph, address: int) -> None:
        symbol = graph.find_external_symbol_by_name("target")
        assert symbol is not None
        graph.symbol_table.value[symbol.row] = address

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        passes.pre_fixup.insert(0, lambda graph: move(graph, FAR))
        passes.pre_fixup.append(lambda graph: move(graph, target))

    return configure


def test_calls_to_local_definitions_have_no_stub(linker: Linker) -> None:
    source = ".globl f\nf: jmp target@PLT\n.type target, @function\ntarget: mov $9, %eax\nret"
    linked = linker.link(assemble(source + "\n.globl target"))
    assert linked.function("f")() == 9
    assert linked.graph.find_section_by_name("$__STUBS") is None


def test_undefined_weak_targets_are_not_relaxed(linker: Linker) -> None:
    """The GOT entry of address 0 is loaded, not computed."""
    source = ".weak target\n.globl get\nget: mov target@GOTPCREL(%rip), %rax\nret"
    linked = linker.link(assemble(source))
    assert linked.read("get", 3) == b"\x48\x8b\x05"
    assert linked.function("get")() == 0


def test_an_undefined_weak_function_is_called_through_its_stub(linker: Linker) -> None:
    source = ".weak target\n.globl f\nf: jmp target@PLT\n.globl f.end\nf.end:"
    linked = linker.link(assemble(source))
    stub = branch_target(linked, "f.end")
    assert ctypes.string_at(stub, 2) == b"\xff\x25"


def test_prefixes_of_apx(linker: Linker, tmp_path: Path) -> None:
    """Registers above r15 need a REX2 prefix; near targets are computed, others are loaded."""
    source = """
        .globl start, end, target
    start:
        mov target@GOTPCREL(%rip), %r16
        mov target@GOTPCREL(%rip), %r31d
        add target@GOTPCREL(%rip), %r17
        test %r18, target@GOTPCREL(%rip)
        imul target@GOTPCREL(%rip), %r19
        add target@GOTPCREL(%rip), %r16, %r17
    end:
    target:
        ret
    """
    linked = linker.link(assemble(source))
    start, end = linked.address("start"), linked.address("end")
    texts = disassemble(ctypes.string_at(start, end - start), tmp_path)
    assert [text.split(" ")[0] for text in texts] == [
        "leaq", "leal", "addq", "testq", "imulq", "addq",
    ]  # fmt: skip
    registers = [re.findall("%r[0-9]+d?", text)[-1] for text in texts]
    assert registers == ["%r16", "%r31d", "%r17", "%r18", "%r19", "%r17"]
    first = ctypes.string_at(start, 8)
    assert start + 8 + int.from_bytes(first[4:], "little", signed=True) == end
    third = ctypes.string_at(start + 16, 8)
    entry = start + 24 + int.from_bytes(third[4:], "little", signed=True)
    assert ctypes.c_uint64.from_address(entry).value == end


def test_relaxed_edges_have_new_kinds(linker: Linker) -> None:
    """The graph shows all relaxations."""
    source = """
        .globl f, target
    f:
        mov target@GOTPCREL(%rip), %rax
        call *target@GOTPCREL(%rip)
        jmp *target@GOTPCREL(%rip)
        add target@GOTPCREL(%rip), %rax
    target:
        ret
    """
    linked = linker.link(assemble(source))
    block = next(block for block in linked.graph.blocks if block.section.name == ".text")
    edges = {edge.offset: (edge.kind, edge.target.name) for edge in block.edges}
    assert edges[3] == (K.PCREL32, "target")
    assert edges[9] == (K.BRANCH_PCREL32, "target")
    assert edges[14] == (K.BRANCH_PCREL32, "target")
    assert edges[22] == (K.PCREL32_GOT_LOAD_REX_RELAXABLE, "")


def test_loads_with_an_addend_are_not_relaxed(linker: Linker) -> None:
    """They read another address than that of the GOT entry."""
    source = """
        .globl f
    f:
        .byte 0x48, 0x8b, 0x05
        .reloc ., R_X86_64_REX_GOTPCRELX, target + 4
        .long 0
    """
    linked = linker.link(assemble(source), externals={"target": LOW})
    assert linked.read("f", 3) == b"\x48\x8b\x05"
