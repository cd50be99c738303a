"""When symbols become ready: the graph of who waits for whom.

A symbol is ready when it and everything that it reaches has been emitted. Symbols that are
emitted together and need the same form a `SuperNode`, which waits for symbols that are not
emitted and for other groups. A group that waits for unemitted symbols is open. A group from
which no open one is reached is ready, and so is all that it reaches, circles or not: whatever
keeps one of them would keep all who reach it.

So a group only has to be looked at when it has just been closed, or when something that it
waits for has become ready. A search then goes through what it waits for until it meets an open
group, the witness. The witness is remembered: whoever meets the group later need not go
further as long as the witness is open. When a witness is closed and has found one of its own,
that one serves for all for whom the first did (sets joined as in Tarjan's union-find). Every
wait is entered once and removed once. So the work grows with the number of waits for chains,
circles and random graphs alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from jitlink.orc.interface import SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition

Needs = Mapping["Definition", set[str]]
"""Definitions, and which of their symbols are needed."""


class SuperNode:
    """Symbols that have been emitted and will become ready together.

    Attributes:
        symbols: the symbols; none once they are ready or have failed.
        unemitted: symbols that it waits for.
        blockers: groups that it waits for.
        waiters: groups that wait for it.
        witness: a group that it reaches, and that was open when it was last looked at.
    """

    __slots__ = ("blockers", "symbols", "unemitted", "waiters", "witness")

    def __init__(self, symbols: Iterable[Definition]) -> None:
        self.symbols = list(symbols)
        self.unemitted: set[Definition] = set()
        self.blockers: set[SuperNode] = set()
        self.waiters: dict[SuperNode, None] = {}
        self.witness: SuperNode | None = None

    def wait_for(self, group: SuperNode) -> None:
        """Wait for a group, unless it is this one."""
        if group is not self:
            self.blockers.add(group)
            group.waiters[self] = None

    def clear(self) -> None:
        """Let go of everything."""
        self.symbols, self.unemitted, self.blockers, self.waiters = [], set(), set(), {}
        self.witness = None

    def find_open(self) -> SuperNode | None:
        """An open group that it is known to reach; itself if it is open, None if none is known."""
        last = self
        while not last.unemitted and last.witness is not None:
            last = last.witness
        group = self
        while group is not last and group.witness is not None:
            # Whoever comes this way again goes straight to the end.
            group.witness, group = last, group.witness
        return last if last.unemitted else None


class WaitingOnGraph:
    """All groups of one session.

    Attributes:
        searched: how many groups were looked at so far, in search of open ones.
    """

    def __init__(self) -> None:
        self.searched = 0

    def emit(self, groups: Iterable[tuple[Iterable[Definition], Needs]]) -> None:
        """Take note that symbols were emitted.

        Args:
            groups: symbols, none of them emitted before, and what those need; of what is
                needed, nothing has failed.
        """
        made = [(SuperNode(symbols), needed) for symbols, needed in groups]
        touched: dict[SuperNode, None] = {}
        for group, _ in made:
            touched[group] = None
            self._enter(group, touched)
        for group, needed in made:
            self._block(group, needed)
        self._settle(list(touched))

    def _enter(self, group: SuperNode, touched: dict[SuperNode, None]) -> None:
        for definition in group.symbols:
            definition.advance(SymbolState.EMITTED)
            definition.group = group
            waiters, definition.waiters = definition.waiters, {}
            for waiter in waiters:
                waiter.unemitted.discard(definition)
                waiter.wait_for(group)
                touched[waiter] = None

    def _block(self, group: SuperNode, needed: Needs) -> None:
        for definition, names in needed.items():
            if definition.state == SymbolState.READY:
                continue
            if definition.group is not None:
                group.wait_for(definition.group)
            else:
                group.unemitted.add(definition)
                definition.waiters.setdefault(group, set()).update(names)

    def _settle(self, touched: list[SuperNode]) -> None:
        """Make ready what can be, beginning with groups of which some wait has ended."""
        while touched:
            group = touched.pop()
            if group.symbols and not group.unemitted:
                for ready in self._search(group):
                    touched += self._release(ready)

    def _search(self, start: SuperNode) -> list[SuperNode]:
        """All that a closed group reaches, itself included; nothing if an open one is there."""
        start.witness = None
        seen = {start: None}
        pending = [start]
        while pending:
            for group in pending.pop().blockers:
                if group in seen:
                    continue
                witness = group.find_open()
                if witness is not None:
                    start.witness = witness
                    self.searched += len(seen)
                    return []
                seen[group] = None
                pending.append(group)
        self.searched += len(seen)
        return list(seen)

    def _release(self, group: SuperNode) -> list[SuperNode]:
        """Make a group ready; returns those that waited for it."""
        symbols, waiters = group.symbols, list(group.waiters)
        for waiter in waiters:
            waiter.blockers.discard(group)
        for blocker in group.blockers:
            blocker.waiters.pop(group, None)
        group.clear()
        for definition in symbols:
            definition.group = None
            definition.advance(SymbolState.READY)
        return waiters

    def withdraw(self, definitions: Iterable[Definition]) -> list[Definition]:
        """Take symbols out, with all that wait for them.

        Returns:
            The symbols that waited and can never become ready now; the given ones included.
        """
        lost = dict.fromkeys(definitions)
        pending: list[SuperNode] = []
        for definition in lost:
            pending += definition.waiters
            definition.waiters = {}
            if definition.group is not None:
                pending.append(definition.group)
        seen: dict[SuperNode, None] = {}
        while pending:
            group = pending.pop()
            if group in seen:
                continue
            seen[group] = None
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
