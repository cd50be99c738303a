"""Rows that no compiler writes in reasonable time: very many objects, symbols and COMDAT groups.

A program is an archive of generated objects and a root object. Object number i defines a function
that calls those of its two children in a binary tree and adds their results to its own value, so
that every member is needed. It may have global variables, each of which is a pointer to the next
one, and COMDAT groups of one function, which occur in some other objects too; it calls the last.

Specification: System V gABI, chapters 4 and 5; psABI x86-64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_GROUP = 1, 2, 3, 4, 17
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR, _SHF_INFO_LINK, _SHF_GROUP = 1, 2, 4, 0x40, 0x200
_GLOBAL_OBJECT, _GLOBAL_FUNCTION, _WEAK_FUNCTION, _UNDEFINED = 0x11, 0x12, 0x22, 0x10
_R_X86_64_64, _R_X86_64_PLT32 = 1, 4
_CODE, _DATA = _SHF_ALLOC | _SHF_EXECINSTR, _SHF_ALLOC | _SHF_WRITE
_ENTRY = "bench_entry"


@dataclass(frozen=True)
class Program:
    """What a program has.

    Attributes:
        objects: number of objects.
        variables: number of variables of each.
        groups: number of COMDAT groups of each.
        copies: in how many objects each group occurs.
    """

    objects: int
    variables: int = 0
    groups: int = 0
    copies: int = 10

    @property
    def result(self) -> int:
        """What the entry returns."""
        own = self.objects * (self.objects - 1) // 2
        called = sum(self._last_group(number) for number in range(self.objects))
        return (own + (called if self.groups else 0)) & 0x7FFFFFFF

    def _last_group(self, number: int) -> int:
        return (number // self.copies + 1) * self.groups - 1

    def files(self) -> Iterator[tuple[bytes, list[str]]]:
        """The objects, the first of which has the entry, with the names that each defines."""
        for number in range(self.objects):
            made = self._object(number)
            yield made.contents(), made.defined()

    def _object(self, number: int) -> _Object:
        made = _Object()
        children = [child for child in (2 * number + 1, 2 * number + 2) if child < self.objects]
        callees = [f"f{child}" for child in children]
        if self.groups:
            last = self._last_group(number)
            for group in range(last - self.groups + 1, last + 1):
                made.add_group(f"_Zgroup{group}", b"\xb8" + struct.pack("<i", group) + b"\xc3")
            callees.append(f"_Zgroup{last}")
        made.add_function(f"f{number}" if number else _ENTRY, number, callees)
        if self.variables:
            made.add_ring([f"v{number}_{n}" for n in range(self.variables)])
        return made


class _Object:
    """An object that is being written."""

    def __init__(self) -> None:
        # Name, type, flags, content, link, info, entry size of each section.
        self._sections: list[tuple[str, int, int, bytes, int, int, int]] = []
        self._symbols: dict[str, tuple[int, int, int, int]] = {}
        self._relocations: list[tuple[int, list[tuple[int, int, str, int]]]] = []
        self._groups: list[tuple[int, str]] = []

    def _add(self, name: str, kind: int, flags: int, content: bytes) -> int:
        self._sections.append((name, kind, flags, content, 0, 0, 0))
        return len(self._sections)

    def add_group(self, name: str, code: bytes) -> None:
        """Add a function in a COMDAT group of its name."""
        # The group comes before its member; its content is the member's index.
        group = self._add(".group", _SHT_GROUP, 0, struct.pack("<2I", 1, len(self._sections) + 2))
        self._groups.append((group, name))
        section = self._add(f".text.{name}", _SHT_PROGBITS, _CODE | _SHF_GROUP, code)
        self._symbols[name] = (_WEAK_FUNCTION, section, 0, len(code))

    def add_function(self, name: str, value: int, callees: list[str]) -> None:
        """Add a function that returns the sum of a value and its callees' results."""
        code, calls = b"\x53\xbb" + struct.pack("<I", value), []
        for callee in callees:
            calls.append((len(code) + 1, _R_X86_64_PLT32, callee, -4))
            self._symbols.setdefault(callee, (_UNDEFINED, 0, 0, 0))
            code += b"\xe8\0\0\0\0\x01\xc3"
        code += b"\x89\xd8\x5b\xc3"
        section = self._add(".text", _SHT_PROGBITS, _CODE, code)
        self._symbols[name] = (_GLOBAL_FUNCTION, section, 0, len(code))
        self._relocations.append((section, calls))

    def add_ring(self, names: list[str]) -> None:
        """Add variables that point to each other."""
        section = self._add(".data", _SHT_PROGBITS, _DATA, bytes(8 * len(names)))
        for number, name in enumerate(names):
            self._symbols[name] = (_GLOBAL_OBJECT, section, 8 * number, 8)
        ring = zip(names, [*names[1:], names[0]], strict=True)
        places = [(8 * n, _R_X86_64_64, target, 0) for n, (_, target) in enumerate(ring)]
        self._relocations.append((section, places))

    def defined(self) -> list[str]:
        """The names that are defined."""
        return [name for name, (_, section, *_) in self._symbols.items() if section]

    def contents(self) -> bytes:
        """The file."""
        index = {name: number for number, name in enumerate(self._symbols, 1)}
        strings, at = _strings(self._symbols)
        symbols = [bytes(24)]
        symbols += [
            struct.pack("<IBBHQQ", at[name], info, 0, section, value, size)
            for name, (info, section, value, size) in self._symbols.items()
        ]
        symtab = len(self._sections) + len(self._relocations) + 1
        sections = list(self._sections)
        for group, name in self._groups:
            sections[group - 1] = (*sections[group - 1][:4], symtab, index[name], 4)
        for section, places in self._relocations:
            content = b"".join(
                struct.pack("<QQq", offset, index[target] << 32 | kind, addend)
                for offset, kind, target, addend in places
            )
            name = f".rela{sections[section - 1][0]}"
            sections.append((name, _SHT_RELA, _SHF_INFO_LINK, content, symtab, section, 24))
        sections.append((".symtab", _SHT_SYMTAB, 0, b"".join(symbols), symtab + 1, 1, 24))
        sections.append((".strtab", _SHT_STRTAB, 0, strings, 0, 0, 0))
        # Not executable stacks.
        sections.append((".note.GNU-stack", _SHT_PROGBITS, 0, b"", 0, 0, 0))
        return _file(sections)


