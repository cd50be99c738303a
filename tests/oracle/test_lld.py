"""The output of jitlink equals that of ld.lld, for every object of Debian's static archives.

By default, all objects of an archive are linked together, and some of them one by one; with
JITLINK_LONG=1 every object is also linked alone, with each layout, and by llvm-jitlink.
"""

import logging
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.oracle.check import (
    LAYOUTS,
    Linkers,
    Tally,
    global_name,
    linkable,
    linkers,
    members,
    uses_other_tls,
)
from tests.oracle.placement import ObjectFile
from tests.toolchain import ToolError, run

LONG = os.environ.get("JITLINK_LONG") == "1"
# Number of objects of each archive that are linked one by one, without JITLINK_LONG.
SAMPLE = 40
SEED = 22
# Concurrent runs of ld.lld, whose startup takes longer than a small link.
PROCESSES = 2

# Low addresses, at which llvm-jitlink links the most objects.
LLVM_FLAGS = (
    "-noexec",
    "-phony-externals",
    "-slab-allocate=64Mb",
    "-slab-address=0x10000000",
    "-slab-page-size=4096",
)

log = logging.getLogger(__name__)


def compare_each(both: Linkers, objects: Sequence[ObjectFile]) -> Tally:
    """Link objects one by one."""
    tally = Tally()
    with ThreadPoolExecutor(PROCESSES) as pool:
        running = [
            (each.name, pool.submit(both.compare, [each], both.place([each])))
            for each in linkable(both, objects, tally)
        ]
        for name, comparison in running:
            tally.add(name, 1, comparison.result())
    return tally


def compare_together(both: Linkers, objects: Sequence[ObjectFile]) -> Tally:
    """Link objects as one graph, except those that jitlink refuses."""
    tally = Tally()
    chosen = linkable(both, objects, tally)
    tally.add("together", len(chosen), both.compare(chosen, both.place(chosen)))
    return tally


@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_linked_one_by_one(layout: str, debian_archive: Path, tmp_path: Path) -> None:
    objects = members(debian_archive)
    if not LONG:
        objects = random.Random(SEED).sample(objects, min(SAMPLE, len(objects)))
    with linkers(layout, tmp_path) as both:
        tally = compare_each(both, objects)
    log.info("%s, %s, one by one: %s", debian_archive.name, layout, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_linked_together(layout: str, debian_archive: Path, tmp_path: Path) -> None:
    objects = members(debian_archive)
    with linkers(layout, tmp_path) as both:
        tally = compare_together(both, objects)
    log.info("%s, %s, together: %s", debian_archive.name, layout, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)


@pytest.mark.skipif(not LONG, reason="takes minutes; JITLINK_LONG=1 runs it")
def test_what_llvm_jitlink_links(llvm_jitlink: Path, debian_archive: Path, tmp_path: Path) -> None:
    objects = members(debian_archive)
    entries = {each.name: entry for each in objects if (entry := global_name(each.data))}

    def links(each: ObjectFile) -> bool:
        # Unreferenced objects are not linked, so one of the object's symbols is the entry point.
        path = tmp_path / each.name
        path.write_bytes(each.data)
        try:
            run([llvm_jitlink, *LLVM_FLAGS, f"-entry={entries[each.name]}", path])
        except ToolError:
            return False
        return True

    candidates = [each for each in objects if each.name in entries]
    with ThreadPoolExecutor(PROCESSES) as pool:
        results = pool.map(links, candidates)
        theirs = {each.name for each, done in zip(candidates, results, strict=True) if done}
    with linkers("low", tmp_path) as both:
        ours = {each.name for each in linkable(both, objects, Tally())}
    log.info(
        "%s: %d objects; of %d with a global symbol llvm-jitlink links %d, jitlink %d; "
        "jitlink only %d, llvm-jitlink only %d",
        debian_archive.name,
        len(objects),
        len(candidates),
        len(theirs),
        len(ours & entries.keys()),
        len((ours & entries.keys()) - theirs),
        len(theirs - ours),
    )
    only_theirs = [each for each in objects if each.name in theirs - ours]
    assert [each.name for each in only_theirs if not uses_other_tls(each.data)] == []
