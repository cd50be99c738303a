"""C calling conventions: a row each, and the classification of C types for them.

A value is *words*, each for one register or slot of the stack, and each of a class: INTEGER words
go to integer registers, FLOAT words to floating-point registers, while there are enough for all
words of the value; otherwise the value goes to the stack as it is in memory. Values with MEMORY
words are never in registers.

Quirks: System V divides small structs into words of eight bytes, each of a class of its own, and
puts others on the stack. AAPCS64 gives each member of a homogeneous floating-point aggregate (HFA)
a register, has all other small structs in integer registers, and passes the address of a copy of a
larger one. There, an argument that is on the stack for lack of registers takes those that are left
of its class with it; the x86-64 convention fills them with later arguments.

Specification: System V ABI, AMD64 supplement, 3.2.3 "Parameter Passing"; Procedure Call Standard
for the Arm 64-bit Architecture (AAPCS64), 6.8 "Parameter passing". Variadic functions of AArch64
Linux take arguments as others do.
"""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr, _Pointer  # The bases have no public names.
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

WORD = 8
"""Bytes of a register, and of a slot of the stack."""


class ArgumentClass(Enum):
    """Where a word of a value is passed."""

    INTEGER = "integer"
    FLOAT = "float"
    MEMORY = "memory"


class Word(NamedTuple):
    """A part of a value that has a register or a slot of the stack.

    Attributes:
        kind: its class.
        offset: where it is in the value, in bytes.
        size: its size in bytes, at most `WORD`.
    """

    kind: ArgumentClass
    offset: int
    size: int


class CallingConvention(NamedTuple):
    """One calling convention.

    Attributes:
        name: its name.
        integer_registers: how many integer registers hold arguments.
        float_registers: how many floating-point registers do.
        integer_results: how many integer registers hold results.
        float_results: how many floating-point registers do.
        result_register: the integer register with the address for a result in memory: one of
            arguments, or the one after these.
        largest_in_registers: the largest struct that is passed or returned in registers, in bytes,
            unless it is homogeneous; larger ones are in memory.
        homogeneous_members: the most members of a homogeneous struct, each of which has a
            floating-point register; 0 if the convention has no such rule.
        has_float_words: whether words of other structs that are floating-point only are of the
            class FLOAT.
        requires_alignment: whether structs with unaligned fields are in memory.
        passes_copies: whether a struct in memory is passed as the address of a copy; otherwise it
            is on the stack.
        fills_gaps: whether arguments use the registers that did not suffice for an earlier one.
    """

    name: str
    integer_registers: int
    float_registers: int
    integer_results: int
    float_results: int
    result_register: int
    largest_in_registers: int
    homogeneous_members: int
    has_float_words: bool
    requires_alignment: bool
    passes_copies: bool
    fills_gaps: bool

    @property
    def frame_integers(self) -> int:
        """How many integer registers a call loads."""
        return max(self.integer_registers, self.result_register + 1)


SYSV_X86_64 = CallingConvention(
    name="System V x86-64",
    integer_registers=6,
    float_registers=8,
    integer_results=2,
    float_results=2,
    result_register=0,
    largest_in_registers=16,
    homogeneous_members=0,
    has_float_words=True,
    requires_alignment=True,
    passes_copies=False,
    fills_gaps=True,
)
AAPCS64 = CallingConvention(
    name="AAPCS64",
    integer_registers=8,
    float_registers=8,
    integer_results=2,
    float_results=4,
    result_register=8,
    largest_in_registers=16,
    homogeneous_members=4,
    has_float_words=False,
    requires_alignment=False,
    passes_copies=True,
    fills_gaps=False,
)
CONVENTIONS = {("x86_64", "linux"): SYSV_X86_64, ("aarch64", "linux"): AAPCS64}
"""Conventions by architecture and system."""


def convention_of(triple: str) -> CallingConvention | None:
    """The C calling convention of a target triple, if it is known."""
    architecture, *rest = triple.split("-")
    system = next((part for part in rest if part.startswith("linux")), "")
    return CONVENTIONS.get((architecture, system))


