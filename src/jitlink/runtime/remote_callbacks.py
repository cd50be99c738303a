"""Calls from an executor that is another process into Python.

Each Python function that code of the executor can call has a function there, with a record of its
own, that leads to the runtime (``callbacks.c``). The runtime sends the words of the registers and
of the stack; they are handled on a thread of their own in this process. The runtime also asks where
the call of a stub continues whose function is not linked yet.

A call of linked code that records exceptions has a number, which the executor sends along with the
calls that it makes; see `jitlink.executor.callback_errors`.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from jitlink.abi.callbacks import HostFunction, PassedWords
from jitlink.abi.conventions import CallingConvention, convention_of
from jitlink.errors import ExecutorError, JITLinkError
from jitlink.executor import ExecutorProcessControl
from jitlink.executor.callback_errors import CallNumbers, report
from jitlink.graph import MemProt
from jitlink.link import JITLinkContext, link
from jitlink.memory.manager import FinalizedAlloc, JITLinkDylib, JITLinkMemoryManager
from jitlink.runtime.linked import Runtime, runtime_of
from jitlink.runtime.objects import has_runtime
from jitlink.sps import (
    EMPTY,
    EXECUTOR_ADDR,
    UINT64,
    Words,
    WrapperFunctionResult,
    WrapperSignature,
)
from jitlink.sps import Sequence as SPSSequence
from jitlink.targets.registry import default_passes, target_of_triple

if TYPE_CHECKING:
    from jitlink.executor.emulated.calls import EmulatedCalls

_ADDRESSES = WrapperSignature(EMPTY, EXECUTOR_ADDR, EXECUTOR_ADDR)
_RESUME = WrapperSignature(EXECUTOR_ADDR, UINT64, UINT64, EXECUTOR_ADDR)
_CODE, _DATA = MemProt.READ | MemProt.EXEC, MemProt.READ | MemProt.WRITE


class Callbacks(ABC):
    """The calls from one executor into Python.

    Attributes:
        resume: takes the number of a stub and the return address of its call; returns the address
            at which the call continues.
    """

    def __init__(self) -> None:
        self.resume: Callable[[int, int], int] | None = None
        # What ctypes functions lead to that were passed as arguments, by identity.
        self._arguments: dict[int, LinkedHostFunctions] = {}

    @abstractmethod
    async def link_functions(
        self, executor: ExecutorProcessControl, functions: Sequence[HostFunction]
    ) -> LinkedHostFunctions:
        """Make functions of the executor that lead to functions of this process.

        Raises:
            JITLinkError: they cannot be linked.
        """

    async def address_of(
        self,
        executor: ExecutorProcessControl,
        function: CFuncPtr,
        make: Callable[[], HostFunction],
    ) -> int:
        """The address in the executor of a Python function, for as long as the object lives.

        Args:
            executor: the executor.
            function: the ctypes function.
            make: makes what is called.

        Raises:
            TypeError: C code of the executor cannot call it.
            JITLinkError: what leads to it cannot be linked.
        """
        key = id(function)
        if key not in self._arguments:
            linked = await self.link_functions(executor, [make()])
            # Another thread may have passed it meanwhile; calls with its address are under way.
            if self._arguments.setdefault(key, linked) is linked:
                weakref.finalize(function, self._arguments.pop, key).atexit = False
        return self._arguments[key].addresses[0]


class DirectCallbacks(Callbacks):
    """Those from an executor that calls this process without any code there.

    Args:
        calls: makes its functions.
    """

    def __init__(self, calls: EmulatedCalls) -> None:
        super().__init__()
        self._calls = calls

    async def link_functions(
        self,
        executor: ExecutorProcessControl,  # noqa: ARG002 - part of the interface
        functions: Sequence[HostFunction],
    ) -> LinkedHostFunctions:
        """Make functions of the executor that lead to functions of this process."""
        addresses = [self._calls.add_host_function(function) for function in functions]
        linked = LinkedHostFunctions(addresses)
        weakref.finalize(linked, _remove_all, self._calls, addresses).atexit = False
        return linked


def _remove_all(calls: EmulatedCalls, addresses: Sequence[int]) -> None:
    for address in addresses:
        calls.processor.remove_host(address)


class RemoteCallbacks(Callbacks):
    """The calls from one executor into Python.

    Args:
        runtime: the executor's runtime.
        convention: its calling convention.

    Attributes:
        runtime: the same.
        convention: the same.
        calls: the calls of the executor's code that record exceptions.
        is_connected: whether the executor's calls arrive here.
    """

    def __init__(self, runtime: Runtime, convention: CallingConvention) -> None:
        super().__init__()
        self.runtime, self.convention = runtime, convention
        self.is_connected = False
        self._functions: dict[int, HostFunction] = {}
        self.calls = CallNumbers()
        self._numbers = itertools.count(1)
        # Numbers and memory of functions that are not needed any more.
        self._unused: deque[tuple[Sequence[int], JITLinkMemoryManager, int]] = deque()
        registers = convention.frame_integers + convention.float_registers
        results = convention.integer_results + convention.float_results
        self._signature = WrapperSignature(
            Words(results), UINT64, UINT64, Words(registers), SPSSequence(UINT64)
        )

    # Functions

    async def link_functions(
        self, executor: ExecutorProcessControl, functions: Sequence[HostFunction]
    ) -> LinkedHostFunctions:
        """Link the functions of the executor that lead to functions of this process.

        Raises:
            JITLinkError: they cannot be linked.
        """
        await self._free_unused()
        # That of the process whose memory it is, which may end meanwhile.
        memory = executor.memory_manager
        numbers = [next(self._numbers) for _ in functions]
        entry = self.runtime.addresses["__jitlink_python_entry"]
        records = [
            (entry, number, function.words[2])
            for number, function in zip(numbers, functions, strict=True)
        ]
        alloc, addresses = await _link_records(executor.triple, memory, records)
        self._functions.update(zip(numbers, functions, strict=True))
        linked = LinkedHostFunctions(addresses)
        # A finalizer cannot wait for the executor.
        unused = partial(self._unused.append, (numbers, memory, alloc.release()))
        weakref.finalize(linked, unused).atexit = False
        return linked

    async def _free_unused(self) -> None:
        while True:
            try:
                numbers, memory, address = self._unused.popleft()
            except IndexError:
                # Perhaps another thread has taken the last one.
                return
            for number in numbers:
                del self._functions[number]
            await memory.deallocate([FinalizedAlloc(address)])

    # Calls from the executor, on threads of their own

    def handle_call(self, data: bytes) -> WrapperFunctionResult:
        """Call a function; without one it is an error, and the caller continues with zeros."""
        caller, number, registers, stack = self._signature.deserialize_arguments(data)
        function = self._functions.get(number)
        if function is None:
            with self.calls.on_behalf_of(caller):
                report(ExecutorError("code has called a Python function that was released"))
            return WrapperFunctionResult()
        count = self.convention.frame_integers
        words = PassedWords(registers[:count], registers[count:], stack)
        with self.calls.on_behalf_of(caller):
            return self._signature.serialize_result(function.call(words))

    def handle_resume(self, data: bytes) -> WrapperFunctionResult:
        """Find out where the call of a stub continues."""
        caller, stub, return_address = _RESUME.deserialize_arguments(data)
        if self.resume is None:
            return WrapperFunctionResult()
        with self.calls.on_behalf_of(caller):
            return _RESUME.serialize_result(self.resume(stub, return_address))


class LinkedHostFunctions:
    """Functions of an executor that lead to functions of this process.

    Once this is collected, no code of the executor may call them.

    Attributes:
        addresses: their addresses.
    """

    def __init__(self, addresses: Sequence[int]) -> None:
        self.addresses = addresses


async def callbacks_of(executor: ExecutorProcessControl) -> Callbacks:
    """The calls into Python of an executor that is not this process.

    Raises:
        ExecutorError: code of the executor cannot call this process.
        JITLinkError: the runtime cannot be linked.
    """
    direct = executor.direct_calls
    if direct is not None:
        if direct.callbacks is None:
            direct.callbacks = DirectCallbacks(direct)
        found: Callbacks = direct.callbacks
        return found
    return await remote_callbacks_of(executor)


async def remote_callbacks_of(executor: ExecutorProcessControl) -> RemoteCallbacks:
    """`callbacks_of` an executor that is another process; errors are the same."""
    if not has_runtime(executor.triple):
        raise ExecutorError(f"functions of {executor.triple} cannot be called from here")
    runtime = await runtime_of(executor)
    found = runtime.callbacks
    if found is None:
        convention = convention_of(executor.triple)
        if convention is None:
            raise ExecutorError(f"code of {executor.triple} cannot call Python")
        with _lock:
            if runtime.callbacks is None:
                runtime.callbacks = RemoteCallbacks(runtime, convention)
            found = runtime.callbacks
    if not found.is_connected:
        await _connect(executor, found)
        found.is_connected = True
    return found


_lock = threading.Lock()


async def _connect(executor: ExecutorProcessControl, callbacks: RemoteCallbacks) -> None:
    """Have the executor's calls into Python arrive; once more does no harm."""
    addresses = callbacks.runtime.addresses
    handlers = {
        addresses["__jitlink_python_tag"]: callbacks.handle_call,
        addresses["__jitlink_resume_tag"]: callbacks.handle_resume,
    }
    dispatch = executor.dispatch
    if dispatch is None:
        raise ExecutorError("the executor does not let its code call this process")
    executor.handle_calls(handlers)
    generation = callbacks.runtime.generation
    executor.number_calls(callbacks.calls, addresses["__jitlink_call_wrapper"], generation)
    name = "__jitlink_set_python_dispatch"
    await executor.call_function(
        name, addresses[name], _ADDRESSES, *dispatch, generation=generation
    )


