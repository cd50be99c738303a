"""The TLS of all links into an executor, which its C library allocates.

A *TLS module* is a shared library without code that jitlink writes for one link. Its PT_TLS
segment is the initialisation image of the link's thread-local variables. The C library loads it
like any other module and gives every thread, also those that exist already, a TLS block of its
own: aligned, initialised, and freed when the thread ends or the module is unloaded. The values that
linked code needs, such as the module ID, are stored by dynamic relocations of the TLS module, and
read back once it is loaded.

Two links may need each other. So a link's own TLS module refers to no other and is loaded as soon
as the link's addresses are known. Values of other links' variables come from a second module,
which has relocations but no TLS block, and is loaded after the other links' TLS modules.

Thread-local variables have no address while they are linked. In a graph, a variable has a *TLS
address*, from a range that begins at `FIRST_ADDRESS` and that no processor can reach. Every TLS
block has a part of the range that is never used again, so a TLS address identifies a variable of
a link. LLVM differs: there it is an address in the initialisation image, which looks like one of
the variable and is not.

Offsets from the thread pointer, which the initial exec and local exec models use, are constant
only in *static TLS*. For modules that are loaded later, the C library reserves a surplus of some
1,600 bytes when the process starts. A TLS module takes static TLS only if the link's code, or code
of other links that uses its variables, requires it. The C library reclaims static TLS only if the
module that got it last is unloaded first, so a TLS module in static TLS stays loaded until those
that got static TLS after it are unloaded.

Specification: "ELF Handling For Thread-Local Storage" (Ulrich Drepper).
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from jitlink.errors import (
    ExecutorError,
    JITLinkError,
    TLSError,
)
from jitlink.memory.tls_module import (
    TLSABI,
    VALUES_SYMBOL,
    TLSModuleSpec,
    TLSRelocation,
    TLSSymbol,
    TLSValue,
)
from jitlink.tasks import Future

FIRST_ADDRESS, END_ADDRESS = 1 << 63, (1 << 63) + (1 << 62)
"""The range of TLS addresses: no processor has them, and no kernel."""
BLOCK_LIMIT = 1 << 30
"""Limit of a TLS block's size and alignment together, in bytes: every thread gets as much."""
_PAGE = 4096


def is_tls_address(address: int) -> bool:
    """Whether an address is a TLS address."""
    return FIRST_ADDRESS <= address < END_ADDRESS


class TLSModuleLoader(Protocol):
    """Loads TLS modules in an executor; errors are `ExecutorError`.

    Offsets in TLS blocks are `TLSValue.DTPOFF`.
    """

    async def load_tls_module(self, data: bytes) -> int:
        """Load a TLS module and return a handle."""

    async def unload_tls_module(self, handle: int) -> None:
        """Unload it."""

    async def read_words(self, handle: int, symbol: str, count: int) -> list[int]:
        """Read unsigned words of the size of a pointer at a symbol of a loaded TLS module."""

    def instance_address(self, module: int, offset: int) -> int:
        """Address of the calling thread's instance of a variable."""

    def is_instance(self, module: int, offset: int, address: int) -> bool:
        """Whether that is an address, as far as the executor can tell."""

    def tunables_for(self, extra: int) -> str | None:
        """The GLIBC_TUNABLES of processes with a larger surplus of static TLS.

        Args:
            extra: by how many bytes it is to be larger.

        Returns:
            The value, which keeps the other settings; None if the C library has no such setting.
        """


