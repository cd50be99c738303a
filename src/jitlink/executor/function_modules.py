"""Functions of this process that ``dlopen`` and ``dlsym`` find under a name.

A shared library without code, whose symbols are the functions' addresses, is loaded from memory.
The name is its soname, with which glibc compares the argument of ``dlopen`` before it opens a file.
Symbols with the section index SHN_ABS are not relocated since version 2.28 of glibc.

Specification: dlopen(3), dlsym(3).
"""

from __future__ import annotations

from collections.abc import Mapping

from jitlink.errors import ExecutorError
from jitlink.executor.images import program_identity
from jitlink.formats.elf_layout import SHN_ABS, STT_FUNC
from jitlink.formats.elf_shared_object import SharedObject, Symbol, write_shared_object
from jitlink.memory.tls_glibc import load_module


def load_function_module(soname: str, functions: Mapping[str, int]) -> int:
    """Make functions visible to code that opens a name, for as long as the process lives.

    Args:
        soname: the name; no library of the process has it.
        functions: addresses by name.

    Returns:
        The handle, as ``dlopen(soname)`` gives it, too.

    Raises:
        ExecutorError: the C library is not glibc, or refuses.
    """
    symbols = [
        Symbol(name, STT_FUNC, section=SHN_ABS, value=address)
        for name, address in functions.items()
    ]
    try:
        data = write_shared_object(program_identity(), SharedObject(soname, symbols=symbols))
    except ValueError as error:
        raise ExecutorError(f"functions cannot be given to the C library: {error}") from error
    return load_module(data)
