"""Materialization: responsibilities, their operations, and the scope of failures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import suppress

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.orc import (
    ExecutionSession,
    FailedToMaterializeError,
    JITDylib,
    JITSymbolFlags,
    MaterializationResponsibility,
    MissingDefinitionsError,
    ResourceTracker,
    SessionError,
    SymbolDependenceGroup,
    SymbolState,
    UnexpectedDefinitionError,
)
from jitlink.orc.errors import UnsatisfiedDependenciesError
from tests.orc.units import (
    EXPORTED,
    SIDE_EFFECTS,
    WEAK,
    Pending,
    Together,
    Unit,
    open_gates,
    settle,
    state_of,
    time_limit,
)

READY = SymbolState.READY


class Scripted(Unit):
    """Materializes with a function of the test."""

    script: Callable[[MaterializationResponsibility], None]

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        self.script(responsibility)


def scripted(
    symbols: str | Mapping[str, JITSymbolFlags],
    script: Callable[[MaterializationResponsibility], None],
) -> Scripted:
    unit = Scripted(symbols, name="scripted")
    unit.script = script
    return unit


def cause_of(session: ExecutionSession, dylib: JITDylib, name: str) -> BaseException | None:
    with pytest.raises(FailedToMaterializeError) as caught:
        session.lookup(dylib, name)
    return caught.value.__cause__


# Failures


def test_a_failure_names_symbols_and_cause_every_time(
    session: ExecutionSession, main: JITDylib
) -> None:
    error = ValueError("intended")
    main.define(Unit("b a", error=error))
    for _ in range(2):
        with pytest.raises(FailedToMaterializeError) as caught:
            session.lookup(main, "a")
        assert caught.value.symbols == {"main": ("a", "b")}
        assert str(caught.value) == f"{main.symbols['a'].source} failed with ValueError: intended"
        assert caught.value.consequence == "failed to materialize a, b in main"
        assert caught.value.__cause__ is error
    with pytest.raises(DuplicateDefinitionError):
        main.define(Unit("a"))
    main.remove(["a", "b"])
    main.define(Unit("a"))
    assert session.lookup(main, "a").keys() == {"a"}


def test_long_lists_are_cut_in_the_message_only(session: ExecutionSession, main: JITDylib) -> None:
    names = [f"f{number}" for number in range(20)]
    main.define(Unit(names, error=ValueError()))
    with pytest.raises(FailedToMaterializeError) as caught:
        session.lookup(main, "f3")
    assert set(caught.value.symbols["main"]) == set(names)
    assert caught.value.consequence.endswith(" and 12 more in main")


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_unit_raises_fails_it(
    session: ExecutionSession, main: JITDylib, error: BaseException
) -> None:
    main.define(Unit("a", error=error))
    assert cause_of(session, main, "a") is error
    main.define(Unit("b"))
    assert session.lookup(main, "b").keys() == {"b"}


def test_a_failure_fails_dependants_and_nothing_else(
    session: ExecutionSession, main: JITDylib
) -> None:
    bad = Unit("bad", error=ValueError(), is_gated=True)
    user = Unit("user other", {"user": ["bad"]}, name="user.o")
    main.define(bad)
    main.define(user)
    main.define(Unit("indirect", ["user"]))
    main.define(Unit("bystander", ["other"]))
    pending = {n: Pending(session, main, n) for n in ("user", "other", "indirect", "bystander")}
    session.run(bad.begin.open)
    settle(session)
    assert state_of(main, "other") is state_of(main, "bystander") is READY
    assert state_of(main, "user") is state_of(main, "indirect") is SymbolState.EMITTED
    open_gates(session, bad)
    for name in ("user", "indirect"):
        error = pending[name].error
        assert isinstance(error, FailedToMaterializeError)
        assert error.symbols == {"main": ("bad", "indirect", "user")}
        assert error.__cause__ is bad.error
    for name in ("other", "bystander"):
        assert isinstance(pending[name].result, dict)


def test_each_waiter_gets_an_error_of_its_own(session: ExecutionSession, main: JITDylib) -> None:
    unit = Unit("a", error=ValueError(), is_gated=True)
    main.define(unit)
    lookups = [Pending(session, main, "a") for _ in range(3)]
    open_gates(session, unit)
    errors = {id(lookup.error) for lookup in lookups}
    assert len(errors) == 3
    assert {str(lookup.error) for lookup in lookups} == {f"{unit.name} failed: ValueError"}


def test_undefined_dependencies_fail_the_unit(session: ExecutionSession, main: JITDylib) -> None:
    main.define(Unit("a", ["gone", "lost"]))
    cause = cause_of(session, main, "a")
    assert isinstance(cause, UndefinedSymbolError)
    assert set(cause.names) == {"gone", "lost"}


def test_a_dropped_responsibility_has_failed(session: ExecutionSession, main: JITDylib) -> None:
    kept: list[MaterializationResponsibility] = []
    main.define(scripted("a b", lambda _: None))
    main.define(scripted("c", kept.append))
    cause = cause_of(session, main, "a")
    assert isinstance(cause, MissingDefinitionsError)
    assert (cause.unit, cause.names) == ("scripted", ("a", "b"))
    assert str(cause) == "missing definitions in scripted: a, b"
    pending = Pending(session, main, "c")
    assert pending.result is None
    session.run(lambda: kept[0].notify_resolved({"c": 8}))
    session.run(kept[0].notify_emitted)
    settle(session)
    assert pending.result == {"c": 8}


# Operations of responsibilities


def test_all_must_have_an_address(session: ExecutionSession, main: JITDylib) -> None:
    main.define(scripted("a b", lambda responsibility: responsibility.notify_resolved({"b": 1})))
    cause = cause_of(session, main, "b")
    assert isinstance(cause, MissingDefinitionsError)
    assert cause.names == ("a",)
    main.define(
        scripted(
            {"c": EXPORTED, "s": SIDE_EFFECTS},
            lambda responsibility: responsibility.notify_emitted(),
        )
    )
    cause = cause_of(session, main, "c")
    assert isinstance(cause, MissingDefinitionsError)
    assert cause.names == ("c",)


@pytest.mark.parametrize("names", [["x"], ["a"]])
def test_groups_contain_symbols_of_the_link_once(
    session: ExecutionSession, main: JITDylib, names: list[str]
) -> None:
    def emit(responsibility: MaterializationResponsibility) -> None:
        responsibility.notify_resolved({"a": 1})
        responsibility.notify_emitted(
            [SymbolDependenceGroup(set("a")), SymbolDependenceGroup(set(names))]
        )

    main.define(scripted("a", emit))
    cause = cause_of(session, main, "a")
    assert isinstance(cause, UnexpectedDefinitionError)
    assert (cause.unit, cause.names) == ("scripted", tuple(names))
    assert str(cause) == f"unexpected definitions in scripted: {names[0]}"


@pytest.mark.parametrize("what", ["missing", "unsearched", "failed"])
def test_dependencies_must_be_satisfiable(
    session: ExecutionSession, main: JITDylib, what: str
) -> None:
    def emit(responsibility: MaterializationResponsibility) -> None:
        responsibility.notify_resolved({"a": 1})
        responsibility.notify_emitted([SymbolDependenceGroup({"a"}, {main: {what}})])

    main.define(Unit("unsearched"))
    main.define(Unit("failed", error=ValueError("the reason")))
    cause_of(session, main, "failed")
    main.define(scripted("a", emit))
    with pytest.raises(FailedToMaterializeError) as caught:
        session.lookup(main, "a")
    if what == "failed":
        # What made the dependency fail is what is reported.
        assert isinstance(caught.value.reason, ValueError)
        assert isinstance(caught.value, ValueError)
        assert str(caught.value).endswith(" failed with ValueError: the reason")
        assert caught.value.failure is main.symbols["failed"].failure
        return
    cause = caught.value.reason
    assert isinstance(cause, UnsatisfiedDependenciesError)
    assert (cause.unit, cause.dependencies) == ("scripted", {"main": (what,)})
    assert str(cause) == f"unsatisfied dependencies of scripted: {what} in main"
    assert str(caught.value) == str(cause)


def test_claims(session: ExecutionSession, main: JITDylib) -> None:
    weak = Unit({"unsearched": WEAK})
    claimed: list[set[str]] = []

    def materialize(responsibility: MaterializationResponsibility) -> None:
        claimed.append(responsibility.define_materializing({"extra": EXPORTED, "held": WEAK}))
        claimed.append(responsibility.define_materializing({"unsearched": EXPORTED}))
        claimed.append(responsibility.define_materializing({"held": WEAK}))
        with pytest.raises(DuplicateDefinitionError) as caught:
            responsibility.define_materializing({"y": EXPORTED, "held": EXPORTED})
        assert (caught.value.first, caught.value.second) == ("unit of held", "scripted")
        assert responsibility.symbols.keys() == {"a", "extra", "unsearched"}
        responsibility.notify_resolved({"a": 1, "extra": 2, "unsearched": 3})
        responsibility.notify_emitted([SymbolDependenceGroup({"extra"}, {main: {"slow"}})])

    slow = Unit("slow", is_gated=True)
    for unit in (weak, Unit("held"), slow, scripted("a", materialize)):
        main.define(unit)
    waiting = Pending(session, main, "slow")
    assert session.lookup(main, "a")["a"].address == 1
    assert claimed == [{"extra"}, {"unsearched"}, set()]
    assert weak.discarded == ["unsearched"]
    assert state_of(main, "y") is None
    assert state_of(main, "extra") is SymbolState.EMITTED
    open_gates(session, slow)
    assert isinstance(waiting.result, dict)
    assert session.lookup(main, ["extra", "unsearched"])["extra"].address == 2


def test_delegates(session: ExecutionSession, main: JITDylib) -> None:
    parts: list[MaterializationResponsibility] = []

    def materialize(responsibility: MaterializationResponsibility) -> None:
        with pytest.raises(UnexpectedDefinitionError) as caught:
            responsibility.delegate(["a", "x"])
        assert caught.value.names == ("x",)
        parts.append(responsibility.delegate(["b", "c"]))
        assert [set(part.symbols) for part in (responsibility, parts[0])] == [{"a"}, {"b", "c"}]
        responsibility.notify_resolved({"a": 1})
        responsibility.notify_emitted()

    main.define(scripted("a b c", materialize))
    both = Pending(session, main, ["a", "b"])
    # A lookup of one of them does not wait for the others.
    assert session.lookup(main, "a")["a"].address == 1
    assert parts[0].requested_symbols == {"b"}
    assert both.result is None
    session.run(lambda: parts[0].fail(ValueError()))
    settle(session)
    assert isinstance(both.error, FailedToMaterializeError)
    assert both.error.symbols == {"main": ("b", "c")}
    assert state_of(main, "a") is READY


def test_a_dropped_delegate_has_failed(session: ExecutionSession, main: JITDylib) -> None:
    def materialize(responsibility: MaterializationResponsibility) -> None:
        responsibility.delegate(["b"])
        responsibility.notify_resolved({"a": 1})
        responsibility.notify_emitted()

    main.define(scripted("a b", materialize))
    assert isinstance(cause_of(session, main, "b"), MissingDefinitionsError)
    assert session.lookup(main, "a").keys() == {"a"}


def test_replacing_symbols_that_no_lookup_waits_for(
    session: ExecutionSession, main: JITDylib
) -> None:
    later = Unit("b c")

    def materialize(responsibility: MaterializationResponsibility) -> None:
        assert responsibility.requested_symbols == {"a"}
        responsibility.replace(later)
        responsibility.notify_resolved({"a": 1})
        responsibility.notify_emitted()

    main.define(scripted("a b c", materialize))
    session.lookup(main, "a")
    assert later.materialized == []
    assert session.lookup(main, "b")["b"].address == later.addresses["b"]
    assert later.materialized == [{"b", "c"}]


def test_replacing_symbols_that_a_lookup_waits_for(
    session: ExecutionSession, main: JITDylib
) -> None:
    other = Unit("a b")
    main.define(scripted("a b", lambda responsibility: responsibility.replace(other)))
    assert session.lookup(main, "a")["a"].address == other.addresses["a"]
    assert other.materialized == [{"a", "b"}]


def test_resolved_symbols_cannot_be_replaced(session: ExecutionSession, main: JITDylib) -> None:
    def materialize(responsibility: MaterializationResponsibility) -> None:
        responsibility.notify_resolved({"a": 1})
        responsibility.replace(Unit("a"))

    main.define(scripted("a", materialize))
    cause = cause_of(session, main, "a")
    assert type(cause) is SessionError
    assert str(cause) == "scripted cannot replace a: resolved already"


def test_dependencies_are_by_symbol(session: ExecutionSession, main: JITDylib) -> None:
    """A dependant of one symbol of a link does not wait for the dependencies of the others."""
    slow = Unit("slow", is_gated=True)
    main.define(slow)
    main.define(Unit("x y", {"y": ["slow"]}))
    main.define(Unit("user", ["x"]))
    main.define(Unit("other", ["y"]))
    waiting = Pending(session, main, ["other", "user"])
    session.run(slow.begin.open)
    assert session.lookup(main, "user").keys() == {"user"}
    assert waiting.result is None
    open_gates(session, slow)
    assert isinstance(waiting.result, dict)


# Merged units


def test_units_that_depend_on_each_other_are_merged(
    session: ExecutionSession, main: JITDylib
) -> None:
    a, b, c = Together("a", ["b"]), Together("b"), Together("c")
    for unit in (a, b, c):
        main.define(unit)
    session.lookup(main, "a")
    assert a.materialized == [{"a", "b"}]
    assert c.materialized == []


def test_units_of_different_trackers_are_not_merged(
    session: ExecutionSession, main: JITDylib
) -> None:
    a, b = Together("a", ["b"]), Together("b")
    main.define(a)
    main.define(b, main.create_resource_tracker())
    session.lookup(main, "a")
    assert (a.materialized, b.materialized) == ([{"a"}], [{"b"}])


def test_only_the_unit_at_fault_fails(session: ExecutionSession, main: JITDylib) -> None:
    error = ValueError("no")
    main.define(Together("good w", ["fine"]))
    main.define(Together({"fine": EXPORTED, "weak": WEAK}))
    main.define(Together("bad", error=error))
    main.define(Together("user", ["bad"]))
    main.define(Unit("weak"))
    with pytest.raises(FailedToMaterializeError):
        session.lookup(main, ["good", "user", "bad"])
    assert session.lookup(main, ["good", "fine", "w", "weak"]).keys() == {
        "good", "fine", "w", "weak",
    }  # fmt: skip
    assert cause_of(session, main, "bad") is error
    assert isinstance(cause_of(session, main, "user"), Exception)


def test_all_undefined_symbols_of_merged_units_are_in_the_error(
    session: ExecutionSession, main: JITDylib
) -> None:
    main.define(Together("a", ["gone"]))
    main.define(Together("b", ["a", "lost"]))
    for name in "ba":
        cause = cause_of(session, main, name)
        assert isinstance(cause, UndefinedSymbolError)
        assert set(cause.names) == {"gone", "lost"}


NAMES = "abcdefg"


@settings(max_examples=60)
@given(
    needs=st.lists(st.sets(st.sampled_from(NAMES)), min_size=7, max_size=7),
    failing=st.sets(st.sampled_from(NAMES), max_size=2),
    looked_up=st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=3),
)
def test_merging_changes_nothing_else(
    needs: list[set[str]], failing: set[str], looked_up: list[set[str]]
) -> None:
    reached = dict(zip(NAMES, needs, strict=True))
    for _ in NAMES:
        reached = {n: r.union(*(reached[other] for other in r)) for n, r in reached.items()}
    good = {name for name in NAMES if not (reached[name] | {name}) & failing}
    with time_limit(), ExecutionSession() as session:
        main = session.create_jitdylib("main")
        for name, wanted in zip(NAMES, needs, strict=True):
            error = ValueError(name) if name in failing else None
            main.define(Together(name, wanted, error=error))
        for names in looked_up:
            try:
                assert session.lookup(main, names).keys() == names
                assert names <= good
            except FailedToMaterializeError:
                assert not names <= good
        for name in set().union(*looked_up):
            if name in good:
                assert session.lookup(main, name).keys() == {name}
            else:
                assert cause_of(session, main, name) is not None


# Reference cycles


@pytest.mark.serial("counts objects")
@pytest.mark.parametrize("kind", ["emitted", "failed", "undefined"])
def test_no_reference_cycles_are_created(
    session: ExecutionSession, main: JITDylib, kind: str
) -> None:
    def define(tracker: ResourceTracker) -> None:
        error = ValueError() if kind == "failed" else None
        dependencies = ["b"] if kind == "emitted" else []
        main.define(Unit("a x", {"a": dependencies}, error=error), tracker)
        main.define(Unit("b"), tracker)

    def once() -> None:
        tracker = main.create_resource_tracker()
        # In a function of its own: frames of the lookup's error lead back to this one.
        define(tracker)
        with suppress(FailedToMaterializeError, UndefinedSymbolError):
            session.lookup(main, ["a", "gone"] if kind == "undefined" else ["a", "b"])
        tracker.remove()
        # The result reaches this thread before the other one has released it.
        settle(session)

    for _ in range(5):
        once()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            once()
        settle(session)
        garbage, growth = gc.collect(), len(gc.get_objects()) - before
    finally:
        gc.enable()
    assert growth < 50
    assert garbage == 0
