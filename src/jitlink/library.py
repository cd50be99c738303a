"""`load`: links objects and archives, and makes their functions callable.

::

    with jitlink.load("filter.o", "libdsp.a") as lib:
        lib.rms.argtypes = [ctypes.POINTER(ctypes.c_float), ctypes.c_size_t]
        lib.rms.restype = ctypes.c_float
        lib.rms(samples, len(samples))
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
import weakref
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from jitlink.errors import SymbolError, UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.exports import Exports
from jitlink.graph import LinkGraph
from jitlink.inputs import Input, InputReader, open_input
from jitlink.link import PassConfiguration
from jitlink.lljit import LLJIT
from jitlink.memory.tls import is_tls_address
from jitlink.orc import FailedToMaterializeError, JITDylib, MaterializationResponsibility, Plugin
from jitlink.orc.callables import HostSymbol, PythonSymbols
from jitlink.orc.driver import is_collecting
from jitlink.orc.whole_graph import WholeGraph

Configure = Callable[[LinkGraph, PassConfiguration], None]
FUNCFLAG_CDECL = 1

CData = TypeVar("CData", bound="ctypes._CDataType")  # noqa: SLF001 - has no other name

_numbers = itertools.count(1)


@functools.cache
def _shared_jit() -> LLJIT:
    """The session of all libraries of this process."""
    return LLJIT()


class LinkedCode:
    """A JITDylib that is removed, with its memory, when this object is collected.

    Attributes:
        held: an object that must live as long as the code.
    """

    def __init__(self, jit: LLJIT, dylib: JITDylib) -> None:
        self._layer, self._dylib = jit.layer, dylib
        self.held: object = None
        self._finalizer = weakref.finalize(self, _release, jit, dylib)
        # At the end of the process the platform runs finalisers, and memory is freed with it.
        self._finalizer.atexit = False

    def release(self) -> None:
        """Run the deallocate actions and free the memory now; a second call does nothing."""
        self._finalizer()

    def tls_address(self, address: int) -> int:
        """Address of the calling thread's instance of a thread-local variable.

        Args:
            address: the address that represents the variable.

        Raises:
            TLSError: it represents no variable.
        """
        tls = self._layer.memory.tls
        return address if tls is None else tls.tls_address(address)

    def keep(self) -> None:
        """Never free the memory, and never run its deallocate actions."""
        self._layer.keep_memory(self._dylib)


def _release(jit: LLJIT, dylib: JITDylib) -> None:
    """Remove a JITDylib, or end its session if that is not shared."""
    if jit is _shared_jit():
        jit.session.discard_jitdylib(dylib)
    elif is_collecting():
        threading.Thread(target=jit.close, name="jitlink close", daemon=True).start()
    else:
        jit.close()


class Function(CFuncPtr):
    """A C function of a library; keeps the code that it calls alive."""

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int
    code: LinkedCode


class Library(Mapping[str, int]):
    """Linked code: a mapping of names to addresses, and an attribute per function.

    ``lib.add`` is a ctypes function, to be given ``argtypes`` and ``restype`` like one of a
    `ctypes.CDLL`; without those it takes and returns C ints. Every access gives the same
    object. The memory is freed when the library is closed or collected *and* no function or
    variable of it is alive.

    Attributes:
        name: display name.
        linked_files: display names of the objects that were linked, in order.
        exports: the `definitions` for another link. The mapping itself gives the address of the
            calling thread's instance of a thread-local variable; this gives the address that
            represents the variable on all threads.
    """

    _function_type: ClassVar[type[Function]] = Function

    def __init__(
        self, name: str, code: LinkedCode, exports: Mapping[str, int], linked_files: list[str]
    ) -> None:
        self.name = name
        self.linked_files = linked_files
        self._code: LinkedCode | None = code
        self.exports = exports

    def __repr__(self) -> str:
        return f"<Library {self.name}>"

    def __getitem__(self, name: str) -> int:
        address = self.exports[name]
        if is_tls_address(address):
            return self._open_code().tls_address(address)
        return address

    def __iter__(self) -> Iterator[str]:
        return iter(self.exports)

    def __len__(self) -> int:
        return len(self.exports)

    def address(self, name: str) -> int:
        """Address of a symbol that the library defines.

        For a thread-local variable it is that of the calling thread's instance.

        Raises:
            UndefinedSymbolError: it does not define the symbol, or the library is closed.
        """
        try:
            self._open_code()
            return self[name]
        except KeyError:
            raise UndefinedSymbolError([name]) from None

    def function(self, name: str) -> Any:  # noqa: ANN401 - as its restype says
        """A new ctypes function for a symbol, independent of the attribute of that name.

        Raises:
            UndefinedSymbolError: the library defines no symbol of that name.
        """
        return self._function_at(self.address(name))

    def variable(self, name: str, ctype: type[CData]) -> CData:
        """A variable of the library, as a ctypes object in place.

        Raises:
            UndefinedSymbolError: the library defines no symbol of that name.
        """
        return self._variable_at(self.address(name), ctype)

    def _function_at(self, address: int) -> Any:  # noqa: ANN401
        function = self._function_type(address)
        function.code = self._open_code()
        return function

    def _variable_at(self, address: int, ctype: type[CData]) -> CData:
        variable: CData = ctype.from_address(address)  # type: ignore[assignment]
        # Not every ctypes object has attributes, so a finalizer refers to the code.
        weakref.finalize(variable, _hold, self._open_code())
        return variable

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        try:
            function = self.function(name)
        except SymbolError as error:
            raise AttributeError(str(error)) from error
        self.__dict__[name] = function
        return function

    def _open_code(self) -> LinkedCode:
        if self._code is None:
            raise UndefinedSymbolError([f"any in closed library {self.name}"])
        return self._code

    def close(self) -> None:
        """Release the code; it is freed with the last function of the library."""
        self._code = None
        self.exports = {}
        for name in [n for n, value in self.__dict__.items() if isinstance(value, Function)]:
            del self.__dict__[name]

    def keep(self) -> None:
        """Keep the code in memory until the process ends.

        Code that has registered exit handlers must outlive all Python objects.
        """
        self._open_code().keep()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _hold(code: LinkedCode) -> None:
    """Do nothing: the finalizer exists for its reference to the code."""


class _Configurator(Plugin):
    """Calls a function for every link."""

    def __init__(self, configure: Configure) -> None:
        self._configure = configure

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Call the function."""
        self._configure(graph, config)


