"""Shared libraries that a program may rely on without naming them, loaded when a name needs one.

A native C++ program gets its unwinder and its C++ library from the compiler driver; a process that
is written in Python may have neither. `load_providers` loads a library only if a name looks like
one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl

_UNWINDER = ("_Unwind_", "__register_frame", "__deregister_frame", "__gcc_personality_")
# What compilers call instead of instructions that the processor lacks: libgcc's manual, 4.
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
"""Libraries, in the order in which they are asked, and how the names begin that they may define."""


async def find_in_providers(
    executor: ExecutorProcessControl, names: Sequence[str]
) -> dict[str, int]:
    """Look for names in the libraries that usually define them; these are loaded if need be.

    Returns:
        The addresses of those that were found.
    """
    found: dict[str, int] = {}
    for soname, prefixes in PROVIDERS.items():
        wanted = [n for n in names if n not in found and n.startswith(prefixes)]
        if not wanted:
            continue
        try:
            handle = await executor.load_dylib(soname)
        except ExecutorError:
            # Then the names stay undefined, which is an error of its own.
            continue
        addresses = await executor.lookup_symbols(wanted, handle)
        found |= {n: a for n, a in zip(wanted, addresses, strict=True) if a is not None}
    return found
