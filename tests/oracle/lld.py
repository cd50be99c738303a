"""Links objects with ld.lld, with every section at the address that jitlink gave it.

A linker script sets the address of each section. The sections that ld.lld generates are at other
addresses, behind those of the objects, so that no reference to them can equal one to a section that
jitlink generates. So is `.eh_frame`, which ld.lld rewrites.

Undefined symbols are defined in a second object. Those that are out of range of the relocations are
left to dynamic relocations, which `link_at` applies to the linked file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.oracle.architectures import ARCHITECTURES
from tests.oracle.elf_file import (
    SHF_TLS,
    SHT_NOBITS,
    SHT_RELA,
    STB_LOCAL,
    STT_TLS,
    ElfFile,
    ElfSection,
    externals_object,
)
from tests.oracle.memory import Memory, TLSBlock
from tests.oracle.placement import (
    EH_FRAME,
    EXTERNAL_SPACING,
    EXTERNAL_TLS_PLACE,
    SLAB_SIZE,
    Addressing,
    ObjectFile,
    PlacedSection,
    Placement,
)
from tests.toolchain import ToolError, run

# No string merging, no padding of segments to pages, one thread for each of many short runs.
_FLAGS = (
    "-O0",
    "--threads=1",
    "--no-check-sections",
    "--build-id=none",
    "--hash-style=sysv",
    "-znorelro",
    "-znotext",
    "-e0",
)
_STUBS = (".plt", ".iplt", ".plt.got", ".plt.sec")
_GENERATED = (
    (".dynsym", ".hash", ".dynstr", ".rela.dyn", ".rela.plt", EH_FRAME),
    _STUBS,
    (".dynamic", ".got", ".got.plt"),
)
_EXTERNAL_VARIABLES = ".tbss.externals"
_GOT_SYMBOL = "_GLOBAL_OFFSET_TABLE_"


class Unplaceable(Exception):  # noqa: N818 - no error: an outcome that is reported
    """ld.lld refuses the object at these addresses; the text is its error message."""


@dataclass(frozen=True)
class Reference:
    """The output of ld.lld.

    Attributes:
        memory: the contents of memory when the program starts.
        symbols: addresses of the global symbols that the object defines.
        frames: address range of `.eh_frame`, or None.
        sections: the sections of the linked file that are not in memory, by name.
    """

    memory: Memory
    symbols: Mapping[str, int]
    frames: range | None
    sections: Mapping[str, bytes]


def link_at(
    program: Path,
    directory: Path,
    objects: Sequence[ObjectFile],
    placement: Placement,
    addressing: Addressing,
    flags: Sequence[str],
) -> Reference:
    """Link objects with ld.lld.

    Args:
        program: ld.lld.
        directory: directory for files; those of earlier calls are overwritten.
        objects: the objects.
        placement: the output of jitlink.
        addressing: the same that jitlink got.
        flags: flags that select the kind of output.

    Raises:
        Unplaceable: ld.lld refuses.
    """
    script, output = directory / "script.ld", directory / "linked"
    inputs = [directory / f"{number}.o" for number in range(len(objects))]
    for path, each in zip(inputs, objects, strict=True):
        path.write_bytes(each.data)
    if content := _externals(placement, addressing):
        inputs.append(directory / "externals.o")
        inputs[-1].write_bytes(content)
    script.write_text(_script(placement, addressing))
    kept = ARCHITECTURES[placement.sections[0].elf.machine].flags
    try:
        run([program, *_FLAGS, *kept, *flags, "-T", script, "-o", output, *inputs])
    except ToolError as error:
        raise Unplaceable(error.output) from error
    return _read(ElfFile(output.read_bytes()), placement.externals)


def _externals(placement: Placement, addressing: Addressing) -> bytes:
    """An object that defines the external symbols, except those of dynamic relocations."""
    # There are gaps where weak symbols are undefined.
    offsets = {
        name: address - addressing.near
        for name, address in placement.externals.items()
        if address and name not in placement.far
    }
    for name, address in placement.linker_defined.items():
        # ld.lld gets the addresses that jitlink chose for linker-defined symbols, modulo 2**64.
        offsets[name] = (address - addressing.near) & ((1 << 64) - 1)
    size = (len(placement.externals) + 1) * EXTERNAL_SPACING
    elf, start = placement.sections[0].elf, addressing.base + EXTERNAL_TLS_PLACE
    variables = {name: place - start for name, place in placement.external_variables.items()}
    return externals_object(offsets, size, elf, variables) if offsets or variables else b""


def _script(placement: Placement, addressing: Addressing) -> str:
    seen: set[str] = {EH_FRAME}
    places: list[tuple[int, str, str]] = []
    variables: list[tuple[int, str]] = []
    allocated = [each for each in placement.sections if each.section.is_allocated]
    others = [each for each in placement.sections if not each.section.is_allocated]
    for _, section, address, _ in (*sorted(allocated, key=_address), *others):
        # Both linkers put sections of one name one behind the other.
        if section.name not in seen:
            seen.add(section.name)
            if section.flags & SHF_TLS and section.type == SHT_NOBITS:
                variables.append((address, f'"{section.name}"'))
            else:
                places.append((address, section.name, f'"{section.name}"'))
    if placement.commons is not None:
        places.append((placement.commons, ".common", "COMMON"))
        places.sort()
    lines = [f'"{name}" {address:#x} : {{ *({pattern}) }}' for address, name, pattern in places]
    if placement.external_variables:
        variables.append((addressing.base + EXTERNAL_TLS_PLACE, _EXTERNAL_VARIABLES))
    if variables:
        # ld.lld ignores the address expression of a TLS section without content.
        parts = [f". = {address:#x}; *({pattern})" for address, pattern in variables]
        lines.append(f". = {variables[0][0]:#x};\n.tbss : {{ {' '.join(parts)} }}")
    generated = addressing.base + SLAB_SIZE
    for group in _GENERATED:
        generated += 1 << 20
        lines.append(f". = {generated:#x};")
        lines += [f"{name} : {{ *({name}) }}" for name in group]
    lines.append(f".externals {addressing.near:#x} : {{ *(.externals) }}")
    return "SECTIONS {\n" + "\n".join(lines) + "\n}\n"


def _address(each: PlacedSection) -> int:
    return each.address


def _read(elf: ElfFile, externals: Mapping[str, int]) -> Reference:
    allocated = [each for each in elf.sections if each.is_allocated]
    memory = Memory.of(
        (each.address, elf.content(each)) for each in allocated if each.type != SHT_NOBITS
    )
    memory.follow_stub = ARCHITECTURES[elf.machine].follow
    memory.pointer_size = elf.pointer_size
    _describe_tls(elf, memory)
    memory.stubs = [_range(each) for each in allocated if each.name in _STUBS and each.size]
    for each in allocated:
        if each.type == SHT_RELA:
            _load(elf, each, memory, externals)
    symbols = {
        each.name: each.value
        for each in elf.symbols
        if each.binding != STB_LOCAL and each.shndx and each.type != STT_TLS
    }
    got = elf.section_named(".got.plt")
    memory.got = next((s.value for s in elf.symbols if s.name == _GOT_SYMBOL), None)
    if memory.got is None and got is not None:
        memory.got = got.address
    frames = next((each for each in allocated if each.name == EH_FRAME and each.size), None)
    outside = {each.name: elf.content(each) for each in elf.sections if not each.is_allocated}
    return Reference(memory, symbols, _range(frames) if frames else None, outside)


def _describe_tls(elf: ElfFile, memory: Memory) -> None:
    """Add the TLS segment, which is the block of module 1, and the first in static TLS."""
    tls = ARCHITECTURES[elf.machine].tls
    sections = [each for each in elf.sections if each.flags & SHF_TLS]
    if tls is None or not sections:
        return
    memory.dtp_bias = tls.bias
    start = min(each.address for each in sections)
    end = max(each.address + each.size for each in sections)
    memory.tls.append(TLSBlock(start, end - start, 1, 0))


def _range(section: ElfSection) -> range:
    return range(section.address, section.address + section.size)


def _load(elf: ElfFile, table: ElfSection, memory: Memory, externals: Mapping[str, int]) -> None:
    """Apply the dynamic relocations to the memory, for load address zero."""
    dynamic, tls = ARCHITECTURES[elf.machine].dynamic, ARCHITECTURES[elf.machine].tls
    for place, kind, number, addend in elf.records(table):
        if kind == dynamic.irelative:
            memory.resolvers[place] = addend
            continue
        value = addend
        if tls is not None and kind in tls[:3]:
            # A symbol's value is its offset in the TLS segment.
            value += elf.dynamic_symbols[number].value if number else 0
            value = {tls.dtpmod: 1, tls.dtpoff: value - tls.bias, tls.tpoff: value}[kind]
            mask = (1 << 8 * elf.pointer_size) - 1
            assert memory.write(place, (value & mask).to_bytes(elf.pointer_size, "little"))
            continue
        if kind != dynamic.relative:
            symbol = elf.dynamic_symbols[number]
            value += symbol.value if symbol.shndx else externals[symbol.name]
        content = value.to_bytes(elf.pointer_size, "little")
        if kind not in dynamic or not memory.write(place, content):
            raise LookupError(f"dynamic relocation of type {kind} at {place:#x}")
