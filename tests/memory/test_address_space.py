"""Where memory is: windows, homes, sharing of mappings, what a process may do with them."""

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
from jitlink.memory.pages import Request
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
    made = AddressSpace()
    yield made
    assert [window.used_size for window in made.windows] == [0] * len(made.windows)
    made.close()


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
    return accessible([(window.start, window.end) for window in space.windows])


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# Places


def test_window_is_in_reach_of_the_libraries() -> None:
    # In a process of its own: here, others may have taken the places near the libraries.
    code = """if True:
        import ctypes
        from jitlink.memory import mapping
        from tests.memory.test_address_space import MEGABYTE, AddressSpace, link, small_graph

        space = AddressSpace()
        link(space, small_graph()).release()
        (window,) = space.windows
        assert window.size == 1024 * MEGABYTE
        for name in ("malloc", "qsort", "getenv"):
            address = ctypes.cast(ctypes.CDLL(None)[name], ctypes.c_void_p).value or 0
            assert max(abs(address - window.start), abs(address - window.end)) < 1 << 31
        libraries = [each for each in mapping.mapped_ranges() if "/libc" in each.path]
        assert libraries
        assert all(abs(each.end - window.start) < 1 << 31 for each in libraries)
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
    assert all(window.end <= 1 << 31 for window in space.windows)
    deallocate(space, finalized)


def test_low_memory_is_not_for_others(space: AddressSpace) -> None:
    low, other = small_graph(), small_graph()
    low.address_limit = 1 << 31
    allocs = [link(space, low, JITLinkDylib("low")), link(space, other, JITLinkDylib("other"))]
    assert address_of(low) < 1 << 31 < address_of(other)
    deallocate(space, *allocs)


def test_low_memory_beside_a_home_elsewhere(space: AddressSpace) -> None:
    dylib = JITLinkDylib("both")
    high, low, again = small_graph(), small_graph(), small_graph()
    low.address_limit = 1 << 31
    allocs = [link(space, graph, dylib) for graph in (high, low, again)]
    assert address_of(low) < 1 << 31
    assert abs(address_of(high) - address_of(again)) < 1 << 31
    deallocate(space, *allocs)


def test_library_that_began_low_stays_low(space: AddressSpace) -> None:
    dylib = JITLinkDylib("low")
    low, other = small_graph(), small_graph()
    low.address_limit = 1 << 31
    allocs = [link(space, graph, dylib) for graph in (low, other)]
    assert address_of(other) < 1 << 31
    assert space.window_of(dylib) is space.windows[0]
    deallocate(space, *allocs)


def test_limit_above_the_low_window(space: AddressSpace) -> None:
    """A window that straddles the limit serves what lies below it."""
    probe = small_graph()
    allocs = [link(space, probe)]
    start = space.windows[0].start
    graph = zeros(MEGABYTE)
    graph.address_limit = start + space.windows[0].size * 3 // 4
    allocs.append(link(space, graph))
    assert start <= address_of(graph) < graph.address_limit
    assert len(space.windows) == 1
    deallocate(space, *allocs)


def test_a_full_window_gets_a_neighbour_in_reach() -> None:
    space = AddressSpace((16 * MEGABYTE,))
    dylib = JITLinkDylib("large")
    graphs = [zeros(MEGABYTE) for _ in range(40)]
    for graph in graphs:
        graph.create_content_block(add_section(graph, READ), b"constant")
    allocs = [link(space, graph, dylib) for graph in graphs]
    addresses = [address_of(graph) for graph in graphs]
    assert 3 <= len(space.windows) <= 4
    assert max(addresses) - min(addresses) < REACH
    # What a full window had served before it was found to be full is free again.
    used = sum(window.used_size for window in space.windows)
    assert used == 40 * (MEGABYTE + mapping.PAGE_SIZE)
    deallocate(space, *allocs)
    space.close()


def test_a_full_low_window_gets_a_neighbour_in_reach() -> None:
    """That is near the window, not near the process's libraries, and not below the limit only."""
    space = AddressSpace((16 * MEGABYTE,))
    dylib, other = JITLinkDylib("low"), JITLinkDylib("other")
    first = small_graph()
    first.address_limit = 1 << 31
    allocs = [link(space, small_graph(), other), link(space, first, dylib)]
    graphs = [zeros(MEGABYTE) for _ in range(20)]
    allocs += [link(space, graph, dylib) for graph in graphs]
    assert len(space.windows) == 3
    addresses = [address_of(graph) for graph in (first, *graphs)]
    assert max(addresses) - min(addresses) < REACH
    deallocate(space, *allocs)
    space.close()


