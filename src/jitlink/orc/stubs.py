"""Stubs: functions whose bodies are elsewhere, not linked yet, or change while the program runs.

A stub jumps through a pointer. The pointer has the address of the body; until that is linked it has
the address of a trampoline, and a call looks up, links and enters the body. Only the pointers ever
change: aligned words in readable and writable memory, written in one store, so that a concurrent
call enters the old target or the new one. Stubs and trampolines are code like any other: a graph
that the layer links.

Any thread may call a stub whose body is not linked yet, several at once too: the body is linked
once, on the driver thread, and all of them enter it. When the body is removed, the pointer is set
back to the trampoline, so that the next call looks up a body again.

If a body cannot be linked, the session's `error_handler` is called, and the call continues at the
*landing*:

* an address that the user chose, which is entered as if it were the function; or else,
* if Python itself called the stub (through ctypes), the call returns zero and the
  `LazyCallError` is raised in Python;
* if other native code called it, the C library's ``abort``: no return value would be right.

Stubs are removed with their tracker, like all code, and cannot be called afterwards.

Redirectable functions are stubs whose pointers the user changes while code that calls them runs::

    manager = RedirectableSymbolManager(IndirectStubsManager(layer))
    manager.create(main, {"step": (slow, "step")})
    ...
    manager.redirect(main, {"step": (fast, "step")})

Redirecting is one store to a pointer: a concurrent call enters the old function or the new one.
Calls that have entered the old function continue in it, so it must stay in memory as long as a
thread may execute it.

LLVM differs: here a stub is reset when its body is removed, and lazy and redirectable functions
have the same kind of stub.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from jitlink.errors import UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor import ExecutorProcessControl
from jitlink.orc.dylib import Definition, JITDylib
from jitlink.orc.errors import (
    ConsequenceError,
    Failure,
    ResourceTrackerDefunctError,
    SessionError,
    listed,
)
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
    ResourceManager,
    ResourceTracker,
    Symbols,
    SymbolState,
)
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.reentry import Reentry, reentry_of
from jitlink.orc.stubs_graph import StubsGraph
from jitlink.orc.tracebacks import shorten
from jitlink.orc.trackers import TrackedResources
from jitlink.targets.base import Target
from jitlink.targets.registry import target_of_triple
from jitlink.tasks import Lock

FUNCTION = JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE


class LazyCallError(ConsequenceError):
    """A lazy function was called and could not be linked.

    The first cause is its ``__cause__``, and this error is of its class, too.

    Attributes:
        dylib: name of the JITDylib that has the stub.
        name: the function.
        failure: which unit could not be linked, and why.
    """

    def __init__(self, dylib: str, name: str, *, failure: Failure | None = None) -> None:
        self.dylib, self.name = dylib, name
        self.follow_from(failure, f"{name} in {dylib} was called and could not be linked")

    def __str__(self) -> str:
        return super().__str__() if self.failure is None else f"{self.args[0]}: {self.failure}"


class NotRedirectableError(SessionError):
    """Functions that were not defined as redirectable.

    Attributes:
        dylib: name of the JITDylib.
        names: the functions.
    """

    def __init__(self, dylib: str, names: Iterable[str]) -> None:
        self.dylib, self.names = dylib, tuple(sorted(names))
        super().__init__(f"not redirectable in {dylib}: {listed(self.names)}")


class FunctionBody(NamedTuple):
    """The definition that a stub calls: looked up, and linked, on the first call."""

    dylib: JITDylib
    name: str


StubTarget = int | FunctionBody


class StubsListener(Protocol):
    """Notified of events of stubs with bodies, on the driver thread."""

    def stubs_emitted(self, bodies: Sequence[FunctionBody]) -> None:
        """The stubs of these bodies can be called from now on."""

    def stub_called(self, body: FunctionBody) -> None:
        """A stub was called whose body is not linked yet."""


class Stub:
    """One stub.

    Attributes:
        manager: its manager.
        dylib: where it is defined.
        name: its name.
        target: the address or the body that it calls.
        identity: the number that its trampoline passes to the reentry.
        pointer: address of its pointer, 0 while it is not linked.
        entry: the address that the pointer has, or is about to have.
        trampoline: address of its trampoline.
        owner: the tracker of the body whose address the pointer has, if it has one.
    """

    __slots__ = (
        "__weakref__", "dylib", "entry", "identity", "manager", "name", "owner", "pointer",
        "target", "trampoline",
    )  # fmt: skip

    def __init__(
        self, manager: IndirectStubsManager, dylib: JITDylib, name: str, target: StubTarget
    ) -> None:
        self.manager = manager
        self.dylib = dylib
        self.name = name
        self.target = target
        self.identity = self.pointer = self.trampoline = self.entry = 0
        self.owner: ResourceTracker | None = None

    def resume_address(self, caller: int) -> int:
        """The address at which a call of the trampoline continues.

        Args:
            caller: return address of the call.
        """
        return self.manager.resume_address(self, caller)


class StubsUnit(MaterializationUnit):
    """A unit of stubs."""

    def __init__(
        self,
        manager: IndirectStubsManager,
        targets: Mapping[str, StubTarget],
        flags: JITSymbolFlags,
    ) -> None:
        self.name = "<stubs>"
        self.symbols = dict.fromkeys(targets, flags)
        self.manager = manager
        self.targets = dict(targets)
        self._flags = flags

    def restart_obstacles(self, symbols: Symbols) -> Iterable[str]:
        """The stubs that lead to addresses of the executor."""
        return [
            f"{name}, which leads to an address of the executor,"
            for name in symbols
            if isinstance(self.targets[name], int)
        ]

    def renewed(self, symbols: Symbols) -> StubsUnit:
        """The same stubs, with the same targets."""
        unit = StubsUnit(self.manager, {name: self.targets[name] for name in symbols}, self._flags)
        unit.name = self.name
        return unit

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the stubs."""
        await self.manager.link_stubs(self.targets, responsibility)


