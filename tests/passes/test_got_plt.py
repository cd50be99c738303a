"""GOT entries and stubs: one for each target and graph, for any number of edges and objects."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jitlink.arch.x86_64 import GOT_PLT
from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.graph import Block, LinkGraph, MemProt, Scope, Symbol
from jitlink.passes.got_plt import (
    GOT_SECTION,
    GOT_SYMBOL,
    STUBS_SECTION,
    BypassTargets,
    build_got_and_stubs,
    got_address,
    got_plt_blocks,
    got_plt_targets,
)
from tests.linking import Linker
from tests.toolchain import compile_c

FAR = 0x0000_2345_6789_ABC0


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


class RequestingGraph:
    """A graph with one block, whose edges request GOT entries and stubs."""

    def __init__(self) -> None:
        self.graph = LinkGraph("requesting.o", "none", edge_kinds=K)
        section = self.graph.create_section(".text", MemProt.READ | MemProt.EXEC)
        self.block = self.graph.create_content_block(section, bytes(1024))
        self.here = self.graph.add_defined_symbol(self.block, 8, "here", scope=Scope.HIDDEN)
        self.outside = self.graph.add_external_symbol("outside")
        self.other = self.graph.add_external_symbol("other")
        self.fixed = self.graph.add_absolute_symbol("fixed", FAR)

    def build(self, *requests: tuple[K, Symbol]) -> None:
        for number, (kind, target) in enumerate(requests):
            self.block.add_edge(kind, 8 * number, target, number)
        build_got_and_stubs(self.graph, GOT_PLT)

    def results(self) -> list[tuple[K, str, int]]:
        """Kinds, names of the targets behind GOT entries and stubs, and addends of the edges."""
        targets = got_plt_targets(self.graph)
        return [
            (K(edge.kind), Symbol(self.graph, int(targets[edge.target.row])).name, edge.addend)
            for edge in self.block.edges
        ]

    def blocks(self, name: str) -> list[Block]:
        section = self.graph.find_section_by_name(name)
        return [] if section is None else list(section.blocks)


@pytest.mark.parametrize(("request_kind", "kind"), list(GOT_PLT.got_requests.items()))
def test_got_requests(request_kind: K, kind: K) -> None:
    """Targets in the graph get GOT entries too; addends are not changed."""
    requesting = RequestingGraph()
    targets = (requesting.outside, requesting.here, requesting.fixed, requesting.outside)
    requesting.build(*((request_kind, target) for target in targets))
    names = ["outside", "here", "fixed", "outside"]
    assert requesting.results() == [(kind, name, n) for n, name in enumerate(names)]
    entries = requesting.blocks(GOT_SECTION)
    assert len(entries) == 3
    for entry in entries:
        assert (entry.size, entry.alignment, bytes(entry.content)) == (8, 8, bytes(8))
    pointers = [edge for entry in entries for edge in entry.edges]
    assert sorted(edge.target.name for edge in pointers) == ["fixed", "here", "outside"]
    assert {(edge.kind, edge.offset, edge.addend) for edge in pointers} == {(K.POINTER64, 0, 0)}
    assert requesting.blocks(STUBS_SECTION) == []


def test_calls_of_external_targets_request_stubs() -> None:
    requesting = RequestingGraph()
    targets = (requesting.outside, requesting.here, requesting.fixed, requesting.outside)
    requesting.build(*((K.BRANCH_PCREL32, target) for target in targets))
    stubbed = K.BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE
    assert requesting.results() == [
        (stubbed, "outside", 0),
        (K.BRANCH_PCREL32, "here", 1),
        (stubbed, "fixed", 2),
        (stubbed, "outside", 3),
    ]
    stubs = requesting.blocks(STUBS_SECTION)
    assert len(stubs) == len(requesting.blocks(GOT_SECTION)) == 2
    for stub in stubs:
        assert bytes(stub.content) == GOT_PLT.stub
        (edge,) = stub.edges
        assert (edge.kind, edge.offset, edge.addend) == (K.PCREL32, 2, 0)
        assert edge.target.section.name == GOT_SECTION


def test_plt_offsets_always_request_stubs() -> None:
    requesting = RequestingGraph()
    kind = K.REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT
    requesting.build((kind, requesting.here), (kind, requesting.outside))
    assert requesting.results() == [
        (K.DELTA64_FROM_GOT, "here", 0),
        (K.DELTA64_FROM_GOT, "outside", 1),
    ]
    assert len(requesting.blocks(STUBS_SECTION)) == 2


def test_loads_and_stubs_share_a_got_entry() -> None:
    requesting = RequestingGraph()
    requesting.build(
        (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, requesting.outside),
        (K.BRANCH_PCREL32, requesting.outside),
        (K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE, requesting.outside),
    )
    assert len(requesting.blocks(GOT_SECTION)) == len(requesting.blocks(STUBS_SECTION)) == 1
    assert {name for _, name, _ in requesting.results()} == {"outside"}


def test_no_got_without_requests() -> None:
    requesting = RequestingGraph()
    requesting.build((K.DELTA32, requesting.outside), (K.BRANCH_PCREL32, requesting.here))
    assert requesting.graph.find_section_by_name(GOT_SECTION) is None
    assert got_address(requesting.graph) is None
    assert not BypassTargets(requesting.graph, GOT_PLT).any
    assert got_plt_targets(requesting.graph).tolist() == list(
        range(requesting.graph.symbol_table.rows)
    )


def test_distances_from_the_got_create_it() -> None:
    requesting = RequestingGraph()
    requesting.build((K.DELTA64_TO_GOT, requesting.here), (K.DELTA64_FROM_GOT, requesting.here))
    (entry,) = requesting.blocks(GOT_SECTION)
    assert list(entry.edges) == []
    assert requesting.results() == [(K.DELTA64_TO_GOT, "here", 0), (K.DELTA64_FROM_GOT, "here", 1)]


def test_the_symbol_of_the_got() -> None:
    requesting = RequestingGraph()
    base = requesting.graph.add_external_symbol(GOT_SYMBOL)
    requesting.build(
        (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, requesting.outside),
        (K.DELTA32, base),
        (K.DELTA32, base),
    )
    assert base.is_defined
    assert (base.offset, base.scope) == (0, Scope.LOCAL)
    assert base.section.name == GOT_SECTION
    assert requesting.graph.find_external_symbol_by_name(GOT_SYMBOL) is None
    first, *others = sorted(
        requesting.blocks(GOT_SECTION),
        key=lambda b: int(requesting.graph.block_table.origin[b.row]),
    )
    assert base.block == first
    assert len(others) == 1


def test_got_plt_targets_and_blocks() -> None:
    requesting = RequestingGraph()
    requesting.build(
        (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, requesting.here),
        (K.BRANCH_PCREL32, requesting.other),
    )
    targets = got_plt_targets(requesting.graph)
    entry, stub = (edge.target.row for edge in requesting.block.edges)
    assert targets[[entry, stub]].tolist() == [requesting.here.row, requesting.other.row]
    assert targets[requesting.outside.row] == requesting.outside.row
    blocks = {
        Block(requesting.graph, row)
        for row in np.flatnonzero(got_plt_blocks(requesting.graph)).tolist()
    }
    assert blocks == {*requesting.blocks(GOT_SECTION), *requesting.blocks(STUBS_SECTION)}
    found = BypassTargets(requesting.graph, GOT_PLT).of(np.arange(2))
    assert found.tolist() == [requesting.here.row, requesting.other.row]


def test_edges_into_the_middle_of_a_got_entry_are_not_bypassed() -> None:
    requesting = RequestingGraph()
    requesting.build((K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, requesting.outside))
    (entry,) = requesting.blocks(GOT_SECTION)
    inside = requesting.graph.add_anonymous_symbol(entry, 4)
    edge = requesting.block.add_edge(K.PCREL32_GOT_LOAD_RELAXABLE, 16, inside)
    assert BypassTargets(requesting.graph, GOT_PLT).of(np.array([edge.row])).tolist() == [-1]


# Linked code


def assemble(text: str) -> Path:
    return compile_c(f".text\n{text}", "clang", suffix=".s")


def test_objects_share_got_entries(linker: Linker) -> None:
    source = """
        .globl {0}, {0}_call
    {0}: push outside@GOTPCREL(%rip)
        pop %rax
        ret
    {0}_call: jmp outside@PLT
    """
    objects = [assemble(source.format(name)) for name in ("a", "b", "c")]
    linked = linker.link(*objects, externals={"outside": FAR})
    assert [linked.function(name)() for name in ("a", "b", "c")] == [FAR] * 3
    graph = linked.graph
    for name in (GOT_SECTION, STUBS_SECTION):
        section = graph.find_section_by_name(name)
        assert section is not None
        assert len(list(section.blocks)) == 1
    displacements = [
        linked.address(f"{name}_call") + 5 + ctypes.c_int32.from_address(
            linked.address(f"{name}_call") + 1
        ).value
        for name in ("a", "b", "c")
    ]  # fmt: skip
    assert len(set(displacements)) == 1


def test_the_got_starts_at_its_symbol(linker: Linker) -> None:
    """Also if earlier objects have GOT entries, and if two objects refer to the symbol."""
    entry = ".globl {0}\n{0}: mov outside_{0}@GOTPCREL(%rip), %rax\nret"
    names = """
        .globl {0}
    {0}:
        .reloc ., R_X86_64_64, _GLOBAL_OFFSET_TABLE_
        .quad 0
        .reloc ., R_X86_64_GOT64, outside_a
        .quad 0
        .reloc ., R_X86_64_GOTOFF64, {0}
        .quad 0
        .reloc ., R_X86_64_GOTPC64, _GLOBAL_OFFSET_TABLE_
        .quad 0
    """
    objects = [assemble(entry.format("a")), assemble(entry.format("b"))]
    objects += [assemble(names.format("c")), assemble(names.format("d"))]
    linked = linker.link(*objects, externals={"outside_a": FAR, "outside_b": FAR + 1})
    section = linked.graph.find_section_by_name(GOT_SECTION)
    assert section is not None
    base = section.range().start
    assert got_address(linked.graph) == base
    for name in ("c", "d"):
        place = linked.address(name)
        words = [ctypes.c_int64.from_address(place + 8 * n).value for n in range(4)]
        assert words[0] == base
        assert ctypes.c_uint64.from_address(base + words[1]).value == FAR
        assert base + words[2] == place
        assert place + 24 + words[3] == base


def test_the_got_is_read_only_after_finalization(linker: Linker) -> None:
    linked = linker.link(
        assemble(".globl f\nf: push outside@GOTPCREL(%rip)\npop %rax\nret"),
        externals={"outside": FAR},
    )
    section = linked.graph.find_section_by_name(GOT_SECTION)
    assert section is not None
    assert section.mem_prot == MemProt.READ
    assert linked.function("f")() == FAR