def test_room_near_a_place() -> None:
    """Wherever the place is, what is reserved near it is in reach, above it or below."""
    for place in (1 << 45, 1 << 46):
        start = mapping.reserve(MEGABYTE, place)
        assert start == place
        found = [
            reserve_near(place, place + MEGABYTE, 1 << 30, mapping.mapped_ranges())
            for _ in range(4)
        ]
        addresses = [address for address in found if address is not None]
        # Two gigabytes on each side, less than which is reach.
        assert (len(addresses), found[2:]) == (2, [None, None])
        for address in addresses:
            span = max(address + (1 << 30), place + MEGABYTE) - min(address, place)
            assert span <= REACH
            mapping.release(address, 1 << 30)
        mapping.release(place, MEGABYTE)


def test_new_libraries_move_into_roomy_windows() -> None:
    space = AddressSpace((16 * MEGABYTE,))
    allocs = [link(space, zeros(MEGABYTE), JITLinkDylib("first")) for _ in range(12)]
    homes = [JITLinkDylib("second"), JITLinkDylib("third")]
    allocs += [link(space, small_graph(), dylib) for dylib in homes]
    assert [space.window_of(dylib) for dylib in homes] == [space.windows[-1]] * 2
    assert len(space.windows) == 2
    deallocate(space, *allocs)
    space.close()


def test_large_allocation_has_a_window_that_goes_with_it(space: AddressSpace) -> None:
    dylib = JITLinkDylib("large")
    graph = zeros(3 << 30, alignment=1 << 21)
    finalized = link(space, graph, dylib)
    (window,) = space.windows
    assert window.dedicated
    assert address_of(graph) % (1 << 21) == 0
    ctypes.memset(address_of(graph) + (3 << 30) - 1, 1, 1)
    small = small_graph()
    other = link(space, small, dylib)
    assert window.start != space.windows[1].start <= address_of(small)
    deallocate(space, finalized)
    assert [each.dedicated for each in space.windows] == [False]
    assert space.window_of(dylib) is space.windows[0]
    assert accessible([(window.start, window.end)]) == []
    assert mapping.reserve(window.size, window.start) == window.start
    mapping.release(window.start, window.size)
    deallocate(space, other)


def test_large_allocation_as_the_only_one(space: AddressSpace) -> None:
    dylib = JITLinkDylib("large")
    deallocate(space, link(space, zeros(3 << 30), dylib))
    assert space.windows == ()
    assert space.window_of(dylib) is None


def test_same_window_for_later_managers(space: AddressSpace) -> None:
    addresses = set()
    for _ in range(3):
        manager, graph = InProcessMemoryManager(space), small_graph()
        alloc = drive(manager.allocate(JITLinkDylib("fresh"), graph))
        drive(manager.deallocate([drive(alloc.finalize())]))
        addresses.add(address_of(graph))
    assert len(addresses) == 1
    assert len(space.windows) == 1


# Sharing


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


def test_mappings_stay_few_after_memory_was_used_before(space: AddressSpace) -> None:
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


