"""The address space: reservations, which JITDylib uses which, sharing of mappings, forks."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.errors import AllocationError
from jitlink.graph import LinkGraph, MemLifetime
from jitlink.memory import (
    AddressSpace,
    FinalizedAlloc,
    InProcessMemoryManager,
    JITLinkDylib,
    mapping,
)
from jitlink.memory.pages import PageRequest
from jitlink.memory.reservation import REACH, Reservation, reserve_near
from tests.memory.graphs import (
    READ,
    READ_EXEC,
    READ_WRITE,
    accessible,
    add_section,
    drive,
    empty_graph,
    small_graph,
    state,
)

MEGABYTE = 1 << 20


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    space = AddressSpace()
    yield space
    assert not any(reservation.used_size for reservation in space.reservations)
    space.close()


def link(
    space: AddressSpace, graph: LinkGraph, dylib: JITLinkDylib | None = None
) -> FinalizedAlloc:
    alloc = drive(_manager(space).allocate(dylib, graph))
    return drive(alloc.finalize())


def _manager(space: AddressSpace) -> InProcessMemoryManager:
    manager: InProcessMemoryManager | None = getattr(space, "test_manager", None)
    if manager is None:
        manager = InProcessMemoryManager(space)
        space.test_manager = manager  # type: ignore[attr-defined]
    return manager


def deallocate(space: AddressSpace, *allocs: FinalizedAlloc) -> None:
    drive(_manager(space).deallocate(allocs))


def zeros(size: int, alignment: int = 1) -> LinkGraph:
    graph = empty_graph()
    graph.create_zero_fill_block(add_section(graph, READ_WRITE), size, alignment=alignment)
    return graph


def address_of(graph: LinkGraph) -> int:
    return int(graph.block_table.address[0])


def in_space(space: AddressSpace) -> list[tuple[int, int, str]]:
    return accessible([(reservation.start, reservation.end) for reservation in space.reservations])


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# Addresses


def test_reservation_is_in_reach_of_the_libraries() -> None:
    # In a process of its own: here, the addresses near the libraries may be in use.
    code = """if True:
        import ctypes
        from jitlink.memory import mapping
        from tests.memory.test_address_space import MEGABYTE, AddressSpace, link, small_graph

        space = AddressSpace()
        link(space, small_graph()).release()
        (reservation,) = space.reservations
        assert reservation.size == 1024 * MEGABYTE
        # No functions of the program, which may have canonical PLT entries.
        for name in ("hsearch", "lsearch", "tsearch"):
            address = ctypes.cast(ctypes.CDLL(None)[name], ctypes.c_void_p).value or 0
            ends = reservation.start, reservation.end
            assert max(abs(address - end) for end in ends) < 1 << 31
        libraries = [mapped for mapped in mapping.mapped_ranges() if "/libc" in mapped.path]
        assert libraries
        assert all(abs(mapped.end - reservation.start) < 1 << 31 for mapped in libraries)
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("limit", [1 << 31, 1 << 32])
def test_low_addresses(space: AddressSpace, limit: int) -> None:
    graph = small_graph()
    graph.address_limit = limit
    finalized = link(space, graph)
    assert all(block.address + block.size <= limit for block in graph.blocks)
    assert all(reservation.end <= 1 << 31 for reservation in space.reservations)
    deallocate(space, finalized)


def test_low_memory_is_not_used_without_need(space: AddressSpace) -> None:
    low, other = small_graph(), small_graph()
    low.address_limit = 1 << 31
    allocs = [link(space, low, JITLinkDylib("low")), link(space, other, JITLinkDylib("other"))]
    assert address_of(low) < 1 << 31 < address_of(other)
    deallocate(space, *allocs)


def test_low_memory_of_a_library_that_is_elsewhere(space: AddressSpace) -> None:
    dylib = JITLinkDylib("both")
    high, low, again = small_graph(), small_graph(), small_graph()
    low.address_limit = 1 << 31
    allocs = [link(space, graph, dylib) for graph in (high, low, again)]
    assert address_of(low) < 1 << 31
    assert abs(address_of(high) - address_of(again)) < 1 << 31
    deallocate(space, *allocs)


def test_library_whose_first_memory_is_low_stays_low(space: AddressSpace) -> None:
    dylib = JITLinkDylib("low")
    low, other = small_graph(), small_graph()
    low.address_limit = 1 << 31
    allocs = [link(space, graph, dylib) for graph in (low, other)]
    assert address_of(other) < 1 << 31
    assert space.reservation_of(dylib) is space.reservations[0]
    deallocate(space, *allocs)


