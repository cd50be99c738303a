"""What errors about edges say: where the place is, and what would help."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.arch.x86_64 import FIXUPS
from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import FixupError, TargetOutOfRangeError
from jitlink.fixup_errors import enclosing_symbol
from jitlink.graph import Block, LinkGraph, MemProt
from tests.emulation import Emulator
from tests.linking import Linker
from tests.toolchain import compile_c

FAR = 0x0000_2345_6789_ABC0
PIC = "compile with -fPIC"


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


def out_of_range(linker: Linker, compiled: Path) -> TargetOutOfRangeError:
    with pytest.raises(TargetOutOfRangeError) as caught:
        linker.link(compiled, externals={"far": FAR})
    return caught.value


# The place

LAYOUT = [("$x", 0, 0), ("outer", 0, 40), ("inner", 8, 8), (".Lend", 12, 0), ("label", 24, 0)]
LAYOUT += [("other", 44, 4), ("last", 50, 0)]


def make_block() -> Block:
    graph = LinkGraph("graph.o", "none", edge_kinds=K)
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    first, block = (graph.create_content_block(section, bytes(64)) for _ in range(2))
    for name, offset, size in LAYOUT:
        graph.add_defined_symbol(block, offset, name, size)
    graph.add_anonymous_symbol(block, 48, 16)
    graph.add_defined_symbol(first, 40, "elsewhere", 24)
    graph.add_absolute_symbol("absolute", 41)
    return block


@pytest.mark.parametrize(
    ("offset", "name"),
    [
        *((0, "outer"), (7, "outer"), (8, "inner"), (15, "inner"), (16, "outer"), (39, "outer")),
        *((40, "label"), (44, "other"), (47, "other"), (48, "label"), (50, "last"), (63, "last")),
        (-1, None),
    ],
)
def test_the_enclosing_symbol(offset: int, name: str | None) -> None:
    found = enclosing_symbol(make_block(), offset)
    assert (found.name if found else None) == name


def test_code_names_its_function(linker: Linker) -> None:
    source = "extern int far; static int helper(void); int f(void) { return 2 * helper(); }"
    source += "__attribute__((noinline)) static int helper(void) { return far; }"
    error = out_of_range(linker, compile_c(source, "gcc", ("-O1", "-fPIE")))
    assert error.within == "function helper"
    place = f"{error.block_address + error.offset:#x}"
    assert f"section .text, function helper: fixup at {place}" in str(error)


def test_data_names_its_variable(linker: Linker) -> None:
    source = ".data\n.globl v\n.type v, @object\n.size v, 8\nv: .long 1, far - .\n"
    error = out_of_range(linker, compile_c(source, suffix=".s"))
    assert (error.section, error.within) == (".data", "variable v")
    assert "section .data, variable v: fixup" in str(error)


def test_code_that_relaxation_has_moved_names_its_function() -> None:
    """The functions are local, and nothing refers to them."""
    calls = "    call g\n" * 40
    source = f"""
        .globl g
        .type f, @function
        .type g, @function
        .type h, @function
    g:  ret
        .size g, . - g
    f:  {calls}
        .size f, . - f
    h:  {calls}
        j far
        .size h, . - h
        .zero 300
    """
    compiled = compile_c(source, "clang", suffix=".s", target="riscv64-linux-gnu")
    with Emulator("riscv64", 0x4000_0000) as emulator:
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(compiled, externals={"far": 0x7777_6666_5550})
        assert caught.value.within == "function h"
        assert caught.value.offset < 80 * 4 + 8


def test_other_errors_name_it_too(linker: Linker) -> None:
    source = """
        .globl f
        .type f, @function
    f:  mov ordinary@tpoff, %eax
        ret
        .size f, . - f
        .data
    ordinary: .long 1
    """
    with pytest.raises(FixupError, match=r"section \.text, function f: .* is of a TLS kind"):
        linker.link(compile_c(source, suffix=".s"))


# All that fails


def test_all_failing_targets_are_grouped(linker: Linker) -> None:
    source = """
        .text
        .globl f
        .type f, @function
    f:  call far
        lea far(%rip), %rax
        lea other(%rip), %rax
        .size f, . - f
        .data
        .globl v
        .type v, @object
    v:  .long far - .
        .long other - .
        .size v, . - v
    """
    compiled = compile_c(source, suffix=".s")
    with pytest.raises(TargetOutOfRangeError) as caught:
        linker.link(compiled, externals={"far": FAR, "other": FAR + 16})
    error = caught.value
    assert error.object == error.graph
    first, second = error.targets
    assert {each.target: each.count for each in error.targets} == {"far": 2, "other": 2}
    assert error.count == 4
    assert (first.target, first.section) == (error.target, error.section)
    assert second.object == error.object
    assert "; 3 more fixups fail: 1 to the same target, " in str(error)
    place = f"{second.target} ({second.object}, section {second.section}, {second.within}, 2 times)"
    assert str(error).endswith(place)


def test_the_list_of_targets_is_bounded(linker: Linker) -> None:
    names = [f"far{number}" for number in range(30)]
    source = "f: nop\n" + "".join(f".long {name} - .\n" for name in names)
    externals = dict.fromkeys(names, FAR)
    with pytest.raises(TargetOutOfRangeError) as caught:
        linker.link(compile_c(f".globl f\n{source}", suffix=".s"), externals=externals)
    assert [each.target for each in caught.value.targets] == names
    assert str(caught.value).count("far") == 21
    assert str(caught.value).endswith(", 9 more targets")


def test_values_out_of_range_and_misaligned_ones_are_one_error() -> None:
    source = """
        .globl main
    main: ldr x0, odd
        ldr x1, far
        ret
    """
    compiled = compile_c(source, "clang", suffix=".s", target="aarch64-linux-gnu")
    with Emulator("aarch64", 0x4000_0000) as emulator, pytest.raises(FixupError) as caught:
        emulator.link(compiled, externals={"far": 0x7000_0002, "odd": 0x4000_0002})
    # The first is out of range and misaligned, the second misaligned only.
    assert [(each.target, each.count) for each in caught.value.targets] == [("far", 1), ("odd", 1)]
    assert isinstance(caught.value, TargetOutOfRangeError)


# Advice

X86_64_CODE = {
    "mov far, %eax": PIC + ", or with -mcmodel=large for code that must be position-dependent",
    "mov $far, %rax": PIC + ", or with -mcmodel=large for code that must be position-dependent",
    "mov far(%rip), %eax": PIC,
    "lea far(%rip), %rax": PIC,
    ".byte far - .": "",
    ".short far - .": "",
    ".short far": "",
}


@pytest.mark.parametrize("instruction", X86_64_CODE)
def test_advice_for_x86_64(linker: Linker, instruction: str) -> None:
    compiled = compile_c(f".globl f\nf: {instruction}\nret\n", suffix=".s")
    check_advice(out_of_range(linker, compiled), X86_64_CODE[instruction])


def check_advice(error: TargetOutOfRangeError, advice: str) -> None:
    assert str(error).endswith(f"; {advice}" if advice else f" .. {error.high:#x}")


@pytest.mark.parametrize("data", [".long far", ".long far - .", ".short far"])
def test_no_advice_for_data(linker: Linker, data: str) -> None:
    check_advice(out_of_range(linker, compile_c(f".data\nv: {data}\n.globl v", suffix=".s")), "")


AARCH64_CODE = {
    "adrp x0, far": PIC + ", or with -mcmodel=large for code that must be position-dependent",
    "adr x0, far": "",
    "ldr x0, far": "",
    "cbz x0, far": "",
    "tbz x0, #1, far": "",
    ".word far": "",
    ".word far - .": "",
}
RISCV_CODE = {
    "lui a0, %hi(far)": PIC,
    "auipc a0, %pcrel_hi(far)": PIC,
    "j far": "",
    ".reloc ., R_RISCV_BRANCH, far\nbeqz a0, .\nnop": "",
    ".word far": "",
}


@pytest.mark.parametrize(
    ("machine", "code"),
    [*(("aarch64", each) for each in AARCH64_CODE), *(("riscv64", each) for each in RISCV_CODE)],
)
def test_advice_for_other_architectures(machine: str, code: str) -> None:
    source = f".globl f\nf: {code}\n"
    compiled = compile_c(source, "clang", suffix=".s", target=f"{machine}-linux-gnu")
    with Emulator(machine, 0x4000_0000) as emulator:
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(compiled, externals={"far": 0x7777_6666_5550})
        check_advice(caught.value, {**AARCH64_CODE, **RISCV_CODE}[code])


def test_no_advice_for_targets_that_position_independent_code_reaches_likewise() -> None:
    """Code of the same link is addressed without the GOT, whatever the compiler's flags."""
    graph = LinkGraph("graph.o", "none", edge_kinds=K)
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    near = graph.create_mutable_content_block(section, bytearray(8), 0x1000)
    far = graph.create_mutable_content_block(section, bytearray(8), FAR)
    near.add_edge(K.DELTA32, 0, graph.add_defined_symbol(far, 0, "far"))
    with pytest.raises(TargetOutOfRangeError) as caught:
        FIXUPS.apply(graph)
    check_advice(caught.value, "")
