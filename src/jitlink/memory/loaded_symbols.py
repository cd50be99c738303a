"""The symbols that this process's dynamic linker knows at addresses.

Specification: glibc, `dladdr1`; System V gABI, chapter 4, "Symbol Table".
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from jitlink.host import c_library
from jitlink.memory.dynamic_linker import DlInfo

STT_OBJECT, STT_FUNC, STT_GNU_IFUNC = 1, 2, 10
"""Types of symbols."""

_dladdr1 = getattr(c_library(keeps_lock=True), "dladdr1", None)


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
