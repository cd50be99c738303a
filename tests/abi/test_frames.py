"""Arguments are placed where the convention has them, and memory is copied as its wrapper says."""

import ctypes as c
import struct
from typing import Any

import numpy as np
import pytest

from jitlink.abi.buffers import In, InOut, Out
from jitlink.abi.conventions import SYSV_X86_64, ArgumentClass, classify, convention_of
from jitlink.abi.frames import place_arguments, read_result, result_memory

INT, FLT, MEM = ArgumentClass.INTEGER, ArgumentClass.FLOAT, ArgumentClass.MEMORY


def struct_of(*types: type[Any], pack: int = 0) -> type[c.Structure]:
    fields = [(f"f{n}", each) for n, each in enumerate(types)]
    attributes = {"_fields_": fields, **({"_pack_": pack} if pack else {})}
    return type("S", (c.Structure,), attributes)


class Union(c.Union):
    """A double that may be an integer."""

    _fields_ = (("i", c.c_int), ("d", c.c_double))


@pytest.mark.parametrize(
    ("ctype", "classes"),
    [
        (c.c_int, [INT]),
        (c.c_bool, [INT]),
        (c.c_char_p, [INT]),
        (c.POINTER(c.c_int), [INT]),
        (c.CFUNCTYPE(None), [INT]),
        (c.c_float, [FLT]),
        (c.c_double, [FLT]),
        (struct_of(c.c_int, c.c_int), [INT]),
        (struct_of(c.c_float, c.c_float), [FLT]),
        (struct_of(c.c_float, c.c_int), [INT]),
        (struct_of(c.c_double, c.c_int), [FLT, INT]),
        (struct_of(c.c_float, c.c_float, c.c_float), [FLT, FLT]),
        (struct_of(c.c_char * 16), [INT, INT]),
        (struct_of(c.c_char * 17), [MEM, MEM, MEM]),
        (struct_of(c.c_double * 2), [FLT, FLT]),
        (struct_of(struct_of(c.c_double), c.c_void_p), [FLT, INT]),
        (struct_of(c.c_char, c.c_double, pack=1), [MEM, MEM]),
        (Union, [INT]),
    ],
)
def test_classes(ctype: type[Any], classes: list[ArgumentClass]) -> None:
    assert classify(ctype, SYSV_X86_64) == classes


@pytest.mark.parametrize("ctype", [c.c_longdouble, c.py_object])
def test_types_that_cannot_be_passed(ctype: type[Any]) -> None:
    with pytest.raises(TypeError, match=f"{ctype.__name__} cannot be passed to another process"):
        classify(ctype, SYSV_X86_64)


def test_bit_fields_are_refused() -> None:
    class Bits(c.Structure):
        _fields_ = (("a", c.c_int, 3),)

    with pytest.raises(TypeError, match="has bit fields"):
        classify(Bits, SYSV_X86_64)


def test_registers_first_then_the_stack() -> None:
    frame = place_arguments(SYSV_X86_64, [c.c_long] * 8, list(range(8)), None)
    assert (frame.integers, frame.stack) == ([0, 1, 2, 3, 4, 5], [6, 7])
    frame = place_arguments(SYSV_X86_64, [c.c_double] * 9, [1.0] * 9, None)
    one = struct.unpack("<Q", struct.pack("<d", 1.0))[0]
    assert (frame.floats, frame.stack) == ([one] * 8, [one])


def test_a_struct_is_not_divided_between_registers_and_the_stack() -> None:
    pair = struct_of(c.c_long, c.c_long)
    types = [c.c_long] * 5 + [pair, c.c_long]
    frame = place_arguments(SYSV_X86_64, types, [1, 2, 3, 4, 5, pair(6, 7), 8], None)
    assert (frame.integers, frame.stack) == ([1, 2, 3, 4, 5, 8], [6, 7])


def test_small_integers_are_extended() -> None:
    frame = place_arguments(SYSV_X86_64, [c.c_byte, c.c_ubyte, c.c_int], [-1, 255, -2], None)
    assert frame.integers == [(1 << 64) - 1, 255, (1 << 64) - 2]


