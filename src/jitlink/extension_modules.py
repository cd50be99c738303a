"""`import_module`: extension modules of Python, linked from objects and imported.

::

    speedups = jitlink.import_module("package._speedups", "_speedups.o", "libhash.a")

CPython imports an extension module from a shared library: it opens a file, looks up the module's
init function, and does all else by itself: single-phase and multi-phase initialisation, the package
context, sub-interpreters, the cache of modules that were initialised before. An
`ExtensionModuleLoader` is CPython's own loader. Before that opens the file, the objects are linked,
and their init functions are made visible to ``dlopen`` under the name of that file
(`jitlink.executor.function_modules`). So modules behave as natively in every version of Python.

As natively, the code of a module is never unloaded, and initialisers run with the interpreter lock
held. Errors of the link are `ImportError` too: packages catch that to do without an extension.

Specification: PEP 489; "Extending and Embedding the Python Interpreter", `importlib`.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import TypedDict, Unpack
from weakref import WeakValueDictionary

from jitlink.errors import JITLinkError
from jitlink.executor.function_modules import load_function_module
from jitlink.formats.archive_magic import is_archive
from jitlink.graph import LinkGraph
from jitlink.input_reader import InputReader
from jitlink.inputs import ArchiveInput, Input, open_input
from jitlink.library import Library
from jitlink.link import PassConfiguration
from jitlink.loading import Resolve, load
from jitlink.memory.actions import interpreter_lock_held
from jitlink.names.init_functions import PREFIXES, init_function
from jitlink.orc.errors import listed
from jitlink.orc.interface import HostSymbol


class LoadOptions(TypedDict, total=False):
    """Options of `jitlink.load` that extension modules can be linked with."""

    all_load: bool
    roots: Sequence[str]
    phony_externals: bool
    executable_stack: bool
    writable_code: bool
    process_symbols: bool
    address_limit: int
    libraries: Sequence[str | os.PathLike[str]]
    definitions: Mapping[str, HostSymbol] | None
    resolve: Resolve | None
    aliases: Mapping[str, str] | None
    configure: Callable[[LinkGraph, PassConfiguration], None] | None
    visible: bool


class ExtensionModuleError(JITLinkError, ImportError):
    """An extension module that cannot be linked; the cause is chained.

    Attributes:
        name: the module.
        path: its origin.
    """

    def __init__(self, reason: str, *, name: str, path: str | None) -> None:
        super().__init__(f"cannot import {name} from objects: {reason}", name=name, path=path)


class MissingInitFunctionError(ExtensionModuleError):
    """Objects without the init function of a module.

    Attributes:
        function: the function.
        defined: the init functions that they define.
    """

    def __init__(
        self, function: str, defined: Sequence[str], *, name: str, path: str | None
    ) -> None:
        self.function, self.defined = function, tuple(defined)
        others = f"they define {listed(self.defined) or 'no init function'}"
        super().__init__(f"no object defines {function}; {others}", name=name, path=path)


class ExtensionModuleLoader(ExtensionFileLoader):
    """Links objects when their module is created.

    Args:
        name: full name of the module.
        inputs: objects and archives.
        options: see `jitlink.load`.
        is_package: whether the module is a package.

    Attributes:
        inputs: the same, files with absolute paths.
        has_location: whether `path` is a file.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[Input],
        options: LoadOptions | None = None,
        *,
        is_package: bool = False,
    ) -> None:
        self.inputs = tuple(map(_absolute, inputs))
        first = self.inputs[0] if self.inputs else b""
        self.has_location = isinstance(first, str)
        wanted = first if isinstance(first, str) else f"<{name} in memory>"
        with _loaders_lock:
            super().__init__(name, _origin(wanted))
            _loaders[self.path] = self
        self._options: LoadOptions = options or {}
        self._is_package = is_package
        self._library: Library | None = None
        self._lock = threading.Lock()

    def is_same(self, other: ExtensionModuleLoader) -> bool:
        """Whether another loader would link the same."""
        return (self.inputs, self._options, self._is_package) == (
            (other.inputs, other._options, other._is_package)
        )

    def is_package(self, fullname: str) -> bool:
        """Whether the module is a package."""
        return self._is_package and fullname == self.name

    def spec(self, submodule_search_locations: Sequence[str] | None = None) -> ModuleSpec:
        """The module's spec."""
        spec = ModuleSpec(self.name, self, origin=self.path, is_package=self._is_package)
        spec.has_location = self.has_location
        if submodule_search_locations is not None:
            spec.submodule_search_locations = list(submodule_search_locations)
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Link the objects if they have not been, and create the module.

        Raises:
            ExtensionModuleError: they cannot be linked.
            BaseException: raised by an initialiser, or by the module's init function.
        """
        with self._lock:
            if self._library is None:
                self._library = self._link()
        module = super().create_module(spec)
        if not self.has_location:
            vars(module).pop("__file__", None)
        return module

    def _link(self) -> Library:
        function = init_function(self.name)
        try:
            library = self._load(function)
            functions = {n: library.exports[n] for n in library if n.startswith(PREFIXES)}
            load_function_module(_dlopen_name(self.path), functions)
        except JITLinkError as error:
            raise self._described(error, function) from error
        _linked.append(self)
        return library

    def _load(self, function: str) -> Library:
        options = self._options.copy()
        options["roots"] = [function, *options.get("roots", ())]
        with interpreter_lock_held():
            return load(*self.inputs, **options)

    def _init_functions(self) -> list[str]:
        """The init functions that the inputs define."""
        names: set[str] = set()
        for file in map(open_input, self.inputs, itertools.count()):
            if is_archive(file.data):
                names.update(ArchiveInput(file).names())
            else:
                reader = InputReader()
                reader.add([file])
                names.update(reader.resolver.definitions)
        return sorted(name for name in names if name.startswith(PREFIXES))

    def _described(self, reason: JITLinkError, function: str) -> ExtensionModuleError:
        """The error of a link: that no input has the init function, if that is the case."""
        try:
            defined = self._init_functions()
        except JITLinkError:
            defined = [function]
        if function in defined:
            return ExtensionModuleError(str(reason), name=self.name, path=self.path)
        return MissingInitFunctionError(function, defined, name=self.name, path=self.path)


def _absolute(source: Input) -> Input:
    return os.path.abspath(source) if isinstance(source, str | os.PathLike) else source  # noqa: PTH100 - as the import system does


_loaders_lock = threading.Lock()
_loaders: WeakValueDictionary[str, ExtensionModuleLoader] = WeakValueDictionary()
"""All loaders by their origins, which are names for ``dlopen``."""
_linked: list[ExtensionModuleLoader] = []
"""The loaders that have linked a module, whose code is never unloaded."""


def _origin(name: str) -> str:
    """A spelling of a path that is no other loader's origin."""
    directory, slash, file = name.rpartition("/")
    for number in itertools.count():
        origin = f"{directory}{slash}{'./' * number}{file}" if number else name
        if origin not in _loaders:
            return origin
    raise AssertionError


