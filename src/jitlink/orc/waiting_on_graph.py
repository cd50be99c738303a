"""When symbols become ready: the graph of the symbols that wait for one another.

A symbol is ready when it and every symbol that it reaches have been emitted. Symbols that are
emitted together with the same dependencies form a `SuperNode`, which waits for unemitted symbols
and for other super-nodes. A super-node that waits for unemitted symbols is open. A super-node that
reaches no open one is ready, and so is everything that it reaches, cycles included: an open
super-node that is reached from one of these is reached from the first, too.

So a super-node has to be examined only when it has just been closed, or when something that it
waits for has become ready. The search visits what it waits for until it meets an open super-node,
the witness, which is recorded: a later search that meets the super-node ends there as long as the
witness is open. When a witness is closed and has a witness of its own, that one serves all that
the first did (sets joined as in Tarjan's union-find). Every wait is added once and removed once.
So the work is proportional to the number of waits for chains, cycles and random graphs alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, Self, TypeVar

from jitlink.orc.interface import SymbolState


class Element(Protocol):
    """What the graph consists of: symbols in one state.

    Attributes:
        state: their state.
        super_node: the super-node that they are in, while they are emitted and not ready.
        waiters: while they are not emitted, the super-nodes that wait for some of them, with the
            names of these.
    """

    state: SymbolState
    super_node: SuperNode[Self] | None
    waiters: dict[SuperNode[Self], set[str]]

    def advance(self, state: SymbolState) -> None:
        """Set the state, and notify what waits for it."""


E = TypeVar("E", bound=Element)


class SuperNode(Generic[E]):
    """Symbols that have been emitted and will become ready together.

    Attributes:
        elements: the symbols; none once they are ready or have failed.
        unemitted: symbols that it waits for.
        blockers: super-nodes that it waits for.
        waiters: super-nodes that wait for it.
        witness: a super-node that it reaches, and that was open when it was last examined.
    """

    __slots__ = ("blockers", "elements", "unemitted", "waiters", "witness")

    def __init__(self, elements: Iterable[E]) -> None:
        self.elements = list(elements)
        self.unemitted: set[E] = set()
        self.blockers: set[SuperNode[E]] = set()
        self.waiters: dict[SuperNode[E], None] = {}
        self.witness: SuperNode[E] | None = None

    def wait_for(self, node: SuperNode[E]) -> None:
        """Wait for a super-node, unless it is this one."""
        if node is not self:
            self.blockers.add(node)
            node.waiters[self] = None

    def clear(self) -> None:
        """Drop all references."""
        self.elements, self.unemitted, self.blockers, self.waiters = [], set(), set(), {}
        self.witness = None

    def find_open(self) -> SuperNode[E] | None:
        """An open super-node that it is known to reach, perhaps itself; None if none is known."""
        last = self
        while not last.unemitted and last.witness is not None:
            last = last.witness
        node = self
        while node is not last and node.witness is not None:
            # Path compression.
            node.witness, node = last, node.witness
        return last if last.unemitted else None


class WaitingOnGraph(Generic[E]):
    """All super-nodes of one session.

    Attributes:
        searched: how many super-nodes have been visited by searches for open ones.
    """

    def __init__(self) -> None:
        self.searched = 0

    def emit(self, groups: Iterable[tuple[Iterable[E], Mapping[E, set[str]]]]) -> None:
        """Record that symbols were emitted.

        Args:
            groups: symbols, none of them emitted before, and their dependencies, none of which
                has failed.
        """
        nodes = [(SuperNode(elements), dependencies) for elements, dependencies in groups]
        touched: dict[SuperNode[E], None] = {}
        for node, _ in nodes:
            touched[node] = None
            self._mark_emitted(node, touched)
        for node, dependencies in nodes:
            self._block(node, dependencies)
        self._settle(list(touched))

    def _mark_emitted(self, node: SuperNode[E], touched: dict[SuperNode[E], None]) -> None:
        for element in node.elements:
            element.advance(SymbolState.EMITTED)
            element.super_node = node
            waiters, element.waiters = element.waiters, {}
            for waiter in waiters:
                waiter.unemitted.discard(element)
                waiter.wait_for(node)
                touched[waiter] = None

    def _block(self, node: SuperNode[E], dependencies: Mapping[E, set[str]]) -> None:
        for element, names in dependencies.items():
            if element.state == SymbolState.READY:
                continue
            if element.super_node is not None:
                node.wait_for(element.super_node)
            else:
                node.unemitted.add(element)
                element.waiters.setdefault(node, set()).update(names)

    def _settle(self, touched: list[SuperNode[E]]) -> None:
        """Make ready what can be, beginning with super-nodes that wait for less than before."""
        while touched:
            node = touched.pop()
            if node.elements and not node.unemitted:
                for ready in self._search(node):
                    touched += self._make_ready(ready)

    def _search(self, start: SuperNode[E]) -> list[SuperNode[E]]:
        """All that a closed super-node reaches, itself included; nothing if one is open."""
        start.witness = None
        seen = {start: None}
        pending = [start]
        while pending:
            for node in pending.pop().blockers:
                if node in seen:
                    continue
                witness = node.find_open()
                if witness is not None:
                    start.witness = witness
                    self.searched += len(seen)
                    return []
                seen[node] = None
                pending.append(node)
        self.searched += len(seen)
        return list(seen)

    def _make_ready(self, node: SuperNode[E]) -> list[SuperNode[E]]:
        """Make a super-node ready; returns those that waited for it."""
        ready, waiters = node.elements, list(node.waiters)
        for waiter in waiters:
            waiter.blockers.discard(node)
        for blocker in node.blockers:
            blocker.waiters.pop(node, None)
        node.clear()
        for element in ready:
            element.super_node = None
            element.advance(SymbolState.READY)
        return waiters

    def fail(self, failed: Iterable[E]) -> list[E]:
        """Remove symbols, with all that wait for them.

        Returns:
            The symbols that can never become ready now: the given ones, and those that waited.
        """
        lost = dict.fromkeys(failed)
        pending: list[SuperNode[E]] = []
        for element in lost:
            pending += element.waiters
            element.waiters = {}
            if element.super_node is not None:
                pending.append(element.super_node)
        seen: dict[SuperNode[E], None] = {}
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen[node] = None
            pending += node.waiters
            lost |= dict.fromkeys(node.elements)
        for node in seen:
            for blocker in node.blockers:
                blocker.waiters.pop(node, None)
            for element in node.unemitted:
                element.waiters.pop(node, None)
        for node in seen:
            node.clear()
        for element in lost:
            element.super_node = None
        return list(lost)
