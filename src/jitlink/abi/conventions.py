"""C calling conventions: a row each, and the classification of C types for them.

A value is *words*, each for one register or slot of the stack, and each of a class: INTEGER words
go to integer registers, FLOAT words to floating-point registers, while there are enough for all
words of the value; otherwise the value goes to the stack as it is in memory, or what there are
integer registers for to these. Values with MEMORY words are never in registers.

Quirks: System V divides small structs into words of eight bytes, each of a class of its own, and
puts others on the stack. AAPCS64 gives each member of a homogeneous floating-point aggregate (HFA)
a register, has all other small structs in integer registers, and passes the address of a copy of a
larger one. There, an argument that is on the stack for lack of registers takes those that are left
of its class with it; the x86-64 convention fills them with later arguments. LP64D of RISC-V gives
each member of a struct with one floating-point member, or that and another one, a register; what
lacks these is in integer registers, perhaps only the first half of it; and so are the variadic
arguments of all types. Variadic functions of the others take arguments as other functions do.

Specification: System V ABI, AMD64 supplement, 3.2.3 "Parameter Passing"; Procedure Call Standard
for the Arm 64-bit Architecture (AAPCS64), 6.8 "Parameter passing"; RISC-V Calling Conventions
(psABI), "Integer Calling Convention" and "Hardware Floating-point Calling Convention".
"""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr, _Pointer  # The bases have no public names.
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

