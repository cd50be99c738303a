"""The other direction: the parameters of a Python function, found in the words of a C call."""

from __future__ import annotations

import ctypes
import gc
from _ctypes import CFuncPtr, _SimpleCData  # The bases have no public names.
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jitlink.abi.conventions import WORD, CallingConvention
from jitlink.abi.frames import CallFrame, result_words


class PassedWords(NamedTuple):
    """What a function of the executor was called with.

    Attributes:
        integers: words of the integer registers.
        floats: words of the floating-point registers.
        stack: words on the stack.
    """

    integers: Sequence[int]
    floats: Sequence[int]
    stack: Sequence[int]


class HostFunction(NamedTuple):
    """A function that this process implements for an executor.

    Attributes:
        words: how many words of its arguments are in integer registers, in floating-point
            registers, and on the stack.
        results: how many integer and floating-point registers hold its result.
        call: takes what it was called with, at least so many words, and returns words of the
            integer and floating-point registers that hold results; it raises nothing that a call
            could not raise.
    """

    words: tuple[int, int, int]
    results: tuple[int, int]
    call: Callable[[PassedWords], Sequence[int]]


class Parameters:
    """Where a C function finds its arguments, and leaves its result.

    Args:
        convention: the calling convention.
        prototype: a ctypes function type, whose result ctypes can return from Python.

    Attributes:
        each: the parameters.
        words: how many words of arguments are in integer registers, in floating-point registers,
            and on the stack.
        results: how many integer and floating-point registers hold the result.
        zero: the result of a function that has none to give.

    Raises:
        TypeError: such values cannot be passed.
    """

    def __init__(self, convention: CallingConvention, prototype: Any) -> None:  # noqa: ANN401
        self._convention = convention
        self._frame = CallFrame(convention)
        types: Sequence[type[Any]] = getattr(prototype, "_argtypes_", ())
        self.each = [self._frame.add_parameter(ctype) for ctype in types]
        frame = self._frame
        self.words = len(frame.integers), len(frame.floats), len(frame.stack)
        self._restype: type[Any] | None = prototype._restype_
        self.zero: object = None if self._restype is None else self._restype()
        self.results = result_words(convention, self._restype)
        self.result_words(self.zero)

    def read(
        self, integers: Sequence[int], floats: Sequence[int], stack: Sequence[int]
    ) -> list[bytes]:
        """The bytes of each argument, or of its address.

        Args:
            integers: words of the integer registers.
            floats: words of the floating-point registers.
            stack: words of the stack.

        Raises:
            ValueError: there are fewer words than the parameters need.
        """
        frame = self._frame
        given = {id(frame.integers): integers, id(frame.floats): floats, id(frame.stack): stack}
        arguments = []
        for parameter in self.each:
            data = bytearray(WORD if parameter.is_reference else ctypes.sizeof(parameter.ctype))
            for words, place, offset, size in parameter.pieces:
                found = given[id(words)]
                if place >= len(found):
                    raise ValueError(f"word {place} is needed, and {len(found)} were passed")
                data[offset : offset + size] = found[place].to_bytes(WORD, "little")[:size]
            arguments.append(bytes(data))
        return arguments

    def result_words(self, result: object) -> list[int]:
        """The words of a result: integer registers, then floating-point registers.

        Args:
            result: the value that a C function of the prototype returns.

        Raises:
            TypeError: it is memory of this process.
        """
        counts = self._convention.integer_results, self._convention.float_results
        if self._restype is None:
            return [0] * sum(counts)
        if isinstance(result, bytes | str) and issubclass(self._restype, _POINTERS):
            raise TypeError("a function cannot return memory of this process to another one")
        frame = CallFrame(self._convention)
        frame.add_value(result if isinstance(result, _SimpleCData) else self._restype(result))
        found = []
        for words, count in zip((frame.integers, frame.floats), counts, strict=True):
            found += [*words, *[0] * (count - len(words))]
        return found


_POINTERS = (ctypes.c_char_p, ctypes.c_wchar_p)


def wrapped_function(function: CFuncPtr) -> Callable[..., Any] | None:
    """The Python function that a decorated one calls; None if it is C code.

    ctypes has no attribute for it.
    """
    referents = gc.get_referents(function)
    if not any(type(referent).__name__ == "CThunkObject" for referent in referents):
        return None
    candidates = [
        referent for referent in referents if callable(referent) and not isinstance(referent, type)
    ]
    return candidates[0] if len(candidates) == 1 else None
