"""The other direction: the parameters of a Python function, found in the words of a C call."""

from __future__ import annotations

import ctypes
import gc
import itertools
from _ctypes import CFuncPtr, _SimpleCData  # The bases have no public names.
from collections.abc import Callable, Sequence
from typing import Any

from jitlink.abi.conventions import WORD, CallingConvention
from jitlink.abi.frames import CallFrame


class Parameters:
    """Where a C function finds its arguments, and leaves its result.

    Args:
        convention: the calling convention.
        prototype: a ctypes function type, whose result ctypes can return from Python.

    Attributes:
        types: ctypes types of the parameters.
        zero: the result of a function that has none to give.
        stack_words: how many words of arguments are on the stack.

    Raises:
        TypeError: such values cannot be passed.
    """

    def __init__(self, convention: CallingConvention, prototype: Any) -> None:  # noqa: ANN401
        self.types: tuple[type[Any], ...] = tuple(prototype._argtypes_)
        self._restype: type[Any] | None = prototype._restype_
        self.zero: object = None if self._restype is None else self._restype()
        self._convention = convention
        # Words that are their own numbers show where each is placed.
        frame, numbers = CallFrame(convention), itertools.count()
        self._sizes = [-(-ctypes.sizeof(each) // WORD) for each in self.types]
        for ctype, size in zip(self.types, self._sizes, strict=True):
            frame.add_words(ctype, list(itertools.islice(numbers, size)))
        self._places = (frame.integers, frame.floats, frame.stack)
        self.stack_words = len(frame.stack)
        self.result_words(self.zero)

    def read(
        self, integers: Sequence[int], floats: Sequence[int], stack: Sequence[int]
    ) -> list[bytes]:
        """The bytes of each argument.

        Args:
            integers: words of the integer registers.
            floats: words of the floating-point registers.
            stack: words of the stack.

        Raises:
            ValueError: there are fewer words than the parameters need.
        """
        words = [0] * sum(self._sizes)
        for numbers, found in zip(self._places, (integers, floats, stack), strict=True):
            if len(found) < len(numbers):
                raise ValueError(f"{len(numbers)} words are needed, and {len(found)} were passed")
            for number, word in zip(numbers, found, strict=False):
                words[number] = word
        rest = iter(words)
        arguments = []
        for ctype, size in zip(self.types, self._sizes, strict=True):
            data = b"".join(w.to_bytes(WORD, "little") for w in itertools.islice(rest, size))
            arguments.append(data[: ctypes.sizeof(ctype)])
        return arguments

    def result_words(self, result: object) -> list[int]:
        """The words of a result: integer registers, then floating-point registers.

        Args:
            result: the value that a C function of the prototype returns.

        Raises:
            TypeError: it is memory of this process.
        """
        registers = self._convention.result_registers
        if self._restype is None:
            return [0] * 2 * registers
        if isinstance(result, bytes | str) and issubclass(self._restype, _POINTERS):
            raise TypeError("a function cannot return memory of this process to another one")
        value = result if isinstance(result, _SimpleCData) else self._restype(result)
        frame = CallFrame(self._convention)
        frame.add_value(value)
        found = []
        for words in (frame.integers, frame.floats):
            found += [*words, *[0] * (registers - len(words))]
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
