"""Static linking rules among objects of a session, linked together and separately."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.inputs import open_input
from jitlink.orc import FailedToMaterializeError, JITDylibLookupFlags
from jitlink.orc.objects import CommonSizeError
from tests.orc.jits import CountedJIT, compiled, counted_jit

FORTY_TWO = "int answer(void) { return 42; }"
CALLER = "int answer(void); int asked(void) { return answer() + 1; }"


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit() as created:
        yield created


@pytest.fixture(params=["together", "separately"])
def rules_jit(request: pytest.FixtureRequest, jit: CountedJIT) -> CountedJIT:
    """A JIT that links objects that are needed together as one graph, or each by itself."""
    jit.layer.batch_objects = request.param == "together"
    return jit


def add(jit: CountedJIT, *objects: Path) -> None:
    jit.layer.add_objects(jit.main, [open_input(file) for file in objects])


WEAK = "__attribute__((weak)) int w(void) { return %d; } int %s(void) { return w(); }"


def test_the_first_weak_definition_prevails(rules_jit: CountedJIT) -> None:
    add(rules_jit, compiled(WEAK % (1, "first")), compiled(WEAK % (2, "second")))
    assert rules_jit.lookup("second")() == 1
    assert rules_jit.lookup("first")() == 1
    assert rules_jit.lookup("w")() == 1


def test_weak_definitions_needed_at_once(rules_jit: CountedJIT) -> None:
    user = "int first(void), second(void); int both(void) { return first() * 10 + second(); }"
    objects = [WEAK % (1, "first"), WEAK % (2, "second"), user]
    for source in objects:
        rules_jit.add_object(compiled(source))
    assert rules_jit.lookup("both")() == 11
    assert rules_jit.lookup("w")() == 1


def test_a_strong_definition_overrides_a_weak_one(rules_jit: CountedJIT) -> None:
    add(
        rules_jit,
        compiled(WEAK % (1, "first")),
        compiled("int w(void) { return 3; } int third(void) { return w(); }"),
    )
    assert rules_jit.lookup("first")() == 3
    assert rules_jit.lookup("third")() == 3


def test_a_weak_definition_prevails_again_once_the_other_is_removed(jit: CountedJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(WEAK % (1, "first")), tracker)
    jit.add_object(compiled(WEAK % (2, "second")))
    jit.remove(tracker)
    assert jit.lookup("second")() == 2
    assert jit.lookup("w")() == 2


COMMON = "int shared_value; int %s(void) { return ++shared_value; }"


def test_commons_are_one_variable(rules_jit: CountedJIT) -> None:
    add(
        rules_jit,
        compiled(COMMON % "first", "-fcommon"),
        compiled(COMMON % "second", "-fcommon"),
    )
    assert [rules_jit.lookup(name)() for name in ("second", "first", "second")] == [1, 2, 3]
    rules_jit.add_object(compiled("int unrelated = 5;"))
    value = ctypes.c_int.from_address(rules_jit.lookup("shared_value"))
    assert value.value == 3


def test_a_definition_overrides_a_common_one(rules_jit: CountedJIT) -> None:
    add(
        rules_jit,
        compiled(COMMON % "first", "-fcommon"),
        compiled("int shared_value = 40; int second(void) { return ++shared_value; }"),
    )
    assert rules_jit.lookup("first")() == 41
    assert rules_jit.lookup("second")() == 42


def test_the_first_common_gets_the_largest_size_of_those_added_before_the_link(
    rules_jit: CountedJIT,
) -> None:
    small = "char area[1]; char *small_area(void) { return area; }"
    large = "char area[100000]; char *large_area(void) { return area; }"
    add(rules_jit, compiled(small, "-fcommon"), compiled(large, "-fcommon"))
    first = rules_jit.lookup("small_area")
    first.restype = ctypes.c_void_p
    second = rules_jit.lookup("large_area")
    second.restype = ctypes.c_void_p
    assert first() == second()
    assert rules_jit.used_size > 100000
    ctypes.memset(second(), 1, 100000)


def test_a_common_that_is_linked_already_cannot_grow(jit: CountedJIT) -> None:
    small = "char area[1]; char *small_area(void) { return area; }"
    large = "char area[100000]; char *large_area(void) { return area; }"
    jit.add_object(compiled(small, "-fcommon"))
    jit.lookup("small_area")
    jit.add_object(compiled(large, "-fcommon"))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("large_area")
    cause = caught.value.__cause__
    assert isinstance(cause, CommonSizeError)
    assert (cause.name, cause.size, cause.linked_size) == ("area", 100000, 1)


INLINE = "inline int twice(int x) {{ return {0} * x; }} int (*{1}())(int) {{ return &twice; }}"


def test_one_of_several_inline_functions_is_used(rules_jit: CountedJIT) -> None:
    # Different bodies, which C++ forbids, show which one is called.
    first = compiled(INLINE.format(2, "first"), suffix=".cpp")
    second = compiled(INLINE.format(3, "second"), suffix=".cpp")
    add(rules_jit, first, second)
    addresses = []
    for name in ("_Z6secondv", "_Z5firstv"):
        function = rules_jit.lookup(name)
        function.restype = ctypes.c_void_p
        addresses.append(function())
    assert len(set(addresses)) == 1
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(addresses[0])(10) == 20


GROUP = """
        .section .text.grouped,"axG",@progbits,grouped,comdat
        .globl grouped
