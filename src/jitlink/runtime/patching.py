"""Replacing code of an executor that may be running, without making any page of code writable.

For this process see `jitlink.memory.patching`. In another one, functions of the runtime do the
same, and with shared memory, which this process can write to, no code crosses the wire: copies of
the pages are written here, beside them, and mapped in their place there; then the pages themselves
are written here, and mapped again. Links find the memory as they know it, and see only one mapping
more where the system cannot merge them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor import ExecutorProcessControl, ProtocolError
from jitlink.memory.mapper import MapperJITLinkMemoryManager
from jitlink.memory.patching import replace_code as replace_here
from jitlink.runtime.linked import OptionalFunctions, functions_of
from jitlink.runtime.remote_memory import read_memory
from jitlink.sps import CHARS, ERROR, EXECUTOR_ADDR, UINT64, Tuple, WrapperSignature
from jitlink.sps import Sequence as SPSSequence

_REPLACE = WrapperSignature(ERROR, SPSSequence(Tuple(EXECUTOR_ADDR, CHARS)))
_MAP = WrapperSignature[list[int]](
    SPSSequence(EXECUTOR_ADDR), SPSSequence(Tuple(EXECUTOR_ADDR, UINT64, EXECUTOR_ADDR))
)


async def read_code(
    executor: ExecutorProcessControl, ranges: Sequence[tuple[int, int]]
) -> dict[int, bytearray]:
    """The contents of ranges of finalized memory, by address.

    Args:
        executor: the executor.
        ranges: address and size in bytes of each.

    Raises:
        ExecutorError: the executor is gone.
    """
    if executor.is_this_process:
        return {address: bytearray(ctypes.string_at(address, n)) for address, n in ranges}
    shared = _shared_memory(executor)
    if shared is not None:
        return {address: bytearray(shared.mapper.view(address, n)) for address, n in ranges}
    return {address: bytearray(await read_memory(executor, address, n)) for address, n in ranges}


async def replace_code(
    executor: ExecutorProcessControl, contents: Mapping[int, bytes | bytearray]
) -> None:
    """Replace code pages of an executor; each range of pages changes atomically.

    No memory may be deallocated meanwhile.

    Args:
        executor: the executor.
        contents: new contents of page ranges, by address, which are finalized code. Addresses and
            lengths are multiples of the page size.

    Raises:
        AllocationError: the system refuses. If it refuses to move pages, which happens only when
            the executor has run out of mappings, some of the ranges have been replaced.
        UnsupportedObjectError: there is no runtime for the executor's target.
        ExecutorError: the executor is gone.
    """
    if executor.is_this_process:
        replace_here(contents)
        return
    if executor.direct_calls is not None:
        # Nothing runs meanwhile but what has called Python.
        for place, content in contents.items():
            await executor.write_memory(place, content)
        return
    functions = await functions_of(executor, "patching")
    shared = _shared_memory(executor)
    if shared is not None:
        await _replace_shared(executor, functions, shared, contents)
        return
    name, pages = "__jitlink_replace_code", list(contents.items())
    address, generation = functions.addresses[name], functions.generation
    try:
        await executor.call_function(name, address, _REPLACE, pages, generation=generation)
    except ExecutorError as error:
        if not executor.is_alive:
            raise
        raise AllocationError(str(error)) from error


def _shared_memory(executor: ExecutorProcessControl) -> MapperJITLinkMemoryManager | None:
    """The manager of memory that this process can write to; None if there is none."""
    memory = executor.memory_manager
    if isinstance(memory, MapperJITLinkMemoryManager) and memory.mapper.is_shared:
        return memory
    return None


async def _replace_shared(
    executor: ExecutorProcessControl,
    functions: OptionalFunctions,
    memory: MapperJITLinkMemoryManager,
    contents: Mapping[int, bytes | bytearray],
) -> None:
    """Replace code in memory that this process can write to."""

    async def call(name: str, ranges: Sequence[tuple[int, int, int]]) -> list[int]:
        address, generation = functions.addresses[name], functions.generation
        found: list[int] = await executor.call_function(
            name, address, _MAP, ranges, generation=generation
        )
        if len(found) != len(ranges):
            raise ProtocolError(f"{name} was called for {len(ranges)} ranges, not {len(found)}")
        return found

    sizes = {place: len(content) for place, content in contents.items()}
    for place, size in sizes.items():
        if memory.is_retired(place, size):
            raise AllocationError(f"code at {place:#x} cannot be replaced again", size=size)
    copies = await memory.take_scratch(list(sizes.values()))
    for copy, content in zip(copies, contents.values(), strict=True):
        memory.mapper.view(copy.address, copy.size)[:] = content
    sources = [(place, copy.size, copy.address) for place, copy in zip(sizes, copies, strict=True)]
    found = await call("__jitlink_map_copies", sources)
    originals = {place: address for place, address in zip(sizes, found, strict=True) if address}
    for place in originals:
        memory.mapper.view(place, sizes[place])[:] = contents[place]
    moves = [(place, sizes[place], address) for place, address in originals.items()]
    found = await call("__jitlink_map_originals", moves)
    lost = {place for place, address in zip(originals, found, strict=True) if not address}
    for place, copy in zip(sizes, copies, strict=True):
        if place in lost:
            # The copy is the code from now on, and links would not find it.
            memory.retire(place, sizes[place])
        else:
            memory.free([copy])
    if lost or len(originals) < len(sizes):
        raise AllocationError(
            "cannot replace code: the executor has run out of mappings, or cannot map shared "
            "memory twice, as emulators and sandboxes cannot"
        )
