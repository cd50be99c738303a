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

The default is ``shared`` for a child and with a Unix socket, and ``generic`` for others: whether
another executor is on this machine is not known. LLVM 19's executor cannot do ``simple-remote``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor.callback_errors import CallNumbers, Raised, innermost_call
from jitlink.executor.code_map import CodeMap
from jitlink.executor.control import (
    ExecutorProcessControl,
    LibrarySymbol,
    PlacedArguments,
    check_integer_size,
)
from jitlink.executor.remote.connection import Channel, Connection, SocketChannel
from jitlink.executor.remote.crashes import CrashReports
from jitlink.executor.remote.dialects import DISPATCH_CONTEXT, DISPATCH_FUNCTION, Service
from jitlink.executor.remote.errors import ProtocolError
from jitlink.executor.remote.process import ChildProcess, default_executor
from jitlink.executor.remote.program import RemoteProgram
from jitlink.executor.remote.services import Services
from jitlink.memory import JITLinkMemoryManager
from jitlink.memory.mapping import MappedRange, parse_mappings
from jitlink.sps import ExecutorAddrRange, Words, WrapperFunctionResult
from jitlink.sps.services import Setup, SymbolLookupElement

if TYPE_CHECKING:
    import ssl

    from jitlink.executor.remote.sandbox import Sandbox
    from jitlink.executor.remote.shared_memory import SharedMemory
    from jitlink.memory.mapper import MemoryMapper

T = TypeVar("T")
SocketT = TypeVar("SocketT", bound=socket.socket)
_NUMBERED_CALL = Words(2)
MemoryKind = Literal["shared", "simple-remote", "generic"]
_SETUP_TIMEOUT = 30.0
"""Seconds that an executor has to send its setup message."""
_MOST_TOKEN = 1024
"""Bytes of the longest token that executors accept."""