def load(
    *inputs: Input,
    all_load: bool = False,
    phony_externals: bool = False,
    executable_stack: bool = False,
    process_symbols: bool = True,
    definitions: Mapping[str, int] | None = None,
    aliases: Mapping[str, str] | None = None,
    configure: Configure | None = None,
    executor: ExecutorProcessControl | None = None,
) -> Library:
    """Link objects and archives into this process.

    Args:
        inputs: paths or bytes of relocatable objects and static archives. All objects are
            linked, and the archive members that they need.
        all_load: link all members of the archives.
        phony_externals: give undefined symbols unused addresses, instead of failing; calling one
            faults.
        executable_stack: link objects whose code needs executable stacks, and make those of all
            threads of the process executable, for good; any overflow of a buffer on a stack can
            then become code. By default such objects are refused.
        process_symbols: whether to search undefined symbols in this process.
        definitions: absolute symbols, which take precedence over archives and the process.
        aliases: new names for symbols of the inputs.
        configure: called with the graph and its `PassConfiguration` before the link; may add
            passes.
        executor: the executor to link for; by default this process.

    Raises:
        InputError: an input cannot be read.
        SymbolError: a symbol has no definition or two.
        ExecutableStackError: an object needs executable stacks.
        JITLinkError: the link failed otherwise; nothing is left allocated.
    """
    builder = InputReader()
    builder.add([open_input(each, n) for n, each in enumerate(inputs)], all_load=all_load)
    for name, address in (definitions or {}).items():
        builder.define(name, address)
    builder.search_archives(also=list((aliases or {}).values()))
    for alias, name in (aliases or {}).items():
        builder.resolver.alias(alias, name)
    files = list(builder.linked)
    code, exports = link_inputs(
        builder,
        {},
        phony_externals=phony_externals,
        executable_stack=executable_stack,
        may_call_python=bool(definitions),
        process_symbols=process_symbols,
        configure=configure,
        executor=executor,
    )
    return Library(builder.target_graph.name, code, exports, files)


