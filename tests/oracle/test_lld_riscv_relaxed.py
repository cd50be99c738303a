"""Relaxed RISC-V code equals that of ld.lld, instruction by instruction.

All objects of an archive are linked together, so that most calls have a near target. External
symbols are out of range of a short call, because only ld.lld, which has their addresses before
layout, would relax such calls. Only loads of GOT entries may differ: each linker has a GOT of its
own, and jitlink relaxes loads of near addresses. Objects with code of the local exec model are left
out: only ld.lld, which has the offsets from the thread pointer before layout, relaxes it. So are
those of the general dynamic model, which has addresses in the GOT.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink.link import PassConfiguration
from tests.oracle.architectures import ARCHITECTURES, EM_RISCV
from tests.oracle.check import Layout, Linkers, Tally, linkable, members, tls_relocations
from tests.oracle.elf_file import SHF_ALLOC
from tests.oracle.frames import read_frames
from tests.oracle.lld import Reference, link_at
from tests.oracle.placement import EH_FRAME, SLAB_SIZE, Addressing, Placement
from tests.oracle.test_lld_riscv import ARCHIVES, TARGET, jumps_outside
from tests.toolchain import require

SHF_EXECINSTR = 4
LAYOUTS = {
    "low": Layout(Addressing(0x10000000, near=0x10000000 + 2 * SLAB_SIZE), ("-static",)),
    "high": Layout(
        Addressing(0x7F1210000000, near=0x7F1210000000 + 2 * SLAB_SIZE),
        ("-pie", "--no-dynamic-linker", "--apply-dynamic-relocs"),
    ),
}
OTHERS = {"R_RISCV_TPREL_HI20", "R_RISCV_TLS_GD_HI20"}
RD, RS1, FUNCT3, OPCODE = 0xF80, 0xF8000, 0x7000, 0x7F
AUIPC, LUI, ADDI, LOAD_DOUBLE = 0x17, 0x37, 0x13, 0x3003

log = logging.getLogger(__name__)


class Instruction(NamedTuple):
    """The offset of an instruction in its section, and its encoding."""

    offset: int
    code: int


def instructions(content: bytes) -> Iterator[Instruction]:
    """The instructions of code; data between them is decoded too, equally in both outputs."""
    position = 0
    while position < len(content):
        size = 4 if content[position] & 3 == 3 else 2
        yield Instruction(position, int.from_bytes(content[position : position + size], "little"))
        position += size


def is_load_of_address(mine: int, theirs: int) -> bool:
    """Whether two instructions belong to equivalent sequences that get an address."""
    if mine & OPCODE in {AUIPC, LUI}:
        # Absolute symbols may have addresses that lui forms.
        return theirs & OPCODE == AUIPC and (mine ^ theirs) & RD == 0
    if mine & (OPCODE | FUNCT3) in {ADDI, LOAD_DOUBLE}:
        return theirs & (OPCODE | FUNCT3) == LOAD_DOUBLE and (mine ^ theirs) & (RD | RS1) == 0
    return False


def differences(placement: Placement, reference: Reference) -> Iterator[str]:
    """Descriptions of all differences."""
    for placed in placement.sections:
        section, content = placed.section, placed.content
        if content is None or not section.flags & SHF_ALLOC or section.name == EH_FRAME:
            continue
        theirs = reference.memory.read(placed.address, len(content))
        if content == theirs:
            continue
        if theirs is None or not section.flags & SHF_EXECINSTR:
            yield f"{section.name} at {placed.address:#x} differs"
            continue
        for one, other in zip(instructions(content), instructions(theirs), strict=False):
            if one == other or is_load_of_address(one.code, other.code):
                continue
            place = placed.address + one.offset
            yield f"{section.name}: at {place:#x} {one.code:#x}, with ld.lld {other.code:#x}"
            break


@pytest.fixture
def relaxing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enable relaxation in both linkers."""

    def configure(_passes: PassConfiguration) -> None:
        pass

    changed = ARCHITECTURES[EM_RISCV]._replace(flags=("--relax",), configure=configure)
    monkeypatch.setitem(ARCHITECTURES, EM_RISCV, changed)


@pytest.mark.usefixtures("relaxing")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_relaxed_code_is_that_of_lld(archive: str, layout: str, tmp_path: Path) -> None:
    objects = [each for each in members(require(f"{TARGET}/{archive}")) if not jumps_outside(each)]
    objects = [each for each in objects if not OTHERS & tls_relocations(each.data)]
    tally = Tally()
    both = Linkers(LAYOUTS[layout], tmp_path)
    try:
        chosen = linkable(both, objects, tally)
        placement = both.place(chosen)
    finally:
        both.memory.close()
    flags = both.layout.flags
    reference = link_at(both.program, tmp_path, chosen, placement, both.layout.addressing, flags)
    code = [each for each in placement.sections if each.section.flags & SHF_EXECINSTR]
    before = sum(each.section.size for each in code)
    after = sum(len(each.content or b"") for each in code)
    what = (len(chosen), after, before)
    log.info("%s, %s: %d objects, %d bytes of code, were %d", archive, layout, *what)
    assert tally.differences == []
    assert list(differences(placement, reference)) == []
    mine = read_frames(placement.memory, placement.frames)
    assert mine == read_frames(reference.memory, reference.frames)
    assert after < before
