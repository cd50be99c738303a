"""Materialization: from units to responsibilities, and the tasks that run units.

When a symbol of a `MaterializationUnit` is looked up, a `MaterializationTask` turns the unit into
a `MaterializationResponsibility` and runs the unit's `materialize`, which must in the end report
the addresses (`notify_resolved`), then that everything is in place (`notify_emitted`); or that it
failed (`fail`).

Units with equal merge keys that are needed at the same time, and those that they will look up,
are merged and materialized as one: for objects, that is one link of many. If that fails, each is
materialized by itself, so that only the unit at fault, and what depends on it, fails; unless
addresses have been announced already, which cannot be taken back.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.dylib import Definition
from jitlink.orc.errors import (
    MissingDefinitionsError,
    ResourceTrackerDefunctError,
    SessionError,
    UnexpectedDefinitionError,
    UnsatisfiedDependenciesError,
    listed,
)
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITSymbolFlags,
    MaterializationUnit,
    SymbolDependenceGroup,
    SymbolState,
)
from jitlink.orc.lookup import REQUESTER

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.interface import ResourceTracker
    from jitlink.orc.lookup import AsynchronousSymbolQuery
    from jitlink.orc.session import ExecutionSession


class AbsoluteSymbols(MaterializationUnit):
    """Definitions with fixed addresses."""

    def __init__(self, symbols: Mapping[str, ExecutorSymbolDef]) -> None:
        self.name = "<absolute symbols>"
        self.symbols = {name: each.flags for name, each in symbols.items()}
        self._addresses = {name: each.address for name, each in symbols.items()}

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Announce the addresses; everything is in place already."""
        responsibility.notify_resolved(self._addresses)
        responsibility.notify_emitted()


