"""The versions of symbols that a shared library exports, for errors; ELF of this process's kind.

Quirks: a library is read from its file, which may be malformed or have been replaced since it was
loaded; whatever does not fit together is taken for the lack of versions.

Specification: System V gABI, "Sections"; Linux Standard Base 5.0, core, 11.7, "Symbol Versioning".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_MAGIC = b"\x7fELF\2\1"
_HEADER = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DEFINITION = struct.Struct("<HHHHIII")
_AUXILIARY = struct.Struct("<II")
_DYNSYM, _VERSYM, _VERDEF = 11, 0x6FFFFFFF, 0x6FFFFFFD
_INDEX, _BASE = 0x7FFF, 1


class _Section(NamedTuple):
    """Fields of a section header."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def versions_of(path: str, name: str) -> list[str]:
    """The versions of a symbol in a library's file; none if the file cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            data = file.read()
        return list(dict.fromkeys(_versions(data, name.encode("utf-8", "surrogateescape"))))
    except (OSError, OverflowError, struct.error):
        return []


def _versions(data: bytes, name: bytes) -> Iterator[str]:
    if not data.startswith(_MAGIC):
        return
    start, size, count, _ = _HEADER.unpack_from(data)
    if size != _SECTION.size:
        return
    sections = [_Section(*_SECTION.unpack_from(data, start + n * size)) for n in range(count)]
    by_type = {section.type: section for section in sections}
    if not {_DYNSYM, _VERSYM, _VERDEF} <= by_type.keys():
        return
    symbols, indices = by_type[_DYNSYM], by_type[_VERSYM]
    if symbols.link >= count:
        return
    strings = sections[symbols.link]
    texts = data[strings.offset : strings.offset + strings.size]
    versions = _definitions(data, by_type[_VERDEF], texts)
    for number in range(min(symbols.size // _SYMBOL.size, len(data) // _SYMBOL.size)):
        place, _, _, section, _, _ = _SYMBOL.unpack_from(
            data, symbols.offset + number * _SYMBOL.size
        )
        if section and texts.startswith(name + b"\0", place):
            (index,) = struct.unpack_from("<H", data, indices.offset + 2 * number)
            index &= _INDEX
            if index > _BASE and index in versions:
                yield versions[index]


def _definitions(data: bytes, section: _Section, texts: bytes) -> Mapping[int, str]:
    """The names of the versions that a library defines, by index."""
    found: dict[int, str] = {}
    place = section.offset
    for _ in range(min(section.info, len(data) // _DEFINITION.size)):
        _, _, index, _, _, auxiliary, following = _DEFINITION.unpack_from(data, place)
        name, _ = _AUXILIARY.unpack_from(data, place + auxiliary)
        text = texts[name : texts.find(b"\0", name)]
        found.setdefault(index & _INDEX, text.decode("utf-8", "surrogateescape"))
        if not following:
            break
        place += following
    return found
