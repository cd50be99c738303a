"""ELF AArch64 of both byte orders: linked, run in Unicorn, and compared with native results."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.errors import MisalignedTargetError, TargetOutOfRangeError, UnsupportedRelocationError
from jitlink.passes.got_plt import got_address
from jitlink.targets.base import Relocation
from jitlink.targets.elf_aarch64 import BIG_ENDIAN_TARGET, RELOCATIONS, TARGET
from jitlink.targets.registry import create_link_graph, target_of_graph, target_of_object
from tests.emulation import Emulator, Program
from tests.foreign import Build, call_all, link_into, native_results, objects
from tests.toolchain import compile_c, require, run

MACHINES = ("aarch64", "aarch64_be")
MASK = (1 << 64) - 1

# C


def builds() -> Iterator[Build]:
    levels = ("-O0", "-O1", "-O2")
    positions = ("-fPIC", "-fno-pic")
    for machine, level, position in product(MACHINES, levels, positions):
        yield Build(machine, "zig", (level, position))
    for level, position in product(levels, (*positions, "-fpic")):
        yield Build("aarch64", "gcc", (level, position))
    for machine in MACHINES:
        yield Build(machine, "clang", ("-O2", "-fno-pic", "-mcmodel=large"))
        yield Build(machine, "clang", ("-O1", "-fno-pic", "-mcmodel=tiny"))
    yield Build("aarch64", "gcc", ("-O1", "-fno-pic", "-mcmodel=large"))
    yield Build("aarch64", "gcc", ("-O1", "-fno-pic", "-mcmodel=tiny"))
    yield Build("aarch64", "gcc", ("-O2", "-mbranch-protection=standard"))


@pytest.mark.parametrize("build", list(builds()), ids=str)
def test_program_computes_what_it_computes_natively(build: Build) -> None:
    paths = objects(build.target, build.compiler, build.flags)
    # The tiny code model has a range of 1 MiB.
    base = 0x80000 if "-mcmodel=tiny" in build.flags else 0x7000_0000
    with Emulator(build.machine, base) as emulator:
        assert call_all(link_into(emulator, paths)) == native_results()


@pytest.mark.parametrize("machine", MACHINES)
def test_program_far_from_what_it_calls(machine: str) -> None:
    paths = objects(f"{machine}-linux-gnu", flags=("-O2", "-fPIC"))
    with Emulator(machine, 0x7F12_3456_0000) as emulator:
        assert call_all(link_into(emulator, paths)) == native_results()


# Relocations, one by one

DATA = 0x1234_5678_0000
BODIES = {
    "abs64": "ldr x0, 1f; ret; .balign 8; 1: .quad target + 5",
    "abs32": "ldr w0, 1f; ret; 1: .word low + 5",
    "abs16": "adr x1, 1f; ldrh w0, [x1]; ret; 1: .hword tiny + 5; .balign 4",
    "prel64": "adr x1, 1f; ldr x0, [x1]; add x0, x0, x1; ret; .balign 8; 1: .quad target - .",
    "prel32": "adr x1, 1f; ldrsw x0, [x1]; add x0, x0, x1; ret; 1: .word target - .",
    "prel16": "adr x1, 1f; ldrsh x0, [x1]; add x0, x0, x1; ret; 1: .hword code - .; .balign 4",
    "plt32": "adr x1, 1f; ldrsw x0, [x1]; add x0, x0, x1; ret; 1: .word code@PLT - .",
    "gotpcrel32": (
        "adr x1, 1f; ldrsw x0, [x1]; add x0, x0, x1; ldr x0, [x0]; ret; 1: .word far@GOTPCREL"
    ),
    "uabs": (
        "movz x0, #:abs_g3:target; movk x0, #:abs_g2_nc:target; "
        "movk x0, #:abs_g1_nc:target; movk x0, #:abs_g0_nc:target; ret"
    ),
    "uabs_g2": (
        "movz x0, #:abs_g2:target; movk x0, #:abs_g1_nc:target; movk x0, #:abs_g0_nc:target; ret"
    ),
    "uabs_g1": "movz x0, #:abs_g1:low; movk x0, #:abs_g0_nc:low; ret",
    "uabs_g0": "movz x0, #:abs_g0:tiny; ret",
    "sabs_g0": "movz x0, #:abs_g0_s:tiny; ret",
    "sabs_g0_negative": "movz x0, #:abs_g0_s:minus_5; ret",
    "sabs_g1": "movn x0, #:abs_g1_s:low; movk x0, #:abs_g0_nc:low; ret",
    "sabs_g1_negative": "movz x0, #:abs_g1_s:minus_70000; movk x0, #:abs_g0_nc:minus_70000; ret",
    "sabs_g2": (
        "movz x0, #:abs_g2_s:target; movk x0, #:abs_g1_nc:target; movk x0, #:abs_g0_nc:target; ret"
    ),
    "sabs_g2_negative": (
        "movz x0, #:abs_g2_s:minus_far; movk x0, #:abs_g1_nc:minus_far; "
        "movk x0, #:abs_g0_nc:minus_far; ret"
    ),
    "prel_g0": "movz x0, #:prel_g0:code; adr x1, prel_g0; add x0, x0, x1; ret",
    "prel_g1": (
        "movz x0, #:prel_g1:low; movk x0, #:prel_g0_nc:low + 4; "
        "adr x1, prel_g1; add x0, x0, x1; ret"
    ),
    "prel_g2": (
        "movz x0, #:prel_g2:low; movk x0, #:prel_g1_nc:low + 4; movk x0, #:prel_g0_nc:low + 8; "
        "adr x1, prel_g2; add x0, x0, x1; ret"
    ),
    "prel_g3": (
        "movz x0, #:prel_g3:far; movk x0, #:prel_g2_nc:far + 4; movk x0, #:prel_g1_nc:far + 8; "
        "movk x0, #:prel_g0_nc:far + 12; adr x1, prel_g3; add x0, x0, x1; ret"
    ),
    "prel_movk_g3": (
        "movz x0, #:prel_g0_nc:low; movk x0, #:prel_g1_nc:low + 4; movk x0, #:prel_g2_nc:low + 8; "
        "movk x0, #:prel_g3:low + 12; adr x1, prel_movk_g3; add x0, x0, x1; ret"
    ),
    "prel_movk_g1": (
        "mov x0, #-1; movk x0, #:prel_g0_nc:prel_g0 + 4; movk x0, #:prel_g1:prel_g0 + 8; "
        "adr x1, prel_movk_g1; add x0, x0, x1; ret"
    ),
    "ld_prel_lo19": "ldr x0, words + 8; ret",
    "adr_prel_lo21": "adr x0, words + 3; ret",
    "adrp_add": "adrp x0, target + 3; add x0, x0, :lo12:target + 3; ret",
    "adrp_nc": "adrp x0, :pg_hi21_nc:target; add x0, x0, :lo12:target; ret",
    "ldst8": "adrp x0, words; ldrb w0, [x0, :lo12:words + 1]; ret",
    "ldst16": "adrp x0, words; ldrh w0, [x0, :lo12:words + 2]; ret",
    "ldst32": "adrp x0, words; ldr w0, [x0, :lo12:words + 4]; ret",
    "ldst64": "adrp x0, words; ldr x0, [x0, :lo12:words + 8]; ret",
    "ldst128": "adrp x0, words; ldr q0, [x0, :lo12:words + 16]; fmov x0, d0; ret",
    "jump26": "b code",
    "call26": "str x30, [sp, #-16]!; bl code; ldr x30, [sp], #16; ret",
    "condbr19": "cmp x0, x0; b.eq code; ret",
    "tstbr14": "mov x0, #1; tbnz x0, #0, code; ret",
    "got": "adrp x0, :got:far; ldr x0, [x0, :got_lo12:far]; ret",
    "got_near": "adrp x0, :got:target; ldr x0, [x0, :got_lo12:target]; ret",
    "gotpage": "adrp x0, _GLOBAL_OFFSET_TABLE_; ldr x0, [x0, :gotpage_lo15:far]; ret",
    "got_ld_prel19": "ldr x0, :got:far; ret",
    "gotoff_lo15": (
        "adrp x0, _GLOBAL_OFFSET_TABLE_; add x0, x0, :lo12:_GLOBAL_OFFSET_TABLE_; "
        ".reloc ., R_AARCH64_LD64_GOTOFF_LO15, far; ldr x0, [x0]; ret"
    ),
    "gotoff_g0": (
        "adrp x0, _GLOBAL_OFFSET_TABLE_; add x0, x0, :lo12:_GLOBAL_OFFSET_TABLE_; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G0, far; movz x1, #0; ldr x0, [x0, x1]; ret"
    ),
    "gotoff_g1": (
        "adrp x0, _GLOBAL_OFFSET_TABLE_; add x0, x0, :lo12:_GLOBAL_OFFSET_TABLE_; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G1, far; movz x1, #0, lsl #16; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G0_NC, far; movk x1, #0; ldr x0, [x0, x1]; ret"
    ),
    "gotoff_g3": (
        "adrp x0, _GLOBAL_OFFSET_TABLE_; add x0, x0, :lo12:_GLOBAL_OFFSET_TABLE_; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G3, far; movz x1, #0, lsl #48; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G2_NC, far; movk x1, #0, lsl #32; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G1_NC, far; movk x1, #0, lsl #16; "
        ".reloc ., R_AARCH64_MOVW_GOTOFF_G0_NC, far; movk x1, #0; ldr x0, [x0, x1]; ret"
    ),
    "gotrel64": "ldr x0, 1f; ret; .balign 8; 1: .reloc ., R_AARCH64_GOTREL64, target; .quad 0",
    "gotrel32": (
        "adr x1, 1f; ldrsw x0, [x1]; ret; 1: .reloc ., R_AARCH64_GOTREL32, target; .word 0"
    ),
}
EXTERNALS = {
    "far": 0x5555_4444_3330,
    "low": 0x7654_3210,
    "tiny": 0x1234,
    "minus_5": -5 & MASK,
    "minus_70000": -70000 & MASK,
    "minus_far": -(1 << 47) & MASK,
}
WORDS = tuple(range(0x1122334455667788, 0x1122334455667788 + 4))


def relocation_source() -> str:
    functions = "\n".join(
        f".balign 8\n.globl {name}\n{name}: {body}" for name, body in BODIES.items()
    )
    words = ", ".join(map(str, WORDS))
    return (
        f".text\n{functions}\n.globl code\ncode: mov x0, #99; ret\n"
        f".balign 16\nwords: .quad {words}\n.globl words\n"
        ".data\n.balign 8\n.globl target\ntarget: .quad 1\n"
    )


def expected(program: Program, order: str) -> dict[str, int]:
    target, code, words = (program.address(each) for each in ("target", "code", "words"))
    low, far = EXTERNALS["low"], EXTERNALS["far"]
    memory = b"".join(each.to_bytes(8, "little" if order == "little" else "big") for each in WORDS)
    got = got_address(program.graph)
    assert got is not None

    def load(offset: int, size: int) -> int:
        return int.from_bytes(memory[offset : offset + size], order)  # type: ignore[arg-type]

    values = dict.fromkeys(BODIES, far)
    values.update(dict.fromkeys(("jump26", "call26", "condbr19", "tstbr14"), 99))
    names: tuple[str, ...] = (
        "prel64",
        "prel32",
        "uabs",
        "uabs_g2",
        "sabs_g2",
        "adrp_nc",
        "got_near",
    )
    values.update(dict.fromkeys(names, target))
    names = ("uabs_g1", "sabs_g1", "prel_g1", "prel_g2", "prel_movk_g3")
    values.update(dict.fromkeys(names, low))
    values.update(dict.fromkeys(("prel16", "plt32", "prel_g0"), code))
    values.update(
        {
            "abs64": target + 5, "abs32": low + 5, "abs16": 0x1239,
            "uabs_g0": 0x1234, "sabs_g0": 0x1234, "sabs_g0_negative": -5 & MASK,
            "sabs_g1_negative": -70000 & MASK, "sabs_g2_negative": -(1 << 47) & MASK,
            "prel_movk_g1": program.address("prel_g0"),
            "ld_prel_lo19": load(8, 8), "adr_prel_lo21": words + 3, "adrp_add": target + 3,
            "ldst8": load(1, 1), "ldst16": load(2, 2), "ldst32": load(4, 4),
            "ldst64": load(8, 8), "ldst128": load(16 if order == "little" else 24, 8),
            "gotrel64": (target - got) & MASK, "gotrel32": (target - got) & MASK,
        }
    )  # fmt: skip
    return values


@pytest.mark.parametrize("machine", MACHINES)
def test_every_relocation_computes_its_value(machine: str) -> None:
    assembled = compile_c(relocation_source(), "clang", suffix=".s", target=f"{machine}-linux-gnu")
    with Emulator(machine, 0x1000_0000) as emulator:
        program = emulator.link(assembled, externals=EXTERNALS)
        values = {name: program.call(name, size=8, signed=False) for name in BODIES}
        assert values == expected(program, emulator.machine.byte_order)


# Refusals

REFUSED = [row for row in RELOCATIONS if row.reason]


def with_type(assembled: Path, number: int) -> bytes:
    """An object with one relocation, whose type is replaced."""
    data = bytearray(assembled.read_bytes())
    place = data.index((257).to_bytes(4, "little") + (2).to_bytes(4, "little"))
    data[place : place + 4] = number.to_bytes(4, "little")
    return bytes(data)


def one_relocation() -> Path:
    source = ".data\n.globl outside\n.reloc ., R_AARCH64_ABS64, outside\n.quad 0\n"
    return compile_c(source, "clang", suffix=".s", target="aarch64-linux-gnu")


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_unsupported_types_are_refused_by_name(row: Relocation) -> None:
    with pytest.raises(UnsupportedRelocationError) as caught:
        create_link_graph(with_type(one_relocation(), row.number), "one.o")
    error = caught.value
    assert (error.relocation, error.number, error.reason) == (row.name, row.number, row.reason)
    assert (error.section, error.offset) == (".data", 0)


@pytest.mark.parametrize("number", [1, 29, 281, 294, 318, 511, 1033, 1 << 31])
def test_types_that_the_abi_does_not_define(number: int) -> None:
    with pytest.raises(UnsupportedRelocationError) as caught:
        create_link_graph(with_type(one_relocation(), number), "one.o")
    assert (caught.value.relocation, caught.value.number) == (None, number)


def test_none_is_ignored() -> None:
    for number in (0, 256):
        graph = create_link_graph(with_type(one_relocation(), number), "one.o")
        assert len(graph.edge_table.kind) == 0


def test_types_are_those_of_llvm() -> None:
    include = Path(run([require("llvm-config-22"), "--includedir"]).strip())
    text = (include / "llvm/BinaryFormat/ELFRelocs/AArch64.def").read_text()
    found = re.findall(r"^ELF_RELOC\((R_AARCH64_(?!P32_)\w+),\s*(\w+)\)", text, re.MULTILINE)
    theirs = {int(number, 0): name for name, number in found}
    ours = {row.number: row.name for row in RELOCATIONS if row.number != 256}
    assert ours == theirs
    assert len(RELOCATIONS) == len(ours) + 1


# Ranges

LIMITS = {
    "bl outside": (K.BRANCH26_PCREL_TO_PTR_JUMP_STUB_BYPASSABLE, None),
    "adr x0, outside": (K.ADR_LITERAL21, (-(1 << 20), (1 << 20) - 1)),
    "ldr x0, outside": (K.LDR_LITERAL19, (-(1 << 20), (1 << 20) - 1)),
    "adrp x0, outside": (K.PAGE21, (-(1 << 32), (1 << 32) - 1)),
    "movz x0, #:abs_g0:outside": (K.MOVE_WIDE16_G0, (0, (1 << 16) - 1)),
    "movz x0, #:abs_g1:outside": (K.MOVE_WIDE16_G1, (0, (1 << 32) - 1)),
    "movz x0, #:abs_g0_s:outside": (K.MOVE_WIDE16_SIGNED_G0, (-(1 << 16), (1 << 16) - 1)),
    "movz x0, #:prel_g1:outside": (K.MOVE_WIDE16_PCREL_G1, (-(1 << 32), (1 << 32) - 1)),
    "movk x0, #:prel_g1:outside": (K.MOVE_KEEP16_PCREL_G1, (-(1 << 32), (1 << 32) - 1)),
    ".word outside": (K.POINTER32, (-(1 << 31), (1 << 32) - 1)),
    ".word outside - .": (K.DELTA32, (-(1 << 31), (1 << 32) - 1)),
    ".hword outside": (K.POINTER16, (-(1 << 15), (1 << 16) - 1)),
}


@pytest.mark.parametrize("line", LIMITS)
def test_targets_out_of_range_are_refused_with_the_limits(line: str) -> None:
    kind, limits = LIMITS[line]
    assembled = compile_c(
        f".globl f\nf: {line}\n", "clang", suffix=".s", target="aarch64-linux-gnu"
    )
    outside = 0x5555_0000_0000
    with Emulator("aarch64") as emulator:
        if limits is None:
            emulator.link(assembled, externals={"outside": outside})
            return
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(assembled, externals={"outside": outside})
    error = caught.value
    assert (error.kind, error.target, error.target_address) == (str(kind), "outside", outside)
    assert (error.low, error.high) == limits


@pytest.mark.parametrize(
    ("line", "alignment"),
    [
        ("ldr q0, [x0, :lo12:outside]", 16),
        ("ldr x0, [x0, :lo12:outside]", 8),
        ("ldr w0, [x0, :lo12:outside]", 4),
        ("ldrh w0, [x0, :lo12:outside]", 2),
        ("ldr x0, outside", 4),
    ],
)
def test_misaligned_targets_are_refused(line: str, alignment: int) -> None:
    assembled = compile_c(
        f".globl f\nf: {line}\n", "clang", suffix=".s", target="aarch64-linux-gnu"
    )
    with Emulator("aarch64") as emulator, pytest.raises(MisalignedTargetError) as caught:
        emulator.link(assembled, externals={"outside": 0x1000_0001})
    assert (caught.value.alignment, caught.value.value & 1) == (alignment, 1)


# The registry


@pytest.mark.parametrize("machine", MACHINES)
def test_objects_of_both_byte_orders_have_their_targets(machine: str) -> None:
    assembled = compile_c("int f;", "clang", target=f"{machine}-linux-gnu")
    target = target_of_object(assembled.read_bytes(), "f.o")
    assert target is (TARGET if machine == "aarch64" else BIG_ENDIAN_TARGET)
    graph = create_link_graph(assembled.read_bytes(), "f.o")
    assert target_of_graph(graph) is target
    assert (graph.triple, graph.pointer_size) == (f"{machine}-unknown-linux-gnu", 8)
