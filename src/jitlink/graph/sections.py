"""The sections of a graph: their order, and the way to find them.

A section's ordinal is its position in `SectionList`, and blocks name their section by it, so
whatever changes the order also renumbers the `section` column of the block table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.elements import Section
from jitlink.graph.tables import MemLifetime, MemProt

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph

NO_SECTION = -1


class SectionList(list[Section]):
    """All sections of one graph by ordinal; only the methods here may add or remove any."""

    __slots__ = ("_graph", "_named")

    def __init__(self, graph: LinkGraph) -> None:
        super().__init__()
        self._graph = graph
        # Only names are indexed: a section's protection and lifetime may be changed. The
        # index is made when it is first asked for; most graphs have many sections and few
        # questions.
        self._named: dict[str, list[Section]] | None = None

    def _index(self) -> dict[str, list[Section]]:
        if self._named is None:
            self._named = {}
            for section in self:
                self._named.setdefault(section.name, []).append(section)
        return self._named

    def create(self, name: str, mem_prot: MemProt, lifetime: MemLifetime) -> Section:
        """Add a section at the end."""
        section = Section(self._graph, name, mem_prot, lifetime, len(self))
        super().append(section)
        if self._named is not None:
            self._named.setdefault(name, []).append(section)
        return section

    def find(self, name: str, mem_prot: MemProt, lifetime: MemLifetime) -> Section | None:
        """A section of this name that now has this protection and lifetime, or None."""
        for section in self._index().get(name, ()):
            if section.mem_prot == mem_prot and section.mem_lifetime == lifetime:
                return section
        return None

    def find_by_name(self, name: str) -> Section | None:
        """The first section of that name, or None."""
        named = self._index().get(name, ())
        return min(named, key=lambda section: section.ordinal, default=None)

    def check_owner(self, section: Section) -> None:
        """Check that a section is one of these.

        Raises:
            GraphError: it is another graph's, or has been removed.
        """
        if section.graph is not self._graph:
            raise GraphError(f"section {section.name} belongs to another graph")
        if section.ordinal == NO_SECTION:
            raise GraphError(f"section {section.name} has been removed")

    def move(self, section: Section, ordinal: int) -> None:
        """Give a section another place; those between make room."""
        self.check_owner(section)
        if not 0 <= ordinal < len(self):
            raise GraphError(f"section ordinal {ordinal} is not below {len(self)}")
        super().insert(ordinal, super().pop(section.ordinal))
        moved = np.empty(len(self), np.int32)
        for place, each in enumerate(self):
            moved[each.ordinal] = place
            each.ordinal = place
        column = self._graph.block_table.section
        column[:] = moved[column]

    def merge(self, destination: Section, source: Section) -> None:
        """Move all blocks of one section into another."""
        self.check_owner(destination)
        self.check_owner(source)
        self._graph.block_table.section[source.block_rows()] = destination.ordinal

    def discard(self, section: Section) -> None:
        """Remove an empty section; later ones move up by one."""
        self.check_owner(section)
        if not section.empty:
            raise GraphError(f"section {section.name} still has blocks")
        removed = section.ordinal
        super().__delitem__(removed)
        self._index()[section.name].remove(section)
        for later in self[removed:]:
            later.ordinal -= 1
        section.ordinal = NO_SECTION
        column = self._graph.block_table.section
        # Blocks that were removed from it are still rows: any section will do for them.
        column[column == removed] = 0
        column[column > removed] -= 1
