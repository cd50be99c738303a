"""The runtime: C code that linked code calls, as prebuilt objects, and its link into an executor.

An executor has one copy of most objects, which `runtime_of` links. Of the others each JITDylib has
its own copy; `open_object` opens them. ``script/runtime`` builds the objects anew.
"""

from jitlink.runtime.libraries import find_in_providers
from jitlink.runtime.linked import Runtime, linked_runtime, runtime_of
from jitlink.runtime.objects import (
    ALLOCATION,
    ALLOCATION_FUNCTIONS,
    ALLOCATOR_NAMES,
    EXPORTS,
    HEAP_FUNCTIONS,
    IRREPLACEABLE,
    PER_DYLIB,
    PER_DYLIB_FUNCTIONS,
    PROCESS_PREFIX,
    has_runtime,
    open_object,
)

__all__ = [
    "ALLOCATION",
    "ALLOCATION_FUNCTIONS",
    "ALLOCATOR_NAMES",
    "EXPORTS",
    "HEAP_FUNCTIONS",
    "IRREPLACEABLE",
    "PER_DYLIB",
    "PER_DYLIB_FUNCTIONS",
    "PROCESS_PREFIX",
    "Runtime",
    "find_in_providers",
    "has_runtime",
    "linked_runtime",
    "open_object",
    "runtime_of",
]
