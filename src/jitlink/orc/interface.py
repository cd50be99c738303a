"""What the parts of a session share: the types of symbols, units, generators and trackers.

A `MaterializationUnit` adds definitions to a JITDylib and materializes them on demand. A
`DefinitionGenerator` adds definitions to a JITDylib when a search does not find them. A
`ResourceTracker` owns definitions; a `ResourceManager` holds resources under the keys of trackers.

`Session`, `Responsibility` and `Query` declare what JITDylibs, lookups and materialization use of
modules above them, so that none of these imports another one that imports it. Two imports point
up, for annotations only: methods that are to be overridden name the class of their argument, which
is `JITDylib` or `MaterializationResponsibility`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from jitlink.orc.errors import NotRestartableError
from jitlink.resolve import Strength
from jitlink.tasks import Lock

if TYPE_CHECKING:
    from jitlink.executor import ExecutorProcessControl
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.errors import FailedToMaterializeError
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.orc.unit_record import UnitRecord
    from jitlink.tasks import Task

T = TypeVar("T")


class JITSymbolFlags(IntFlag):
    """Properties of a definition; the bits are those of LLVM's wire format."""

    NONE = 0
    HAS_ERROR = 1
    WEAK = 2
    """Another definition may override it."""
    COMMON = 4
    """A tentative definition; weak too."""
    ABSOLUTE = 8
    EXPORTED = 16
    """Visible outside its JITDylib."""
    CALLABLE = 32
    SIDE_EFFECTS_ONLY = 64
    """Looked up for the side effects of materializing it; it has no address."""
    COMDAT = 128
    """A strong definition in a COMDAT group, which that of another group may override."""
    # LLVM differs: it has no such bit, and makes these definitions weak.

    # Operators of flags are slow, and few combinations occur, so properties are cached.

    @cached_property
    def is_strong(self) -> bool:
        """Whether no other definition may override it."""
        return self.strength is Strength.STRONG

    @cached_property
    def strength(self) -> Strength:
        """The strength that decides its precedence."""
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
        """Whether it is defined for more than side effects."""
        return not self & JITSymbolFlags.SIDE_EFFECTS_ONLY


class ExecutorSymbolDef(NamedTuple):
    """Address of a symbol in the executor, and its flags."""

    address: int
    flags: JITSymbolFlags


HostSymbol = int | ExecutorSymbolDef | Callable[..., Any] | tuple[Callable[..., Any], type[Any]]
"""What a name can be defined as: an address; a Python function with annotations that are ctypes
types; one with its prototype, made by `ctypes.CFUNCTYPE`; one decorated with a prototype; or a
ctypes function."""


class SymbolState(IntEnum):
    """State of a symbol; states follow each other in this order.

    NEVER_SEARCHED: defined, and not looked up yet. MATERIALIZING: being materialized. RESOLVED: it
    has an address, whose memory may have no content yet. EMITTED: its content is in executor
    memory, but not necessarily its dependencies. READY: it and all that it reaches can be used.
    """

    NEVER_SEARCHED = 0
    MATERIALIZING = 1
    RESOLVED = 2
    EMITTED = 3
    READY = 4


class JITDylibLookupFlags(Enum):
    """Which symbols of a JITDylib a search matches."""

    MATCH_EXPORTED_ONLY = "exported only"
    MATCH_ALL_SYMBOLS = "all symbols"


class LookupKind(Enum):
    """What a search is for: linking, or a program's ``dlsym``."""

    STATIC = "static"
    DLSYM = "dlsym"


Symbols = Mapping[str, JITSymbolFlags]
"""Names that are defined, with flags."""
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
        """Define those of `names` in `dylib` that can be; ignore the others.

        The names are mapped to whether they must be found, which a weak reference need not be.

        Runs on the driver thread. An exception fails the lookup.
        """


class GeneratorLock:
    """The lock of one generator in one JITDylib.

    Attributes:
        lock: held by the search that the generator works for.
        holder: the call of the generator for that search.
        users: how many searches hold the lock or wait for it.
    """

    __slots__ = ("holder", "lock", "users")

    def __init__(self) -> None:
        self.lock = Lock()
        self.holder: InProgressLookup | None = None
        self.users = 0


class InProgressLookup:
    """One call of a generator, for a search.

    Attributes:
        outer: the call of a generator that made this search, if one did.
        waits_for: generator locks that searches of this call wait for.
        is_over: whether the generator has returned.
    """

    __slots__ = ("is_over", "outer", "waits_for")

    def __init__(self, outer: InProgressLookup | None) -> None:
        self.outer = outer
        self.waits_for: list[GeneratorLock] = []
        self.is_over = False

    def chain(self) -> Iterator[InProgressLookup]:
        """The call itself and those that it is nested in, without those that are over."""
        call: InProgressLookup | None = self
        while call is not None:
            if not call.is_over:
                yield call
            call = call.outer


