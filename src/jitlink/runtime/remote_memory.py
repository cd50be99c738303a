"""Memory of an executor that is another process: variables, pointers, and strings.

Nothing of this process can follow an address of another one, so what is there is copied: read when
it is asked for, and written when it is assigned.
"""

from __future__ import annotations

import ctypes
from _ctypes import _SimpleCData  # The base of simple types has no public name.
from collections.abc import Callable
from functools import partial
from typing import Any

from jitlink import tasks
from jitlink.executor import ExecutorProcessControl, ExecutorRestartedError, ProtocolError
from jitlink.executor.control import read_to_null
from jitlink.runtime.linked import runtime_of
from jitlink.sps import CHARS, EXECUTOR_ADDR, UINT64, WrapperSignature

_READ = WrapperSignature(CHARS, EXECUTOR_ADDR, UINT64)

Place = tuple[int, int]
"""A generation of an executor, and an address in its process."""


class Placed:
    """Something at an address of another process.

    Args:
        executor: the process.
        address: the address.
        generation: the executor's generation to which it belongs; by default the present one.

    Attributes:
        executor: the process.
        code: an object that lives as long as this one.
        find: finds it again, when the executor has ended or was restarted; None if it is lost then.
    """

    def __init__(
        self, executor: ExecutorProcessControl, address: int, generation: int | None = None
    ) -> None:
        self.executor = executor
        self.code: object = None
        self.find: Callable[[], Place] | None = None
        self._place = (executor.generation if generation is None else generation, address)

    @property
    def place(self) -> Place:
        """Where it is now.

        Raises:
            ExecutorRestartedError: it was in a process that has ended, and is found nowhere else.
        """
        executor = self.executor
        if executor.generation == self._place[0] and executor.is_alive:
            return self._place
        if self.find is not None:
            self._place = self.find()
        if executor.generation != self._place[0]:
            raise ExecutorRestartedError.of_address(self._place[1])
        return self._place

    @property
    def address(self) -> int:
        """Its address; errors as for `place`."""
        return self.place[1]


async def read_memory(
    executor: ExecutorProcessControl, address: int, size: int, generation: int | None = None
) -> bytes:
    """The bytes at an address, which the runtime reads where the executor cannot.

    Raises:
        ExecutorError: they cannot be read.
    """
    if executor.reads_memory:
        return await executor.read_memory(address, size, generation)
    runtime, name = await runtime_of(executor), "__jitlink_read_memory"
    if generation is None:
        generation = runtime.generation
    data = await executor.call_function(
        name, runtime.addresses[name], _READ, address, size, generation=generation
    )
    if len(data) != size:
        raise ProtocolError(f"{size} bytes at {address:#x} were read, and others returned")
    return bytes(data)


async def string_at(
    executor: ExecutorProcessControl, address: int, unit: int = 1, generation: int | None = None
) -> bytes:
    """The characters of a string up to its null.

    Args:
        executor: the process.
        address: where the string begins.
        unit: bytes of a character.
        generation: the executor's generation to which the address belongs.

    Raises:
        ExecutorError: it cannot be read.
    """
    read = partial(read_memory, executor, generation=generation)
    return await read_to_null(read, address, executor.page_size, unit)


def read_value(executor: ExecutorProcessControl, place: Place, ctype: type[Any]) -> Any:  # noqa: ANN401
    """A copy of an object of a ctypes type: a number for a simple type, else an object.

    Raises:
        ExecutorError: it cannot be read.
    """
    generation, address = place
    data = tasks.run(read_memory(executor, address, ctypes.sizeof(ctype), generation))
    copy = ctype.from_buffer_copy(data)
    return copy.value if isinstance(copy, _SimpleCData) else copy


