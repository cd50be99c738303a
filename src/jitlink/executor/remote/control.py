"""The controller's side of an executor that is another process.

::

    with RemoteExecutorProcessControl.launch() as executor:
        with LLJIT(executor=executor) as jit:
            jit.add_object("plugin.o")
            address = jit.lookup("work")
            jit.session.wait(executor.run_as_int_function(address, 3))

The process may be a child, or listen on this or another machine; and it may be LLVM's. What it
offers differs by `jitlink.executor.remote.dialects`. If it ends, for whatever reason, calls raise
an `ExecutorDisconnectedError`, and this process goes on. It can be restarted then; sessions link
again what they had linked (`jitlink.orc.restart`).

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
import threading
import time
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor.callback_errors import CallNumbers, Raised, calls_under_way
from jitlink.executor.code_map import CodeMap
from jitlink.executor.control import PlacedArguments
from jitlink.executor.remote import opening
from jitlink.executor.remote.channels import Channel
from jitlink.executor.remote.connection import Connection
from jitlink.executor.remote.crashes import CrashReports
from jitlink.executor.remote.dialects import DISPATCH_CONTEXT, DISPATCH_FUNCTION
from jitlink.executor.remote.errors import ExecutorRestartedError, ProtocolError
from jitlink.executor.remote.incoming import Handler
from jitlink.executor.remote.memory_access import RemoteMemoryAccess
from jitlink.executor.remote.memory_kinds import MemoryKind, create_memory_manager
from jitlink.executor.remote.opening import OpenedExecutor, Opener, abandon
from jitlink.executor.remote.process import ChildProcess, default_executor
from jitlink.executor.remote.program import RemoteProgram
from jitlink.executor.remote.services import Services
from jitlink.sps import Words, WrapperFunctionResult
from jitlink.sps.services import Setup, SymbolLookupElement

if TYPE_CHECKING:
    import ssl

    from jitlink.executor.remote.sandbox import Sandbox
    from jitlink.executor.remote.shared_memory import SharedMemory

T = TypeVar("T")
_NUMBERED_CALL = Words(2)
OnCrash = Literal["raise", "restart"]
_SETUP_TIMEOUT = 30.0
"""Seconds that an executor has to send its setup message."""
_RESTART_TIMEOUT = 1.0
"""Seconds that an executor has to finish when it is restarted."""
_CONNECT_TIMEOUT, _CONNECT_INTERVAL = 10.0, 0.05
"""Seconds for which another connection to an executor is tried, and how often."""


class RemoteExecutorProcessControl(RemoteMemoryAccess):
    """An executor that is another process.

    Args:
        channel: the byte stream to it, which is closed in the end; or all that was opened.
        memory: how its memory is managed.
        timeout: seconds after which a call is stopped, and with it the executor; by default
            calls may take as long as they do.
        process: the process, if it is a child.
        on_crash: whether the executor is restarted when it is needed again after it has ended; by
            default only `restart` does that.

    Attributes:
        connection: the connection.
        services: its services.

    Raises:
        ExecutorError: it is not there, or speaks no dialect that is known.
    """

    def __init__(
        self,
        channel: Channel | OpenedExecutor,
        *,
        memory: MemoryKind = "generic",
        timeout: float | None = None,
        process: ChildProcess | None = None,
        on_crash: OnCrash = "raise",
    ) -> None:
        if on_crash not in {"raise", "restart"}:
            raise ValueError(f"on_crash is {on_crash!r}, neither 'raise' nor 'restart'")
        self._memory_kind: MemoryKind = memory
        self._timeout = timeout
        self._on_crash = on_crash
        # Opens it once more; None if that is not known.
        self._opener: Opener | None = None
        self._is_closed = False
        self._restart_lock = threading.Lock()
        # Numbers of calls, the wrapper function that takes them, and the generation of that.
        self._numbering: tuple[CallNumbers, int, int] | None = None
        # Paths of the libraries that were loaded, in order; the executor's handles change.
        self._libraries: list[str] = []
        if not isinstance(channel, OpenedExecutor):
            channel = OpenedExecutor(channel, process)
        self._begin(channel)

    @classmethod
    def _open(
        cls, opener: Opener, memory: MemoryKind, timeout: float | None, on_crash: OnCrash
    ) -> Self:
        executor = cls(opener(), memory=memory, timeout=timeout, on_crash=on_crash)
        executor._opener = opener
        return executor

    def _begin(self, opened: OpenedExecutor) -> None:
        """Begin a connection, to a process of which nothing is known."""
        self._process = process = opened.process
        self.code_map = CodeMap()
        self._crashes = CrashReports(process, self.code_map)
        self.library_directory = opened.library_directory
        with contextlib.ExitStack() as undo:
            if opened.given is not None:
                undo.callback(opened.given.close)
            undo.callback(opening.end, opened)
            self.connection = Connection(
                opened.channel,
                explain=self._crashes.explain,
                stop=(lambda: None) if process is None else process.stop,
                interrupt=(lambda: None) if process is None else process.interrupt,
            )
            self._finalizer = weakref.finalize(self, abandon, self.connection, opened)
            undo.callback(self._finalizer)
            setup = self.connection.setup(_SETUP_TIMEOUT)
            self._set_up(setup, self._memory_kind, opened.given)
            self._check_sandbox(opened.sandboxed)
            undo.pop_all()
        self.services.timeout = self._timeout

    def _set_up(self, setup: Setup, memory: MemoryKind, given: SharedMemory | None) -> None:
        if self.generation and setup.triple != self.triple:
            message = f"the executor that was restarted is for {setup.triple}, not {self.triple}"
            raise ExecutorError(message)
        self.triple, self.page_size = setup.triple, setup.page_size
        if not 0 < self.page_size <= 1 << 30 or self.page_size & (self.page_size - 1):
            raise ProtocolError(f"the executor has an impossible page size, {self.page_size}")
        self.services = Services(self.connection, setup.bootstrap_symbols)
        # Until it is set up; those of the user come after that.
        self.services.timeout = _SETUP_TIMEOUT
        pid = None if self._process is None else self._process.pid
        self.memory_manager = create_memory_manager(
            memory, self.services, self.page_size, given=given, pid=pid
        )
        self._sandbox_report: Mapping[str, str | None] | None = None
        process = self._process
        auxiliary = b"" if process is None else process.auxiliary_vector()
        self._program = RemoteProgram(self.services, auxiliary)
        self._at_close: list[tuple[int, int]] = []
        self._ask_for_reports()

    def _check_sandbox(self, sandboxed: str | None) -> None:
        if sandboxed is not None and not self.sandbox_report:
            raise ExecutorError(f"the executor {sandboxed} has no sandbox")

    def _ask_for_reports(self) -> None:
        service = self.services.dialect.report_crashes
        if service is not None and self.services.has(service):
            # No handler has its address for a tag.
            tag = self.services.address(service)
            self.connection.notices[tag] = self._crashes.receive
            tasks.run(self.services.call(service, tag))

    @classmethod
    def launch(
        cls,
        command: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        target: str | None = None,
        memory: MemoryKind = "shared",
        timeout: float | None = None,
        sandbox: Sandbox | None = None,
        on_crash: OnCrash = "raise",
    ) -> Self:
        """Start an executor as a child process, and connect to it by pipes.

        Args:
            command: path of the executor, or a sequence of it and further arguments; by default
                jitlink's own, or where there is none for this machine an
                ``llvm-jitlink-executor`` that is installed.
            target: the target of the code in its place, such as ``riscv64-linux-gnu``: an executor
                is started for it, which for other architectures than this machine's an emulator
                runs; see `executor_command`.
            memory: how its memory is managed.
            timeout: seconds after which a call is stopped.
            sandbox: what linked code may do there, if it is jitlink's executor; `memory` is
                ``shared`` then, unless the sandbox accepts that code can be written.
            on_crash: ``restart`` if another one is to be started in its place, when it is needed
                again after it has ended.

        Raises:
            ExecutorError: it cannot be started, or is no executor; or it cannot enforce the
                sandbox.
            ValueError: memory of that kind is not for the sandbox; or there are both a command
                and a target.
        """
        if command is not None and target is not None:
            raise ValueError("an executor is started by a command, or for a target, not both")
        if target is not None:
            # Imported on use: few executors are for other architectures.
            from jitlink.executor.remote.emulation import executor_command  # noqa: PLC0415

            command = executor_command(target)
        elif command is None:
            command = default_executor()
        words = [command] if isinstance(command, str | os.PathLike) else list(command)
        if not words:
            raise ExecutorError("cannot start an executor: the command has no words")
        opener = partial(opening.start, words)
        if sandbox is not None:
            if memory != "shared" and "code" not in sandbox.accept:
                message = f"memory of the kind {memory} is written by the executor itself"
                raise ValueError(f"{message}: a sandbox with it needs to accept code")
            is_shared = memory == "shared"
            opener = partial(opening.start_in_sandbox, words, sandbox, shares_memory=is_shared)
        return cls._open(opener, memory, timeout, on_crash)

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
        on_crash: OnCrash = "raise",
    ) -> Self:
        """Connect to an executor that listens for TCP connections.

        Args:
            host: where it listens.
            port: the port.
            memory: how its memory is managed; ``shared`` if it is on this machine.
            timeout: seconds after which a call is stopped.
            token: what its token file contains; needed if it has one. Without TLS it can be
                read on the way.
            ssl_context: connects with TLS, if it is the command ``jitlink-executor`` with a
                certificate. ``ssl.create_default_context(cafile=...)`` is one.
            server_hostname: the name in the certificate; by default `host`.
            on_crash: ``restart`` if another connection is to be made, when the executor is needed
                again after this one has ended.

        Raises:
            ExecutorError: it does not listen there, refuses, or is no executor; its certificate is
                not trusted.
            ValueError: no executor has such a token.
        """
        prologue = opening.prologue_of(token)
        opener = partial(opening.connect, host, port, prologue, ssl_context, server_hostname)
        return cls._open(opener, memory, timeout, on_crash)

    @classmethod
    def connect_unix(
        cls,
        path: str | os.PathLike[str],
        *,
        memory: MemoryKind = "shared",
        timeout: float | None = None,
        token: str | bytes | None = None,
        on_crash: OnCrash = "raise",
    ) -> Self:
        """Connect to an executor that listens at a Unix socket, so on this machine.

        Args:
            path: of the socket.
            memory: how its memory is managed; not ``shared`` if it has another ``/dev/shm``, as in
                a container.
            timeout: seconds after which a call is stopped.
            token: what its token file contains; needed if it has one.
            on_crash: as for `connect`.

        Raises:
            ExecutorError: it does not listen there, refuses, or is no executor.
            ValueError: no executor has such a token.
        """
        opener = partial(opening.connect_unix, path, opening.prologue_of(token))
        return cls._open(opener, memory, timeout, on_crash)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and wait until the executor has ended; a second call does nothing.

        Sessions must have ended before: their memory is the executor's.
        """
        with self._restart_lock:
            self._is_closed = True
        if self._at_close:
            tasks.run(self._call_at_close())
        self.connection.close()
        self.memory_manager.close()
        self._finalizer()

    @property
    def is_alive(self) -> bool:
        """Whether the connection is there."""
        return self.connection.is_open

    async def _call_at_close(self) -> None:
        while self._at_close:
            address, generation = self._at_close.pop()
            # Nothing is left to do for an executor that is gone.
            with contextlib.suppress(ExecutorError):
                await self.call_wrapper(address, b"", generation)

    # Restarting

    @property
    def restarts_on_crash(self) -> bool:
        """Whether it is to be restarted when it is needed again after it has ended."""
        return self._on_crash == "restart" and not self._is_closed

    def stop(self, generation: int | None = None) -> None:
        """End the process, or cut the connection; it can be restarted.

        What runs in it is stopped, without exit handlers.

        Args:
            generation: the one that is to end; nothing happens if it was restarted since.

        Raises:
            ExecutorError: it cannot be restarted.
        """
        with self._restart_lock:
            self._check_restartable()
            if generation is None or generation == self.generation:
                self._stop()

    def restart(self, generation: int | None = None) -> None:
        """`stop` it, and start another process in the same way, or make another connection.

        The process has nothing of the one that has ended but the same libraries, loaded in the same
        order. For sessions: `ExecutionSession.restart_executor` links again what was linked.

        Args:
            generation: the one that is to end; nothing happens if it was restarted since.

        Raises:
            ExecutorError: it was closed, cannot be started or connected to, or cannot load one of
                the libraries.
        """
        with self._restart_lock:
            opener = self._check_restartable()
            if generation is None or generation == self.generation or not self.is_alive:
                self._stop()
                self._start_again(opener)

    def _check_restartable(self) -> Opener:
        if self._opener is None:
            raise ExecutorError("the executor cannot be restarted: its channel was given")
        if self._is_closed:
            raise ExecutorError("the executor cannot be restarted: it was closed")
        return self._opener

    def _stop(self) -> None:
        stopped = partial(ExecutorRestartedError, "the executor was stopped, to be restarted")
        self.connection.close(_RESTART_TIMEOUT, stopped)
        self.memory_manager.close()
        self._finalizer()

    def _start_again(self, opener: Opener) -> None:
        # Before there is another connection: a thread that has that sees the generation.
        self.generation += 1
        is_child, end = self._process is not None, time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                self._begin(opener())
                break
            except ExecutorError:
                # One that listens is perhaps being started anew, by something else.
                if is_child or time.monotonic() > end:
                    raise
            time.sleep(_CONNECT_INTERVAL)
        try:
            for path in list(self._libraries):
                tasks.run(self._open_library(path))
        except BaseException:
            self._finalizer()
            raise

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
    def bootstrap_symbols(self) -> Mapping[str, int]:
        """Addresses of what the executor offers, by name."""
        return self.services.symbols

    @property
    def timeout(self) -> float | None:
        """Seconds after which a call is stopped, and with it the executor; None for any time."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout = self.services.timeout = seconds

    @property
    def process(self) -> ChildProcess | None:
        """The process, if it is a child of this one."""
        return self._process

    # Libraries

    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Load a shared library, for the rest of the executor's life, also after a restart."""
        name = os.fspath(path)
        if not name or "\0" in name:
            raise ExecutorError(f"cannot load {name!r}: not a file name")
        await self._open_library(name)
        if name not in self._libraries:
            self._libraries.append(name)
        return 1 + self._libraries.index(name)

    async def _open_library(self, name: str) -> None:
        services = self.services
        try:
            await services.handle_of(name)
        except ExecutorError as error:
            if services.connection.is_open:
                raise ExecutorError(f"cannot load {name}: {error}") from error
            raise

    async def lookup_symbols(
        self, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        """Addresses of symbols that loaded libraries export; one that is null counts as missing."""
        services = self.services
        if dylib is not None and not 0 < dylib <= len(self._libraries):
            raise ExecutorError(f"{dylib} is no handle of a library that was loaded")
        handle = await services.handle_of("" if dylib is None else self._libraries[dylib - 1])
        tls = self.memory_manager.tls
        if tls is not None:
            await tls.reserve_static_tls(names)
        # LLVM's executors end when they are asked for an empty name, and C has no others.
        asked = [name for name in names if name and "\0" not in name]
        elements = [SymbolLookupElement(name, False) for name in asked]
        found = await services.call(services.dialect.lookup, handle, elements) if asked else []
        if len(found) != len(asked):
            raise ProtocolError(f"{len(asked)} symbols were looked up, and {len(found)} returned")
        addresses = {
            name: symbol.address or None
            for name, symbol in zip(asked, found, strict=True)
            if symbol is not None
        }
        return [addresses.get(name) for name in names]

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
        self,
        address: int,
        arguments: bytes,
        generation: int | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, WrapperFunctionResult]:
        """Call a wrapper function; its out-of-band errors arrive as empty results."""
        seconds = self.services.timeout if timeout is None else timeout
        return self._call_wrapper(address, arguments, generation, calls_under_way(), seconds)

    async def _call_wrapper(
        self,
        address: int,
        arguments: bytes,
        generation: int | None,
        calls: Sequence[Raised],
        seconds: float | None,
    ) -> WrapperFunctionResult:
        # Taken before the check: the generation changes before the connection does.
        call = partial(self.connection.call, seconds=seconds, runs_program=True)
        self._check_generation(generation, address)
        numbering = self._numbering
        if not calls or numbering is None or numbering[2] != self.generation:
            return await call(address, arguments)
        numbers, wrapper, _ = numbering
        with numbers.number_of(calls) as number:
            return await call(wrapper, _NUMBERED_CALL.serialize((number, address)) + arguments)

    def call_at_close(self, address: int, generation: int | None = None) -> None:
        """Have a wrapper function without arguments called before the executor is closed."""
        self._at_close.append((address, self.generation if generation is None else generation))

    @property
    def dispatch(self) -> tuple[int, int] | None:
        """Address and first argument of the executor's dispatch function."""
        symbols = self.bootstrap_symbols
        if DISPATCH_FUNCTION not in symbols or DISPATCH_CONTEXT not in symbols:
            return None
        return symbols[DISPATCH_FUNCTION], symbols[DISPATCH_CONTEXT]

    def handle_calls(self, handlers: Mapping[int, Handler]) -> None:
        """Have functions take calls that code of the executor dispatches."""
        # The connection must not keep the executor, nor may they.
        self.connection.handlers.update(handlers)

    def number_calls(self, numbers: CallNumbers, wrapper: int, generation: int) -> None:
        """Number the calls of wrapper functions that record exceptions."""
        self._numbering = numbers, wrapper, generation
