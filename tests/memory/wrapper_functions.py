"""The functions of wrapper_functions.c, loaded into this process."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from jitlink.graph import WrapperCall
from tests.toolchain import compile_c, run, zig_command


class WrapperFunctions:
    """A shared library of wrapper functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._called = (ctypes.c_char * 4096).in_dll(library, "called")

    def address(self, name: str) -> int:
        """The address of a function."""
        return ctypes.cast(self._library[name], ctypes.c_void_p).value or 0

    def call(self, name: str, arguments: bytes = b"") -> WrapperCall:
        """A call of a function."""
        return WrapperCall(self.address(name), arguments)

    def called(self) -> str:
        """The concatenated arguments of all calls since this was last called."""
        text = self._called.value.decode()
        self._called.value = b""
        return text


@cache
def wrapper_functions() -> WrapperFunctions:
    """The library, compiled on first use."""
    compiled = compile_c(Path(__file__).with_name("wrapper_functions.c"), flags=("-fPIC",))
    library = compiled.with_suffix(".so")
    if not library.exists():
        # Another run may compile it at the same time.
        unfinished = compiled.with_suffix(f".{os.getpid()}.so")
        run([*zig_command("cc"), "-shared", compiled, "-o", unfinished])
        unfinished.replace(library)
    return WrapperFunctions(ctypes.CDLL(str(library)))
