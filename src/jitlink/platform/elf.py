"""ELFPlatform: what an ELF dynamic linker does for a process, for the JITDylibs of a session.

::

    platform = ELFPlatform(session, layer, process_symbols)
    platform.setup_jitdylib(main)
    layer.add_object(main, "program.o")
    platform.initialize(main)
    ...
    platform.deinitialize(main)
    platform.close()

- Objects with initialisers are linked when their JITDylib is initialised, looked up or not. The
  initialisers run on the calling thread, in the order of a static link, after those of the
  JITDylibs in its link order.
- Exit handlers and finalisers run when a JITDylib is closed, when the process exits (those that may
  call Python before the interpreter is finalised), or, those of code that is removed, before its
  memory is deallocated.
- Exceptions and other unwinding pass through linked code, from the moment that it can run.
- ``dlopen`` and its kin, called by linked code, open the session's JITDylibs.

Linked code sees the functions for this through a JITDylib of the platform's own, ``<platform>``,
which precedes the process in link orders. What is not used is not linked.

LLVM differs: there, finalisers do not run, priorities count within one object, and closing a
JITDylib does not close its dependencies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jitlink.errors import ExecutorError, JITLinkError, UnsupportedObjectError
from jitlink.executor import ExecutorProcessControl, PlacedArguments
from jitlink.graph import AllocActionPair, LinkGraph, Symbol, WrapperCall
from jitlink.memory import JITLinkMemoryManager
from jitlink.memory.tls import TLSRegistry
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionEndedError, raise_first
from jitlink.orc.interface import (
    DefinitionGenerator,
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    ResourceTracker,
)
from jitlink.orc.link_orders import walk_link_orders
from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.passes.initializers import ArrayKind, FunctionArray, in_order
from jitlink.platform.base import DSO_HANDLE, HANDLE_SECTION, Platform
from jitlink.platform.dlfcn import DynamicLoading
from jitlink.platform.plugin import PlatformPlugin
from jitlink.platform.state import DylibState, dependencies_first, unlinked_initializers
from jitlink.runtime import (
    EXPORTS,
    PER_DYLIB_FUNCTIONS,
    Runtime,
    has_runtime,
    linked_runtime,
    runtime_of,
)
from jitlink.sps import (
    BOOL,
    ERROR,
    EXECUTOR_ADDR,
    EXECUTOR_ADDR_RANGE,
    STRING,
    UINT64,
    ExecutorAddrRange,
    WrapperSignature,
)
from jitlink.sps import Sequence as SPSSequence
from jitlink.sps.types import Tuple
from jitlink.targets.elf_linker_defined import define_dso_handle
from jitlink.tasks import in_thread

_REGISTER = WrapperSignature(ERROR, EXECUTOR_ADDR, STRING, EXECUTOR_ADDR, EXECUTOR_ADDR)
_DEREGISTER = WrapperSignature(ERROR, EXECUTOR_ADDR)
_ARRAY = Tuple(EXECUTOR_ADDR, EXECUTOR_ADDR, BOOL)
_ARRAYS = SPSSequence(_ARRAY)
_INITIALIZE = WrapperSignature(ERROR, EXECUTOR_ADDR, _ARRAYS, _ARRAYS, UINT64, BOOL)
_SET_ARGUMENTS = WrapperSignature(ERROR, UINT64, EXECUTOR_ADDR, EXECUTOR_ADDR)
_FINALIZE = WrapperSignature(ERROR, SPSSequence(EXECUTOR_ADDR), BOOL)
_FINALIZE_MEMORY = WrapperSignature(ERROR, SPSSequence(EXECUTOR_ADDR_RANGE))
_EXPORT_FLAGS = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE | JITSymbolFlags.CALLABLE


class InitializerRun(NamedTuple):
    """Initialisers to run, and the finalisers to record with them.

    Attributes:
        handle: handle of their JITDylib.
        is_program: whether they are those of a program, whose dependencies have been initialised.
    """

    handle: int
    initializers: Sequence[FunctionArray]
    finalizers: Sequence[FunctionArray]
    is_program: bool = False


def _provide_tls(executor: ExecutorProcessControl, memory: JITLinkMemoryManager) -> None:
    """Give a memory manager of another process thread-local storage, if it has none."""
    if memory.tls is None and not executor.is_this_process:
        # Imported on use: memory of this process has it.
        from jitlink.runtime.tls_loader import RuntimeTLSLoader  # noqa: PLC0415

        memory.tls = TLSRegistry(RuntimeTLSLoader(executor))


class ELFPlatform(Platform):
    """A platform with jitlink's own runtime.

    Raises:
        UnsupportedObjectError: there is no runtime for the executor's target.
        SessionError: the session has a platform already.
    """

    per_dylib_functions = PER_DYLIB_FUNCTIONS
    has_allocation_functions = True

    def __init__(
        self,
        session: ExecutionSession,
        layer: ObjectLinkingLayer,
        process_symbols: JITDylib | None = None,
    ) -> None:
        self.check(session.executor)
        # Whether linked code may have registered handlers or finalisers with the runtime:
        # `handle_action` and `exports` give it the means. If not, removal need not ask the runtime.
        self._has_registrations = False
        # In order of initialisation.
        self._initialized: dict[JITDylib, None] = {}
        # Those that `initialize` holds open, with the arguments: for a restart of the executor.
        self._held: dict[JITDylib, Sequence[str] | None] = {}
        self._loading = DynamicLoading(self)
        _provide_tls(session.executor, layer.memory)
        super().__init__(session, layer, process_symbols)
        self.dylib.add_generator(self.create_generator())
        self._plugin = self.create_plugin()
        layer.add_plugin(self._plugin)

    def create_generator(self) -> DefinitionGenerator:
        """What generates the functions that take the place of the process's."""
        return RuntimeGenerator(self)

    def create_plugin(self) -> PlatformPlugin:
        """What takes part in links."""
        return PlatformPlugin(self)

    # Set-up

    @staticmethod
    def check(executor: ExecutorProcessControl) -> None:
        """Check that the platform supports an executor.

        Raises:
            UnsupportedObjectError: it does not.
        """
        if not has_runtime(executor.triple):
            message = f"there is no runtime for {executor.triple}"
            raise UnsupportedObjectError(message, file="<runtime>")

    async def runtime(self) -> Runtime:
        """The executor's runtime, linked now if it has not been.

        Raises:
            JITLinkError: it cannot be linked.
        """
        return await runtime_of(self.session.executor)

    async def handle_actions(self, dylib: JITDylib, symbol: Symbol) -> Sequence[AllocActionPair]:
        """Allocation actions that register a JITDylib with the runtime and deregister it."""
        return [self.handle_action(await self.runtime(), dylib, symbol)]

    def handle_action(self, runtime: Runtime, dylib: JITDylib, symbol: Symbol) -> AllocActionPair:
        """The same as one pair, with the runtime that is linked already."""
        self._has_registrations = True
        dispatch, context = self._loading.connect(runtime)

        def registration() -> bytes:
            return _REGISTER.serialize_arguments(symbol.address, dylib.name, dispatch, context)

        def deregistration() -> bytes:
            return _DEREGISTER.serialize_arguments(symbol.address)

        addresses = runtime.addresses
        register = WrapperCall(addresses["__jitlink_register_dylib"], registration)
        deregister = WrapperCall(addresses["__jitlink_deregister_dylib"], deregistration)
        return AllocActionPair(register, deregister)

    async def define_handle(self, dylib: JITDylib, graph: LinkGraph) -> Symbol | None:
        """Define the handle of a JITDylib in a graph that refers to it, if that is possible."""
        rows, names = graph.external_names()
        # What is linked after the graph refers to the handle too, and cannot see this one.
        if DSO_HANDLE not in names:
            return await self.register_handle_of(dylib, graph)
        if not self.per_dylib_functions.keys().isdisjoint(names):
            return None
        symbol = Symbol(graph, int(rows[names.index(DSO_HANDLE)]))
        define_dso_handle(graph, symbol, DSO_HANDLE)
        symbol.is_live = True
        graph.alloc_actions += await self.handle_actions(dylib, symbol)
        return symbol

    async def register_handle_of(self, dylib: JITDylib, graph: LinkGraph) -> Symbol | None:
        """Register a JITDylib under the handle that a graph of the program defines, if it does.

        Objects of compilers that are made for programs, such as crtbeginS.o, define it.

        Returns:
            The handle's symbol.
        """
        symbol = graph.find_defined_symbol_by_name(DSO_HANDLE)
        if symbol is None or symbol.block.section.name == HANDLE_SECTION:
            return None
        symbol.is_live = True
        graph.alloc_actions += await self.handle_actions(dylib, symbol)
        return symbol

    async def exports(self) -> Mapping[str, int]:
        """Addresses of the runtime's functions for linked code, by the names that it uses."""
        runtime = await self.runtime()
        self._has_registrations = True
        return runtime.exports

    # Opening

    def initialize(self, dylib: JITDylib, argv: Sequence[str] | None = None) -> None:
        """Open a JITDylib, and run the initialisers that have not run, on the calling thread.

        Those of the JITDylibs in its link order run first. If it is open, only those of what was
        added or linked since run.

        Args:
            dylib: the JITDylib.
            argv: the arguments that initialisers get, by default the process's own. Those of a
                program that `run_main` is running take precedence.

        Raises:
            JITLinkError: something that has initialisers could not be linked; none was run.
            SessionError: the JITDylib was not set up.
        """
        self.session.check_executor()
        self._open(dylib, argv, DylibState.hold)
        if dylib.is_open:
            self._held[dylib] = argv

    def initialize_at_once(self, dylib: JITDylib) -> bool:
        """`initialize` if there is nothing to link and nothing to run; on the driver thread."""
        state = self.state_of(dylib)
        order = dependencies_first([dylib], self.states)
        if any(unlinked_initializers(other.dylib) or other.has_pending_arrays for other in order):
            return False
        state.hold()
        self._held[dylib] = None
        for opened in order:
            self._mark_initialized(opened)
        return True

    def _mark_initialized(self, state: DylibState) -> None:
        if not state.is_initialized:
            state.is_initialized = True
            self._initialized[state.dylib] = None

    def _initialize_program(self, dylib: JITDylib, argv: Sequence[str]) -> None:
        self._open(dylib, argv, DylibState.hold, is_program=True)

    def _open(
        self,
        dylib: JITDylib,
        argv: Sequence[str] | None,
        reference: Callable[[DylibState], None],
        *,
        is_program: bool = False,
    ) -> int:
        """Open a JITDylib; returns its handle, which is 0 if nothing needed one.

        Args:
            dylib: the JITDylib.
            argv: the arguments that initialisers get; None for the process's own.
            reference: counts the reference, once all is linked; on the driver thread.
            is_program: whether ``main`` is about to run.
        """
        with self._lock:
            runs = self.session.wait(self._prepare(dylib, reference, is_program))
            if runs:
                placed = self._program_arguments or self._place_arguments(argv)
                self.set_arguments(placed)
                self.session.settle()
                self._number_calls()
                with self._lock.running_code():
                    for run in runs:
                        self.run_initializers(run)
        return self.states[dylib].handle

    def dlopen(self, dylib: JITDylib) -> int:
        """Open a JITDylib once more, on the calling thread; returns its handle.

        Raises:
            JITLinkError: something that has initialisers could not be linked; none was run.
        """

        async def link_handle() -> None:
            await self.handle_of(self.state_of(dylib))

        self.session.wait(link_handle())
        return self._open(dylib, None, DylibState.add_dl_ref)

    def dlupdate(self, dylib: JITDylib) -> None:
        """Run the initialisers of an open JITDylib that have not run, on the calling thread."""
        self._open(dylib, None, lambda _state: None)

    def dlclose(self, dylib: JITDylib) -> None:
        """Take back one `dlopen`, on the calling thread.

        Raises:
            SessionError: there is none left to take back.
        """
        self._close(dylib, DylibState.release_dl_ref, is_exit=False)

    def _place_arguments(self, argv: Sequence[str] | None) -> PlacedArguments:
        executor = self.session.executor
        if argv is None:
            argv = sys.orig_argv if executor.is_this_process else ()
        return self.drive(executor.place_arguments(argv))

    def set_arguments(self, placed: PlacedArguments) -> None:
        """Set what initialisers get as arguments."""
        self._call("__jitlink_set_arguments", _SET_ARGUMENTS.serialize_arguments(*placed))

    def run_initializers(self, run: InitializerRun) -> None:
        """Run initialisers, and record finalisers, on the calling thread."""
        lists = [
            [(array.start, array.end, array.backwards) for array in arrays]
            for arrays in (run.initializers, run.finalizers)
        ]
        with_priority = sum(array.has_priority for array in run.finalizers)
        arguments = _INITIALIZE.serialize_arguments(
            run.handle, *lists, with_priority, run.is_program
        )
        self._call("__jitlink_initialize", arguments)

    async def _prepare(
        self, dylib: JITDylib, reference: Callable[[DylibState], None], is_program: bool
    ) -> list[InitializerRun]:
        """Link all that has initialisers; returns what is to be run, in order."""
        state = self.state_of(dylib)
        await self.link_initializers(dylib)
        reference(state)
        order = dependencies_first([dylib], self.states)
        preinit, rest = [], []
        for opened in order:
            arrays = opened.take_pending_arrays()
            self._mark_initialized(opened)
            is_main = is_program and opened is state
            if not arrays and not is_main:
                continue
            preinitializers, initializers, finalizers = (in_order(arrays, k) for k in ArrayKind)
            handle = await self.handle_of(opened)
            if preinitializers:
                preinit.append(InitializerRun(handle, preinitializers, ()))
            rest.append(InitializerRun(handle, initializers, finalizers, is_main))
        return preinit + rest

    # Closing

    def deinitialize(self, dylib: JITDylib) -> None:
        """Close a JITDylib that `initialize` has opened, on the calling thread.

        Its exit handlers and then its finalisers run, the last one first, unless it is
        referenced: by ``dlopen``, or by the link order of another JITDylib that is open. So do
        those of its dependencies that are not referenced any more. Nothing happens if it is not
        open.

        Raises:
            SessionError: the JITDylib was not set up.
        """
        self._close(dylib, DylibState.release_hold, is_exit=True)

    def _close(
        self, dylib: JITDylib, release: Callable[[DylibState], None], *, is_exit: bool
    ) -> None:
        def choose() -> list[int]:
            release(self.state_of(dylib))
            if not self.states[dylib].is_held:
                self._held.pop(dylib, None)
            return self._close_unreferenced()

        with self._lock:
            self._finalize(self.session.run(choose), is_exit=is_exit)

    def _close_unreferenced(self) -> list[int]:
        """`_mark_closed` for the JITDylibs that are not referenced any more, the last one first."""
        roots = [dylib for dylib, state in self.states.items() if state.is_referenced]
        needed = {state.dylib for state in dependencies_first(roots, self.states)}
        return self._mark_closed([d for d in reversed(self._initialized) if d not in needed])

    def _mark_closed(self, dylibs: Iterable[JITDylib]) -> list[int]:
        """Mark JITDylibs as closed; returns the handles that the runtime is to finalise."""
        handles = []
        for dylib in dylibs:
            state = self.states[dylib]
            state.reset_initializers()
            self._initialized.pop(dylib, None)
            if state.handle:
                handles.append(state.handle)
        return handles

    def _finalize(self, handles: Sequence[int], *, is_exit: bool = True) -> None:
        if handles and self.session.is_connected:
            self._number_calls()
            with self._lock.running_code():
                self.run_finalizers(handles, is_exit=is_exit)

    def run_finalizers(self, handles: Sequence[int], *, is_exit: bool) -> None:
        """Run exit handlers and finalisers of JITDylibs, by handle, on the calling thread."""
        self._call("__jitlink_finalize", _FINALIZE.serialize_arguments(handles, is_exit))

    def close_all(self) -> None:
        """Close all open JITDylibs, as a process does that exits."""
        self._close_at_end(lambda dylibs: dylibs)

    def close_at_exit(self) -> None:
        """Close the JITDylibs that may call Python, directly or through those they link against."""
        if self.session.executor.is_this_process:
            self._close_at_end(self._that_may_call_python)
        else:
            self.close_all()

    def _that_may_call_python(self, dylibs: Iterable[JITDylib]) -> list[JITDylib]:
        managers = self.session.resource_managers
        python = {d for manager in managers for d in manager.dylibs_that_call_python()}
        return [d for d in dylibs if not python.isdisjoint(walk_link_orders([d]))]

    def _close_at_end(self, choose: Callable[[Iterable[JITDylib]], Iterable[JITDylib]]) -> None:
        """Close some of all JITDylibs, whatever holds them open."""

        def mark() -> list[int]:
            # Code of a JITDylib that was never opened may have registered handlers.
            dylibs = list(choose(dict.fromkeys([*reversed(self._initialized), *self.states])))
            for dylib in dylibs:
                self.states[dylib].release_all()
                self._held.pop(dylib, None)
            return self._mark_closed(dylibs)

        with self._lock:
            try:
                handles = self.session.run(mark)
            except SessionEndedError:
                # The end of the session has closed all JITDylibs.
                return
            self._finalize(handles)

    # Calls into the executor

    def _number_calls(self) -> None:
        """Have what code of another process calls here say by which call it runs."""
        executor = self.session.executor
        if executor.is_this_process or executor.dispatch is None:
            return
        from jitlink.runtime.remote_callbacks import callbacks_of  # noqa: PLC0415 - not here

        if executor.generation == self.session.generation:
            self.session.wait(callbacks_of(executor))

    def _call(self, name: str, arguments: bytes) -> None:
        """Call a function of the runtime that returns an error."""
        executor, generation = self.session.executor, self.session.generation
        runtime = linked_runtime(executor)
        if runtime is None and executor.generation != generation:
            from jitlink.executor import ExecutorRestartedError  # noqa: PLC0415 - seldom needed

            raise ExecutorRestartedError("the executor was restarted meanwhile")
        if runtime is None:
            raise ExecutorError(f"{name} is called before the runtime is linked")
        result = self.drive(executor.call_wrapper(runtime.addresses[name], arguments, generation))
        failure = result.failure()
        if failure is not None:
            raise ExecutorError(f"{name} failed: {failure.message}")

    # Removal; on the driver thread

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Run the handlers and finalisers that refer to code that is about to be deallocated.

        They run on a thread of their own, which the removal awaits and the driver thread does not.
        JITDylibs that the code has opened stay open.
        """
        state = self.states.get(dylib)
        if state is None:
            return
        if not dylib.is_open and state.handle and not state.is_finalized:
            state.release_all()
            state.is_finalized = True
            handles = self._mark_closed([dylib])
            if handles:
                await in_thread(lambda: self._finalize(handles))
        links = state.links.take(key)
        memory = [ExecutorAddrRange(r.start, r.end) for link in links for r in link.memory]
        errors: list[Exception] = []
        try:
            if self._has_registrations and memory and self.session.is_connected:
                await self.finalize_memory(memory)
        except JITLinkError as error:
            errors.append(error)
        if any(link.handle == state.handle for link in links if link.handle):
            state.handle = 0
        if key is state.tracker:
            self._initialized.pop(dylib, None)
            self.reset_handle(state)
        raise_first(errors)

    def handle_remove_jitdylib(self, dylib: JITDylib) -> None:
        """Forget a JITDylib."""
        self._initialized.pop(dylib, None)
        self._held.pop(dylib, None)
        super().handle_remove_jitdylib(dylib)

    def restart_obstacles(self) -> Iterable[str]:
        """None: all that the platform has is linked when it is needed."""
        return ()

    def handle_restart(self) -> None:
        """Forget what was in the process that has ended."""
        _provide_tls(self.session.executor, self.layer.memory)
        self._has_registrations = False
        self._initialized.clear()
        self._loading.forget_connection()
        self._plugin.handle_restart()
        for dylib, state in self.states.items():
            state.reset(is_held=dylib in self._held)

    def resume(self) -> None:
        """Initialise the JITDylibs that `initialize` had opened, in the same order.

        Raises:
            Exception: what the first one raised that failed, once all others are initialised.
        """
        errors: list[Exception] = []
        for dylib, argv in self.session.run(lambda: list(self._held.items())):
            try:
                self.initialize(dylib, argv)
            except Exception as error:  # noqa: BLE001 - raised when all are initialised
                errors.append(error)
        raise_first(errors)

    async def finalize_memory(self, memory: Sequence[ExecutorAddrRange]) -> None:
        """Run the handlers and finalisers in memory that is about to be deallocated."""
        arguments = _FINALIZE_MEMORY.serialize_arguments(memory)
        runtime, session = await self.runtime(), self.session
        address = runtime.addresses["__jitlink_is_memory_final"]
        result = await session.executor.call_wrapper(address, arguments, session.generation)
        if result.data != b"\1":
            await in_thread(lambda: self._call("__jitlink_finalize_memory", arguments))


class RuntimeGenerator:
    """Generates the runtime's functions that take the place of the process's.

    The runtime is linked when one is first looked up.
    """

    def __init__(self, platform: ELFPlatform) -> None:
        self._platform = platform

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that the runtime exports."""
        if EXPORTS.keys().isdisjoint(names.keys()):
            return
        wanted = [name for name in names if name in EXPORTS]
        exports = await self._platform.exports()
        found = {
            name: ExecutorSymbolDef(exports[name], _EXPORT_FLAGS)
            for name in wanted
            if name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found, is_generated=True))