class MaterializationResponsibility:
    """The duty to make definitions, and the way to report about them.

    All methods are to be called on the session's thread. Whoever holds it must meet it: if it
    is dropped while something is still to be made, that has failed.

    Attributes:
        dylib: where the definitions will be.
        unit_name: display name of what makes them.
        definitions: what is still to be made.
        queries: lookups that are made for it; they end when its tracker is removed.
    """

    def __init__(
        self, tracker: ResourceTracker, unit_name: str, definitions: Iterable[Definition]
    ) -> None:
        self._tracker = tracker
        self.dylib: JITDylib = tracker.dylib
        self.unit_name = unit_name
        self.definitions = list(definitions)
        self.queries: dict[AsynchronousSymbolQuery, None] = {}
        for definition in self.definitions:
            definition.responsibility = self

    def __repr__(self) -> str:
        return f"<MaterializationResponsibility {self.unit_name} in {self.dylib.name}>"

    def __del__(self) -> None:
        if self.definitions and self._tracker.current is not None:
            error = MissingDefinitionsError(self.unit_name, self.symbols)
            self.session.fail_later(self.definitions, error)

    @property
    def session(self) -> ExecutionSession:
        """The session of the definitions' JITDylib."""
        return self.dylib.session

    @property
    def symbols(self) -> dict[str, JITSymbolFlags]:
        """Names that are still to be made, with flags."""
        return {n: f for definition in self.definitions for n, f in definition.flags.items()}

    def defines(self, name: str) -> bool:
        """Whether a name is still to be made."""
        return any(name in definition.flags for definition in self.definitions)

    @property
    def requested_symbols(self) -> set[str]:
        """Names among them that somebody has looked up and waits for."""
        return {
            name
            for definition in self.definitions
            for query in definition.queries
            for name in query.names_among(self.dylib, definition.flags)
        }

    @property
    def tracker(self) -> ResourceTracker:
        """The tracker that owns what is made.

        Raises:
            ResourceTrackerDefunctError: it was removed.
        """
        tracker = self._tracker.current
        if tracker is None:
            raise ResourceTrackerDefunctError(self.dylib.name)
        return tracker

    def _check(self) -> None:
        # The definitions of a removed tracker are gone, and nobody is told about them.
        if self._tracker.current is None:
            raise ResourceTrackerDefunctError(self.dylib.name)

    def notify_resolved(self, addresses: Mapping[str, int]) -> None:
        """Announce the addresses of all that is still to be made and has none.

        Args:
            addresses: looked at from now on whenever an address is asked for; may have more
                names than those to be made.

        Raises:
            MissingDefinitionsError: a name has no address; none has been announced.
            ResourceTrackerDefunctError: the definitions were removed in the meantime.
        """
        # LLVM differs: there, a call may be about some of the names. Here the others are to be
        # delegated.
        self._check()
        new = [each for each in self.definitions if each.state < SymbolState.RESOLVED]
        missing = [
            name
            for definition in new
            for name in definition.flags
            if name not in addresses and definition.flags[name].has_address
        ]
        if missing:
            raise MissingDefinitionsError(self.unit_name, missing)
        for definition in new:
            definition.addresses = addresses
            definition.advance(SymbolState.RESOLVED)

    def notify_emitted(self, groups: Collection[SymbolDependenceGroup] = ()) -> None:
        """Say that everything is in executor memory.

        Args:
            groups: what depends on what, no symbol in more than one; symbols in no group
                depend on nothing.

        Raises:
            MissingDefinitionsError: a symbol, not only for side effects, has no address yet.
            UnexpectedDefinitionError: a group is about a symbol that is not to be made here, or
                that is in another group already.
            UnsatisfiedDependenciesError: something that is depended on has failed, was removed,
                or was never looked up.
            ResourceTrackerDefunctError: the definitions were removed in the meantime.
        """
        self._check()
        if not self.definitions and not groups:
            return
        unresolved = [
            name
            for definition in self.definitions
            if definition.state < SymbolState.RESOLVED
            for name, flag in definition.flags.items()
            if flag.has_address
        ]
        if unresolved:
            raise MissingDefinitionsError(self.unit_name, unresolved)
        self.session.emit(self._grouped(list(groups)))
        self.definitions = []

    def _grouped(
        self, groups: Sequence[SymbolDependenceGroup]
    ) -> list[tuple[list[Definition], dict[Definition, set[str]]]]:
        """Definitions that need the same, with what they need."""
        if not groups:
            return [(self.definitions, {})]
        number_of: dict[str, int] = {}
        for number, group in enumerate(groups):
            again = [name for name in group.symbols if name in number_of]
            if again:
                raise UnexpectedDefinitionError(self.unit_name, again)
            number_of.update(dict.fromkeys(group.symbols, number))
        unexpected = number_of.keys() - self.symbols.keys()
        if unexpected:
            raise UnexpectedDefinitionError(self.unit_name, unexpected)
        self._check_dependencies(groups)
        members: dict[int, list[Definition]] = {}
        for definition in self.definitions:
            for number, part in definition.divide(number_of).items():
                members.setdefault(number, []).append(part)
        self.definitions = [each for parts in members.values() for each in parts]
        # Only now that all are divided is it certain where each name is.
        return [
            (parts, _needs(groups[number]) if number >= 0 else {})
            for number, parts in members.items()
        ]

    def _check_dependencies(self, groups: Sequence[SymbolDependenceGroup]) -> None:
        lacking: dict[str, set[str]] = {}
        cause: BaseException | None = None
        for group in groups:
            for dylib, names in group.dependencies.items():
                for name in names:
                    held = dylib.symbols.get(name)
                    if held is None or held.failed or held.state == SymbolState.NEVER_SEARCHED:
                        lacking.setdefault(dylib.name, set()).add(name)
                        cause = cause or (held.cause if held is not None else None)
        if lacking:
            raise UnsatisfiedDependenciesError(self.unit_name, lacking) from cause

    def define_materializing(self, symbols: Mapping[str, JITSymbolFlags]) -> set[str]:
        """Take on more definitions, found while making these.

        Returns:
            Those of them that were taken on; a weak one is not if there is another.

        Raises:
            DuplicateDefinitionError: a strong one exists already; nothing was taken on.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        claimed = self.dylib.claim(symbols, self.tracker, self)
        if claimed is None:
            return set()
        self.definitions.append(claimed)
        return set(claimed.flags)

    def _take(self, names: Iterable[str]) -> list[Definition]:
        """Split symbols off what is still to be made."""
        wanted = set(names)
        unexpected = wanted - self.symbols.keys()
        if unexpected:
            raise UnexpectedDefinitionError(self.unit_name, unexpected)
        part_of = dict.fromkeys(wanted, 0)
        taken, kept = [], []
        for definition in self.definitions:
            parts = definition.divide(part_of)
            taken += [part for number, part in parts.items() if number == 0]
            kept += [part for number, part in parts.items() if number != 0]
        self.definitions = kept
        return taken

    def replace(self, unit: MaterializationUnit) -> None:
        """Hand definitions back as a promise of another unit.

        It is materialized at once if somebody is waiting for one of them.

        Raises:
            UnexpectedDefinitionError: the unit defines what is not to be made here.
            SessionError: an address of one of them was announced already.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        self._check()
        late = [
            name
            for definition in self.definitions
            if definition.state > SymbolState.MATERIALIZING
            for name in unit.symbols
            if name in definition.flags
        ]
        if late:
            names = ", ".join(sorted(late))
            raise SessionError(f"{self.unit_name} cannot hand back {names}: resolved already")
        taken = self._take(unit.symbols)
        for definition in taken:
            definition.withdraw()
            definition.unit, definition.source = unit, unit.name
        self.session.materialize([definition for definition in taken if definition.queries])

    def delegate(self, names: Iterable[str]) -> MaterializationResponsibility:
        """Give part of the duty to another responsibility.

        Raises:
            UnexpectedDefinitionError: a name is not to be made here.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        self._check()
        return MaterializationResponsibility(self.tracker, self.unit_name, self._take(names))

    def fail(self, error: BaseException | None = None) -> None:
        """Say that what remains cannot be made; reaches all who wait for it or depend on it."""
        definitions, self.definitions = self.definitions, []
        if definitions and self._tracker.current is not None:
            self.session.fail(definitions, error)

    def abandon(self) -> list[Definition]:
        """Let go of what remains without failing it; for the session, which makes it anew."""
        definitions, self.definitions = self.definitions, []
        return definitions

    def stop(self, error: BaseException) -> None:
        """End the lookups that are made for it."""
        for query in list(self.queries):
            query.fail(error)


def _needs(group: SymbolDependenceGroup) -> dict[Definition, set[str]]:
    """The definitions of what a group depends on."""
    needed: dict[Definition, set[str]] = {}
    for dylib, names in group.dependencies.items():
        for name in names:
            needed.setdefault(dylib.symbols[name], set()).add(name)
    return needed


class MaterializationTask:
    """A unit that is being made.

    Args:
        members: the units that are made as one, with the definitions that they promise.
        earlier: why they could not be made together with others.

    Attributes:
        unit: the unit, or what they were merged into.
    """

    def __init__(
        self,
        members: Mapping[MaterializationUnit, Sequence[Definition]],
        earlier: BaseException | None = None,
    ) -> None:
        first, *others = members
        self.unit = first.merge(others) if others else first
        self._members = members
        self._earlier = earlier
        self._responsibility: MaterializationResponsibility | None = None

    def __str__(self) -> str:
        names = listed(tuple(unit.name for unit in self._members))
        symbols = sum(len(each.flags) for parts in self._members.values() for each in parts)
        return f"{names} (symbols: {symbols})"

    def begin(self) -> None:
        """Turn the promises into a responsibility."""
        definitions = [each for promised in self._members.values() for each in promised]
        for definition in definitions:
            definition.unit = None
            definition.state = SymbolState.MATERIALIZING
        self._responsibility = MaterializationResponsibility(
            definitions[0].tracker, self.unit.name, definitions
        )

    async def run(self) -> None:
        """Make the definitions; whatever the unit raises is raised."""
        responsibility = self._responsibility
        if responsibility is not None:
            REQUESTER.set(responsibility)
            await self.unit.materialize(responsibility)

    def finish(self) -> None:
        """Let go of the responsibility: the unit has met it, or has handed it on."""
        self._responsibility = None
        REQUESTER.set(None)

    def fail(self, error: BaseException) -> None:
        """Fail what remains to be made."""
        responsibility = self._responsibility
        if responsibility is not None:
            responsibility.fail(self._fuller(error))
        self._forget(error)

    def _forget(self, error: BaseException) -> None:
        """Let go of the responsibility and of all that the error's traceback holds.

        The error may be kept for long. What the link had in its hands is not to be.
        """
        self.finish()
        forget_frames(error)

    def _fuller(self, error: BaseException) -> BaseException:
        """An error, or the earlier one if that names all that is missing here and more."""
        root, earlier = error, self._earlier
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, UndefinedSymbolError) and isinstance(earlier, UndefinedSymbolError):
            return earlier if set(earlier.names).issuperset(root.names) else error
        return error

    @property
    def can_be_divided(self) -> bool:
        """Whether the units can be made again one by one, as if nothing had happened."""
        responsibility = self._responsibility
        if len(self._members) < 2 or responsibility is None or not responsibility.definitions:
            return False
        definitions = responsibility.definitions
        promised = {name for unit in self._members for name in unit.symbols}
        return not any(
            each.failed or each.is_announced or each.waiters or each.state > SymbolState.RESOLVED
            for each in definitions
        ) and promised.issuperset(responsibility.requested_symbols)

    def divide(self, error: BaseException) -> list[MaterializationTask]:
        """Take everything back because of an error; returns each unit by itself, to be made."""
        responsibility = self._responsibility
        if responsibility is None:
            return []
        units = list(self._members)
        number_of = {name: n for n, unit in enumerate(units) for name in unit.symbols}
        members: dict[int, list[Definition]] = {}
        for definition in responsibility.abandon():
            definition.withdraw()
            for number, part in definition.divide(number_of).items():
                members.setdefault(number, []).append(part)
        # What was found while linking is found again; nobody has asked for it.
        for part in members.pop(-1, []):
            part.dylib.forget(part)
        self._forget(error)
        return [
            MaterializationTask({units[number]: parts}, error) for number, parts in members.items()
        ]


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames hold that an error has left; for where it is caught."""
    made_by = error.__traceback__
    if made_by is not None:
        # The first frame is that of the caller, which still runs and cannot be cleared.
        error.__traceback__ = made_by.tb_next
        traceback.clear_frames(made_by.tb_next)


