"""What all ELF targets share: relocation sections of every kind become the same edges."""

import ctypes
from collections import Counter
from pathlib import Path

import pytest

from jitlink.errors import ObjectError, UnknownFormatError, UnsupportedObjectError
from jitlink.graph import LinkGraph, Symbol, SymbolKind
from jitlink.targets.elf_x86_64 import TARGET
from jitlink.targets.registry import (
    create_link_graph,
    default_passes,
    target_of_graph,
    target_of_object,
)
from tests.elf_files import SHT_REL, SHT_RELA, ElfFile
from tests.linking import Linker, read_graph
from tests.toolchain import compile_c, require, run

SOURCES = Path(__file__).parent.parent / "sources"
CREL = "-Wa,--allow-experimental-crel,--crel"
WIDTHS = {
    row.number: int(TARGET.fixups.widths[row.kind]) for row in TARGET.relocations.rows if row.kind
}

SOURCE = """
    .text
    .globl sum, outside
sum:
    movl data(%rip), %eax
    addl data + 4(%rip), %eax
    movq pointer@GOTPCREL(%rip), %rdx
    movq (%rdx), %rdx
    addl (%rdx), %eax
    call inside@PLT
    ret
    .globl inside
inside:
    addl $1000, %eax
    ret
    .data
data:
    .long 1, 20, 300
    .globl pointer
pointer:
    .quad data + 8
    .quad sum - 0x7000000000000000
    .long sum - .
    .reloc ., R_X86_64_PC32, sum - 0x1000
    .long 0
"""


def place_of(symbol: Symbol) -> tuple[str, int]:
    if symbol.has_name:
        return symbol.name, 0
    return symbol.section.name, symbol.offset


def edges(graph: LinkGraph) -> Counter[tuple[object, ...]]:
    """All edges, without their order."""
    return Counter(
        (
            block.section.name,
            block.size,
            edge.offset,
            edge.kind,
            *place_of(edge.target),
            edge.addend,
        )
        for block in graph.blocks
        for edge in block.edges
    )


def with_implicit_addends(source: bytes) -> ElfFile:
    elf = ElfFile(source)
    for index in elf.of_type(SHT_RELA):
        elf.make_implicit(index, [WIDTHS[each["type"]] for each in elf.relocations(index)])
    assert elf.of_type(SHT_RELA) == []
    assert elf.of_type(SHT_REL) != []
    return elf


def test_implicit_addends_become_the_same_edges() -> None:
    explicit = compile_c(SOURCE, suffix=".s").read_bytes()
    implicit = bytes(with_implicit_addends(explicit))
    found = edges(read_graph(implicit))
    assert found == edges(read_graph(explicit))
    assert len(found) >= 8
    addends = {key[-1] for key in found}
    assert {8, -0x7000000000000000, -0x1000} <= addends


def test_implicit_addends_of_compiled_code() -> None:
    explicit = compile_c(SOURCES / "everything.c", flags=["-O2"]).read_bytes()
    implicit = bytes(with_implicit_addends(explicit))
    assert edges(read_graph(implicit)) == edges(read_graph(explicit))


def test_implicit_addends_are_linked() -> None:
    implicit = bytes(with_implicit_addends(compile_c(SOURCE, suffix=".s").read_bytes()))
    with Linker() as linker:
        linked = linker.link(implicit)
        assert linked.function("sum", ctypes.c_int)() == 1321


def test_both_kinds_in_one_object() -> None:
    """The type of each section determines where its addends are."""
    elf = ElfFile(compile_c(SOURCE, suffix=".s"))
    before = edges(read_graph(bytes(elf)))
    index = elf.find(".rela.data")
    elf.make_implicit(index, [WIDTHS[each["type"]] for each in elf.relocations(index)])
    assert len(elf.of_type(SHT_RELA)) > 0
    assert edges(read_graph(bytes(elf))) == before


def test_implicit_addends_of_wrong_size() -> None:
    elf = with_implicit_addends(compile_c(SOURCE, suffix=".s").read_bytes())
    index = elf.of_type(SHT_REL)[0]
    elf.set_section(index, entsize=24)
    with pytest.raises(ObjectError, match=f"section {index}: is a relocation section of odd size"):
        read_graph(bytes(elf))


@pytest.mark.parametrize("name", ["everything.c", "shapes.cpp"])
@pytest.mark.parametrize("options", [["-O0", "-g"], ["-O2", "-ffunction-sections"]])
def test_compact_relocations_become_the_same_edges(name: str, options: list[str]) -> None:
    plain = compile_c(SOURCES / name, "clang", options)
    compact = compile_c(SOURCES / name, "clang", [*options, CREL])
    assert ElfFile(compact).of_type(SHT_RELA) == []
    found = edges(read_graph(compact))
    assert found == edges(read_graph(plain))
    assert len(found) > 20


