"""Dialects of the protocol: the services of an executor by version, with names and signatures.

All versions frame messages in the same way. They differ in the services that an executor offers,
which it names in its setup message; `dialect_of` chooses by these names.

Specification: llvm/ExecutionEngine/Orc/Shared/OrcRTBridge.h and ExecutionUtils of each version;
after version 22, the headers in llvm/ExecutionEngine/Orc/Shared/SPSCI.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic

from jitlink.executor.remote.errors import ProtocolError
from jitlink.sps import (
    CHARS,
    EMPTY,
    ERROR,
    EXECUTOR_ADDR,
    EXECUTOR_ADDR_RANGE,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Expected,
    Optional,
    Sequence,
    SPSType,
    Tuple,
    WrapperSignature,
)
from jitlink.sps.services import (
    FINALIZE_REQUEST,
    FOUND_SYMBOL,
    SHARED_FINALIZE_REQUEST,
    SYMBOL_ADDRESS,
    SYMBOL_DEF,
    SYMBOL_LOOKUP_ELEMENT,
    FoundSymbol,
    SymbolDef,
)
from jitlink.sps.types import T

_BOOTSTRAP = "__llvm_orc_bootstrap_"
_MEMORY = "__llvm_orc_SimpleExecutorMemoryManager_"
_DYLIBS = "__llvm_orc_SimpleExecutorDylibManager_"
_SHARED = "__llvm_orc_ExecutorSharedMemoryMapperService_"
_RUNTIME = "orc_rt_ci_sps_"
DISPATCH_FUNCTION = "__llvm_orc_SimpleRemoteEPC_dispatch_fn"
DISPATCH_CONTEXT = "__llvm_orc_SimpleRemoteEPC_dispatch_ctx"


class Service(Generic[T]):
    """A function that an executor offers.

    Args:
        name: its bootstrap symbol.
        result: what it returns: a type, ERROR or an Expected.
        arguments: types of its arguments, without the instance.
        instance: bootstrap symbol of the object that is its first argument, if it takes one.
        runs_program: whether it runs linked code, and so may take any time.

    Attributes:
        name: the same.
        instance: the same.
        runs_program: the same.
        signature: signature with the instance.
        returns_value: whether an empty result is no value of the result's type.
    """

    def __init__(
        self,
        name: str,
        result: SPSType[Any],
        *arguments: SPSType[Any],
        instance: str | None = None,
        runs_program: bool = False,
    ) -> None:
        self.name, self.instance = name, instance
        self.runs_program = runs_program
        first = () if instance is None else (EXECUTOR_ADDR,)
        self.signature: WrapperSignature[Any] = WrapperSignature(result, *first, *arguments)
        self.returns_value = result is not EMPTY


@dataclass(frozen=True)
class MemoryServices:
    """Memory that the executor manages, with content that crosses the wire.

    Attributes:
        reserve: reserves a number of bytes; returns the address.
        initialize: gives segments content and protection, and runs actions; returns a key.
        deinitialize: runs the deallocate actions of keys; None where `release` does that.
        release: frees reservations, given by their addresses.
        reserve_below: reserves a number of bytes that end at or below an address; returns the
            address. None in executors that cannot.
    """

    reserve: Service[int]
    initialize: Service[int | None]
    deinitialize: Service[None] | None
    release: Service[None]
    reserve_below: Service[int] | None = None


@dataclass(frozen=True)
class SharedMemoryServices:
    """Memory that executor and controller share.

    Attributes:
        reserve: reserves a number of bytes; returns the address, and the name of the shared memory.
        initialize: gives segments protection, and runs actions; returns a key.
        deinitialize: runs the deallocate actions of keys.
        release: frees reservations, given by their addresses.
        reserve_below: the same as `reserve`, for bytes that end at or below an address. None in
            executors that cannot.
    """

    reserve: Service[tuple[int, str]]
    initialize: Service[int]
    deinitialize: Service[None]
    release: Service[None]
    reserve_below: Service[tuple[int, str]] | None = None


@dataclass(frozen=True)
class Dialect:
    """The services of one version of executors.

    Attributes:
        name: whose version it is.
        memory: see the class.
        open_dylib: opens a library; takes a path and a mode, which is 0; returns a handle.
        lookup: looks up symbols; takes a handle and `SymbolLookupElement`s.
        run_as_main: calls a ``main``; takes its address and the arguments.
        run_as_void_function: calls ``int f(void)``.
        run_as_int_function: calls ``int f(int)``.
        write_buffers: writes bytes to addresses.
        write_integers: writes integers to addresses, each in one store; by their size in bytes.
        read_integers: reads integers at addresses, likewise; empty if there is no such service.
        read_buffers: reads ranges of addresses; None in executors that cannot.
        read_strings: reads strings that end with a null; likewise.
        shared_memory: see the class.
        accepts_null_finalize: whether an allocation action may have no finalize half.
        can_initialize_again: whether memory that was initialised can be initialised again, with
            content that crosses the wire.
        call_main: calls a ``main`` with arguments that were placed before; takes its address, the
            number of arguments, and the addresses of the pointers to them and to the environment.
            None in executors that cannot.
        find_symbols: finds the symbols of libraries that begin at addresses. None in executors
            that cannot.
        sandbox_report: names the features of the sandbox, and why they are unavailable; empty for
            those that are enforced. None in executors without sandboxes.
        report_crashes: has crashes reported; takes the tag of reports. Likewise.
        list_mappings: returns what the process maps, as the system lists it. Likewise.
    """

    name: str
    memory: MemoryServices
    open_dylib: Service[int]
    lookup: Service[list[SymbolDef | None]]
    run_as_main: Service[int]
    run_as_void_function: Service[int]
    run_as_int_function: Service[int]
    write_buffers: Service[None]
    write_integers: Mapping[int, Service[None]]
    read_integers: Mapping[int, Service[list[int]]]
    read_buffers: Service[list[bytes]] | None
    read_strings: Service[list[str]] | None
    shared_memory: SharedMemoryServices
    accepts_null_finalize: bool
    can_initialize_again: bool = False
    call_main: Service[int] | None = None
    find_symbols: Service[list[FoundSymbol | None]] | None = None
    sandbox_report: Service[list[tuple[str, str]]] | None = None
    report_crashes: Service[None] | None = None
    list_mappings: Service[bytes] | None = None

    def is_offered_by(self, symbols: Collection[str]) -> bool:
        """Whether an executor with these bootstrap symbols speaks it."""
        characteristic = {self.memory.initialize.name, self.lookup.name}
        if self.call_main is not None:
            characteristic.add(self.call_main.name)
        return characteristic <= set(symbols)


_ADDRESSES = Sequence(EXECUTOR_ADDR)
_ELEMENTS = Sequence(SYMBOL_LOOKUP_ELEMENT)


def _of_memory(name: str, result: SPSType[Any], *arguments: SPSType[Any]) -> Service[Any]:
    return Service(f"{_MEMORY}{name}_wrapper", result, *arguments, instance=f"{_MEMORY}Instance")


def _of_shared_memory(name: str, result: SPSType[Any], *arguments: SPSType[Any]) -> Service[Any]:
    return Service(_SHARED + name, result, *arguments, instance=f"{_SHARED}Instance")


def _own(
    name: str,
    result: SPSType[Any],
    *arguments: SPSType[Any],
    instance: str | None = None,
    runs_program: bool = False,
) -> Service[Any]:
    name = f"__jitlink_executor_{name}"
    return Service(name, result, *arguments, instance=instance, runs_program=runs_program)


def _of_runtime(
    owner: str, name: str, result: SPSType[Any], *arguments: SPSType[Any]
) -> Service[Any]:
    instance = f"{_RUNTIME.removesuffix('sps_')}{owner}Instance"
    return Service(_RUNTIME + owner + name, result, *arguments, instance=instance)


def _bootstrap(
    name: str, result: SPSType[Any], *arguments: SPSType[Any], runs_program: bool = False
) -> Service[Any]:
    return Service(f"{_BOOTSTRAP}{name}_wrapper", result, *arguments, runs_program=runs_program)


_RESERVE = _of_memory("reserve", Expected(EXECUTOR_ADDR), UINT64)
_OPEN: Service[int] = Service(
    f"{_DYLIBS}open_wrapper",
    Expected(EXECUTOR_ADDR),
    STRING,
    UINT64,
    instance=f"{_DYLIBS}Instance",
)
_SHARED_MEMORY = SharedMemoryServices(
    reserve=_of_shared_memory("Reserve", Expected(Tuple(EXECUTOR_ADDR, STRING)), UINT64),
    initialize=_of_shared_memory(
        "Initialize", Expected(EXECUTOR_ADDR), EXECUTOR_ADDR, SHARED_FINALIZE_REQUEST
    ),
    deinitialize=_of_shared_memory("Deinitialize", ERROR, _ADDRESSES),
    release=_of_shared_memory("Release", ERROR, _ADDRESSES),
)
_RUN_AS_MAIN = _bootstrap("run_as_main", INT64, EXECUTOR_ADDR, Sequence(STRING), runs_program=True)
_RUN_AS_VOID_FUNCTION = _bootstrap("run_as_void_function", INT32, EXECUTOR_ADDR, runs_program=True)
_RUN_AS_INT_FUNCTION = _bootstrap(
    "run_as_int_function", INT32, EXECUTOR_ADDR, INT32, runs_program=True
)
_INTEGERS = {1: UINT8, 2: UINT16, 4: UINT32, 8: UINT64}
_WRITE_INTEGERS = {
    size: _bootstrap(f"mem_write_uint{8 * size}s", EMPTY, Sequence(Tuple(EXECUTOR_ADDR, kind)))
    for size, kind in _INTEGERS.items()
}
_READ_INTEGERS = {
    size: _bootstrap(f"mem_read_uint{8 * size}s", Sequence(kind), _ADDRESSES)
    for size, kind in _INTEGERS.items()
}
_WRITE_BUFFERS = _bootstrap("mem_write_buffers", EMPTY, Sequence(Tuple(EXECUTOR_ADDR, CHARS)))

LLVM_22 = Dialect(
    "LLVM 22",
    MemoryServices(
        reserve=_RESERVE,
        initialize=_of_memory("initialize", Expected(EXECUTOR_ADDR), FINALIZE_REQUEST),
        deinitialize=_of_memory("deinitialize", ERROR, _ADDRESSES),
        release=_of_memory("release", ERROR, _ADDRESSES),
    ),
    open_dylib=_OPEN,
    lookup=Service(
        f"{_DYLIBS}resolve_wrapper",
        Expected(Sequence(Optional(SYMBOL_DEF))),
        EXECUTOR_ADDR,
        _ELEMENTS,
    ),
    run_as_main=_RUN_AS_MAIN,
    run_as_void_function=_RUN_AS_VOID_FUNCTION,
    run_as_int_function=_RUN_AS_INT_FUNCTION,
    write_buffers=_WRITE_BUFFERS,
    write_integers=_WRITE_INTEGERS,
    read_integers=_READ_INTEGERS,
    read_buffers=_bootstrap("mem_read_buffers", Sequence(CHARS), Sequence(EXECUTOR_ADDR_RANGE)),
    read_strings=_bootstrap("mem_read_strings", Sequence(STRING), _ADDRESSES),
    shared_memory=_SHARED_MEMORY,
    accepts_null_finalize=True,
)
JITLINK = replace(
    LLVM_22,
    name="jitlink",
    memory=replace(
        LLVM_22.memory,
        reserve_below=_own(
            "reserve_below", Expected(EXECUTOR_ADDR), UINT64, UINT64, instance=f"{_MEMORY}Instance"
        ),
    ),
    shared_memory=replace(
        _SHARED_MEMORY,
        reserve_below=_own(
            "reserve_shared_below",
            Expected(Tuple(EXECUTOR_ADDR, STRING)),
            *(UINT64, UINT64),
            instance=f"{_SHARED}Instance",
        ),
    ),
    can_initialize_again=True,
    call_main=_own(
        "call_main",
        INT64,
        *(EXECUTOR_ADDR, UINT64, EXECUTOR_ADDR, EXECUTOR_ADDR),
        runs_program=True,
    ),
    find_symbols=_own("find_symbols", Sequence(Optional(FOUND_SYMBOL)), _ADDRESSES),
    sandbox_report=_own("sandbox_report", Sequence(Tuple(STRING, STRING))),
    report_crashes=_own("report_crashes", ERROR, EXECUTOR_ADDR),
    list_mappings=_own("list_mappings", CHARS),
)
LLVM_19 = Dialect(
    "LLVM 19",
    MemoryServices(
        reserve=_RESERVE,
        # The lowest segment is at the address of a reservation, which is the key.
        initialize=_of_memory("finalize", ERROR, FINALIZE_REQUEST),
        deinitialize=None,
        release=_of_memory("deallocate", ERROR, _ADDRESSES),
    ),
    open_dylib=_OPEN,
    lookup=Service(
        f"{_DYLIBS}lookup_wrapper",
        Expected(Sequence(SYMBOL_DEF)),
        EXECUTOR_ADDR,
        _ELEMENTS,
        instance=f"{_DYLIBS}Instance",
    ),
    run_as_main=_RUN_AS_MAIN,
    run_as_void_function=_RUN_AS_VOID_FUNCTION,
    run_as_int_function=_RUN_AS_INT_FUNCTION,
    write_buffers=_WRITE_BUFFERS,
    write_integers=_WRITE_INTEGERS,
    read_integers={},
    read_buffers=None,
    read_strings=None,
    shared_memory=_SHARED_MEMORY,
    accepts_null_finalize=False,
)
# From LLVM's sources between the releases 22 and 23; no executor that speaks it was met yet.
_MAP, _LIBRARIES = "SimpleNativeMemoryMap_", "NativeDylibManager_"
LLVM_TRUNK = replace(
    LLVM_22,
    name="LLVM after 22",
    memory=MemoryServices(
        reserve=_of_runtime(_MAP, "reserve", Expected(EXECUTOR_ADDR), UINT64),
        initialize=_of_runtime(_MAP, "initialize", Expected(EXECUTOR_ADDR), FINALIZE_REQUEST),
        deinitialize=_of_runtime(_MAP, "deinitializeMultiple", ERROR, _ADDRESSES),
        release=_of_runtime(_MAP, "releaseMultiple", ERROR, _ADDRESSES),
    ),
    open_dylib=_of_runtime(_LIBRARIES, "load", Expected(EXECUTOR_ADDR), STRING, UINT64),
    lookup=_of_runtime(
        _LIBRARIES,
        "lookup",
        Expected(Sequence(Optional(SYMBOL_ADDRESS))),
        EXECUTOR_ADDR,
        _ELEMENTS,
    ),
    run_as_main=Service(f"{_RUNTIME}call_main", INT64, EXECUTOR_ADDR, Sequence(STRING)),
    run_as_void_function=Service(f"{_RUNTIME}call_int32_void", INT32, EXECUTOR_ADDR),
    run_as_int_function=Service(f"{_RUNTIME}call_int32_int32", INT32, EXECUTOR_ADDR, INT32),
    write_buffers=Service(
        f"{_RUNTIME}mem_write_buffers", EMPTY, Sequence(Tuple(EXECUTOR_ADDR, CHARS))
    ),
    read_buffers=Service(
        f"{_RUNTIME}mem_read_buffers", Sequence(CHARS), Sequence(EXECUTOR_ADDR_RANGE)
    ),
    read_strings=Service(f"{_RUNTIME}mem_read_strings", Sequence(STRING), _ADDRESSES),
)
DIALECTS = (JITLINK, LLVM_22, LLVM_TRUNK, LLVM_19)
"""Dialects, those that offer more first."""


def dialect_of(symbols: Mapping[str, int]) -> Dialect:
    """The dialect of an executor.

    Args:
        symbols: its bootstrap symbols.

    Raises:
        ProtocolError: it speaks none of them.
    """
    for dialect in DIALECTS:
        if dialect.is_offered_by(symbols):
            return dialect
    names = ", ".join(dialect.name for dialect in DIALECTS)
    raise ProtocolError(f"the executor offers the services of none of {names}")
