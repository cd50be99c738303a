"""C functions of an executor that is another process, called like those of ctypes; and back.

The arguments are placed here, for the executor's calling convention; a function of the runtime
loads them into registers. What they point to travels with the call, and back with its result.

A Python function gets what its parameters hold as it would in this process, but for pointers, which
are addresses of the executor: strings are read, and others are a `RemotePointer` or a
`RemoteFunction`.
"""

from __future__ import annotations

import ctypes
import weakref
from _ctypes import CFuncPtr, _Pointer, _SimpleCData  # The bases have no public names.
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jitlink import tasks
from jitlink.abi.buffers import Region, regions_of
from jitlink.abi.callbacks import HostFunction, Parameters, PassedWords, wrapped_function
from jitlink.abi.conventions import WORD, CallingConvention, convention_of
from jitlink.abi.frames import (
    CallFrame,
    Parameter,
    place_arguments,
    read_result,
    result_memory,
    result_words,
)
from jitlink.abi.scalars import ScalarPlan, scalar_plan
from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl, ProtocolError
from jitlink.executor.callback_errors import callback_errors, report, reporting
from jitlink.runtime.remote_callbacks import callbacks_of, remote_callbacks_of
from jitlink.runtime.remote_memory import Placed, RemotePointer, read_memory, string_at
from jitlink.sps import (
    BOOL,
    CHARS,
    EXECUTOR_ADDR,
    UINT64,
    Record,
    Tuple,
    Words,
    WrapperSignature,
)
from jitlink.sps import Sequence as SPSSequence

if TYPE_CHECKING:
    from jitlink.executor.emulated.calls import EmulatedCalls


class _Buffer(NamedTuple):
    """A region: the words that point into it are slots and offsets."""

    is_output: bool
    size: int
    content: bytes
    pointers: list[tuple[int, int]]


_POINTERS = SPSSequence(Tuple(UINT64, UINT64))
_BUFFERS = SPSSequence(Record(_Buffer, BOOL, UINT64, CHARS, _POINTERS))


def _signature(convention: CallingConvention) -> WrapperSignature[tuple[Any, ...]]:
    registers = convention.frame_integers + convention.float_registers
    results = convention.integer_results + convention.float_results
    return WrapperSignature(
        Tuple(Words(results), SPSSequence(CHARS)),
        *(EXECUTOR_ADDR, Words(registers), SPSSequence(UINT64), _BUFFERS),
    )


class RemoteFunction(Placed):
    """A C function of another process.

    Args:
        executor: the process.
        address: the function's address there.
        generation: the executor's generation to which it belongs; by default the present one.

    Attributes:
        executor: the process.
        argtypes: ctypes types of the parameters; further arguments are variadic. None: they are not
            known, and the function is not variadic, which makes a difference on RISC-V.
        restype: ctypes type of the result, None for no result, or a function that takes a C int.
        timeout: seconds after which a call is stopped, and with it the executor; None for the
            executor's own.
        code: an object that lives as long as this one.
        find: finds it again, when the executor has ended or was restarted; None if it is lost then.
    """

    def __init__(
        self, executor: ExecutorProcessControl, address: int, generation: int | None = None
    ) -> None:
        super().__init__(executor, address, generation)
        self.argtypes: Sequence[type[Any]] | None = None
        self.restype: Callable[..., Any] | None = ctypes.c_int
        self.timeout: float | None = None
        self._planned: tuple[tuple[Any, ...], ScalarPlan | None] | None = None

    @cached_property
    def _convention(self) -> CallingConvention:
        """How the function is called. Addresses have functions, also where these cannot be."""
        convention = convention_of(self.executor.triple)
        if convention is None:
            raise ExecutorError(f"functions of {self.executor.triple} cannot be called from here")
        return convention

    @cached_property
    def _signature(self) -> WrapperSignature[tuple[Any, ...]]:
        return _signature(self._convention)

    def __repr__(self) -> str:
        return f"<RemoteFunction {self._place[1]:#x}>"

    def __bool__(self) -> bool:
        return self._place[1] != 0

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - as its restype says
        """Call the function.

        Raises:
            TypeError: an argument or the result is of a type that cannot be passed.
            ExecutorError: the executor cannot make the call, or ended during it, or functions of
                its architecture cannot be called.
            ExecutorRestartedError: the function was in a process that has ended.
            BaseException: raised by a Python function that the code called.
        """
        direct = self.executor.direct_calls
        if direct is not None:
            plan = self._plan_for(len(arguments))
            frame = CallFrame(self._convention)
            if plan is not None and plan.place(frame, arguments):
                with callback_errors():
                    integers, floats, _ = direct.call(
                        self.place[1], frame, (), plan.counts, self.timeout
                    )
                return plan.read(integers, floats)
        while True:
            generation, address = self.place
            result = result_memory(self._convention, self.restype)
            placed = tuple(map(self._in_executor, arguments))
            frame = place_arguments(self._convention, self.argtypes, placed, result)
            if self.place[0] == generation:
                break
            # The executor was restarted meanwhile: functions among the arguments have moved.
        regions = regions_of(frame.memory)
        with callback_errors():
            if direct is not None:
                registers, contents = self._call_directly(direct, address, frame, regions)
            else:
                registers, contents = tasks.run(self._call(generation, address, frame, regions))
        outputs = [each for each in regions if each.is_output]
        if [each.size for each in outputs] != list(map(len, contents)):
            raise ProtocolError("a call has returned memory of other sizes than it was given")
        for each, content in zip(outputs, contents, strict=True):
            each.store(content)
        if result is not None:
            return result.value
        if isinstance(self.restype, type) and issubclass(self.restype, _ADDRESSES):
            data = registers[0].to_bytes(WORD, "little")
            return value_of(self.executor, self.restype, data, generation)
        return read_result(self._convention, self.restype, registers)

    def _plan_for(self, count: int) -> ScalarPlan | None:
        """The plan for calls with so many arguments, made once for the types of the function."""
        types = None if self.argtypes is None else tuple(self.argtypes)
        key = types, count, self.restype
        if self._planned is None or self._planned[0] != key:
            self._planned = key, scalar_plan(self._convention, *key)
        return self._planned[1]

    def _in_executor(self, argument: object) -> object:
        """An argument that is a Python function as a function of the executor."""
        if not isinstance(argument, CFuncPtr):
            return argument
        function = wrapped_function(argument)
        if function is None:
            return argument
        prototype = type(argument)

        async def find_address() -> int:
            callbacks = await callbacks_of(self.executor)
            return await callbacks.address_of(
                self.executor, argument, lambda: host_function(self.executor, function, prototype)
            )

        return prototype(tasks.run(find_address()))

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        """For other functions of the process: a pointer to the function."""
        return ctypes.c_void_p(self.address)

    def _call_directly(
        self,
        direct: EmulatedCalls,
        address: int,
        frame: CallFrame,
        regions: Sequence[Region],
    ) -> tuple[Sequence[int], list[bytes]]:
        """`_call` without the runtime."""
        convention, counts = self._convention, result_words(self._convention, self.restype)
        integers, floats, contents = direct.call(address, frame, regions, counts, self.timeout)
        return integers + [0] * (convention.integer_results - len(integers)) + floats, contents

    async def _call(
        self, generation: int, address: int, frame: CallFrame, regions: Sequence[Region]
    ) -> tuple[Sequence[int], list[bytes]]:
        """Result registers, and the contents of the regions that are copied back."""
        buffers = [
            _Buffer(each.is_output, each.size, each.content(), each.pointers) for each in regions
        ]
        callbacks = await remote_callbacks_of(self.executor)
        registers, contents = await self.executor.call_function(
            "__jitlink_call",
            callbacks.runtime.addresses["__jitlink_call"],
            self._signature,
            *(address, frame.registers, frame.stack, buffers),
            generation=generation,
            timeout=self.timeout,
        )
        return registers, contents