class IndirectStubsManager(ResourceManager):
    """Creates stubs, and changes their targets.

    Args:
        layer: links the stubs; its session is theirs.
        landing: the address at which a call continues whose body cannot be linked; by default
            `LazyCallError` is raised in Python if it made the call, and other callers abort.
        listeners: notified of stubs and of calls.

    Raises:
        SessionError: there is no machine code of stubs for the session's executor.
        ExecutorError: code of the executor cannot call this process.
    """

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        *,
        landing: int | None = None,
        listeners: Sequence[StubsListener] = (),
    ) -> None:
        session = layer.session
        self.layer = layer
        self.session = session
        self.landing = landing
        self._listeners = tuple(listeners)
        self._target, self._reentry = _reentry_for(session.executor)
        self._has_reentry = True
        self._storing = Lock()
        # Stubs by their tracker, stubs by the tracker of their body, and stubs by name.
        self._owned: TrackedResources[Stub] = TrackedResources()
        self._bound: TrackedResources[Stub] = TrackedResources()
        self._stubs: dict[JITDylib, dict[str, Stub]] = {}
        session.run(lambda: session.resource_managers.append(self))

    def unit(
        self, targets: Mapping[str, StubTarget], flags: JITSymbolFlags = FUNCTION
    ) -> StubsUnit:
        """A unit of stubs with these targets, for `JITDylib.define`."""
        return StubsUnit(self, targets, flags)

    # On the thread that calls a stub

    def resume_address(self, stub: Stub, caller: int) -> int:
        """The address at which a call of a stub's trampoline continues."""
        is_python = self._reentry.is_python(caller)
        try:
            return self.session.wait(self._resolve(stub), may_drive=False)
        except KeyboardInterrupt as interrupt:
            if is_python:
                return self._reentry.raise_in_caller(interrupt)
            # The reentry calls again, because native code cannot be interrupted.
            raise
        except BaseException as error:  # noqa: BLE001 - the call must continue somewhere
            return self._fail(stub, error, is_python=is_python)

    def _fail(self, stub: Stub, cause: BaseException, *, is_python: bool) -> int:
        failure = Failure.of(stub.name, shorten(cause))
        error = LazyCallError(stub.dylib.name, stub.name, failure=failure)
        self.session.report_error(error)
        if self.landing is not None:
            return self.landing
        return self._reentry.raise_in_caller(error) if is_python else self._reentry.abort

    # On the driver thread

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """The JITDylibs that have stubs: a call may have to link their bodies."""
        return list(self._stubs)

    async def link_stubs(
        self, targets: Mapping[str, StubTarget], responsibility: MaterializationResponsibility
    ) -> None:
        """Link the stubs of a responsibility."""
        if not self._has_reentry:
            self._target, self._reentry = _reentry_for(self.session.executor)
            self._has_reentry = True
        dylib, symbols = responsibility.dylib, responsibility.symbols
        stubs = [Stub(self, dylib, name, targets[name]) for name in symbols]
        for stub in stubs:
            stub.identity = self._reentry.register(stub)
        self._stubs.setdefault(dylib, {}).update({stub.name: stub for stub in stubs})
        try:
            built = StubsGraph(self._target, self._reentry, stubs, symbols)
            await self.layer.emit(responsibility, built.graph)
            tracker = responsibility.tracker
        except BaseException:
            self._deregister(stubs)
            raise
        # Lookups that wait for the stubs continue only after this.
        for stub in stubs:
            self._owned.add(tracker, stub)
        for stub, pointer, trampoline in zip(stubs, *built.addresses(), strict=True):
            stub.pointer, stub.trampoline = pointer, trampoline
            stub.entry = stub.target if isinstance(stub.target, int) else trampoline
        await self._store([stub for stub in stubs if isinstance(stub.target, int)])
        if self._listeners:
            bodies = [stub.target for stub in stubs if isinstance(stub.target, FunctionBody)]
            for listener in self._listeners:
                listener.stubs_emitted(bodies)

    async def redirect(self, dylib: JITDylib, targets: Mapping[str, StubTarget]) -> None:
        """Change the targets of stubs; bodies are linked first.

        Raises:
            NotRedirectableError: some names are not stubs of this manager.
            UndefinedSymbolError: a body is not defined.
            FailedToMaterializeError: a body cannot be linked.
            ResourceTrackerDefunctError: a body was removed while others were linked.

        After an error all stubs have their old targets.
        """
        self._check_redirectable(dylib, targets)
        found: dict[str, Definition] = {}
        for name, target in targets.items():
            if not isinstance(target, int):
                found[name] = await self._find(target)
        # Everything is checked before anything changes, and nothing is awaited in between.
        self._check_redirectable(dylib, targets)
        for name, target in targets.items():
            if not isinstance(target, int):
                _owner_and_address(found[name], target.name)
        changed = []
        for name, target in targets.items():
            unit = dylib.symbols[name].unit
            if isinstance(unit, StubsUnit):
                unit.targets[name] = target
                continue
            stub = self._stubs[dylib][name]
            self._unbind(stub)
            stub.target = target
            if isinstance(target, int):
                stub.entry = target
            else:
                self._bind(stub, found[name], target.name)
            changed.append(stub)
        self._record(dylib, targets)
        await self._store(changed)

    def _record(self, dylib: JITDylib, targets: Mapping[str, StubTarget]) -> None:
        """Record the targets of stubs, for the case that the executor is restarted."""
        record = self.session.record
        for unit in () if record is None else record.units_of(dylib, targets):
            if isinstance(unit, StubsUnit):
                unit.targets |= {n: t for n, t in targets.items() if n in unit.targets}

    def _check_redirectable(self, dylib: JITDylib, names: Iterable[str]) -> None:
        stubs = self._stubs.get(dylib, {})
        others = []
        for name in names:
            definition = dylib.symbols.get(name)
            unit = definition.unit if definition else None
            is_unlinked = isinstance(unit, StubsUnit) and unit.manager is self
            if definition is None or not (is_unlinked or name in stubs):
                others.append(name)
        if others:
            raise NotRedirectableError(dylib.name, others)

    async def _resolve(self, stub: Stub) -> int:
        """Link the body of a stub, store its address in the pointer, and return it."""
        if isinstance(stub.target, FunctionBody):
            for listener in self._listeners:
                listener.stub_called(stub.target)
        while True:
            target = stub.target
            if isinstance(target, int):
                return target
            definition = await self._find(target)
            # It may have been redirected in the meantime.
            if stub.target is target:
                address = self._bind(stub, definition, target.name)
                await self._store([stub])
                return address

    async def _find(self, body: FunctionBody) -> Definition:
        order = [(body.dylib, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
        names = {body.name: True}
        found = await look_up(self.session, order, names, SymbolState.READY, LookupKind.STATIC)
        return found[body.name]

    def _bind(self, stub: Stub, definition: Definition, name: str) -> int:
        """Have a stub's pointer lead to a body, until that is removed; the body's address."""
        owner, address = _owner_and_address(definition, name)
        if stub.pointer:
            stub.owner = owner
            self._bound.add(owner, stub)
            stub.entry = address
        return address

    def _unbind(self, stub: Stub) -> None:
        if stub.owner is not None:
            self._bound.discard(stub.owner, stub)
            stub.owner = None

    async def _store(self, stubs: Collection[Stub]) -> None:
        """Have the pointers of stubs lead to their entries.

        Once this returns, no store that began before is under way.
        """
        await self._storing.acquire()
        try:
            # Some may have been removed meanwhile, or changed again.
            words = [(stub.pointer, stub.entry) for stub in stubs if stub.pointer]
            if words:
                await self.session.executor.write_words(words)
        finally:
            self._storing.release()

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
        """Deregister the stubs of a tracker, and reset other stubs whose bodies it owns."""
        bound = self._bound.take(key)
        for stub in bound:
            stub.owner, stub.entry = None, stub.trampoline
        self._deregister(self._owned.take(key))
        if self.session.is_connected:
            await self._store(bound)

    def restart_obstacles(self) -> Iterable[str]:
        """The landing: it is an address of the executor."""
        return () if self.landing is None else ("the landing of lazy functions",)

    def handle_restart(self) -> None:
        """Link another reentry, when the next stubs are linked."""
        self._has_reentry = False

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Transfer stubs, and those whose bodies are transferred, to another tracker."""
        self._owned.transfer(destination, source)
        for stub in self._bound.transfer(destination, source):
            stub.owner = destination

    def _deregister(self, stubs: Iterable[Stub]) -> None:
        for stub in stubs:
            self._reentry.deregister(stub.identity)
            self._unbind(stub)
            stub.pointer = 0
            by_name = self._stubs.get(stub.dylib, {})
            if by_name.get(stub.name) is stub:
                del by_name[stub.name]
                if not by_name:
                    del self._stubs[stub.dylib]


def _reentry_for(executor: ExecutorProcessControl) -> tuple[Target, Reentry]:
    try:
        target = target_of_triple(executor.triple)
    except UnsupportedObjectError as error:
        raise SessionError(f"there are no stubs for {executor.triple}") from error
    reentry = reentry_of(target, executor)
    if reentry is None:
        raise SessionError(f"there are no stubs for {executor.triple}")
    return target, reentry


def _owner_and_address(definition: Definition, name: str) -> tuple[ResourceTracker, int]:
    """The tracker and the address of a body.

    Raises:
        ResourceTrackerDefunctError: it was removed.
        UndefinedSymbolError: it has no address.
    """
    owner = definition.tracker.current
    if owner is None:
        raise ResourceTrackerDefunctError(definition.dylib.name)
    address = definition.symbol(name).address
    if not address:
        raise UndefinedSymbolError([name])
    return owner, address


Destination = int | ExecutorSymbolDef | tuple[JITDylib, str]
"""An address, a symbol that was looked up, or a JITDylib and the name of a definition in it."""


class RedirectableSymbolManager:
    """Defines redirectable functions and redirects them.

    Args:
        stubs: creates the stubs.
    """

    def __init__(self, stubs: IndirectStubsManager) -> None:
        self._stubs = stubs

    def create(
        self,
        dylib: JITDylib,
        functions: Mapping[str, Destination],
        *,
        tracker: ResourceTracker | None = None,
        flags: JITSymbolFlags = FUNCTION,
    ) -> None:
        """Define functions that can be redirected.

        Args:
            dylib: the JITDylib.
            functions: the first destination of each function. A definition that is given by name is
                linked when the function is first called.
            tracker: their owner, by default the JITDylib's default tracker.
            flags: flags of the symbols.

        Raises:
            DuplicateDefinitionError: a strong definition of one of the names exists.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.define(self._stubs.unit(_targets(functions), flags), tracker)

    def redirect(self, dylib: JITDylib, functions: Mapping[str, Destination]) -> None:
        """Redirect functions, each in one store; definitions are linked first.

        Raises:
            NotRedirectableError: some names were not defined as redirectable there.
            UndefinedSymbolError: a definition that is given by name does not exist.
            FailedToMaterializeError: it cannot be linked.

        After an error all functions have their old destinations.
        """
        dylib.session.wait(self.redirect_async(dylib, functions))

    async def redirect_async(self, dylib: JITDylib, functions: Mapping[str, Destination]) -> None:
        """The asynchronous form of `redirect`."""
        await self._stubs.redirect(dylib, _targets(functions))


def _targets(functions: Mapping[str, Destination]) -> dict[str, StubTarget]:
    return {name: _target(destination) for name, destination in functions.items()}


def _target(destination: Destination) -> StubTarget:
    if isinstance(destination, int):
        return destination
    if isinstance(destination, ExecutorSymbolDef):
        return destination.address
    return FunctionBody(*destination)
