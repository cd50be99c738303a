"""The controller's side of an executor that is another process.

::

    with RemoteExecutorProcessControl.launch() as executor:
        with LLJIT(executor=executor) as jit:
            jit.add_object("plugin.o")
            address = jit.lookup("work")
            jit.session.wait(executor.run_as_int_function(address, 3))

The process may be a child, or listen on this or another machine; and it may be LLVM's. What it
offers differs by `jitlink.executor.remote.dialects`. If it ends, for whatever reason, calls raise
an `ExecutorDisconnectedError`, and this process goes on.

Memory of the executor is managed in one of these ways:

=================  =====================  =====================================================
``memory``         reserved               content
=================  =====================  =====================================================
``shared``         a gigabyte at once     is written to memory that both processes map
``simple-remote``  a gigabyte at once     crosses the wire when a link is finalized
``generic``        for each link          the same
=================  =====================  =====================================================

The default is ``shared`` for a child, and ``generic`` for others: whether another executor is on
this machine is not known. LLVM 19's executor cannot do ``simple-remote``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor.callback_errors import CallNumbers, Raised, innermost_call
from jitlink.executor.control import ExecutorProcessControl, LibrarySymbol, PlacedArguments
from jitlink.executor.remote.connection import Channel, Connection, SocketChannel
from jitlink.executor.remote.dialects import DISPATCH_CONTEXT, DISPATCH_FUNCTION
from jitlink.executor.remote.errors import ProtocolError
from jitlink.executor.remote.process import ChildProcess, default_executor
from jitlink.executor.remote.program import RemoteProgram
from jitlink.executor.remote.services import Services
from jitlink.memory import JITLinkMemoryManager
from jitlink.sps import ExecutorAddrRange, Words, WrapperFunctionResult
from jitlink.sps.services import Setup, SymbolLookupElement

if TYPE_CHECKING:
    from jitlink.memory.mapper import MemoryMapper

_NUMBERED_CALL = Words(2)
MemoryKind = Literal["shared", "simple-remote", "generic"]
_SETUP_TIMEOUT = 30.0
"""Seconds that an executor has to send its setup message."""


class RemoteExecutorProcessControl(ExecutorProcessControl):
    """An executor that is another process.

    Args:
        channel: the byte stream to it, which the executor closes in the end.
        memory: how its memory is managed.
        timeout: seconds after which a call is stopped, and with it the executor; by default
            calls may take as long as they do.
        process: the process, if it is a child.

    Attributes:
        bootstrap_symbols: addresses of what the executor offers, by name.
        connection: the connection.
        services: its services.

    Raises:
        ExecutorError: it is not there, or speaks no dialect that is known.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        memory: MemoryKind = "generic",
        timeout: float | None = None,
        process: ChildProcess | None = None,
    ) -> None:
        self._process = process
        if process is None:
            self.connection = Connection(channel)
        else:
            self.connection = Connection(channel, explain=process.explain, stop=process.stop)
        self._finalizer = weakref.finalize(self, _abandon, self.connection, process)
        try:
            setup = self.connection.setup(_SETUP_TIMEOUT)
            self._set_up(setup, memory)
        except BaseException:
            self._finalizer()
            raise
        self.services.timeout = timeout

    def _set_up(self, setup: Setup, memory: MemoryKind) -> None:
        self.triple, self.page_size = setup.triple, setup.page_size
        if not 0 < self.page_size <= 1 << 30 or self.page_size & (self.page_size - 1):
            raise ProtocolError(f"the executor has an impossible page size, {self.page_size}")
        self.bootstrap_symbols: Mapping[str, int] = setup.bootstrap_symbols
        self.services = Services(self.connection, setup.bootstrap_symbols)
        self.memory_manager = self._create_memory_manager(memory)
        self._handle: int | None = None
        symbols = setup.bootstrap_symbols
        self._dispatch: tuple[int, int] | None = None
        self._numbering: tuple[CallNumbers, int] | None = None
        if DISPATCH_FUNCTION in symbols and DISPATCH_CONTEXT in symbols:
            self._dispatch = symbols[DISPATCH_FUNCTION], symbols[DISPATCH_CONTEXT]
        # The connection must not keep the executor.
        self._incoming = self.connection.handler = _IncomingCalls()
        process = self._process
        auxiliary = b"" if process is None else process.auxiliary_vector()
        self._program = RemoteProgram(self.services, auxiliary)
        self._lock = threading.Lock()
        self._at_close: list[int] = []

    def _create_memory_manager(self, kind: MemoryKind) -> JITLinkMemoryManager:
        # Imported on use: each executor needs one of them.
        if kind == "generic":
            from jitlink.executor.remote.generic_memory import (  # noqa: PLC0415
                GenericJITLinkMemoryManager,
            )

            return GenericJITLinkMemoryManager(self.services, self.page_size)
        from jitlink.executor.remote import mappers  # noqa: PLC0415
        from jitlink.memory.mapper import MapperJITLinkMemoryManager  # noqa: PLC0415

        pid = None if self._process is None else self._process.pid
        kinds: dict[str, Callable[[Services, int], MemoryMapper]] = {
            "shared": partial(mappers.SharedMemoryMapper, pid=pid),
            "simple-remote": mappers.SimpleRemoteMemoryMapper,
        }
        if kind not in kinds:
            raise ValueError(
                f"{kind!r} is no kind of memory; these are: generic, {', '.join(kinds)}"
            )
        return MapperJITLinkMemoryManager(kinds[kind](self.services, self.page_size))

    @classmethod
    def launch(
        cls,
        command: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        memory: MemoryKind = "shared",
        timeout: float | None = None,
    ) -> Self:
        """Start an executor as a child process, and connect to it by pipes.

        Args:
            command: path of the executor, or a sequence of it and further arguments; by default
                jitlink's own, or where there is none for this machine an
                ``llvm-jitlink-executor`` that is installed.
            memory: how its memory is managed.
            timeout: seconds after which a call is stopped.

        Raises:
            ExecutorError: it cannot be started, or is no executor.
        """
        if command is None:
            command = default_executor()
        words = [command] if isinstance(command, str | os.PathLike) else list(command)
        process = ChildProcess(words)
        return cls(process.channel, memory=memory, timeout=timeout, process=process)

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        *,
        memory: MemoryKind = "generic",
        timeout: float | None = None,
    ) -> Self:
        """Connect to an executor that listens for TCP connections.

        Nothing is encrypted, and the executor runs what its client sends, whichever client that is.

        Args:
            host: where it listens.
            port: the port.
            memory: how its memory is managed; ``shared`` if it is on this machine.
            timeout: seconds after which a call is stopped.

        Raises:
            ExecutorError: it does not listen there, or is no executor.
        """
        try:
            connected = socket.create_connection((host, port), _SETUP_TIMEOUT)
        except (OSError, OverflowError) as error:
            raise ExecutorError(f"cannot connect to {host}:{port}: {error}") from error
        return cls(SocketChannel(connected), memory=memory, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and wait until the executor has ended; a second call does nothing.

        Sessions must have ended before: their memory is the executor's.
        """
        if self._at_close:
            tasks.run(self._call_at_close())
        self.connection.close()
        self.memory_manager.close()
        self._finalizer()

    @property
    def reads_memory(self) -> bool:
        """Whether the executor has a service that reads memory."""
        return self.services.dialect.read_buffers is not None

    @property
    def is_alive(self) -> bool:
        """Whether the connection is there."""
        return self.connection.is_open

    async def _call_at_close(self) -> None:
        while self._at_close:
            # Nothing is left to do for an executor that is gone.
            with contextlib.suppress(ExecutorError):
                await self.call_wrapper(self._at_close.pop(), b"")

    @property
    def process(self) -> ChildProcess | None:
        """The process, if it is a child of this one."""
        return self._process

    # Libraries

    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Load a shared library, for the rest of the executor's life."""
        name = os.fspath(path)
        if not name or "\0" in name:
            raise ExecutorError(f"cannot load {name!r}: not a file name")
        try:
            return await self.services.call(self.services.dialect.open_dylib, name, 0)
        except ExecutorError as error:
            if self.connection.is_open:
                raise ExecutorError(f"cannot load {name}: {error}") from error
            raise

    async def lookup_symbols(
        self, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        """Addresses of symbols that loaded libraries export; one that is null counts as missing."""
        services = self.services
        if dylib is None:
            if self._handle is None:
                self._handle = await services.call(services.dialect.open_dylib, "", 0)
            dylib = self._handle
        tls = self.memory_manager.tls
        if tls is not None:
            await tls.reserve_static_tls(names)
        # LLVM's executors end when they are asked for an empty name, and C has no others.
        asked = [name for name in names if name and "\0" not in name]
        elements = [SymbolLookupElement(name, False) for name in asked]
        found = await services.call(services.dialect.lookup, dylib, elements) if asked else []
        if len(found) != len(asked):
            raise ProtocolError(f"{len(asked)} symbols were looked up, and {len(found)} returned")
        addresses = {
            name: symbol.address or None
            for name, symbol in zip(asked, found, strict=True)
            if symbol is not None
        }
        return [addresses.get(name) for name in names]

    async def describe_addresses(self, addresses: Sequence[int]) -> list[LibrarySymbol | None]:
        """What the executor has at addresses of symbols, if it can say that."""
        service = self.services.dialect.describe_addresses
        if service is None:
            return await super().describe_addresses(addresses)
        found = await self.services.call(service, list(addresses))
        if len(found) != len(addresses):
            raise ProtocolError(f"{len(addresses)} addresses were asked for, not {len(found)}")
        return [None if each is None else LibrarySymbol(*each) for each in found]

    # Memory

    async def read_memory(self, address: int, size: int) -> bytes:
        """The bytes at an address; an address that cannot be read ends the executor."""
        service = self.services.dialect.read_buffers
        if service is None:
            raise ExecutorError(f"executors of {self.services.dialect.name} cannot read memory")
        found = await self.services.call(service, [ExecutorAddrRange(address, address + size)])
        if [len(each) for each in found] != [size]:
            raise ProtocolError(f"{size} bytes at {address:#x} were read, and others returned")
        return found[0]

    async def write_memory(self, address: int, content: bytes | bytearray | memoryview) -> None:
        """Write bytes to an address; one that cannot be written ends the executor."""
        service = self.services.dialect.write_buffers
        await self.services.call(service, [(address, bytes(content))])

    async def write_words(self, words: Sequence[tuple[int, int]]) -> None:
        """Write words; an address that cannot be written ends the executor."""
        await self.services.call(self.services.dialect.write_words, list(words))

    # Running

    async def place_arguments(self, argv: Sequence[str]) -> PlacedArguments:
        """Place arguments, and what can be read of the environment and the auxiliary vector."""
        return await self._program.place(self, argv)

    async def begin_program(
        self,
        argv: Sequence[str],
        name: str | None = None,  # noqa: ARG002 - without arguments the executor keeps its own
    ) -> PlacedArguments:
        """Place arguments; the environment becomes the executor's, and the first one its name."""
        return await self._program.begin(self, argv)

    async def call_main(self, address: int, arguments: PlacedArguments) -> int:
        """Call ``main``; LLVM's executors pass it copies of the arguments and no environment."""
        dialect = self.services.dialect
        if dialect.call_main is not None:
            return await self.services.call(dialect.call_main, address, *arguments)
        argv = self._program.arguments_at(arguments.argv)
        return await self.services.call(dialect.run_as_main, address, argv)

    async def end_program(self) -> None:
        """Nothing: output is flushed when the executor ends."""

    async def run_as_main(self, address: int, argv: Sequence[str]) -> int:
        """Call ``main`` of a program that has no initialisers and exit handlers."""
        if any("\0" in argument for argument in argv):
            raise ValueError("an argument contains a null character")
        return await self.services.call(self.services.dialect.run_as_main, address, list(argv))

    async def run_as_void_function(self, address: int) -> int:
        """Call ``int f(void)`` and return what it returned."""
        return await self.services.call(self.services.dialect.run_as_void_function, address)

    async def run_as_int_function(self, address: int, argument: int) -> int:
        """Call ``int f(int)`` and return what it returned."""
        if not -(1 << 31) <= argument < 1 << 31:
            raise ValueError(f"{argument} does not fit a C int")
        service = self.services.dialect.run_as_int_function
        return await self.services.call(service, address, argument)

    def call_wrapper(
        self, address: int, arguments: bytes
    ) -> Coroutine[Any, Any, WrapperFunctionResult]:
        """Call a wrapper function; its out-of-band errors arrive as empty results."""
        return self._call_wrapper(address, arguments, innermost_call())

    async def _call_wrapper(
        self, address: int, arguments: bytes, raised: Raised | None
    ) -> WrapperFunctionResult:
        timeout = self.services.timeout
        if raised is None or self._numbering is None:
            return await self.connection.call(address, arguments, timeout)
        numbers, wrapper = self._numbering
        with numbers.number_of(raised) as number:
            numbered = _NUMBERED_CALL.serialize((number, address)) + arguments
            return await self.connection.call(wrapper, numbered, timeout)

    def call_at_close(self, address: int) -> None:
        """Have a wrapper function without arguments called before the executor is closed."""
        self._at_close.append(address)

    @property
    def dispatch(self) -> tuple[int, int] | None:
        """Address and first argument of the executor's dispatch function."""
        symbols = self.bootstrap_symbols
        if DISPATCH_FUNCTION not in symbols or DISPATCH_CONTEXT not in symbols:
            return None
        return symbols[DISPATCH_FUNCTION], symbols[DISPATCH_CONTEXT]

    def handle_calls(
        self, handlers: Mapping[int, Callable[[bytes], WrapperFunctionResult]]
    ) -> None:
        """Have functions take calls that code of the executor dispatches."""
        self._incoming.handlers.update(handlers)

    def number_calls(self, numbers: CallNumbers, wrapper: int) -> None:
        """Number the calls of wrapper functions that record exceptions."""
        self._numbering = numbers, wrapper


class _IncomingCalls:
    """Takes the calls of an executor's code.

    Attributes:
        handlers: what takes calls, by tag.
    """

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[bytes], WrapperFunctionResult]] = {}

    def __call__(self, tag: int, data: bytes) -> WrapperFunctionResult:
        handler = self.handlers.get(tag)
        return WrapperFunctionResult() if handler is None else handler(data)


def _abandon(connection: Connection, process: ChildProcess | None) -> None:
    """End what was not closed."""
    connection.abort()
    if process is not None:
        with contextlib.suppress(OSError):
            if process.wait(0) is None:
                process.stop()