grouped: movl ${0}, %eax
        ret
        .text
        .globl {1}
{1}:    call grouped
        ret
"""


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_strong_symbols_of_equal_groups_do_not_clash(
    rules_jit: CountedJIT, order: tuple[str, str]
) -> None:
    add(rules_jit, *(compiled(GROUP.format(n, name), suffix=".s")
                     for n, name in ((1, "first"), (2, "second"))))  # fmt: skip
    assert [rules_jit.lookup(name)() for name in order] == [1, 1]


def test_groups_of_objects_that_were_added_one_by_one(rules_jit: CountedJIT) -> None:
    for number, name in ((1, "first"), (2, "second")):
        rules_jit.add_object(compiled(GROUP.format(number, name), suffix=".s"))
    assert [rules_jit.lookup(name)() for name in ("second", "first")] == [1, 1]


HIDDEN = '__attribute__((visibility("hidden"))) int secret(void) { return 9; }'
USER = "int secret(void); int tell(void) { return secret(); }"


def test_hidden_symbols_are_visible_within_their_jitdylib_only(rules_jit: CountedJIT) -> None:
    add(rules_jit, compiled(USER), compiled(HIDDEN))
    assert rules_jit.lookup("tell")() == 9
    other = rules_jit.create_jitdylib("other")
    other.add_to_link_order(rules_jit.main)
    rules_jit.add_object(compiled(USER), dylib=other)
    with pytest.raises(FailedToMaterializeError) as caught:
        rules_jit.lookup("tell", dylib=other)
    assert isinstance(caught.value.__cause__, UndefinedSymbolError)
    assert caught.value.__cause__.names == ("secret",)


def test_two_strong_definitions_are_an_error(rules_jit: CountedJIT) -> None:
    with pytest.raises(DuplicateDefinitionError) as caught:
        add(rules_jit, compiled(FORTY_TWO), compiled(FORTY_TWO + "int third;"))
    assert caught.value.name == "answer"
    rules_jit.add_object(compiled(FORTY_TWO))
    with pytest.raises(DuplicateDefinitionError) as again:
        rules_jit.add_object(compiled(FORTY_TWO))
    assert again.value.name == "answer"


@pytest.mark.parametrize("is_first", [False, True])
def test_the_link_order_decides_which_function_is_called(
    jit: CountedJIT, *, is_first: bool
) -> None:
    library = jit.create_jitdylib("library")
    jit.add_object(compiled(FORTY_TWO), dylib=library)
    interposer = jit.create_jitdylib("interposer")
    jit.add_object(compiled("int answer(void) { return 6; }"), dylib=interposer)
    exported = JITDylibLookupFlags.MATCH_EXPORTED_ONLY
    order = [(library, exported), (interposer, exported)]
    jit.main.set_link_order(order[::-1] if is_first else order)
    jit.add_object(compiled(CALLER))
    assert jit.lookup("asked")() == (7 if is_first else 43)
