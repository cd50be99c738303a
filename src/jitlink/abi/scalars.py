"""Calls with numbers only, placed by a plan: most calls are such, and classification takes time.

A plan is made once for the types of a function. It takes Python's own numbers, as ctypes converts
them; whatever else a call has is placed argument by argument (`jitlink.abi.frames`).
"""

from __future__ import annotations

import ctypes
from _ctypes import _SimpleCData  # The base of simple types has no public name.
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jitlink.abi.conventions import CallingConvention
from jitlink.abi.frames import CallFrame

_INTEGER_CODES, _FLOAT_CODES = frozenset("bBhHiIlLqQ"), frozenset("fd")


class _Place(NamedTuple):
    """Where the word of an argument goes.

    Attributes:
        words: 0 for integer registers, 1 for floating-point registers.
        ctype: its type.
        of_bits: the type that makes a number of its bits; None for its own.
        is_float: whether it takes floats, as well as integers.
        bits: bits above it that are set.
    """

    words: int
    ctype: Any
    of_bits: Any
    is_float: bool
    bits: int


class ScalarPlan(NamedTuple):
    """How the arguments of a function are placed, and its result is read.

    Attributes:
        places: where the arguments go.
        mask: the bits of an integer register.
        result: the type of the result; None for none.
        is_float: whether that is floating-point.
        counts: how many integer and floating-point registers hold the result.
    """

    places: Sequence[_Place]
    mask: int
    result: Any
    is_float: bool
    counts: tuple[int, int]

    def place(self, frame: CallFrame, arguments: Sequence[object]) -> bool:
        """Place arguments; returns whether all of them are numbers that the plan is for."""
        targets, mask = (frame.integers, frame.floats), self.mask
        for place, argument in zip(self.places, arguments, strict=True):
            words, ctype, of_bits, is_float, bits = place
            kind = type(argument)
            if kind is not int and not (is_float and kind is float):
                return False
            value = ctype(argument)
            if is_float:
                targets[words].append(of_bits.from_buffer(value).value | bits)
            else:
                number = value.value if of_bits is None else of_bits(argument).value
                targets[words].append(number & mask)
        return True

    def read(self, integers: Sequence[int], floats: Sequence[int]) -> Any:  # noqa: ANN401
        """The result, as ctypes returns it."""
        if self.result is None:
            return None
        if self.is_float:
            data = floats[0].to_bytes(8, "little")
            return self.result.from_buffer_copy(data).value
        return self.result(integers[0]).value


def scalar_plan(
    convention: CallingConvention,
    types: Sequence[Any] | None,
    count: int,
    restype: Callable[..., Any] | None,
) -> ScalarPlan | None:
    """The plan for a function; None if its types are not all numbers of one word.

    Args:
        convention: the calling convention.
        types: ctypes types of the arguments; None: integers.
        count: how many arguments there are; as many as types.
        restype: type of the result.
    """
    kinds = [ctypes.c_int] * count if types is None else list(types)
    if len(kinds) != count or not all(map(_is_number, kinds)):
        return None
    if restype is not None and not _is_number(restype):
        return None
    word = convention.word
    scalars: list[Any] = [each for each in (*kinds, restype) if each is not None]
    if any(_is_wide(each, word) for each in scalars):
        return None
    if not convention.float_registers and any(each._type_ in _FLOAT_CODES for each in scalars):
        return None
    places = []
    free = [convention.integer_registers, convention.float_registers]
    for kind in kinds:
        is_float = kind._type_ in _FLOAT_CODES
        # Registers suffice for all, or another plan is needed.
        free[is_float] -= 1
        if free[is_float] < 0:
            return None
        places.append(_place(kind, convention, is_float=is_float))
    result: Any = restype
    is_float = result is not None and result._type_ in _FLOAT_CODES
    counts = (0, 0) if restype is None else (0, 1) if is_float else (1, 0)
    return ScalarPlan(places, (1 << 8 * word) - 1, restype, is_float, counts)


def _place(kind: Any, convention: CallingConvention, *, is_float: bool) -> _Place:  # noqa: ANN401
    size = ctypes.sizeof(kind)
    if is_float:
        ones = (1 << 64) - (1 << 8 * size) if convention.boxes_floats else 0
        return _Place(1, kind, ctypes.c_uint32 if size == 4 else ctypes.c_uint64, True, ones)
    is_signed_there = size == 4 and convention.sign_extends_32
    return _Place(0, kind, ctypes.c_int32 if is_signed_there else None, False, 0)


def _is_number(kind: Any) -> bool:  # noqa: ANN401
    return (
        isinstance(kind, type)
        and kind.__mro__[1] is _SimpleCData
        and kind._type_ in _INTEGER_CODES | _FLOAT_CODES  # type: ignore[attr-defined]
    )


def _is_wide(kind: Any, word: int) -> bool:  # noqa: ANN401
    return kind._type_ in _INTEGER_CODES and ctypes.sizeof(kind) > word
