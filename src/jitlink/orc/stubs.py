"""Stubs: functions whose bodies are elsewhere, or nowhere yet, or change while the program runs.

A stub jumps through a pointer. The pointer leads to the body; as long as there is none it leads
to a trampoline, and a call finds, links and enters the body. The pointers are the only thing
that ever changes: aligned words in memory that is readable and writable, written in one store,
so that a call that is made at the same time goes to the old place or to the new one. Stubs and
trampolines are code like any other: a graph that the layer links.

Any thread may call a stub that has no body yet, several at once too: the session links the body
once, on its own thread, and all of them go on to it. When the body is removed the pointer leads
to the trampoline again, so that the next call looks for another body.

If a body cannot be linked, the session's `error_handler` is told, and the call goes on at the
*landing*:

* an address that the user chose, which is entered as if it were the function; or else,
* if Python itself called the stub (through ctypes), the call returns zero and the
  `LazyCallError` is raised in Python;
* if other native code called it, the C library's ``abort``: there is no value that would be
  right to return to it.

What is removed cannot be called: stubs go with their tracker, as all code does.

Redirectable functions are stubs whose pointers the user changes while code that calls them runs::

    manager = RedirectableSymbolManager(IndirectStubsManager(layer))
    manager.create(main, {"step": (slow, "step")})
    ...
    manager.redirect(main, {"step": (fast, "step")})

To redirect is to store one pointer: a call that is made at the same time runs the old function or
the new one. Calls that are under way stay in the old function, so it must stay in memory for as
long as a thread may be in it.

LLVM differs: stubs hold on to what they lead to, and one kind serves lazy and redirectable
functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jitlink.errors import UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import Linkage, MemProt, Scope, Section, SymbolFlags, SymbolKind
from jitlink.graph.columns import Int64Array
from jitlink.graph.strings import NO_NAME
from jitlink.orc.dylib import Definition, JITDylib
from jitlink.orc.errors import ResourceTrackerDefunctError, SessionError, listed
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
    ResourceManager,
    ResourceTracker,
    SymbolState,
)
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.reentry import Reentry, absolute, reentry_of
from jitlink.targets.base import CodeEdges, Target
from jitlink.targets.registry import target_of_triple

STUBS_SECTION = "$__INDIRECT_STUBS"
POINTERS_SECTION = "$__INDIRECT_POINTERS"
FUNCTION = JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE


class LazyCallError(SessionError):
    """A lazy function was called and could not be linked; the reason is its ``__cause__``.

    Attributes:
        dylib: name of the JITDylib that has the stub.
        name: the function.
    """

    def __init__(self, dylib: str, name: str) -> None:
        super().__init__(f"{name} in {dylib} was called and could not be linked")
        self.dylib, self.name = dylib, name


class NotRedirectableError(SessionError):
    """Functions that were not made redirectable.

    Attributes:
        dylib: name of the JITDylib.
        names: the functions.
    """

    def __init__(self, dylib: str, names: Iterable[str]) -> None:
        self.dylib, self.names = dylib, tuple(sorted(names))
        super().__init__(f"not redirectable in {dylib}: {listed(self.names)}")


class FunctionBody(NamedTuple):
    """A definition that a stub leads to: looked up, and linked, when it is needed."""

    dylib: JITDylib
    name: str


StubTarget = int | FunctionBody


class StubsListener(Protocol):
    """Told what becomes of stubs with bodies, on the session's thread."""

    def stubs_made(self, bodies: Sequence[FunctionBody]) -> None:
        """Stubs that lead to these bodies can be called from now on."""

    def stub_called(self, body: FunctionBody) -> None:
        """A stub was called that did not lead to its body yet."""


class Stub:
    """One stub.

    Attributes:
        manager: what made it.
        dylib: where it is defined.
        name: its name.
        target: where it leads: an address, or a body that a call looks for.
        identity: what its trampoline tells the reentry.
        pointer: address of its pointer, 0 while there is none.
        trampoline: address of its trampoline.
        owner: what owns the body to which the pointer leads, if it leads to one.
    """

    __slots__ = (
        "__weakref__", "dylib", "identity", "manager", "name", "owner", "pointer", "target",
        "trampoline",
    )  # fmt: skip

    def __init__(
        self, manager: IndirectStubsManager, dylib: JITDylib, name: str, target: StubTarget
    ) -> None:
        self.manager = manager
        self.dylib = dylib
        self.name = name
        self.target = target
        self.identity = self.pointer = self.trampoline = 0
        self.owner: ResourceTracker | None = None

    def go_on(self, caller: int) -> int:
        """Where a call goes on that came to the trampoline; `caller` is its return address."""
        return self.manager.go_on(self, caller)


