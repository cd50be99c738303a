"""The sections of a graph: columns of their names, protections and lifetimes, by ordinal.

A section's ordinal is its position in `SectionList`, and blocks refer to their section by it,
so operations that change the order also renumber the `section` column of the block table.
Objects with a section per function have as many sections as symbols: a `Section` is created on
access, and is the same object for as long as it is referenced.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import Int64Array, UInt8Array
from jitlink.graph.elements import Block, Section
from jitlink.graph.tables import MEM_LIFETIMES, MEM_PROTS, MemLifetime, MemProt

if TYPE_CHECKING:
    from jitlink.graph.link_graph import LinkGraph

NO_SECTION = -1
_FUNCTIONS = ".text"
_FEW = 512
_EXEC = int(MemProt.EXEC)


class NameBeginnings:
    """Prefixes of section names, for finding all sections of a graph that have one of them.

    Args:
        texts: the prefixes; none may begin with ``.text``.

    Raises:
        ValueError: one does.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(texts)
        if any(text.startswith(_FUNCTIONS) for text in self._texts):
            raise ValueError(f"a prefix that begins with {_FUNCTIONS} is never found")

    def ordinals(self, sections: SectionList) -> list[int]:
        """Ordinals of the sections whose names have one of the prefixes, in order."""
        names = sections.names
        if len(names) <= _FEW:
            return self._search(names, 0)
        # Objects are read batch by batch, and several passes search all sections.
        searched, found = sections.searched.get(self, (0, []))
        if searched < len(names):
            found = [*found, *self._search(names[searched:], searched)]
            sections.searched[self] = len(names), found
        return list(found)

    def _search(self, names: Sequence[str], first: int) -> list[int]:
        """Ordinals of those of some names that have one of the prefixes, from `first` on."""
        if len(names) > _FEW and not self._occur_in(names):
            return []
        texts = self._texts
        return [n for n, name in enumerate(names, first) if name.startswith(texts)]

    def _occur_in(self, names: Sequence[str]) -> bool:
        # Graphs of many sections have mostly those of single functions, which this skips fast.
        alternatives = "|".join(map(re.escape, self._texts))
        pattern = re.compile(f"\n(?!{re.escape(_FUNCTIONS)})(?:{alternatives})")
        return pattern.search("\n" + "\n".join(names)) is not None


def distinct_contents(graph: LinkGraph, section_name: str) -> Iterator[tuple[Block, bytes]]:
    """The distinct contents of all sections of a name, each with the first block that has it.

    Every object has notes and attributes of its own, and most of them are the same.
    """
    known: set[bytes] = set()
    for ordinal in graph.section_list.ordinals_named(section_name):
        for block in graph.section_list[ordinal].blocks:
            content = b"" if block.is_zero_fill else bytes(block.content)
            if content not in known:
                known.add(content)
                yield block, content