def gather(promised: Sequence[Definition]) -> list[MaterializationTask]:
    """Units to be made, those that can be made together as one."""
    groups: dict[object, dict[MaterializationUnit, list[Definition]]] = {}
    for definition in _with_anticipated(promised):
        unit = definition.unit
        if unit is not None:
            key = unit.merge_key()
            group = (id(unit), unit) if key is None else (key, definition.tracker)
            groups.setdefault(group, {}).setdefault(unit, []).append(definition)
    return [MaterializationTask(members) for members in groups.values()]


def _with_anticipated(promised: Iterable[Definition]) -> list[Definition]:
    """Definitions, the rest of what their units promise, and what those will ask for."""
    chosen = dict.fromkeys(promised)
    pending = list(chosen)
    while pending:
        definition = pending.pop()
        unit, symbols = definition.unit, definition.dylib.symbols
        if unit is None:
            continue
        others: list[Definition] = []
        if len(definition.flags) < len(unit.symbols):
            named = [symbols.get(name) for name in unit.symbols]
            others += [held for held in named if held and held.unit is unit]
        if unit.merge_key() is not None:
            named = [symbols.get(name) for name in unit.anticipated()]
            others += [h for h in named if h and h.unit and h.unit.merge_key() is not None]
        for other in others:
            if other not in chosen:
                chosen[other] = None
                pending.append(other)
    return list(chosen)
