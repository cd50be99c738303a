"""The memory manager for this process: conformance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jitlink.memory import AddressSpace, InProcessMemoryManager
from tests.memory.conformance import MemoryManagerConformance, Ranges


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    space = AddressSpace()
    yield space
    space.close()


@pytest.fixture
def manager(space: AddressSpace) -> InProcessMemoryManager:
    return InProcessMemoryManager(space)


@pytest.fixture
def ranges(space: AddressSpace) -> Ranges:
    return lambda: [(reservation.start, reservation.end) for reservation in space.reservations]


class TestInProcess(MemoryManagerConformance):
    """All of the conformance suite."""


class TestWithoutResidentPages(MemoryManagerConformance):
    """The same where freed pages do not stay resident."""

    @pytest.fixture
    def space(self) -> Iterator[AddressSpace]:
        space = AddressSpace((16 << 20,), resident_size=0)
        yield space
        space.close()