class SectionList:
    """All sections of one graph by ordinal.

    Attributes:
        searched: for `NameBeginnings`, how many sections were searched, and which were found.
    """

    __slots__ = (
        "_first", "_handles", "_lifetimes", "_names", "_owner", "_prots", "_shared", "searched",
    )  # fmt: skip

    def __init__(self, graph: LinkGraph) -> None:
        # Weak, like the references to the sections below: a graph without reference cycles is
        # freed as soon as the last reference to it is dropped.
        self._owner = weakref.ref(graph)
        self._names: list[str] = []
        # Values of `MemProt` and `MemLifetime`.
        self._prots = bytearray()
        self._lifetimes = bytearray()
        self._handles: weakref.WeakValueDictionary[int, Section] = weakref.WeakValueDictionary()
        # Only names are indexed: a section's protection and lifetime may be changed. The index
        # is built on first use, because many graphs need none. `_first` maps a name to its first
        # section, `_shared` a name that several sections have to all of them.
        self._first: dict[str, int] | None = None
        self._shared: dict[str, list[int]] = {}
        self.searched: dict[NameBeginnings, tuple[int, list[int]]] = {}

    @property
    def _graph(self) -> LinkGraph:
        graph = self._owner()
        if graph is None:
            raise GraphError("the graph of these sections has been freed")
        return graph

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, ordinal: int) -> Section:
        section = self._handles.get(ordinal)
        if section is None:
            section = Section(self._graph, self._names[ordinal], ordinal)
            self._handles[ordinal] = section
        return section

    def __iter__(self) -> Iterator[Section]:
        return map(self.__getitem__, range(len(self)))

    # Columns

    @property
    def names(self) -> Sequence[str]:
        """Names of all sections, by ordinal."""
        return self._names

    def prots(self) -> UInt8Array:
        """Protections (uint8, `MemProt`) of all sections, by ordinal."""
        # A copy: an array over the column itself would keep it from growing.
        return np.frombuffer(bytes(self._prots), np.uint8)

    def lifetimes(self) -> UInt8Array:
        """Lifetimes (uint8, `MemLifetime`) of all sections, by ordinal."""
        return np.frombuffer(bytes(self._lifetimes), np.uint8)

    def prot(self, section: Section) -> MemProt:
        """A section's protection."""
        self.check_owner(section)
        return MEM_PROTS[self._prots[section.ordinal]]

    def is_executable(self, ordinal: int) -> bool:
        """Whether the protection of the section of an ordinal includes execution."""
        return self._prots[ordinal] & _EXEC != 0

    def set_prot(self, section: Section, mem_prot: MemProt) -> None:
        """Change a section's protection."""
        self.check_owner(section)
        self._prots[section.ordinal] = mem_prot

    def lifetime(self, section: Section) -> MemLifetime:
        """A section's lifetime."""
        self.check_owner(section)
        return MEM_LIFETIMES[self._lifetimes[section.ordinal]]

    def set_lifetime(self, section: Section, lifetime: MemLifetime) -> None:
        """Change a section's lifetime."""
        self.check_owner(section)
        self._lifetimes[section.ordinal] = lifetime

    # Sections by name

    def _index(self) -> dict[str, int]:
        if self._first is None:
            count = len(self)
            self._first = dict(zip(reversed(self._names), range(count - 1, -1, -1), strict=True))
            self._shared = {}
            if len(self._first) < count:
                for ordinal, name in enumerate(self._names):
                    self._share(self._first, name, ordinal)
        return self._first

    def _share(self, first: dict[str, int], name: str, ordinal: int) -> None:
        earliest = first.setdefault(name, ordinal)
        if earliest != ordinal:
            self._shared.setdefault(name, [earliest]).append(ordinal)

    def ordinals_named(self, name: str) -> list[int]:
        """Ordinals of all sections of that name, in order."""
        first = self._index().get(name)
        if first is None:
            return []
        return self._shared.get(name) or [first]

    def find(self, name: str, mem_prot: MemProt, lifetime: MemLifetime) -> Section | None:
        """A section that currently has this name, protection and lifetime, or None."""
        ordinal = self._find(name, mem_prot, lifetime)
        return None if ordinal is None else self[ordinal]

    def _find(self, name: str, prot: int, lifetime: int) -> int | None:
        for ordinal in self.ordinals_named(name):
            if self._prots[ordinal] == prot and self._lifetimes[ordinal] == lifetime:
                return ordinal
        return None

    def find_by_name(self, name: str) -> Section | None:
        """The first section of that name, or None."""
        first = self._index().get(name)
        return None if first is None else self[first]

    # Changes

    def create(self, name: str, mem_prot: MemProt, lifetime: MemLifetime) -> Section:
        """Add a section at the end."""
        ordinal = len(self)
        self.extend([name], bytes([mem_prot]), bytes([lifetime]))
        return self[ordinal]

    def obtain(self, names: Sequence[str], prots: bytes, lifetimes: bytes) -> Int64Array:
        """Ordinals (int64) of sections with these properties; missing ones are added at the end.

        Args:
            names: their names, of which some may be equal.
            prots: their protections, one byte (`MemProt`) each.
            lifetimes: their lifetimes, one byte (`MemLifetime`) each.
        """
        if not self._names:
            fresh = dict(zip(names, range(len(names)), strict=True))
            if len(fresh) == len(names):
                # The usual case, whose index is that of all sections.
                self.extend(names, prots, lifetimes)
                self._first = fresh
                return np.arange(len(names))
        first, known_prots, known_lifetimes = self._index(), self._prots, self._lifetimes
        ordinals = []
        for name, prot, lifetime in zip(names, prots, lifetimes, strict=True):
            ordinal = first.get(name)
            if ordinal is not None and (
                known_prots[ordinal] != prot or known_lifetimes[ordinal] != lifetime
            ):
                ordinal = self._find(name, prot, lifetime)
            if ordinal is None:
                ordinal = len(self._names)
                self._share(first, name, ordinal)
                self._names.append(name)
                known_prots.append(prot)
                known_lifetimes.append(lifetime)
            ordinals.append(ordinal)
        return np.array(ordinals, np.int64)

    def extend(self, names: Sequence[str], prots: bytes, lifetimes: bytes) -> None:
        """Add sections at the end.

        Args:
            names: their names.
            prots: their protections, one byte (`MemProt`) each.
            lifetimes: their lifetimes, one byte (`MemLifetime`) each.
        """
        if self._first is not None:
            for ordinal, name in enumerate(names, len(self)):
                self._share(self._first, name, ordinal)
        self._names += names
        self._prots += prots
        self._lifetimes += lifetimes

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
        """Move a section to another ordinal; the ordinals of those between shift by one."""
        self.check_owner(section)
        if not 0 <= ordinal < len(self):
            raise GraphError(f"section ordinal {ordinal} is not below {len(self)}")
        order = list(range(len(self)))
        order.insert(ordinal, order.pop(section.ordinal))
        self._reorder(order)

    def merge(self, destination: Section, source: Section) -> None:
        """Move all blocks of one section into another."""
        self.check_owner(destination)
        self.check_owner(source)
        self._graph.block_table.section[source.block_rows()] = destination.ordinal

    def discard(self, section: Section) -> None:
        """Remove an empty section; the ordinals of later ones decrease by one."""
        self.check_owner(section)
        if not section.empty:
            raise GraphError(f"section {section.name} still has blocks")
        order = list(range(len(self)))
        del order[section.ordinal]
        self._reorder(order)

    def _reorder(self, order: list[int]) -> None:
        """Keep the sections with these ordinals, in this order."""
        # Rows of removed blocks may name a removed section: they get an arbitrary one.
        moved = np.zeros(len(self), np.int32)
        moved[order] = np.arange(len(order))
        kept = set(order)
        handles = list(self._handles.items())
        self._handles.clear()
        for old, section in handles:
            section.ordinal = int(moved[old]) if old in kept else NO_SECTION
            if section.ordinal != NO_SECTION:
                self._handles[section.ordinal] = section
        self._names = [self._names[ordinal] for ordinal in order]
        self._prots = bytearray(self._prots[ordinal] for ordinal in order)
        self._lifetimes = bytearray(self._lifetimes[ordinal] for ordinal in order)
        self._first = None
        self.searched.clear()
        column = self._graph.block_table.section
        column[:] = moved[column]
