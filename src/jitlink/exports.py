"""What a linked graph offers to others: names and addresses, kept as columns.

Programs look up a handful of names in libraries of thousands, so names are searched for in
the string tables as they came; a dictionary is made only for callers that want all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np

from jitlink.graph import LinkGraph, Scope
from jitlink.graph.columns import ADDRESS_MASK, rows_where
from jitlink.graph.tables import ABSOLUTE, DEFINED, exported_rows, symbol_addresses

_FEW = 4
"""Up to this many names, or references of one, are searched for one by one."""


class Exports(Mapping[str, int]):
    """Addresses of the named symbols of an allocated graph that are not local, by name.

    Attributes:
        owner: an object that must live as long as the addresses are used.

    Holds on to the tables of the graph's symbols, blocks and sections, which must not change any
    more, but not to its contents and edges.
    """

    def __init__(self, graph: LinkGraph) -> None:
        self.owner: object = None
        self._strings = graph.strings
        self._symbols = graph.symbol_table
        self._blocks = graph.block_table
        self._sections = graph.section_list

    @cached_property
    def _all(self) -> dict[str, int]:
        table = self._symbols
        rows = exported_rows(table)
        addresses = symbol_addresses(table, self._blocks)[rows].tolist()
        exports: dict[str, int] = {}
        for name, address in zip(self._strings.get_many(table.name[rows]), addresses, strict=True):
            exports.setdefault(name, address)
        return exports

    def __getitem__(self, name: str) -> int:
        if "_all" in self.__dict__:
            return self._all[name]
        return self.address_of(self.row(name))

    def row(self, name: str) -> int:
        """Row of the symbol of a name; the graph need not be allocated yet.

        Raises:
            KeyError: there is none.
        """
        table = self._symbols
        references = self._strings.find(name)
        if len(references) > _FEW:
            # Many objects refer to it.
            rows = exported_rows(table)
            for row in rows[np.isin(table.name[rows], references)][:1].tolist():
                return int(row)
            raise KeyError(name)
        for reference in references.tolist():
            for row in rows_where(table.name == reference).tolist():
                if table.kind[row] in {DEFINED, ABSOLUTE} and table.scope[row] != Scope.LOCAL:
                    return int(row)
        raise KeyError(name)

    def rows(self, names: Iterable[str]) -> dict[str, int]:
        """Rows of the symbols of those names that the graph defines; it need not be allocated."""
        wanted, found = dict.fromkeys(names), dict[str, int]()
        if len(wanted) <= _FEW:
            for name in wanted:
                with suppress(KeyError):
                    found[name] = self.row(name)
            return found
        # The string tables may be large, and are not searched for each of many names.
        rows = exported_rows(self._symbols)
        decoded = self._strings.get_many(self._symbols.name[rows])
        for name, row in zip(decoded, rows.tolist(), strict=True):
            if name in wanted:
                found.setdefault(name, row)
        return found

    def owned_by(self, owner: object) -> Exports:
        """The same with an owner."""
        owned = object.__new__(type(self))
        owned.__dict__.update(self.__dict__)
        owned.owner = owner
        return owned

    def size(self, name: str) -> int:
        """Size of a symbol in bytes; 0 if it is not known.

        Raises:
            KeyError: there is no such symbol.
        """
        return self.size_of(self.row(name))

    def size_of(self, row: int) -> int:
        """Size of a symbol in bytes; 0 if it is not known."""
        return int(self._symbols.size[row])

    def is_code(self, row: int) -> bool | None:
        """Whether a symbol is in an executable section, whatever its type; None if absolute."""
        if self._symbols.kind[row] == ABSOLUTE:
            return None
        block = self._symbols.block[row]
        return self._sections.is_executable(int(self._blocks.section[block]))

    def address_of(self, row: int) -> int:
        """Address of a symbol."""
        value = int(self._symbols.value[row])
        if self._symbols.kind[row] == DEFINED:
            value += int(self._blocks.address[self._symbols.block[row]])
        return value & ADDRESS_MASK

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
