"""What a memory manager is: the interface between the linker and memory in the executor.

A link asks for memory once it knows what it keeps, writes into it, and finalizes it; whoever
owns the link deallocates it when it is released::

    in_flight = await manager.allocate(dylib, graph)    # blocks have addresses and memory
    ...                                                 # fixups are written
    finalized = await in_flight.finalize()              # or: await in_flight.abandon()
    ...                                                 # the code runs
    await manager.deallocate([finalized])

The methods are coroutines because memory may be in another process. A manager whose memory is
in this one never suspends, so its coroutines can be driven without a loop.

Allocation actions (`LinkGraph.alloc_actions`) belong to the memory: their finalize halves run
in order once protections are applied, their deallocate halves in reverse order before the
memory goes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

from jitlink.errors import JITLinkError, TLSError
from jitlink.graph import LinkGraph
from jitlink.memory.tls import TLSAllocation, TLSRegistry


class DeallocationError(JITLinkError):
    """Something failed while memory was released; everything else was done nevertheless.

    Attributes:
        errors: what failed, in the order in which it happened.
    """

    def __init__(self, errors: Sequence[JITLinkError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


class JITLinkDylib:
    """A simulated dynamic library: what is linked into one of them reaches all of it.

    Attributes:
        name: its name, for people; two of them may have the same one.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class FinalizedAlloc:
    """Finalized memory, to be given to `JITLinkMemoryManager.deallocate` exactly once.

    Losing one is a `ResourceWarning`: its memory stays, and its deallocate actions never run.

    Attributes:
        address: what the manager that made it knows it by; 0 once released. Its meaning is
            the manager's own.
    """

    __slots__ = ("__weakref__", "address")

    def __init__(self, address: int) -> None:
        if address <= 0:
            raise ValueError(f"{address} cannot stand for an allocation")
        self.address = address

    def __repr__(self) -> str:
        return f"<FinalizedAlloc {self.address:#x}>"

    def __del__(self) -> None:
        # The attribute is missing if the constructor failed.
        if getattr(self, "address", 0):
            warnings.warn(f"{self!r} was never deallocated", ResourceWarning, stacklevel=2)

    def release(self) -> int:
        """Mark as deallocated and return the address; for memory managers.

        Raises:
            ValueError: it is released already.
        """
        address, self.address = self.address, 0
        if not address:
            raise ValueError("the allocation was deallocated before")
        return address


class InFlightAlloc(ABC):
    """Memory of a graph that is being linked.

    Exactly one of the two methods is awaited, once.
    """

    def hold(self, allocation: TLSAllocation) -> None:  # noqa: ARG002 - for those that can
        """Keep a TLS allocation for as long as the memory, and release it after that.

        Raises:
            TLSError: the memory manager has no TLS.
        """
        raise TLSError("this memory manager cannot hold TLS allocations")

    @abstractmethod
    async def finalize(self) -> FinalizedAlloc:
        """Apply protections, run the finalize actions, free finalize-lifetime memory.

        If this fails, the actions that ran have been undone, in reverse order, and all memory
        has been freed.

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
    """Hands out memory in one executor.

    Attributes:
        tls: the executor's TLS; None if the manager has none. A manager that has TLS also
            implements `InFlightAlloc.hold`.
    """

    tls: TLSRegistry | None = None

    @abstractmethod
    async def allocate(self, dylib: JITLinkDylib | None, graph: LinkGraph) -> InFlightAlloc:
        """Give every block that is to be allocated an address and working memory.

        On return the addresses of all blocks of all sections that are not NO_ALLOC are set,
        and the contents of the content blocks are writable copies in working memory.
        Zero-fill blocks stay zero-fill.

        Args:
            dylib: the library that the graph is part of, None for one without a name.
            graph: the graph; if this fails it is as it was.

        Raises:
            AllocationError: there is no memory of that size and alignment, or none below the
                graph's address limit, or a section is to be writable and executable.
        """

    @abstractmethod
    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        """Run the deallocate actions and free the memory of several allocations.

        Allocations are taken in reverse order, and the actions of each likewise.

        Raises:
            DeallocationError: some actions failed; all were run and all memory was freed.
            ValueError: one is not an allocation of this manager, or was deallocated before;
                nothing has been done.
        """
