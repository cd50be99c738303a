"""Arguments that are memory: what a function reads and writes through a pointer.

In this process a function gets a pointer to the object itself. For a function in another process
the object is copied there before the call, back after it, or both, as `In`, `Out` and `InOut` say;
ctypes arrays and other objects without a wrapper are copied both ways, bytes there only.
"""

from __future__ import annotations

import ctypes
from typing import Any

_Writable = Any
"""A ctypes object, or an object with a writable buffer, such as a bytearray or a NumPy array."""


class _Memory:
    """An object whose memory a function gets a pointer to.

    Args:
        value: bytes, a ctypes object, or an object with a contiguous buffer.

    Attributes:
        value: the same.
        size: its size in bytes.

    Raises:
        TypeError: it has no such buffer, or one that cannot be written.
    """

    is_input = True
    is_output = True

    def __init__(self, value: _Writable) -> None:
        self.value = value
        view = memoryview(value)
        self.size = view.nbytes
        self._constant = bytes(view) if view.readonly else None
        if self._constant is not None and self.is_output:
            kind = type(value).__name__
            raise TypeError(f"what a function writes cannot be stored in a {kind}")
        self._array = None if view.readonly else (ctypes.c_char * self.size).from_buffer(value)

    def content(self) -> bytes:
        """What is copied before the call."""
        if not self.is_input:
            return b""
        return bytes(self._array) if self._array is not None else self._constant or b""

    def store(self, content: bytes) -> None:
        """Store what was copied back after the call."""
        if self._array is not None:
            self._array.raw = content[: self.size]

    @property
    def _as_parameter_(self) -> object:
        """For ctypes: a pointer to the object in this process, or to a copy if it is constant."""
        return self._array if self._array is not None else self._constant


class In(_Memory):
    """Memory that a function only reads."""

    is_output = False


class Out(_Memory):
    """Memory that a function only writes; it is zero before."""

    is_input = False


class InOut(_Memory):
    """Memory that a function reads and writes."""