class RemoteExecutorProcessControl(ExecutorProcessControl):
    """An executor that is another process.

    Args:
        channel: the byte stream to it, which the executor closes in the end.
        memory: how its memory is managed.
        timeout: seconds after which a call is stopped, and with it the executor; by default
            calls may take as long as they do.
        process: the process, if it is a child.
        given: memory that it was started with, for code; closed with the executor.

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
        given: SharedMemory | None = None,
    ) -> None:
        self._process = process
        self.code_map = CodeMap()
        self._crashes = CrashReports(process, self.code_map)
        self.connection = Connection(
            channel,
            explain=self._crashes.explain,
            stop=(lambda: None) if process is None else process.stop,
            interrupt=(lambda: None) if process is None else process.interrupt,
        )
        self._finalizer = weakref.finalize(self, _abandon, self.connection, process)
        self._remove_directory: Callable[[], object] = lambda: None
        try:
            setup = self.connection.setup(_SETUP_TIMEOUT)
            self._set_up(setup, memory, given)
        except BaseException:
            self._finalizer()
            raise
        self.services.timeout = timeout

    def _set_up(self, setup: Setup, memory: MemoryKind, given: SharedMemory | None) -> None:
        self.triple, self.page_size = setup.triple, setup.page_size
        if not 0 < self.page_size <= 1 << 30 or self.page_size & (self.page_size - 1):
            raise ProtocolError(f"the executor has an impossible page size, {self.page_size}")
        self.bootstrap_symbols: Mapping[str, int] = setup.bootstrap_symbols
        self.services = Services(self.connection, setup.bootstrap_symbols)
        self.memory_manager = self._create_memory_manager(memory, given)
        self._handle: int | None = None
        symbols = setup.bootstrap_symbols
        self._dispatch: tuple[int, int] | None = None
        self._numbering: tuple[CallNumbers, int] | None = None
        if DISPATCH_FUNCTION in symbols and DISPATCH_CONTEXT in symbols:
            self._dispatch = symbols[DISPATCH_FUNCTION], symbols[DISPATCH_CONTEXT]
        # The connection must not keep the executor.
        self._incoming = self.connection.handler = _IncomingCalls()
        self._sandbox_report: Mapping[str, str | None] | None = None
        process = self._process
        auxiliary = b"" if process is None else process.auxiliary_vector()
        self._program = RemoteProgram(self.services, auxiliary)
        self._lock = threading.Lock()
        self._at_close: list[int] = []
        self._ask_for_reports()

    def _ask_for_reports(self) -> None:
        service = self.services.dialect.report_crashes
        if service is not None and self.services.has(service):
            # No handler has its address for a tag.
            tag = self.services.address(service)
            self.connection.notices[tag] = self._crashes.receive
            self.services.timeout = _SETUP_TIMEOUT
            tasks.run(self.services.call(service, tag))

    def _create_memory_manager(
        self, kind: MemoryKind, given: SharedMemory | None
    ) -> JITLinkMemoryManager:
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
            "shared": partial(mappers.SharedMemoryMapper, given=given, pid=pid),
            "simple-remote": mappers.SimpleRemoteMemoryMapper,
        }
        if kind not in kinds:
            raise ValueError(
                f"{kind!r} is no kind of memory; these are: generic, {', '.join(kinds)}"
            )
        manager = MapperJITLinkMemoryManager(kinds[kind](self.services, self.page_size))
        if given is not None:
            # It is all there is.
            tasks.run(manager.reserve())
        return manager

    @classmethod
    def launch(
        cls,
        command: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        memory: MemoryKind = "shared",
        timeout: float | None = None,
        sandbox: Sandbox | None = None,
    ) -> Self:
        """Start an executor as a child process, and connect to it by pipes.

        Args:
            command: path of the executor, or a sequence of it and further arguments; by default
                jitlink's own, or where there is none for this machine an
                ``llvm-jitlink-executor`` that is installed.
            memory: how its memory is managed.
            timeout: seconds after which a call is stopped.
            sandbox: what linked code may do there, if it is jitlink's executor; `memory` is
                ``shared`` then, unless the sandbox accepts that code can be written.

        Raises:
            ExecutorError: it cannot be started, or is no executor; or it cannot enforce the
                sandbox.
            ValueError: memory of that kind is not for the sandbox.
        """
        if command is None:
            command = default_executor()
        words = [command] if isinstance(command, str | os.PathLike) else list(command)
        if sandbox is not None:
            return cls._launch_sandbox(words, memory, timeout, sandbox)
        process = ChildProcess(words)
        return cls(process.channel, memory=memory, timeout=timeout, process=process)

    @classmethod
    def _launch_sandbox(
        cls,
        words: Sequence[str | os.PathLike[str]],
        memory: MemoryKind,
        timeout: float | None,
        sandbox: Sandbox,
    ) -> Self:
        if memory != "shared" and "code" not in sandbox.accept:
            message = f"memory of the kind {memory} is written by the executor itself"
            raise ValueError(f"{message}: a sandbox with it needs to accept code")
        # Imported on use: few executors have a sandbox.
        from jitlink.executor.remote.sandbox import (  # noqa: PLC0415
            create_library_directory,
            remove_library_directory,
        )
        from jitlink.memory.mapper import RESERVATION_SIZE  # noqa: PLC0415

        with contextlib.ExitStack() as made:
            directory = create_library_directory()
            made.callback(remove_library_directory, directory)
            options, given = sandbox.options(), None
            options.append(f"--sandbox-read={directory}")
            if memory == "shared":
                given = sandbox.code_memory(RESERVATION_SIZE)
            if given is not None:
                made.callback(given.close)
                options.append(f"--sandbox-code={given.file}")
            files = [] if given is None else [given.file]
            process = ChildProcess([*words, *options], files)
            executor = cls(
                process.channel, memory=memory, timeout=timeout, process=process, given=given
            )
            made.pop_all()
            executor.library_directory = directory
            finalizer = weakref.finalize(executor, remove_library_directory, directory)
            executor._remove_directory = finalizer
        if not executor._sandbox_is_closed():
            executor.close()
            raise ExecutorError(f"the executor {os.fspath(words[0])} has no sandbox")
        return executor

    def _sandbox_is_closed(self) -> bool:
        try:
            return bool(self.sandbox_report)
        except BaseException:
            self.close()
            raise

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        *,
        memory: MemoryKind = "generic",
        timeout: float | None = None,
        token: str | bytes | None = None,
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Self:
        """Connect to an executor that listens for TCP connections.

        Args:
            host: where it listens.
            port: the port.
            memory: how its memory is managed; ``shared`` if it is on this machine.
            timeout: seconds after which a call is stopped.
            token: what its token file contains; needed if it has one. Without TLS everyone on the
                way can read it.
            ssl_context: connects with TLS, if it is the command ``jitlink-executor`` with a
                certificate. ``ssl.create_default_context(cafile=...)`` is one.
            server_hostname: the name in the certificate; by default `host`.

        Raises:
            ExecutorError: it does not listen there, refuses, or is no executor; its certificate is
                not trusted.
            ValueError: no executor has such a token.
        """
        where, prologue = f"{host}:{port}", _prologue(token)
        with contextlib.ExitStack() as opened:
            try:
                connected = socket.create_connection((host, port), _SETUP_TIMEOUT)
                opened.push(connected)
                if ssl_context is None:
                    channel = SocketChannel(_sent(connected, prologue))
                else:
                    # Imported on use: few need it.
                    from jitlink.executor.remote.tls_channel import TLSChannel  # noqa: PLC0415

                    name = host if server_hostname is None else server_hostname
                    encrypted = ssl_context.wrap_socket(connected, server_hostname=name)
                    opened.push(encrypted)
                    channel = TLSChannel(_sent(encrypted, prologue))
            except (OSError, OverflowError) as error:
                raise ExecutorError(f"cannot connect to {where}: {error}") from error
            opened.pop_all()
        return cls(channel, memory=memory, timeout=timeout)

    @classmethod
    def connect_unix(
        cls,
        path: str | os.PathLike[str],
        *,
        memory: MemoryKind = "shared",
        timeout: float | None = None,
        token: str | bytes | None = None,
    ) -> Self:
        """Connect to an executor that listens at a Unix socket, so on this machine.

        Args:
            path: of the socket.
            memory: how its memory is managed; not ``shared`` if it has another ``/dev/shm``, as in
                a container.
            timeout: seconds after which a call is stopped.
            token: what its token file contains; needed if it has one.

        Raises:
            ExecutorError: it does not listen there, refuses, or is no executor.
            ValueError: no executor has such a token.
        """
        prologue = _prologue(token)
        with socket.socket(socket.AF_UNIX) as opened:
            try:
                opened.settimeout(_SETUP_TIMEOUT)
                opened.connect(os.fspath(path))
                _sent(opened, prologue)
            except OSError as error:
                raise ExecutorError(f"cannot connect to {os.fspath(path)}: {error}") from error
            channel = SocketChannel(socket.socket(fileno=opened.detach()))
        return cls(channel, memory=memory, timeout=timeout)

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
        self._remove_directory()

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
    def sandbox_report(self) -> Mapping[str, str | None]:
        """The features of its sandbox: None if one is enforced, or why it is unavailable.

        It is empty without a sandbox.

        Raises:
            ExecutorError: the executor is gone.
        """
        if self._sandbox_report is None:
            from jitlink.executor.remote.sandbox import read_report  # noqa: PLC0415 - see launch

            self._sandbox_report = tasks.run(read_report(self.services))
        return self._sandbox_report

    @property
    def timeout(self) -> float | None:
        """Seconds after which a call is stopped, and with it the executor; None for any time."""
        return self.services.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self.services.timeout = seconds

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

    # Memory

    async def read_memory(self, address: int, size: int) -> bytes:
        """The bytes at an address; an address that cannot be read ends the executor."""
        (content,) = await self.read_buffers([ExecutorAddrRange(address, address + size)])
        return content

    async def read_buffers(self, ranges: Sequence[ExecutorAddrRange]) -> list[bytes]:
        """The bytes of several ranges, in one message."""
        service = self._reading(self.services.dialect.read_buffers)
        found = await self.services.call(service, ranges)
        if list(map(len, found)) != [end - start for start, end in ranges]:
            asked = " and ".join(f"{end - start} bytes at {start:#x}" for start, end in ranges)
            raise ProtocolError(f"{asked} were read, and others returned")
        return found

    async def write_memory(self, address: int, content: bytes | bytearray | memoryview) -> None:
        """Write bytes to an address; one that cannot be written ends the executor."""
        await self.write_buffers([(address, content)])

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
        service = self.services.dialect.describe_addresses
        if service is not None and self.services.has(service):
            found = await self.services.call(service, list(addresses))
            if len(found) != len(addresses):
                raise ProtocolError(f"{len(addresses)} addresses were asked for, not {len(found)}")
            return [None if each is None else LibrarySymbol(*each) for each in found]
        from jitlink.executor.code_map import LibraryFiles  # noqa: PLC0415 - seldom needed

        files = LibraryFiles(await self.mappings())
        return [files.describe_symbol(address) for address in addresses]

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

    async def run_as_main(
        self, address: int, argv: Sequence[str], *, timeout: float | None = None
    ) -> int:
        """Call ``main`` of a program that has no initialisers and exit handlers.

        Args:
            address: address of the function.
            argv: the arguments.
            timeout: seconds after which the call is stopped; by default those of any call.
        """
        if any("\0" in argument for argument in argv):
            raise ValueError("an argument contains a null character")
        service = self.services.dialect.run_as_main
        return await self.services.call(service, address, list(argv), timeout=timeout)

    async def run_as_void_function(self, address: int, *, timeout: float | None = None) -> int:
        """Call ``int f(void)`` and return what it returned; ``timeout`` as for `run_as_main`."""
        service = self.services.dialect.run_as_void_function
        return await self.services.call(service, address, timeout=timeout)

    async def run_as_int_function(
        self, address: int, argument: int, *, timeout: float | None = None
    ) -> int:
        """Call ``int f(int)`` and return what it returned; ``timeout`` as for `run_as_main`."""
        if not -(1 << 31) <= argument < 1 << 31:
            raise ValueError(f"{argument} does not fit a C int")
        service = self.services.dialect.run_as_int_function
        return await self.services.call(service, address, argument, timeout=timeout)

    def call_wrapper(
        self, address: int, arguments: bytes, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, WrapperFunctionResult]:
        """Call a wrapper function; its out-of-band errors arrive as empty results."""
        seconds = self.services.timeout if timeout is None else timeout
        return self._call_wrapper(address, arguments, innermost_call(), seconds)

    async def _call_wrapper(
        self, address: int, arguments: bytes, raised: Raised | None, seconds: float | None
    ) -> WrapperFunctionResult:
        call = partial(self.connection.call, seconds=seconds, runs_program=True)
        if raised is None or self._numbering is None:
            return await call(address, arguments)
        numbers, wrapper = self._numbering
        with numbers.number_of(raised) as number:
            return await call(wrapper, _NUMBERED_CALL.serialize((number, address)) + arguments)

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


def _prologue(token: str | bytes | None) -> bytes:
    """The line that a client sends first; empty without a token.

    Raises:
        ValueError: no executor has such a token.
    """
    if token is None:
        return b""
    line = token.encode("utf-8", "surrogateescape") if isinstance(token, str) else bytes(token)
    line = line.rstrip(b"\r\n")
    if not 0 < len(line) <= _MOST_TOKEN or b"\n" in line:
        # The token itself is in no message.
        raise ValueError(f"a token is a line of 1 to {_MOST_TOKEN} bytes")
    return line + b"\n"


def _sent(connected: SocketT, data: bytes) -> SocketT:
    """A connected socket, through which data was sent."""
    if data:
        connected.sendall(data)
    return connected


def _abandon(connection: Connection, process: ChildProcess | None) -> None:
    """End what was not closed."""
    connection.abort()
    if process is not None:
        with contextlib.suppress(OSError):
            if process.wait(0) is None:
                process.stop()
