"""When symbols become ready: the graph of who waits for whom.

A symbol is ready when it and everything that it reaches has been emitted. Symbols that are
emitted together and need the same form a `WaitingGroup`, which waits for symbols that are not
emitted and for other groups. Groups that wait for each other in a circle can only become ready
together, so such circles are merged as soon as they close; what is left has no circles, and a
group is ready when it waits for nothing.

Every wait is entered once and removed once, and merging moves the smaller side, so that the
work grows with the number of waits. A circle can only close through a group that somebody
waits for already, and only such groups are searched from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from jitlink.orc.symbols import SymbolState

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition


class WaitingGroup:
    """Symbols that have been emitted and will become ready together.

    Attributes:
        symbols: the symbols.
        blockers: symbols and groups that it waits for.
        waiters: groups that wait for it.
    """

    __slots__ = ("blockers", "symbols", "waiters")

    def __init__(self, symbols: Iterable[Definition]) -> None:
        self.symbols = list(symbols)
        self.blockers: set[Definition | WaitingGroup] = set()
        self.waiters: set[WaitingGroup] = set()

    def replace_blocker(self, old: Definition | WaitingGroup, new: WaitingGroup) -> None:
        """Wait for `new` instead of `old`."""
        self.blockers.discard(old)
        if new is not self:
            self.blockers.add(new)
            new.waiters.add(self)


class Readiness:
    """All groups of one session."""

    def emit(self, groups: Iterable[tuple[Iterable[Definition], Iterable[Definition]]]) -> None:
        """Take note that symbols were emitted.

        Args:
            groups: symbols, none of them emitted before, and what those need; of what is
                needed, nothing has failed.
        """
        made = [(WaitingGroup(symbols), needed) for symbols, needed in groups]
        for group, _ in made:
            self._enter(group)
        for group, needed in made:
            self._block(group, needed)
        fresh = [group for group, _ in made]
        circles = list(_circles([group for group in fresh if group.waiters]))
        fresh += [_merge(circle) for circle in circles]
        self._release([group for group in fresh if group.symbols and not group.blockers])

    def _enter(self, group: WaitingGroup) -> None:
        for definition in group.symbols:
            definition.advance(SymbolState.EMITTED)
            definition.group = group
            waiters, definition.waiters = definition.waiters, set()
            for waiter in waiters:
                waiter.replace_blocker(definition, group)

    def _block(self, group: WaitingGroup, needed: Iterable[Definition]) -> None:
        for definition in needed:
            if definition.state == SymbolState.READY:
                continue
            blocker = definition if definition.group is None else definition.group
            if blocker is not group:
                group.blockers.add(blocker)
                blocker.waiters.add(group)

    def _release(self, groups: list[WaitingGroup]) -> None:
        """Make groups ready, and all that waited for nothing else."""
        while groups:
            group = groups.pop()
            for definition in group.symbols:
                definition.group = None
            for waiter in group.waiters:
                waiter.blockers.discard(group)
                if not waiter.blockers:
                    groups.append(waiter)
            symbols, group.symbols, group.waiters = group.symbols, [], set()
            for definition in symbols:
                definition.advance(SymbolState.READY)

    def withdraw(self, definitions: Iterable[Definition]) -> set[Definition]:
        """Take symbols out, with all that wait for them.

        Returns:
            The symbols that waited and can never become ready now; the given ones included.
        """
        lost = set(definitions)
        pending: list[WaitingGroup] = []
        for definition in lost:
            pending += definition.waiters
            definition.waiters = set()
            if definition.group is not None:
                pending.append(definition.group)
        seen: set[WaitingGroup] = set()
        while pending:
            group = pending.pop()
            if group in seen:
                continue
            seen.add(group)
            pending += group.waiters
            lost.update(group.symbols)
            for blocker in group.blockers:
                blocker.waiters.discard(group)
        for definition in lost:
            definition.group = None
        return lost


def _merge(circle: list[WaitingGroup]) -> WaitingGroup:
    """Make one group of several that wait for each other."""
    members = set(circle)
    # The one with the most connections stays, so that the fewest are moved.
    kept = max(circle, key=lambda group: len(group.waiters) + len(group.blockers))
    for group in circle:
        if group is kept:
            continue
        for definition in group.symbols:
            definition.group = kept
        kept.symbols += group.symbols
        for blocker in group.blockers:
            blocker.waiters.discard(group)
            if blocker not in members:
                kept.blockers.add(blocker)
                blocker.waiters.add(kept)
        for waiter in group.waiters - members:
            waiter.replace_blocker(group, kept)
        group.symbols, group.blockers, group.waiters = [], set(), set()
    kept.blockers -= members
    kept.waiters -= members
    return kept


def _circles(starts: list[WaitingGroup]) -> Iterator[list[WaitingGroup]]:
    """Maximal sets of two or more groups that wait for each other, reached from `starts`.

    Tarjan's algorithm for strongly connected components, without recursion.
    """
    number: dict[WaitingGroup, int] = {}
    lowest: dict[WaitingGroup, int] = {}
    path: list[WaitingGroup] = []
    on_path: set[WaitingGroup] = set()
    for start in starts:
        if start in number:
            continue
        work = [(start, _groups(start))]
        number[start] = lowest[start] = len(number)
        path.append(start)
        on_path.add(start)
        while work:
            group, blockers = work[-1]
            following = next(blockers, None)
            if following is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[group])
                if lowest[group] == number[group]:
                    circle = _pop_until(path, on_path, group)
                    if len(circle) > 1:
                        yield circle
            elif following not in number:
                number[following] = lowest[following] = len(number)
                path.append(following)
                on_path.add(following)
                work.append((following, _groups(following)))
            elif following in on_path:
                lowest[group] = min(lowest[group], number[following])


def _groups(group: WaitingGroup) -> Iterator[WaitingGroup]:
    return iter([each for each in group.blockers if isinstance(each, WaitingGroup)])


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
