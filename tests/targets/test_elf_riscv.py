"""ELF RISC-V of 32 and 64 bits: linked, run in Unicorn, and compared with native results."""

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from jitlink.arch.riscv import RISCVEdgeKind as K
from jitlink.errors import (
    MisalignedTargetError,
    ObjectError,
    TargetOutOfRangeError,
    UnsupportedObjectError,
    UnsupportedRelocationError,
)
from jitlink.graph import MemLifetime, MemProt
from jitlink.targets.base import Relocation
from jitlink.targets.elf_riscv import RELOCATIONS, TARGET32, TARGET64
from jitlink.targets.registry import create_link_graph, target_of_graph, target_of_object
from jitlink.targets.riscv_attributes import check_abi
from tests.emulation import Emulator, Program
from tests.foreign import CALLS, Build, call_all, link_into, native_results, objects
from tests.oracle.elf_file import SHT_RELA, ElfFile
from tests.toolchain import compile_c, require, run

LEVELS = ("-O0", "-O1", "-O2")
POSITIONS = ("-fPIC", "-fno-pic")
BASE = 0x7000_0000


def builds() -> Iterator[Build]:
    for machine, level, position, relax in product(
        ("riscv64", "riscv32"), LEVELS, POSITIONS, ("-mrelax", "-mno-relax")
    ):
        yield Build(machine, "zig", (level, position, relax))
    for level, position, relax in product(LEVELS, POSITIONS, ("-mrelax", "-mno-relax")):
        yield Build("riscv64", "gcc", (level, position, relax))
    for level, model in product(LEVELS, ("-mcmodel=medlow", "-mcmodel=medany")):
        yield Build("riscv64", "gcc", (level, "-fno-pic", model, "-fno-jump-tables"))
    yield Build("riscv64", "clang", ("-O2", "-march=rv64gc", "-mrelax", "-falign-functions=64"))


@pytest.mark.parametrize("build", list(builds()), ids=str)
def test_program_computes_what_it_computes_natively(build: Build) -> None:
    paths = objects(build.target, build.compiler, build.flags)
    with Emulator(build.machine, BASE) as emulator:
        assert call_all(link_into(emulator, paths)) == native_results()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("architecture", ["rv32imac", "rv32ima", "rv64imac", "rv64ima"])
def test_program_of_processor_without_floating_point(architecture: str, level: str) -> None:
    bits = architecture[2:4]
    abi = "ilp32" if bits == "32" else "lp64"
    flags = (level, f"-march={architecture}", f"-mabi={abi}", "-mrelax")
    # Functions of the compiler's library, which the calls below do not use.
    unused = dict.fromkeys(("__muldf3", "__adddf3"), lambda: 0)
    with Emulator(f"riscv{bits}", BASE) as emulator:
        paths = objects(f"riscv{bits}-linux-gnu", "clang", flags)
        program = link_into(emulator, paths, unused)
        results = [program.call(name, *arguments) for name, arguments in CALLS]
    assert results == native_results()[0]


def test_program_far_from_what_it_calls() -> None:
    paths = objects("riscv64-linux-gnu", flags=("-O2", "-fPIC"))
    with Emulator("riscv64", 0x3F_1234_5000) as emulator:
        assert call_all(link_into(emulator, paths)) == native_results()


# Relocations, one by one

