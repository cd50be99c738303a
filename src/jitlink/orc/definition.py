"""Definitions: sets of symbols of one JITDylib that share their fate.

A JITDylib maps each name to a `Definition`. All symbols of an object are one definition while
they are promised, being made, in memory and ready together, so whatever happens to thousands
of them happens once. Only where some of them go another way (a weak one is overridden, a part
is delegated, some depend on what is not ready) are they split off into one of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from jitlink.orc.symbols import ExecutorSymbolDef, JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.lookup import Query
    from jitlink.orc.materialization import MaterializationResponsibility, MaterializationUnit
    from jitlink.orc.readiness import WaitingGroup
    from jitlink.orc.tracker import ResourceTracker


class Definition:
    """Symbols that are in one state and have one owner.

    Attributes:
        dylib: where they are defined.
        flags: their names, with flags; shared with whoever promised them, so not to be
            changed in place.
        addresses: their addresses, once resolved.
        tracker: what owns them.
        state: how far they have come.
        failed: whether they could not be made, or depend on what could not.
        unit: what promises them, while nobody has asked.
        responsibility: what makes them, while they are being made.
        queries: lookups that wait for them.
        waiters: groups that wait for them, while they are not emitted.
        group: the group with which they will become ready, while they wait.
    """

    __slots__ = (
        "__weakref__", "addresses", "dylib", "failed", "flags", "group", "queries",
        "responsibility", "state", "tracker", "unit", "waiters",
    )  # fmt: skip

    def __init__(
        self,
        dylib: JITDylib,
        flags: Mapping[str, JITSymbolFlags],
        tracker: ResourceTracker,
        unit: MaterializationUnit | None = None,
    ) -> None:
        self.dylib = dylib
        self.flags = flags
        self.tracker = tracker
        self.unit = unit
        self.addresses: Mapping[str, int] = {}
        self.state = SymbolState.NEVER_SEARCHED
        self.failed = False
        self.responsibility: MaterializationResponsibility | None = None
        self.queries: list[Query] = []
        self.waiters: set[WaitingGroup] = set()
        self.group: WaitingGroup | None = None

    def __repr__(self) -> str:
        names = ", ".join(list(self.flags)[:3]) + (", ..." if len(self.flags) > 3 else "")
        return f"<{names} in {self.dylib.name}: {self.state.name.lower()}>"

    def symbol(self, name: str) -> ExecutorSymbolDef:
        """Address and flags of one symbol."""
        return ExecutorSymbolDef(self.addresses.get(name, 0), self.flags[name])

    def advance(self, state: SymbolState) -> None:
        """Reach a state, and tell the queries for which it is far enough."""
        self.state = state
        waiting, self.queries = self.queries, []
        for query in waiting:
            if query.required_state <= state:
                query.satisfy(self)
            else:
                self.queries.append(query)

    def split(self, names: Iterable[str]) -> Definition:
        """Move some of the symbols into a definition of their own, in the same state.

        Returns:
            The new definition; this one itself if it would be left without symbols.
        """
        chosen = set(names)
        if len(chosen) == len(self.flags):
            return self
        part = Definition(
            self.dylib, {name: self.flags[name] for name in chosen}, self.tracker, self.unit
        )
        self.flags = {name: flag for name, flag in self.flags.items() if name not in chosen}
        part.addresses, part.state, part.failed = self.addresses, self.state, self.failed
        part.responsibility = self.responsibility
        # Whoever waits for one of them may have meant either.
        for query in self.queries:
            query.add(part)
        for waiter in self.waiters:
            waiter.blockers.add(part)
            part.waiters.add(waiter)
        if self.group is not None:
            part.group = self.group
            self.group.symbols.append(part)
        self.dylib.adopt(part)
        return part