class MaterializationUnit(ABC):
    """Definitions that are materialized on demand.

    Attributes:
        name: display name.
        symbols: the names that it defines, with flags. Overridden ones are removed from it.
        initializers: names among them, for side effects only: looking them up materializes all
            definitions with initialisers. A platform does so before it runs the initialisers.
        is_complete: whether the archive members that it needs have been extracted; for the session.
        is_generated: whether what has added it adds it again, when its names are looked up after
            the executor was restarted; other units are then renewed.
    """

    name: str
    symbols: Mapping[str, JITSymbolFlags]
    initializers: Sequence[str] = ()
    is_complete: bool = False
    is_generated: bool = False

    @abstractmethod
    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Materialize the definitions; an exception fails all that remain.

        Runs on the driver thread, which it must not block for long.
        """

    def discard(self, dylib: JITDylib, name: str) -> None:  # noqa: B027 - optional
        """Drop an overridden definition, which has been removed from `symbols` already."""

    def restart_obstacles(self, symbols: Symbols) -> Iterable[str]:  # noqa: ARG002
        """Which definitions could not be materialized once more, if the executor were restarted.

        By default all of them, unless a subclass has overridden `renewed`.

        Args:
            symbols: those of its definitions that have been neither overridden nor removed.
        """
        is_renewable = type(self).renewed is not MaterializationUnit.renewed
        return () if is_renewable else (self.name,)

    def renewed(self, symbols: Symbols) -> MaterializationUnit:  # noqa: ARG002 - for subclasses
        """A unit that materializes its definitions once more, in an executor that was restarted.

        Args:
            symbols: as for `restart_obstacles`, which has found none.
        """
        raise NotRestartableError([self.name])

    def merge_key(self) -> Hashable | None:
        """Units with equal keys can be materialized as one; None if this one cannot."""
        return None

    def merge(self, others: Sequence[MaterializationUnit]) -> MaterializationUnit:
        """One unit for this one and others of the same key."""
        raise TypeError(f"{type(self).__name__} cannot be merged with {len(others)} others")

    def separate(self, units: Sequence[MaterializationUnit]) -> list[list[MaterializationUnit]]:
        """Units that were merged, as this one with others, in groups that can do without another.

        For materializing them again after an error.
        """
        return [[unit] for unit in units]

    def anticipated(self) -> Iterable[str]:
        """Names that materializing will look up: a hint, to materialize them together with it."""
        return ()

    def required(self) -> Mapping[str, str]:
        """Names that materializing will look up and that must be found, with their first referrers.

        They need not be among the anticipated ones.
        """
        return {}

    def companions(self, definition: Definition, handled: set[Hashable]) -> Iterable[Definition]:
        """Definitions of other units that must be materialized together with one of this unit's.

        They are of the same tracker, and are merged with it whatever their merge keys are.

        Args:
            definition: the definition.
            handled: what other units have found already, in keys of their own; extended.
        """
        del definition, handled
        return ()


class SymbolDependenceGroup:
    """Symbols of a link that have the same dependencies.

    Args:
        symbols: names of the symbols.
        dependencies: names that all of them depend on, by JITDylib.
    """

    def __init__(
        self, symbols: set[str], dependencies: dict[JITDylib, set[str]] | None = None
    ) -> None:
        self.symbols = symbols
        self.dependencies: dict[JITDylib, set[str]] = {} if dependencies is None else dependencies


class ResourceManager(ABC):
    """Holds resources under the keys of trackers. Called on the driver thread."""

    @abstractmethod
    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release all resources that are held under a key."""

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

    # When an executor is restarted that is another process

    def restart_obstacles(self) -> Iterable[str]:
        """What it has that could not be there again if the executor were restarted now."""
        return ()

    def handle_restart(self) -> None:  # noqa: B027 - optional
        """The executor was restarted: forget what was in the process that has ended.

        All resources have been removed before, while there was no executor.
        """

    def resume(self) -> None:  # noqa: B027 - optional
        """Have run in the new process what had run in the one that has ended.

        Not called on the driver thread, but on the one that has restarted the executor.
        """


