"""Thread-local storage in an executor: its C library allocates it, and is told what by templates.

A *storage template* is a shared library without code, written for one link: it has the initial
image of the link's thread-local variables. The C library loads it like any other, and then gives
every thread, also those that exist already, a copy of its own: aligned, initialised, and freed
when the thread ends or the template is unloaded. What linked code must know about it, a link
requests with relocations in the template, and reads back once it is loaded.

Two links may need each other. So a link's own template refers to no other and is loaded as soon
as the link's addresses are known; what it must know about variables of others it requests with a
second image, which has no storage and is loaded when the others' templates are.

Thread-local variables have no address while they are linked. In a graph a variable's address is
its place in a range of addresses that no processor can reach, from `FIRST_ADDRESS`; every
template has a piece of it that is never used again, so the address tells which variable of which
link is meant. LLVM differs: there it is an address in the initial image, which looks like that of
the variable and is not.

Offsets from the thread pointer, which the initial-exec and local-exec models are made of, are
constant only in *static room*, which the C library sets aside when a process starts: some 1,600
bytes for all that is loaded later. It is taken only by templates whose code or whose users are
compiled for it. The C library gets it back if what was loaded last is unloaded first, so
templates that have static room wait with that for those that were loaded after them.

Specification: "ELF Handling For Thread-Local Storage" (Ulrich Drepper).
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from typing import NamedTuple, Protocol

from jitlink.errors import (
    ExecutorError,
    JITLinkError,
    StaticTLSError,
    TLSError,
)
from jitlink.tasks import Future

FIRST_ADDRESS, LAST_ADDRESS = 1 << 63, (1 << 63) + (1 << 62)
"""Addresses that stand for thread-local variables: no processor's, and no kernel's."""
BLOCK_LIMIT = 1 << 30
"""Size and alignment together that a template may have, in bytes: every thread gets as much."""
RESULTS_SYMBOL = "jitlink_results"
"""The symbol of a template where the C library stores what was requested."""
UNDEFINED_SYMBOL = "jitlink_undefined"
"""A symbol to request values of that nobody defines: those of a weak undefined one."""
_WORD = 8
_PAGE = 4096
_SURPLUS_LIMIT = 1 << 24
"""No C library has more static room than that."""


def is_tls_address(address: int) -> bool:
    """Whether an address stands for a thread-local variable."""
    return FIRST_ADDRESS <= address < LAST_ADDRESS


class TLSValue(Enum):
    """What the C library can tell about a thread-local variable; words of eight bytes.

    MODULE: number of the library that has it. OFFSET: its offset in that library's storage.
    TPOFF: its offset from the thread pointer, which gives the library static room.
    DESCRIPTOR: a function that returns that offset, and the function's argument.
    """

    MODULE = 1
    OFFSET = 2
    TPOFF = 3
    DESCRIPTOR = 4

    @property
    def words(self) -> int:
        """How many words it is."""
        return 2 if self is TLSValue.DESCRIPTOR else 1

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.words * _WORD


class TLSRequest(NamedTuple):
    """A value that is wanted: of a variable, or of a place in a template's own storage.

    Attributes:
        value: what is wanted.
        symbol: a thread-local symbol of another library; empty for the template itself.
        addend: offset from that symbol, or from the start of the template's storage.
    """

    value: TLSValue
    symbol: str = ""
    addend: int = 0


class TLSModuleSpec(NamedTuple):
    """What an image is to be written from.

    Attributes:
        name: unlike that of all others; the symbol of its storage too.
        content: the beginning of the initial image; the rest is zero.
        size: size of the storage in bytes; 0 for an image without storage.
        alignment: of the storage in bytes, a power of two.
        requests: the values to be stored.
        needed: names of the templates whose symbols are requested.
        is_weak: whether symbols need not be defined; values of such have no meaning.
    """

    name: str
    content: bytes | bytearray = b""
    size: int = 0
    alignment: int = 1
    requests: Sequence[TLSRequest] = ()
    needed: Sequence[str] = ()
    is_weak: bool = False

    @property
    def needs_static_tls(self) -> bool:
        """Whether something is requested that needs static room."""
        return any(each.value is TLSValue.TPOFF for each in self.requests)


WriteTLSModule = Callable[[TLSModuleSpec], bytes]
"""Writes an image in a format that the executor's C library loads."""


