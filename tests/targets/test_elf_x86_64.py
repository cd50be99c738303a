"""Every relocation type of the x86-64 psABI, linked and compared with the psABI's formula.

An object with a relocation in a slot is assembled once; the types are then written into it by
number, so that they do not depend on the choices of an assembler.
"""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import TargetOutOfRangeError, UnsupportedRelocationError
from jitlink.targets.base import Relocation
from jitlink.targets.elf_x86_64 import RELOCATIONS, TARGET
from tests.elf_files import ElfFile
from tests.linking import Linked, Linker, read_graph
from tests.toolchain import compile_c, require, run

ADDEND = 0x11
SLOT = 16
LOW = 0x1234_5678
FAR = 0x0000_2345_6789_ABC0
NUMBERS = {row.name: row.number for row in RELOCATIONS}

SOURCE = f"""
    .text
    .globl target
    .type target, @function
target:
    mov $77, %eax
    ret
    .size target, . - target
    .data
    .balign 16
    .globl first, slot, table
first:
    .zero {SLOT}
slot:
    .quad target + {ADDEND}
    .zero {SLOT - 8}
    .zero {SLOT}
table:
    .reloc ., R_X86_64_64, _GLOBAL_OFFSET_TABLE_
    .quad 0
"""


class Result(NamedTuple):
    """A slot after a link, and the variables of the psABI's formulas.

    Attributes:
        value: content of the slot, as a signed integer.
        S, A, P, Z: as in the psABI.
        GOT: address of the GOT.
    """

    value: int
    S: int
    A: int
    P: int
    Z: int
    GOT: int


