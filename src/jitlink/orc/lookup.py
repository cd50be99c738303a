"""Looking up symbols: where they are searched, what that sets in motion, when it is over.

A lookup goes through its search order. Each JITDylib takes the names that it has, then its
generators may add some that it has not. When all places were searched, names that must be
found and were not are an error. Otherwise everything that was found is made, if it is not yet,
and the lookup waits until all of it has come as far as was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.symbols import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    SymbolState,
)

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition
    from jitlink.orc.dylib import JITDylib, SearchOrder
    from jitlink.orc.session import ExecutionSession


class Query:
    """A lookup that waits for symbols to reach a state."""

    def __init__(self, required_state: SymbolState, found: Mapping[str, Definition]) -> None:
        self.required_state = required_state
        self._found = found
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_for: set[Definition] = set()

    def names_in(self, dylib: JITDylib) -> set[str]:
        """The names that were found in a JITDylib."""
        return {name for name, each in self._found.items() if each.dylib is dylib}

    def add(self, definition: Definition) -> None:
        """Wait for a definition."""
        if definition not in self._waiting_for:
            self._waiting_for.add(definition)
            definition.queries.append(self)

    def satisfy(self, definition: Definition) -> None:
        """Take note that a definition has come far enough."""
        self._waiting_for.discard(definition)
        self.finish_if_complete()

    def finish_if_complete(self) -> None:
        """End the wait if nothing is missing."""
        if not self._waiting_for and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        for definition in self._waiting_for:
            if self in definition.queries:
                definition.queries.remove(self)
        self._waiting_for = set()
        if not self.done.done():
            self.done.set_exception(error)


async def look_up(
    session: ExecutionSession,
    order: SearchOrder,
    names: Mapping[str, bool],
    required_state: SymbolState,
    kind: LookupKind,
) -> dict[str, Definition]:
    """Find symbols and wait until they have come as far as `required_state`.

    Args:
        session: the session; this runs on its thread.
        order: where to search.
        names: each name, and whether it must be found.
        required_state: RESOLVED or READY.
        kind: what the search is for.

    Returns:
        The symbols that were found.

    Raises:
        UndefinedSymbolError: some names that must be found are not.
        FailedToMaterializeError: some of them could not be made.
    """
    found = await _search(order, names, kind)
    missing = [name for name, required in names.items() if required and name not in found]
    if missing:
        raise UndefinedSymbolError(missing)
    wanted = dict.fromkeys(found.values())
    failed = [definition for definition in wanted if definition.failed]
    if failed:
        raise session.failure(failed)
    query = Query(required_state, found)
    for definition in wanted:
        if definition.state < required_state:
            query.add(definition)
    session.materialize(wanted)
    query.finish_if_complete()
    await query.done
    # A definition may have been split since; each name knows where it is now.
    return {name: each.dylib.symbols.get(name, each) for name, each in found.items()}


async def _search(
    order: SearchOrder, names: Mapping[str, bool], kind: LookupKind
) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    wanted = list(names)
    for dylib, flags in order:
        wanted = _take(dylib, flags, wanted, found)
        for generator in list(dylib.generators):
            if not wanted:
                break
            await generator.try_to_generate(kind, dylib, flags, wanted)
            wanted = _take(dylib, flags, wanted, found)
    return found


def _take(
    dylib: JITDylib,
    flags: JITDylibLookupFlags,
    wanted: Iterable[str],
    found: dict[str, Definition],
) -> list[str]:
    """Move names that a JITDylib has, and shows, to `found`; returns the others."""
    exported_only = flags is JITDylibLookupFlags.MATCH_EXPORTED_ONLY
    rest = []
    for name in wanted:
        held = dylib.symbols.get(name)
        if held is None or (exported_only and not held.flags[name] & JITSymbolFlags.EXPORTED):
            rest.append(name)
        else:
            found[name] = held
    return rest


def symbols_of(found: Mapping[str, Definition]) -> dict[str, ExecutorSymbolDef]:
    """Addresses and flags of what was found; symbols for side effects only have none."""
    return {
        name: definition.symbol(name)
        for name, definition in found.items()
        if not definition.flags[name] & JITSymbolFlags.SIDE_EFFECTS_ONLY
    }
