"""Input files and libraries of a command: the search for them, their kinds, linker scripts.

A library NAME is ``libNAME.a`` or ``libNAME.so``, in the directories of `-L` in order, then in
those of the system's compiler. Within a directory the static library is preferred: its code is
linked, not loaded. Libraries of which a process can only have one copy, such as those of the C
library, are the exception: this process has loaded them already.

The options `-Bstatic` and `-Bdynamic` and the name ``:FILE`` have the effect that they have for GNU
ld; but no option makes a second copy of the C library.

LLVM differs: it prefers shared libraries, and searches the system's directories only on request.

Either file may be a linker script, a text file that names the files to link instead; Debian's
``libc.so`` and ``libm.a`` are such scripts. The commands in those are supported: see the manual of
GNU ld, "Commands Dealing with Files".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from jitlink.errors import InputError, UnknownFormatError
from jitlink.formats.archive_magic import is_archive
from jitlink.formats.elf_layout import is_elf, is_shared_object
from jitlink.inputs import InputFile, open_input
from jitlink.memory.mapping import mapped_ranges
from jitlink.names.shared_libraries import C_LIBRARY
from jitlink.tool.options import CommandLineError, InputArgument, LibraryPreference

# Bytes. Longer texts are not parsed: linker scripts are a few lines.
_LONGEST_SCRIPT = 1 << 16
_SCRIPT_WORD = r'\s+ | /\*.*?\*/ | ([(),;]) | "([^"\n]*)" | ([^\s(),;"]+)'


class InputCollector:
    """Finds and opens inputs.

    Args:
        directories: directories that are searched for libraries first.

    Attributes:
        files: opened objects and archives, in order.
        dylibs: paths of shared libraries, in order.

    Raises:
        CommandLineError: one of the directories does not exist.
    """

    def __init__(self, directories: Sequence[str] = ()) -> None:
        for directory in directories:
            if not os.path.isdir(directory):  # noqa: PTH112
                raise CommandLineError(f"{directory} is not a directory", option="L")
        self.files: list[InputFile] = []
        self.dylibs: list[str] = []
        self._directories = tuple(directories)
        self._preference: LibraryPreference = "default"
        self._scripts: list[str] = []

    def add(self, argument: InputArgument) -> None:
        """Add an input of the command.

        Raises:
            InputError: a file cannot be read, or is an unsupported linker script.
            CommandLineError: there is no such library, or it cannot be linked in this way.
        """
        # For the libraries that a file names, which may be a linker script, too.
        self._preference = argument.preference
        if argument.linkage == "weak":
            self._refuse_weak(argument)
        elif argument.linkage == "hidden":
            self._add_hidden(argument)
        elif argument.kind == "library":
            self.add_library(argument.name)
        else:
            self.add_file(argument.name)

    def _add_hidden(self, argument: InputArgument) -> None:
        path = argument.name
        if argument.kind == "library":
            names = [path[1:]] if path.startswith(":") else [f"lib{path}.a"]
            path = self._find(argument, names)
        file = open_input(path)
        if not is_archive(file.data):
            raise CommandLineError(f"{path} is not a static archive", option=argument.option)
        self.files.append(file)

    def _refuse_weak(self, argument: InputArgument) -> None:
        """Refuse an interface of a library, as LLVM does for ELF objects."""
        path = argument.name
        if argument.kind == "library":
            path = self._find(argument, [f"lib{path}.dylib", f"lib{path}.tbd"])
        open_input(path)
        raise CommandLineError(
            f"{path} cannot be an interface that ELF objects are linked against",
            option=argument.option,
        )

    def _find(self, argument: InputArgument, names: Sequence[str]) -> str:
        """The first file on the search path with one of these names."""
        for directory in self._search_path():
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118
                if os.path.isfile(path):  # noqa: PTH113
                    return path
        searched = ", ".join(self._search_path())
        what = " or ".join(names)
        raise CommandLineError(f"no {what} in {searched}", option=argument.option)

    def add_library(self, name: str) -> None:
        """Find and add a library; see `add` for the errors."""
        for directory in self._search_path():
            for file in _file_names(name, self._preference):
                path = os.path.join(directory, file)  # noqa: PTH118
                if os.path.isfile(path):  # noqa: PTH113
                    self._check_preference(name, path)
                    self.add_file(path)
                    return
        is_static = self._preference == "static" and name not in C_LIBRARY
        loaded = None if is_static else _loaded_library(name)
        if loaded is None:
            searched = ", ".join(self._search_path())
            what = "static library" if is_static else "library"
            if name.startswith(":"):
                what, name = "file", name[1:]
            raise CommandLineError(f"no {what} {name} in {searched}", option="l")
        self.dylibs.append(loaded)

    def _check_preference(self, name: str, path: str) -> None:
        if self._preference != "static" or not name.startswith(":"):
            return
        if is_shared_object(open_input(path).data):
            raise CommandLineError(f"{path} is a shared library, behind -Bstatic", option="l")

    def add_file(self, path: str) -> None:
        """Add a file of any kind; see `add` for the errors."""
        file = open_input(path)
        if is_shared_object(file.data):
            # dlopen searches the system's directories for a name without a slash.
            self.dylibs.append(os.path.join(os.path.dirname(path) or ".", os.path.basename(path)))  # noqa: PTH118,PTH119,PTH120
        elif script := _script_text(file):
            self._add_script(path, script)
        else:
            self.files.append(file)

    def _search_path(self) -> tuple[str, ...]:
        # Imported on use: a program of objects alone needs no libraries to be searched for.
        from jitlink.library_search import distinct, system_directories  # noqa: PLC0415

        return tuple(distinct([*self._directories, *system_directories()]))

    def _add_script(self, path: str, text: str) -> None:
        place = os.path.realpath(path)
        if place in self._scripts:
            raise InputError("the linker script includes itself", file=path)
        self._scripts.append(place)
        for name in script_files(text, path):
            if name.startswith("-l"):
                self.add_library(name[2:])
            else:
                self.add_file(self._find_beside(path, name))
        self._scripts.pop()

    def _find_beside(self, script: str, name: str) -> str:
        """A file of a linker script: beside it, in this directory, or on the search path."""
        for directory in (os.path.dirname(script), "", *self._search_path()):  # noqa: PTH120
            path = os.path.join(directory, name)  # noqa: PTH118
            if os.path.isfile(path):  # noqa: PTH113
                return path
        return name


def _file_names(name: str, preference: LibraryPreference) -> tuple[str, ...]:
    """The files that the name given to `-l` stands for, in order of preference."""
    if name.startswith(":"):
        return (name[1:],)
    if preference == "static" and name not in C_LIBRARY:
        return (f"lib{name}.a",)
    if preference == "shared":
        return (f"lib{name}.so", f"lib{name}.a")
    from jitlink.library_search import file_names  # noqa: PLC0415 - as above

    return file_names(name)


def _loaded_library(name: str) -> str | None:
    """The path of a shared library of that name that this process has loaded."""
    beginning = f"lib{name}.so"
    for each in mapped_ranges():
        base = os.path.basename(each.path)  # noqa: PTH119
        if base == beginning or base.startswith(f"{beginning}."):
            return each.path
    return None


# Linker scripts


def _script_text(file: InputFile) -> str | None:
    """The text of a file if it is a linker script, else None."""
    data = file.data
    if not 0 < len(data) <= _LONGEST_SCRIPT or is_elf(data) or is_archive(data):
        return None
    try:
        text = bytes(data).decode()
    except UnicodeDecodeError:
        return None
    commands = r"OUTPUT_FORMAT|GROUP|INPUT|SEARCH_DIR"
    return text if re.match(rf"(\s|/\*.*?\*/)*({commands})\s*\(", text, re.DOTALL) else None


def script_files(text: str, file: str) -> list[str]:
    """The files, and libraries as ``-lNAME``, that a linker script names.

    Args:
        text: the script.
        file: its name, for errors.

    Raises:
        UnknownFormatError: it has commands that do not name files.
    """
    words = list(_script_words(text, file))
    names: list[str] = []
    # The commands whose parentheses are open.
    commands: list[str] = []
    position = 0
    while position < len(words):
        word, following = words[position], words[position + 1 : position + 2]
        if following == ["("] and word in {"GROUP", "INPUT", "AS_NEEDED", "OUTPUT_FORMAT"}:
            commands.append(word)
            position += 1
        elif word == ")" and commands:
            commands.pop()
        elif word in {"(", ")"} or (not commands and word not in {",", ";"}):
            raise UnknownFormatError(
                f"linker script has {word!r} where no file is named", file=file
            )
        elif word not in {",", ";"} and commands[-1:] != ["OUTPUT_FORMAT"]:
            names.append(word)
        position += 1
    if commands:
        raise UnknownFormatError(f"linker script ends within {commands[-1]}", file=file)
    return names


def _script_words(text: str, file: str) -> Iterator[str]:
    # Compiled on use, because few commands have linker scripts.
    piece_at = re.compile(_SCRIPT_WORD, re.DOTALL | re.VERBOSE).match
    position = 0
    while position < len(text):
        piece = piece_at(text, position)
        if piece is None:
            raise UnknownFormatError("linker script has an open comment or quote", file=file)
        position = piece.end()
        word = piece[1] or piece[2] or piece[3]
        if word:
            yield word
