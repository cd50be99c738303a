"""Line tables: which line of which source file code at an address comes from.

A table is read as it is in an object: what its fields refer to is looked up, not stored in them.
Versions 2 to 5 are read, of 32-bit DWARF. Everything else of debug information is not needed for
it, but what is only there, such as the directory of the compilation before version 5.

Quirks: what a program says of addresses that do not increase within a sequence is not used.

Specification: DWARF 5, section 6.2; DWARF 2 to 4, the same section.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

_VERSIONS = range(2, 6)
_FORM_BLOCK2, _FORM_BLOCK4, _FORM_DATA2, _FORM_DATA4, _FORM_DATA8 = 3, 4, 5, 6, 7
_FORM_STRING, _FORM_BLOCK, _FORM_BLOCK1, _FORM_DATA1 = 8, 9, 10, 11
_FORM_STRP, _FORM_UDATA, _FORM_DATA16, _FORM_LINE_STRP = 14, 15, 0x1E, 0x1F
_SIZES = {_FORM_DATA1: 1, _FORM_DATA2: 2, _FORM_DATA4: 4, _FORM_DATA8: 8, _FORM_DATA16: 16}
_BLOCK_SIZES = {_FORM_BLOCK1: 1, _FORM_BLOCK2: 2, _FORM_BLOCK4: 4}
_LNCT_PATH, _LNCT_DIRECTORY_INDEX = 1, 2
_EXTENDED, _COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE = 0, 1, 2, 3, 4
_CONST_ADD_PC, _FIXED_ADVANCE_PC = 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2
_ADDRESS_MASK, _LINE_MASK = (1 << 64) - 1, (1 << 32) - 1
_LONGEST_LEB128 = 10
_SIZE_BYTES = 4
_RESERVED_SIZES = 0xFFFF_FFF0
"""Sizes from here on have other meanings, such as 64-bit DWARF."""


class _MalformedError(Exception):
    """A table that cannot be read further."""


class LineSection(NamedTuple):
    """The line tables of one object.

    Attributes:
        data: the section `.debug_line`.
        byte_order: that of the object.
        address_at: the address that a field refers to, by the field's offset in the section; None
            if it refers to nothing that has one.
        text_at: the strings that a field refers to, likewise, from there to the end of them.
    """

    data: memoryview
    byte_order: Literal["little", "big"]
    address_at: Callable[[int], int | None]
    text_at: Callable[[int], bytes | None]

    def find(self, addresses: Sequence[int]) -> dict[int, tuple[str, int]]:
        """Source file and line of the code at addresses, of those that a table says it of."""
        found: dict[int, tuple[str, int]] = {}
        wanted = sorted(addresses)
        for unit in self._units():
            # What was found before, and what other units say, is as good as it is.
            with contextlib.suppress(_MalformedError):
                _Unit(self, unit).find(wanted, found)
        return found

    def _units(self) -> Iterator[_Cursor]:
        """Each unit, without its size, up to one whose size cannot be."""
        data, end = bytes(self.data), 0
        while len(data) - end >= _SIZE_BYTES:
            start = end + _SIZE_BYTES
            size = int.from_bytes(data[end:start], self.byte_order)
            if size >= _RESERVED_SIZES or size > len(data) - start:
                return
            end = start + size
            yield _Cursor(data, start, end, self.byte_order)


class _Cursor:
    """Reads values one after another, up to the end of a part of the data.

    Attributes:
        place: offset of the next one in the data.
    """

    def __init__(
        self, data: bytes, place: int, end: int, byte_order: Literal["little", "big"]
    ) -> None:
        self.place = place
        self._data, self._end, self._byte_order = data, end, byte_order

    @property
    def is_at_end(self) -> bool:
        return self.place >= self._end

    def take(self, size: int) -> bytes:
        if size > self._end - self.place:
            raise _MalformedError
        self.place += size
        return self._data[self.place - size : self.place]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), self._byte_order, signed=signed)

    def uleb128(self) -> int:
        return self._leb128()[0]

    def sleb128(self) -> int:
        value, bits, is_negative = self._leb128()
        return value - (1 << bits) if is_negative else value

    def _leb128(self) -> tuple[int, int, bool]:
        """The bits of a number, how many they are, and whether the last one is set."""
        value = 0
        for index in range(_LONGEST_LEB128):
            byte = self.number(1)
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value, 7 * index + 7, byte & 0x40 != 0
        raise _MalformedError

    def string(self) -> bytes:
        end = self._data.find(0, self.place, self._end)
        if end < 0:
            raise _MalformedError
        return self.take(end + 1 - self.place)[:-1]


class _Row(NamedTuple):
    """A row of a line table; the last one of a sequence is what follows its code."""

    address: int
    file: int
    line: int
    ends: bool


class _Registers:
    """What a program computes, in its state before the first row of a sequence."""

    def __init__(self) -> None:
        self.address: int | None = 0
        self.file = self.line = 1
        self.ends = False

    def advance(self, size: int) -> None:
        if self.address is not None:
            self.address = (self.address + size) & _ADDRESS_MASK

    def advance_line(self, count: int) -> None:
        self.line = (self.line + count) & _LINE_MASK

    @property
    def row(self) -> _Row | None:
        return None if self.address is None else _Row(self.address, self.file, self.line, self.ends)


class _Unit:
    """The line table of one compilation unit: its header, and a program that makes the rows."""

    def __init__(self, section: LineSection, cursor: _Cursor) -> None:
        self._section, self._cursor = section, cursor
        self._version = cursor.number(2)
        if self._version not in _VERSIONS:
            raise _MalformedError
        if self._version >= 5:
            # Sizes of an address and of a segment selector: what refers to them is looked up.
            cursor.take(2)
        header_size = cursor.number(4)
        program = cursor.place + header_size
        self._minimum = cursor.number(1)
        if self._version >= 4:
            cursor.take(1)
        cursor.take(1)
        self._line_base = cursor.number(1, signed=True)
        self._line_range, self._opcode_base = cursor.number(1), cursor.number(1)
        if not self._line_range or not self._opcode_base:
            raise _MalformedError
        self._operands = cursor.take(self._opcode_base - 1)
        if self._version >= 5:
            self._directories = [directory for directory, _ in self._entries()]
            self._files = self._entries()
        else:
            self._directories = [b"", *iter(cursor.string, b"")]
            self._files = [(b"", 0), *self._old_files()]
        cursor.place = program

    def _old_files(self) -> Iterator[tuple[bytes, int]]:
        while name := self._cursor.string():
            directory = self._cursor.uleb128()
            self._cursor.uleb128()
            self._cursor.uleb128()
            yield name, directory

    def _entries(self) -> list[tuple[bytes, int]]:
        """Names, and indices of their directories."""
        cursor = self._cursor
        formats = [(cursor.uleb128(), cursor.uleb128()) for _ in range(cursor.number(1))]
        count = cursor.uleb128()
        if count and not formats:
            raise _MalformedError
        entries = []
        for _ in range(count):
            name, directory = b"", 0
            for content, form in formats:
                value = self._value(form)
                if content == _LNCT_PATH and isinstance(value, bytes):
                    name = value
                elif content == _LNCT_DIRECTORY_INDEX and isinstance(value, int):
                    directory = value
            entries.append((name, directory))
        return entries

    def _value(self, form: int) -> bytes | int:
        cursor = self._cursor
        if form == _FORM_STRING:
            return cursor.string()
        if form in {_FORM_LINE_STRP, _FORM_STRP}:
            text = self._section.text_at(cursor.place)
            cursor.take(4)
            return (text or b"").partition(b"\0")[0]
        if form == _FORM_UDATA:
            return cursor.uleb128()
        if form == _FORM_BLOCK:
            return cursor.take(cursor.uleb128())
        if form in _BLOCK_SIZES:
            return cursor.take(cursor.number(_BLOCK_SIZES[form]))
        if form in _SIZES:
            return cursor.number(_SIZES[form])
        raise _MalformedError

    def find(self, wanted: Sequence[int], found: dict[int, tuple[str, int]]) -> None:
        """Enter files and lines of addresses, which are in ascending order."""
        before: _Row | None = None
        for row in self._rows():
            # A row holds up to the next one of its sequence.
            if before is not None and row is not None and not before.ends:
                first = bisect_left(wanted, before.address)
                for address in wanted[first : bisect_left(wanted, row.address, first)]:
                    # What the compiler has made of no line of the source has line 0.
                    if before.line:
                        found[address] = self._path(before.file), before.line
            before = row

    def _rows(self) -> Iterator[_Row | None]:
        """The rows of the table; None for one of which the address is not known."""
        cursor, state = self._cursor, _Registers()
        while not cursor.is_at_end:
            opcode = cursor.number(1)
            if opcode >= self._opcode_base:
                steps, lines = divmod(opcode - self._opcode_base, self._line_range)
                state.advance(steps * self._minimum)
                state.advance_line(self._line_base + lines)
                yield state.row
            elif opcode == _EXTENDED:
                if self._extended(state):
                    yield state.row
                    state = _Registers()
            elif opcode == _COPY:
                yield state.row
            else:
                self._standard(state, opcode)

    def _extended(self, state: _Registers) -> bool:
        """Carry out an extended opcode; True if the sequence ends."""
        cursor = self._cursor
        end = cursor.uleb128() + cursor.place
        kind = cursor.number(1)
        state.ends = kind == _END_SEQUENCE
        if kind == _SET_ADDRESS:
            state.address = self._section.address_at(cursor.place)
        cursor.take(max(end - cursor.place, 0))
        return state.ends

    def _standard(self, state: _Registers, opcode: int) -> None:
        """Carry out a standard opcode that makes no row."""
        cursor = self._cursor
        if opcode == _ADVANCE_LINE:
            state.advance_line(cursor.sleb128())
        elif opcode == _SET_FILE:
            state.file = cursor.uleb128()
        elif opcode == _ADVANCE_PC:
            state.advance(cursor.uleb128() * self._minimum)
        elif opcode == _CONST_ADD_PC:
            state.advance((255 - self._opcode_base) // self._line_range * self._minimum)
        elif opcode == _FIXED_ADVANCE_PC:
            state.advance(cursor.number(2))
        else:
            for _ in range(self._operands[opcode - 1]):
                cursor.uleb128()

    def _path(self, number: int) -> str:
        if number >= len(self._files):
            return ""
        name, directory = self._files[number]
        parts = [name]
        if directory < len(self._directories):
            parts.insert(0, self._directories[directory])
        if self._version >= 5 and self._directories:
            parts.insert(0, self._directories[0])
        path = b""
        for part in parts:
            path = part if part.startswith(b"/") or not path else path + b"/" + part
        return path.decode("utf-8", "surrogateescape")
