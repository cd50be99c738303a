"""Malformed objects are refused, with the file and the position of the error."""

import resource
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from jitlink.errors import GraphError, ObjectError, UnsupportedObjectError
from jitlink.formats.compression import decompress_section
from jitlink.graph import LinkGraph
from tests.elf_files import (
    SHT_GROUP,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    ElfFile,
)
from tests.linking import Linker, read_graph
from tests.toolchain import compile_c

TOP = 1 << 64
SOURCE = """
    .text
    .globl start
start:
    ret
    .data
    .globl pointer
pointer:
    .quad start
    .quad pointer + 8
    .bss
    .globl zeros
zeros:
    .zero 64
    .comm shared, 16, 8
    .section .text.inline, "axG", @progbits, inline, comdat
    .weak inline
inline:
    ret
    .section .data.inline, "awG", @progbits, inline, comdat
    .byte 1
"""


@pytest.fixture
def elf() -> ElfFile:
    return ElfFile(compile_c(SOURCE, suffix=".s"))


def refuse(elf: ElfFile | bytes, message: str) -> ObjectError:
    with pytest.raises(ObjectError, match=message) as caught:
        read_graph(bytes(elf))
    assert caught.value.file == "<memory 0>"
    return caught.value


def refuse_section(elf: ElfFile, index: int, message: str) -> None:
    error = refuse(elf, f"section {index}: {message}")
    assert error.offset == elf.section_at(index)


def test_the_unmodified_object_is_read(elf: ElfFile) -> None:
    assert read_graph(bytes(elf)).find_defined_symbol_by_name("pointer") is not None


# The ELF header


@pytest.mark.parametrize("size", [0, 3, 4, 16, 51, 52, 63])
def test_truncated_header(elf: ElfFile, size: int) -> None:
    whole = read_graph(bytes(elf))
    with pytest.raises(ObjectError, match="truncated") as caught:
        read_graph(bytes(elf), bytes(elf)[:size])
    assert (caught.value.file, caught.value.offset) == ("<memory 1>", 0)
    assert whole.name == "<memory 0>"


@pytest.mark.parametrize("shoff", [TOP - 1, TOP - 64, TOP - 8, 1 << 63, (1 << 63) - 1, 1 << 62])
def test_section_headers_outside_the_file(elf: ElfFile, shoff: int) -> None:
    elf.set_header(shoff=shoff)
    assert refuse(elf, "section header table lies outside the file").offset == 0


def test_section_headers_that_end_behind_the_file(elf: ElfFile) -> None:
    elf.set_header(shoff=len(elf.data) - 64 * elf.header("shnum") + 1)
    refuse(elf, "section header table lies outside the file")


@pytest.mark.parametrize("change", [{"shentsize": 63}, {"shnum": 0xFFFF}, {"shstrndx": 0xFF00}])
def test_wrong_numbers_in_the_header(elf: ElfFile, change: dict[str, int]) -> None:
    refuse(elf.set_header(**change), "section header table lies outside the file")


@pytest.mark.parametrize("count", [0, 1 << 32, (1 << 58) + 1, 1 << 63, TOP - 1])
def test_extended_section_count_is_checked(elf: ElfFile, count: int) -> None:
    elf.set_header(shnum=0).set_section(0, size=count)
    refuse(elf, "section header table lies outside the file")


def test_extended_numbers_may_be_small(elf: ElfFile) -> None:
    count, names = elf.header("shnum"), elf.header("shstrndx")
    elf.set_header(shnum=0, shstrndx=0xFFFF).set_section(0, size=count, link=names)
    assert read_graph(bytes(elf)).find_section_by_name(".text.inline") is not None


def test_extended_name_table_is_checked(elf: ElfFile) -> None:
    elf.set_header(shstrndx=0xFFFF).set_section(0, link=0xFFFFFFFF)
    refuse(elf, "section header table lies outside the file")


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 0xFFFF])
def test_not_relocatable(elf: ElfFile, kind: int) -> None:
    with pytest.raises(UnsupportedObjectError, match="not a relocatable object") as caught:
        read_graph(bytes(elf.set_header(type=kind)))
    assert (caught.value.file, caught.value.offset) == ("<memory 0>", None)