class ResourceTracker:
    """An owner of definitions in one JITDylib.

    Attributes:
        dylib: the JITDylib.
        definitions: what it owns, in order of definition; for the driver thread.
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
            # Path compression, so that a long chain of transfers is followed once.
            self._moved_to = last
        return None if last.is_defunct else last

    @property
    def is_defunct(self) -> bool:
        """Whether it was removed, or what it owned was transferred to another."""
        return self._defunct

    def make_defunct(self, moved_to: ResourceTracker | None = None) -> None:
        """Make it defunct; for the session."""
        self._defunct = True
        self._moved_to = moved_to

    def remove(self) -> None:
        """Remove all definitions and release all resources.

        Lookups that wait for one of them fail; links that materialize them are stopped.

        Raises:
            JITLinkError: resources could not be released; the definitions are removed all the same.
        """
        self.dylib.session.wait(self.remove_async())

    async def remove_async(self) -> None:
        """The asynchronous form of `remove`."""
        await self.dylib.session.remove_tracker(self)

    def transfer_to(self, destination: ResourceTracker) -> None:
        """Transfer everything to another tracker of the same JITDylib; this one is then defunct.

        Raises:
            ValueError: the other one is of another JITDylib.
            ResourceTrackerDefunctError: either was removed.
        """
        session = self.dylib.session
        session.run(lambda: session.transfer_tracker(destination, self))


class Responsibility(Protocol):
    """A `MaterializationResponsibility`, as definitions and lookups use it."""

    unit_name: str
    queries: dict[Query, None]

    def fail_queries(self, error: BaseException) -> None:
        """Fail the lookups that are made for it."""


class Query(Protocol):
    """An `AsynchronousSymbolQuery`, as definitions and sessions use it."""

    required_state: SymbolState
    requester: Responsibility | None

    @property
    def missing(self) -> tuple[Definition, ...]:
        """The definitions that it still waits for."""

    def names_among(self, dylib: JITDylib, names: Mapping[str, object]) -> list[str]:
        """Those of some names of a JITDylib that it is for."""

    def add(self, definition: Definition) -> None:
        """Wait for a definition."""

    def remove(self, definition: Definition) -> None:
        """Stop waiting for a definition that has not reached the required state."""

    def satisfy(self, definition: Definition) -> None:
        """Record that a definition has reached the required state."""

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""


class Session(Protocol):
    """An `ExecutionSession`, which documents all of this, as the modules below it use it."""

    executor: ExecutorProcessControl
    dylibs: dict[str, JITDylib]
    resource_managers: list[ResourceManager]
    queries: dict[Query, None]
    searches: set[Task[Any]]
    is_ending: bool
    record: UnitRecord | None

    # From any thread

    def check_executor(self) -> None:
        """Check that what was linked is in the executor, which is restarted if it is to be."""

    def run(self, action: Callable[[], T]) -> T:
        """Run a function on the driver thread and return its result."""

    def wait(self, coroutine: Coroutine[Any, Any, T], *, may_drive: bool = True) -> T:
        """Run a coroutine on the driver thread and return its result."""

    def create_jitdylib(self, name: str) -> JITDylib:
        """Create an empty JITDylib."""

    def lookup(
        self,
        order: SearchOrder | JITDylib,
        names: str | Iterable[str] | Mapping[str, bool],
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """Look up symbols and wait for them."""

    def fail_later(self, definitions: list[Definition], error: BaseException) -> None:
        """`fail`, as soon as the driver thread is free."""

    # On the driver thread

    def check_open(self) -> None:
        """Check that the session has not ended."""

    def check_links(self) -> None:
        """Check that links are possible."""

    async def lookup_async(
        self,
        order: SearchOrder | JITDylib,
        names: str | Iterable[str] | Mapping[str, bool],
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """The asynchronous form of `lookup`."""

    async def lookup_flags_async(
        self,
        order: SearchOrder | JITDylib,
        names: str | Iterable[str] | Mapping[str, bool],
        *,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, JITSymbolFlags]:
        """Look up the flags of symbols."""

    def python_symbols(self, symbols: Mapping[str, HostSymbol]) -> MaterializationUnit:
        """A unit that defines addresses and Python functions."""

    def materialize(self, definitions: Iterable[Definition]) -> None:
        """Start materializing those definitions that have not been looked up before."""

    def extract_members(self, definitions: Iterable[Definition]) -> bool:
        """Extract the archive members that definitions need; returns whether there were any."""

    def emit(
        self, groups: Sequence[tuple[Sequence[Definition], Mapping[Definition, set[str]]]]
    ) -> None:
        """Record that definitions were emitted, with their dependencies."""

    def fail(self, definitions: Iterable[Definition], error: BaseException | None) -> None:
        """Fail definitions, and all that depend on them."""

    def failed_to_materialize(self, definitions: Sequence[Definition]) -> FailedToMaterializeError:
        """An error that names symbols."""

    async def remove_tracker(self, tracker: ResourceTracker) -> None:
        """Remove a tracker's symbols and release its resources."""

    def transfer_tracker(self, destination: ResourceTracker, source: ResourceTracker) -> None:
        """Transfer everything that one tracker owns to another."""
