"""Materialization: from units to responsibilities, and the tasks that run units.

When a symbol of a `MaterializationUnit` is looked up, a `MaterializationTask` turns the unit into
a `MaterializationResponsibility` and runs the unit's `materialize`, which must in the end report
the addresses (`notify_resolved`), then that all content is in executor memory (`notify_emitted`);
or that it failed (`fail`).

Units with equal merge keys that are needed at the same time, and those that they will look up,
are merged and materialized as one: for objects, that is one link of many. If that fails, each is
materialized by itself, so that only the unit at fault, and what depends on it, fails; unless
addresses have been given to other lookups already, which cannot be revoked. Units may also be such
that they must be materialized together; these fail together.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.orc.errors import (
    ConsequenceError,
    Failure,
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
from jitlink.orc.tracebacks import clear_frames

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.interface import Query, ResourceTracker, Session


class AbsoluteSymbols(MaterializationUnit):
    """Definitions with fixed addresses.

    Args:
        symbols: the definitions.
        is_generated: whether a generator has found the addresses in the executor.
    """

    def __init__(
        self, symbols: Mapping[str, ExecutorSymbolDef], *, is_generated: bool = False
    ) -> None:
        self.name = "<absolute symbols>"
        self.is_generated = is_generated
        self.symbols = {name: symbol.flags for name, symbol in symbols.items()}
        self._addresses = {name: symbol.address for name, symbol in symbols.items()}

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Report the addresses; there is nothing to emit."""
        responsibility.notify_resolved(self._addresses)
        responsibility.notify_emitted()

    def renewed(self, symbols: Mapping[str, JITSymbolFlags]) -> AbsoluteSymbols:
        """The same addresses."""
        return AbsoluteSymbols(
            {name: ExecutorSymbolDef(self._addresses[name], f) for name, f in symbols.items()}
        )


