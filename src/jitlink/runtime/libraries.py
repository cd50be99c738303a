"""Shared libraries that a compiler driver links implicitly, loaded when a name needs one.

A native C++ program gets its unwinder and its C++ library from the compiler driver; a process that
is written in Python may have neither. `find_in_providers` loads a library only if a name begins
like those that the library defines.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl

_UNWINDER = ("_Unwind_", "__register_frame", "__deregister_frame", "__gcc_personality_")
# Called where the processor lacks an instruction: GCC internals manual, "The GCC low-level runtime
# library".
_ARITHMETIC = (
    "__abs", "__add", "__ash", "__bswap", "__clrsb", "__clz", "__cmp", "__ctz", "__div", "__eq",
    "__extend", "__ffs", "__fix", "__float", "__ge", "__gt", "__le", "__lshr", "__lt", "__mod",
    "__mul", "__ne", "__parity", "__popcount", "__powi", "__sub", "__trunc", "__ucmp", "__udiv",
    "__umod", "__unord",
)  # fmt: skip
_CXX = (
    "_Z", "__cxa_", "__gxx_personality_", "__dynamic_cast", "__once_proxy", "__atomic_flag_",
    "atomic_flag_",
)  # fmt: skip
_SUPPORT = ("__clear_cache", "__emutls_", "__enable_execute_stack")

PROVIDERS = {
    "libgcc_s.so.1": (*_UNWINDER, *_ARITHMETIC, *_SUPPORT),
    "libstdc++.so.6": _CXX,
}
"""Libraries, in search order, and how the names begin that they may define."""


async def find_in_providers(
    executor: ExecutorProcessControl, names: Sequence[str]
) -> dict[str, int]:
    """Look up names in the libraries that usually define them, which are loaded if need be.

    Returns:
        The addresses of the names that were found.
    """
    found: dict[str, int] = {}
    for soname, prefixes in PROVIDERS.items():
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