def test_limit_within_a_reservation(space: AddressSpace) -> None:
    """The part of the reservation below the limit is used."""
    probe = small_graph()
    allocs = [link(space, probe)]
    start = space.reservations[0].start
    graph = zeros(MEGABYTE)
    graph.address_limit = start + space.reservations[0].size * 3 // 4
    allocs.append(link(space, graph))
    assert start <= address_of(graph) < graph.address_limit
    assert len(space.reservations) == 1
    deallocate(space, *allocs)


def test_reservation_in_reach_of_a_full_one() -> None:
    space = AddressSpace((16 * MEGABYTE,))
    dylib = JITLinkDylib("large")
    graphs = [zeros(MEGABYTE) for _ in range(40)]
    for graph in graphs:
        graph.create_content_block(add_section(graph, READ), b"constant")
    allocs = [link(space, graph, dylib) for graph in graphs]
    addresses = [address_of(graph) for graph in graphs]
    assert 3 <= len(space.reservations) <= 4
    assert max(addresses) - min(addresses) < REACH
    # Page ranges allocated before a reservation turned out to be full are free again.
    used = sum(reservation.used_size for reservation in space.reservations)
    assert used == 40 * (MEGABYTE + mapping.PAGE_SIZE)
    deallocate(space, *allocs)
    space.close()


def test_reservation_in_reach_of_a_full_low_one() -> None:
    """It is near the full one, not near the process's libraries, and not only below the limit."""
    space = AddressSpace((16 * MEGABYTE,))
    dylib, other = JITLinkDylib("low"), JITLinkDylib("other")
    first = small_graph()
    first.address_limit = 1 << 31
    allocs = [link(space, small_graph(), other), link(space, first, dylib)]
    graphs = [zeros(MEGABYTE) for _ in range(20)]
    allocs += [link(space, graph, dylib) for graph in graphs]
    assert len(space.reservations) == 3
    addresses = [address_of(graph) for graph in (first, *graphs)]
    assert max(addresses) - min(addresses) < REACH
    deallocate(space, *allocs)
    space.close()


def test_reserve_near_an_address() -> None:
    """At any address, what is reserved near it is in reach, above it or below."""
    for place in (1 << 45, 1 << 46):
        start = mapping.reserve(MEGABYTE, place)
        assert start == place
        found = [
            reserve_near(place, place + MEGABYTE, 1 << 30, mapping.mapped_ranges())
            for _ in range(4)
        ]
        addresses = [address for address in found if address is not None]
        # REACH is less than two gigabytes, so one range fits on each side.
        assert (len(addresses), found[2:]) == (2, [None, None])
        for address in addresses:
            span = max(address + (1 << 30), place + MEGABYTE) - min(address, place)
            assert span <= REACH
            mapping.release(address, 1 << 30)
        mapping.release(place, MEGABYTE)


def test_new_libraries_use_reservations_that_are_less_than_half_full() -> None:
    space = AddressSpace((16 * MEGABYTE,))
    allocs = [link(space, zeros(MEGABYTE), JITLinkDylib("first")) for _ in range(12)]
    dylibs = [JITLinkDylib("second"), JITLinkDylib("third")]
    allocs += [link(space, small_graph(), dylib) for dylib in dylibs]
    assert [space.reservation_of(dylib) for dylib in dylibs] == [space.reservations[-1]] * 2
    assert len(space.reservations) == 2
    deallocate(space, *allocs)
    space.close()


def test_large_allocation_has_a_dedicated_reservation(space: AddressSpace) -> None:
    dylib = JITLinkDylib("large")
    graph = zeros(3 << 30, alignment=1 << 21)
    finalized = link(space, graph, dylib)
    (reservation,) = space.reservations
    assert reservation.dedicated
    assert address_of(graph) % (1 << 21) == 0
    ctypes.memset(address_of(graph) + (3 << 30) - 1, 1, 1)
    small = small_graph()
    other = link(space, small, dylib)
    assert reservation.start != space.reservations[1].start <= address_of(small)
    deallocate(space, finalized)
    assert [reservation.dedicated for reservation in space.reservations] == [False]
    assert space.reservation_of(dylib) is space.reservations[0]
    assert accessible([(reservation.start, reservation.end)]) == []
    assert mapping.reserve(reservation.size, reservation.start) == reservation.start
    mapping.release(reservation.start, reservation.size)
    deallocate(space, other)


def test_large_allocation_as_the_only_one(space: AddressSpace) -> None:
    dylib = JITLinkDylib("large")
    deallocate(space, link(space, zeros(3 << 30), dylib))
    assert space.reservations == ()
    assert space.reservation_of(dylib) is None


