"""Memory managers: the interface between the linker and executor memory.

A link allocates memory after dead-stripping, writes to it, and finalizes it; the owner of the
finalized memory deallocates it::

    in_flight = await manager.allocate(dylib, graph)    # blocks have addresses and memory
    ...                                                 # fixups are written
    finalized = await in_flight.finalize()              # or: await in_flight.abandon()
    ...                                                 # the code runs
    await manager.deallocate([finalized])

The methods are coroutines because executor memory may be in another process. A manager for
memory of this process never suspends, so its coroutines can be run without a loop.

Allocation actions (`LinkGraph.alloc_actions`) belong to the memory: their finalize halves run
in order once protections are applied, their deallocate halves in reverse order before the
memory is freed.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from jitlink.errors import JITLinkError, TLSError
from jitlink.graph import LinkGraph
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.images import Images
from jitlink.memory.tls import TLSAllocation, TLSRegistry

T = TypeVar("T")


class DeallocationError(JITLinkError):
    """Failures while memory was deallocated; all other steps have been carried out.

    Attributes:
        errors: the failures, in order of occurrence.
    """

    def __init__(self, errors: Sequence[JITLinkError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


class JITLinkDylib:
    """A simulated dynamic library, whose memory is allocated within reach of itself.

    Attributes:
        name: its display name, which need not be unique.
        images: what makes its memory images of the process; None if it is none.
        address_limit: its memory must lie below this address; settled when the first graph is
            placed. A graph that is linked later may have a lower limit of its own.
        is_placed: whether a graph of it has been placed.
        is_divided: whether graphs of it with different limits have been placed, so that 32-bit
            displacements may not lead from one to the other.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.images: Images | None = None
        self.address_limit = NO_ADDRESS_LIMIT
        self.is_placed = False
        self.is_divided = False

    def limit_addresses(self, limit: int) -> None:
        """Lower the address limit for something that will be linked, unless it is settled."""
        if limit < self.address_limit and not self.is_placed:
            self.address_limit = limit

    def place(self, graph: LinkGraph) -> None:
        """Settle the address limit of a graph that is about to be placed, and the library's."""
        self.limit_addresses(graph.address_limit)
        if self.address_limit < graph.address_limit:
            graph.address_limit = self.address_limit
        elif graph.address_limit < self.address_limit:
            self.is_divided = True
        self.is_placed = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class FinalizedAlloc:
    """Finalized memory, to be passed to `JITLinkMemoryManager.deallocate` exactly once.

    If it is collected before that, a `ResourceWarning` is issued: its memory is leaked, and its
    deallocate actions never run.

    Attributes:
        address: identifies it to its manager, which defines the meaning; 0 once released.
    """

    __slots__ = ("__weakref__", "address")

    def __init__(self, address: int) -> None:
        if address <= 0:
            raise ValueError(f"{address} is no valid address of an allocation")
        self.address = address

    def __repr__(self) -> str:
        return f"<FinalizedAlloc {self.address:#x}>"

    def __del__(self) -> None:
        # The attribute is missing if the constructor failed.
        if getattr(self, "address", 0):
            warnings.warn(f"{self!r} was never deallocated", ResourceWarning, stacklevel=2)

    def release(self) -> int:
        """Mark it as deallocated and return the address; for memory managers.

        Raises:
            ValueError: it has been released already.
        """
        address, self.address = self.address, 0
        if not address:
            raise ValueError("the allocation has been deallocated already")
        return address


class InFlightAlloc(ABC):
    """Memory of a graph that is being linked.

    Exactly one of the two methods is awaited, once.
    """

    def hold(self, tls_allocation: TLSAllocation) -> None:  # noqa: ARG002 - for subclasses
        """Keep thread-local storage for as long as the memory, and release it after that.

        Raises:
            TLSError: the memory manager does not support thread-local storage.
        """
        raise TLSError("the memory manager does not support thread-local storage")

    @abstractmethod
    async def finalize(self) -> FinalizedAlloc:
        """Apply protections, run the finalize actions, free finalize-lifetime memory.

        If this fails, the deallocate halves of the actions that succeeded have been run, in
        reverse order, and all memory has been freed.

        Raises:
            ActionError: a finalize action failed.
            AllocationError: the protections could not be applied.
            RuntimeError: it was finalized or abandoned before.
        """

    @abstractmethod
    async def abandon(self) -> None:
        """Free the memory without running any action.

        Raises:
            RuntimeError: it was finalized or abandoned before.
        """


class JITLinkMemoryManager(ABC):
    """Manages memory in one executor.

    Attributes:
        tls: the executor's thread-local storage, None if the manager does not support it; a
            manager that does also implements `InFlightAlloc.hold`.
        supports_images: whether the memory of a JITDylib can be images of the process.
    """

    tls: TLSRegistry | None = None
    supports_images = False

    def divide(self, graph: LinkGraph) -> None:  # noqa: B027 - most have one memory for all
        """Say which sections of a graph must be in segments of their own.

        It is called before code is made shorter on the assumption that segments stay as they are.

        Args:
            graph: the graph, whose `LinkGraph.segment_number` may be set.
        """

    @abstractmethod
    async def allocate(self, dylib: JITLinkDylib | None, graph: LinkGraph) -> InFlightAlloc:
        """Give the blocks of a graph addresses and working memory.

        On return the addresses of all blocks are set, except for those in NO_ALLOC sections, and
        the contents of the content blocks are writable copies in working memory. Zero-fill
        blocks stay zero-fill.

        Args:
            dylib: the library that the graph is part of, None for an unnamed one.
            graph: the graph; it is unchanged on failure.

        Raises:
            AllocationError: no memory of that size and alignment is available, or none below the
                graph's address limit.
            WritableCodeError: a section is both writable and executable, and the graph does not
                allow that.
        """

    @abstractmethod
    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Run the deallocate actions and free the memory of several allocations.

        Allocations are processed in reverse order, and so are the actions of each.

        Raises:
            DeallocationError: some actions failed; all have been run and all memory is freed.
            ValueError: one is not an allocation of this manager, or is deallocated already; none
                has been deallocated.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing but the executor's memory
        """Free what this process holds of the memory of an executor that has ended."""


def take_finalized(finalized: dict[int, T], allocs: Sequence[FinalizedAlloc]) -> list[T]:
    """Take what a manager has recorded of allocations, and mark these as deallocated.

    Args:
        finalized: records by address of the allocation.
        allocs: the allocations.

    Returns:
        Their records, in the same order.

    Raises:
        ValueError: one is not an allocation of the manager, or is deallocated already; nothing
            was taken.
    """
    numbers = {alloc.address for alloc in allocs}
    if len(numbers) < len(allocs) or not numbers <= finalized.keys():
        raise ValueError("not an allocation of this manager, or deallocated already")
    return [finalized.pop(alloc.release()) for alloc in allocs]
