"""Default versions of symbols in ELF objects: see `jitlink.names.versions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jitlink.names.versions import split


class GlobalSymbol(NamedTuple):
    """A global symbol of a symbol table.

    Attributes:
        entry: index of its symbol-table entry.
        name: its name in the file.
        place: object, block and value of a definition; None for a reference.
    """

    entry: int
    name: str
    place: tuple[int, int, int] | None


class DefaultVersions(NamedTuple):
    """What default versions change.

    Attributes:
        names: the new names of entries.
        added: names of further definitions, by the entries that they are copies of, ascending.
    """

    names: Mapping[int, str]
    added: Mapping[int, str]


def default_versions(symbols: Iterable[GlobalSymbol]) -> DefaultVersions:
    """The names for symbols with a default version, of all symbols in order of their entries."""
    symbols = list(symbols)
    plain = {(each.name, each.place) for each in symbols if each.place is not None}
    names: dict[int, str] = {}
    added: dict[int, str] = {}
    for each in symbols:
        parts = split(each.name)
        if parts is None or not parts.is_default:
            continue
        if each.place is None or (parts.plain, each.place) in plain:
            names[each.entry] = parts.of_version
        else:
            names[each.entry], added[each.entry] = parts.plain, parts.of_version
    return DefaultVersions(names, added)
