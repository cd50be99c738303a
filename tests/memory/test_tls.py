"""TLS allocations: what threads get, and when TLS modules are loaded and unloaded."""

import ctypes
import threading
from functools import partial

import pytest

from jitlink.errors import ExecutorError, StaticTLSError, TLSError
from jitlink.memory.tls import (
    BLOCK_LIMIT,
    END_ADDRESS,
    FIRST_ADDRESS,
    TLSAllocation,
    TLSBlock,
    TLSRegistry,
)
from jitlink.memory.tls_glibc import PROCESS_TLS, load_module, unload_module
from jitlink.memory.tls_link_only import LinkOnlyTLS
from jitlink.memory.tls_module import TLSABI, TLSModuleSpec, TLSRelocation, TLSValue
from jitlink.passes.tls import TLSEdgeKinds, plan_tls
from jitlink.targets.registry import target_of_triple
from jitlink.tasks import Task, current_task, run, sleep
from tests.memory.graphs import drive, empty_graph
from tests.toolchain import MACHINE

DTPOFF, TPOFF = TLSRelocation(TLSValue.DTPOFF), TLSRelocation(TLSValue.TPOFF)


def edge_kinds() -> TLSEdgeKinds:
    """Those of this machine's target."""
    plan = target_of_triple(MACHINE).configure(empty_graph()).plan_fixups
    assert isinstance(plan, partial)
    assert plan.func is plan_tls
    kinds: TLSEdgeKinds = plan.args[0]
    return kinds


class Recorder:
    """A loader that records what is loaded; handles are consecutive numbers.

    Attributes:
        loaded: handles of the loaded modules, oldest first.
        fails: whether loading fails.
    """

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.fails = False
        self._handle = 0

    async def load_tls_module(self, data: bytes) -> int:  # noqa: ARG002 - all are equal
        if self.fails:
            raise ExecutorError("refused")
        self._handle += 1
        self.loaded.append(self._handle)
        return self._handle

    async def unload_tls_module(self, handle: int) -> None:
        self.loaded.remove(handle)

    async def read_words(self, handle: int, _symbol: str, count: int) -> list[int]:
        return [handle * 100 + n for n in range(count)]

    def instance_address(self, module: int, offset: int) -> int:
        return module * 0x1000 + offset

    def is_instance(self, module: int, offset: int, address: int) -> bool:
        return self.instance_address(module, offset) == address

    def tunables_for(self, extra: int) -> str | None:  # noqa: ARG002 - there are none
        return None


def _write(_spec: TLSModuleSpec) -> bytes:
    return b""


ABI = TLSABI(_write)


def static_allocation(registry: TLSRegistry) -> TLSAllocation:
    allocation = registry.new_allocation()
    allocation.reserve(8, 8)
    drive(allocation.load(bytearray(), [TPOFF], ABI))
    return allocation


def block_of(allocation: TLSAllocation) -> TLSBlock:
    assert allocation.block is not None
    return allocation.block


