"""RISC-V jumps and short calls: what goes through a stub, and what may not."""

import pytest

from jitlink.arch.riscv import RISCVEdgeKind as K
from jitlink.errors import TargetOutOfRangeError
from jitlink.passes.got_plt import STUBS_SECTION
from tests.arch.test_riscv import BASE, BITS, assemble
from tests.emulation import EmulationError, Emulator, Host

# Jumps that are no calls: no register may change on the way.

REGISTERS = [n for n in range(5, 32) if n != 11]


def live_source(jump: str, filler: str) -> str:
    """A function that jumps, with all registers live, to code that adds them up."""
    sets = "".join(f"    li x{n}, {n}\n" for n in REGISTERS)
    adds = "".join(f"    add a1, a1, x{n}\n" for n in REGISTERS)
    return f"""
        .option norelax
        .section .text.first, "ax"
        .globl f, target
        .type f, @function
    f:  li a1, 0
        {sets}
        {jump}
    result:
        nop
        .size f, . - f
        .section .text.second, "ax"
        {filler}
    target:
        {adds}
        mv a0, a1
        ret
    """


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("distance", [0x100, 0x8_0000])
def test_jumps_keep_all_registers(bits: int, distance: int) -> None:
    with Emulator(f"riscv{bits}", BASE) as emulator:
        source = live_source("j target", f".balign {distance:#x}")
        program = emulator.link(assemble(source, bits))
        assert program.call("f") == sum(REGISTERS)
        assert program.graph.find_section_by_name(STUBS_SECTION) is None


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("jump", "is_refused"), [("j", True), ("jal t3,", True), ("jal", False)])
@pytest.mark.parametrize("target", ["target", "outside"])
def test_only_calls_go_through_stubs(bits: int, jump: str, is_refused: bool, target: str) -> None:
    source = live_source(f"{jump} {target}", ".balign 0x200000")
    externals: dict[str, int | Host] = {"outside": lambda x: x}
    with Emulator(f"riscv{bits}", BASE) as emulator:
        if not is_refused:
            emulator.link(assemble(source, bits), externals=externals)
            return
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(assemble(source, bits), externals=externals)
        error = caught.value
        assert (error.kind, error.target, error.within) == (
            "JALWithoutLink", target, "function f",
        )  # fmt: skip
        assert (error.low, error.high) == (-(1 << 20), (1 << 20) - 1)
        assert "-fPIC" not in str(error)


@pytest.mark.parametrize("bits", BITS)
def test_short_calls_of_near_functions_bypass_stubs(bits: int) -> None:
    source = ".globl f\nf: mv t1, ra\njal outside\njr t1"
    with Emulator(f"riscv{bits}", 0x8_0000) as emulator:
        program = emulator.link(assemble(source, bits), externals={"outside": lambda x: x + 1})
        assert program.call("f", 4) == 5
        kinds = {edge.kind for block in program.graph.blocks for edge in block.edges}
        assert K.R_RISCV_JAL in kinds
        assert K.JAL_TO_PTR_JUMP_STUB_BYPASSABLE not in kinds


@pytest.mark.parametrize("bits", BITS)
def test_jumps_to_undefined_weak_functions_trap(bits: int) -> None:
    """Code that checks the address never jumps there, but must be linked."""
    source = """
        .globl f, g
        .weak outside
    f:  li a0, 7
        la a1, outside
        beqz a1, 1f
    g:  j outside
    1:  ret
    """
    with Emulator(f"riscv{bits}", BASE) as emulator:
        program = emulator.link(assemble(source, bits))
        assert program.call("f") == 7
        assert program.read("g", 4) == bytes.fromhex("731000c0")  # unimp
        with pytest.raises(EmulationError):
            program.call("g")
