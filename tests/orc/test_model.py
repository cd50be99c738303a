"""Random use of a session, against a model in which everything is looked at again and again.

The model knows each symbol's stage and what it needs, and derives from that, without any
memory of its own, who is ready, who has failed, and which lookups are over.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jitlink.errors import DuplicateDefinitionError, SymbolError, UndefinedSymbolError
from jitlink.orc import (
    ExecutionSession,
    ExecutorSymbolDef,
    FailedToMaterializeError,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    MaterializationResponsibility,
    ResourceManager,
    ResourceTracker,
    SessionEndedError,
    SymbolState,
)
from jitlink.orc.dylib import Definition
from jitlink.orc.errors import SymbolsCouldNotBeRemovedError
from tests.orc.units import EXPORTED, HIDDEN, IS_LONG, WEAK, Unit, settle, time_limit

NAMES = tuple("abcdefgh")
READY, RESOLVED = SymbolState.READY, SymbolState.RESOLVED
NEEDS = st.lists(st.lists(st.sampled_from(NAMES), max_size=2), min_size=8, max_size=8)


@dataclass(eq=False)
class ModelUnit:
    """What becomes of a unit."""

    unit: Unit
    dylib: ModelDylib
    tracker: ModelTracker
    stage: str = "promised"
    may_begin: bool = False
    may_end: bool = False
    looked_up: ModelLookup | None = None


@dataclass(eq=False)
class ModelSymbol:
    """A symbol; its unit's stage is its own until it is emitted."""

    name: str
    unit: ModelUnit
    flags: JITSymbolFlags
    state: SymbolState = SymbolState.NEVER_SEARCHED
    failed: bool = False
    removed: bool = False
    needs: list[ModelSymbol] = field(default_factory=list)


@dataclass(eq=False)
class ModelLookup:
    """A lookup; `thread` is None for those that units make."""

    found: dict[str, ModelSymbol]
    level: SymbolState
    reached: set[str] = field(default_factory=set)
    outcome: str = "pending"
    thread: threading.Thread | None = None
    result: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class ModelTracker:
    """A tracker."""

    real: ResourceTracker
    is_default: bool = False


@dataclass(eq=False)
class ModelDylib:
    """A JITDylib, and what a search in it should see."""

    real: JITDylib
    default: ModelTracker
    table: dict[str, ModelSymbol] = field(default_factory=dict)
    order: list[tuple[ModelDylib, bool]] = field(default_factory=list)


class Resources(ResourceManager):
    """Counts what is held under each tracker: one for each unit that was emitted."""

    def __init__(self) -> None:
        self.held: dict[ResourceTracker, int] = {}

    async def handle_remove_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002
        key: ResourceTracker,
    ) -> None:
        self.held.pop(key, None)

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        moved = self.held.pop(source, 0)
        if moved:
            self.held[destination] = self.held.get(destination, 0) + moved


class CountedUnit(Unit):
    """Holds a resource once it is emitted."""

    resources: Resources

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        await super().materialize(responsibility)
        tracker = responsibility.tracker
        self.resources.held[tracker] = self.resources.held.get(tracker, 0) + 1


