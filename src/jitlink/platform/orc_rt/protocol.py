"""The protocol between LLVM's ORC runtime and its controller, for ELF on x86-64.

The runtime is ``liborc_rt-x86_64.a`` of LLVM 22 (compiler-rt). Its functions are wrapper functions.
Most are allocation actions; the controller calls the others, which run linked code, itself. The
runtime calls the controller through ``__orc_rt_jit_dispatch``; its variables are the tags.

Specification: compiler-rt, ``lib/orc/elfnix_platform.cpp``; LLVM, ``ELFNixPlatform.h``. LLVM 19's
runtime has another protocol, and lacks functions of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jitlink.passes.initializers import ArrayKind, FunctionArray, in_order
from jitlink.sps import (
    ERROR,
    EXECUTOR_ADDR,
    EXECUTOR_ADDR_RANGE,
    INT32,
    INT64,
    STRING,
    UINT64,
    ExecutorAddrRange,
    Expected,
    Sequence,
    SPSType,
    Tuple,
    WrapperSignature,
)

T = TypeVar("T")

_PREFIX = "__orc_rt_elfnix_"


@dataclass(frozen=True, slots=True)
class RuntimeFunction(Generic[T]):
    """A wrapper function of the runtime.

    Attributes:
        name: its symbol.
        signature: its types.
    """

    name: str
    signature: WrapperSignature[T]


def _function(name: str, result: SPSType[T], *arguments: SPSType[Any]) -> RuntimeFunction[T]:
    return RuntimeFunction(name, WrapperSignature(result, *arguments))


_OBJECT_SECTIONS = Tuple(EXECUTOR_ADDR_RANGE, EXECUTOR_ADDR_RANGE)
_RANGES = Sequence(EXECUTOR_ADDR_RANGE)

BOOTSTRAP = _function(_PREFIX + "platform_bootstrap", ERROR, EXECUTOR_ADDR)
SHUTDOWN = _function(_PREFIX + "platform_shutdown", ERROR)
REGISTER_JITDYLIB = _function(_PREFIX + "register_jitdylib", ERROR, STRING, EXECUTOR_ADDR)
DEREGISTER_JITDYLIB = _function(_PREFIX + "deregister_jitdylib", ERROR, EXECUTOR_ADDR)
REGISTER_OBJECT_SECTIONS = _function(_PREFIX + "register_object_sections", ERROR, _OBJECT_SECTIONS)
DEREGISTER_OBJECT_SECTIONS = _function(
    _PREFIX + "deregister_object_sections", ERROR, _OBJECT_SECTIONS
)
REGISTER_INIT_SECTIONS = _function(
    _PREFIX + "register_init_sections", ERROR, EXECUTOR_ADDR, _RANGES
)
DEREGISTER_INIT_SECTIONS = _function(
    _PREFIX + "deregister_init_sections", ERROR, EXECUTOR_ADDR, _RANGES
)
CREATE_PTHREAD_KEY = _function(_PREFIX + "create_pthread_key", Expected(UINT64))

RUN_PROGRAM = _function("__orc_rt_run_program_wrapper", INT64, STRING, STRING, Sequence(STRING))
DLOPEN = _function("__orc_rt_jit_dlopen_wrapper", EXECUTOR_ADDR, STRING, INT32)
DLCLOSE = _function("__orc_rt_jit_dlclose_wrapper", INT32, EXECUTOR_ADDR)
DLERROR = _function("__orc_rt_jit_dlerror_wrapper", STRING)

FUNCTIONS: tuple[RuntimeFunction[Any], ...] = (
    BOOTSTRAP,
    SHUTDOWN,
    REGISTER_JITDYLIB,
    DEREGISTER_JITDYLIB,
    REGISTER_OBJECT_SECTIONS,
    DEREGISTER_OBJECT_SECTIONS,
    REGISTER_INIT_SECTIONS,
    DEREGISTER_INIT_SECTIONS,
    CREATE_PTHREAD_KEY,
    RUN_PROGRAM,
    DLOPEN,
    DLCLOSE,
    DLERROR,
)
"""All of them; the last four may run linked code, or return why that failed."""

RTLD_LAZY = 1
"""The mode of ``dlopen``; the runtime makes no difference between modes."""

DISPATCH = "__orc_rt_jit_dispatch"
DISPATCH_CONTEXT = "__orc_rt_jit_dispatch_ctx"

PUSH_INITIALIZERS_TAG = _PREFIX + "push_initializers_tag"
SYMBOL_LOOKUP_TAG = _PREFIX + "symbol_lookup_tag"

PUSH_INITIALIZERS = WrapperSignature(
    Expected(Sequence(Tuple(EXECUTOR_ADDR, Sequence(EXECUTOR_ADDR)))), EXECUTOR_ADDR
)
"""Handle of a JITDylib that is being opened, to the handles of it and its transitive dependencies,
each with the handles of its link order."""

SYMBOL_LOOKUP = WrapperSignature(Expected(EXECUTOR_ADDR), EXECUTOR_ADDR, STRING)
"""Handle of a JITDylib and a name, to an address."""

ALIASES: Mapping[str, str] = {
    "__cxa_atexit": _PREFIX + "cxa_atexit",
    "atexit": _PREFIX + "atexit",
    "__orc_rt_run_program": _PREFIX + "run_program",
    "__orc_rt_jit_dlerror": _PREFIX + "jit_dlerror",
    "__orc_rt_jit_dlopen": _PREFIX + "jit_dlopen",
    "__orc_rt_jit_dlupdate": _PREFIX + "jit_dlupdate",
    "__orc_rt_jit_dlclose": _PREFIX + "jit_dlclose",
    "__orc_rt_jit_dlsym": _PREFIX + "jit_dlsym",
    "__orc_rt_log_error": "__orc_rt_log_error_to_stderr",
    "__orc_rt_reenter": "__orc_rt_sysv_reenter",
}
"""Aliases that linked code and the runtime itself refer to, and the functions that they name."""

REQUIRED = (
    *(function.name for function in FUNCTIONS),
    PUSH_INITIALIZERS_TAG,
    SYMBOL_LOOKUP_TAG,
    *ALIASES.values(),
)
"""Symbols that the archive must define."""

_POINTER_SIZE = 8


def init_ranges(arrays: Iterable[FunctionArray]) -> list[ExecutorAddrRange]:
    """Initialisers as ranges of pointers, which the runtime calls from the start to the end."""
    # LLVM differs: it has no .preinit_array, and reads .ctors forwards, after .init_array.
    chosen = list(arrays)
    ranges: list[ExecutorAddrRange] = []
    for kind in (ArrayKind.PREINIT, ArrayKind.INIT):
        for array in in_order(chosen, kind):
            if array.backwards:
                starts = range(array.end - _POINTER_SIZE, array.start - 1, -_POINTER_SIZE)
                ranges += [ExecutorAddrRange(start, start + _POINTER_SIZE) for start in starts]
            else:
                ranges.append(ExecutorAddrRange(array.start, array.end))
    return ranges
