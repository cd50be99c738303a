"""FreeList, compared with a set of addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jitlink.memory.free_list import FreeList

START, END = 3, 200


def lowest(free: set[int], size: int, alignment: int, limit: int) -> int | None:
    for address in range(-(-START // alignment) * alignment, END, alignment):
        wanted = range(address, address + size)
        if wanted.stop <= limit and free.issuperset(wanted):
            return address
    return None


def ranges(free: set[int]) -> list[tuple[int, int]]:
    starts = sorted(address for address in free if address - 1 not in free)
    ends = sorted(address + 1 for address in free if address + 1 not in free)
    return list(zip(starts, ends, strict=True))


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 5), st.integers(0, 230)) | st.integers(0, 20),
        max_size=60,
    )
)
def test_against_a_set(steps: list[tuple[int, int, int] | int]) -> None:
    free_list, free = FreeList(START, END), set(range(START, END))
    allocated: list[range] = []
    for step in steps:
        if isinstance(step, tuple):
            size, power, limit = step
            address = free_list.take(size, 1 << power, limit)
            assert address == lowest(free, size, 1 << power, limit)
            if address is not None:
                allocated.append(range(address, address + size))
                free.difference_update(allocated[-1])
        elif step < len(allocated):
            freed = allocated.pop(step)
            free_list.put(freed.start, freed.stop)
            free.update(freed)
        assert free_list.ranges() == ranges(free)
        assert free_list.size == len(free)
