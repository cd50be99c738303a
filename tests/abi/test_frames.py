"""Arguments are placed where the convention has them, and memory is copied as its wrapper says."""

import ctypes as c
import struct
import sys
from typing import Any

import numpy as np
import pytest

from jitlink.abi.buffers import In, InOut, Out, PlacedMemory, regions_of
from jitlink.abi.conventions import (
    AAPCS64,
    CONVENTIONS,
    LP64D,
    SYSV_X86_64,
    ArgumentClass,
    CallingConvention,
    classify,
    convention_of,
)
from jitlink.abi.frames import place_arguments, read_result, result_memory

INT, FLT, MEM = ArgumentClass.INTEGER, ArgumentClass.FLOAT, ArgumentClass.MEMORY


def struct_of(*types: type[Any], pack: int = 0) -> type[c.Structure]:
    fields = [(f"f{n}", each) for n, each in enumerate(types)]
    # Python 3.14 asks for the layout of packed structs to be named; it is the same without it.
    packing = {"_pack_": pack, "_layout_": "ms"} if pack else {}
    attributes = {**packing, "_fields_": fields}
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
    assert [each.kind for each in classify(ctype, SYSV_X86_64)] == classes


def test_fields_of_a_base_class_with_the_name_of_another() -> None:
    class Derived(struct_of(c.c_int)):  # type: ignore[misc]
        _fields_ = (("f0", c.c_double),)

    assert [each.kind for each in classify(Derived, SYSV_X86_64)] == [INT, FLT]


@pytest.mark.parametrize(
    ("ctype", "words"),
    [
        (c.c_int, [(INT, 0, 4)]),
        (c.c_float, [(FLT, 0, 4)]),
        (c.c_double, [(FLT, 0, 8)]),
        (struct_of(c.c_float, c.c_int), [(INT, 0, 8)]),
        (struct_of(c.c_float, c.c_double), [(INT, 0, 8), (INT, 8, 8)]),
        (struct_of(c.c_char * 11), [(INT, 0, 8), (INT, 8, 3)]),
        (struct_of(c.c_char, c.c_double, pack=1), [(INT, 0, 8), (INT, 8, 1)]),
        (struct_of(c.c_char * 17), [(MEM, 0, 8), (MEM, 8, 8), (MEM, 16, 1)]),
        (struct_of(c.c_float * 3), [(FLT, 0, 4), (FLT, 4, 4), (FLT, 8, 4)]),
        (struct_of(struct_of(c.c_double * 3), c.c_double), [(FLT, n, 8) for n in (0, 8, 16, 24)]),
        (struct_of(*[c.c_double] * 5), [(MEM, n, 8) for n in (0, 8, 16, 24, 32)]),
        (struct_of(*[c.c_float] * 5), [(MEM, 0, 8), (MEM, 8, 8), (MEM, 16, 4)]),
        (Union, [(INT, 0, 8)]),
    ],
)
def test_words_of_aapcs64(ctype: type[Any], words: list[tuple[ArgumentClass, int, int]]) -> None:
    assert classify(ctype, AAPCS64) == words


@pytest.mark.parametrize(
    ("ctype", "words"),
    [
        (c.c_int, [(INT, 0, 4)]),
        (c.c_float, [(FLT, 0, 4)]),
        (struct_of(c.c_float), [(FLT, 0, 4)]),
        (struct_of(c.c_float, c.c_double), [(FLT, 0, 4), (FLT, 8, 8)]),
        (struct_of(c.c_float * 2), [(FLT, 0, 4), (FLT, 4, 4)]),
        (struct_of(c.c_float * 3), [(INT, 0, 8), (INT, 8, 4)]),
        (struct_of(c.c_short, struct_of(c.c_double)), [(INT, 0, 2), (FLT, 8, 8)]),
        (struct_of(c.c_double, c.c_bool), [(FLT, 0, 8), (INT, 8, 1)]),
        (struct_of(c.c_char, c.c_double, pack=1), [(INT, 0, 1), (FLT, 1, 8)]),
        (struct_of(c.c_float, c.c_void_p), [(INT, 0, 8), (INT, 8, 8)]),
        (struct_of(c.c_float, c.c_int, c.c_int), [(INT, 0, 8), (INT, 8, 4)]),
        (struct_of(c.c_int, c.c_int), [(INT, 0, 8)]),
        (struct_of(c.c_char * 17), [(MEM, 0, 8), (MEM, 8, 8), (MEM, 16, 1)]),
        (Union, [(INT, 0, 8)]),
        (struct_of(Union * 1), [(INT, 0, 8)]),
    ],
)
def test_words_of_lp64d(ctype: type[Any], words: list[tuple[ArgumentClass, int, int]]) -> None:
    assert classify(ctype, LP64D) == words


