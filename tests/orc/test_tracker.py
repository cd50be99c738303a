"""Resource trackers: removal and transfer, before, during and after materialization."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest

from jitlink.errors import UndefinedSymbolError
from jitlink.orc import (
    ExecutionSession,
    FailedToMaterializeError,
    JITDylib,
    MaterializationResponsibility,
    ResourceManager,
    ResourceTracker,
    ResourceTrackerDefunctError,
    SymbolState,
)
from jitlink.orc.errors import SymbolsCouldNotBeRemovedError
from jitlink.orc.trackers import TrackedResources
from jitlink.tasks import sleep
from tests.orc.units import (
    IS_LONG,
    WEAK,
    Pending,
    Unit,
    open_gates,
    settle,
    state_of,
)


class Manager(ResourceManager):
    """Records notifications, and holds one resource for each link of a `ResourceUnit`."""

    def __init__(self, name: str = "manager", log: list[str] | None = None) -> None:
        self.name = name
        self.log = [] if log is None else log
        self.held: dict[ResourceTracker, list[str]] = {}
        self.error: Exception | None = None

    async def handle_remove_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002
        key: ResourceTracker,
    ) -> None:
        await sleep(0)
        self.log += [f"{self.name} releases {resource}" for resource in self.held.pop(key, [])]
        if self.error is not None:
            raise self.error

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        self.held.setdefault(destination, []).extend(self.held.pop(source, []))
        if self.error is not None:
            raise self.error


class ResourceUnit(Unit):
    """Allocates a resource before it is emitted, as a link does, and releases it if it fails."""

    manager: Manager

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        try:
            await super().materialize(responsibility)
            key = responsibility.tracker
        except BaseException:
            self.manager.log.append(f"{self.name} abandoned")
            raise
        self.manager.held.setdefault(key, []).append(self.name)


@pytest.fixture
def manager(session: ExecutionSession) -> Manager:
    manager = Manager()
    session.register_resource_manager(manager)
    return manager


def resource_unit(manager: Manager, symbols: str, needs: tuple[str, ...] = (), *,
         is_gated: bool = False) -> ResourceUnit:  # fmt: skip
    unit = ResourceUnit(symbols, needs, name=symbols, is_gated=is_gated)
    unit.manager = manager
    return unit


def test_removal_removes_what_the_tracker_owns(
    session: ExecutionSession, main: JITDylib, manager: Manager
) -> None:
    tracker = main.create_resource_tracker()
    main.define(resource_unit(manager, "a b"), tracker)
    main.define(resource_unit(manager, "unsearched"), tracker)
    main.define(resource_unit(manager, "kept", ("a",)))
    session.lookup(main, "kept")
    tracker.remove()
    assert manager.log == ["manager releases a b"]
    assert [state_of(main, name) for name in ("a", "b", "unsearched")] == [None] * 3
    # Code that was linked against it is not affected.
    assert session.lookup(main, "kept").keys() == {"kept"}
    assert tracker.is_defunct
    assert repr(tracker) == "<ResourceTracker of main (defunct)>"
    tracker.remove()
    main.define(Unit("a"))
    assert session.lookup(main, "a").keys() == {"a"}
    assert len(manager.log) == 1


def test_a_defunct_tracker_owns_nothing(session: ExecutionSession, main: JITDylib) -> None:
    tracker, other = main.create_resource_tracker(), main.create_resource_tracker()
    tracker.remove()
    with pytest.raises(ResourceTrackerDefunctError) as caught:
        main.define(Unit("a"), tracker)
    assert caught.value.dylib == "main"
    assert str(caught.value) == "a resource tracker of main was removed or transferred"
    for source, destination in ((tracker, other), (other, tracker)):
        with pytest.raises(ResourceTrackerDefunctError):
            source.transfer_to(destination)
    with pytest.raises(ValueError, match="not one of other"):
        session.create_jitdylib("other").define(Unit("a"), other)


def test_the_default_tracker_is_replaced(session: ExecutionSession, main: JITDylib) -> None:
    first = main.default_tracker
    main.define(Unit("a"))
    first.remove()
    second = main.default_tracker
    assert second is not first
    main.define(Unit("a"))
    second.transfer_to(main.create_resource_tracker())
    assert main.default_tracker not in {first, second}
    session.remove_jitdylib(main)
    with pytest.raises(ResourceTrackerDefunctError):
        main.define(Unit("a"))


@pytest.mark.parametrize("is_resolved", [False, True])
def test_removal_during_materialization(
    session: ExecutionSession, main: JITDylib, manager: Manager, is_resolved: bool
) -> None:
    tracker = main.create_resource_tracker()
    unit = resource_unit(manager, "a", is_gated=True)
    main.define(unit, tracker)
    main.define(resource_unit(manager, "user", ("a",)))
    main.define(resource_unit(manager, "bystander"))
    lookups = {name: Pending(session, main, name) for name in ("a", "user", "bystander")}
    if is_resolved:
        session.run(unit.begin.open)
        settle(session)
    tracker.remove()
    settle(session)
    for name in ("a", "user"):
        error = lookups[name].error
        assert isinstance(error, FailedToMaterializeError)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ResourceTrackerDefunctError):
            cause = cause.__cause__
        assert cause is not None
    assert isinstance(lookups["bystander"].result, dict)
    open_gates(session, unit)
    # The link itself has released what no manager held yet.
    assert manager.log.count("a abandoned") == 1
    assert "manager releases a" not in manager.log


def test_removal_ends_the_lookups_of_the_link(
    session: ExecutionSession, main: JITDylib, manager: Manager
) -> None:
    tracker = main.create_resource_tracker()
    slow = Unit("slow", is_gated=True)
    main.define(slow)
    main.define(resource_unit(manager, "a", ("slow",)), tracker)
    pending = Pending(session, main, "a")
    tracker.remove()
    settle(session)
    assert manager.log == ["a abandoned"]
    assert isinstance(pending.error, FailedToMaterializeError)
    open_gates(session, slow)
    assert session.lookup(main, "slow").keys() == {"slow"}


def test_removal_of_symbols_that_wait_for_each_other(
    session: ExecutionSession, main: JITDylib
) -> None:
    tracker = main.create_resource_tracker()
    slow = Unit("slow", is_gated=True)
    main.define(slow)
    main.define(Unit("a", ["b", "slow"]), tracker)
    main.define(Unit("b c", {"b": ["a"]}))
    pending = Pending(session, main, ["slow", "b"])
    session.run(slow.begin.open)
    settle(session)
    assert state_of(main, "b") is SymbolState.EMITTED
    tracker.remove()
    settle(session)
    assert isinstance(pending.error, FailedToMaterializeError)
    assert pending.error.symbols == {"main": ("a", "b")}
    open_gates(session, slow)
    assert session.lookup(main, ["slow", "c"]).keys() == {"slow", "c"}


def test_a_lookup_of_what_was_removed_meanwhile(session: ExecutionSession, main: JITDylib) -> None:
    tracker = main.create_resource_tracker()
    slow = Unit("slow", is_gated=True)
    main.define(slow)
    main.define(Unit("ready"), tracker)
    session.lookup(main, "ready")
    pending = Pending(session, main, ["ready", "slow"])
    tracker.remove()
    open_gates(session, slow)
    assert isinstance(pending.error, FailedToMaterializeError)
    assert pending.error.symbols == {"main": ("ready",)}
    assert isinstance(pending.error.__cause__, ResourceTrackerDefunctError)


def test_transfer(session: ExecutionSession, main: JITDylib, manager: Manager) -> None:
    trackers = [main.create_resource_tracker() for _ in range(3)]
    early, late = resource_unit(manager, "early"), resource_unit(manager, "late", is_gated=True)
    main.define(early, trackers[0])
    main.define(late, trackers[0])
    session.lookup(main, "early")
    pending = Pending(session, main, "late")
    trackers[0].transfer_to(trackers[1])
    trackers[1].transfer_to(trackers[1])
    trackers[1].transfer_to(trackers[2])
    assert [tracker.is_defunct for tracker in trackers] == [True, True, False]
    open_gates(session, late)
    assert isinstance(pending.result, dict)
    # A defunct tracker does not own what it has transferred.
    trackers[0].remove()
    assert manager.log == []
    trackers[2].remove()
    assert manager.log == ["manager releases early", "manager releases late"]
    with pytest.raises(ValueError, match="another JITDylib"):
        main.default_tracker.transfer_to(session.create_jitdylib("other").default_tracker)


def test_a_long_chain_of_transfers(session: ExecutionSession, main: JITDylib) -> None:
    first = last = main.create_resource_tracker()
    unit = Unit("a", is_gated=True)
    main.define(unit, first)
    pending = Pending(session, main, "a")
    for _ in range(3000):
        following = main.create_resource_tracker()
        last.transfer_to(following)
        last = following
    assert first.current is last
    open_gates(session, unit)
    assert isinstance(pending.result, dict)
    assert session.run(lambda: list(main.trackers)) == [last]


def test_resources_are_told_apart_by_identity(main: JITDylib) -> None:
    held: TrackedResources[list[int]] = TrackedResources()
    key = main.default_tracker
    first, second = [1], [1]
    for resource in (first, second, first):
        held.add(key, resource)
    held.discard(key, [1])
    assert list(map(id, held)) == list(map(id, held.under(key))) == [id(first), id(second)]
    held.discard(key, first)
    assert held.under(key)[0] is second
    held.discard(key, second)
    held.discard(key, second)
    assert not held.keys
    assert not held.take(key)


def test_resources_follow_their_trackers(session: ExecutionSession, main: JITDylib) -> None:
    held: TrackedResources[list[int]] = TrackedResources()
    session.register_resource_manager(held)
    keys = [main.create_resource_tracker() for _ in range(3)]
    for number, key in enumerate(keys):
        held.add(key, [number])
    keys[0].transfer_to(keys[1])
    assert held.keys == keys[1:]
    assert held.under(keys[1]) == [[1], [0]]
    last = main.create_resource_tracker()
    keys[2].transfer_to(last)
    keys[1].remove()
    assert list(held) == [[2]]
    last.remove()
    assert held.keys == []


def test_all_managers_are_notified_last_first(session: ExecutionSession, main: JITDylib) -> None:
    log: list[str] = []
    managers = [Manager(name, log) for name in ("one", "two", "three")]
    tracker, other = main.create_resource_tracker(), main.create_resource_tracker()
    for manager in managers:
        session.register_resource_manager(manager)
        manager.held[tracker] = ["it"]
    errors = [RuntimeError("first"), ValueError("second")]
    managers[2].error, managers[1].error = errors
    uses: list[Callable[[], None]] = [lambda: tracker.transfer_to(other), other.remove]
    for use in uses:
        with pytest.raises(RuntimeError, match="first") as caught:
            use()
        assert caught.value is errors[0]
        assert "second" in caught.value.__notes__
    assert log == ["three releases it", "two releases it", "one releases it"]
    assert not any(manager.held for manager in managers)
    assert other.is_defunct
    for manager in managers:
        session.deregister_resource_manager(manager)


def test_removal_of_symbols(session: ExecutionSession, main: JITDylib, manager: Manager) -> None:
    busy, unsearched = Unit("busy", is_gated=True), Unit({"p": WEAK, "q": WEAK})
    for unit in (busy, unsearched, resource_unit(manager, "ready")):
        main.define(unit)
    session.lookup(main, "ready")
    pending = Pending(session, main, "busy")
    with pytest.raises(SymbolsCouldNotBeRemovedError) as caught:
        main.remove(["busy", "p", "ready"])
    assert (caught.value.dylib, caught.value.names) == ("main", ("busy",))
    assert str(caught.value) == "busy in main cannot be removed while being materialized"
    with pytest.raises(UndefinedSymbolError) as undefined:
        main.remove(["x", "p", "y"])
    assert undefined.value.names == ("x", "y")
    main.remove(["p", "ready"])
    assert unsearched.discarded == ["p"]
    assert manager.log == []
    assert session.lookup(main, "q").keys() == {"q"}
    open_gates(session, busy)
    assert isinstance(pending.result, dict)
    main.clear()
    assert manager.log == ["manager releases ready"]
    assert main.symbols == {}


@pytest.mark.serial("counts allocated blocks")
def test_many_rounds_leave_nothing_allocated(session: ExecutionSession, main: JITDylib) -> None:
    def once(number: int) -> None:
        tracker = main.create_resource_tracker()
        main.define(Unit("a x", {"a": ["b"], "x": ["a"]}), tracker)
        main.define(Unit("b"), tracker)
        session.lookup(main, ["a", "x"])
        if number % 2:
            tracker.transfer_to(main.default_tracker)
            main.default_tracker.remove()
        else:
            tracker.remove()

    for number in range(100):
        once(number)
    settle(session)
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(20_000 if IS_LONG else 1_500):
        once(number)
    settle(session)
    gc.collect()
    assert sys.getallocatedblocks() - before < 500
    assert not main.symbols
    assert not main.trackers
    assert not main.default_tracker.definitions
    assert not session.queries
