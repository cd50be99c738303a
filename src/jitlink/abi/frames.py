"""The frame of a call: the words of its arguments, by the registers and slots that hold them."""

from __future__ import annotations

import ctypes
from _ctypes import _Pointer, _SimpleCData  # The bases have no public names.
from collections.abc import Sequence
from typing import Any, NamedTuple

from jitlink.abi.buffers import In, InOut, Out
from jitlink.abi.conventions import WORD, ArgumentClass, CallingConvention, classify

Memory = In | Out | InOut
_INTEGER, _FLOAT = ArgumentClass.INTEGER, ArgumentClass.FLOAT
_ByRef = type(ctypes.byref(ctypes.c_int()))
_POINTERS = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p)


class PlacedMemory(NamedTuple):
    """Memory whose address in the executor takes the place of a word.

    Attributes:
        slot: the word: an integer register, or after all registers a slot of the stack.
        memory: the memory.
    """

    slot: int
    memory: Memory


class CallFrame:
    """Places arguments one after the other.

    Args:
        convention: the calling convention.

    Attributes:
        integers: words in integer registers.
        floats: words in floating-point registers.
        stack: words on the stack.
        memory: what the arguments point to.
    """

    def __init__(self, convention: CallingConvention) -> None:
        self._convention = convention
        self.integers: list[int] = []
        self.floats: list[int] = []
        self.stack: list[int] = []
        self.memory: list[PlacedMemory] = []

    def add_value(self, value: Any) -> None:  # noqa: ANN401 - any ctypes object
        """Place a ctypes object.

        Raises:
            TypeError: such a value cannot be passed.
        """
        classes = classify(type(value), self._convention)
        data = bytes(value).ljust(len(classes) * WORD, b"\0")
        words = [int.from_bytes(data[n : n + WORD], "little") for n in range(0, len(data), WORD)]
        if isinstance(value, _SimpleCData) and isinstance(value.value, int):
            # Compilers rely on small integers that are extended.
            words = [value.value & ((1 << 8 * WORD) - 1)]
        self._place(words, classes)

    def add_memory(self, memory: Memory) -> None:
        """Place a pointer to memory, which is not known yet."""
        if len(self.integers) < self._convention.integer_registers:
            slot = len(self.integers)
        else:
            registers = self._convention.integer_registers + self._convention.float_registers
            slot = registers + len(self.stack)
        self.memory.append(PlacedMemory(slot, memory))
        self._place([0], [_INTEGER])

    def _place(self, words: Sequence[int], classes: Sequence[ArgumentClass]) -> None:
        convention = self._convention
        fits = (
            ArgumentClass.MEMORY not in classes
            and len(self.integers) + classes.count(_INTEGER) <= convention.integer_registers
            and len(self.floats) + classes.count(_FLOAT) <= convention.float_registers
        )
        for word, each in zip(words, classes, strict=True):
            if not fits:
                self.stack.append(word)
            elif each is _INTEGER:
                self.integers.append(word)
            else:
                self.floats.append(word)


def place_arguments(
    convention: CallingConvention,
    types: Sequence[Any] | None,
    arguments: Sequence[object],
    result: Memory | None,
) -> CallFrame:
    """The frame of a call.

    Args:
        convention: the calling convention.
        types: ctypes types of the arguments; further ones are variadic. None: all are.
        arguments: the arguments.
        result: memory for a result that is not returned in registers.

    Raises:
        TypeError: an argument is missing, or cannot be passed.
    """
    types = types or ()
    if len(arguments) < len(types):
        raise TypeError(f"{len(types)} arguments are needed, and {len(arguments)} were given")
    frame = CallFrame(convention)
    if result is not None:
        frame.add_memory(result)
    for number, argument in enumerate(arguments):
        kind = types[number] if number < len(types) else None
        try:
            _add(frame, kind, argument)
        except TypeError as error:
            raise TypeError(f"argument {number + 1}: {error}") from None
    return frame


def _add(frame: CallFrame, kind: Any, argument: object) -> None:  # noqa: ANN401 - a ctypes type
    memory = _memory_of(argument)
    if memory is not None and (kind is None or _is_pointer(kind)):
        frame.add_memory(memory)
    elif kind is not None:
        frame.add_value(argument if isinstance(argument, kind) else kind(argument))
    elif argument is None:
        frame.add_value(ctypes.c_void_p(0))
    elif isinstance(argument, int):
        frame.add_value(ctypes.c_int(argument))
    elif isinstance(argument, _SimpleCData | ctypes.Structure | ctypes.Union):
        frame.add_value(argument)
    else:
        raise TypeError(f"a {type(argument).__name__} cannot be passed without a type")


def _memory_of(argument: object) -> Memory | None:
    """The memory that an argument stands for as a pointer."""
    if isinstance(argument, In | Out | InOut):
        return argument
    if isinstance(argument, bytes):
        # C strings end with a null.
        return In(argument + b"\0")
    if isinstance(argument, str):
        return In(bytes(ctypes.create_unicode_buffer(argument)))
    if isinstance(argument, _ByRef):
        return InOut(argument._obj)  # type: ignore[attr-defined]  # noqa: SLF001 - as in C
    if isinstance(argument, _Pointer) and bool(argument):
        return InOut(argument.contents)
    if isinstance(argument, ctypes.Array | bytearray | memoryview):
        return InOut(argument)
    if hasattr(argument, "__array_interface__"):
        return InOut(argument)
    if isinstance(argument, ctypes.c_char_p) and argument.value is not None:
        return In(argument.value + b"\0")
    return None


def _is_pointer(kind: Any) -> bool:  # noqa: ANN401 - a ctypes type
    return isinstance(kind, type) and (
        issubclass(kind, _POINTERS) or issubclass(kind, _Pointer | ctypes.Array)
    )


def result_memory(convention: CallingConvention, restype: Any) -> Out | None:  # noqa: ANN401
    """Memory for a result that is not returned in registers; None for all others.

    Args:
        convention: the calling convention.
        restype: a ctypes type, None, or a function that takes a C int.

    Raises:
        TypeError: such a value cannot be returned.
    """
    if not _is_ctype(restype):
        return None
    if ArgumentClass.MEMORY not in classify(restype, convention):
        return None
    return Out(restype())


def read_result(
    convention: CallingConvention,
    restype: Any,  # noqa: ANN401 - as ctypes takes it
    registers: Sequence[int],
) -> Any:  # noqa: ANN401 - what the type makes of it
    """The result of a call, as ctypes returns it.

    Args:
        convention: the calling convention.
        restype: as for `result_memory`.
        registers: the integer registers of results, then the floating-point registers.
    """
    if restype is None:
        return None
    ctype = restype if _is_ctype(restype) else ctypes.c_int
    remaining = {
        _INTEGER: list(registers[: convention.result_registers]),
        _FLOAT: list(registers[convention.result_registers :]),
    }
    words = [remaining[each].pop(0) for each in classify(ctype, convention)]
    data = b"".join(word.to_bytes(WORD, "little") for word in words)
    if issubclass(ctype, ctypes.c_char_p | ctypes.c_wchar_p):
        # A pointer into the other process, where nothing of this process can follow it.
        ctype = ctypes.c_void_p
    value = ctype.from_buffer_copy(data.ljust(ctypes.sizeof(ctype), b"\0"))
    if isinstance(value, _SimpleCData) and type(value).__mro__[1] is _SimpleCData:
        value = value.value
    return value if _is_ctype(restype) else restype(value)


def _is_ctype(kind: Any) -> bool:  # noqa: ANN401
    try:
        ctypes.sizeof(kind)
    except TypeError:
        return False
    return isinstance(kind, type)
