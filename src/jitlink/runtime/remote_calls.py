"""C functions of an executor that is another process, called like those of ctypes.

The arguments are placed here, for the executor's calling convention; a function of the runtime
loads them into registers. What they point to travels with the call, and back with its result.
"""

from __future__ import annotations

import ctypes
from _ctypes import _SimpleCData  # The base of simple types has no public name.
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jitlink import tasks
from jitlink.abi.buffers import Region, regions_of
from jitlink.abi.conventions import CallingConvention, convention_of
from jitlink.abi.frames import CallFrame, place_arguments, read_result, result_memory
from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl, ProtocolError
from jitlink.runtime.linked import runtime_of
from jitlink.sps import (
    BOOL,
    CHARS,
    EXECUTOR_ADDR,
    UINT64,
    Record,
    Tuple,
    WrapperSignature,
)
from jitlink.sps import Sequence as SPSSequence

_STRING_PIECE = 256


class _Buffer(NamedTuple):
    """A region: the words that point into it are slots and offsets."""

    is_output: bool
    size: int
    content: bytes
    pointers: list[tuple[int, int]]


_WORDS = SPSSequence(UINT64)
_POINTERS = SPSSequence(Tuple(UINT64, UINT64))
_BUFFERS = SPSSequence(Record(_Buffer, BOOL, UINT64, CHARS, _POINTERS))


def _signature(convention: CallingConvention) -> WrapperSignature[tuple[Any, ...]]:
    registers = convention.frame_integers + convention.float_registers
    results = convention.integer_results + convention.float_results
    return WrapperSignature(
        Tuple(*[UINT64] * results, SPSSequence(CHARS)),
        EXECUTOR_ADDR,
        *[UINT64] * registers,
        _WORDS,
        _BUFFERS,
    )


class RemoteFunction:
    """A C function of another process.

    Args:
        executor: the process.
        address: the function's address there.

    Attributes:
        argtypes: ctypes types of the parameters; further arguments are variadic. None: all are.
        restype: ctypes type of the result, None for no result, or a function that takes a C int.
        code: an object that lives as long as this one.

    Raises:
        ExecutorError: functions of the executor's architecture cannot be called.
    """

    def __init__(self, executor: ExecutorProcessControl, address: int) -> None:
        convention = convention_of(executor.triple)
        if convention is None:
            raise ExecutorError(f"functions of {executor.triple} cannot be called from here")
        self.argtypes: Sequence[type[Any]] | None = None
        self.restype: Callable[..., Any] | None = ctypes.c_int
        self._executor = executor
        self._address = address
        self.code: object = None
        self._convention = convention
        self._signature = _signature(convention)

    def __repr__(self) -> str:
        return f"<RemoteFunction {self._address:#x}>"

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - as its restype says
        """Call the function.

        Raises:
            TypeError: an argument or the result is of a type that cannot be passed.
            ExecutorError: the executor cannot make the call, or ended during it.
        """
        result = result_memory(self._convention, self.restype)
        frame = place_arguments(self._convention, self.argtypes, arguments, result)
        regions = regions_of(frame.memory)
        registers, contents = tasks.run(self._call(frame, regions))
        outputs = [each for each in regions if each.is_output]
        if [each.size for each in outputs] != list(map(len, contents)):
            raise ProtocolError("a call has returned memory of other sizes than it was given")
        for each, content in zip(outputs, contents, strict=True):
            each.store(content)
        if result is not None:
            return result.value
        if self._returns_string and registers[0]:
            return tasks.run(self._string_at(registers[0]))
        return read_result(self._convention, self.restype, registers)

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        """For other functions of the process: a pointer to the function."""
        return ctypes.c_void_p(self._address)

    @property
    def _returns_string(self) -> bool:
        return isinstance(self.restype, type) and issubclass(self.restype, ctypes.c_char_p)

    async def _call(
        self, frame: CallFrame, regions: Sequence[Region]
    ) -> tuple[list[int], list[bytes]]:
        """Result registers, and the contents of the regions that are copied back."""
        buffers = [
            _Buffer(each.is_output, each.size, each.content(), each.pointers) for each in regions
        ]
        runtime = await runtime_of(self._executor)
        *registers, contents = await self._executor.call_function(
            "__jitlink_call",
            runtime.addresses["__jitlink_call"],
            self._signature,
            *(self._address, *frame.registers, frame.stack, buffers),
        )
        return registers, contents

    async def _string_at(self, address: int) -> bytes:
        """A string that ends with a null, without that."""
        found = b""
        while True:
            # No more than there is for sure: an address that cannot be read ends the executor.
            size = min(_STRING_PIECE, -address % self._executor.page_size or _STRING_PIECE)
            piece = await self._executor.read_memory(address, size)
            if b"\0" in piece:
                return found + piece[: piece.index(b"\0")]
            found += piece
            address += size


class RemoteVariable:
    """A variable of another process.

    Args:
        executor: the process.
        address: the variable's address there.
        ctype: its ctypes type.

    Attributes:
        address: the same.
        code: an object that lives as long as this one.
    """

    def __init__(self, executor: ExecutorProcessControl, address: int, ctype: type[Any]) -> None:
        self.address = address
        self.code: object = None
        self._executor = executor
        self._ctype = ctype

    def __repr__(self) -> str:
        return f"<RemoteVariable {self._ctype.__name__} at {self.address:#x}>"

    @property
    def value(self) -> Any:  # noqa: ANN401 - as its type says
        """What it holds now: a number for a simple type, else a copy as an object of the type.

        Raises:
            ExecutorError: it cannot be read.
        """
        size = ctypes.sizeof(self._ctype)
        copy = self._ctype.from_buffer_copy(
            tasks.run(self._executor.read_memory(self.address, size))
        )
        return copy.value if isinstance(copy, _SimpleCData) else copy

    @value.setter
    def value(self, value: object) -> None:
        copy = value if isinstance(value, self._ctype) else self._ctype(value)
        tasks.run(self._executor.write_memory(self.address, bytes(copy)))
