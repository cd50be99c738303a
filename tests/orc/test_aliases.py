"""Aliases and re-exports."""

import re
from collections.abc import Iterator

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.orc import (
    AliasCycleError,
    FailedToMaterializeError,
    JITDylibLookupFlags,
    JITSymbolFlags,
    ReExports,
    ReExportsGenerator,
)
from tests.orc.jits import CountedJIT, causes, compiled, counted_jit

EXPORTED, CALLABLE = JITSymbolFlags.EXPORTED, JITSymbolFlags.CALLABLE
TWO = "int one(void) { return 1; } int two(void) { return 2; }"


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit(process_symbols=False) as created:
        yield created


def cause_of(jit: CountedJIT, name: str) -> BaseException:
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup(name)
    return causes(caught.value)[-1]


def test_an_alias_in_one_jitdylib(jit: CountedJIT) -> None:
    jit.main.define(ReExports({"uno": ("one", EXPORTED | CALLABLE)}))
    jit.add_object(compiled(TWO))
    assert jit.lookup("uno") == jit.lookup("one")
    assert jit.session.lookup(jit.main, "uno")["uno"].flags == EXPORTED | CALLABLE


def test_objects_use_aliases(jit: CountedJIT) -> None:
    jit.add_object(compiled("int uno(void); int f(void) { return uno() + 10; }"))
    jit.main.define(ReExports({"uno": "one"}))
    jit.add_object(compiled(TWO))
    assert jit.lookup("f")() == 11


def test_re_exports_of_another_jitdylib(jit: CountedJIT) -> None:
    library = jit.create_jitdylib("library")
    jit.add_object(compiled(TWO), dylib=library)
    jit.main.define(ReExports({"one": "one", "second": "two"}, library))
    assert jit.lookup("one")() == 1
    assert jit.lookup("second") == jit.lookup("two", dylib=library)


def test_only_what_is_looked_up_is_linked(jit: CountedJIT) -> None:
    jit.add_object(compiled(TWO))
    jit.add_object(compiled("int gone(void); int three(void) { return gone(); }"))
    jit.main.define(ReExports({"uno": "one", "tres": "three"}))
    assert jit.lookup("uno")() == 1
    assert isinstance(cause_of(jit, "tres"), UndefinedSymbolError)
    assert jit.lookup("uno")() == 1


def test_chains_of_aliases(jit: CountedJIT) -> None:
    jit.add_object(compiled(TWO))
    jit.main.define(ReExports({"a": "b", "b": "c"}))
    jit.main.define(ReExports({"c": "two"}))
    assert jit.lookup("a")() == 2
    found = jit.session.lookup(jit.main, ["a", "b", "c", "two"])
    assert len({symbol.address for symbol in found.values()}) == 1


def test_a_chain_that_is_materialized_at_once(jit: CountedJIT) -> None:
    jit.add_object(compiled(TWO))
    jit.main.define(ReExports({"a": "b", "b": "two"}))
    found = jit.session.lookup(jit.main, ["a", "b"])
    assert found["a"].address == found["b"].address == jit.lookup("two")


@pytest.mark.parametrize("names", ["aa", "ab", "abc"])
@pytest.mark.parametrize("is_one_unit", [False, True])
def test_cycles_of_aliases(jit: CountedJIT, names: str, *, is_one_unit: bool) -> None:
    cycle = dict(zip(names, names[1:] + names[0], strict=True))
    units = [cycle] if is_one_unit else [{alias: name} for alias, name in cycle.items()]
    for unit in units:
        jit.main.define(ReExports(dict(unit)))
    error = cause_of(jit, names[0])
    assert isinstance(error, AliasCycleError)
    assert set(error.names) == set(names)


def test_a_cycle_that_is_looked_up_at_once(jit: CountedJIT) -> None:
    jit.main.define(ReExports({"a": "b", "b": "a"}))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.session.lookup(jit.main, ["a", "b"])
    cause = causes(caught.value)[-1]
    assert isinstance(cause, AliasCycleError)
    assert str(cause) in {"aliases in a cycle: a -> b -> a", "aliases in a cycle: b -> a -> b"}


def test_an_alias_of_an_undefined_symbol(jit: CountedJIT) -> None:
    jit.main.define(ReExports({"a": "nothing"}))
    error = cause_of(jit, "a")
    assert isinstance(error, UndefinedSymbolError)
    assert error.names == ("nothing",)


def test_an_alias_fails_with_its_target(jit: CountedJIT) -> None:
    jit.main.define(ReExports({"a": "f"}))
    jit.add_object(compiled("int gone(void); int f(void) { return gone(); }"))
    error = cause_of(jit, "a")
    assert isinstance(error, UndefinedSymbolError)
    assert error.names == ("gone",)


def test_an_alias_does_not_override_a_definition(jit: CountedJIT) -> None:
    jit.add_object(compiled(TWO))
    with pytest.raises(DuplicateDefinitionError) as caught:
        jit.main.define(ReExports({"one": "two"}))
    assert caught.value.name == "one"
    jit.main.define(ReExports({"one": ("two", EXPORTED | JITSymbolFlags.WEAK)}))
    assert jit.lookup("one")() == 1


@pytest.mark.parametrize(
    "allow", ["o", re.compile("o.e"), lambda name: name == "one", None],
    ids=["prefix", "pattern", "function", "all"],
)  # fmt: skip
def test_a_generator_re_exports_what_is_looked_up(jit: CountedJIT, allow: str | None) -> None:
    library = jit.create_jitdylib("library")
    jit.add_object(compiled(TWO), dylib=library)
    jit.main.add_generator(ReExportsGenerator(library, allow))
    assert jit.lookup("one")() == 1
    assert jit.session.lookup(jit.main, "one")["one"].flags == EXPORTED | CALLABLE
    if allow is None:
        assert jit.lookup("two")() == 2
    else:
        with pytest.raises(UndefinedSymbolError):
            jit.lookup("two")


@pytest.mark.parametrize("everything", [False, True])
def test_hidden_symbols_are_re_exported_on_request(jit: CountedJIT, *, everything: bool) -> None:
    library = jit.create_jitdylib("library")
    hidden = '__attribute__((visibility("hidden"))) int secret(void) { return 9; }'
    jit.add_object(compiled(hidden), dylib=library)
    if everything:
        flags = JITDylibLookupFlags.MATCH_ALL_SYMBOLS
        jit.main.add_generator(ReExportsGenerator(library, None, flags))
        assert jit.lookup("secret")() == 9
    else:
        jit.main.add_generator(ReExportsGenerator(library))
        with pytest.raises(UndefinedSymbolError):
            jit.lookup("secret")


def test_a_generator_calls_the_other_jitdylibs_generators() -> None:
    with counted_jit() as jit:
        assert jit.process_symbols is not None
        alone = jit.session.create_jitdylib("alone")
        alone.add_generator(ReExportsGenerator(jit.process_symbols, "getp"))
        assert jit.lookup("getpid", dylib=alone) == jit.lookup("getpid", dylib=jit.process_symbols)
        with pytest.raises(UndefinedSymbolError):
            jit.lookup("malloc", dylib=alone)
