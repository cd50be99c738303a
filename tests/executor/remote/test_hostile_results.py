"""What executors send is checked: addresses, names, sizes and counts."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jitlink import tasks
from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor import LibrarySymbol, ProtocolError, RemoteExecutorProcessControl
from jitlink.executor.remote.channels import SocketChannel
from jitlink.executor.remote.dialects import JITLINK, Service
from jitlink.executor.remote.mappers import SharedMemoryMapper
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.executor.remote.memory_services import reserve
from jitlink.executor.remote.messages import OpCode
from jitlink.memory.mapper import MapperJITLinkMemoryManager
from jitlink.sps.services import SETUP, FoundSymbol, Setup, SymbolDef
from tests.executor.remote.fake import encoded, messages_of, services_of

PAGE = 4096


class PlayedExecutor:
    """Answers calls of services with prepared values, in order.

    Attributes:
        answers: what services return, each a list of values that is consumed.
        calls: the services that were called.
        control: the controller's side.
    """

    def __init__(self, memory: MemoryKind, page_size: int = PAGE) -> None:
        services = list(services_of(JITLINK))
        names = dict.fromkeys(
            name for each in services for name in (each.name, each.instance) if name
        )
        assert JITLINK.report_crashes is not None
        self.answers: dict[Service[Any], list[object]] = {JITLINK.report_crashes: [None]}
        self.calls: list[Service[Any]] = []
        self._symbols = {name: number for number, name in enumerate(names, 1)}
        self._by_address = {self._symbols[each.name]: each for each in services}
        self._socket, theirs = socket.socketpair()
        setup = Setup("x86_64-unknown-linux-gnu", page_size, {}, self._symbols)
        self._socket.sendall(encoded(OpCode.SETUP, payload=SETUP.serialize(setup)))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        try:
            self.control = RemoteExecutorProcessControl(
                SocketChannel(theirs), memory=memory, timeout=20
            )
        except ExecutorError:
            self._thread.join()
            raise

    def _serve(self) -> None:
        with self._socket:
            for message in messages_of(self._socket):
                if message.opcode is OpCode.HANGUP:
                    return
                service = self._by_address[message.tag]
                self.calls.append(service)
                result = service.signature.serialize_result(self.answers[service].pop(0))
                self._socket.sendall(encoded(OpCode.RESULT, message.sequence, payload=result.data))

    def close(self) -> None:
        """End the connection."""
        self.control.close()
        self._thread.join()


@pytest.fixture(name="played", params=["generic", "shared"])
def _played(request: pytest.FixtureRequest) -> Iterator[PlayedExecutor]:
    executor = PlayedExecutor(request.param)
    yield executor
    executor.close()


@pytest.fixture(name="shared")
def _shared() -> Iterator[PlayedExecutor]:
    executor = PlayedExecutor("shared")
    yield executor
    executor.close()


@pytest.mark.parametrize("size", [0, 3, 4095, 1 << 31, (1 << 64) - 1])
def test_impossible_page_sizes(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"impossible page size, {size}"):
        PlayedExecutor("generic", size)


@pytest.mark.parametrize("address", [0, (1 << 64) - PAGE])
def test_impossible_reservations(played: PlayedExecutor, address: int) -> None:
    played.answers[JITLINK.memory.reserve] = [address]
    with pytest.raises(ProtocolError, match=rf"has reserved 0x2000 bytes at {address:#x}"):
        tasks.run(reserve(played.control.services, 2 * PAGE))


def test_reads_that_return_other_than_asked(played: PlayedExecutor) -> None:
    service = JITLINK.read_buffers
    assert service is not None
    played.answers[service] = [[b"abcd"], [b"abc"], [b"abcde"], [], [b"abcd", b""]]
    assert tasks.run(played.control.read_memory(1000, 4)) == b"abcd"
    for _ in range(4):
        with pytest.raises(ProtocolError, match="4 bytes at 0x3e8 were read, and others returned"):
            tasks.run(played.control.read_memory(1000, 4))


def test_lookups_that_return_other_than_asked(played: PlayedExecutor) -> None:
    played.answers[JITLINK.open_dylib] = [7]
    played.answers[JITLINK.lookup] = [[], [SymbolDef(1, (0, 0))] * 2]
    for count in (0, 2):
        with pytest.raises(ProtocolError, match=f"1 symbols were looked up, and {count} returned"):
            tasks.run(played.control.lookup_symbols(["malloc"]))


def test_descriptions_of_other_addresses(shared: PlayedExecutor) -> None:
    service, mappings = JITLINK.find_symbols, JITLINK.list_mappings
    assert service is not None
    assert mappings is not None
    shared.answers[service] = [[], [None, None], *[[FoundSymbol("/lib", 1, 8)]] * 3]
    line = b"1000-2000 r--p 0 00:00 0 /lib"
    shared.answers[mappings] = [line, line, b"nothing", b"1000-1008 r--p 0 00:00 0 /lib", line]
    for _ in range(2):
        with pytest.raises(ProtocolError, match=r"1 addresses were asked for, not [02]"):
            tasks.run(shared.control.describe_addresses([0x1004]))
    assert tasks.run(shared.control.describe_addresses([0x1004])) == [None]
    for is_constant in (False, True):
        assert tasks.run(shared.control.describe_addresses([0x1004])) == [
            LibrarySymbol("/lib", is_function=False, size=8, is_constant=is_constant)
        ]


def _manager(executor: PlayedExecutor) -> MapperJITLinkMemoryManager:
    manager = executor.control.memory_manager
    assert isinstance(manager, MapperJITLinkMemoryManager)
    return manager


@pytest.fixture(name="memory_file")
def _memory_file() -> Iterator[Path]:
    path = Path(f"/dev/shm/jitlink_test_{os.getpid()}")
    path.write_bytes(bytes(4 * PAGE))
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name", ["", "/", "/sem.other", "jitlink_1", "/jitlink_1/../x", "/jitlink_\0x", "/jitlink_none"]
)
def test_names_of_other_memory(shared: PlayedExecutor, name: str) -> None:
    shared.answers[JITLINK.shared_memory.reserve] = [(1 << 32, name)]
    shared.answers[JITLINK.shared_memory.release] = [None]
    with pytest.raises(AllocationError, match="cannot map 0x1000 bytes of shared memory"):
        tasks.run(_manager(shared).mapper.reserve(PAGE))
    # What the executor has reserved is given back.
    assert shared.calls[-1] is JITLINK.shared_memory.release


def test_memory_of_other_programs_keeps_its_name(shared: PlayedExecutor) -> None:
    path = Path(f"/dev/shm/other_{os.getpid()}")
    path.write_bytes(bytes(PAGE))
    try:
        shared.answers[JITLINK.shared_memory.reserve] = [(1 << 32, f"/{path.name}")]
        shared.answers[JITLINK.shared_memory.release] = [None]
        with pytest.raises(AllocationError, match="no name of an executor's shared memory"):
            tasks.run(_manager(shared).mapper.reserve(PAGE))
        assert path.exists()
    finally:
        path.unlink()


def test_shared_memory_that_is_too_small(shared: PlayedExecutor, memory_file: Path) -> None:
    shared.answers[JITLINK.shared_memory.reserve] = [(1 << 32, f"/{memory_file.name}")]
    shared.answers[JITLINK.shared_memory.release] = [None]
    with pytest.raises(AllocationError, match="cannot map 0x5000 bytes"):
        tasks.run(_manager(shared).mapper.reserve(5 * PAGE))


@pytest.mark.parametrize("second", [1 << 32, (1 << 32) - PAGE, (1 << 32) + 3 * PAGE])
def test_reservations_that_overlap(shared: PlayedExecutor, memory_file: Path, second: int) -> None:
    name = f"/{memory_file.name}"
    shared.answers[JITLINK.shared_memory.reserve] = [(1 << 32, name), (second, name)]
    mapper = _manager(shared).mapper
    tasks.run(mapper.reserve(4 * PAGE))
    with pytest.raises(ProtocolError, match=f"reserved memory at {second:#x} a second time"):
        tasks.run(mapper.reserve(4 * PAGE))


def test_the_file_of_a_reservation_that_is_refused(shared: PlayedExecutor) -> None:
    """It is removed with the others of the process."""
    pid = 1 << 30  # None has so large a number.
    path = Path(f"/dev/shm/jitlink_{pid}_{os.getpid()}")
    path.write_bytes(bytes(PAGE))
    shared.answers[JITLINK.shared_memory.reserve] = [(0, f"/{path.name}")]
    mapper = SharedMemoryMapper(shared.control.services, PAGE, pid=pid)
    try:
        with pytest.raises(ProtocolError, match="reserved 0x1000 bytes at 0x0"):
            tasks.run(mapper.reserve(PAGE))
        mapper.close()
        assert not path.exists()
    finally:
        path.unlink(missing_ok=True)


def test_a_reservation_that_is_not_low_enough_is_released(
    shared: PlayedExecutor, memory_file: Path
) -> None:
    service = JITLINK.shared_memory.reserve_below
    assert service is not None
    shared.answers[service] = [(1 << 32, f"/{memory_file.name}")]
    shared.answers[JITLINK.shared_memory.release] = [None]
    manager = MapperJITLinkMemoryManager(_manager(shared).mapper, 4 * PAGE)
    with pytest.raises(AllocationError, match="below 0x80000000: the executor reserves memory at"):
        tasks.run(manager.take(None, [(PAGE, PAGE)], 1 << 31))
    assert shared.calls[-1] is JITLINK.shared_memory.release
