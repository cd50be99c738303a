"""Build trees without a record of what was linked: setuptools', and directories of objects.

setuptools compiles all extensions of a project into one directory, ``build/temp.PLATFORM-PYTHON``,
in which an object has the path of its source, and static libraries are archives. What an extension
was linked from is in the project's set-up alone. But one of the objects has its init function,
which says its name. The others are linked as a linker takes members from an archive: an object is
taken if it alone defines a name that those taken so far refer to. Where several objects define the
name, none is taken, but an error says so.

The limit of this rule are objects that nothing refers to, such as those that register themselves
when they are initialised: they are not linked.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

from jitlink.build_trees.base import (
    AmbiguousBuildError,
    BuiltModule,
    ModuleInputs,
    project_root,
)
from jitlink.errors import InputError
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.names.init_functions import init_function
from jitlink.resolve import Strength, strength_of

_INIT_FUNCTION = re.compile(rb"PyInitU?_\w+(?=\0)")


class _Symbols(NamedTuple):
    """Global symbols of an object.

    Attributes:
        strong: names with a strong definition.
        defined: names with any definition.
        undefined: names to which there is a strong reference.
    """

    strong: frozenset[str]
    defined: frozenset[str]
    undefined: frozenset[str]


class ObjectTree:
    """The objects of a build without a record.

    Args:
        directories: where the objects are.

    Attributes:
        root: directory of the project, if it is found.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        self.root = project_root(directories[0])
        self._directories = tuple(directories)
        self._symbols = functools.cache(_read_symbols)

    def modules(self, last: str) -> list[BuiltModule]:
        """The modules whose names have a last part."""
        function = init_function(last)
        return [
            BuiltModule(path, last, None, directories, functools.partial(self._inputs, path))
            for path, directories in self._by_init_function.get(function, ())
            # The bytes of a name may be in an object that does not define it.
            if function in self._symbols(path).defined
        ]

    @functools.cached_property
    def _files(self) -> list[tuple[str, str]]:
        """The files of the tree, each after the directory that it was found in."""
        return [
            (top, os.path.join(directory, file))  # noqa: PTH118
            for top in self._directories
            for directory, _, files in sorted(os.walk(top))
            for file in sorted(files)
        ]

    @functools.cached_property
    def _by_init_function(self) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
        """Objects that have the name of an init function, with the parts of their directories."""
        found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for top, path in self._files:
            if not path.endswith(".o"):
                continue
            functions = dict.fromkeys(_init_functions(path))
            if functions:
                *directories, file = PurePath(path).relative_to(top).parts
                # CFFI's sources have the full name of the module.
                parts = (*directories, *file.removesuffix(".o").split(".")[:-1])
            for function in functions:
                found.setdefault(function, []).append((path, parts))
        return found

    @functools.cached_property
    def _others(self) -> dict[str, list[str]]:
        """Objects without an init function, by the names that they define."""
        own = {path for objects in self._by_init_function.values() for path, _ in objects}
        strong: dict[str, list[str]] = {}
        weak: dict[str, list[str]] = {}
        for _, path in self._files:
            if not path.endswith(".o") or path in own:
                continue
            try:
                symbols = self._symbols(path)
            except InputError:
                # It cannot be linked. If it is needed, its names are reported as undefined.
                continue
            for name in symbols.strong:
                strong.setdefault(name, []).append(path)
            for name in symbols.defined - symbols.strong:
                # All weak definitions of a name are alike.
                weak.setdefault(name, [path])
        return weak | strong

    def _inputs(self, first: str) -> ModuleInputs:
        """An object, those of the tree that it needs, and all archives.

        Raises:
            AmbiguousBuildError: a name is defined by several objects.
            InputError: the object cannot be read.
        """
        linked = [first]
        defined = set(self._symbols(first).defined)
        for path in linked:
            for name in sorted(self._symbols(path).undefined):
                candidates = self._others.get(name, [])
                if name in defined or not candidates:
                    continue
                if len(candidates) > 1:
                    what = f"{name}, which {path} refers to,"
                    raise AmbiguousBuildError(what, candidates)
                linked.append(candidates[0])
                defined |= self._symbols(candidates[0]).defined
        archives = [path for _, path in self._files if path.endswith(".a")]
        return ModuleInputs([*linked, *archives])


def _init_functions(path: str) -> list[str]:
    """The init functions that an object names."""
    try:
        data = open_input(path).data
    except InputError:
        return []
    return [name.decode("ascii") for name in _INIT_FUNCTION.findall(data)]


def _read_symbols(path: str) -> _Symbols:
    reader = InputReader()
    reader.add([open_input(path)])
    resolver, graph = reader.resolver, reader.target_graph
    definitions = resolver.definitions
    weak = {n for n, row in definitions.items() if strength_of(graph, row) is Strength.WEAK}
    return _Symbols(
        frozenset(definitions.keys() - weak), frozenset(definitions), frozenset(resolver.undefined)
    )


def temporary_directories(build: str) -> tuple[list[str], list[str]]:
    """The directories of a ``build`` directory of setuptools with objects for this interpreter.

    Returns:
        These, and all those of other interpreters.
    """
    all_of_them = [
        os.path.join(build, entry)  # noqa: PTH118
        for entry in sorted(os.listdir(build))  # noqa: PTH208
        if entry.startswith("temp") and os.path.isdir(os.path.join(build, entry))  # noqa: PTH112,PTH118
    ]
    names = set(_temporary_names())
    own = [path for path in all_of_them if os.path.basename(path) in names]  # noqa: PTH119
    return own, [path for path in all_of_them if path not in own]


def _temporary_names() -> Iterable[str]:
    """What setuptools of any version calls the directory for this interpreter."""
    platform = sysconfig.get_platform()
    debug = "-pydebug" if hasattr(sys, "gettotalrefcount") else ""
    tags = [sys.implementation.cache_tag, f"{sys.version_info[0]}.{sys.version_info[1]}"]
    for tag in tags:
        for flags in {"", getattr(sys, "abiflags", "")}:
            yield f"temp.{platform}-{tag}{flags}{debug}"
