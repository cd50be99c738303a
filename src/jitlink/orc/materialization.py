"""Definitions that are made when somebody asks for them, and who answers for making them.

A `MaterializationUnit` promises symbols. When one of them is looked up, the session turns the
promise into a `MaterializationResponsibility` and runs the unit's `materialize`, which must in
the end tell the responsibility the addresses (`notify_resolved`), then that everything is in
place (`notify_emitted`); or that it failed (`fail`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jitlink.orc.definition import Definition
from jitlink.orc.errors import (
    MissingDefinitionsError,
    ResourceTrackerDefunctError,
    UnexpectedDefinitionError,
)
from jitlink.orc.symbols import ExecutorSymbolDef, JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.session import ExecutionSession
    from jitlink.orc.tracker import ResourceTracker


class MaterializationUnit(ABC):
    """A promise of definitions.

    Attributes:
        name: display name.
        symbols: what it defines, with flags. Names that are overridden are taken out of it.
    """

    name: str
    symbols: Mapping[str, JITSymbolFlags]

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

    All methods are to be called on the session's thread.

    Attributes:
        dylib: where the definitions will be.
        unit_name: display name of what makes them.
        definitions: what is still to be made.
    """

    def __init__(
        self, tracker: ResourceTracker, unit_name: str, definitions: Iterable[Definition]
    ) -> None:
        self._tracker = tracker
        self.dylib: JITDylib = tracker.dylib
        self.unit_name = unit_name
        self.definitions = list(definitions)
        for definition in self.definitions:
            definition.responsibility = self

    def __repr__(self) -> str:
        return f"<MaterializationResponsibility {self.unit_name} in {self.dylib.name}>"

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
        queries = {query for each in self.definitions for query in each.queries}
        names = {name for query in queries for name in query.names_in(self.dylib)}
        return {name for name in names if self.defines(name)}

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
        failed = [definition for definition in self.definitions if definition.failed]
        if failed:
            raise self.session.failure(failed)

    def notify_resolved(self, addresses: Mapping[str, int]) -> None:
        """Announce the addresses of all that is still to be made.

        Args:
            addresses: looked at from now on whenever an address is asked for; may have more
                names than those to be made.

        Raises:
            MissingDefinitionsError: a name has no address.
            ResourceTrackerDefunctError: the definitions were removed in the meantime.
            FailedToMaterializeError: the definitions have failed in the meantime.
        """
        self._check()
        missing = [
            name
            for definition in self.definitions
            for name in definition.flags.keys() - addresses.keys()
            if not definition.flags[name] & JITSymbolFlags.SIDE_EFFECTS_ONLY
        ]
        if missing:
            raise MissingDefinitionsError(self.unit_name, missing)
        for definition in self.definitions:
            definition.addresses = addresses
            definition.advance(SymbolState.RESOLVED)

    def notify_emitted(self, groups: Iterable[SymbolDependenceGroup] = ()) -> None:
        """Say that everything is in executor memory.

        Args:
            groups: what depends on what; symbols in no group depend on nothing.

        Raises:
            ResourceTrackerDefunctError: the definitions were removed in the meantime.
            FailedToMaterializeError: something that is depended on has failed.
        """
        self._check()
        emitted = self._grouped(list(groups))
        self.session.emit(emitted)
        self.definitions = []

    def _grouped(
        self, groups: Sequence[SymbolDependenceGroup]
    ) -> list[tuple[list[Definition], set[Definition]]]:
        """Definitions that need the same, with what they need."""
        result: list[tuple[list[Definition], set[Definition]]] = []
        grouped: set[Definition] = set()
        for group in groups:
            needed = {
                dylib.symbols[name]
                for dylib, names in group.dependencies.items()
                for name in names
                if name in dylib.symbols
            }
            parts = []
            for definition in [each for each in self.definitions if each not in grouped]:
                names = group.symbols & definition.flags.keys()
                if names:
                    part = definition.split(names)
                    if part is not definition:
                        self.definitions.append(part)
                    parts.append(part)
                    grouped.add(part)
            result.append((parts, needed))
        rest = [definition for definition in self.definitions if definition not in grouped]
        return [*result, (rest, set())] if rest else result

    def define_materializing(self, symbols: Mapping[str, JITSymbolFlags]) -> set[str]:
        """Take on more definitions, found while making these.

        Returns:
            Those of them that were taken on; a weak one is not if there is another.

        Raises:
            DuplicateDefinitionError: a strong one exists already.
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
        unexpected = {name for name in wanted if not self.defines(name)}
        if unexpected:
            raise UnexpectedDefinitionError(self.unit_name, unexpected)
        taken, kept = [], []
        for definition in self.definitions:
            chosen = wanted & definition.flags.keys()
            if not chosen:
                kept.append(definition)
                continue
            part = definition.split(chosen)
            taken.append(part)
            if part is not definition:
                kept.append(definition)
        self.definitions = kept
        return taken

    def replace(self, unit: MaterializationUnit) -> None:
        """Hand definitions back as a promise of another unit.

        It is materialized at once if somebody is waiting for one of them.
        """
        self._check()
        taken = self._take(unit.symbols)
        for definition in taken:
            definition.responsibility = None
            definition.unit = unit
            definition.state = SymbolState.NEVER_SEARCHED
        if any(definition.queries for definition in taken):
            self.session.materialize(taken)

    def delegate(self, names: Iterable[str]) -> MaterializationResponsibility:
        """Give part of the duty to another responsibility."""
        self._check()
        return MaterializationResponsibility(self.tracker, self.unit_name, self._take(names))

    def fail(self, error: BaseException | None = None) -> None:
        """Say that what remains cannot be made; reaches all who wait for it or depend on it."""
        definitions, self.definitions = self.definitions, []
        if self._tracker.current is not None:
            self.session.fail(definitions, error)
