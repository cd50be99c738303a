"""The system calls on this process's address space: reserve, map, protect, discard.

Addresses are plain integers and every range is a whole number of pages. If the system refuses a
call, an `AllocationError` with the system's reason is raised.

Python's own `mmap` objects cannot be placed at an address, cannot be protected and unmap
themselves when they are collected, so the C library is called directly. POSIX does not define
the values of some flags; flags whose value on this system is unknown are 0, and no caller depends
on them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.host import MACHINE, c_library, is_linux, python_function

PAGE_SIZE = mmap.PAGESIZE

_LINUX = is_linux()
_MAP_PRIVATE_ANONYMOUS = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANON", 0)
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000 if _LINUX else 0
_MAP_FIXED_NOREPLACE = 0x100000 if _LINUX else 0
_MAP_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
_MADV_POPULATE_WRITE = 23 if _LINUX else 0
_PYBUF_WRITE = 0x200

# The usual bits of <sys/mman.h> are the bits of MemProt.
READ_WRITE = int(MemProt.READ | MemProt.WRITE)

_Size = ctypes.c_size_t
_Int = ctypes.c_int


def _function(
    library: ctypes.CDLL, name: str, *arguments: type[ctypes._SimpleCData[int]]
) -> ctypes._NamedFuncPointer:
    function = library[name]
    function.argtypes = arguments
    function.restype = ctypes.c_ssize_t if name == "mmap" else _Int
    return function


# Short calls keep the interpreter lock: releasing it may cost a thread switch, which takes a
# thousand times as long as the call. Calls that touch many pages release it.
_short = c_library(keeps_lock=True)
_long = c_library()
_MMAP_ARGUMENTS = (_Size, _Size, _Int, _Int, _Int, ctypes.c_ssize_t)
_mmap = _function(_short, "mmap", *_MMAP_ARGUMENTS)
_mmap_populate = _function(_long, "mmap", *_MMAP_ARGUMENTS)
_munmap = _function(_long, "munmap", _Size, _Size)
_mprotect = _function(_short, "mprotect", _Size, _Size, _Int)
_madvise = _function(_long, "madvise", _Size, _Size, _Int)
_memory_view = python_function("PyMemoryView_FromMemory")
_memory_view.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, _Int)
_memory_view.restype = ctypes.py_object


def _failed(what: str, size: int) -> AllocationError:
    reason = os.strerror(ctypes.get_errno())
    return AllocationError(f"cannot {what} {size:#x} bytes of memory: {reason}", size=size)


def reserve(size: int, address: int = 0) -> int | None:
    """Reserve a range of inaccessible addresses.

    Args:
        size: bytes, a multiple of the page size.
        address: the start of the range, 0 for any.

    Returns:
        The address; None if that range, or any range of that size, is not free.
    """
    if not 0 < size < 1 << 62:
        return None
    flags = _MAP_PRIVATE_ANONYMOUS | _MAP_NORESERVE | (_MAP_FIXED_NOREPLACE if address else 0)
    got = int(_mmap(address, size, 0, flags, -1, 0))
    if got == -1:
        return None
    if address and got != address:
        _munmap(got, size)
        return None
    return got


def map_zeroed(address: int, size: int, populate: int) -> None:
    """Map zero pages, readable and writable, over a reserved range.

    Args:
        address: start of the range.
        size: its size in bytes.
        populate: how many bytes at its start will be written soon; their pages are populated
            at once, which takes half as long as page faults.

    Raises:
        AllocationError: the system refuses.
    """
    flags = _MAP_PRIVATE_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
    if populate >= size:
        mapped = _mmap_populate(address, size, READ_WRITE, flags | _MAP_POPULATE, -1, 0)
    else:
        mapped = _mmap(address, size, READ_WRITE, flags, -1, 0)
    if mapped == -1:
        raise _failed("map", size)
    if 0 < populate < size and _MADV_POPULATE_WRITE:
        # An optimization: kernels that do not support the advice ignore it.
        _madvise(address, -(-populate // PAGE_SIZE) * PAGE_SIZE, _MADV_POPULATE_WRITE)


def protect(address: int, size: int, protection: int) -> None:
    """Set the protection of a range, a combination of `MemProt` bits.

    Raises:
        AllocationError: the system refuses.
    """
    if _mprotect(address, size, protection):
        raise _failed("protect", size)


def protect_written(address: int, size: int, prot: MemProt) -> None:
    """Give readable and writable memory its final protection, and make code in it executable.

    Raises:
        AllocationError: the system refuses.
    """
    if prot != READ_WRITE:
        try:
            protect(address, size, prot)
        except AllocationError as error:
            if not (prot & MemProt.WRITE and prot & MemProt.EXEC):
                raise
            raise AllocationError(
                f"{error}: the system may forbid memory that is both writable and executable, "
                "as SELinux does (execmem), PaX (MPROTECT) and systemd "
                "(MemoryDenyWriteExecute)",
                size=size,
            ) from error
    if prot & MemProt.EXEC:
        make_coherent(address, size)


def make_coherent(address: int, size: int) -> None:
    """Have the processor execute what has been written to memory at an address.

    Raises:
        AllocationError: it needs a function for that, which this process cannot load.
    """
    if not _COHERENT:
        _clear_cache()(address, address + size)


def discard(address: int, size: int, protection: int = 0) -> None:
    """Return the pages of a range to the system; the range stays reserved.

    Args:
        address: start of the range.
        size: its size in bytes.
        protection: that of the range from now on, a combination of `MemProt` bits.

    Raises:
        AllocationError: the system refuses.
    """
    flags = _MAP_PRIVATE_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
    if _mmap_populate(address, size, protection, flags, -1, 0) == -1:
        raise _failed("discard", size)


def release(address: int, size: int) -> None:
    """Unmap a reserved range.

    Raises:
        AllocationError: the system refuses.
    """
    if _munmap(address, size):
        raise _failed("release", size)


def clear(address: int, size: int) -> None:
    """Fill writable memory with zeros."""
    ctypes.memset(address, 0, size)


def view(address: int, size: int) -> memoryview:
    """A writable view of memory; it does not keep the memory alive."""
    result: memoryview = _memory_view(address, size, _PYBUF_WRITE)
    return result


# x86 processors keep their instruction caches coherent with memory.
_COHERENT = MACHINE in {"x86_64", "amd64", "i686", "i386"}


@functools.cache
def _clear_cache() -> ctypes._NamedFuncPointer:
    """The function that makes the instruction cache coherent with memory; from libgcc.

    Raises:
        AllocationError: libgcc is not available.
    """
    try:
        function = ctypes.PyDLL("libgcc_s.so.1")["__clear_cache"]
    except (OSError, AttributeError) as error:
        raise AllocationError(f"cannot flush the instruction cache: {error}") from error
    function.argtypes = (_Size, _Size)
    function.restype = None
    return function


class MappedRange(NamedTuple):
    """One line of the system's list of mappings.

    `permissions` is ``rwxp`` with dashes; `path` is the file, ``[stack]`` and the like, or
    empty; `offset` is where in the file it starts, in bytes.
    """

    start: int
    end: int
    permissions: str
    path: str
    offset: int = 0


def mapped_ranges() -> list[MappedRange]:
    """All mappings of this process by address; empty if the system does not list them."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123
            return [_parse(line) for line in lines]
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES, errno.EPERM}:
            return []
        raise


def may_be_code(address: int) -> bool:
    """Whether an address is in executable memory; True if the system does not list mappings."""
    ranges = mapped_ranges()
    return not ranges or any(
        each.start <= address < each.end and "x" in each.permissions for each in ranges
    )


def _parse(line: str) -> MappedRange:
    fields = line.rstrip("\n").split(maxsplit=5)
    start, _, end = fields[0].partition("-")
    path = fields[5] if len(fields) > 5 else ""
    return MappedRange(int(start, 16), int(end, 16), fields[1], path, int(fields[2], 16))


def parse_mappings(text: bytes) -> list[MappedRange]:
    """The mappings of a list of another process, up to a line that is none."""
    found: list[MappedRange] = []
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        try:
            found.append(_parse(line))
        except (ValueError, IndexError):
            break
    return found


def mapping_at(address: int, mapped: Sequence[MappedRange]) -> MappedRange | None:
    """The mapping that contains an address; the mappings are in order of address."""
    index = bisect_right(mapped, address, key=lambda each: each.start) - 1
    return mapped[index] if index >= 0 and address < mapped[index].end else None


def library_address() -> int:
    """An address within the C library."""
    return ctypes.cast(_short["mmap"], ctypes.c_void_p).value or 0
