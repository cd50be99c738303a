"""The frame of a call: the words of its arguments, by the registers and slots that hold them."""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr, _Pointer, _SimpleCData  # The bases have no public names.
from collections.abc import Iterator, Sequence
from typing import Any

from jitlink.abi.buffers import In, InOut, Memory, Out, PlacedMemory
from jitlink.abi.conventions import WORD, ArgumentClass, CallingConvention, classify

_INTEGER, _FLOAT = ArgumentClass.INTEGER, ArgumentClass.FLOAT
_ByRef = type(ctypes.byref(ctypes.c_int()))
_POINTERS = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p)


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
        data = bytes(value)
        data += bytes(-len(data) % WORD)
        words = [int.from_bytes(data[n : n + WORD], "little") for n in range(0, len(data), WORD)]
        is_small = isinstance(value, _SimpleCData) and len(bytes(value)) < WORD
        if is_small and isinstance(value.value, int):
            # Compilers rely on small integers that are extended.
            words = [value.value & ((1 << 8 * WORD) - 1)]
        self.add_words(type(value), words)

    def add_words(self, ctype: type[Any], words: Sequence[int]) -> None:
        """Place the words of a value of a ctypes type.

        Raises:
            TypeError: such a value cannot be passed.
        """
        self._place(words, classify(ctype, self._convention))

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
    if _is_typed_pointer(kind) and isinstance(argument, kind._type_):
        # As in this process: what a pointer points to is passed by reference.
        memory = InOut(argument)
    if memory is not None and (kind is None or _is_pointer(kind)):
        frame.add_memory(memory)
    elif hasattr(argument, "_as_parameter_"):
        _add(frame, None if _is_function(kind) else kind, argument._as_parameter_)
    elif _is_function(kind) or isinstance(argument, CFuncPtr):
        _add_function(frame, kind, argument)
    elif _is_typed_pointer(kind) or (_is_pointer(kind) and isinstance(argument, _Pointer)):
        _add_pointer(frame, kind, argument)
    elif kind is not None:
        frame.add_value(argument if isinstance(argument, kind) else kind(argument))
    elif argument is None:
        frame.add_value(ctypes.c_void_p(0))
    elif isinstance(argument, int):
        frame.add_value(ctypes.c_int(argument))
    elif isinstance(argument, _SimpleCData | ctypes.Structure | ctypes.Union | _Pointer):
        frame.add_value(argument)
    else:
        raise TypeError(f"a {type(argument).__name__} cannot be passed without a type")


def _add_function(frame: CallFrame, kind: Any, argument: object) -> None:  # noqa: ANN401
    """Place a function pointer: null, or a function at an address of the executor."""
    if argument is None:
        argument = ctypes.c_void_p(0)
    # What keeps a Python function alive for C; functions at an address have nothing to keep.
    elif not isinstance(argument, CFuncPtr) or argument._objects:  # noqa: SLF001
        raise TypeError("a function of this process cannot be called by another one")
    elif kind is not None and not isinstance(argument, kind):
        raise TypeError(f"expected a {kind.__name__}, not a {type(argument).__name__}")
    frame.add_value(argument)


def _add_pointer(frame: CallFrame, kind: Any, argument: object) -> None:  # noqa: ANN401
    """Place a pointer: null, or one with an address of the executor."""
    if not _is_typed_pointer(kind):
        argument = ctypes.c_void_p(_address_in(argument))
    elif argument is None:
        argument = kind()
    elif not isinstance(argument, kind):
        raise TypeError(f"expected a {kind.__name__}, not a {type(argument).__name__}")
    frame.add_value(argument)


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
        target = argument._obj  # type: ignore[attr-defined]  # noqa: SLF001 - as in C
        return InOut(target, _address_in(argument) - ctypes.addressof(target))
    if isinstance(argument, ctypes.Array | bytearray | memoryview):
        return InOut(argument)
    if hasattr(argument, "__array_interface__"):
        return InOut(argument)
    if isinstance(argument, (_Pointer, *_POINTERS)):
        return _pointee(argument)
    return None


def _pointee(pointer: Any) -> Memory | None:  # noqa: ANN401 - any pointer of ctypes
    """The object of this process that a pointer was made from.

    None for a pointer that nothing of this process is known of: it is null, or has an address of
    the executor, such as one that a function has returned.
    """
    address = _address_in(pointer)
    # NumPy's ctypes.data_as keeps the array so.
    kept: Any
    for kept in (*_kept(pointer._objects), getattr(pointer, "_arr", None)):  # noqa: SLF001
        if isinstance(kept, bytes):
            memory: Memory = In(kept + b"\0")
            start = _address_in(ctypes.c_char_p(kept))
        elif hasattr(kept, "__array_interface__") or _is_ctype(type(kept)):
            memory = In(kept) if memoryview(kept).readonly else InOut(kept)
            start = memory.address
        else:
            continue
        if start <= address < start + memory.size:
            memory.offset = address - start
            return memory
    return None


def _kept(objects: object) -> Iterator[object]:
    """What a ctypes object keeps alive."""
    if isinstance(objects, dict):
        for each in objects.values():
            yield from _kept(each)
    else:
        yield objects


def _address_in(pointer: Any) -> int:  # noqa: ANN401 - any pointer of ctypes
    """The address that a pointer holds; 0 for null."""
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _is_pointer(kind: Any) -> bool:  # noqa: ANN401 - a ctypes type
    return isinstance(kind, type) and (
        issubclass(kind, _POINTERS) or issubclass(kind, _Pointer | ctypes.Array)
    )


def _is_typed_pointer(kind: Any) -> bool:  # noqa: ANN401 - a ctypes type
    return isinstance(kind, type) and issubclass(kind, _Pointer)


def _is_function(kind: Any) -> bool:  # noqa: ANN401 - a ctypes type
    return isinstance(kind, type) and issubclass(kind, CFuncPtr)


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
