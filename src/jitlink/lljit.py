"""LLJIT: a session that is ready to use, with one JITDylib for a program and one for the process.

::

    with LLJIT() as jit:
        jit.define({"read_sensor": read_sensor})
        jit.add_object("controller.o")
        step = jit.lookup("step")
        step.restype = ctypes.c_double
        step(3)

Names are spelled as in C and mangled as the executor's platform wants it; with ``raw=True``
they are the linker's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.inputs import Input
from jitlink.memory.manager import JITLinkMemoryManager
from jitlink.memory.tls import is_tls_address
from jitlink.orc.callables import ExecutorAddr, HostSymbol, PythonSymbols
from jitlink.orc.compiler_support import CompilerSupportGenerator
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.generators import DynamicLibraryGenerator, StaticLibraryGenerator
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.runtime import has_runtime

if TYPE_CHECKING:
    from jitlink.platform import Platform, PlatformCreator

LayerCreator = Callable[[ExecutionSession, str], ObjectLinkingLayer]
"""Makes the object linking layer of a session, whose executor has this target triple."""

_UNDERSCORE_SYSTEMS = ("darwin", "macos", "ios", "tvos", "watchos", "xros")


def global_prefix(triple: str) -> str:
    """What a platform puts in front of the names of C symbols."""
    architecture, _, system = triple.partition("-")
    # The last two parts may be a system and an environment; the vendor comes first.
    if any(part.startswith(_UNDERSCORE_SYSTEMS) for part in system.split("-")):
        return "_"
    is_32_bit_x86 = architecture in {"i386", "i486", "i586", "i686", "x86"}
    return "_" if is_32_bit_x86 and "windows" in system else ""


class LLJIT:
    """A session with a program's JITDylib, and everything that is usually wanted around it.

    Args:
        executor: where code is linked to; by default this process.
        memory_manager: where memory comes from, by default the executor's; for the layer that
            is made if there is no `layer_creator`.
        layer_creator: makes the object linking layer.
        process_symbols: whether names that nobody defines are looked for in the process.
        platform: whether to run initialisers and exit handlers, and to let exceptions through;
            by default wherever that is possible. Or what makes another platform for that, such
            as `jitlink.platform.orc_runtime`.
        compiler_support: whether functions of the compilers' support libraries, which the process
            lacks, are looked for beside the compilers that are installed here.

    Attributes:
        session: the session.
        layer: links what is added.
        main: the program's JITDylib, where everything goes that is added without naming one.
        process_symbols: the JITDylib of the process's symbols, which the others are linked
            against; None if there is none.
        platform: what runs initialisers and exit handlers; None without.

    Raises:
        UnsupportedObjectError: a platform is wanted, and there is none for the executor.
    """

    def __init__(
        self,
        *,
        executor: ExecutorProcessControl | None = None,
        memory_manager: JITLinkMemoryManager | None = None,
        layer_creator: LayerCreator | None = None,
        process_symbols: bool = True,
        platform: bool | PlatformCreator | None = None,
        compiler_support: bool = True,
    ) -> None:
        self.session = ExecutionSession(executor)
        self.platform: Platform | None = None
        try:
            triple = self.session.executor.triple
            self._prefix = global_prefix(triple)
            if layer_creator is not None:
                self.layer = layer_creator(self.session, triple)
            else:
                self.layer = ObjectLinkingLayer(self.session, memory_manager)
            self.process_symbols: JITDylib | None = None
            if process_symbols:
                self.process_symbols = self.session.create_jitdylib("<process symbols>")
                generator = DynamicLibraryGenerator.for_process(self.session)
                self.process_symbols.add_generator(generator)
                if compiler_support:
                    self.process_symbols.add_generator(CompilerSupportGenerator(self.layer))
            if platform or (platform is None and has_runtime(triple)):
                # Not imported above: platforms are made of what this module is made of, and
                # most JITs need none.
                from jitlink.platform import ELFPlatform  # noqa: PLC0415

                create = platform if callable(platform) else ELFPlatform
                self.platform = create(self.session, self.layer, self.process_symbols)
            self.main = self.create_jitdylib("main")
        except BaseException:
            self.session.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session and release everything; a second call does nothing.

        With a platform, exit handlers and finalisers run first, on this thread.

        Raises:
            JITLinkError: resources could not be released; everything else was.
            BaseException: what a Python function raised that an exit handler has called.
        """
        platform, self.platform = self.platform, None
        try:
            if platform is not None:
                platform.close()
        finally:
            self.session.end()

    def mangle(self, name: str) -> str:
        """The linker's name of a C symbol."""
        return self._prefix + name

    def _name(self, name: str, raw: bool) -> str:
        return name if raw else self.mangle(name)

    def create_jitdylib(self, name: str, *, process_symbols: bool = True) -> JITDylib:
        """Make a JITDylib.

        Args:
            name: its name.
            process_symbols: whether it is linked against the process's symbols.

        Raises:
            SessionError: there is one of that name.
        """
        dylib = self.session.create_jitdylib(name)
        if process_symbols and self.process_symbols is not None:
            dylib.add_to_link_order(self.process_symbols)
        if self.platform is not None:
            self.platform.setup_jitdylib(dylib)
        return dylib

    def initialize(self, dylib: JITDylib | None = None) -> None:
        """Run the initialisers of a JITDylib that have not run, on this thread.

        Those of what it is linked against run first. What has initialisers is linked for that,
        looked up or not.

        Args:
            dylib: the JITDylib; by default the program.

        Raises:
            SessionError: the JIT has no platform.
            JITLinkError: something could not be linked; no initialiser was run.
        """
        self._platform().initialize(dylib or self.main)

    def deinitialize(self, dylib: JITDylib | None = None) -> None:
        """Run the exit handlers and finalisers of a JITDylib, the last one first, on this thread.

        Those of what it is linked against run, too, unless that is still needed.

        Args:
            dylib: the JITDylib; by default the program.

        Raises:
            SessionError: the JIT has no platform.
        """
        self._platform().deinitialize(dylib or self.main)

    def _platform(self) -> Platform:
        if self.platform is None:
            raise SessionError("the JIT was made without a platform, or is closed")
        return self.platform

    def create_resource_tracker(self, dylib: JITDylib | None = None) -> ResourceTracker:
        """A new owner for what is added, to be given to `remove`."""
        return (dylib or self.main).create_resource_tracker()

    def add_object(
        self,
        source: Input,
        tracker: ResourceTracker | None = None,
        *,
        dylib: JITDylib | None = None,
    ) -> None:
        """Add an object; it is linked when one of its symbols is looked up.

        Args:
            source: path or bytes; the file must not be changed before it is linked.
            tracker: what owns it, and says where it goes.
            dylib: where it goes without a tracker.

        Raises:
            InputError: the object cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        self.layer.add_object(self._place(tracker, dylib), source, tracker)

    def add_archive(
        self,
        source: Input,
        tracker: ResourceTracker | None = None,
        *,
        force_load: bool = False,
        dylib: JITDylib | None = None,
    ) -> None:
        """Let a static archive define what nothing else does.

        Args:
            source: path or bytes; the file must not be changed while the JIT lives.
            tracker: what owns the members that are loaded by force, and says where they go.
                Others belong to the JITDylib.
            force_load: add all members now, needed or not.
            dylib: where they go without a tracker.

        Raises:
            InputError: the archive cannot be read.
            DuplicateDefinitionError: a member that is loaded by force defines what exists.
        """
        place = self._place(tracker, dylib)
        generator = StaticLibraryGenerator(self.layer, source)
        if force_load:
            generator.force_load(place, tracker)
        else:
            place.add_generator(generator)

    def add_graph(
        self,
        graph: LinkGraph,
        tracker: ResourceTracker | None = None,
        *,
        dylib: JITDylib | None = None,
    ) -> None:
        """Add a graph that was built by hand; the JIT owns it from now on.

        Raises:
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker was removed.
        """
        self.layer.add_graph(self._place(tracker, dylib), graph, tracker)

    def define(
        self,
        symbols: Mapping[str, HostSymbol],
        tracker: ResourceTracker | None = None,
        *,
        raw: bool = False,
        dylib: JITDylib | None = None,
    ) -> None:
        """Define addresses, and functions that are implemented in Python.

        Args:
            symbols: addresses or functions by name; see `HostSymbol` for how C types are told.
            tracker: what owns them, and says where they go.
            raw: whether the names are the linker's.
            dylib: where they go without a tracker.

        Raises:
            TypeError: a value is no address and no function whose C types are known.
            DuplicateDefinitionError: a strong definition exists already; nothing was defined.
            SessionError: there are functions, and the code runs in another process.
        """
        named = {self._name(name, raw): value for name, value in symbols.items()}
        self._place(tracker, dylib).define(PythonSymbols(self.session, named), tracker)

    def _place(self, tracker: ResourceTracker | None, dylib: JITDylib | None) -> JITDylib:
        place = dylib or (self.main if tracker is None else tracker.dylib)
        if tracker is not None and tracker.dylib is not place:
            raise ValueError(f"the tracker is of {tracker.dylib.name}, not of {place.name}")
        return place

    def lookup(
        self, name: str, *, raw: bool = False, dylib: JITDylib | None = None
    ) -> ExecutorAddr:
        """Link what a symbol needs, and return its address.

        The address is an int and can be called like a ctypes function. It keeps nothing alive:
        it is good until the symbol is removed or the JIT closed. Of a thread-local variable it is
        that of the calling thread's instance.

        Args:
            name: the symbol.
            raw: whether the name is the linker's.
            dylib: where it is searched, with what is not exported; the program by default.

        Raises:
            UndefinedSymbolError: nothing defines it.
            FailedToMaterializeError: it could not be linked; the cause is chained.
        """
        wanted = self._name(name, raw)
        address = self.session.lookup(dylib or self.main, wanted)[wanted].address
        tls = self.layer.memory.tls
        if is_tls_address(address) and tls is not None:
            address = tls.tls_address(address)
        return ExecutorAddr(address)

    def remove(self, tracker: ResourceTracker) -> None:
        """Remove everything that a tracker owns, and release its memory.

        Raises:
            JITLinkError: resources could not be released; the definitions are gone all the same.
        """
        tracker.remove()


class LLJITBuilder:
    """Puts an `LLJIT` together, as its constructor does; every method returns the builder."""

    def __init__(self) -> None:
        self._executor: ExecutorProcessControl | None = None
        self._memory_manager: JITLinkMemoryManager | None = None
        self._layer_creator: LayerCreator | None = None
        self._process_symbols = True
        self._platform: bool | PlatformCreator | None = None
        self._compiler_support = True

    def set_executor(self, executor: ExecutorProcessControl) -> Self:
        """Link to another executor than this process."""
        self._executor = executor
        return self

    def set_memory_manager(self, manager: JITLinkMemoryManager) -> Self:
        """Take memory from somewhere else than the executor's memory manager."""
        self._memory_manager = manager
        return self

    def set_object_linking_layer_creator(self, creator: LayerCreator) -> Self:
        """Let a function make the object linking layer, from the session and the triple."""
        self._layer_creator = creator
        return self

    def set_link_process_symbols(self, wanted: bool) -> Self:
        """Say whether names that nobody defines are looked for in the process."""
        self._process_symbols = wanted
        return self

    def set_platform(self, wanted: bool | PlatformCreator) -> Self:
        """Say whether, or with what, to run initialisers and exit handlers; see `LLJIT`."""
        self._platform = wanted
        return self

    def set_compiler_support(self, wanted: bool) -> Self:
        """Say whether functions of the compilers' support libraries are looked for."""
        self._compiler_support = wanted
        return self

    def create(self) -> LLJIT:
        """Make the JIT."""
        return LLJIT(
            executor=self._executor or SelfExecutorProcessControl.shared(),
            memory_manager=self._memory_manager,
            layer_creator=self._layer_creator,
            process_symbols=self._process_symbols,
            platform=self._platform,
            compiler_support=self._compiler_support,
        )