def test_storage_of_free_pages_is_bounded() -> None:
    space = AddressSpace((64 * MEGABYTE,), resident_size=MEGABYTE)
    dylib = JITLinkDylib("test")
    sizes = [100_000, 200_000, 250_000, 100_000, 300_000, 200_000, 100_000]
    deallocate(space, *[link(space, zeros(size), dylib) for size in sizes])
    (window,) = space.windows
    assert 0 < window.resident_size <= MEGABYTE
    assert window.used_size == 0
    space.close()


def test_pages_with_and_without_storage_are_served_together() -> None:
    """A request that neither kind has room for makes all of them the same kind."""
    pages = 64
    size = pages * mapping.PAGE_SIZE
    start = mapping.reserve(size)
    assert start is not None
    window = Reservation(start, size, dedicated=True)
    half = Request(31 * mapping.PAGE_SIZE, 1, READ, MemLifetime.STANDARD)
    runs = window.take([half, half], 1 << 64)
    assert runs is not None
    window.put([runs[0]._replace(resident=True), runs[1]])
    assert window.take([half._replace(size=size)], 1 << 64) is None
    whole = half._replace(size=size - mapping.PAGE_SIZE)
    assert window.take([whole], 1 << 64) == [(start, whole.size, False)]
    mapping.release(start, size)


# Refusals


def test_no_room_below_the_limit(space: AddressSpace) -> None:
    graph = zeros(5 << 30)
    graph.address_limit = 1 << 32
    with pytest.raises(AllocationError, match=r"no room for 0x\w+ bytes of memory below 0x1") as e:
        link(space, graph)
    assert e.value.size is not None
    assert e.value.size >= 5 << 30
    assert space.windows == ()


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_system_refuses_memory(
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
    assert space.windows[0].used_size == 0


def test_system_refuses_protection(space: AddressSpace, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_system_refuses_to_take_back(monkeypatch: pytest.MonkeyPatch) -> None:
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
    # What could not be taken back is not served again.
    again = small_graph()
    finalized = link(space, again)
    taken = {block.address for block in graph.blocks}
    assert taken.isdisjoint(block.address for block in again.blocks)
    deallocate(space, finalized)
    assert space.windows[0].used_size == 4 * mapping.PAGE_SIZE
    space.close()


def test_wrong_numbers_are_refused_by_the_system() -> None:
    """The system's own reason is in the message."""
    with pytest.raises(AllocationError, match="cannot protect 0x1000 bytes of memory: ") as caught:
        mapping.protect(1, 4096, 0)
    assert caught.value.size == 4096
    with pytest.raises(AllocationError, match="cannot release 0x0 bytes"):
        mapping.release(0, 0)
    with pytest.raises(AllocationError, match="cannot map"):
        mapping.map_zeroed(0, 1 << 60, 0)
    with pytest.raises(AllocationError, match="cannot discard"):
        mapping.discard(0, 1 << 60)


def test_reserving_what_is_taken() -> None:
    address = mapping.reserve(MEGABYTE)
    assert address is not None
    assert mapping.reserve(MEGABYTE, address) is None
    mapping.release(address, MEGABYTE)
    assert mapping.reserve(MEGABYTE, address) == address
    mapping.release(address, MEGABYTE)
    assert [mapping.reserve(size) for size in (0, -4096, 1 << 62, 1 << 80)] == [None] * 4


# Processes


def test_little_address_space() -> None:
    """Where the process may have only so much, the windows are smaller."""
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
print(PROCESS.windows[0].size >> 20)
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
    assert space.windows[0].used_size == 0


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
    """Runs of all protections, some of other arenas because their own is full."""
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
    assert space.windows == ()


def test_window_of_an_odd_number_of_pages() -> None:
    space = AddressSpace((16 * MEGABYTE + mapping.PAGE_SIZE,))
    allocs = [link(space, zeros(MEGABYTE)) for _ in range(30)]
    assert {window.size for window in space.windows} == {16 * MEGABYTE + mapping.PAGE_SIZE}
    deallocate(space, *allocs)
    assert in_space(space) == []
    space.close()
