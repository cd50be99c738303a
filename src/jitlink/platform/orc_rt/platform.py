"""ORCRuntimePlatform: a platform with LLVM's ORC runtime.

::

    with LLJIT(platform=orc_runtime("/usr/lib/.../liborc_rt-x86_64.a")) as jit:
        jit.add_object("program.o")
        assert jit.platform is not None
        status = jit.platform.run_main(jit.main, jit.lookup("main"), ["program"])

For objects that rely on the entry points of that runtime: ``__orc_rt_jit_dlopen`` and its kin. The
archive is linked into the process. Handles, frames and initialisers are registered with it; it
calls back when JITDylibs are opened and for its ``dlsym``. What it cannot do, this platform cannot:

- Finalisers (``.fini_array``, ``.dtors``) do not run, nor what was registered with ``atexit``; only
  handlers of ``__cxa_atexit`` do, when their JITDylib is closed.
- Closing a JITDylib does not close its dependencies, which are never closed.
- Initialisers get no arguments, and their priorities count among objects that are linked together.
- If a program calls ``exit``, none of its handlers run.
- Thread-local variables: `jitlink.platform.orc_rt.tls`.

Specification: `jitlink.platform.orc_rt.protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from jitlink.errors import ExecutorError, InputError, UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor.callback_errors import callback_errors
from jitlink.graph import AllocActionPair, LinkGraph, MemProt, Scope, Symbol
from jitlink.inputs import Input
from jitlink.orc.aliases import ReExports
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import (
    FailedToMaterializeError,
    SessionEndedError,
    SessionError,
    listed,
    raise_first,
)
from jitlink.orc.generators import DynamicLibraryGenerator, StaticLibraryGenerator
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    ResourceManager,
    ResourceTracker,
)
from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.object_unit import GraphUnit
from jitlink.orc.session import ExecutionSession
from jitlink.platform import at_exit
from jitlink.platform.base import Platform, PlatformCreator, ProviderGenerator
from jitlink.platform.dispatch import Dispatcher, wrap_with_sps
from jitlink.platform.orc_rt import protocol
from jitlink.platform.orc_rt import tls as runtime_tls
from jitlink.platform.orc_rt.actions import RuntimeActions
from jitlink.platform.orc_rt.plugin import ORCRuntimePlugin
from jitlink.platform.orc_rt.protocol import RuntimeFunction
from jitlink.platform.orc_rt.tls_images import RuntimeTLS
from jitlink.platform.state import DylibState, dependencies_first
from jitlink.runtime import Runtime, runtime_of
from jitlink.runtime.remote_callbacks import remote_callbacks_of
from jitlink.targets.registry import target_of_triple
from jitlink.tasks import in_thread

T = TypeVar("T")
_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS
_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY
_ABSOLUTE = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE
_COMPLETE = "__orc_rt_elfnix_complete_bootstrap"


class IncompleteRuntimeError(InputError):
    """An archive that is not LLVM 22's ORC runtime: it lacks functions.

    Attributes:
        missing: the functions.
    """

    def __init__(self, missing: Sequence[str], *, file: str) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"this is not the ORC runtime of LLVM 22 for ELF: it lacks {listed(self.missing)}",
            file=file,
        )


def orc_runtime(archive: Input) -> PlatformCreator:
    """The creator of an `ORCRuntimePlatform` with this archive, for `LLJIT`.

    Args:
        archive: path or bytes of ``liborc_rt-x86_64.a``.
    """

    def create(
        session: ExecutionSession, layer: ObjectLinkingLayer, process_symbols: JITDylib | None
    ) -> Platform:
        return ORCRuntimePlatform(session, layer, process_symbols, archive)

    return create


class ORCRuntimePlatform(Platform):
    """A platform with LLVM's runtime.

    Args:
        session: the session, whose executor is this process.
        layer: links the runtime, and what is added to the JITDylibs.
        process_symbols: the JITDylib of the process's symbols, which the platform's own precedes
            in link orders; None if linked code is not to see them. The runtime does.
        runtime_archive: path or bytes of ``liborc_rt-x86_64.a``; the file must not be changed
            while the session lives.

    Attributes:
        tls: the initialisation images of thread-local variables.

    Raises:
        UnsupportedObjectError: the executor is not x86-64 Linux.
        InputError: the archive cannot be read.
        IncompleteRuntimeError: it is not LLVM 22's runtime.
        ExecutorError: the executor dispatches no calls.
        JITLinkError: the runtime cannot be linked, or does not start.
        SessionError: the session has a platform already.
    """

    def __init__(
        self,
        session: ExecutionSession,
        layer: ObjectLinkingLayer,
        process_symbols: JITDylib | None,
        runtime_archive: Input,
    ) -> None:
        archive = _open(session, layer, runtime_archive)
        self._actions = RuntimeActions()
        self._dispatcher = Dispatcher()
        # The innermost one; accessed with the lock, and by the handler that the runtime calls then.
        self._opening: _Opening | None = None
        super().__init__(session, layer, process_symbols)
        self.tls = RuntimeTLS(layer, self.dylib, self._actions)
        runtime = session.wait(self._own_runtime())
        self._plugin = ORCRuntimePlugin(self, self._actions, self.tls, runtime)
        self._renewal = _HandleRenewal(self)
        layer.add_plugin(self._plugin)
        # Notified last, when the memory of a handle that is to be renewed is deallocated.
        session.run(lambda: session.resource_managers.insert(0, self._renewal))
        try:
            self._link_against_process()
            self.dylib.add_generator(archive)
            function, context = self._dispatcher.connect(session.executor, runtime)
            session.wait(self._start(function, context))
        except BaseException:
            self._give_up()
            raise

    # Start

    def _give_up(self) -> None:
        """Undo what was added to the session."""
        at_exit.forget(self)
        self.session.remove_jitdylib(self.dylib)
        self.layer.remove_plugin(self._plugin)
        self.session.deregister_resource_manager(self._renewal)
        self.session.deregister_resource_manager(self)

    async def _own_runtime(self) -> Runtime:
        """Jitlink's runtime, which registers frames, and dispatches or numbers calls."""
        executor = self.session.executor
        if executor.is_this_process:
            return await runtime_of(executor)
        return (await remote_callbacks_of(executor)).runtime

    def _link_against_process(self) -> None:
        process = self._process_symbols
        if process is None:
            process = self.session.create_jitdylib("<process symbols of the runtime>")
            process.add_generator(DynamicLibraryGenerator.for_process(self.session))
            process.add_generator(ProviderGenerator())
        self.dylib.add_to_link_order(process)

    async def _start(self, function: int, context: int) -> None:
        """Link the runtime, bootstrap it, and register the platform's own JITDylib."""
        dylib = self.dylib
        dispatch = {protocol.DISPATCH: function, protocol.DISPATCH_CONTEXT: context}
        absolute = {name: ExecutorSymbolDef(value, _ABSOLUTE) for name, value in dispatch.items()}
        dylib.add_unit(AbsoluteSymbols(absolute))
        dylib.add_unit(ReExports(protocol.ALIASES))
        self._create_state(dylib)
        state = self.states[dylib]
        handle = await self.handle_of(state)
        names = [function.name for function in protocol.FUNCTIONS]
        handlers = {
            protocol.PUSH_INITIALIZERS_TAG: wrap_with_sps(
                protocol.PUSH_INITIALIZERS, self._push_initializers
            ),
            protocol.SYMBOL_LOOKUP_TAG: wrap_with_sps(protocol.SYMBOL_LOOKUP, self._look_up),
        }
        order = [(dylib, _ALL)]
        found = await self.session.lookup_async(order, [*names, *handlers])
        self._actions.addresses = {name: found[name].address for name in names}
        self._dispatcher.handle({found[tag].address: h for tag, h in handlers.items()})
        actions = [self._actions.bootstrap(handle), self._actions.jitdylib(dylib.name, handle)]
        bootstrap = self._bootstrap_graph(actions)
        tls_access = runtime_tls.aligned_call(self._new_graph("<thread-local variables>"))
        for graph in (bootstrap, tls_access):
            dylib.add_unit(GraphUnit(self.layer, graph))
        await self.session.lookup_async(order, _COMPLETE)

    def _new_graph(self, name: str) -> LinkGraph:
        return target_of_triple(self.session.executor.triple).new_graph(name)

    def _bootstrap_graph(self, actions: Sequence[AllocActionPair]) -> LinkGraph:
        """A graph that is linked for its allocation actions."""
        graph = self._new_graph("<start of the runtime>")
        section = graph.create_section("__orc_rt_cplt_bs", MemProt.READ)
        block = graph.create_zero_fill_block(section, 1, 0, 1)
        graph.add_defined_symbol(block, 0, _COMPLETE, 1, scope=Scope.HIDDEN)
        graph.alloc_actions += actions
        return graph

    # JITDylibs and their handles

    async def handle_actions(self, dylib: JITDylib, symbol: Symbol) -> Sequence[AllocActionPair]:
        """Allocation actions that register a JITDylib with the runtime and deregister it."""
        # The handle of the platform's own is linked before the runtime, and registered with it.
        if dylib is self.dylib:
            return []
        return [self._actions.jitdylib(dylib.name, symbol)]

    def setup_jitdylib(self, dylib: JITDylib) -> None:
        """Set up a JITDylib that has no definitions yet; nothing if it is set up already.

        Raises:
            JITDylibDefunctError: it was removed.
        """
        super().setup_jitdylib(dylib)
        # The runtime opens only JITDylibs that are registered.
        self.session.wait(self.handle_of(self.states[dylib]))

    # Handlers of the runtime's calls; on the thread that called the runtime, or one of their own

    def _push_initializers(self, handle: int) -> list[tuple[int, list[int]]]:
        dylib = self.state_of_handle(handle).dylib
        # The runtime does not say for which call it asks. It asks once, before any code runs.
        opening = self._opening
        if opening is None or opening.dylib is not dylib or opening.is_asked:
            return self.session.wait(self._dependencies(dylib))
        opening.is_asked = True
        try:
            return self.session.wait(self._dependencies(dylib))
        except Exception as error:
            opening.failure = error
            raise

    async def _dependencies(self, dylib: JITDylib) -> list[tuple[int, list[int]]]:
        """Link all that has initialisers; returns handles, as `protocol.PUSH_INITIALIZERS`."""
        await self.link_initializers(dylib)
        order = dependencies_first([dylib], self.states)
        for state in order:
            await self.handle_of(state)
        return [
            (
                state.handle,
                [
                    self.states[other].handle
                    for other, _ in state.dylib.link_order
                    if other is not state.dylib and other in self.states
                ],
            )
            for state in order
        ]

    def _look_up(self, handle: int, name: str) -> int:
        order = [(self.state_of_handle(handle).dylib, _EXPORTED)]
        try:
            return self.session.lookup(order, name, kind=LookupKind.DLSYM)[name].address
        except FailedToMaterializeError:
            raise
        except UndefinedSymbolError as error:
            # The same text as LLVM's: programs print what ``dlerror`` returns.
            raise SessionError(f"Symbols not found: [ {', '.join(error.names)} ]") from error

    # Opening and closing

    def initialize(self, dylib: JITDylib, argv: Sequence[str] | None = None) -> None:  # noqa: ARG002
        """Open a JITDylib, and run the initialisers that have not run, on the calling thread.

        Those of the JITDylibs in its link order run first. If it is open, only those of what was
        added or linked since run.

        Args:
            dylib: the JITDylib.
            argv: not used: this runtime gives initialisers no arguments.

        Raises:
            JITLinkError: something that has initialisers could not be linked; none was run.
            SessionError: the JITDylib was not set up.
        """
        with self._lock, callback_errors():
            state = self.session.run(lambda: self.state_of(dylib))
            handle = self._open(dylib, protocol.DLOPEN, dylib.name, protocol.RTLD_LAZY)
            if not handle:
                raise self._failure(f"JITDylib {dylib.name} cannot be opened")
            if state.is_held:
                # Opened once more, which has run new initialisers, also those of its
                # dependencies; ``dlupdate`` would not do that.
                self._dlclose(state)
            state.hold()

    def deinitialize(self, dylib: JITDylib) -> None:
        """Close a JITDylib that `initialize` has opened, on the calling thread.

        Its handlers of ``__cxa_atexit`` run, the last one first, unless something else holds it
        open. Nothing happens if it is not open.

        Raises:
            SessionError: the JITDylib was not set up.
            ExecutorError: the runtime cannot close it.
        """
        with self._lock, callback_errors():
            state = self.session.run(lambda: self.state_of(dylib))
            if state.is_held:
                state.release_hold()
                self._dlclose(state)

    def _dlclose(self, state: DylibState) -> None:
        if self._call(protocol.DLCLOSE, state.handle):
            raise self._failure(f"JITDylib {state.dylib.name} cannot be closed")

    def close_all(self) -> None:
        """Close all open JITDylibs, the last one first; nothing if the session has ended."""
        errors: list[Exception] = []
        with self._lock:
            try:
                states = self.session.run(lambda: list(self.states.values()))
            except SessionEndedError:
                # The end of the session has closed all JITDylibs.
                return
            for state in reversed(states):
                try:
                    self.deinitialize(state.dylib)
                except Exception as error:  # noqa: BLE001 - raised when all are closed
                    errors.append(error)
        raise_first(errors)

    def run_program(self, dylib: JITDylib, entry: str, argv: Sequence[str]) -> int:
        """Have the runtime open a JITDylib, call a function of it as ``main``, and close it.

        Args:
            dylib: the program.
            entry: the linker's name of the function, which the program exports.
            argv: its arguments, the program's name first.

        Returns:
            What the function returned.

        Raises:
            UndefinedSymbolError: the program has no such function.
            JITLinkError: something could not be linked; nothing was run.
        """
        self.session.lookup([(dylib, _EXPORTED)], entry, kind=LookupKind.DLSYM)
        with self._lock, callback_errors():
            return self._open(dylib, protocol.RUN_PROGRAM, dylib.name, entry, list(argv))

    def _open(self, dylib: JITDylib, function: RuntimeFunction[T], *arguments: object) -> T:
        """Call a function of the runtime that opens a JITDylib; with the lock.

        Raises:
            JITLinkError: something that has initialisers could not be linked.
        """
        opening = _Opening(dylib)
        outer, self._opening = self._opening, opening
        try:
            value = self._call(function, *arguments)
        finally:
            self._opening = outer
        if opening.failure is not None:
            raise opening.failure
        return value

    def _call(self, function: RuntimeFunction[T], *arguments: object) -> T:
        """Call a function of the runtime that may run linked code."""
        name, executor = function.name, self.session.executor
        address = self._actions.addresses[name]
        call = executor.call_function(name, address, function.signature, *arguments)
        value: T = self.drive(call)
        return value

    def _failure(self, message: str) -> ExecutorError:
        """The error of the last call on this thread."""
        return ExecutorError(f"{message}: {self._call(protocol.DLERROR)}")

    # Removal; on the driver thread

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
        """Close a JITDylib that is removed, on a thread of its own.

        Before the runtime itself is removed, all JITDylibs are.
        """
        if dylib.is_open:
            return
        if dylib is self.dylib:
            for other in [registered for registered in self.states if registered is not dylib]:
                await self.session.remove_jitdylib_async(other)
            await self.tls.delete_key()
            return
        state = self.states.get(dylib)
        if state is not None and state.is_held:
            state.release_hold()
            await in_thread(lambda: self._dlclose(state))

    async def renew_handle(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Link another handle for a JITDylib that was cleared."""
        state = self.states.get(dylib)
        if state is None or key is not state.tracker or not dylib.is_open:
            return
        self.reset_handle(state)
        if not self.session.is_ending:
            await self.handle_of(state)


class _Opening:
    """A call of the runtime that opens a JITDylib.

    Attributes:
        dylib: the JITDylib.
        is_asked: whether the runtime has asked for its initialisers.
        failure: why they could not be linked, if that is so.
    """

    def __init__(self, dylib: JITDylib) -> None:
        self.dylib = dylib
        self.is_asked = False
        self.failure: Exception | None = None


class _HandleRenewal(ResourceManager):
    """Renews handles once the memory that was held under a key is deallocated."""

    def __init__(self, platform: ORCRuntimePlatform) -> None:
        self._platform = platform

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        await self._platform.renew_handle(dylib, key)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Nothing: it holds no resources."""


def _open(
    session: ExecutionSession, layer: ObjectLinkingLayer, source: Input
) -> StaticLibraryGenerator:
    """The generator of the archive, which must be a runtime for the executor."""
    executor, archive = session.executor, StaticLibraryGenerator(layer, source)
    architecture, _, system = executor.triple.partition("-")
    if architecture != "x86_64" or "linux" not in system:
        message = f"LLVM's ORC runtime is used for x86-64 Linux, not for {executor.triple}"
        raise UnsupportedObjectError(message, file=archive.name)
    missing = archive.undefined_among(protocol.REQUIRED)
    if missing:
        raise IncompleteRuntimeError(missing, file=archive.name)
    return archive
