"""Shared libraries of the compilers' runtime, and the prefixes of the names that they may define.

A module of its own, because every link that runs code looks up the functions that register frames:
the patterns of `jitlink.names.providers` are more precise, but slow to compile.
"""

from __future__ import annotations

C_LIBRARY = frozenset({"c", "m", "mvec", "dl", "pthread", "rt", "util", "resolv", "anl"})
"""The libraries of the C library, by their names for a linker."""
ONE_PER_PROCESS = C_LIBRARY | {"gcc_s", "stdc++", "c++", "c++abi", "unwind"}
"""Libraries with state that the whole process must share, by their names for a linker."""

UNWINDER = ("_Unwind_", "__register_frame", "__deregister_frame", "__gcc_personality_")
CXX_RUN_TIME = ("__cxa_", "__gxx_personality_", "__dynamic_cast")

# Called where the processor lacks an instruction: GCC internals manual, "The GCC low-level runtime
# library".
_ARITHMETIC = (
    "__abs", "__add", "__ash", "__bswap", "__clrsb", "__clz", "__cmp", "__ctz", "__div", "__eq",
    "__extend", "__ffs", "__fix", "__float", "__ge", "__gt", "__le", "__lshr", "__lt", "__mod",
    "__mul", "__ne", "__parity", "__popcount", "__powi", "__sub", "__trunc", "__ucmp", "__udiv",
    "__umod", "__unord",
)  # fmt: skip
_SUPPORT = ("__clear_cache", "__emutls_", "__enable_execute_stack")
_CXX_LIBRARY = ("_Z", "__once_proxy", "__atomic_flag_", "atomic_flag_")

PREFIXES = {
    "libgcc_s.so.1": (*UNWINDER, *_ARITHMETIC, *_SUPPORT),
    "libstdc++.so.6": (*CXX_RUN_TIME, *_CXX_LIBRARY),
}
"""Prefixes by soname, in search order."""