@pytest.mark.parametrize("ctype", [c.c_longdouble, c.py_object])
def test_types_that_cannot_be_passed(ctype: type[Any]) -> None:
    with pytest.raises(TypeError, match=f"{ctype.__name__} cannot be passed to another process"):
        classify(ctype, SYSV_X86_64)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="ctypes aligns nothing to 16 bytes before")
def test_types_with_a_larger_alignment_than_a_slot_are_refused() -> None:
    class Aligned(c.Structure):
        _align_ = 16
        _fields_ = (("f0", c.c_double),)

    with pytest.raises(TypeError, match=r"Aligned cannot be passed .*: they are aligned to 16"):
        classify(Aligned, AAPCS64)


@pytest.mark.parametrize("convention", CONVENTIONS.values())
@pytest.mark.parametrize("types", [(c.c_char * 0, c.c_double), (c.c_double, (c.c_long * 2) * 0)])
def test_arrays_without_elements_are_refused(
    types: tuple[type[Any], ...], convention: CallingConvention
) -> None:
    with pytest.raises(TypeError, match="_Array_0 has no elements"):
        classify(struct_of(*types), convention)


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
    frame = place_arguments(
        SYSV_X86_64, [c.c_char, c.c_char, c.c_bool], [b"\xfe", b"~", True], None
    )
    assert frame.integers == [(1 << 64) - 2, 0x7E, 1]


def test_arguments_without_types() -> None:
    frame = place_arguments(SYSV_X86_64, None, [-1, None, c.c_double(0), b"text", "wide"], None)
    assert frame.integers == [(1 << 64) - 1, 0, 0, 0]
    assert frame.floats == [0]
    regions = {each.pointers[0]: each.content() for each in regions_of(frame.memory)}
    assert regions == {(2, 0): b"text\0", (3, 0): "wide\0".encode("utf-32-le")}
    with pytest.raises(TypeError, match="argument 2: a float cannot be passed without a type"):
        place_arguments(SYSV_X86_64, None, [1, 2.5], None)
    with pytest.raises(TypeError, match="2 arguments are needed, and 1 were given"):
        place_arguments(SYSV_X86_64, [c.c_int, c.c_int], [1], None)
    with pytest.raises(TypeError, match="argument 1: "):
        place_arguments(SYSV_X86_64, [c.c_int], ["x"], None)


def test_aapcs64_leaves_registers_unused_behind_what_did_not_fit() -> None:
    pair, three = struct_of(c.c_long, c.c_long), struct_of(*[c.c_float] * 3)
    types = [*[c.c_long] * 7, pair, c.c_long, *[c.c_double] * 6, three, c.c_float]
    values = [*range(7), pair(7, 8), 9, *[0.0] * 6, three(1, 2, 3), 4]
    frame = place_arguments(AAPCS64, types, values, None)
    assert frame.integers == list(range(7))
    assert frame.floats == [0] * 6
    # Members are beside each other on the stack; the last slot has the float behind them.
    one, two, three_, four = (struct.unpack("<I", struct.pack("<f", n))[0] for n in (1, 2, 3, 4))
    assert frame.stack == [7, 8, 9, one | two << 32, three_, four]


def test_aapcs64_passes_addresses_of_copies() -> None:
    large = struct_of(*[c.c_long] * 3)
    value = large(1, 2, 3)
    result = result_memory(AAPCS64, large)
    frame = place_arguments(AAPCS64, [large, c.c_int, c.POINTER(large)], [value, 5, value], result)
    assert frame.registers[:8] == [0, 5, 0, 0, 0, 0, 0, 0]
    # The result's address is in x8, which is behind the registers of arguments.
    assert [each.slot for each in frame.memory] == [8, 0, 2]
    regions = regions_of(frame.memory)
    assert len(regions) == 3
    copies = {each.pointers[0][0]: each for each in regions}
    assert copies[0].content() == copies[2].content() == bytes(value)
    assert [copies[n].is_output for n in (8, 0, 2)] == [True, False, True]