BITS = (32, 64)
FAR = {32: 0x9876_5430, 64: 0x5555_4444_3330}
EXTERNALS = {"low": 0x7654_3210}
# Instructions that the assembler would encode differently are given as numbers.
BODIES = {
    "word32": "lw a0, 1f; ret; {data} 1: .word low + 5",
    "word64": "{load} a0, 1f; ret; {data} .balign 8; 1: .quad target + 5",
    "pcrel32": "lla a1, 1f; lw a0, 0(a1); add a0, a0, a1; ret; {data} 1: .word target - .",
    "plt32": (
        "lla a1, 1f; lw a0, 0(a1); add a0, a0, a1; ret; {data} "
        "1: .reloc ., R_RISCV_PLT32, code; .word 0"
    ),
    "got32": (
        "lla a1, 1f; lw a0, 0(a1); add a0, a0, a1; {load} a0, 0(a0); ret; {data} "
        "1: .reloc ., R_RISCV_GOT32_PCREL, far; .word 0"
    ),
    "branch": "beqz zero, code",
    "jal": "jal t1, code",
    "call": "tail code",
    "old_call": ".reloc ., R_RISCV_CALL, code; .word 0x317, 0x30067",
    "rvc_branch": ".half 0x4501; .reloc ., R_RISCV_RVC_BRANCH, code; .half 0xc101",
    "rvc_jump": ".half 0x0001; .reloc ., R_RISCV_RVC_JUMP, code; .half 0xa001",
    "got": "1: auipc a0, %got_pcrel_hi(far); {load} a0, %pcrel_lo(1b)(a0); ret",
    "got_near": "1: auipc a0, %got_pcrel_hi(target); {load} a0, %pcrel_lo(1b)(a0); ret",
    "pcrel": "1: auipc a0, %pcrel_hi(target + 3); addi a0, a0, %pcrel_lo(1b); ret",
    "pcrel_load": "1: auipc a0, %pcrel_hi(words + 8); lw a0, %pcrel_lo(1b)(a0); ret",
    "pcrel_store": (
        "li a1, 77; 1: auipc a0, %pcrel_hi(stored); sw a1, %pcrel_lo(1b)(a0); "
        "lw a0, %pcrel_lo(1b)(a0); ret"
    ),
    "absolute": "lui a0, %hi(low + 7); addi a0, a0, %lo(low + 7); ret",
    "absolute_store": (
        "li a1, 78; lui a0, %hi(stored + 4); sw a1, %lo(stored + 4)(a0); "
        "lw a0, %lo(stored + 4)(a0); ret"
    ),
    "add8": "lbu a0, 1f; ret; {data} 1: .byte code - add8",
    "add16": "lhu a0, 1f; ret; {data} .balign 2; 1: .half code - add16",
    "add32": "lw a0, 1f; ret; {data} .balign 4; 1: .word code - add32",
    "add64": "{load} a0, 1f; ret; {data} .balign 8; 1: .quad code - add64",
    "set8": (
        "lbu a0, 1f; ret; {data} 1: .reloc ., R_RISCV_SET8, words + 40; "
        ".reloc ., R_RISCV_SUB8, words; .byte 255"
    ),
    "set16": (
        "lhu a0, 1f; ret; {data} .balign 2; 1: .reloc ., R_RISCV_SET16, words + 400; "
        ".reloc ., R_RISCV_SUB16, words; .half 255"
    ),
    "set32": (
        "lw a0, 1f; ret; {data} .balign 4; 1: .reloc ., R_RISCV_SET32, words + 400; "
        ".reloc ., R_RISCV_SUB32, words; .word 255"
    ),
    "set6": (
        "lbu a0, 1f; ret; {data} 1: .reloc ., R_RISCV_SET6, words + 40; "
        ".reloc ., R_RISCV_SUB6, words; .byte 0x7f"
    ),
    "uleb128": (
        "lhu a0, 1f; ret; {data} .balign 2; 1: .reloc ., R_RISCV_SET_ULEB128, words + 300; "
        ".reloc ., R_RISCV_SUB_ULEB128, words; .byte 0x80, 0"
    ),
}
WORDS = (0x11223344, 0x55667788, 0x99AABBCC, 0x1DEEFF00)


def relocation_source(bits: int) -> str:
    load = "ld" if bits == 64 else "lw"
    # Data between instructions would need their alignment.
    data = ".section .rodata;"
    near = ("branch", "jal", "call", "old_call", "rvc_branch", "rvc_jump")
    order = [*(name for name in BODIES if name not in near), *near]
    functions = "\n".join(
        f".balign 8\n.globl {name}\n{name}: {BODIES[name].format(load=load, data=data)}; .text"
        for name in order
    )
    return (
        f".option relax\n.text\n{functions}\n.globl code\ncode: li a0, 99; ret\n"
        f".data\n.balign 8\n.globl target\ntarget: .quad 1\n.globl stored\nstored: .quad 0\n"
        f".globl words\nwords: .word {', '.join(map(str, WORDS))}\n"
    )


