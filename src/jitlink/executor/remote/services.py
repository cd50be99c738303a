"""Calls of an executor's services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jitlink.errors import ExecutorError
from jitlink.executor.remote.connection import Connection
from jitlink.executor.remote.dialects import Service, dialect_of
from jitlink.executor.remote.errors import ProtocolError
from jitlink.sps import Failure, SPSError

T = TypeVar("T")


class Services:
    """The services of an executor.

    Args:
        connection: the connection to it.
        symbols: its bootstrap symbols.

    Attributes:
        connection: the connection.
        symbols: its bootstrap symbols.
        dialect: which services there are.
        timeout: seconds that a call may take; None for as long as it takes.

    Raises:
        ProtocolError: it speaks no dialect that is known.
    """

    def __init__(self, connection: Connection, symbols: Mapping[str, int]) -> None:
        self.connection = connection
        self.dialect = dialect_of(symbols)
        self.timeout: float | None = None
        self.symbols = symbols
        self._handles: dict[str, int] = {}

    def has(self, service: Service[T]) -> bool:
        """Whether the executor offers a service."""
        names = [service.name, *([service.instance] if service.instance else [])]
        return all(name in self.symbols for name in names)

    def address(self, service: Service[T]) -> int:
        """The address of a service that is offered."""
        return self.symbols[service.name]

    def arguments(self, service: Service[T], *arguments: object) -> bytes:
        """The serialized arguments of a call of a service that is offered."""
        return bytes(self._pack(service, *arguments))

    def _pack(self, service: Service[T], *arguments: object) -> bytearray:
        first = [] if service.instance is None else [self.symbols[service.instance]]
        try:
            return service.signature.pack_arguments(*first, *arguments)
        except SPSError as error:
            raise ExecutorError(f"{service.name} cannot be called: {error}") from error

    async def handle_of(self, library: str) -> int:
        """The executor's handle of a library, which is loaded if it has not been.

        Args:
            library: its path; empty for the program, and all libraries that are loaded.

        Raises:
            ExecutorError: it cannot be loaded.
        """
        if library not in self._handles:
            self._handles[library] = await self.call(self.dialect.open_dylib, library, 0)
        return self._handles[library]

    async def call(
        self, service: Service[T], *arguments: object, timeout: float | None = None
    ) -> T:
        """Call a service.

        Args:
            service: the service.
            arguments: its arguments.
            timeout: seconds that this call may take; by default those of any call.

        Raises:
            ExecutorError: it failed, the executor lacks it, or an argument does not fit its type.
            ProtocolError: its result cannot be read.
            ExecutorDisconnectedError: the executor is gone.
        """
        if not self.has(service):
            raise ExecutorError(f"the executor does not offer {service.name}")
        # Contents of memory may be large: there is one copy, and none once it is sent.
        result = await self.connection.call(
            self.address(service),
            self._pack(service, *arguments),
            self.timeout if timeout is None else timeout,
            runs_program=service.runs_program,
        )
        if result.out_of_band_error is not None:
            raise ExecutorError(f"{service.name} failed: {result.out_of_band_error}")
        if service.returns_value and not result.data:
            # Of most executors out-of-band errors do not cross the wire: their results are empty.
            raise ExecutorError(f"{service.name} failed in the executor, without saying why")
        try:
            value = service.signature.deserialize_result(result)
        except SPSError as error:
            message = f"the result of {service.name} cannot be read: {error}"
            raise ProtocolError(message) from error
        if isinstance(value, Failure):
            raise ExecutorError(value.message)
        return value  # type: ignore[no-any-return]
