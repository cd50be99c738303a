"""Small objects and single ones are read as the reader of batches reads them.

The corpus is all members of archives that many compilers, assemblers and languages have written,
for three architectures; mutants of some of them are what is malformed.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from jitlink.formats.archive import Archive
from jitlink.formats.batch import Batch, ReadObjects
from jitlink.formats.small import SmallObject, add_small_objects
from jitlink.graph import LinkGraph
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.strings import NO_NAME
from jitlink.targets.base import Target
from jitlink.targets.elf import ELFTarget
from jitlink.targets.registry import target_of_object
from tests.elf_files import (
    SHT_GROUP,
    SHT_NOBITS,
    SHT_PROGBITS,
    SHT_RELA,
    SHT_STRTAB,
    ElfFile,
)
from tests.mutations import elf_regions, mutants
from tests.toolchain import compile_c, require

MUTANTS = 600
# Of each archive, how many of its members at least are read as records.
ARCHIVES = {
    "libc.a": 1200,
    "libgcc.a": 100,
    "libz.a": 3,
    "libLLVMOrcJIT.a": 0,
    "aarch64-linux-gnu/libc.a": 1200,
    "aarch64-linux-gnu/libgcc.a": 60,
    "riscv64-linux-gnu/libgcc.a": 20,
}
SOURCES = {
    "function": "int callee(int); int f(int x) { return callee(x) + 1; }",
    "data": "extern int other; int *a = &other; static int b; int g(void) { return b++; }"
    '__attribute__((weak)) int w; extern int u __attribute__((weak, visibility("hidden")));'
    "int *h(void) { return &u; } __thread int t = 4; int s(void) { return t; }",
    "arrays": "void f(void); __attribute__((constructor)) void g(void) { f(); }"
    '__attribute__((section("set"), used)) int element;',
}
TEMPLATE = """
template <class T> __attribute__((noinline)) T twice(T x) { return 2 * x; }
int f(int x) { return twice(x); }
"""


class Contents(NamedTuple):
    """What an object has added to a graph, without row numbers of names and contents."""

    columns: dict[str, list[object]]
    names: list[str | None]
    section_of_block: list[tuple[str, int, int]]
    contents: list[bytes | None]
    signatures: list[str]
    read: tuple[object, ...]


def contents(graph: LinkGraph, read: ReadObjects) -> Contents:
    blocks, symbols, edges = graph.block_table, graph.symbol_table, graph.edge_table
    columns = {
        f"{type(table).__name__}.{name}": getattr(table, name).tolist()
        for table in (blocks, symbols, edges)
        for name in table.FIELDS
        if name not in {"name", "content", "section"}
    }
    sections, prots = graph.section_list, graph.section_list.prots()
    lifetimes = sections.lifetimes()
    places = zip(blocks.content.tolist(), blocks.size.tolist(), strict=True)
    groups = read.comdats
    return Contents(
        columns,
        [None if n == NO_NAME else graph.strings.get(n) for n in symbols.name.tolist()],
        [(sections.names[n], int(prots[n]), int(lifetimes[n])) for n in blocks.section.tolist()],
        [
            None if place == ZERO_FILL else bytes(graph.contents.view(place, size))
            for place, size in places
        ],
        graph.strings.get_many(groups.signature),
        (
            read.first_symbol.tolist(), read.last_symbol, read.first_block, read.first_edge,
            read.last_edge, read.refers_to_itself, groups.member_group.tolist(),
            groups.member_block.tolist(), graph.origins, graph.origin_flags, graph.linked_to,
        ),
    )  # fmt: skip


def batch_of(objects: Sequence[bytes]) -> Batch:
    sizes = np.array(list(map(len, objects)))
    starts = sizes.cumsum() - sizes
    names = [str(number) for number in range(len(objects))]
    return Batch(memoryview(b"".join(objects)), names, starts, sizes)


def as_batch(target: Target, objects: Sequence[bytes]) -> Contents:
    graph = target.new_graph("graph")
    assert isinstance(target, ELFTarget)
    return contents(graph, target._add_batch(graph, batch_of(objects)))


def as_single(target: Target, data: bytes) -> Contents | None:
    graph = target.new_graph("graph")
    assert isinstance(target, ELFTarget)
    read = target._add_single(graph, batch_of([data]))
    if read is None:
        assert len(graph.origins) == len(graph.section_list) == graph.symbol_table.rows == 0
    return read and contents(graph, read)


def as_records(target: Target, objects: list[SmallObject]) -> Contents:
    graph = target.new_graph("graph")
    names = [str(number) for number in range(len(objects))]
    return contents(graph, add_small_objects(graph, names, objects))


def check(target: Target, data: bytes) -> SmallObject | None:
    """Check one object; what was read, if it was read as records."""
    small, single = target.read_small(memoryview(data)), as_single(target, data)
    expected = as_batch(target, [data]) if small or single else None
    if single is not None:
        assert single == expected
    if small is not None:
        # Every object that is read as records can be read as a single one.
        assert as_records(target, [small]) == expected == single
        graph = target.new_graph("limited")
        add_small_objects(graph, ["0"], [small])
        limit = target.new_graph("unlimited").address_limit
        assert small.may_limit_address or target.address_limit(graph) == limit
    return small


@cache
def compiled() -> dict[str, bytes]:
    """Small objects of the compilers, by name."""
    found = {}
    for name, source in SOURCES.items():
        for flags in (["-O1"], ["-O2", "-fPIC", "-ffunction-sections"], ["-O0", "-fcommon", "-g"]):
            key = " ".join([name, *flags])
            found[f"zig {key}"] = compile_c(source, "zig", flags).read_bytes()
            for target in ("aarch64-linux-musl", "riscv64-linux-musl"):
                # Relocations of thread-local storage are refused on RISC-V.
                if (target[:5], name) != ("riscv", "data"):
                    path = compile_c(source, "zig", flags, target=target)
                    found[f"{target} {key}"] = path.read_bytes()
    for compiler in ("gcc", "clang"):
        for name, source in {**SOURCES, "template": TEMPLATE}.items():
            suffix = ".cpp" if name == "template" else ".c"
            path = compile_c(source, compiler, ["-O1", "-fPIC"], suffix=suffix)
            found[f"{compiler} {name}"] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", ARCHIVES)
def test_members_of_archives(name: str) -> None:
    members = Archive(memoryview(require(name).read_bytes()), name).members()
    read = 0
    for member in members:
        data = bytes(member.data or b"")
        if data.startswith(b"\x7fELF"):
            read += check(target_of_object(data, member.name), data) is not None
    assert read >= ARCHIVES[name]


def test_what_compilers_write() -> None:
    read = {name: check(target_of_object(data, name), data) for name, data in compiled().items()}
    assert [name for name, small in read.items() if small is None] == []
    grouped = read["gcc template"]
    assert grouped is not None
    assert [grouped.string(name) for name, _ in grouped.groups] == ["_Z5twiceIiET_S0_"]


@pytest.mark.parametrize("name", ["libsqlite3.a", "liblua5.4.a", "aarch64-linux-gnu/libm.a"])
def test_single_objects(name: str) -> None:
    """Most members of these have few sections, and too many records for a small object."""
    members = Archive(memoryview(require(name).read_bytes()), name).members()
    objects = [bytes(member.data or b"") for member in members]
    read = [check(target_of_object(data, name), data) for data in objects]
    targets = [target_of_object(data, name) for data in objects]
    single = [as_single(t, data) for t, data in zip(targets, objects, strict=True)]
    large = [each for each, small in zip(single, read, strict=True) if each and not small]
    assert len(large) >= 10


def test_several_objects() -> None:
    objects = [data for name, data in compiled().items() if name.startswith(("gcc ", "clang "))]
    target = target_of_object(objects[0], "first")
    small = [target.read_small(memoryview(data)) for data in objects]
    assert as_records(target, [each for each in small if each]) == as_batch(target, objects)


@pytest.mark.parametrize("name", ["gcc data", "clang function", "gcc template", "clang arrays"])
def test_mutants(name: str) -> None:
    """What the other reader refuses is not read, and everything else is read alike."""
    data = compiled()[name]
    target = target_of_object(data, name)
    outcomes = {
        check(target, each) is not None for each in mutants(data, elf_regions(data), MUTANTS)
    }
    assert outcomes == {True, False}


UNUSUAL_SOURCES = {
    "an order of links": '.text\nf: ret\n.section s, "ao", @progbits, f\n.byte 1',
    "a default version": ".globl f\nf: ret\n.symver f, f@@V1",
    "a group by name": '.section .gnu.linkonce.t.f, "ax"\n.globl f\nf: ret',
    "an old compressed section": ".globl f\nf: ret\n.section .zdebug_info\n.byte 1",
    "a common symbol": ".comm f, 8",
}


def share_bytes(elf: ElfFile) -> None:
    for index in elf.of_type(SHT_PROGBITS)[:2]:
        elf.set_section(index, offset=0, size=len(elf.data))


def two_symbol_tables(elf: ElfFile) -> None:
    start, table = elf.section_at(elf.find(".data")), elf.section_at(elf.symbol_table)
    elf.data[start : start + 64] = elf.data[table : table + 64]


def group_by_another_table(elf: ElfFile) -> None:
    elf.set_section(elf.of_type(SHT_GROUP)[0], link=elf.of_type(SHT_STRTAB)[0])


def relocate_zeros(elf: ElfFile) -> None:
    elf.set_section(elf.section(elf.of_type(SHT_RELA)[0], "info"), type=SHT_NOBITS)


def test_unusual_objects_are_not_read_here() -> None:
    objects = {
        name: compile_c(source, "gcc", suffix=".s").read_bytes()
        for name, source in UNUSUAL_SOURCES.items()
    }
    plain = compile_c(".globl f\nf: ret", "gcc", suffix=".s").read_bytes()
    for change in (share_bytes, two_symbol_tables, group_by_another_table, relocate_zeros):
        elf = ElfFile(plain if change is two_symbol_tables else compiled()["gcc template"])
        change(elf)
        objects[change.__name__] = bytes(elf)
    for name, data in objects.items():
        target = target_of_object(data, name)
        assert (name, check(target, data), as_single(target, data)) == (name, None, None)


@pytest.mark.parametrize("addend", [(1 << 63) - 1, -(1 << 63)])
def test_addends_wrap(addend: int) -> None:
    """What is added to an addend may take it beyond int64, where only columns wrap."""
    elf = ElfFile(compiled()["gcc function"])
    elf.set_relocation(elf.of_type(SHT_RELA)[0], 0, addend=addend)
    data = bytes(elf)
    target = target_of_object(data, "wraps")
    assert check(target, data) is None
    assert as_single(target, data) is not None


def test_a_target_refuses_objects_of_others() -> None:
    objects = compiled()
    names = [f"{target} function -O1" for target in ("aarch64-linux-musl", "riscv64-linux-musl")]
    targets = [target_of_object(objects[name], name) for name in names]
    for target, other in zip(targets, reversed(names), strict=True):
        assert target.read_small(memoryview(objects[other])) is None
        assert target.read_small(memoryview(b"\x7fELF")) is None
