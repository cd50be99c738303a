"""Suggestions for undefined symbols: similar names that the search could have found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jitlink.graph import LinkGraph
from jitlink.graph.tables import exported_rows
from jitlink.names.spelling import closest_spelling
from jitlink.names.versions import split

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib

_MOST = 3
"""For how many names suggestions are searched."""


@runtime_checkable
class EnumerableGenerator(Protocol):
    """A definition generator that can enumerate the names that it could define."""

    def known_names(self) -> Iterable[str]:
        """The names."""


def suggestions(
    names: Iterable[str], dylib: JITDylib, graph: LinkGraph | None = None
) -> dict[str, str]:
    """Existing names that are similar to missing ones; on the driver thread.

    Args:
        names: the missing names; suggestions are searched for the first few.
        dylib: the JITDylib whose link order was searched.
        graph: the graph that was being linked, whose own definitions are candidates too.

    Returns:
        An existing name for each missing one that has a similar one.
    """
    # A misspelt version is not advised: all versions are listed.
    missing = [name for name in names if split(name) is None]
    candidates = set(_candidates(dylib, graph)).difference(missing)
    found = {name: closest_spelling(name, candidates) for name in missing[:_MOST]}
    return {name: other for name, other in found.items() if other is not None}


async def available_versions(
    names: Iterable[str], dylib: JITDylib, graph: LinkGraph | None = None
) -> dict[str, list[str]]:
    """The versions that exist of missing versions; on the driver thread.

    Args:
        names: the missing names; those without a version are left out.
        dylib: the JITDylib whose link order was searched.
        graph: the graph that was being linked, whose own definitions count, too.

    Returns:
        Versions of the symbol for each of the names; none if there is no symbol of that name.
    """
    plain = {name: parts.plain for name in names if (parts := split(name)) is not None}
    if not plain:
        return {}
    found: dict[str, list[str]] = {each: [] for each in plain.values()}
    for name in dict.fromkeys(_candidates(dylib, graph)):
        parts = split(name)
        if parts is not None and parts.plain in found:
            found[parts.plain].append(parts.version)
    for each in found:
        found[each] += await dylib.session.executor.symbol_versions(each)
    return {name: list(dict.fromkeys(found[each])) for name, each in plain.items()}


def _candidates(dylib: JITDylib, graph: LinkGraph | None) -> Iterator[str]:
    for searched, _ in dylib.link_order:
        # No object can refer to a name that contains a null.
        yield from (name for name in searched.symbols if "\0" not in name)
        for generator in searched.generators:
            if isinstance(generator, EnumerableGenerator):
                yield from generator.known_names()
    if graph is not None:
        table = graph.symbol_table
        yield from graph.strings.get_many(table.name[exported_rows(table)])
