"""What jitlink writes for AArch64 equals what ld.lld writes, for Debian's cross archives.

By default, all objects of an archive are linked together, and some of them one by one; with
JITLINK_LONG=1 every object is also linked by itself, each way.
"""

import logging
import random
from pathlib import Path

import pytest

from tests.oracle.check import WAYS, linkers, members
from tests.oracle.test_lld import LONG, SAMPLE, SEED, compare_each, compare_together
from tests.toolchain import CROSS_ARCHIVES, require

TARGET = "aarch64-linux-gnu"
ARCHIVES = CROSS_ARCHIVES[TARGET]

log = logging.getLogger(__name__)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_objects_linked_one_by_one(archive: str, way: str, tmp_path: Path) -> None:
    objects = members(require(f"{TARGET}/{archive}"))
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
    objects = members(require(f"{TARGET}/{archive}"))
    with linkers(way, tmp_path) as both:
        tally = compare_together(both, objects)
    log.info("%s, %s, together: %s", archive, way, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)
