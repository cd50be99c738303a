"""The interface from which memory managers for this process allocate pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jitlink.errors import AllocationError
from jitlink.graph import MemLifetime, MemProt
from jitlink.memory.manager import JITLinkDylib


class PageRequest(NamedTuple):
    """A request for contiguous pages.

    `size` is a multiple of the page size, `alignment` a power of two, both in bytes; pages of
    equal `prot` and `lifetime` should be placed next to each other.
    """

    size: int
    alignment: int
    prot: MemProt
    lifetime: MemLifetime


class PageRange(NamedTuple):
    """Contiguous pages. `resident`: they may hold physical memory, with old bytes in it."""

    address: int
    size: int
    resident: bool


class PageAllocator(ABC):
    """Allocates page ranges and changes their protections.

    Attributes:
        page_size: sizes and addresses of page ranges are multiples of it.
        is_executable_in_place: whether code runs at the addresses of the page ranges. If not,
            protections are not applied and allocation actions are not run.
        supports_images: whether the page ranges of a JITDylib can be in images of the process.
    """

    page_size: int
    is_executable_in_place: bool
    supports_images = False

    @abstractmethod
    def allocate(
        self, dylib: JITLinkDylib, requests: Sequence[PageRequest], limit: int
    ) -> list[PageRange]:
        """Allocate page ranges.

        Args:
            dylib: the library to allocate for; all its memory should be in reach of each other.
            requests: at least one.
            limit: all page ranges end at or below this address.

        Returns:
            A page range for each request.

        Raises:
            AllocationError: there is not enough free address space.
        """

    @abstractmethod
    def make_writable(self, pages: PageRange, populate: int) -> None:
        """Make pages readable, writable and zero.

        Args:
            pages: a page range that has just been allocated.
            populate: how many bytes at its start will be written soon.

        Raises:
            AllocationError: the system refuses.
        """

    @abstractmethod
    def view(self, address: int, size: int) -> memoryview:
        """The working memory of a range of addresses, gaps between page ranges included."""

    @abstractmethod
    def protect(self, pages: PageRange, prot: MemProt) -> None:
        """Give writable pages their final protection, if code runs in place.

        Raises:
            AllocationError: the system refuses.
        """

    @abstractmethod
    def free(self, ranges: Iterable[PageRange]) -> list[AllocationError]:
        """Make page ranges inaccessible and free.

        Returns:
            Errors of the system; the page ranges concerned are never allocated again.
        """
