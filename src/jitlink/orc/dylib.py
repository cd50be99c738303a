"""JITDylibs: simulated dynamic libraries, tables of symbols that are made on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from jitlink.errors import DuplicateDefinitionError
from jitlink.memory.manager import JITLinkDylib
from jitlink.orc.definition import Definition
from jitlink.orc.errors import ResourceTrackerDefunctError
from jitlink.orc.symbols import JITDylibLookupFlags, JITSymbolFlags, LookupKind, SymbolState
from jitlink.orc.tracker import ResourceTracker

if TYPE_CHECKING:
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
        names: Sequence[str],
    ) -> None:
        """Define those of `names` in `dylib` that can be; leave the others.

        Runs on the session's thread. An exception fails the lookup.
        """


class JITDylib(JITLinkDylib):
    """A simulated dynamic library.

    Attributes:
        session: the session it belongs to.
        symbols: the definition of each of its symbols; to be read on the session's thread.
        generators: asked, in order, for names that are not in the table.
        is_open: whether it has not been removed.
    """

    def __init__(self, session: ExecutionSession, name: str) -> None:
        super().__init__(name)
        self.session = session
        self.symbols: dict[str, Definition] = {}
        self.generators: list[DefinitionGenerator] = []
        self.is_open = True
        self._link_order: list[tuple[JITDylib, JITDylibLookupFlags]] = [
            (self, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)
        ]
        self._default_tracker = ResourceTracker(self)

    # What everybody calls, from any thread.

    @property
    def default_tracker(self) -> ResourceTracker:
        """Owns what is defined without naming a tracker; a new one after it was removed."""
        if self._default_tracker.is_defunct:
            self._default_tracker = ResourceTracker(self)
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
        """Set the search order; this JITDylib itself comes first unless told otherwise."""
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
        """Search another JITDylib after those that are searched already."""
        self._change(lambda: self._reorder([*self._link_order, (dylib, flags)]))

    def remove_from_link_order(self, dylib: JITDylib) -> None:
        """Do not search a JITDylib any more."""
        self._change(
            lambda: self._reorder([each for each in self._link_order if each[0] is not dylib])
        )

    def _reorder(self, order: list[tuple[JITDylib, JITDylibLookupFlags]]) -> None:
        self._link_order = order

    def add_generator(self, generator: DefinitionGenerator) -> None:
        """Ask a generator, after those that are asked already."""
        self._change(lambda: self.generators.append(generator))

    def remove_generator(self, generator: DefinitionGenerator) -> None:
        """Do not ask a generator any more."""
        self._change(lambda: self.generators.remove(generator))

    def define(self, unit: MaterializationUnit, tracker: ResourceTracker | None = None) -> None:
        """Add the definitions that a unit promises.

        Raises:
            DuplicateDefinitionError: a strong definition of one of the names exists; nothing
                has been added.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        self._change(lambda: self.add_unit(unit, tracker))

    def _change(self, change: Callable[[], None]) -> None:
        self.session.run(change)

    # What runs on the session's thread.

    def add_unit(self, unit: MaterializationUnit, tracker: ResourceTracker | None = None) -> None:
        """`define`, for callers on the session's thread."""
        owner = (tracker or self.default_tracker).current
        if owner is None or not self.is_open:
            raise ResourceTrackerDefunctError(self.name)
        overridden, refused = self.weigh(unit.symbols, unit.name)
        if refused:
            unit.symbols = {n: f for n, f in unit.symbols.items() if n not in refused}
            for name in refused:
                unit.discard(self, name)
        self._override(overridden)
        if unit.symbols:
            self.adopt(Definition(self, unit.symbols, owner, unit))

    def weigh(
        self, symbols: Mapping[str, JITSymbolFlags], source: str
    ) -> tuple[set[str], set[str]]:
        """Which new names take the place of promised weak ones, and which must yield."""
        overridden: set[str] = set()
        refused: set[str] = set()
        if self.symbols.keys().isdisjoint(symbols):
            return overridden, refused
        for name in self.symbols.keys() & symbols.keys():
            held = self.symbols[name]
            if not symbols[name].is_strong:
                refused.add(name)
            elif held.flags[name].is_strong or held.state > SymbolState.NEVER_SEARCHED:
                first = held.unit.name if held.unit else self.name
                raise DuplicateDefinitionError(name, first=first, second=source)
            else:
                overridden.add(name)
        return overridden, refused

    def _override(self, names: Iterable[str]) -> None:
        """Take promises back because stronger definitions come."""
        for name in names:
            part = self.symbols[name].split([name])
            unit = part.unit
            self.forget(part)
            if unit is not None:
                unit.symbols = {n: f for n, f in unit.symbols.items() if n != name}
                unit.discard(self, name)

    def claim(
        self,
        symbols: Mapping[str, JITSymbolFlags],
        tracker: ResourceTracker,
        responsibility: MaterializationResponsibility,
    ) -> Definition | None:
        """Add symbols that are being made already; weak ones yield to any other."""
        overridden, refused = self.weigh(symbols, responsibility.unit_name)
        self._override(overridden)
        taken = {name: flags for name, flags in symbols.items() if name not in refused}
        if not taken:
            return None
        definition = Definition(self, taken, tracker)
        definition.state = SymbolState.MATERIALIZING
        definition.responsibility = responsibility
        self.adopt(definition)
        return definition

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
