"""Definitions that are made when somebody asks for them, and who answers for making them.

A `MaterializationUnit` promises symbols. When one of them is looked up, the session turns the
promise into a `MaterializationResponsibility` and runs the unit's `materialize`, which must in
the end tell the responsibility the addresses (`notify_resolved`), then that everything is in
place (`notify_emitted`); or that it failed (`fail`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jitlink.orc.definition import Definition
from jitlink.orc.errors import (
    MissingDefinitionsError,
    ResourceTrackerDefunctError,
    SessionError,
    UnexpectedDefinitionError,
    UnsatisfiedDependenciesError,
)
from jitlink.orc.symbols import ExecutorSymbolDef, JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.lookup import Query
    from jitlink.orc.session import ExecutionSession
    from jitlink.orc.tracker import ResourceTracker


class MaterializationUnit(ABC):
    """A promise of definitions.

    Attributes:
        name: display name.
        symbols: what it defines, with flags. Names that are overridden are taken out of it.
        initializers: names among them, for side effects only: to look them up is to make all
            that has initialisers. A platform does so before it runs them.
    """

    name: str
    symbols: Mapping[str, JITSymbolFlags]
    initializers: Sequence[str] = ()

    @abstractmethod
    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Make the definitions; an exception that is raised here fails all that remain.

        Runs on the session's thread, which it must not block for long.
        """

    def discard(self, dylib: JITDylib, name: str) -> None:  # noqa: B027 - optional
        """Give up a weak definition: another one holds, and `symbols` has lost it already."""

    def merge_key(self) -> Hashable | None:
        """Units with equal keys can be materialized as one; None if this one cannot."""
        return None

    def merge(self, others: Sequence[MaterializationUnit]) -> MaterializationUnit:
        """One unit for this one and others of the same key."""
        raise TypeError(f"{type(self).__name__} cannot be merged with {len(others)} others")

    def anticipated(self) -> Iterable[str]:
        """Names that materializing will look up; a hint, so that they are made together."""
        return ()


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


@dataclass
class SymbolDependenceGroup:
    """Symbols of a link, and what all of them need from elsewhere.

    Attributes:
        symbols: names of the symbols.
        dependencies: names that they need, by JITDylib.
    """

    symbols: set[str]
    dependencies: dict[JITDylib, set[str]] = field(default_factory=dict)


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
        self.queries: dict[Query, None] = {}
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

    def give_up(self) -> list[Definition]:
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
