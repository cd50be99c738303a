"""Lookups: which definitions the names of a lookup mean, and when the lookup is complete.

`Search` visits the JITDylibs of a search order. Each takes the names that it defines; its
generators are called, one after the other, for those that it does not define, and what they add is
taken too. Other tasks run while a generator works, so the order is searched once more afterwards,
without generators: what is defined in the end counts.

A generator of a JITDylib works for one search at a time (`GeneratorLock`), so that two searches do
not make it define the same name twice. A generator may itself look something up. If that leads
back to it, it is not called again; if two generators would wait for each other, one of them
proceeds.

Names that must be found and are not are an error. Otherwise `look_up` starts materializing what
was found, and an `AsynchronousSymbolQuery` waits until all of it has reached the required state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.logs import Log
from jitlink.orc.errors import (
    FailedToMaterializeError,
    Failure,
    JITDylibDefunctError,
    ResourceTrackerDefunctError,
    SessionEndedError,
    listed,
)
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    GeneratorLock,
    InProgressLookup,
    JITDylibLookupFlags,
    LookupKind,
    SymbolState,
)
from jitlink.tasks import CancelledError, Future, TaskVariable, current_task

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.interface import (
        DefinitionGenerator,
        Responsibility,
        SearchOrder,
        Session,
    )

log = Log("jitlink.orc")

_IN_PROGRESS: TaskVariable[InProgressLookup | None] = TaskVariable(None)
"""The call of a generator that the running task belongs to; tasks inherit it."""


class Search:
    """One search of a search order.

    Args:
        order: the JITDylibs to search.
        names: each name, and whether it must be found.
        kind: what the search is for.

    Attributes:
        found: the definition of each name that was found.
    """

    def __init__(
        self,
        order: SearchOrder,
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
            wanted = self._match(dylib, flags, wanted)
            for generator in tuple(dylib.generators):
                # Hidden symbols do not match, and must not be defined again.
                absent = _undefined_among(wanted, dylib)
                if not absent:
                    break
                if generator in dylib.generators:
                    has_generated = True
                    await self._generate(generator, dylib, flags, absent)
                    wanted = self._match(dylib, flags, wanted)
        if has_generated:
            self.match_again()

    def match_again(self) -> None:
        """Find the names in the tables as they are now."""
        self.found.clear()
        wanted = self._names
        for dylib, flags in self._order:
            wanted = self._match(dylib, flags, wanted)

    def _match(
        self, dylib: JITDylib, flags: JITDylibLookupFlags, wanted: Mapping[str, bool]
    ) -> Mapping[str, bool]:
        """Record the names that match symbols of a JITDylib; returns the others."""
        if not dylib.is_open:
            raise JITDylibDefunctError(dylib.name)
        symbols = dylib.symbols
        if symbols.keys().isdisjoint(wanted.keys()):
            return wanted
        exported_only = flags is JITDylibLookupFlags.MATCH_EXPORTED_ONLY
        rest = {}
        for name, required in wanted.items():
            definition = symbols.get(name)
            if definition is None:
                rest[name] = required
                continue
            flag = definition.flags[name]
            if exported_only and not flag.is_exported:
                rest[name] = required
            elif required and not flag.has_address:
                # It does not satisfy a reference that needs an address, but it prevails over
                # definitions in later JITDylibs.
                continue
            else:
                self.found[name] = definition
        return rest

    async def _generate(
        self,
        generator: DefinitionGenerator,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Let a generator define names, under its lock."""
        outer, locks = _IN_PROGRESS.get(), dylib.generator_locks
        chain = set(outer.chain()) if outer is not None else set()
        lock = locks.setdefault(id(generator), GeneratorLock())
        if lock.holder in chain:
            return
        lock.users += 1
        try:
            if lock.lock.is_held and _waits_for_any(lock, chain):
                await self._call(generator, dylib, flags, names)
                return
            await _acquire(lock, outer)
            try:
                # An earlier holder of the lock may have defined them.
                absent = _undefined_among(names, dylib)
                if absent and dylib.is_open:
                    await self._call(generator, dylib, flags, absent, lock)
            finally:
                lock.holder = None
                lock.lock.release()
        finally:
            lock.users -= 1
            if not lock.users:
                locks.pop(id(generator), None)

    async def _call(
        self,
        generator: DefinitionGenerator,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
        lock: GeneratorLock | None = None,
    ) -> None:
        outer = _IN_PROGRESS.get()
        call = InProgressLookup(next(outer.chain(), None) if outer is not None else None)
        if lock is not None:
            lock.holder = call
        restore = _IN_PROGRESS.set(call)
        try:
            await generator.try_to_generate(self._kind, dylib, flags, names)
        finally:
            call.is_over = True
            restore()
        _log_generated(generator, dylib, names)


