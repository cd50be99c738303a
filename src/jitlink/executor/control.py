"""The interface of executors: processes in which linked code is placed and run.

The methods are coroutines because an executor may be another process, on another machine. Those
of the executor for this process never suspend, so they can be run without an event loop.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jitlink.errors import ExecutorError
from jitlink.executor.callback_errors import CallNumbers
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory import JITLinkMemoryManager
from jitlink.memory.images import Images
from jitlink.sps import (
    ExecutorAddrRange,
    Failure,
    SPSError,
    WrapperFunctionResult,
    WrapperSignature,
)

if TYPE_CHECKING:
    from jitlink.executor.code_map import CodeLocation, CodeMap
    from jitlink.executor.emulated.calls import EmulatedCalls
    from jitlink.memory.mapping import MappedRange


class PlacedArguments(NamedTuple):
    """Arguments and environment of a program, in its executor's memory.

    Attributes:
        argc: number of arguments.
        argv: address of the pointers to them, which a null ends.
        envp: address of the pointers to the environment, likewise.
    """

    argc: int
    argv: int
    envp: int


class LibrarySymbol(NamedTuple):
    """What the executor has at an address.

    Attributes:
        library: path of the program or library; empty if it is none.
        is_function: whether it is code.
        size: size in bytes of a variable that begins there; 0 if that is unknown.
        is_constant: whether none of it can change any more.
    """

    library: str
    is_function: bool
    size: int = 0
    is_constant: bool = False


class ExecutorProcessControl(ABC):
    """An executor.

    Attributes:
        is_this_process: whether it is this process, where linked code is called directly.
        triple: its target triple, such as ``x86_64-unknown-linux-gnu``.
        page_size: its page size in bytes.
        memory_manager: manages its memory.
        library_directory: a directory where this process writes what the executor is to load;
            None if it needs none.
        code_map: what has been linked into it, for `describe_code`; None if that is not recorded.
        generation: how often it was restarted. Addresses, and all else that is in its memory, are
            of one generation.
        address_limit: all of its addresses are below.
    """

    is_this_process = False
    triple: str
    page_size: int
    memory_manager: JITLinkMemoryManager
    library_directory: str | None = None
    code_map: CodeMap | None = None
    generation: int = 0
    address_limit: int = NO_ADDRESS_LIMIT

    def runs(self, triple: str) -> bool:
        """Whether the executor's processor runs code for a triple."""
        return triple.partition("-")[0] == self.triple.partition("-")[0]

    @property
    def direct_calls(self) -> EmulatedCalls | None:
        """What loads registers for calls, and takes calls of Python, without any code there.

        None if the runtime does that, which is linked into other processes.
        """
        return None

    @property
    def static_libraries(self) -> Sequence[str]:
        """Paths of archives that are searched as libraries of a process are."""
        return ()

    @property
    def support_libraries(self) -> Sequence[str]:
        """Paths of archives that are searched before those of installed compilers' support."""
        return ()

    @property
    def reads_memory(self) -> bool:
        """Whether `read_memory` works without the runtime in the executor."""
        return True

    @property
    def is_alive(self) -> bool:
        """Whether the executor is there; if not, so are its memory and what was to be run in it."""
        return True

    @property
    def restarts_on_crash(self) -> bool:
        """Whether the executor is to be restarted when it is needed again after it has ended."""
        return False

    def stop(self, generation: int | None = None) -> None:  # noqa: ARG002 - for subclasses
        """End the executor's process, which can be restarted.

        What runs in it is stopped, without exit handlers.

        Args:
            generation: the one that is to end; nothing happens if it was restarted since.

        Raises:
            ExecutorError: it cannot be restarted.
        """
        raise ExecutorError("the executor is this process, which cannot be restarted")

    def restart(self, generation: int | None = None) -> None:  # noqa: ARG002 - for subclasses
        """End the executor's process and start another, which has loaded the same libraries.

        For sessions: `ExecutionSession.restart_executor` links again what was linked.

        Args:
            generation: the one that is to end; nothing happens if it was restarted since.

        Raises:
            ExecutorError: it cannot be restarted.
        """
        raise ExecutorError("the executor is this process, which cannot be restarted")

    @abstractmethod
    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Load a shared library, for the rest of the executor's life.

        Returns:
            A handle for `lookup_symbols`.

        Raises:
            ExecutorError: it cannot be loaded.
            StaticTLSError: its thread-local variables do not fit the static TLS surplus.
        """

    @abstractmethod
    async def lookup_symbols(
        self, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        """Addresses of symbols that loaded libraries export.

        Args:
            names: linker-level names; bytes that are not UTF-8 are surrogate escapes. A name with
                an at sign, as in ``memcpy@GLIBC_2.2.5``, means that version of a symbol.
            dylib: a handle from `load_dylib`: only that library and those it needs are
                searched. None: the program, the libraries that it was started with and all that
                `load_dylib` has loaded, in that order.

        Returns:
            For each name the address, which may be 0, or None if there is no such symbol.
        """

    async def symbol_versions(self, name: str) -> list[str]:  # noqa: ARG002 - for subclasses
        """The versions of a symbol that loaded libraries export, for errors; by default unknown."""
        return []

    async def describe_addresses(self, addresses: Sequence[int]) -> list[LibrarySymbol | None]:
        """What the executor has at addresses of symbols, such as `lookup_symbols` returns.

        Returns:
            For each address what is there, or None if nothing is known of it, which is always so
            if the executor does not override this.
        """
        return [None] * len(addresses)

    async def mappings(self) -> list[MappedRange]:
        """What the executor maps, in order of address; by default unknown, which is empty."""
        return []

    async def describe_code(self, addresses: Sequence[int]) -> list[CodeLocation]:
        """What code the executor has at addresses, such as those of a backtrace.

        Libraries are described by the files of this machine that their paths are of. A return
        address is the end of the call: what is at the byte before it has called.

        Args:
            addresses: the addresses.

        Returns:
            For each address what is known of it.

        Raises:
            ExecutorError: the executor is gone.
        """
        from jitlink.executor.code_map import describe_code  # noqa: PLC0415 - for people only

        return describe_code(addresses, self.code_map, await self.mappings())

    @abstractmethod
    async def place_arguments(self, argv: Sequence[str]) -> PlacedArguments:
        """Place arguments, the environment and the auxiliary vector as the system does.

        They form one block, which lives as long as the executor does.

        Args:
            argv: the arguments, the program's name first; surrogate escapes stand for bytes that
                are not UTF-8.

        Raises:
            ValueError: an argument contains a null character.
        """

    @abstractmethod
    async def begin_program(self, argv: Sequence[str], name: str | None = None) -> PlacedArguments:
        """`place_arguments` for a program, whose initialisers and ``main`` are about to run.

        The placed environment becomes the executor's, and until `end_program` the first argument
        its name.

        Args:
            argv: the arguments.
            name: the name if there are no arguments; by default the executor keeps its own.

        Raises:
            ValueError: an argument contains a null character.
        """

    @abstractmethod
    async def call_main(self, address: int, arguments: PlacedArguments) -> int:
        """Call ``int main(int argc, char **argv, char **envp)`` and return what it returned."""

    @abstractmethod
    async def end_program(self) -> None:
        """Flush the output of linked code, and restore the executor's own name."""

    async def run_as_main(self, address: int, argv: Sequence[str]) -> int:
        """Call ``main`` of a program that has no initialisers and exit handlers.

        Args:
            address: address of the function.
            argv: the arguments, as for `place_arguments`.

        Returns:
            What the function returned.

        Raises:
            ValueError: an argument contains a null character.
        """
        arguments = await self.begin_program(argv)
        try:
            return await self.call_main(address, arguments)
        finally:
            await self.end_program()

    async def make_stacks_executable(self) -> None:
        """Make the stacks of all threads executable, now and later.

        Raises:
            ExecutorError: the executor cannot do that.
        """
        raise ExecutorError("the executor cannot make stacks executable")

    def close(self) -> None:  # noqa: B027 - this process has nothing to close
        """End the executor, unless it is this process; a second call does nothing.

        Sessions must have ended before: their memory is the executor's.
        """

    def call_at_close(  # noqa: B027 - this process ends by itself
        self, address: int, generation: int | None = None
    ) -> None:
        """Have a wrapper function without arguments called before the executor is closed.

        Args:
            address: its address; what is added last is called first.
            generation: that of the address, by default the present one.
        """

    @property
    def dispatch(self) -> tuple[int, int] | None:
        """How code of another process calls this one.

        Returns:
            Address and first argument of the executor's dispatch function; None if it has none.
        """
        return None

    def handle_calls(
        self,
        handlers: Mapping[int, Callable[[bytes], WrapperFunctionResult]],  # noqa: ARG002
    ) -> None:
        """Have functions take calls that code of another process dispatches to this one.

        Args:
            handlers: by address of their tag. Each takes the serialized arguments of a call, on a
                thread of its own.

        Raises:
            ExecutorError: the executor has no dispatch function.
        """
        raise ExecutorError("the executor dispatches no calls")

    def number_calls(
        self,
        numbers: CallNumbers,  # noqa: ARG002 - for subclasses, as the others
        wrapper: int,  # noqa: ARG002
        generation: int,  # noqa: ARG002
    ) -> None:
        """Number the calls of wrapper functions from now on that record exceptions.

        Args:
            numbers: the numbers.
            wrapper: address of a wrapper function, which takes the number of a call, the address
                of the wrapper function to call, and the arguments of that.
            generation: that of the address; calls of others are not numbered.

        Raises:
            ExecutorError: the executor has no dispatch function.
        """
        raise ExecutorError("the executor dispatches no calls")

    def create_images(self, name: str, *, exports: bool) -> Images:  # noqa: ARG002 - for subclasses
        """What makes memory of a JITDylib images of the executor.

        Args:
            name: their name in the list of the executor's dynamic linker.
            exports: whether they export symbols.

        Raises:
            ExecutorError: the executor cannot do that, or the name cannot be one.
        """
        raise ExecutorError("the executor cannot make linked code an image of itself")

    @abstractmethod
    async def run_as_void_function(self, address: int) -> int:
        """Call ``int f(void)`` and return what it returned."""

    @abstractmethod
    async def run_as_int_function(self, address: int, argument: int) -> int:
        """Call ``int f(int)`` and return what it returned.

        Raises:
            ValueError: the argument does not fit a C int.
        """

    @abstractmethod
    def call_wrapper(
        self,
        address: int,
        arguments: bytes,
        generation: int | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, WrapperFunctionResult]:
        """Call a wrapper function with serialized arguments.

        What Python functions raise that it calls is recorded for the innermost call by the thread
        that calls this (`jitlink.executor.callback_errors`), whatever thread runs the coroutine.

        Args:
            address: its address.
            arguments: the serialized arguments.
            generation: that of the address, by default the present one.
            timeout: seconds after which the call is stopped, and with it the executor. Not in this
                process, where nothing can stop a call. By default those of the executor.

        Raises:
            ExecutorRestartedError: the executor was restarted since.
        """

    def call_function(
        self,
        name: str,
        address: int,
        signature: WrapperSignature[Any],
        *arguments: object,
        timeout: float | None = None,
        generation: int | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Call a wrapper function of a known signature.

        Args:
            name: its name, for messages.
            address: its address.
            signature: its signature.
            arguments: the arguments.
            timeout: as for `call_wrapper`.
            generation: as for `call_wrapper`.

        Returns:
            What it returned; the value, if its result is an `Expected`.

        Raises:
            ExecutorError: an argument does not fit its type; it returned a failure, or nothing of
                its result type.
        """

        async def call() -> Any:  # noqa: ANN401 - as the signature says
            result = await called
            try:
                value = signature.deserialize_result(result)
            except SPSError as error:
                raise ExecutorError(f"{name} failed: {error}") from error
            if isinstance(value, Failure):
                raise ExecutorError(value.message)
            return value

        try:
            data = signature.serialize_arguments(*arguments)
        except SPSError as error:
            raise ExecutorError(f"{name} cannot be called: {error}") from error
        called = self.call_wrapper(address, data, generation, timeout=timeout)
        return call()

    @abstractmethod
    async def read_memory(self, address: int, size: int, generation: int | None = None) -> bytes:
        """The bytes at an address.

        Args:
            address: the address.
            size: how many.
            generation: as for `call_wrapper`.

        Raises:
            ExecutorError: not all of them can be read.
        """

    @abstractmethod
    async def write_memory(
        self,
        address: int,
        content: bytes | bytearray | memoryview,
        generation: int | None = None,
    ) -> None:
        """Write bytes to an address.

        Args:
            address: the address.
            content: the bytes.
            generation: as for `call_wrapper`.

        Raises:
            ExecutorError: not all of them can be written; some may have been.
        """

    async def read_buffers(self, ranges: Sequence[ExecutorAddrRange]) -> list[bytes]:
        """The bytes of several ranges.

        Raises:
            ExecutorError: not all of them can be read.
        """
        return [await self.read_memory(start, end - start) for start, end in ranges]

    async def write_buffers(
        self, buffers: Sequence[tuple[int, bytes | bytearray | memoryview]]
    ) -> None:
        """Write bytes to several addresses, in order.

        Args:
            buffers: pairs of an address and the bytes.

        Raises:
            ExecutorError: not all of them can be written; some may have been.
        """
        for address, content in buffers:
            await self.write_memory(address, content)

    async def read_integers(self, size: int, addresses: Sequence[int]) -> list[int]:
        """Unsigned integers.

        Args:
            size: bytes of each: 1, 2, 4 or 8.
            addresses: where they are.

        Raises:
            ValueError: there are no integers of that size.
            ExecutorError: not all of them can be read.
        """
        check_integer_size(size)
        order = self._byte_order
        return [int.from_bytes(await self.read_memory(a, size), order) for a in addresses]

    async def write_integers(self, size: int, integers: Sequence[tuple[int, int]]) -> None:
        """Write unsigned integers, in order.

        Args:
            size: bytes of each: 1, 2, 4 or 8.
            integers: pairs of an address and the integer.

        Raises:
            ValueError: there are no integers of that size, or it cannot hold one.
            ExecutorError: not all of them can be written; some may have been.
        """
        check_integer_size(size, (value for _, value in integers))
        for address, value in integers:
            await self.write_memory(address, value.to_bytes(size, self._byte_order))

    async def read_strings(self, addresses: Sequence[int]) -> list[bytes]:
        """Strings, without the nulls that end them.

        Raises:
            ExecutorError: not all of them can be read.
        """
        read, page = self.read_memory, self.page_size
        return [await read_to_null(read, address, page) for address in addresses]

    @property
    def _byte_order(self) -> Literal["little", "big"]:
        return "big" if self.triple.partition("-")[0] in _BIG_ENDIAN else "little"

    @abstractmethod
    async def write_words(self, words: Sequence[tuple[int, int]]) -> None:
        """Write words of the size of a pointer, each in one store.

        Args:
            words: pairs of an address, which is aligned, and a word.

        Raises:
            ExecutorError: not all of them can be written.
        """


_STRING_PIECE = 256
"""Bytes of a string that are read first; most are short."""
_BIG_ENDIAN = frozenset({"aarch64_be", "powerpc64", "s390x"})
_INTEGER_SIZES = (1, 2, 4, 8)


async def read_to_null(
    read: Callable[[int, int], Awaitable[bytes]], address: int, page_size: int, unit: int = 1
) -> bytes:
    """The characters of a string, without the null that ends it.

    Args:
        read: reads some bytes at an address.
        address: where the string begins.
        page_size: that of the executor.
        unit: bytes of a character, which is aligned.

    Raises:
        ExecutorError: it cannot be read.
    """
    found, null, most = bytearray(), bytes(unit), _STRING_PIECE
    while True:
        # No more than there is for sure: an address that cannot be read may end the executor.
        place = address + len(found)
        piece = await read(place, min(most, page_size - place % page_size))
        for start in range(0, len(piece), unit):
            if piece[start : start + unit] == null:
                return bytes(found + piece[:start])
        found += piece
        most = min(2 * most, page_size)


def check_integer_size(size: int, values: Iterable[int] = ()) -> None:
    """Check the size of integers, in bytes, and that it can hold some.

    Raises:
        ValueError: there are none of that size, or it cannot hold one.
    """
    if size not in _INTEGER_SIZES:
        raise ValueError(f"there are no integers of {size} bytes; sizes are {_INTEGER_SIZES}")
    for value in values:
        if not 0 <= value < 1 << 8 * size:
            raise ValueError(f"{value} is no unsigned integer of {size} bytes")
