"""AArch64 calls, jumps and branches: stubs, islands, and what reaches how far."""

import struct

import pytest

from jitlink.arch.aarch64 import GOT_PLT_BTI
from jitlink.errors import TargetOutOfRangeError
from jitlink.graph import LinkGraph, MemLifetime, MemProt
from jitlink.link import PassConfiguration
from jitlink.memory.layout import Segment
from jitlink.passes.got_plt import GOT_SECTION, STUBS_SECTION
from tests.arch.test_aarch64 import BASE, MACHINES, NEAR, assemble, mnemonic
from tests.emulation import Emulator, Host, Program

CLOSE = 0x100_0000
"""A base within 128 MiB of the functions of the host."""

# Stubs

CALLS = """
    .globl call, jump
call:
    str x30, [sp, #-16]!
    bl host
    ldr x30, [sp], #16
    ret
jump: b host
"""
CONDITIONS = """
    .globl conditional, test_bit, compare
conditional:
    cmp x0, #5
    b.eq host
    mov x0, #-1
    ret
test_bit:
    tbnz x0, #3, host
    mov x0, #-2
    ret
compare:
    cbz x0, host
    mov x0, #-3
    ret
"""


def triple(x: int) -> int:
    return x * 3


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_and_jumps_reach_far_functions(machine: str) -> None:
    with Emulator(machine, BASE) as emulator:
        program = emulator.link(assemble(CALLS, machine), externals={"host": triple})
        assert [program.call(name, 7) for name in ("call", "jump")] == [21, 21]


def stubs_of(program: Program) -> list[list[str]]:
    """The instructions of each stub."""
    section = program.graph.find_section_by_name(STUBS_SECTION)
    found = []
    for block in section.blocks if section else ():
        content = program.emulator.read(block.address, block.size)
        found.append([mnemonic(each) for each in struct.unpack(f"<{block.size // 4}I", content)])
    return found


def test_stubs_are_shared_and_bypassed_in_range() -> None:
    source = ".globl f\nf: bl outside\n bl outside\n cbz x0, outside\n ret\n"
    with Emulator("aarch64", BASE) as emulator:
        program = emulator.link(assemble(source), externals={"outside": NEAR})
        assert len(stubs_of(program)) == 1
        calls = struct.unpack("<2I", program.read("f", 8))
        address = program.address("f")
        assert [(word & 0x3FFFFFF) * 4 for word in calls] == [NEAR - address, NEAR - address - 4]
        # The conditional branch has a range of 1 MiB only.
        kinds = {str(edge.kind) for block in program.graph.blocks for edge in block.edges}
        assert "CondBranch19PCRelToPtrJumpStubBypassable" in kinds
        assert "Branch26PCRelToPtrJumpStubBypassable" not in kinds


@pytest.mark.parametrize("machine", MACHINES)
def test_branches_to_undefined_weak_functions_become_nops(machine: str) -> None:
    source = """
        .weak host
        .globl call, conditional
        call: str x30, [sp, #-16]!
        bl host
        ldr x30, [sp], #16
        add x0, x0, #1
        ret
        conditional: cbz x0, host
        tbz x0, #0, host
        add x0, x0, #2
        ret
    """
    with Emulator(machine, BASE) as emulator:
        program = emulator.link(assemble(source, machine))
        assert [program.call("call", x) for x in (0, 7)] == [1, 8]
        assert [program.call("conditional", x) for x in (0, 7)] == [2, 9]


NOTE = """
    .section .note.gnu.property, "a", %note
    .balign 8
    .word 4, 16, 5
    .asciz "GNU"
    .word 0xc0000000, 4, {bits}, 0
"""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("bits", "has_pad"), [(1, True), (3, True), (2, False), (0, False)])
def test_stubs_have_landing_pads_for_bti(machine: str, bits: int, has_pad: bool) -> None:
    source = CALLS + NOTE.format(bits=bits)
    with Emulator(machine, BASE) as emulator:
        program = emulator.link(assemble(source, machine), externals={"host": triple})
        (stub,) = stubs_of(program)
        assert (stub[0] == "bti c") is has_pad
        assert len(stub) == len(GOT_PLT_BTI.stub) // 4 - (not has_pad)
        assert program.call("call", 7) == 21


# Islands

