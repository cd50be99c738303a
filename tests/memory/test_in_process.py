"""The memory manager for this process: conformance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jitlink.graph import MemProt
from jitlink.memory import AddressSpace, InProcessMemoryManager, mapping
from jitlink.memory.mapping import mapped_ranges
from tests.memory.conformance import MemoryManagerConformance, Ranges
from tests.memory.graphs import drive, small_graph


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


@pytest.fixture(params=[1 << 14, 1 << 16])
def page_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A page size of other systems, as AArch64 has them; all mappings are multiples of it."""
    size: int = request.param
    monkeypatch.setattr(mapping, "PAGE_SIZE", size)
    return size


@pytest.mark.usefixtures("page_size")
class TestWithLargePages(MemoryManagerConformance):
    """The same where pages are larger."""


def test_segments_share_no_large_page(page_size: int, manager: InProcessMemoryManager) -> None:
    graphs = [small_graph() for _ in range(3)]
    allocs = [drive(drive(manager.allocate(None, graph)).finalize()) for graph in graphs]
    protections: dict[int, set[MemProt]] = {}
    for graph in graphs:
        for block in graph.blocks:
            protections.setdefault(block.address // page_size, set()).add(block.section.mem_prot)
    assert all(len(each) == 1 for each in protections.values())
    # Each page is mapped as a whole.
    mapped = mapped_ranges()
    for page, (prot,) in protections.items():
        first = page * page_size
        held = [each for each in mapped if each.start < first + page_size and first < each.end]
        assert {each.permissions[:3] for each in held} == {str(prot).lower()}
    drive(manager.deallocate(allocs))
