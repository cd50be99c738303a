"""C calling conventions: a row each, and the classification of C types for them.

An argument is *words* of the size of a register. Each word has a class: INTEGER words go to
integer registers, FLOAT words to floating-point registers, while there are enough for all words of
the argument; otherwise all of them go to the stack. MEMORY words always do.

Specification: System V ABI, AMD64 supplement, 3.2.3 "Parameter Passing".
"""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr, _Pointer  # The bases have no public names.
from enum import Enum
from typing import Any, NamedTuple

WORD = 8
"""Bytes of a register, and of a slot of the stack."""


class ArgumentClass(Enum):
    """Where a word of an argument is passed."""

    INTEGER = "integer"
    FLOAT = "float"
    MEMORY = "memory"


class CallingConvention(NamedTuple):
    """One calling convention.

    Attributes:
        name: its name.
        integer_registers: how many integer registers hold arguments.
        float_registers: how many floating-point registers do.
        result_registers: how many registers of each kind hold results.
        largest_in_registers: the largest struct that is passed or returned in registers, in bytes;
            larger ones are on the stack, and as results where the first argument points to.
    """

    name: str
    integer_registers: int
    float_registers: int
    result_registers: int
    largest_in_registers: int


SYSV_X86_64 = CallingConvention("System V x86-64", 6, 8, 2, 16)
CONVENTIONS = {("x86_64", "linux"): SYSV_X86_64}
"""Conventions by architecture and system."""


def convention_of(triple: str) -> CallingConvention | None:
    """The C calling convention of a target triple, if it is known."""
    architecture, *rest = triple.split("-")
    system = next((part for part in rest if part.startswith("linux")), "")
    return CONVENTIONS.get((architecture, system))


_FLOAT_CODES = frozenset("fd")
_UNSUPPORTED_CODES = frozenset("gO")


def classify(ctype: type[Any], convention: CallingConvention) -> list[ArgumentClass]:
    """The class of each word of a C type.

    Args:
        ctype: a ctypes type.
        convention: the convention.

    Raises:
        TypeError: values of the type cannot be passed.
    """
    size = ctypes.sizeof(ctype)
    count = -(-size // WORD)
    fields = list(_scalars(ctype, 0))
    is_aligned = all(offset % ctypes.sizeof(scalar) == 0 for offset, scalar in fields)
    if size > convention.largest_in_registers or not is_aligned:
        return [ArgumentClass.MEMORY] * count
    classes = [ArgumentClass.FLOAT] * count
    for offset, scalar in fields:
        if scalar._type_ not in _FLOAT_CODES:
            classes[offset // WORD] = ArgumentClass.INTEGER
    return classes


def _scalars(ctype: type[Any], offset: int) -> list[tuple[int, Any]]:
    """The scalars in a C type, with their offsets in bytes."""
    if issubclass(ctype, ctypes.Structure | ctypes.Union):
        found = []
        for field in _fields(ctype):
            if len(field) > 2:
                raise TypeError(f"{ctype.__name__} has bit fields, which are not passed by value")
            inner = getattr(ctype, field[0])
            found += _scalars(field[1], offset + inner.offset)
        return found
    if issubclass(ctype, ctypes.Array):
        array: Any = ctype
        element, size = array._type_, ctypes.sizeof(array._type_)
        places = [offset + n * size for n in range(array._length_)]
        return [each for place in places for each in _scalars(element, place)]
    code = getattr(ctype, "_type_", None)
    if isinstance(code, str) and code not in _UNSUPPORTED_CODES:
        return [(offset, ctype)]
    if issubclass(ctype, _Pointer | CFuncPtr):
        return [(offset, ctypes.c_void_p)]
    raise TypeError(f"values of type {ctype.__name__} cannot be passed to another process")


def _fields(ctype: type[Any]) -> list[tuple[Any, ...]]:
    """The fields of a struct or union, those of its base classes first."""
    return [
        field for each in reversed(ctype.__mro__) for field in each.__dict__.get("_fields_", ())
    ]
