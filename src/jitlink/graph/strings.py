"""The names of a graph: string tables added as a whole, and decoded only where a name is read.

A name is an ``int64`` reference. References of zero and above are positions in a virtual
concatenation of string tables (NUL-terminated names, as ELF and COFF store them; the tables
are copied once, in bulk); references below `NO_NAME` are strings that were added one by one.

Names are text: bytes that are not UTF-8 are decoded to surrogate escapes, which encode to the
same bytes again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from jitlink.errors import GraphError
from jitlink.graph.columns import BoolArray, Int64Array, rows_where

NO_NAME = -1
_FIRST_STRING = -2
_FEW = 32
"""Up to this many names are read one by one, without finding the ends of all."""
_COPIES_SIZE = 1024
_COPIES_SHARE = 16
_PIECE = _COPIES_SIZE // 2
"""A name of at least `_COPIES_SIZE` bytes has a whole piece of this size."""


class _Table:
    """One string table. A name is a slice of its text, made when it is read.

    The table is not split into all its names: of an object's, linking reads about half. The names
    of its sections are mostly tails of those of their relocation sections.
    """

    __slots__ = ("_ends", "ascii", "text")

    def __init__(self, data: bytes) -> None:
        # Latin-1 maps bytes to characters one to one, so positions in both agree.
        self.text = data.decode("latin-1")
        self.ascii = self.text.isascii()
        self._ends: Int64Array | None = None

    def get(self, position: int) -> str:
        end = self.text.find("\0", position)
        return self._decode(self.text[position : end if end >= 0 else len(self.text)])

    def _decode(self, latin: str) -> str:
        if self.ascii:
            return latin
        return latin.encode("latin-1").decode("utf-8", "surrogateescape")

    def find(self, latin: str) -> Iterator[int]:
        """Positions at which a name of these bytes, as Latin-1 and without NUL, can be read."""
        ended = latin + "\0"
        position = self.text.find(ended)
        while position >= 0:
            yield position
            position = self.text.find(ended, position + len(ended))
        if self.text.endswith(latin):
            yield len(self.text) - len(latin)

    def get_many(self, positions: Int64Array) -> list[str]:
        """The names at many positions; a name that begins inside another one is allowed.

        Raises:
            GraphError: names overlap to an extent that no tool produces.
        """
        if self._ends is None:
            if len(positions) <= _FEW:
                return [self.get(position) for position in positions.tolist()]
            codes = np.frombuffer(self.text.encode("latin-1"), np.uint8)
            self._ends = np.append(rows_where(codes == 0), len(codes))
        ends = self._ends[self._ends.searchsorted(positions)]
        size = int((ends - positions).sum())
        if size > self._bound(len(positions)):
            return self._distinct(positions, ends)
        text = self.text
        names = [text[a:b] for a, b in zip(positions.tolist(), ends.tolist(), strict=True)]
        return names if self.ascii else [self._decode(name) for name in names]

    def has_short_names(self) -> bool:
        """Whether all names are so short that any number of them is within the bound."""
        codes = np.frombuffer(self.text.encode("latin-1"), np.uint8)
        pieces = codes[: len(codes) // _PIECE * _PIECE].reshape(-1, _PIECE)
        return not np.count_nonzero(pieces.min(axis=1))

    def begin_with(self, positions: Int64Array, latin: str) -> BoolArray:
        """Whether the names at many positions begin with a text, as Latin-1 and without NUL."""
        codes = np.frombuffer(self.text.encode("latin-1"), np.uint8)
        result: BoolArray = positions <= len(codes) - len(latin)
        for place, code in enumerate(latin.encode("latin-1")):
            result &= codes[np.minimum(positions + place, len(codes) - 1)] == code
        return result

    def _bound(self, count: int) -> int:
        """How many bytes that many names may have, each of which is a copy.

        Linkers and assemblers merge names with equal tails. Many names that share a very long
        tail would take memory quadratic in the table's size.
        """
        return _COPIES_SIZE * count + _COPIES_SHARE * len(self.text)

    def _distinct(self, positions: Int64Array, ends: Int64Array) -> list[str]:
        """`get_many` with one copy for equal positions, checked to be within the bound."""
        places = dict(zip(positions.tolist(), ends.tolist(), strict=True))
        size = sum(end - position for position, end in places.items())
        if size > self._bound(len(places)):
            raise GraphError(
                f"{len(places)} names of {size} bytes overlap in a table of {len(self.text)} bytes"
            )
        names = {a: self._decode(self.text[a:b]) for a, b in places.items()}
        return [names[position] for position in positions.tolist()]


class StringHeap:
    """All names of one graph."""

    __slots__ = ("_bases", "_end", "_indexed", "_references", "_strings", "_tables")

    def __init__(self) -> None:
        self._strings: list[str] = []
        # The references of each string among the first `_indexed`.
        self._references: dict[str, list[int]] = {}
        self._indexed = 0
        self._tables: list[_Table] = []
        self._bases: list[int] = []
        self._end = 0

    def add(self, name: str) -> int:
        """Store one name and return its reference."""
        self._strings.append(name)
        return _FIRST_STRING - (len(self._strings) - 1)

    def add_table(self, data: bytes) -> int:
        """Add a string table and return the reference of its first byte."""
        base = self._end
        self._tables.append(_Table(data))
        self._bases.append(base)
        self._end = base + len(data) + 1
        return base

    def get(self, reference: int) -> str:
        """The name at a reference; the empty string for `NO_NAME`."""
        if reference >= 0:
            table = bisect_right(self._bases, reference) - 1
            return self._tables[table].get(reference - self._bases[table])
        return "" if reference == NO_NAME else self._strings[_FIRST_STRING - reference]

    def get_many(self, references: Int64Array) -> list[str]:
        """The names at an array (int64, shape (n,)) of references."""
        if len(references) == 0:
            return []
        lowest = bisect_right(self._bases, int(references.min())) - 1
        if lowest == bisect_right(self._bases, int(references.max())) - 1:
            # The usual case, which takes no longer if there are many tables.
            return self._names_in(lowest, references)
        used = np.searchsorted(self._bases, references, side="right") - 1
        names = [""] * len(references)
        # Not np.unique, whose first use imports numpy.ma.
        for table in (np.flatnonzero(np.bincount(used + 1)) - 1).tolist():
            rows = np.flatnonzero(used == table)
            found = self._names_in(table, references[rows])
            for row, name in zip(rows.tolist(), found, strict=True):
                names[row] = name
        return names

    def _names_in(self, table: int, references: Int64Array) -> list[str]:
        """The names at references that all lie in one table, or, for -1, in none."""
        if table < 0:
            return [self.get(reference) for reference in references.tolist()]
        return self._tables[table].get_many(references - self._bases[table])

    def add_many(self, names: Iterable[str]) -> Int64Array:
        """Store many names and return their references (int64)."""
        first = len(self._strings)
        self._strings.extend(names)
        return _FIRST_STRING - np.arange(first, len(self._strings), dtype=np.int64)

    def are_short(self, references: Int64Array) -> bool:
        """Whether names at references (int64) are in one table whose names are all short.

        `get_many` then refuses none of them.
        """
        table = bisect_right(self._bases, int(references.min())) - 1
        if table < 0 or table != bisect_right(self._bases, int(references.max())) - 1:
            return False
        return self._tables[table].has_short_names()

    def begin_with(self, references: Int64Array, text: str) -> BoolArray:
        """Whether names at references (int64) in one table begin with an ASCII text."""
        table = bisect_right(self._bases, int(references[0])) - 1
        return self._tables[table].begin_with(references - self._bases[table], text)

    def has_text(self, text: str) -> bool:
        """Whether a name may contain a text, which has no NUL: if not, none does."""
        latin = text.encode("utf-8", "surrogateescape").decode("latin-1")
        return any(latin in table.text for table in self._tables) or any(
            text in string for string in self._strings
        )

    def find(self, name: str) -> Int64Array:
        """All references (int64) that read as `name`, whether in use or not.

        Strings are never removed or changed, so a name that has no reference is no symbol's.
        """
        for index in range(self._indexed, len(self._strings)):
            self._references.setdefault(self._strings[index], []).append(_FIRST_STRING - index)
        self._indexed = len(self._strings)
        found = list(self._references.get(name, ()))
        latin = _in_tables(name)
        if latin is not None:
            for base, table in zip(self._bases, self._tables, strict=True):
                found.extend(base + position for position in table.find(latin))
        return np.array(found, np.int64)


def _in_tables(name: str) -> str | None:
    """The bytes of a name in a string table, as Latin-1; None if no table can hold it."""
    if not name or "\0" in name:
        return None
    try:
        encoded = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    # A name whose escapes encode to valid UTF-8 differs from what is decoded from those bytes.
    is_decoded = encoded.decode("utf-8", "surrogateescape") == name
    return encoded.decode("latin-1") if is_decoded else None