def test_objects_for_different_machines(elf: ElfFile) -> None:
    other = ElfFile(bytes(elf)).set_header(machine=0xFEED)
    with pytest.raises(UnsupportedObjectError, match="same machine") as caught:
        read_graph(bytes(elf), bytes(other))
    assert caught.value.file == "<memory 1>"
    with pytest.raises(UnsupportedObjectError, match="no 64-bit little-endian target"):
        read_graph(bytes(other))


def test_no_sections_at_all(elf: ElfFile) -> None:
    elf.set_header(shoff=0, shnum=0, shstrndx=0)
    graph = read_graph(bytes(elf))
    assert list(graph.sections) == []
    assert list(graph.blocks) == []


# Sections


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, TOP - 1), (TOP - 1, 2), (1 << 63, 0), (0, 1 << 63), (1 << 62, 1 << 62), (0, 1 << 40)],
)
def test_content_outside_the_file(elf: ElfFile, offset: int, size: int) -> None:
    index = elf.find(".data")
    elf.set_section(index, offset=offset, size=size)
    refuse_section(elf, index, "content lies outside the file")


def test_content_that_ends_behind_the_file(elf: ElfFile) -> None:
    index = elf.find(".data")
    elf.set_section(index, offset=len(elf.data) - 15)
    refuse_section(elf, index, "content lies outside the file")


@pytest.mark.parametrize("size", [(1 << 47) + 1, 1 << 62, 1 << 63, TOP - 1])
def test_zero_fill_beyond_any_memory(elf: ElfFile, size: int) -> None:
    index = elf.find(".bss")
    elf.set_section(index, size=size)
    refuse_section(elf, index, "size is beyond any memory")


@pytest.mark.parametrize("alignment", [3, 6, 1 << 48, 1 << 63, TOP - 2, TOP - 1, (1 << 63) + 1])
def test_odd_section_alignment(elf: ElfFile, alignment: int) -> None:
    index = elf.find(".text")
    elf.set_section(index, addralign=alignment)
    refuse_section(elf, index, "alignment is not a power of two")


def test_sections_that_overlap(elf: ElfFile) -> None:
    for index in (elf.find(".text"), elf.find(".data"), elf.find(".text.inline")):
        elf.set_section(index, offset=0, size=len(elf.data) // 2)
    error = refuse(elf, "sections overlap")
    assert error.offset == elf.header("shoff")


def test_overlap_is_the_fault_of_one_object_of_a_batch(elf: ElfFile) -> None:
    bad = ElfFile(bytes(elf))
    for index in (bad.find(".text"), bad.find(".data"), bad.find(".text.inline")):
        bad.set_section(index, offset=0, size=len(bad.data))
    with pytest.raises(ObjectError, match="sections overlap") as caught:
        read_graph(bytes(elf), bytes(bad), bytes(elf))
    assert caught.value.file == "<memory 1>"


def test_section_name_outside_the_table(elf: ElfFile) -> None:
    index = elf.find(".data")
    elf.set_section(index, name=elf.section(elf.header("shstrndx"), "size"))
    refuse_section(elf, index, "name lies outside the section name table")


def test_sections_without_a_name_table(elf: ElfFile) -> None:
    elf.set_header(shstrndx=0)
    refuse(elf, r"section \d+: name lies outside the section name table")


def test_name_table_of_another_type(elf: ElfFile) -> None:
    names = elf.header("shstrndx")
    elf.set_section(names, type=1)
    refuse_section(elf, names, "is used as a string table but is none")


def test_second_symbol_table(elf: ElfFile) -> None:
    table, index = elf.symbol_table, elf.find(".data.inline")
    elf.set_section(index, type=SHT_SYMTAB, link=elf.section(table, "link"))
    refuse_section(elf, max(index, table), "is a second symbol table")


# Symbols


@pytest.mark.parametrize("change", [{"entsize": 23}, {"entsize": 0}, {"size": 25}])
def test_symbol_table_of_odd_size(elf: ElfFile, change: dict[str, int]) -> None:
    elf.set_section(elf.symbol_table, **change)
    refuse_section(elf, elf.symbol_table, "is a symbol table of odd size")


@pytest.mark.parametrize("link", [0x7FFFFFFF, 0xFFFFFFFF])
def test_string_table_that_does_not_exist(elf: ElfFile, link: int) -> None:
    elf.set_section(elf.symbol_table, link=link)
    refuse_section(elf, elf.symbol_table, "refers to a section that does not exist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 17}, "lies beyond the end of its section"),
        ({"value": 1 << 63}, "lies beyond the end of its section"),
        ({"value": TOP - 1}, "lies beyond the end of its section"),
        ({"shndx": 0xFEFF}, "lies in a section that does not exist"),
        ({"shndx": 0xFF00}, "lies in an unknown reserved section"),
        ({"shndx": 0xFFFF}, "has no entry in the table of extended section indices"),
        ({"info": 0x30}, "has an unknown binding"),
        ({"info": 0xF0}, "has an unknown binding"),
        ({"name": 1 << 31}, "name lies outside the string table"),
        ({"name": 0xFFFFFFFF}, "name lies outside the string table"),
        ({"shndx": 0xFFF2, "value": 3}, "has an alignment that is not a power of two"),
        ({"shndx": 0xFFF2, "value": 1 << 63}, "has an alignment that is not a power of two"),
        ({"shndx": 0xFFF2, "value": TOP - 4}, "has an alignment that is not a power of two"),
        ({"shndx": 0xFFF2, "value": 8, "size": 1 << 63}, "has a size beyond any memory"),
        ({"shndx": 0xFFF2, "value": 8, "size": 1 << 48}, "has a size beyond any memory"),
    ],
)
def test_wrong_symbols(elf: ElfFile, change: dict[str, int], message: str) -> None:
    index = elf.find_symbol("pointer")
    error = refuse(elf.set_symbol(index, **change), f"symbol {index}: {message}")
    assert error.offset is None