class TLSBlock:
    """The TLS block of one link, and the TLS module that it belongs to.

    Attributes:
        name: the TLS module's.
        address: TLS address of the start of the block.
        size, alignment: of the block, in bytes.
        module: the module ID, once the TLS module is loaded.
        dtp_offset: DTPOFF of the start of the block, once the TLS module is loaded.
        tp_offset: offset of the block from the thread pointer, if it is in static TLS.
        handle: the loader's handle of the TLS module; 0 while it is not loaded.
        users: how many other links use its variables.
        is_released: whether its own link has released it.
        symbols: the variables that its TLS module exports; to be set before that is loaded.
    """

    def __init__(self, name: str, address: int, size: int, alignment: int) -> None:
        self.name = name
        self.address = address
        self.size = size
        self.alignment = alignment
        self.module = 0
        self.dtp_offset = 0
        self.tp_offset: int | None = None
        self.handle = 0
        self.users = 0
        self.is_released = False
        self.symbols: Sequence[TLSSymbol] = ()
        self._waiting: list[Future[None]] = []

    async def wait_until_loaded(self) -> None:
        """Wait until the TLS module is loaded.

        Raises:
            TLSError: its link failed.
        """
        if self._is_pending():
            future: Future[None] = Future()
            self._waiting.append(future)
            # Another thread may have loaded it before the future was in the list.
            if self._is_pending():
                await future
        if not self.handle:
            raise TLSError(f"TLS module {self.name} failed to link")

    def _is_pending(self) -> bool:
        return not self.handle and not self.is_released

    def take_handle(self) -> int:
        """The handle, which is no longer the block's."""
        handle, self.handle = self.handle, 0
        return handle

    def wake(self) -> None:
        """Resume what waits; from any thread."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.loop.call_soon_threadsafe(partial(future.set_result_unless_done, None))


class TLSAllocation:
    """The TLS that one link holds, until `release`.

    Attributes:
        block: its own TLS block, if it has one.
    """

    def __init__(self, registry: TLSRegistry) -> None:
        self._registry = registry
        self.block: TLSBlock | None = None
        self._handles: list[int] = []
        self._used: list[TLSBlock] = []

    def reserve(self, size: int, alignment: int) -> TLSBlock:
        """Give the link a TLS block, with a TLS address.

        Raises:
            TLSError: the block is larger than `BLOCK_LIMIT`, or all TLS addresses are used up.
        """
        self.block = self._registry.reserve(size, alignment)
        return self.block

    async def load(
        self, image: bytearray, relocations: Sequence[TLSRelocation], abi: TLSABI
    ) -> list[list[int]]:
        """Load the link's own TLS module.

        Args:
            image: the initialisation image; the rest of the block is zero.
            relocations: relocations against the block itself.
            abi: the TLS of the architecture.

        Returns:
            The words of each relocation's value.

        Raises:
            StaticTLSError: the static TLS surplus is exhausted.
            TLSError: the TLS module cannot be loaded for another reason.
        """
        block = self.block
        assert block is not None
        all_relocations = (TLSRelocation(TLSValue.DTPMOD), *relocations)
        spec = TLSModuleSpec(
            block.name, image, block.size, block.alignment, all_relocations, symbols=block.symbols
        )
        block.handle, values = await self._registry.load(spec, abi)
        block.module, block.dtp_offset = values[0][0], -abi.dtp_bias
        for relocation, words in zip(relocations, values[1:], strict=True):
            if relocation.value is TLSValue.TPOFF:
                self._registry.add_static(block, words[0] - relocation.addend)
        block.wake()
        return values[1:]

    async def resolve(
        self,
        relocations: Sequence[TLSRelocation],
        blocks: Iterable[TLSBlock],
        abi: TLSABI,
    ) -> list[list[int]]:
        """Find out values of variables of other links and of libraries.

        Args:
            relocations: relocations against names of `blocks`, or against symbols of
                libraries that the executor has loaded.
            blocks: other links' blocks, which stay loaded until the allocation is released.
            abi: the TLS of the architecture.

        Returns:
            The words of each relocation's value.

        Raises:
            StaticTLSError: the static TLS surplus is exhausted.
            TLSError: the module cannot be loaded for another reason, or another link failed.
        """
        others = list(blocks)
        for block in others:
            await block.wait_until_loaded()
        name, needed = self._registry.new_module_name(), [each.name for each in others]
        spec = TLSModuleSpec(name, relocations=relocations, needed=needed)
        self._registry.use(others)
        self._used += others
        handle, values = await self._registry.load(spec, abi, others)
        self._handles.append(handle)
        for relocation, words in zip(relocations, values, strict=True):
            if relocation.value is TLSValue.TPOFF:
                for block in others:
                    if block.name == relocation.symbol:
                        self._registry.add_static(block, words[0] - relocation.addend)
        return values

    def request_static_tls(self, names: Iterable[str], abi: TLSABI) -> None:
        """Request static TLS for external variables, in case they are of loaded libraries.

        Args:
            names: names of the variables; replaces those of the last call.
            abi: the TLS of the architecture.
        """
        self._registry.request_static_tls(self, names, abi)

    async def release(self) -> list[JITLinkError]:
        """Release everything.

        Returns:
            What failed; everything else was done.
        """
        errors: list[JITLinkError] = []
        self._registry.request_static_tls(self, (), None)
        handles, self._handles = self._handles, []
        for handle in handles[::-1]:
            errors += await self._registry.unload(handle)
        used, self._used = self._used, []
        for block in used:
            errors += await self._registry.stop_using(block)
        if self.block is not None:
            block, self.block = self.block, None
            errors += await self._registry.release(block)
        return errors


class TLSRegistry:
    """The TLS of all links into one executor.

    Args:
        loader: loads TLS modules there.
    """

    def __init__(self, loader: TLSModuleLoader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._next_address = FIRST_ADDRESS
        self._next_name = 0
        self._starts: list[int] = []
        self._blocks: list[TLSBlock] = []
        self._requests: dict[TLSAllocation, tuple[frozenset[str], TLSABI]] = {}
        # The blocks in static TLS, in the order in which they got it.
        self._static: list[TLSBlock] = []

    def after_fork(self) -> None:
        """Make it usable in a child process, where a lock held by another thread stays held."""
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Number of TLS blocks that links hold."""
        return len(self._blocks)

    # Allocation

    def new_allocation(self) -> TLSAllocation:
        """An empty allocation for a link."""
        return TLSAllocation(self)

    def new_module_name(self) -> str:
        """A name that no other module has."""
        with self._lock:
            self._next_name += 1
            # The object's identity: a process may have several registries.
            return f"jitlink-tls-{id(self):x}-{self._next_name}"

    def reserve(self, size: int, alignment: int) -> TLSBlock:
        """A block that has a TLS address but is not loaded; see `TLSAllocation.reserve`."""
        if size + alignment > BLOCK_LIMIT:
            raise TLSError(
                f"a TLS block of {size:#x} bytes aligned to {alignment:#x} is too large for "
                f"every thread to have one: the limit is {BLOCK_LIMIT:#x} bytes"
            )
        size, name = padded(size, alignment), self.new_module_name()
        with self._lock:
            address = padded(self._next_address, alignment)
            if address + size + _PAGE > END_ADDRESS:
                raise TLSError("all TLS addresses are used up")
            # A gap, so that the end of one block is not the start of the next.
            self._next_address = address + size + _PAGE
            block = TLSBlock(name, address, size, alignment)
            self._starts.append(address)
            self._blocks.append(block)
        return block

    async def load(
        self, spec: TLSModuleSpec, abi: TLSABI, others: Sequence[TLSBlock] = ()
    ) -> tuple[int, list[list[int]]]:
        """Load a TLS module: its handle, and the words of each relocation's value."""
        try:
            handle = await self._loader.load_tls_module(abi.write_module(spec))
        except ExecutorError as error:
            from jitlink.memory.tls_surplus import explain  # noqa: PLC0415 - only for errors

            raise await explain(self, spec, abi, others, error) from error
        try:
            count = sum(each.value.words for each in spec.relocations)
            words = await self._loader.read_words(handle, VALUES_SYMBOL, count)
        except BaseException:
            await self.unload(handle)
            raise
        values = []
        for relocation in spec.relocations:
            values.append(words[: relocation.value.words])
            words = words[relocation.value.words :]
        return handle, values

    def request_static_tls(
        self, allocation: TLSAllocation, names: Iterable[str], abi: TLSABI | None
    ) -> None:
        """See `TLSAllocation.request_static_tls`."""
        requested = frozenset(names)
        with self._lock:
            self._requests.pop(allocation, None)
            if requested and abi is not None:
                self._requests[allocation] = requested, abi

    async def reserve_static_tls(self, names: Iterable[str]) -> None:
        """Put libraries whose variables links have requested into static TLS, if there is space.

        An executor calls this before it looks names up: to look up a variable is to use it, and
        the C library moves no TLS block that is in use.
        """
        with self._lock:
            requests = list(self._requests.values())
        for requested, abi in requests:
            # One by one: a variable that does not fit must not keep others out.
            for name in requested.intersection(names):
                relocations = [TLSRelocation(TLSValue.TPOFF, name)]
                spec = TLSModuleSpec(self.new_module_name(), relocations=relocations, is_weak=True)
                await self.can_load(spec, abi)

    def use(self, blocks: Sequence[TLSBlock]) -> None:
        """Count a user of each block, which stays loaded until its users have gone."""
        with self._lock:
            for block in blocks:
                block.users += 1

    def add_static(self, block: TLSBlock, tp_offset: int) -> None:
        """Record that a block is in static TLS, unless another link has found that out before.

        Args:
            block: the block.
            tp_offset: its offset from the thread pointer, in bytes.
        """
        with self._lock:
            if block.tp_offset is None:
                block.tp_offset = tp_offset
                self._static.append(block)

    # Release

    async def release(self, block: TLSBlock) -> list[JITLinkError]:
        """Remove a block, and unload its TLS module once it has no users; what failed."""
        with self._lock:
            index = bisect_left(self._starts, block.address)
            del self._blocks[index], self._starts[index]
            block.is_released = True
            unused = self._take_unused(block)
        block.wake()
        return await self._unload_all(unused)

    async def stop_using(self, block: TLSBlock) -> list[JITLinkError]:
        """Count a user less, and unload the TLS module if that was the last one; what failed."""
        with self._lock:
            block.users -= 1
            unused = self._take_unused(block)
        return await self._unload_all(unused)

    def _take_unused(self, block: TLSBlock) -> list[int]:
        """The handles of a block that is unused, and of those that it held up; under the lock."""
        if block not in self._static:
            return [block.take_handle()] if _is_unused(block) else []
        handles = []
        while self._static and _is_unused(self._static[-1]):
            handles.append(self._static.pop().take_handle())
        return handles

    async def _unload_all(self, handles: Iterable[int]) -> list[JITLinkError]:
        errors = []
        for handle in handles:
            errors += await self.unload(handle)
        return errors

    async def unload(self, handle: int) -> list[JITLinkError]:
        """Unload a TLS module; what failed."""
        try:
            await self._loader.unload_tls_module(handle)
        except ExecutorError as error:
            return [error]
        return []

    # Variables

    def find(self, address: int) -> tuple[TLSBlock, int] | None:
        """The block that a TLS address is in, and the offset there."""
        with self._lock:
            index = bisect_right(self._starts, address) - 1
            if index < 0:
                return None
            block = self._blocks[index]
        offset = address - block.address
        # A symbol may be at the end, such as one without size.
        return (block, offset) if offset <= block.size else None

    def tls_address(self, address: int) -> int:
        """Address of the calling thread's instance of a linked thread-local variable.

        Args:
            address: the variable's TLS address, which its symbol has in the graph.

        Raises:
            TLSError: no variable has that TLS address, or it is not linked yet.
        """
        found = self.find(address)
        if found is None or not found[0].handle:
            raise TLSError(f"no thread-local variable is linked at {address:#x}")
        block, offset = found
        return self._loader.instance_address(block.module, block.dtp_offset + offset)

    def is_instance(self, module: int, offset: int, address: int) -> bool:
        """Whether a variable of any module is at an address for the calling thread.

        Args:
            module: the module's ID.
            offset: the variable's `TLSValue.DTPOFF` there.
            address: where an instance of it may be.
        """
        return self._loader.is_instance(module, offset, address)

    # Errors

    def tunables_for(self, extra: int) -> str | None:
        """See `TLSModuleLoader.tunables_for`."""
        return self._loader.tunables_for(extra)

    async def can_load(self, spec: TLSModuleSpec, abi: TLSABI) -> bool:
        """Load a TLS module and unload it; whether it could be loaded."""
        try:
            handle = await self._loader.load_tls_module(abi.write_module(spec))
        except ExecutorError:
            return False
        await self.unload(handle)
        return True


def padded(size: int, alignment: int) -> int:
    """A size or an address, rounded up to a multiple of an alignment.

    The C library reclaims the static TLS of a module, but not the gap before it that aligned
    it. Between sizes that are multiples of their alignment there is no such gap to lose.
    """
    return -(-size // alignment) * alignment


def _is_unused(block: TLSBlock) -> bool:
    return block.is_released and block.users == 0 and block.handle != 0


async def release_tls(allocations: Sequence[TLSAllocation]) -> list[JITLinkError]:
    """Release what links hold; returns what failed, after everything else was done."""
    errors: list[JITLinkError] = []
    for allocation in allocations:
        errors += await allocation.release()
    return errors