def expected(program: Program, bits: int) -> dict[str, int]:
    target, code = (program.address(each) for each in ("target", "code"))
    jumps = ("branch", "jal", "call", "old_call", "rvc_branch", "rvc_jump")
    distances = ("add8", "add16", "add32", "add64")
    return {
        **dict.fromkeys(jumps, 99),
        **{name: code - program.address(name) for name in distances},
        **dict.fromkeys(("got", "got32"), FAR[bits]),
        "add8": (code - program.address("add8")) & 0xFF,
        "word32": 0x7654_3215, "word64": target + 5, "pcrel32": target, "plt32": code,
        "got_near": target, "pcrel": target + 3, "pcrel_load": WORDS[2] - (1 << 32) * (bits == 64),
        "pcrel_store": 77, "absolute": 0x7654_3217, "absolute_store": 78,
        "set8": 40, "set16": 400, "set32": 400, "set6": 0x40 | 40, "uleb128": 0x02AC,
    }  # fmt: skip


@pytest.mark.parametrize("architecture", ["ima", "imac"])
@pytest.mark.parametrize("bits", BITS)
def test_every_relocation_computes_its_value(bits: int, architecture: str) -> None:
    flags = (f"-march=rv{bits}{architecture}",)
    target = f"riscv{bits}-linux-gnu"
    assembled = compile_c(relocation_source(bits), "clang", flags, suffix=".s", target=target)
    mask = (1 << bits) - 1
    with Emulator(f"riscv{bits}", 0x1000_0000) as emulator:
        program = emulator.link(assembled, externals={**EXTERNALS, "far": FAR[bits]})
        values = {n: program.call(n, size=bits // 8, signed=False) for n in BODIES}
        assert values == {name: value & mask for name, value in expected(program, bits).items()}


# Refusals

REFUSED = [row for row in RELOCATIONS if row.reason]


def assemble(source: str, bits: int = 64, *flags: str) -> Path:
    return compile_c(source, "clang", flags, suffix=".s", target=f"riscv{bits}-linux-gnu")


def with_type(number: int) -> bytes:
    """An object with one relocation, whose type is replaced."""
    data = bytearray(assemble(".data\n.globl outside\n.quad outside\n").read_bytes())
    table = next(each for each in ElfFile(bytes(data)).sections if each.type == SHT_RELA)
    place = table.offset + 8
    data[place : place + 4] = number.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_unsupported_types_are_refused_by_name(row: Relocation) -> None:
    with pytest.raises(UnsupportedRelocationError) as caught:
        create_link_graph(with_type(row.number), "one.o")
    error = caught.value
    assert (error.relocation, error.number, error.reason) == (row.name, row.number, row.reason)
    assert (error.section, error.offset) == (".data", 0)


@pytest.mark.parametrize("number", [13, 42, 46, 66, 190, 256, 1 << 31])
def test_types_that_the_abi_does_not_define(number: int) -> None:
    with pytest.raises(UnsupportedRelocationError) as caught:
        create_link_graph(with_type(number), "one.o")
    assert (caught.value.relocation, caught.value.number) == (None, number)


def test_none_is_ignored() -> None:
    assert len(create_link_graph(with_type(0), "one.o").edge_table.kind) == 0


def test_types_are_those_of_llvm() -> None:
    include = Path(run([require("llvm-config-22"), "--includedir"]).strip())
    text = (include / "llvm/BinaryFormat/ELFRelocs/RISCV.def").read_text()
    found = re.findall(r"^ELF_RELOC\((R_RISCV_\w+),\s*(\w+)\)", text, re.MULTILINE)
    assert {row.number: row.name for row in RELOCATIONS} == {
        int(number, 0): name for name, number in found
    }


# Ranges

LIMITS = {
    K.R_RISCV_BRANCH: (-(1 << 12), (1 << 12) - 1),
    K.R_RISCV_RVC_BRANCH: (-(1 << 8), (1 << 8) - 1),
    K.R_RISCV_RVC_JUMP: (-(1 << 11), (1 << 11) - 1),
    K.R_RISCV_HI20: (-(1 << 31) - 0x800, (1 << 31) - 0x801),
    K.R_RISCV_PCREL_HI20: (-(1 << 31) - 0x800, (1 << 31) - 0x801),
    K.R_RISCV_32: (-(1 << 31), (1 << 32) - 1),
    K.R_RISCV_32_PCREL: (-(1 << 31), (1 << 31) - 1),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_targets_out_of_range_are_refused_with_the_limits(kind: K) -> None:
    low, high = LIMITS[kind]
    outside = 0x5555_0000_0000
    path = assemble(f".globl f\nf: .reloc ., {kind}, outside\n.word 0\n")
    with Emulator("riscv64") as emulator, pytest.raises(TargetOutOfRangeError) as caught:
        emulator.link(path, externals={"outside": outside})
    error = caught.value
    assert (error.kind, error.target, error.target_address) == (str(kind), "outside", outside)
    assert (error.low, error.high) == (low, high)


def test_jumps_to_odd_addresses_are_refused() -> None:
    with Emulator("riscv64") as emulator, pytest.raises(MisalignedTargetError) as caught:
        emulator.link(assemble(".globl f\nf: .reloc ., R_RISCV_BRANCH, f + 3\n.word 0\n"))
    assert (caught.value.value, caught.value.alignment) == (3, 2)


# Objects

EMPTY = ".globl {name}\n{name}: ret\n"


def test_targets_by_class() -> None:
    for bits, target in ((32, TARGET32), (64, TARGET64)):
        data = assemble(EMPTY.format(name="f"), bits).read_bytes()
        assert target_of_object(data, "f.o") is target
        graph = create_link_graph(data, "f.o")
        assert target_of_graph(graph) is target
        assert (graph.pointer_size, graph.triple) == (bits // 8, f"riscv{bits}-unknown-linux-gnu")


CLASHES = {
    "floating point": (("-march=rv64gc", "-mabi=lp64d"), ("-march=rv64gc", "-mabi=lp64"), ""),
    "stack": ((), (), ".attribute stack_align, {value}"),
    "atomics": ((), (), ".attribute 14, {value}"),
}


@pytest.mark.parametrize("clash", CLASHES)
def test_objects_of_two_abis_do_not_link(clash: str) -> None:
    one, other, line = CLASHES[clash]
    values = (16, 8) if clash == "stack" else (1, 3)
    sources = [
        f"{line.format(value=value)}\n{EMPTY.format(name=name)}"
        for name, value in zip("fg", values, strict=True)
    ]
    paths = [assemble(s, 64, *flags) for s, flags in zip(sources, (one, other), strict=True)]
    with Emulator("riscv64") as emulator, pytest.raises(UnsupportedObjectError) as caught:
        emulator.link(*paths)
    assert caught.value.file == str(paths[1])
    assert str(paths[0]) in str(caught.value)


def test_objects_of_fitting_abis_link() -> None:
    sources = [
        f".attribute 14, {atomic}\n{EMPTY.format(name=name)}"
        for name, atomic in zip("fgh", (3, 2, 0), strict=True)
    ]
    flags = ("-march=rv64imac", "-march=rv64ima", "-march=rv64imac")
    with Emulator("riscv64") as emulator:
        program = emulator.link(
            *(assemble(s, 64, each) for s, each in zip(sources, flags, strict=True))
        )
        assert [program.call(name, 7) for name in "fgh"] == [7, 7, 7]


@pytest.mark.parametrize("cut", range(1, 30))
def test_malformed_attributes_are_refused_or_ignored(cut: int) -> None:
    data = bytearray(assemble(EMPTY.format(name="f"), 64, "-march=rv64imac").read_bytes())
    start = data.index(b"\x00riscv\x00") - 4
    data[start + cut] ^= 0xFF
    with Emulator("riscv64") as emulator, suppress(ObjectError, UnsupportedObjectError):
        emulator.link(bytes(data))


@pytest.mark.parametrize("length", [10, 3000])
def test_attribute_of_more_than_64_bits_is_refused(length: int) -> None:
    stack_align = b"\x04" + b"\xff" * length + b"\x01"
    of_file = b"\x01" + (5 + len(stack_align)).to_bytes(4, "little") + stack_align
    graph = TARGET64.new_graph("g")
    section = graph.create_section(".riscv.attributes", MemProt.READ, MemLifetime.NO_ALLOC)
    vendor = (10 + len(of_file)).to_bytes(4, "little") + b"riscv\0" + of_file
    graph.create_content_block(section, b"A" + vendor)
    with pytest.raises(ObjectError, match="malformed"):
        check_abi(graph)


def test_anchor_beyond_the_end_of_its_section() -> None:
    source = """
    .globl f, buffer
f:  lla a0, anchor - 4000
    ret
    .bss
buffer: .space 100
    .set anchor, buffer + 4096
"""
    with Emulator("riscv64") as emulator:
        program = emulator.link(assemble(source))
        assert program.call("f", size=8) == program.address("buffer") + 96