def test_symbol_at_the_end_of_its_section(elf: ElfFile) -> None:
    elf.set_symbol(elf.find_symbol("pointer"), value=16)
    symbol = read_graph(bytes(elf)).find_defined_symbol_by_name("pointer")
    assert symbol is not None
    assert symbol.offset == symbol.block.size == 16


def test_the_null_symbol_stays_one(elf: ElfFile) -> None:
    """Whatever symbol 0 is in the file, a relocation without a symbol refers to address 0."""
    relocations = elf.find(".rela.data")
    elf.set_relocation(relocations, 0, symbol=0, addend=5)
    name = elf.symbol(elf.find_symbol("inline"), "name") + 2
    elf.set_symbol(0, name=name, info=0x11, shndx=elf.find(".data"), value=8, size=8)
    assert elf.symbol_names[0] == "line"
    with Linker() as linker:
        linked = linker.link(bytes(elf))
        assert linked.integer("pointer") == 5
        assert "line" not in linked.definitions


def test_name_that_is_not_terminated_in_the_file(elf: ElfFile) -> None:
    table = elf.section(elf.symbol_table, "link")
    elf.set_content(table, elf.content(table) + b"unended")
    elf.set_section(table, size=elf.section(table, "size"))
    index = elf.find_symbol("pointer")
    elf.set_symbol(index, name=elf.section(table, "size") - len("unended"))
    assert read_graph(bytes(elf)).find_defined_symbol_by_name("unended") is not None


