"""ELFPlatform: what a dynamic linker does for a native program, for the JITDylibs of a session.

::

    platform = ELFPlatform(session, layer, process_symbols)
    platform.setup_jitdylib(main)
    layer.add_object(main, "program.o")
    platform.initialize(main)
    ...
    platform.deinitialize(main)
    platform.close()

- Objects with initialisers are linked when their JITDylib is initialised, looked up or not. The
  initialisers run on the thread that asks for it, in the order of a static link, those of
  JITDylibs that it is linked against first.
- Exit handlers and finalisers run when a JITDylib is closed, when the process exits, or, those of
  code that is removed, before its memory goes.
- Exceptions and other unwinding pass through linked code, from the moment that it can run.
- ``dlopen`` and its kin, called by linked code, know the session's JITDylibs.

Linked code sees the functions for this through a JITDylib of the platform's own, ``<platform>``,
which is searched before the process. What is not used is not linked.

LLVM differs: there, finalisers do not run, priorities count within one object, and closing a
JITDylib closes nothing that it is linked against.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jitlink.errors import ExecutorError, JITLinkError, UnsupportedObjectError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import AllocActionPair, LinkGraph, Symbol, WrapperCall
from jitlink.orc.callables import callback_errors
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionEndedError, SessionError, raise_first
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.passes.initializers import ArrayKind, FunctionArray, in_order
from jitlink.passes.linker_defined import define_dso_handle
from jitlink.platform.base import Platform
from jitlink.platform.definitions import DSO_HANDLE, PER_DYLIB_FUNCTIONS, RuntimeGenerator
from jitlink.platform.dlfcn import DynamicLoading
from jitlink.platform.plugin import PlatformPlugin
from jitlink.platform.state import DylibState, dependencies_first, unlinked_initializers
from jitlink.runtime import Runtime, has_runtime, linked_runtime, runtime_of
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
from jitlink.tasks import in_thread

_REGISTER = WrapperSignature(ERROR, EXECUTOR_ADDR, STRING, EXECUTOR_ADDR, EXECUTOR_ADDR)
_DEREGISTER = WrapperSignature(ERROR, EXECUTOR_ADDR)
_ARRAY = Tuple(EXECUTOR_ADDR, EXECUTOR_ADDR, BOOL)
_ARRAYS = SPSSequence(_ARRAY)
_INITIALIZE = WrapperSignature(ERROR, EXECUTOR_ADDR, _ARRAYS, _ARRAYS, UINT64, BOOL)
_SET_ARGUMENTS = WrapperSignature(ERROR, SPSSequence(STRING))
_FINALIZE = WrapperSignature(ERROR, SPSSequence(EXECUTOR_ADDR), BOOL)
_FINALIZE_MEMORY = WrapperSignature(ERROR, SPSSequence(EXECUTOR_ADDR_RANGE))


class _Run(NamedTuple):
    """Initialisers that are to be run, and finalisers that go with them.

    Attributes:
        handle: handle of their JITDylib.
        is_program: whether this is where a program begins, after the libraries that it needs.
    """

    handle: int
    initializers: Sequence[FunctionArray]
    finalizers: Sequence[FunctionArray]
    is_program: bool = False


class ELFPlatform(Platform):
    """Takes care of JITDylibs of one session, with jitlink's own runtime.

    Attributes:
        has_handlers: whether linked code may have registered exit handlers.

    Raises:
        UnsupportedObjectError: there is no runtime for the executor's target.
        SessionError: the session has a platform already.
    """

    per_dylib_functions = PER_DYLIB_FUNCTIONS

    def __init__(
        self,
        session: ExecutionSession,
        layer: ObjectLinkingLayer,
        process_symbols: JITDylib | None = None,
    ) -> None:
        if not has_runtime(session.executor.triple):
            message = f"there is no runtime for {session.executor.triple}"
            raise UnsupportedObjectError(message, file="<runtime>")
        self.has_handlers = False
        # In the order in which they were initialised.
        self._initialized: dict[JITDylib, None] = {}
        self._loading = DynamicLoading(self)
        super().__init__(session, layer, process_symbols)
        self.dylib.add_generator(RuntimeGenerator(self))
        layer.add_plugin(PlatformPlugin(self))

    # Set-up

    async def runtime(self) -> Runtime:
        """The executor's runtime, linked now if it is not there yet.

        Raises:
            JITLinkError: it cannot be linked.
        """
        return await runtime_of(self.session.executor)

    async def handle_actions(self, dylib: JITDylib, symbol: Symbol) -> Sequence[AllocActionPair]:
        """What makes a JITDylib known to the runtime, and forgotten by it."""
        return [self.handle_action(await self.runtime(), dylib, symbol)]

    def handle_action(self, runtime: Runtime, dylib: JITDylib, symbol: Symbol) -> AllocActionPair:
        """The same, for who has the runtime."""
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
        symbol = graph.find_external_symbol_by_name(DSO_HANDLE)
        if symbol is None:
            return None
        # What is linked after the graph refers to the handle too, and cannot see this one.
        if not self.per_dylib_functions.keys().isdisjoint(graph.external_names()[1]):
            return None
        define_dso_handle(graph, symbol, DSO_HANDLE)
        symbol.is_live = True
        graph.alloc_actions.append(self.handle_action(await self.runtime(), dylib, symbol))
        return symbol

    def adopt_handle(self, dylib: JITDylib, symbol: Symbol) -> None:
        """Make what `define_handle` has returned the handle of the JITDylib."""
        super().adopt_handle(dylib, symbol)
        self.has_handlers = True

    async def handle_of(self, state: DylibState) -> int:
        """The handle of a JITDylib, linked now if it is not there yet."""
        self.has_handlers = True
        return await super().handle_of(state)

    # Opening

    def initialize(self, dylib: JITDylib, argv: Sequence[str] | None = None) -> None:
        """Open a JITDylib, and run the initialisers that have not run, on the calling thread.

        Those of what it is linked against run first. If it is open, only those of what was
        added or linked since run.

        Args:
            dylib: the JITDylib.
            argv: what initialisers get as arguments, by default the process's own.

        Raises:
            JITLinkError: something that has initialisers could not be linked; none was run.
            SessionError: the platform does not take care of the JITDylib.
        """
        self._open(dylib, argv, lambda state: setattr(state, "is_kept", True))

    def initialize_at_once(self, dylib: JITDylib) -> bool:
        """`initialize` if nothing is to be run; on the session's thread."""
        state = self.state_of(dylib)
        order = dependencies_first([dylib], self.states)
        if any(unlinked_initializers(each.dylib) or each.has_uninitialized for each in order):
            return False
        state.is_kept = True
        for each in order:
            self._note_initialized(each)
        return True

    def _note_initialized(self, state: DylibState) -> None:
        if not state.is_initialized:
            state.is_initialized = True
            self._initialized[state.dylib] = None

    def _initialize_program(self, dylib: JITDylib, argv: Sequence[str]) -> None:
        self._open(dylib, argv, lambda state: setattr(state, "is_kept", True), is_program=True)

    def _open(
        self,
        dylib: JITDylib,
        argv: Sequence[str] | None,
        note: Callable[[DylibState], None],
        *,
        is_program: bool = False,
    ) -> int:
        """Open a JITDylib; returns its handle, which is 0 if nothing needed one."""
        with self._lock:
            runs = self.session.wait(self._prepare(dylib, note, is_program))
            if runs:
                words = self._process_arguments() if argv is None else list(argv)
                self._call("__jitlink_set_arguments", _SET_ARGUMENTS.serialize_arguments(words))
                with callback_errors():
                    for run in runs:
                        self._run(run)
        return self.states[dylib].handle

    def open_again(self, dylib: JITDylib) -> int:
        """``dlopen``: open a JITDylib once more; returns its handle."""

        def note(state: DylibState) -> None:
            state.opens += 1

        return self._open(dylib, None, note)

    def update(self, dylib: JITDylib) -> None:
        """``dlupdate``: run the initialisers that have not run."""
        self._open(dylib, None, lambda _state: None)

    def close_once(self, dylib: JITDylib) -> None:
        """``dlclose``: take back one ``dlopen``.

        Raises:
            SessionError: there is none to be taken back.
        """

        def note(state: DylibState) -> None:
            if not state.opens:
                raise SessionError(f"JITDylib {dylib.name} has not been opened so often")
            state.opens -= 1

        self._close(dylib, note, is_exit=False)

    def _process_arguments(self) -> list[str]:
        here = isinstance(self.session.executor, SelfExecutorProcessControl)
        return list(sys.orig_argv) if here else []

    def _run(self, run: _Run) -> None:
        lists = [
            [(each.start, each.end, each.backwards) for each in arrays]
            for arrays in (run.initializers, run.finalizers)
        ]
        with_priority = sum(each.has_priority for each in run.finalizers)
        arguments = _INITIALIZE.serialize_arguments(
            run.handle, *lists, with_priority, run.is_program
        )
        self._call("__jitlink_initialize", arguments)

    async def _prepare(
        self, dylib: JITDylib, note: Callable[[DylibState], None], is_program: bool
    ) -> list[_Run]:
        """Link all that has initialisers, and say what is to be run."""
        state = self.state_of(dylib)
        await self.link_initializers(dylib)
        note(state)
        order = dependencies_first([dylib], self.states)
        preinit, rest = [], []
        for each in order:
            arrays = each.take_uninitialized()
            self._note_initialized(each)
            begins = is_program and each is state
            if not arrays and not begins:
                continue
            early, initializers, finalizers = (in_order(arrays, kind) for kind in ArrayKind)
            handle = await self.handle_of(each)
            if early:
                preinit.append(_Run(handle, early, ()))
            rest.append(_Run(handle, initializers, finalizers, begins))
        return preinit + rest

    # Closing

    def deinitialize(self, dylib: JITDylib) -> None:
        """Close a JITDylib that `initialize` has opened, on the calling thread.

        Its exit handlers and then its finalisers run, the last one first, unless something
        that is open is linked against it; so do those of what it is linked against, unless
        somebody else has opened it. Nothing happens if it is not open.

        Raises:
            SessionError: the platform does not take care of the JITDylib.
        """
        self._close(dylib, lambda state: setattr(state, "is_kept", False), is_exit=True)

    def _close(self, dylib: JITDylib, note: Callable[[DylibState], None], *, is_exit: bool) -> None:
        def choose() -> list[int]:
            note(self.state_of(dylib))
            return self._take_unwanted()

        with self._lock:
            self._finalize(self.session.run(choose), is_exit=is_exit)

    def _take_unwanted(self) -> list[int]:
        """Handles of the JITDylibs that nobody needs open any more, the last one first."""
        roots = [dylib for dylib, state in self.states.items() if state.is_wanted]
        needed = {state.dylib for state in dependencies_first(roots, self.states)}
        unwanted = [each for each in reversed(self._initialized) if each not in needed]
        return self._take(unwanted)

    def _take(self, dylibs: Iterable[JITDylib]) -> list[int]:
        handles = []
        for dylib in dylibs:
            state = self.states[dylib]
            state.rearm()
            self._initialized.pop(dylib, None)
            if state.handle:
                handles.append(state.handle)
        return handles

    def _finalize(self, handles: Sequence[int], *, is_exit: bool = True) -> None:
        if handles:
            with callback_errors():
                arguments = _FINALIZE.serialize_arguments(handles, is_exit)
                self._call("__jitlink_finalize", arguments)

    def close_all(self) -> None:
        """Close everything that is open, as a process does that exits."""

        def choose() -> list[int]:
            for state in self.states.values():
                state.opens, state.is_kept = 0, False
            # Handlers may be there without anything having been opened.
            return self._take(dict.fromkeys([*reversed(self._initialized), *self.states]))

        with self._lock:
            try:
                handles = self.session.run(choose)
            except SessionEndedError:
                # What was open was closed by then.
                return
            self._finalize(handles)

    # Calls into the executor

    def _call(self, name: str, arguments: bytes) -> None:
        """Call a function of the runtime that returns an error."""
        runtime = linked_runtime(self.session.executor)
        if runtime is None:
            raise ExecutorError(f"{name} is called before the runtime is there")
        executor = self.session.executor
        result = self.drive(executor.call_wrapper(runtime.addresses[name], arguments))
        failure = result.failure()
        if failure is not None:
            raise ExecutorError(f"{name} failed: {failure.message}")

    # Removal; on the session's thread

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Run what refers to code that is about to go; what it has open stays open.

        It runs on a thread of its own, while the session waits for it and serves others.
        """
        state = self.states.get(dylib)
        if state is None:
            return
        if not dylib.is_open and state.handle and not state.is_finalized:
            state.opens, state.is_kept, state.is_finalized = 0, False, True
            handles = self._take([dylib])
            if handles:
                await in_thread(lambda: self._finalize(handles))
        code = state.linked.pop(key, [])
        memory = [ExecutorAddrRange(each.start, each.end) for one in code for each in one.memory]
        errors: list[Exception] = []
        try:
            if self.has_handlers and memory:
                await self._finalize_memory(_FINALIZE_MEMORY.serialize_arguments(memory))
        except JITLinkError as error:
            errors.append(error)
        if key is state.tracker:
            self._initialized.pop(dylib, None)
            self.forget_handle(state)
        raise_first(errors)

    def handle_remove_jitdylib(self, dylib: JITDylib) -> None:
        """Forget a JITDylib."""
        self._initialized.pop(dylib, None)
        super().handle_remove_jitdylib(dylib)

    async def _finalize_memory(self, arguments: bytes) -> None:
        runtime, executor = await self.runtime(), self.session.executor
        address = runtime.addresses["__jitlink_is_memory_final"]
        if (await executor.call_wrapper(address, arguments)).data != b"\1":
            await in_thread(lambda: self._call("__jitlink_finalize_memory", arguments))
