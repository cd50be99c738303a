"""Images: memory of a JITDylib that the process lists among its programs and shared libraries.

The dynamic linker lists an image with a few segments, and takes all addresses between its first and
its last for its own. So an image is a range of addresses that holds nothing but memory of one
JITDylib, in segments of one protection each. What is not allocated there is readable zeros, not
inaccessible: a segment only grows and shrinks at its end, which is one store, and a thread that
walks the segments meanwhile can read all that the list says.

An image may export symbols, to which the dynamic linker binds libraries that are loaded later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jitlink.graph import MemProt
from jitlink.graph.columns import BoolArray, UInt64Array

SEGMENT_PROTECTIONS = (
    MemProt.READ,
    MemProt.READ | MemProt.EXEC,
    MemProt.READ | MemProt.WRITE,
    MemProt.READ | MemProt.WRITE | MemProt.EXEC,
)
"""Protections of an image's segments, in order of address. The last is for what fits no other, and
for memory that is freed on finalization, which is not listed."""


class ImageSymbols(NamedTuple):
    """Symbols that an image exports; one name, and one element of each array, for each.

    Attributes:
        names: their names; surrogate escapes stand for bytes that are not UTF-8.
        addresses: their addresses.
        sizes: their sizes in bytes; 0 if not known.
        is_callable: whether they are functions.
        is_weak: whether they are weak.
        is_absolute: whether they are numbers, and not in the image.
        is_local: whether they are local to an object; the dynamic linker is told of none of these.
    """

    names: Sequence[str]
    addresses: UInt64Array
    sizes: UInt64Array
    is_callable: BoolArray
    is_weak: BoolArray
    is_absolute: BoolArray
    is_local: BoolArray

    @classmethod
    def joined(cls, parts: Sequence[ImageSymbols]) -> ImageSymbols:
        """The symbols of all parts, in their order."""
        if not parts:
            none, neither = np.zeros(0, np.uint64), np.zeros(0, np.bool_)
            return cls([], none, none, neither, neither, neither, neither)
        names = [name for part in parts for name in part.names]
        columns = zip(*[part[1:] for part in parts], strict=True)
        return cls(names, *map(np.concatenate, columns))

    def rows(self, numbers: Sequence[int]) -> ImageSymbols:
        """Some of the symbols, by their numbers in ascending order."""
        if len(numbers) == len(self.names):
            return self
        return self.take(numbers)

    def take(self, rows: Sequence[int]) -> ImageSymbols:
        """Symbols by their numbers, in any order."""
        chosen = list(rows)
        return ImageSymbols(
            [self.names[row] for row in chosen],
            self.addresses[chosen],
            self.sizes[chosen],
            self.is_callable[chosen],
            self.is_weak[chosen],
            self.is_absolute[chosen],
            self.is_local[chosen],
        )


class Image(ABC):
    """One image.

    Attributes:
        start: the first address of its memory.
        size: size of that memory in bytes.
    """

    start: int
    size: int

    @abstractmethod
    def list_segment(self, index: int, offset: int, size: int) -> None:
        """List a segment of `SEGMENT_PROTECTIONS`, with its current size.

        Args:
            index: number of the segment.
            offset: its start, in bytes from that of the memory; always the same.
            size: its size in bytes; with 0 it is not listed.
        """

    @abstractmethod
    def unload(self) -> None:
        """Take it from the list, and unmap its memory, no part of which is in use any more.

        Raises:
            AllocationError: the dynamic linker refuses.
        """

    def __contains__(self, address: int) -> bool:
        """Whether an address is in its memory."""
        return self.start <= address < self.start + self.size


EXPORTING: list[Image] = []
"""The images of this process that export symbols, and are loaded."""


class Images(ABC):
    """The images of one JITDylib: one at first, and more when that is full.

    Attributes:
        exports: whether they export symbols.
        tls_modules: names of the TLS modules that have thread-local variables of the JITDylib, for
            `open_library`.
    """

    exports: bool

    def __init__(self) -> None:
        self.tls_modules: list[str] = []

    @abstractmethod
    def load(self, size: int, address: int) -> Image:
        """Load an image.

        Args:
            size: of all of it in bytes, a multiple of the page size; more than half is memory.
            address: where it is to start; 0 for a place that the system chooses.

        Raises:
            AllocationError: it cannot be loaded, or not there.
        """

    @property
    @abstractmethod
    def bias(self) -> int:
        """The address that the dynamic linker gives for the first one; 0 if none is loaded.

        Addresses in files are counted from there.
        """

    @abstractmethod
    def define(self, symbols: ImageSymbols) -> None:
        """Export symbols, whose memory is in one of the images; not those that are exported.

        Raises:
            AllocationError: there is no room for so many.
        """

    @abstractmethod
    def remove(self, symbols: ImageSymbols) -> None:
        """Stop exporting symbols; those that others hide are not exported in the first place."""

    @abstractmethod
    def open_library(self, path: bytes, mode: int) -> int:
        """Load a shared library that finds what it needs in these images first.

        Args:
            path: as for ``dlopen``.
            mode: likewise.

        Returns:
            A handle of the process's dynamic linker; 0 if the caller is to do it, because
            the images export nothing.

        Raises:
            ExecutorError: the dynamic linker refuses; the message is its own.
        """
