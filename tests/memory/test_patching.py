"""Replacing code pages atomically, without changing their neighbours."""

import ctypes
from collections.abc import Iterator

import pytest

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.memory import mapping
from jitlink.memory.mapping import PAGE_SIZE, mapped_ranges
from jitlink.memory.patching import replace_code
from tests.machine_code import returning

SIZE = 4 * PAGE_SIZE


def page_returning(number: int) -> bytes:
    """A page of code that returns a number."""
    return returning(number).ljust(PAGE_SIZE, b"\xcc")


@pytest.fixture
def code() -> Iterator[int]:
    """Address of four pages of code that return 0, 1, 2 and 3."""
    address = mapping.reserve(SIZE)
    assert address is not None
    mapping.map_zeroed(address, SIZE, SIZE)
    mapping.view(address, SIZE)[:] = b"".join(map(page_returning, range(4)))
    mapping.protect_written(address, SIZE, MemProt.READ | MemProt.EXEC)
    yield address
    mapping.release(address, SIZE)


def results(code: int) -> list[int]:
    return [ctypes.CFUNCTYPE(ctypes.c_int)(code + n * PAGE_SIZE)() for n in range(4)]


def test_page_ranges_are_replaced(code: int) -> None:
    replace_code({code + PAGE_SIZE: page_returning(10) + page_returning(20)})
    assert results(code) == [0, 10, 20, 3]
    replace_code({code: page_returning(5), code + 3 * PAGE_SIZE: page_returning(6)})
    assert results(code) == [5, 10, 20, 6]
    held = [mapped for mapped in mapped_ranges() if code <= mapped.start < code + SIZE]
    assert {mapped.permissions for mapped in held} == {"r-xp"}


def test_only_code_is_replaced(code: int) -> None:
    with pytest.raises(AllocationError, match="no private code at 0x1000 that"):
        replace_code({code: page_returning(9), 0x1000: page_returning(9)})
    writable = code + 2 * PAGE_SIZE
    mapping.protect(writable, PAGE_SIZE, mapping.READ_WRITE)
    with pytest.raises(AllocationError, match=f"no private code at {writable:#x} that"):
        replace_code({code: page_returning(9) * 4})
    mapping.protect(writable, PAGE_SIZE, int(MemProt.READ | MemProt.EXEC))
    assert results(code) == [0, 1, 2, 3]