def _undefined_among(names: Mapping[str, bool], dylib: JITDylib) -> Mapping[str, bool]:
    """Those of some names that a JITDylib does not define."""
    symbols = dylib.symbols
    if symbols.keys().isdisjoint(names.keys()):
        return names
    return {name: required for name, required in names.items() if name not in symbols}


def log_search(order: SearchOrder, names: Mapping[str, bool], requester: str | None) -> None:
    """Log that a search begins, and for which unit."""
    if log.is_on:
        places = ", ".join(dylib.name for dylib, _ in order)
        log.debug("%s looks up in %s: %s", requester or "caller", places, listed(tuple(names)))


def _log_generated(
    generator: DefinitionGenerator, dylib: JITDylib, names: Mapping[str, bool]
) -> None:
    if log.is_on:
        kind = type(generator).__name__
        found = tuple(name for name in names if name in dylib.symbols)
        missing = tuple(name for name in names if name not in dylib.symbols)
        log.debug("%s of %s defines: %s", kind, dylib.name, listed(found) or "nothing")
        if missing:
            log.debug("%s of %s does not define: %s", kind, dylib.name, listed(missing))


def _waits_for_any(lock: GeneratorLock, calls: set[InProgressLookup]) -> bool:
    """Whether waiting for a generator lock means waiting for one of some calls."""
    pending, seen = [lock], {lock}
    while pending:
        holder = pending.pop().holder
        if holder in calls:
            return True
        if holder is not None:
            pending += [other for other in holder.waits_for if other not in seen]
            seen.update(holder.waits_for)
    return False


async def _acquire(lock: GeneratorLock, outer: InProgressLookup | None) -> None:
    if outer is None:
        await lock.lock.acquire()
        return
    outer.waits_for.append(lock)
    try:
        await lock.lock.acquire()
    finally:
        outer.waits_for.remove(lock)


REQUESTER: TaskVariable[Responsibility | None] = TaskVariable(None)
"""The responsibility that the running task works for, if any; its lookups end with it."""


class AsynchronousSymbolQuery:
    """A lookup that waits for symbols to reach a state.

    Attributes:
        required_state: the state.
        requester: the responsibility for which the lookup is made, if any.
        found: the definition of each name; once the wait is over, the one that has it by then.
        done: completed when the wait is over.
    """

    def __init__(
        self,
        required_state: SymbolState,
        found: dict[str, Definition],
        requester: Responsibility | None = None,
    ) -> None:
        self.required_state = required_state
        self.requester = requester
        self.found = found
        self.done: Future[None] = Future()
        self._waiting_for: dict[Definition, None] = {}

    @property
    def missing(self) -> tuple[Definition, ...]:
        """The definitions that it still waits for."""
        return tuple(self._waiting_for)

    def names_among(self, dylib: JITDylib, names: Mapping[str, object]) -> list[str]:
        """Those of some names of a JITDylib that this lookup is for."""
        found = self.found
        fewer = found if len(found) < len(names) else names
        return [n for n in fewer if n in names and n in found and found[n].dylib is dylib]

    def add(self, definition: Definition) -> None:
        """Wait for a definition."""
        self._waiting_for[definition] = None
        definition.queries[self] = None

    def remove(self, definition: Definition) -> None:
        """Stop waiting for a definition that has not reached the required state."""
        self._waiting_for.pop(definition, None)
        definition.queries.pop(self, None)

    def satisfy(self, definition: Definition) -> None:
        """Record that a definition has reached the required state."""
        self._waiting_for.pop(definition, None)
        if not self._waiting_for:
            self.complete()

    def complete(self) -> None:
        """End the wait: nothing is missing."""
        if self.done.is_done:
            return
        lost: dict[str, list[str]] = {}
        failure: Failure | None = None
        for name, definition in self.found.items():
            # It may have been split, or failed or been removed while the others were waited for.
            current = definition.dylib.symbols.get(name)
            if current is None or current.failed or current.state < self.required_state:
                lost.setdefault(definition.dylib.name, []).append(name)
                failure = failure or (current.failure if current is not None else None)
                removed = ResourceTrackerDefunctError(definition.dylib.name)
                failure = failure or Failure(definition.source, removed)
            else:
                self.found[name] = current
        if not lost:
            self.done.set_result(None)
            return
        self.done.set_exception(FailedToMaterializeError(lost, failure=failure))

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        self.detach()
        if not self.done.is_done:
            self.done.set_exception(error)

    def detach(self) -> None:
        """Stop waiting."""
        for definition in self._waiting_for:
            definition.queries.pop(self, None)
        self._waiting_for = {}


