"""What a missing symbol may have been meant to be: the names that a search could have found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jitlink.graph import LinkGraph
from jitlink.graph.tables import exported_rows
from jitlink.names.spelling import closest_spelling

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib

_MOST = 3
"""For how many names one is looked for."""


@runtime_checkable
class KnowsNames(Protocol):
    """A definition generator that can tell which names it could define."""

    def known_names(self) -> Iterable[str]:
        """The names."""


def suggestions(
    names: Iterable[str], dylib: JITDylib, graph: LinkGraph | None = None
) -> dict[str, str]:
    """Names like some that are missing; on the session's thread.

    Args:
        names: the missing ones, of which only the first few are looked at.
        dylib: whose link order was searched.
        graph: what was being linked, whose own definitions count too.

    Returns:
        By missing name one that exists.
    """
    missing = list(names)
    candidates = set(_candidates(dylib, graph)).difference(missing)
    found = {name: closest_spelling(name, candidates) for name in missing[:_MOST]}
    return {name: other for name, other in found.items() if other is not None}


def _candidates(dylib: JITDylib, graph: LinkGraph | None) -> Iterator[str]:
    for each, _ in dylib.link_order:
        # A name with a null in it is none that anybody could have written.
        yield from (name for name in each.symbols if "\0" not in name)
        for generator in each.generators:
            if isinstance(generator, KnowsNames):
                yield from generator.known_names()
    if graph is not None:
        table = graph.symbol_table
        yield from graph.strings.get_many(table.name[exported_rows(table)])
