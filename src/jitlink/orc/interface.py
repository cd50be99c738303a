"""What the parts of a session agree on: symbols, units, generators, and the owners of resources.

A `MaterializationUnit` promises definitions to a JITDylib and materializes them on demand. A
`DefinitionGenerator` adds definitions to a JITDylib when a search does not find them. A
`ResourceTracker` owns definitions; `ResourceManager` is the base of everything that holds
resources under the keys of trackers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from jitlink.resolve import Strength

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.materialization import MaterializationResponsibility


class JITSymbolFlags(IntFlag):
    """Properties of a definition; the bits are those of LLVM's wire format."""

    NONE = 0
    HAS_ERROR = 1
    WEAK = 2
    """Another definition may take its place."""
    COMMON = 4
    """A tentative definition; weak too."""
    ABSOLUTE = 8
    EXPORTED = 16
    """Visible outside its JITDylib."""
    CALLABLE = 32
    SIDE_EFFECTS_ONLY = 64
    """Can be looked up for what materializing it does, but has no address."""
    COMDAT = 128
    """A strong definition in a COMDAT group, whose place that of another group may take."""
    # LLVM differs: it has no such bit, and makes these definitions weak.

    # Operators of flags are slow, and there are few combinations that are asked about often.

    @cached_property
    def is_strong(self) -> bool:
        """Whether no other definition may take its place."""
        return self.strength is Strength.STRONG

    @cached_property
    def strength(self) -> Strength:
        """What the definition competes with others as."""
        if self & JITSymbolFlags.COMMON:
            return Strength.COMMON
        if self & JITSymbolFlags.WEAK:
            return Strength.WEAK
        return Strength.COMDAT if self & JITSymbolFlags.COMDAT else Strength.STRONG

    @cached_property
    def is_exported(self) -> bool:
        """Whether it is visible outside its JITDylib."""
        return bool(self & JITSymbolFlags.EXPORTED)

    @cached_property
    def has_address(self) -> bool:
        """Whether it is there for more than side effects."""
        return not self & JITSymbolFlags.SIDE_EFFECTS_ONLY


class ExecutorSymbolDef(NamedTuple):
    """Where a symbol is in the executor, and what it is."""

    address: int
    flags: JITSymbolFlags


class SymbolState(IntEnum):
    """How far a symbol has come; states are passed through in this order.

    NEVER_SEARCHED: defined, nobody has asked. MATERIALIZING: its definition is being made.
    RESOLVED: it has an address, but nothing need be there. EMITTED: it is in memory, but what
    it needs may not be. READY: it and all that it reaches can be used.
    """

    NEVER_SEARCHED = 0
    MATERIALIZING = 1
    RESOLVED = 2
    EMITTED = 3
    READY = 4


class JITDylibLookupFlags(Enum):
    """Which symbols of a JITDylib a search sees."""

    MATCH_EXPORTED_ONLY = "exported only"
    MATCH_ALL_SYMBOLS = "all symbols"


class LookupKind(Enum):
    """What a search is for: linking, or a program's ``dlsym``."""

    STATIC = "static"
    DLSYM = "dlsym"


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


@dataclass
class SymbolDependenceGroup:
    """Symbols of a link, and what all of them need from elsewhere.

    Attributes:
        symbols: names of the symbols.
        dependencies: names that they need, by JITDylib.
    """

    symbols: set[str]
    dependencies: dict[JITDylib, set[str]] = field(default_factory=dict)


class ResourceManager(ABC):
    """Whoever holds resources under the keys of trackers. Called on the session's thread."""

    @abstractmethod
    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release everything that is held under a key."""

    @abstractmethod
    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Hold under `destination` what was held under `source`."""

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """The JITDylibs with definitions of this manager whose code may call Python."""
        return ()

    def handle_remove_jitdylib(self, dylib: JITDylib) -> None:  # noqa: B027 - optional
        """A JITDylib was removed, after all its trackers."""


class ResourceTracker:
    """An owner of definitions in one JITDylib.

    Attributes:
        dylib: the JITDylib.
        definitions: what it owns, in order of definition; for the session's thread.
    """

    def __init__(self, dylib: JITDylib) -> None:
        self.dylib = dylib
        self.definitions: dict[Definition, None] = {}
        self._moved_to: ResourceTracker | None = None
        self._defunct = False

    def __repr__(self) -> str:
        return f"<ResourceTracker of {self.dylib.name}{' (defunct)' if self._defunct else ''}>"

    @property
    def current(self) -> ResourceTracker | None:
        """The tracker that now owns what this one did; None if it was removed."""
        last = self
        while last._moved_to is not None:
            last = last._moved_to
        if last is not self:
            # Shortened, so that a long row of transfers is gone through once.
            self._moved_to = last
        return None if last.is_defunct else last

    @property
    def is_defunct(self) -> bool:
        """Whether it was removed, or what it owned was moved to another."""
        return self._defunct

    def make_defunct(self, moved_to: ResourceTracker | None = None) -> None:
        """Make it defunct; for the session."""
        self._defunct = True
        self._moved_to = moved_to

    def remove(self) -> None:
        """Remove all definitions and release all resources.

        Lookups that wait for one of them fail; links that are making them are stopped.

        Raises:
            JITLinkError: resources could not be released; the definitions are gone all the same.
        """
        self.dylib.session.wait(self.remove_async())

    async def remove_async(self) -> None:
        """The asynchronous form of `remove`."""
        await self.dylib.session.remove_tracker(self)

    def transfer_to(self, destination: ResourceTracker) -> None:
        """Give everything to another tracker of the same JITDylib; this one is then defunct.

        Raises:
            ValueError: the other one is of another JITDylib.
            ResourceTrackerDefunctError: either was removed.
        """
        session = self.dylib.session
        session.run(lambda: session.transfer_tracker(destination, self))
