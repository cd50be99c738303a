"""Linker sets across the objects of a JITDylib: linked together, whichever is looked up first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from jitlink.errors import UndefinedSymbolError
from jitlink.inputs import open_input
from jitlink.lljit import LLJIT
from jitlink.orc import (
    DynamicLibraryGenerator,
    FailedToMaterializeError,
    IndirectStubsManager,
    Plugin,
    StaticLibraryGenerator,
)
from jitlink.orc.lazy import LazyHiddenObjectLayer, SymbolTransform
from tests.orc.jits import archived, compiled, shared_library

BOUNDS = "extern int __start_set[], __stop_set[];"
SUM = f"""
{BOUNDS}
int sum(void) {{
    int result = 0;
    for (int *each = __start_set; each < __stop_set; ++each)
        result = 10 * result + *each;
    return result;
}}
int count(void) {{ return __stop_set - __start_set; }}
"""


def element(number: int, more: str = "") -> str:
    """An object with one element, which nothing refers to."""
    return f'static int one __attribute__((section("set"), used)) = {number}; {more}'


def constant(number: int) -> str:
    return f'static const int one __attribute__((section("set"), used)) = {number};'


@pytest.fixture(params=["batches", "single", "plugin", "no platform"])
def jit(request: pytest.FixtureRequest) -> Iterator[LLJIT]:
    with LLJIT(platform=request.param != "no platform") as created:
        created.layer.batch_objects = request.param != "single"
        if request.param == "plugin":
            # It might change which symbols graphs define.
            created.layer.add_plugin(Plugin())
        yield created


def add(jit: LLJIT, *sources: str) -> None:
    for source in sources:
        jit.add_object(compiled(source))


def call(jit: LLJIT, name: str = "sum") -> int:
    return int(jit.lookup(name)())


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_elements_that_only_the_set_leads_to(jit: LLJIT, order: Sequence[int]) -> None:
    sources = [element(1), constant(2), element(3), SUM]
    add(jit, *[sources[each] for each in order])
    expected = int("".join(str(each + 1) for each in order if each < 3))
    assert call(jit) == expected
    assert call(jit, "count") == 3


def test_an_element_is_linked_first(jit: LLJIT) -> None:
    add(jit, element(1, "int one(void) { return 1; }".replace("one", "first")), element(2), SUM)
    assert call(jit, "first") == 1
    assert call(jit) == 12


def test_what_is_linked_later_finds_the_set(jit: LLJIT) -> None:
    add(jit, element(1, "int first(void) { return 1; }"), element(2))
    assert call(jit, "first") == 1
    add(jit, SUM)
    assert call(jit) == 12


def test_the_bounds_can_be_looked_up(jit: LLJIT) -> None:
    add(jit, element(1), element(2))
    assert jit.lookup("__stop_set") - jit.lookup("__start_set") == 8


def test_elements_that_are_added_later_are_a_set_of_their_own(jit: LLJIT) -> None:
    add(jit, element(1), SUM)
    assert call(jit) == 1
    for number in (2, 3):
        kernel = SUM.replace("sum", f"sum{number}").replace("count", f"count{number}")
        add(jit, element(number) + kernel)
        assert call(jit, f"sum{number}") == number
    # Without elements of its own, an object finds those of the first link.
    add(jit, SUM.replace("sum", "again").replace("count", "count_again"))
    assert call(jit, "again") == call(jit) == 1


def test_no_element(jit: LLJIT) -> None:
    add(jit, SUM)
    with pytest.raises(FailedToMaterializeError) as caught:
        call(jit)
    assert isinstance(caught.value.reason, UndefinedSymbolError)
    assert set(caught.value.reason.names) == {"__start_set", "__stop_set"}


def test_weak_references_without_elements(jit: LLJIT) -> None:
    weak = BOUNDS.replace("[]", "[] __attribute__((weak))")
    add(jit, SUM.replace(BOUNDS, weak))
    assert (call(jit), call(jit, "count")) == (0, 0)


def test_a_definition_of_the_program_prevails(jit: LLJIT) -> None:
    add(jit, element(1), SUM, "int __start_set[2] = {7, 8};")
    jit.define({"__stop_set": jit.lookup("__start_set") + 8}, raw=True)
    assert call(jit) == 78


# Archives


def test_members_count_when_they_are_extracted(jit: LLJIT, tmp_path: Path) -> None:
    members = [
        compiled(element(2, "int two(void) { return 2; }")),
        compiled(element(3, "int three(void) { return 3; }")),
        compiled(element(4, "int two(void); int four(void) { return two() + 2; }")),
    ]
    jit.add_archive(archived(tmp_path / "lib.a", *members))
    add(jit, element(1), SUM + "int four(void); int main(void) { return four() + sum(); }")
    # four() is needed, and two() for it.
    assert call(jit, "main") == 4 + 142


def test_the_user_of_a_set_is_in_an_archive(jit: LLJIT, tmp_path: Path) -> None:
    """As in profiles: instrumented objects refer to the runtime, and it to their sections."""
    jit.add_archive(archived(tmp_path / "lib.a", compiled(SUM)))
    add(jit, element(1, "int sum(void); int first(void) { return sum(); }"), element(2))
    assert call(jit, "first") == 12


def test_elements_are_in_an_archive_alone(jit: LLJIT, tmp_path: Path) -> None:
    member = compiled(element(5, "int five(void) { return 5; }"))
    jit.add_archive(archived(tmp_path / "lib.a", member))
    add(jit, SUM + "int five(void); int main(void) { return five() + 10 * sum(); }")
    assert call(jit, "main") == 55


def test_a_set_extracts_nothing(jit: LLJIT, tmp_path: Path) -> None:
    jit.add_archive(archived(tmp_path / "lib.a", compiled(element(2, "int two;"))))
    add(jit, element(1), SUM)
    assert call(jit) == 1


@pytest.mark.parametrize("bound", ["__start_set", "_end"])
def test_a_member_that_a_companion_needs_overrides_what_is_looked_up(
    jit: LLJIT, tmp_path: Path, bound: str
) -> None:
    member = compiled("int needed(void) { return 1; } int value(void) { return 2; }")
    jit.add_archive(archived(tmp_path / "lib.a", member))
    weak = f"__attribute__((weak)) int value(void) {{ return {bound}[0]; }}"
    add(jit, f"extern int {bound}[]; {weak}")
    add(jit, element(1, "int needed(void); int user(void) { return needed(); }"))
    assert call(jit, "value") == 2


def test_all_members(jit: LLJIT, tmp_path: Path) -> None:
    archive = archived(tmp_path / "lib.a", compiled(element(2)), compiled(element(3)))
    add(jit, element(1), SUM)
    jit.add_archive(archive, force_load=True)
    assert call(jit) == 123


# Trackers, JITDylibs and removal


def test_each_tracker_has_its_own_set(jit: LLJIT) -> None:
    first, second = jit.create_resource_tracker(), jit.create_resource_tracker()
    for tracker, numbers in ((first, (1, 2)), (second, (3, 4))):
        for number in numbers:
            jit.add_object(compiled(element(number)), tracker)
    jit.add_object(compiled(SUM.replace("sum", "sum2").replace("count", "count2")), second)
    add(jit, SUM)
    assert call(jit) == 12
    assert call(jit, "sum2") == 34
    jit.remove(first)
    add(jit, SUM.replace("sum", "sum3").replace("count", "count3"))
    # The set of the first tracker went with it.
    assert call(jit, "sum2") == 34


def test_two_trackers_that_need_each_other(jit: LLJIT) -> None:
    tracker = jit.create_resource_tracker()
    user = "int helper(void); int use(void) { return helper(); }"
    jit.add_object(compiled(element(1, user)), tracker)
    add(
        jit,
        SUM + "int use(void); int helper(void) { return 8; }"
        "int main(void) { return use() + sum(); }",
    )
    assert call(jit, "main") == 9


def test_a_removed_element_is_not_linked(jit: LLJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(element(1)), tracker)
    add(jit, element(2), SUM)
    jit.remove(tracker)
    assert call(jit) == 2


def test_a_set_is_linked_again_after_removal(jit: LLJIT) -> None:
    for round_ in range(3):
        tracker = jit.create_resource_tracker()
        for source in (element(round_), element(round_ + 1), SUM):
            jit.add_object(compiled(source), tracker)
        assert call(jit) == 10 * round_ + round_ + 1
        jit.remove(tracker)


def test_jitdylibs_have_sets_of_their_own(jit: LLJIT) -> None:
    other = jit.create_jitdylib("other")
    jit.main.add_to_link_order(other)
    jit.add_object(compiled(element(1)), dylib=other)
    add(jit, element(2), SUM)
    assert call(jit) == 2


# Failures


def test_elements_of_a_set_that_is_used_fail_together(jit: LLJIT) -> None:
    add(jit, element(1), element(2, "extern int absent; int *bad = &absent;"), SUM)
    with pytest.raises(FailedToMaterializeError) as caught:
        call(jit)
    assert isinstance(caught.value.reason, UndefinedSymbolError)
    assert caught.value.reason.names == ("absent",)


def test_others_do_not_fail_with_them(jit: LLJIT) -> None:
    add(jit, element(1, "int first(void) { return 1; }"))
    add(jit, element(2, "extern int absent; int *bad = &absent;"))
    assert call(jit, "first") == 1


# Other layers


@pytest.mark.parametrize("transform", [SymbolTransform(True, False), SymbolTransform(False, True)])
def test_hidden_and_lazy_elements(jit: LLJIT, transform: SymbolTransform) -> None:
    layer = LazyHiddenObjectLayer(jit.layer, transform, IndirectStubsManager(jit.layer))
    add(jit, element(1), SUM)
    lazy = "int second(void) { return 2; }"
    files = [open_input(compiled(each)) for each in (element(2, lazy), element(3))]
    layer.add_objects(jit.main, files)
    add(jit, element(4))
    assert call(jit) == 1234
    assert call(jit, "second") == 2


def test_a_call_of_a_lazy_function_links_its_set(jit: LLJIT) -> None:
    layer = LazyHiddenObjectLayer(
        jit.layer, SymbolTransform(is_lazy=True), IndirectStubsManager(jit.layer)
    )
    files = [open_input(compiled(each)) for each in (element(1), element(2) + SUM)]
    layer.add_objects(jit.main, files)
    add(jit, "int sum(void); int main(void) { return sum(); }")
    assert call(jit, "main") == 12


def test_lazy_archives(jit: LLJIT, tmp_path: Path) -> None:
    layer = LazyHiddenObjectLayer(
        jit.layer, SymbolTransform(is_lazy=True), IndirectStubsManager(jit.layer)
    )
    member = compiled(element(2, "int two(void) { return 2; }"))
    archive = archived(tmp_path / "lib.a", member)
    jit.main.add_generator(StaticLibraryGenerator(layer, archive))
    add(jit, element(1), SUM + "int two(void); int main(void) { return two() + sum(); }")
    assert call(jit, "main") == 14


# Images

IMAGE = """
extern char __data_start[], _end[], end[];
int size(void) { return end == _end ? _end - __data_start : -1; }
"""
EXPORTED_DATA = "int exported[100] = {1};"


def test_an_image_is_all_objects_of_a_tracker(jit: LLJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(EXPORTED_DATA.replace("exported", "other")), tracker)
    add(jit, EXPORTED_DATA, IMAGE)
    assert call(jit, "size") == 400
    jit.add_object(compiled(IMAGE.replace("size", "other_size")), tracker)
    assert call(jit, "other_size") == 400
    # What is added later is another image.
    add(jit, IMAGE.replace("size", "later"))
    assert call(jit, "later") == 0


def test_an_image_needs_all_of_its_objects(jit: LLJIT) -> None:
    add(jit, IMAGE, "extern int absent; int *bad = &absent;")
    with pytest.raises(FailedToMaterializeError) as caught:
        call(jit, "size")
    assert isinstance(caught.value.reason, UndefinedSymbolError)


def test_definitions_of_the_session_prevail(jit: LLJIT) -> None:
    jit.define({"end": 0x1230, "_end": 0x1230, "__data_start": 0x1000}, raw=True)
    add(jit, IMAGE)
    assert call(jit, "size") == 0x230


def test_a_shared_library_may_have_a_function_of_such_a_name(jit: LLJIT, tmp_path: Path) -> None:
    library = shared_library(tmp_path / "lib.so", "int end(void) { return 5; }")
    generator = DynamicLibraryGenerator.load(jit.session, library)
    dylib = jit.create_jitdylib("library", process_symbols=False)
    dylib.add_generator(generator)
    assert jit.lookup("end", dylib=dylib)() == 5


def test_thread_local_sections_are_no_sets(jit: LLJIT) -> None:
    add(
        jit,
        '_Thread_local int variable __attribute__((section("tls_set"))) = 3;'
        "int read(void) { return variable; }",
    )
    assert call(jit, "read") == 3
