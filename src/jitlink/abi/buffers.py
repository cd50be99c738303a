"""Arguments that are memory: what a function reads and writes through a pointer.

In this process a function gets a pointer to the object itself. For a function in another process
the object is copied there before the call, back after it, or both, as `In`, `Out` and `InOut` say;
ctypes arrays and other objects without a wrapper are copied both ways, bytes there only. Objects
that overlap, such as the same array twice, are copied as one `Region`. Pointers within an object
are copied as they are: they are addresses of the other process.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_FIELD_NAME = re.compile(":[^:]*:")
"""A name in the format of a buffer (PEP 3118)."""

_Value = Any
"""Bytes, a ctypes object, or an object with a buffer, such as a bytearray or a NumPy array."""


class _Memory:
    """An object whose memory a function gets a pointer to.

    Args:
        value: bytes, a ctypes object, or an object with a contiguous buffer.
        offset: where in it the pointer points to, in bytes.

    Attributes:
        value: the same.
        offset: the same.
        address: the object's address in this process; of a copy if it is read-only.
        size: its size in bytes.

    Raises:
        TypeError: it has no such buffer, or one that cannot be written, or has Python objects,
            which another process could replace by any addresses.
    """

    is_input = True
    is_output = True

    def __init__(self, value: _Value, offset: int = 0) -> None:
        kind = type(value).__name__
        try:
            view = memoryview(value)
        except ValueError as error:
            # NumPy has types of elements that buffers have no format for.
            raise TypeError(f"the memory of a {kind} cannot be passed: {error}") from None
        if "O" in _FIELD_NAME.sub("", view.format):
            raise TypeError(f"a {kind} holds Python objects, which C code cannot use")
        if not view.contiguous:
            raise TypeError(f"the memory of a {kind} is not contiguous")
        if view.readonly and self.is_output:
            raise TypeError(f"what a function writes cannot be stored in a {kind}")
        self.value, self.offset, self.size = value, offset, view.nbytes
        array = ctypes.c_char * self.size
        interface = getattr(value, "__array_interface__", None)
        if interface is not None:
            # In whichever order its elements are; ctypes itself knows only that of C.
            self._array = array.from_address(interface["data"][0])
        elif view.readonly:
            self._array = array.from_buffer_copy(view)
        else:
            self._array = array.from_buffer(value)
        self.address = ctypes.addressof(self._array)

    @property
    def _as_parameter_(self) -> object:
        """For ctypes: a pointer to the object in this process, or to a copy if it is constant."""
        place = ctypes.byref(self._array, self.offset)
        # Parameters may be pointers to this type; others may be any pointers.
        element = getattr(self.value, "_type_", None) or type(self.value)
        is_ctype = isinstance(self.value, ctypes.Array | ctypes.Structure | ctypes.Union)
        return ctypes.cast(place, ctypes.POINTER(element if is_ctype else ctypes.c_char))


class In(_Memory):
    """Memory that a function only reads."""

    is_output = False


class Out(_Memory):
    """Memory that a function only writes; it is zero before."""

    is_input = False


class InOut(_Memory):
    """Memory that a function reads and writes."""


Memory = In | Out | InOut


class PlacedMemory(NamedTuple):
    """Memory whose address in the executor takes the place of a word.

    Attributes:
        slot: the word: an integer register, or after all registers a slot of the stack.
        memory: the memory.
    """

    slot: int
    memory: Memory


class Region:
    """Memory of this process that is copied as one.

    Args:
        memory: what it begins with.

    Attributes:
        address: its address in this process.
        size: its size in bytes.
        is_input: whether it is copied to the executor before the call.
        is_output: whether it is copied back after it.
        pointers: the words that point into it, as slots and offsets in bytes.
    """

    def __init__(self, memory: Memory) -> None:
        self.address, self.size = memory.address, memory.size
        self.is_input = self.is_output = False
        self.pointers: list[tuple[int, int]] = []

    def overlaps(self, memory: Memory) -> bool:
        """Whether memory that does not begin before it is partly in it."""
        return memory.address < self.address + self.size

    def add(self, placed: PlacedMemory) -> None:
        """Add memory that does not begin before it, and overlaps it."""
        memory = placed.memory
        start = memory.address - self.address
        self.size = max(self.size, start + memory.size)
        self.is_input |= memory.is_input
        self.is_output |= memory.is_output
        self.pointers.append((placed.slot, start + memory.offset))

    def content(self) -> bytes:
        """What is copied before the call; zeros follow."""
        return ctypes.string_at(self.address, self.size) if self.is_input else b""

    def store(self, content: bytes) -> None:
        """Store what was copied back after the call: as many bytes as it has."""
        ctypes.memmove(self.address, content, self.size)


def regions_of(memory: Sequence[PlacedMemory]) -> list[Region]:
    """The regions that hold memory; the memory must live as long as they are used."""
    regions: list[Region] = []
    for placed in sorted(memory, key=lambda each: each.memory.address):
        if not regions or not regions[-1].overlaps(placed.memory):
            regions.append(Region(placed.memory))
        regions[-1].add(placed)
    return regions
