"""Random use of a session, compared with a model."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from functools import partial

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
from tests.orc.model import (
    READY,
    RESOLVED,
    Model,
    ModelDylib,
    ModelLookup,
    ModelSymbol,
    ModelTracker,
    ModelUnit,
)
from tests.orc.units import EXPORTED, HIDDEN, IS_LONG, WEAK, Unit, settle, time_limit

NAMES = tuple("abcdefgh")
NEEDS = st.lists(st.lists(st.sampled_from(NAMES), max_size=2), min_size=8, max_size=8)


class Resources(ResourceManager):
    """Counts the resources of each tracker: one for each unit that was emitted."""

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
        self.model = Model()
        self.dylibs = self.model.dylibs
        for name in ("left", "right"):
            real = self.session.create_jitdylib(name)
            self.dylibs.append(ModelDylib(real, ModelTracker(real.default_tracker, True)))
        left, right = self.dylibs
        left.real.add_to_link_order(right.real)
        right.real.add_to_link_order(left.real)
        left.order, right.order = [(left, True), (right, False)], [(right, True), (left, False)]
        tracker = ModelTracker(left.real.create_resource_tracker())
        # Every name is defined somewhere, so that dependencies are satisfied and form cycles.
        for name, wanted, place in zip(NAMES, needs, places, strict=True):
            owner = tracker if name in "aceg" and place == 0 else None
            self._define({name: EXPORTED}, {name: wanted}, place, owner, fails=False)
        return tracker

    # Helpers

    def _after(self) -> None:
        settle(self.session)
        self.model.settle()

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
        error = ValueError("intended") if fails else None
        real = CountedUnit(dict(names), wanted, error=error, is_gated=True)
        real.resources = self.resources
        duplicate = [
            name
            for name, flag in names.items()
            if (symbol := dylib.table.get(name)) and flag.is_strong
            and (symbol.flags.is_strong or symbol.state > SymbolState.NEVER_SEARCHED)
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
        self.model.units.append(unit)
        for name, flag in names.items():
            existing = dylib.table.get(name)
            if existing and not flag.is_strong:
                assert name in real.discarded
                continue
            if existing:
                assert name in existing.unit.unit.discarded
                self.model.drop(existing)
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
            (searched.real, JITDylibLookupFlags.MATCH_ALL_SYMBOLS if sees
             else JITDylibLookupFlags.MATCH_EXPORTED_ONLY)
            for searched, sees in order
        ]  # fmt: skip
        found = self.model.search(order, names)
        if required and len(found) < len(names):
            expected = ModelLookup({}, level, outcome="undefined")
        else:
            expected = self.model.look_up(found, level)
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
        self.model.lookups.append(expected)
        self._after()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3), which=st.integers(0, 1))
    def look_up_without_requiring(self, names: set[str], which: int) -> None:
        self.look_up(names, which, READY, sees_all=True, only_one=False, required=False)

    @rule()
    def open_all_gates(self) -> None:
        self.open_gates([0] * 100)

    @rule(numbers=st.lists(st.integers(0, 30), min_size=4, max_size=20))
    def open_many_gates(self, numbers: list[int]) -> None:
        self.open_gates(numbers)

    @rule(numbers=st.lists(st.integers(0, 30), min_size=1, max_size=4))
    def open_gates(self, numbers: list[int]) -> None:
        """Open gates of units, one after the other."""
        for number in numbers:
            waiting = [unit for unit in self.model.units if unit.stage in {"begun", "linked"}]
            if not waiting:
                return
            unit = waiting[number % len(waiting)]
            if unit.stage == "begun":
                unit.may_begin = True
                self.session.run(unit.unit.begin.open)
            else:
                unit.may_end = True
                self.session.run(unit.unit.end.open)
            self._after()

    def _remove_tracked(self, tracker: ModelTracker) -> None:
        for unit in [unit for unit in self.model.units if unit.tracker is tracker]:
            for symbol in self.model.symbols_of(unit):
                self.model.drop(symbol)
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
        dylib = next(dylib for dylib in self.dylibs if dylib.real is source.real.dylib)
        to = destination or dylib.default
        if to.real.dylib is not dylib.real or to.real.is_defunct or source.real.is_defunct:
            return
        source.real.transfer_to(to.real)
        for unit in self.model.units:
            if unit.tracker is source:
                unit.tracker = to
        self._after()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2), which=st.integers(0, 1))
    def remove_symbols(self, names: set[str], which: int) -> None:
        dylib = self.dylibs[which]
        symbols = [dylib.table.get(name) for name in names]
        try:
            dylib.real.remove(names)
        except UndefinedSymbolError:
            assert None in symbols
            return
        except SymbolsCouldNotBeRemovedError:
            assert None not in symbols
            assert any(self._is_busy(symbol) for symbol in symbols if symbol)
            return
        for symbol in symbols:
            assert symbol is not None
            assert not self._is_busy(symbol)
            self.model.drop(symbol)
        self._after()

    def _is_busy(self, symbol: ModelSymbol) -> bool:
        return SymbolState.NEVER_SEARCHED < symbol.state < READY and not symbol.failed

    # Invariants

    @invariant()
    @precondition(lambda self: hasattr(self, "dylibs"))
    def tables_agree(self) -> None:
        for dylib in self.dylibs:
            table: dict[str, Definition] = self.session.run(partial(dict, dylib.real.symbols))
            assert table.keys() == dylib.table.keys()
            for name, symbol in dylib.table.items():
                definition = table[name]
                assert definition.failed == symbol.failed, name
                assert definition.flags[name] == symbol.flags
                assert definition.tracker is symbol.unit.tracker.real
                assert symbol.failed or definition.state == symbol.state, name

    @invariant()
    @precondition(lambda self: hasattr(self, "dylibs"))
    def lookups_agree(self) -> None:
        remaining = []
        for lookup in self.model.lookups:
            if lookup.outcome == "pending":
                assert not lookup.result
                remaining.append(lookup)
            else:
                self._check_outcome(lookup)
        self.model.lookups = remaining
        waiting = [unit for unit in self.model.units if unit.looked_up and unit.stage == "linking"]
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
        for unit in self.model.units:
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
        for lookup in self.model.lookups:
            assert lookup.thread is not None
            lookup.thread.join(30)
            assert not lookup.thread.is_alive()
            assert isinstance(lookup.result[0], SessionEndedError)
        assert not self.session.queries
        assert not any(dylib.real.symbols or dylib.real.trackers for dylib in self.dylibs)


@pytest.mark.serial("counts threads")
def test_a_session_does_what_the_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # Units that wait at their gates do not finish by themselves.
    monkeypatch.setattr("jitlink.orc.session._GRACE", 0.001)
    steps = settings(max_examples=1000 if IS_LONG else 100, stateful_step_count=40)
    with time_limit(3600 if IS_LONG else 300):
        run_state_machine_as_test(SessionMachine, settings=steps)
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "jitlink session"]
