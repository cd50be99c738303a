"""`load`: objects and archives in, callables out.

::

    with jitlink.load("filter.o", "libdsp.a") as lib:
        lib.rms.argtypes = [ctypes.POINTER(ctypes.c_float), ctypes.c_size_t]
        lib.rms.restype = ctypes.c_float
        lib.rms(samples, len(samples))
"""

from __future__ import annotations

import ctypes
import weakref
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from jitlink.errors import UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.exports import Exports
from jitlink.graph import Block, LinkGraph, MemProt
from jitlink.graph.columns import Int64Array
from jitlink.inputs import GraphBuilder, Input, open_input
from jitlink.link import JITLinkContext, PassConfiguration, link, run_in_process
from jitlink.memory.manager import FinalizedAlloc, JITLinkDylib, JITLinkMemoryManager
from jitlink.passes.program import mark_program_live
from jitlink.passes.prune import mark_exported_live
from jitlink.resolve import referrers

Configure = Callable[[LinkGraph, PassConfiguration], None]
_FUNCFLAG_CDECL = 1

CData = TypeVar("CData", bound="ctypes._CDataType")  # noqa: SLF001 - has no other name


class LinkedCode:
    """The memory of one link; it is released once nobody holds this object any more."""

    def __init__(self, memory: JITLinkMemoryManager, alloc: FinalizedAlloc) -> None:
        self._alloc = alloc
        self._finalizer = weakref.finalize(self, _release, memory, alloc)

    def release(self) -> None:
        """Run the deallocate actions and free the memory now; a second call does nothing."""
        self._finalizer()

    def keep(self) -> None:
        """Leave the memory as it is for ever, and run no deallocate actions."""
        if self._finalizer.detach():
            self._alloc.release()


def _release(memory: JITLinkMemoryManager, alloc: FinalizedAlloc) -> None:
    run_in_process(memory.deallocate([alloc]))


class _Function(CFuncPtr):
    """A C function of a library; holds on to the code that it calls."""

    _flags_ = _FUNCFLAG_CDECL
    _restype_ = ctypes.c_int
    code: LinkedCode


class Library(Mapping[str, int]):
    """Linked code: a mapping of names to addresses, and an attribute per function.

    ``lib.add`` is a ctypes function, to be given ``argtypes`` and ``restype`` like one of a
    `ctypes.CDLL`; without those it takes and returns C ints. Every access gives the same
    object. The memory lives until the library is closed or collected *and* no function or
    variable that was taken from it is alive.

    Attributes:
        name: display name.
        linked_files: display names of the objects that were linked, in order.
    """

    def __init__(
        self, name: str, code: LinkedCode, exports: Mapping[str, int], linked_files: list[str]
    ) -> None:
        self.name = name
        self.linked_files = linked_files
        self._code: LinkedCode | None = code
        self._exports = exports

    def __repr__(self) -> str:
        return f"<Library {self.name}>"

    def __getitem__(self, name: str) -> int:
        return self._exports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._exports)

    def __len__(self) -> int:
        return len(self._exports)

    def address(self, name: str) -> int:
        """Address of a symbol that the library defines.

        Raises:
            UndefinedSymbolError: it defines none of that name, or the library is closed.
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
        function = _Function(self.address(name))
        function.code = self._open_code()
        return function

    def variable(self, name: str, ctype: type[CData]) -> CData:
        """A variable of the library, as a ctypes object in place.

        Raises:
            UndefinedSymbolError: the library defines no symbol of that name.
        """
        variable: CData = ctype.from_address(self.address(name))  # type: ignore[assignment]
        # Not every ctypes object takes attributes, so the code is held from outside.
        weakref.finalize(variable, _hold, self._open_code())
        return variable

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        try:
            function = self.function(name)
        except UndefinedSymbolError as error:
            raise AttributeError(str(error)) from error
        self.__dict__[name] = function
        return function

    def _open_code(self) -> LinkedCode:
        if self._code is None:
            raise UndefinedSymbolError([f"any in closed library {self.name}"])
        return self._code

    def close(self) -> None:
        """Let go of the code; it goes when the last function taken from the library does."""
        self._code = None
        self._exports = {}
        for name in [n for n, value in self.__dict__.items() if isinstance(value, _Function)]:
            del self.__dict__[name]

    def keep(self) -> None:
        """Leave the code in memory for as long as the process lives.

        Code that has registered exit handlers must outlive everything that Python releases.
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
    """Nothing: the finalizer's reference to the code is what matters."""