class SessionMachine(RuleBasedStateMachine):
    """One session, two JITDylibs that are linked against each other."""

    trackers = Bundle("trackers")

    @initialize(
        target=trackers, needs=NEEDS, places=st.lists(st.integers(0, 1), min_size=8, max_size=8)
    )
    def start(self, needs: list[list[str]], places: list[int]) -> ModelTracker:
        self.session = ExecutionSession()
        self.resources = Resources()
        self.session.register_resource_manager(self.resources)
        self.units: list[ModelUnit] = []
        self.lookups: list[ModelLookup] = []
        self.dylibs = []
        for name in ("left", "right"):
            real = self.session.create_jitdylib(name)
            self.dylibs.append(ModelDylib(real, ModelTracker(real.default_tracker, True)))
        left, right = self.dylibs
        left.real.add_to_link_order(right.real)
        right.real.add_to_link_order(left.real)
        left.order, right.order = [(left, True), (right, False)], [(right, True), (left, False)]
        tracker = ModelTracker(left.real.create_resource_tracker())
        # Every name is defined somewhere, so that needs can be met and circles close.
        for name, wanted, place in zip(NAMES, needs, places, strict=True):
            owner = tracker if name in "aceg" and place == 0 else None
            self._define({name: EXPORTED}, {name: wanted}, place, owner, fails=False)
        return tracker

    # What the model does

    def _search(
        self, order: list[tuple[ModelDylib, bool]], names: Iterable[str]
    ) -> dict[str, ModelSymbol]:
        found = {}
        for name in names:
            for dylib, sees_all in order:
                held = dylib.table.get(name)
                if held is not None and (sees_all or held.flags & EXPORTED):
                    found[name] = held
                    break
        return found

    def _look_up(self, found: dict[str, ModelSymbol], level: SymbolState) -> ModelLookup:
        lookup = ModelLookup(found, level)
        if any(symbol.failed for symbol in found.values()):
            lookup.outcome = "failed"
            return lookup
        lookup.reached = {name for name, symbol in found.items() if symbol.state >= level}
        # Of what has come far enough, only what was waited for is looked at again.
        for symbol in found.values():
            if symbol.unit.stage == "promised":
                self._begin(symbol.unit)
        return lookup

    def _symbols(self, unit: ModelUnit) -> list[ModelSymbol]:
        return [each for each in unit.dylib.table.values() if each.unit is unit]

    def _begin(self, unit: ModelUnit) -> None:
        unit.stage = "begun"
        for symbol in self._symbols(unit):
            symbol.state = SymbolState.MATERIALIZING

    def _fail_unit(self, unit: ModelUnit) -> None:
        unit.stage = "failed"
        for symbol in self._symbols(unit):
            symbol.failed = True

    def _settle(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """One change, if there is one to be made; lookups see each of them."""
        return (
            any(self._step_lookup(lookup) for lookup in self._all_lookups())
            or any(self._step_unit(unit) for unit in self.units)
            or self._step_symbols()
        )

    def _all_lookups(self) -> list[ModelLookup]:
        return self.lookups + [unit.looked_up for unit in self.units if unit.looked_up]

    def _step_unit(self, unit: ModelUnit) -> bool:
        symbols = self._symbols(unit)
        if unit.stage == "begun" and unit.may_begin:
            for symbol in symbols:
                symbol.state = RESOLVED
            unit.stage = "resolved"
            return True
        if unit.stage == "resolved":
            names = {need for each in symbols for need in unit.unit.needs[each.name]}
            found = self._search(unit.dylib.order, names)
            if len(found) < len(names):
                self._fail_unit(unit)
                return True
            unit.stage = "linking"
            unit.looked_up = self._look_up(found, RESOLVED)
            return True
        if unit.stage == "linking" and unit.looked_up and unit.looked_up.outcome != "pending":
            if unit.looked_up.outcome == "failed":
                self._fail_unit(unit)
            else:
                unit.stage = "linked"
            return True
        if unit.stage == "linked" and unit.may_end:
            self._emit(unit, symbols)
            return True
        return False

    def _emit(self, unit: ModelUnit, symbols: list[ModelSymbol]) -> None:
        needed = {}
        for name, symbol in (unit.looked_up.found if unit.looked_up else {}).items():
            held = symbol.unit.dylib.table.get(name)
            usable = held and not held.failed and held.state > SymbolState.NEVER_SEARCHED
            if held is None or not usable:
                self._fail_unit(unit)
                return
            needed[name] = held
        if unit.unit.error:
            self._fail_unit(unit)
            return
        unit.stage = "emitted"
        for symbol in symbols:
            symbol.state = SymbolState.EMITTED
            symbol.needs = [needed[name] for name in unit.unit.needs[symbol.name]]

    def _step_symbols(self) -> bool:
        waiting = {
            symbol
            for dylib in self.dylibs
            for symbol in dylib.table.values()
            if symbol.state == SymbolState.EMITTED and not symbol.failed
        }
        for symbol in waiting:
            if any(e.failed or (e.removed and e.state < READY) for e in symbol.needs):
                symbol.failed = True
                return True
        ready = set(waiting)
        while True:
            blocked = {
                symbol
                for symbol in ready
                if any(each.state < READY and each not in ready for each in symbol.needs)
            }
            if not blocked:
                break
            ready -= blocked
        for symbol in ready:
            symbol.state = READY
        return bool(ready)

    def _step_lookup(self, lookup: ModelLookup) -> bool:
        if lookup.outcome != "pending":
            return False
        for name, symbol in lookup.found.items():
            if name in lookup.reached:
                continue
            if symbol.failed or symbol.removed:
                lookup.outcome = "failed"
                return True
            if symbol.state >= lookup.level:
                lookup.reached.add(name)
        if len(lookup.reached) < len(lookup.found):
            return False
        for name, symbol in lookup.found.items():
            held = symbol.unit.dylib.table.get(name)
            if held is None or held.failed or held.state < lookup.level:
                lookup.outcome = "failed"
                return True
            lookup.found[name] = held
        lookup.outcome = "done"
        return True

    def _drop(self, symbol: ModelSymbol) -> None:
        symbol.removed = True
        del symbol.unit.dylib.table[symbol.name]

    def _after(self) -> None:
        settle(self.session)
        self._settle()

    # Rules

    @rule(target=trackers, which=st.integers(0, 1))
    def create_tracker(self, which: int) -> ModelTracker:
        return ModelTracker(self.dylibs[which].real.create_resource_tracker())

    @rule(
        names=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([EXPORTED, EXPORTED, WEAK,
                              HIDDEN]), min_size=1, max_size=3),
        needs=NEEDS,
        which=st.integers(0, 1),
        tracker=st.none() | trackers,
        fails=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def define(
        self,
        names: dict[str, JITSymbolFlags],
        needs: list[list[str]],
        which: int,
        tracker: ModelTracker | None,
        fails: bool,
    ) -> None:
        self._define(names, dict(zip(names, needs, strict=False)), which, tracker, fails=fails)

    def _define(
        self,
        names: dict[str, JITSymbolFlags],
        wanted: dict[str, list[str]],
        which: int,
        tracker: ModelTracker | None,
        *,
        fails: bool,
    ) -> None:
        dylib = self.dylibs[which]
        if tracker is None:
            owner = dylib.default
        elif tracker.real.dylib is dylib.real and not tracker.real.is_defunct:
            owner = tracker
        else:
            return
        error = ValueError("made to fail") if fails else None
        real = CountedUnit(dict(names), wanted, error=error, is_held=True)
        real.resources = self.resources
        duplicate = [
            name
            for name, flag in names.items()
            if (held := dylib.table.get(name)) and flag.is_strong
            and (held.flags.is_strong or held.state > SymbolState.NEVER_SEARCHED)
        ]  # fmt: skip
        try:
            dylib.real.define(real, None if tracker is None else tracker.real)
        except DuplicateDefinitionError as caught:
            name = caught.name
        else:
            name = ""
        assert name == (duplicate[0] if duplicate else "")
        if duplicate:
            return
        unit = ModelUnit(real, dylib, owner)
        self.units.append(unit)
        for name, flag in names.items():
            held = dylib.table.get(name)
            if held and not flag.is_strong:
                assert name in real.discarded
                continue
            if held:
                assert held.unit.unit.discarded[-1:] == [name] or name in held.unit.unit.discarded
                self._drop(held)
            dylib.table[name] = ModelSymbol(name, unit, flag)
        self._after()

    @rule(
        names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3),
        which=st.integers(0, 1),
        level=st.sampled_from([READY, READY, RESOLVED]),
        sees_all=st.booleans(),
        only_one=st.booleans(),
        required=st.sampled_from([True, False, False]),
    )
    def look_up(
        self,
        names: set[str],
        which: int,
        level: SymbolState,
        *,
        sees_all: bool,
        only_one: bool,
        required: bool,
    ) -> None:
        dylib = self.dylibs[which]
        order = [(dylib, sees_all), *([] if only_one else dylib.order[1:])]
        real_order = [
            (each.real, JITDylibLookupFlags.MATCH_ALL_SYMBOLS if sees
             else JITDylibLookupFlags.MATCH_EXPORTED_ONLY)
            for each, sees in order
        ]  # fmt: skip
        found = self._search(order, names)
        if required and len(found) < len(names):
            expected = ModelLookup({}, level, outcome="undefined")
        else:
            expected = self._look_up(found, level)
        begun = threading.Event()

        async def coroutine() -> Mapping[str, ExecutorSymbolDef]:
            begun.set()
            wanted = dict.fromkeys(names, required)
            return await self.session.lookup_async(real_order, wanted, required_state=level)

        def run() -> None:
            try:
                expected.result.append(self.session.wait(coroutine()))
            except Exception as error:  # noqa: BLE001
                expected.result.append(error)

        expected.thread = threading.Thread(target=run, daemon=True)
        expected.thread.start()
        assert begun.wait(30)
        self.lookups.append(expected)
        self._after()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3), which=st.integers(0, 1))
    def look_up_all_there_is(self, names: set[str], which: int) -> None:
        self.look_up(names, which, READY, sees_all=True, only_one=False, required=False)

    @rule()
    def let_all_go(self) -> None:
        self.release_references([0] * 100)

    @rule(numbers=st.lists(st.integers(0, 30), min_size=4, max_size=20))
    def let_many_go(self, numbers: list[int]) -> None:
        self.release_references(numbers)

    @rule(numbers=st.lists(st.integers(0, 30), min_size=1, max_size=4))
    def release_references(self, numbers: list[int]) -> None:
        """Let units go on from their gates, one after the other."""
        for number in numbers:
            held = [unit for unit in self.units if unit.stage in {"begun", "linked"}]
            if not held:
                return
            unit = held[number % len(held)]
            if unit.stage == "begun":
                unit.may_begin = True
                self.session.run(unit.unit.begin.open)
            else:
                unit.may_end = True
                self.session.run(unit.unit.end.open)
            self._after()

    def _remove_tracked(self, tracker: ModelTracker) -> None:
        for unit in [each for each in self.units if each.tracker is tracker]:
            for symbol in self._symbols(unit):
                self._drop(symbol)
            unit.stage = "removed"
            if unit.looked_up and unit.looked_up.outcome == "pending":
                unit.looked_up = None

    @rule(tracker=consumes(trackers))
    def remove_tracker(self, tracker: ModelTracker) -> None:
        if not tracker.real.is_defunct:
            self._remove_tracked(tracker)
        tracker.real.remove()
        self._after()

    @rule(which=st.integers(0, 1))
    def remove_default_tracker(self, which: int) -> None:
        dylib = self.dylibs[which]
        self._remove_tracked(dylib.default)
        dylib.real.default_tracker.remove()
        dylib.default = ModelTracker(dylib.real.default_tracker, True)
        self._after()

    @rule(source=consumes(trackers), destination=st.none() | trackers)
    def transfer(self, source: ModelTracker, destination: ModelTracker | None) -> None:
        dylib = next(each for each in self.dylibs if each.real is source.real.dylib)
        to = destination or dylib.default
        if to.real.dylib is not dylib.real or to.real.is_defunct or source.real.is_defunct:
            return
        source.real.transfer_to(to.real)
        for unit in self.units:
            if unit.tracker is source:
                unit.tracker = to
        self._after()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2), which=st.integers(0, 1))
    def remove_symbols(self, names: set[str], which: int) -> None:
        dylib = self.dylibs[which]
        held = [dylib.table.get(name) for name in names]
        try:
            dylib.real.remove(names)
        except UndefinedSymbolError:
            assert None in held
            return
        except SymbolsCouldNotBeRemovedError:
            assert None not in held
            assert any(self._is_busy(symbol) for symbol in held if symbol)
            return
        for symbol in held:
            assert symbol is not None
            assert not self._is_busy(symbol)
            self._drop(symbol)
        self._after()

    def _is_busy(self, symbol: ModelSymbol) -> bool:
        return SymbolState.NEVER_SEARCHED < symbol.state < READY and not symbol.failed

    # What must hold

    @invariant()
    @precondition(lambda self: hasattr(self, "dylibs"))
    def tables_agree(self) -> None:
        for dylib in self.dylibs:
            held: dict[str, Definition] = self.session.run(partial(dict, dylib.real.symbols))
            assert held.keys() == dylib.table.keys()
            for name, symbol in dylib.table.items():
                definition = held[name]
                assert definition.failed == symbol.failed, name
                assert definition.flags[name] == symbol.flags
                assert definition.tracker is symbol.unit.tracker.real
                assert symbol.failed or definition.state == symbol.state, name

    @invariant()
    @precondition(lambda self: hasattr(self, "dylibs"))
    def lookups_agree(self) -> None:
        remaining = []
        for lookup in self.lookups:
            if lookup.outcome == "pending":
                assert not lookup.result
                remaining.append(lookup)
            else:
                self._check_outcome(lookup)
        self.lookups = remaining
        waiting = [unit for unit in self.units if unit.looked_up and unit.stage == "linking"]
        assert self.session.run(lambda: len(self.session.queries)) == len(remaining + waiting)

    def _check_outcome(self, lookup: ModelLookup) -> None:
        assert lookup.thread is not None
        lookup.thread.join(30)
        (result,) = lookup.result
        if lookup.outcome == "undefined":
            assert isinstance(result, SymbolError)
        elif lookup.outcome == "failed":
            assert isinstance(result, FailedToMaterializeError)
        else:
            assert result == {
                name: (symbol.unit.unit.addresses[name], symbol.flags)
                for name, symbol in lookup.found.items()
            }

    @invariant()
    @precondition(lambda self: hasattr(self, "dylibs"))
    def resources_agree(self) -> None:
        expected: dict[ResourceTracker, int] = {}
        for unit in self.units:
            if unit.stage == "emitted":
                tracker = unit.tracker.real
                expected[tracker] = expected.get(tracker, 0) + 1
        assert self.session.run(lambda: dict(self.resources.held)) == expected
        assert f"waiting lookups: {len(self.session.queries)}" in self.session.dump()

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        self.session.end()
        assert not self.resources.held
        for lookup in self.lookups:
            assert lookup.thread is not None
            lookup.thread.join(30)
            assert not lookup.thread.is_alive()
            assert isinstance(lookup.result[0], SessionEndedError)
        assert not self.session.queries
        assert not any(dylib.real.symbols or dylib.real.trackers for dylib in self.dylibs)


@pytest.mark.serial("counts threads")
def test_a_session_does_what_the_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # Units that wait at their gates do not go on by themselves.
    monkeypatch.setattr("jitlink.orc.session._GRACE", 0.001)
    steps = settings(max_examples=1000 if IS_LONG else 100, stateful_step_count=40)
    with time_limit(3600 if IS_LONG else 300):
        run_state_machine_as_test(SessionMachine, settings=steps)
    gc.collect()
    assert not [each for each in threading.enumerate() if each.name == "jitlink session"]
