"""The comparison with ld.lld detects each fault that is injected into jitlink's output."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.oracle.check import Linkers, linkers
from tests.oracle.compare import Comparison, compare
from tests.oracle.lld import Reference, link_at
from tests.oracle.placement import EH_FRAME, ObjectFile, Placement
from tests.toolchain import compile_c

SOURCE = """
    .globl f
f:
    .cfi_startproc
    nop
    movq outside@GOTPCREL(%rip), %rax
    pushq outside@GOTPCREL(%rip)
    call external@PLT
    leaq f(%rip), %rcx
    ret
    .cfi_endproc
    .data
    .globl data
data:
    .quad f
    .quad 7
"""

PLT32, GOTPCREL, REX_GOTPCRELX, PC32 = 4, 9, 42, 2


@pytest.fixture(params=["low", "high", "far"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Linkers]:
    with linkers(request.param, tmp_path) as both:
        yield both


@pytest.fixture
def source() -> ObjectFile:
    path = compile_c(SOURCE, "clang", suffix=".s")
    return ObjectFile(path.name, path.read_bytes())


@pytest.fixture
def placement(both: Linkers, source: ObjectFile) -> Placement:
    return both.place([source])


@pytest.fixture
def reference(both: Linkers, source: ObjectFile, placement: Placement, tmp_path: Path) -> Reference:
    return link_at(
        both.program, tmp_path, [source], placement, both.layout.addressing, both.layout.flags
    )


def spoil(placement: Placement, address: int, *, bit: int = 1) -> None:
    """Flip a bit of jitlink's output."""
    byte = placement.memory.integer(address, 1, signed=False) ^ bit
    assert placement.memory.write(address, bytes([byte]))
    for number, each in enumerate(placement.sections):
        if each.content is not None and each.address <= address < each.address + len(each.content):
            content = bytearray(each.content)
            content[address - each.address] = byte
            placement.sections[number] = each._replace(content=bytes(content))


def place_of(placement: Placement, kind: int) -> int:
    """Address of the field of the first relocation of a type."""
    return next(
        placed.address + each.offset
        for placed in placement.sections
        if placed.section.name != EH_FRAME
        for each in placed.elf.relocations(placed.section)
        if each.type == kind
    )


def check_one(result: Comparison, *words: str) -> None:
    (difference,) = result.differences
    assert all(word in difference for word in words), difference


def test_no_fault(placement: Placement, reference: Reference) -> None:
    assert compare(placement, reference).differences == []


def test_code(placement: Placement, reference: Reference) -> None:
    spoil(placement, placement.symbols["f"])
    check_one(compare(placement, reference), ".text+0x0", "without a relocation")


def test_data(placement: Placement, reference: Reference) -> None:
    spoil(placement, placement.symbols["data"] + 8)
    check_one(compare(placement, reference), ".data+0x8", "without a relocation")


@pytest.mark.parametrize("kind", [PLT32, GOTPCREL, REX_GOTPCRELX, PC32])
def test_field(kind: int, placement: Placement, reference: Reference) -> None:
    spoil(placement, place_of(placement, kind), bit=0x10)
    check_one(compare(placement, reference), f"relocation type {kind} to", "refers to")


def test_register(placement: Placement, reference: Reference) -> None:
    spoil(placement, place_of(placement, REX_GOTPCRELX) - 1, bit=0x08)
    check_one(compare(placement, reference), "register=1", "register=0")


def test_operation(placement: Placement, reference: Reference) -> None:
    # lea becomes mov, or mov becomes lea.
    spoil(placement, place_of(placement, REX_GOTPCRELX) - 2, bit=0x06)
    check_one(compare(placement, reference), f"relocation type {REX_GOTPCRELX} to")


def test_pointer(placement: Placement, reference: Reference) -> None:
    place = place_of(placement, GOTPCREL)
    spoil(placement, place + 4 + placement.memory.integer(place, 4))
    result = compare(placement, reference)
    assert any(f"relocation type {GOTPCREL} to outside" in each for each in result.differences)


@pytest.mark.parametrize("both", ["far"], indirect=True)
def test_stub(placement: Placement, reference: Reference) -> None:
    assert compare(placement, reference).resolved[PLT32] == 1
    place = place_of(placement, PLT32)
    stub = place + 4 + placement.memory.integer(place, 4)
    spoil(placement, stub + 2, bit=8)
    check_one(compare(placement, reference), f"relocation type {PLT32} to external")


def _set_symbol(placement: Placement) -> None:
    placement.symbols = {**placement.symbols, "data": placement.symbols["data"] + 8}


def _drop_frames(placement: Placement) -> None:
    placement.frames = None


def _shorten_frame(placement: Placement) -> None:
    assert placement.frames is not None
    (cie,) = {placement.memory.integer(placement.frames.start, 4)}
    spoil(placement, placement.frames.start + 4 + cie + 12)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_set_symbol, ["symbol data is at"]),
        (_drop_frames, [".eh_frame: 0 frames, ld.lld has 1"]),
        (_shorten_frame, [".eh_frame: 1 frames, ld.lld has 1; only here"]),
    ],
)
def test_tables(
    fault: Callable[[Placement], None],
    words: list[str],
    placement: Placement,
    reference: Reference,
) -> None:
    fault(placement)
    check_one(compare(placement, reference), *words)
