"""How the controller gets an executor: it starts a process, or connects to one that listens.

An executor that is restarted is opened once more in the same way.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from jitlink.errors import ExecutorError
from jitlink.executor.remote.channels import Channel, SocketChannel
from jitlink.executor.remote.connection import Connection
from jitlink.executor.remote.process import ChildProcess

if TYPE_CHECKING:
    import ssl

    from jitlink.executor.remote.sandbox import Sandbox
    from jitlink.executor.remote.shared_memory import SharedMemory

Words = Sequence[str | os.PathLike[str]]
SocketT = TypeVar("SocketT", bound=socket.socket)
CONNECT_TIMEOUT = 30.0
"""Seconds that a connection may take to be made."""
_MOST_TOKEN = 1024
"""Bytes of the longest token that executors accept."""


class OpenedExecutor(NamedTuple):
    """An executor that was opened.

    Attributes:
        channel: the byte stream to it.
        process: the process, if it is a child.
        given: memory that it was started with, for code; closed with it.
        library_directory: a directory for what it is to load; removed with it.
        sandboxed: the executor's path, if it was started to have a sandbox.
    """

    channel: Channel
    process: ChildProcess | None = None
    given: SharedMemory | None = None
    library_directory: str | None = None
    sandboxed: str | None = None


Opener = Callable[[], OpenedExecutor]


def start(words: Words) -> OpenedExecutor:
    """Start an executor.

    Raises:
        ExecutorError: it cannot be started.
    """
    process = ChildProcess(words)
    return OpenedExecutor(process.channel, process)


def start_in_sandbox(words: Words, sandbox: Sandbox, *, shares_memory: bool) -> OpenedExecutor:
    """Start an executor that is to have a sandbox; errors as for `start`."""
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
        if shares_memory:
            given = sandbox.code_memory(RESERVATION_SIZE)
        if given is not None:
            made.callback(given.close)
            options.append(f"--sandbox-code={given.file}")
        files = [] if given is None else [given.file]
        process = ChildProcess([*words, *options], files)
        made.pop_all()
    return OpenedExecutor(process.channel, process, given, directory, os.fspath(words[0]))


def connect(
    host: str,
    port: int,
    prologue: bytes,
    ssl_context: ssl.SSLContext | None,
    server_hostname: str | None,
) -> OpenedExecutor:
    """Connect to an executor by TCP.

    Args:
        host: where it listens.
        port: the port.
        prologue: what is sent first.
        ssl_context: connects with TLS.
        server_hostname: the name in the certificate; by default `host`.

    Raises:
        ExecutorError: it does not listen there, or its certificate is not trusted.
    """
    with contextlib.ExitStack() as opened:
        try:
            connected = socket.create_connection((host, port), CONNECT_TIMEOUT)
            opened.push(connected)
            channel: Channel
            if ssl_context is None:
                channel = SocketChannel(_sent(connected, prologue))
            else:
                # Imported on use: few need it.
                from jitlink.executor.remote.tls_channel import TLSChannel  # noqa: PLC0415

                name = host if server_hostname is None else server_hostname
                encrypted = ssl_context.wrap_socket(connected, server_hostname=name)
                opened.push(encrypted)
                channel = TLSChannel(_sent(encrypted, prologue))
        except (OSError, OverflowError, UnicodeError) as error:
            # No host can have a name that cannot be encoded.
            raise ExecutorError(f"cannot connect to {host}:{port}: {error}") from error
        opened.pop_all()
    return OpenedExecutor(channel)


def connect_unix(path: str | os.PathLike[str], prologue: bytes) -> OpenedExecutor:
    """Connect to an executor by a Unix socket.

    Args:
        path: of the socket.
        prologue: what is sent first.

    Raises:
        ExecutorError: it does not listen there.
    """
    with socket.socket(socket.AF_UNIX) as opened:
        try:
            opened.settimeout(CONNECT_TIMEOUT)
            opened.connect(os.fspath(path))
            _sent(opened, prologue)
        except (OSError, UnicodeError) as error:
            raise ExecutorError(f"cannot connect to {os.fspath(path)}: {error}") from error
        return OpenedExecutor(SocketChannel(socket.socket(fileno=opened.detach())))


def prologue_of(token: str | bytes | None) -> bytes:
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


def abandon(connection: Connection, opened: OpenedExecutor) -> None:
    """End what was not closed; `given` is the memory manager's."""
    connection.abort()
    # A process that was forked ends long before the executor, which is not its own.
    if not connection.is_inherited:
        end(opened)


def end(opened: OpenedExecutor) -> None:
    """End an executor whose channel is closed, and remove its directory."""
    process, directory = opened.process, opened.library_directory
    if process is not None:
        with contextlib.suppress(OSError):
            if process.wait(0) is None:
                process.stop()
    if directory is not None:
        from jitlink.executor.remote.sandbox import remove_library_directory  # noqa: PLC0415 - few

        remove_library_directory(directory)
