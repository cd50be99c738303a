"""AArch64 code that the linker rewrites or adds: relaxed pairs, ifunc resolvers."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.errors import FixupError
from jitlink.graph import MemProt
from jitlink.targets.elf_aarch64 import BIG_ENDIAN_TARGET, default_passes
from tests.emulation import Emulator, Host, Program
from tests.toolchain import compile_c

BASE = 0x4000_0000
NEAR = BASE + 0x80_0000
FAR = 0x7777_6666_5550
ADRP, ADD, LDR, NOP, ADR = "adrp", "add", "ldr", "nop", "adr"
MACHINES = ("aarch64", "aarch64_be")


def assemble(source: str, machine: str = "aarch64") -> Path:
    return compile_c(source, "clang", suffix=".s", target=f"{machine}-linux-gnu")


def mnemonic(word: int) -> str:
    """The mnemonic of an instruction, if relaxation reads or writes it; else its encoding."""
    known = {
        (0x9F000000, 0x90000000): ADRP,
        (0x9F000000, 0x10000000): ADR,
        (0xFFC00000, 0x91000000): ADD,
        (0xFFC00000, 0xF9400000): LDR,
        (0xFFFFFFFF, 0xD503201F): NOP,
        (0xFC000000, 0x94000000): "bl",
        (0xFFFFFFFF, 0xD65F03C0): "ret",
        (0xFFFFFFFF, 0xD503245F): "bti c",
    }
    return next((name for (mask, code), name in known.items() if word & mask == code), hex(word))


def instructions(program: Program, name: str, count: int) -> list[str]:
    return [mnemonic(each) for each in struct.unpack(f"<{count}I", program.read(name, 4 * count))]


# Relaxation

PAIRS = """
    .text
    .globl pair, apart, shared, other_register, added, addend, unequal
pair:
    adrp x3, :got:outside
    ldr x3, [x3, :got_lo12:outside]
    mov x0, x3
    ret
    .section .text.apart, "ax"
apart:
    adrp x0, :got:outside
    nop
    ldr x0, [x0, :got_lo12:outside]
    ret
    .section .text.shared, "ax"
shared:
    adrp x1, :got:outside
    ldr x0, [x1, :got_lo12:outside]
    ldr x1, [x1, :got_lo12:outside]
    ret
    .section .text.other, "ax"
other_register:
    adrp x1, :got:outside
    ldr x0, [x1, :got_lo12:outside]
    ret
    .section .text.jumped, "ax"
    .globl jumped_into, jumping
jumped_into:
    adrp x0, :got:outside
1:  ldr x0, [x0, :got_lo12:outside]
    ret
jumping:
    adrp x0, :got:outside
    b 1b
    .section .text.merged, "ax"
    .globl merged, tail
merged:
    adrp x0, :got:outside
    cbz x1, 2f
    ldr x0, [x0, :got_lo12:outside]
    ret
tail:
    adrp x0, :got:outside
2:  ldr x0, [x0, :got_lo12:outside]
    ret
    .section .text.added, "ax"
added:
    adrp x0, outside
    add x0, x0, :lo12:outside
    ret
addend:
    adrp x0, outside + 8
    add x0, x0, :lo12:outside + 8
    ret
unequal:
    adrp x0, outside
    add x0, x0, :lo12:outside + 8
    ret
