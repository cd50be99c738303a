"""TLS modules in an executor that is another process: the runtime loads them there."""

from __future__ import annotations

import contextlib
import os
import weakref

from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl
from jitlink.runtime.linked import runtime_of
from jitlink.sps import (
    CHARS,
    ERROR,
    EXECUTOR_ADDR,
    STRING,
    UINT64,
    Expected,
    Failure,
    WrapperSignature,
)
from jitlink.sps import Sequence as SPSSequence
from jitlink.sps.types import T

_LOAD = WrapperSignature(Expected(EXECUTOR_ADDR), CHARS)
_LOAD_FILE = WrapperSignature(Expected(EXECUTOR_ADDR), STRING)
_UNLOAD = WrapperSignature(ERROR, EXECUTOR_ADDR)
_READ_WORDS = WrapperSignature(Expected(SPSSequence(UINT64)), EXECUTOR_ADDR, STRING, UINT64)


class RuntimeTLSLoader:
    """Loads TLS modules by functions of the runtime.

    Args:
        executor: the executor.
    """

    def __init__(self, executor: ExecutorProcessControl) -> None:
        # The executor's memory manager has the loader: without a cycle it ends when it is dropped.
        self._executor = weakref.ref(executor)
        self._generation = executor.generation

    async def load_tls_module(self, data: bytes) -> int:
        """Load a TLS module and return a handle."""
        executor = self._executor()
        if executor is None or executor.library_directory is None:
            return await self._call("__jitlink_load_tls_module", _LOAD, data)
        # The name is new, because the C library takes equal ones for the same library.
        path = os.path.join(executor.library_directory, os.urandom(16).hex())  # noqa: PTH118
        try:
            _write(path, data)
            return await self._call("__jitlink_load_tls_file", _LOAD_FILE, path)
        except OSError as error:
            raise ExecutorError(f"cannot write a TLS module: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108

    async def unload_tls_module(self, handle: int) -> None:
        """Unload it."""
        await self._call("__jitlink_unload_tls_module", _UNLOAD, handle)

    async def read_words(self, handle: int, symbol: str, count: int) -> list[int]:
        """Read unsigned words of the size of a pointer at a symbol of a loaded TLS module."""
        return await self._call("__jitlink_read_words", _READ_WORDS, handle, symbol, count)

    async def _call(
        self, name: str, signature: WrapperSignature[T | Failure], *arguments: object
    ) -> T:
        executor = self._executor()
        if executor is None:
            raise ExecutorError("the executor is gone")
        address = (await runtime_of(executor)).addresses[name]
        value: T = await executor.call_function(
            name, address, signature, *arguments, generation=self._generation
        )
        return value

    def instance_address(self, module: int, offset: int) -> int:
        """A thread of this process has no instances there.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError(
            f"offset {offset} of TLS module {module} is in another process, "
            "where the calling thread has no thread-local variables"
        )

    def is_instance(self, module: int, offset: int, address: int) -> bool:  # noqa: ARG002
        """True: the executor looks each address up on another thread."""
        return True

    def tunables_for(self, extra: int) -> str | None:  # noqa: ARG002
        """None: how the other process was started is unknown."""
        return None


def _write(path: str, data: bytes) -> None:
    """Write a new file that any user can read: the executor may be another one's."""
    with open(path, "xb") as file:  # noqa: PTH123 - slow to import
        os.fchmod(file.fileno(), 0o444)
        file.write(data)
