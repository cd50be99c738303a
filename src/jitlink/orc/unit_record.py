"""What was added to a session whose executor can be restarted.

Units are recorded by tracker, in order of addition, so that what a tracker owns is forgotten when
it is removed, and moves when it is transferred. Which unit prevails for a name was decided when it
was added, and is not decided again: names that were overridden or removed are dropped here, too.

Units that generators and platforms add again are not recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jitlink.orc.interface import MaterializationUnit, ResourceManager, ResourceTracker, Symbols

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib


class RecordedUnit:
    """A unit that was added.

    Attributes:
        number: its place among all units.
        unit: the unit.
        tracker: its owner.
        symbols: those of its names that have been neither overridden nor removed, with flags.
    """

    __slots__ = ("number", "symbols", "tracker", "unit")

    def __init__(self, number: int, unit: MaterializationUnit, tracker: ResourceTracker) -> None:
        self.number = number
        self.unit = unit
        self.tracker = tracker
        self.symbols: Symbols = unit.symbols

    def renewed(self) -> MaterializationUnit:
        """The unit once more."""
        return self.unit.renewed(self.symbols)


class UnitRecord(ResourceManager):
    """The units that were added to the JITDylibs of a session."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._units: dict[ResourceTracker, list[RecordedUnit]] = {}

    def add(self, unit: MaterializationUnit, tracker: ResourceTracker) -> None:
        """Record a unit that was added, unless it is generated."""
        if not unit.is_generated:
            recorded = RecordedUnit(next(self._numbers), unit, tracker)
            self._units.setdefault(tracker, []).append(recorded)

    def discard(self, dylib: JITDylib, names: Iterable[str]) -> None:
        """Drop names of a JITDylib that are about to be overridden or removed."""
        by_tracker: dict[ResourceTracker, set[str]] = {}
        for name in names:
            by_tracker.setdefault(dylib.symbols[name].tracker, set()).add(name)
        for tracker, chosen in by_tracker.items():
            for recorded in self._units.get(tracker, ()):
                if not chosen.isdisjoint(recorded.symbols):
                    kept = {n: f for n, f in recorded.symbols.items() if n not in chosen}
                    recorded.symbols = kept

    def units_of(self, dylib: JITDylib, names: Iterable[str]) -> list[MaterializationUnit]:
        """The units that define names of a JITDylib, as they were added."""
        wanted = set(names)
        trackers = {dylib.symbols[name].tracker for name in wanted}
        return [
            recorded.unit
            for tracker in trackers
            for recorded in self._units.get(tracker, ())
            if not wanted.isdisjoint(recorded.symbols)
        ]

    def in_order(self) -> list[RecordedUnit]:
        """The units that still define something, in order of addition."""
        every = [each for units in self._units.values() for each in units if each.symbols]
        return sorted(every, key=lambda recorded: recorded.number)

    def clear(self) -> None:
        """Forget all units."""
        self._units.clear()

    async def handle_remove_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        key: ResourceTracker,
    ) -> None:
        """Forget the units of a tracker."""
        self._units.pop(key, None)

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Record units under another tracker."""
        moved = self._units.pop(source, [])
        for recorded in moved:
            recorded.tracker = destination
        if moved:
            self._units.setdefault(destination, []).extend(moved)
