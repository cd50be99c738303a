"""Visibility of the definitions of a JITDylib: the most constraining of all symbols of a name.

A definition is not exported if a reference to it in an object of the JITDylib is hidden, or another
definition of the name, which it overrides or which a COMDAT group has. What was linked before the
constraint was known stays linked. A constraint ends when the object's tracker is removed:
definitions that are added after that are exported.

LLVM differs: there, the visibility of references has no influence.

Specification: System V gABI, chapter 4, "Symbol table": "If different visibility attributes are
specified for distinct references to or definitions of a symbol, the most constraining visibility
attribute must be propagated to the resolving symbol".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Protocol

from jitlink.orc.interface import JITSymbolFlags

if TYPE_CHECKING:
    from jitlink.orc.interface import ResourceTracker

Symbols = Mapping[str, JITSymbolFlags]


class _Definition(Protocol):
    """A `Definition` of a JITDylib."""

    flags: Symbols


class HiddenNames:
    """The names that a JITDylib does not export, and the trackers whose objects constrain them."""

    def __init__(self) -> None:
        self._names_of: dict[ResourceTracker, set[str]] = {}
        # How many trackers constrain each name.
        self._counts: dict[str, int] = {}

    @property
    def names(self) -> AbstractSet[str]:
        """The names."""
        return self._counts.keys()

    def add(self, names: AbstractSet[str], tracker: ResourceTracker) -> None:
        """Record names that objects of a tracker constrain."""
        if names:
            known, counts = self._names_of.setdefault(tracker, set()), self._counts
            for name in names - known:
                counts[name] = counts.get(name, 0) + 1
            known |= names

    def remove(self, tracker: ResourceTracker) -> set[str]:
        """Forget the constraints of a tracker; returns their names."""
        names, counts = self._names_of.pop(tracker, set[str]()), self._counts
        for name in names:
            counts[name] -= 1
            if not counts[name]:
                del counts[name]
        return names

    def transfer(self, destination: ResourceTracker, source: ResourceTracker) -> None:
        """Transfer the constraints of one tracker to another."""
        self.add(self.remove(source), destination)


def constrained(symbols: Symbols, hidden: AbstractSet[str]) -> Symbols:
    """Names with flags, which do not export those that are hidden."""
    if not hidden or hidden.isdisjoint(symbols):
        return symbols
    exported = JITSymbolFlags.EXPORTED
    return {name: f & ~exported if name in hidden else f for name, f in symbols.items()}


def hidden_by_either(
    existing: Mapping[str, _Definition], added: Symbols, names: Iterable[str]
) -> set[str]:
    """Those of some names with two definitions of which one is not exported.

    Args:
        existing: the existing definitions.
        added: the names that are to be added, with flags.
        names: names that are in both.
    """
    return {
        name
        for name in names
        if not (added[name].is_exported and existing[name].flags[name].is_exported)
    }