def link_inputs(
    builder: InputReader,
    symbols: Mapping[str, HostSymbol],
    *,
    phony_externals: bool,
    executable_stack: bool,
    may_call_python: bool = False,
    process_symbols: bool,
    configure: Configure | None,
    executor: ExecutorProcessControl | None,
) -> tuple[LinkedCode, Exports]:
    """Link the inputs of a reader.

    Args:
        builder: the reader.
        symbols: more definitions, of names that the inputs do not define.
        phony_externals: see `load`, as for the others.
        executable_stack: whether stacks may be made executable.
        may_call_python: whether the reader has absolute symbols, which may be Python functions.
        process_symbols: whether to search undefined symbols in this process.
        configure: called before the link.
        executor: the executor to link for.

    Raises:
        JITLinkError: the link failed; nothing is left allocated.
        TypeError: C code could not use one of the symbols.
    """
    process = executor or SelfExecutorProcessControl.shared()
    if not process.runs(builder.target.triple):
        code, here = builder.target.triple, process.triple
        message = f"code for {code} does not run in this process, which is {here}"
        raise UnsupportedObjectError(message, file=builder.linked[0])
    jit = _jit(executor, configure)
    try:
        if jit.platform is not None:
            jit.platform.read_per_dylib_functions(builder, symbols)
        builder.resolver.finish()
        graph = builder.target_graph
        whole = WholeGraph(
            jit.layer,
            graph,
            phony_externals=phony_externals,
            executable_stack=executable_stack,
        )
        dylib, is_initialized = _link(jit, whole, graph, symbols, process_symbols=process_symbols)
        if may_call_python and jit.platform is not None:
            jit.platform.mark_python_caller(dylib)
    except BaseException:
        if jit is not _shared_jit():
            jit.close()
        raise
    linked = LinkedCode(jit, dylib)
    try:
        if not is_initialized:
            jit.initialize(dylib)
    except BaseException:
        linked.release()
        raise
    return linked, whole.exports


def _link(
    jit: LLJIT,
    whole: WholeGraph,
    graph: LinkGraph,
    symbols: Mapping[str, HostSymbol],
    *,
    process_symbols: bool,
) -> tuple[JITDylib, bool]:
    """Link a graph into a new JITDylib; raises the first cause of a failure.

    Returns:
        The JITDylib, and whether there is nothing to initialise in it.
    """
    name = f"{whole.name}#{next(_numbers)}"
    given = PythonSymbols(jit.session, symbols)
    try:
        return jit.session.wait(
            _link_async(jit, name, whole, graph, given, process_symbols=process_symbols)
        )
    except FailedToMaterializeError as error:
        reason = error.reason
    raise reason


async def _link_async(
    jit: LLJIT,
    name: str,
    whole: WholeGraph,
    graph: LinkGraph,
    given: PythonSymbols,
    *,
    process_symbols: bool,
) -> tuple[JITDylib, bool]:
    """`_link`, on the driver thread."""
    dylib = jit.create_jitdylib(name, process_symbols=process_symbols)
    platform = jit.platform
    try:
        if given.symbols:
            dylib.add_unit(given)
        handle = None if platform is None else await platform.define_handle(dylib, graph)
        await whole.link_into(dylib)
        if platform is None:
            return dylib, True
        if handle is not None:
            platform.adopt_handle(dylib, handle)
        return dylib, platform.initialize_at_once(dylib)
    except BaseException:
        await jit.session.remove_jitdylib_async(dylib)
        raise


def _jit(executor: ExecutorProcessControl | None, configure: Configure | None) -> LLJIT:
    """The shared session, or a new one for a library with its own executor or passes."""
    if executor is None and configure is None:
        return _shared_jit()
    jit = LLJIT(executor=executor)
    if configure is not None:
        jit.layer.add_plugin(_Configurator(configure))
    return jit
