"""What platforms have in common: JITDylibs, each of which a runtime knows by a handle."""

from __future__ import annotations

import atexit
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import AllocActionPair, LinkGraph, Symbol
from jitlink.inputs import InputReader
from jitlink.link import run_in_process
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import JITDylibLookupFlags, ResourceManager, ResourceTracker
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.platform.definitions import DSO_HANDLE, PerDylibGenerator, ProviderGenerator
from jitlink.platform.state import DylibState, dependencies_first, unlinked_initializers
from jitlink.runtime import open_object

T = TypeVar("T")
_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS


class Platform(ResourceManager):
    """Takes care of JITDylibs of one session.

    It is to be closed before the session ends. If it is not, what is to run at the end runs on a
    thread of its own while the session ends.

    Args:
        session: the session.
        layer: links what is added to the JITDylibs.
        process_symbols: the JITDylib of the process's symbols, which the platform's own comes
            before; None if linked code is not to see them.

    Attributes:
        session: the session.
        layer: its object linking layer.
        dylib: the platform's own JITDylib.
        states: what is known of each JITDylib that was set up; for the session's thread.
        per_dylib_functions: functions of which each JITDylib has its own copy, and for each the
            name of the prebuilt object that defines it.

    Raises:
        SessionError: the session has a platform already.
    """

    per_dylib_functions: Mapping[str, str] = {}

    def __init__(
        self,
        session: ExecutionSession,
        layer: ObjectLinkingLayer,
        process_symbols: JITDylib | None = None,
    ) -> None:
        self.session = session
        self.layer = layer
        self.states: dict[JITDylib, DylibState] = {}
        # As a dynamic linker's: held while initialisers run, which may come back on their thread.
        self._lock = threading.RLock()
        self._process_symbols = process_symbols
        self._per_dylib_generator = PerDylibGenerator(self)
        self.dylib = session.create_jitdylib("<platform>")
        if process_symbols is not None:
            process_symbols.add_generator(ProviderGenerator())
        layer.adds_initializer_symbols = True
        session.register_resource_manager(self)
        self._at_exit = _close_at_exit(self)

    # What each platform does in its own way

    @abstractmethod
    async def handle_actions(self, dylib: JITDylib, symbol: Symbol) -> Sequence[AllocActionPair]:
        """What makes a JITDylib known to the runtime, and forgotten by it.

        Args:
            dylib: the JITDylib.
            symbol: its `__dso_handle`, in a graph that is about to be linked.
        """

    @abstractmethod
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

    def initialize_at_once(self, dylib: JITDylib) -> bool:  # noqa: ARG002 - for subclasses
        """`initialize` if that takes nothing but to note it; on the session's thread.

        Returns:
            Whether it was done. If not, nothing has changed.
        """
        return False

    @abstractmethod
    def deinitialize(self, dylib: JITDylib) -> None:
        """Close a JITDylib that `initialize` has opened, on the calling thread.

        Raises:
            SessionError: the platform does not take care of the JITDylib.
        """

    @abstractmethod
    def close_all(self) -> None:
        """Close everything that is open, the last one first; nothing if the session has ended."""

    def close(self) -> None:
        """Close all JITDylibs, the last one first; nothing if the session has ended.

        Raises:
            BaseException: what a Python function raised that an exit handler has called.
        """
        atexit.unregister(self._at_exit)
        self.close_all()

    def run_main(self, dylib: JITDylib, address: int, argv: Sequence[str]) -> int:
        """Run a program as a process does: initialisers, ``main``, then all that is to run at exit.

        Everything that is open is closed afterwards. If the program calls ``exit``, this
        process ends. Threads that the program has left behind run on.

        Args:
            dylib: the program.
            address: address of its ``main``.
            argv: its arguments, its name first.

        Returns:
            What ``main`` returned.

        Raises:
            JITLinkError: something that has initialisers could not be linked; nothing was run.
        """
        executor = self.session.executor
        self._initialize_program(dylib, argv)
        try:
            return self.drive(executor.run_as_main(address, argv, is_whole=False))
        finally:
            self.close_all()
            # As natively: what handlers have printed comes out with the rest.
            self.drive(executor.flush_output())

    def _initialize_program(self, dylib: JITDylib, argv: Sequence[str]) -> None:
        """Open the JITDylib of a program, whose ``main`` is about to run."""
        self.initialize(dylib, argv)

    # JITDylibs and their handles

    def setup_jitdylib(self, dylib: JITDylib) -> None:
        """Take care of a JITDylib, to which nothing was added yet; nothing if that is so already.

        Raises:
            JITDylibDefunctError: it was removed.
        """
        self.session.run(lambda: self._setup(dylib))

    def _setup(self, dylib: JITDylib) -> None:
        if dylib in self.states:
            return
        order = list(dylib.link_order)
        names = [each for each, _ in order]
        process = self._process_symbols
        place = names.index(process) if process in names else len(order)
        order.insert(place, (self.dylib, JITDylibLookupFlags.MATCH_EXPORTED_ONLY))
        dylib.set_link_order(order, link_against_this=False)
        self._know(dylib)

    def _know(self, dylib: JITDylib) -> None:
        """Let a JITDylib have a handle, and what else each has its own copy of."""
        dylib.add_generator(self._per_dylib_generator, last=True)
        self.states[dylib] = DylibState(dylib, dylib.create_resource_tracker())

    def forget_handle(self, state: DylibState) -> None:
        """What a JITDylib had of its own is gone, and is defined anew if it is needed."""
        state.handle, state.tracker = 0, state.dylib.create_resource_tracker()

    def state_of(self, dylib: JITDylib) -> DylibState:
        """What is known of a JITDylib; for the session's thread.

        Raises:
            SessionError: it was not set up.
        """
        state = self.states.get(dylib)
        if state is None:
            raise SessionError(f"the platform does not take care of {dylib.name}")
        return state

    def state_with(self, handle: int) -> DylibState:
        """What is known of the JITDylib of that handle; for other threads than the session's.

        Raises:
            SessionError: there is none.
        """
        states = self.session.run(lambda: list(self.states.values()))
        for state in states:
            if state.handle == handle:
                return state
        raise SessionError(f"{handle:#x} is not the handle of a JITDylib")

    def read_per_dylib_functions(self, builder: InputReader, defined: Container[str]) -> None:
        """Read what a program refers to of what each JITDylib has its own copy of.

        So it is linked with the program, and not afterwards, object by object. The names of a
        single object are not known yet; if it refers to any, they are found when it is linked.

        Args:
            builder: has read all of the program.
            defined: names that something else in its JITDylib defines.
        """
        resolver, own = builder.resolver, self.per_dylib_functions
        if not resolver.is_indexed:
            return
        names = [n for n in resolver.undefined_among(own.keys()) if n not in defined]
        if names:
            first = builder.target_graph.symbol_table.rows
            triple = self.session.executor.triple
            builder.add([open_object(triple, each) for each in sorted({own[n] for n in names})])
            resolver.hide_from(first)

    async def define_handle(self, dylib: JITDylib, graph: LinkGraph) -> Symbol | None:  # noqa: ARG002
        """Define the handle of a JITDylib in a graph that refers to it, if that is possible.

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

    async def handle_of(self, state: DylibState) -> int:
        """The handle of a JITDylib, linked now if it is not there yet."""
        if not state.handle:
            await self.session.lookup_async([(state.dylib, _ALL)], DSO_HANDLE)
        return state.handle

    async def link_initializers(self, dylib: JITDylib) -> None:
        """Link all that has initialisers in a JITDylib and in what it is linked against."""
        while True:
            # Links may add to what is to be linked.
            order = dependencies_first([dylib], self.states)
            wanted: list[tuple[JITDylib, dict[str, bool]]] = []
            for each in order:
                names = unlinked_initializers(each.dylib)
                if names:
                    wanted.append((each.dylib, dict.fromkeys(names, False)))
            if not wanted:
                return
            for where, markers in wanted:
                await self.session.lookup_async([(where, _ALL)], markers)
                for name in markers:
                    where.initializers.pop(name, None)

    # Calls into the executor

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run an executor's coroutine; code of this process runs on the calling thread."""
        if isinstance(self.session.executor, SelfExecutorProcessControl):
            return run_in_process(coroutine)
        return self.session.wait(coroutine)

    # Removal; on the session's thread

    def handle_remove_jitdylib(self, dylib: JITDylib) -> None:
        """Forget a JITDylib."""
        self.states.pop(dylib, None)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Take note of a new owner; the plugin has what matters."""


PlatformCreator = Callable[[ExecutionSession, ObjectLinkingLayer, JITDylib | None], Platform]
"""Makes the platform of a session, from its layer and the JITDylib of the process's symbols."""


def _close_at_exit(platform: Platform) -> Callable[[], None]:
    """Close a platform when the interpreter ends: later, Python functions cannot be called."""
    reference = weakref.ref(platform)

    def close() -> None:
        platform = reference()
        if platform is not None:
            platform.close_all()

    atexit.register(close)
    return close