def test_compact_relocations_are_linked() -> None:
    compact = compile_c(SOURCE, "clang", [CREL], suffix=".s")
    with Linker() as linker:
        assert linker.link(compact).function("sum", ctypes.c_int)() == 1321


def test_relocations_against_sections_have_addends_into_them() -> None:
    source = ".text\nf: ret\ng: ret\n.data\n.quad g\n.quad f"
    graph = read_graph(compile_c(source, suffix=".s"))
    found = {(key[2], key[4:]) for key in edges(graph) if key[0] == ".data"}
    assert found == {(0, (".text", 0, 1)), (8, (".text", 0, 0))}


def test_relocations_of_debug_sections_become_edges() -> None:
    graph = read_graph(compile_c("int f(void) { return 1; }", flags=["-g"]))
    sections = {block.section.name for block in graph.blocks for _ in block.edges}
    assert ".debug_info" in sections


# The registry


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"MZ", "a Windows program"),
        (b"\x7fEL", "not an object file of a known format"),
        (b"!<arch>\n", "a static archive, not an object"),
        (b"BC\xc0\xde", "LLVM bitcode"),
    ],
)
def test_unknown_formats(data: bytes, what: str) -> None:
    with pytest.raises(UnknownFormatError, match=what) as caught:
        target_of_object(data, "x.o")
    assert (caught.value.file, caught.value.offset) == ("x.o", None)


@pytest.mark.parametrize(("place", "value", "what"), [(4, 0, "class 0"), (5, 3, "encoding 3")])
def test_unknown_kinds_of_elf(place: int, value: int, what: str) -> None:
    data = bytearray(compile_c(SOURCE, suffix=".s").read_bytes())
    data[place] = value
    with pytest.raises(ObjectError, match=what) as caught:
        target_of_object(data, "x.o")
    assert (caught.value.file, caught.value.offset) == ("x.o", 4)


def test_machines_without_a_target() -> None:
    data = bytes(ElfFile(compile_c(SOURCE, suffix=".s")).set_header(machine=0x1234))
    with pytest.raises(UnsupportedObjectError, match="no 64-bit little-endian target") as caught:
        create_link_graph(data, "x.o")
    assert caught.value.file == "x.o"
    assert str(0x1234) in str(caught.value)


def test_graph_of_an_object() -> None:
    data = compile_c(SOURCE, suffix=".s").read_bytes()
    for buffer in (data, bytearray(data), memoryview(data)):
        graph = create_link_graph(buffer, "sum.o")
        assert graph.name == "sum.o"
        assert graph.find_defined_symbol_by_name("sum") is not None
        assert target_of_graph(graph) is TARGET
        assert default_passes(graph).fixups is TARGET.fixups


def test_graph_of_no_target() -> None:
    with pytest.raises(UnsupportedObjectError, match="no target for triple none") as caught:
        target_of_graph(LinkGraph("graph.o", "none"))
    assert caught.value.file == "graph.o"


def test_null_symbols_are_added_only_if_referenced() -> None:
    elf = ElfFile(compile_c(SOURCE, suffix=".s"))
    assert SymbolKind.ABSOLUTE not in read_graph(bytes(elf)).symbol_table.kind
    elf.set_relocation(elf.find(".rela.data"), 0, symbol=0)
    (symbol,) = read_graph(bytes(elf)).absolute_symbols
    assert (symbol.address, symbol.name) == (0, "")


@pytest.mark.parametrize(
    ("osabi", "system"), [(0, "linux-gnu"), (3, "linux-gnu"), (9, "freebsd"), (2, "netbsd")]
)
def test_the_system_of_an_object(osabi: int, system: str) -> None:
    data = bytearray(compile_c("int f(void) { return 5; }").read_bytes())
    data[7] = osabi
    assert create_link_graph(data).triple == f"x86_64-unknown-{system}"


def test_systems_of_assembled_objects(tmp_path: Path) -> None:
    for system, expected in (("linux", "linux-gnu"), ("freebsd", "freebsd")):
        path, triple = tmp_path / system, f"x86_64-unknown-{system}"
        run([require("llvm-mc-22"), "-filetype=obj", "-triple", triple, "-o", path, "/dev/null"])
        assert target_of_object(path.read_bytes(), system).triple.endswith(expected)
