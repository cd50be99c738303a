"""Code that runs beside linked code: C sources, objects made of them, their way into an executor.

What an executor has one copy of is linked by `runtime_of`; what each JITDylib has its own copy of
is `open_object`'s. ``script/runtime`` builds the objects anew.
"""

from jitlink.runtime.libraries import find_in_providers
from jitlink.runtime.linked import Runtime, linked_runtime, runtime_of
from jitlink.runtime.objects import EXPORTS, PER_DYLIB, has_runtime, open_object

__all__ = [
    "EXPORTS",
    "PER_DYLIB",
    "Runtime",
    "find_in_providers",
    "has_runtime",
    "linked_runtime",
    "open_object",
    "runtime_of",
]