def test_addresses_of_copies_on_the_stack() -> None:
    large = struct_of(*[c.c_long] * 3)
    frame = place_arguments(AAPCS64, [c.c_int] * 9 + [large], [*[0] * 9, large()], None)
    assert frame.stack == [0, 0]
    assert [each.slot for each in frame.memory] == [9 + 8 + 1]


def float_bits(number: float) -> int:
    return int.from_bytes(struct.pack("<f", number), "little")


def double_bits(number: float) -> int:
    return int.from_bytes(struct.pack("<d", number), "little")


_BOX = 0xFFFF_FFFF_0000_0000


def test_lp64d_divides_what_does_not_fit() -> None:
    pair, mixed = struct_of(c.c_long, c.c_long), struct_of(c.c_double, c.c_short)
    types = [*[c.c_long] * 7, pair, mixed, c.c_float, c.c_int]
    values = [*range(7), pair(7, 8), mixed(9, 10), 0.5, 11]
    frame = place_arguments(LP64D, types, values, None)
    # No integer register is left for the second member, so both are on the stack.
    assert frame.integers == list(range(8))
    assert frame.stack == [8, double_bits(9), 10, 11]
    assert frame.floats == [_BOX | float_bits(0.5)]


def test_lp64d_has_floats_in_integer_registers_when_the_others_are_used_up() -> None:
    two = struct_of(c.c_float, c.c_float)
    types = [*[c.c_double] * 7, two, c.c_float, c.c_float]
    frame = place_arguments(LP64D, types, [*[0.0] * 7, two(1, 2), 3, 4], None)
    assert frame.floats == [0] * 7 + [_BOX | float_bits(3)]
    assert frame.integers == [float_bits(1) | float_bits(2) << 32, float_bits(4)]


def test_variadic_arguments_of_lp64d() -> None:
    mixed = struct_of(c.c_float, c.c_int)
    values = [c.c_double(1), c.c_double(2), mixed(3, 4)]
    frame = place_arguments(LP64D, [c.c_double], values, None)
    assert (frame.floats, frame.integers) == (
        [double_bits(1)],
        [double_bits(2), float_bits(3) | 4 << 32],
    )
    # Without types it is a function that is not variadic.
    frame = place_arguments(LP64D, None, values[:2], None)
    assert (frame.floats, frame.integers) == ([double_bits(1), double_bits(2)], [])


def test_small_integers_of_lp64d_are_extended_as_signed_ones_of_32_bits() -> None:
    types = [c.c_uint32, c.c_int32, c.c_uint16, c.c_char, c.c_bool]
    frame = place_arguments(LP64D, types, [0xFFFF_FFFE, -2, 0xFFFE, b"\xfe", True], None)
    assert frame.integers == [(1 << 64) - 2, (1 << 64) - 2, 0xFFFE, 0xFE, 1]


def test_lp64d_passes_addresses_of_copies() -> None:
    large = struct_of(*[c.c_long] * 3)
    result = result_memory(LP64D, large)
    frame = place_arguments(LP64D, [*[c.c_int] * 7, large], [*[0] * 7, large(1, 2, 3)], result)
    assert [each.slot for each in frame.memory] == [0, 16]
    assert (len(frame.integers), frame.stack) == (8, [0])


def test_results_of_lp64d() -> None:
    mixed = struct_of(c.c_float, c.c_double)
    registers = [-2 & 0xFFFF_FFFF, 0, _BOX | float_bits(0.5), double_bits(1.5)]
    found = read_result(LP64D, mixed, registers)
    assert (found.f0, found.f1) == (0.5, 1.5)
    found = read_result(LP64D, struct_of(c.c_double, c.c_int), [5, 0, double_bits(1.5), 0])
    assert (found.f0, found.f1) == (1.5, 5)
    assert read_result(LP64D, c.c_float, registers) == 0.5
    assert read_result(LP64D, c.c_uint, registers) == 0xFFFF_FFFE


def test_results_of_homogeneous_structs() -> None:
    three = struct_of(*[c.c_float] * 3)
    registers = [1, 2, *[struct.unpack("<I", struct.pack("<f", n))[0] for n in (0.5, 1.5, 2.5)], 9]
    found = read_result(AAPCS64, three, registers)
    assert (found.f0, found.f1, found.f2) == (0.5, 1.5, 2.5)
    assert read_result(AAPCS64, c.c_float, registers) == 0.5