class LibraryContext(JITLinkContext):
    """Links one graph whose external symbols are the process's.

    Args:
        executor: where symbols are looked up.
        dylib: what the graph becomes part of.
        process_symbols: whether to look in the process at all.
        phony_externals: whether symbols that nobody defines get an address all the same.
        dylibs: handles of the executor's libraries to look in before the process.
        roots: rows (int64) of symbols: only the objects that these need are linked. All are
            if it is None.
    """

    def __init__(
        self,
        executor: ExecutorProcessControl,
        dylib: JITLinkDylib,
        *,
        process_symbols: bool = True,
        phony_externals: bool = False,
        dylibs: Sequence[int] = (),
        roots: Int64Array | None = None,
    ) -> None:
        self.executor = executor
        self.dylib = dylib
        self.process_symbols = process_symbols
        self.phony_externals = phony_externals
        self.dylibs = tuple(dylibs)
        self.roots = roots
        self.exports: Mapping[str, int] = {}
        self._graph: LinkGraph | None = None
        self._phony: Block | None = None

    def mark_live(self, graph: LinkGraph) -> None:
        """Keep exported symbols, and the place that phony externals point at."""
        if self.roots is None:
            mark_exported_live(graph)
        else:
            mark_program_live(graph, self.roots)
        if self.phony_externals:
            section = graph.obtain_section("$__PHONY", MemProt.READ)
            self._phony = graph.create_zero_fill_block(section, 64, alignment=64)
            graph.add_anonymous_symbol(self._phony, 0, is_live=True)

    def notify_resolved(self, graph: LinkGraph) -> None:
        """Take down the addresses of what the graph exports."""
        self._graph = graph
        self.exports = Exports(graph)

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Find names in libraries and the process, then make up what may be made up."""
        found: dict[str, int] = {}
        for dylib in (*self.dylibs, *((None,) if self.process_symbols else ())):
            wanted = [name for name in names if name not in found]
            addresses = await self.executor.lookup_symbols(wanted, dylib)
            found |= {n: a for n, a in zip(wanted, addresses, strict=True) if a is not None}
        missing = [name for name, required in names.items() if required and name not in found]
        if missing and self._phony is not None:
            # LLVM differs: phony externals are not null but zeros in reach of the code, so
            # that relocations which cannot reach null do not fail.
            found.update(dict.fromkeys(missing, self._phony.address))
        elif missing:
            raise UndefinedSymbolError(missing, referrers=self._referrers(missing))
        return found

    def _referrers(self, names: list[str]) -> dict[str, list[str]]:
        graph = self._graph
        if graph is None:
            return {}
        found = {name: graph.find_external_symbol_by_name(name) for name in names}
        return referrers(graph, {n: symbol.row for n, symbol in found.items() if symbol})


def link_library(
    builder: GraphBuilder,
    executor: ExecutorProcessControl,
    *,
    process_symbols: bool = True,
    phony_externals: bool = False,
    memory: JITLinkMemoryManager | None = None,
    configure: Configure | None = None,
    dylibs: Sequence[int] = (),
    roots: Sequence[str] | None = None,
) -> Library:
    """Link what a builder has read.

    Args:
        builder: it may be used once.
        executor: where to link.
        process_symbols: as for `load`, which has the errors too.
        phony_externals: likewise.
        memory: where the memory comes from, by default the executor's memory manager.
        configure: as for `load`.
        dylibs: handles of the executor's libraries to look in before the process.
        roots: names that the graph defines: only the objects that these need are linked. All
            are if it is None.
    """
    target, resolver = builder.target, builder.resolver
    graph = resolver.graph
    rows = None if roots is None else np.array([resolver.definitions[n] for n in roots], np.int64)
    resolver.finish()
    manager = memory or executor.memory_manager
    context = LibraryContext(
        executor,
        JITLinkDylib(graph.name),
        process_symbols=process_symbols,
        phony_externals=phony_externals,
        dylibs=dylibs,
        roots=rows,
    )
    passes = target.passes(graph)
    if configure is not None:
        configure(graph, passes)
    alloc = run_in_process(link(graph, context, passes, manager))
    code = LinkedCode(manager, alloc)
    return Library(graph.name, code, context.exports, builder.linked)


def load(
    *inputs: Input,
    all_load: bool = False,
    phony_externals: bool = False,
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
        phony_externals: give symbols that nobody defines an address without a use, instead of
            failing; calling one faults.
        process_symbols: whether undefined symbols may be found in this process.
        definitions: names with fixed addresses, which come before archives and the process.
        aliases: new names for symbols of the inputs.
        configure: called with the graph and its `PassConfiguration` before the link; may add
            passes.
        executor: where to link; by default this process.

    Raises:
        InputError: an input cannot be read.
        SymbolError: a symbol has no definition, or two.
        JITLinkError: the link failed otherwise; nothing is left allocated.
    """
    process = executor or SelfExecutorProcessControl.shared()
    builder = GraphBuilder()
    builder.add([open_input(each, n) for n, each in enumerate(inputs)], all_load=all_load)
    for name, address in (definitions or {}).items():
        builder.define(name, address)
    builder.search_archives(also=list((aliases or {}).values()))
    for alias, name in (aliases or {}).items():
        builder.resolver.alias(alias, name)
    if not process.runs(builder.target.triple):
        code, here = builder.target.triple, process.triple
        message = f"code for {code} does not run in this process, which is {here}"
        raise UnsupportedObjectError(message, file=builder.linked[0])
    return link_library(
        builder, process, process_symbols=process_symbols, phony_externals=phony_externals,
        configure=configure,
    )  # fmt: skip
