"""JITDylibs: simulated dynamic libraries, tables of symbols that are materialized on demand.

A JITDylib maps each name to a `Definition`. All symbols of an object are one definition while
they are in the same state, so that an event that concerns thousands of symbols is handled once.
Where some of them go another way (a weak one is overridden, a part is delegated, some depend on
what is not ready) they are split off into a definition of their own; a query then goes on
waiting for the part that has its names, and for no other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING
from weakref import ref

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.memory.manager import JITLinkDylib
from jitlink.orc.errors import (
    JITDylibDefunctError,
    ResourceTrackerDefunctError,
    SymbolsCouldNotBeRemovedError,
    raise_first,
)
from jitlink.orc.interface import (
    DefinitionGenerator,
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    ResourceTracker,
    SymbolState,
)
from jitlink.orc.lookup import GeneratorLock
from jitlink.resolve import Precedence, Strength, precedence

if TYPE_CHECKING:
    from jitlink.orc.callables import HostSymbol
    from jitlink.orc.interface import MaterializationUnit, ResourceTracker
    from jitlink.orc.lookup import AsynchronousSymbolQuery
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.orc.session import ExecutionSession
    from jitlink.orc.waiting_on_graph import SuperNode

_REST = -1
"""The part with all the names that are not to go anywhere."""


class Definition:
    """Symbols that are in one state and have one owner.

    Attributes:
        dylib: where they are defined.
        flags: their names, with flags; shared with whoever promised them, so not to be
            changed in place.
        addresses: their addresses, once resolved.
        tracker: what owns them.
        source: display name of what promised them.
        state: how far they have come.
        failed: whether they could not be made, or depend on what could not.
        cause: why they failed, if a reason was given.
        is_announced: whether others than their maker were told an address before the symbols
            were ready.
        unit: what promises them, while nobody has asked.
        queries: lookups that wait for some of them, in order of arrival.
        waiters: while they are not emitted, groups that wait for some of them, and for which.
        group: the group with which they will become ready, while they wait.
    """

    __slots__ = (
        "__weakref__", "_maker", "addresses", "cause", "dylib", "failed", "flags", "group",
        "is_announced", "queries", "source", "state", "tracker", "unit", "waiters",
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
        self.failed = False
        self.cause: BaseException | None = None
        self.is_announced = False
        self.queries: dict[AsynchronousSymbolQuery, None] = {}
        self.waiters: dict[SuperNode, set[str]] = {}
        self.group: SuperNode | None = None
        self._maker: ref[MaterializationResponsibility] | None = None

    def __repr__(self) -> str:
        names = ", ".join(list(self.flags)[:3]) + (", ..." if len(self.flags) > 3 else "")
        return f"<{names} in {self.dylib.name}: {self.state.name.lower()}>"

    @property
    def responsibility(self) -> MaterializationResponsibility | None:
        """What makes them, while they are being made.

        Not kept alive from here: a responsibility that nobody holds any more can never be met.
        """
        return None if self._maker is None else self._maker()

    @responsibility.setter
    def responsibility(self, responsibility: MaterializationResponsibility | None) -> None:
        self._maker = None if responsibility is None else ref(responsibility)

    @property
    def is_in_progress(self) -> bool:
        """Whether they have been asked for, and are neither ready nor failed."""
        return SymbolState.NEVER_SEARCHED < self.state < SymbolState.READY and not self.failed

    def symbol(self, name: str) -> ExecutorSymbolDef:
        """Address and flags of one symbol."""
        return ExecutorSymbolDef(self.addresses.get(name, 0), self.flags[name])

    def advance(self, state: SymbolState) -> None:
        """Reach a state, and tell the queries for which it is far enough."""
        self.state = state
        if not self.queries:
            return
        satisfied = [query for query in self.queries if query.required_state <= state]
        for query in satisfied:
            del self.queries[query]
            if state < SymbolState.READY:
                self.announce_to(query.requester)
            query.satisfy(self)

    def announce_to(self, requester: MaterializationResponsibility | None) -> None:
        """Take note that somebody has addresses before the symbols are ready.

        Who makes them does not count.
        """
        if requester is None or requester is not self.responsibility:
            self.is_announced = True

    def withdraw(self) -> None:
        """Take the promise of another unit's making back: nobody has asked any more."""
        self.state, self.addresses, self.responsibility = SymbolState.NEVER_SEARCHED, {}, None

    def split(self, names: Iterable[str]) -> Definition:
        """Move some of the symbols into a definition of their own, in the same state.

        Returns:
            The new definition; this one itself if it would be left without symbols.
        """
        return self.divide(dict.fromkeys(names, 0))[0]

    def divide(self, part_of: Mapping[str, int]) -> dict[int, Definition]:
        """Split into as many definitions as there are parts, in the same state.

        Args:
            part_of: number of the part, from 0, that a name goes to; the names that are not
                in it stay together. Names of other definitions may be in it too.

        Returns:
            The definitions of those parts that have symbols; -1 is what stayed.
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
        part.failed, part.cause = self.failed, self.cause
        part.is_announced = self.is_announced
        part._maker = self._maker
        if self.group is not None:
            part.group = self.group
            self.group.symbols.append(part)
        self.dylib.adopt(part)
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
        session: the session it belongs to.
        symbols: the definition of each of its symbols; to be read on the session's thread.
        trackers: the trackers that own something, in order of first use; likewise.
        generators: asked, in order, for names that are not in the table.
        generator_locks: where searches wait for a generator; for the searches.
        comdat_groups: signatures of the COMDAT groups that objects here have brought.
        initializers: names of symbols that stand for initialisers, in order of addition, which
            nobody has asked for; for the platform.
        is_open: whether it has not been removed.
    """

    def __init__(self, session: ExecutionSession, name: str) -> None:
        super().__init__(name)
        self.session = session
        self.symbols: dict[str, Definition] = {}
        self.trackers: dict[ResourceTracker, None] = {}
        self.generators: list[DefinitionGenerator] = []
        self.generator_locks: dict[int, GeneratorLock] = {}
        self.comdat_groups: set[str] = set()
        self.initializers: dict[str, None] = {}
        self.is_open = True
        self._link_order: list[tuple[JITDylib, JITDylibLookupFlags]] = [
            (self, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)
        ]
        # How many of the generators, at the end, are to stay there.
        self._last_generators = 0
        self._default_tracker: ResourceTracker | None = ResourceTracker(self)

    # What everybody calls, from any thread.

    @property
    def default_tracker(self) -> ResourceTracker:
        """Owns what is defined without naming a tracker; a new one after it was removed."""
        if self._default_tracker is None:
            # It went with the JITDylib.
            self._default_tracker = ResourceTracker(self)
            self._default_tracker.make_defunct()
        return self._default_tracker

    def create_resource_tracker(self) -> ResourceTracker:
        """A new owner for definitions."""
        return ResourceTracker(self)

    @property
    def link_order(self) -> tuple[tuple[JITDylib, JITDylibLookupFlags], ...]:
        """Where the external symbols of what is linked into this JITDylib are searched."""
        return tuple(self._link_order)

    def set_link_order(
        self,
        order: Iterable[tuple[JITDylib, JITDylibLookupFlags]],
        *,
        link_against_this: bool = True,
    ) -> None:
        """Set the search order; this JITDylib itself comes first unless told otherwise.

        Raises:
            JITDylibDefunctError: this JITDylib, or one of the order, was removed.
        """
        wanted = list(order)
        if link_against_this:
            wanted = [each for each in wanted if each[0] is not self]
            wanted.insert(0, (self, JITDylibLookupFlags.MATCH_ALL_SYMBOLS))
        self._change(lambda: self._reorder(wanted))

    def add_to_link_order(
        self,
        dylib: JITDylib,
        flags: JITDylibLookupFlags = JITDylibLookupFlags.MATCH_EXPORTED_ONLY,
    ) -> None:
        """Search another JITDylib after those that are searched, unless it is one of them.

        Raises:
            JITDylibDefunctError: either was removed.
        """

        def append() -> None:
            if all(each is not dylib for each, _ in self._link_order):
                self._reorder([*self._link_order, (dylib, flags)])

        self._change(append)

    def replace_in_link_order(
        self,
        old: JITDylib,
        new: JITDylib,
        flags: JITDylibLookupFlags = JITDylibLookupFlags.MATCH_EXPORTED_ONLY,
    ) -> None:
        """Search another JITDylib where one was searched; nothing changes if it was not.

        Raises:
            JITDylibDefunctError: this JITDylib, or the new one, was removed.
        """

        def replace() -> None:
            order = self._link_order
            self._reorder([(new, flags) if each[0] is old else each for each in order])

        self._change(replace)

    def is_linked_against(self, dylib: JITDylib) -> bool:
        """Whether a JITDylib is searched; for the session's thread."""
        return any(each is dylib for each, _ in self._link_order)

    def remove_from_link_order(self, dylib: JITDylib) -> None:
        """Do not search a JITDylib any more."""
        self._change(
            lambda: self._reorder([each for each in self._link_order if each[0] is not dylib])
        )

    def _reorder(self, order: list[tuple[JITDylib, JITDylibLookupFlags]]) -> None:
        for dylib in (self, *(each for each, _ in order)):
            if not dylib.is_open:
                raise JITDylibDefunctError(dylib.name)
        self._link_order = order

    def add_generator(self, generator: DefinitionGenerator, *, last: bool = False) -> None:
        """Ask a generator, after those that are asked already.

        Args:
            generator: the generator.
            last: whether it is to be asked after those that are added later, too.

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
        """Do not ask a generator any more.

        Raises:
            ValueError: there is no such generator.
        """

        def remove() -> None:
            place = self.generators.index(generator)
            if place >= len(self.generators) - self._last_generators:
                self._last_generators -= 1
            del self.generators[place]

        self._change(remove)

    def define(
        self,
        unit: MaterializationUnit | Mapping[str, HostSymbol],
        tracker: ResourceTracker | None = None,
    ) -> None:
        """Add the definitions that a unit promises, or addresses and Python functions by name.

        Raises:
            TypeError: a value is no address and no function whose C types are known.
            DuplicateDefinitionError: a strong definition of one of the names exists; nothing
                has been added.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
            ValueError: the tracker is of another JITDylib.
        """
        if isinstance(unit, Mapping):
            # Not imported above: callables are made of what is made of JITDylibs.
            from jitlink.orc.callables import PythonSymbols  # noqa: PLC0415

            unit = PythonSymbols(self.session, unit)
        made = unit
        self._change(lambda: self.add_unit(made, tracker))

    def remove(self, names: Iterable[str]) -> None:
        """Remove some symbols; what else their trackers own stays, resources too.

        Raises:
            UndefinedSymbolError: some are not defined here; none has been removed.
            SymbolsCouldNotBeRemovedError: some are just being made; none has been removed.
        """
        wanted = dict.fromkeys(names)
        self._change(lambda: self.remove_symbols(wanted))

    def clear(self) -> None:
        """Remove all trackers, the last one first.

        Raises:
            JITLinkError: resources could not be released; the definitions are gone all the same.
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

    # What runs on the session's thread.

    def add_unit(self, unit: MaterializationUnit, tracker: ResourceTracker | None = None) -> None:
        """`define`, for callers on the session's thread."""
        owner = tracker or self.default_tracker
        if owner.dylib is not self:
            raise ValueError(f"the tracker is not one of {self.name}")
        if owner.is_defunct:
            raise ResourceTrackerDefunctError(self.name)
        self.session.check_open()
        overriding, yielding = self.resolve_precedence(unit.symbols, unit.name)
        if yielding:
            unit.symbols = {n: f for n, f in unit.symbols.items() if n not in yielding}
        overridden = self._override(overriding)
        if unit.symbols:
            self.trackers[owner] = None
            self.adopt(Definition(self, unit.symbols, owner, unit, unit.name))
            self.initializers.update(dict.fromkeys(unit.initializers))
        self._discard([*overridden, *((unit, name) for name in yielding)])

    def put_first(self, tracker: ResourceTracker) -> None:
        """Treat what a tracker owns as older than all else, so that `clear` removes it last."""
        self.trackers = {tracker: None} | self.trackers

    def resolve_precedence(
        self, symbols: Mapping[str, JITSymbolFlags], source: str
    ) -> tuple[list[str], set[str]]:
        """Which names take the place of definitions that are here, and which yield to those.

        Args:
            symbols: names that are to be defined, with flags.
            source: display name of what defines them.

        Raises:
            DuplicateDefinitionError: a name can do neither.
        """
        overriding: list[str] = []
        yielding: set[str] = set()
        if self.symbols.keys().isdisjoint(symbols):
            return overriding, yielding
        for name, flags in symbols.items():
            held = self.symbols.get(name)
            if held is None:
                continue
            outcome = precedence(held.flags[name].strength, flags.strength)
            if outcome is Precedence.ADDED and held.state > SymbolState.NEVER_SEARCHED:
                # It is too late: references may be bound to the weaker definition.
                is_strong = flags.strength > Strength.COMMON
                outcome = Precedence.DUPLICATE if is_strong else Precedence.HELD
            if outcome is Precedence.DUPLICATE:
                raise DuplicateDefinitionError(name, first=held.source, second=source)
            if outcome is Precedence.ADDED:
                overriding.append(name)
            else:
                yielding.add(name)
        return overriding, yielding

    def _override(self, names: Iterable[str]) -> list[tuple[MaterializationUnit, str]]:
        """Remove definitions that nothing has looked up; returns each with its unit."""
        by_definition: dict[Definition, list[str]] = {}
        for name in names:
            by_definition.setdefault(self.symbols[name], []).append(name)
        overridden = []
        for definition, chosen in by_definition.items():
            part, unit = definition.split(chosen), definition.unit
            self.forget(part)
            if unit is not None:
                unit.symbols = {n: f for n, f in unit.symbols.items() if n not in part.flags}
                overridden += [(unit, name) for name in chosen]
        return overridden

    def _discard(self, overridden: Iterable[tuple[MaterializationUnit, str]]) -> None:
        """Notify units of overridden symbols; last, so that the table is right if one raises."""
        for unit, name in overridden:
            unit.discard(self, name)

    def claim(
        self,
        symbols: Mapping[str, JITSymbolFlags],
        tracker: ResourceTracker,
        responsibility: MaterializationResponsibility,
    ) -> Definition | None:
        """Add symbols that are being made already; weak ones yield to any other.

        Raises:
            DuplicateDefinitionError: a strong one exists already; nothing was added.
        """
        # LLVM differs: there, a strong claim is refused also where only a weak definition is that
        # nothing has looked up.
        overriding, yielding = self.resolve_precedence(symbols, responsibility.unit_name)
        overridden = self._override(overriding)
        taken = {name: flags for name, flags in symbols.items() if name not in yielding}
        definition = None
        if taken:
            definition = Definition(self, taken, tracker, source=responsibility.unit_name)
            definition.state = SymbolState.MATERIALIZING
            definition.responsibility = responsibility
            self.trackers[tracker] = None
            self.adopt(definition)
        self._discard(overridden)
        return definition

    def remove_symbols(self, names: Mapping[str, None]) -> None:
        """`remove`, for callers on the session's thread."""
        undefined = [name for name in names if name not in self.symbols]
        if undefined:
            raise UndefinedSymbolError(undefined)
        busy = [name for name in names if self.symbols[name].is_in_progress]
        if busy:
            raise SymbolsCouldNotBeRemovedError(self.name, busy)
        self._discard(self._override(names))

    def adopt(self, definition: Definition) -> None:
        """Enter a definition under all of its names."""
        self.symbols.update(dict.fromkeys(definition.flags, definition))
        definition.tracker.definitions[definition] = None

    def forget(self, definition: Definition) -> None:
        """Take a definition out."""
        symbols = self.symbols
        for name in definition.flags:
            if symbols.get(name) is definition:
                del symbols[name]
        definition.tracker.definitions.pop(definition, None)

    def release_references(self) -> None:
        """Refer to nothing that refers to it, now that it has been removed."""
        self._default_tracker, self._link_order = None, []

    def replace_default_tracker(self) -> None:
        """Let another tracker own what is defined without naming one; the old one is defunct."""
        self._default_tracker = ResourceTracker(self)


def walk_link_orders(
    roots: Iterable[JITDylib], among: Container[JITDylib] | None = None
) -> list[JITDylib]:
    """All JITDylibs that link orders lead to, in post-order: each after its dependencies.

    In a cycle the JITDylib that is reached last comes first.

    LLVM differs: `getReverseDFSLinkOrder` reverses a pre-order.

    Args:
        roots: where the walk begins, in this order.
        among: the JITDylibs to visit; None visits all.
    """
    order: list[JITDylib] = []
    seen: set[JITDylib] = set()
    for root in roots:
        work = [(root, iter((root,)))]
        while work:
            dylib, others = work[-1]
            following = next(others, None)
            if following is None:
                work.pop()
                if work:
                    order.append(dylib)
            elif following not in seen and (among is None or following in among):
                seen.add(following)
                work.append((following, iter([each for each, _ in following.link_order])))
    return order
