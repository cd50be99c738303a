"""The frame of a call: the words of its arguments, by the registers and slots that hold them."""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr, _Pointer, _SimpleCData  # The bases have no public names.
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitlink.abi.buffers import In, InOut, Memory, Out, PlacedMemory
from jitlink.abi.conventions import (
    WORD,
    ArgumentClass,
    CallingConvention,
    Word,
    classify,
    is_pointer,
    words_of,
)

_INTEGER, _FLOAT = ArgumentClass.INTEGER, ArgumentClass.FLOAT
_MEMORY = ArgumentClass.MEMORY
_ONES = (1 << 8 * WORD) - 1
_ByRef = type(ctypes.byref(ctypes.c_int()))
_POINTERS = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p)
_OF_CTYPES = (bytes, str, ctypes.Array, _Pointer, _ByRef, *_POINTERS)
"""Arguments that ctypes passes as pointers, too, if the parameter's type allows it."""


class Piece(NamedTuple):
    """Where a part of a value is.

    Attributes:
        words: the words of integer registers, of floating-point registers, or on the stack.
        place: which of them.
        offset: of the part in the value, in bytes.
        size: in bytes.
    """

    words: list[int]
    place: int
    offset: int
    size: int


class Parameter(NamedTuple):
    """Where a function finds an argument.

    Attributes:
        ctype: its ctypes type.
        pieces: where its parts are.
        is_reference: whether they are the address of the argument.
    """

    ctype: type[Any]
    pieces: Sequence[Piece]
    is_reference: bool


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
        self._free = {_INTEGER: convention.integer_registers, _FLOAT: convention.float_registers}
        self.integers: list[int] = []
        self.floats: list[int] = []
        self.stack: list[int] = []
        self.memory: list[PlacedMemory] = []
        # What an address or a number takes that is not larger.
        self._address = Word(_INTEGER, 0, convention.word)
        self._targets = {_INTEGER: self.integers, _FLOAT: self.floats, _MEMORY: self.stack}

    @property
    def registers(self) -> list[int]:
        """All registers of a call: integers, then floating point."""
        convention = self._convention
        integers = self.integers + [0] * (convention.frame_integers - len(self.integers))
        return integers + self.floats + [0] * (convention.float_registers - len(self.floats))

    def set_word(self, slot: int, word: int) -> None:
        """Set a word that `PlacedMemory.slot` names."""
        convention = self._convention
        first_on_stack = convention.frame_integers + convention.float_registers
        if slot >= first_on_stack:
            self.stack[slot - first_on_stack] = word
            return
        self.integers += [0] * (slot + 1 - len(self.integers))
        self.integers[slot] = word

    def add_value(
        self,
        value: Any,  # noqa: ANN401 - any ctypes object
        *,
        is_variadic: bool = False,
    ) -> None:
        """Place a ctypes object.

        Args:
            value: the object.
            is_variadic: whether the function has no parameter for it.

        Raises:
            TypeError: such a value cannot be passed.
        """
        words = classify(type(value), self._convention, is_variadic=is_variadic)
        data = bytes(value)
        if self._convention.passes_copies and _is_in_memory(words):
            # Of its own: the function may write to it.
            self.add_memory(In(data))
            return
        word = self._convention.word
        if isinstance(value, _SimpleCData) and len(data) < word:
            number = value.value
            if isinstance(value, ctypes.c_char):
                number = int.from_bytes(data, "little", signed=self._convention.has_signed_char)
            if isinstance(number, int):
                if len(data) == 4 and self._convention.sign_extends_32:
                    number = ctypes.c_int32(number).value
                # Compilers rely on small integers that are extended.
                data = (number & _ONES).to_bytes(WORD, "little")[:word]
                words = [self._address]
        if is_pointer(type(value)):
            if any(data[word:]):
                address = int.from_bytes(data, "little")
                raise TypeError(f"{address:#x} is no address of {word} bytes")
            data = data[:word]
        alignment = ctypes.alignment(type(value)) if len(data) > word else 1
        self._place(data, words, alignment)

    def add_memory(self, memory: Memory) -> None:
        """Place a pointer to memory, which is not known yet."""
        on_stack = len(self.registers) + len(self.stack)
        slot = len(self.integers) if self._free[_INTEGER] else on_stack
        self.memory.append(PlacedMemory(slot, memory))
        self._place(bytes(self._convention.word), [self._address])

    def add_result_memory(self, memory: Memory) -> None:
        """Place the pointer to memory for the result; before any argument."""
        register = self._convention.result_register
        if register < self._convention.integer_registers:
            self.add_memory(memory)
        else:
            self.memory.append(PlacedMemory(register, memory))

    def add_parameter(self, ctype: type[Any]) -> Parameter:
        """Reserve what an argument of a ctypes type has; it is zero.

        Raises:
            TypeError: such values cannot be passed.
        """
        words = classify(ctype, self._convention)
        if self._convention.passes_copies and _is_in_memory(words):
            size = self._convention.word
            return Parameter(ctype, self._reserve([self._address], size), is_reference=True)
        size = self._convention.word if is_pointer(ctype) else ctypes.sizeof(ctype)
        alignment = ctypes.alignment(ctype) if size > self._convention.word else 1
        return Parameter(ctype, self._reserve(words, size, alignment), is_reference=False)

    def _place(self, data: bytes, words: Sequence[Word], alignment: int = 1) -> None:
        for target, place, offset, size in self._reserve(words, len(data), alignment):
            number = _number(data[offset : offset + size])
            if target is self.floats and self._convention.boxes_floats:
                number |= -1 << 8 * size & _ONES
            target[place] = number

    def _reserve(self, words: Sequence[Word], size: int, alignment: int = 1) -> list[Piece]:
        """Registers or slots of the stack for a value of some bytes, there aligned to some."""
        kinds = [each.kind for each in words]
        if not all(kinds.count(kind) <= self._free.get(kind, 0) for kind in kinds):
            words = self._remaining_words(kinds, size)
        if alignment > self._convention.word and words[0].kind is _MEMORY:
            self.stack += [0] * (-len(self.stack) % (alignment // self._convention.word))
        pieces = []
        for kind, offset, count in words:
            target = self._targets[kind]
            pieces.append(Piece(target, len(target), offset, count))
            target.append(0)
            if kind in self._free:
                self._free[kind] -= 1
        return pieces

    def _remaining_words(self, kinds: Sequence[ArgumentClass], size: int) -> list[Word]:
        """The words of a value for whose words there are not enough registers of their kinds."""
        word = self._convention.word
        if self._convention.divides_values:
            free = self._free[_INTEGER]
            return [*words_of(_INTEGER, size, word)[:free], *words_of(_MEMORY, size, word)[free:]]
        if not self._convention.fills_gaps:
            self._free.update(dict.fromkeys(kinds, 0))
        return words_of(_MEMORY, size, word)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _is_in_memory(words: Sequence[Word]) -> bool:
    return any(each.kind is _MEMORY for each in words)


def place_arguments(
    convention: CallingConvention,
    types: Sequence[Any] | None,
    arguments: Sequence[object],
    result: Memory | None,
) -> CallFrame:
    """The frame of a call.

    Args:
        convention: the calling convention.
        types: ctypes types of the arguments; further ones are variadic. None: they are not known,
            and the function is not variadic.
        arguments: the arguments.
        result: memory for a result that is not returned in registers.

    Raises:
        TypeError: an argument is missing, or cannot be passed.
    """
    known = types or ()
    if len(arguments) < len(known):
        raise TypeError(f"{len(known)} arguments are needed, and {len(arguments)} were given")
    frame = CallFrame(convention)
    if result is not None:
        frame.add_result_memory(result)
    for number, argument in enumerate(arguments):
        kind = known[number] if number < len(known) else None
        try:
            _add(frame, kind, argument, is_variadic=types is not None and kind is None)
        except TypeError as error:
            raise TypeError(f"argument {number + 1}: {error}") from None
    return frame


def _add(
    frame: CallFrame,
    kind: Any,  # noqa: ANN401 - a ctypes type
    argument: object,
    *,
    is_variadic: bool,
) -> None:
    memory = _memory_for(kind, argument)
    if memory is not None:
        frame.add_memory(memory)
    elif hasattr(argument, "_as_parameter_"):
        kind = None if _is_function(kind) else kind
        _add(frame, kind, argument._as_parameter_, is_variadic=is_variadic)
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
        frame.add_value(argument, is_variadic=is_variadic)
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


def _memory_for(kind: Any, argument: object) -> Memory | None:  # noqa: ANN401 - a ctypes type
    """The memory that an argument stands for, if a parameter of a type may be a pointer.

    Raises:
        TypeError: in this process ctypes refuses it for that type, too.
    """
    if kind is None:
        return _memory_of(argument)
    if not _is_pointer(kind):
        return None
    if _is_typed_pointer(kind) and isinstance(argument, kind._type_):
        # As in this process: what a pointer points to is passed by reference.
        return InOut(argument)
    if isinstance(argument, _OF_CTYPES):
        kind.from_param(argument)
    return _memory_of(argument)


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
    # NumPy's scalars are numbers that have this attribute, too.
    if hasattr(argument, "__array_interface__") and not isinstance(argument, np.generic):
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
    if not _is_in_memory(classify(restype, convention)):
        return None
    return Out(restype())


def result_words(convention: CallingConvention, restype: Any) -> tuple[int, int]:  # noqa: ANN401
    """How many integer and floating-point registers hold a result.

    Args:
        convention: the calling convention.
        restype: as for `result_memory`.

    Raises:
        TypeError: such a value cannot be returned.
    """
    if restype is None:
        return 0, 0
    kinds = [each.kind for each in classify(_result_type(restype), convention)]
    return kinds.count(_INTEGER), kinds.count(_FLOAT)


def _result_type(restype: Any) -> Any:  # noqa: ANN401
    return restype if _is_ctype(restype) else ctypes.c_int


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
    ctype = _result_type(restype)
    remaining = {
        _INTEGER: list(registers[: convention.integer_results]),
        _FLOAT: list(registers[convention.integer_results :]),
    }
    data = bytearray(ctypes.sizeof(ctype))
    for kind, offset, size in classify(ctype, convention):
        data[offset : offset + size] = remaining[kind].pop(0).to_bytes(WORD, "little")[:size]
    value = ctype.from_buffer_copy(data)
    if isinstance(value, _SimpleCData) and type(value).__mro__[1] is _SimpleCData:
        value = value.value
    return value if _is_ctype(restype) else restype(value)


def _is_ctype(kind: Any) -> bool:  # noqa: ANN401
    try:
        ctypes.sizeof(kind)
    except TypeError:
        return False
    return isinstance(kind, type)
