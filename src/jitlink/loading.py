"""`load`: links objects and archives, and makes their functions callable.

::

    with jitlink.load("filter.o", "libdsp.a") as lib:
        lib.rms.argtypes = [ctypes.POINTER(ctypes.c_float), ctypes.c_size_t]
        lib.rms.restype = ctypes.c_float
        lib.rms(samples, len(samples))
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jitlink.errors import UndefinedSymbolError, UnsupportedObjectError
from jitlink.executor import ExecutorProcessControl
from jitlink.exports import Exports
from jitlink.formats.archive_magic import is_archive
from jitlink.graph import LinkGraph, Scope
from jitlink.graph.columns import rows_where
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE
from jitlink.input_reader import InputReader
from jitlink.inputs import Input, InputFile, open_input
from jitlink.library import Library, LinkedCode, is_shared, shared_jit
from jitlink.link import PassConfiguration
from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError, JITDylib, MaterializationResponsibility, Plugin
from jitlink.orc.callables import PythonSymbols
from jitlink.orc.generators import DynamicLibraryGenerator, StaticLibraryGenerator
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    HostSymbol,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
)
from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.tracebacks import shorten
from jitlink.orc.whole_graph import WholeGraph
from jitlink.targets.registry import target_of_graph, target_of_object

Configure = Callable[[LinkGraph, PassConfiguration], None]
Resolve = Callable[[str], HostSymbol | None]
"""What a name is that the inputs do not define, or None."""

_numbers = itertools.count(1)


class LinkOptions(NamedTuple):
    """How `link_inputs` links.

    Attributes:
        phony_externals: see `load`, as for the others.
        executable_stack: whether stacks may be made executable.
        writable_code: whether sections may be writable and executable.
        process_symbols: whether to search undefined symbols in this process.
        resolve: finds names that nothing else defines.
        may_call_python: whether the inputs were given addresses, which may be Python functions.
        image_name: the name under which the process lists the library; None if it does not.
        address_limit: see `load`.
        libraries: shared libraries that are searched before the process.
    """

    phony_externals: bool
    executable_stack: bool
    writable_code: bool
    process_symbols: bool
    resolve: Resolve | None = None
    may_call_python: bool = False
    image_name: str | None = None
    address_limit: int = NO_ADDRESS_LIMIT
    libraries: Sequence[DynamicLibraryGenerator] = ()


def load(
    *inputs: Input,
    all_load: bool = False,
    roots: Sequence[str] = (),
    phony_externals: bool = False,
    executable_stack: bool = False,
    writable_code: bool = False,
    process_symbols: bool = True,
    address_limit: int = NO_ADDRESS_LIMIT,
    libraries: Sequence[str | os.PathLike[str]] = (),
    definitions: Mapping[str, HostSymbol] | None = None,
    resolve: Resolve | None = None,
    aliases: Mapping[str, str] | None = None,
    configure: Configure | None = None,
    executor: ExecutorProcessControl | None = None,
    visible: bool = False,
) -> Library:
    """Link objects and archives into this process.

    Args:
        inputs: paths or bytes of relocatable objects and static archives. All objects are
            linked, and the archive members that they need. Of archives alone, a member is linked
            when a symbol of it is first used.
        all_load: link all members of the archives.
        roots: names that must be defined, for which archives are searched, too.
        phony_externals: give undefined symbols unused addresses, instead of failing; calling one
            faults.
        executable_stack: link objects whose code needs executable stacks, and make those of all
            threads of the process executable, for good; any overflow of a buffer on a stack can
            then become code. By default such objects are refused.
        writable_code: link sections that are both writable and executable, and map them so, for
            code that changes itself; whatever can be made to write there can then become code. By
            default they are refused.
        process_symbols: whether to search undefined symbols in this process.
        address_limit: all memory of the library is below this address, ``1 << 31`` for code that
            others are to refer to in 32 bits. Code of the inputs that holds addresses in 32 bits
            lowers it.
        libraries: shared libraries that are searched before the process, as paths or by their
            names for a linker, such as ``z``. They stay loaded.
        definitions: addresses, ctypes functions or Python functions with their C types, by name;
            see `HostSymbol`. They take precedence over archives and the process. What is given
            here lives as long as the library.
        resolve: called with each name that neither inputs nor definitions define; what it returns
            takes precedence over the process.
        aliases: new names for symbols of the inputs.
        configure: called with the graph and its `PassConfiguration` before the link; may add
            passes.
        executor: the executor to link for; by default this process.
        visible: whether the process lists the library among its own, with its segments and
            symbols, under the name of the first input, and binds libraries that are loaded later
            to its symbols.

    Raises:
        InputError: an input cannot be read.
        ExecutorError: `visible` is requested, and the executor does not support it; or a shared
            library cannot be loaded.
        SymbolError: a symbol has no definition or two.
        ExecutableStackError: an object needs executable stacks.
        WritableCodeError: a section is both writable and executable.
        JITLinkError: the link failed otherwise; nothing is left allocated.
        TypeError: C code could not use one of the definitions.
    """
    files = [open_input(source, n) for n, source in enumerate(inputs)]
    wanted = [*roots, *(aliases or {}).values()]
    is_lazy = bool(files) and not all_load and not wanted
    is_lazy = is_lazy and all(is_archive(file.data) for file in files)
    needs_layer = phony_externals or executable_stack or writable_code
    jit = _jit(executor, configure, is_private=is_lazy and needs_layer)
    options = LinkOptions(
        phony_externals=phony_externals,
        executable_stack=executable_stack,
        writable_code=writable_code,
        process_symbols=process_symbols,
        resolve=resolve,
        may_call_python=bool(definitions),
        image_name=files[0].name if visible and files else None,
        address_limit=address_limit,
    )
    try:
        if libraries:
            opened = [_open_library(jit, os.fspath(each)) for each in libraries]
            options = options._replace(libraries=opened)
        given = PythonSymbols(jit.session, definitions) if definitions else None
        kept = [given]
        if is_lazy:
            jit.layer.phony_externals |= phony_externals
            jit.layer.executable_stack = jit.layer.executable_stack or executable_stack
            jit.layer.writable_code |= writable_code
            code, library = _load_archives(jit, files, given, options)
        else:

            def read() -> InputReader:
                # Once more after a restart, when a library in the executor has other addresses.
                kept[0] = PythonSymbols(jit.session, definitions) if definitions else None
                addresses = kept[0].addresses if kept[0] else {}
                return _read(files, addresses, roots, aliases or {}, all_load=all_load)

            addresses = given.addresses if given else {}
            reader = _read(files, addresses, roots, aliases or {}, all_load=all_load)
            linked = list(reader.linked)
            code, exports = _link_reader(jit, reader, {}, options, read)
            if given is not None and code.is_remote:
                code.dylib.restart_obstacles = list(given.restart_obstacles(given.symbols))
            library = Library(reader.target_graph.name, code, exports, linked)
    except BaseException as error:
        if not is_shared(jit):
            jit.close()
        shorten(error)
        raise
    if definitions:
        code.kept_alive = (kept, _owner(definitions))
    return library


def _read(
    files: Sequence[InputFile],
    addresses: Mapping[str, int],
    roots: Sequence[str],
    aliases: Mapping[str, str],
    *,
    all_load: bool,
) -> InputReader:
    """Read the inputs of `load`, and the archive members that they need."""
    reader = InputReader()
    reader.add(files, all_load=all_load)
    for name, address in addresses.items():
        reader.define(name, address)
    reader.search_archives(also=[*roots, *aliases.values()])
    missing = [name for name in roots if name not in reader.resolver.definitions]
    if missing:
        raise UndefinedSymbolError(missing)
    for alias, name in aliases.items():
        reader.resolver.alias(alias, name)
    return reader


def _open_library(jit: LLJIT, name: str) -> DynamicLibraryGenerator:
    from jitlink.executor.shared_libraries import find_library, open_library  # noqa: PLC0415

    executor = jit.session.executor
    if executor.is_this_process:
        return DynamicLibraryGenerator(open_library(find_library(name)))
    return DynamicLibraryGenerator.load(jit.session, name)


def _owner(definitions: Mapping[str, HostSymbol] | None) -> object:
    """What keeps definitions valid: the code that they are symbols of, or they themselves."""
    if isinstance(definitions, Library):
        definitions = definitions.exports
    return definitions.owner if isinstance(definitions, Exports) else definitions


def link_inputs(
    reader: InputReader,
    symbols: Mapping[str, HostSymbol],
    options: LinkOptions,
    executor: ExecutorProcessControl | None,
) -> tuple[LinkedCode, Exports]:
    """Link the inputs of a reader.

    Args:
        reader: the reader.
        symbols: more definitions, of names that the inputs do not define.
        options: how to link.
        executor: the executor to link for.

    Raises:
        JITLinkError: the link failed; nothing is left allocated.
        TypeError: C code could not use one of the symbols.
    """
    jit = _jit(executor, None)
    try:
        return _link_reader(jit, reader, symbols, options)
    except BaseException:
        if not is_shared(jit):
            jit.close()
        raise


def _link_reader(
    jit: LLJIT,
    reader: InputReader,
    symbols: Mapping[str, HostSymbol],
    options: LinkOptions,
    read: Callable[[], InputReader] | None = None,
) -> tuple[LinkedCode, Exports]:
    """`link_inputs` in a session; `read` reads the inputs once more, after a restart."""
    whole, graph = _whole_graph(jit, reader, symbols, options)
    dylib, is_initialized = _link(jit, whole, graph, symbols, options)
    if options.may_call_python and jit.platform is not None:
        jit.platform.mark_python_caller(dylib)
    linked = LinkedCode(jit, dylib)
    if linked.is_remote and read is not None:
        dylib.relink = _relinker(jit, linked, whole, symbols, options, read)
    elif linked.is_remote:
        dylib.restart_obstacles = [whole.name]
    try:
        if not is_initialized:
            jit.initialize(dylib)
    except BaseException:
        linked.release()
        raise
    return linked, whole.exports


def _whole_graph(
    jit: LLJIT, reader: InputReader, symbols: Mapping[str, HostSymbol], options: LinkOptions
) -> tuple[WholeGraph, LinkGraph]:
    """The graph of a reader, which is complete."""
    _check_runs(jit, reader.target.triple, reader.linked[0])
    if jit.platform is not None:
        jit.platform.read_per_dylib_functions(reader, symbols)
    reader.resolver.finish()
    graph = reader.target_graph
    whole = WholeGraph(
        jit.layer,
        graph,
        phony_externals=options.phony_externals,
        executable_stack=options.executable_stack,
        writable_code=options.writable_code,
    )
    return whole, graph


def _relinker(
    jit: LLJIT,
    linked: LinkedCode,
    whole: WholeGraph,
    symbols: Mapping[str, HostSymbol],
    options: LinkOptions,
    read: Callable[[], InputReader],
) -> Callable[[], None]:
    """What links a library once more, after its executor was restarted."""
    reference = weakref.ref(linked)

    def relink() -> None:
        nonlocal whole
        code = reference()
        if code is None:
            return  # It is about to be removed.
        former = whole
        whole, graph = _whole_graph(jit, read(), symbols, options)
        jit.session.wait(_relink_async(jit, code.dylib, former, whole, graph))
        code.symbols = whole.exports

    return relink


async def _relink_async(
    jit: LLJIT, dylib: JITDylib, former: WholeGraph, whole: WholeGraph, graph: LinkGraph
) -> None:
    """Link a graph in place of the one that was linked, on the driver thread."""
    if former in dylib.generators:
        dylib.remove_generator(former)
    await _link_into(jit, dylib, whole, graph)


async def _link_into(jit: LLJIT, dylib: JITDylib, whole: WholeGraph, graph: LinkGraph) -> None:
    far = _externalize_references(graph, dylib.address_limit)
    if far:
        # Generated: after a restart they are added again here, with other addresses.
        dylib.add_unit(AbsoluteSymbols(far, is_generated=True))
    platform = jit.platform
    handle = None if platform is None else await platform.define_handle(dylib, graph)
    await whole.link_into(dylib)
    if platform is not None and handle is not None:
        platform.adopt_handle(dylib, handle)


def _check_runs(jit: LLJIT, triple: str, file: str) -> None:
    executor = jit.session.executor
    if not executor.runs(triple):
        message = f"code for {triple} does not run in this process, which is {executor.triple}"
        raise UnsupportedObjectError(message, file=file)


def _link(
    jit: LLJIT,
    whole: WholeGraph,
    graph: LinkGraph,
    symbols: Mapping[str, HostSymbol],
    options: LinkOptions,
) -> tuple[JITDylib, bool]:
    """Link a graph into a new JITDylib.

    Returns:
        The JITDylib, and whether there is nothing to initialise in it.
    """
    name = f"{whole.name}#{next(_numbers)}"
    given = PythonSymbols(jit.session, symbols)
    return jit.session.wait(_link_async(jit, name, whole, graph, given, options))


async def _link_async(
    jit: LLJIT,
    name: str,
    whole: WholeGraph,
    graph: LinkGraph,
    given: PythonSymbols,
    options: LinkOptions,
) -> tuple[JITDylib, bool]:
    """`_link`, on the driver thread."""
    dylib = jit.create_jitdylib(name, process_symbols=options.process_symbols)
    dylib.limit_addresses(options.address_limit)
    dylib.limit_addresses(target_of_graph(graph).address_limit(graph))
    platform = jit.platform
    try:
        _make_visible(jit, dylib, options)
        if given.symbols:
            dylib.add_unit(given)
        _add_generators(dylib, options)
        await _link_into(jit, dylib, whole, graph)
        return dylib, platform is None or platform.initialize_at_once(dylib)
    except BaseException:
        await jit.session.remove_jitdylib_async(dylib)
        raise


def _externalize_references(graph: LinkGraph, limit: int) -> dict[str, ExecutorSymbolDef]:
    """Let references to absolute symbols that code may not reach be to external ones."""
    table, edges = graph.symbol_table, graph.edge_table
    is_far = table.kind == ABSOLUTE
    if not np.count_nonzero(is_far):
        return {}
    is_far &= (table.scope == Scope.DEFAULT) & (table.name != NO_NAME)
    if limit < NO_ADDRESS_LIMIT:
        is_far &= table.value >= limit
    if limit == NO_ADDRESS_LIMIT:
        # Code may be anywhere, so it may not reach what it refers to directly.
        access = target_of_graph(graph).direct_access
        is_used = np.zeros(table.rows, np.bool_)
        if access is not None:
            is_used[edges.target[np.isin(edges.kind, access.kinds)]] = True
        is_far &= is_used
    rows, target = rows_where(is_far), np.arange(table.rows)
    if not len(rows):
        return {}
    names, addresses = graph.strings.get_many(table.name[rows]), table.value[rows].tolist()
    target[rows] = [graph.add_external_symbol(name).row for name in names]
    edges.target[:] = target[edges.target]
    flags = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE
    return {
        name: ExecutorSymbolDef(address, flags)
        for name, address in zip(names, addresses, strict=True)
    }


def _add_generators(dylib: JITDylib, options: LinkOptions) -> None:
    """Add what defines names that neither inputs nor definitions define."""
    if options.resolve is not None:
        dylib.add_generator(_Resolver(options.resolve))
    for library in options.libraries:
        dylib.add_generator(library)


def _load_archives(
    jit: LLJIT, files: Sequence[InputFile], given: PythonSymbols | None, options: LinkOptions
) -> tuple[LinkedCode, Library]:
    """A library of archives alone."""

    def check(member: InputFile) -> None:
        _check_runs(jit, target_of_object(member.data, member.name).triple, member.name)

    archives = [StaticLibraryGenerator(jit.layer, file, check) for file in files]
    name = files[0].name
    dylib = jit.create_jitdylib(f"{name}#{next(_numbers)}", process_symbols=options.process_symbols)
    dylib.limit_addresses(options.address_limit)
    code = LinkedCode(jit, dylib)
    _make_visible(jit, dylib, options)
    if given is not None:
        dylib.define(given)
    for archive in archives:
        dylib.add_generator(archive)
    _add_generators(dylib, options)
    return code, _ArchiveLibrary(name, code, _SymbolsOnDemand(jit, dylib, archives))


def _make_visible(jit: LLJIT, dylib: JITDylib, options: LinkOptions) -> None:
    if options.image_name is not None:
        # Imported on use: few libraries are visible.
        from jitlink.orc.images import make_visible  # noqa: PLC0415

        make_visible(jit.layer, dylib, options.image_name)


def _jit(
    executor: ExecutorProcessControl | None,
    configure: Configure | None,
    *,
    is_private: bool = False,
) -> LLJIT:
    """The shared session, or a new one for a library with its own executor, passes or layer."""
    if executor is None and configure is None and not is_private:
        return shared_jit()
    jit = LLJIT(executor=executor)
    try:
        jit.session.check_executor()
    except BaseException:
        jit.close()
        raise
    if configure is not None:
        jit.layer.add_plugin(_Configurator(configure))
    return jit


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


class _SymbolsOnDemand(Mapping[str, int]):
    """Addresses of what archives define; a member is linked when a name of it is first used."""

    def __init__(
        self, jit: LLJIT, dylib: JITDylib, archives: Sequence[StaticLibraryGenerator]
    ) -> None:
        self.archives = archives
        self._jit = jit
        self._dylib = dylib

    def __getitem__(self, name: str) -> int:
        try:
            address = self._jit.session.lookup(self._dylib, name)[name].address
        except FailedToMaterializeError:
            raise
        except UndefinedSymbolError as error:
            if error.names != (name,):
                raise
            raise KeyError(name) from None
        if self._jit.platform is not None:
            self._jit.initialize(self._dylib)
        return address

    @functools.cached_property
    def _names(self) -> dict[str, None]:
        return {name: None for archive in self.archives for name in archive.known_names()}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _ArchiveLibrary(Library):
    """A library of archives alone, whose members are linked when they are needed."""

    def __init__(self, name: str, code: LinkedCode, exports: _SymbolsOnDemand) -> None:
        super().__init__(name, code, exports, [])
        self._archives = exports.archives

    @property
    def linked_files(self) -> list[str]:
        """Display names of the members that were linked until now."""
        if self._code is None:
            return []
        return [each.member for archive in self._archives for each in archive.extractions]


class _Resolver:
    """A generator that defines what a function returns for each name."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names for which the function has something."""
        given = {name: self._resolve(name) for name in names}
        found = {name: value for name, value in given.items() if value is not None}
        if found:
            unit = PythonSymbols(dylib.session, found)
            unit.is_generated = True
            dylib.add_unit(unit)
