"""JITDylibs: simulated dynamic libraries, tables of symbols that are materialized on demand.

A JITDylib maps each name to a `Definition`. All symbols of an object are one definition while
they are in the same state, so that an event that concerns thousands of symbols is handled once.
Where some of them are treated differently (a weak one is overridden, a part is delegated, some
depend on what is not ready) they are split off into a definition of their own; a query then waits
for the part that has its names, and for no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import ref

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.memory.manager import JITLinkDylib
from jitlink.orc.errors import (
    Failure,
    JITDylibDefunctError,
    ResourceTrackerDefunctError,
    SymbolsCouldNotBeRemovedError,
    raise_first,
)
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    ResourceTracker,
    SymbolState,
)
from jitlink.orc.visibility import HiddenNames, constrained, hidden_by_either
from jitlink.resolve import Precedence, Strength, precedence

if TYPE_CHECKING:
    from jitlink.orc.interface import (
        DefinitionGenerator,
        GeneratorLock,
        HostSymbol,
        MaterializationUnit,
        Query,
        Responsibility,
        Session,
    )
    from jitlink.orc.waiting_on_graph import SuperNode

_REST = -1
"""Number of the part with the names that are assigned to no part."""


class Definition:
    """Symbols that are in one state and have one owner.

    Attributes:
        dylib: where they are defined.
        flags: their names, with flags; shared with their unit, so never changed in place.
        addresses: their addresses, once resolved.
        tracker: their owner.
        source: display name of their unit.
        state: their state.
        failure: why they could not be materialized, or symbols that they depend on; None unless
            they have failed.
        is_exposed: whether a lookup that is not for their own responsibility was given an address
            before they were ready.
        unit: their unit, until they are looked up.
        queries: lookups that wait for some of them, in order of arrival.
        waiters: while they are not emitted, super-nodes that wait for some of them, with names.
        super_node: the super-node with which they will become ready, while they are emitted.
    """

    __slots__ = (
        "__weakref__", "_responsibility", "addresses", "dylib", "failure", "flags",
        "is_exposed", "queries", "source", "state", "super_node", "tracker", "unit", "waiters",
    )  # fmt: skip

    def __init__(
        self,
        dylib: JITDylib,
        flags: Mapping[str, JITSymbolFlags],
        tracker: ResourceTracker,
        unit: MaterializationUnit | None = None,
        source: str = "",
    ) -> None:
        self.dylib = dylib
        self.flags = flags
        self.tracker = tracker
        self.unit = unit
        self.source = source
        self.addresses: Mapping[str, int] = {}
        self.state = SymbolState.NEVER_SEARCHED
        self.failure: Failure | None = None
        self.is_exposed = False
        self.queries: dict[Query, None] = {}
        self.waiters: dict[SuperNode[Definition], set[str]] = {}
        self.super_node: SuperNode[Definition] | None = None
        self._responsibility: ref[Responsibility] | None = None

    def __repr__(self) -> str:
        names = ", ".join(list(self.flags)[:3]) + (", ..." if len(self.flags) > 3 else "")
        return f"<{names} in {self.dylib.name}: {self.state.name.lower()}>"

    @property
    def responsibility(self) -> Responsibility | None:
        """The responsibility for them, while they are being materialized.

        The reference is weak: a responsibility that is dropped can never be met.
        """
        return None if self._responsibility is None else self._responsibility()

    @responsibility.setter
    def responsibility(self, responsibility: Responsibility | None) -> None:
        self._responsibility = None if responsibility is None else ref(responsibility)

    @property
    def failed(self) -> bool:
        """Whether they could not be materialized, or depend on symbols that could not."""
        return self.failure is not None

    @property
    def is_in_progress(self) -> bool:
        """Whether they have been looked up, and are neither ready nor failed."""
        return SymbolState.NEVER_SEARCHED < self.state < SymbolState.READY and not self.failed

    def symbol(self, name: str) -> ExecutorSymbolDef:
        """Address and flags of one symbol."""
        return ExecutorSymbolDef(self.addresses.get(name, 0), self.flags[name])

    def advance(self, state: SymbolState) -> None:
        """Set the state, and notify the queries that require no more than it."""
        self.state = state
        if not self.queries:
            return
        satisfied = [query for query in self.queries if query.required_state <= state]
        for query in satisfied:
            del self.queries[query]
            if state < SymbolState.READY:
                self.expose_to(query.requester)
            query.satisfy(self)

    def expose_to(self, requester: Responsibility | None) -> None:
        """Record that addresses are given to a lookup before the symbols are ready.

        A lookup for the responsibility for the symbols themselves does not count.
        """
        if requester is None or requester is not self.responsibility:
            self.is_exposed = True

    def reset(self) -> None:
        """Return to the state before any lookup, to be materialized by a unit again."""
        self.state, self.addresses, self.responsibility = SymbolState.NEVER_SEARCHED, {}, None

    def split(self, names: Iterable[str]) -> Definition:
        """Move some of the symbols into a definition of their own, in the same state.

        Returns:
            The new definition; this one itself if it would be left without symbols.
        """
        return self.partition(dict.fromkeys(names, 0))[0]

    def partition(self, part_of: Mapping[str, int]) -> dict[int, Definition]:
        """Split into as many definitions as there are parts, in the same state.

        Args:
            part_of: number of the part, from 0, that each name is assigned to; the other names
                stay together. May contain names of other definitions.

        Returns:
            The definitions of those parts that have symbols; that of the other names is -1.
        """
        all_flags, number_of = self.flags, part_of.get
        flags: dict[int, dict[str, JITSymbolFlags]] = {}
        for name, flag in all_flags.items():
            flags.setdefault(number_of(name, _REST), {})[name] = flag
        kept = _REST if _REST in flags else next(iter(flags))
        parts = {kept: self}
        if len(flags) == 1:
            return parts
        for number, chosen in flags.items():
            if number == kept:
                self.flags = chosen
            else:
                parts[number] = self._copy_for(chosen)
        self._move_queries(all_flags, part_of, parts)
        self._move_waiters(part_of, parts)
        return parts

    def _copy_for(self, flags: Mapping[str, JITSymbolFlags]) -> Definition:
        part = Definition(self.dylib, flags, self.tracker, self.unit, self.source)
        part.addresses, part.state = self.addresses, self.state
        part.failure, part.is_exposed = self.failure, self.is_exposed
        part._responsibility = self._responsibility
        if self.super_node is not None:
            part.super_node = self.super_node
            self.super_node.elements.append(part)
        self.dylib.insert(part)
        return part

    def _move_queries(
        self,
        names: Mapping[str, JITSymbolFlags],
        part_of: Mapping[str, int],
        parts: Mapping[int, Definition],
    ) -> None:
        for query in list(self.queries):
            wanted = {part_of.get(name, _REST) for name in query.names_among(self.dylib, names)}
            query.remove(self)
            for number in wanted:
                query.add(parts[number])

    def _move_waiters(self, part_of: Mapping[str, int], parts: Mapping[int, Definition]) -> None:
        waiters, self.waiters = self.waiters, {}
        for waiter, names in waiters.items():
            waiter.unemitted.discard(self)
            for name in names:
                part = parts[part_of.get(name, _REST)]
                part.waiters.setdefault(waiter, set()).add(name)
                waiter.unemitted.add(part)


class JITDylib(JITLinkDylib):
    """A simulated dynamic library.

    Attributes:
        session: the session it belongs to, an `ExecutionSession`.
        symbols: the definition of each of its symbols; to be read on the driver thread.
        trackers: the trackers that own something, in order of first use; likewise.
        generators: called, in order, for names that are not in the table.
        generator_locks: locks of generators, by their identity; for the searches.
        hidden_names: names that it does not export; see `jitlink.orc.visibility`.
        comdat_groups: signatures of the COMDAT groups of the objects that were added here.
        library_directories: directories where errors search first for what is undefined.
        initializers: initializer symbols that have not been looked up, in order of addition.
        relink: links again what none of its units defines, after the executor was restarted; called
            on the thread that has restarted it.
        restart_obstacles: what could not be linked again then.
        is_open: whether it has not been removed.
    """

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(name)
        self.session = session
        self.symbols: dict[str, Definition] = {}
        self.trackers: dict[ResourceTracker, None] = {}
        self.generators: list[DefinitionGenerator] = []
        self.generator_locks: dict[int, GeneratorLock] = {}
        self.hidden_names = HiddenNames()
        self.comdat_groups: set[str] = set()
        self.library_directories: tuple[str, ...] = ()
        self.initializers: dict[str, None] = {}
        self.relink: Callable[[], None] | None = None
        self.restart_obstacles: Sequence[str] = ()
        self.is_open = True
        self._link_order: list[tuple[JITDylib, JITDylibLookupFlags]] = [
            (self, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)
        ]
        self._last_generators = 0
        self._default_tracker: ResourceTracker | None = ResourceTracker(self)

    # From any thread

    @property
    def default_tracker(self) -> ResourceTracker:
        """Owns what is defined without a tracker; a new one after it was removed."""
        if self._default_tracker is None:
            # It was removed with the JITDylib.
            self._default_tracker = ResourceTracker(self)
            self._default_tracker.make_defunct()
        return self._default_tracker

    def create_resource_tracker(self) -> ResourceTracker:
        """Create an owner for definitions."""
        return ResourceTracker(self)

    @property
    def link_order(self) -> tuple[tuple[JITDylib, JITDylibLookupFlags], ...]:
        """The JITDylibs in which the external symbols of links into this one are searched."""
        return tuple(self._link_order)

    def set_link_order(
        self,
        order: Iterable[tuple[JITDylib, JITDylibLookupFlags]],
        *,
        link_against_this: bool = True,
    ) -> None:
        """Set the link order.

        Args:
            order: the JITDylibs.
            link_against_this: whether this JITDylib itself comes first.

        Raises:
            JITDylibDefunctError: this JITDylib, or one of the order, was removed.
        """
        wanted = list(order)
        if link_against_this:
            wanted = [entry for entry in wanted if entry[0] is not self]
            wanted.insert(0, (self, JITDylibLookupFlags.MATCH_ALL_SYMBOLS))
        self._change(lambda: self._reorder(wanted))

    def add_to_link_order(
        self,
        dylib: JITDylib,
        flags: JITDylibLookupFlags = JITDylibLookupFlags.MATCH_EXPORTED_ONLY,
    ) -> None:
        """Append another JITDylib to the link order, unless it is in it already.

        Raises:
            JITDylibDefunctError: either was removed.
        """

        def append() -> None:
            if all(searched is not dylib for searched, _ in self._link_order):
                self._reorder([*self._link_order, (dylib, flags)])

        self._change(append)

    def replace_in_link_order(
        self,
        old: JITDylib,
        new: JITDylib,
        flags: JITDylibLookupFlags = JITDylibLookupFlags.MATCH_EXPORTED_ONLY,
    ) -> None:
        """Replace a JITDylib in the link order; nothing changes if it is not in it.

        Raises:
            JITDylibDefunctError: this JITDylib, or the new one, was removed.
        """

        def replace() -> None:
            self._reorder([(new, flags) if each[0] is old else each for each in self._link_order])

        self._change(replace)

    def is_linked_against(self, dylib: JITDylib) -> bool:
        """Whether a JITDylib is in the link order; for the driver thread."""
        return any(searched is dylib for searched, _ in self._link_order)

    def remove_from_link_order(self, dylib: JITDylib) -> None:
        """Remove a JITDylib from the link order."""
        self._change(lambda: self._reorder([e for e in self._link_order if e[0] is not dylib]))

    def _reorder(self, order: list[tuple[JITDylib, JITDylibLookupFlags]]) -> None:
        for dylib in (self, *(other for other, _ in order)):
            if not dylib.is_open:
                raise JITDylibDefunctError(dylib.name)
        self._link_order = order

    def add_generator(self, generator: DefinitionGenerator, *, last: bool = False) -> None:
        """Append a generator.

        Args:
            generator: the generator.
            last: whether it stays behind generators that are added later.

        Raises:
            JITDylibDefunctError: the JITDylib was removed.
        """

        def append() -> None:
            if not self.is_open:
                raise JITDylibDefunctError(self.name)
            end = len(self.generators) - (0 if last else self._last_generators)
            self.generators.insert(end, generator)
            self._last_generators += last

        self._change(append)

    def remove_generator(self, generator: DefinitionGenerator) -> None:
        """Remove a generator.

        Raises:
            ValueError: there is no such generator.
        """

        def remove() -> None:
            index = self.generators.index(generator)
            is_last = index >= len(self.generators) - self._last_generators
            self._last_generators -= is_last
            del self.generators[index]

        self._change(remove)

    def define(
        self,
        unit: MaterializationUnit | Mapping[str, HostSymbol],
        tracker: ResourceTracker | None = None,
    ) -> None:
        """Add the definitions of a unit, or addresses and Python functions by name.

        Raises:
            TypeError: a value is neither an address nor a function with known C types.
            DuplicateDefinitionError: a strong definition of one of the names exists; nothing
                was added.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
            ValueError: the tracker is of another JITDylib.
        """
        added = self.session.python_symbols(unit) if isinstance(unit, Mapping) else unit
        self._change(lambda: self.add_unit(added, tracker))

    def remove(self, names: Iterable[str]) -> None:
        """Remove some symbols; everything else that their trackers own stays, resources too.

        Raises:
            UndefinedSymbolError: some are not defined here; none was removed.
            SymbolsCouldNotBeRemovedError: some are being materialized; none was removed.
        """
        wanted = dict.fromkeys(names)
        self._change(lambda: self.remove_symbols(wanted))

    def clear(self) -> None:
        """Remove all trackers, the last one first.

        Raises:
            JITLinkError: resources could not be released; the definitions are removed all the same.
        """
        self.session.wait(self.clear_async())

    async def clear_async(self) -> None:
        """The asynchronous form of `clear`."""
        errors: list[Exception] = []
        for tracker in reversed(list(self.trackers)):
            try:
                await self.session.remove_tracker(tracker)
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        raise_first(errors)

    def _change(self, change: Callable[[], None]) -> None:
        self.session.run(change)

    # On the driver thread

    def add_unit(self, unit: MaterializationUnit, tracker: ResourceTracker | None = None) -> None:
        """`define`, for callers on the driver thread."""
        owner = tracker or self.default_tracker
        if owner.dylib is not self:
            raise ValueError(f"the tracker is not one of {self.name}")
        if owner.is_defunct:
            raise ResourceTrackerDefunctError(self.name)
        self.session.check_open()
        overriding, overridden = self.resolve_precedence(unit.symbols, unit.name)
        record = self.session.record
        if record is not None:
            record.drop_names(self, overriding)
        self.hide(hidden_by_either(self.symbols, unit.symbols, [*overriding, *overridden]), owner)
        unit.symbols = constrained(unit.symbols, self.hidden_names.names)
        if overridden:
            unit.symbols = {n: f for n, f in unit.symbols.items() if n not in overridden}
        removed = self._erase_symbols(overriding)
        if unit.symbols:
            self.trackers[owner] = None
            self.insert(Definition(self, unit.symbols, owner, unit, unit.name))
            self.initializers.update(dict.fromkeys(unit.initializers))
            if record is not None:
                record.add_unit(unit, owner)
        self._discard([*removed, *((unit, name) for name in overridden)])

    def put_first(self, tracker: ResourceTracker) -> None:
        """Move a tracker to the front of all others, so that `clear` removes it last."""
        self.trackers = {tracker: None} | self.trackers

    def resolve_precedence(
        self, symbols: Mapping[str, JITSymbolFlags], source: str
    ) -> tuple[list[str], set[str]]:
        """Which names override definitions that exist here, and which are overridden by those.

        Args:
            symbols: names that are to be defined, with flags.
            source: display name of what defines them.

        Returns:
            The overriding names, and the overridden ones.

        Raises:
            DuplicateDefinitionError: a name has two strong definitions.
        """
        overriding: list[str] = []
        overridden: set[str] = set()
        if self.symbols.keys().isdisjoint(symbols):
            return overriding, overridden
        for name, flags in symbols.items():
            existing = self.symbols.get(name)
            if existing is None:
                continue
            outcome = precedence(existing.flags[name].strength, flags.strength)
            if outcome is Precedence.ADDED and existing.state > SymbolState.NEVER_SEARCHED:
                # It is too late: references may be bound to the weaker definition.
                is_strong = flags.strength > Strength.COMMON
                outcome = Precedence.DUPLICATE if is_strong else Precedence.EXISTING
            if outcome is Precedence.DUPLICATE:
                raise DuplicateDefinitionError(name, first=existing.source, second=source)
            if outcome is Precedence.ADDED:
                overriding.append(name)
            else:
                overridden.add(name)
        return overriding, overridden

    def hide(self, names: set[str], tracker: ResourceTracker) -> None:
        """Export names no longer, defined already or later, because of objects of a tracker."""
        if not names:
            return
        self.hidden_names.add(names, tracker)
        for definition in {self.symbols[name] for name in names & self.symbols.keys()}:
            definition.flags = constrained(definition.flags, names)

    def _erase_symbols(self, names: Iterable[str]) -> list[tuple[MaterializationUnit, str]]:
        """Remove symbols that are not in progress; returns those that have a unit, with it."""
        by_definition: dict[Definition, list[str]] = {}
        for name in names:
            by_definition.setdefault(self.symbols[name], []).append(name)
        removed = []
        for definition, chosen in by_definition.items():
            part, unit = definition.split(chosen), definition.unit
            self.erase(part)
            if unit is not None:
                unit.symbols = {n: f for n, f in unit.symbols.items() if n not in part.flags}
                removed += [(unit, name) for name in chosen]
        return removed

    def _discard(self, symbols: Iterable[tuple[MaterializationUnit, str]]) -> None:
        """Let units discard symbols; last, so that the table is consistent if one raises."""
        for unit, name in symbols:
            unit.discard(self, name)

    def define_materializing(
        self,
        symbols: Mapping[str, JITSymbolFlags],
        tracker: ResourceTracker,
        responsibility: Responsibility,
    ) -> Definition | None:
        """Add symbols that are being materialized already, without overridden weak ones.

        Raises:
            DuplicateDefinitionError: a strong one exists already; nothing was added.
        """
        # LLVM differs: there, a strong symbol is refused also if the existing definition is a weak
        # one that has not been looked up.
        overriding, overridden = self.resolve_precedence(symbols, responsibility.unit_name)
        self.hide(hidden_by_either(self.symbols, symbols, [*overriding, *overridden]), tracker)
        removed = self._erase_symbols(overriding)
        visible = constrained(symbols, self.hidden_names.names).items()
        added = {name: flags for name, flags in visible if name not in overridden}
        definition = None
        if added:
            definition = Definition(self, added, tracker, source=responsibility.unit_name)
            definition.state = SymbolState.MATERIALIZING
            definition.responsibility = responsibility
            self.trackers[tracker] = None
            self.insert(definition)
        self._discard(removed)
        return definition

    def remove_symbols(self, names: Mapping[str, None]) -> None:
        """`remove`, for callers on the driver thread."""
        undefined = [name for name in names if name not in self.symbols]
        if undefined:
            raise UndefinedSymbolError(undefined)
        busy = [name for name in names if self.symbols[name].is_in_progress]
        if busy:
            raise SymbolsCouldNotBeRemovedError(self.name, busy)
        if self.session.record is not None:
            self.session.record.drop_names(self, names)
        self._discard(self._erase_symbols(names))

    def insert(self, definition: Definition) -> None:
        """Enter a definition into the table under all of its names."""
        self.symbols.update(dict.fromkeys(definition.flags, definition))
        definition.tracker.definitions[definition] = None

    def erase(self, definition: Definition) -> None:
        """Remove a definition from the table."""
        symbols = self.symbols
        for name in definition.flags:
            if symbols.get(name) is definition:
                del symbols[name]
        definition.tracker.definitions.pop(definition, None)

    def forget_definitions(self) -> None:
        """Forget all definitions: their process has ended. Trackers stay, and own nothing."""
        for tracker in self.trackers:
            tracker.definitions = {}
        self.symbols.clear()
        self.trackers.clear()
        self.initializers.clear()
        self.is_placed = self.is_divided = False

    def release_references(self) -> None:
        """Break the reference cycles of a JITDylib that has been removed."""
        self._default_tracker, self._link_order, self.relink = None, [], None

    def replace_default_tracker(self) -> None:
        """Create a new default tracker; the old one is defunct."""
        self._default_tracker = ResourceTracker(self)
