"""The sections of a graph: columns of their names, protections and lifetimes, by ordinal.

A section's ordinal is its position in `SectionList`, and blocks refer to their section by it,
so operations that change the order also renumber the `section` column of the block table.
Objects with a section per function have as many sections as symbols: a `Section` is created on
access, and is the same object for as long as it is referenced. Names may be references, which are
read when one asks for them: passes ask for names that those of functions do not begin like.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import Int64Array, UInt8Array, rows_where
from jitlink.graph.elements import Block, Section
from jitlink.graph.strings import StringHeap
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
        # Objects are read batch by batch, and several passes search all sections.
        others = sections.others()
        searched, found = sections.searched.get(self, (0, []))
        if searched < len(others):
            names, texts = sections.read_names, self._texts
            found = found + [n for n in others[searched:] if names[n].startswith(texts)]
            sections.searched[self] = len(others), found
        return list(found)


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
        read_names: names of all sections, by ordinal; those of functions may be missing.
        searched: for `NameBeginnings`, how many of `others` were searched, and which were found.
    """

    __slots__ = (
        "_first", "_handles", "_lifetimes", "_others", "_owner", "_prots", "_shared", "_unread",
        "read_names", "searched",
    )  # fmt: skip

    def __init__(self, graph: LinkGraph) -> None:
        # Weak, like the references to the sections below: a graph without reference cycles is
        # freed as soon as the last reference to it is dropped.
        self._owner = weakref.ref(graph)
        self.read_names: list[str] = []
        # References of the names of the first sections, of which some are empty in `read_names`.
        self._unread: tuple[StringHeap, Int64Array] | None = None
        # How many sections were examined for `others`, and which are.
        self._others: tuple[int, list[int]] = (0, [])
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
        return len(self.read_names)

    def __getitem__(self, ordinal: int) -> Section:
        section = self._handles.get(ordinal)
        if section is None:
            section = Section(self._graph, self.name(ordinal), ordinal)
            self._handles[ordinal] = section
        return section

    def __iter__(self) -> Iterator[Section]:
        return map(self.__getitem__, range(len(self)))

    # Columns

    @property
    def names(self) -> Sequence[str]:
        """Names of all sections, by ordinal."""
        if self._unread is not None:
            (strings, references), self._unread = self._unread, None
            self.read_names[: len(references)] = strings.get_many(references)
        return self.read_names

    def name(self, ordinal: int) -> str:
        """The name of the section of an ordinal."""
        name = self.read_names[ordinal]
        if not name and self._unread is not None and ordinal < len(self._unread[1]):
            strings, references = self._unread
            return strings.get(int(references[ordinal]))
        return name

    def others(self) -> list[int]:
        """Ordinals of the sections whose names do not begin as those of functions do, in order."""
        examined, found = self._others
        if examined == len(self):
            return found
        names = self.read_names
        if self._unread is not None and examined < len(self._unread[1]):
            strings, references = self._unread
            rows = rows_where(~strings.begin_with(references, _FUNCTIONS))
            found, examined = rows.tolist(), len(references)
            for ordinal, name in zip(found, strings.get_many(references[rows]), strict=True):
                names[ordinal] = name
        added = enumerate(names[examined:], examined)
        found = found + [n for n, name in added if not name.startswith(_FUNCTIONS)]
        self._others = len(self), found
        return found

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
            count, names = len(self), self.names
            self._first = dict(zip(reversed(names), range(count - 1, -1, -1), strict=True))
            self._shared = {}
            if len(self._first) < count:
                for ordinal, name in enumerate(names):
                    self._share(self._first, name, ordinal)
        return self._first

    def _share(self, first: dict[str, int], name: str, ordinal: int) -> None:
        earliest = first.setdefault(name, ordinal)
        if earliest != ordinal:
            self._shared.setdefault(name, [earliest]).append(ordinal)

    def ordinals_named(self, name: str) -> list[int]:
        """Ordinals of all sections of that name, in order."""
        if self._unread is not None and len(self.others()) <= _FEW:
            return self._find_unread(name, *self._unread)
        first = self._index().get(name)
        if first is None:
            return []
        return self._shared.get(name) or [first]

    def _find_unread(self, name: str, strings: StringHeap, references: Int64Array) -> list[int]:
        """`ordinals_named` without reading names of functions."""
        names = self.read_names
        if not name.startswith(_FUNCTIONS):
            return [n for n in self.others() if names[n] == name]
        places = [rows_where(references == each) for each in strings.find(name).tolist()]
        found = sorted(n for rows in places for n in rows.tolist())
        return found + [n for n in range(len(references), len(names)) if names[n] == name]

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
        found = self.ordinals_named(name)
        return self[found[0]] if found else None

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
        if not self.read_names:
            fresh = dict(zip(names, range(len(names)), strict=True))
            if len(fresh) == len(names):
                # The usual case, whose index is that of all sections.
                self.extend(names, prots, lifetimes)
                self._first = fresh
                return np.arange(len(names))
        first = self._index()
        ordinals = np.fromiter(map(first.get, names, repeat(-1)), np.int64, len(names))
        new = rows_where(ordinals < 0).tolist()
        if new:
            # Of equal names the first one counts, so they are gone through from the end.
            rows = sorted({names[row]: row for row in reversed(new)}.values())
            self.extend(*_chosen(rows, names, prots, lifetimes))
            ordinals[new] = [first[names[row]] for row in new]
        differs = self.prots()[ordinals] != np.frombuffer(prots, np.uint8)
        differs |= self.lifetimes()[ordinals] != np.frombuffer(lifetimes, np.uint8)
        for row in rows_where(differs).tolist():
            ordinal = self._find(names[row], prots[row], lifetimes[row])
            if ordinal is None:
                ordinal = len(self)
                self.extend(*_chosen([row], names, prots, lifetimes))
            ordinals[row] = ordinal
        return ordinals

    def extend(self, names: Sequence[str], prots: bytes, lifetimes: bytes) -> None:
        """Add sections at the end.

        Args:
            names: their names.
            prots: their protections, one byte (`MemProt`) each.
            lifetimes: their lifetimes, one byte (`MemLifetime`) each.
        """
        if self._first is not None:
            fresh = dict(zip(names, range(len(self), len(self) + len(names)), strict=True))
            if len(fresh) == len(names) and self._first.keys().isdisjoint(fresh):
                self._first.update(fresh)
            else:
                for ordinal, name in enumerate(names, len(self)):
                    self._share(self._first, name, ordinal)
        self.read_names += names
        self._prots += prots
        self._lifetimes += lifetimes

    def extend_unread(
        self, strings: StringHeap, references: Int64Array, prots: bytes, lifetimes: bytes
    ) -> Int64Array:
        """Add the first sections, by references of their names; returns their ordinals (int64).

        Args:
            strings: the names of the graph.
            references: references (int64) of distinct names in one table.
            prots: their protections, one byte (`MemProt`) each.
            lifetimes: their lifetimes, one byte (`MemLifetime`) each.
        """
        self.extend([""] * len(references), prots, lifetimes)
        self._unread = strings, references
        return np.arange(len(references))

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
        names = self.names
        self.read_names = [names[ordinal] for ordinal in order]
        self._prots = bytearray(self._prots[ordinal] for ordinal in order)
        self._lifetimes = bytearray(self._lifetimes[ordinal] for ordinal in order)
        self._first, self._others = None, (0, [])
        self.searched.clear()
        column = self._graph.block_table.section
        column[:] = moved[column]


def _chosen(
    rows: Sequence[int], names: Sequence[str], prots: bytes, lifetimes: bytes
) -> tuple[list[str], bytes, bytes]:
    chosen = [names[row] for row in rows]
    return chosen, bytes([prots[row] for row in rows]), bytes([lifetimes[row] for row in rows])
