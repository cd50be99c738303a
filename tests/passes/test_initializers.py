"""Sections of initialisers, and their order."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from jitlink.errors import GraphError
from jitlink.graph import LinkGraph, MemLifetime, MemProt, Scope
from jitlink.graph.strings import StringHeap
from jitlink.passes.initializers import (
    ArrayKind,
    add_initializer_symbols,
    function_arrays,
    in_order,
    initializer_symbol_name,
    mark_arrays_live,
    objects_with_arrays,
)
from jitlink.passes.prune import prune
from jitlink.targets.registry import target_of_triple
from tests.tool.command import spawn
from tests.toolchain import compile_c, require, run

DATA = MemProt.READ | MemProt.WRITE
SAY = '#include <stdio.h>\nvoid say(int n) { printf("%d\\n", n); } int main(void) { return 0; }\n'


def graph_of(*objects: list[str]) -> LinkGraph:
    """A graph of objects, each given by the names of its sections, with one pointer each."""
    graph = target_of_triple("x86_64-linux").new_graph("g")
    for origin, names in enumerate(objects):
        graph.origins.append(f"{origin}.o")
        for name in names:
            section = graph.obtain_section(name, DATA)
            block = graph.create_content_block(section, bytes(8), 0, 8)
            graph.block_table.origin[block.row] = origin
            block.address = 0x1000 + 8 * block.row
    return graph


def order_of(graph: LinkGraph, kind: ArrayKind) -> list[tuple[int, str]]:
    """Object and section name of each array, in order."""
    add_initializer_symbols(
        graph, {n: initializer_symbol_name("g", 100 + n) for n in objects_with_arrays(graph)}
    )
    table = graph.block_table
    names = graph.section_list.names
    found = []
    for array in in_order(function_arrays(graph), kind):
        row = (array.start - 0x1000) // 8
        found.append((int(table.origin[row]), names[int(table.section[row])]))
    return found


def test_priorities_come_first_then_the_order_of_input() -> None:
    graph = graph_of(
        [".init_array", ".init_array.300", ".ctors.65335"],
        [".ctors", ".init_array.00200", ".init_array"],
        [".init_array.101", ".ctors.65035"],
    )
    assert order_of(graph, ArrayKind.INIT) == [
        (2, ".init_array.101"),
        (0, ".ctors.65335"),
        (1, ".init_array.00200"),
        (0, ".init_array.300"),
        (2, ".ctors.65035"),
        (0, ".init_array"),
        (1, ".ctors"),
        (1, ".init_array"),
    ]


def test_finalizers_are_in_the_order_of_their_arrays() -> None:
    graph = graph_of([".fini_array", ".dtors.65335"], [".fini_array.100", ".dtors"])
    assert order_of(graph, ArrayKind.FINI) == [
        (1, ".fini_array.100"),
        (0, ".dtors.65335"),
        (0, ".fini_array"),
        (1, ".dtors"),
    ]


def test_odd_names() -> None:
    graph = graph_of([
        ".init_array.x", ".init_array.", ".init_array.-1", ".init_array.1.2", ".init_arrays",
        ".init_array.99999999999999999999", ".init_array", ".preinit_array", ".init_array.٣",
        ".init_array." + 5000 * "1", ".init_array." + 5000 * "0" + "7",
    ])  # fmt: skip
    assert order_of(graph, ArrayKind.INIT) == [
        (0, ".init_array."),
        (0, ".init_array.-1"),
        (0, ".init_array." + 5000 * "0" + "7"),
        (0, ".init_array.1.2"),
        (0, ".init_array." + 5000 * "1"),
        (0, ".init_array.99999999999999999999"),
        (0, ".init_array.x"),
        (0, ".init_array.٣"),
        (0, ".init_array"),
    ]
    assert order_of(graph_of([".preinit_array"]), ArrayKind.PREINIT) == [(0, ".preinit_array")]


SUFFIXES = (
    ("", ".foo", ".100", ".65435", ".bar"),
    (".zoo", ".00100", ".", ".x.200", ""),
    (".100", ".bar", ".0", ".70000", ".99999999999", ".last"),
)


@pytest.mark.parametrize(
    "names", [(".init_array", ".fini_array"), (".ctors", ".dtors")], ids=lambda names: names[0]
)
def test_order_is_that_of_a_native_program(names: tuple[str, str], tmp_path: Path) -> None:
    objects = []
    numbers = itertools.count(1)
    for suffixes in SUFFIXES:
        lines = ['.section .note.GNU-stack,"",@progbits']
        for name, number in zip([n + s for s in suffixes for n in names], numbers, strict=False):
            kind = "@progbits" if names == (".ctors", ".dtors") else "@" + name[1:11]
            lines += [f'.section {name},"aw",{kind}', f".quad f{number}"]
            lines += [".text", f"f{number}: mov ${number}, %edi", "jmp say@plt"]
        objects.append(compile_c("\n".join([*lines, ""]), "gcc", suffix=".s"))
    objects.append(compile_c(SAY, "gcc", ("-fPIC",)))
    program = tmp_path / "native"
    run([require("gcc"), "-fuse-ld=bfd", *objects, "-o", program])
    expected = run([program])
    assert len(expected.split()) == 32
    assert spawn(*objects).out == expected


def test_ctors_and_dtors_are_called_backwards() -> None:
    graph = graph_of([".init_array", ".ctors", ".dtors.5", ".fini_array"])
    backwards = {each.backwards for each in function_arrays(graph) if each.kind is ArrayKind.INIT}
    assert backwards == {False, True}
    assert [each.backwards for each in function_arrays(graph)] == [False, True, True, False]


def test_empty_sections_and_those_that_are_not_loaded_are_ignored() -> None:
    graph = graph_of([])
    section = graph.create_section(".init_array", MemProt.READ, MemLifetime.NO_ALLOC)
    graph.create_content_block(section, bytes(8), 0, 8)
    graph.create_content_block(graph.create_section(".init_array", DATA), b"", 0, 8)
    graph.create_zero_fill_block(graph.create_section(".ctors", DATA), 8, 0, 8)
    assert objects_with_arrays(graph) == set()
    assert not mark_arrays_live(graph_of([".text"]))
    assert function_arrays(graph) == []


def test_arrays_are_kept_alive_and_initializer_symbols_keep_them() -> None:
    graph = graph_of([".init_array", ".data"], [".fini_array"])
    assert objects_with_arrays(graph) == {0, 1}
    add_initializer_symbols(graph, {0: "init"})
    init = graph.find_defined_symbol_by_name("init")
    assert init is not None
    assert init.scope is Scope.SIDE_EFFECTS_ONLY
    assert [edge.target.block.section.name for edge in init.block.edges] == [".init_array"]
    assert mark_arrays_live(graph)
    prune(graph)
    kept = {block.section.name for block in graph.blocks}
    assert kept == {".init_array", ".fini_array"}


def test_initializer_symbols_of_many_objects_take_one_search_of_the_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = graph_of(*([".init_array"] for _ in range(100)))
    graph.strings.add_table(b"\0name\0" * 1000)
    monkeypatch.setattr(StringHeap, "find", None)
    names = {n: initializer_symbol_name("g", n) for n in range(100)}
    add_initializer_symbols(graph, names)
    rows = graph.symbol_table.scope == Scope.SIDE_EFFECTS_ONLY
    assert graph.strings.get_many(graph.symbol_table.name[rows]) == list(names.values())


def test_an_object_may_not_have_the_name_of_an_initializer_symbol() -> None:
    graph = graph_of([".init_array"], [".init_array"])
    names = {n: initializer_symbol_name("g", n) for n in range(2)}
    block = next(iter(graph.blocks))
    graph.add_defined_symbol(block, 0, names[0], scope=Scope.LOCAL)
    graph.add_defined_symbol(block, 0, names[1])
    with pytest.raises(GraphError, match=r"\$\.g\.__inits\.1 exists already"):
        add_initializer_symbols(graph, names)
