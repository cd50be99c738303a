"""The executor that is an emulated machine.

::

    with Emulated("aarch64") as machine, jitlink.load("filter.o", executor=machine) as lib:
        lib.filter(jitlink.In(samples), len(samples))

There is no operating system: no files but standard output and error, no threads, and no shared
libraries. What linked code needs of a C library is in an archive of jitlink's, and is linked when
nothing else defines it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Self

from jitlink.abi.conventions import convention_of
from jitlink.errors import ActionError, ExecutorError
from jitlink.executor.code_map import CodeLocation, CodeMap, describe_code
from jitlink.executor.control import ExecutorProcessControl, PlacedArguments
from jitlink.executor.emulated.c_library import CLibrary, WriteOutput
from jitlink.executor.emulated.calls import EmulatedCalls, Limits
from jitlink.executor.emulated.crashes import Backtraces
from jitlink.executor.emulated.debugging import Coverage, Debugger, MemoryAccess, Snapshot
from jitlink.executor.emulated.devices import map_devices
from jitlink.executor.emulated.errors import EmulatedExitError
from jitlink.executor.emulated.machines import machine_of
from jitlink.executor.emulated.memory import EmulatedMemory, EmulatedMemoryManager, Pages, Place
from jitlink.executor.emulated.memory_map import (
    DEFAULT_MEMORY,
    PAGE_SIZE,
    Device,
    check_map,
    find_gap,
)
from jitlink.executor.emulated.processor import Processor
from jitlink.executor.emulated.tls import EmulatedTLS
from jitlink.executor.emulated.unwinding import Unwinder
from jitlink.executor.emulated.wrappers import call_wrapper
from jitlink.graph import MemProt
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.mapping import MappedRange
from jitlink.memory.regions import MemoryRegion
from jitlink.sps import WrapperFunctionCall, WrapperFunctionResult

_LARGEST_STACK = 1 << 20
_RAM_SHARE = 4
"""Stack and heap each take at most one of so many parts of the memory for variables."""
_LARGEST_HEAP = 1 << 24
_INT_LIMIT = 1 << 31


class Emulated(ExecutorProcessControl):
    """An emulated machine. Its coroutines never suspend.

    Code runs on the calling thread; other threads wait until the call has returned.

    Args:
        machine: a name of `MACHINES`, such as ``aarch64``.
        abi: an ABI that is not the machine's usual one: ``ilp32`` for ``riscv32``, whose
            floating-point numbers are in integer registers; by default they are in their own.
        memory: the memory map; by default a gigabyte of memory, which exists as far as it is used.
        is_sparse: whether only what is allocated of the memory exists, and all else faults; by
            default of the default memory.
        devices: registers that Python functions implement.
        host_address: the first of 0x20000 addresses beside the memory map that are for calls of
            Python; by default any below 2 GiB.
        place: chooses addresses of segments, within the memory map.
        stack_size: bytes of the stack, by default at most a megabyte.
        heap_size: bytes that ``malloc`` of the C library has, by default at most 16 MiB.
        time_limit: seconds that a call may take.
        step_limit: instructions that a call may execute without calling Python or the C library.
        output: takes what code writes to standard output and standard error, as a file descriptor,
            1 or 2, and bytes; by default it is written to `sys.stdout` and `sys.stderr`.

    Attributes:
        machine: the machine's name.
        devices: the devices.
        processor: the emulated processor.
        memory: its memory.
        calls: its calls.
        c_library: what this process implements of its C library.
        debugger: looks into it.

    Raises:
        ExecutorError: there is no such machine, or Unicorn is not installed.
        AllocationError: the memory map has no place for the stack.
        ValueError: the memory map, a size or a limit is not possible.
    """

    page_size = PAGE_SIZE

    def __init__(
        self,
        machine: str,
        *,
        abi: str | None = None,
        memory: Sequence[MemoryRegion] | None = None,
        is_sparse: bool = False,
        devices: Sequence[Device] = (),
        host_address: int | None = None,
        place: Place | None = None,
        stack_size: int | None = None,
        heap_size: int | None = None,
        time_limit: float | None = None,
        step_limit: int = 0,
        output: WriteOutput | None = None,
    ) -> None:
        row = machine_of(machine)
        self.machine, self.triple = machine, row.triple(abi)
        # As large as it can be, it is no limit.
        self.address_limit = 1 << 32 if row.pointer_size == 4 else NO_ADDRESS_LIMIT
        for what, size in (("stack", stack_size), ("heap", heap_size)):
            if size is not None and size <= 0:
                raise ValueError(f"a {what} of {size} bytes")
        regions = [DEFAULT_MEMORY] if memory is None else list(memory)
        check_map(regions, devices, row.pointer_size)
        convention = convention_of(self.triple)
        if convention is None:
            raise ExecutorError(f"functions of {self.triple} cannot be called from here")
        host_address = find_gap(
            regions, devices, Processor.host_area_size, host_address, row.pointer_size
        )
        self.processor = Processor(row, host_address)
        map_devices(self.processor, devices)
        self.devices = tuple(devices)
        self.memory = EmulatedMemory(self.processor, regions, is_sparse=is_sparse or memory is None)
        room = self.memory.region_for(MemProt.READ | MemProt.WRITE).size // _RAM_SHARE
        self.code_map = code = CodeMap()
        self._backtraces = Backtraces(self.processor, code, Unwinder(self.processor, code))
        self._limits = Limits(time_limit, step_limit)
        self.calls = EmulatedCalls(
            self.processor,
            convention,
            self.memory,
            min(room, _LARGEST_STACK) if stack_size is None else stack_size,
            self._limits,
            self._backtraces.describe,
        )
        heap = min(room, _LARGEST_HEAP) if heap_size is None else heap_size
        tls = EmulatedTLS(self.processor, self.memory, self.calls)
        self.c_library = CLibrary(
            self.calls, self.memory, heap, output or _write_output, abi or "none", code, tls
        )
        run = partial(_run_action, self.calls)
        self.memory_manager = EmulatedMemoryManager(self.memory, run, tls, place)
        # Each load with initialisers places arguments, which are never released.
        self._arguments: dict[tuple[bytes, ...], Pages] = {}
        self.debugger = Debugger(self.processor, self.calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Emulated {self.machine}>"

    @property
    def is_alive(self) -> bool:
        """Whether it was not closed."""
        return not self.calls.is_closed

    @property
    def direct_calls(self) -> EmulatedCalls:
        """What calls functions of the machine, and makes functions for it."""
        return self.calls

    @property
    def static_libraries(self) -> Sequence[str]:
        """The archive of the C library."""
        return [self.c_library.path("libc.a")]

    @property
    def support_libraries(self) -> Sequence[str]:
        """The support library of compilers, for machines of which none is likely to be there."""
        path = self.c_library.path("libcompiler_rt.a")
        return [path] if os.path.exists(path) else []  # noqa: PTH110 - pathlib is slow to import

    def close(self) -> None:
        """Release the machine and its memory; a second call does nothing.

        Sessions must have ended before.

        Raises:
            ExecutorError: code of the machine is running on this thread.
        """
        if self.calls.is_closed:
            return
        self.calls.close()
        self.processor.close()

    def stop(self, generation: int | None = None) -> None:  # noqa: ARG002 - there is no other
        """Refuse: a machine is no process.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError("an emulated machine cannot be restarted: use snapshot and restore")

    def restart(self, generation: int | None = None) -> None:
        """Refuse, as `stop` does.

        Raises:
            ExecutorError: always.
        """
        self.stop(generation)

    # Limits

    @property
    def time_limit(self) -> float | None:
        """Seconds that a call may take; None for any time."""
        return self._limits.seconds

    @time_limit.setter
    def time_limit(self, seconds: float | None) -> None:
        self._limits.seconds = seconds

    @property
    def step_limit(self) -> int:
        """Instructions between two calls of Python or of the C library; 0 for any number."""
        return self._limits.steps

    @step_limit.setter
    def step_limit(self, steps: int) -> None:
        self._limits.steps = steps

    # Symbols

    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Refuse: there are no shared libraries.

        Raises:
            ExecutorError: always.
        """
        name = os.fspath(path)
        raise ExecutorError(f"cannot load {name!r}: an emulated machine has no dynamic linker")

    async def lookup_symbols(
        self, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        """Addresses of functions that this process implements for the C library."""
        if dylib is not None:
            raise ExecutorError(f"{dylib} is no handle of a library that was loaded")
        return [self.c_library.address_of(name) for name in names]

    async def mappings(self) -> list[MappedRange]:
        """What is memory, in order of address."""
        return [
            MappedRange(start, end, _letters(prot), "")
            for start, end, prot in self.processor.mapped_ranges()
        ]

    # Programs

    async def place_arguments(self, argv: Sequence[str]) -> PlacedArguments:
        """Place arguments and an empty environment; the same ones have the same place."""
        arguments = tuple(each.encode("utf-8", "surrogateescape") for each in argv)
        if any(b"\0" in each for each in arguments):
            raise ValueError("an argument contains a null character")
        word = self.processor.machine.pointer_size
        start = (len(arguments) + 4) * word
        size = start + sum(len(each) + 1 for each in arguments)
        pages = self._arguments.get(arguments)
        if pages is None:
            pages = self.memory.allocate(size, MemProt.READ | MemProt.WRITE)
            self.memory.protect(pages, MemProt.READ | MemProt.WRITE)
            self._arguments[arguments] = pages
        pointers, place = [], pages.address + start
        for text in arguments:
            pointers.append(place)
            place += len(text) + 1
        # Anew, because programs change them; behind them the environment and the auxiliary vector,
        # which are empty.
        words = [*pointers, 0, 0, 0, 0]
        content = b"".join(each.to_bytes(word, self._byte_order) for each in words)
        strings = b"".join(text + b"\0" for text in arguments)
        await self.write_memory(pages.address, content + strings)
        argc = len(arguments)
        return PlacedArguments(argc, pages.address, pages.address + (argc + 1) * word)

    async def begin_program(
        self,
        argv: Sequence[str],
        name: str | None = None,  # noqa: ARG002 - there is no process that has one
    ) -> PlacedArguments:
        """Place arguments and an empty environment."""
        return await self.place_arguments(argv)

    async def call_main(self, address: int, arguments: PlacedArguments) -> int:
        """Call ``main``; returns what it returned, or the status that ``exit`` was called with."""
        try:
            return _signed(self.calls.call_words(address, arguments))
        except EmulatedExitError as error:
            return error.status

    async def end_program(self) -> None:
        """Flush output."""
        self.c_library.flush()

    async def run_as_void_function(self, address: int, *, timeout: float | None = None) -> int:
        """Call ``int f(void)`` and return what it returned."""
        return _signed(self.calls.call_words(address, (), timeout=timeout))

    async def run_as_int_function(
        self, address: int, argument: int, *, timeout: float | None = None
    ) -> int:
        """Call ``int f(int)`` and return what it returned."""
        if not -_INT_LIMIT <= argument < _INT_LIMIT:
            raise ValueError(f"{argument} does not fit a C int")
        return _signed(self.calls.call_words(address, (argument,), timeout=timeout))

    def call_wrapper(
        self,
        address: int,
        arguments: bytes,
        generation: int | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, WrapperFunctionResult]:
        """Call a wrapper function."""
        self._check_generation(generation)
        return self._call_wrapper(address, arguments, timeout)

    async def _call_wrapper(
        self, address: int, arguments: bytes, timeout: float | None
    ) -> WrapperFunctionResult:
        return call_wrapper(self.calls, address, arguments, timeout)

    @staticmethod
    def _check_generation(generation: int | None) -> None:
        if generation:
            raise ExecutorError(f"an emulated machine has no generation {generation}")

    # Memory

    async def read_memory(self, address: int, size: int, generation: int | None = None) -> bytes:
        """The bytes at an address."""
        self._check_generation(generation)
        self._check_open()
        return self.processor.read(address, size)

    async def write_memory(
        self,
        address: int,
        content: bytes | bytearray | memoryview,
        generation: int | None = None,
    ) -> None:
        """Write bytes to an address, whatever code may do there."""
        self._check_generation(generation)
        self._check_open()
        self.processor.write(address, content)
        self.processor.flush()

    async def write_words(self, words: Sequence[tuple[int, int]]) -> None:
        """Write words of the size of a pointer."""
        size = self.processor.machine.pointer_size
        for address, word in words:
            await self.write_memory(address, word.to_bytes(size, self._byte_order))

    def _check_open(self) -> None:
        if self.calls.is_closed:
            raise ExecutorError("the emulated machine is closed")

    # Debugging

    @property
    def registers(self) -> dict[str, int]:
        """The contents of the registers, by name in lower case."""
        return self.processor.all_registers()

    def write_register(self, name: str, value: int) -> None:
        """Set a register, at a breakpoint or from a device.

        Raises:
            ExecutorError: there is no such register.
        """
        self.processor.write_register(name.upper(), value)

    def add_breakpoint(self, address: int, callback: Callable[[], object]) -> None:
        """Have a function called whenever the instruction at an address is about to be executed.

        It may call emulated code, and change registers; what it raises ends the call.
        """
        self.debugger.add_breakpoint(address, callback)

    def remove_breakpoint(self, address: int) -> None:
        """Take back `add_breakpoint`; nothing without one."""
        self.debugger.remove_breakpoint(address)

    def watch(
        self, address: int, size: int, callback: Callable[[MemoryAccess], object]
    ) -> AbstractContextManager[None]:
        """Have a function called for each access to memory, during a ``with`` statement.

        Args:
            address: where the memory begins.
            size: its size in bytes.
            callback: takes the access, before it is made; what it raises ends the call. It cannot
                call emulated code.
        """
        return self.debugger.watch(address, size, callback)

    def describe(self, addresses: Iterable[int]) -> list[CodeLocation]:
        """What linked code is at addresses, such as those of blocks that were executed.

        Symbols, objects, and with debug information source files and lines.
        """
        return describe_code(list(addresses), self.code_map, ())

    def coverage(self) -> AbstractContextManager[Coverage]:
        """Record which code is executed during a ``with`` statement."""
        return self.debugger.coverage()

    def snapshot(self) -> Snapshot:
        """The contents of memory and registers now."""
        return self.debugger.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Make the contents of memory and registers what they were.

        What has been linked since stays where it is, and keeps its contents.
        """
        self.debugger.restore(snapshot)


def _letters(prot: MemProt) -> str:
    flags = (("r", MemProt.READ), ("w", MemProt.WRITE), ("x", MemProt.EXEC))
    return "".join(letter if prot & flag else "-" for letter, flag in flags) + "p"


def _signed(word: int) -> int:
    """A C int in a register."""
    word &= 2 * _INT_LIMIT - 1
    return word - 2 * _INT_LIMIT if word >= _INT_LIMIT else word


def _write_output(descriptor: int, data: bytes) -> None:
    stream = sys.stderr if descriptor == 2 else sys.stdout
    binary = getattr(stream, "buffer", None)
    if binary is None:
        stream.write(data.decode("utf-8", "replace"))
    else:
        stream.flush()
        binary.write(data)
        binary.flush()


def _run_action(calls: EmulatedCalls, call: WrapperFunctionCall) -> None:
    """Run a call of an allocation action.

    Raises:
        ActionError: it has failed.
    """
    failure = call_wrapper(calls, call.callee, call.arguments, None).failure()
    if failure is not None:
        raise ActionError(failure.message, address=call.callee)
