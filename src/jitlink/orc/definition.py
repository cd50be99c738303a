"""Definitions: sets of symbols of one JITDylib that share their fate.

A JITDylib maps each name to a `Definition`. All symbols of an object are one definition while
they are promised, being made, in memory and ready together, so whatever happens to thousands
of them happens once. Only where some of them go another way (a weak one is overridden, a part
is delegated, some depend on what is not ready) are they split off into one of their own; then
whoever waits goes on waiting for the part with the names that it means, and for no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from weakref import ref

from jitlink.orc.symbols import ExecutorSymbolDef, JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.lookup import Query
    from jitlink.orc.materialization import MaterializationResponsibility, MaterializationUnit
    from jitlink.orc.readiness import WaitingGroup
    from jitlink.orc.tracker import ResourceTracker

_REST = -1
"""The part with all the names that are not to go anywhere."""


class Definition:
    """Symbols that are in one state and have one owner.

    Attributes:
        dylib: where they are defined.
        flags: their names, with flags; shared with whoever promised them, so not to be
            changed in place.
        addresses: their addresses, once resolved.
        tracker: what owns them.
        source: display name of what promised them.
        state: how far they have come.
        failed: whether they could not be made, or depend on what could not.
        cause: why they failed, if a reason was given.
        is_announced: whether others than their maker were told an address before the symbols
            were ready.
        unit: what promises them, while nobody has asked.
        queries: lookups that wait for some of them, in order of arrival.
        waiters: while they are not emitted, groups that wait for some of them, and for which.
        group: the group with which they will become ready, while they wait.
    """

    __slots__ = (
        "__weakref__", "_maker", "addresses", "cause", "dylib", "failed", "flags", "group",
        "is_announced", "queries", "source", "state", "tracker", "unit", "waiters",
    )  # fmt: skip

    def __init__(
        self,
        dylib: JITDylib,
        flags: Mapping[str, JITSymbolFlags],
        tracker: ResourceTracker,
        unit: MaterializationUnit | None = None,
        source: str = "",
    ) -> None:
        self.dylib = dylib
        self.flags = flags
        self.tracker = tracker
        self.unit = unit
        self.source = source
        self.addresses: Mapping[str, int] = {}
        self.state = SymbolState.NEVER_SEARCHED
        self.failed = False
        self.cause: BaseException | None = None
        self.is_announced = False
        self.queries: dict[Query, None] = {}
        self.waiters: dict[WaitingGroup, set[str]] = {}
        self.group: WaitingGroup | None = None
        self._maker: ref[MaterializationResponsibility] | None = None

    def __repr__(self) -> str:
        names = ", ".join(list(self.flags)[:3]) + (", ..." if len(self.flags) > 3 else "")
        return f"<{names} in {self.dylib.name}: {self.state.name.lower()}>"

    @property
    def responsibility(self) -> MaterializationResponsibility | None:
        """What makes them, while they are being made.

        Not kept alive from here: a responsibility that nobody holds any more can never be met.
        """
        return None if self._maker is None else self._maker()

    @responsibility.setter
    def responsibility(self, responsibility: MaterializationResponsibility | None) -> None:
        self._maker = None if responsibility is None else ref(responsibility)

    @property
    def is_in_progress(self) -> bool:
        """Whether they have been asked for, and are neither ready nor failed."""
        return SymbolState.NEVER_SEARCHED < self.state < SymbolState.READY and not self.failed

    def symbol(self, name: str) -> ExecutorSymbolDef:
        """Address and flags of one symbol."""
        return ExecutorSymbolDef(self.addresses.get(name, 0), self.flags[name])

    def advance(self, state: SymbolState) -> None:
        """Reach a state, and tell the queries for which it is far enough."""
        self.state = state
        if not self.queries:
            return
        satisfied = [query for query in self.queries if query.required_state <= state]
        for query in satisfied:
            del self.queries[query]
            if state < SymbolState.READY:
                self.announce_to(query.requester)
            query.satisfy(self)

    def announce_to(self, requester: MaterializationResponsibility | None) -> None:
        """Take note that somebody has addresses before the symbols are ready.

        Who makes them does not count.
        """
        if requester is None or requester is not self.responsibility:
            self.is_announced = True

    def withdraw(self) -> None:
        """Take the promise of another unit's making back: nobody has asked any more."""
        self.state, self.addresses, self.responsibility = SymbolState.NEVER_SEARCHED, {}, None

    def split(self, names: Iterable[str]) -> Definition:
        """Move some of the symbols into a definition of their own, in the same state.

        Returns:
            The new definition; this one itself if it would be left without symbols.
        """
        return self.divide(dict.fromkeys(names, 0))[0]

    def divide(self, part_of: Mapping[str, int]) -> dict[int, Definition]:
        """Split into as many definitions as there are parts, in the same state.

        Args:
            part_of: number of the part, from 0, that a name goes to; the names that are not
                in it stay together. Names of other definitions may be in it too.

        Returns:
            The definitions of those parts that have symbols; -1 is what stayed.
        """
        all_flags, number_of = self.flags, part_of.get
        flags: dict[int, dict[str, JITSymbolFlags]] = {}
        for name, flag in all_flags.items():
            flags.setdefault(number_of(name, _REST), {})[name] = flag
        kept = _REST if _REST in flags else next(iter(flags))
        parts = {kept: self}
        if len(flags) == 1:
            return parts
        for number, chosen in flags.items():
            if number == kept:
                self.flags = chosen
            else:
                parts[number] = self._copy_for(chosen)
        self._move_queries(all_flags, part_of, parts)
        self._move_waiters(part_of, parts)
        return parts

    def _copy_for(self, flags: Mapping[str, JITSymbolFlags]) -> Definition:
        part = Definition(self.dylib, flags, self.tracker, self.unit, self.source)
        part.addresses, part.state = self.addresses, self.state
        part.failed, part.cause = self.failed, self.cause
        part.is_announced = self.is_announced
        part._maker = self._maker
        if self.group is not None:
            part.group = self.group
            self.group.symbols.append(part)
        self.dylib.adopt(part)
        return part

    def _move_queries(
        self,
        names: Mapping[str, JITSymbolFlags],
        part_of: Mapping[str, int],
        parts: Mapping[int, Definition],
    ) -> None:
        for query in list(self.queries):
            wanted = {part_of.get(name, _REST) for name in query.names_among(self.dylib, names)}
            query.remove(self)
            for number in wanted:
                query.add(parts[number])

    def _move_waiters(self, part_of: Mapping[str, int], parts: Mapping[int, Definition]) -> None:
        waiters, self.waiters = self.waiters, {}
        for waiter, names in waiters.items():
            waiter.unemitted.discard(self)
            for name in names:
                part = parts[part_of.get(name, _REST)]
                part.waiters.setdefault(waiter, set()).add(name)
                waiter.unemitted.add(part)
