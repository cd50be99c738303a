"""Leases of thread-local storage: what threads get, and when templates come and go."""

import ctypes
import threading

import pytest

from jitlink.errors import ExecutorError, StaticTLSError, TLSError
from jitlink.memory.tls import (
    BLOCK_LIMIT,
    FIRST_ADDRESS,
    LAST_ADDRESS,
    TLSAllocation,
    TLSBlock,
    TLSModuleSpec,
    TLSRegistry,
    TLSRequest,
    TLSValue,
)
from jitlink.memory.tls_glibc import PROCESS_TLS, load_module, unload_module
from jitlink.targets.elf_x86_64 import TLS_EDGE_KINDS
from jitlink.tasks import Task, current_task, run, sleep
from tests.memory.graphs import drive

OFFSET, ROOM = TLSRequest(TLSValue.OFFSET), TLSRequest(TLSValue.TPOFF)


class Recorder:
    """A loader that notes what is asked of it, and gives out consecutive numbers.

    Attributes:
        loaded: handles of what is loaded, oldest first.
        fails: whether loading fails.
    """

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.fails = False
        self._handle = 0

    async def load_tls_module(self, image: bytes) -> int:  # noqa: ARG002 - they are all alike
        if self.fails:
            raise ExecutorError("no room")
        self._handle += 1
        self.loaded.append(self._handle)
        return self._handle

    async def unload_dylib(self, handle: int) -> None:
        self.loaded.remove(handle)

    async def module_words(self, handle: int, _symbol: str, count: int) -> list[int]:
        return [handle * 100 + n for n in range(count)]

    def tls_address(self, module: int, offset: int) -> int:
        return module * 0x1000 + offset


def write(_image: TLSModuleSpec) -> bytes:
    return b""


def static_lease(storage: TLSRegistry) -> TLSAllocation:
    lease = storage.new_lease()
    lease.reserve(8, 8)
    drive(lease.load(bytearray(), [ROOM], write))
    return lease


def block_of(lease: TLSAllocation) -> TLSBlock:
    assert lease.block is not None
    return lease.block


