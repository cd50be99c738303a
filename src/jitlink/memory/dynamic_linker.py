"""The functions of this process's dynamic linker, with their C types.

Specification: POSIX.1-2017, `dlopen`, `dlclose`, `dlsym`, `dlerror`; `dlvsym` is of the GNU C
library.
"""

from __future__ import annotations

import ctypes

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
