"""What jitlink writes for RISC-V equals what ld.lld writes, for Debian's cross archives.

By default, all objects of an archive are linked together, and some of them one by one; with
JITLINK_LONG=1 every object is also linked by itself, each way. Code is not relaxed, but for
alignment.
"""

import logging
import random
from pathlib import Path

import pytest

from tests.oracle.check import WAYS, linkers, members
from tests.oracle.elf_file import ElfFile
from tests.oracle.placement import ObjectFile
from tests.oracle.riscv import R_JAL
from tests.oracle.test_lld import LONG, SAMPLE, SEED, compare_each, compare_together
from tests.toolchain import CROSS_ARCHIVES, require

TARGET = "riscv64-linux-gnu"
ARCHIVES = CROSS_ARCHIVES[TARGET]

log = logging.getLogger(__name__)


def jumps_outside(each: ObjectFile) -> bool:
    """Whether an object jumps to an undefined symbol with a reach of 1 MiB, as ld.lld cannot."""
    elf = ElfFile(each.data)
    return any(
        relocation.type == R_JAL and elf.symbols[relocation.symbol].shndx == 0
        for section in elf.sections
        for relocation in elf.relocations(section)
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_objects_linked_one_by_one(archive: str, way: str, tmp_path: Path) -> None:
    objects = members(require(f"{TARGET}/{archive}"))
    objects = [each for each in objects if not jumps_outside(each)]
    if not LONG:
        objects = random.Random(SEED).sample(objects, min(SAMPLE, len(objects)))
    with linkers(way, tmp_path) as both:
        tally = compare_each(both, objects)
    log.info("%s, %s, one by one: %s", archive, way, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_objects_linked_together(archive: str, way: str, tmp_path: Path) -> None:
    objects = [each for each in members(require(f"{TARGET}/{archive}")) if not jumps_outside(each)]
    with linkers(way, tmp_path) as both:
        tally = compare_together(both, objects)
    log.info("%s, %s, together: %s", archive, way, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)
