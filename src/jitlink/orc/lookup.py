"""Lookups: which definitions the names of a lookup mean, and when the lookup is complete.

`Search` goes through a search order. Each JITDylib takes the names that it defines; its
generators are asked, one after the other, for those that it does not define, and what they add is
taken too. Other tasks run while a generator works, so the order is searched once more afterwards,
without generators: what counts is what is defined in the end.

A generator of a JITDylib works for one search at a time (`GeneratorLock`), so that two searches do
not make it define the same name twice. A generator may itself look something up. If that leads
back to it, it is not asked again; if two generators would wait for each other, one of them
proceeds.

Names that must be found and were not are an error. Otherwise `look_up` starts materializing what
was found, and an `AsynchronousSymbolQuery` waits until all of it has reached the required state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.errors import (
    FailedToMaterializeError,
    JITDylibDefunctError,
    ResourceTrackerDefunctError,
    SessionEndedError,
    listed,
)
from jitlink.orc.interface import ExecutorSymbolDef, JITDylibLookupFlags, LookupKind, SymbolState
from jitlink.tasks import CancelledError, Future, Lock, TaskVariable, current_task

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.interface import DefinitionGenerator

    Order = Sequence[tuple[JITDylib, JITDylibLookupFlags]]
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.interface import SearchOrder
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.orc.session import ExecutionSession

log = logging.getLogger("jitlink.orc")


class GeneratorLock:
    """Where searches wait for one generator of one JITDylib.

    Attributes:
        lock: held by the search that the generator works for.
        holder: that search.
        users: how many searches hold the lock or wait for it.
    """

    __slots__ = ("holder", "lock", "users")

    def __init__(self) -> None:
        self.lock = Lock()
        self.holder: _InProgressLookup | None = None
        self.users = 0


class _InProgressLookup:
    """One search for which a generator works.

    Attributes:
        outer: the turn of the generator that made this search, if one did.
        waits_for: generator_locks at which searches wait that were made in this turn.
        is_over: whether the generator has finished.
    """

    __slots__ = ("is_over", "outer", "waits_for")

    def __init__(self, outer: _InProgressLookup | None) -> None:
        self.outer = outer
        self.waits_for: list[GeneratorLock] = []
        self.is_over = False

    def chain(self) -> Iterator[_InProgressLookup]:
        """The turn and those that it was made in, as far as they are not over."""
        turn: _InProgressLookup | None = self
        while turn is not None:
            if not turn.is_over:
                yield turn
            turn = turn.outer


# The turn in which the running code was called; tasks inherit it from whoever starts them.
_TURN: TaskVariable[_InProgressLookup | None] = TaskVariable(None)


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
        outer, generator_locks = _TURN.get(), dylib.generator_locks
        chain = set(outer.chain()) if outer is not None else set()
        seat = generator_locks.setdefault(id(generator), GeneratorLock())
        if seat.holder in chain:
            return
        seat.users += 1
        try:
            if seat.lock.is_held and _leads_to(seat, chain):
                await self._work(generator, dylib, flags, names)
                return
            await _acquire(seat, outer)
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
                generator_locks.pop(id(generator), None)

    async def _work(
        self,
        generator: DefinitionGenerator,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
        seat: GeneratorLock | None = None,
    ) -> None:
        outer = _TURN.get()
        turn = _InProgressLookup(next(outer.chain(), None) if outer is not None else None)
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


def _leads_to(seat: GeneratorLock, chain: set[_InProgressLookup]) -> bool:
    """Whether waiting at a seat means waiting for one of some turns."""
    pending, seen = [seat], {seat}
    while pending:
        holder = pending.pop().holder
        if holder in chain:
            return True
        if holder is not None:
            pending += [each for each in holder.waits_for if each not in seen]
            seen.update(holder.waits_for)
    return False


async def _acquire(seat: GeneratorLock, outer: _InProgressLookup | None) -> None:
    if outer is None:
        await seat.lock.acquire()
        return
    outer.waits_for.append(seat)
    try:
        await seat.lock.acquire()
    finally:
        outer.waits_for.remove(seat)


REQUESTER: TaskVariable[MaterializationResponsibility | None] = TaskVariable(None)
"""The responsibility for which the running task works, if it does; its lookups end with it."""


class AsynchronousSymbolQuery:
    """A lookup that waits for symbols to reach a state.

    Attributes:
        required_state: the state.
        requester: the responsibility for which the lookup is made, if it is for one.
        found: the definition of each name; once the wait is over, where it is by then.
        done: completed when the wait is over.
    """

    def __init__(
        self,
        required_state: SymbolState,
        found: dict[str, Definition],
        requester: MaterializationResponsibility | None = None,
    ) -> None:
        self.required_state = required_state
        self.requester = requester
        self.found = found
        self.done: Future[None] = Future()
        self._waiting_for: dict[Definition, None] = {}

    @property
    def missing(self) -> tuple[Definition, ...]:
        """What it waits for still."""
        return tuple(self._waiting_for)

    def names_among(self, dylib: JITDylib, names: Mapping[str, object]) -> list[str]:
        """Those of some names of a JITDylib that this lookup is about."""
        found = self.found
        fewer = found if len(found) < len(names) else names
        return [n for n in fewer if n in names and n in found and found[n].dylib is dylib]

    def add(self, definition: Definition) -> None:
        """Wait for a definition."""
        self._waiting_for[definition] = None
        definition.queries[self] = None

    def remove(self, definition: Definition) -> None:
        """Do not wait for a definition any more, without taking that as success."""
        self._waiting_for.pop(definition, None)
        definition.queries.pop(self, None)

    def satisfy(self, definition: Definition) -> None:
        """Take note that a definition has come far enough."""
        self._waiting_for.pop(definition, None)
        if not self._waiting_for:
            self.complete()

    def complete(self) -> None:
        """End the wait: nothing is missing."""
        if self.done.is_done:
            return
        gone: dict[str, list[str]] = {}
        cause: BaseException | None = None
        for name, definition in self.found.items():
            # It may have been split, or failed or removed while the others were waited for.
            held = definition.dylib.symbols.get(name)
            if held is None or held.failed or held.state < self.required_state:
                gone.setdefault(definition.dylib.name, []).append(name)
                if held is not None and held.failed:
                    cause = cause or held.cause
                else:
                    cause = cause or ResourceTrackerDefunctError(definition.dylib.name)
            else:
                self.found[name] = held
        if not gone:
            self.done.set_result(None)
            return
        failure = FailedToMaterializeError(gone)
        failure.__cause__ = cause
        self.done.set_exception(failure)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        self.detach()
        if not self.done.is_done:
            self.done.set_exception(error)

    def detach(self) -> None:
        """Wait for nothing any more."""
        for definition in self._waiting_for:
            definition.queries.pop(self, None)
        self._waiting_for = {}


async def look_up(
    session: ExecutionSession,
    order: SearchOrder,
    names: Mapping[str, bool],
    required_state: SymbolState,
    kind: LookupKind,
    missing: list[str] | None = None,
) -> dict[str, Definition]:
    """Find symbols and wait until they have come as far as `required_state`.

    Args:
        session: the session; this runs on its thread.
        order: where to search.
        names: each name, and whether it must be found.
        required_state: RESOLVED or READY.
        kind: what the search is for.
        missing: takes the names that must be found and are not, which is no error then.

    Returns:
        The symbols that were found.

    Raises:
        UndefinedSymbolError: some names that must be found are not, and `missing` is None.
        FailedToMaterializeError: some of them could not be made, or were removed meanwhile.
        JITDylibDefunctError: a JITDylib of the order was removed.
        SessionEndedError: the session has ended, or ends meanwhile.
    """
    found = await search(session, order, names, kind, missing)
    wanted = dict.fromkeys(found.values())
    failed = [definition for definition in wanted if definition.failed]
    if failed:
        raise session.failure(failed) from failed[0].cause
    requester = REQUESTER.get()
    if required_state < SymbolState.READY:
        for definition in wanted:
            if required_state <= definition.state < SymbolState.READY:
                definition.announce_to(requester)
    if all(definition.state >= required_state for definition in wanted):
        return found
    return await _wait(session, AsynchronousSymbolQuery(required_state, found, requester))


async def wait_until_ready(session: ExecutionSession, found: dict[str, Definition]) -> None:
    """Wait until symbols that were found are ready.

    Raises:
        FailedToMaterializeError: some of them could not be materialized, or were removed meanwhile.
        SessionEndedError: the session ends meanwhile.
    """
    await _wait(session, AsynchronousSymbolQuery(SymbolState.READY, found, REQUESTER.get()))


async def search(
    session: ExecutionSession,
    order: SearchOrder,
    names: Mapping[str, bool],
    kind: LookupKind,
    missing: list[str] | None = None,
) -> dict[str, Definition]:
    """Find symbols; nothing is made.

    Raises:
        UndefinedSymbolError: some names that must be found are not, and `missing` is None.
        JITDylibDefunctError: a JITDylib of the order was removed.
        SessionEndedError: the session has ended, or ends meanwhile.
    """
    session.check_open()
    task = current_task()
    searching = Search(order, names, kind)
    log_search(order, names, getattr(REQUESTER.get(), "unit_name", None))
    session.searches.add(task)
    try:
        await searching.run()
    except CancelledError:
        if not session.is_ending:
            raise
        raise SessionEndedError from None
    finally:
        session.searches.discard(task)
        # An error that is raised knows this frame, and the task knows the error.
        del task
    session.check_open()
    found = searching.found
    absent = [name for name, required in names.items() if required and name not in found]
    if missing is not None:
        missing += absent
    elif absent:
        raise UndefinedSymbolError(absent)
    return found


async def _wait(session: ExecutionSession, query: AsynchronousSymbolQuery) -> dict[str, Definition]:
    wanted = dict.fromkeys(query.found.values())
    unfinished = [each for each in wanted if each.state < query.required_state]
    for definition in unfinished:
        query.add(definition)
    session.queries[query] = None
    if query.requester is not None:
        query.requester.queries[query] = None
    try:
        session.materialize(unfinished)
        await query.done
        return query.found
    finally:
        query.detach()
        session.queries.pop(query, None)
        if query.requester is not None:
            query.requester.queries.pop(query, None)
        # An error that is raised knows this frame, and the query knows the error.
        del query


def symbols_of(found: Mapping[str, Definition]) -> dict[str, ExecutorSymbolDef]:
    """Addresses and flags of what was found; symbols for side effects only have none."""
    return {
        name: definition.symbol(name)
        for name, definition in found.items()
        if definition.flags[name].has_address
    }
