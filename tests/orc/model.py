"""A model of sessions: it derives everything from the states of all symbols, again and again.

The model has the state of each symbol and its dependencies, and derives from these, without other
data of its own, which symbols are ready, which have failed, and which lookups are done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jitlink.orc import JITDylib, JITSymbolFlags, ResourceTracker, SymbolState
from tests.orc.units import EXPORTED, Unit

READY, RESOLVED = SymbolState.READY, SymbolState.RESOLVED


@dataclass(eq=False)
class ModelUnit:
    """A unit and its progress."""

    unit: Unit
    dylib: ModelDylib
    tracker: ModelTracker
    stage: str = "unsearched"
    may_begin: bool = False
    may_end: bool = False
    looked_up: ModelLookup | None = None


@dataclass(eq=False)
class ModelSymbol:
    """A symbol; until it is emitted, its progress is that of its unit."""

    name: str
    unit: ModelUnit
    flags: JITSymbolFlags
    state: SymbolState = SymbolState.NEVER_SEARCHED
    failed: bool = False
    removed: bool = False
    needs: list[ModelSymbol] = field(default_factory=list)


@dataclass(eq=False)
class ModelLookup:
    """A lookup; `thread` is None for those of units."""

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
    """A JITDylib, its expected table, and its link order."""

    real: JITDylib
    default: ModelTracker
    table: dict[str, ModelSymbol] = field(default_factory=dict)
    order: list[tuple[ModelDylib, bool]] = field(default_factory=list)


class Model:
    """A session.

    Attributes:
        dylibs: its JITDylibs.
        units: the units that were added.
        lookups: the lookups whose results were not compared yet.
    """

    def __init__(self) -> None:
        self.dylibs: list[ModelDylib] = []
        self.units: list[ModelUnit] = []
        self.lookups: list[ModelLookup] = []

    def search(
        self, order: list[tuple[ModelDylib, bool]], names: Iterable[str]
    ) -> dict[str, ModelSymbol]:
        """The symbols that names match in a search order."""
        found = {}
        for name in names:
            for dylib, sees_all in order:
                symbol = dylib.table.get(name)
                if symbol is not None and (sees_all or symbol.flags & EXPORTED):
                    found[name] = symbol
                    break
        return found

    def look_up(self, found: dict[str, ModelSymbol], level: SymbolState) -> ModelLookup:
        """Start a lookup of symbols that were found."""
        lookup = ModelLookup(found, level)
        if any(symbol.failed for symbol in found.values()):
            lookup.outcome = "failed"
            return lookup
        lookup.reached = {name for name, symbol in found.items() if symbol.state >= level}
        # Symbols that have reached the state already are not waited for.
        for symbol in found.values():
            if symbol.unit.stage == "unsearched":
                self._begin(symbol.unit)
        return lookup

    def symbols_of(self, unit: ModelUnit) -> list[ModelSymbol]:
        """The symbols of a unit that are defined."""
        return [symbol for symbol in unit.dylib.table.values() if symbol.unit is unit]

    def _begin(self, unit: ModelUnit) -> None:
        unit.stage = "begun"
        for symbol in self.symbols_of(unit):
            symbol.state = SymbolState.MATERIALIZING

    def _fail_unit(self, unit: ModelUnit) -> None:
        unit.stage = "failed"
        for symbol in self.symbols_of(unit):
            symbol.failed = True

    def settle(self) -> None:
        """Step until nothing changes any more."""
        while self._step():
            pass

    def _step(self) -> bool:
        """Make one change, if possible; lookups are updated after each of them."""
        return (
            any(self._step_lookup(lookup) for lookup in self._all_lookups())
            or any(self._step_unit(unit) for unit in self.units)
            or self._step_symbols()
        )

    def _all_lookups(self) -> list[ModelLookup]:
        return self.lookups + [unit.looked_up for unit in self.units if unit.looked_up]

    def _step_unit(self, unit: ModelUnit) -> bool:
        symbols = self.symbols_of(unit)
        if unit.stage == "begun" and unit.may_begin:
            for symbol in symbols:
                symbol.state = RESOLVED
            unit.stage = "resolved"
            return True
        if unit.stage == "resolved":
            names = {need for symbol in symbols for need in unit.unit.needs[symbol.name]}
            found = self.search(unit.dylib.order, names)
            if len(found) < len(names):
                self._fail_unit(unit)
                return True
            unit.stage = "linking"
            unit.looked_up = self.look_up(found, RESOLVED)
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
            current = symbol.unit.dylib.table.get(name)
            usable = current and not current.failed and current.state > SymbolState.NEVER_SEARCHED
            if current is None or not usable:
                self._fail_unit(unit)
                return
            needed[name] = current
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
                if any(need.state < READY and need not in ready for need in symbol.needs)
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
            current = symbol.unit.dylib.table.get(name)
            if current is None or current.failed or current.state < lookup.level:
                lookup.outcome = "failed"
                return True
            lookup.found[name] = current
        lookup.outcome = "done"
        return True

    def drop(self, symbol: ModelSymbol) -> None:
        """Remove a symbol."""
        symbol.removed = True
        del symbol.unit.dylib.table[symbol.name]
