"""Objects of every class and byte order are read as llvm-readobj reads them.

The reader is independent of machines, so that includes machines without a target.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jitlink.formats.batch import Batch
from jitlink.formats.elf import ELFObjects, read_objects
from jitlink.formats.elf_layout import identify
from jitlink.formats.elf_relocations import RawRelocations
from jitlink.graph import (
    Block,
    Linkage,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    Symbol,
    SymbolFlags,
    SymbolKind,
)
from tests.formats import readobj
from tests.toolchain import compile_c

SOURCES = Path(__file__).parent.parent / "sources"
SHT_NOBITS = 8
SHF_EXCLUDE = 0x80000000
# Null, symbol table, strings, relocations, groups, extended indices, address significance.
METADATA = {0, 2, 3, 4, 9, 17, 18, 0x40000014, 0x6FFF4C03}
TARGETS = {
    "x86_64-linux-gnu": (2, "little"),
    "x86-linux-musl": (1, "little"),
    "arm-linux-musleabihf": (1, "little"),
    "armeb-linux-musleabi": (1, "big"),
    "aarch64-linux-musl": (2, "little"),
    "aarch64_be-linux-musl": (2, "big"),
    "mips-linux-musleabi": (1, "big"),
    "mipsel-linux-musleabi": (1, "little"),
    "powerpc-linux-musleabi": (1, "big"),
    "powerpc64-linux-musl": (2, "big"),
    "powerpc64le-linux-musl": (2, "little"),
    "riscv32-linux-musl": (1, "little"),
    "riscv64-linux-musl": (2, "little"),
    "s390x-linux-musl": (2, "big"),
    "loongarch64-linux-musl": (2, "little"),
}


class Object(NamedTuple):
    """An object, read by llvm-readobj and by jitlink.

    Attributes:
        listing: the output of llvm-readobj.
        graph: the graph.
        read: what the reader added to the graph.
        relocations: its relocations.
        blocks: block rows by section index.
    """

    listing: readobj.Listing
    graph: LinkGraph
    read: ELFObjects
    relocations: RawRelocations
    blocks: dict[int, int]


def read(path: Path) -> Object:
    """Read an object as the second of three in one buffer, so that its position is not 0."""
    listing = readobj.read_object(path)
    data = path.read_bytes()
    identity = identify(memoryview(data), "x.o")
    graph = LinkGraph(
        "x.o",
        "none",
        pointer_size=4 * identity.elf_class,
        endianness=identity.byte_order,
    )
    sizes = np.full(3, len(data))
    batch = Batch(memoryview(data * 3), ["a", "b", "c"], np.arange(3) * len(data), sizes)
    found, relocations = read_objects(graph, batch, identity)
    kept = [s for s in listing.sections if s.type not in METADATA and not s.flags & SHF_EXCLUDE]
    rows = [row for row in graph.block_rows().tolist() if graph.block_table.origin[row] == 1]
    return Object(
        listing, graph, found, relocations, {s.number: r for s, r in zip(kept, rows, strict=False)}
    )


@pytest.fixture(scope="module", params=TARGETS)
def foreign(request: pytest.FixtureRequest) -> Object:
    path = compile_c(SOURCES / "everything.c", "zig", ["-g", "-fcommon"], target=request.param)
    data = path.read_bytes()
    assert (data[4], ("little", "big")[data[5] - 1]) == TARGETS[request.param]
    return read(path)


def test_sections(foreign: Object) -> None:
    for section in foreign.listing.sections:
        if section.number not in foreign.blocks:
            continue
        block = Block(foreign.graph, foreign.blocks[section.number])
        assert block.section.name == section.name
        assert block.alignment == max(section.alignment, 1)
        assert block.is_zero_fill == (section.type == SHT_NOBITS)
        prot = MemProt.READ
        prot |= MemProt.WRITE if section.flags & 1 else MemProt.NONE
        prot |= MemProt.EXEC if section.flags & 4 else MemProt.NONE
        assert block.section.mem_prot == prot
        lifetime = MemLifetime.STANDARD if section.flags & 2 else MemLifetime.NO_ALLOC
        assert block.section.mem_lifetime == lifetime
        if not section.flags & 0x800:
            assert block.size == section.size
    assert {".text", ".data", ".bss"} <= {section.name for section in foreign.graph.sections}


def test_symbols(foreign: Object) -> None:
    first = int(foreign.read.first_symbol[1])
    assert foreign.read.symbol_counts.tolist() == [len(foreign.listing.symbols)] * 3
    for number, expected in enumerate(foreign.listing.symbols):
        symbol = Symbol(foreign.graph, first + number)
        kind = foreign.graph.symbol_table.kind[symbol.row]
        if expected.section == 0xFFF1:
            assert kind == (SymbolKind.REMOVED if expected.type == 4 else SymbolKind.ABSOLUTE)
        elif expected.section == 0xFFF2:
            assert kind == SymbolKind.DEFINED
            assert symbol.flags & SymbolFlags.COMMON
            assert symbol.block.alignment == expected.value
            assert symbol.block.size == symbol.size == expected.size
        elif expected.section == 0:
            assert kind == (SymbolKind.EXTERNAL if expected.name else SymbolKind.REMOVED)
        elif expected.section in foreign.blocks:
            assert kind == SymbolKind.DEFINED
            assert symbol.block.row == foreign.blocks[expected.section]
            assert (symbol.offset, symbol.size) == (expected.value, expected.size)
        if kind != SymbolKind.REMOVED and expected.type != 3:
            check_name_and_binding(symbol, expected)


def check_name_and_binding(symbol: Symbol, expected: readobj.Symbol) -> None:
    assert symbol.name == expected.name
    if symbol.is_external:
        assert symbol.is_weakly_referenced == (expected.binding == 2)
        return
    is_weak = expected.binding == 2 or expected.section == 0xFFF2
    assert symbol.linkage == (Linkage.WEAK if is_weak else Linkage.STRONG)
    scopes = [Scope.DEFAULT, Scope.HIDDEN, Scope.HIDDEN, Scope.DEFAULT]
    scope = scopes[expected.other & 3] if expected.binding else Scope.LOCAL
    assert symbol.scope == scope
    assert symbol.is_callable == (expected.type in (2, 10))


def test_relocations(foreign: Object) -> None:
    raw, listing = foreign.relocations, foreign.listing
    first = int(foreign.read.first_symbol[1])
    is_second = foreign.graph.block_table.origin[raw.block] == 1
    columns = (raw.block, raw.offset, raw.type, raw.symbol - first, raw.addend)
    found = sorted(zip(*(column[is_second].tolist() for column in columns), strict=True))
    expected = [
        (foreign.blocks[listing.sections[each.section].info], *each[1:])
        for each in listing.relocations
        if listing.sections[each.section].info in foreign.blocks
    ]
    assert found == sorted(expected)
    assert len(found) > 20
    implicit = {listing.sections[each.section].type == 9 for each in listing.relocations}
    assert set(raw.implicit[is_second].tolist()) == implicit


@pytest.mark.parametrize("target", ["i386-linux-gnu", "powerpc64-linux-gnu", "s390x-linux-gnu"])
def test_compact_relocations(target: str) -> None:
    """CREL has the same relocations, with explicit addends also for targets that use REL."""
    flags = ["-O1", "-g", "-ffreestanding", "-Wa,--allow-experimental-crel,--crel"]
    compact = read(compile_c(SOURCES / "everything.c", "clang", flags, target=target))
    plain = read(compile_c(SOURCES / "everything.c", "clang", flags[:-1], target=target))
    assert any(section.type == 0x40000014 for section in compact.listing.sections)
    one, other = compact.relocations, plain.relocations
    for column in ("block", "offset", "type", "symbol"):
        assert np.array_equal(getattr(one, column), getattr(other, column))
    assert not one.implicit.any()
    addends = other.addend.tolist()
    if other.implicit.any():
        places = zip(other.block.tolist(), other.offset.tolist(), strict=True)
        addends = [stored_word(plain.graph, block, offset) for block, offset in places]
    assert one.addend.tolist() == addends


def stored_word(graph: LinkGraph, block: int, offset: int) -> int:
    content = Block(graph, block).content[offset : offset + 4]
    return int.from_bytes(content, "little", signed=True)


@pytest.mark.parametrize("method", ["zlib", "zstd"])
@pytest.mark.parametrize("target", ["x86_64-linux-gnu", "mips-linux-gnu", "s390x-linux-gnu"])
def test_compressed_sections(target: str, method: str) -> None:
    """Debug sections are the same, compressed or not, in every class and byte order."""
    source = SOURCES / "everything.c"
    flags = ["-g", "-ffreestanding"]
    packed = read(compile_c(source, "clang", [*flags, f"-gz={method}"], target=target))
    plain = read(compile_c(source, "clang", flags, target=target))
    compressed = [s for s in packed.listing.sections if s.flags & 0x800]
    assert len(compressed) >= 3
    for section in compressed:
        (other,) = [
            s for s in plain.listing.sections
            if s.name == section.name and plain.blocks.get(s.number) is not None
        ]  # fmt: skip
        found = Block(packed.graph, packed.blocks[section.number])
        expected = Block(plain.graph, plain.blocks[other.number])
        # These contain the directory of the source.
        if section.name not in (".debug_str", ".debug_line_str", ".debug_line"):
            assert bytes(found.content) == bytes(expected.content)
        assert found.size > section.size
        assert found.alignment == expected.alignment
