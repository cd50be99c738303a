"""Static archives (``.a``, ``.lib``): members by offset, the symbol index, thin archives.

An archive is an eight-byte magic and a chain of members, each a header of 60 ASCII bytes followed
by the member's bytes and, if those end at an odd position, one byte of padding. That is common to
all archives; the rest depends on the dialect:

- *SysV and GNU*: short names end with ``/``; a name ``/123`` is at that position in the member
  ``//``, up to a line feed. The symbol index is the member ``/`` (32-bit offsets) or ``/SYM64/``
  (64-bit), big endian, its names in the order of its offsets.
- *COFF*: as above, but long names end with a NUL and a second ``/`` repeats the index in sorted
  order. More members with names such as ``/<ECSYMBOLS>/`` may follow.
- *BSD and Darwin*: a name ``#1/20`` is in the first 20 bytes of the member, padded with NULs. The
  index is ``__.SYMDEF``, ``__.SYMDEF SORTED`` (32-bit) or ``__.SYMDEF_64`` (64-bit): pairs of name
  position and offset, in the byte order of the target, which the archive does not record. Darwin
  counts padding as part of a member.
- *Thin* (GNU, with a magic of its own): ordinary members have a header only; their names are the
  paths of the files that hold their bytes. A name ``/62:214`` is the member whose header is at 214
  in the archive whose path is at 62 among the long names.

Opening an archive reads its leading special members only, so that its cost does not depend on the
number of members; the header of a member is read when the member is requested. The bytes are never
copied: indexes and members are views of the caller's buffer. Their alignment is two bytes at least.

Names are text: bytes that are not UTF-8 are decoded to surrogate escapes.

There is no standard. The dialects are described by the manual pages ar(5) of the BSDs and of
System V, by "Archive (Library) File Format" in Microsoft's PE format specification, and by
Darwin's ``<mach-o/ranlib.h>``.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import numpy as np

from jitlink.errors import ArchiveError
from jitlink.formats.archive_magic import MAGIC, THIN_MAGIC, is_archive
from jitlink.names.versions import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt
    from typing_extensions import Buffer

    _Offsets: TypeAlias = npt.NDArray[np.uint64]

_MAGIC_SIZE: Final = len(MAGIC)

_HEADER_SIZE: Final = 60
_HEADER_END: Final = b"`\n"

# Linux's PATH_MAX. Without a limit, the name of every member of a hostile archive could be the
# whole table of long names.
# LLVM differs: it has no limit.
_LONGEST_NAME: Final = 4096
_NAME_END: Final = re.compile(rb"[\n\0]")

# Names of symbol indexes, and the width in bytes of the integers in them.
_SYSV_INDEXES: Final = {b"/": 4, b"/SYM64/": 8}
_RANLIB_INDEXES: Final = {
    b"__.SYMDEF": 4,
    b"__.SYMDEF SORTED": 4,
    b"__.SYMDEF_64": 8,
    b"__.SYMDEF_64 SORTED": 8,
}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive.

    `str` returns its display name, ``libx.a(member.o)``.

    Attributes:
        archive: name of the archive, as the caller gave it.
        name: name of the member; for a thin archive its path, as stored.
        header_offset: position of the member's header in the archive, in bytes.
        offset: position of the member's data in the archive, in bytes; 0 for a thin archive.
        size: size of the data in bytes. For a thin archive it is the size that the file had when
            the archive was written.
        data: the member's bytes, read only; None for a thin archive.
        path: for a thin archive, the path of the file that holds the member's bytes, relative to
            the archive's directory unless absolute. None if the bytes are in the archive.
        nested_offset: for a thin archive, if the file at `path` is an archive and the bytes are
            one of its members, the position of that member's header there; otherwise None.
    """

    archive: str
    name: str
    header_offset: int
    offset: int
    size: int
    data: memoryview | None = field(compare=False, repr=False)
    path: str | None
    nested_offset: int | None

    @property
    def display_name(self) -> str:
        """``libx.a(member.o)``; ``libx.a(nested.a:214)`` for a member of a nested archive."""
        place = "" if self.nested_offset is None else f":{self.nested_offset}"
        return f"{self.archive}({self.name}{place})"

    def numbered_name(self, number: int) -> str:
        """The display name with the member's position in the archive, ``libx.a[1](member.o)``."""
        return f"{self.archive}[{number}]{self.display_name.removeprefix(self.archive)}"

    def __str__(self) -> str:
        return self.display_name