_ADDRESSES = (ctypes.c_char_p, ctypes.c_wchar_p, _Pointer, CFuncPtr)


def value_of(
    executor: ExecutorProcessControl, ctype: type[Any], data: bytes, generation: int
) -> Any:  # noqa: ANN401 - as its type says
    """A value of another process as ctypes has it: strings, numbers, or an object.

    Args:
        executor: the process.
        ctype: its ctypes type.
        data: its bytes.
        generation: the executor's generation that it comes from.

    Raises:
        ExecutorError: a string cannot be read.
    """
    if not issubclass(ctype, _ADDRESSES):
        value = ctype.from_buffer_copy(data)
        # ctypes converts the simple types themselves, and no class that is derived from one.
        return value.value if ctype.__mro__[1] is _SimpleCData else value
    address, kind = int.from_bytes(data, "little"), cast("Any", ctype)
    if issubclass(ctype, _Pointer):
        return RemotePointer(executor, address, kind._type_, generation)
    if issubclass(ctype, CFuncPtr):
        function = RemoteFunction(executor, address, generation)
        function.argtypes, function.restype = kind._argtypes_, kind._restype_
        return function
    if not address:
        return None
    if issubclass(ctype, ctypes.c_char_p):
        return tasks.run(string_at(executor, address, generation=generation))
    unit = ctypes.sizeof(ctypes.c_wchar)
    return ctypes.wstring_at(
        tasks.run(string_at(executor, address, unit, generation)) + bytes(unit)
    )


def host_function(
    executor: ExecutorProcessControl, function: Callable[..., Any], prototype: type[Any]
) -> HostFunction:
    """A Python function for code of another process.

    Args:
        executor: the process.
        function: the function.
        prototype: its ctypes function type.

    Raises:
        TypeError: C code of the process cannot call functions of this prototype.
        ExecutorError: code of the process cannot call Python.
    """
    convention = convention_of(executor.triple)
    if convention is None:
        raise ExecutorError(f"code of {executor.triple} cannot call Python")
    # What ctypes makes no function of, it refuses here.
    prototype(function)
    parameters = Parameters(convention, prototype)
    call = reporting(function, prototype)
    # The connection, which keeps the function, must not keep the executor.
    reference, generation = weakref.ref(executor), executor.generation

    def handle(words: PassedWords) -> Sequence[int]:
        owner = reference()
        if owner is None:
            return parameters.result_words(parameters.zero)
        try:
            found = zip(parameters.each, parameters.read(*words), strict=True)
            arguments = [_argument(owner, parameter, data, generation) for parameter, data in found]
            return parameters.result_words(call(*arguments))
        except Exception as error:  # noqa: BLE001 - raised in the caller of the code
            report(error)
            return parameters.result_words(parameters.zero)

    return HostFunction(parameters.words, parameters.results, handle)


def _argument(
    executor: ExecutorProcessControl, parameter: Parameter, data: bytes, generation: int
) -> Any:  # noqa: ANN401 - as its type says
    """What a Python function gets for a parameter."""
    if parameter.is_reference:
        address = int.from_bytes(data, "little")
        size = ctypes.sizeof(parameter.ctype)
        data = tasks.run(read_memory(executor, address, size, generation))
    return value_of(executor, parameter.ctype, data, generation)
