"""C's standard streams, as a program finds them that Python has not started.

Python makes them unbuffered if it is started with ``-u`` or PYTHONUNBUFFERED.
"""

from __future__ import annotations

import ctypes
import os

_IOFBF, _IOLBF = 0, 1
_BUFSIZ = 8192


def restore_buffers() -> None:
    """Buffer C's standard input and output as glibc does, if Python has made them unbuffered."""
    libc = ctypes.CDLL(None)
    size_of = getattr(libc, "__fbufsize", None)
    if size_of is None:
        return
    size_of.argtypes, size_of.restype = (ctypes.c_void_p,), ctypes.c_size_t
    libc.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    for descriptor, name in enumerate(("stdin", "stdout")):
        stream = ctypes.c_void_p.in_dll(libc, name)
        # A buffer of one byte is what setvbuf has left; there is none before the first use.
        if size_of(stream) != 1:
            continue
        size, is_terminal = _BUFSIZ, False
        try:
            size = min(os.fstat(descriptor).st_blksize or size, size)
            is_terminal = os.isatty(descriptor)
        except OSError:
            # The descriptor is closed.
            pass
        # Without a buffer, setvbuf would keep the one byte.
        buffer = libc.malloc(size)
        if buffer:
            libc.setvbuf(stream, buffer, _IOLBF if is_terminal else _IOFBF, size)