def pointer(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def calls(address: int) -> int:
    result: int = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return result


def is_entry(r: Result, address: int) -> bool:
    return pointer(address) == r.S


def is_stub(r: Result, address: int) -> bool:
    return address not in (r.S, 0) and calls(address) == 77


Formula = Callable[[Result], bool]
FORMULAS: dict[str, tuple[int, Formula]] = {
    "R_X86_64_64": (8, lambda r: r.value == r.S + r.A),
    "R_X86_64_PC64": (8, lambda r: r.value == r.S + r.A - r.P),
    "R_X86_64_PC32": (4, lambda r: r.value == r.S + r.A - r.P),
    "R_X86_64_PC32_BND": (4, lambda r: r.value == r.S + r.A - r.P),
    "R_X86_64_PLT32": (4, lambda r: r.value == r.S + r.A - r.P),
    "R_X86_64_PLT32_BND": (4, lambda r: r.value == r.S + r.A - r.P),
    "R_X86_64_32": (4, lambda r: r.value == r.S + r.A),
    "R_X86_64_32S": (4, lambda r: r.value == r.S + r.A),
    "R_X86_64_SIZE32": (4, lambda r: r.value == r.Z + r.A),
    "R_X86_64_SIZE64": (8, lambda r: r.value == r.Z + r.A),
    "R_X86_64_GOT32": (4, lambda r: is_entry(r, r.GOT + r.value - r.A)),
    "R_X86_64_GOT64": (8, lambda r: is_entry(r, r.GOT + r.value - r.A)),
    "R_X86_64_GOTPLT64": (8, lambda r: is_entry(r, r.GOT + r.value - r.A)),
    "R_X86_64_GOTPCREL": (4, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_GOTPCREL64": (8, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_GOTPCRELX": (4, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_REX_GOTPCRELX": (4, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_CODE_4_GOTPCRELX": (4, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_CODE_5_GOTPCRELX": (4, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_CODE_6_GOTPCRELX": (4, lambda r: is_entry(r, r.P + r.value - r.A)),
    "R_X86_64_GOTOFF64": (8, lambda r: r.value == r.S + r.A - r.GOT),
    "R_X86_64_GOTPC32": (4, lambda r: r.value == r.GOT + r.A - r.P),
    "R_X86_64_GOTPC64": (8, lambda r: r.value == r.GOT + r.A - r.P),
    "R_X86_64_PLTOFF64": (8, lambda r: is_stub(r, r.GOT + r.value - r.A)),
}
NARROW = {"R_X86_64_16": 2, "R_X86_64_8": 1, "R_X86_64_PC16": 2, "R_X86_64_PC8": 1}
IGNORED = {"R_X86_64_NONE", "R_X86_64_GNU_VTINHERIT", "R_X86_64_GNU_VTENTRY"}
# `test_elf_x86_64_tls` tests these.
TLS = {
    row.name
    for row in RELOCATIONS
    if any(part in row.name for part in ("TLS", "TPOFF", "DTPMOD")) and not row.reason
}
REFUSED = [row for row in RELOCATIONS if row.kind is None and row.reason]


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


def slot_object(number: int, *, external: bool = False) -> ElfFile:
    """The object with a relocation type in its slot."""
    source = SOURCE
    if external:
        source = source.replace("target:", "other:").replace(".globl target", ".globl other")
        source = source.replace(".type target", ".type other").replace("size target", "size other")
        source = source.replace("- target", "- other")
    elf = ElfFile(compile_c(source, suffix=".s"))
    section = elf.find(".rela.data")
    records = elf.relocations(section)
    (slot,) = [n for n, record in enumerate(records) if record["addend"] == ADDEND]
    return elf.set_relocation(section, slot, type=number)


def result(linked: Linked, width: int, target: int, size: int) -> Result:
    address = linked.address("slot")
    # No byte beside the field is written.
    assert linked.read("first", SLOT) == bytes(SLOT)
    assert linked.read("slot", SLOT)[width:] == bytes(SLOT - width)
    value = linked.integer("slot", width, signed=True)
    return Result(value, target, ADDEND, address, size, linked.integer("table"))


def test_every_type_of_the_psabi_is_in_some_table() -> None:
    names = {row.name for row in RELOCATIONS}
    assert names == {*FORMULAS, *NARROW, *IGNORED, *TLS, *(row.name for row in REFUSED)}
    assert sorted(NUMBERS.values()) == [*range(52), 250, 251]


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_with_a_target_in_the_graph(linker: Linker, name: str) -> None:
    width, formula = FORMULAS[name]
    linked = linker.link(bytes(slot_object(NUMBERS[name])))
    assert formula(result(linked, width, linked.address("target"), 6))


@pytest.mark.parametrize("name", [name for name in FORMULAS if "SIZE" not in name])
@pytest.mark.parametrize("address", ["near", LOW])
def test_formula_with_an_external_target(linker: Linker, name: str, address: str | int) -> None:
    width, formula = FORMULAS[name]
    source = ".text\n.globl target\ntarget: mov $77, %eax\nret"
    target = linker.link(compile_c(source, suffix=".s").read_bytes()).address("target")
    if address == LOW and ("GOT" not in name or name == "R_X86_64_GOTOFF64"):
        target = LOW
    is_absolute = name in ("R_X86_64_32", "R_X86_64_32S")
    is_relative = name.startswith(("R_X86_64_PC", "R_X86_64_PLT"))
    data = bytes(slot_object(NUMBERS[name], external=True))
    far = (is_absolute and target != LOW) or (is_relative and width == 4 and target == LOW)
    # A branch whose target is out of range goes through a stub, at another address.
    if far or name == "R_X86_64_PLTOFF64":
        return
    linked = linker.link(data, externals={"target": target})
    assert formula(result(linked, width, target, 0))


@pytest.mark.parametrize("name", ["R_X86_64_PLT32", "R_X86_64_PLT32_BND"])
def test_branches_to_far_targets_go_through_a_stub(linker: Linker, name: str) -> None:
    linked = linker.link(
        bytes(slot_object(NUMBERS[name], external=True)), externals={"target": FAR}
    )
    stub = linked.address("slot") + linked.integer("slot", 4, signed=True) - ADDEND
    assert ctypes.string_at(stub, 2) == b"\xff\x25"
    entry = stub + 6 + ctypes.c_int32.from_address(stub + 2).value
    assert pointer(entry) == FAR


def test_plt_offsets_of_far_targets(linker: Linker) -> None:
    name = "R_X86_64_PLTOFF64"
    data = bytes(slot_object(NUMBERS[name], external=True))
    linked = linker.link(data, externals={"target": FAR})
    stub = linked.integer("table") + linked.integer("slot", 8, signed=True) - ADDEND
    entry = stub + 6 + ctypes.c_int32.from_address(stub + 2).value
    assert pointer(entry) == FAR


@pytest.mark.parametrize("name", ["R_X86_64_PC32", "R_X86_64_PC32_BND", "R_X86_64_GOTPC32"])
def test_displacements_to_far_targets(linker: Linker, name: str) -> None:
    data = bytes(slot_object(NUMBERS[name], external=True))
    if name == "R_X86_64_GOTPC32":
        linker.link(data, externals={"target": FAR})
        return
    with pytest.raises(TargetOutOfRangeError) as caught:
        linker.link(data, externals={"target": FAR})
    error = caught.value
    # There is no other code to be had for data.
    assert "-fPIC" not in str(error)
    assert (error.kind, error.target, error.section) == ("Delta32", "target", ".data")
    assert (error.low, error.high) == (-(1 << 31), (1 << 31) - 1)
    assert error.target_address == FAR
    assert error.value == FAR + ADDEND - error.block_address - error.offset
    assert linker.used_size == 0


@pytest.mark.parametrize(
    ("name", "target", "fits"),
    [
        ("R_X86_64_32", (1 << 32) - ADDEND - 1, True),
        ("R_X86_64_32", (1 << 32) - ADDEND, False),
        ("R_X86_64_32", (1 << 64) - ADDEND, True),
        ("R_X86_64_32", (1 << 64) - ADDEND - 1, False),
        ("R_X86_64_32S", (1 << 31) - ADDEND - 1, True),
        ("R_X86_64_32S", (1 << 31) - ADDEND, False),
        ("R_X86_64_32S", (1 << 64) - (1 << 31) - ADDEND, True),
        ("R_X86_64_32S", (1 << 64) - (1 << 31) - ADDEND - 1, False),
        ("R_X86_64_16", (1 << 16) - ADDEND - 1, True),
        ("R_X86_64_16", (1 << 16) - ADDEND, False),
        ("R_X86_64_16", (1 << 64) - (1 << 15) - ADDEND, True),
        ("R_X86_64_8", (1 << 8) - ADDEND - 1, True),
        ("R_X86_64_8", (1 << 8) - ADDEND, False),
    ],
)
def test_narrow_absolute_fields(linker: Linker, name: str, target: int, fits: bool) -> None:
    width = FORMULAS.get(name, (0,))[0] or NARROW[name]
    data = bytes(slot_object(NUMBERS[name], external=True))
    if fits:
        linked = linker.link(data, externals={"target": target})
        mask = (1 << 8 * width) - 1
        assert linked.integer("slot", width) == (target + ADDEND) & mask
    else:
        with pytest.raises(TargetOutOfRangeError) as caught:
            linker.link(data, externals={"target": target})
        assert caught.value.target_address == target


@pytest.mark.parametrize(("name", "limit"), [("R_X86_64_PC16", 1 << 15), ("R_X86_64_PC8", 1 << 7)])
@pytest.mark.parametrize("beyond", [0, 1])
def test_narrow_displacements(linker: Linker, name: str, limit: int, beyond: int) -> None:
    number, width = NUMBERS[name], NARROW[name]
    for distance in (limit - 1 + beyond, -limit - beyond):
        elf = slot_object(number)
        section = elf.find(".rela.data")
        symbol = elf.find_symbol("first")
        # The target is `first`, one slot before the field.
        elf.set_relocation(section, 0, symbol=symbol, addend=distance + SLOT)
        if beyond:
            with pytest.raises(TargetOutOfRangeError) as caught:
                linker.link(bytes(elf))
            assert caught.value.value == distance
        else:
            linked = linker.link(bytes(elf))
            assert linked.integer("slot", width, signed=True) == distance


def test_absolute_code_is_placed_below_2_gib(linker: Linker) -> None:
    source = ".text\n.globl f, g\nf: mov $g, %eax\nret\ng: lea f, %rax\nret"
    linked = linker.link(compile_c(source, suffix=".s").read_bytes())
    assert linked.address("f") < 1 << 31
    assert linked.function("f")() == linked.address("g")
    assert linked.function("g")() == linked.address("f")


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_types_that_are_ignored(linker: Linker, name: str) -> None:
    linked = linker.link(bytes(slot_object(NUMBERS[name])))
    assert linked.read("slot", SLOT) == bytes(SLOT)


# Refused types


def refusal(number: int) -> UnsupportedRelocationError:
    with pytest.raises(UnsupportedRelocationError) as caught:
        read_graph(bytes(slot_object(number)))
    error = caught.value
    assert (error.file, error.section, error.offset) == ("<memory 0>", ".data", SLOT)
    assert error.number == number
    assert error.reason in str(error)
    return error


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_types_that_are_refused_by_name(row: Relocation) -> None:
    error = refusal(row.number)
    assert (error.relocation, error.reason) == (row.name, row.reason)
    assert f"relocation {row.name} is not supported" in str(error)
    assert "dynamic linker" in error.reason


@pytest.mark.parametrize("number", [52, 100, 249, 252, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_types_that_the_abi_does_not_have(number: int) -> None:
    error = refusal(number)
    assert error.relocation is None
    assert f"type {number} is not supported: the ABI does not define it" in str(error)


def test_refused_types_are_ignored_in_debug_sections() -> None:
    elf = slot_object(NUMBERS["R_X86_64_COPY"])
    data = elf.find(".data")
    elf.set_section(data, flags=0)
    graph = read_graph(bytes(elf))
    kinds = [edge.kind for block in graph.blocks for edge in block.edges]
    assert kinds == [K.POINTER64]


def test_numbers_and_names_are_those_of_readelf(tmp_path: Path) -> None:
    """Each type is in one relocation of an object, which readelf prints."""
    elf = ElfFile(compile_c(".data\n" + ".quad target\n" * len(RELOCATIONS), suffix=".s"))
    section = elf.find(".rela.data")
    for number, row in enumerate(RELOCATIONS):
        elf.set_relocation(section, number, type=row.number)
    path = tmp_path / "types.o"
    path.write_bytes(bytes(elf))
    printed = run([require("llvm-readelf-22"), "-r", "-W", path])
    names = [line.split()[2] for line in printed.splitlines() if line.endswith(" target + 0")]
    assert len(names) == len(RELOCATIONS)
    # Types without a name in LLVM: withdrawn, for new instructions only, or GNU ld's own.
    unnamed = {39, 40, 38, 46, 47, 48, 49, 51, 250, 251}
    for row, name in zip(RELOCATIONS, names, strict=True):
        assert name == ("Unknown" if row.number in unnamed else row.name)


def test_graphs_of_the_target() -> None:
    graph = TARGET.new_graph("x.o")
    assert (graph.triple, graph.pointer_size) == ("x86_64-unknown-linux-gnu", 8)
    assert graph.endianness == "little"
    assert graph.edge_kinds is K
