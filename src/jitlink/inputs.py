"""Input files: opened, told apart, and grouped for the readers of objects; members of archives.

`defining_members` has the rule by which members of archives are extracted. Small files are
concatenated in one buffer, so that a thousand of them are one batch for the object reader; large
ones are mapped.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

from jitlink.errors import ArchiveError, InputError, MissingFileError, UnknownFormatError
from jitlink.graph import Linkage, LinkGraph, SymbolFlags
from jitlink.graph.tables import exported_rows
from jitlink.logs import Log
from jitlink.targets.base import Batch, Target
from jitlink.targets.registry import Buffer, target_of_object

if TYPE_CHECKING:
    from jitlink.formats.archive import Archive, Member

log = Log("jitlink.formats")

_MAPPED_FROM = 1 << 16
"""Size in bytes from which files are mapped; reading smaller ones costs less than mapping."""
_SMALL = 0
"""Key of the group of all small files; others are grouped by the identity of their buffer."""

Input = str | os.PathLike[str] | Buffer
_PATH_TYPES = (str, os.PathLike)
_READ_ONLY = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


class InputFile(NamedTuple):
    """One object or archive to be read.

    Attributes:
        name: display name.
        data: its bytes.
        container: the buffer that contains the bytes, such as a whole archive; None for a separate
            file.
        start: offset of the bytes in the container.
    """

    name: str
    data: memoryview
    container: memoryview | None = None
    start: int = 0


def open_input(source: Input, number: int = 0) -> InputFile:
    """Open a path, or wrap bytes.

    Raises:
        InputError: the file cannot be read.
    """
    if isinstance(source, _PATH_TYPES):
        name = os.fspath(source)
        return InputFile(name, _read_file(name))
    return InputFile(f"<memory {number}>", memoryview(source).cast("B"))


class MappedFile(mmap.mmap):
    """A file that is mapped for reading only, so that its pages can be released at any time."""

    def release(self) -> None:
        """Give the pages back; they are mapped again, from the page cache, when they are read."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.madvise(mmap.MADV_DONTNEED)


def _read_file(name: str) -> memoryview:
    try:
        descriptor = os.open(name, _READ_ONLY)
        try:
            size = os.fstat(descriptor).st_size
            if size >= _MAPPED_FROM:
                return memoryview(MappedFile(descriptor, size, access=mmap.ACCESS_READ))
            return memoryview(_read_all(descriptor, size))
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise MissingFileError(error.strerror or "does not exist", file=name) from error
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", file=name) from error
    except ValueError as error:  # A null byte in the name, perhaps of a thin archive's member.
        raise InputError(str(error), file=name) from error


def _read_all(descriptor: int, size: int) -> bytes:
    # One byte more than expected: a short read then means that the file is complete.
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    pieces = [data]
    while pieces[-1]:
        pieces.append(os.read(descriptor, 1 << 20))
    return b"".join(pieces)


class _Archive(Protocol):
    """What defines names in members."""

    def find(self, names: Iterable[str]) -> Mapping[int, str]:
        """Header offsets of the members that define any of these names; the first name of each."""

    def find_data(self, names: Iterable[str]) -> Mapping[str, int]:
        """Header offset of the first member that defines each of these names as data, if any."""

    def undefined_among(self, names: Iterable[str]) -> list[str]:
        """Those of the names that no member defines."""


A = TypeVar("A", bound=_Archive)


def defining_members(
    archives: Iterable[A], names: Iterable[str], commons: Iterable[str] = ()
) -> Iterator[tuple[A, Mapping[int, str]]]:
    """The members of archives that define undefined names: one step of archive extraction.

    As in every static linker, a member is extracted if it defines a name to which there is a strong
    reference and which nothing defines yet; of several archives that define the name, the first is
    searched. Weak references extract nothing, and no member is extracted twice. Members that are
    read may refer to more names, so the step is repeated until it finds no new member: the order of
    archives affects only which definition is taken, as within GNU ld's ``--start-group``.

    For a common symbol, a member is extracted that has a strong definition of the name which is
    neither a function nor common. This is GNU ld's rule. mold takes weak definitions, too; ld.lld
    searches archives for common symbols only with ``--fortran-common``.

    Specification: System V gABI, chapter 4, "Symbol table", for weak references; for common symbols
    the GNU ld manual, `--warn-common`.

    Args:
        archives: the archives, in order of search.
        names: the undefined names with a strong reference.
        commons: the names that common symbols define.

    Yields:
        Each archive, with header offsets of its members that define names which no archive before
        it defines, and the first such name of each. Members that were extracted already are among
        them.
    """
    wanted, tentative = list(names), list(commons)
    for archive in archives:
        members = archive.find(wanted)
        if tentative:
            data = archive.find_data(tentative)
            tentative = [name for name in tentative if name not in data]
            first_names: dict[int, str] = {}
            for name, offset in data.items():
                first_names.setdefault(offset, name)
            members = dict(sorted({**first_names, **members}.items()))
        yield archive, members
        wanted = archive.undefined_among(wanted)


