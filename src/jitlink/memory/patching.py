"""Changing code that may be running, without making any page writable and executable.

A changed copy of the pages is made elsewhere, given the protection of code, and moved to where
the old pages are. The kernel moves mappings in one step: a thread that runs there, or that is
in the middle of an instruction that spans two pages, sees the old pages or the new ones, and
no thread faults. It waits, if need be, until the step is done.

Every call leaves the moved pages in a mapping of their own, because the kernel joins only
mappings that were made in place. The memory can be used and released as before.

Only Linux can do this: see mremap(2), MREMAP_FIXED.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.memory import mapping

_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_CODE = "r-xp"


@functools.cache
def _mremap() -> ctypes._NamedFuncPointer:
    if not sys.platform.startswith("linux"):
        raise AllocationError("this system cannot replace code pages in one step")
    function = ctypes.CDLL(None, use_errno=True)["mremap"]
    size = ctypes.c_size_t
    function.argtypes = (size, size, size, ctypes.c_int, size)
    function.restype = ctypes.c_ssize_t
    return function


def replace_code(contents: Mapping[int, bytes | bytearray]) -> None:
    """Replace code pages of this process; each run of pages changes in one step.

    Args:
        contents: new content of runs of pages, by address. Both address and length are whole
            pages; the protection stays readable and executable.

    Raises:
        AllocationError: a page is not private memory that is readable and executable and
            nothing else, or the system refuses. If it refuses to move pages, which takes it to
            have run out of mappings, some runs have been replaced.
    """
    move = _mremap()
    _check_code(contents)
    fresh: dict[int, int] = {}
    try:
        for address, content in contents.items():
            fresh[address] = _copy(content)
        for address, content in contents.items():
            flags = _MREMAP_MAYMOVE | _MREMAP_FIXED
            if move(fresh[address], len(content), len(content), flags, address) != address:
                reason = os.strerror(ctypes.get_errno())
                raise AllocationError(f"cannot replace code: {reason}", size=len(content))
            del fresh[address]
    finally:
        for address, copy in fresh.items():
            mapping.release(copy, len(contents[address]))


def _copy(content: bytes | bytearray) -> int:
    """Code somewhere else; its address."""
    size = len(content)
    address = mapping.reserve(size)
    if address is None:
        raise AllocationError("no room for a copy of code", size=size)
    try:
        mapping.map_zeroed(address, size, size)
        mapping.view(address, size)[:] = content
        mapping.protect_written(address, size, MemProt.READ | MemProt.EXEC)
    except BaseException:
        mapping.release(address, size)
        raise
    return address


def _check_code(contents: Mapping[int, bytes | bytearray]) -> None:
    """Make sure that all pages are there and hold code that nobody writes to."""
    ranges = mapping.mapped_ranges()
    for start, content in contents.items():
        address, end = start, start + len(content)
        for each in ranges:
            if each.start <= address < each.end and each.permissions == _CODE:
                address = each.end
        if address < end:
            raise AllocationError(f"no private code at {address:#x} that could be replaced")
