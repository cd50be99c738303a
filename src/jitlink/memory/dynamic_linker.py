"""The functions of this process's dynamic linker, with their C types.

Specification: POSIX.1-2017, `dlopen`, `dlclose`, `dlsym`, `dlerror`; `dlvsym`, dladdr(3) and
dlinfo(3) are of the GNU C library. Symbols: System V gABI, chapter 4, "Symbol Table".
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from jitlink.errors import ExecutorError

_C = ctypes.CDLL(None)
# Lookups are short and frequent, and dlerror's message is the thread's: these calls keep the
# interpreter lock, as those of ctypes do.
_C_LOCKED = ctypes.PyDLL(None)

dlopen = _C["dlopen"]
dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
dlopen.restype = ctypes.c_void_p
dlclose = _C["dlclose"]
dlclose.argtypes = (ctypes.c_void_p,)
dlclose.restype = ctypes.c_int
dlsym = _C_LOCKED["dlsym"]
dlsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
dlsym.restype = ctypes.c_void_p
# Not every C library has versions.
dlvsym = getattr(_C_LOCKED, "dlvsym", None)
if dlvsym is not None:
    dlvsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
    dlvsym.restype = ctypes.c_void_p
dlerror = _C_LOCKED["dlerror"]
dlerror.argtypes = ()
dlerror.restype = ctypes.c_char_p
_dladdr = getattr(_C_LOCKED, "dladdr", None)
_dladdr1 = getattr(_C_LOCKED, "dladdr1", None)

STT_OBJECT, STT_FUNC, STT_GNU_IFUNC = 1, 2, 10
"""Types of symbols."""


class DlInfo(ctypes.Structure):
    """What ``dladdr`` says: path and base of an object, name and address of a symbol."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )
    file: bytes | None
    base: int | None
    name: bytes | None
    address: int | None


class _Symbol(ctypes.Structure):
    _fields_ = (
        (
            ("name", ctypes.c_uint32),
            ("info", ctypes.c_uint8),
            ("other", ctypes.c_uint8),
            ("section", ctypes.c_uint16),
            ("value", ctypes.c_uint64),
            ("size", ctypes.c_uint64),
        )
        if ctypes.sizeof(ctypes.c_void_p) == 8
        else (
            ("name", ctypes.c_uint32),
            ("value", ctypes.c_uint32),
            ("size", ctypes.c_uint32),
            ("info", ctypes.c_uint8),
            ("other", ctypes.c_uint8),
            ("section", ctypes.c_uint16),
        )
    )
    info: int
    size: int


_RTLD_DL_SYMENT = 1


class LoadedSymbol(NamedTuple):
    """A symbol of the program of this process, or of one of its shared libraries.

    Attributes:
        file: path of the program or library.
        base: where that is loaded.
        kind: its type, of ELF: STT_FUNC and so on.
        size: in bytes.
    """

    file: bytes
    base: int
    kind: int
    size: int


def object_at(address: int) -> DlInfo | None:
    """The program or shared library that contains an address, if one does."""
    info = DlInfo()
    if _dladdr is None or not _dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        return None
    return info


def symbol_at(address: int) -> LoadedSymbol | None:
    """The symbol that begins at an address.

    Returns:
        None if there is none, or if the C library does not tell its type: musl's does not.
    """
    info, symbol = DlInfo(), ctypes.POINTER(_Symbol)()
    is_known = _dladdr1 is not None and _dladdr1(
        ctypes.c_void_p(address), ctypes.byref(info), ctypes.byref(symbol), _RTLD_DL_SYMENT
    )
    if not is_known or info.address != address:
        return None
    found = symbol.contents
    return LoadedSymbol(info.file or b"", info.base or 0, found.info & 15, found.size)


class LinkMap(ctypes.Structure):
    """The part of glibc's ``struct link_map`` that is public.

    `address` is the difference between addresses and those in the file; `name` the address of the
    path, `dynamic` that of the dynamic section.
    """

    _fields_ = (
        ("address", ctypes.c_size_t),
        ("name", ctypes.c_void_p),
        ("dynamic", ctypes.c_void_p),
    )
    address: int
    name: int
    dynamic: int


_RTLD_DI_LINKMAP = 2


def link_map_of(handle: int) -> LinkMap:
    """The entry of a loaded library in the dynamic linker's list.

    Raises:
        ExecutorError: the dynamic linker has none, or no such function.
    """
    function = getattr(_C_LOCKED, "dlinfo", None)
    found = ctypes.c_void_p()
    request = ctypes.c_void_p(handle), _RTLD_DI_LINKMAP, ctypes.byref(found)
    if function is None or function(*request) or not found.value:
        raise ExecutorError("the dynamic linker does not list a library that it has loaded")
    return LinkMap.from_address(found.value)
