"""Variables that the program of this process has in place of those of libraries.

An executable that is not position-independent, such as Debian's Python, has copies of the variables
of libraries that it uses, such as ``environ`` and ``stdout``; all libraries then use the copies,
because the dynamic linker finds the executable first. But ``dlsym`` with the handle of a library
finds the library's own, or that of one of its dependencies, which nothing else uses.

Specification: System V psABI, AMD64 supplement, R_X86_64_COPY; dladdr(3).
"""

from __future__ import annotations

import ctypes
from functools import cache

from jitlink.memory.dynamic_linker import dlsym

_AT_PHDR = 3
_RTLD_DL_SYMENT = 1
_STT_OBJECT = 1
_C = ctypes.PyDLL(None)


class DlInfo(ctypes.Structure):
    """What ``dladdr`` says: path and base of an object, name and address of a symbol."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


class _Symbol(ctypes.Structure):
    """The beginning of an Elf64_Sym."""

    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint8))


@cache
def _program_base() -> int | None:
    """Where the program of this process is loaded; None if that is not known."""
    get = getattr(_C, "getauxval", None)
    if get is None or not hasattr(_C, "dladdr1"):
        return None
    get.argtypes, get.restype = (ctypes.c_ulong,), ctypes.c_ulong
    info = DlInfo()
    found = _C.dladdr(ctypes.c_void_p(get(_AT_PHDR)), ctypes.byref(info))
    base: int | None = info.base if found else None
    return base


def program_variable(process: int, name: bytes, address: int) -> int:
    """The address that libraries use for a symbol that one of them, or a dependency, defines.

    Args:
        process: handle of the process.
        name: the symbol.
        address: where the library has it.

    Returns:
        That of the program's variable of this name, if there is one; otherwise the same address.
    """
    found = dlsym(process, name)
    if not found or found == address or _program_base() is None:
        return address
    info, symbol = DlInfo(), ctypes.c_void_p()
    arguments = (ctypes.byref(info), ctypes.byref(symbol), _RTLD_DL_SYMENT)
    is_known = _C.dladdr1(ctypes.c_void_p(found), *arguments) and symbol.value
    if not is_known or (info.base, info.address) != (_program_base(), found):
        return address
    kind = _Symbol.from_address(symbol.value or 0).info & 15
    return int(found) if kind == _STT_OBJECT else address
