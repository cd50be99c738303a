"""The rules of harness mode, on objects that are read, alone and together."""

import itertools
from pathlib import Path

import pytest

from jitlink.errors import DuplicateDefinitionError, JITLinkError
from jitlink.graph import Linkage, LinkGraph, Scope
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.orc.errors import FailedToMaterializeError
from jitlink.orc.harness import AmbiguousReferenceError, HarnessRules, OverrideError
from jitlink.orc.object_batch import ObjectBatch
from jitlink.targets.registry import all_targets
from tests.emulation import Emulator, Program
from tests.mutations import elf_regions, mutants
from tests.orc.jits import CountedJIT, archived, compiled, counted_jit
from tests.toolchain import compile_c

LOCAL = "static int step(int x) { return x + 1; } int twice(int x) { return step(step(x)); }"
OTHER = "static int step(int x) { return x + 2; } int thrice(int x) { return step(x) * 3; }"
GLOBAL = "int step(int x) { return x + 4; }"
MOCK = "int step(int x) { return x * 10; }"
CALLER = "int step(int); int call(int x) { return step(x); }"
PLAIN = ("-O0",)


def read(rules: HarnessRules, *paths: Path) -> LinkGraph:
    builder = InputReader(rules=rules)
    builder.add([open_input(path) for path in paths])
    builder.resolver.finish()
    return builder.target_graph


def scopes(graph: LinkGraph, name: str) -> set[Scope]:
    """Scopes of the definitions of a name."""
    return {symbol.scope for symbol in graph.defined_symbols if symbol.name == name}


def add_harness(jit: CountedJIT, harness: Path, *tests: Path) -> None:
    """Add objects as the command does: the harness first, each object under test by itself."""
    batch = ObjectBatch([open_input(harness)])
    jit.layer.symbol_rules = HarnessRules.of(batch)
    jit.session.run(lambda: jit.layer.define_objects(jit.main, batch))
    for test in tests:
        jit.add_object(test)


def test_what_the_harness_refers_to_becomes_visible() -> None:
    path = compiled(LOCAL, *PLAIN)
    assert scopes(read(HarnessRules([]), path), "step") == {Scope.LOCAL}
    symbol = read(HarnessRules([], ["step"]), path).find_defined_symbol_by_name("step")
    assert symbol is not None
    assert symbol.scope is Scope.DEFAULT
    assert symbol.is_live


def test_what_the_harness_defines_becomes_a_reference() -> None:
    rules = HarnessRules(["step", "twice", "unknown"])
    graph = read(rules, compiled(LOCAL, *PLAIN))
    assert sorted(symbol.name for symbol in graph.external_symbols) == ["step", "twice"]
    assert not {symbol.name for symbol in graph.defined_symbols} & {"step", "twice"}
    assert rules.overridden == {"step", "twice"}


def test_the_harness_itself_is_not_changed() -> None:
    harness = open_input(compiled(MOCK))
    builder = InputReader(rules=HarnessRules.of(ObjectBatch([harness])))
    builder.add([harness, open_input(compiled(GLOBAL))])
    assert builder.resolver.definitions.keys() == {"step"}


@pytest.mark.parametrize("second", [OTHER, GLOBAL, "__attribute__((weak))" + GLOBAL])
def test_a_local_symbol_must_be_the_only_one_of_its_name(second: str) -> None:
    paths = [compiled(LOCAL, *PLAIN), compiled(second, *PLAIN)]
    for order in itertools.permutations(paths):
        with pytest.raises(AmbiguousReferenceError) as caught:
            read(HarnessRules([], ["step"]), *order)
        assert (caught.value.name, caught.value.files) == ("step", tuple(map(str, order)))
        assert all(str(path) in str(caught.value) for path in paths)
        # The harness does not refer to it, or defines it.
        assert scopes(read(HarnessRules([]), *order), "step") >= {Scope.LOCAL}
        assert scopes(read(HarnessRules(["step"], ["step"]), *order), "step") == set()


def test_ambiguity_across_several_additions() -> None:
    rules = HarnessRules([], ["step"])
    first, second = (open_input(compiled(source, *PLAIN)) for source in (LOCAL, OTHER))
    batch = ObjectBatch([first], rules)
    assert "step" in batch.definitions[0]
    # An object that is read again does not count twice.
    batch.take([0])
    batch.take([0])
    with pytest.raises(AmbiguousReferenceError):
        ObjectBatch([second], rules)


def test_global_definitions_under_test_follow_the_usual_rules() -> None:
    weak, strong = compiled("__attribute__((weak))" + GLOBAL), compiled(GLOBAL)
    graph = read(HarnessRules([], ["step"]), weak, strong)
    assert [symbol.linkage for symbol in graph.defined_symbols if symbol.name == "step"] == [
        Linkage.STRONG
    ]
    copy = compiled(GLOBAL + "int more;")
    with pytest.raises(DuplicateDefinitionError):
        read(HarnessRules([], ["step"]), strong, copy)
    assert scopes(read(HarnessRules(["step"]), strong, copy), "step") == set()


def test_local_variables_are_not_overridden() -> None:
    source = "static int state = 1; int next(void) { return state++; }"
    rules = HarnessRules(["state"])
    graph = read(rules, compiled(source, *PLAIN))
    assert graph.find_defined_symbol_by_name("state") is not None
    assert rules.overridden == set()


def test_global_variables_and_commons_are_overridden() -> None:
    path = compiled("int a = 1; int b; int get(void) { return a + b; }", "-fcommon")
    with counted_jit() as jit:
        add_harness(jit, compiled("int a = 10, b = 5;"), path)
        assert jit.lookup("get")() == 15