def test_memory_on_the_stack() -> None:
    frame = place_arguments(SYSV_X86_64, None, [1, 2, 3, 4, 5, 6, 7, b"x"], None)
    assert frame.stack == [7, 0]
    assert [each.slot for each in frame.memory] == [6 + 8 + 1]


def test_what_is_copied() -> None:
    array = (c.c_int * 3)(1, 2, 3)
    cases: list[tuple[In | Out | InOut, bytes, bool]] = [
        (In(array), bytes(array), False),
        (Out(array), b"", True),
        (InOut(array), bytes(array), True),
        (In(b"abc"), b"abc", False),
        (InOut(bytearray(b"abc")), b"abc", True),
        (InOut(np.arange(3)), np.arange(3).tobytes(), True),
        (In(np.arange(3)), np.arange(3).tobytes(), False),
    ]
    for memory, content, is_output in cases:
        (region,) = regions_of([PlacedMemory(0, memory)])
        assert (region.content(), region.is_output) == (content, is_output)
        assert region.size == len(content) or not memory.is_input
    (region,) = regions_of([PlacedMemory(0, InOut(array))])
    region.store(bytes((c.c_int * 3)(7, 8, 9)))
    assert list(array) == [7, 8, 9]
    rows = np.asfortranarray(np.arange(6).reshape(2, 3))
    (region,) = regions_of([PlacedMemory(0, InOut(rows))])
    assert region.content() == rows.T.tobytes()
    for kind in (Out, InOut):
        with pytest.raises(TypeError, match="cannot be stored in a bytes"):
            kind(b"abc")
    with pytest.raises((TypeError, ValueError), match="contiguous"):
        InOut(np.arange(10)[::2])


def test_memory_of_python_objects_and_without_a_format_is_refused() -> None:
    named, holder = np.dtype([("O", "i4"), ("b", "f8")]), np.dtype([("a", "i4"), ("b", "O")])
    assert In(np.zeros(2, named)).size == 24
    for value in (np.array([object()]), np.zeros(2, holder), (c.py_object * 2)()):
        for kind in (In, Out, InOut):
            with pytest.raises(TypeError, match="holds Python objects"):
                kind(value)
    with pytest.raises(TypeError, match="argument 1: the memory of a ndarray cannot be passed"):
        place_arguments(SYSV_X86_64, None, [np.zeros(2, "M8[s]")], None)


def test_memory_that_overlaps_is_copied_once() -> None:
    numbers = np.arange(10, dtype=np.uint8)
    other = bytearray(3)
    places = [numbers[4:8], numbers[6:], numbers[:2], other, numbers[4:8]]
    kinds: list[type[In | Out | InOut]] = [In, Out, InOut, In, In]
    memory = [
        PlacedMemory(n, kind(each))
        for n, (kind, each) in enumerate(zip(kinds, places, strict=True))
    ]
    regions = sorted(regions_of(memory), key=lambda each: each.pointers)
    found = [(each.size, each.is_input, each.is_output, each.pointers) for each in regions]
    assert found == [
        (6, True, True, [(0, 0), (4, 0), (1, 2)]),
        (2, True, True, [(2, 0)]),
        (3, True, False, [(3, 0)]),
    ]
    assert regions[0].content() == bytes(range(4, 10))
    regions[0].store(b"abcdef")
    assert numbers.tobytes() == bytes(range(4)) + b"abcdef"
    # Neighbours do not overlap.
    assert (
        len(regions_of([PlacedMemory(0, In(numbers[:5])), PlacedMemory(1, In(numbers[5:]))])) == 2
    )


def _only_region(argument: object) -> tuple[int, int, list[tuple[int, int]]]:
    """Address and size of the region of an argument, and the words that point into it."""
    (region,) = regions_of(place_arguments(SYSV_X86_64, None, [argument], None).memory)
    return region.address, region.size, region.pointers