def test_arguments_without_types() -> None:
    frame = place_arguments(SYSV_X86_64, None, [-1, None, c.c_double(0), b"text", "wide"], None)
    assert frame.integers == [(1 << 64) - 1, 0, 0, 0]
    assert frame.floats == [0]
    assert [(each.slot, each.memory.content()) for each in frame.memory] == [
        (2, b"text\0"),
        (3, "wide\0".encode("utf-32-le")),
    ]
    with pytest.raises(TypeError, match="argument 2: a float cannot be passed without a type"):
        place_arguments(SYSV_X86_64, None, [1, 2.5], None)
    with pytest.raises(TypeError, match="2 arguments are needed, and 1 were given"):
        place_arguments(SYSV_X86_64, [c.c_int, c.c_int], [1], None)
    with pytest.raises(TypeError, match="argument 1: "):
        place_arguments(SYSV_X86_64, [c.c_int], ["x"], None)


def test_memory_on_the_stack() -> None:
    frame = place_arguments(SYSV_X86_64, None, [1, 2, 3, 4, 5, 6, 7, b"x"], None)
    assert frame.stack == [7, 0]
    assert [each.slot for each in frame.memory] == [6 + 8 + 1]


def test_what_is_copied() -> None:
    array = (c.c_int * 3)(1, 2, 3)
    cases = [
        (In(array), bytes(array), False),
        (Out(array), b"", True),
        (InOut(array), bytes(array), True),
        (In(b"abc"), b"abc", False),
        (InOut(bytearray(b"abc")), b"abc", True),
        (InOut(np.arange(3)), np.arange(3).tobytes(), True),
        (In(np.arange(3)), np.arange(3).tobytes(), False),
    ]
    for memory, content, is_output in cases:
        assert (memory.content(), memory.is_output) == (content, is_output)
        assert memory.size == len(content) or not memory.is_input
    InOut(array).store(bytes((c.c_int * 3)(7, 8, 9)))
    assert list(array) == [7, 8, 9]
    for kind in (Out, InOut):
        with pytest.raises(TypeError, match="cannot be stored in a bytes"):
            kind(b"abc")
    with pytest.raises((TypeError, ValueError), match="contiguous"):
        InOut(np.arange(10)[::2])


def test_the_same_wrappers_in_this_process() -> None:
    length = c.CDLL(None).strlen
    assert length(In(b"four")) == 4
    source, target = bytearray(b"abc"), (c.c_char * 3)()
    c.CDLL(None).memcpy(Out(target), In(source), c.c_size_t(3))
    assert target.raw == b"abc"


def test_results() -> None:
    bits = struct.unpack("<Q", struct.pack("<d", 2.5))[0]
    registers = [(1 << 64) - 3, 7, bits, 0]
    assert read_result(SYSV_X86_64, c.c_int, registers) == -3
    assert read_result(SYSV_X86_64, c.c_double, registers) == 2.5
    assert read_result(SYSV_X86_64, None, registers) is None
    assert read_result(SYSV_X86_64, lambda value: value + 100, registers) == 97
    mixed = struct_of(c.c_double, c.c_long)
    value = read_result(SYSV_X86_64, mixed, registers)
    assert (value.f0, value.f1) == (2.5, -3)
    assert result_memory(SYSV_X86_64, mixed) is None
    large = result_memory(SYSV_X86_64, struct_of(c.c_long * 5))
    assert large is not None
    assert large.size == 40


def test_results_of_functions_and_of_classes_that_are_no_types_of_c() -> None:
    registers = [(1 << 64) - 5, 0, 0, 0]
    assert read_result(SYSV_X86_64, str, registers) == "-5"
    assert read_result(SYSV_X86_64, abs, registers) == 5
    assert result_memory(SYSV_X86_64, str) is None


def test_conventions() -> None:
    assert convention_of("x86_64-pc-linux-gnu") is SYSV_X86_64
    assert convention_of("x86_64-pc-windows-msvc") is None
    assert convention_of("aarch64-unknown-linux-gnu") is None
