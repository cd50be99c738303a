"""Where libraries are on this machine, and which of them define a name.

`LibrarySearch` is for the messages of errors: nothing is linked, loaded or executed, and what
cannot be read is skipped. Shared libraries are searched through their hash tables, static ones
through their symbol index; an archive without one is skipped.

Work is bounded by the number of entries of directories, of files, and of bytes of symbol indexes.
A file of several names is read once.

Specification: ld.so(8) for the directories of shared libraries; the manual of GNU ld, `-l`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from jitlink.compilers import gcc_directories
from jitlink.errors import DefiningLibrary, InputError
from jitlink.formats.archive_magic import is_archive
from jitlink.host import MACHINE
from jitlink.inputs import ArchiveInput, InputFile, open_input
from jitlink.logs import Log
from jitlink.names.shared_libraries import ONE_PER_PROCESS
from jitlink.targets.registry import exported_among, target_of_object

log = Log("jitlink.formats")

_MOST_ENTRIES = 50_000
"""How many entries of each directory are looked at."""
_MOST_FILES = 10_000
"""How many files are searched."""
_MOST_INDEX_BYTES = 256 << 20
"""How many bytes of archives' symbol indexes are searched."""
_MOST_LIBRARIES = 3
"""How many libraries are reported for a name."""
_LOADER_CONFIGURATION = "/etc/ld.so.conf"
_MOST_CONFIGURATION_FILES = 100
_MOST_CONFIGURATION_BYTES = 1 << 16


def run_time_directories() -> list[str]:
    """The directories of LD_LIBRARY_PATH that exist, in order."""
    return _existing(os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))


def system_directories(machine: str | None = None) -> list[str]:
    """The directories that the system's compiler searches and that exist, in order.

    Args:
        machine: the architecture, as in a triple; by default that of this machine.
    """
    machine = machine or MACHINE
    multiarch = f"{machine}-linux-gnu"
    candidates = [
        *os.environ.get("LIBRARY_PATH", "").split(os.pathsep),
        *gcc_directories(machine),
        *(
            f"{prefix}/{directory}"
            for prefix in ("/usr/local", "", "/usr")
            for directory in (f"lib/{multiarch}", "lib64", "lib")
        ),
    ]
    return _existing(candidates)


def _existing(directories: Sequence[str]) -> list[str]:
    return [each for each in directories if each and os.path.isdir(each)]  # noqa: PTH112


def distinct(directories: Sequence[str]) -> list[str]:
    """The directories without duplicates, which may have different names."""
    return list({os.path.realpath(each): each for each in reversed(directories)}.values())[::-1]


def _loader_directories() -> list[str]:
    """The directories of the dynamic linker's configuration that exist, in order."""
    import glob  # noqa: PLC0415 - the command imports this module, and seldom needs that one

    found: list[str] = []
    pending, read = [_LOADER_CONFIGURATION], 0
    while pending and read < _MOST_CONFIGURATION_FILES:
        read += 1
        with suppress(OSError), open(pending.pop(0), "rb") as file:  # noqa: PTH123
            text = os.fsdecode(file.read(_MOST_CONFIGURATION_BYTES))
            for line in text.splitlines():
                words = line.partition("#")[0].split()
                if words[:1] == ["include"]:
                    for pattern in words[1:]:
                        full = os.path.join(os.path.dirname(_LOADER_CONFIGURATION), pattern)  # noqa: PTH118,PTH120
                        pending += sorted(islice(glob.iglob(full), _MOST_CONFIGURATION_FILES))  # noqa: PTH207
                elif words:
                    found.append(words[0])
    return _existing(found)


def file_names(name: str) -> tuple[str, str]:
    """The files that a library's name for a linker stands for, in order of preference."""
    static, shared = f"lib{name}.a", f"lib{name}.so"
    return (shared, static) if name in ONE_PER_PROCESS else (static, shared)


class _Candidate(NamedTuple):
    """A library that is searched.

    Attributes:
        path: its path.
        name: its name for a linker, whether or not `-l` finds this file.
        is_found: whether `-l` finds it.
    """

    path: str
    name: str
    is_found: bool

    @property
    def is_second_copy(self) -> bool:
        """Whether it is a static library of which a process has a shared one."""
        is_shared_only = self.name in ONE_PER_PROCESS and not self.is_found
        return is_shared_only and self.path.endswith(".a")

    @property
    def library(self) -> DefiningLibrary:
        """What is reported."""
        return DefiningLibrary(self.path, f"-l{self.name}" if self.is_found else "")