async def look_up(
    session: Session,
    order: SearchOrder,
    names: Mapping[str, bool],
    required_state: SymbolState,
    kind: LookupKind,
    missing: list[str] | None = None,
) -> dict[str, Definition]:
    """Find symbols and wait until they have reached `required_state`; on the driver thread.

    Args:
        session: the session.
        order: the JITDylibs to search.
        names: each name, and whether it must be found.
        required_state: RESOLVED or READY.
        kind: what the search is for.
        missing: receives the names that must be found and are not, which is no error then.

    Returns:
        The definitions of the names that were found.

    Raises:
        UndefinedSymbolError: some names that must be found are not, and `missing` is None.
        FailedToMaterializeError: some of them could not be materialized, or were removed meanwhile.
        JITDylibDefunctError: a JITDylib of the order was removed.
        SessionEndedError: the session has ended, or ends meanwhile.
    """
    searching = await _search(session, order, names, kind, missing)
    found = searching.found
    wanted = dict.fromkeys(found.values())
    if session.extract_members(wanted):
        searching.match_again()
        wanted = dict.fromkeys(found.values())
    failed = [definition for definition in wanted if definition.failed]
    if failed:
        raise session.failed_to_materialize(failed)
    requester = REQUESTER.get()
    if required_state < SymbolState.READY:
        for definition in wanted:
            if required_state <= definition.state < SymbolState.READY:
                definition.expose_to(requester)
    if all(definition.state >= required_state for definition in wanted):
        return found
    return await _wait(session, AsynchronousSymbolQuery(required_state, found, requester))


async def wait_until_ready(session: Session, found: dict[str, Definition]) -> None:
    """Wait until symbols that were found are ready.

    Raises:
        FailedToMaterializeError: some of them could not be materialized, or were removed meanwhile.
        SessionEndedError: the session ends meanwhile.
    """
    await _wait(session, AsynchronousSymbolQuery(SymbolState.READY, found, REQUESTER.get()))


async def wait_until_emitted(session: Session, found: dict[str, Definition]) -> None:
    """Wait until the content of symbols that were found is in executor memory; raises the same."""
    await _wait(session, AsynchronousSymbolQuery(SymbolState.EMITTED, found, REQUESTER.get()))


async def search(
    session: Session,
    order: SearchOrder,
    names: Mapping[str, bool],
    kind: LookupKind,
    missing: list[str] | None = None,
) -> dict[str, Definition]:
    """Find symbols, without materializing them.

    Raises:
        UndefinedSymbolError: some names that must be found are not, and `missing` is None.
        JITDylibDefunctError: a JITDylib of the order was removed.
        SessionEndedError: the session has ended, or ends meanwhile.
    """
    return (await _search(session, order, names, kind, missing)).found


async def _search(
    session: Session,
    order: SearchOrder,
    names: Mapping[str, bool],
    kind: LookupKind,
    missing: list[str] | None = None,
) -> Search:
    """`search`; returns the search itself."""
    session.check_open()
    session.check_links()
    task = current_task()
    searching = Search(order, names, kind)
    log_search(order, names, getattr(REQUESTER.get(), "unit_name", None))
    session.searches.add(task)
    try:
        await searching.run()
    except CancelledError:
        if session.is_ending:
            raise SessionEndedError from None
        session.check_links()
        raise
    finally:
        session.searches.discard(task)
        # The traceback of an error refers to this frame, and the task to the error: avoid a cycle.
        del task
    session.check_open()
    absent = [name for name, required in names.items() if required and name not in searching.found]
    if missing is not None:
        missing += absent
    elif absent:
        raise UndefinedSymbolError(absent)
    return searching


async def _wait(session: Session, query: AsynchronousSymbolQuery) -> dict[str, Definition]:
    wanted = dict.fromkeys(query.found.values())
    unfinished = [definition for definition in wanted if definition.state < query.required_state]
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
        # The traceback of an error refers to this frame, and the query to the error: avoid a cycle.
        del query


def symbols_of(found: Mapping[str, Definition]) -> dict[str, ExecutorSymbolDef]:
    """Addresses and flags of what was found, without symbols for side effects only."""
    return {
        name: definition.symbol(name)
        for name, definition in found.items()
        if definition.flags[name].has_address
    }