def _dlopen_name(path: str) -> str:
    """What CPython calls ``dlopen`` with for a path."""
    return path if "/" in path else f"./{path}"


class _ImportedModules:
    """The finder of all modules that `import_module` was called for."""

    def __init__(self) -> None:
        # With the search locations of a package's modules.
        self._loaders: dict[str, tuple[ExtensionModuleLoader, Sequence[str] | None]] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - part of the interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The spec of a module."""
        found = self._loaders.get(fullname)
        if found is None:
            return None
        loader, locations = found
        return loader.spec(locations)

    @contextlib.contextmanager
    def entered(
        self, loader: ExtensionModuleLoader, locations: Sequence[str] | None
    ) -> Iterator[None]:
        """Have a module found by this finder, for good if the body succeeds."""
        existing = self._loaders.get(loader.name)
        if existing is None or not existing[0].is_same(loader):
            if loader.name in sys.modules:
                raise ExtensionModuleError(
                    "it is in sys.modules already, from somewhere else",
                    name=loader.name,
                    path=loader.path,
                )
            self._loaders[loader.name] = loader, locations
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        try:
            yield
        except BaseException:
            if existing is None:
                self._loaders.pop(loader.name, None)
            else:
                self._loaders[loader.name] = existing
            raise


_imported = _ImportedModules()


def import_module(
    name: str,
    *inputs: Input,
    submodule_search_locations: Sequence[str] | None = None,
    **options: Unpack[LoadOptions],
) -> ModuleType:
    """Link objects and archives, and import them as an extension module.

    The module is imported as `importlib.import_module` does: parent packages first, once, under
    the import system's locks; from then on, ``import`` finds it, too. Its code stays in memory
    until the process ends.

    Args:
        name: full name of the module. Its last part is in the name of the init function,
            ``PyInit_`` and that part.
        inputs: paths or bytes of relocatable objects and static archives. The first path is the
            module's origin, and its ``__file__``.
        submodule_search_locations: for a package, the directories of its modules.
        options: see `load`; ``libraries`` are the shared libraries that the module is linked with.

    Returns:
        The module.

    Raises:
        ExtensionModuleError: the objects cannot be linked; it is an `ImportError`, too.
        MissingInitFunctionError: they do not define the init function.
        BaseException: raised by the import of a parent package, an initialiser or the module.
    """
    is_package = submodule_search_locations is not None
    loader = ExtensionModuleLoader(name, inputs, options, is_package=is_package)
    with _imported.entered(loader, submodule_search_locations):
        return importlib.import_module(name)
