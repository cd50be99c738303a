"""Transformed objects: lazy functions, and symbols that are not exported."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.inputs import open_input
from jitlink.lljit import LLJIT
from jitlink.orc import (
    IndirectStubsManager,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    StaticLibraryGenerator,
)
from jitlink.orc.harness import HarnessRules
from jitlink.orc.interface import SymbolState
from jitlink.orc.lazy import BODY_SUFFIX, LazyHiddenObjectLayer, SymbolTransform
from jitlink.orc.object_batch import ObjectBatch
from tests.orc.jits import archived, compiled
from tests.orc.sessions import StubSession, stub_session

FUNCTIONS = """
int calls;
static int next(int x) { return x + 1; }
int twice(int x) { calls++; return 2 * x; }
int thrice(int x) { return twice(x) + x + next(0) - 1; }
"""
CALLER = "int twice(int); int call(int x) { return twice(x); }"
READER = "extern int calls; int read_calls(void) { return calls; }"
EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY
LAZY, HIDDEN, BOTH = (
    SymbolTransform(is_lazy=True),
    SymbolTransform(is_hidden=True),
    SymbolTransform(True, True),
)


@pytest.fixture
def session() -> Iterator[StubSession]:
    with stub_session() as created:
        yield created


def add(
    session: StubSession, transform: SymbolTransform, *sources: str, dylib: JITDylib | None = None
) -> None:
    layer = LazyHiddenObjectLayer(session.layer, transform, session.stubs)
    files = [open_input(compiled(source)) for source in sources]
    layer.add_objects(dylib or session.main, files)


def state(session: StubSession, name: str) -> SymbolState:
    return session.session.run(lambda: session.main.symbols[name].state)


def call(session: StubSession, name: str, *arguments: int) -> int:
    result = session.function(name, ctypes.c_int, *[ctypes.c_int] * len(arguments))(*arguments)
    assert isinstance(result, int)
    return result


def test_lazy_objects_are_linked_by_the_first_call(session: StubSession) -> None:
    add(session, LAZY, FUNCTIONS)
    session.add(session.main, CALLER)
    session.address("call")
    assert state(session, "twice") == SymbolState.READY
    assert state(session, "twice" + BODY_SUFFIX) == SymbolState.NEVER_SEARCHED
    assert state(session, "calls") == SymbolState.NEVER_SEARCHED
    assert call(session, "call", 21) == 42
    assert state(session, "twice" + BODY_SUFFIX) == SymbolState.READY
    assert session.counter.count("calls", "main") == 1
    # Within the object, functions call each other directly.
    assert call(session, "thrice", 5) == 15
    session.add(session.main, READER)
    assert call(session, "read_calls") == 2


def test_data_is_not_lazy(session: StubSession) -> None:
    add(session, LAZY, FUNCTIONS)
    session.add(session.main, READER)
    session.address("read_calls")
    assert state(session, "twice" + BODY_SUFFIX) == SymbolState.READY


def test_each_lazy_object_is_linked_by_its_own_call(session: StubSession) -> None:
    middle = "int last(int); int middle(int x) { return x < 0 ? last(x) : x; }"
    add(session, LAZY, middle, "int last(int x) { return -x; }")
    assert call(session, "middle", 3) == 3
    assert state(session, "last" + BODY_SUFFIX) == SymbolState.NEVER_SEARCHED
    assert call(session, "middle", -3) == 3
    assert state(session, "last" + BODY_SUFFIX) == SymbolState.READY


def test_strong_functions_override_weak_ones(session: StubSession) -> None:
    weak = "__attribute__((weak)) int pick(void) { return 1; } int own(void) { return 7; }"
    add(session, LAZY, weak)
    session.add(session.main, "int pick(void) { return 2; }")
    assert call(session, "pick") == 2
    assert call(session, "own") == 7


def test_weak_data_is_shared_with_objects_that_are_not_lazy(session: StubSession) -> None:
    common = "int shared; int {}(int x) {{ return shared += x; }}"
    flags = ("-fcommon",)
    session.add(session.main, common.format("eager"), *flags)
    file = open_input(compiled(common.format("lazy"), *flags))
    LazyHiddenObjectLayer(session.layer, LAZY, session.stubs).add_objects(session.main, [file])
    assert call(session, "eager", 1) == 1
    assert call(session, "lazy", 2) == 3
    assert call(session, "eager", 4) == 7


def test_second_definition_names_both_files(session: StubSession) -> None:
    add(session, LAZY, FUNCTIONS)
    for transform in (LAZY, HIDDEN):
        with pytest.raises(DuplicateDefinitionError, match=r"symbol twice: in .*o and in .*o$"):
            add(
                session,
                transform,
                "int first(void) { return 1; }",
                "int twice(int x) { return x; }",
            )
        # All or none.
        with pytest.raises(UndefinedSymbolError):
            session.address("first")


def test_lazy_members_of_archives(session: StubSession, tmp_path: Path) -> None:
    unneeded = compiled("int lacking(void); int unneeded(void) { return lacking(); }")
    place = archived(tmp_path / "lib.a", compiled(FUNCTIONS), unneeded)
    layer = LazyHiddenObjectLayer(session.layer, LAZY, session.stubs)
    session.main.add_generator(StaticLibraryGenerator(layer, place))
    session.add(session.main, CALLER)
    session.address("call")
    assert "unneeded" not in session.session.run(lambda: dict(session.main.symbols))
    assert session.counter.count("calls", "main") == 0
    assert call(session, "call", 4) == 8


@pytest.mark.parametrize("transform", [HIDDEN, BOTH])
def test_hidden_objects_are_visible_in_their_own_jitdylib_only(
    session: StubSession, transform: SymbolTransform
) -> None:
    add(session, transform, FUNCTIONS)
    session.add(session.main, CALLER)
    order = [(session.main, EXPORTED)]
    # Before and after they are linked.
    for _ in range(2):
        with pytest.raises(UndefinedSymbolError):
            session.session.lookup(order, "twice")
        assert call(session, "call", 3) == 6
    assert session.session.lookup(order, "call")


def test_hidden_objects_are_linked_together(session: StubSession) -> None:
    add(session, HIDDEN, CALLER, FUNCTIONS)
    assert call(session, "call", 3) == 6
    assert len(session.counter.links) == 1
    assert session.counter.links[0][1] >= {"call", "twice"}


@pytest.mark.parametrize("transform", [LAZY, HIDDEN, BOTH])
def test_objects_with_initialisers_are_linked_for_them(transform: SymbolTransform) -> None:
    source = """
    static volatile int state;  // Which compilers cannot initialise themselves.
    __attribute__((constructor)) static void begin(void) { state = 5; }
    int current(void) { return state; }
    """
    with LLJIT() as jit:
        stubs = IndirectStubsManager(jit.layer) if transform.is_lazy else None
        layer = LazyHiddenObjectLayer(jit.layer, transform, stubs)
        layer.add_objects(jit.main, [open_input(compiled(source)), open_input(compiled(FUNCTIONS))])
        jit.initialize()
        definitions = jit.session.run(lambda: dict(jit.main.symbols))
        assert definitions["current"].state == SymbolState.READY
        # Only those are.
        assert definitions["twice"].state == SymbolState.NEVER_SEARCHED
        assert ("current" + BODY_SUFFIX in definitions, "twice" + BODY_SUFFIX in definitions) == (
            False, transform.is_lazy,
        )  # fmt: skip
        assert bool(definitions["current"].flags["current"] & JITSymbolFlags.EXPORTED) is not (
            transform.is_hidden
        )
        assert jit.lookup("current")() == 5


def test_symbol_rules_are_applied_with_all_transforms(session: StubSession) -> None:
    mock = ObjectBatch([open_input(compiled("int twice(int x) { return 100 * x; }"))])
    session.layer.symbol_rules = HarnessRules.of(mock)
    session.session.run(lambda: session.layer.define_objects(session.main, mock))
    twice = "__attribute__((noinline)) int twice(int x) { return 2 * x; }"
    add(session, LAZY, f"{twice} int thrice(int x) {{ return twice(x) + x; }}")
    assert call(session, "twice", 3) == 300
    assert call(session, "thrice", 3) == 303


def test_removed_lazy_objects_free_everything(session: StubSession) -> None:
    tracker = session.main.create_resource_tracker()
    layer = LazyHiddenObjectLayer(session.layer, LAZY, session.stubs)
    layer.add_objects(session.main, [open_input(compiled(FUNCTIONS))], tracker)
    before = session.used_size
    assert call(session, "twice", 3) == 6
    assert session.used_size > before
    tracker.remove()
    assert session.used_size == before
    with pytest.raises(UndefinedSymbolError):
        session.address("twice")


def test_lazy_objects_require_stubs(session: StubSession) -> None:
    with pytest.raises(ValueError, match="lazy objects require stubs"):
        LazyHiddenObjectLayer(session.layer, LAZY)
