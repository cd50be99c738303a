"""JITDylibs: simulated dynamic libraries, tables of symbols that are made on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.memory.manager import JITLinkDylib
from jitlink.orc.definition import Definition
from jitlink.orc.errors import (
    JITDylibDefunctError,
    ResourceTrackerDefunctError,
    SymbolsCouldNotBeRemovedError,
    raise_first,
)
from jitlink.orc.search import Seat
from jitlink.orc.symbols import JITDylibLookupFlags, JITSymbolFlags, LookupKind, SymbolState
from jitlink.orc.tracker import ResourceTracker

if TYPE_CHECKING:
    from jitlink.orc.callables import HostSymbol
    from jitlink.orc.materialization import MaterializationResponsibility, MaterializationUnit
    from jitlink.orc.session import ExecutionSession

SearchOrder = Sequence[tuple["JITDylib", JITDylibLookupFlags]]


class DefinitionGenerator(Protocol):
    """Adds definitions to a JITDylib when a search does not find them."""

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Define those of `names` in `dylib` that can be; leave the others.

        The names say whether they must be found, which a weak reference need not be.

        Runs on the session's thread. An exception fails the lookup.
        """


class JITDylib(JITLinkDylib):
    """A simulated dynamic library.

    Attributes:
        session: the session it belongs to.
        symbols: the definition of each of its symbols; to be read on the session's thread.
        trackers: the trackers that own something, in order of first use; likewise.
        generators: asked, in order, for names that are not in the table.
        seats: where searches wait for a generator; for the searches.
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
        self.seats: dict[int, Seat] = {}
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
            self._default_tracker.retire()
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
        overridden, refused = self.weigh(unit.symbols, unit.name)
        if refused:
            unit.symbols = {n: f for n, f in unit.symbols.items() if n not in refused}
        losers = self._override(overridden)
        if unit.symbols:
            self.trackers[owner] = None
            self.adopt(Definition(self, unit.symbols, owner, unit, unit.name))
            self.initializers.update(dict.fromkeys(unit.initializers))
        self._discard([*losers, *((unit, name) for name in refused)])

    def put_first(self, tracker: ResourceTracker) -> None:
        """Treat what a tracker owns as older than all else, so that `clear` removes it last."""
        self.trackers = {tracker: None} | self.trackers

    def weigh(
        self, symbols: Mapping[str, JITSymbolFlags], source: str
    ) -> tuple[list[str], set[str]]:
        """Which new names take the place of promised weak ones, and which must yield.

        Raises:
            DuplicateDefinitionError: a name can do neither.
        """
        overridden: list[str] = []
        refused: set[str] = set()
        if self.symbols.keys().isdisjoint(symbols):
            return overridden, refused
        for name, flag in symbols.items():
            held = self.symbols.get(name)
            if held is None:
                continue
            if not flag.is_strong:
                refused.add(name)
            elif held.flags[name].is_strong or held.state > SymbolState.NEVER_SEARCHED:
                raise DuplicateDefinitionError(name, first=held.source, second=source)
            else:
                overridden.append(name)
        return overridden, refused

    def _override(self, names: Iterable[str]) -> list[tuple[MaterializationUnit, str]]:
        """Take promises back, and return by whom they were made."""
        by_definition: dict[Definition, list[str]] = {}
        for name in names:
            by_definition.setdefault(self.symbols[name], []).append(name)
        losers = []
        for definition, chosen in by_definition.items():
            part, unit = definition.split(chosen), definition.unit
            self.forget(part)
            if unit is not None:
                unit.symbols = {n: f for n, f in unit.symbols.items() if n not in part.flags}
                losers += [(unit, name) for name in chosen]
        return losers

    def _discard(self, losers: Iterable[tuple[MaterializationUnit, str]]) -> None:
        """Tell units what they need not make; last, so that the table is right if one raises."""
        for unit, name in losers:
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
        # LLVM differs: there, a strong claim is refused also where only a weak promise is.
        overridden, refused = self.weigh(symbols, responsibility.unit_name)
        losers = self._override(overridden)
        taken = {name: flags for name, flags in symbols.items() if name not in refused}
        definition = None
        if taken:
            definition = Definition(self, taken, tracker, source=responsibility.unit_name)
            definition.state = SymbolState.MATERIALIZING
            definition.responsibility = responsibility
            self.trackers[tracker] = None
            self.adopt(definition)
        self._discard(losers)
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

    def let_go(self) -> None:
        """Refer to nothing that refers to it, now that it has been removed."""
        self._default_tracker, self._link_order = None, []

    def replace_default_tracker(self) -> None:
        """Let another tracker own what is defined without naming one; the old one is defunct."""
        self._default_tracker = ResourceTracker(self)
