"""Where a manager for memory in this process gets its pages from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jitlink.errors import AllocationError
from jitlink.graph import MemLifetime, MemProt
from jitlink.memory.manager import JITLinkDylib


class Request(NamedTuple):
    """A run of pages that is wanted.

    `size` is a multiple of the page size, `alignment` a power of two; `prot` and `lifetime`
    say among which others the run should be.
    """

    size: int
    alignment: int
    prot: MemProt
    lifetime: MemLifetime


class Run(NamedTuple):
    """A run of pages. `resident`: they have had storage before, with old bytes in it."""

    address: int
    size: int
    resident: bool


class PageAllocator(ABC):
    """Serves runs of pages and says what may be done with them.

    Attributes:
        page_size: sizes and addresses of runs are multiples of it.
        is_executable_in_place: whether code runs at the addresses of the runs. If not, they
            are only to be looked at: protections are not applied and actions not run.
    """

    page_size: int
    is_executable_in_place: bool

    @abstractmethod
    def take(self, dylib: JITLinkDylib, requests: Sequence[Request], limit: int) -> list[Run]:
        """Serve requests for runs of pages.

        Args:
            dylib: what they are for; all that it gets should be in reach of one another.
            requests: what is wanted, at least one.
            limit: all runs end at or below this address.

        Returns:
            A run for each request.

        Raises:
            AllocationError: there is no room.
        """

    @abstractmethod
    def make_writable(self, run: Run, populate: int) -> None:
        """Make a run readable, writable and zero.

        Args:
            run: a run that has just been taken.
            populate: how many bytes at its start will be written soon.

        Raises:
            AllocationError: the system refuses.
        """

    @abstractmethod
    def view(self, address: int, size: int) -> memoryview:
        """The working memory of a range of runs, and of what lies between them."""

    @abstractmethod
    def protect(self, run: Run, prot: MemProt) -> None:
        """Give a writable run its own protection, if code runs in place.

        Raises:
            AllocationError: the system refuses.
        """

    @abstractmethod
    def give_back(self, runs: Iterable[Run]) -> list[AllocationError]:
        """Make runs inaccessible and free.

        Returns:
            Errors of the system; the runs that they are about stay in use for ever.
        """
