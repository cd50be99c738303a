"""Sections and symbols of ELF objects in the graph: flags, bindings, commons, many sections."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from jitlink.errors import JITLinkError, ObjectError
from jitlink.formats import elf_symbols
from jitlink.graph import (
    Block,
    BlockFlags,
    Linkage,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    Symbol,
    SymbolFlags,
)
from tests.elf_files import SHT_SYMTAB, ElfFile
from tests.linking import Linker, read_graph
from tests.toolchain import CompilerName, compile_c

READ, WRITE, EXEC = MemProt.READ, MemProt.WRITE, MemProt.EXEC


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


def graph_of(source: str, compiler: CompilerName = "clang") -> LinkGraph:
    """The graph of an assembled source."""
    return read_graph(compile_c(source, compiler, suffix=".s"))


def defined(graph: LinkGraph, name: str) -> Symbol:
    symbol = graph.find_defined_symbol_by_name(name)
    assert symbol is not None
    return symbol


def block_of(graph: LinkGraph, section: str) -> Block:
    found = graph.find_section_by_name(section)
    assert found is not None
    (block,) = found.blocks
    return block


# Sections


@pytest.mark.parametrize(
    ("directive", "prot", "lifetime"),
    [
        ('.section s, "ax", @progbits', READ | EXEC, MemLifetime.STANDARD),
        ('.section s, "aw", @progbits', READ | WRITE, MemLifetime.STANDARD),
        ('.section s, "a", @progbits', READ, MemLifetime.STANDARD),
        ('.section s, "awx", @progbits', READ | WRITE | EXEC, MemLifetime.STANDARD),
        ('.section s, "", @progbits', READ, MemLifetime.NO_ALLOC),
        ('.section s, "w", @progbits', READ | WRITE, MemLifetime.NO_ALLOC),
        ('.section s, "aw", @init_array', READ | WRITE, MemLifetime.STANDARD),
        ('.section s, "aw", @fini_array', READ | WRITE, MemLifetime.STANDARD),
        ('.section s, "aw", @preinit_array', READ | WRITE, MemLifetime.STANDARD),
        ('.section s, "a", @note', READ, MemLifetime.STANDARD),
        ('.section s, "a", @unwind', READ, MemLifetime.STANDARD),
        ('.section s, "awT", @progbits', READ | WRITE, MemLifetime.STANDARD),
        ('.section s, "aMS", @progbits, 1', READ, MemLifetime.STANDARD),
        ('.section s, "aM", @progbits, 8', READ, MemLifetime.STANDARD),
        ('.section s, "awl", @progbits', READ | WRITE, MemLifetime.STANDARD),
        ('.section s, "ao", @progbits, .text', READ, MemLifetime.STANDARD),
    ],
)
def test_flags_and_types(directive: str, prot: MemProt, lifetime: MemLifetime) -> None:
    graph = graph_of(f".text\nnop\n{directive}\n.balign 32\n.quad 0x1122334455667788")
    block = block_of(graph, "s")
    assert (block.section.mem_prot, block.section.mem_lifetime) == (prot, lifetime)
    assert (block.size, block.alignment, block.is_zero_fill) == (8, 32, False)
    assert bytes(block.content) == bytes.fromhex("8877665544332211")


@pytest.mark.parametrize(
    ("more", "is_unread"),
    [
        ("", True),
        (".byte 1\n".join(f'.section s, "a", @progbits, unique, {n}\n' for n in range(3)), False),
        (f'.section {"long" * 300}, "a"\n.byte 1', False),
        (".section .zdebug_info\n.byte 1", False),
    ],
)  # fmt: skip
def test_names_of_many_sections_are_read_when_they_are_asked_for(
    more: str, is_unread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = [f'.section .text.{n}, "ax"\n.globl f{n}\nf{n}: ret\n' for n in range(600)]
    source = "".join([*functions, '.section data, "aw"\n.quad f7\n', more])
    unread = graph_of(source)
    assert any(unread.section_list.read_names) != is_unread
    assert bytes(block_of(unread, "data").content) == bytes(8)
    monkeypatch.setattr(elf_symbols, "_MANY", 1 << 62)
    read = graph_of(source)
    for column in ("section", "origin", "size", "flags"):
        columns = (getattr(graph.block_table, column) for graph in (unread, read))
        assert np.array_equal(*columns)
    assert unread.section_list.names == read.section_list.names
    assert np.array_equal(unread.section_list.prots(), read.section_list.prots())
    assert np.array_equal(unread.section_list.lifetimes(), read.section_list.lifetimes())


def test_zero_fill() -> None:
    graph = graph_of(".bss\n.balign 64\n.globl zeros\nzeros: .zero 100\n.size zeros, 100")
    block = block_of(graph, ".bss")
    assert (block.size, block.alignment, block.is_zero_fill) == (100, 64, True)
    assert block.section.mem_prot == READ | WRITE
    assert defined(graph, "zeros").size == 100


def test_excluded_sections_are_skipped() -> None:
    graph = graph_of('.section excluded, "e", @progbits\n.quad undefined\n.text\nnop')
    assert graph.find_section_by_name("excluded") is None
    assert graph.find_section_by_name(".text") is not None


def test_sections_of_one_name_share_a_graph_section() -> None:
    """If protection and lifetime are the same too; each section has its own block."""
    source = """
        .section s, "a", @progbits, unique, 1
        .byte 1
        .section s, "a", @progbits, unique, 2
        .byte 2
        .section s, "aw", @progbits, unique, 3
        .byte 3
    """
    graph = graph_of(source)
    found = {
        section.mem_prot: [bytes(block.content) for block in section.blocks]
        for section in graph.sections
        if section.name == "s"
    }
    assert found == {READ: [b"\1", b"\2"], READ | WRITE: [b"\3"]}


def test_retained_sections_are_live(linker: Linker) -> None:
    source = """
        .section kept, "aR", @progbits
        .quad 1
        .section dropped, "a", @progbits
        .quad 2
        .text
        .globl f
    f:  ret
    """
    data = compile_c(source, "clang", suffix=".s")
    graph = read_graph(data)
    assert graph.block_table.flags[block_of(graph, "kept").row] & BlockFlags.LIVE
    names = {block.section.name for block in linker.link(data).graph.blocks}
    assert "kept" in names
    assert "dropped" not in names


def test_mergeable_sections_are_linked_unmerged(linker: Linker) -> None:
    """Merging is optional for a linker."""
    source = """
        .section .rodata.str1.1, "aMS", @progbits, 1
    one: .asciz "same"
    two: .asciz "same"
        .text
        .globl first, second
    first:  lea one(%rip), %rax
            ret
    second: lea two(%rip), %rax
            ret
    """
    linked = linker.link(compile_c(source, "clang", suffix=".s"))
    first, second = (linked.function(name)() for name in ("first", "second"))
    assert second == first + 5
    assert ctypes.string_at(first) == ctypes.string_at(second) == b"same"


def test_contents_are_not_copied() -> None:
    data = bytearray(compile_c(".data\n.quad 5\n.globl d\nd: .quad 6", suffix=".s").read_bytes())
    graph = read_graph(bytes(data))
    block = block_of(graph, ".data")
    assert bytes(block.content) == (5).to_bytes(8, "little") + (6).to_bytes(8, "little")
    assert block.content.readonly


def test_inputs_are_never_written_to(linker: Linker) -> None:
    """Neither a section that is not loaded nor a writable buffer is an exception."""
    source = """
        .section kept, "R", @progbits
        .quad 1, target
        .text
        .globl target
    target: ret
    """
    data = bytearray(compile_c(source, "clang", suffix=".s").read_bytes())
    before = bytes(data)
    with suppress(JITLinkError):
        linker.link(data)
    assert data == before


# Symbols

SYMBOLS = """
    .text
    .globl strong, weak, hidden, internal, protected, unsized, at_end, function, notype
    .weak weak, weak_reference
    .hidden hidden, hidden_reference
    .internal internal
    .protected protected
    .type function, @function