class _Role(enum.Enum):
    """The purpose of a member."""

    ORDINARY = enum.auto()
    SYSV_INDEX = enum.auto()
    RANLIB_INDEX = enum.auto()
    LONG_NAMES = enum.auto()
    IGNORED = enum.auto()


class _Header(NamedTuple):
    """A member's header, checked, with the name as stored.

    Attributes:
        name: name without padding, not yet interpreted by dialect.
        literal: whether `name` is the name itself, stored with the data, and not a code for it.
        role: purpose of the member.
        header_offset: position of the header.
        offset: position of the data, behind a name that precedes it.
        size: size of the data in bytes, or of the file that a thin archive names.
        end: position behind the member's last byte in the archive.
    """

    name: bytes
    literal: bool
    role: _Role
    header_offset: int
    offset: int
    size: int
    end: int

    @property
    def following(self) -> int:
        """Position of the next header, if there is one: behind the padding."""
        # LLVM differs: it refuses an archive that lacks the padding of its last member.
        return self.end + (self.end & 1)


class Archive:
    """A static archive over a buffer.

    Args:
        data: the archive's bytes: any contiguous buffer, such as a mapped file. It is not copied,
            and must not change as long as the archive or a member's data are in use.
        name: the archive's name for display names and errors, usually its path.

    Raises:
        ArchiveError: the buffer does not begin with the magic of an archive, or the header of a
            leading special member or of the first ordinary member is malformed.
    """

    __slots__ = (
        "_data",
        "_first",
        "_index",
        "_index_header",
        "_is_thin",
        "_long_names",
        "_name",
        "_targets",
    )

    def __init__(self, data: Buffer, name: str) -> None:
        self._data = memoryview(data).cast("B").toreadonly()
        self._name = name
        magic = bytes(self._data[:_MAGIC_SIZE])
        if not is_archive(magic):
            raise self._error(f"not an archive: it begins with {magic!r}", 0)
        self._is_thin = magic == THIN_MAGIC
        self._index: dict[str, int] | None = None
        self._index_header: _Header | None = None
        self._long_names: memoryview | None = None
        # Sorted, distinct offsets of the members that the index names; empty before it is read.
        self._targets: list[int] = []
        self._first = self._read_special_members()

    def __repr__(self) -> str:
        return f"<Archive {self._name!r}{' (thin)' if self._is_thin else ''}>"

    @property
    def name(self) -> str:
        """The archive's name, as the caller gave it."""
        return self._name

    @property
    def is_thin(self) -> bool:
        """Whether the archive holds the paths of its members instead of their bytes."""
        return self._is_thin

    @property
    def index(self) -> dict[str, int] | None:
        """The symbol index: the header offset of the member that defines each symbol, by name.

        None if the archive has no index; then only the members' symbol tables show what they
        define. A symbol of several members maps to the first of them in the index. The index is
        decoded at first use; the dictionary belongs to the archive and must not be modified.

        Raises:
            ArchiveError: the index is malformed, or an offset in it is outside the archive.
        """
        if self._index is None and self._index_header is not None:
            self._index = self._read_index(self._index_header)
        return self._index

    @property
    def index_size(self) -> int:
        """Size of the symbol index in bytes; 0 if there is none."""
        header = self._index_header
        return 0 if header is None else header.size

    def may_define(self, names: Iterable[str]) -> bool:
        """Whether the symbol index, which is not decoded, has the bytes of one of these names."""
        header = self._index_header
        if header is None:
            return False
        content = bytes(self._data[header.offset : header.end])
        encoded = (name.encode("utf-8", "surrogateescape") for name in names)
        return any(name + b"\0" in content for name in encoded)

    def find_all(self, names: AbstractSet[str]) -> dict[str, list[int]]:
        """The header offsets of all members that define names, in order, by name.

        Unlike `index`, which has the first of them, this decodes the index at every call.

        Raises:
            ArchiveError: the index is malformed, or an offset in it is outside the archive.
        """
        found: dict[str, list[int]] = {name: [] for name in names}
        if self._index_header is not None:
            for name, offset in zip(*self._read_entries(self._index_header), strict=True):
                if name in found:
                    found[name].append(int(offset))
        return found

    def member_at(self, header_offset: int) -> Member:
        """Read the member whose header is at an offset from `index` or from a thin archive.

        Args:
            header_offset: position in the archive, in bytes.

        Raises:
            ArchiveError: there is no member's header at the offset, it is that of a special member,
                it is malformed, the member overlaps another one that the index names, or the index
                is malformed.
        """
        header = self._read_header(header_offset)
        if header_offset < self._first or header.role is not _Role.ORDINARY:
            raise self._error("not an ordinary member, but a special one", header_offset)
        self._check_overlap(header)
        return self._make_member(header)

    def members(self, *, checks_index: bool = False) -> Iterator[Member]:
        """Read all ordinary members, in the order of the archive.

        Special members are skipped. The iteration checks every header and name, and that the
        members fill the archive to its end.

        Args:
            checks_index: check what `member_at` checks, too; else the index is not read.

        Raises:
            ArchiveError: when the iteration reaches a malformed member.
        """
        position = self._first
        while position < len(self._data):
            header = self._read_header(position)
            if header.role is _Role.ORDINARY:
                if checks_index:
                    self._check_overlap(header)
                yield self._make_member(header)
            elif header.role is not _Role.IGNORED:
                raise self._error(
                    f"special member {_shown(header.name)} behind ordinary members", position
                )
            position = header.following

    def _check_overlap(self, header: _Header) -> None:
        """Refuse a member that overlaps another one that the index names."""
        # The members of an archive do not overlap. A hostile index could name a member at every
        # byte, each of which holds all that follow, and make the work of a linker quadratic.
        targets = self._targets if self.index else []
        position = bisect_right(targets, header.header_offset)
        if position < len(targets) and header.end > targets[position]:
            raise self._error(
                f"member of {header.size} bytes overlaps the one at offset "
                f"{targets[position]:#x} that the symbol index names",
                header.header_offset,
            )

    def _error(self, message: str, offset: int) -> ArchiveError:
        return ArchiveError(message, file=self._name, offset=offset)

    # Headers and names

    def _read_special_members(self) -> int:
        """Find index and long names; returns the position of the first ordinary member."""
        position = _MAGIC_SIZE
        second_linker_member = False
        while position < len(self._data):
            header = self._read_header(position)
            if header.role is _Role.ORDINARY:
                break
            if header.role is _Role.LONG_NAMES:
                if self._long_names is not None:
                    raise self._error("second table of long names", position)
                self._long_names = self._data[header.offset : header.end]
            elif header.role is not _Role.IGNORED:
                if self._index_header is None:
                    self._index_header = header
                elif self._index_header.name == header.name == b"/" and not second_linker_member:
                    # COFF's second linker member: the same index, sorted.
                    second_linker_member = True
                else:
                    raise self._error(f"second symbol index {_shown(header.name)}", position)
            position = header.following
        return position

    def _read_header(self, position: int) -> _Header:
        """Check and parse the header at a position, which may be any integer."""
        left = len(self._data) - position
        if position < _MAGIC_SIZE or left < _HEADER_SIZE:
            raise self._error(
                f"a member's header lies outside the archive of {len(self._data)} bytes", position
            )
        raw = bytes(self._data[position : position + _HEADER_SIZE])
        if raw[58:] != _HEADER_END:
            raise self._error(
                f"not a member's header: it ends with {raw[58:]!r} instead of {_HEADER_END!r}",
                position,
            )
        size = self._parse_number(raw[48:58], "size", position)
        name = raw[:16].rstrip(b" ")
        literal = name.startswith(b"#1/")
        role = _Role.ORDINARY if literal else self._find_role(name)
        offset = position + _HEADER_SIZE
        inline = not self._is_thin or role is not _Role.ORDINARY
        if inline and size > left - _HEADER_SIZE:
            raise self._error(
                f"member of {size} bytes where the archive has {left - _HEADER_SIZE} left", position
            )
        end = offset + size if inline else offset
        if literal:
            name, length = self._read_embedded_name(name, offset, size, position)
            role = _Role.RANLIB_INDEX if name in _RANLIB_INDEXES else _Role.ORDINARY
            offset += length
            size -= length
        return _Header(name, literal, role, position, offset, size, end)

    def _parse_number(self, text: bytes, what: str, position: int) -> int:
        """Parse a decimal number, padded with spaces, of the header at a position."""
        digits = text.strip(b" ")
        if not digits.isdigit():  # int() also takes signs and underscores
            raise self._error(f"member's {what} is not a decimal number: {_shown(text)}", position)
        return int(digits)

    def _find_role(self, name: bytes) -> _Role:
        """The role of a member with that name in its header."""
        if name in _SYSV_INDEXES:
            return _Role.SYSV_INDEX
        if name == b"//":
            return _Role.LONG_NAMES
        if name.startswith(b"/<") and name.endswith(b">/"):
            return _Role.IGNORED
        if not self._is_thin and name.removesuffix(b"/") in _RANLIB_INDEXES:
            return _Role.RANLIB_INDEX
        return _Role.ORDINARY

    def _read_embedded_name(
        self, code: bytes, offset: int, size: int, position: int
    ) -> tuple[bytes, int]:
        """Read a BSD name, ``#1/length``; returns it with its length in the archive."""
        if self._is_thin:
            raise self._error(f"name {_shown(code)} in a thin archive", position)
        length = self._parse_number(code[3:], "name's length", position)
        if length > size:
            raise self._error(f"name of {length} bytes in a member of {size} bytes", position)
        if length > _LONGEST_NAME:
            raise self._error(f"name of {length} bytes, more than {_LONGEST_NAME}", position)
        return bytes(self._data[offset : offset + length]).rstrip(b"\0"), length

    def _make_member(self, header: _Header) -> Member:
        raw, nested_offset = header.name, None
        if raw.startswith(b"/") and not header.literal:
            raw, nested_offset = self._find_long_name(raw, header.header_offset)
        elif not header.literal:
            raw = raw.removesuffix(b"/")
        if not raw or b"\0" in raw:
            raise self._error(f"{_shown(raw)} cannot be a member's name", header.header_offset)
        name = raw.decode("utf-8", "surrogateescape")
        thin = self._is_thin
        return Member(
            archive=self._name,
            name=name,
            header_offset=header.header_offset,
            offset=0 if thin else header.offset,
            size=header.size,
            data=None if thin else self._data[header.offset : header.end],
            path=name if thin else None,
            nested_offset=nested_offset,
        )

    def _find_long_name(self, code: bytes, position: int) -> tuple[bytes, int | None]:
        """Read the long name of code ``/123`` or ``/123:456``; returns it with the 456 or None."""
        start, colon, origin = code[1:].partition(b":")
        # LLVM differs: it does not read members of nested archives, which GNU ar writes.
        if not start.isdigit() or (colon and not (origin.isdigit() and self._is_thin)):
            raise self._error(f"special member {_shown(code)} of unknown meaning", position)
        if self._long_names is None:
            raise self._error(f"long name {_shown(code)}, but no table of long names", position)
        first = int(start)
        if first >= len(self._long_names):
            raise self._error(
                f"long name at {first} in a table of {len(self._long_names)} bytes", position
            )
        raw = bytes(self._long_names[first : first + _LONGEST_NAME + 2])
        end = _NAME_END.search(raw)
        if end is None:
            raise self._error(
                f"long name at {first} has no end within the table and {_LONGEST_NAME} bytes",
                position,
            )
        return raw[: end.start()].removesuffix(b"/"), int(origin) if colon else None

    # The symbol index

    def _read_entries(self, header: _Header) -> tuple[list[str], _Offsets]:
        """The names of an index, and the header offset of each, as they are in the archive."""
        if header.role is _Role.SYSV_INDEX:
            return self._read_sysv_index(header)
        return self._read_ranlib_index(header)

    def _read_index(self, header: _Header) -> dict[str, int]:
        names, offsets = self._read_entries(header)
        outside = (offsets < self._first) | (offsets > len(self._data) - _HEADER_SIZE)
        if outside.any():
            row = int(outside.argmax())
            raise self._error(
                f"symbol index: the member of {_shown(names[row])} would be at offset "
                f"{int(offsets[row]):#x}, where no member can be",
                header.header_offset,
            )
        # Not np.unique, whose first use imports numpy.ma: longer than a small archive takes.
        ordered = np.sort(offsets)
        first = np.ones(len(ordered), np.bool_)
        first[1:] = ordered[1:] != ordered[:-1]
        self._targets = ordered[first].tolist()
        numbers = offsets.tolist()
        index = dict(zip(names, numbers, strict=True))
        if len(index) < len(names):
            # So far each name has its last definition; this reversed update sets the first.
            index.update(zip(reversed(names), reversed(numbers), strict=True))
        if self._has_default_versions(header):
            self._add_default_versions(index)
        return index

    def _has_default_versions(self, header: _Header) -> bool:
        return b"@@" in bytes(self._data[header.offset : header.end])

    @staticmethod
    def _add_default_versions(index: dict[str, int]) -> None:
        """Add the names by which references mean the default version of a symbol.

        As for GNU ld, a member that defines ``f@@V`` defines f and ``f@V``.
        """
        for name, offset in list(index.items()):
            parts = split(name)
            if parts is not None and parts.is_default:
                index.setdefault(parts.plain, offset)
                index.setdefault(parts.of_version, offset)

    def _read_sysv_index(self, header: _Header) -> tuple[list[str], _Offsets]:
        """Decode a count, that many offsets, and that many names; all numbers big endian."""
        width = _SYSV_INDEXES[header.name]
        body = self._data[header.offset : header.end]
        count = int.from_bytes(body[:width], "big")
        # Every symbol has an offset and at least the NUL of its name.
        if len(body) < width or count > (len(body) - width) // (width + 1):
            raise self._error(
                f"symbol index: {count} symbols in {len(body)} bytes", header.header_offset
            )
        strings = width * (count + 1)
        offsets = _numbers(body[width:strings], f">u{width}")
        names = str(body[strings:], "utf-8", "surrogateescape").split("\0", count)
        if len(names) <= count:
            raise self._error(
                f"symbol index: names of {len(names) - 1} symbols instead of {count}",
                header.header_offset,
            )
        names.pop()  # the padding behind the last name
        return names, offsets

    def _read_ranlib_index(self, header: _Header) -> tuple[list[str], _Offsets]:
        """Decode sized tables of (position of name, offset) pairs and of names."""
        width = _RANLIB_INDEXES[header.name.removesuffix(b"/")]
        body = self._data[header.offset : header.end]
        order = _ranlib_byte_order(body, width)
        if order is None:
            raise self._error(
                f"symbol index: the sizes of its tables do not fit its {len(body)} bytes in "
                "either byte order",
                header.header_offset,
            )
        strings = width + int.from_bytes(body[:width], order)
        pairs = _numbers(body[width:strings], f"{'<' if order == 'little' else '>'}u{width}")
        size = int.from_bytes(body[strings : strings + width], order)
        table = bytes(body[strings + width : strings + width + size])
        names = self._split_names(table, pairs[0::2], header)
        return names, pairs[1::2]

    def _split_names(self, table: bytes, positions: _Offsets, header: _Header) -> list[str]:
        """The names at positions in a table of NUL-terminated names."""
        ends = np.flatnonzero(np.frombuffer(table, np.uint8) == 0)
        starts = np.concatenate(([0], ends + 1)).astype(np.uint64)[:-1]
        rows = np.searchsorted(starts, positions)
        # Names that begin inside another one are refused: no archiver writes them, and many such
        # names in one long string would take memory in proportion to the square of its length.
        wrong = rows == len(starts)
        wrong[~wrong] = starts[rows[~wrong]] != positions[~wrong]
        if wrong.any():
            raise self._error(
                f"symbol index: no name begins at {int(positions[wrong.argmax()])} in its table "
                f"of {len(table)} bytes",
                header.header_offset,
            )
        names = table.decode("utf-8", "surrogateescape").split("\0")
        return [names[row] for row in rows.tolist()]


def _numbers(data: memoryview, dtype: str) -> _Offsets:
    """Unsigned integers of any width and byte order as uint64."""
    return np.frombuffer(data, dtype).astype(np.uint64)


def _ranlib_byte_order(body: memoryview, width: int) -> Literal["little", "big"] | None:
    """The byte order in which the sizes of the two tables of a ranlib index fit the index."""
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        pairs = int.from_bytes(body[:width], order)
        strings = width + pairs
        names = strings + width
        end = names + int.from_bytes(body[strings:names], order)
        if pairs % (2 * width) == 0 and end <= len(body):
            return order
    return None


def _shown(name: str | bytes) -> str:
    """A name from the file, quoted and shortened for an error."""
    return repr(name) if len(name) <= 80 else f"{name[:80]!r}..."