def _strings(names: dict[str, tuple[int, int, int, int]]) -> tuple[bytes, dict[str, int]]:
    """A string table, and the position of each name."""
    starts = accumulate((len(name) + 1 for name in names), initial=1)
    text = "\0".join(["", *names, ""]).encode()
    return text, dict(zip(names, starts, strict=False))


def _file(sections: list[tuple[str, int, int, bytes, int, int, int]]) -> bytes:
    """An object of sections, to which the table of their names is added."""
    names = "\0".join(["", *(section[0] for section in sections), ".shstrtab", ""]).encode()
    sections = [*sections, (".shstrtab", _SHT_STRTAB, 0, names, 0, 0, 0)]
    content, headers, position, name_at = [], [bytes(64)], 64, 1
    for name, kind, flags, data, link, info, entry in sections:
        header = (name_at, kind, flags, 0, position, len(data), link, info, 8 if data else 1, entry)
        headers.append(struct.pack("<IIQQQQIIQQ", *header))
        content.append(data.ljust(-(-len(data) // 8) * 8, b"\0"))
        position += len(content[-1])
        name_at += len(name) + 1
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, position, 0, 64, 0, 0, 64,
        len(headers), len(sections),
    )  # fmt: skip
    return b"".join([elf, *content, *headers])


def archive(members: Iterable[tuple[bytes, list[str]]]) -> bytes:
    """A SysV archive of objects ``N.o``, given with the names that they define."""
    files = list(members)
    names = [name for _, defined in files for name in defined]
    text = "\0".join([*names, ""]).encode()
    position = 8 + 60 + 4 + 4 * len(names) + len(text) + (len(text) & 1)
    offsets, parts = [], []
    for number, (data, defined) in enumerate(files):
        offsets += [position] * len(defined)
        parts.append(_member(f"{number}.o/", data))
        position += len(parts[-1])
    index = struct.pack(f">{1 + len(names)}I", len(names), *offsets) + text
    return b"".join([b"!<arch>\n", _member("/", index), *parts])


def _member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n"
    return header.encode() + data + b"\n" * (len(data) & 1)
