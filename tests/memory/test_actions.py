"""Allocation actions become calls when addresses are known."""

from jitlink.graph import AllocActionPair, WrapperCall
from jitlink.memory.actions import resolve_actions


class Arguments:
    """Serializes a number, which counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return bytes([self.calls])


def test_arguments_of_both_halves_are_serialized_once() -> None:
    shared, first, second = Arguments(), Arguments(), Arguments()
    pairs = [
        AllocActionPair(WrapperCall(1, shared), WrapperCall(2, shared)),
        AllocActionPair(WrapperCall(3, first), WrapperCall(4, second)),
        AllocActionPair(None, WrapperCall(5, b"given")),
        AllocActionPair(WrapperCall(6), None),
    ]
    resolved = [
        tuple((call.callee, call.arguments) for call in pair) for pair in resolve_actions(pairs)
    ]
    assert resolved == [
        ((1, b"\1"), (2, b"\1")),
        ((3, b"\1"), (4, b"\1")),
        ((0, b""), (5, b"given")),
        ((6, b""), (0, b"")),
    ]
    assert (shared.calls, first.calls, second.calls) == (1, 1, 1)