def batches(files: Sequence[InputFile]) -> list[Batch]:
    """Group files by the buffer that contains them, and small ones into a new buffer.

    Order is kept: of two definitions of equal strength the first input's prevails.
    """
    batches = []
    for container, group in groupby(files, key=_group):
        members = list(group)
        sizes = np.array([len(file.data) for file in members], np.int64)
        starts = np.array([file.start for file in members], np.int64)
        buffer = members[0].container or members[0].data
        if container == _SMALL and len(members) > 1:
            buffer = memoryview(b"".join([file.data for file in members]))
            starts = np.cumsum(sizes) - sizes
        batches.append(Batch(buffer, [file.name for file in members], starts, sizes))
    return batches


def _group(file: InputFile) -> int:
    if file.container is not None:
        return id(file.container)
    return _SMALL if len(file.data) < _MAPPED_FROM else id(file)


def _open_archive(data: memoryview, name: str) -> Archive:
    from jitlink.formats.archive import Archive  # noqa: PLC0415 - many links have none

    return Archive(data, name)


class ArchiveInput:
    """An archive and which of its members were extracted."""

    def __init__(self, file: InputFile) -> None:
        self.data = file.data
        log.debug("%s: archive of %d bytes", file.name, len(file.data))
        self.archive = _open_archive(file.data, file.name)
        self._index = self.archive.index
        self._extracted: set[int] = set()
        # The header offset of the first member that was read of each display name.
        self._named: dict[str, int] = {}
        self._numbers: dict[int, int] = {}
        # Of names that common symbols define: the members that define them, by name; and what
        # those define as data, by header offset.
        self._definers: dict[str, list[int]] = {}
        self._data: dict[int, set[str]] = {}

    def extract(self, offsets: Iterable[int]) -> list[InputFile]:
        """The members at header offsets that were not extracted before."""
        return self.open([offset for offset in offsets if offset not in self._extracted])

    def find(self, names: Iterable[str]) -> dict[int, str]:
        """Header offsets of the members that define any of these names; the first name of each.

        In order of offset.
        """
        index = self._symbol_index()
        found: dict[int, str] = {}
        for name in names:
            if name in index:
                found.setdefault(index[name], name)
        return dict(sorted(found.items()))

    def find_data(self, names: Iterable[str]) -> dict[str, int]:
        """Header offset of the first member that defines each of these names as data, if any.

        That is a strong definition, neither of a function nor common.
        """
        index = self._symbol_index()
        wanted = [name for name in names if name in index]
        new = {name for name in wanted if name not in self._definers}
        if new and self.archive.index is None:
            self._definers |= dict.fromkeys(new, self.member_offsets())
        elif new:
            self._definers |= self.archive.find_all(new)
        found: dict[str, int] = {}
        for name in wanted:
            for offset in self._definers[name]:
                if name in self._data_names(offset):
                    found[name] = offset
                    break
        return found

    def _data_names(self, offset: int) -> set[str]:
        """The strong definitions of the member at a header offset that are data, or untyped."""
        if offset not in self._data:
            file = self._read_member(offset)
            self._data[offset] = _data_names(file) if file is not None else set()
        return self._data[offset]

    def names(self) -> list[str]:
        """All names that members define."""
        return list(self._symbol_index())

    def member_offsets(self) -> list[int]:
        """Header offsets of all object members, in order."""
        return [member.header_offset for member in self.archive.members()]

    def undefined_among(self, names: Iterable[str]) -> list[str]:
        """Those of the names that no member defines."""
        index = self._symbol_index()
        return [name for name in names if name not in index]

    def extract_all(self) -> list[InputFile]:
        """All object members that were not extracted before."""
        members = [
            member
            for member in self.archive.members(checks_index=True)
            if member.header_offset not in self._extracted
        ]
        self._extracted.update([member.header_offset for member in members])
        files = map(self._open_member, members)
        return [file for file in files if file is not None]

    def open(self, offsets: Sequence[int]) -> list[InputFile]:
        """The members at header offsets, without empty ones; they count as extracted."""
        self._extracted.update(offsets)
        files = map(self._read_member, offsets)
        return [file for file in files if file is not None]

    def _read_member(self, offset: int) -> InputFile | None:
        """The member at a header offset; None if it is empty."""
        return self._open_member(self.archive.member_at(offset))

    def _open_member(self, member: Member) -> InputFile | None:
        """The file that a member is; None if it is empty.

        If another member of its name has been read, its own name has its number.
        """
        # LLVM differs: all names have the numbers. That takes reading all members' headers.
        name, offset = member.display_name, member.header_offset
        if self._named.setdefault(name, offset) != offset:
            name = member.numbered_name(self._number(offset))
        if member.data is None:
            return self._open_thin(member, name)
        return InputFile(name, member.data, self.data, member.offset) if member.size else None

    def _number(self, offset: int) -> int:
        """The position among all members of the one at a header offset.

        Raises:
            ArchiveError: no member is there, or one before it is malformed.
        """
        if not self._numbers:
            numbered = enumerate(self.member_offsets())
            self._numbers = {each: number for number, each in numbered}
        if offset not in self._numbers:
            raise ArchiveError("not the header of a member", file=self.archive.name, offset=offset)
        return self._numbers[offset]

    def _open_thin(self, member: Member, name: str) -> InputFile:
        """A member of a thin archive: another file, or a member of another archive."""
        path = os.path.join(os.path.dirname(self.archive.name), member.path or "")  # noqa: PTH118,PTH120 - pathlib takes 3 ms to import
        data = _read_file(path)
        if member.nested_offset is None:
            return InputFile(name, data)
        nested = _open_archive(data, path).member_at(member.nested_offset)
        if nested.data is None:
            raise ArchiveError("a thin archive in a thin archive", file=name)
        return InputFile(name, nested.data)

    def _symbol_index(self) -> dict[str, int]:
        if self._index is None:
            self._index = self._create_index()
        return self._index

    def _create_index(self) -> dict[str, int]:
        """The index of an archive without one: the global definitions of each member."""
        index: dict[str, int] = {}
        # By identity: a target need not be hashable.
        members: dict[int, tuple[Target, list[tuple[int, InputFile]]]] = {}
        for offset in self.member_offsets():
            file = self._read_member(offset)
            with suppress(UnknownFormatError):
                if file is not None:
                    target = target_of_object(file.data, file.name)
                    members.setdefault(id(target), (target, []))[1].append((offset, file))
        for target, placed in members.values():
            for name, number in _definitions(target, [file for _, file in placed]):
                index.setdefault(name, placed[number][0])
        return index