strong: nop
weak: nop
hidden: nop
internal: nop
protected: nop
local: nop
function: nop
    .size function, 1
notype: nop
unsized:
at_end:
    .data
    .quad strong_reference, weak_reference, hidden_reference, local
    .globl unique, object
    .type unique, @gnu_unique_object
    .type object, @object
unique: .quad 1
    .size unique, 8
object: .quad 2
    .size object, 8
    .globl absolute, absolute_weak
absolute = 0xfedcba9876543210
    .weak absolute_weak
absolute_weak = 7
    .globl resolver
    .type resolver, @gnu_indirect_function
    .text
resolver: ret
    .section .tdata, "awT", @progbits
    .globl in_thread
    .type in_thread, @tls_object
in_thread: .quad 0
"""


@cache
def symbols() -> LinkGraph:
    return graph_of(SYMBOLS, "gcc")


@pytest.mark.parametrize(
    ("name", "linkage", "scope"),
    [
        ("strong", Linkage.STRONG, Scope.DEFAULT),
        ("weak", Linkage.WEAK, Scope.DEFAULT),
        ("hidden", Linkage.STRONG, Scope.HIDDEN),
        ("internal", Linkage.STRONG, Scope.HIDDEN),
        ("protected", Linkage.STRONG, Scope.DEFAULT),
        ("unique", Linkage.WEAK, Scope.DEFAULT),
        ("local", Linkage.STRONG, Scope.LOCAL),
    ],
)
def test_binding_and_visibility(name: str, linkage: Linkage, scope: Scope) -> None:
    symbol = defined(symbols(), name)
    assert (symbol.linkage, symbol.scope) == (linkage, scope)
    assert bool(symbol.flags & SymbolFlags.UNIQUE) == (name == "unique")


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("function", SymbolFlags.CALLABLE),
        ("notype", SymbolFlags(0)),
        ("object", SymbolFlags(0)),
        ("resolver", SymbolFlags.CALLABLE | SymbolFlags.INDIRECT),
        ("in_thread", SymbolFlags.THREAD_LOCAL),
    ],
)
def test_types(name: str, flags: SymbolFlags) -> None:
    assert defined(symbols(), name).flags == flags


@pytest.mark.parametrize(
    ("name", "weak"),
    [("strong_reference", False), ("weak_reference", True), ("hidden_reference", False)],
)
def test_references(name: str, weak: bool) -> None:
    symbol = symbols().find_external_symbol_by_name(name)
    assert symbol is not None
    assert symbol.is_weakly_referenced == weak
    scope = Scope.HIDDEN if name == "hidden_reference" else Scope.DEFAULT
    assert (symbol.scope, symbol.linkage) == (scope, Linkage.STRONG)


def test_sizes_and_places() -> None:
    function, unsized, at_end = (
        defined(symbols(), name) for name in ("function", "unsized", "at_end")
    )
    assert (function.offset, function.size) == (6, 1)
    assert (unsized.offset, unsized.size) == (at_end.offset, 0)
    assert defined(symbols(), "object").size == 8


def test_symbols_at_the_end_of_a_section(linker: Linker) -> None:
    source = ".data\n.globl first, behind\nfirst: .quad 1, 2\nbehind:\n.text\nnop"
    linked = linker.link(compile_c(source, suffix=".s"))
    assert linked.address("behind") == linked.address("first") + 16


def test_absolute_symbols(linker: Linker) -> None:
    symbol = symbols().find_absolute_symbol_by_name("absolute")
    assert symbol is not None
    assert symbol.address == 0xFEDC_BA98_7654_3210
    source = ".globl a, get\na = 0x7766554433221100\n.text\nget: movabs $a, %rax\nret"
    linked = linker.link(compile_c(source, suffix=".s"))
    assert linked.function("get")() == linked.address("a") == 0x7766_5544_3322_1100


def test_file_symbols_and_the_null_symbol_are_skipped() -> None:
    graph = graph_of('.file "source.c"\n.text\n.globl f\nf: ret')
    assert [symbol.name for symbol in graph.defined_symbols if symbol.has_name] == ["f"]
    assert list(graph.absolute_symbols) == []
    assert list(graph.external_symbols) == []


def test_names_that_are_not_utf_8() -> None:
    """Other bytes are surrogate escapes in names."""
    elf = ElfFile(compile_c(".globl name\nname: ret", suffix=".s"))
    table = elf.section(elf.symbol_table, "link")
    elf.set_content(table, elf.content(table).replace(b"name\0", b"\xffa\xc3\xa9\0"))
    graph = read_graph(bytes(elf))
    assert [s.name for s in graph.defined_symbols if s.scope != Scope.LOCAL] == ["\udcffaé"]
    assert graph.find_defined_symbol_by_name("\udcffaé") is not None


# Common symbols


def test_common_symbols(linker: Linker) -> None:
    source = "int small; double large[100]; _Alignas(64) char aligned[3];"
    data = compile_c(source, flags=["-fcommon"])
    graph = read_graph(data)
    for name, size, alignment in (("small", 4, 4), ("large", 800, 16), ("aligned", 3, 64)):
        symbol = defined(graph, name)
        assert symbol.flags & SymbolFlags.COMMON
        assert (symbol.linkage, symbol.offset, symbol.size) == (Linkage.WEAK, 0, size)
        assert (symbol.block.size, symbol.block.alignment) == (size, alignment)
        assert symbol.block.is_zero_fill
        assert symbol.block.section.mem_prot == READ | WRITE
    linked = linker.link(data)
    assert linked.address("aligned") % 64 == 0
    assert linked.read("large", 800) == bytes(800)


def test_large_common_symbols() -> None:
    """x86-64 has a reserved section index for those of the large code model."""
    elf = ElfFile(compile_c("int small;", flags=["-fcommon"]))
    index = elf.find_symbol("small")
    assert elf.symbol(index, "shndx") == 0xFFF2
    symbol = defined(read_graph(bytes(elf.set_symbol(index, shndx=0xFF02))), "small")
    assert symbol.flags & SymbolFlags.COMMON
    assert (symbol.block.size, symbol.block.alignment) == (4, 4)


# More sections than a 16-bit count

MANY = 66_000


@cache
def many_sections() -> Path:
    """Many functions and words, each in its own section; a function calls the one before."""
    first = '.section .text.f0, "ax"\n.globl f0\nf0: xor %eax, %eax\nret\n'
    others = (
        f'.section .text.f{number}, "ax"\n.globl f{number}\nf{number}: call f{number - 1}@PLT\n'
        f'inc %eax\nret\n.section .data.d{number}, "aw"\n.globl d{number}\n'
        f"d{number}: .quad f{number}\n"
        for number in range(1, MANY // 2)
    )
    return compile_c("".join([first, *others]), suffix=".s", flags=["-g0"])


def test_more_sections_than_65280(linker: Linker) -> None:
    elf = ElfFile(many_sections())
    assert elf.header("shnum") == 0
    assert elf.header("shstrndx") == 0xFFFF
    assert elf.section(0, "size") > 65_280
    linked = linker.link(many_sections())
    for number in (0, 1, 100, 32_639, 32_640, MANY // 2 - 1):
        assert linked.function(f"f{number}", ctypes.c_int)() == number
        if number:
            assert linked.integer(f"d{number}") == linked.address(f"f{number}")


def test_extended_indices_are_checked() -> None:
    elf = ElfFile(many_sections())
    tables = [index for index in range(elf.section(0, "size")) if elf.section(index, "type") == 18]
    assert len(tables) == 1
    assert elf.section(tables[0], "link") == next(
        index for index in range(elf.section(0, "size")) if elf.section(index, "type") == SHT_SYMTAB
    )
    elf.set_section(tables[0], size=4)
    with pytest.raises(ObjectError, match="no entry in the table of extended section indices"):
        read_graph(bytes(elf))
