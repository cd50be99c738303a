"""Storage templates loaded into this process: what the C library is asked to do.

An image is loaded from memory. The C library takes a library that is loaded under an equal path
for the same one, and descriptor numbers are used again, so every load spells its path
differently.

Specification: dlopen(3), memfd_create(2); `__tls_get_addr` in "ELF Handling For Thread-Local
Storage", 3.4.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os

from jitlink.errors import ExecutorError
from jitlink.memory.tls import TLSRegistry

_C = ctypes.CDLL(None)
# Keeps the interpreter lock: nothing here waits, and the message belongs to the thread.
_C_LOCKED = ctypes.PyDLL(None)

_dlopen = _C["dlopen"]
_dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
_dlopen.restype = ctypes.c_void_p
_dlclose = _C["dlclose"]
_dlclose.argtypes = (ctypes.c_void_p,)
_dlclose.restype = ctypes.c_int
_dlsym = _C_LOCKED["dlsym"]
_dlsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_dlsym.restype = ctypes.c_void_p
_dlerror = _C_LOCKED["dlerror"]
_dlerror.argtypes = ()
_dlerror.restype = ctypes.c_char_p

_MFD_NOEXEC_SEAL = 8
_loads = itertools.count()


class _TLSIndex(ctypes.Structure):
    _fields_ = (("module", ctypes.c_size_t), ("offset", ctypes.c_size_t))


def load_module(image: bytes) -> int:
    """Load the image of a shared library, whose symbols no other library sees.

    Returns:
        A handle for `unload_module` and for `dlsym`.

    Raises:
        ExecutorError: it cannot be loaded, or this system cannot load one from memory.
    """
    descriptor = _memory_file()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(image)
        handle = _dlopen(_path(descriptor, next(_loads)), os.RTLD_NOW | os.RTLD_LOCAL)
        reason = None if handle else _reason()
    except OSError as error:
        raise ExecutorError(f"cannot write a library of {len(image):#x} bytes: {error}") from error
    finally:
        os.close(descriptor)
    if reason is not None:
        raise ExecutorError(f"cannot load a library from memory: {reason}")
    return int(handle)


def unload_module(handle: int) -> None:
    """Unload what `load_module` has loaded.

    Raises:
        ExecutorError: the C library refused to.
    """
    if _dlclose(handle):
        raise ExecutorError(f"cannot unload a library: {_reason()}")


def module_words(handle: int, symbol: str, count: int) -> list[int]:
    """The unsigned words of eight bytes from a symbol of a loaded image on.

    Raises:
        ExecutorError: there is no such symbol.
    """
    address = _dlsym(handle, symbol.encode())
    if not address:
        raise ExecutorError(f"a library loaded from memory has no symbol {symbol}")
    return list((ctypes.c_uint64 * count).from_address(address))


def tls_address(module: int, offset: int) -> int:
    """Address of the calling thread's instance of a thread-local variable.

    Args:
        module: the C library's number of the library that has the variable.
        offset: where the variable is in that library's storage.

    Raises:
        ExecutorError: the C library has no such function.
    """
    try:
        function = _C["__tls_get_addr"]
    except AttributeError:
        raise ExecutorError(
            "the C library does not tell where thread-local variables are"
        ) from None
    function.argtypes = (ctypes.POINTER(_TLSIndex),)
    function.restype = ctypes.c_void_p
    return int(function(_TLSIndex(module, offset)) or 0)


def _memory_file() -> int:
    create = getattr(os, "memfd_create", None)
    if create is None or not _is_gnu():
        raise ExecutorError("libraries are loaded from memory on Linux with the GNU C library only")
    # A system may insist that files without code say so; an old one does not know the flag.
    for flags in (_MFD_NOEXEC_SEAL, 0):
        try:
            descriptor: int = create("jitlink", os.MFD_CLOEXEC | flags)
        except OSError as error:
            if error.errno != errno.EINVAL or not flags:
                raise ExecutorError(f"cannot make a file in memory: {error}") from error
        else:
            return descriptor
    raise AssertionError


def _is_gnu() -> bool:
    with contextlib.suppress(ValueError, OSError):
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    return False


def _path(descriptor: int, number: int) -> bytes:
    """A path to a descriptor that is spelled differently for every number."""
    spelling = "".join("./" if bit == "1" else "/" for bit in f"{number:b}")
    return f"/proc/self/fd/{spelling}{descriptor}".encode()


def _reason() -> str:
    return (_dlerror() or b"unknown reason").decode("utf-8", "replace")


class GlibcLoader:
    """Loads TLS modules into this process; its coroutines never suspend."""

    async def load_tls_module(self, image: bytes) -> int:
        """See `load_module`."""
        return load_module(image)

    async def unload_dylib(self, handle: int) -> None:
        """See `unload_module`."""
        unload_module(handle)

    async def module_words(self, handle: int, symbol: str, count: int) -> list[int]:
        """See `module_words`."""
        return module_words(handle, symbol, count)

    def tls_address(self, module: int, offset: int) -> int:
        """See `tls_address`."""
        return tls_address(module, offset)


PROCESS_TLS = TLSRegistry(GlibcLoader())
"""The TLS of all links into this process."""