def _definitions(target: Target, files: Sequence[InputFile]) -> Iterator[tuple[str, int]]:
    """The names that objects of one target define, in order, with the object's index."""
    graph = target.new_graph(files[0].name)
    reads = [target.add_objects(graph, batch) for batch in batches(files)]
    rows = exported_rows(graph.symbol_table)
    first = np.concatenate([read.first_symbol for read in reads])
    numbers = first.searchsorted(rows, side="right") - 1
    names = graph.strings.get_many(graph.symbol_table.name[rows])
    return zip(names, numbers.tolist(), strict=True)


def _read_alone(file: InputFile) -> LinkGraph | None:
    """The graph of one object; None if the file is no object."""
    try:
        target = target_of_object(file.data, file.name)
    except UnknownFormatError:
        return None
    graph = target.new_graph(file.name)
    for batch in batches([file]):
        target.add_objects(graph, batch)
    return graph


def _data_names(file: InputFile) -> set[str]:
    """The names that an object has strong definitions of which are neither functions nor common."""
    graph = _read_alone(file)
    if graph is None:
        return set()
    table = graph.symbol_table
    rows = exported_rows(table)
    flags = table.flags[rows]
    is_data = flags & np.uint8(SymbolFlags.CALLABLE | SymbolFlags.COMMON) == 0
    is_data &= (table.linkage[rows] == Linkage.STRONG) | (flags & SymbolFlags.UNIQUE != 0)
    return set(graph.strings.get_many(table.name[rows[is_data]]))
