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

from jitlink.orc.interface import MaterializationUnit, ResourceTracker, Symbols
from jitlink.orc.trackers import TrackedResources

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


class UnitRecord(TrackedResources[RecordedUnit]):
    """The units that were added to the JITDylibs of a session."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()

    def add_unit(self, unit: MaterializationUnit, tracker: ResourceTracker) -> None:
        """Record a unit that was added, unless it is generated."""
        if not unit.is_generated:
            self.add(tracker, RecordedUnit(next(self._numbers), unit, tracker))

    def drop_names(self, dylib: JITDylib, names: Iterable[str]) -> None:
        """Drop names of a JITDylib that are about to be overridden or removed."""
        by_tracker: dict[ResourceTracker, set[str]] = {}
        for name in names:
            by_tracker.setdefault(dylib.symbols[name].tracker, set()).add(name)
        for tracker, chosen in by_tracker.items():
            for recorded in self.under(tracker):
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
            for recorded in self.under(tracker)
            if not wanted.isdisjoint(recorded.symbols)
        ]

    def in_order(self) -> list[RecordedUnit]:
        """The units that still define something, in order of addition."""
        return sorted((each for each in self if each.symbols), key=lambda recorded: recorded.number)

    def transfer(self, destination: ResourceTracker, source: ResourceTracker) -> list[RecordedUnit]:
        """Record units under another tracker; returns them."""
        moved = super().transfer(destination, source)
        for recorded in moved:
            recorded.tracker = destination
        return moved
