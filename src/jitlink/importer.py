"""`install_importer`: imports the extension modules of a build tree from their objects.

::

    jitlink.install_importer("build")
    import package  # Its extension modules are linked from build/temp.*/ when they are imported.

The importer is a finder on `sys.meta_path`, before that of files: where the build tree has a
module, a shared library of the same name is not looked at. `jitlink.build_trees` says which names
are modules of a build tree, and what they are linked from; `jitlink.extension_modules` does the
rest. The tree is read when a module is first imported, and once in a process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Self, Unpack

from jitlink.build_trees.base import BuildTree, ModuleInputs, find_module
from jitlink.build_trees.ninja import BUILD_FILE, NinjaTree
from jitlink.build_trees.objects import ObjectTree, temporary_directories
from jitlink.errors import InputError, JITLinkError, MissingFileError
from jitlink.extension_modules import ExtensionModuleError, ExtensionModuleLoader, LoadOptions
from jitlink.inputs import Input


class Importer:
    """A finder of the extension modules of a build tree; a context manager that removes itself.

    Modules that were imported stay so when it is removed.
    """

    def __init__(
        self,
        tree: BuildTree,
        modules: Mapping[str, Sequence[Input]],
        options: LoadOptions,
    ) -> None:
        self._tree = tree
        self._modules = dict(modules)
        self._options = options
        self._loaders: dict[str, ExtensionModuleLoader] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002 - part of the interface
    ) -> ModuleSpec | None:
        """The spec of a module of the build tree; None for any other.

        Raises:
            ExtensionModuleError: the build tree does not say which objects the module has.
        """
        # No lock: the import system has its own, and what reads the tree may import modules.
        loader = self._loaders.get(fullname)
        inputs = None if loader else self._inputs(fullname, path)
        if loader is None and inputs is None:
            return None
        # A package has Python files, too, where they would be found without its extension.
        files = PathFinder.find_spec(fullname, path)
        locations = None if files is None else files.submodule_search_locations
        if loader is None and inputs is not None:
            options = self._options.copy()
            options["libraries"] = [*inputs.libraries, *options.get("libraries", ())]
            added = ExtensionModuleLoader(
                fullname, inputs.files, options, is_package=locations is not None
            )
            loader = self._loaders.setdefault(fullname, added)
        return None if loader is None else loader.spec(locations)

    def _inputs(self, name: str, path: Sequence[str] | None) -> ModuleInputs | None:
        given = self._modules.get(name)
        if given is not None:
            return ModuleInputs(given)
        try:
            module = find_module(self._tree, name, path)
            return None if module is None else module.inputs()
        except JITLinkError as error:
            raise ExtensionModuleError(str(error), name=name, path=None) from error

    def remove(self) -> None:
        """Find no more modules; a second call does nothing."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()


def install_importer(
    build_dir: str | os.PathLike[str],
    *,
    modules: Mapping[str, Sequence[Input]] | None = None,
    **options: Unpack[LoadOptions],
) -> Importer:
    """Have the extension modules of a build tree imported from their objects.

    The Python files of packages are found as usual, on `sys.path`.

    Args:
        build_dir: a directory that meson or CMake has generated for Ninja; the ``build`` directory
            of setuptools, with objects in ``temp.PLATFORM-PYTHON``; or any directory of objects.
        modules: objects and archives of modules by their full names, where the build tree does not
            say them; paths are relative to `build_dir`.
        options: for all modules; see `load`.

    Returns:
        The importer, which `Importer.remove` or the end of a ``with`` statement removes.

    Raises:
        InputError: there is no such directory, or it has objects for other interpreters only.
    """
    directory = os.path.abspath(build_dir)  # noqa: PTH100 - as the import system does
    given = {
        name: [_within(directory, each) for each in inputs]
        for name, inputs in (modules or {}).items()
    }
    importer = Importer(_open_tree(directory), given, options)
    sys.meta_path.insert(0, importer)
    return importer


def _within(directory: str, source: Input) -> Input:
    return os.path.join(directory, source) if isinstance(source, str | os.PathLike) else source  # noqa: PTH118


def _open_tree(directory: str) -> BuildTree:
    if not os.path.isdir(directory):  # noqa: PTH112
        raise MissingFileError("is no directory", file=directory)
    if os.path.isfile(os.path.join(directory, BUILD_FILE)):  # noqa: PTH113,PTH118
        return NinjaTree(directory)
    own, others = temporary_directories(directory)
    if others and not own:
        names = ", ".join(os.path.basename(path) for path in others)  # noqa: PTH119
        message = (
            f"it has no objects for Python {sys.version_info[0]}.{sys.version_info[1]}: {names}"
        )
        raise InputError(message, file=directory)
    return ObjectTree(own or [directory])
