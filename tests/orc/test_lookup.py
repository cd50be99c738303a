"""Lookups: search orders, generators, results and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.orc import (
    AbsoluteSymbols,
    ExecutionSession,
    ExecutorSymbolDef,
    FailedToMaterializeError,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    SymbolState,
)
from jitlink.orc.errors import JITDylibDefunctError
from jitlink.tasks import Event
from tests.orc.units import (
    EXPORTED,
    HIDDEN,
    SIDE_EFFECTS,
    Generator,
    Pending,
    Unit,
    open_gates,
    settle,
    state_of,
)

ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS
SHOWN = JITDylibLookupFlags.MATCH_EXPORTED_ONLY


@pytest.fixture
def other(session: ExecutionSession) -> JITDylib:
    return session.create_jitdylib("other")


def at(address: int, flags: JITSymbolFlags = EXPORTED) -> ExecutorSymbolDef:
    return ExecutorSymbolDef(address, flags)


def test_addresses_and_flags(session: ExecutionSession, main: JITDylib) -> None:
    flags = EXPORTED | JITSymbolFlags.CALLABLE
    main.define(AbsoluteSymbols({"f": at(16, flags), "g": at(32, HIDDEN)}))
    assert session.lookup(main, ["f", "g"]) == {"f": (16, flags), "g": (32, HIDDEN)}
    assert session.lookup(main, "f", kind=LookupKind.DLSYM) == {"f": (16, flags)}
    assert session.lookup(main, []) == {}


def test_only_what_is_looked_up_is_materialized(session: ExecutionSession, main: JITDylib) -> None:
    wanted, other_unit = Unit("a b"), Unit("c")
    main.define(wanted)
    main.define(other_unit)
    session.lookup(main, "a")
    session.lookup(main, "b")
    assert wanted.materialized == [{"a", "b"}]
    assert other_unit.materialized == []
    assert state_of(main, "c") is SymbolState.NEVER_SEARCHED


def test_the_first_definition_in_the_order_prevails(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    main.define(AbsoluteSymbols({"f": at(1), "only_main": at(2)}))
    other.define(AbsoluteSymbols({"f": at(3), "only_other": at(4)}))
    names = ["f", "only_main", "only_other"]
    found = session.lookup([(main, ALL), (other, ALL)], names)
    assert [found[name].address for name in names] == [1, 2, 4]
    assert session.lookup([(other, ALL), (main, ALL)], "f")["f"].address == 3
    assert state_of(other, "f") is SymbolState.READY


def test_hidden_symbols_do_not_match(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    main.define(AbsoluteSymbols({"f": at(1, HIDDEN)}))
    with pytest.raises(UndefinedSymbolError):
        session.lookup([(main, SHOWN)], "f")
    other.define(AbsoluteSymbols({"f": at(2)}))
    assert session.lookup([(main, SHOWN), (other, SHOWN)], "f")["f"].address == 2
    assert session.lookup([(main, ALL), (other, SHOWN)], "f")["f"].address == 1


def test_all_undefined_names_are_in_the_error(session: ExecutionSession, main: JITDylib) -> None:
    main.define(Unit("here"))
    with pytest.raises(UndefinedSymbolError) as caught:
        session.lookup(main, ["gone", "here", "lost"])
    assert caught.value.names == ("gone", "lost")
    assert str(caught.value) == "undefined symbols: gone, lost"
    # The defined name was not materialized.
    assert state_of(main, "here") is SymbolState.NEVER_SEARCHED


def test_weakly_referenced_names_may_be_undefined(
    session: ExecutionSession, main: JITDylib
) -> None:
    main.define(AbsoluteSymbols({"here": at(1)}))
    assert session.lookup(main, {"here": True, "gone": False}) == {"here": (1, EXPORTED)}
    failing = Unit("bad", error=ValueError("no"))
    main.define(failing)
    with pytest.raises(FailedToMaterializeError):
        session.lookup(main, {"bad": False})


def test_symbols_for_side_effects_satisfy_weak_references_only(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    unit = Unit({"init": SIDE_EFFECTS, "f": EXPORTED})
    del unit.addresses["init"]
    main.define(unit)
    other.define(Unit("init"))
    with pytest.raises(UndefinedSymbolError) as caught:
        session.lookup([(main, ALL), (other, ALL)], ["init"])
    assert caught.value.names == ("init",)
    assert unit.materialized == []
    assert session.lookup(main, {"init": False}) == {}
    assert unit.materialized == [{"init", "f"}]


def test_lookups_of_resolved_symbols_do_not_wait_until_they_are_ready(
    session: ExecutionSession, main: JITDylib
) -> None:
    unit = Unit("f", is_gated=True)
    main.define(unit)
    early = Pending(session, main, "f", required_state=SymbolState.RESOLVED)
    late = Pending(session, main, "f")
    assert [early.result, late.result] == [None, None]
    session.run(unit.begin.open)
    settle(session)
    assert [early.result, late.result] == [{"f": unit.addresses["f"]}, None]
    open_gates(session, unit)
    assert late.result == early.result
    with pytest.raises(ValueError, match="at least RESOLVED"):
        session.lookup(main, "f", required_state=SymbolState.NEVER_SEARCHED)


def test_a_resolved_symbol_that_fails_while_others_are_waited_for(
    session: ExecutionSession, main: JITDylib
) -> None:
    bad, slow = Unit("bad", error=ValueError(), is_gated=True), Unit("slow", is_gated=True)
    main.define(bad)
    main.define(slow)
    both = Pending(session, main, ["bad", "slow"], required_state=SymbolState.RESOLVED)
    open_gates(session, bad)
    assert both.result is None
    open_gates(session, slow)
    assert isinstance(both.error, FailedToMaterializeError)
    assert both.error.symbols == {"main": ("bad",)}
    assert both.error.__cause__ is bad.error


def test_lookups_of_flags_materialize_nothing(session: ExecutionSession, main: JITDylib) -> None:
    unit = Unit({"f": HIDDEN})
    main.define(unit)
    main.add_generator(Generator("g"))
    assert session.lookup_flags(main, {"f": True, "g": True, "h": False}) == {
        "f": HIDDEN, "g": EXPORTED,
    }  # fmt: skip
    assert unit.materialized == []
    with pytest.raises(UndefinedSymbolError):
        session.lookup_flags(main, "h")


# Link orders


def test_link_orders(session: ExecutionSession, main: JITDylib, other: JITDylib) -> None:
    third = session.create_jitdylib("third")
    assert list(main.link_order) == [(main, ALL)]
    main.add_to_link_order(other)
    main.add_to_link_order(other, ALL)
    assert main.link_order == ((main, ALL), (other, SHOWN))
    main.replace_in_link_order(other, third, ALL)
    main.replace_in_link_order(other, third)
    assert main.link_order == ((main, ALL), (third, ALL))
    main.set_link_order([(other, SHOWN), (main, SHOWN)])
    assert main.link_order == ((main, ALL), (other, SHOWN))
    main.set_link_order([(other, SHOWN), (main, SHOWN)], link_against_this=False)
    assert main.link_order == ((other, SHOWN), (main, SHOWN))
    main.remove_from_link_order(main)
    main.remove_from_link_order(main)
    assert list(main.link_order) == [(other, SHOWN)]


def test_units_look_up_in_the_link_order_of_their_jitdylib(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    main.define(Unit("f", needs=["g"]))
    other.define(Unit("g"))
    with pytest.raises(FailedToMaterializeError) as caught:
        session.lookup(main, "f")
    assert isinstance(caught.value.__cause__, UndefinedSymbolError)
    main.clear()
    main.define(Unit("f", needs=["g"]))
    main.add_to_link_order(other)
    assert session.lookup(main, "f").keys() == {"f"}


def test_removed_jitdylibs_are_not_searched(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    main.add_to_link_order(other)
    other.define(Unit("f"))
    session.remove_jitdylib(other)
    assert main.link_order == ((main, ALL),)
    with pytest.raises(JITDylibDefunctError) as caught:
        session.lookup([(main, ALL), (other, ALL)], "f")
    assert caught.value.dylib == "other"
    assert str(caught.value) == "JITDylib other was removed"
    uses: list[Callable[[], None]] = [
        lambda: main.add_to_link_order(other),
        lambda: other.set_link_order([]),
        lambda: other.add_generator(Generator("f")),
    ]
    for use in uses:
        with pytest.raises(JITDylibDefunctError):
            use()


def test_other_sessions_are_not_searched(session: ExecutionSession, main: JITDylib) -> None:
    with ExecutionSession() as foreign:
        dylib = foreign.create_jitdylib("foreign")
        with pytest.raises(ValueError, match="another session"):
            session.lookup([(main, ALL), (dylib, ALL)], "f")
        with pytest.raises(ValueError, match="another session"):
            session.remove_jitdylib(dylib)


# Generators


def test_generators_are_called_in_order_for_undefined_names(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    first, second, third = Generator("a b"), Generator("b c"), Generator("d")
    main.add_generator(first)
    main.add_generator(second)
    other.add_generator(third)
    main.define(Unit("x"))
    found = session.lookup([(main, ALL), (other, ALL)], ["x", "a", "b", "c", "d"])
    assert found.keys() == set("xabcd")
    assert (first.calls, second.calls) == ([["a", "b", "c", "d"]], [["c", "d"]])
    assert third.calls == [["d"]]
    session.lookup(main, ["a", "c"])
    assert len(first.calls) == 1
    main.remove_generator(first)
    with pytest.raises(ValueError, match="not in list"):
        main.remove_generator(first)
    with pytest.raises(UndefinedSymbolError):
        session.lookup(main, "e")
    assert (len(first.calls), len(second.calls)) == (1, 2)


def test_hidden_symbols_are_not_generated_again(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    generator = Generator("f")
    main.define(Unit({"f": HIDDEN}))
    main.add_generator(generator)
    other.add_generator(Generator("f"))
    with pytest.raises(UndefinedSymbolError):
        session.lookup([(main, SHOWN)], "f")
    assert generator.calls == []
    assert session.lookup([(main, SHOWN), (other, SHOWN)], "f").keys() == {"f"}


def test_two_lookups_generate_once(session: ExecutionSession, main: JITDylib) -> None:
    gate = Event()
    generator = Generator("f g", gate.wait)
    main.add_generator(generator)
    lookups = [Pending(session, main, names) for names in ("f", "f", ["f", "g"])]
    assert generator.calls == [["f"]]
    session.run(gate.set)
    settle(session)
    assert all(isinstance(lookup.result, dict) for lookup in lookups)
    assert generator.calls == [["f"], ["g"]]
    assert main.generator_locks == {}


def test_an_error_of_a_generator_fails_its_lookup_only(
    session: ExecutionSession, main: JITDylib
) -> None:
    async def fail() -> None:
        raise SystemExit(3)

    main.add_generator(Generator("f", fail))
    for _ in range(2):
        with pytest.raises(SystemExit):
            session.lookup(main, "f")
    main.define(Unit("g"))
    assert session.lookup(main, "g").keys() == {"g"}
    assert main.generator_locks == {}


def test_the_order_is_searched_again_after_generators(
    session: ExecutionSession, main: JITDylib
) -> None:
    weak = Unit({"w": EXPORTED | JITSymbolFlags.WEAK})
    strong = Unit("w")

    async def override() -> None:
        main.add_unit(strong)

    main.define(weak)
    main.add_generator(Generator("f", override))
    found = session.lookup(main, ["w", "f"])
    assert found["w"].address == strong.addresses["w"]
    assert (weak.materialized, weak.discarded) == ([], ["w"])


def test_generators_whose_lookups_lead_back_to_them(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    """Each of two JITDylibs re-exports the other."""
    forward(session, main, other)
    forward(session, other, main)
    with pytest.raises(UndefinedSymbolError):
        session.lookup(main, "f")
    other.define(Unit("f"))
    assert session.lookup(main, "f").keys() == {"f"}


def test_generators_do_not_wait_for_each_other_forever(
    session: ExecutionSession, main: JITDylib, other: JITDylib
) -> None:
    gate = Event()
    forward(session, main, other, gate)
    forward(session, other, main, gate)
    lookups = [Pending(session, main, "f"), Pending(session, other, "g")]
    session.run(gate.set)
    settle(session)
    assert [type(lookup.result) for lookup in lookups] == [UndefinedSymbolError] * 2
    assert (main.generator_locks, other.generator_locks) == ({}, {})


def forward(
    session: ExecutionSession, dylib: JITDylib, source: JITDylib, gate: Event | None = None
) -> None:
    """Add a generator that defines what a lookup in another JITDylib finds."""

    class Forward:
        async def try_to_generate(
            self,
            kind: LookupKind,  # noqa: ARG002
            dylib: JITDylib,
            flags: JITDylibLookupFlags,  # noqa: ARG002
            names: Mapping[str, bool],
        ) -> None:
            if gate is not None:
                await gate.wait()
            there = await session.lookup_flags_async(source, dict.fromkeys(names, False))
            if there:
                dylib.add_unit(Unit(list(there)))

    dylib.add_generator(Forward())


# Definitions


def test_duplicates_are_refused_and_nothing_is_added(
    session: ExecutionSession, main: JITDylib
) -> None:
    main.define(Unit({"f": EXPORTED, "w": EXPORTED | JITSymbolFlags.WEAK}, name="a.o"))
    again = Unit("x w f y", name="b.o")
    with pytest.raises(DuplicateDefinitionError) as caught:
        main.define(again)
    error = caught.value
    assert (error.name, error.first, error.second) == ("f", "a.o", "b.o")
    assert str(error) == "duplicate definition of symbol f: in a.o and in b.o"
    assert [state_of(main, name) for name in "xy"] == [None, None]
    session.lookup(main, "w")
    with pytest.raises(DuplicateDefinitionError) as caught:
        main.define(Unit("w", name="c.o"))
    assert caught.value.first == "a.o"


@pytest.mark.parametrize("flag", [JITSymbolFlags.WEAK, JITSymbolFlags.COMMON])
def test_strong_definitions_override_weak_ones_that_are_not_materialized(
    session: ExecutionSession, main: JITDylib, flag: JITSymbolFlags
) -> None:
    weak = Unit({"a": EXPORTED | flag, "b": EXPORTED | flag, "c": EXPORTED})
    strong = Unit("a b")
    main.define(weak)
    main.define(strong)
    assert sorted(weak.discarded) == ["a", "b"]
    found = session.lookup(main, ["a", "b", "c"])
    assert found["a"].address == strong.addresses["a"]
    assert weak.materialized == [{"c"}]


def test_earlier_definitions_override_weak_ones(session: ExecutionSession, main: JITDylib) -> None:
    first, second = (Unit({"a": EXPORTED | JITSymbolFlags.COMMON}) for _ in range(2))
    third = Unit({"a": EXPORTED | JITSymbolFlags.WEAK, "b": EXPORTED})
    for unit in (first, second, third):
        main.define(unit)
    assert (second.discarded, third.discarded) == (["a"], ["a"])
    found = session.lookup(main, ["a", "b"])
    assert found["a"].address == first.addresses["a"]
    assert third.materialized == [{"b"}]


def test_an_error_of_discard_is_raised_after_the_definition(
    session: ExecutionSession, main: JITDylib
) -> None:
    class Stubborn(Unit):
        def discard(self, dylib: JITDylib, name: str) -> None:  # noqa: ARG002
            raise RuntimeError("never")

    main.define(Stubborn({"f": EXPORTED | JITSymbolFlags.WEAK}))
    strong = Unit("f")
    with pytest.raises(RuntimeError, match="never"):
        main.define(strong)
    assert session.lookup(main, "f")["f"].address == strong.addresses["f"]
