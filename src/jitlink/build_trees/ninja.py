"""Build trees of Ninja, which meson and CMake generate: a file says what modules are linked from.

A statement of ``build.ninja`` for an extension module is::

    build package/_module.cpython-313-x86_64-linux-gnu.so: cpp_LINKER a.o b.o | libc.a || order.h
      LINK_ARGS = -shared -Wl,--start-group libc.a -lz -Wl,--end-group

Inputs before the bar are objects. Archives and shared libraries are words of the variables;
archives that are to be linked whole are replaced by the objects of their own statements.

Which package a module is in is not in that file, but where it is to be installed: for meson in
``meson-info/intro-install_plan.json``, for CMake in ``cmake_install.cmake``, there without the
packages above the prefix of the installation.

Specification: The Ninja build system, "Ninja file reference"; meson's "IDE integration".
"""

from __future__ import annotations

import ctypes.util
import functools
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from typing import NamedTuple

from jitlink.build_trees.base import BuiltModule, ModuleInputs, project_root
from jitlink.errors import InputError
from jitlink.names.shared_libraries import ONE_PER_PROCESS

BUILD_FILE = "build.ninja"
_CONTINUATION = re.compile(r"(\$[^\n])|\$\n[ \t]*")
_STATEMENT = re.compile(r"^build (.*)\n((?:[ \t]+\S.*\n)*)", re.MULTILINE)
_VARIABLE = re.compile(r"^[ \t]*([\w.-]+)[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_WORD = re.compile(r"(?:\$[^\n]|[^\s:|$])+|\|\||\|@?|:")
_ESCAPE = re.compile(r"\$(?:\{([\w.-]+)\}|([\w-]+)|(.))")
_LINK_VARIABLES = ("LINK_PATH", "LINK_FLAGS", "LINK_ARGS", "LINK_LIBRARIES")
# Possessive, and ended by a parenthesis outside of quotes: a malformed script costs linear time.
_CMAKE_INSTALL = re.compile(r'file\(INSTALL DESTINATION "([^"]*)"((?:[^()"]++|"[^"]*")*+)\)')
_CMAKE_PREFIX = "${CMAKE_INSTALL_PREFIX}"
_SHARED_LIBRARY = re.compile(r"(?:.*/)?lib([^/]+)\.so(?:\.[\d.]+)?")
_SEPARATORS = frozenset({":", "|", "||", "|@"})


class _Statement(NamedTuple):
    """How a file is built.

    Attributes:
        inputs: explicit inputs.
        arguments: the linker's arguments.
    """

    inputs: Sequence[str]
    arguments: Sequence[str]


class NinjaTree:
    """The build tree of a ``build.ninja``.

    Args:
        directory: its directory.

    Attributes:
        root: directory of the project, if it is found.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self.root = project_root(directory)
        self._directory = directory
        self._file = os.path.join(directory, BUILD_FILE)  # noqa: PTH118
        try:
            with open(self._file, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                self._text = _CONTINUATION.sub(lambda m: m[1] or "", file.read()) + "\n"
        except OSError as error:
            raise InputError(error.strerror or "cannot be read", file=self._file) from error
        if "\0" in self._text:
            raise InputError("a build file has no null characters", file=self._file)

    def modules(self, last: str) -> list[BuiltModule]:
        """The modules whose names have a last part.

        Raises:
            InputError: the arguments of a linker have an open quotation.
        """
        return self._modules.get(last, [])

    @functools.cached_property
    def _modules(self) -> dict[str, list[BuiltModule]]:
        found: dict[str, list[BuiltModule]] = {}
        for output in self._statements:
            *directories, file = output.split("/")
            last = _without_suffix(file)
            if last is None:
                continue
            package, below = self._package(output)
            module = BuiltModule(
                self._path(output),
                last,
                package,
                below or tuple(directories),
                functools.partial(self._inputs, output),
            )
            found.setdefault(last, []).append(module)
        return found

    def _package(self, output: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """The package of a module, or None; the end of its name, as far as it is known."""
        installed = self._installed.get(self._path(output))
        if installed is None:
            return None, ()
        is_complete, directories = installed
        return (directories if is_complete else None), directories

    @functools.cached_property
    def _installed(self) -> dict[str, tuple[bool, tuple[str, ...]]]:
        """For each installed file, the directories below the packages' or below a prefix.

        Together with whether it is the packages' directory that they are below.
        """
        return {**self._meson_installed(), **self._cmake_installed()}

    def _meson_installed(self) -> dict[str, tuple[bool, tuple[str, ...]]]:
        path = self._path("meson-info/intro-install_plan.json")
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                targets = json.load(file)["targets"]
            plan = {output: str(each["destination"]) for output, each in targets.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        found = {}
        for output, destination in plan.items():
            place, *directories = destination.split("/")[:-1] or [""]
            if place in {"{py_platlib}", "{py_purelib}"}:
                found[output] = True, tuple(directories)
        return found

    def _cmake_installed(self) -> dict[str, tuple[bool, tuple[str, ...]]]:
        found: dict[str, tuple[bool, tuple[str, ...]]] = {}
        for directory, inner, files in os.walk(self._directory):
            inner[:] = [each for each in inner if each != "CMakeFiles"]
            if "cmake_install.cmake" not in files:
                inner.clear()
                continue
            path = os.path.join(directory, "cmake_install.cmake")  # noqa: PTH118
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                    text = file.read()
            except OSError:
                continue
            for destination, arguments in _CMAKE_INSTALL.findall(text):
                outputs = arguments.partition(" FILES ")[2]
                below = destination.removeprefix(_CMAKE_PREFIX).strip("/")
                directories = tuple(part for part in below.split("/") if part != ".")
                for output in re.findall(r'"([^"]*)"', outputs):
                    found[output] = False, directories if below else ()
        return found

    # What a module is linked from

    def _inputs(self, output: str) -> ModuleInputs:
        statement = self._statements[output]
        files = [self._path(each) for each in statement.inputs if _is_object(each)]
        libraries: list[str] = []
        directories: list[str] = []
        is_whole = False
        for word in statement.arguments:
            if word in {"-Wl,--whole-archive", "-Wl,--no-whole-archive"}:
                is_whole = word == "-Wl,--whole-archive"
            elif word.startswith("-L"):
                directories.append(self._path(word[2:]))
            elif word.startswith("-l"):
                self._add_library(word[2:], directories, files, libraries)
            elif word.startswith("-"):
                continue
            elif word.endswith(".a"):
                files += self._archive(word, is_whole=is_whole)
            elif _SHARED_LIBRARY.fullmatch(word):
                libraries.append(self._path(word))
        libraries = [path for path in dict.fromkeys(libraries) if not _is_of_process(path)]
        return ModuleInputs(list(dict.fromkeys(files)), libraries)

    def _archive(self, word: str, *, is_whole: bool) -> list[str]:
        statement = self._statements.get(word)
        if is_whole and statement is not None:
            return [self._path(each) for each in statement.inputs if _is_object(each)]
        return [self._path(word)]

    def _add_library(
        self, name: str, directories: Sequence[str], files: list[str], libraries: list[str]
    ) -> None:
        """Add the library that a linker finds; one that is nowhere may not be needed."""
        for directory in directories:
            for suffix, places in ((".so", libraries), (".a", files)):
                path = os.path.join(directory, f"lib{name}{suffix}")  # noqa: PTH118
                if os.path.isfile(path):  # noqa: PTH113
                    places.append(path)
                    return
        found = ctypes.util.find_library(name)
        if found is not None:
            libraries.append(found)

    def _path(self, word: str) -> str:
        return os.path.normpath(os.path.join(self._directory, word))  # noqa: PTH118

    # The file

    @functools.cached_property
    def _globals(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in re.findall(r"^[\w.-]+[ \t]*=.*$", self._text, re.MULTILINE):
            name, _, value = line.partition("=")
            found[name.strip()] = _expand(value.strip(), found)
        return found

    @functools.cached_property
    def _statements(self) -> dict[str, _Statement]:
        """How modules and archives are built, by their names in the file."""
        found = {}
        for head, body in _STATEMENT.findall(self._text):
            if ".so" not in head and ".a" not in head:
                continue
            outputs, inputs = _split(head, self._globals)
            if not outputs[0].endswith((".a", *EXTENSION_SUFFIXES)):
                continue
            variables = dict(_VARIABLE.findall(body))
            values = [_expand(variables.get(v, ""), self._globals) for v in _LINK_VARIABLES]
            try:
                arguments = shlex.split(" ".join(values))
            except ValueError as error:
                message = f"the arguments that link {outputs[0]}: {error}"
                raise InputError(message, file=self._file) from error
            found[outputs[0]] = _Statement(inputs, arguments)
        return found


def _split(head: str, variables: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The explicit outputs and inputs of a statement's first line, without the rule."""
    words = iter(_WORD.findall(head))
    outputs = list(_explicit(words, variables, until=":"))
    next(words, None)
    return outputs or [""], list(_explicit(words, variables, until=""))


def _explicit(words: Iterator[str], variables: Mapping[str, str], until: str) -> Iterator[str]:
    """Words before the first separator; all before `until` are consumed."""
    is_explicit = True
    for word in words:
        if word == until:
            return
        is_explicit = is_explicit and word not in _SEPARATORS
        if is_explicit:
            yield _expand(word, variables)


def _expand(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return match[3] if name is None else variables.get(name, "")

    return _ESCAPE.sub(value, text) if "$" in text else text


def _is_of_process(library: str) -> bool:
    """Whether this process has a shared library that it must have only one copy of.

    A second libpython, which a build may name, would be another interpreter.
    """
    match = _SHARED_LIBRARY.fullmatch(library)
    name = match[1] if match else ""
    return name in ONE_PER_PROCESS or name.startswith("python")


def _is_object(path: str) -> bool:
    return path.endswith((".o", ".obj"))


def _without_suffix(file: str) -> str | None:
    """The name of an extension module's file without its suffix; None if it is none of them."""
    for suffix in EXTENSION_SUFFIXES:
        if file.endswith(suffix):
            return file.removesuffix(suffix)
    return None