async def _link_records(
    triple: str, memory: JITLinkMemoryManager, records: Sequence[Sequence[int]]
) -> tuple[FinalizedAlloc, list[int]]:
    """Link a function for each record of words; their memory and their addresses."""
    target = target_of_triple(triple)
    code = target.host_function
    if code is None:
        raise ExecutorError(f"code of {triple} cannot call Python")
    graph = target.new_graph("<Python functions>")
    functions = graph.create_section("$__PYTHON_FUNCTIONS", _CODE)
    data = graph.create_section("$__PYTHON_RECORDS", _DATA)
    symbols = []
    for words in records:
        content = b"".join(w.to_bytes(graph.pointer_size, graph.endianness) for w in words)
        block = graph.create_content_block(data, content, 0, graph.pointer_size)
        record = graph.add_anonymous_symbol(block, 0, len(content))
        block = graph.create_content_block(functions, code.content, 0, code.alignment)
        for kind, offset, addend in code.record_edges:
            block.add_edge(kind, offset, record, addend)
        symbols.append(graph.add_anonymous_symbol(block, 0, len(code.content), is_live=True))
    alloc = await link(graph, IsolatedContext(), default_passes(graph), memory)
    return alloc, [symbol.address for symbol in symbols]


class IsolatedContext(JITLinkContext):
    """Links a graph without external symbols."""

    dylib = JITLinkDylib("<Python functions>")

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Fail: there is nothing to look up."""
        raise JITLinkError(f"code of the linker refers to {', '.join(names)}")