WORD = 8
"""Bytes of a floating-point register, and of most integer registers and slots of the stack."""


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
        size: its size in bytes, at most that of its register.
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
        flattens_structs: whether each scalar of a struct has a register, if there are at most two,
            of which one is floating-point, and none a pointer.
        has_float_words: whether words of other structs that are floating-point only are of the
            class FLOAT.
        requires_alignment: whether structs with unaligned fields are in memory.
        passes_copies: whether a struct in memory is passed as the address of a copy; otherwise it
            is on the stack.
        fills_gaps: whether arguments use the registers that did not suffice for an earlier one.
        divides_values: whether words of a value are in integer registers while there are any, and
            on the stack then, if there are not enough registers of the classes of its words.
        has_variadic_floats: whether variadic arguments are in floating-point registers.
        boxes_floats: whether the bits above a small floating-point number are ones.
        has_signed_char: whether the type ``char`` is signed.
        sign_extends_32: whether unsigned numbers of 32 bits are extended as if they were signed.
        word: bytes of an integer register, of a slot of the stack, and of a pointer.
        is_big_endian: whether memory is; structs by value are refused then.
    """

    name: str
    integer_registers: int
    float_registers: int
    integer_results: int
    float_results: int
    result_register: int
    largest_in_registers: int
    homogeneous_members: int = 0
    flattens_structs: bool = False
    has_float_words: bool = False
    requires_alignment: bool = False
    passes_copies: bool = False
    fills_gaps: bool = False
    divides_values: bool = False
    has_variadic_floats: bool = False
    boxes_floats: bool = False
    has_signed_char: bool = False
    sign_extends_32: bool = False
    word: int = WORD
    is_big_endian: bool = False

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
    has_float_words=True,
    requires_alignment=True,
    fills_gaps=True,
    has_variadic_floats=True,
    has_signed_char=True,
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
    passes_copies=True,
    has_variadic_floats=True,
)
LP64D = CallingConvention(
    name="LP64D",
    integer_registers=8,
    float_registers=8,
    integer_results=2,
    float_results=2,
    result_register=0,
    largest_in_registers=16,
    flattens_structs=True,
    passes_copies=True,
    fills_gaps=True,
    divides_values=True,
    boxes_floats=True,
    sign_extends_32=True,
)
ILP32 = LP64D._replace(
    name="ILP32",
    float_registers=0,
    float_results=0,
    largest_in_registers=8,
    flattens_structs=False,
    boxes_floats=False,
    word=4,
)
ILP32D = LP64D._replace(name="ILP32D", largest_in_registers=8, word=4)
CONVENTIONS = {
    ("x86_64", "linux"): SYSV_X86_64,
    ("aarch64", "linux"): AAPCS64,
    ("riscv64", "linux"): LP64D,
    ("aarch64_be", "none"): AAPCS64._replace(is_big_endian=True),
    ("riscv32", "none"): ILP32D,
    ("riscv32", "ilp32"): ILP32,
}
"""Conventions by architecture, and system or ABI."""


def convention_of(triple: str) -> CallingConvention | None:
    """The C calling convention of a target triple, if it is known."""
    architecture, *rest = triple.split("-")
    systems = ["linux" if part.startswith("linux") else part for part in rest]
    if "none" in systems:
        # Without an operating system, as in emulated machines, the psABIs are the same.
        systems.insert(0, "linux")
    # The last part, the environment, may name an ABI.
    for system in reversed(systems):
        if (architecture, system) in CONVENTIONS:
            return CONVENTIONS[architecture, system]
    return None


_FLOAT_CODES = frozenset("fd")
_POINTER_CODES = frozenset("PzZ")
_SCALAR_CODES = frozenset("?cbBuhHiIlLqQ") | _FLOAT_CODES | _POINTER_CODES


def classify(
    ctype: type[Any], convention: CallingConvention, *, is_variadic: bool = False
) -> Sequence[Word]:
    """The words of a C type.

    Args:
        ctype: a ctypes type.
        convention: the convention.
        is_variadic: whether it is the type of an argument that a function has no parameter for.

    Raises:
        TypeError: values of the type cannot be passed.
    """
    key: Any = ctype
    words = _classify(key, convention)
    if not is_variadic or convention.has_variadic_floats:
        return words
    is_in_memory = any(word.kind is ArgumentClass.MEMORY for word in words)
    if is_in_memory:
        return words
    return words_of(ArgumentClass.INTEGER, ctypes.sizeof(ctype), convention.word)


def words_of(kind: ArgumentClass, size: int, word: int) -> list[Word]:
    """The words of one class that a value of some bytes has, as it is in memory."""
    return [Word(kind, offset, min(word, size - offset)) for offset in range(0, size, word)]


def is_pointer(ctype: Any) -> bool:  # noqa: ANN401 - a ctypes type
    """Whether values of a ctypes type are addresses, of the size that they have there."""
    if isinstance(code := getattr(ctype, "_type_", None), str):
        return code in _POINTER_CODES
    return isinstance(ctype, type) and issubclass(ctype, _Pointer | CFuncPtr)


@lru_cache(256)
def _classify(ctype: Any, convention: CallingConvention) -> Sequence[Word]:  # noqa: ANN401
    size, alignment = ctypes.sizeof(ctype), ctypes.alignment(ctype)
    if alignment > WORD:
        raise TypeError(f"{_refusal(ctype)}: they are aligned to {alignment} bytes")
    if is_pointer(ctype):
        return [Word(ArgumentClass.INTEGER, 0, convention.word)]
    fields = _scalars(ctype, 0)
    is_struct = issubclass(ctype, ctypes.Structure | ctypes.Union | ctypes.Array)
    if is_struct and convention.is_big_endian:
        raise TypeError(f"{ctype.__name__} is not passed by value to a big-endian machine")
    if convention.word < WORD and any(is_pointer(scalar) for _, scalar in fields):
        raise TypeError(f"{ctype.__name__} has pointers, which are smaller there than here")
    if convention.float_registers and not is_struct and ctype._type_ in _FLOAT_CODES:
        return [Word(ArgumentClass.FLOAT, 0, size)]
    member = _homogeneous_member(size, fields)
    if member and size <= member * convention.homogeneous_members:
        return [Word(ArgumentClass.FLOAT, offset, member) for offset in range(0, size, member)]
    if convention.flattens_structs and _is_flattened(ctype, fields):
        return [Word(_class_of(scalar), at, ctypes.sizeof(scalar)) for at, scalar in fields]
    word = convention.word
    return [
        Word(kind, number * word, min(word, size - number * word))
        for number, kind in enumerate(_classes(size, fields, convention))
    ]


def _homogeneous_member(size: int, fields: Sequence[tuple[int, Any]]) -> int:
    """The size of the floating-point members that a type consists of; 0 if there is more to it."""
    types = {scalar for _, scalar in fields}
    if len(types) != 1:
        return 0
    (scalar,) = types
    member = ctypes.sizeof(scalar)
    is_float = _class_of(scalar) is ArgumentClass.FLOAT
    is_homogeneous = is_float and {offset for offset, _ in fields} == set(range(0, size, member))
    return member if is_homogeneous else 0


def _is_flattened(ctype: type[Any], fields: Sequence[tuple[int, Any]]) -> bool:
    """Whether the scalars of a type have a register each, one of them a floating-point one.

    Compilers take pointers for no integers here.
    """
    codes = [scalar._type_ for _, scalar in fields]
    has_float = not _FLOAT_CODES.isdisjoint(codes)
    is_small = len(codes) <= 2 and _POINTER_CODES.isdisjoint(codes)
    return has_float and is_small and not _has_union(ctype)


def _has_union(ctype: type[Any]) -> bool:
    if issubclass(ctype, ctypes.Array):
        array: Any = ctype
        return _has_union(array._type_)
    if issubclass(ctype, ctypes.Structure):
        return any(_has_union(field[1]) for field, _ in _fields(ctype))
    return issubclass(ctype, ctypes.Union)


def _class_of(scalar: Any) -> ArgumentClass:  # noqa: ANN401 - a ctypes type
    is_float = scalar._type_ in _FLOAT_CODES
    return ArgumentClass.FLOAT if is_float else ArgumentClass.INTEGER


def _classes(
    size: int, fields: Sequence[tuple[int, Any]], convention: CallingConvention
) -> list[ArgumentClass]:
    """The classes of words of eight bytes."""
    count = -(-size // convention.word)
    is_aligned = all(offset % ctypes.sizeof(scalar) == 0 for offset, scalar in fields)
    if size > convention.largest_in_registers or (convention.requires_alignment and not is_aligned):
        return [ArgumentClass.MEMORY] * count
    if not convention.has_float_words:
        return [ArgumentClass.INTEGER] * count
    classes = [ArgumentClass.FLOAT] * count
    for offset, scalar in fields:
        if _class_of(scalar) is ArgumentClass.INTEGER:
            classes[offset // convention.word] = ArgumentClass.INTEGER
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
