"""Wrapper-function calls, results and signatures."""

from __future__ import annotations

import pytest

from jitlink import sps
from jitlink.sps import (
    AllocActionCallPair,
    Failure,
    SPSError,
    WrapperFunctionCall,
    WrapperFunctionResult,
    WrapperSignature,
)


def test_calls_are_packed() -> None:
    call = WrapperFunctionCall(0x1000, b"ab")
    packed = bytes.fromhex("0010000000000000 0200000000000000 6162")
    assert sps.WRAPPER_FUNCTION_CALL.serialize(call) == packed
    assert sps.WRAPPER_FUNCTION_CALL.deserialize(packed) == call
    assert type(sps.WRAPPER_FUNCTION_CALL.deserialize(packed)) is WrapperFunctionCall


def test_action_pairs_are_packed() -> None:
    pair = AllocActionCallPair(WrapperFunctionCall(1, b"x"), sps.NO_CALL)
    packed = bytes.fromhex("0100000000000000 0100000000000000 78" + "00" * 16)
    assert sps.ALLOC_ACTION_CALL_PAIR.serialize(pair) == packed
    assert sps.ALLOC_ACTION_CALL_PAIR.deserialize(packed) == pair
    with pytest.raises(SPSError):
        sps.ALLOC_ACTION_CALL_PAIR.deserialize(packed[:-1])


def test_results_of_functions_that_return_errors() -> None:
    assert WrapperFunctionResult().failure() is None
    assert WrapperFunctionResult(b"\0").failure() is None
    packed = sps.ERROR.serialize(Failure("in band"))
    assert WrapperFunctionResult(packed).failure() == Failure("in band")
    assert WrapperFunctionResult(out_of_band_error="").failure() == Failure("")
    with pytest.raises(SPSError):
        WrapperFunctionResult(b"\1").failure()


def test_signature() -> None:
    signature = WrapperSignature(sps.INT64, sps.EXECUTOR_ADDR, sps.Sequence(sps.STRING))
    arguments = signature.serialize_arguments(16, ["a"])
    assert arguments == bytes.fromhex("1000000000000000 0100000000000000 0100000000000000 61")
    assert signature.deserialize_arguments(arguments) == (16, ["a"])
    result = signature.serialize_result(1104)
    assert result == WrapperFunctionResult(bytes.fromhex("5004000000000000"))
    assert signature.deserialize_result(result) == 1104


def test_signature_refuses() -> None:
    signature = WrapperSignature(sps.INT64, sps.UINT8)
    with pytest.raises(SPSError, match="2 values given, 1 expected"):
        signature.serialize_arguments(1, 2)
    with pytest.raises(SPSError, match="the call failed: went wrong"):
        signature.deserialize_result(WrapperFunctionResult(out_of_band_error="went wrong"))
    # A remote executor has no other way to report that a call failed out of band.
    with pytest.raises(SPSError):
        signature.deserialize_result(WrapperFunctionResult())