class MaterializationResponsibility:
    """The responsibility to materialize definitions, and the means to report about them.

    All methods are to be called on the driver thread. The responsibility must be met: if the object
    is dropped while definitions remain, these have failed.

    Attributes:
        dylib: where the definitions are.
        unit_name: display name of the unit.
        definitions: the definitions that remain to be materialized.
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
    def session(self) -> Session:
        """The session of the definitions' JITDylib."""
        return self.dylib.session

    @property
    def symbols(self) -> dict[str, JITSymbolFlags]:
        """The names that remain to be materialized, with flags."""
        return {n: f for definition in self.definitions for n, f in definition.flags.items()}

    def defines(self, name: str) -> bool:
        """Whether a name remains to be materialized."""
        return any(name in definition.flags for definition in self.definitions)

    @property
    def requested_symbols(self) -> set[str]:
        """The names among `symbols` that lookups wait for."""
        return {
            name
            for definition in self.definitions
            for query in definition.queries
            for name in query.names_among(self.dylib, definition.flags)
        }

    @property
    def tracker(self) -> ResourceTracker:
        """The tracker that owns the definitions.

        Raises:
            ResourceTrackerDefunctError: it was removed.
        """
        tracker = self._tracker.current
        if tracker is None:
            raise ResourceTrackerDefunctError(self.dylib.name)
        return tracker

    def _check(self) -> None:
        # The definitions of a removed tracker have failed already.
        if self._tracker.current is None:
            raise ResourceTrackerDefunctError(self.dylib.name)

    def notify_resolved(self, addresses: Mapping[str, int]) -> None:
        """Report the addresses of all symbols that are not resolved yet.

        Args:
            addresses: the addresses, not copied; other names may be among them.

        Raises:
            MissingDefinitionsError: a name has no address; no symbol is resolved.
            ResourceTrackerDefunctError: the definitions were removed in the meantime.
        """
        # LLVM differs: there, a call may be for some of the names. Here the others are to be
        # delegated.
        self._check()
        new = [
            definition for definition in self.definitions if definition.state < SymbolState.RESOLVED
        ]
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
        """Report that all content is in executor memory.

        Args:
            groups: the dependencies, no symbol in more than one group; symbols in no group
                depend on nothing.

        Raises:
            MissingDefinitionsError: a symbol, not only for side effects, has no address yet.
            UnexpectedDefinitionError: the responsibility is not for a symbol of a group, or the
                symbol is in another group already.
            UnsatisfiedDependenciesError: a dependency has failed, was removed or was never
                looked up.
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
        """Definitions with equal dependencies, with these."""
        if not groups:
            return [(self.definitions, {})]
        number_of: dict[str, int] = {}
        for number, group in enumerate(groups):
            repeated = [name for name in group.symbols if name in number_of]
            if repeated:
                raise UnexpectedDefinitionError(self.unit_name, repeated)
            number_of.update(dict.fromkeys(group.symbols, number))
        unexpected = number_of.keys() - self.symbols.keys()
        if unexpected:
            raise UnexpectedDefinitionError(self.unit_name, unexpected)
        self._check_dependencies(groups)
        members: dict[int, list[Definition]] = {}
        for definition in self.definitions:
            for number, part in definition.partition(number_of).items():
                members.setdefault(number, []).append(part)
        self.definitions = [part for parts in members.values() for part in parts]
        # Groups may depend on each other: look dependencies up when all definitions are split.
        return [
            (parts, _dependencies(groups[number]) if number >= 0 else {})
            for number, parts in members.items()
        ]

    def _check_dependencies(self, groups: Sequence[SymbolDependenceGroup]) -> None:
        unsatisfied: dict[str, set[str]] = {}
        failure: Failure | None = None
        for group in groups:
            for dylib, names in group.dependencies.items():
                for name in names:
                    found = dylib.symbols.get(name)
                    if found is None or found.failed or found.state == SymbolState.NEVER_SEARCHED:
                        unsatisfied.setdefault(dylib.name, set()).add(name)
                        failure = failure or (found.failure if found is not None else None)
        if unsatisfied:
            raise UnsatisfiedDependenciesError(self.unit_name, unsatisfied, failure=failure)

    def define_materializing(self, symbols: Mapping[str, JITSymbolFlags]) -> set[str]:
        """Add more definitions, discovered while these are materialized.

        Returns:
            The names that were added: a weak definition is not if another one exists.

        Raises:
            DuplicateDefinitionError: a strong one exists already; nothing was added.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        added = self.dylib.define_materializing(symbols, self.tracker, self)
        if added is None:
            return set()
        self.definitions.append(added)
        return set(added.flags)

    def _split_off(self, names: Iterable[str]) -> list[Definition]:
        """Remove some of the symbols that remain, and return their definitions."""
        wanted = set(names)
        unexpected = wanted - self.symbols.keys()
        if unexpected:
            raise UnexpectedDefinitionError(self.unit_name, unexpected)
        part_of = dict.fromkeys(wanted, 0)
        split_off, kept = [], []
        for definition in self.definitions:
            parts = definition.partition(part_of)
            split_off += [part for number, part in parts.items() if number == 0]
            kept += [part for number, part in parts.items() if number != 0]
        self.definitions = kept
        return split_off

    def replace(self, unit: MaterializationUnit) -> None:
        """Return definitions to the JITDylib, to be materialized by another unit.

        Those that lookups wait for are materialized at once.

        Raises:
            UnexpectedDefinitionError: the responsibility is not for a symbol of the unit.
            SessionError: one of them is resolved already.
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
            raise SessionError(f"{self.unit_name} cannot replace {names}: resolved already")
        returned = self._split_off(unit.symbols)
        for definition in returned:
            definition.reset()
            definition.unit, definition.source = unit, unit.name
        self.session.materialize([definition for definition in returned if definition.queries])

    def delegate(self, names: Iterable[str]) -> MaterializationResponsibility:
        """Move some of the symbols to another responsibility.

        Raises:
            UnexpectedDefinitionError: this responsibility is not for one of the names.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        self._check()
        return MaterializationResponsibility(self.tracker, self.unit_name, self._split_off(names))

    def fail(self, error: BaseException | None = None) -> None:
        """Fail what remains, the lookups that wait for it and the symbols that depend on it."""
        definitions, self.definitions = self.definitions, []
        if definitions and self._tracker.current is not None:
            self.session.fail(definitions, error)

    def release_definitions(self) -> list[Definition]:
        """Give up what remains without failing it; for the session, which materializes it again."""
        definitions, self.definitions = self.definitions, []
        return definitions

    def fail_queries(self, error: BaseException) -> None:
        """Fail the lookups that are made for it."""
        for query in list(self.queries):
            query.fail(error)


def _dependencies(group: SymbolDependenceGroup) -> dict[Definition, set[str]]:
    """The definitions that a group depends on, with the names."""
    dependencies: dict[Definition, set[str]] = {}
    for dylib, names in group.dependencies.items():
        for name in names:
            dependencies.setdefault(dylib.symbols[name], set()).add(name)
    return dependencies


