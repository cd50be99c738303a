"""SimplePackedSerialization: how ORC serializes arguments and results of calls.

The encoding is little-endian, without padding or type tags; both sides use the same type. Types
are objects: simple ones are constants (`UINT64`, `STRING`), others are composed of them
(``Sequence(Tuple(STRING, BOOL))``). Every type serializes Python values, and deserializes
untrusted bytes: counts and lengths are checked against the bytes that are left.

========================  ===================================  ==============================
type                      bytes                                Python value
========================  ===================================  ==============================
BOOL                      0 or 1                               bool
UINT8 ... INT64           1, 2, 4, 8                           int
EXECUTOR_ADDR             uint64                               int
EXECUTOR_ADDR_RANGE       start, end                           ExecutorAddrRange
STRING                    uint64 length, UTF-8                 str (surrogate escapes)
CHARS                     uint64 length, bytes                 bytes
Sequence(T)               uint64 count, elements               list
Tuple(T, U, ...)          T, U, ...                            tuple
Record(make, T, U, ...)   T, U, ...                            result of `make`
Map(K, V)                 Sequence(Tuple(K, V))                dict
Optional(T)               BOOL, T if true                      value or None
EMPTY                     nothing                              None
ERROR                     BOOL, STRING if true                 Failure or None
Expected(T)               BOOL, T if true, STRING if false     value or Failure
========================  ===================================  ==============================
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as SequenceABC
from typing import Any, Generic, NamedTuple, TypeVar

from jitlink.errors import JITLinkError

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R", bound=Iterable[Any])

# A sequence of elements that take no bytes could otherwise claim any length.
_MOST_EMPTY_ELEMENTS = 1 << 16


class SPSError(JITLinkError):
    """Bytes that are no value of their type, or a value that its type cannot hold."""


class Failure(NamedTuple):
    """The failure value of an ERROR or Expected."""

    message: str


class ExecutorAddrRange(NamedTuple):
    """The half-open range of executor addresses ``[start, end)``."""

    start: int
    end: int


class Reader:
    """Bytes being deserialized.

    Attributes:
        position: offset of the next byte to read.
    """

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self.position = 0

    @property
    def remaining(self) -> int:
        """Number of bytes that are left."""
        return len(self._data) - self.position

    def take(self, size: int) -> memoryview:
        """The next `size` bytes.

        Raises:
            SPSError: fewer are left.
        """
        if size > self.remaining:
            raise SPSError(
                f"{size} bytes expected at offset {self.position} of serialized data, "
                f"but only {self.remaining} are left"
            )
        start = self.position
        self.position = start + size
        return self._data[start : start + size]


class SPSType(ABC, Generic[T]):
    """How values of one type are serialized.

    Attributes:
        min_size: the fewest bytes that a value takes.
    """

    min_size: int

    @abstractmethod
    def write(self, value: T, out: bytearray) -> None:
        """Append a value's bytes.

        Raises:
            SPSError: the type cannot hold the value.
        """

    @abstractmethod
    def read(self, reader: Reader) -> T:
        """Read a value.

        Raises:
            SPSError: the bytes are no value of this type.
        """

    def serialize(self, value: T) -> bytes:
        """The bytes of a value.

        Raises:
            SPSError: the type cannot hold the value.
        """
        out = bytearray()
        self.write(value, out)
        return bytes(out)

    def deserialize(self, data: bytes | bytearray | memoryview) -> T:
        """The value at the start of `data`; bytes after it are ignored, as by LLVM.

        Raises:
            SPSError: the bytes are no value of this type.
        """
        return self.read(Reader(data))


class Integer(SPSType[int]):
    """An integer; `code` is its format character in `struct`."""

    def __init__(self, code: str) -> None:
        self._struct = struct.Struct("<" + code)
        self.min_size = self._struct.size

    def write(self, value: int, out: bytearray) -> None:
        """Append a value's bytes."""
        try:
            out += self._struct.pack(value)
        except struct.error as error:
            raise SPSError(f"cannot serialize {value!r}: {error}") from error

    def read(self, reader: Reader) -> int:
        """Read a value."""
        value: int = self._struct.unpack(reader.take(self.min_size))[0]
        return value


UINT8, UINT16, UINT32, UINT64 = map(Integer, "BHIQ")
INT8, INT16, INT32, INT64 = map(Integer, "bhiq")
EXECUTOR_ADDR = UINT64


class Words(SPSType[SequenceABC[int]]):
    """A fixed number of 64-bit words, one after the other, without their number."""

    def __init__(self, count: int) -> None:
        self._struct = struct.Struct(f"<{count}Q")
        self.min_size = self._struct.size

    def write(self, value: SequenceABC[int], out: bytearray) -> None:
        """Append the words."""
        try:
            out += self._struct.pack(*value)
        except struct.error as error:
            raise SPSError(f"cannot serialize {value!r}: {error}") from error

    def read(self, reader: Reader) -> tuple[int, ...]:
        """Read the words."""
        return self._struct.unpack(reader.take(self.min_size))


class _Bool(SPSType[bool]):
    min_size = 1

    def write(self, value: bool, out: bytearray) -> None:
        out.append(bool(value))

    def read(self, reader: Reader) -> bool:
        value = UINT8.read(reader)
        if value > 1:
            raise SPSError(f"a serialized bool is {value} at offset {reader.position - 1}")
        return value == 1


