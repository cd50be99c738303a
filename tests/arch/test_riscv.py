"""RISC-V: fixups that add to the value in place, relaxation, paddings, stubs, loads."""

import re
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from jitlink.arch.riscv import FIXUPS
from jitlink.arch.riscv import RISCVEdgeKind as K
from jitlink.arch.riscv_relax import align, relax
from jitlink.errors import FixupError, TargetOutOfRangeError
from jitlink.graph import LinkGraph, MemProt
from jitlink.link import PassConfiguration
from tests.emulation import Emulator, Host, Program
from tests.toolchain import compile_c, require, run

BASE = 0x4000_0000
NEAR = BASE + 0x80_0000
FAR = 0x7777_6666_5550
BITS = (32, 64)


def assemble(source: str, bits: int = 64, architecture: str = "imac") -> Path:
    flags = (f"-march=rv{bits}{architecture}",)
    return compile_c(source, "clang", flags, suffix=".s", target=f"riscv{bits}-linux-gnu")


def disassemble(code: bytes, bits: int, directory: Path) -> list[str]:
    source = directory / "code.txt"
    source.write_text(" ".join(f"{byte:#04x}" for byte in code))
    command: list[str | Path] = [require("llvm-mc-22"), "--disassemble", f"--triple=riscv{bits}"]
    lines = run([*command, "-mattr=+c", "-M", "no-aliases", source]).splitlines()
    return [re.sub(r"\s+", " ", line.strip()) for line in lines if line[:1] == "\t"][1:]


# Values in place


