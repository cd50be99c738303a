"""Looking up symbols: what that sets in motion, and when it is over.

A lookup searches its names (see `jitlink.orc.search`). Names that must be found and were not
are an error. Otherwise everything that was found is made, if it is not yet, and the lookup
waits until all of it has come as far as was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.errors import (
    FailedToMaterializeError,
    ResourceTrackerDefunctError,
    SessionEndedError,
)
from jitlink.orc.search import Search, log_search
from jitlink.orc.symbols import ExecutorSymbolDef, LookupKind, SymbolState
from jitlink.tasks import CancelledError, Future, TaskVariable, current_task

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition
    from jitlink.orc.dylib import JITDylib, SearchOrder
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.orc.session import ExecutionSession

REQUESTER: TaskVariable[MaterializationResponsibility | None] = TaskVariable(None)
"""The responsibility for which the running task works, if it does; its lookups end with it."""


class Query:
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
    return await _wait(session, Query(required_state, found, requester))


async def wait_until_ready(session: ExecutionSession, found: dict[str, Definition]) -> None:
    """Wait until symbols that were found are ready.

    Raises:
        FailedToMaterializeError: some of them could not be made, or were removed meanwhile.
        SessionEndedError: the session ends meanwhile.
    """
    await _wait(session, Query(SymbolState.READY, found, REQUESTER.get()))


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


async def _wait(session: ExecutionSession, query: Query) -> dict[str, Definition]:
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
