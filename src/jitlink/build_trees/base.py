"""What all build trees have in common: modules, and the rule by which a name is one of them.

A build may say nothing of a module but the last part of its name, which its init function and its
file have. Another package, of another project, may have a module of the same last part, as many
have a ``_speedups``. So a `BuiltModule` is taken for a module of a package

1. if the build says so; otherwise
2. if the directory of its objects or its file is named like the package, as in ``src/package/``, or
3. if the package is in the project's directory, and was not installed there.

Where that fits several, none is taken, but an error says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple, Protocol

from jitlink.errors import JITLinkError
from jitlink.inputs import Input

_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "meson.build", "CMakeLists.txt")
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class ModuleInputs(NamedTuple):
    """What a module is linked from.

    Attributes:
        files: objects and archives; the first one is the module's origin.
        libraries: paths or names of shared libraries.
    """

    files: Sequence[Input]
    libraries: Sequence[str] = ()


class BuiltModule(NamedTuple):
    """A module of a build.

    Attributes:
        place: where the build has it, for messages.
        last: the last part of its name.
        package: the package that the build says it is in; None if it does not say.
        directories: the parts of the directory of its objects or file.
        inputs: finds what it is linked from.
    """

    place: str
    last: str
    package: tuple[str, ...] | None
    directories: tuple[str, ...]
    inputs: Callable[[], ModuleInputs]


class BuildTree(Protocol):
    """A build tree."""

    root: str | None

    def modules(self, last: str) -> Sequence[BuiltModule]:
        """The modules whose names have a last part.

        Raises:
            JITLinkError: the tree cannot be read.
        """


class AmbiguousBuildError(JITLinkError):
    """A build tree in which several things could be meant.

    Attributes:
        what: a module or a symbol.
        places: where the tree has it.
    """

    def __init__(self, what: str, places: Sequence[str]) -> None:
        self.what, self.places = what, tuple(places)
        super().__init__(f"the build has {what} in {' and in '.join(places)}; modules= says which")


def project_root(directory: str) -> str | None:
    """The project that a directory of a build belongs to: the nearest parent with its files."""
    while True:
        parent = os.path.dirname(directory)  # noqa: PTH120 - imports are fast without pathlib
        if parent == directory:
            return None
        directory = parent
        if any(os.path.isfile(os.path.join(directory, file)) for file in _PROJECT_FILES):  # noqa: PTH113,PTH118
            return directory


def find_module(tree: BuildTree, name: str, search: Iterable[str] | None) -> BuiltModule | None:
    """The module of a name.

    Args:
        tree: the build tree.
        name: full name of the module.
        search: directories of its package; None for a module without one.

    Raises:
        AmbiguousBuildError: several modules of the build could be meant.
        JITLinkError: the tree cannot be read.
    """
    *parents, last = name.split(".")
    package = tuple(parents)
    modules = tree.modules(last)
    if not modules:
        return None
    chosen = [m for m in modules if m.package == package]
    unnamed = [m for m in modules if m.package is None]
    if not chosen and package:
        chosen = [m for m in unnamed if m.directories[-len(package) :] == package]
    if not chosen and (search is None or any(_is_within(tree.root, each) for each in search)):
        chosen = unnamed
    if len(chosen) > 1:
        raise AmbiguousBuildError(f"a module {last}", [module.place for module in chosen])
    return chosen[0] if chosen else None


def _is_within(root: str | None, directory: str) -> bool:
    """Whether a package's directory is one of a project, and not of an environment in it."""
    if root is None:
        return False
    inner = PurePath(os.path.relpath(os.path.realpath(directory), os.path.realpath(root))).parts
    return os.pardir not in inner and _INSTALLED.isdisjoint(inner)