"""


def link_pairs(emulator: Emulator, outside: int, source: str = PAIRS) -> Program:
    machine = "aarch64_be" if emulator.machine.byte_order == "big" else "aarch64"
    return emulator.link(assemble(source, machine), externals={"outside": outside})


@pytest.mark.parametrize("machine", MACHINES)
def test_pairs_with_near_targets_are_relaxed(machine: str) -> None:
    outside = BASE + 0xF_0120
    with Emulator(machine, BASE) as emulator:
        program = link_pairs(emulator, outside)
        for name in ("pair", "added"):
            assert instructions(program, name, 2) == [NOP, ADR]
            assert program.call(name, size=8) == outside
        assert instructions(program, "addend", 2) == [NOP, ADR]
        assert program.call("addend", size=8) == outside + 8
        for name in ("apart", "shared", "other_register", "jumped_into", "jumping", "tail"):
            assert instructions(program, name, 1)[0] == ADRP
            assert program.call(name, size=8) == outside
        # A jump leads from the page of one pair to the load of another.
        assert [program.call("merged", 0, x, size=8) for x in (0, 1)] == [outside, outside]
        assert instructions(program, "unequal", 2) == [ADRP, ADD]
        assert program.call("unequal", size=8) == outside + 8


def test_loads_of_targets_within_four_gigabytes_become_additions() -> None:
    outside = BASE + 0xF000_0120
    with Emulator("aarch64", BASE) as emulator:
        program = link_pairs(emulator, outside)
        for name in ("pair", "added"):
            assert instructions(program, name, 2) == [ADRP, ADD]
            assert program.call(name, size=8) == outside
        assert instructions(program, "apart", 3) == [ADRP, NOP, LDR]
        assert instructions(program, "other_register", 2) == [ADRP, LDR]
        assert instructions(program, "shared", 3) == [ADRP, LDR, LDR]
        assert instructions(program, "jumped_into", 2) == [ADRP, LDR]
        assert program.call("jumping", size=8) == outside
        assert [program.call("merged", 0, x, size=8) for x in (0, 1)] == [outside, outside]


def test_loads_of_far_or_undefined_targets_are_not_relaxed() -> None:
    source = PAIRS[: PAIRS.index("    .section .text.added")] + "\n    .weak outside\n"
    for outside in (FAR, 0):
        with Emulator("aarch64", BASE) as emulator:
            program = link_pairs(emulator, outside, source)
            assert instructions(program, "pair", 2) == [ADRP, LDR]
            assert program.call("pair", size=8) == program.call("shared", size=8) == outside


def test_got_entries_with_short_offsets_come_first() -> None:
    others = "".join(f"    .quad {n}\n    adrp x0, :got:t{n}\n" for n in range(6000))
    source = """
        .globl f
    f:  adrp x0, _GLOBAL_OFFSET_TABLE_
        ldr x0, [x0, :gotpage_lo15:zz]
        ret
    """
    externals: dict[str, int | Host] = {f"t{n}": n for n in range(6000)}
    with Emulator("aarch64", BASE) as emulator:
        program = emulator.link(assemble(others + source), externals=externals | {"zz": FAR})
        assert program.call("f", size=8) == FAR


# Edges that passes add


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("has_content", [True, False])
def test_instructions_outside_their_blocks_are_refused(size: int, has_content: bool) -> None:
    graph = BIG_ENDIAN_TARGET.new_graph("graph")
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    block = graph.create_content_block(section, bytes(8))
    here = graph.add_defined_symbol(block, 0, "here", is_live=True)
    for kind in (K.PAGE21, K.PAGE_OFFSET12, K.MOVE_WIDE16_PCREL_G1):
        block.add_edge(kind, size - 2 if has_content else 4, here)
    # A pass replaces the content of the block.
    if has_content:
        block.set_content(bytes(size))
    else:
        block.set_zero_fill_size(size)
    with Emulator("aarch64_be", BASE) as emulator, pytest.raises(FixupError):
        emulator.link_graph(graph, default_passes(graph))


# Ifuncs

IFUNC = """
typedef unsigned long u64;
struct argument { u64 size, hwcap, hwcap2; };
struct argument seen;
u64 seen_hwcap;
static int plain(int x) { return x + 1; }
static int fast(int x) { return x + 2; }
typedef int function(int);
function *resolve(u64 hwcap, const struct argument *argument) {
    seen_hwcap = hwcap;
    seen.size = argument->size, seen.hwcap = argument->hwcap, seen.hwcap2 = argument->hwcap2;
    return hwcap & 0x100 ? fast : plain;
}
int chosen(int) __attribute__((ifunc("resolve")));
function *pointer = chosen;
int call(int x) { return chosen(x); }
int same(void) { return pointer == chosen; }
int call_pointer(int x) { return pointer(x); }
"""
AT_HWCAP, AT_HWCAP2 = 16, 26


def link_ifunc(machine: str, externals: dict[str, int | Host]) -> Sequence[int]:
    compiled = compile_c(IFUNC, "clang", ("-O1",), target=f"{machine}-linux-gnu")
    with Emulator(machine, BASE) as emulator:
        program = emulator.link(compiled, externals=externals)
        assert program.call("same") == 1
        assert program.call("call", 5) == program.call("call_pointer", 5)
        arguments = struct.unpack(
            f"{'>' if machine.endswith('be') else '<'}3Q", program.read("seen", 24)
        )
        return program.call("call", 5), program.integer("seen_hwcap"), *arguments


@pytest.mark.parametrize("machine", MACHINES)
def test_resolvers_get_the_hardware_capabilities(machine: str) -> None:
    def getauxval(kind: int) -> int:
        return {AT_HWCAP: 0x1101, AT_HWCAP2: 0x22}[kind]

    results = link_ifunc(machine, {"getauxval": getauxval})
    assert results == (7, 1 << 62 | 0x1101, 24, 0x1101, 0x22)


@pytest.mark.parametrize("machine", MACHINES)
def test_resolvers_work_without_getauxval(machine: str) -> None:
    assert link_ifunc(machine, {}) == (6, 1 << 62, 24, 0, 0)


def test_kinds_of_llvm_have_its_names() -> None:
    names = {str(kind) for kind in K}
    assert {"Branch26PCRel", "CondBranch19PCRel", "TestAndBranch14PCRel", "GotPageOffset15"} < names
