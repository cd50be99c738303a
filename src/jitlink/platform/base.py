"""Platform: what a dynamic linker does for a process, for the JITDylibs of a session.

A runtime in the executor identifies each JITDylib by its handle, the address of its
`__dso_handle`. Here is what does not depend on the runtime: handles, per-dylib functions, the
lookup of initialisers, and the libraries that a compiler driver would name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jitlink.executor import PlacedArguments
from jitlink.graph import AllocActionPair, LinkGraph, MemProt, Scope, Symbol
from jitlink.input_reader import InputReader
from jitlink.inputs import InputFile
from jitlink.link import run_in_process
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
    ResourceManager,
    ResourceTracker,
)
from jitlink.orc.materialization import AbsoluteSymbols, MaterializationResponsibility
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.platform import at_exit
from jitlink.platform.loader_lock import LoaderLock
from jitlink.platform.state import DylibState, dependencies_first, unlinked_initializers
from jitlink.runtime import ALLOCATOR_NAMES, find_in_providers, open_object
from jitlink.targets.registry import target_of_triple

T = TypeVar("T")
DSO_HANDLE = "__dso_handle"
MORESTACK = "__morestack"
HANDLE_SECTION = "$__DSO_HANDLE"
_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS


class Platform(ResourceManager):
    """Initialises and finalises JITDylibs of one session, and links what that takes.

    It is to be closed before the session ends. If it is not, exit handlers and finalisers run on
    a thread of their own while the session ends.

    Args:
        session: the session.
        layer: links what is added to the JITDylibs.
        process_symbols: the JITDylib of the process's symbols, which the platform's own precedes
            in link orders; None if linked code is not to see them.

    Attributes:
        session: the session.
        layer: its object linking layer.
        dylib: the platform's own JITDylib.
        states: the state of each JITDylib that was set up; accessed on the driver thread.
        per_dylib_functions: functions of which each JITDylib has its own copy, and for each the
            name of the prebuilt object that defines it.
        has_allocation_functions: whether JITDylibs that define ``malloc`` get their own copies of
            functions that allocate for them.

    Raises:
        SessionError: the session has a platform already.
    """

    per_dylib_functions: Mapping[str, str] = {}
    has_allocation_functions = False

    def __init__(
        self,
        session: ExecutionSession,
        layer: ObjectLinkingLayer,
        process_symbols: JITDylib | None = None,
    ) -> None:
        self.session = session
        self.layer = layer
        self.states: dict[JITDylib, DylibState] = {}
        # Held while initialisers run, which may call ``dlopen``.
        self._lock = LoaderLock()
        # Those of the program that `run_main` is running.
        self._program_arguments: PlacedArguments | None = None
        self._process_symbols = process_symbols
        self._per_dylib_generator = PerDylibGenerator(self)
        self.dylib = session.create_jitdylib("<platform>")
        if process_symbols is not None:
            process_symbols.add_generator(ProviderGenerator())
        layer.adds_initializer_symbols = True
        session.register_resource_manager(self)
        at_exit.close_when_python_ends(self)

    # What depends on the runtime

    @abstractmethod
    async def handle_actions(self, dylib: JITDylib, symbol: Symbol) -> Sequence[AllocActionPair]:
        """Allocation actions that register a JITDylib with the runtime and deregister it.

        Args:
            dylib: the JITDylib.
            symbol: its `__dso_handle`, in a graph that is about to be linked.
        """

    @abstractmethod
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

    def initialize_at_once(self, dylib: JITDylib) -> bool:  # noqa: ARG002 - for subclasses
        """`initialize` if there is nothing to link and nothing to run; on the driver thread.

        Returns:
            Whether it was done. If not, nothing has changed.
        """
        return False

    @abstractmethod
    def deinitialize(self, dylib: JITDylib) -> None:
        """Close a JITDylib that `initialize` has opened, on the calling thread.

        Raises:
            SessionError: the JITDylib was not set up.
        """

    @abstractmethod
    def close_all(self) -> None:
        """Close all open JITDylibs, the last one first; nothing if the session has ended."""

    def close(self) -> None:
        """Close all JITDylibs, the last one first; nothing if the session has ended.

        Raises:
            BaseException: what a Python function raised that an exit handler has called.
        """
        at_exit.forget(self)
        self.close_all()

    def close_at_exit(self) -> None:
        """Close the JITDylibs that may call Python, which ends; by default all of them.

        The C library's exit handlers close the others.
        """
        self.close_all()

    def run_main(
        self,
        dylib: JITDylib,
        address: int,
        argv: Sequence[str],
        *,
        also: Sequence[JITDylib] = (),
        name: str | None = None,
    ) -> int:
        """Run a program as a process does: initialisers, ``main``, exit handlers, finalisers.

        All open JITDylibs are closed afterwards. If the program calls ``exit``, this process
        ends. Threads that the program has left behind run on.

        Args:
            dylib: the program.
            address: address of its ``main``.
            argv: its arguments, its name first.
            also: JITDylibs to be initialised before the program.
            name: the program's name if there are no arguments.

        Returns:
            What ``main`` returned.

        Raises:
            JITLinkError: something that has initialisers could not be linked; nothing was run.
        """
        self.session.check_executor()
        executor = self.session.executor
        arguments = self.drive(executor.begin_program(argv, name))
        try:
            self._program_arguments = arguments
            for other in also:
                self.initialize(other, argv)
            self._initialize_program(dylib, argv)
            try:
                self.session.settle()
                return self.drive(executor.call_main(address, arguments))
            finally:
                self.close_all()
        finally:
            self._program_arguments = None
            # As natively: what handlers have printed comes out with the rest.
            self.drive(executor.end_program())

    def _initialize_program(self, dylib: JITDylib, argv: Sequence[str]) -> None:
        """Open the JITDylib of a program, whose ``main`` is about to run."""
        self.initialize(dylib, argv)

    # JITDylibs and their handles

    def setup_jitdylib(self, dylib: JITDylib) -> None:
        """Set up a JITDylib that has no definitions yet; nothing if it is set up already.

        Raises:
            JITDylibDefunctError: it was removed.
        """
        self.session.run(lambda: self._setup(dylib))

    def _setup(self, dylib: JITDylib) -> None:
        if dylib in self.states:
            return
        order = list(dylib.link_order)
        names = [linked for linked, _ in order]
        process = self._process_symbols
        position = names.index(process) if process in names else len(order)
        order.insert(position, (self.dylib, JITDylibLookupFlags.MATCH_EXPORTED_ONLY))
        dylib.set_link_order(order, link_against_this=False)
        self._create_state(dylib)

    def _create_state(self, dylib: JITDylib) -> None:
        """Give a JITDylib its state, and the generator of its handle and per-dylib functions."""
        dylib.add_generator(self._per_dylib_generator, last=True)
        self.states[dylib] = DylibState(dylib, dylib.create_resource_tracker())

    def mark_python_caller(self, dylib: JITDylib) -> None:
        """Have a JITDylib closed while Python functions can still be called, when Python ends."""

        def mark() -> None:
            self.state_of(dylib).may_call_python = True

        self.session.run(mark)

    def reset_handle(self, state: DylibState) -> None:
        """Have the handle and per-dylib functions defined anew; the former ones were removed."""
        state.handle, state.tracker = 0, state.dylib.create_resource_tracker()

    def state_of(self, dylib: JITDylib) -> DylibState:
        """The state of a JITDylib; on the driver thread.

        Raises:
            SessionError: it was not set up.
        """
        state = self.states.get(dylib)
        if state is None:
            raise SessionError(f"JITDylib {dylib.name} was not set up by the platform")
        return state

    def state_of_handle(self, handle: int) -> DylibState:
        """The state of the JITDylib with a handle; on other threads than the driver thread.

        Raises:
            SessionError: there is none.
        """
        states = self.session.run(lambda: list(self.states.values()))
        for state in states:
            if state.handle == handle:
                return state
        raise SessionError(f"{handle:#x} is not the handle of a JITDylib")

    async def handle_of(self, state: DylibState) -> int:
        """The handle of a JITDylib, linked now if it has not been."""
        if not state.handle:
            await self.session.lookup_async([(state.dylib, _ALL)], DSO_HANDLE)
        return state.handle

    def read_per_dylib_functions(self, builder: InputReader, defined: Container[str]) -> None:
        """Read the per-dylib functions that a program refers to.

        So they are linked with the program, and not afterwards, object by object. Names of a
        program that is a single object are not indexed yet; the functions that it refers to are
        looked up when it is linked.

        Args:
            builder: has read all of the program.
            defined: names that something else in its JITDylib defines.
        """
        resolver, objects = builder.resolver, self.per_dylib_functions
        if not resolver.is_indexed:
            return
        names = [n for n in resolver.undefined_among(objects.keys()) if n not in defined]
        if names:
            first = builder.target_graph.symbol_table.rows
            builder.add([self.open_object(o) for o in sorted({objects[n] for n in names})])
            resolver.hide_from(first)

    def open_object(self, name: str) -> InputFile:
        """The prebuilt object of a name among `per_dylib_functions`."""
        return open_object(self.session.executor.triple, name)

    async def add_allocation_functions(self, dylib: JITDylib, names: Mapping[str, bool]) -> None:
        """Define functions that allocate for a JITDylib, if it defines ``malloc``.

        Args:
            dylib: the JITDylib.
            names: what it looks up and does not define.

        Raises:
            AllocatorError: memory of the process's allocator would get to the other one.
        """
        if self._process_symbols is not None:
            from jitlink.platform import allocators  # noqa: PLC0415 - many programs need it not

            await allocators.add_functions(self, dylib, names, self._process_symbols)

    async def add_split_stacks(self, dylib: JITDylib, names: Mapping[str, bool]) -> None:
        """Define what code with split stacks needs, as a compiler driver does.

        Args:
            dylib: the JITDylib.
            names: what it looks up and does not define.
        """
        if self._process_symbols is not None and dylib.is_linked_against(self._process_symbols):
            from jitlink.platform.split_stacks import add_split_stacks  # noqa: PLC0415 - seldom

            await add_split_stacks(self, dylib, names, self._process_symbols)

    async def define_handle(self, dylib: JITDylib, graph: LinkGraph) -> Symbol | None:  # noqa: ARG002
        """Define the handle of a JITDylib in a graph that refers to it, if that is possible.

        A graph that defines the name itself has the handle, too.

        The graph must be all that is ever linked into the JITDylib, except for what the platform
        adds. To be followed by `adopt_handle` once it is linked; on the driver thread.

        Returns:
            The handle's symbol, or None if the graph defines none: if need be the handle is then
            linked by itself.
        """
        return None

    def adopt_handle(self, dylib: JITDylib, symbol: Symbol) -> None:
        """Make what `define_handle` has returned the handle of the JITDylib."""
        self.states[dylib].handle = symbol.address

    async def link_initializers(self, dylib: JITDylib) -> None:
        """Look up the initializer symbols of a JITDylib and of those in its link order."""
        while True:
            # A link may add initializer symbols.
            order = dependencies_first([dylib], self.states)
            pending: list[tuple[JITDylib, dict[str, bool]]] = []
            for state in order:
                names = unlinked_initializers(state.dylib)
                if names:
                    pending.append((state.dylib, dict.fromkeys(names, False)))
            if not pending:
                return
            for owner, symbols in pending:
                await self.session.lookup_async([(owner, _ALL)], symbols)
                for name in symbols:
                    owner.initializers.pop(name, None)

    # Calls into the executor

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run an executor's coroutine; code of this process runs on the calling thread."""
        if self.session.executor.is_this_process:
            return run_in_process(coroutine)
        return self.session.wait(coroutine)

    # For the session; on the driver thread

    def restart_obstacles(self) -> Iterable[str]:
        """The platform itself, unless it can be set up again."""
        return [f"the JITDylibs of {type(self).__name__}"]

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """The JITDylibs that were given addresses, which may be those of Python functions."""
        return [state.dylib for state in self.states.values() if state.may_call_python]

    def handle_remove_jitdylib(self, dylib: JITDylib) -> None:
        """Forget a JITDylib."""
        self.states.pop(dylib, None)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Nothing: the plugin moves the records of links."""


PlatformCreator = Callable[[ExecutionSession, ObjectLinkingLayer, JITDylib | None], Platform]
"""Creates the platform of a session, from its layer and the JITDylib of the process's symbols."""


