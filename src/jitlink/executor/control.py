"""The interface of executors: processes in which linked code is placed and run.

The methods are coroutines because an executor may be another process, on another machine. Those
of the executor for this process never suspend, so they can be run without an event loop.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

from jitlink.memory import JITLinkMemoryManager
from jitlink.sps import WrapperFunctionResult


class ExecutorProcessControl(ABC):
    """An executor.

    Attributes:
        triple: its target triple, such as ``x86_64-unknown-linux-gnu``.
        page_size: its page size in bytes.
        memory_manager: manages its memory.
    """

    triple: str
    page_size: int
    memory_manager: JITLinkMemoryManager

    def runs(self, triple: str) -> bool:
        """Whether the executor's processor runs code for a triple."""
        return triple.partition("-")[0] == self.triple.partition("-")[0]

    @abstractmethod
    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Load a shared library, for the rest of the executor's life.

        Returns:
            A handle for `lookup_symbols`.

        Raises:
            ExecutorError: it cannot be loaded.
        """

    @abstractmethod
    async def lookup_symbols(
        self, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        """Addresses of symbols that loaded libraries export.

        Args:
            names: linker-level names; bytes that are not UTF-8 are surrogate escapes.
            dylib: a handle from `load_dylib`: only that library and those it needs are
                searched. None: the program, the libraries that it was started with and all that
                `load_dylib` has loaded, in that order.

        Returns:
            For each name the address, which may be 0, or None if there is no such symbol.
        """

    @abstractmethod
    async def run_as_main(self, address: int, argv: Sequence[str], *, is_whole: bool = True) -> int:
        """Call ``int main(int argc, char **argv)``.

        Args:
            address: address of the function.
            argv: all arguments, the program's name first; surrogate escapes stand for bytes
                that are not UTF-8. The strings live as long as the executor does.
            is_whole: whether the program ends when the function returns. If not, its output may
                remain in C's buffers until `flush_output`.

        Returns:
            What the function returned.

        Raises:
            ValueError: an argument contains a null character.
        """

    async def flush_output(self) -> None:  # noqa: B027 - optional
        """Flush the output of linked code."""

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
    async def call_wrapper(self, address: int, arguments: bytes) -> WrapperFunctionResult:
        """Call a wrapper function with serialized arguments."""

    @abstractmethod
    async def read_memory(self, address: int, size: int) -> bytes:
        """The bytes at an address.

        Raises:
            ExecutorError: not all of them can be read.
        """

    @abstractmethod
    async def write_memory(self, address: int, content: bytes | bytearray | memoryview) -> None:
        """Write bytes to an address.

        Raises:
            ExecutorError: not all of them can be written; some may have been.
        """
