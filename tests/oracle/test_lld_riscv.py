"""The output of jitlink for RISC-V equals that of ld.lld, for Debian's cross archives.

By default, all objects of an archive are linked together, and some of them one by one; with
JITLINK_LONG=1 every object is also linked alone, with each layout. Code is not relaxed, except for
alignment.
"""

import logging
import random
from pathlib import Path

import pytest

from tests.oracle.check import LAYOUTS, linkers, members, tls_relocations
from tests.oracle.elf_file import ElfFile
from tests.oracle.placement import ObjectFile
from tests.oracle.riscv import R_JAL
from tests.oracle.test_lld import LONG, SAMPLE, SEED, compare_each, compare_together
from tests.toolchain import CROSS_ARCHIVES, require

TARGET = "riscv64-linux-gnu"
ARCHIVES = CROSS_ARCHIVES[TARGET]

log = logging.getLogger(__name__)


def jumps_outside(each: ObjectFile) -> bool:
    """Whether an object has a `jal` (range 1 MiB) to an undefined symbol, which ld.lld refuses."""
    elf = ElfFile(each.data)
    return any(
        relocation.type == R_JAL and elf.symbols[relocation.symbol].shndx == 0
        for section in elf.sections
        for relocation in elf.relocations(section)
    )


def comparable(archive: str, layout: str) -> list[ObjectFile]:
    """The objects of an archive that ld.lld links with a layout."""
    objects = [each for each in members(require(f"{TARGET}/{archive}")) if not jumps_outside(each)]
    if layout == "far":
        # ld.lld refuses code of the local exec model in shared objects.
        objects = [
            each for each in objects if "R_RISCV_TPREL_HI20" not in tls_relocations(each.data)
        ]
    return objects


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_objects_linked_one_by_one(archive: str, layout: str, tmp_path: Path) -> None:
    objects = comparable(archive, layout)
    if not LONG:
        objects = random.Random(SEED).sample(objects, min(SAMPLE, len(objects)))
    with linkers(layout, tmp_path) as both:
        tally = compare_each(both, objects)
    log.info("%s, %s, one by one: %s", archive, layout, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_objects_linked_together(archive: str, layout: str, tmp_path: Path) -> None:
    objects = comparable(archive, layout)
    with linkers(layout, tmp_path) as both:
        tally = compare_together(both, objects)
    log.info("%s, %s, together: %s", archive, layout, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)