def place(*edges: tuple[K, int, int], content: bytes = bytes(16), bits: int = 64) -> bytes:
    """Content after edges (kind, address of the target, addend) at offset 2 were applied."""
    graph = LinkGraph("g", "riscv", pointer_size=bits // 8, edge_kinds=K)
    section = graph.create_section(".data", MemProt.READ | MemProt.WRITE)
    memory = bytearray(content)
    block = graph.create_mutable_content_block(section, memory, 0x1000)
    for number, (kind, address, addend) in enumerate(edges):
        symbol = graph.add_absolute_symbol(f"s{number}", address)
        block.add_edge(kind, 2, symbol, addend)
    FIXUPS[bits].apply(graph)
    return bytes(memory)


WIDTHS = {8: 1, 16: 2, 32: 4, 64: 8}


@pytest.mark.parametrize("bits", WIDTHS)
def test_additions_and_subtractions_modify_the_value_in_place(bits: int) -> None:
    width, mask = WIDTHS[bits], (1 << bits) - 1
    before = bytes.fromhex("a1a2") + (0x1122334455667788 & mask).to_bytes(width, "little") + b"\xa3"
    add, subtract = K[f"R_RISCV_ADD{bits}"], K[f"R_RISCV_SUB{bits}"]
    after = place((add, 0x123456789, 7), (subtract, 0x100000000, 5), content=before)
    value = (0x1122334455667788 + 0x123456790 - 0x100000005) & mask
    assert after == before[:2] + value.to_bytes(width, "little") + before[2 + width :]


def test_all_edges_of_one_kind_at_one_place_are_applied() -> None:
    edges = [(K.R_RISCV_ADD32, 1 << n, 0) for n in range(9)]
    edges += [(K.R_RISCV_SUB32, 1 << n, 0) for n in range(0, 9, 2)]
    after = place(*edges[::-1])
    assert after == bytes(2) + (0b010101010).to_bytes(4, "little") + bytes(10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_sets_are_applied_before_subtractions(bits: int, reverse: bool) -> None:
    width, mask = WIDTHS[bits], (1 << bits) - 1
    edges = [
        (K[f"R_RISCV_SET{bits}"], 0x12345678, 4),
        (K.R_RISCV_SUB8 if bits == 8 else K[f"R_RISCV_SUB{bits}"], 0x12345600, 1),
    ]
    after = place(*(edges[::-1] if reverse else edges), content=b"\xff" * 12)
    assert after == b"\xff" * 2 + (0x7B & mask).to_bytes(width, "little") + b"\xff" * (10 - width)


def test_fixups_of_six_bits_keep_the_other_two() -> None:
    after = place((K.R_RISCV_SET6, 0x1234, 0), (K.R_RISCV_SUB6, 0x1204, 0), content=b"\x40" * 4)
    assert after == b"\x40\x40\x70\x40"
    after = place((K.R_RISCV_SUB6, 0x11, 0), content=b"\xc5" * 4)
    assert after == b"\xc5\xc5" + bytes([0xC0 | (5 - 0x11) & 0x3F]) + b"\xc5"


@pytest.mark.parametrize("size", range(1, 11))
def test_uleb128_keeps_its_size(size: int) -> None:
    field = b"\x80" * (size - 1) + b"\x00"
    before = b"\xff\xff" + field + b"\xff\xff"
    edges = (
        (K.R_RISCV_SET_ULEB128, 0x5555_0000_0123, 8),
        (K.R_RISCV_SUB_ULEB128, 0x5555_0000_0100, 3),
    )
    value = (0x12B - 0x103) & ((1 << 7 * size) - 1)
    expected = [value >> 7 * n & 0x7F | 0x80 for n in range(size)]
    expected[-1] &= 0x7F
    assert place(*edges, content=before) == b"\xff\xff" + bytes(expected) + b"\xff\xff"


@pytest.mark.parametrize("content", [b"\0\0\x80", b"\0\0" + b"\x80" * 10 + b"\0"])
def test_uleb128_that_does_not_end(content: bytes) -> None:
    with pytest.raises(FixupError, match="no field that ends in its block") as caught:
        place((K.R_RISCV_SET_ULEB128, 1, 0), content=content)
    assert (caught.value.kind, caught.value.offset) == ("R_RISCV_SET_ULEB128", 2)


def test_hi20_out_of_range() -> None:
    low, high = FIXUPS[64].by_kind[K.R_RISCV_HI20].limits
    assert (low, high) == (-(1 << 31) - 0x800, (1 << 31) - 0x801)
    for value in (low, high):
        place((K.R_RISCV_HI20, value & (1 << 64) - 1, 0))
    for value in (low - 1, high + 1):
        with pytest.raises(TargetOutOfRangeError) as caught:
            place((K.R_RISCV_HI20, value & (1 << 64) - 1, 0))
        assert (caught.value.value, caught.value.low, caught.value.high) == (value, low, high)
        place((K.R_RISCV_HI20, value & (1 << 64) - 1, 0), bits=32)


# Relaxation


def linked(
    emulator: Emulator, path: Path, externals: Mapping[str, int | Host] | None = None
) -> Program:
    return emulator.link(path, externals=externals)


def code(program: Program, name: str) -> list[int]:
    """The instructions from a symbol to its end."""
    size = program.graph.symbol_table.size[program.definitions[name]]
    data, position, result = program.read(name, int(size)), 0, []
    while position < len(data):
        length = 4 if data[position] & 3 == 3 else 2
        result.append(int.from_bytes(data[position : position + length], "little"))
        position += length
    return result


CALLS = """
    .option relax
    .globl near, middle, far_away, weird, tail, callee
    .type near, @function
near:
    addi sp, sp, -16
    s{x} ra, 0(sp)
    call callee
    l{x} ra, 0(sp)
    addi sp, sp, 16
    ret
    .size near, . - near
    .type tail, @function
tail:
    tail callee
    .size tail, . - tail
    .type weird, @function
weird:
    mv t1, ra
    call t0, callee
    jr t1
    .size weird, . - weird
    .type callee, @function
callee:
    addi a0, a0, 5
    {back}
    .size callee, . - callee
    .section .text.middle, "ax"
    .type middle, @function
middle:
    tail callee
    .size middle, . - middle
    .space 0x8000
    .section .text.far, "ax"
    .space 0x200000
    .type far_away, @function
far_away:
    tail callee
    .size far_away, . - far_away
"""


def calls_source(bits: int) -> str:
    return CALLS.format(x="wd"[bits == 64], back="ret")


@pytest.mark.parametrize("bits", BITS)
def test_calls_become_as_short_as_they_can(bits: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = linked(emulator, assemble(calls_source(bits), bits))
        names = ("near", "tail", "middle", "far_away")
        assert [program.call(each, 7) for each in names] == [12] * 4
        assert code(program, "tail")[0] & 0xE003 == 0xA001  # c.j
        assert code(program, "middle")[0] & 0xFFF == 0x6F or code(program, "middle")[0] < 1 << 16
        assert code(program, "far_away")[0] & 0xFFF == 0x317  # auipc t1
        call = code(program, "near")[2]
        if bits == 32:
            assert call & 0xE003 == 0x2001  # c.jal
        else:
            assert call & 0xFFF == 0xEF  # jal ra
        assert code(program, "weird")[1] & 0xFFF == 0x2EF  # jal t0


@pytest.mark.parametrize("bits", BITS)
def test_without_compressed_instructions_calls_become_jal(bits: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = linked(emulator, assemble(calls_source(bits), bits, "ima"))
        assert program.call("tail", 7) == 12
        assert code(program, "tail")[0] & 0xFFF == 0x6F
        assert code(program, "near")[2] & 0xFFF == 0xEF


@pytest.mark.parametrize("bits", BITS)
def test_symbols_and_sizes_are_adjusted(bits: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = linked(emulator, assemble(calls_source(bits), bits))
        table = program.graph.symbol_table
        rows = [program.definitions[each] for each in ("near", "tail", "weird", "callee")]
        starts = [int(table.value[row]) for row in rows]
        sizes = [int(table.size[row]) for row in rows]
        assert [start + size for start, size in zip(starts, sizes, strict=True)][:3] == starts[1:]
        assert sizes[1] == 2
        block = table.block[rows[0]]
        assert program.graph.block_table.size[block] == starts[3] + sizes[3]


def keep_code(_graph: LinkGraph, passes: PassConfiguration) -> None:
    passes.post_prune[passes.post_prune.index(relax)] = align


@pytest.mark.parametrize("bits", BITS)
def test_relaxation_can_be_left_out(bits: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = emulator.link(assemble(calls_source(bits), bits), configure=keep_code)
        assert program.call("near", 7) == 12
        assert [len(code(program, each)) for each in ("tail", "middle")] == [2, 2]
        kinds = set(program.graph.edge_table.kind.tolist())
        assert kinds.isdisjoint({K.RELAX, K.ALIGN_RELAXABLE})


PADDINGS = """
    .option relax
    .globl f, g, h, table
f:  call g
    .balign {alignment}
g:  call h
    call h
    .balign 8
h:  {back}
    .data
    .balign 8
table: .{word} h - f, g - f
    .word h - g
    .byte h - g
    .uleb128 h - f
    .byte 0x5a
"""


@pytest.mark.parametrize("configure", [None, keep_code], ids=["relaxed", "kept"])
@pytest.mark.parametrize("alignment", [4, 8, 16, 64])
@pytest.mark.parametrize("bits", BITS)
def test_alignment_is_kept_whether_code_is_or_not(
    bits: int, alignment: int, configure: object
) -> None:
    source = PADDINGS.format(alignment=alignment, back="ret", word="quad" if bits == 64 else "word")
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = emulator.link(assemble(source, bits), configure=configure)  # type: ignore[arg-type]
        f, g, h = (program.address(each) for each in "fgh")
        assert g % alignment == h % 8 == 0
        assert (h - f < 24) == (configure is None and alignment <= 8)
        between = program.read("f", g - f)[4 if configure is None else 8 :]
        while between[:4] == struct.pack("<I", 0x13):
            between = between[4:]
        assert between in {b"", b"\x01\x00"} or bits == 32
        size = bits // 8
        data = program.read("table", 2 * size + 7)
        word = "Q" if bits == 64 else "I"
        assert struct.unpack_from(f"<2{word}IB", data) == (h - f, g - f, h - g, h - g)
        tail = data[2 * size + 5 :]
        assert tail == bytes((h - f, 0x5A)) if h - f < 128 else tail[0] & 0x80


ABSOLUTE = """
    .option relax
    .globl zero, small, large, stored, relative
    .type zero, @function
zero:
    lui a0, %hi(tiny)
    addi a0, a0, %lo(tiny)
    ret
    .size zero, . - zero
    .type small, @function
small:
    lui a0, %hi(little)
    addi a0, a0, %lo(little)
    ret
    .size small, . - small
    .type large, @function
large:
    lui a0, %hi(big)
    addi a0, a0, %lo(big)
    ret
    .size large, . - large
    .type relative, @function
relative:
1:  auipc a0, %pcrel_hi(tiny)
    addi a0, a0, %pcrel_lo(1b)
    ret
    .size relative, . - relative
"""
# In an object of their own, so that the assembler does not compute the addresses.
NUMBERS = """
    .globl tiny, little, big
    .set tiny, {tiny}
    .set little, 0x1f7ff
    .set big, 0x12345678
"""


@pytest.mark.parametrize("tiny", [0, 5, 2047, -2048])
@pytest.mark.parametrize("bits", BITS)
def test_absolute_addresses_become_as_short_as_they_can(bits: int, tiny: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        numbers = assemble(NUMBERS.format(tiny=tiny), bits)
        program = emulator.link(assemble(ABSOLUTE, bits), numbers)
        values = {"zero": tiny, "relative": tiny, "small": 0x1F7FF, "large": 0x12345678}
        assert {name: program.call(name, size=bits // 8) for name in values} == values
        sizes = {name: len(code(program, name)) for name in values}
        assert sizes == {"zero": 2, "relative": 2, "small": 3, "large": 3}
        assert code(program, "small")[0] & 0xE003 == 0x6001  # c.lui
        assert code(program, "large")[0] & 0x7F == 0x37


def test_hi20_of_a_lo12_that_may_not_be_relaxed_is_kept() -> None:
    source = """
    .globl f
f:  .option relax
    lui a0, %hi(tiny)
    .option norelax
    addi a0, a0, %lo(tiny)
    ret
"""
    with Emulator("riscv64", BASE) as emulator:
        program = emulator.link(assemble(source), assemble(NUMBERS.format(tiny=77)))
        assert program.call("f") == 77
        assert program.read("f", 4) == struct.pack("<I", 0x537)


# Hand-built graphs


def make_graph(content: bytes, alignment: int = 4) -> tuple[LinkGraph, bytearray]:
    graph = LinkGraph("g", "riscv64", edge_kinds=K)
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    memory = bytearray(content)
    graph.create_mutable_content_block(section, memory, 0, alignment)
    return graph, memory


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        (4, -2, "an invalid size"),
        (4, 14, "an invalid size"),
        (4, 3, "an invalid size"),
        (2, 4, "too short"),
    ],
)
def test_bad_paddings(offset: int, size: int, message: str) -> None:
    graph, _ = make_graph(bytes(16))
    target = graph.add_absolute_symbol("s", 0)
    block = next(graph.blocks)
    block.add_edge(K.ALIGN_RELAXABLE, offset, target, size)
    with pytest.raises(FixupError, match=message) as caught:
        align(graph)
    assert (caught.value.offset, caught.value.kind) == (offset, "AlignRelaxable")


def test_paddings_that_overlap() -> None:
    graph, _ = make_graph(bytes(32))
    target = graph.add_absolute_symbol("s", 0)
    block = next(graph.blocks)
    block.add_edge(K.ALIGN_RELAXABLE, 4, target, 14)
    block.add_edge(K.ALIGN_RELAXABLE, 8, target, 6)
    with pytest.raises(FixupError, match="overlaps another edge"):
        align(graph)


def test_short_edges_at_the_end_of_a_block_are_not_read_as_instructions() -> None:
    graph, _ = make_graph(bytes.fromhex("0100") * 2)
    target = graph.add_absolute_symbol("s", 0)
    block = next(graph.blocks)
    block.add_edge(K.R_RISCV_RVC_JUMP, 2, target, 0)
    block.add_edge(K.RELAX, 2, target, 0)
    relax(graph)
    assert block.size == 4


# Stubs, loads, HI20 and LO12

REFERENCES = """
    .globl call, load, jump, short_call, weak_load, weak_address, twice
call:
    addi sp, sp, -16
    s{x} ra, 0(sp)
    call function
    l{x} ra, 0(sp)
    addi sp, sp, 16
    ret
load:
1:  auipc a0, %got_pcrel_hi(outside)
    l{x} a0, %pcrel_lo(1b)(a0)
    ret
twice:
1:  auipc a1, %got_pcrel_hi(outside)
    l{x} a0, %pcrel_lo(1b)(a1)
    l{x} a2, %pcrel_lo(1b)(a1)
    sub a0, a0, a2
    ret
jump:
    tail function
short_call:
    mv t1, ra
    jal function
    jr t1
weak_load:
1:  auipc a0, %got_pcrel_hi(undefined)
    l{x} a0, %pcrel_lo(1b)(a0)
    ret
weak_address:
1:  auipc a0, %pcrel_hi(undefined)
    addi a0, a0, %pcrel_lo(1b)
    ret
    .weak undefined
"""


@pytest.mark.parametrize("where", ["near", "low", "far"])
@pytest.mark.parametrize("bits", BITS)
def test_external_targets_are_reached(bits: int, where: str) -> None:
    outside = {"near": NEAR, "low": 0x1234_5678, "far": FAR if bits == 64 else 0xFEDC_BA98}[where]
    base = BASE if where != "low" or bits == 32 else 0x3F_0000_0000
    path = assemble(REFERENCES.format(x="wd"[bits == 64]), bits)
    with Emulator(f"riscv{bits}", base) as emulator:
        externals: dict[str, int | Host] = {"function": lambda x: x * 3, "outside": outside}
        program = linked(emulator, path, externals)
        names = ("load", "twice", "weak_load", "weak_address")
        results = [program.call(each, size=8, signed=False) for each in names]
        assert results == [outside, 0, 0, 0]
        assert [program.call(name, 14) for name in ("call", "jump", "short_call")] == [42] * 3
        loads = program.read("load", 8)[4:]
        assert loads[0] & 0x7F == (0x03 if where == "far" and bits == 64 else 0x13)


def test_lo12_before_its_hi20_and_in_another_section() -> None:
    source = """
    .globl f, words
    .section .text.b, "ax"
second:
    addi a0, a0, %pcrel_lo(upper)
    ret
    .section .text.a, "ax"
third:
    sw a1, %pcrel_lo(upper)(a0)
    lw a0, %pcrel_lo(upper)(a0)
    ret
f:  j upper
    nop
upper:
    auipc a0, %pcrel_hi(words + 4)
    bnez a1, 1f
    j second
1:  j third
    .data
    .balign 8
    .space 0x7fc
words: .word 1, 2, 3
"""
    with Emulator("riscv64", BASE) as emulator:
        program = linked(emulator, assemble(source))
        assert program.call("f", 0, 0, size=8) == program.address("words") + 4
        assert program.call("f", 0, 99) == 99
        assert program.integer("words", 12) == 1 | 99 << 32 | 3 << 64


BAD_LO12 = {
    "outside": "refers to no label of a HI20 relocation",
    "f": "refers to a label without a HI20 relocation",
    "upper + 4": "has an addend, which only its HI20 relocation may have",
}


@pytest.mark.parametrize("label", BAD_LO12)
def test_lo12_without_a_hi20(label: str) -> None:
    source = (
        ".globl f\nf: nop\nupper: auipc a0, %pcrel_hi(outside)\n"
        f".reloc ., R_RISCV_PCREL_LO12_S, {label}\nsw a0, 0(a0)\nret\n"
    )
    with (
        Emulator("riscv64", BASE) as emulator,
        pytest.raises(FixupError, match=re.escape(BAD_LO12[label])) as caught,
    ):
        linked(emulator, assemble(source), {"outside": NEAR})
    assert (caught.value.kind, caught.value.offset) == ("R_RISCV_PCREL_LO12_S", 6)


@pytest.mark.parametrize(("one", "other", "value"), [(300, 0, 300), (0, 4, -4)])
def test_uleb128_that_is_too_short(one: int, other: int, value: int) -> None:
    source = (
        f".data\n.globl f\nf: .space 400\n.reloc ., R_RISCV_SET_ULEB128, f + {one}\n"
        f".reloc ., R_RISCV_SUB_ULEB128, f + {other}\n.byte 0, 0x55\n"
    )
    with (
        Emulator("riscv64", BASE) as emulator,
        pytest.raises(TargetOutOfRangeError, match="its field cannot hold") as caught,
    ):
        linked(emulator, assemble(source))
    error = caught.value
    assert (error.kind, error.offset, error.value) == ("R_RISCV_SUB_ULEB128", 400, value)
    assert (error.low, error.high, error.target_address) == (0, 127, BASE)


UNPAIRED = {
    "SET": ("R_RISCV_SET_ULEB128", "has no R_RISCV_SUB_ULEB128 at the same place"),
    "SUB": ("R_RISCV_SUB_ULEB128", "has no R_RISCV_SET_ULEB128 at the same place"),
    "SET SET SUB": ("R_RISCV_SET_ULEB128", "has several R_RISCV_SET_ULEB128 at the same place"),
    "SET SUB SUB": ("R_RISCV_SET_ULEB128", "has several R_RISCV_SUB_ULEB128 at the same place"),
    "SET SUB +1 SUB": ("R_RISCV_SUB_ULEB128", "has no R_RISCV_SET_ULEB128 at the same place"),
}


@pytest.mark.parametrize("parts", UNPAIRED)
@pytest.mark.parametrize("bits", BITS)
def test_uleb128_without_its_partner(bits: int, parts: str) -> None:
    """Neither has a value alone: the field would hold the low bits of an address."""
    kind, message = UNPAIRED[parts]
    lines = [
        ".byte 0" if part == "+1" else f".reloc ., R_RISCV_{part}_ULEB128, f"
        for part in parts.split()
    ]
    body = "\n".join(lines)
    source = f".data\n.globl f\n.type f, @object\nf: .word 1\n{body}\n.byte 0\n.size f, .-f\n"
    with (
        Emulator(f"riscv{bits}", BASE) as emulator,
        pytest.raises(FixupError, match=message) as caught,
    ):
        linked(emulator, assemble(source, bits))
    error = caught.value
    assert (error.kind, error.section, error.within) == (kind, ".data", "variable f")
    assert error.offset == (5 if "+1" in parts else 4)


# Ifuncs

IFUNC = """
    .globl f, chosen
    .type chosen, @gnu_indirect_function
chosen:
    la a0, implementation
    ret
    .type implementation, @function
implementation:
    addi a0, a0, 1000
    ret
f:  tail chosen
"""


@pytest.mark.parametrize("bits", BITS)
def test_ifuncs_are_resolved(bits: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = linked(emulator, assemble(IFUNC, bits))
        assert program.call("f", 5) == program.call("chosen", 5) == 1005