class PerDylibGenerator:
    """Generates the definitions of which each JITDylib has its own copy.

    They are its handle and the functions that use it. Only its own code sees them.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Add units for the handle and for the objects that define names."""
        if kind is LookupKind.DLSYM or flags is JITDylibLookupFlags.MATCH_EXPORTED_ONLY:
            return
        platform = self._platform
        functions = platform.per_dylib_functions
        if platform.has_allocation_functions and not ALLOCATOR_NAMES.isdisjoint(names):
            await platform.add_allocation_functions(dylib, names)
        if MORESTACK in names:
            await platform.add_split_stacks(dylib, names)
        objects = {functions[name]: None for name in sorted(functions.keys() & names.keys())}
        if not objects and DSO_HANDLE not in names:
            return
        tracker = platform.states[dylib].tracker
        dylib.put_first(tracker)
        if DSO_HANDLE in names:
            dylib.add_unit(DSOHandleUnit(platform), tracker)
        for name in objects:
            dylib.add_unit(PerDylibFunctionsUnit(platform, name), tracker)


class DSOHandleUnit(MaterializationUnit):
    """Defines the `__dso_handle` of a JITDylib, and registers the JITDylib with the runtime."""

    is_generated = True

    def __init__(self, platform: Platform) -> None:
        self.name = "<handle>"
        self.symbols = {DSO_HANDLE: JITSymbolFlags.NONE}
        self._platform = platform

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link one word, with the actions that register its address."""
        platform, dylib = self._platform, responsibility.dylib
        target = target_of_triple(platform.session.executor.triple)
        graph = target.new_graph(f"<handle of {dylib.name}>")
        section = graph.create_section(HANDLE_SECTION, MemProt.READ)
        word = bytes(graph.pointer_size)
        block = graph.create_content_block(section, word, 0, graph.pointer_size)
        symbol = graph.add_defined_symbol(block, 0, DSO_HANDLE, len(word), scope=Scope.HIDDEN)
        graph.alloc_actions += await platform.handle_actions(dylib, symbol)
        await platform.layer.emit(responsibility, graph)
        platform.states[dylib].handle = symbol.address


class PerDylibFunctionsUnit(MaterializationUnit):
    """Defines the functions of one prebuilt object, weakly: a program may define its own."""

    is_generated = True

    def __init__(self, platform: Platform, name: str) -> None:
        self.name = name
        flags = JITSymbolFlags.WEAK | JITSymbolFlags.CALLABLE
        functions = platform.per_dylib_functions
        self.symbols = {each: flags for each in functions if functions[each] == name}
        self._platform = platform

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the object."""
        builder = InputReader()
        builder.add([self._platform.open_object(self.name)])
        builder.resolver.finish()
        await self._platform.layer.emit(responsibility, builder.target_graph)


class ProviderGenerator:
    """Generates symbols of libraries that are loaded when a name needs them."""

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that such a library has."""
        addresses = await find_in_providers(dylib.session.executor, list(names))
        found = {
            name: ExecutorSymbolDef(address, JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE)
            for name, address in addresses.items()
            if name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found, is_generated=True))
