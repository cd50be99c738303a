"""Calls of wrapper functions of emulated code.

Specification: `jitlink.sps.wrapper`. The result is a struct of two words, or with 32-bit pointers
one of twelve bytes, which is returned in memory.
"""

from __future__ import annotations

from jitlink.abi.buffers import In, Out, PlacedMemory, regions_of
from jitlink.abi.frames import CallFrame
from jitlink.executor.emulated.calls import EmulatedCalls
from jitlink.sps import WrapperFunctionResult

_INLINE_SIZE = 8


def call_wrapper(
    calls: EmulatedCalls, address: int, arguments: bytes, timeout: float | None
) -> WrapperFunctionResult:
    """Call a wrapper function with serialized arguments.

    The memory of a result that is larger than eight bytes stays allocated: the function has got it
    from an allocator that is not known here.
    """
    machine = calls.processor.machine
    word = machine.pointer_size
    returns_words = word == _INLINE_SIZE
    frame, memory = CallFrame(calls.convention), []
    result = bytearray(_INLINE_SIZE + word)
    if not returns_words:
        frame.integers.append(0)
        memory.append(PlacedMemory(0, Out(result)))
    memory.append(PlacedMemory(len(frame.integers), In(arguments or b"\0")))
    frame.integers += [0, len(arguments)]
    regions = regions_of(memory)
    results = (2, 0) if returns_words else (0, 0)
    integers, _, contents = calls.call(address, frame, regions, results, timeout)
    if returns_words:
        value = integers[0].to_bytes(_INLINE_SIZE, machine.byte_order)
        size = integers[1]
    else:
        value = contents[0][:_INLINE_SIZE]
        size = int.from_bytes(contents[0][_INLINE_SIZE:], machine.byte_order)
    pointer = int.from_bytes(value[:word], machine.byte_order)
    if size > _INLINE_SIZE:
        return WrapperFunctionResult(calls.processor.read(pointer, size))
    if size == 0 and pointer:
        text = calls.processor.string_at(pointer).decode("utf-8", "replace")
        return WrapperFunctionResult(out_of_band_error=text)
    return WrapperFunctionResult(value[:size])
