"""Searching: which definitions a lookup's names mean.

A search goes through its order. Each JITDylib takes the names that it has; its generators are
asked for those that it has not, one after the other, and what they define is taken too. While
a generator works, other things happen in the session, so after that the order is gone through
once more, without generators: what counts is what is defined in the end.

A generator of a JITDylib works for one search at a time, so that two of them do not make it
define the same name twice. A generator may itself look something up. If that leads back to it,
it is not asked again; if two generators would wait for each other, one of them goes ahead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jitlink.orc.errors import JITDylibDefunctError, listed
from jitlink.orc.symbols import JITDylibLookupFlags, LookupKind
from jitlink.tasks import Lock, TaskVariable

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition
    from jitlink.orc.dylib import DefinitionGenerator, JITDylib

    Order = Sequence[tuple[JITDylib, JITDylibLookupFlags]]


log = logging.getLogger("jitlink.orc")


class Seat:
    """Where searches wait for one generator of one JITDylib.

    Attributes:
        lock: held by the search that the generator works for.
        holder: that search.
        users: how many searches hold the lock or wait for it.
    """

    __slots__ = ("holder", "lock", "users")

    def __init__(self) -> None:
        self.lock = Lock()
        self.holder: _Turn | None = None
        self.users = 0


class _Turn:
    """One search for which a generator works.

    Attributes:
        outer: the turn of the generator that made this search, if one did.
        waits_at: seats at which searches wait that were made in this turn.
        is_over: whether the generator has finished.
    """

    __slots__ = ("is_over", "outer", "waits_at")

    def __init__(self, outer: _Turn | None) -> None:
        self.outer = outer
        self.waits_at: list[Seat] = []
        self.is_over = False

    def chain(self) -> Iterator[_Turn]:
        """The turn and those that it was made in, as far as they are not over."""
        turn: _Turn | None = self
        while turn is not None:
            if not turn.is_over:
                yield turn
            turn = turn.outer


# The turn in which the running code was called; tasks inherit it from whoever starts them.
_TURN: TaskVariable[_Turn | None] = TaskVariable(None)


class Search:
    """One search through an order.

    Args:
        order: where to search.
        names: each name, and whether it must be found.
        kind: what the search is for.

    Attributes:
        found: the definition of each name that was found.
    """

    def __init__(
        self,
        order: Order,
        names: Mapping[str, bool],
        kind: LookupKind,
    ) -> None:
        self.found: dict[str, Definition] = {}
        self._order = tuple(order)
        self._names = names
        self._kind = kind

    async def run(self) -> None:
        """Search.

        Raises:
            JITDylibDefunctError: a JITDylib of the order was removed.
        """
        wanted, has_generated = self._names, False
        for dylib, flags in self._order:
            wanted = self._take(dylib, flags, wanted)
            for generator in tuple(dylib.generators):
                # What is there but not shown is not to be defined once more.
                absent = _without(wanted, dylib)
                if not absent:
                    break
                if generator in dylib.generators:
                    has_generated = True
                    await self._generate(generator, dylib, flags, absent)
                    wanted = self._take(dylib, flags, wanted)
        if has_generated:
            self.found.clear()
            wanted = self._names
            for dylib, flags in self._order:
                wanted = self._take(dylib, flags, wanted)

    def _take(
        self, dylib: JITDylib, flags: JITDylibLookupFlags, wanted: Mapping[str, bool]
    ) -> Mapping[str, bool]:
        """Note names that a JITDylib has, and shows; returns the others."""
        if not dylib.is_open:
            raise JITDylibDefunctError(dylib.name)
        symbols = dylib.symbols
        if symbols.keys().isdisjoint(wanted.keys()):
            return wanted
        exported_only = flags is JITDylibLookupFlags.MATCH_EXPORTED_ONLY
        rest = {}
        for name, required in wanted.items():
            held = symbols.get(name)
            if held is None:
                rest[name] = required
                continue
            flag = held.flags[name]
            if exported_only and not flag.is_exported:
                rest[name] = required
            elif required and not flag.has_address:
                # It has no address, so a reference that needs one is not satisfied, and no
                # other definition may step in.
                continue
            else:
                self.found[name] = held
        return rest

    async def _generate(
        self,
        generator: DefinitionGenerator,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Let a generator define names, when its turn has come."""
        outer, seats = _TURN.get(), dylib.seats
        chain = set(outer.chain()) if outer is not None else set()
        seat = seats.setdefault(id(generator), Seat())
        if seat.holder in chain:
            return
        seat.users += 1
        try:
            if seat.lock.is_held and _leads_to(seat, chain):
                await self._work(generator, dylib, flags, names)
                return
            await _sit_down(seat, outer)
            try:
                # Whoever was first may have defined them.
                absent = _without(names, dylib)
                if absent and dylib.is_open:
                    await self._work(generator, dylib, flags, absent, seat)
            finally:
                seat.holder = None
                seat.lock.release()
        finally:
            seat.users -= 1
            if not seat.users:
                seats.pop(id(generator), None)

    async def _work(
        self,
        generator: DefinitionGenerator,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
        seat: Seat | None = None,
    ) -> None:
        outer = _TURN.get()
        turn = _Turn(next(outer.chain(), None) if outer is not None else None)
        if seat is not None:
            seat.holder = turn
        take_back = _TURN.set(turn)
        try:
            await generator.try_to_generate(self._kind, dylib, flags, names)
        finally:
            turn.is_over = True
            take_back()
        _log_generated(generator, dylib, names)


def _without(names: Mapping[str, bool], dylib: JITDylib) -> Mapping[str, bool]:
    """Those of some names that a JITDylib has not."""
    symbols = dylib.symbols
    if symbols.keys().isdisjoint(names.keys()):
        return names
    return {name: required for name, required in names.items() if name not in symbols}


def log_search(order: Order, names: Mapping[str, bool], requester: str | None) -> None:
    """Tell that a search begins, and for whom."""
    if log.isEnabledFor(logging.DEBUG):
        places = ", ".join(dylib.name for dylib, _ in order)
        log.debug("%s looks up in %s: %s", requester or "caller", places, listed(tuple(names)))


def _log_generated(
    generator: DefinitionGenerator, dylib: JITDylib, names: Mapping[str, bool]
) -> None:
    if log.isEnabledFor(logging.DEBUG):
        kind = type(generator).__name__
        found = tuple(name for name in names if name in dylib.symbols)
        missing = tuple(name for name in names if name not in dylib.symbols)
        log.debug("%s of %s defines: %s", kind, dylib.name, listed(found) or "nothing")
        if missing:
            log.debug("%s of %s has not: %s", kind, dylib.name, listed(missing))


def _leads_to(seat: Seat, chain: set[_Turn]) -> bool:
    """Whether waiting at a seat means waiting for one of some turns."""
    pending, seen = [seat], {seat}
    while pending:
        holder = pending.pop().holder
        if holder in chain:
            return True
        if holder is not None:
            pending += [each for each in holder.waits_at if each not in seen]
            seen.update(holder.waits_at)
    return False


async def _sit_down(seat: Seat, outer: _Turn | None) -> None:
    if outer is None:
        await seat.lock.acquire()
        return
    outer.waits_at.append(seat)
    try:
        await seat.lock.acquire()
    finally:
        outer.waits_at.remove(seat)
