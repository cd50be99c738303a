"""ORCRuntimePlatform: LLVM's ORC runtime takes care of the JITDylibs of a session.

::

    with LLJIT(platform=orc_runtime("/usr/lib/.../liborc_rt-x86_64.a")) as jit:
        jit.add_object("program.o")
        assert jit.platform is not None
        status = jit.platform.run_main(jit.main, jit.lookup("main"), ["program"])

For objects that rely on the entry points of that runtime: ``__orc_rt_jit_dlopen`` and its kin. The
archive is linked into the process, and is told of handles, frames and initialisers; it calls back
when JITDylibs are opened and for its ``dlsym``. What it cannot do, this platform cannot:

- Finalisers (``.fini_array``, ``.dtors``) do not run, nor what was registered with ``atexit``; only
  handlers of ``__cxa_atexit`` do, when their JITDylib is closed.
- To close a JITDylib closes nothing that it is linked against, and that stays open for ever.
- Initialisers get no arguments, and their priorities count among objects that are linked together.
- If a program calls ``exit``, nothing of it runs any more.
- Thread-local variables: `jitlink.platform.orc_rt.tls`.

Specification: `jitlink.platform.orc_rt.protocol`.
"""

from __future__ import annotations

import atexit
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jitlink.errors import ExecutorError, InputError, UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import AllocActionPair, LinkGraph, MemProt, Scope, Symbol, WrapperCall
from jitlink.inputs import Input
from jitlink.link import run_in_process
from jitlink.orc.aliases import ReExports
from jitlink.orc.callables import callback_errors
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionEndedError, SessionError, listed, raise_first
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
from jitlink.orc.objects import GraphUnit
from jitlink.orc.session import ExecutionSession
from jitlink.platform.base import Platform, PlatformCreator
from jitlink.platform.definitions import ProviderGenerator
from jitlink.platform.dispatch import Dispatcher, answers, dispatch_in_process
from jitlink.platform.orc_rt import protocol
from jitlink.platform.orc_rt import tls as runtime_tls
from jitlink.platform.orc_rt.plugin import ORCRuntimePlugin
from jitlink.platform.orc_rt.protocol import RuntimeFunction
from jitlink.platform.orc_rt.tls import InitializationImage
from jitlink.platform.state import DylibState, dependencies_first
from jitlink.runtime import runtime_of
from jitlink.sps import ExecutorAddrRange, Failure, SPSError
from jitlink.targets.registry import target_of_triple
from jitlink.tasks import in_thread

T = TypeVar("T")
_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS
_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY
_ABSOLUTE = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE
_NOTHING = ExecutorAddrRange(0, 0)
_COMPLETE = "__orc_rt_elfnix_complete_bootstrap"

Call = tuple[RuntimeFunction[Any], Callable[[], tuple[object, ...]]]
"""A function of the runtime, and what gives its arguments once all addresses are known."""


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
    """What makes an `ORCRuntimePlatform` with this archive, for `LLJIT`.

    Args:
        archive: path or bytes of ``liborc_rt-x86_64.a``.
    """

    def create(
        session: ExecutionSession, layer: ObjectLinkingLayer, process_symbols: JITDylib | None
    ) -> Platform:
        return ORCRuntimePlatform(session, layer, process_symbols, archive)

    return create