def test_same_reservation_for_later_managers(space: AddressSpace) -> None:
    addresses = set()
    for _ in range(3):
        manager, graph = InProcessMemoryManager(space), small_graph()
        alloc = drive(manager.allocate(JITLinkDylib("fresh"), graph))
        drive(manager.deallocate([drive(alloc.finalize())]))
        addresses.add(address_of(graph))
    assert len(addresses) == 1
    assert len(space.reservations) == 1


# Sharing


@pytest.mark.native("lists parts of a mapping apart")
def test_a_thousand_small_graphs_make_few_mappings(space: AddressSpace) -> None:
    graphs = [small_graph() for _ in range(1000)]
    allocs = [link(space, graph) for graph in graphs]
    found = in_space(space)
    assert len(found) <= 6
    assert {permissions for _, _, permissions in found} == {"r--", "r-x", "rw-"}
    addresses = [block.address for graph in graphs for block in graph.blocks]
    assert max(addresses) - min(addresses) < 1 << 31
    deallocate(space, *allocs)
    assert in_space(space) == []


@pytest.mark.native("lists parts of a mapping apart")
def test_reused_memory_makes_few_mappings(space: AddressSpace) -> None:
    for _ in range(3):
        allocs = [link(space, small_graph()) for _ in range(100)]
        assert len(in_space(space)) <= 9
        deallocate(space, *allocs)


def test_freed_pages_are_used_again(space: AddressSpace) -> None:
    first, second, third = small_graph(), small_graph(), small_graph()
    allocs = [link(space, first), link(space, second)]
    deallocate(space, allocs[0])
    allocs[0] = link(space, third)
    assert state(first) != state(second)
    assert [block.address for block in third.blocks] == [block.address for block in first.blocks]
    deallocate(space, *allocs)


def test_resident_size_is_bounded() -> None:
    space = AddressSpace((64 * MEGABYTE,), resident_size=MEGABYTE)
    dylib = JITLinkDylib("test")
    sizes = [100_000, 200_000, 250_000, 100_000, 300_000, 200_000, 100_000]
    deallocate(space, *[link(space, zeros(size), dylib) for size in sizes])
    (reservation,) = space.reservations
    assert 0 < reservation.resident_size <= MEGABYTE
    assert reservation.used_size == 0
    space.close()


def test_resident_and_empty_pages_are_allocated_together() -> None:
    """A request that fits neither kind alone makes resident pages empty."""
    pages = 64
    size = pages * mapping.PAGE_SIZE
    start = mapping.reserve(size)
    assert start is not None
    reservation = Reservation(start, size, dedicated=True)
    half = PageRequest(31 * mapping.PAGE_SIZE, 1, READ, MemLifetime.STANDARD)
    ranges = reservation.allocate([half, half], 1 << 64)
    assert ranges is not None
    reservation.free([ranges[0]._replace(resident=True), ranges[1]])
    assert reservation.allocate([half._replace(size=size)], 1 << 64) is None
    whole = half._replace(size=size - mapping.PAGE_SIZE)
    assert reservation.allocate([whole], 1 << 64) == [(start, whole.size, False)]
    mapping.release(start, size)


# Failures


def test_too_little_memory_below_the_limit(space: AddressSpace) -> None:
    graph = zeros(5 << 30)
    graph.address_limit = 1 << 32
    with pytest.raises(AllocationError, match=r"cannot allocate 0x\w+ bytes of memory below") as e:
        link(space, graph)
    assert e.value.size is not None
    assert e.value.size >= 5 << 30
    assert space.reservations == ()


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_system_refuses_to_map(
    space: AddressSpace, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    calls = []
    map_zeroed = mapping.map_zeroed

    def refuse(address: int, size: int, populate: int) -> None:
        calls.append(address)
        if len(calls) > nth:
            raise AllocationError("refused", size=size)
        map_zeroed(address, size, populate)

    monkeypatch.setattr(mapping, "map_zeroed", refuse)
    graph = small_graph()
    before = state(graph)
    with pytest.raises(AllocationError, match="refused"):
        link(space, graph)
    assert state(graph) == before
    assert in_space(space) == []
    assert space.reservations[0].used_size == 0


def test_system_refuses_to_protect(space: AddressSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_address: int, size: int, _prot: int) -> None:
        raise AllocationError("refused", size=size)

    graph = small_graph()
    before = state(graph)
    alloc = drive(_manager(space).allocate(None, graph))
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "protect_written", refuse)
        with pytest.raises(AllocationError, match="refused"):
            drive(alloc.finalize())
    assert state(graph) == before
    assert in_space(space) == []


