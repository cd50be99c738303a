"""What is not loaded does not stop a link: debug information that cannot be read is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import ObjectError, UnsupportedObjectError
from jitlink.formats import compression
from jitlink.graph import Block, LinkGraph
from tests.elf_files import SHT_RELA, ElfFile
from tests.toolchain import compile_c, require, run

SOURCE = """
int counter = 3;
int step(int by) { counter += by; return counter; }
"""
SHF_ALLOC, SHF_COMPRESSED = 2, 0x800


def debug_object(*flags: str) -> Path:
    return compile_c(SOURCE, "gcc", ["-g", "-fPIC", *flags])


def runs(data: bytes | Path) -> bool:
    with jitlink.load(data) as lib:
        return (lib.step(4), lib.step(1)) == (7, 8)


def contents(data: bytes | Path) -> dict[str, bytes]:
    """Content of the debug sections that a link has."""
    path = data if isinstance(data, bytes) else data.read_bytes()
    graph: LinkGraph = jitlink.create_link_graph(path)
    sections = [each for each in graph.sections if each.name.startswith((".debug", ".zdebug"))]
    return {s.name: b"".join(bytes(b.content) for b in s.blocks) for s in sections}


def indices(elf: ElfFile, kind: int, *, loaded: bool) -> list[int]:
    """Relocation sections that relocate loaded sections, or others."""
    return [
        index
        for index in range(1, elf.header("shnum"))
        if elf.section(index, "type") == kind
        and bool(elf.section(elf.section(index, "info"), "flags") & SHF_ALLOC) == loaded
    ]


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_compressed_sections_without_a_decoder(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = debug_object(f"-gz={method}") if method == "zlib" else recompressed("zstd")
    names = contents(path).keys()
    assert ".debug_info" in names
    if method == "zstd":
        monkeypatch.setattr(compression, "_zstd_decoder", lambda: None)
    else:
        monkeypatch.setattr(compression, "_inflate", lambda *_: None)
    assert names - contents(path).keys()
    assert runs(path)


def recompressed(method: str) -> Path:
    objcopy, source = require("llvm-objcopy-22"), debug_object()
    place = source.with_name(f"{method}.o")
    if not place.exists():
        run([objcopy, f"--compress-debug-sections={method}", source, place])
    return place


def test_sections_in_the_older_form(tmp_path: Path) -> None:
    """GNU objcopy still writes them."""
    source, packed = debug_object("-O0"), tmp_path / "packed.o"
    run([require("objcopy"), "--compress-debug-sections=zlib-gnu", source, packed])
    assert b".zdebug_info" in packed.read_bytes()
    assert contents(packed) == contents(source)
    assert runs(packed)
    corrupt = bytearray(packed.read_bytes())
    corrupt[corrupt.index(b"ZLIB") + 13] ^= 0xFF
    assert len(contents(bytes(corrupt))) < len(contents(source))
    assert runs(bytes(corrupt))


def test_a_loaded_section_that_is_corrupt_is_an_error() -> None:
    elf = ElfFile(debug_object())
    data = next(
        index
        for index in range(1, elf.header("shnum"))
        if elf.section(index, "flags") == SHF_ALLOC | 1 and elf.section(index, "size")
    )
    elf.set_section(data, flags=SHF_ALLOC | 1 | SHF_COMPRESSED)
    with pytest.raises((ObjectError, UnsupportedObjectError), match="compress"):
        jitlink.load(bytes(elf))


BROKEN: dict[str, Callable[[ElfFile, int], object]] = {
    "offset": lambda elf, index: elf.set_relocation(index, 0, offset=1 << 40),
    "symbol": lambda elf, index: elf.set_relocation(index, 0, symbol=1 << 20),
    "type": lambda elf, index: elf.set_relocation(index, 0, type=200),
    "record size": lambda elf, index: elf.set_section(index, entsize=7),
    "symbol table": lambda elf, index: elf.set_section(index, link=1),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_relocations_of_debug_information(broken: str) -> None:
    elf = ElfFile(debug_object())
    debug = indices(elf, SHT_RELA, loaded=False)
    assert len(debug) > 2
    for index in debug:
        BROKEN[broken](elf, index)
    assert runs(bytes(elf))
    for index in indices(elf, SHT_RELA, loaded=True):
        BROKEN[broken](elf, index)
    with pytest.raises(jitlink.InputError):
        jitlink.load(bytes(elf))


def test_blocks_keep_what_could_be_read() -> None:
    """Of one section whose relocations cannot be read, the others have theirs."""
    elf = ElfFile(debug_object())
    first, *others = indices(elf, SHT_RELA, loaded=False)
    elf.set_relocation(first, 0, symbol=1 << 20)
    graph = jitlink.create_link_graph(bytes(elf))
    edges = dict.fromkeys(contents(bytes(elf)), 0)
    for edge_block in graph.edge_table.block.tolist():
        name = Block(graph, edge_block).section.name
        if name in edges:
            edges[name] += 1
    assert 0 < sum(1 for count in edges.values() if count) <= len(others)