# In this process


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096, 1 << 16, 1 << 21])
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_every_thread_gets_the_image_and_zeros(size: int, alignment: int) -> None:
    content = bytearray(n % 251 + 1 for n in range(size // 2))
    lease = PROCESS_TLS.new_lease()
    block = lease.reserve(size, alignment)
    drive(lease.load(content, [], TLS_EDGE_KINDS.write))
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
    assert drive(lease.release()) == []


def test_images_that_are_none() -> None:
    with pytest.raises(ExecutorError, match="cannot load a library from memory"):
        load_module(b"\x7fELF")
    lease = PROCESS_TLS.new_lease()
    lease.reserve(8, 8)
    with pytest.raises(TLSError, match="cannot be had"):
        drive(lease.load(bytearray(), [], lambda _image: b"nothing"))
    assert drive(lease.release()) == []


def test_equal_descriptors_are_not_taken_for_equal_libraries() -> None:
    images = [
        TLS_EDGE_KINDS.write(TLSModuleSpec(f"jitlink-test-{n}", bytes([n]), 8, 8, (OFFSET,)))
        for n in range(3)
    ]
    handles = [load_module(image) for image in images]
    assert len(set(handles)) == 3
    for handle in handles:
        unload_module(handle)


# Blocks


def test_addresses_tell_blocks_apart() -> None:
    storage = TLSRegistry(Recorder())
    leases = [storage.new_lease() for _ in range(3)]
    blocks = [lease.reserve(24, 8) for lease in leases]
    for block in blocks:
        assert FIRST_ADDRESS <= block.address < LAST_ADDRESS
        assert storage.find(block.address) == (block, 0)
        assert storage.find(block.address + 24) == (block, 24)
        assert storage.find(block.address + 25) is None
    assert storage.find(blocks[0].address - 1) is None
    drive(leases[1].release())
    assert storage.find(blocks[1].address) is None
    assert storage.find(blocks[2].address) == (blocks[2], 0)
    assert storage.count == 2


@pytest.mark.parametrize(
    ("size", "alignment"), [(BLOCK_LIMIT, 1), (1, BLOCK_LIMIT), (1 << 63, 1), (0, 1 << 63)]
)
def test_blocks_that_are_too_large(size: int, alignment: int) -> None:
    storage = TLSRegistry(Recorder())
    with pytest.raises(TLSError, match=f"{size:#x} bytes aligned to {alignment:#x}"):
        storage.new_lease().reserve(size, alignment)
    assert storage.count == 0


def test_addresses_run_out() -> None:
    storage = TLSRegistry(Recorder())
    storage._next_address = LAST_ADDRESS - 0x2000
    storage.new_lease().reserve(8, 8)
    with pytest.raises(TLSError, match="used up"):
        storage.new_lease().reserve(0x1000, 8)


def test_an_address_before_its_template_is_loaded() -> None:
    storage = TLSRegistry(Recorder())
    lease = storage.new_lease()
    block = lease.reserve(8, 8)
    with pytest.raises(TLSError, match="no thread-local variable is linked"):
        storage.tls_address(block.address)
    drive(lease.load(bytearray(), [], write))
    assert storage.tls_address(block.address + 4) == block.module * 0x1000 + 4


# What stays loaded


def test_templates_go_with_their_lease() -> None:
    loader = Recorder()
    storage = TLSRegistry(loader)
    lease = storage.new_lease()
    lease.reserve(8, 8)
    drive(lease.load(bytearray(), [], write))
    assert loader.loaded == [1]
    assert drive(lease.release()) == []
    assert drive(lease.release()) == []
    assert loader.loaded == []


def test_templates_wait_for_those_who_use_them() -> None:
    loader = Recorder()
    storage = TLSRegistry(loader)
    provider, user = storage.new_lease(), storage.new_lease()
    block = provider.reserve(8, 8)
    drive(provider.load(bytearray(), [], write))
    request = TLSRequest(TLSValue.MODULE, block.name)
    assert drive(user.refer([request], [block], write)) == [[200]]
    drive(provider.release())
    assert loader.loaded == [1, 2]
    drive(user.release())
    assert loader.loaded == []


def test_static_room_is_given_back_last_first() -> None:
    loader = Recorder()
    storage = TLSRegistry(loader)
    first, second, third = (static_lease(storage) for _ in range(3))
    drive(first.release())
    drive(second.release())
    assert loader.loaded == [1, 2, 3]
    drive(third.release())
    assert loader.loaded == []


def test_static_room_that_a_user_needs() -> None:
    """It is taken after the fact, and waits for what was given room before."""
    loader = Recorder()
    storage = TLSRegistry(loader)
    provider, user = storage.new_lease(), storage.new_lease()
    block = provider.reserve(16, 8)
    drive(provider.load(bytearray(), [], write))
    before = block.tp_offset
    request = TLSRequest(TLSValue.TPOFF, block.name, 8)
    drive(user.refer([request], [block], write))
    assert (before, block.tp_offset) == (None, 200 - 8)
    last = static_lease(storage)
    for lease in (user, provider):
        drive(lease.release())
    assert loader.loaded == [1, 3]
    drive(last.release())
    assert loader.loaded == []


def test_those_who_need_each_other_wait_until_both_are_loaded() -> None:
    storage = TLSRegistry(Recorder())

    async def both() -> list[list[int]]:
        one, other = storage.new_lease(), storage.new_lease()
        block = one.reserve(8, 8)
        request = TLSRequest(TLSValue.MODULE, block.name)
        waiting = Task(current_task().loop, other.refer([request], [block], write))
        await sleep(0.01)
        assert not waiting.is_done
        await one.load(bytearray(), [], write)
        return await waiting

    assert run(both()) == [[200]]


def test_waiting_for_a_link_that_fails() -> None:
    storage = TLSRegistry(Recorder())

    async def both() -> None:
        one, other = storage.new_lease(), storage.new_lease()
        block = one.reserve(8, 8)
        waiting = Task(current_task().loop, other.refer([], [block], write))
        await sleep(0.01)
        await one.release()
        await waiting

    with pytest.raises(TLSError, match="failed to link"):
        run(both())


def test_errors_of_loading() -> None:
    loader = Recorder()
    loader.fails = True
    storage = TLSRegistry(loader)
    lease = storage.new_lease()
    lease.reserve(8, 8)
    with pytest.raises(TLSError, match="no room") as caught:
        drive(lease.load(bytearray(), [ROOM], write))
    # Without the request it is not loaded either: it is no matter of static room.
    assert not isinstance(caught.value, StaticTLSError)
    assert isinstance(caught.value.__cause__, ExecutorError)
    assert drive(lease.release()) == []
    assert (loader.loaded, storage.count) == ([], 0)
