"""What jitlink writes equals what ld.lld writes, for every object of Debian's static archives.

By default, all objects of an archive are linked together, and some of them one by one; with
JITLINK_LONG=1 every object is also linked by itself, each way, and llvm-jitlink is given the
same objects.
"""

import logging
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.oracle.check import (
    WAYS,
    Linkers,
    Tally,
    global_name,
    linkable,
    linkers,
    members,
    tls_relocations,
)
from tests.oracle.placement import ObjectFile
from tests.toolchain import ToolError, run

LONG = os.environ.get("JITLINK_LONG") == "1"
# Objects of each archive that are linked one by one, unless all are.
SAMPLE = 40
SEED = 22
# ld.lld spends most of a small link on starting.
PROCESSES = 2

# Where it links most: addresses that 32-bit fields reach.
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
    """Link objects as one graph, without those that jitlink does not link."""
    tally = Tally()
    chosen = linkable(both, objects, tally)
    tally.add("together", len(chosen), both.compare(chosen, both.place(chosen)))
    return tally


@pytest.mark.parametrize("way", WAYS)
def test_objects_linked_one_by_one(way: str, debian_archive: Path, tmp_path: Path) -> None:
    objects = members(debian_archive)
    if not LONG:
        objects = random.Random(SEED).sample(objects, min(SAMPLE, len(objects)))
    with linkers(way, tmp_path) as both:
        tally = compare_each(both, objects)
    log.info("%s, %s, one by one: %s", debian_archive.name, way, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)


@pytest.mark.parametrize("way", WAYS)
def test_objects_linked_together(way: str, debian_archive: Path, tmp_path: Path) -> None:
    objects = members(debian_archive)
    with linkers(way, tmp_path) as both:
        tally = compare_together(both, objects)
    log.info("%s, %s, together: %s", debian_archive.name, way, tally)
    assert tally.differences == []
    assert tally.equal + tally.refused.total() == len(objects)


@pytest.mark.skipif(not LONG, reason="takes minutes; JITLINK_LONG=1 runs it")
def test_what_llvm_jitlink_links(llvm_jitlink: Path, debian_archive: Path, tmp_path: Path) -> None:
    objects = members(debian_archive)
    entries = {each.name: entry for each in objects if (entry := global_name(each.data))}

    def links(each: ObjectFile) -> bool:
        # What is not needed is not linked, so it must be told a name.
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
    assert [each.name for each in only_theirs if not tls_relocations(each.data)] == []