def test_system_refuses_to_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_address: int, size: int, *_prot: int) -> None:
        raise AllocationError("refused", size=size)

    space = AddressSpace()
    graph = small_graph()
    alloc = drive(_manager(space).allocate(None, graph))
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "protect", refuse)
        patch.setattr(mapping, "discard", refuse)
        with pytest.raises(AllocationError, match="refused"):
            drive(alloc.abandon())
    # Pages that could not be freed are not allocated again.
    again = small_graph()
    finalized = link(space, again)
    lost = {block.address for block in graph.blocks}
    assert lost.isdisjoint(block.address for block in again.blocks)
    deallocate(space, finalized)
    assert space.reservations[0].used_size == 4 * mapping.PAGE_SIZE
    space.close()


def test_system_refuses_wrong_arguments() -> None:
    """The message contains the system's reason."""
    with pytest.raises(AllocationError, match="cannot protect 0x1000 bytes of memory: ") as caught:
        mapping.protect(1, 4096, 0)
    assert caught.value.size == 4096
    with pytest.raises(AllocationError, match="cannot release 0x0 bytes"):
        mapping.release(0, 0)
    with pytest.raises(AllocationError, match="cannot map"):
        mapping.map_zeroed(0, 1 << 60, 0)
    with pytest.raises(AllocationError, match="cannot discard"):
        mapping.discard(0, 1 << 60)


def test_reserve_at_an_address_in_use() -> None:
    address = mapping.reserve(MEGABYTE)
    assert address is not None
    assert mapping.reserve(MEGABYTE, address) is None
    mapping.release(address, MEGABYTE)
    assert mapping.reserve(MEGABYTE, address) == address
    mapping.release(address, MEGABYTE)
    assert [mapping.reserve(size) for size in (0, -4096, 1 << 62, 1 << 80)] == [None] * 4


# Processes


@pytest.mark.native("has no limit of the address space")
def test_limited_address_space() -> None:
    """Where the address space of the process is limited, reservations are smaller."""
    program = """
import resource
from pathlib import Path
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.address_space import PROCESS
from tests.memory.graphs import drive, small_graph
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
limit = used + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
manager = InProcessMemoryManager()
alloc = drive(manager.allocate(None, small_graph()))
drive(manager.deallocate([drive(alloc.finalize())]))
print(PROCESS.reservations[0].size >> 20)
"""
    assert run_python(program) in {"256\n", "64\n"}


def test_threads_share_one_space(space: AddressSpace) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        manager = InProcessMemoryManager(space)
        try:
            for _ in range(60):
                graph = small_graph()
                finalized = drive(drive(manager.allocate(None, graph)).finalize())
                function = next(graph.blocks).address
                assert ctypes.CFUNCTYPE(ctypes.c_int)(function)() == 42
                drive(manager.deallocate([finalized]))
        except BaseException as error:  # noqa: BLE001 - passed on to the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert in_space(space) == []
    assert space.reservations[0].used_size == 0


def test_forked_child_links_too() -> None:
    """Even where another thread held the lock when the process forked."""
    program = """
import os
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.address_space import PROCESS
from tests.memory.graphs import drive, small_graph
manager = InProcessMemoryManager()
kept = drive(drive(manager.allocate(None, small_graph())).finalize())
PROCESS._lock.acquire()
child = os.fork()
if child == 0:
    alloc = drive(manager.allocate(None, small_graph()))
    drive(manager.deallocate([drive(alloc.finalize()), kept]))
    print("child", flush=True)
    os._exit(0)
PROCESS._lock.release()
assert os.waitpid(child, 0)[1] == 0
drive(manager.deallocate([kept]))
"""
    assert run_python(program) == "child\n"


def test_protections_beside_each_other_are_not_writable_and_executable(
    space: AddressSpace,
) -> None:
    """Also where pages are allocated from the part of another protection, as their own is full."""
    small = AddressSpace((16 * MEGABYTE,))
    allocs = []
    for prot in (READ, READ_EXEC, READ_WRITE):
        for _ in range(4):
            graph = empty_graph()
            graph.create_zero_fill_block(add_section(graph, prot), 2 * MEGABYTE - 4096)
            allocs.append(link(small, graph))
    assert not any("wx" in permissions for _, _, permissions in in_space(small))
    deallocate(small, *allocs)
    small.close()
    assert space.reservations == ()


def test_reservation_of_an_odd_number_of_pages() -> None:
    space = AddressSpace((16 * MEGABYTE + mapping.PAGE_SIZE,))
    allocs = [link(space, zeros(MEGABYTE)) for _ in range(30)]
    sizes = {reservation.size for reservation in space.reservations}
    assert sizes == {16 * MEGABYTE + mapping.PAGE_SIZE}
    deallocate(space, *allocs)
    assert in_space(space) == []
    space.close()
