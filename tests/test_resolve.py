"""Static linking rules among the objects of one graph: which definition prevails, and errors."""

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.graph import Linkage, LinkGraph, SymbolFlags
from jitlink.graph.columns import rows_where
from jitlink.graph.tables import EXTERNAL, exported_rows
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.resolve import referrers
from tests.linking import Linked, Linker
from tests.toolchain import compile_c

STRONG = "int value = {0};"
WEAK = "__attribute__((weak)) int value = {0};"
COMMON = "int value;"
USER = "extern int value; int get(void) { return value; }"


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as created:
        yield created


def compile_all(*sources: str, suffix: str = ".c") -> list[Path]:
    return [compile_c(source, flags=["-fcommon", "-fPIC"], suffix=suffix) for source in sources]


def build(*paths: Path) -> InputReader:
    builder = InputReader()
    builder.add([open_input(path) for path in paths])
    return builder


def value_of(linked: Linked) -> int:
    """The value of ``value`` for every object that refers to it."""
    got = linked.function("get", ctypes.c_int)()
    assert linked.integer("value", 4) == got
    return got


# Which definition prevails


@pytest.mark.parametrize(
    ("definitions", "prevailing"),
    [
        ((STRONG, WEAK), 1),
        ((WEAK, STRONG), 2),
        ((WEAK, WEAK), 1),
        ((STRONG, COMMON), 1),
        ((COMMON, STRONG), 2),
        ((COMMON, COMMON), 0),
        ((COMMON, WEAK), 0),
        ((WEAK, COMMON), 0),
        ((WEAK, COMMON, STRONG), 3),
        ((WEAK, COMMON, STRONG, WEAK, COMMON), 3),
        ((COMMON, WEAK, WEAK), 0),
        ((WEAK, WEAK, WEAK, STRONG), 4),
    ],
)
def test_which_definition_prevails(
    linker: Linker, definitions: tuple[str, ...], prevailing: int
) -> None:
    texts = [text.format(number + 1) for number, text in enumerate(definitions)]
    objects = compile_all(*texts)
    (user,) = compile_all(USER)
    for place in range(len(objects) + 1):
        assert value_of(linker.link(*objects[:place], user, *objects[place:])) == prevailing


def test_the_largest_of_common_definitions(linker: Linker) -> None:
    sources = ["char room[3];", "char room[300];", "long long room[4];"]
    for order in itertools.permutations(compile_all(*sources)):
        linked = linker.link(*order)
        symbol = linked.graph.find_defined_symbol_by_name("room")
        assert symbol is not None
        assert (symbol.size, symbol.block.size) == (300, 300)
        assert symbol.block.alignment == 16
        assert linked.read("room", 300) == bytes(300)


def test_references_of_the_overridden_object_bind_to_the_prevailing_definition(
    linker: Linker,
) -> None:
    weak = "__attribute__((weak)) int value(void) { return 1; } int get(void) { return value(); }"
    strong = "int value(void) { return 2; }"
    objects = compile_all(weak, strong)
    for order in (objects, objects[::-1]):
        assert linker.link(*order).function("get", ctypes.c_int)() == 2


def test_an_overridden_definition_is_pruned(linker: Linker) -> None:
    weak = "__attribute__((weak)) int value(void) { return 1; }"
    objects = [
        compile_c(source, flags=["-ffunction-sections"])
        for source in (weak, weak.replace("1", "3"), "int value(void) { return 2; }")
    ]
    names = [block.section.name for block in linker.link(*objects).graph.blocks]
    assert names.count(".text.value") == 1


def test_unique_definitions(linker: Linker) -> None:
    """The first of one COMDAT group prevails; the flag is that of a definition of the process."""
    source = """
        .section .data.value,"awG",@progbits,value,comdat
        .globl value
        .type value, @gnu_unique_object
    value: .long {0}
        .size value, 4
    """
    objects = [compile_c(source.format(n), "gcc", suffix=".s") for n in (1, 2)]
    linked = linker.link(*objects, *compile_all(USER))
    assert value_of(linked) == 1
    symbol = linked.graph.find_defined_symbol_by_name("value")
    assert symbol is not None
    assert symbol.linkage == Linkage.WEAK
    assert symbol.flags & SymbolFlags.UNIQUE


def test_hidden_definitions_are_visible_in_the_whole_graph(linker: Linker) -> None:
    hidden = STRONG.format(9).replace("int", '__attribute__((visibility("hidden"))) int', 1)
    assert value_of(linker.link(*compile_all(hidden, USER))) == 9


def test_local_symbols_are_separate(linker: Linker) -> None:
    sources = [f"static int value = {n}; int {name}(void) {{ return value += 0; }}"
               for n, name in ((1, "a"), (2, "b"))]  # fmt: skip
    linked = linker.link(*compile_all(*sources))
    assert [linked.function(name, ctypes.c_int)() for name in ("a", "b")] == [1, 2]


# Duplicates


