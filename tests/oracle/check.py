"""Puts objects through both linkers, in each of the ways in which they may lie in memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jitlink.formats.archive import Archive
from jitlink.memory.slab import SlabMemoryManager
from tests.oracle.architectures import ARCHITECTURES
from tests.oracle.compare import Comparison, compare
from tests.oracle.elf_file import SHF_ALLOC, SHF_TLS, STB_LOCAL, ElfFile
from tests.oracle.lld import link_at
from tests.oracle.placement import ROOM, Addressing, ObjectFile, Placement, Refused, place
from tests.toolchain import require


class Way(NamedTuple):
    """A way to link.

    Attributes:
        addressing: where things go.
        flags: the kind of output that ld.lld makes there.
    """

    addressing: Addressing
    flags: Sequence[str]


# Near is within the 128 MiB that the shortest calls reach.
WAYS = {
    # Everything in the low 2 GiB: GOT loads may become immediate operands.
    "low": Way(Addressing(0x10000000, near=0x16000000, null_weak=True), ("-static",)),
    # Everything near everything else, but at addresses of 47 bits.
    "high": Way(
        Addressing(0x7F1210000000, near=0x7F1216000000),
        ("-pie", "--no-dynamic-linker", "--apply-dynamic-relocs"),
    ),
    # What others define is out of reach: GOT entries and stubs are needed.
    "far": Way(
        Addressing(0x7F1210000000, near=0x7F1216000000, far=0x55D510000000, null_weak=True),
        ("-shared", "-Bsymbolic", "--apply-dynamic-relocs"),
    ),
}


@dataclass
class Tally:
    """How a number of objects fared.

    Attributes:
        objects: how many there were.
        equal: how many are the same from both linkers.
        refused: how many jitlink does not link, by reason.
        sections: how many sections were compared.
        frames: how many frame descriptions were compared.
        resolved: fields with different bytes that refer to the same, by relocation type.
        differences: everything that differs, a sentence each.
    """

    objects: int = 0
    equal: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    sections: int = 0
    frames: int = 0
    resolved: Counter[int] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def add(self, name: str, objects: int, result: Comparison) -> None:
        """Take in what became of some objects that were linked together."""
        self.equal += 0 if result.differences else objects
        self.sections += result.sections
        self.frames += result.frames
        self.resolved += result.resolved
        self.differences += [f"{name}: {each}" for each in result.differences]

    def __str__(self) -> str:
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(self.refused.items()))
        resolved = ", ".join(f"{count} of type {kind}" for kind, count in self.resolved.items())
        return (
            f"{self.objects} objects, {self.equal} equal, refused: {refused or 'none'}; "
            f"{self.sections} sections, {self.frames} frames, resolved: {resolved or 'none'}"
        )


class Linkers:
    """Both linkers, one way.

    Args:
        way: the way.
        directory: where files may be written.
    """

    def __init__(self, way: Way, directory: Path) -> None:
        self.way = way
        self.directory = directory
        self.program = require("ld.lld-22")
        self.memory = SlabMemoryManager(ROOM, way.addressing.base)

    def place(self, objects: Sequence[ObjectFile]) -> Placement:
        """Link objects with jitlink.

        Raises:
            Refused: it does not link them.
        """
        return place(objects, self.way.addressing, self.memory)

    def compare(self, objects: Sequence[ObjectFile], placement: Placement) -> Comparison:
        """Link the same objects with ld.lld, and compare."""
        name = f"{objects[0].name}+{len(objects) - 1}"
        directory = self.directory / name
        directory.mkdir()
        flags = self.way.flags
        reference = link_at(self.program, directory, objects, placement, self.way.addressing, flags)
        return compare(placement, reference)


@contextmanager
def linkers(way: str, directory: Path) -> Iterator[Linkers]:
    """Both linkers; the memory goes at the end."""
    both = Linkers(WAYS[way], directory)
    try:
        yield both
    finally:
        both.memory.close()


def members(archive: Path) -> list[ObjectFile]:
    """All objects of a static archive."""
    found = Archive(archive.read_bytes(), archive.name).members()
    return [ObjectFile(each.name, bytes(each.data)) for each in found if each.data]


def tls_relocations(data: bytes) -> set[str]:
    """Names of the relocation types of thread-local storage that an object's sections have."""
    elf = ElfFile(data)
    kinds = ARCHITECTURES[elf.machine].tls_relocations
    return {
        kinds[each.type]
        for section in elf.sections
        if section.flags & SHF_ALLOC
        for each in elf.relocations(section)
        if each.type in kinds
    }


def linked_for_threads(data: bytes) -> bool:
    """Whether an object has to do with thread-local storage that is linked.

    Where variables are, and so what refers to them, is then up to the C library: ld.lld's layout is
    no oracle. That the code does what it should is shown by what it does when it runs.
    """
    elf = ElfFile(data)
    if not ARCHITECTURES[elf.machine].links_threads:
        return False
    return bool(tls_relocations(data)) or any(each.flags & SHF_TLS for each in elf.sections)


def global_name(data: bytes) -> str | None:
    """Name of a global symbol that an object defines, or None if there is none."""
    names = (
        each.name for each in ElfFile(data).symbols if each.binding != STB_LOCAL and each.shndx
    )
    return next(names, None)


def linkable(both: Linkers, objects: Sequence[ObjectFile], tally: Tally) -> list[ObjectFile]:
    """The objects that jitlink links by themselves; the others are counted."""
    found = []
    for each in objects:
        tally.objects += 1
        if linked_for_threads(each.data):
            tally.refused["not compared: thread-local storage"] += 1
            continue
        try:
            both.place([each])
        except Refused as refusal:
            tally.refused[refusal.reason] += 1
            if refusal.reason not in tls_relocations(each.data):
                tally.differences.append(f"{each.name}: not linked: {refusal}")
        else:
            found.append(each)
            # What is refused is refused by name: nothing is linked as if it were something else.
            tally.differences += [
                f"{each.name}: linked in spite of {kind}" for kind in tls_relocations(each.data)
            ]
    return found
