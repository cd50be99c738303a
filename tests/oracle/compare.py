"""Compares the outputs of jitlink and ld.lld for the same objects, byte by byte.

Equal bytes are equal references too: both outputs have all sections and symbols at the same
addresses, except the GOT and the stubs, which are at different addresses. Bytes that differ must
belong to a relocation, and both must have the same target.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.oracle.architectures import ARCHITECTURES
from tests.oracle.frames import read_frames
from tests.oracle.lld import Reference
from tests.oracle.memory import Ifunc
from tests.oracle.placement import EH_FRAME, PlacedSection, Placement

# Sections that are not in the output of ld.lld. They have no relocations, so they are compared with
# the object.
_CONSUMED = (".note.GNU-stack", ".note.gnu.property", ".gnu.warning.", ".riscv.attributes")


@dataclass
class Comparison:
    """The result of a comparison.

    Attributes:
        differences: descriptions of all differences.
        sections: number of sections that were compared byte by byte.
        resolved: number of fields with different bytes and the same target, by relocation type.
        frames: number of compared FDEs.
    """

    differences: list[str] = field(default_factory=list)
    sections: int = 0
    resolved: Counter[int] = field(default_factory=Counter)
    frames: int = 0


def compare(placement: Placement, reference: Reference) -> Comparison:
    """Compare all sections, the global symbols and the FDEs."""
    result = Comparison()
    outside = dict.fromkeys(reference.sections, 0)
    for placed in placement.sections:
        section = placed.section
        if section.name == EH_FRAME:
            continue
        result.sections += 1
        if section.name.startswith(_CONSUMED):
            theirs: bytes | None = placed.elf.content(section)
        elif section.is_allocated:
            theirs = _allocated(placed, reference)
        else:
            theirs, outside[section.name] = _unallocated(placed, outside, reference)
        if (placed.content or b"") != theirs:
            result.differences += _compare_bytes(
                placed, theirs, placement, reference, result.resolved
            )
    result.differences += _compare_symbols(placement, reference)
    _compare_frames(placement, reference, result)
    return result


def _allocated(placed: PlacedSection, reference: Reference) -> bytes | None:
    # Relaxation may have removed padding, so the size may differ from that in the object.
    size = 0 if placed.content is None else len(placed.content)
    return reference.memory.read(placed.address, size)


def _unallocated(
    placed: PlacedSection, outside: dict[str, int], reference: Reference
) -> tuple[bytes | None, int]:
    """The next part of the output section of that name, and its end."""
    section, size = placed.section, len(placed.content or b"")
    content = reference.sections.get(section.name)
    if content is None:
        return (None if size else b""), 0
    start = -(-outside[section.name] // section.alignment) * section.alignment
    return content[start : start + size], start + size


def _compare_bytes(
    placed: PlacedSection,
    theirs: bytes | None,
    placement: Placement,
    reference: Reference,
    resolved: Counter[int],
) -> Iterator[str]:
    section, address = placed.section, placed.address
    mine = bytearray(placed.content or b"")
    if theirs is None or len(theirs) != len(mine):
        found = "nothing" if theirs is None else f"{len(theirs):#x} bytes"
        yield f"{section.name}: {len(mine):#x} bytes, ld.lld has {found}"
        return
    architecture = ARCHITECTURES[placed.elf.machine]
    for relocation in placed.elf.relocations(section):
        span = architecture.touched(relocation)
        part = slice(span.start, span.stop)
        if mine[part] == theirs[part]:
            continue
        values: list[object] = []
        for memory in (placement.memory, reference.memory):
            try:
                place = address + relocation.offset
                value = architecture.meaning(memory, place, relocation, placed.elf, section)
                values.append(value)
            except LookupError as error:
                values.append(str(error))
        if values[0] != values[1] or isinstance(values[0], str):
            name = placed.elf.symbols[relocation.symbol].name
            yield (
                f"{section.name}+{relocation.offset:#x}: relocation type {relocation.type} to "
                f"{name}{relocation.addend:+#x} refers to {_shown(values[0])}, "
                f"with ld.lld to {_shown(values[1])} "
                f"({mine[part].hex()}, ld.lld {theirs[part].hex()})"
            )
        resolved[relocation.type] += 1
        mine[part] = theirs[part]
    for offset, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        if one != other:
            where = f"{section.name}+{offset:#x}"
            yield f"{where}: {one:02x} without a relocation, ld.lld has {other:02x}"
            return


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


def _compare_symbols(placement: Placement, reference: Reference) -> Iterator[str]:
    for name, theirs in reference.symbols.items():
        mine = placement.symbols.get(name)
        if mine is None:
            continue
        one, other = placement.memory.follow(mine), reference.memory.follow(theirs)
        # In a symbol table the value of an ifunc may be its resolver.
        if isinstance(one, Ifunc) and not isinstance(other, Ifunc):
            one = one.resolver
        if one != other:
            yield f"symbol {name} is at {_shown(one)}, with ld.lld at {_shown(other)}"


def _compare_frames(placement: Placement, reference: Reference, result: Comparison) -> None:
    try:
        mine = read_frames(placement.memory, placement.frames)
        theirs = read_frames(reference.memory, reference.frames)
    except LookupError as error:
        result.differences.append(f"{EH_FRAME}: {error}")
        return
    result.frames = len(mine)
    if mine != theirs:
        only = [each for each in mine if each not in theirs]
        missing = [each for each in theirs if each not in mine]
        result.differences.append(
            f"{EH_FRAME}: {len(mine)} frames, ld.lld has {len(theirs)}; "
            f"only here {only[:2]}, only there {missing[:2]}"
        )