def write_value(
    executor: ExecutorProcessControl, place: Place, ctype: type[Any], value: object
) -> None:
    """Write an object of a ctypes type, or what makes one.

    Raises:
        TypeError: the value makes no object of the type.
        ExecutorError: it cannot be written.
    """
    copy = value if isinstance(value, ctype) else ctype(value)
    generation, address = place
    tasks.run(executor.write_memory(address, bytes(copy), generation))


class RemotePointer:
    """A pointer to objects of another process, used like a pointer of ctypes.

    Args:
        executor: the process.
        address: the address there; 0 is a null pointer, which is false.
        ctype: ctypes type of what it points to.
        generation: the executor's generation to which the address belongs; by default the present
            one.

    Attributes:
        address: the same.
    """

    def __init__(
        self,
        executor: ExecutorProcessControl,
        address: int,
        ctype: type[Any],
        generation: int | None = None,
    ) -> None:
        self.address = address
        self._executor = executor
        self._generation = executor.generation if generation is None else generation
        self._ctype = ctype

    def __repr__(self) -> str:
        return f"<RemotePointer to {self._ctype.__name__} at {self.address:#x}>"

    def __bool__(self) -> bool:
        return self.address != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePointer) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __getitem__(self, index: int | slice) -> Any:  # noqa: ANN401 - as its type says
        """Copies of the objects: numbers for a simple type.

        Raises:
            ValueError: it is a null pointer, or a slice has no end.
            ExecutorError: they cannot be read.
        """
        if isinstance(index, slice):
            if index.stop is None or (index.start is None and (index.step or 1) < 0):
                raise ValueError("a slice of a pointer needs a start and an end")
            numbers = range(index.start or 0, index.stop, index.step or 1)
            return [read_value(self._executor, self._place(n), self._ctype) for n in numbers]
        return read_value(self._executor, self._place(index), self._ctype)

    def __setitem__(self, index: int, value: object) -> None:
        """Write an object.

        Raises:
            ValueError: it is a null pointer.
            ExecutorError: it cannot be written.
        """
        write_value(self._executor, self._place(index), self._ctype, value)

    @property
    def contents(self) -> RemoteVariable:
        """The object that it points to.

        Raises:
            ValueError: it is a null pointer.
        """
        generation, address = self._place(0)
        return RemoteVariable(self._executor, address, self._ctype, generation)

    def _place(self, index: int) -> Place:
        if not self.address:
            raise ValueError("NULL pointer access")
        return self._generation, self.address + index * ctypes.sizeof(self._ctype)

    @property
    def _as_parameter_(self) -> object:
        """For functions of the process.

        Raises:
            ExecutorRestartedError: it was a pointer of a process that has ended.
        """
        if self.address and self._executor.generation != self._generation:
            raise ExecutorRestartedError.of_address(self.address)
        word = ctypes.c_void_p(self.address)
        return ctypes.POINTER(self._ctype).from_buffer_copy(word)


class RemoteVariable(Placed):
    """A variable of another process.

    Args:
        executor: the process.
        address: the variable's address there.
        ctype: its ctypes type.
        generation: the executor's generation to which it belongs; by default the present one.

    Attributes:
        executor: the process.
        code: an object that lives as long as this one.
        find: finds it again, when the executor has ended or was restarted; None if it is lost then.
    """

    def __init__(
        self,
        executor: ExecutorProcessControl,
        address: int,
        ctype: type[Any],
        generation: int | None = None,
    ) -> None:
        super().__init__(executor, address, generation)
        self._ctype = ctype

    def __repr__(self) -> str:
        return f"<RemoteVariable {self._ctype.__name__} at {self._place[1]:#x}>"

    @property
    def value(self) -> Any:  # noqa: ANN401 - as its type says
        """What it holds now: a number for a simple type, else a copy as an object of the type.

        Raises:
            ExecutorError: it cannot be read.
            ExecutorRestartedError: it was in a process that has ended.
        """
        return read_value(self.executor, self.place, self._ctype)

    @value.setter
    def value(self, value: object) -> None:
        write_value(self.executor, self.place, self._ctype, value)
