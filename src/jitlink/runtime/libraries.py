"""Shared libraries that a compiler driver links implicitly, loaded when a name needs one.

A native C++ program gets its unwinder and its C++ library from the compiler driver; a process that
is written in Python may have neither. `find_in_providers` loads a library only if a name begins
like those that the library defines.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl
from jitlink.names.shared_libraries import PREFIXES


async def find_in_providers(
    executor: ExecutorProcessControl, names: Sequence[str]
) -> dict[str, int]:
    """Look up names in the libraries that usually define them, which are loaded if need be.

    Returns:
        The addresses of the names that were found.
    """
    found: dict[str, int] = {}
    for soname, prefixes in PREFIXES.items():
        wanted = [n for n in names if n not in found and n.startswith(prefixes)]
        if not wanted:
            continue
        try:
            handle = await executor.load_dylib(soname)
        except ExecutorError:
            # The names stay undefined, which is reported as such.
            continue
        addresses = await executor.lookup_symbols(wanted, handle)
        found |= {n: a for n, a in zip(wanted, addresses, strict=True) if a is not None}
    return found
