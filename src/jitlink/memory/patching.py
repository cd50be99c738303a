"""Patching code that may be running, without making any page writable and executable.

A modified copy of the pages is written elsewhere, given the protection of code, and moved over
the old pages. The kernel moves mappings atomically: a thread that runs there, or that is in the
middle of an instruction that spans two pages, sees either the old pages or the new ones, and no
thread faults; at most it waits until the move is done.

Every call leaves the moved pages in a mapping of their own, because the kernel merges only
mappings that were created in place. The memory can be used and freed as before.

Only Linux can do this: see mremap(2), MREMAP_FIXED.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.host import c_library, is_linux
from jitlink.memory import mapping

_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_CODE = "r-xp"


@functools.cache
def _mremap() -> ctypes._NamedFuncPointer:
    if not is_linux():
        raise AllocationError("this system cannot replace code pages atomically")
    function = c_library()["mremap"]
    size = ctypes.c_size_t
    function.argtypes = (size, size, size, ctypes.c_int, size)
    function.restype = ctypes.c_ssize_t
    return function


def replace_code(contents: Mapping[int, bytes | bytearray]) -> None:
    """Replace code pages of this process; each range of pages changes atomically.

    Args:
        contents: new contents of page ranges, by address. Addresses and lengths are multiples of
            the page size; the protection stays readable and executable.

    Raises:
        AllocationError: a page is not private memory that is exactly readable and executable, or
            the system refuses. If it refuses to move pages, which happens only when it has run
            out of mappings, some of the ranges have been replaced.
    """
    move = _mremap()
    _check_code(contents)
    copies: dict[int, int] = {}
    try:
        for address, content in contents.items():
            copies[address] = _copy(content)
        for address, content in contents.items():
            flags = _MREMAP_MAYMOVE | _MREMAP_FIXED
            if move(copies[address], len(content), len(content), flags, address) != address:
                reason = os.strerror(ctypes.get_errno())
                raise AllocationError(f"cannot replace code: {reason}", size=len(content))
            del copies[address]
            # The copy is coherent at its own address. Instructions may be cached by address.
            mapping.make_coherent(address, len(content))
    finally:
        for address, copy in copies.items():
            mapping.release(copy, len(contents[address]))


def _copy(content: bytes | bytearray) -> int:
    """Write code to new pages; return their address."""
    size = len(content)
    address = mapping.reserve(size)
    if address is None:
        raise AllocationError(f"cannot reserve {size:#x} bytes for a copy of code", size=size)
    try:
        mapping.map_zeroed(address, size, size)
        mapping.view(address, size)[:] = content
        mapping.protect_written(address, size, MemProt.READ | MemProt.EXEC)
    except BaseException:
        mapping.release(address, size)
        raise
    return address


def _check_code(contents: Mapping[int, bytes | bytearray]) -> None:
    """Check that all pages are mapped, private, and exactly readable and executable."""
    ranges = mapping.mapped_ranges()
    for start, content in contents.items():
        address, end = start, start + len(content)
        for mapped in ranges:
            if mapped.start <= address < mapped.end and mapped.permissions == _CODE:
                address = mapped.end
        if address < end:
            raise AllocationError(f"no private code at {address:#x} that could be replaced")