@pytest.mark.parametrize("between", [(), (WEAK,), (COMMON,), (WEAK, COMMON)])
def test_two_strong_definitions(between: tuple[str, ...]) -> None:
    texts = (STRONG, *between, STRONG)
    objects = compile_all(*(text.format(n) for n, text in enumerate(texts)))
    with pytest.raises(DuplicateDefinitionError) as caught:
        build(*objects)
    error = caught.value
    assert (error.name, error.first, error.second) == ("value", str(objects[0]), str(objects[-1]))
    assert str(error) == (
        f"duplicate definition of symbol value: in {objects[0]} and in {objects[-1]}"
    )


def test_the_same_object_twice() -> None:
    (path,) = compile_all(STRONG.format(1))
    with pytest.raises(DuplicateDefinitionError) as caught:
        build(path, path)
    assert caught.value.name == "value"


def test_definitions_by_address() -> None:
    builder = build(*compile_all(STRONG.format(1)))
    with pytest.raises(DuplicateDefinitionError) as caught:
        builder.resolver.define("value", 0x1000)
    assert caught.value.name == "value"
    assert caught.value.second == "an absolute definition"
    builder.resolver.define("elsewhere", 0x1000)
    with pytest.raises(DuplicateDefinitionError) as caught:
        builder.resolver.define("elsewhere", 0x2000)
    assert caught.value.name == "elsewhere"


def test_definitions_by_address_of_absolute_symbols() -> None:
    source = ".globl strong\nstrong = 5\n.weak weak\nweak = 6"
    builder = build(compile_c(source, "clang", suffix=".s"))
    with pytest.raises(DuplicateDefinitionError):
        builder.resolver.define("strong", 0x1000)
    builder.resolver.define("weak", 0x2000)
    table, row = builder.resolver.graph.symbol_table, builder.resolver.definitions["weak"]
    assert table.value[row] == 0x2000


def test_a_definition_by_address_overrides_a_weak_one(linker: Linker) -> None:
    builder = build(*compile_all(WEAK.format(1), USER))
    builder.resolver.define("value", 0x1000)
    builder.resolver.finish()
    row = builder.resolver.definitions["value"]
    graph = builder.resolver.graph
    assert graph.symbol_table.value[row] == 0x1000
    targets = {edge.target.address for block in graph.blocks for edge in block.edges
               if edge.target.has_name and edge.target.name == "value"}  # fmt: skip
    assert targets == {0x1000}
    assert linker.used_size == 0


# Aliases


def test_aliases(linker: Linker) -> None:
    builder = build(*compile_all("int value = 4; int twice(int n) { return 2 * n; }"))
    builder.resolver.alias("other", "value")
    builder.resolver.alias("more", "other")
    table, definitions = builder.resolver.graph.symbol_table, builder.resolver.definitions
    places = {
        name: (int(table.block[row]), int(table.value[row])) for name, row in definitions.items()
    }
    assert places["other"] == places["more"] == places["value"]
    assert linker.used_size == 0


def test_aliases_of_undefined_symbols() -> None:
    builder = build(*compile_all(STRONG.format(1)))
    with pytest.raises(UndefinedSymbolError) as caught:
        builder.resolver.alias("other", "missing")
    assert caught.value.names == ("missing",)
    with pytest.raises(DuplicateDefinitionError):
        builder.resolver.alias("value", "value")


# Section groups

GROUP = """
    .section .text.shared, "axG", @progbits, shared, comdat
    .weak shared
    .type shared, @function
shared:
    mov $%d, %%eax
    ret
    .section .data.shared, "awG", @progbits, shared, comdat
    .weak shared_data
shared_data:
    .long %d
    .text
    .globl %s
%s:
    call shared@PLT
    mov shared_data@GOTPCREL(%%rip), %%rdx
    add (%%rdx), %%eax
    ret
"""


def group(number: int, name: str) -> Path:
    source = GROUP % (10 * number, number, name, name)
    return compile_c(source, "clang", suffix=".s")


def test_the_first_group_of_a_signature_is_kept(linker: Linker) -> None:
    objects = [group(number, name) for number, name in ((1, "a"), (2, "b"), (3, "c"))]
    linked = linker.link(*objects)
    assert [linked.function(name, ctypes.c_int)() for name in "abc"] == [11] * 3
    names = [block.section.name for block in linked.graph.blocks]
    assert (names.count(".text.shared"), names.count(".data.shared")) == (1, 1)
    linked = linker.link(*objects[::-1])
    assert [linked.function(name, ctypes.c_int)() for name in "abc"] == [33] * 3


def test_members_that_only_a_later_group_contains(linker: Linker) -> None:
    """References to them are undefined then, which is an error."""
    first = group(1, "a")
    source = GROUP % (20, 2, "b", "b")
    source = source.replace(".weak shared_data\nshared_data:", ".weak more_data\nmore_data:")
    second = compile_c(source.replace("shared_data@", "more_data@"), "clang", suffix=".s")
    builder = build(first, second)
    assert set(builder.resolver.undefined) == {"more_data"}
    linked = linker.link(first, second, externals={"more_data": 0})
    assert linked.graph.find_external_symbol_by_name("more_data") is not None


