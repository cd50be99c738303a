"""Calls that are placed by a plan are placed as any others."""

import ctypes as c
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitlink.abi.conventions import (
    AAPCS64,
    ILP32,
    ILP32D,
    LP64D,
    SYSV_X86_64,
    CallingConvention,
)
from jitlink.abi.frames import CallFrame, place_arguments, read_result
from jitlink.abi.scalars import scalar_plan

CONVENTIONS = (SYSV_X86_64, AAPCS64, LP64D, ILP32D, ILP32)
INTEGERS = (
    *(c.c_int8, c.c_uint8, c.c_int16, c.c_uint16),
    *(c.c_int32, c.c_uint32, c.c_int64, c.c_uint64),
)
FLOATS = (c.c_float, c.c_double)


def _argument(kind: Any) -> st.SearchStrategy[tuple[Any, object]]:  # noqa: ANN401
    numbers: st.SearchStrategy[object] = st.integers(-(1 << 64), 1 << 64)
    if kind in FLOATS:
        numbers = st.integers(-1000, 1000) | st.floats(-1e30, 1e30)
    return st.tuples(st.just(kind), numbers)


CALLS = st.lists(st.sampled_from([*INTEGERS, *FLOATS]).flatmap(_argument), max_size=6)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda each: each.name)
@given(calls=CALLS)
@settings(max_examples=60, deadline=None)
def test_frames_are_equal(convention: CallingConvention, calls: list[tuple[Any, object]]) -> None:
    types, arguments = [kind for kind, _ in calls], [value for _, value in calls]
    plan = scalar_plan(convention, types, len(types), c.c_int32)
    is_wide = any(
        (kind in INTEGERS and c.sizeof(kind) > convention.word)
        or (kind in FLOATS and not convention.float_registers)
        for kind in types
    )
    assert (plan is None) == is_wide
    if plan is None:
        return
    frame = CallFrame(convention)
    assert plan.place(frame, arguments)
    expected = place_arguments(convention, types, arguments, None)
    mask = (1 << 8 * convention.word) - 1
    assert [each & mask for each in frame.integers] == [each & mask for each in expected.integers]
    assert frame.floats == expected.floats
    assert frame.stack == expected.stack == []


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS, None])
def test_results_are_equal(convention: CallingConvention, kind: Any) -> None:  # noqa: ANN401
    plan = scalar_plan(convention, [], 0, kind)
    if plan is None:
        return
    words = [0xFFFF_FFFF_8000_0081] * max(convention.integer_results, convention.float_results, 1)
    registers = [*words[: convention.integer_results], *words[: convention.float_results]]
    expected = read_result(convention, kind, registers)
    found = plan.read(words, words)
    # NaN is not equal to itself.
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("argument", [None, "text", b"bytes", c.c_int(3), True, 1.5, [1]])
def test_what_is_no_number_is_left_to_others(argument: object) -> None:
    plan = scalar_plan(AAPCS64, [c.c_int], 1, None)
    assert plan is not None
    assert not plan.place(CallFrame(AAPCS64), [argument])


@pytest.mark.parametrize("types", [
    [c.c_void_p], [c.POINTER(c.c_int)], [c.c_char], [c.c_bool], [c.c_int] * 9, [c.c_double] * 9
])  # fmt: skip
def test_what_has_no_plan(types: list[Any]) -> None:
    assert scalar_plan(AAPCS64, types, len(types), None) is None
    assert scalar_plan(AAPCS64, [c.c_int], 2, None) is None
    assert scalar_plan(AAPCS64, [], 0, c.c_void_p) is None
    assert scalar_plan(AAPCS64, [], 0, int) is None