class ORCRuntimePlatform(Platform):
    """Takes care of JITDylibs of one session, with LLVM's runtime.

    Args:
        session: the session, whose executor is this process.
        layer: links the runtime, and what is added to the JITDylibs.
        process_symbols: the JITDylib of the process's symbols, which the platform's own comes
            before; None if linked code is not to see them. The runtime does.
        runtime_archive: path or bytes of ``liborc_rt-x86_64.a``; the file must not be changed
            while the session lives.

    Attributes:
        thread_key: the key of pthreads under which threads keep their variables; None until
            something has such. For the session's thread.

    Raises:
        UnsupportedObjectError: the executor is not x86-64 Linux.
        InputError: the archive cannot be read.
        IncompleteRuntimeError: it is not LLVM 22's runtime.
        ExecutorError: the executor is another process.
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
        self._functions: dict[str, int] = {}
        self._dispatcher = Dispatcher()
        self._failed = threading.local()
        self._numbers = itertools.count()
        self.thread_key: int | None = None
        super().__init__(session, layer, process_symbols)
        own = session.wait(runtime_of(session.executor))
        self._plugin = ORCRuntimePlugin(self, own)
        self._renewal = _Renewal(self)
        layer.add_plugin(self._plugin)
        # Told last, when the memory of a handle that is to be renewed is gone.
        session.run(lambda: session.resource_managers.insert(0, self._renewal))
        try:
            self._link_against_process()
            self.dylib.add_generator(archive)
            function, context = dispatch_in_process(session.executor, own, self._dispatcher)
            session.wait(self._start(function, context))
        except BaseException:
            self._give_up()
            raise

    # Start

    def _give_up(self) -> None:
        """Leave the session as it was."""
        atexit.unregister(self._at_exit)
        self.session.remove_jitdylib(self.dylib)
        self.layer.remove_plugin(self._plugin)
        self.session.deregister_resource_manager(self._renewal)
        self.session.deregister_resource_manager(self)

    def _link_against_process(self) -> None:
        process = self._process_symbols
        if process is None:
            process = self.session.create_jitdylib("<process symbols of the runtime>")
            process.add_generator(DynamicLibraryGenerator.for_process(self.session))
            process.add_generator(ProviderGenerator())
        self.dylib.add_to_link_order(process)

    async def _start(self, function: int, context: int) -> None:
        """Link the runtime, and let it make its state and know its own JITDylib."""
        dylib = self.dylib
        dispatch = {protocol.DISPATCH: function, protocol.DISPATCH_CONTEXT: context}
        absolute = {name: ExecutorSymbolDef(each, _ABSOLUTE) for name, each in dispatch.items()}
        dylib.add_unit(AbsoluteSymbols(absolute))
        dylib.add_unit(ReExports(protocol.ALIASES))
        self._know(dylib)
        state = self.states[dylib]
        handle = await self.handle_of(state)
        names = [each.name for each in protocol.FUNCTIONS]
        handlers = {
            protocol.PUSH_INITIALIZERS_TAG: answers(
                protocol.PUSH_INITIALIZERS, self._push_initializers
            ),
            protocol.SYMBOL_LOOKUP_TAG: answers(protocol.SYMBOL_LOOKUP, self._look_up),
        }
        order = [(dylib, _ALL)]
        found = await self.session.lookup_async(order, [*names, *handlers])
        self._functions = {name: found[name].address for name in names}
        self._dispatcher.handlers = {
            found[tag].address: handler for tag, handler in handlers.items()
        }
        start = self.actions(
            (protocol.BOOTSTRAP, lambda: (handle,)), (protocol.SHUTDOWN, lambda: ())
        )
        graph = self._start_graph([start, self._registration(dylib, handle)])
        threads = runtime_tls.aligned_call(self._new_graph("<thread-local variables>"))
        for each in (graph, threads):
            dylib.add_unit(GraphUnit(self.layer, each))
        await self.session.lookup_async(order, _COMPLETE)

    def _new_graph(self, name: str) -> LinkGraph:
        return target_of_triple(self.session.executor.triple).new_graph(name)

    def _start_graph(self, actions: Sequence[AllocActionPair]) -> LinkGraph:
        """A graph that does nothing but act when it is there, and when it goes."""
        graph = self._new_graph("<start of the runtime>")
        section = graph.create_section("__orc_rt_cplt_bs", MemProt.READ)
        block = graph.create_zero_fill_block(section, 1, 0, 1)
        graph.add_defined_symbol(block, 0, _COMPLETE, 1, scope=Scope.HIDDEN)
        graph.alloc_actions += actions
        return graph

    # What links tell the runtime

    def actions(self, finalize: Call, deallocate: Call) -> AllocActionPair:
        """Calls of the runtime that go with memory."""
        return AllocActionPair(self._wrapper_call(*finalize), self._wrapper_call(*deallocate))

    def _wrapper_call(
        self, function: RuntimeFunction[Any], arguments: Callable[[], tuple[object, ...]]
    ) -> WrapperCall:
        pack = function.signature.serialize_arguments
        return WrapperCall(self._functions[function.name], lambda: pack(*arguments()))

    def _registration(self, dylib: JITDylib, handle: int | Symbol) -> AllocActionPair:
        """What makes a JITDylib known to the runtime."""

        def address() -> int:
            return handle.address if isinstance(handle, Symbol) else handle

        return self.actions(
            (protocol.REGISTER_JITDYLIB, lambda: (dylib.name, address())),
            (protocol.DEREGISTER_JITDYLIB, lambda: (address(),)),
        )

    async def handle_actions(self, dylib: JITDylib, symbol: Symbol) -> Sequence[AllocActionPair]:
        """What makes a JITDylib known to the runtime, and forgotten by it."""
        # The platform's own is linked before the runtime is there.
        return [] if dylib is self.dylib else [self._registration(dylib, symbol)]

    def section_actions(self, arguments: Callable[[], tuple[object, ...]]) -> AllocActionPair:
        """What makes the runtime know frames or an image, and forget the frames."""
        return self.actions(
            (protocol.REGISTER_OBJECT_SECTIONS, arguments),
            (protocol.DEREGISTER_OBJECT_SECTIONS, arguments),
        )

    async def link_thread_image(self, image: InitializationImage) -> None:
        """Reserve memory for a link's thread-local variables, for as long as the runtime is there.

        Raises:
            JITLinkError: there is no memory, or the process has no more keys of pthreads.
        """
        await self._create_thread_key()
        if not image.size:
            return
        name = f"$__TLSIMAGE.{next(self._numbers)}"
        graph = self._new_graph(name)
        symbol = image.reserve(graph, name)

        def arguments() -> tuple[object, ...]:
            start = symbol.address
            return ((_NOTHING, ExecutorAddrRange(start, start + image.size)),)

        graph.alloc_actions.append(self.section_actions(arguments))
        self.dylib.add_unit(GraphUnit(self.layer, graph))
        await self.session.lookup_async([(self.dylib, _ALL)], name)
        image.address = symbol.address

    def write_thread_image(self, image: InitializationImage, graph: LinkGraph) -> None:
        """Fill the image of a graph (a post-fixup pass)."""
        if image.size:
            executor = self.session.executor
            run_in_process(executor.write_memory(image.address, image.content(graph)))

    async def _create_thread_key(self) -> None:
        """Let there be a `thread_key`.

        Raises:
            ExecutorError: the process has no more keys.
        """
        if self.thread_key is not None:
            return
        create = protocol.CREATE_PTHREAD_KEY
        address = self._functions[create.name]
        result = await self.session.executor.call_wrapper(address, b"")
        key = create.signature.deserialize_result(result)
        if isinstance(key, Failure):
            raise ExecutorError(f"thread-local variables need a key of pthreads: {key.message}")
        self.thread_key = key

    async def _delete_thread_key(self) -> None:
        """Threads that end later must not call into the runtime."""
        key, self.thread_key = self.thread_key, None
        if key is None:
            return
        executor = self.session.executor
        (delete,) = await executor.lookup_symbols(["pthread_key_delete"])
        if delete:
            await executor.run_as_int_function(delete, key)

    def setup_jitdylib(self, dylib: JITDylib) -> None:
        """Take care of a JITDylib, to which nothing was added yet; nothing if that is so already.

        Raises:
            JITDylibDefunctError: it was removed.
        """
        super().setup_jitdylib(dylib)
        # The runtime opens only what it knows.
        self.session.wait(self.handle_of(self.states[dylib]))

    # What the runtime asks for, on the thread that called it

    def _push_initializers(self, handle: int) -> list[tuple[int, list[int]]]:
        try:
            dylib = self.state_with(handle).dylib
            return self.session.wait(self._dependencies(dylib))
        except Exception as error:
            self._failed.error = error
            raise

    async def _dependencies(self, dylib: JITDylib) -> list[tuple[int, list[int]]]:
        """Link all that has initialisers, and say what each JITDylib is linked against."""
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
        order = [(self.state_with(handle).dylib, _EXPORTED)]
        try:
            return self.session.lookup(order, name, kind=LookupKind.DLSYM)[name].address
        except UndefinedSymbolError as error:
            # As LLVM says it: programs print what ``dlerror`` returns.
            raise SessionError(f"Symbols not found: [ {', '.join(error.names)} ]") from error

    # Opening and closing

    def initialize(self, dylib: JITDylib, argv: Sequence[str] | None = None) -> None:  # noqa: ARG002
        """Open a JITDylib, and run the initialisers that have not run, on the calling thread.

        Those of what it is linked against run first. If it is open, only those of what was
        added or linked since run.

        Args:
            dylib: the JITDylib.
            argv: not used: this runtime gives initialisers no arguments.

        Raises:
            JITLinkError: something that has initialisers could not be linked; none was run.
            SessionError: the platform does not take care of the JITDylib.
        """
        with self._lock, callback_errors():
            state = self.session.run(lambda: self.state_of(dylib))
            handle = self._call(protocol.DLOPEN, dylib.name, protocol.RTLD_LAZY)
            if not handle:
                raise self._failure(f"JITDylib {dylib.name} cannot be opened")
            if state.is_kept:
                # Opened once more, which has run what is new, also in what it is linked
                # against; ``dlupdate`` would not do that.
                self._close_once(state)
            state.is_kept = True

    def deinitialize(self, dylib: JITDylib) -> None:
        """Close a JITDylib that `initialize` has opened, on the calling thread.

        Its handlers of ``__cxa_atexit`` run, the last one first, unless something else has opened
        it. Nothing happens if it is not open.

        Raises:
            SessionError: the platform does not take care of the JITDylib.
            ExecutorError: the runtime refuses.
        """
        with self._lock, callback_errors():
            state = self.session.run(lambda: self.state_of(dylib))
            if state.is_kept:
                state.is_kept = False
                self._close_once(state)

    def _close_once(self, state: DylibState) -> None:
        if self._call(protocol.DLCLOSE, state.handle):
            raise self._failure(f"JITDylib {state.dylib.name} cannot be closed")

    def close_all(self) -> None:
        """Close everything that is open, the last one first; nothing if the session has ended."""
        errors: list[Exception] = []
        with self._lock:
            try:
                states = self.session.run(lambda: list(self.states.values()))
            except SessionEndedError:
                # What was open was closed by then.
                return
            for state in reversed(states):
                try:
                    self.deinitialize(state.dylib)
                except Exception as error:  # noqa: BLE001 - raised when all are closed
                    errors.append(error)
        raise_first(errors)

    def run_program(self, dylib: JITDylib, entry: str, argv: Sequence[str]) -> int:
        """Open a JITDylib, call a function of it as ``main``, and close it: all in the runtime.

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
            status = self._call(protocol.RUN_PROGRAM, dylib.name, entry, list(argv))
            error = self._take_error()
            if error is not None:
                raise error
            return status

    def _call(self, function: RuntimeFunction[T], *arguments: object) -> T:
        """Call a function of the runtime that may run linked code, on this thread."""
        self._failed.error = None
        data = function.signature.serialize_arguments(*arguments)
        address = self._functions[function.name]
        result = self.drive(self.session.executor.call_wrapper(address, data))
        try:
            return function.signature.deserialize_result(result)
        except SPSError as error:
            raise ExecutorError(f"{function.name} failed: {error}") from error

    def _take_error(self) -> Exception | None:
        """What went wrong in the session while the runtime was called on this thread."""
        error: Exception | None = self._failed.error
        self._failed.error = None
        return error

    def _failure(self, message: str) -> Exception:
        """Why the last call on this thread failed."""
        cause = self._take_error()
        return cause or ExecutorError(f"{message}: {self._call(protocol.DLERROR)}")

    # Removal; on the session's thread

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
        """Close what goes, on a thread of its own; the runtime goes after all that it knows of."""
        if dylib.is_open:
            return
        if dylib is self.dylib:
            for other in [each for each in self.states if each is not dylib]:
                await self.session.remove_jitdylib_async(other)
            await self._delete_thread_key()
            return
        state = self.states.get(dylib)
        if state is not None and state.is_kept:
            state.is_kept = False
            await in_thread(lambda: self._close_once(state))

    async def renew_handle(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Give a JITDylib that was cleared another handle."""
        state = self.states.get(dylib)
        if state is None or key is not state.tracker or not dylib.is_open:
            return
        self.forget_handle(state)
        if not self.session.is_ending:
            await self.handle_of(state)


class _Renewal(ResourceManager):
    """Tells a platform when the memory that was held under a key is gone."""

    def __init__(self, platform: ORCRuntimePlatform) -> None:
        self._platform = platform

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        await self._platform.renew_handle(dylib, key)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Nothing is held."""


def _open(
    session: ExecutionSession, layer: ObjectLinkingLayer, source: Input
) -> StaticLibraryGenerator:
    """The archive, if it is the runtime of that executor."""
    executor, archive = session.executor, StaticLibraryGenerator(layer, source)
    architecture, _, system = executor.triple.partition("-")
    if architecture != "x86_64" or "linux" not in system:
        message = f"LLVM's ORC runtime is used for x86-64 Linux, not for {executor.triple}"
        raise UnsupportedObjectError(message, file=archive.name)
    if not isinstance(executor, SelfExecutorProcessControl):
        raise ExecutorError(f"{archive.name}: LLVM's ORC runtime can be used in this process only")
    missing = archive.lacking(protocol.REQUIRED)
    if missing:
        raise IncompleteRuntimeError(missing, file=archive.name)
    return archive