def test_pointers_into_objects_of_this_process() -> None:
    array = (c.c_double * 4)()
    numbers = np.arange(4.0)
    start = c.addressof(array)
    whole, rest = (start, 32, [(0, 0)]), (start, 32, [(0, 8)])
    double_pointer = c.POINTER(c.c_double)
    assert _only_region(c.byref(array)) == whole
    assert _only_region(c.byref(array, 8)) == rest
    assert _only_region(c.pointer(array)) == whole
    assert _only_region(c.cast(array, double_pointer)) == whole
    assert _only_region(c.cast(array, c.c_void_p)) == whole
    place = (numbers.ctypes.data, 32, [(0, 0)])
    assert _only_region(numbers.ctypes.data_as(double_pointer)) == place
    assert _only_region(numbers.ctypes) == place
    (memory,) = place_arguments(SYSV_X86_64, None, [c.c_char_p(b"text")], None).memory
    assert regions_of([memory])[0].content() == b"text\0"


@pytest.mark.parametrize(
    ("ctype", "argument"),
    [
        (c.c_char_p, "text"),
        (c.c_wchar_p, b"text"),
        (c.c_wchar_p, c.c_char_p(b"text")),
        (c.c_char_p, (c.c_int * 3)()),
        (c.POINTER(c.c_int), (c.c_double * 3)()),
        (c.POINTER(c.c_int), c.byref(c.c_double())),
    ],
)
def test_pointers_to_other_types_are_refused_as_in_this_process(
    ctype: Any,  # noqa: ANN401
    argument: object,
) -> None:
    with pytest.raises(TypeError):
        ctype.from_param(argument)
    with pytest.raises(TypeError, match="argument 1: "):
        place_arguments(SYSV_X86_64, [ctype], [argument], None)


def test_scalars_of_numpy_are_numbers() -> None:
    types, values = [c.c_long, c.c_double], [np.int64(-2), np.float64(1.5)]
    frame = place_arguments(SYSV_X86_64, types, values, None)
    assert (frame.integers, frame.memory) == ([(1 << 64) - 2], [])
    assert frame.floats == [struct.unpack("<Q", struct.pack("<d", 1.5))[0]]
    with pytest.raises(TypeError, match="a float64 cannot be passed without a type"):
        place_arguments(SYSV_X86_64, None, values[1:], None)


def test_pointers_of_the_executor_are_passed_as_they_are() -> None:
    address = 0xDEAD_BEE0
    arguments = [
        c.cast(address, c.POINTER(c.c_int)),
        c.c_void_p(address),
        c.c_char_p(address),
        c.CFUNCTYPE(None)(address),
        c.POINTER(c.c_int)(),
    ]
    frame = place_arguments(SYSV_X86_64, None, arguments, None)
    assert (frame.integers, frame.memory) == ([address] * 4 + [0], [])
    types = [type(each) for each in arguments]
    assert place_arguments(SYSV_X86_64, types, arguments, None).integers == frame.integers


def test_functions_of_this_process_are_refused() -> None:
    callback = c.CFUNCTYPE(c.c_int)
    for types, function in (
        (None, callback(lambda: 1)),
        ([callback], callback(lambda: 1)),
        ([callback], lambda: 1),
        (None, c.CDLL(None).strlen),
    ):
        with pytest.raises(TypeError, match="argument 1: a function of this process"):
            place_arguments(SYSV_X86_64, types, [function], None)
    with pytest.raises(TypeError, match="expected a "):
        place_arguments(SYSV_X86_64, [callback], [c.CFUNCTYPE(None)(1)], None)
    assert place_arguments(SYSV_X86_64, [callback], [None], None).integers == [0]


def test_the_same_wrappers_in_this_process() -> None:
    length = c.CDLL(None).strlen
    assert length(In(b"four")) == 4
    source, target = bytearray(b"abc"), (c.c_char * 3)()
    c.CDLL(None).memcpy(Out(target), In(source), c.c_size_t(3))
    assert target.raw == b"abc"
    numbers = (c.c_double * 2)(1, 2)
    copy = c.CFUNCTYPE(c.c_void_p, c.POINTER(c.c_double), c.c_void_p, c.c_size_t)(
        c.cast(c.CDLL(None).memcpy, c.c_void_p).value or 0
    )
    copy(InOut(numbers), In(numbers, 8), 8)
    assert list(numbers) == [2, 2]


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
    assert convention_of("aarch64-unknown-linux-gnu") is AAPCS64
    assert convention_of("riscv64-unknown-linux-gnu") is LP64D
    assert convention_of("aarch64_be-unknown-linux-gnu") is None
