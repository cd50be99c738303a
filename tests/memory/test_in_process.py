"""The memory manager of this process, by its conformance and by where it puts things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jitlink.memory import AddressSpace, InProcessMemoryManager
from tests.memory.conformance import MemoryManagerConformance, Ranges


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    made = AddressSpace()
    yield made
    made.close()


@pytest.fixture
def manager(space: AddressSpace) -> InProcessMemoryManager:
    return InProcessMemoryManager(space)


@pytest.fixture
def ranges(space: AddressSpace) -> Ranges:
    return lambda: [(window.start, window.end) for window in space.windows]


class TestInProcess(MemoryManagerConformance):
    """All of the conformance suite."""


class TestWithoutResidentPages(MemoryManagerConformance):
    """The same where freed pages lose their storage at once."""

    @pytest.fixture
    def space(self) -> Iterator[AddressSpace]:
        made = AddressSpace((16 << 20,), resident_size=0)
        yield made
        made.close()