BOOL = _Bool()


class _Empty(SPSType[None]):
    min_size = 0

    def write(self, value: None, out: bytearray) -> None:
        """Append nothing."""

    def read(self, reader: Reader) -> None:
        """Read nothing."""


EMPTY = _Empty()


class _Chars(SPSType[bytes]):
    min_size = 8

    def write(self, value: bytes, out: bytearray) -> None:
        UINT64.write(len(value), out)
        out += value

    def read(self, reader: Reader) -> bytes:
        return bytes(reader.take(UINT64.read(reader)))


CHARS = _Chars()


class _String(SPSType[str]):
    min_size = 8

    def write(self, value: str, out: bytearray) -> None:
        CHARS.write(value.encode("utf-8", "surrogateescape"), out)

    def read(self, reader: Reader) -> str:
        return CHARS.read(reader).decode("utf-8", "surrogateescape")


STRING = _String()


class Sequence(SPSType[list[T]]):
    """Any number of values of one type."""

    min_size = 8

    def __init__(self, element: SPSType[T]) -> None:
        self._element = element

    def write(self, value: Iterable[T], out: bytearray) -> None:
        """Append the number of elements and the elements."""
        elements = list(value)
        UINT64.write(len(elements), out)
        for element in elements:
            self._element.write(element, out)

    def read(self, reader: Reader) -> list[T]:
        """Read a list."""
        count, size = UINT64.read(reader), self._element.min_size
        most = reader.remaining // size if size else _MOST_EMPTY_ELEMENTS
        if count > most:
            raise SPSError(
                f"a serialized sequence of {count} elements cannot fit the {reader.remaining} "
                f"bytes from offset {reader.position}"
            )
        return [self._element.read(reader) for _ in range(count)]


class Record(SPSType[R]):
    """Values of several types, one after the other.

    Args:
        make: builds the Python value from the values read; iterating over it yields them again.
        elements: the types.
    """

    def __init__(self, make: Callable[..., R], *elements: SPSType[Any]) -> None:
        self._make = make
        self._elements = elements
        self.min_size = sum(element.min_size for element in elements)

    def write(self, value: R, out: bytearray) -> None:
        """Append the values."""
        values = tuple(value)
        if len(values) != len(self._elements):
            raise SPSError(f"{len(values)} values given, {len(self._elements)} expected")
        for element, item in zip(self._elements, values, strict=True):
            element.write(item, out)

    def read(self, reader: Reader) -> R:
        """Read a record."""
        return self._make(*(element.read(reader) for element in self._elements))


class Tuple(Record[tuple[Any, ...]]):
    """A record that is a plain tuple."""

    def __init__(self, *elements: SPSType[Any]) -> None:
        super().__init__(lambda *values: values, *elements)


EXECUTOR_ADDR_RANGE = Record(ExecutorAddrRange, EXECUTOR_ADDR, EXECUTOR_ADDR)


class Map(SPSType[Mapping[K, V]]):
    """A mapping; of several values read for one key the last is kept."""

    min_size = 8

    def __init__(self, key: SPSType[K], value: SPSType[V]) -> None:
        self._items: Sequence[tuple[K, V]] = Sequence(Tuple(key, value))

    def write(self, value: Mapping[K, V], out: bytearray) -> None:
        """Append the items in the mapping's order."""
        self._items.write(value.items(), out)

    def read(self, reader: Reader) -> dict[K, V]:
        """Read a dictionary."""
        return dict(self._items.read(reader))


class Optional(SPSType[T | None]):
    """A value or none."""

    min_size = 1

    def __init__(self, element: SPSType[T]) -> None:
        self._element = element

    def write(self, value: T | None, out: bytearray) -> None:
        """Append whether there is a value, and the value."""
        BOOL.write(value is not None, out)
        if value is not None:
            self._element.write(value, out)

    def read(self, reader: Reader) -> T | None:
        """Read a value or None."""
        return self._element.read(reader) if BOOL.read(reader) else None


class _Error(SPSType[Failure | None]):
    min_size = 1

    def write(self, value: Failure | None, out: bytearray) -> None:
        BOOL.write(value is not None, out)
        if value is not None:
            STRING.write(value.message, out)

    def read(self, reader: Reader) -> Failure | None:
        return Failure(STRING.read(reader)) if BOOL.read(reader) else None


ERROR = _Error()


class Expected(SPSType[T | Failure]):
    """A value or an error message. The flag is 1 for success here, and 0 in ERROR."""

    min_size = 1

    def __init__(self, element: SPSType[T]) -> None:
        self._element = element

    def write(self, value: T | Failure, out: bytearray) -> None:
        """Append whether there is a value, and the value or the message."""
        if isinstance(value, Failure):
            BOOL.write(False, out)
            STRING.write(value.message, out)
        else:
            BOOL.write(True, out)
            self._element.write(value, out)

    def read(self, reader: Reader) -> T | Failure:
        """Read a value or a `Failure`."""
        return self._element.read(reader) if BOOL.read(reader) else Failure(STRING.read(reader))