@pytest.mark.parametrize("flags", [PLAIN, ("-O0", "-ffunction-sections")])
def test_calls_that_do_not_name_a_local_function_are_overridden(flags: tuple[str, ...]) -> None:
    with counted_jit() as jit:
        add_harness(jit, compiled(MOCK), compiled(LOCAL, *flags))
        assert jit.lookup("twice")(3) == 300


def test_objects_of_one_addition_that_are_linked_apart() -> None:
    tests = [compiled(LOCAL, *PLAIN), compiled(OTHER, *PLAIN), compiled(CALLER)]
    with counted_jit() as jit:
        add_harness(jit, compiled(MOCK), *tests)
        assert jit.lookup("thrice")(2) == 60
        assert jit.lookup("twice")(1) == 100
        assert jit.lookup("call")(4) == 40


def test_a_local_function_of_an_archive_member(tmp_path: Path) -> None:
    archive = archived(tmp_path / "lib.a", compiled(LOCAL, *PLAIN), compiled(GLOBAL))
    harness = compiled("int step(int), twice(int); int f(int x) { return twice(x) + step(x); }")
    with counted_jit() as jit:
        add_harness(jit, harness)
        jit.add_archive(archive)
        # The archive's index has the global one only; both are extracted, which is ambiguous.
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("f")
        assert isinstance(caught.value.reason, AmbiguousReferenceError)


def test_weak_definitions_of_archive_members(tmp_path: Path) -> None:
    archive = archived(tmp_path / "lib.a", compiled("__attribute__((weak))" + GLOBAL))
    with counted_jit() as jit:
        add_harness(jit, compiled(CALLER))
        jit.add_archive(archive)
        assert jit.lookup("call")(1) == 5


def test_an_alias_keeps_the_function_that_it_names() -> None:
    source = 'int step(int x) { return x + 1; } int same(int) __attribute__((alias("step")));'
    with counted_jit() as jit:
        add_harness(jit, compiled(MOCK), compiled(source))
        assert jit.lookup("step")(2) == 20
        assert jit.lookup("same")(2) == 3


TINY = """
    .text
    .type tiny, @function
tiny:
    ret
    .size tiny, . - tiny
    .globl user
    .type user, @function
user:
    call tiny
    ret
    .size user, . - user
"""


def test_a_local_function_that_is_too_short() -> None:
    path = compiled(TINY, suffix=".s")
    with pytest.raises(OverrideError) as caught:
        read(HarnessRules(["tiny"]), path)
    assert (caught.value.name, caught.value.file) == ("tiny", str(path))
    assert "it has 1 bytes, a jump takes 5" in str(caught.value)


def test_padding_counts_for_the_size_of_a_jump() -> None:
    padding = "    .p2align 4, 0x90\n"
    source = TINY.replace("    .globl user", padding + "    .globl user")
    with counted_jit() as jit:
        add_harness(jit, compiled("int tiny(void) { return 77; }"), compiled(source, suffix=".s"))
        assert jit.lookup("user")() == 77


def test_neighbours_that_are_both_overridden() -> None:
    source = """
        static int one(void) { return 1; }
        static int two(void) { return 2; }
        int both(void) { return one() * 100 + two(); }
    """
    with counted_jit() as jit:
        mocks = compiled("int one(void) { return 5; } int two(void) { return 6; }")
        add_harness(jit, mocks, compiled(source, *PLAIN))
        assert jit.lookup("both")() == 506


def test_fixups_in_the_replaced_bytes_are_removed() -> None:
    source = """
        .text
        .type local, @function
    local:
        jmp elsewhere
        ret
        .size local, . - local
        .globl user
        .type user, @function
    user:
        call local
        ret
        .size user, . - user
    """
    with counted_jit() as jit:
        # `elsewhere` is undefined, and the jump to it has been replaced.
        add_harness(jit, compiled("int local(void) { return 9; }"), compiled(source, suffix=".s"))
        assert jit.lookup("user")() == 9


def test_nothing_is_left_allocated_after_an_error() -> None:
    with counted_jit() as jit:
        add_harness(jit, compiled(CALLER), compiled(LOCAL, *PLAIN))
        with pytest.raises(AmbiguousReferenceError):
            jit.add_object(compiled(OTHER, *PLAIN))
        assert jit.lookup("call")(1) == 2


@pytest.mark.parametrize("machine", ["aarch64", "aarch64_be", "riscv32", "riscv64"])
def test_jumps_of_other_processors(machine: str) -> None:
    flags = ("-O0", "-ffreestanding", "-fno-stack-protector")
    path = compile_c(LOCAL, "zig", flags, target=f"{machine}-linux-musl")
    builder = InputReader(rules=HarnessRules(["step"]))
    builder.add([open_input(path)])
    builder.resolver.finish()
    graph = builder.target_graph
    with Emulator(machine) as emulator:
        emulator.link_graph(graph, builder.target.configure(graph), {"step": lambda x: x * 10})
        assert Program(emulator, graph, builder.resolver.definitions).call("twice", 3) == 300


def test_every_target_has_a_jump() -> None:
    assert [target.triple for target in all_targets() if target.jump is None] == []


@pytest.mark.parametrize("flags", [("-O0",), ("-O0", "-ffunction-sections")])
def test_damaged_objects_fail_with_a_jitlink_error(flags: tuple[str, ...]) -> None:
    first, second = (compiled(source, *flags).read_bytes() for source in (LOCAL, OTHER))
    failed = 0
    for mutant in mutants(first, elf_regions(first), 400):
        builder = InputReader(rules=HarnessRules(["twice", "step"], ["thrice"], keep_locals=True))
        try:
            builder.add([open_input(mutant, 0), open_input(second, 1)])
            builder.resolver.finish()
        except JITLinkError:
            failed += 1
    assert 0 < failed < 400
