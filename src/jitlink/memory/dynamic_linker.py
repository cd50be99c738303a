"""The functions of this process's dynamic linker, with their C types.

Specification: POSIX.1-2017, `dlopen`, `dlclose`, `dlsym`, `dlerror`; `dlvsym`, dladdr(3) and
dlinfo(3) are of the GNU C library.
"""

from __future__ import annotations

import ctypes

from jitlink.errors import ExecutorError
from jitlink.host import c_library

_C = c_library()
# Lookups are short and frequent, and dlerror's message is the thread's: these calls keep the
# interpreter lock, as those of ctypes do.
_C_LOCKED = c_library(keeps_lock=True)

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


def object_at(address: int) -> DlInfo | None:
    """The program or shared library that contains an address, if one does."""
    info = DlInfo()
    if _dladdr is None or not _dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        return None
    return info


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