_FLOAT_CODES = frozenset("fd")
_SCALAR_CODES = frozenset("?cbBuhHiIlLqQPzZ") | _FLOAT_CODES


def classify(ctype: type[Any], convention: CallingConvention) -> Sequence[Word]:
    """The words of a C type.

    Args:
        ctype: a ctypes type.
        convention: the convention.

    Raises:
        TypeError: values of the type cannot be passed.
    """
    key: Any = ctype
    return _classify(key, convention)


@lru_cache(256)
def _classify(ctype: Any, convention: CallingConvention) -> Sequence[Word]:  # noqa: ANN401
    size, alignment = ctypes.sizeof(ctype), ctypes.alignment(ctype)
    if alignment > WORD:
        raise TypeError(f"{_refusal(ctype)}: they are aligned to {alignment} bytes")
    fields = _scalars(ctype, 0)
    member = _homogeneous_member(size, fields)
    if member and size <= member * convention.homogeneous_members:
        return [Word(ArgumentClass.FLOAT, offset, member) for offset in range(0, size, member)]
    return [
        Word(kind, number * WORD, min(WORD, size - number * WORD))
        for number, kind in enumerate(_classes(size, fields, convention))
    ]


def _homogeneous_member(size: int, fields: Sequence[tuple[int, Any]]) -> int:
    """The size of the floating-point members that a type consists of; 0 if there is more to it."""
    types = {scalar for _, scalar in fields}
    if len(types) != 1:
        return 0
    (scalar,) = types
    member = ctypes.sizeof(scalar)
    is_homogeneous = scalar._type_ in _FLOAT_CODES and {offset for offset, _ in fields} == set(
        range(0, size, member)
    )
    return member if is_homogeneous else 0


def _classes(
    size: int, fields: Sequence[tuple[int, Any]], convention: CallingConvention
) -> list[ArgumentClass]:
    """The classes of words of eight bytes."""
    count = -(-size // WORD)
    is_aligned = all(offset % ctypes.sizeof(scalar) == 0 for offset, scalar in fields)
    if size > convention.largest_in_registers or (convention.requires_alignment and not is_aligned):
        return [ArgumentClass.MEMORY] * count
    if not convention.has_float_words:
        return [ArgumentClass.INTEGER] * count
    classes = [ArgumentClass.FLOAT] * count
    for offset, scalar in fields:
        if scalar._type_ not in _FLOAT_CODES:
            classes[offset // WORD] = ArgumentClass.INTEGER
    return classes


def _scalars(ctype: type[Any], offset: int) -> list[tuple[int, Any]]:
    """The scalars in a C type, with their offsets in bytes."""
    if issubclass(ctype, ctypes.Structure | ctypes.Union):
        found = []
        for field, place in _fields(ctype):
            if len(field) > 2:
                raise TypeError(f"{ctype.__name__} has bit fields, which are not passed by value")
            found += _scalars(field[1], offset + place)
        return found
    if issubclass(ctype, ctypes.Array):
        array: Any = ctype
        if not array._length_:
            # Clang counts it as a member of a homogeneous struct that is none; GCC does not.
            raise TypeError(f"{ctype.__name__} has no elements, so it is not passed by value")
        element, size = array._type_, ctypes.sizeof(array._type_)
        places = [offset + n * size for n in range(array._length_)]
        return [each for place in places for each in _scalars(element, place)]
    code = getattr(ctype, "_type_", None)
    if isinstance(code, str) and code in _SCALAR_CODES:
        return [(offset, ctype)]
    if issubclass(ctype, _Pointer | CFuncPtr):
        return [(offset, ctypes.c_void_p)]
    raise TypeError(_refusal(ctype))


def _refusal(ctype: type[Any]) -> str:
    return f"values of type {ctype.__name__} cannot be passed to another process"


def _fields(ctype: type[Any]) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The fields of a struct or union, those of its base classes first, with their offsets."""
    for each in reversed(ctype.__mro__):
        for field in each.__dict__.get("_fields_", ()):
            # Not as an attribute: a field of a derived class may have the same name.
            yield field, each.__dict__[field[0]].offset
