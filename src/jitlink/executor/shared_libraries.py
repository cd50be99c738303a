"""Shared libraries of this process whose symbols only the handle leads to.

Specification: dlopen(3).
"""

from __future__ import annotations

import ctypes.util
import os

from jitlink.errors import ExecutorError
from jitlink.memory.dynamic_linker import dlerror, dlopen


def find_library(name: str) -> str:
    """The path or soname of a library, given that or its name for a linker, such as ``z``.

    Raises:
        ExecutorError: there is no library of that name.
    """
    if "/" in name or ".so" in name:
        return name
    found = ctypes.util.find_library(name)
    if found is None:
        raise ExecutorError(f"there is no shared library {name}")
    return found


def open_library(path: str) -> int:
    """Load a shared library, if it is not loaded, and return a handle.

    Raises:
        ExecutorError: it cannot be loaded.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ExecutorError(f"cannot load {path!r}: not a file name")
    handle = dlopen(encoded, os.RTLD_NOW | os.RTLD_LOCAL)
    if not handle:
        reason = (dlerror() or b"unknown reason").decode("utf-8", "replace")
        raise ExecutorError(f"cannot load {path}: {reason}")
    return int(handle)