class TLSModuleLoader(Protocol):
    """What loads images in an executor; errors are `ExecutorError`."""

    async def load_tls_module(self, image: bytes) -> int:
        """Load an image and return a handle."""

    async def unload_dylib(self, handle: int) -> None:
        """Unload it."""

    async def module_words(self, handle: int, symbol: str, count: int) -> list[int]:
        """The unsigned words of eight bytes from a symbol of a loaded image on."""

    def tls_address(self, module: int, offset: int) -> int:
        """Address of the calling thread's instance of a variable."""


class TLSBlock:
    """The storage of one template: thread-local variables that were linked together.

    Attributes:
        name: the template's.
        address: what stands for the start of the storage in the graph.
        size, alignment: of the storage, in bytes.
        module: the C library's number of the template, once it is loaded.
        tp_offset: offset of the storage from the thread pointer, once it is known.
    """

    def __init__(self, name: str, address: int, size: int, alignment: int) -> None:
        self.name = name
        self.address = address
        self.size = size
        self.alignment = alignment
        self.module = 0
        self.tp_offset: int | None = None
        self.handle = 0
        self.users = 0
        self.is_released = False
        self._waiting: list[Future[None]] = []

    async def wait_until_loaded(self) -> None:
        """Wait until the template is loaded.

        Raises:
            TLSError: it never will be.
        """
        if self._is_pending():
            future: Future[None] = Future()
            self._waiting.append(future)
            if self._is_pending():
                # Otherwise another thread has loaded it meanwhile, and seen nobody wait.
                await future
        if not self.handle:
            raise TLSError(f"thread-local storage {self.name} failed to link")

    def _is_pending(self) -> bool:
        return not self.handle and not self.is_released

    def wake(self) -> None:
        """Let those go on who wait; from any thread."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.loop.call_soon_threadsafe(partial(future.set_result_unless_done, None))


class TLSAllocation:
    """What one link holds of an executor's thread-local storage, until `release`.

    Attributes:
        block: its own storage, if it has any.
    """

    def __init__(self, storage: TLSRegistry) -> None:
        self._storage = storage
        self.block: TLSBlock | None = None
        self._references: list[int] = []
        self._used: list[TLSBlock] = []

    def reserve(self, size: int, alignment: int) -> TLSBlock:
        """Give the link storage of its own, and that an address.

        Raises:
            TLSError: no C library can be expected to have so much for every thread.
        """
        self.block = self._storage.reserve(size, alignment)
        return self.block

    async def load(
        self, content: bytearray, requests: Sequence[TLSRequest], write: WriteTLSModule
    ) -> list[list[int]]:
        """Load the link's own template.

        Args:
            content: the initial image, as far as it is not zero.
            requests: values of the storage itself.
            write: writes the image.

        Returns:
            The words of each value that was requested.

        Raises:
            StaticTLSError: there is not so much static room.
            TLSError: the template cannot be loaded for another reason.
        """
        block = self.block
        assert block is not None
        asked = (TLSRequest(TLSValue.MODULE), *requests)
        image = TLSModuleSpec(block.name, content, block.size, block.alignment, asked)
        block.handle, values = await self._storage.load(image, write)
        block.module = values[0][0]
        for request, words in zip(requests, values[1:], strict=True):
            if request.value is TLSValue.TPOFF:
                block.tp_offset = words[0] - request.addend
        if block.tp_offset is not None:
            self._storage.note_static(block)
        block.wake()
        return values[1:]

    async def refer(
        self,
        requests: Sequence[TLSRequest],
        blocks: Iterable[TLSBlock],
        write: WriteTLSModule,
    ) -> list[list[int]]:
        """Request values of variables of other libraries.

        Args:
            requests: what is wanted; symbols are names of `blocks`, or exported by libraries
                that the executor has loaded.
            blocks: those of other links; they stay until the lease is released.
            write: writes the image.

        Raises: as `load`.
        """
        others = list(blocks)
        for block in others:
            await block.wait_until_loaded()
        image = TLSModuleSpec(
            self._storage.new_name(), requests=requests, needed=[each.name for each in others]
        )
        self._storage.use(others)
        self._used += others
        handle, values = await self._storage.load(image, write, others)
        self._references.append(handle)
        for request, words in zip(requests, values, strict=True):
            if request.value is TLSValue.TPOFF:
                for block in others:
                    if block.name == request.symbol and block.tp_offset is None:
                        block.tp_offset = words[0] - request.addend
                        self._storage.note_static(block)
        return values

    def want_static_tls(self, names: Iterable[str], write: WriteTLSModule) -> None:
        """Ask for static room for variables, should they turn out to be loaded libraries'.

        Args:
            names: of the variables; none once all have been looked up.
            write: writes images.
        """
        self._storage.want_static_tls(self, names, write)

    async def release(self) -> list[JITLinkError]:
        """Give everything back.

        Returns:
            What failed; everything else was done.
        """
        errors: list[JITLinkError] = []
        self._storage.want_static_tls(self, (), None)
        references, self._references = self._references, []
        for handle in references[::-1]:
            errors += await self._storage.unload(handle)
        used, self._used = self._used, []
        for block in used:
            block.users -= 1
            errors += await self._storage.collect(block)
        if self.block is not None:
            block, self.block = self.block, None
            errors += await self._storage.release(block)
        return errors


class TLSRegistry:
    """The thread-local storage of all links into one executor.

    Args:
        loader: what loads templates there.
    """

    def __init__(self, loader: TLSModuleLoader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._next_address = FIRST_ADDRESS
        self._next_name = 0
        self._starts: list[int] = []
        self._blocks: list[TLSBlock] = []
        self._wishes: dict[TLSAllocation, tuple[frozenset[str], WriteTLSModule]] = {}
        # Those with static room, in the order in which they were given it.
        self._static: list[TLSBlock] = []

    @property
    def count(self) -> int:
        """How many links hold storage."""
        return len(self._blocks)

    # What links ask for

    def new_lease(self) -> TLSAllocation:
        """What a link is to hold."""
        return TLSAllocation(self)

    def new_name(self) -> str:
        """A name that no other image has."""
        with self._lock:
            self._next_name += 1
            # The object's identity: a process may have several of these.
            return f"jitlink-thread-storage-{id(self):x}-{self._next_name}"

    def reserve(self, size: int, alignment: int) -> TLSBlock:
        """Make a block that has an address but is not loaded."""
        if size + alignment > BLOCK_LIMIT:
            raise TLSError(
                f"thread-local storage of {size:#x} bytes aligned to {alignment:#x} is more than "
                f"every thread can have: the limit is {BLOCK_LIMIT:#x} bytes"
            )
        size, name = _padded(size, alignment), self.new_name()
        with self._lock:
            address = _padded(self._next_address, alignment)
            if address + size + _PAGE > LAST_ADDRESS:
                raise TLSError("all addresses of thread-local variables are used up")
            # A gap, so that the end of one block is not the start of the next.
            self._next_address = address + size + _PAGE
            block = TLSBlock(name, address, size, alignment)
            self._starts.append(address)
            self._blocks.append(block)
        return block

    async def load(
        self, image: TLSModuleSpec, write: WriteTLSModule, others: Sequence[TLSBlock] = ()
    ) -> tuple[int, list[list[int]]]:
        """Load an image and read what it requests: its handle, and the words of each value."""
        try:
            handle = await self._loader.load_tls_module(write(image))
        except ExecutorError as error:
            raise await self._explain(image, write, others, error) from error
        try:
            count = sum(each.value.words for each in image.requests)
            words = await self._loader.module_words(handle, RESULTS_SYMBOL, count)
        except BaseException:
            await self.unload(handle)
            raise
        values = []
        for request in image.requests:
            values.append(words[: request.value.words])
            words = words[request.value.words :]
        return handle, values

    def want_static_tls(
        self, lease: TLSAllocation, names: Iterable[str], write: WriteTLSModule | None
    ) -> None:
        """See `TLSAllocation.want_static_tls`."""
        wanted = frozenset(names)
        with self._lock:
            self._wishes.pop(lease, None)
            if wanted and write is not None:
                self._wishes[lease] = wanted, write

    async def reserve_static_tls(self, names: Iterable[str]) -> None:
        """Give loaded libraries the static room that links want of them, as far as there is any.

        An executor does this before it looks names up: to look a variable up is to use it, and a
        library whose variables have been used gets no static room any more.
        """
        with self._lock:
            wishes = list(self._wishes.values())
        for wanted, write in wishes:
            # One by one: what there is no room for must not be in the way of others.
            for name in wanted.intersection(names):
                requests = [TLSRequest(TLSValue.TPOFF, name)]
                image = TLSModuleSpec(self.new_name(), requests=requests, is_weak=True)
                await self._is_loaded(image, write)

    def use(self, blocks: Sequence[TLSBlock]) -> None:
        """Keep blocks loaded until as many calls of `collect`."""
        with self._lock:
            for block in blocks:
                block.users += 1

    def note_static(self, block: TLSBlock) -> None:
        """Take down that a block has been given static room."""
        with self._lock:
            self._static.append(block)

    # What links give back

    async def release(self, block: TLSBlock) -> list[JITLinkError]:
        """Forget a block, and unload its template once nobody uses it."""
        with self._lock:
            index = bisect_left(self._starts, block.address)
            del self._blocks[index], self._starts[index]
            block.is_released = True
        block.wake()
        return await self.collect(block)

    async def collect(self, block: TLSBlock) -> list[JITLinkError]:
        """Unload what nobody uses any more, and what has waited for that."""
        errors = []
        for each in self._unused(block):
            handle, each.handle = each.handle, 0
            errors += await self.unload(handle)
        return errors

    def _unused(self, block: TLSBlock) -> list[TLSBlock]:
        with self._lock:
            if block not in self._static:
                return [block] if _is_unused(block) else []
            unused = []
            while self._static and _is_unused(self._static[-1]):
                unused.append(self._static.pop())
            return unused

    async def unload(self, handle: int) -> list[JITLinkError]:
        """Unload an image; what failed."""
        try:
            await self._loader.unload_dylib(handle)
        except ExecutorError as error:
            return [error]
        return []

    # Variables

    def find(self, address: int) -> tuple[TLSBlock, int] | None:
        """The block that an address of a thread-local variable is in, and the offset there."""
        with self._lock:
            index = bisect_right(self._starts, address) - 1
            if index < 0:
                return None
            block = self._blocks[index]
        offset = address - block.address
        # The end counts: a symbol may be there, as one without size may.
        return (block, offset) if offset <= block.size else None

    def tls_address(self, address: int) -> int:
        """Address of the calling thread's instance of a linked thread-local variable.

        Args:
            address: what stands for the variable: what its symbol has in the graph.

        Raises:
            TLSError: the address is of no such variable, or it is not linked yet.
        """
        found = self.find(address)
        if found is None or not found[0].handle:
            raise TLSError(f"no thread-local variable is linked at {address:#x}")
        block, offset = found
        return self._loader.tls_address(block.module, offset)

    def host_address(self, module: int, offset: int) -> int:
        """Address of the calling thread's instance of a variable of any library."""
        return self._loader.tls_address(module, offset)

    # Errors

    async def _explain(
        self,
        image: TLSModuleSpec,
        write: WriteTLSModule,
        others: Sequence[TLSBlock],
        error: ExecutorError,
    ) -> TLSError:
        """Why an image was not loaded; finding out takes some dozens of trials."""
        general = TLSError(f"thread-local storage cannot be had: {error}")
        if not image.needs_static_tls:
            return general
        without = [each for each in image.requests if each.value is not TLSValue.TPOFF]
        if not await self._is_loaded(image._replace(requests=without), write):
            return general
        size, alignment, why = image.size, image.alignment, ""
        if not size:
            lacking = [each for each in others if each.tp_offset is None]
            if not lacking:
                why = "initial-exec access to a variable of a library that has no static room"
                return TLSError(f"{why}: {error}")
            size = max(each.size for each in lacking)
            alignment = max(each.alignment for each in lacking)
            why = " or a thread has used the variable already"
        room, surplus_alignment = await self._measure_surplus(write)
        return StaticTLSError(size, alignment, room, surplus_alignment, why)

    async def _measure_surplus(self, write: WriteTLSModule) -> tuple[int, int]:
        """The largest size that there is static room for, and the largest alignment."""

        async def fits(size: int, alignment: int) -> bool:
            request = TLSRequest(TLSValue.TPOFF)
            image = TLSModuleSpec(self.new_name(), b"", size, alignment, (request,))
            return await self._is_loaded(image, write)

        # The alignment first: a trial may make the C library lose room, as `_padded` says.
        alignment = 1
        while alignment < _SURPLUS_LIMIT and await fits(2 * alignment, 2 * alignment):
            alignment *= 2
        size, step = 0, _SURPLUS_LIMIT
        while step:
            if await fits(size + step, 1):
                size += step
            step >>= 1
        return size, alignment

    async def _is_loaded(self, image: TLSModuleSpec, write: WriteTLSModule) -> bool:
        """Whether an image can be loaded."""
        try:
            handle = await self._loader.load_tls_module(write(image))
        except ExecutorError:
            return False
        await self.unload(handle)
        return True


def _padded(size: int, alignment: int) -> int:
    """A size or an address, rounded up to a multiple of an alignment.

    The C library gets back what a template takes of static room, but not what it has left free
    before that for its alignment; there is nothing to be lost between sizes that are multiples.
    """
    return -(-size // alignment) * alignment


def _is_unused(block: TLSBlock) -> bool:
    return block.is_released and block.users == 0 and block.handle != 0
