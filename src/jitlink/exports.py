"""What a linked graph offers to others: names and addresses, kept as columns.

Programs look up a handful of names in libraries of thousands, so names are searched for in
the string tables as they came; a dictionary is made only for those who want all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from jitlink.graph import LinkGraph, Scope
from jitlink.graph.columns import rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED


class Exports(Mapping[str, int]):
    """Addresses of the named symbols of an allocated graph that are not local, by name.

    Holds on to the graph's names, but not to the graph.
    """

    def __init__(self, graph: LinkGraph) -> None:
        table = graph.symbol_table
        rows = (table.kind == DEFINED) | (table.kind == ABSOLUTE)
        rows &= (table.scope != int(Scope.LOCAL)) & (table.name != NO_NAME)
        chosen = rows_where(rows)
        self._strings = graph.strings
        self._names = table.name[chosen]
        self._addresses = graph.symbol_addresses()[chosen]

    @cached_property
    def _all(self) -> dict[str, int]:
        names = self._strings.get_many(self._names)
        addresses = self._addresses.tolist()
        exports: dict[str, int] = {}
        for name, address in zip(names, addresses, strict=True):
            exports.setdefault(name, address)
        return exports

    def __getitem__(self, name: str) -> int:
        if "_all" in self.__dict__:
            return self._all[name]
        for reference in self._strings.find(name).tolist():
            found = rows_where(self._names == reference)
            if len(found):
                return int(self._addresses[found[0]])
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
