"""LLJIT: a ready-made session, with a JITDylib for a program and one for the process's symbols.

::

    with LLJIT() as jit:
        jit.define({"read_sensor": read_sensor})
        jit.add_object("controller.o")
        step = jit.lookup("step")
        step.restype = ctypes.c_double
        step(3)

Names are C names, which are mangled for the executor's platform; with ``raw=True`` they are
linker-level names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.inputs import Input
from jitlink.memory.manager import JITLinkMemoryManager
from jitlink.memory.tls import is_tls_address
from jitlink.orc.callables import ExecutorAddr, PythonSymbols
from jitlink.orc.compiler_support import CompilerSupportGenerator
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.generators import DynamicLibraryGenerator, StaticLibraryGenerator
from jitlink.orc.interface import HostSymbol, JITSymbolFlags, ResourceTracker
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.runtime import has_runtime

if TYPE_CHECKING:
    from jitlink.platform import Platform, PlatformCreator

LayerCreator = Callable[[ExecutionSession, str], ObjectLinkingLayer]
"""Creates the object linking layer for a session and the target triple of its executor."""

_UNDERSCORE_SYSTEMS = ("darwin", "macos", "ios", "tvos", "watchos", "xros")


def global_prefix(triple: str) -> str:
    """The prefix of C symbols on a platform."""
    architecture, _, system = triple.partition("-")
    # The last two parts may be a system and an environment; the vendor comes first.
    if any(part.startswith(_UNDERSCORE_SYSTEMS) for part in system.split("-")):
        return "_"
    is_32_bit_x86 = architecture in {"i386", "i486", "i586", "i686", "x86"}
    return "_" if is_32_bit_x86 and "windows" in system else ""


def _elf_platform(*, is_direct: bool) -> PlatformCreator:
    # Imported on use: many sessions have no platform, or another one.
    if is_direct:
        from jitlink.platform.emulated import EmulatedPlatform  # noqa: PLC0415

        return EmulatedPlatform
    from jitlink.platform import ELFPlatform  # noqa: PLC0415

    return ELFPlatform


class LLJIT:
    """A session with a program's JITDylib, an object linking layer and a platform.

    Args:
        executor: the executor to link for; by default this process.
        memory_manager: the memory manager of the default layer; by default the executor's.
        layer_creator: creates the object linking layer.
        process_symbols: whether undefined symbols are searched in the process.
        platform: whether to run initialisers and exit handlers, and to register frames for
            exceptions; by default wherever that is supported. Or a function that creates another
            platform, such as `jitlink.platform.orc_runtime`.
        compiler_support: whether functions of the compilers' support libraries that the process
            lacks are linked from the installed compilers.
        executable_stack: link objects whose code needs executable stacks, and make those of all
            threads of the executor executable, for good; by default such objects are refused.
        writable_code: link sections that are both writable and executable, and map them so, for
            code that changes itself; whatever can be made to write there can then become code. By
            default they are refused.
        visible: whether the program's JITDylib is visible in the process; see `create_jitdylib`.
        address_limit: the address limit of the JITDylibs that it creates, see `create_jitdylib`.

    Attributes:
        session: the session.
        layer: the object linking layer.
        main: the program's JITDylib, the default of all methods.
        process_symbols: the JITDylib of the process's symbols, which the others are linked
            against; None without.
        platform: runs initialisers and exit handlers; None without.

    Raises:
        UnsupportedObjectError: a platform is requested that does not support the executor.
        ExecutorError: `visible` is requested, and the executor or the memory manager does not
            support it.
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
        executable_stack: bool = False,
        writable_code: bool = False,
        visible: bool = False,
        address_limit: int = NO_ADDRESS_LIMIT,
    ) -> None:
        self._address_limit = address_limit
        self.session = ExecutionSession(executor)
        self.platform: Platform | None = None
        try:
            triple = self.session.executor.triple
            self._prefix = global_prefix(triple)
            if layer_creator is not None:
                self.layer = layer_creator(self.session, triple)
            else:
                self.layer = ObjectLinkingLayer(self.session, memory_manager)
            if self.session.executor.code_map is not None:
                # Imported on use: that of this process is not recorded by default.
                from jitlink.orc.code_map import CodeMapPlugin  # noqa: PLC0415

                self.layer.add_plugin(CodeMapPlugin(self.session.executor.code_map))
            if executable_stack:
                self.layer.executable_stack = True
            if writable_code:
                self.layer.writable_code = True
            self.process_symbols: JITDylib | None = None
            if process_symbols:
                self.process_symbols = self.session.create_jitdylib("<process symbols>")
                generator = DynamicLibraryGenerator.for_process(self.session)
                self.process_symbols.add_generator(generator)
                for path in self.session.executor.static_libraries:
                    archive = StaticLibraryGenerator(self.layer, path)
                    self.process_symbols.add_generator(archive)
                if compiler_support:
                    self.process_symbols.add_generator(CompilerSupportGenerator(self.layer))
            is_direct = self.session.executor.direct_calls is not None
            if platform or (platform is None and (is_direct or has_runtime(triple))):
                create = platform if callable(platform) else _elf_platform(is_direct=is_direct)
                self.platform = create(self.session, self.layer, self.process_symbols)
            self.main = self.create_jitdylib("main", visible=visible)
        except BaseException:
            self.session.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session and free its memory; a second call does nothing.

        With a platform, exit handlers and finalisers run first, on this thread.

        Raises:
            JITLinkError: some resources could not be released; all others were.
            BaseException: raised by a Python function that an exit handler called.
        """
        platform, self.platform = self.platform, None
        try:
            if platform is not None:
                platform.close()
        finally:
            self.session.end()

    def restart_executor(self) -> None:
        """Start another process in place of the executor's, and have all there again that was.

        See `ExecutionSession.restart_executor`.

        Raises:
            NotRestartableError: something could not be linked again; nothing has happened.
            ExecutorError: the executor is this process, or cannot be started, or has ended again.
            JITLinkError: something could not be linked or initialised; the executor was restarted.
        """
        self.session.restart_executor()

    def mangle(self, name: str) -> str:
        """The linker-level name of a C symbol."""
        return self._prefix + name

    def _name(self, name: str, raw: bool) -> str:
        return name if raw else self.mangle(name)

    def create_jitdylib(
        self,
        name: str,
        *,
        process_symbols: bool = True,
        visible: bool = False,
        address_limit: int | None = None,
    ) -> JITDylib:
        """Create a JITDylib.

        Args:
            name: its name.
            process_symbols: whether it is linked against the process's symbols.
            visible: whether the process lists it, under its name, with its segments and symbols, as
                a shared library, and binds libraries that are loaded later to its symbols.
            address_limit: all memory of what is linked into it is below this address, ``1 << 31``
                for code that holds addresses in 32 bits. What is added before anything is linked
                lowers it where needed. By default that of the session.

        Raises:
            SessionError: there is one of that name.
            ExecutorError: `visible` is requested, and the executor or the memory manager does not
                support it.
        """
        dylib = self.session.create_jitdylib(name)
        dylib.limit_addresses(self._address_limit if address_limit is None else address_limit)
        if process_symbols and self.process_symbols is not None:
            dylib.add_to_link_order(self.process_symbols)
        if self.platform is not None:
            self.platform.setup_jitdylib(dylib)
        if visible:
            # Imported on use: few JITDylibs are visible.
            from jitlink.orc.images import make_visible  # noqa: PLC0415

            make_visible(self.layer, dylib, name)
        return dylib

    def initialize(self, dylib: JITDylib | None = None) -> None:
        """Run the initialisers of a JITDylib that have not run, on this thread.

        Those of the JITDylibs that it is linked against run first. All definitions with
        initialisers are materialized, looked up or not.

        Args:
            dylib: the JITDylib; by default the program's.

        Raises:
            SessionError: the session has no platform.
            JITLinkError: a link failed; no initialiser was run.
        """
        self._platform().initialize(dylib or self.main)

    def deinitialize(self, dylib: JITDylib | None = None) -> None:
        """Run the exit handlers and finalisers of a JITDylib, the last one first, on this thread.

        Those of the JITDylibs that it is linked against run, too, unless these are still needed.

        Args:
            dylib: the JITDylib; by default the program's.

        Raises:
            SessionError: the session has no platform.
        """
        self._platform().deinitialize(dylib or self.main)

    def _platform(self) -> Platform:
        if self.platform is None:
            raise SessionError("the session was created without a platform, or is closed")
        return self.platform

    def create_resource_tracker(self, dylib: JITDylib | None = None) -> ResourceTracker:
        """Create a tracker for definitions that `remove` is to remove."""
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
            tracker: owns it; its JITDylib is the object's.
            dylib: the JITDylib, without a tracker.

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
        """Add a static archive, whose members define otherwise undefined symbols.

        Args:
            source: path or bytes; the file must not be changed before the session ends.
            tracker: owns the members that are loaded by force; other members are owned by the
                JITDylib's default tracker.
            force_load: add all members now, needed or not.
            dylib: the JITDylib, without a tracker.

        Raises:
            InputError: the archive cannot be read.
            DuplicateDefinitionError: a member that is loaded by force defines an existing symbol.
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
        """Add a graph; the session owns it from then on.

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
            symbols: addresses or functions by name; see `HostSymbol` for the C types of functions.
            tracker: owns them; its JITDylib is theirs.
            raw: whether the names are linker-level names.
            dylib: the JITDylib, without a tracker.

        Raises:
            TypeError: a value is neither an address nor a function with C types.
            DuplicateDefinitionError: a strong definition exists already; nothing was defined.
            SessionError: there are functions, and the executor is another process.
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
        """Materialize a symbol, and return its address.

        The address is an int and can be called like a ctypes function; a call of what is not in
        executable memory is a `NotAFunctionError`. It keeps nothing alive: it is valid until the
        symbol is removed or the session closed. For a thread-local variable it is that of the
        calling thread's instance.

        Args:
            name: the symbol.
            raw: whether the name is a linker-level name.
            dylib: the JITDylib that is searched, hidden symbols included; by default the
                program's.

        Raises:
            UndefinedSymbolError: it is undefined.
            FailedToMaterializeError: it could not be linked; the cause is chained.
        """
        wanted, executor = self._name(name, raw), self.session.executor
        generation = None
        while generation != executor.generation:
            # Another thread may restart the executor.
            generation = executor.generation
            address, flags = self.session.lookup(dylib or self.main, wanted)[wanted]
        tls = self.layer.memory.tls
        if is_tls_address(address) and tls is not None:
            address = tls.tls_address(address)
        # A call of data in another process is reported by that.
        is_proven = flags & JITSymbolFlags.CALLABLE or not executor.is_this_process
        unproven = None if is_proven else name
        return ExecutorAddr(address, executor, unproven=unproven, generation=generation)

    def remove(self, tracker: ResourceTracker) -> None:
        """Remove the definitions that a tracker owns, and free their memory.

        Raises:
            JITLinkError: some resources could not be released; the definitions are removed.
        """
        tracker.remove()


class LLJITBuilder:
    """Builds an `LLJIT`, as its constructor does; every setter returns the builder."""

    def __init__(self) -> None:
        self._executor: ExecutorProcessControl | None = None
        self._memory_manager: JITLinkMemoryManager | None = None
        self._layer_creator: LayerCreator | None = None
        self._process_symbols = True
        self._platform: bool | PlatformCreator | None = None
        self._compiler_support = True
        self._executable_stack = False
        self._writable_code = False
        self._visible = False
        self._address_limit = NO_ADDRESS_LIMIT

    def set_executor(self, executor: ExecutorProcessControl) -> Self:
        """Link for another executor than this process."""
        self._executor = executor
        return self

    def set_memory_manager(self, manager: JITLinkMemoryManager) -> Self:
        """Replace the executor's memory manager."""
        self._memory_manager = manager
        return self

    def set_object_linking_layer_creator(self, creator: LayerCreator) -> Self:
        """Create the object linking layer by a function of the session and the triple."""
        self._layer_creator = creator
        return self

    def set_link_process_symbols(self, wanted: bool) -> Self:
        """Set whether undefined symbols are searched in the process."""
        self._process_symbols = wanted
        return self

    def set_platform(self, wanted: bool | PlatformCreator) -> Self:
        """Set whether, or by which platform, initialisers and exit handlers run; see `LLJIT`."""
        self._platform = wanted
        return self

    def set_compiler_support(self, wanted: bool) -> Self:
        """Set whether functions of the compilers' support libraries are linked."""
        self._compiler_support = wanted
        return self

    def set_executable_stack(self, wanted: bool) -> Self:
        """Set whether objects whose code needs executable stacks are linked; see `LLJIT`."""
        self._executable_stack = wanted
        return self

    def set_writable_code(self, wanted: bool) -> Self:
        """Set whether sections may be both writable and executable; see `LLJIT`."""
        self._writable_code = wanted
        return self

    def set_visible(self, wanted: bool) -> Self:
        """Set whether the program's JITDylib is visible in the process; see `LLJIT`."""
        self._visible = wanted
        return self

    def set_address_limit(self, limit: int) -> Self:
        """Set the address limit of the JITDylibs that it creates; see `LLJIT`."""
        self._address_limit = limit
        return self

    def create(self) -> LLJIT:
        """Create the `LLJIT`."""
        return LLJIT(
            executor=self._executor or SelfExecutorProcessControl.shared(),
            memory_manager=self._memory_manager,
            layer_creator=self._layer_creator,
            process_symbols=self._process_symbols,
            platform=self._platform,
            compiler_support=self._compiler_support,
            executable_stack=self._executable_stack,
            writable_code=self._writable_code,
            visible=self._visible,
            address_limit=self._address_limit,
        )