@dataclass(frozen=True)
class LibrarySearch:
    """A search for libraries that define names.

    Attributes:
        triple: the triple of objects that need the names; libraries for another are skipped.
        directories: directories that are searched before those of the compiler and of the dynamic
            linker.
    """

    triple: str
    directories: tuple[str, ...] = ()

    def __call__(self, names: Sequence[str]) -> dict[str, tuple[DefiningLibrary, ...]]:
        """The libraries that define names, the best first, for each that has one.

        The best are those that define most of the names, and of these the one with the shortest
        name.
        """
        candidates = list(islice(_distinct_files(self._candidates()), _MOST_FILES))
        defined = _Definitions(self.triple, names)
        found: dict[str, dict[str, _Candidate]] = {}
        counts: dict[str, int] = {}
        for candidate in candidates:
            for name in defined.of(candidate.path):
                known = found.setdefault(name, {})
                earlier = known.get(candidate.name)
                if earlier is None or (candidate.is_found and not earlier.is_found):
                    known[candidate.name] = candidate
                if earlier is None:
                    counts[candidate.name] = counts.get(candidate.name, 0) + 1
        return {
            name: tuple(
                each.library
                for each in sorted(
                    found[name].values(), key=lambda each: (-counts[each.name], len(each.name))
                )[:_MOST_LIBRARIES]
            )
            for name in names
            if name in found
        }

    def _candidates(self) -> Iterator[_Candidate]:
        machine = self.triple.partition("-")[0]
        cross = _existing([f"/usr/{machine}-linux-gnu/lib"])
        linked = distinct([*self.directories, *system_directories(machine), *cross])
        chosen: dict[str, str] = {}
        for directory in linked:
            names = _library_names(directory)
            for file, name in names.items():
                if file in file_names(name):
                    preferred = next(each for each in file_names(name) if each in names)
                    chosen.setdefault(name, os.path.join(directory, preferred))  # noqa: PTH118
            listed = [
                _Candidate(path, name, chosen.get(name) == path)
                for file, name in names.items()
                for path in [os.path.join(directory, file)]  # noqa: PTH118
            ]
            # What -l finds comes first, so that a file of several names has that one.
            listed.sort(key=lambda each: (not each.is_found, each.path))
            yield from (each for each in listed if not each.is_second_copy)
        for directory in distinct([*linked, *run_time_directories(), *_loader_directories()]):
            if directory not in linked:
                for file, name in sorted(_library_names(directory).items()):
                    yield _Candidate(os.path.join(directory, file), name, is_found=False)  # noqa: PTH118


def _library_names(directory: str) -> dict[str, str]:
    """The names for a linker of the files in a directory that are named like libraries."""
    is_library = re.compile(r"lib(.+?)(\.a|\.so(\.[0-9.]+)?)").fullmatch
    found: dict[str, str] = {}
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in islice(entries, _MOST_ENTRIES):
            matched = is_library(entry.name)
            if matched is not None:
                found[entry.name] = matched[1]
    return found


def _distinct_files(candidates: Iterator[_Candidate]) -> Iterator[_Candidate]:
    """The regular files, each under its first name."""
    seen: set[tuple[int, int]] = set()
    for candidate in candidates:
        with suppress(OSError):
            status = os.stat(candidate.path)  # noqa: PTH116
            key = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode) and key not in seen:
                seen.add(key)
                yield candidate


class _Definitions:
    """What libraries define of some names.

    Args:
        triple: of what triple they must be.
        names: the names.
    """

    def __init__(self, triple: str, names: Sequence[str]) -> None:
        self._triple, self._names = triple, names
        self._index_bytes = 0

    def of(self, path: str) -> list[str]:
        """Those of the names that a library defines; none of a file that cannot be used."""
        try:
            file = open_input(path)
            if is_archive(file.data):
                return self._of_archive(file)
            if self._is_usable(file):
                return exported_among(file.data, file.name, self._names)
        except InputError as error:
            log.debug("cannot search %s: %s", path, error)
        return []

    def _is_usable(self, file: InputFile) -> bool:
        return target_of_object(file.data, file.name).triple == self._triple

    def _of_archive(self, file: InputFile) -> list[str]:
        from jitlink.formats.archive import Archive  # noqa: PLC0415 - as `glob`

        archive = Archive(file.data, file.name)
        self._index_bytes += archive.index_size
        if self._index_bytes > _MOST_INDEX_BYTES or not archive.may_define(self._names):
            return []
        members = ArchiveInput(file)
        index = members.archive.index or {}
        wanted = [name for name in self._names if name in index]
        return [name for name in wanted if self._is_usable_member(members, index[name])]

    def _is_usable_member(self, archive: ArchiveInput, offset: int) -> bool:
        member = archive.archive.member_at(offset)
        if member.path is not None:
            # The member of a thin archive is a file of any kind; to open a pipe would block.
            directory = os.path.dirname(archive.archive.name)  # noqa: PTH120
            path = os.path.join(directory, member.path)  # noqa: PTH118
            if not os.path.isfile(path):  # noqa: PTH113
                return False
        return any(map(self._is_usable, archive.open([offset])))
