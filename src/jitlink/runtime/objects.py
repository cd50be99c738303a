"""The prebuilt objects of the runtime, and the names by which linked code refers to them.

Names that begin with ``__jitlink_`` are the runtime's own. `EXPORTS` says which of them take the
place of functions of the process, for linked code only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from jitlink.errors import UnsupportedObjectError
from jitlink.executor.runtime_targets import runtime_target
from jitlink.inputs import InputFile

EXECUTOR = "jitlink-executor"
"""The program that runs linked code in a process of its own, in the same directory as objects."""

SHARED = ("frames", "dylibs", "exit_handlers", "initializers", "thread_exit", "dlfcn")
"""Objects of which an executor has one copy."""

REMOTE = ("tls_modules", "calls", "callbacks")
"""Objects that an executor which is another process has besides those."""

OPTIONAL = ("patching",)
"""Objects that are linked into such an executor when something needs them."""

PER_DYLIB: Mapping[str, tuple[str, ...]] = {
    "dylib_exit": ("atexit", "at_quick_exit", "pthread_atfork"),
    "dylib_dlfcn": (
        "dladdr", "dlclose", "dlerror", "dlopen", "dlsym", "dlvsym",
        "jit_dlclose", "jit_dlerror", "jit_dlopen", "jit_dlsym", "jit_dlupdate",
    ),
}  # fmt: skip
"""Objects of which each JITDylib has its own copy if it refers to one, and what they define."""

PER_DYLIB_FUNCTIONS: Mapping[str, str] = {
    function: name for name, functions in PER_DYLIB.items() for function in functions
}
"""The functions of those objects, and for each the object that defines it."""

_SCAN = ("scanf", "fscanf", "sscanf", "vscanf", "vfscanf", "vsscanf")

ALLOCATION: Mapping[str, tuple[str, ...]] = {
    "dylib_malloc": (
        "__asprintf", "__asprintf_chk", "__getdelim", "__strdup", "__strndup", "__vasprintf_chk",
        "asprintf", "backtrace_symbols", "canonicalize_file_name", "get_current_dir_name",
        "getcwd", "getdelim", "getline", "realpath", "scandir", "scandir64", "scandirat",
        "scandirat64", "strdup", "strndup", "tempnam", "vasprintf", "wcsdup",
    ),
    "dylib_memstream": ("open_memstream",),
    "dylib_reallocarray": ("reallocarray",),
    "dylib_demangle": ("__cxa_demangle",),
    "dylib_scan": tuple(
        prefix + name for prefix in ("", "__isoc23_", "__isoc99_") for name in _SCAN
    ),
}  # fmt: skip
"""The same for JITDylibs that define ``malloc`` and ``free``: functions that allocate for their
caller, or take over what it has allocated."""

ALLOCATION_FUNCTIONS: Mapping[str, str] = {
    function: name for name, functions in ALLOCATION.items() for function in functions
}
"""The functions of those objects, and for each the object that defines it."""

HEAP_FUNCTIONS = frozenset({
    "aligned_alloc", "calloc", "cfree", "free", "malloc_usable_size", "memalign", "posix_memalign",
    "pvalloc", "realloc", "valloc",
})  # fmt: skip
"""What an allocator has to define beside ``malloc`` if it is used."""

IRREPLACEABLE = frozenset({
    "argz_add", "argz_add_sep", "argz_append", "argz_create", "argz_create_sep", "argz_delete",
    "argz_insert", "argz_replace", "envz_add", "envz_merge", "envz_remove", "open_wmemstream",
})  # fmt: skip
"""Functions that allocate for their caller, and of which there is no copy for JITDylibs."""

ALLOCATOR_NAMES = ALLOCATION_FUNCTIONS.keys() | HEAP_FUNCTIONS | IRREPLACEABLE
"""What depends on the allocator of a JITDylib."""

PROCESS_PREFIX = "__jitlink_process_"
"""With a name behind it: that name in the process, for functions that take its place."""

EXPORTS: Mapping[str, str] = {
    "__cxa_atexit": "__jitlink_cxa_atexit",
    "__cxa_at_quick_exit": "__jitlink_cxa_at_quick_exit",
    "__cxa_finalize": "__jitlink_cxa_finalize",
    "__cxa_thread_atexit": "__jitlink_cxa_thread_atexit",
    "__cxa_thread_atexit_impl": "__jitlink_cxa_thread_atexit",
    **{
        name: name
        for name in (
            "__jitlink_dladdr", "__jitlink_dlclose", "__jitlink_dlerror", "__jitlink_dlopen",
            "__jitlink_dlsym", "__jitlink_dlupdate", "__jitlink_dlvsym",
            "__jitlink_process_dlerror",
        )
    },
}  # fmt: skip
"""What linked code sees of the shared objects, by the name that it uses."""


def has_runtime(triple: str) -> bool:
    """Whether there are objects for executors of a target triple."""
    return runtime_target(triple) is not None


def open_object(triple: str, name: str) -> InputFile:
    """A prebuilt object.

    Args:
        triple: the executor's target triple.
        name: one of `SHARED`, `REMOTE`, `OPTIONAL` or `PER_DYLIB`.

    Raises:
        UnsupportedObjectError: there is none for that triple.
    """
    target = runtime_target(triple)
    if target is None:
        raise UnsupportedObjectError(f"there is no runtime for {triple}", file="<runtime>")
    # Without pathlib, which is slow to import.
    path = os.path.join(os.path.dirname(__file__), target.name, f"{name}.o")  # noqa: PTH118, PTH120
    with open(path, "rb") as file:  # noqa: PTH123
        data = file.read()
    return InputFile(f"<runtime>({name}.o)", memoryview(data))
