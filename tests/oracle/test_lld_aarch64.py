"""The output of jitlink for AArch64 equals that of ld.lld, for Debian's cross archives.

By default, all objects of an archive are linked together, and some of them one by one; with
JITLINK_LONG=1 every object is also linked alone, with each layout.
"""

import logging
import random
from pathlib import Path

import pytest

from tests.oracle.check import LAYOUTS, linkers, members
from tests.oracle.test_lld import LONG, SAMPLE, SEED, compare_each, compare_together
from tests.toolchain import CROSS_ARCHIVES, require

TARGET = "aarch64-linux-gnu"
ARCHIVES = CROSS_ARCHIVES[TARGET]

log = logging.getLogger(__name__)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("archive", ARCHIVES)
def test_objects_linked_one_by_one(archive: str, layout: str, tmp_path: Path) -> None:
    objects = members(require(f"{TARGET}/{archive}"))
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
    objects = members(require(f"{TARGET}/{archive}"))
    with linkers(layout, tmp_path) as both:
        tally = compare_together(both, objects)
    log.info("%s, %s, together: %s", archive, layout, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)
