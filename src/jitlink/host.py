"""The process that jitlink runs in: whether linked code can run there, and its C library.

That takes CPython of 64 bits on Linux with the GNU C library. On any other host jitlink can be
imported, and links for other executors if Python has 64 bits: positions in files and tables are
64-bit integers, which NumPy does not index with where pointers have fewer.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from typing import TYPE_CHECKING, NoReturn, cast

from jitlink.errors import UnsupportedHostError

if TYPE_CHECKING:
    from ctypes import _NamedFuncPointer


def _machine() -> str:
    if hasattr(os, "uname"):
        return os.uname().machine
    return os.environ.get("PROCESSOR_ARCHITECTURE", "unknown").lower()


MACHINE = _machine()
"""The architecture, as the system names it."""


CAN_LINK = sys.maxsize >= 1 << 32
"""Whether this process can link at all."""
_64_BITS = "a 64-bit Python, and this one has 32 bits"


def is_linux() -> bool:
    """Whether the system is Linux."""
    return sys.platform.startswith("linux")


def glibc_version() -> tuple[int, ...]:
    """The version of the GNU C library; empty for others."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
        return tuple(map(int, text.rpartition(" ")[2].split(".")))
    return ()


def triple() -> str:
    """The target triple of this process."""
    if not is_linux():
        return f"{MACHINE}-unknown-{sys.platform}"
    return f"{MACHINE}-unknown-linux-{'gnu' if glibc_version() else 'musl'}"


def obstacle() -> str | None:
    """What this process lacks to run linked code, as the object of a sentence; None if nothing."""
    if not CAN_LINK:
        return _64_BITS
    if not is_linux():
        return f"Linux, and this system is {sys.platform}"
    if not glibc_version():
        return "the GNU C library, and this Python uses another one"
    if sys.implementation.name != "cpython":
        return f"CPython, and this is {sys.implementation.name}"
    return None


def check() -> None:
    """Check that linked code can run in this process.

    Raises:
        UnsupportedHostError: it cannot.
    """
    missing = obstacle()
    if missing is not None:
        raise UnsupportedHostError(missing, can_link=CAN_LINK)


def check_can_link() -> None:
    """Check that this process can link.

    Raises:
        UnsupportedHostError: it cannot.
    """
    if not CAN_LINK:
        raise UnsupportedHostError(_64_BITS, can_link=False)


class _MissingFunction:
    """Stands for a function of a C library that Python cannot call."""

    argtypes: object = None
    restype: object = None

    def __call__(self, *_arguments: object) -> NoReturn:
        missing = obstacle() or "a C library that Python can call"
        raise UnsupportedHostError(missing, can_link=CAN_LINK)


class _MissingLibrary:
    """Stands for a C library that Python cannot call; has no optional functions."""

    def __getitem__(self, name: str) -> _MissingFunction:
        return _MissingFunction()


@functools.cache
def c_library(*, keeps_lock: bool = False) -> ctypes.CDLL:
    """The process's C library, with ``errno``.

    A function that every supported host has is an item of it, ``c_library()["free"]``, and raises
    `UnsupportedHostError` where there is none; others are attributes.

    Args:
        keeps_lock: whether calls keep the interpreter lock: short calls, since releasing it may
            cost a thread switch, which takes a thousand times as long.
    """
    try:
        return (ctypes.PyDLL if keeps_lock else ctypes.CDLL)(None, use_errno=True)
    except (OSError, TypeError):
        return cast("ctypes.CDLL", _MissingLibrary())


def python_function(name: str) -> _NamedFuncPointer:
    """A function of the Python C API; it raises `UnsupportedHostError` where there is none."""
    api: ctypes.PyDLL | None = getattr(ctypes, "pythonapi", None)
    return cast("_NamedFuncPointer", _MissingFunction()) if api is None else api[name]
