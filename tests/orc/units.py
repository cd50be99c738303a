"""Materialization units for tests: what they define, and when, is set by the test."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count

from jitlink.orc import (
    ExecutionSession,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    MaterializationResponsibility,
    MaterializationUnit,
    SymbolDependenceGroup,
    SymbolState,
)
from jitlink.orc.interface import LookupKind
from jitlink.orc.lookup import look_up
from jitlink.tasks import Event, sleep

EXPORTED = JITSymbolFlags.EXPORTED
WEAK = EXPORTED | JITSymbolFlags.WEAK
COMMON = EXPORTED | JITSymbolFlags.COMMON
HIDDEN = JITSymbolFlags.NONE
SIDE_EFFECTS = EXPORTED | JITSymbolFlags.SIDE_EFFECTS_ONLY
IS_LONG = os.environ.get("JITLINK_LONG") == "1"

_addresses = count(0x1000, 0x10)


class Gate:
    """A gate at which a unit waits until a test opens it."""

    def __init__(self) -> None:
        self._event = Event()
        self.is_waiting = False

    async def wait(self) -> None:
        self.is_waiting = True
        await self._event.wait()
        self.is_waiting = False

    def open(self) -> None:
        """Let the unit proceed; on the driver thread."""
        self._event.set()


class Unit(MaterializationUnit):
    """Defines symbols at addresses of their own.

    Args:
        symbols: names, or names with flags.
        needs: names that its symbols depend on, for all of them or for each.
        error: raised instead of emitting.
        is_gated: whether it waits at its gates, before it is resolved and before it is emitted.

    Attributes:
        materialized: the names of its responsibilities, in order.
        discarded: the names that it was called to discard.
    """

    def __init__(
        self,
        symbols: str | Iterable[str] | Mapping[str, JITSymbolFlags],
        needs: Iterable[str] | Mapping[str, Iterable[str]] = (),
        *,
        name: str = "",
        error: BaseException | None = None,
        is_gated: bool = False,
    ) -> None:
        if isinstance(symbols, str):
            symbols = symbols.split()
        flags = symbols if isinstance(symbols, Mapping) else dict.fromkeys(symbols, EXPORTED)
        self.symbols = flags
        self.name = name or f"unit of {', '.join(flags)}"
        self.addresses = {defined: next(_addresses) for defined in flags}
        everything = tuple(needs) if not isinstance(needs, Mapping) else ()
        self.needs = {
            defined: tuple(needs.get(defined, ())) if isinstance(needs, Mapping) else everything
            for defined in flags
        }
        self.error = error
        self.begin = Gate()
        self.end = Gate()
        if not is_gated:
            self.begin.open()
            self.end.open()
        self.materialized: list[set[str]] = []
        self.discarded: list[str] = []

    def discard(self, dylib: JITDylib, name: str) -> None:  # noqa: ARG002
        assert name not in self.symbols
        self.discarded.append(name)

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        names = set(responsibility.symbols)
        self.materialized.append(names)
        await self.begin.wait()
        responsibility.notify_resolved(self.addresses)
        groups = await self.find_needs(responsibility, names)
        await self.end.wait()
        if self.error is not None:
            raise self.error
        responsibility.notify_emitted(groups)

    async def find_needs(
        self, responsibility: MaterializationResponsibility, names: Iterable[str]
    ) -> list[SymbolDependenceGroup]:
        dylib = responsibility.dylib
        wanted = {need: True for name in sorted(names) for need in self.needs[name]}
        found = await look_up(
            dylib.session, dylib.link_order, wanted, SymbolState.RESOLVED, LookupKind.STATIC
        )
        groups = []
        for name in names:
            group = SymbolDependenceGroup({name})
            for need in self.needs[name]:
                group.dependencies.setdefault(found[need].dylib, set()).add(need)
            if group.dependencies:
                groups.append(group)
        return groups


class Together(Unit):
    """Units that are merged."""

    def merge_key(self) -> str:
        return "together"

    def merge(self, others: Sequence[MaterializationUnit]) -> Unit:
        units = [self, *(unit for unit in others if isinstance(unit, Unit))]
        symbols = {name: flag for unit in units for name, flag in unit.symbols.items()}
        needs = {name: need for unit in units for name, need in unit.needs.items()}
        errors = [unit.error for unit in units if unit.error]
        merged = Unit(symbols, needs, error=errors[0] if errors else None)
        for unit in units:
            merged.addresses.update(unit.addresses)
            # Units share the record of the merged one.
            unit.materialized = merged.materialized
        return merged

    def anticipated(self) -> set[str]:
        return {need for needs in self.needs.values() for need in needs}


class Generator:
    """Defines some names, after other tasks have run.

    Attributes:
        calls: the names of each call.
    """

    def __init__(self, names: str, before: Callable[[], Awaitable[object]] | None = None) -> None:
        self.names = names.split()
        self.before = before
        self.calls: list[list[str]] = []
        self.is_working = False

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        assert not self.is_working
        self.is_working = True
        try:
            self.calls.append(list(names))
            await sleep(0)
            if self.before is not None:
                await self.before()
            known = [name for name in names if name in self.names]
            if known:
                dylib.add_unit(Unit(known))
        finally:
            self.is_working = False


async def run_other_tasks(rounds: int = 40) -> None:
    """Let all tasks run until they wait."""
    for _ in range(rounds):
        await sleep(0)


def settle(session: ExecutionSession) -> None:
    """Wait until all tasks are done or wait at gates."""
    session.wait(run_other_tasks())


def open_gates(session: ExecutionSession, *units: Unit) -> None:
    """Open the gates of units, and let them finish."""
    for unit in units:
        session.run(unit.begin.open)
        session.run(unit.end.open)
    settle(session)


class Pending:
    """A lookup that runs concurrently with the test.

    Attributes:
        result: the addresses, or an error; None until it is done.
    """

    def __init__(
        self,
        session: ExecutionSession,
        where: JITDylib,
        names: str | Iterable[str] | Mapping[str, bool],
        required_state: SymbolState = SymbolState.READY,
    ) -> None:
        self.result: dict[str, int] | BaseException | None = None

        async def run() -> None:
            try:
                found = await session.lookup_async(where, names, required_state=required_state)
                self.result = {name: each.address for name, each in found.items()}
            except BaseException as error:  # noqa: BLE001
                self.result = error

        def start() -> None:
            self.task = session.begin(run())

        session.run(start)
        settle(session)

    @property
    def error(self) -> BaseException:
        assert isinstance(self.result, BaseException)
        return self.result


@contextmanager
def time_limit(seconds: float = 60) -> Iterator[None]:
    """End the process, with the stacks of all threads, after a time limit."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def state_of(dylib: JITDylib, name: str) -> SymbolState | None:
    """The state of a symbol; None if it is not defined."""

    def state() -> SymbolState | None:
        definition = dylib.symbols.get(name)
        return None if definition is None else definition.state

    return dylib.session.run(state)