class StubsUnit(MaterializationUnit):
    """The promise of stubs."""

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

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Make the stubs."""
        await self.manager.link_stubs(self.targets, responsibility)


class IndirectStubsManager(ResourceManager):
    """Makes stubs, and says where they lead.

    Args:
        layer: links the stubs, and decides whose session they belong to.
        landing: where a call goes on whose body cannot be linked; by default Python raises
            `LazyCallError` if it made the call, and everything else aborts.
        listeners: told of stubs and of calls.

    Raises:
        SessionError: code of the session's executor cannot call into this process.
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
        self._target, self._reentry = _way_back(session.executor.triple)
        if not isinstance(session.executor, SelfExecutorProcessControl):
            raise SessionError("stubs need an executor that is this process")
        self._pools: dict[ResourceTracker, list[Stub]] = {}
        self._bound: dict[ResourceTracker, set[Stub]] = {}
        self._stubs: dict[JITDylib, dict[str, Stub]] = {}
        word = ctypes.c_uint64 if self._target.pointer_size == 8 else ctypes.c_uint32
        self._word: type[ctypes.c_uint64 | ctypes.c_uint32] = word
        session.run(lambda: session.resource_managers.append(self))

    def unit(
        self, targets: Mapping[str, StubTarget], flags: JITSymbolFlags = FUNCTION
    ) -> StubsUnit:
        """A promise of stubs that lead somewhere, to be defined in a JITDylib."""
        return StubsUnit(self, targets, flags)

    # On the thread that calls a stub

    def go_on(self, stub: Stub, caller: int) -> int:
        """Where the call of a stub without a body goes on."""
        is_python = self._reentry.is_python(caller)
        try:
            return self.session.wait(self._resolve(stub), aside=True)
        except KeyboardInterrupt as interrupt:
            if is_python:
                return self._reentry.raise_in_caller(interrupt)
            # The reentry asks again, because native code cannot be left.
            raise
        except BaseException as error:  # noqa: BLE001 - the call must go on somewhere
            return self._fail(stub, error, is_python=is_python)

    def _fail(self, stub: Stub, cause: BaseException, *, is_python: bool) -> int:
        error = LazyCallError(stub.dylib.name, stub.name)
        error.__cause__ = cause
        self.session.report_error(error)
        if self.landing is not None:
            return self.landing
        return self._reentry.raise_in_caller(error) if is_python else self._reentry.abort

    # On the session's thread

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """The JITDylibs that have stubs: a call may have to link their bodies."""
        return list(self._stubs)

    async def link_stubs(
        self, targets: Mapping[str, StubTarget], responsibility: MaterializationResponsibility
    ) -> None:
        """Link the stubs that a responsibility is for."""
        dylib, symbols = responsibility.dylib, responsibility.symbols
        stubs = [Stub(self, dylib, name, targets[name]) for name in symbols]
        for stub in stubs:
            stub.identity = self._reentry.register(stub)
        self._stubs.setdefault(dylib, {}).update({stub.name: stub for stub in stubs})
        try:
            pool = _Pool(self._target, self._reentry, stubs, symbols)
            await self.layer.emit(responsibility, pool.graph)
            tracker = responsibility.tracker
        except BaseException:
            self._forget(stubs)
            raise
        # Nothing that waits for the stubs runs before this does.
        self._pools.setdefault(tracker, []).extend(stubs)
        for stub, pointer, trampoline in zip(stubs, *pool.addresses(), strict=True):
            stub.pointer, stub.trampoline = pointer, trampoline
            if isinstance(stub.target, int):
                self._store(pointer, stub.target)
        if self._listeners:
            bodies = [each.target for each in stubs if isinstance(each.target, FunctionBody)]
            for listener in self._listeners:
                listener.stubs_made(bodies)

    async def redirect(self, dylib: JITDylib, targets: Mapping[str, StubTarget]) -> None:
        """Let stubs lead elsewhere; bodies are linked first.

        Raises:
            NotRedirectableError: some names are not stubs of this manager.
            UndefinedSymbolError: there is no such body.
            FailedToMaterializeError: a body cannot be linked.
            ResourceTrackerDefunctError: a body was removed while others were linked.

        After an error all stubs lead where they led before.
        """
        self._check_redirectable(dylib, targets)
        found: dict[str, Definition] = {}
        for name, target in targets.items():
            if not isinstance(target, int):
                found[name] = await self._find(target)
        # Whatever can be refused is refused before anything changes; nothing is awaited after it.
        self._check_redirectable(dylib, targets)
        for name, target in targets.items():
            if not isinstance(target, int):
                _destination(found[name], target.name)
        for name, target in targets.items():
            unit = dylib.symbols[name].unit
            if isinstance(unit, StubsUnit):
                unit.targets[name] = target
                continue
            stub = self._stubs[dylib][name]
            self._unbind(stub)
            stub.target = target
            if not isinstance(target, int):
                self._bind(stub, found[name], target.name)
            elif stub.pointer:
                self._store(stub.pointer, target)

    def _check_redirectable(self, dylib: JITDylib, names: Iterable[str]) -> None:
        stubs = self._stubs.get(dylib, {})
        others = []
        for name in names:
            definition = dylib.symbols.get(name)
            unit = definition.unit if definition else None
            is_promised = isinstance(unit, StubsUnit) and unit.manager is self
            if definition is None or not (is_promised or name in stubs):
                others.append(name)
        if others:
            raise NotRedirectableError(dylib.name, others)

    async def _resolve(self, stub: Stub) -> int:
        """Link the body of a stub and let the stub lead there."""
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
                return self._bind(stub, definition, target.name)

    async def _find(self, body: FunctionBody) -> Definition:
        order = [(body.dylib, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
        names = {body.name: True}
        found = await look_up(self.session, order, names, SymbolState.READY, LookupKind.STATIC)
        return found[body.name]

    def _bind(self, stub: Stub, definition: Definition, name: str) -> int:
        """Let a stub lead to a body, as long as that is there; returns its address."""
        owner, address = _destination(definition, name)
        if stub.pointer:
            stub.owner = owner
            self._bound.setdefault(owner, set()).add(stub)
            self._store(stub.pointer, address)
        return address

    def _unbind(self, stub: Stub) -> None:
        if stub.owner is not None:
            self._bound[stub.owner].discard(stub)
            stub.owner = None

    def _store(self, pointer: int, address: int) -> None:
        # ctypes copies a word of known size, which is one store to an aligned address.
        self._word.from_address(pointer).value = address

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
        """Forget the stubs of a tracker, and let stubs of others not lead to its code."""
        for stub in self._bound.pop(key, ()):
            stub.owner = None
            self._store(stub.pointer, stub.trampoline)
        self._forget(self._pools.pop(key, ()))

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Keep under one tracker what was another's."""
        pool = self._pools.pop(source, None)
        if pool:
            self._pools.setdefault(destination, []).extend(pool)
        bound = self._bound.pop(source, None)
        if bound:
            self._bound.setdefault(destination, set()).update(bound)
            for stub in bound:
                stub.owner = destination

    def _forget(self, stubs: Iterable[Stub]) -> None:
        for stub in stubs:
            self._reentry.forget(stub.identity)
            self._unbind(stub)
            stub.pointer = 0
            held = self._stubs.get(stub.dylib, {})
            if held.get(stub.name) is stub:
                del held[stub.name]
                if not held:
                    del self._stubs[stub.dylib]


def _way_back(triple: str) -> tuple[Target, Reentry]:
    try:
        target = target_of_triple(triple)
    except UnsupportedObjectError as error:
        raise SessionError(f"there are no stubs for {triple}") from error
    reentry = reentry_of(target)
    if reentry is None:
        raise SessionError(f"there are no stubs for {triple}")
    return target, reentry


class _Pool:
    """A graph of stubs, each with its pointer, its trampoline and the word that says which."""

    def __init__(
        self,
        target: Target,
        reentry: Reentry,
        stubs: Sequence[Stub],
        symbols: Mapping[str, JITSymbolFlags],
    ) -> None:
        self.graph = graph = target.new_graph("<stubs>")
        self._count = count = len(stubs)
        code = reentry.code
        got_plt, alignment = code.got_plt, code.alignment
        text = graph.create_section(STUBS_SECTION, MemProt.READ | MemProt.EXEC)
        data = graph.create_section(POINTERS_SECTION, MemProt.READ | MemProt.WRITE)
        words = [stub.identity.to_bytes(graph.pointer_size, graph.endianness) for stub in stubs]
        zeros = got_plt.pointer_content * count
        self._pointers, pointers = self._add(data, zeros, got_plt.pointer_size)
        self._trampolines, trampolines = self._add(text, code.trampoline * count, alignment)
        _, identities = self._add(data, b"".join(words), graph.pointer_size)
        stub_blocks, functions = self._add(text, got_plt.stub * count, got_plt.stub_alignment)
        self._name(functions, symbols)
        back = absolute(graph, "reentry", reentry.address).row
        self._connect(self._pointers, ((got_plt.pointer, 0, 0),), trampolines)
        self._connect(stub_blocks, got_plt.stub_edges, pointers)
        self._connect(self._trampolines, code.identity_edges, identities)
        self._connect(self._trampolines, code.reentry_edges, back)

    def _add(
        self, section: Section, content: bytes, alignment: int
    ) -> tuple[Int64Array, Int64Array]:
        """Add blocks of equal size, each with a symbol; rows (int64) of both."""
        graph, count = self.graph, self._count
        size = len(content) // count
        places = graph.contents.add(content) + size * np.arange(count)
        first = graph.block_table.extend(
            count, section=section.ordinal, content=places, size=size, alignment=alignment
        )
        blocks = np.arange(first, first + count)
        first = graph.symbol_table.extend(
            count, name=NO_NAME, kind=SymbolKind.DEFINED, block=blocks, size=size, scope=Scope.LOCAL
        )
        return blocks, np.arange(first, first + count)

    def _name(self, rows: Int64Array, symbols: Mapping[str, JITSymbolFlags]) -> None:
        table = self.graph.symbol_table
        table.name[rows] = self.graph.strings.add_many(symbols)
        flags = np.fromiter(map(int, symbols.values()), np.int64, self._count)
        exported = flags & int(JITSymbolFlags.EXPORTED) != 0
        weak = flags & int(JITSymbolFlags.WEAK | JITSymbolFlags.COMMON) != 0
        table.scope[rows] = np.where(exported, int(Scope.DEFAULT), int(Scope.HIDDEN))
        table.linkage[rows] = np.where(weak, int(Linkage.WEAK), int(Linkage.STRONG))
        table.flags[rows] = int(SymbolFlags.LIVE | SymbolFlags.CALLABLE)

    def _connect(
        self,
        blocks: Int64Array,
        edges: CodeEdges,
        targets: Int64Array | int,
    ) -> None:
        for kind, offset, addend in edges:
            self.graph.edge_table.extend(
                self._count, block=blocks, offset=offset, kind=kind, target=targets, addend=addend
            )

    def addresses(self) -> tuple[list[int], list[int]]:
        """Addresses of the pointers and of the trampolines, once the graph is linked."""
        addresses = self.graph.block_table.address
        return addresses[self._pointers].tolist(), addresses[self._trampolines].tolist()


def _destination(definition: Definition, name: str) -> tuple[ResourceTracker, int]:
    """The owner and the address of a body, which must be there."""
    owner = definition.tracker.current
    if owner is None:
        raise ResourceTrackerDefunctError(definition.dylib.name)
    address = definition.symbol(name).address
    if not address:
        raise UndefinedSymbolError([name])
    return owner, address


Destination = int | ExecutorSymbolDef | tuple[JITDylib, str]
"""An address, a symbol that was looked up, or a definition by its name in a JITDylib."""


class RedirectableSymbolManager:
    """Defines redirectable functions and redirects them.

    Args:
        stubs: makes the stubs.
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
            dylib: where to.
            functions: where each of them leads at first. A definition that is named is linked
                when the function is first called.
            tracker: what owns them, by default the JITDylib's default tracker.
            flags: flags of the symbols.

        Raises:
            DuplicateDefinitionError: a strong definition of one of the names exists.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.define(self._stubs.unit(_targets(functions), flags), tracker)

    def redirect(self, dylib: JITDylib, functions: Mapping[str, Destination]) -> None:
        """Let functions lead elsewhere, each in one step; definitions are linked first.

        Raises:
            NotRedirectableError: some names were not made redirectable there.
            UndefinedSymbolError: a definition that is named does not exist.
            FailedToMaterializeError: it cannot be linked.

        After an error all functions lead where they led before.
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