# In this process


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096, 1 << 16, 1 << 21])
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_every_thread_gets_the_image_and_zeros(size: int, alignment: int) -> None:
    content = bytearray(n % 251 + 1 for n in range(size // 2))
    allocation = PROCESS_TLS.new_allocation()
    block = allocation.reserve(size, alignment)
    drive(allocation.load(content, [], edge_kinds().abi))
    found: list[tuple[int, bytes]] = []

    def look() -> None:
        address = PROCESS_TLS.tls_address(block.address)
        found.append((address, ctypes.string_at(address, size)))
        ctypes.memset(address, 0xFF, size)

    for _ in range(2):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    look()
    assert [image for _, image in found] == [bytes(content).ljust(size, b"\0")] * 3
    assert {address % alignment for address, _ in found} == {0}
    assert block.address % alignment == 0
    assert drive(allocation.release()) == []


def test_data_that_is_no_module() -> None:
    with pytest.raises(ExecutorError, match="cannot load a library from memory"):
        load_module(b"\x7fELF")
    allocation = PROCESS_TLS.new_allocation()
    allocation.reserve(8, 8)
    with pytest.raises(TLSError, match="the TLS module cannot be loaded"):
        drive(allocation.load(bytearray(), [], TLSABI(lambda _spec: b"nothing")))
    assert drive(allocation.release()) == []


def test_equal_descriptors_are_not_taken_for_equal_libraries() -> None:
    abi = edge_kinds().abi
    modules = [
        abi.write_module(TLSModuleSpec(f"jitlink-test-{n}", bytes([n]), 8, 8, (DTPOFF,)))
        for n in range(3)
    ]
    handles = [load_module(data) for data in modules]
    assert len(set(handles)) == 3
    for handle in handles:
        unload_module(handle)


# Blocks


def test_addresses_tell_blocks_apart() -> None:
    registry = TLSRegistry(Recorder())
    allocations = [registry.new_allocation() for _ in range(3)]
    blocks = [allocation.reserve(24, 8) for allocation in allocations]
    for block in blocks:
        assert FIRST_ADDRESS <= block.address < END_ADDRESS
        assert registry.find(block.address) == (block, 0)
        assert registry.find(block.address + 24) == (block, 24)
        assert registry.find(block.address + 25) is None
    assert registry.find(blocks[0].address - 1) is None
    drive(allocations[1].release())
    assert registry.find(blocks[1].address) is None
    assert registry.find(blocks[2].address) == (blocks[2], 0)
    assert registry.count == 2


@pytest.mark.parametrize(
    ("size", "alignment"), [(BLOCK_LIMIT, 1), (1, BLOCK_LIMIT), (1 << 63, 1), (0, 1 << 63)]
)
def test_blocks_that_are_too_large(size: int, alignment: int) -> None:
    registry = TLSRegistry(Recorder())
    with pytest.raises(TLSError, match=f"{size:#x} bytes aligned to {alignment:#x}"):
        registry.new_allocation().reserve(size, alignment)
    assert registry.count == 0


def test_addresses_run_out() -> None:
    registry = TLSRegistry(Recorder())
    registry._next_address = END_ADDRESS - 0x2000
    registry.new_allocation().reserve(8, 8)
    with pytest.raises(TLSError, match="used up"):
        registry.new_allocation().reserve(0x1000, 8)


def test_an_address_before_its_module_is_loaded() -> None:
    registry = TLSRegistry(Recorder())
    allocation = registry.new_allocation()
    block = allocation.reserve(8, 8)
    with pytest.raises(TLSError, match="no thread-local variable is linked"):
        registry.tls_address(block.address)
    drive(allocation.load(bytearray(), [], ABI))
    assert registry.tls_address(block.address + 4) == block.module * 0x1000 + 4


# Unloading


def test_modules_are_unloaded_with_their_allocation() -> None:
    loader = Recorder()
    registry = TLSRegistry(loader)
    allocation = registry.new_allocation()
    allocation.reserve(8, 8)
    drive(allocation.load(bytearray(), [], ABI))
    assert loader.loaded == [1]
    assert drive(allocation.release()) == []
    assert drive(allocation.release()) == []
    assert loader.loaded == []


def test_modules_stay_loaded_while_they_have_users() -> None:
    loader = Recorder()
    registry = TLSRegistry(loader)
    provider, user = registry.new_allocation(), registry.new_allocation()
    block = provider.reserve(8, 8)
    drive(provider.load(bytearray(), [], ABI))
    relocation = TLSRelocation(TLSValue.DTPMOD, block.name)
    assert drive(user.resolve([relocation], [block], ABI)) == [[200]]
    drive(provider.release())
    assert loader.loaded == [1, 2]
    drive(user.release())
    assert loader.loaded == []


def test_static_tls_is_released_last_first() -> None:
    loader = Recorder()
    registry = TLSRegistry(loader)
    first, second, third = (static_allocation(registry) for _ in range(3))
    drive(first.release())
    drive(second.release())
    assert loader.loaded == [1, 2, 3]
    drive(third.release())
    assert loader.loaded == []


def test_static_tls_that_a_user_requires() -> None:
    """The module gets it after it was loaded; its order counts from then."""
    loader = Recorder()
    registry = TLSRegistry(loader)
    provider, user = registry.new_allocation(), registry.new_allocation()
    block = provider.reserve(16, 8)
    drive(provider.load(bytearray(), [], ABI))
    before = block.tp_offset
    relocation = TLSRelocation(TLSValue.TPOFF, block.name, 8)
    drive(user.resolve([relocation], [block], ABI))
    assert (before, block.tp_offset) == (None, 200 - 8)
    last = static_allocation(registry)
    for allocation in (user, provider):
        drive(allocation.release())
    assert loader.loaded == [1, 3]
    drive(last.release())
    assert loader.loaded == []


def test_a_block_that_is_only_linked_has_one_place_in_static_tls() -> None:
    registry = LinkOnlyTLS(Recorder())
    provider, user, other = (registry.new_allocation() for _ in range(3))
    block = provider.reserve(16, 8)
    drive(provider.load(bytearray(), [], ABI))
    relocations = [TLSRelocation(TLSValue.TPOFF, block.name, addend) for addend in (0, 8)]
    (first,), (second,) = drive(user.resolve(relocations, [block], ABI))
    assert block.tp_offset == 2**64 - 16
    assert (first, second) == (2**64 - 16, 2**64 - 8)
    assert drive(other.resolve(relocations, [block], ABI)) == [[first], [second]]


def test_links_that_need_each_other_wait_until_both_are_loaded() -> None:
    registry = TLSRegistry(Recorder())

    async def both() -> list[list[int]]:
        one, other = registry.new_allocation(), registry.new_allocation()
        block = one.reserve(8, 8)
        relocation = TLSRelocation(TLSValue.DTPMOD, block.name)
        waiting = Task(current_task().loop, other.resolve([relocation], [block], ABI))
        await sleep(0.01)
        assert not waiting.is_done
        await one.load(bytearray(), [], ABI)
        return await waiting

    assert run(both()) == [[200]]


def test_waiting_for_a_link_that_fails() -> None:
    registry = TLSRegistry(Recorder())

    async def both() -> None:
        one, other = registry.new_allocation(), registry.new_allocation()
        block = one.reserve(8, 8)
        waiting = Task(current_task().loop, other.resolve([], [block], ABI))
        await sleep(0.01)
        await one.release()
        await waiting

    with pytest.raises(TLSError, match="failed to link"):
        run(both())


def test_errors_of_loading() -> None:
    loader = Recorder()
    loader.fails = True
    registry = TLSRegistry(loader)
    allocation = registry.new_allocation()
    allocation.reserve(8, 8)
    with pytest.raises(TLSError, match="refused") as caught:
        drive(allocation.load(bytearray(), [TPOFF], ABI))
    # Without the relocation it is not loaded either: static TLS is not the reason.
    assert not isinstance(caught.value, StaticTLSError)
    assert isinstance(caught.value.__cause__, ExecutorError)
    assert drive(allocation.release()) == []
    assert (loader.loaded, registry.count) == ([], 0)
