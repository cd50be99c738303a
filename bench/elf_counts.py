"""The contents of an ELF64 object or archive, counted with nothing but `struct`.

Deliberately not jitlink's own reader: the counts beside a measurement are independent of the
program under test. Only little-endian ELF64 with RELA, as clang and gcc write it for x86-64, in
plain files or in SysV archives; the inputs are the benchmark's own and are not validated.

Specification: System V gABI, chapters 4 and 5; psABI x86-64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 2, 4, 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_STB_LOCAL = 0
_STT_FUNC = 2
_STV_DEFAULT = 0
_SHN_UNDEF = 0
_ARCHIVE_MAGIC = b"!<arch>\n"
_THIN_ARCHIVE_MAGIC = b"!<thin>\n"
_MEMBER_HEADER_SIZE = 60


@dataclass
class Counts:
    """Sums over the objects of a row.

    `sections` counts every section header, also those of relocation and string tables;
    `relocations` every RELA entry; `symbols` every symbol table entry but the null ones. `loaded`
    is in bytes, by protection ("r", "rx", "rw"), without zero-fill, which `zero_filled` counts.
    `stored` is the size of the files in bytes. `functions` are the defined ones of default
    visibility, which every peer can look up.
    """

    files: int = 0
    objects: int = 0
    stored: int = 0
    sections: int = 0
    relocations: int = 0
    symbols: int = 0
    zero_filled: int = 0
    loaded: dict[str, int] = field(default_factory=lambda: {"r": 0, "rx": 0, "rw": 0})
    defined: set[str] = field(default_factory=set)
    functions: list[str] = field(default_factory=list)
    referenced: set[str] = field(default_factory=set)

    @property
    def undefined(self) -> list[str]:
        """Undefined names, sorted."""
        return sorted(self.referenced - self.defined)


def count(*paths: Path) -> Counts:
    """The counts of all objects in `paths`, archives with all of their members."""
    counts = Counts()
    for path in paths:
        data = path.read_bytes()
        counts.files += 1
        counts.stored += len(data)
        for _, member in members(data):
            counts.objects += 1
            _count_object(member, counts)
    return counts


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The (name, bytes) of each object of a SysV archive; for an object, the object itself.

    Raises ValueError for a thin archive, which does not contain its members.
    """
    if data.startswith(_THIN_ARCHIVE_MAGIC):
        raise ValueError("a thin archive does not contain its members")
    if not data.startswith(_ARCHIVE_MAGIC):
        yield "", data
        return
    long_names = b""
    at = len(_ARCHIVE_MAGIC)
    while at + _MEMBER_HEADER_SIZE <= len(data):
        name = data[at : at + 16].rstrip()
        size = int(data[at + 48 : at + 58])
        begin = at + _MEMBER_HEADER_SIZE
        if name == b"//":
            long_names = data[begin : begin + size]
        elif name not in (b"/", b"/SYM64/"):
            if name.startswith(b"/"):
                name = long_names[int(name[1:]) :].split(b"\n", 1)[0]
            yield name.rstrip(b"/").decode(), data[begin : begin + size]
        at = begin + size + (size & 1)


def _count_object(data: bytes, counts: Counts) -> None:
    (shoff,) = struct.unpack_from("<Q", data, 40)
    (shnum,) = struct.unpack_from("<H", data, 60)
    if shnum == 0:  # more sections than fit the header's field: section 0 has their number
        shnum = _SECTION.unpack_from(data, shoff)[5]
    headers = list(_SECTION.iter_unpack(data[shoff : shoff + shnum * _SECTION.size]))
    counts.sections += shnum
    for _, kind, flags, _, offset, size, link, _, _, entsize in headers:
        if kind == _SHT_RELA:
            counts.relocations += size // entsize
        elif kind == _SHT_SYMTAB:
            names = headers[link]
            strings = data[names[4] : names[4] + names[5]]
            _count_symbols(data[offset : offset + size], strings, counts)
        if not flags & _SHF_ALLOC:
            continue
        if kind == _SHT_NOBITS:
            counts.zero_filled += size
        else:
            counts.loaded[_protection(flags)] += size


def _protection(flags: int) -> str:
    if flags & _SHF_EXECINSTR:
        return "rx"
    return "rw" if flags & _SHF_WRITE else "r"


def _count_symbols(table: bytes, strings: bytes, counts: Counts) -> None:
    counts.symbols += len(table) // _SYMBOL.size - 1
    for name_at, info, other, section, _, _ in _SYMBOL.iter_unpack(table):
        if info >> 4 == _STB_LOCAL:
            continue
        name = strings[name_at : strings.index(b"\0", name_at)].decode()
        if section == _SHN_UNDEF:
            counts.referenced.add(name)
            continue
        counts.defined.add(name)
        if info & 15 == _STT_FUNC and other & 3 == _STV_DEFAULT:
            counts.functions.append(name)
