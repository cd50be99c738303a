"""When symbols become ready: the graph of who waits for whom.

A symbol is ready when it and everything that it reaches has been emitted. Symbols that are
emitted together and need the same form a `WaitingGroup`, which waits for symbols that are not
emitted and for other groups. A group is ready when it waits for nothing. Groups that wait for
each other in a circle can only become ready together, so such a circle is merged into one group
as soon as none of its members waits for anything that is not emitted; before that, it could not
become ready anyway.

Every wait is entered once and removed once, and merging moves the smaller side, so that this
work grows with the number of waits. A circle can only become due through a group that has just
come to wait for nothing but groups. It lies both in what that group waits for and in what waits
for it; both are explored at the same pace, and only the one that is exhausted first is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from jitlink.orc.symbols import SymbolState

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition

Needs = Mapping["Definition", set[str]]
"""Definitions, and which of their symbols are needed."""


class WaitingGroup:
    """Symbols that have been emitted and will become ready together.

    Attributes:
        symbols: the symbols.
        unemitted: symbols that it waits for.
        blockers: groups that it waits for.
        waiters: groups that wait for it.
    """

    __slots__ = ("blockers", "symbols", "unemitted", "waiters")

    def __init__(self, symbols: Iterable[Definition]) -> None:
        self.symbols = list(symbols)
        self.unemitted: set[Definition] = set()
        self.blockers: set[WaitingGroup] = set()
        self.waiters: dict[WaitingGroup, None] = {}

    @property
    def weight(self) -> int:
        """How much would have to be moved to make it part of another."""
        return sum(map(len, (self.symbols, self.unemitted, self.blockers, self.waiters)))

    def wait_for(self, group: WaitingGroup) -> None:
        """Wait for a group, unless it is this one."""
        if group is not self:
            self.blockers.add(group)
            group.waiters[self] = None

    def clear(self) -> None:
        """Let go of everything."""
        self.symbols, self.unemitted, self.blockers, self.waiters = [], set(), set(), {}


class Readiness:
    """All groups of one session.

    Attributes:
        searched: how many groups were looked at in search of circles so far.
    """

    def __init__(self) -> None:
        self.searched = 0

    def emit(self, groups: Iterable[tuple[Iterable[Definition], Needs]]) -> None:
        """Take note that symbols were emitted.

        Args:
            groups: symbols, none of them emitted before, and what those need; of what is
                needed, nothing has failed.
        """
        made = [(WaitingGroup(symbols), needed) for symbols, needed in groups]
        # Groups that may have come to wait for nothing but groups.
        touched: dict[WaitingGroup, None] = {}
        for group, _ in made:
            touched[group] = None
            self._enter(group, touched)
        for group, needed in made:
            self._block(group, needed)
        due = [group for group in touched if not group.unemitted]
        due += [_merge(circle) for circle in self._circles(due)]
        self._release([group for group in due if group.symbols and not group.blockers])

    def _enter(self, group: WaitingGroup, touched: dict[WaitingGroup, None]) -> None:
        for definition in group.symbols:
            definition.advance(SymbolState.EMITTED)
            definition.group = group
            waiters, definition.waiters = definition.waiters, {}
            for waiter in waiters:
                waiter.unemitted.discard(definition)
                waiter.wait_for(group)
                touched[waiter] = None

    def _block(self, group: WaitingGroup, needed: Needs) -> None:
        for definition, names in needed.items():
            if definition.state == SymbolState.READY:
                continue
            if definition.group is not None:
                group.wait_for(definition.group)
            else:
                group.unemitted.add(definition)
                definition.waiters.setdefault(group, set()).update(names)

    def _release(self, groups: list[WaitingGroup]) -> None:
        """Make groups ready, and all that waited for nothing else."""
        while groups:
            group = groups.pop()
            for definition in group.symbols:
                definition.group = None
            for waiter in group.waiters:
                waiter.blockers.discard(group)
                if not waiter.blockers and not waiter.unemitted:
                    groups.append(waiter)
            symbols = group.symbols
            group.clear()
            for definition in symbols:
                definition.advance(SymbolState.READY)

    def withdraw(self, definitions: Iterable[Definition]) -> list[Definition]:
        """Take symbols out, with all that wait for them.

        Returns:
            The symbols that waited and can never become ready now; the given ones included.
        """
        lost = dict.fromkeys(definitions)
        pending: list[WaitingGroup] = []
        for definition in lost:
            pending += definition.waiters
            definition.waiters = {}
            if definition.group is not None:
                pending.append(definition.group)
        seen: set[WaitingGroup] = set()
        while pending:
            group = pending.pop()
            if group in seen:
                continue
            seen.add(group)
            pending += group.waiters
            lost |= dict.fromkeys(group.symbols)
        for group in seen:
            for blocker in group.blockers:
                blocker.waiters.pop(group, None)
            for definition in group.unemitted:
                definition.waiters.pop(group, None)
        for group in seen:
            group.clear()
        for definition in lost:
            definition.group = None
        return list(lost)

    def _circles(self, due: Iterable[WaitingGroup]) -> list[list[WaitingGroup]]:
        """The sets of groups, due ones among them, that wait for each other."""
        starts = [group for group in due if group.waiters and group.blockers]
        if not starts:
            return []
        region = _region(starts)
        self.searched += len(region)
        return list(_strongly_connected(starts, region))


def _merge(circle: list[WaitingGroup]) -> WaitingGroup:
    """Make one group of several that wait for each other, and for nothing but groups."""
    members = set(circle)
    # The one with the most connections stays, so that the fewest are moved.
    kept = max(circle, key=lambda group: group.weight)
    for group in circle:
        if group is kept:
            continue
        for definition in group.symbols:
            definition.group = kept
        kept.symbols += group.symbols
        for blocker in group.blockers:
            blocker.waiters.pop(group, None)
            if blocker not in members:
                kept.wait_for(blocker)
        for waiter in group.waiters:
            if waiter not in members:
                waiter.blockers.discard(group)
                waiter.wait_for(kept)
        group.clear()
    kept.blockers -= members
    for group in members:
        kept.waiters.pop(group, None)
    return kept


def _blocking(group: WaitingGroup) -> Iterator[WaitingGroup]:
    return iter([each for each in group.blockers if not each.unemitted])


def _waiting(group: WaitingGroup) -> Iterator[WaitingGroup]:
    return iter([each for each in group.waiters if not each.unemitted])


def _region(starts: Iterable[WaitingGroup]) -> set[WaitingGroup]:
    """A set of groups with all circles that go through one of some groups."""
    before, after = set(starts), set(starts)
    walks = (_walk(before, _waiting), after), (_walk(after, _blocking), before)
    while True:
        for walk, other in walks:
            if next(walk, None) is None:
                # This side is complete, and so no circle reaches further.
                return after if other is before else before


def _walk(
    seen: set[WaitingGroup], neighbours: Callable[[WaitingGroup], Iterator[WaitingGroup]]
) -> Iterator[WaitingGroup]:
    """Add to a set what can be reached from it, one wait at a time."""
    pending = list(seen)
    while pending:
        for each in neighbours(pending.pop()):
            yield each
            if each not in seen:
                seen.add(each)
                pending.append(each)


def _strongly_connected(
    starts: Iterable[WaitingGroup], region: set[WaitingGroup]
) -> Iterator[list[WaitingGroup]]:
    """Maximal sets of two or more groups of a region that wait for each other.

    Tarjan's algorithm for strongly connected components, without recursion.
    """
    number: dict[WaitingGroup, int] = {}
    lowest: dict[WaitingGroup, int] = {}
    path: list[WaitingGroup] = []
    on_path: set[WaitingGroup] = set()
    for start in starts:
        work = [(start, iter((start,)))]
        while work:
            group, blockers = work[-1]
            following = next(blockers, None)
            if following is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[group])
                if group in on_path and lowest[group] == number[group]:
                    circle = _pop_until(path, on_path, group)
                    if len(circle) > 1:
                        yield circle
            elif following not in region:
                continue
            elif following not in number:
                number[following] = lowest[following] = len(number)
                path.append(following)
                on_path.add(following)
                work.append((following, _blocking(following)))
            elif following in on_path:
                lowest[group] = min(lowest[group], number[following])


def _pop_until(
    path: list[WaitingGroup], on_path: set[WaitingGroup], last: WaitingGroup
) -> list[WaitingGroup]:
    popped = []
    while True:
        group = path.pop()
        on_path.discard(group)
        popped.append(group)
        if group is last:
            return popped
