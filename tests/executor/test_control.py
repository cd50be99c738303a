"""What executors have in common."""

import pytest

from jitlink import tasks
from jitlink.executor.control import read_to_null

PAGE = 4096


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("length", [0, 1, 255, 256, PAGE, 3 * PAGE + 5, 1 << 20])
@pytest.mark.parametrize("start", [0, 8, PAGE - 4])
def test_strings_are_read_up_to_the_page_of_their_null(unit: int, length: int, start: int) -> None:
    """What follows that may not be there; and long strings are read a page at a time."""
    text = bytes([*bytes(unit - 1), 7]) * length
    memory = bytes(start) + text + bytes(unit)
    memory += b"x" * (-len(memory) % PAGE)
    reads = 0

    async def read(address: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert address // PAGE == (address + size - 1) // PAGE
        assert address + size <= len(memory)
        return memory[address : address + size]

    assert tasks.run(read_to_null(read, start, PAGE, unit)) == text
    assert reads <= len(memory) // PAGE + 6