def test_names_that_overlap_too_much() -> None:
    """Many names within one long name would take memory quadratic in its size."""
    source = "".join(f"    .globl s{n:04}\ns{n:04}:\n" for n in range(2000))
    elf = ElfFile(compile_c(source, suffix=".s"))
    length = 1 << 18
    elf.set_content(elf.section(elf.symbol_table, "link"), b"\0" + b"x" * length)
    for index in range(1, elf.section(elf.symbol_table, "size") // 24):
        elf.set_symbol(index, name=index + 1)
    tracemalloc.start()
    graph = read_graph(bytes(elf))
    with pytest.raises(GraphError, match=r"names of .* overlap in a table of"):
        graph.strings.get_many(graph.symbol_table.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * length


# Relocations


def test_relocation_entries_of_odd_size(elf: ElfFile) -> None:
    index = elf.find(".rela.data")
    elf.set_section(index, size=47)
    refuse_section(elf, index, "is a relocation section of odd size")


@pytest.mark.parametrize("info", [0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_relocated_section_that_does_not_exist(elf: ElfFile, info: int) -> None:
    index = elf.find(".rela.data")
    elf.set_section(index, info=info)
    refuse_section(elf, index, "refers to a section that does not exist")


@pytest.mark.parametrize("kind", [SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_GROUP])
def test_relocated_section_without_content(elf: ElfFile, kind: int) -> None:
    index = elf.find(".rela.data")
    elf.set_section(index, info=elf.of_type(kind)[0])
    refuse_section(elf, index, "relocates a section that has no content of its own")


def test_relocations_of_the_null_section(elf: ElfFile) -> None:
    index = elf.find(".rela.data")
    elf.set_section(index, info=0)
    refuse_section(elf, index, "relocates a section that has no content of its own")


def test_relocations_of_zero_fill(elf: ElfFile) -> None:
    elf.set_section(elf.find(".rela.data"), info=elf.find(".bss"))
    refuse(elf, r"section .bss\+0x0: relocation R_X86_64_64 lies in a section without content")


def test_relocations_without_a_symbol_table(elf: ElfFile) -> None:
    """Also if they have no symbol: index 0 would be the row of another object's symbol."""
    relocations = elf.find(".rela.data")
    for number in range(2):
        elf.set_relocation(relocations, number, symbol=0)
    elf.set_section(relocations, link=0).set_section(elf.symbol_table, type=1)
    for index in elf.of_type(SHT_GROUP):
        elf.set_section(index, type=1)
    refuse_section(elf, relocations, "has a relocation whose symbol does not exist")


def test_relocations_with_another_symbol_table(elf: ElfFile) -> None:
    index = elf.find(".rela.data")
    elf.set_section(index, link=elf.find(".text"))
    refuse_section(elf, index, "is a relocation section that names no symbol table")


@pytest.mark.parametrize("symbol", [1 << 31, 0xFFFFFFFF, "count"])
def test_relocation_symbol_that_does_not_exist(elf: ElfFile, symbol: int | str) -> None:
    index = elf.find(".rela.data")
    number = symbol if isinstance(symbol, int) else len(elf.symbol_names)
    elf.set_relocation(index, 1, symbol=number)
    refuse_section(elf, index, "has a relocation whose symbol does not exist")


@pytest.mark.parametrize("offset", [9, 16, 1 << 62, 1 << 63, TOP - 1, TOP - 8])
def test_relocation_outside_its_section(elf: ElfFile, offset: int) -> None:
    elf.set_relocation(elf.find(".rela.data"), 1, offset=offset)
    refuse(elf, r"section .data\+.*: relocation R_X86_64_64 lies outside its section")


def test_relocation_at_the_end_of_its_section(elf: ElfFile) -> None:
    elf.set_relocation(elf.find(".rela.data"), 1, offset=8)
    assert len(list(read_graph(bytes(elf)).blocks)) > 0


def test_relocation_to_a_symbol_in_no_section(elf: ElfFile) -> None:
    local = elf.find_symbol("start")
    elf.set_symbol(local, info=0, shndx=0, value=0)
    refuse(elf, "relocation R_X86_64_64 refers to a symbol that is in no section")


# Section groups


def group_of(elf: ElfFile) -> int:
    (group,) = elf.of_type(SHT_GROUP)
    assert elf.section(group, "size") == 12
    return group


@pytest.mark.parametrize("member", [1, 2])
@pytest.mark.parametrize("number", [0xFFFF, 1 << 31, 0xFFFFFFFF])
def test_group_members_that_do_not_exist(elf: ElfFile, member: int, number: int) -> None:
    group = group_of(elf)
    struct.pack_into("<I", elf.data, elf.section(group, "offset") + 4 * member, number)
    refuse_section(elf, group, "is a section group of sections that do not exist")


@pytest.mark.parametrize("size", [0, 3, 5])
def test_group_of_odd_size(elf: ElfFile, size: int) -> None:
    group = group_of(elf)
    elf.set_section(group, size=size)
    refuse_section(elf, group, "is a section group of odd size")


@pytest.mark.parametrize("info", [1000, 1 << 31, 0xFFFFFFFF])
def test_group_signature_that_does_not_exist(elf: ElfFile, info: int) -> None:
    group = group_of(elf)
    elf.set_section(group, info=info)
    refuse_section(elf, group, "is a section group whose signature does not exist")


def test_group_without_a_symbol_table(elf: ElfFile) -> None:
    for index in elf.of_type(SHT_RELA):
        elf.set_section(index, type=1)
    group = group_of(elf)
    elf.set_section(group, link=0, info=0).set_section(elf.symbol_table, type=1)
    refuse_section(elf, group, "is a section group whose signature does not exist")


def test_group_signature_without_a_name(elf: ElfFile) -> None:
    elf.set_section(group_of(elf), info=0)
    refuse(elf, "a section group has a signature without a name")


# Memory


def test_an_alignment_takes_no_memory() -> None:
    """Padding before an aligned section takes address space, not memory."""
    source = """
        .data
        .globl first
        first: .quad 1
        .section other, "aw"
        .globl second
        second: .quad 2
    """
    elf = ElfFile(compile_c(source, suffix=".s"))
    elf.set_section(elf.find("other"), addralign=1 << 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Linker() as linker:
        linked = linker.link(bytes(elf))
        assert linked.address("second") % (1 << 32) == 0
        assert (linked.integer("first"), linked.integer("second")) == (1, 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


# Compressed sections


def compressed(method: int, size: int, alignment: int, payload: bytes) -> memoryview:
    return memoryview(struct.pack("<IIQQ", method, 0, size, alignment) + payload)


def decompress(data: memoryview) -> tuple[bytes, int]:
    return decompress_section(data, wide=True, byte_order="little", file="x.o", offset=64)


def test_compressed_section_is_read() -> None:
    assert decompress(compressed(1, 3, 8, zlib.compress(b"abc"))) == (b"abc", 8)
    assert decompress(compressed(1, 0, 0, zlib.compress(b""))) == (b"", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (memoryview(b"\1\0\0\0" + bytes(19)), "too small"),
        (compressed(1, 3, 3, zlib.compress(b"abc")), "header is corrupt"),
        (compressed(1, 3, 1 << 63, zlib.compress(b"abc")), "header is corrupt"),
        (compressed(1, 1 << 40, 1, zlib.compress(b"abc")), "header is corrupt"),
        (compressed(1, TOP - 1, 1, zlib.compress(b"abc")), "header is corrupt"),
        (compressed(1, 2, 1, zlib.compress(b"abc")), "section is corrupt"),
        (compressed(1, 4, 1, zlib.compress(b"abc")), "section is corrupt"),
        (compressed(1, 3, 1, zlib.compress(b"abc")[:-1]), "section is corrupt"),
        (compressed(1, 3, 1, zlib.compress(b"abc")[:-1] + b"?"), "section is corrupt"),
        (compressed(1, 3, 1, b"abc"), "section is corrupt"),
        (compressed(2, 3, 1, b"abc"), "section is corrupt"),
    ],
)
def test_corrupt_compressed_sections(data: memoryview, message: str) -> None:
    with pytest.raises(ObjectError, match=message) as caught:
        decompress(data)
    assert (caught.value.file, caught.value.offset) == ("x.o", 64)


def test_unknown_compression() -> None:
    with pytest.raises(UnsupportedObjectError, match="compression method 3") as caught:
        decompress(compressed(3, 3, 1, b"abc"))
    assert (caught.value.file, caught.value.offset) == ("x.o", 64)


@pytest.mark.parametrize("method", [1, 2])
def test_a_claimed_size_takes_no_memory(method: int) -> None:
    """The size in the header is not allocated before so many bytes are decompressed."""
    tracemalloc.start()
    with pytest.raises(ObjectError):
        decompress(compressed(method, 1 << 30, 1, bytes(1 << 16)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_offsets_of_errors_in_a_batch_are_in_the_file(elf: ElfFile) -> None:
    """Small objects are read in one buffer; errors have the offset in the object's own file."""
    bad = ElfFile(bytes(elf))
    index = bad.find(".text")
    bad.set_section(index, addralign=3)
    with pytest.raises(ObjectError, match=f"section {index}: ") as caught:
        read_graph(*[bytes(elf)] * 3, bytes(bad))
    assert caught.value.file == "<memory 3>"
    assert caught.value.offset == bad.section_at(index)


def test_targets_of_edges_are_rows_of_the_graph(elf: ElfFile) -> None:
    graph = read_graph(bytes(elf), name="one")
    assert isinstance(graph, LinkGraph)
    assert int(np.max(graph.edge_table.target)) < graph.symbol_table.rows


def test_section_names_that_overlap_are_refused_with_the_file() -> None:
    source = "".join(f'.section .s{number}, "a"\n.byte 1\n' for number in range(2000))
    elf = ElfFile(compile_c(source, suffix=".s"))
    elf.set_content(elf.header("shstrndx"), b"\0" + b"x" * (1 << 14) + b"\0")
    for index in range(1, elf.header("shnum")):
        elf.set_section(index, name=index + 1)
    with pytest.raises(ObjectError, match=r"section names: .* overlap in a table of") as caught:
        read_graph(bytes(elf))
    assert caught.value.file
