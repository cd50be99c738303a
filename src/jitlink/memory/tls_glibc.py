"""TLS modules loaded into this process by glibc, and the process's TLS registry.

A TLS module is loaded from a memory file. glibc takes libraries that are loaded under equal paths
for the same library, and file descriptors are reused, so every load spells its path differently.

Specification: dlopen(3), memfd_create(2); `__tls_get_addr` in "ELF Handling For Thread-Local
Storage", 3.4; the GNU C Library manual, "Dynamic Linking Tunables".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os

from jitlink.errors import ExecutorError
from jitlink.memory.dynamic_linker import dlclose, dlerror, dlopen, dlsym
from jitlink.memory.tls import TLSRegistry

_C = ctypes.CDLL(None)
_MFD_NOEXEC_SEAL = 8
_loads = itertools.count()
_SURPLUS = "glibc.rtld.optional_static_tls"
_DEFAULT_SURPLUS, _FIRST_WITH_SURPLUS = 512, (2, 33)


class _TLSIndex(ctypes.Structure):
    _fields_ = (("module", ctypes.c_size_t), ("offset", ctypes.c_size_t))


def load_module(data: bytes, mode: int = os.RTLD_NOW | os.RTLD_LOCAL, *, path_size: int = 0) -> int:
    """Load a shared library from memory; by default its symbols are visible to no other library.

    Args:
        data: the library.
        mode: as for ``dlopen``.
        path_size: the least length of the path, in bytes, under which it is loaded.

    Returns:
        A handle for `unload_module` and for `dlsym`.

    Raises:
        ExecutorError: it cannot be loaded, or this system cannot load one from memory.
    """
    handle, reason = try_to_load_module(data, mode, path_size=path_size)
    if reason is not None:
        raise ExecutorError(f"cannot load a library from memory: {reason}")
    return handle


def try_to_load_module(data: bytes, mode: int, *, path_size: int = 0) -> tuple[int, str | None]:
    """`load_module` that returns why the dynamic linker refused instead of a handle.

    Raises:
        ExecutorError: this system cannot load one from memory.
    """
    descriptor = _memory_file()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        handle = dlopen(_path(descriptor, next(_loads), path_size), mode)
        reason = None if handle else _reason()
    except OSError as error:
        raise ExecutorError(f"cannot write a library of {len(data):#x} bytes: {error}") from error
    finally:
        os.close(descriptor)
    return int(handle or 0), reason


def unload_module(handle: int) -> None:
    """Unload what `load_module` has loaded.

    Raises:
        ExecutorError: glibc failed to.
    """
    if dlclose(handle):
        raise ExecutorError(f"cannot unload a library: {_reason()}")


def read_words(handle: int, symbol: str, count: int) -> list[int]:
    """Read unsigned words of the size of a pointer at a symbol of a loaded library.

    Raises:
        ExecutorError: there is no such symbol.
    """
    address = dlsym(handle, symbol.encode())
    if not address:
        raise ExecutorError(f"a library loaded from memory has no symbol {symbol}")
    return list((ctypes.c_size_t * count).from_address(address))


def instance_address(module: int, offset: int) -> int:
    """Address of the calling thread's instance of a thread-local variable.

    Args:
        module: ID of the module that has the variable.
        offset: the variable's `TLSValue.DTPOFF`.

    Raises:
        ExecutorError: the C library has no `__tls_get_addr`.
    """
    try:
        function = _C["__tls_get_addr"]
    except AttributeError:
        raise ExecutorError("the C library has no __tls_get_addr") from None
    function.argtypes = (ctypes.POINTER(_TLSIndex),)
    function.restype = ctypes.c_void_p
    return int(function(_TLSIndex(module, offset)) or 0)


def tunables_for(extra: int) -> str | None:
    """The GLIBC_TUNABLES of processes with a larger surplus; see `TLSModuleLoader.tunables_for`.

    The surplus is a power of two, so that a process that starts again, and lacks more for what it
    links next, has to start again a few times at most.
    """
    if _glibc_version() < _FIRST_WITH_SURPLUS:
        return None
    settings = [each for each in _tunables_at_start().split(":") if each]
    values = [each.partition("=")[2] for each in settings if each.startswith(f"{_SURPLUS}=")]
    surplus = _number(values[-1]) if values else None
    wanted = (_DEFAULT_SURPLUS if surplus is None else surplus) + extra
    others = [each for each in settings if not each.startswith(f"{_SURPLUS}=")]
    return ":".join([*others, f"{_SURPLUS}={1 << (wanted - 1).bit_length()}"])


def _glibc_version() -> tuple[int, ...]:
    """The version of the GNU C library; empty for others."""
    with contextlib.suppress(ValueError, OSError):
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
        return tuple(map(int, text.rpartition(" ")[2].split(".")))
    return ()


def _tunables_at_start() -> str:
    """GLIBC_TUNABLES when this process started, which may have changed since."""
    with (
        contextlib.suppress(OSError),
        open("/proc/self/environ", "rb") as file,  # noqa: PTH123 - pathlib is slow to import
    ):
        for text in file.read().split(b"\0"):
            if text.startswith(b"GLIBC_TUNABLES="):
                return os.fsdecode(text.partition(b"=")[2])
        return ""
    return os.environ.get("GLIBC_TUNABLES", "")


def _number(text: str) -> int | None:
    """A number as in C, in any base; None if it is none, which glibc ignores."""
    is_octal = text.startswith("0") and text.isdecimal()
    try:
        return int(text, 8 if is_octal else 0)
    except ValueError:
        return None


def check_support() -> None:
    """Check that this system loads libraries from memory.

    Raises:
        ExecutorError: it does not.
    """
    if not hasattr(os, "memfd_create") or not _is_gnu():
        raise ExecutorError("libraries are loaded from memory on Linux with the GNU C library only")


def _memory_file() -> int:
    check_support()
    # Linux may demand the flag for files without code; before 6.3 it does not know it.
    for flags in (_MFD_NOEXEC_SEAL, 0):
        try:
            descriptor: int = os.memfd_create("jitlink", os.MFD_CLOEXEC | flags)
        except OSError as error:
            if error.errno != errno.EINVAL or not flags:
                raise ExecutorError(f"cannot create a file in memory: {error}") from error
        else:
            return descriptor
    raise AssertionError


def _is_gnu() -> bool:
    with contextlib.suppress(ValueError, OSError):
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    return False


def _path(descriptor: int, number: int, size: int) -> bytes:
    """A path to a descriptor, of at least that size, spelled differently for every number."""
    # The first digit is no slash, so what comes before it may be filled with slashes.
    spelling = "".join("./" if bit == "1" else "/" for bit in f"1{number:b}")
    end = f"{spelling}{descriptor}"
    return f"{'/proc/self/fd/'.ljust(size - len(end), '/')}{end}".encode()


def _reason() -> str:
    return (dlerror() or b"unknown reason").decode("utf-8", "replace")


class GlibcLoader:
    """Loads TLS modules into this process; its coroutines never suspend."""

    async def load_tls_module(self, data: bytes) -> int:
        """See `load_module`."""
        return load_module(data)

    async def unload_tls_module(self, handle: int) -> None:
        """See `unload_module`."""
        unload_module(handle)

    async def read_words(self, handle: int, symbol: str, count: int) -> list[int]:
        """See `read_words`."""
        return read_words(handle, symbol, count)

    def instance_address(self, module: int, offset: int) -> int:
        """See `instance_address`."""
        return instance_address(module, offset)

    def is_instance(self, module: int, offset: int, address: int) -> bool:
        """Whether that is an address."""
        return instance_address(module, offset) == address

    def tunables_for(self, extra: int) -> str | None:
        """See `TLSModuleLoader.tunables_for`."""
        return tunables_for(extra)


PROCESS_TLS = TLSRegistry(GlibcLoader())
"""The TLS of all links into this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS_TLS.after_fork)
