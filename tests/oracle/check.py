"""Links objects with both linkers, with each of several layouts of memory, and compares."""

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
from tests.oracle.placement import SLAB_SIZE, Addressing, ObjectFile, Placement, Refused, place
from tests.toolchain import require


class Layout(NamedTuple):
    """A layout of memory, and the flags of ld.lld for it.

    Attributes:
        addressing: addresses of sections and external symbols.
        flags: flags that select the kind of ld.lld's output.
    """

    addressing: Addressing
    flags: Sequence[str]


# "Near" addresses are within 128 MiB, the range of the shortest calls.
LAYOUTS = {
    # All addresses are in the low 2 GiB: GOT loads may become immediate operands.
    "low": Layout(Addressing(0x10000000, near=0x16000000, null_weak=True), ("-static",)),
    # All addresses are near each other, and have 47 bits.
    "high": Layout(
        Addressing(0x7F1210000000, near=0x7F1216000000),
        ("-pie", "--no-dynamic-linker", "--apply-dynamic-relocs"),
    ),
    # External symbols are out of range: GOT entries and stubs are needed.
    "far": Layout(
        Addressing(0x7F1210000000, near=0x7F1216000000, far=0x55D510000000, null_weak=True),
        ("-shared", "-Bsymbolic", "--apply-dynamic-relocs"),
    ),
}


@dataclass
class Tally:
    """Results of a number of objects.

    Attributes:
        objects: number of objects.
        equal: number of objects that both linkers link equally.
        refused: number of objects that jitlink does not link, by reason.
        sections: number of compared sections.
        frames: number of compared FDEs.
        resolved: number of fields with different bytes and the same target, by relocation type.
        differences: descriptions of all differences.
    """

    objects: int = 0
    equal: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    sections: int = 0
    frames: int = 0
    resolved: Counter[int] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def add(self, name: str, objects: int, result: Comparison) -> None:
        """Add the result of objects that were linked together."""
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
    """Both linkers, with one layout.

    Args:
        layout: the layout.
        directory: directory for files.
    """

    def __init__(self, layout: Layout, directory: Path) -> None:
        self.layout = layout
        self.directory = directory
        self.program = require("ld.lld-22")
        self.memory = SlabMemoryManager(SLAB_SIZE, layout.addressing.base)

    def place(self, objects: Sequence[ObjectFile]) -> Placement:
        """Link objects with jitlink.

        Raises:
            Refused: jitlink refuses them.
        """
        return place(objects, self.layout.addressing, self.memory)

    def compare(self, objects: Sequence[ObjectFile], placement: Placement) -> Comparison:
        """Link the same objects with ld.lld, and compare."""
        name = f"{objects[0].name}+{len(objects) - 1}"
        directory = self.directory / name
        directory.mkdir()
        flags = self.layout.flags
        reference = link_at(
            self.program, directory, objects, placement, self.layout.addressing, flags
        )
        return compare(placement, reference)


@contextmanager
def linkers(layout: str, directory: Path) -> Iterator[Linkers]:
    """Both linkers; the memory is released at the end."""
    both = Linkers(LAYOUTS[layout], directory)
    try:
        yield both
    finally:
        both.memory.close()


def members(archive: Path) -> list[ObjectFile]:
    """All objects of a static archive."""
    found = Archive(archive.read_bytes(), archive.name).members()
    return [ObjectFile(each.name, bytes(each.data)) for each in found if each.data]


def tls_relocations(data: bytes) -> set[str]:
    """Names of the TLS relocation types in an object's loaded sections."""
    elf = ElfFile(data)
    kinds = ARCHITECTURES[elf.machine].tls_relocations
    return {
        kinds[each.type]
        for section in elf.sections
        if section.flags & SHF_ALLOC
        for each in elf.relocations(section)
        if each.type in kinds
    }


def uses_other_tls(data: bytes) -> bool:
    """Whether an object uses TLS, and that of its architecture is not compared.

    The C library allocates the TLS block and resolves TLS relocations, so the output of ld.lld is
    no oracle. Other tests run such code.
    """
    elf = ElfFile(data)
    if ARCHITECTURES[elf.machine].tls is not None:
        return False
    return bool(tls_relocations(data)) or any(each.flags & SHF_TLS for each in elf.sections)


def global_name(data: bytes) -> str | None:
    """Name of a global symbol that an object defines, or None if there is none."""
    names = (
        each.name for each in ElfFile(data).symbols if each.binding != STB_LOCAL and each.shndx
    )
    return next(names, None)


def linkable(both: Linkers, objects: Sequence[ObjectFile], tally: Tally) -> list[ObjectFile]:
    """The objects that jitlink links one by one; the others are counted as refused."""
    found = []
    for each in objects:
        tally.objects += 1
        if uses_other_tls(each.data):
            tally.refused["not compared: TLS"] += 1
            continue
        try:
            both.place([each])
        except Refused as refusal:
            tally.refused[refusal.reason] += 1
            tally.differences.append(f"{each.name}: not linked: {refusal}")
        else:
            found.append(each)
    return found