SPREAD = """
    .section .text.first, "ax"
    .globl near, far, out
near: mov x0, #11
    ret
far:
    str x30, [sp, #-16]!
    bl distant
    bl near
    bl distant
    ldr x30, [sp], #16
    ret
out:
    str x30, [sp, #-16]!
    bl host
    bl host
    ldr x30, [sp], #16
    ret
    .section .text.second, "ax"
    .balign 0x10000000
    .globl distant, back, out_again
distant: mov x0, #22
    ret
back: b near
out_again: b host
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_branches_out_of_range_go_through_islands(machine: str) -> None:
    with Emulator(machine, 0x1_0000_0000) as emulator:
        program = emulator.link(assemble(SPREAD, machine), externals={"host": triple})
        assert program.address("distant") - program.address("near") > 0xFFFFF00
        assert [program.call(name, 5) for name in ("far", "out", "back", "out_again")] == [
            22, 45, 11, 15,
        ]  # fmt: skip
        # The near function is called directly.
        (call,) = struct.unpack("<I", program.read("far", 12)[8:])
        place = program.address("far") + 8
        assert place + ((call & 0x3FFFFFF) * 4 - 0x10000000) == program.address("near")
        # Every island is beside the block whose branches go through it, and they share it.
        graph = program.graph
        assert graph.find_section_by_name(STUBS_SECTION) is None
        sizes = [
            [block.size for block in section.blocks]
            for section in graph.sections
            if section.name.startswith(".text.")
        ]
        assert [len(each) for each in sizes] == [1 + 2, 1 + 2]


def test_test_branches_at_both_ends_of_a_block_reach_islands() -> None:
    filler = "    .zero 40000\n"
    source = (
        ".globl first, last\nfirst: tbz x0, #0, host\n mov x0, #1\n ret\n"
        + filler
        + "last: tbz x0, #0, host\n mov x0, #2\n ret\n"
    )
    with Emulator("aarch64", CLOSE) as emulator:
        program = emulator.link(assemble(source), externals={"host": triple})
        assert [program.call("first", x) for x in (4, 5)] == [12, 1]
        assert [program.call("last", x) for x in (4, 5)] == [12, 2]


def test_branches_too_far_from_either_end_are_refused() -> None:
    source = ".globl f\nf:\n .zero 40000\n tbz x0, #0, host\n ret\n .zero 40000\n"
    with Emulator("aarch64", CLOSE) as emulator:
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(assemble(source), externals={"host": triple})
        check_out_of_range(caught.value, "TestAndBranch14PCRel", "host", 1 << 15)
        assert caught.value.within == "label f"


def check_out_of_range(error: TargetOutOfRangeError, kind: str, target: str, limit: int) -> None:
    """Check an error about the branch itself, whatever island it might have gone through."""
    assert (error.kind, error.target) == (kind, target)
    assert (error.low, error.high) == (-limit, limit - 1)
    assert "compile with" not in str(error)


# Branches that are no calls: no register may change on the way.

REGISTERS = [n for n in range(31) if n not in (0, 18, 29)]
BRANCHES = {
    "b.eq {}": ("CondBranch19PCRel", 1 << 20),
    "cbz w0, {}": ("CondBranch19PCRel", 1 << 20),
    "cbnz x1, {}": ("CondBranch19PCRel", 1 << 20),
    "tbz x0, #37, {}": ("TestAndBranch14PCRel", 1 << 15),
    "tbnz w1, #3, {}": ("TestAndBranch14PCRel", 1 << 15),
}


def live_source(branch: str, filler: str, target: str = "target") -> str:
    """A function that branches, with all registers live, to code that adds them up."""
    sets = "".join(f"    mov x{n}, #{n}\n" for n in REGISTERS if n > 1)
    adds = "".join(f"    add x0, x0, x{n}\n" for n in REGISTERS)
    return f"""
        .section .text.first, "ax"
        .globl f, target
        .type f, @function
    f:  mov x9, x30
        adr x10, result
        stp x9, x10, [sp, #-16]!
        {sets}
        cmp x0, x0
        {branch.format(target)}
        mov x0, #-1
    result:
        ldp x9, x10, [sp], #16
        ret x9
        .size f, . - f
        .section .text.second, "ax"
        {filler}
    target:
        {adds}
        ldp x9, x10, [sp], #16
        ret x9
    """


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("distance", [0x100, 0x8000, 0x20_0000, 0x400_0000])
@pytest.mark.parametrize("branch", BRANCHES)
def test_branches_to_other_sections_keep_all_registers(
    machine: str, branch: str, distance: int
) -> None:
    with Emulator(machine, 0x1_0000_0000) as emulator:
        # The segment is as aligned as its sections.
        source = live_source(branch, f".balign {distance:#x}")
        program = emulator.link(assemble(source, machine))
        assert program.address("target") - program.address("f") == distance
        assert program.call("f", 0, 8) == sum(REGISTERS) - 1 + 8
        assert len(islands_of(program)) == (distance > BRANCHES[branch][1] - 0x100)


def islands_of(program: Program) -> list[int]:
    """Addresses of the blocks of one ``b``."""
    return [
        block.address
        for section in program.graph.sections
        if section.name.startswith(".text")
        for block in section.blocks
        if block.size == 4
    ]


@pytest.mark.parametrize("branch", BRANCHES)
def test_branches_that_only_a_scratch_register_could_reach_are_refused(branch: str) -> None:
    kind, limit = BRANCHES[branch]
    source = live_source(branch, ".balign 0x10000000")
    with Emulator("aarch64", 0x1_0000_0000) as emulator:
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(assemble(source))
        check_out_of_range(caught.value, kind, "target", limit)
        assert caught.value.within == "function f"


@pytest.mark.parametrize("branch", BRANCHES)
def test_branches_to_far_functions_outside_are_refused(branch: str) -> None:
    kind, limit = BRANCHES[branch]
    source = f".globl f\nf: {branch.format('host')}\n ret\n"
    with Emulator("aarch64", BASE) as emulator:
        with pytest.raises(TargetOutOfRangeError) as caught:
            emulator.link(assemble(source), externals={"host": triple})
        check_out_of_range(caught.value, kind, "host", limit)


@pytest.mark.parametrize("machine", MACHINES)
def test_branches_to_functions_outside_reach_as_far_as_jumps(machine: str) -> None:
    with Emulator(machine, CLOSE) as emulator:
        program = emulator.link(assemble(CONDITIONS, machine), externals={"host": triple})
        assert [program.call("conditional", x) for x in (5, 6)] == [15, -1]
        assert [program.call("test_bit", x) for x in (8, 7)] == [24, -2]
        assert [program.call("compare", x) for x in (0, 1)] == [0, -3]
        assert program.graph.find_section_by_name(GOT_SECTION) is None


@pytest.mark.parametrize("branch", [*BRANCHES, "b {}"])
def test_local_labels_of_other_sections(branch: str) -> None:
    """The relocation has the section's symbol and an addend, which counts from there."""
    source = live_source(branch, ".balign 0x200000", "local").replace(
        "    target:", "    target: mov x0, #-7\n ret\n ret\n local:"
    )
    source = source.replace(".globl f, target", ".globl f")
    with Emulator("aarch64", 0x1_0000_0000) as emulator:
        program = emulator.link(assemble(source))
        assert program.call("f", 0, 8) == sum(REGISTERS) - 1 + 8


def test_far_calls_of_local_labels_and_of_places_behind_symbols() -> None:
    source = """
        .section .text.first, "ax"
        .globl inside, outside
    inside:
        str x30, [sp, #-16]!
        bl local
        ldr x30, [sp], #16
        ret
    outside:
        b host + 4
        .section .text.second, "ax"
        .balign 0x10000000
        brk #1
    local:
        mov x0, #23
        ret
    """
    externals: dict[str, int | Host] = {"host": lambda x: x * 3, "next": lambda x: x + 1}
    with Emulator("aarch64", 0x1_0000_0000) as emulator:
        program = emulator.link(assemble(source), externals=externals)
        assert [program.call(name, 5) for name in ("inside", "outside")] == [23, 6]


@pytest.mark.parametrize("target", ["host", "host + 4"])
def test_calls_of_places_behind_functions_outside(target: str) -> None:
    source = CALLS.replace("host", target)
    externals: dict[str, int | Host] = {"host": lambda x: x * 3, "next": lambda x: x + 1}
    with Emulator("aarch64", BASE) as emulator:
        program = emulator.link(assemble(source), externals=externals)
        expected = 21 if target == "host" else 8
        assert [program.call(name, 7) for name in ("call", "jump")] == [expected] * 2


def make_temporary(graph: LinkGraph) -> None:
    """Move the blocks of a section to one of finalize lifetime."""
    prot = MemProt.READ | MemProt.EXEC
    section = graph.create_section("temporary", prot, MemLifetime.FINALIZE)
    found = graph.find_section_by_name(".text.temporary")
    assert found is not None
    for block in list(found.blocks):
        graph.transfer_block(block, section)


@pytest.mark.parametrize("distance", [0x10_0000, 0x4000_0000])
def test_branches_to_memory_of_another_lifetime_reach_any_address(distance: int) -> None:
    source = """
        .globl f, other
        f: b other
        .section .text.temporary, "ax"
        other: mov x0, #33
        ret
    """

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        passes.pre_prune.append(make_temporary)

    def place(segment: Segment) -> int | None:
        return BASE + distance if segment.lifetime is MemLifetime.FINALIZE else None

    with Emulator("aarch64", BASE, place) as emulator:
        program = emulator.link(assemble(source), configure=configure)
        (word,) = struct.unpack("<I", program.read("f", 4))
        is_direct = (word & 0x3FFFFFF) * 4 == program.address("other") - program.address("f")
        assert is_direct is (distance < 1 << 27)
