"""Variables that the program of this process has in place of those of libraries.

An executable that is not position-independent, such as Debian's Python, has copies of the variables
of libraries that it uses, such as ``environ`` and ``stdout``; all libraries then use the copies,
because the dynamic linker finds the executable first. But ``dlsym`` with the handle of a library
finds the library's own, or that of one of its dependencies, which nothing else uses.

Specification: System V psABI, AMD64 supplement, R_X86_64_COPY; dladdr(3).
"""

from __future__ import annotations

from collections.abc import Sequence

from jitlink.memory.dynamic_linker import link_map_of, object_at
from jitlink.memory.loaded_symbols import STT_OBJECT, symbol_at


def program_variables(
    process: int, owned: Sequence[int | None], first: Sequence[int | None]
) -> list[int | None]:
    """The addresses that libraries use for symbols that one of them, or a dependency, defines.

    Thread-local variables, which no executable has copies of, are not replaced: their memory is in
    no file. Nor is anything with a C library that does not tell the types of symbols, as musl's.

    Args:
        process: handle of the process.
        owned: where the library has the symbols; 0 or None if it does not.
        first: where the dynamic linker finds their names first in the process; likewise.

    Returns:
        For each the address of the program's variable of its name, if there is one and the
        library's symbol is a variable, too; otherwise that in the library.
    """
    return [
        found if own and found and own != found and _replaces(process, found, own) else own
        for own, found in zip(owned, first, strict=True)
    ]


def _replaces(process: int, found: int, own: int) -> bool:
    """Whether a variable of the program takes the place of one of a library."""
    symbol, replaced = symbol_at(found), symbol_at(own)
    if symbol is None or replaced is None:
        return False
    program = object_at(link_map_of(process).dynamic)
    # A library's function is called, whatever the program has of its name.
    is_variable = symbol.kind == replaced.kind == STT_OBJECT
    return is_variable and program is not None and symbol.base == program.base