def test_groups_across_calls(linker: Linker) -> None:
    """Groups are remembered between batches, as of members of different archives."""
    builder = build(group(1, "a"))
    builder.add([open_input(group(2, "b"))])
    builder.resolver.finish()
    rows = builder.resolver.graph.block_rows().tolist()
    graph = builder.resolver.graph
    names = [graph.section_list[graph.block_table.section[row]].name for row in rows]
    assert names.count(".text.shared") == 1
    assert linker.used_size == 0


def test_several_groups_across_calls() -> None:
    """The first of each signature is kept, whatever was read before."""
    builder, seen = InputReader(), ""
    for signatures in ("aab", "bc", "acdd", "d", "dabe"):
        directives = [
            f'.section .text.{each}, "axG", @progbits, {each}, comdat\n.byte {{}}\n'
            for each in signatures
        ]
        objects = [
            compile_c(each.format(number), "clang", suffix=".s")
            for number, each in enumerate(directives, len(seen))
        ]
        builder.add([open_input(each) for each in objects])
        seen += signatures
    graph = builder.target_graph
    kept = [block.content[0] for block in graph.blocks if block.size == 1]
    assert sorted(kept) == [seen.index(each) for each in "abcde"]


def test_a_strong_definition_and_a_group(linker: Linker) -> None:
    strong = ".text\n.globl shared\nshared: mov $500, %eax\nret"
    other = compile_c(strong, "clang", suffix=".s")
    for order in ([group(1, "a"), other], [other, group(1, "a")]):
        assert linker.link(*order).function("a", ctypes.c_int)() == 501


def test_groups_of_compiled_templates(linker: Linker) -> None:
    source = """
        template <class T> struct Count {{ static T next() {{ static T n; return ++n; }} }};
        extern "C" int {0}(void) {{ return Count<int>::next(); }}
    """
    objects = compile_all(*(source.format(name) for name in "ab"), suffix=".cpp")
    linked = linker.link(*objects)
    calls = [linked.function(name, ctypes.c_int)() for name in ("a", "b", "a", "b")]
    assert calls == [1, 2, 3, 4]


# References


def test_undefined_names() -> None:
    user = "extern int a, b, c; extern int w __attribute__((weak)); int *f[] = {&a, &b, &c, &w};"
    builder = build(*compile_all(user, "int b = 2;"))
    assert set(builder.resolver.undefined) == {"a", "c"}
    builder.add([open_input(path) for path in compile_all("int a = 1;", "int w = 3;")])
    assert set(builder.resolver.undefined) == {"c"}
    builder.resolver.define("c", 0x1000)
    assert builder.resolver.undefined == {}
    assert set(builder.resolver.definitions) == {"a", "b", "c", "w", "f"}


def test_names_are_decoded_once() -> None:
    builder = build(*compile_all(USER, STRONG.format(7)))
    resolver, table = builder.resolver, builder.target_graph.symbol_table
    own = {id(name) for name in resolver.definitions}
    resolver.define("added", 1)
    names = resolver.names(exported_rows(table))
    assert names == ["get", "value", "added"]
    assert [id(name) in own for name in names] == [True, True, False]
    assert resolver.names(rows_where(table.kind == EXTERNAL)) == ["value"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_one_strong_reference_makes_a_name_required(order: tuple[int, ...]) -> None:
    weak = "extern int value __attribute__((weak)); int *{0}(void) {{ return &value; }}"
    objects = compile_all(weak.format("a"), USER, weak.format("b"))
    graph = resolved(*(objects[number] for number in order))
    (symbol,) = [s for s in graph.external_symbols if s.name == "value"]
    assert not symbol.is_weakly_referenced
    graph = resolved(objects[0], objects[2])
    (symbol,) = [s for s in graph.external_symbols if s.name == "value"]
    assert symbol.is_weakly_referenced


def resolved(*paths: Path) -> LinkGraph:
    builder = build(*paths)
    builder.resolver.finish()
    return builder.resolver.graph


def test_references_of_all_objects_become_one(linker: Linker) -> None:
    user = "extern int value; int *{0}(void) {{ return &value; }}"
    objects = compile_all(*(user.format(name) for name in "abc"))
    graph = resolved(*objects)
    assert [s.name for s in graph.external_symbols if s.name == "value"] == ["value"]
    linked = linker.link(*objects, externals={"value": 0x1234})
    assert [linked.function(name)() for name in "abc"] == [0x1234] * 3


def test_referrers() -> None:
    objects = compile_all(USER, "int other;", USER.replace("get", "got").replace("value", "more"))
    graph = resolved(*objects, *compile_all(USER.replace("get", "again")))
    names = {symbol.name: symbol.row for symbol in graph.external_symbols}
    found = referrers(graph, names)
    assert found["more"] == [str(objects[2])]
    assert found["value"][0] == str(objects[0])
    assert len(found["value"]) == 2