class MaterializationTask:
    """Materializes one unit, or several that are merged.

    Args:
        members: the units, with their definitions.
        earlier: the error of an earlier task, in which they were merged with others.

    Attributes:
        unit: the unit, or the merged one.
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
        symbols = sum(len(part.flags) for parts in self._members.values() for part in parts)
        return f"{names} (symbols: {symbols})"

    def begin(self) -> None:
        """Turn the units into a responsibility."""
        definitions = [part for parts in self._members.values() for part in parts]
        for definition in definitions:
            definition.unit = None
            definition.state = SymbolState.MATERIALIZING
        self._responsibility = MaterializationResponsibility(
            definitions[0].tracker, self.unit.name, definitions
        )

    async def run(self) -> None:
        """Materialize the unit; raises what it raises."""
        responsibility = self._responsibility
        if responsibility is not None:
            REQUESTER.set(responsibility)
            await self.unit.materialize(responsibility)

    def finish(self) -> None:
        """Drop the responsibility: the unit has met it, or has passed it on."""
        self._responsibility = None
        REQUESTER.set(None)

    def fail(self, error: BaseException) -> None:
        """Fail what remains to be materialized."""
        responsibility = self._responsibility
        if responsibility is not None:
            responsibility.fail(self._more_complete(error))
        self._drop_references(error)

    def _drop_references(self, error: BaseException) -> None:
        """Drop the responsibility, and what the error's traceback refers to."""
        self.finish()
        clear_frames(error)

    def _more_complete(self, error: BaseException) -> BaseException:
        """An error, or the earlier one if that names all symbols that are missing here and more."""
        earlier = self._earlier
        if isinstance(error, ConsequenceError) or isinstance(earlier, ConsequenceError):
            return error
        if isinstance(error, UndefinedSymbolError) and isinstance(earlier, UndefinedSymbolError):
            return earlier if set(earlier.names).issuperset(error.names) else error
        return error

    @property
    def can_be_split(self) -> bool:
        """Whether the units can be materialized again apart, as if nothing had happened."""
        responsibility = self._responsibility
        if len(self._members) < 2 or responsibility is None or not responsibility.definitions:
            return False
        if len(self.unit.separate(list(self._members))) < 2:
            return False
        definitions = responsibility.definitions
        names = {name for unit in self._members for name in unit.symbols}
        return not any(
            definition.failed
            or definition.is_exposed
            or definition.waiters
            or definition.state > SymbolState.RESOLVED
            for definition in definitions
        ) and names.issuperset(responsibility.requested_symbols)

    def split(self, error: BaseException) -> list[MaterializationTask]:
        """Undo everything because of an error; returns a task for each of the units.

        Units that need each other are one task.
        """
        responsibility = self._responsibility
        if responsibility is None:
            return []
        units = list(self._members)
        groups = self.unit.separate(units)
        number_of = {name: n for n, unit in enumerate(units) for name in unit.symbols}
        members: dict[int, list[Definition]] = {}
        for definition in responsibility.release_definitions():
            definition.reset()
            for number, part in definition.partition(number_of).items():
                members.setdefault(number, []).append(part)
        # Definitions that were discovered while linking are discovered again; no lookup waits.
        for part in members.pop(-1, []):
            part.dylib.erase(part)
        self._drop_references(error)
        parts_of = {units[number]: parts for number, parts in members.items()}
        wanted = [{unit: parts_of[unit] for unit in g if unit in parts_of} for g in groups]
        return [MaterializationTask(chosen, error) for chosen in wanted if chosen]


def tasks_for(definitions: Sequence[Definition]) -> list[MaterializationTask]:
    """The tasks that materialize definitions, one for all units that can be merged."""
    groups: dict[object, dict[MaterializationUnit, list[Definition]]] = {}
    keys: dict[MaterializationUnit, Hashable] = {}
    for definition in _with_anticipated(definitions, keys):
        unit = definition.unit
        if unit is not None:
            key = keys[unit] if unit in keys else unit.merge_key()
            group = (id(unit), unit) if key is None else (key, definition.tracker)
            groups.setdefault(group, {}).setdefault(unit, []).append(definition)
    return [MaterializationTask(members) for members in groups.values()]


def _with_anticipated(
    definitions: Iterable[Definition], keys: dict[MaterializationUnit, Hashable]
) -> list[Definition]:
    """Definitions, all others of their units, and those that their units need or will look up.

    Args:
        definitions: the definitions.
        keys: receives the merge keys of units that must be merged with others.
    """
    chosen = dict.fromkeys(definitions)
    pending = list(chosen)
    handled: set[Hashable] = set()
    while pending:
        definition = pending.pop()
        for other in _materialized_with(definition, keys, handled):
            if other not in chosen:
                chosen[other] = None
                pending.append(other)
    return list(chosen)


def _materialized_with(
    definition: Definition, keys: dict[MaterializationUnit, Hashable], handled: set[Hashable]
) -> list[Definition]:
    """What is materialized with a definition: see `_with_anticipated`.

    Args:
        definition: the definition.
        keys: as there.
        handled: as for `MaterializationUnit.companions`.
    """
    unit, symbols = definition.unit, definition.dylib.symbols
    if unit is None:
        return []
    merge_key = unit.merge_key()
    key = keys.get(unit, merge_key)
    companions = [each for each in unit.companions(definition, handled) if each.unit is not None]
    others: list[Definition] = []
    if merge_key is not None:
        named = [symbols.get(name) for name in unit.anticipated()]
        others = [
            each for each in named if each and each.unit and each.unit.merge_key() is not None
        ]
        if definition.dylib.address_limit < NO_ADDRESS_LIMIT:
            # One graph, in which all pointers to a function of the process are equal.
            companions += others
    keys.update((each.unit, key) for each in companions if each.unit is not None)
    if len(definition.flags) < len(unit.symbols):
        named = [symbols.get(name) for name in unit.symbols]
        others += [each for each in named if each and each.unit is unit]
    return companions + others
