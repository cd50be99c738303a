"""What the libraries of a process have at an address.

The dynamic linker gives the symbol that begins there, and its size. Whether it can still change is
read from the protection of its memory: after relocation the dynamic linker makes what is constant
from then on read-only (PT_GNU_RELRO).

Specification: glibc, `dladdr1`; System V gABI, chapter 4, "Symbol Table".
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from jitlink.executor.control import LibrarySymbol
from jitlink.memory.mapping import MappedRange, mapped_ranges, mapping_at

_RTLD_DL_SYMENT = 1
_STT_OBJECT, _STT_FUNC, _STT_GNU_IFUNC = 1, 2, 10


class _Information(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


class _Symbol64(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_uint8),
        ("other", ctypes.c_uint8),
        ("section", ctypes.c_uint16),
        ("value", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


class _Symbol32(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_uint32),
        ("value", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("info", ctypes.c_uint8),
        ("other", ctypes.c_uint8),
        ("section", ctypes.c_uint16),
    )


_Symbol = _Symbol64 if ctypes.sizeof(ctypes.c_void_p) == 8 else _Symbol32
_dladdr1 = getattr(ctypes.PyDLL(None), "dladdr1", None)


def describe(addresses: Sequence[int]) -> list[LibrarySymbol | None]:
    """See `ExecutorProcessControl.describe_addresses`."""
    mapped = mapped_ranges()
    return [
        library_symbol(address, mapping_at(address, mapped), _find(address))
        for address in addresses
    ]


def _find(address: int) -> tuple[str, int, int] | None:
    """The symbol that begins at an address: its library, its type of ELF, and its size."""
    information, symbol = _Information(), ctypes.POINTER(_Symbol)()
    is_known = _dladdr1 is not None and _dladdr1(
        ctypes.c_void_p(address),
        ctypes.byref(information),
        ctypes.byref(symbol),
        _RTLD_DL_SYMENT,
    )
    if not is_known or information.address != address:
        return None
    found = symbol.contents
    return os.fsdecode(information.file or b""), found.info & 15, int(found.size)


def library_symbol(
    address: int, place: MappedRange | None, found: tuple[str, int, int] | None
) -> LibrarySymbol | None:
    """What is at an address.

    Args:
        address: the address.
        place: the mapping that contains it.
        found: the symbol that begins there: its library, its type of ELF, and its size in bytes.
    """
    if place is None:
        return None
    is_code = "x" in place.permissions
    if found is None:
        return LibrarySymbol(place.path, is_function=True) if is_code else None
    library, kind, size = found
    if kind in {_STT_FUNC, _STT_GNU_IFUNC} or (is_code and kind != _STT_OBJECT):
        return LibrarySymbol(library, is_function=True)
    is_constant = "w" not in place.permissions and address + size <= place.end
    return LibrarySymbol(library, is_function=False, size=size, is_constant=is_constant)
