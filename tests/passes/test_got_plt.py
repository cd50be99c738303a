"""GOT entries and stubs: one for each target and graph, however many edges and objects ask."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jitlink.arch.x86_64 import ENTRIES
from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.graph import Block, LinkGraph, MemProt, Scope, Symbol
from jitlink.passes.got_plt import (
    GOT_SECTION,
    GOT_SYMBOL,
    STUBS_SECTION,
    Pointees,
    build_entries,
    entry_blocks,
    got_address,
    pointees,
)
from tests.linking import Linker
from tests.toolchain import compile_c

FAR = 0x0000_2345_6789_ABC0


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as made:
        yield made


class Asking:
    """A graph with one block, whose edges ask for entries."""

    def __init__(self) -> None:
        self.graph = LinkGraph("asking.o", "none", edge_kinds=K)
        section = self.graph.create_section(".text", MemProt.READ | MemProt.EXEC)
        self.block = self.graph.create_content_block(section, bytes(1024))
        self.here = self.graph.add_defined_symbol(self.block, 8, "here", scope=Scope.HIDDEN)
        self.outside = self.graph.add_external_symbol("outside")
        self.other = self.graph.add_external_symbol("other")
        self.fixed = self.graph.add_absolute_symbol("fixed", FAR)

    def ask(self, *requests: tuple[K, Symbol]) -> None:
        for number, (kind, target) in enumerate(requests):
            self.block.add_edge(kind, 8 * number, target, number)
        build_entries(self.graph, ENTRIES)

    def results(self) -> list[tuple[K, str, int]]:
        """Kinds and addends of the edges, and what the entries that they lead to are for."""
        leads = pointees(self.graph)
        return [
            (K(edge.kind), Symbol(self.graph, int(leads[edge.target.row])).name, edge.addend)
            for edge in self.block.edges
        ]

    def blocks(self, name: str) -> list[Block]:
        section = self.graph.find_section_by_name(name)
        return [] if section is None else list(section.blocks)


@pytest.mark.parametrize(("request_kind", "kind"), list(ENTRIES.got_requests.items()))
def test_got_requests(request_kind: K, kind: K) -> None:
    """Targets in the graph have entries as well; addends stay."""
    asking = Asking()
    targets = (asking.outside, asking.here, asking.fixed, asking.outside)
    asking.ask(*((request_kind, target) for target in targets))
    names = ["outside", "here", "fixed", "outside"]
    assert asking.results() == [(kind, name, n) for n, name in enumerate(names)]
    entries = asking.blocks(GOT_SECTION)
    assert len(entries) == 3
    for entry in entries:
        assert (entry.size, entry.alignment, bytes(entry.content)) == (8, 8, bytes(8))
    pointers = [edge for entry in entries for edge in entry.edges]
    assert sorted(edge.target.name for edge in pointers) == ["fixed", "here", "outside"]
    assert {(edge.kind, edge.offset, edge.addend) for edge in pointers} == {(K.POINTER64, 0, 0)}
    assert asking.blocks(STUBS_SECTION) == []


def test_calls_ask_for_stubs_of_what_is_elsewhere() -> None:
    asking = Asking()
    targets = (asking.outside, asking.here, asking.fixed, asking.outside)
    asking.ask(*((K.BRANCH_PCREL32, target) for target in targets))
    stubbed = K.BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE
    assert asking.results() == [
        (stubbed, "outside", 0),
        (K.BRANCH_PCREL32, "here", 1),
        (stubbed, "fixed", 2),
        (stubbed, "outside", 3),
    ]
    stubs = asking.blocks(STUBS_SECTION)
    assert len(stubs) == len(asking.blocks(GOT_SECTION)) == 2
    for stub in stubs:
        assert bytes(stub.content) == ENTRIES.stub
        (edge,) = stub.edges
        assert (edge.kind, edge.offset, edge.addend) == (K.PCREL32, 2, 0)
        assert edge.target.section.name == GOT_SECTION


def test_an_address_of_a_stub_always_has_one() -> None:
    asking = Asking()
    kind = K.REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT
    asking.ask((kind, asking.here), (kind, asking.outside))
    assert asking.results() == [
        (K.DELTA64_FROM_GOT, "here", 0),
        (K.DELTA64_FROM_GOT, "outside", 1),
    ]
    assert len(asking.blocks(STUBS_SECTION)) == 2


def test_loads_and_stubs_share_an_entry() -> None:
    asking = Asking()
    asking.ask(
        (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, asking.outside),
        (K.BRANCH_PCREL32, asking.outside),
        (K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE, asking.outside),
    )
    assert len(asking.blocks(GOT_SECTION)) == len(asking.blocks(STUBS_SECTION)) == 1
    assert {name for _, name, _ in asking.results()} == {"outside"}


def test_nothing_is_made_for_nobody() -> None:
    asking = Asking()
    asking.ask((K.DELTA32, asking.outside), (K.BRANCH_PCREL32, asking.here))
    assert asking.graph.find_section_by_name(GOT_SECTION) is None
    assert got_address(asking.graph) is None
    assert not Pointees(asking.graph, ENTRIES).any
    assert pointees(asking.graph).tolist() == list(range(asking.graph.symbol_table.rows))


def test_the_table_exists_for_those_who_measure_from_it() -> None:
    asking = Asking()
    asking.ask((K.DELTA64_TO_GOT, asking.here), (K.DELTA64_FROM_GOT, asking.here))
    (entry,) = asking.blocks(GOT_SECTION)
    assert list(entry.edges) == []
    assert asking.results() == [(K.DELTA64_TO_GOT, "here", 0), (K.DELTA64_FROM_GOT, "here", 1)]


def test_the_symbol_that_names_the_table() -> None:
    asking = Asking()
    base = asking.graph.add_external_symbol(GOT_SYMBOL)
    asking.ask(
        (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, asking.outside),
        (K.DELTA32, base),
        (K.DELTA32, base),
    )
    assert base.is_defined
    assert (base.offset, base.scope) == (0, Scope.LOCAL)
    assert base.section.name == GOT_SECTION
    assert asking.graph.find_external_symbol_by_name(GOT_SYMBOL) is None
    first, *others = sorted(
        asking.blocks(GOT_SECTION), key=lambda b: int(asking.graph.block_table.origin[b.row])
    )
    assert base.block == first
    assert len(others) == 1


def test_pointees_and_entry_blocks() -> None:
    asking = Asking()
    asking.ask(
        (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, asking.here), (K.BRANCH_PCREL32, asking.other)
    )
    leads = pointees(asking.graph)
    entry, stub = (edge.target.row for edge in asking.block.edges)
    assert leads[[entry, stub]].tolist() == [asking.here.row, asking.other.row]
    assert leads[asking.outside.row] == asking.outside.row
    blocks = {
        Block(asking.graph, row) for row in np.flatnonzero(entry_blocks(asking.graph)).tolist()
    }
    assert blocks == {*asking.blocks(GOT_SECTION), *asking.blocks(STUBS_SECTION)}
    found = Pointees(asking.graph, ENTRIES).of(np.arange(2))
    assert found.tolist() == [asking.here.row, asking.other.row]


def test_edges_into_the_middle_of_an_entry_lead_nowhere() -> None:
    asking = Asking()
    asking.ask((K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, asking.outside))
    (entry,) = asking.blocks(GOT_SECTION)
    inside = asking.graph.add_anonymous_symbol(entry, 4)
    edge = asking.block.add_edge(K.PCREL32_GOT_LOAD_RELAXABLE, 16, inside)
    assert Pointees(asking.graph, ENTRIES).of(np.array([edge.row])).tolist() == [-1]


# Linked


def assemble(text: str) -> Path:
    return compile_c(f".text\n{text}", "clang", suffix=".s")


def test_objects_share_entries(linker: Linker) -> None:
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


def test_the_table_begins_where_its_symbol_is(linker: Linker) -> None:
    """Also if objects that came before have entries, and if two objects name it."""
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


def test_the_table_is_read_only_once_it_is_filled(linker: Linker) -> None:
    linked = linker.link(
        assemble(".globl f\nf: push outside@GOTPCREL(%rip)\npop %rax\nret"),
        externals={"outside": FAR},
    )
    section = linked.graph.find_section_by_name(GOT_SECTION)
    assert section is not None
    assert section.mem_prot == MemProt.READ
    assert linked.function("f")() == FAR
