"""Access to the memory of an executor that is another process, and what it has there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from jitlink.errors import ExecutorError
from jitlink.executor.control import ExecutorProcessControl, LibrarySymbol, check_integer_size
from jitlink.executor.remote.dialects import Service
from jitlink.executor.remote.errors import ExecutorRestartedError, ProtocolError
from jitlink.executor.remote.process import ChildProcess
from jitlink.executor.remote.services import Services
from jitlink.memory.mapping import MappedRange, mapping_at, parse_mappings
from jitlink.sps import ExecutorAddrRange

T = TypeVar("T")


class RemoteMemoryAccess(ExecutorProcessControl):
    """The part of a `RemoteExecutorProcessControl` that accesses memory.

    Attributes:
        services: the executor's services.
    """

    services: Services
    _process: ChildProcess | None

    def _check_generation(self, generation: int | None, address: int) -> None:
        if generation is not None and generation != self.generation:
            raise ExecutorRestartedError.of_address(address)

    @property
    def reads_memory(self) -> bool:
        """Whether the executor has a service that reads memory."""
        return self.services.dialect.read_buffers is not None

    async def read_memory(self, address: int, size: int, generation: int | None = None) -> bytes:
        """The bytes at an address; an address that cannot be read ends the executor."""
        services = self.services
        self._check_generation(generation, address)
        asked = [ExecutorAddrRange(address, address + size)]
        (content,) = await self._read_buffers(services, asked)
        return content

    async def read_buffers(self, ranges: Sequence[ExecutorAddrRange]) -> list[bytes]:
        """The bytes of several ranges, in one message."""
        return await self._read_buffers(self.services, ranges)

    async def _read_buffers(
        self, services: Services, ranges: Sequence[ExecutorAddrRange]
    ) -> list[bytes]:
        found = await services.call(self._reading(services.dialect.read_buffers), ranges)
        if list(map(len, found)) != [end - start for start, end in ranges]:
            asked = " and ".join(f"{end - start} bytes at {start:#x}" for start, end in ranges)
            raise ProtocolError(f"{asked} were read, and others returned")
        return found

    async def write_memory(
        self,
        address: int,
        content: bytes | bytearray | memoryview,
        generation: int | None = None,
    ) -> None:
        """Write bytes to an address; one that cannot be written ends the executor."""
        services = self.services
        self._check_generation(generation, address)
        await services.call(services.dialect.write_buffers, [(address, bytes(content))])

    async def write_buffers(
        self, buffers: Sequence[tuple[int, bytes | bytearray | memoryview]]
    ) -> None:
        """Write bytes to several addresses, in one message."""
        service = self.services.dialect.write_buffers
        await self.services.call(service, [(address, bytes(data)) for address, data in buffers])

    async def read_integers(self, size: int, addresses: Sequence[int]) -> list[int]:
        """Unsigned integers, in one message."""
        check_integer_size(size)
        service = self._reading(self.services.dialect.read_integers.get(size))
        return self._checked(addresses, await self.services.call(service, addresses))

    async def write_integers(self, size: int, integers: Sequence[tuple[int, int]]) -> None:
        """Write unsigned integers, in one message, each in one store."""
        check_integer_size(size, (value for _, value in integers))
        await self.services.call(self.services.dialect.write_integers[size], list(integers))

    async def read_strings(self, addresses: Sequence[int]) -> list[bytes]:
        """Strings, in one message."""
        service = self._reading(self.services.dialect.read_strings)
        found = self._checked(addresses, await self.services.call(service, addresses))
        return [text.encode("utf-8", "surrogateescape") for text in found]

    def _reading(self, service: Service[T] | None) -> Service[T]:
        """A service that reads memory.

        Raises:
            ExecutorError: there is none.
        """
        if service is None:
            raise ExecutorError(f"executors of {self.services.dialect.name} cannot read memory")
        return service

    def _checked(self, asked: Sequence[object], found: list[T]) -> list[T]:
        if len(found) != len(asked):
            raise ProtocolError(f"{len(asked)} values were read, and {len(found)} returned")
        return found

    async def write_words(self, words: Sequence[tuple[int, int]]) -> None:
        """Write words, each in one store; an address that cannot be written ends the executor."""
        await self.write_integers(8, words)

    async def mappings(self) -> list[MappedRange]:
        """What the process maps; for LLVM's executors that are not children unknown."""
        process, service = self._process, self.services.dialect.list_mappings
        listed = b""
        if service is not None and self.services.has(service):
            listed = await self.services.call(service)
        if not listed and process is not None:
            # Of LLVM's executors.
            listed = process.mappings()
        return parse_mappings(listed)

    async def describe_addresses(self, addresses: Sequence[int]) -> list[LibrarySymbol | None]:
        """What the process has at addresses: as it says, or as the files that it maps do."""
        services, service = self.services, self.services.dialect.find_symbols
        mapped = await self.mappings()
        if service is None or not services.has(service):
            from jitlink.executor.code_map import LibraryFiles  # noqa: PLC0415 - seldom needed

            files = LibraryFiles(mapped)
            return [files.describe_symbol(address) for address in addresses]
        from jitlink.executor.library_symbols import library_symbol  # noqa: PLC0415 - likewise

        found = await services.call(service, list(addresses))
        if len(found) != len(addresses):
            raise ProtocolError(f"{len(addresses)} addresses were asked for, not {len(found)}")
        return [
            library_symbol(address, mapping_at(address, mapped), symbol)
            for address, symbol in zip(addresses, found, strict=True)
        ]
