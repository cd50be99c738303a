"""Visibility of the definitions of a JITDylib: the most constraining of all symbols of a name.

A definition is not exported if a reference to it in an object of the JITDylib is hidden, or another
definition of the name, which it overrides or which a COMDAT group has. What was linked before the
constraint was known stays linked.

LLVM differs: there, the visibility of references has no influence.

Specification: System V gABI, chapter 4, "Symbol table": "If different visibility attributes are
specified for distinct references to or definitions of a symbol, the most constraining visibility
attribute must be propagated to the resolving symbol".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from jitlink.orc.interface import JITSymbolFlags

Symbols = Mapping[str, JITSymbolFlags]


class _Definition(Protocol):
    """A `Definition` of a JITDylib."""

    flags: Symbols


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
