"""TLS for executors: the command ``jitlink-executor`` with a certificate.

The executor itself is a C program without dependencies. So this process listens, and starts an
executor for each client that has done the handshake; it passes on what both say, until the executor
ends. The executor checks the token. The first client that gets a setup message is the one that is
served: this process stops listening then, and ends with the executor's status.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from jitlink.errors import ExecutorError
from jitlink.executor.remote.channels import Channel, SocketChannel
from jitlink.executor.remote.messages import HEADER, OpCode
from jitlink.executor.remote.tls_channel import TLSChannel

_HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a client has for its handshake."""
_MOST_CLIENTS = 16
"""How many clients may be about to be admitted."""
_LISTEN = ("listen=", "tcp:listen=")
_SIGNALLED = 128
"""What shells add to the number of a signal that has ended a process."""


def run(program: str, words: Sequence[str]) -> int:
    """Serve one client.

    Args:
        program: path of the executor.
        words: those of the command.

    Returns:
        The exit status: the executor's, or 1 if there was none, with a message written.
    """
    try:
        return _Server(program, words).serve()
    except (ExecutorError, OSError, ValueError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return _SIGNALLED + signal.SIGINT


def _say(message: str) -> None:
    sys.stderr.write(f"jitlink-executor: {message}\n")


class _Server:
    """Listens for clients.

    Args:
        program: path of the executor.
        words: those of the command.

    Raises:
        ExecutorError: they make no sense.
        OSError: a file cannot be read, or the address cannot be listened at.
        ValueError: a number is none.
    """

    def __init__(self, program: str, words: Sequence[str]) -> None:
        files: dict[str, str] = {}
        options: dict[str, str] = {}
        addresses = []
        for word in words:
            name, _, value = word.partition("=")
            if name.startswith("--tls-"):
                files[name] = value
            elif name.startswith("--"):
                options[name] = value
            else:
                addresses.append(word)
        self._command = [program, *(word for word in words if word.partition("=")[0] in options)]
        address = next((a.partition("=")[2] for a in addresses if a.startswith(_LISTEN)), None)
        is_known = files.keys() <= {"--tls-cert", "--tls-key", "--tls-ca"}
        if not is_known or "--tls-cert" not in files or address is None or len(addresses) > 1:
            raise ExecutorError(
                "TLS needs --tls-cert=FILE and listen=HOST:PORT, and takes --tls-key=FILE and "
                "--tls-ca=FILE"
            )
        if "--token-file" in options:
            # The executor reads it for each client; one that cannot be read is an error now.
            _check_readable(options["--token-file"])
        self._timeout = float(options.get("--timeout", 0)) or None
        self._context = _context(files["--tls-cert"], files.get("--tls-key"), files.get("--tls-ca"))
        self._is_guarded = "--token-file" in options or "--tls-ca" in files
        self._listening = _listen(address)
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._chosen: _Client | None = None
        self._woken, self._wake_up = socket.socketpair()

    def serve(self) -> int:
        """Listen until a client is admitted, and wait for its executor."""
        with self._listening:
            self._announce()
            end = None if self._timeout is None else time.monotonic() + self._timeout
            while self._chosen is None:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    _say(f"no client came within {self._timeout:g} s")
                    return 1
                ready, _, _ = select.select([self._listening, self._woken], [], [], left)
                if self._listening in ready:
                    self._accept()
        with self._lock:
            others = self._clients - {self._chosen}
        for client in others:
            client.stop()
        return self._chosen.wait()

    def _announce(self) -> None:
        host, port = self._listening.getsockname()[:2]
        if not self._is_guarded and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            _say(
                f"warning: any client that can connect to {host} can run code here; neither "
                "--token-file nor --tls-ca is used"
            )
        sys.stdout.write(f"listening on {f'[{host}]' if ':' in host else host}:{port}\n")
        sys.stdout.flush()

    def _accept(self) -> None:
        try:
            connected, _ = self._listening.accept()
        except ConnectionError:
            return
        with self._lock:
            if len(self._clients) >= _MOST_CLIENTS:
                connected.close()
                return
            client = _Client(connected, self._context, self._command, self._admit)
            self._clients.add(client)
        threading.Thread(target=self._run, args=(client,), daemon=True).start()

    def _run(self, client: _Client) -> None:
        try:
            client.run()
        except OSError as error:
            _say(f"a client was refused: {error}")
        with self._lock:
            self._clients.discard(client)

    def _admit(self, client: _Client) -> bool:
        """Choose the client that is served; False if it is another one."""
        with self._lock:
            if self._chosen is None:
                self._chosen = client
                self._wake_up.send(b"\0")
            return self._chosen is client


class _Client:
    """A client, and its executor.

    Args:
        connected: the connection.
        context: for its TLS.
        command: the executor, and options.
        admit: says whether the client may stay, once the executor has admitted it.
    """

    def __init__(
        self,
        connected: socket.socket,
        context: ssl.SSLContext,
        command: Sequence[str],
        admit: Callable[[_Client], bool],
    ) -> None:
        self._connected, self._context = connected, context
        self._command, self._admit = command, admit
        self._process: subprocess.Popen[bytes] | None = None
        self._has_ended = threading.Event()

    def run(self) -> None:
        """Do the handshake, start an executor, and pass on what both say.

        Raises:
            OSError: the handshake failed, or the executor cannot be started.
        """
        with contextlib.ExitStack() as channels:
            channels.callback(self._has_ended.set)
            self._connected.settimeout(_HANDSHAKE_TIMEOUT)
            client = TLSChannel(self._context.wrap_socket(self._connected, server_side=True))
            channels.callback(client.close)
            ours, theirs = socket.socketpair()
            executor = SocketChannel(ours)
            channels.callback(executor.close)
            with theirs:
                self._process = subprocess.Popen(
                    [*self._command, f"socket:adopt={theirs.fileno()}"],
                    pass_fds=(theirs.fileno(),),
                )
            self._pass_on(client, executor)
        self._process.wait()

    def _pass_on(self, client: Channel, executor: Channel) -> None:
        """Move bytes both ways until the executor has ended."""
        requests, replies = _Direction(client, executor), _Direction(executor, client)
        is_admitted = False
        while not replies.is_done:
            poll = select.poll()
            for channel, direction, other in (
                (client, requests, replies),
                (executor, replies, requests),
            ):
                wants = select.POLLIN if direction.wants_input else 0
                wants |= select.POLLOUT if other.has_output else 0
                if wants:
                    poll.register(channel.incoming, wants)
            poll.poll()
            replies.receive()
            if not is_admitted and replies.has_output:
                is_admitted = _is_setup(replies.waiting)
                if is_admitted and not self._admit(self):
                    return
            replies.send()
            requests.receive()
            requests.send()

    def stop(self) -> None:
        """End the executor."""
        if self._process is not None:
            self._process.kill()

    def wait(self) -> int:
        """Wait until all is passed on; returns the executor's status, as shells do."""
        self._has_ended.wait()
        assert self._process is not None
        status = self._process.wait()
        return status if status >= 0 else _SIGNALLED - status


class _Direction:
    """Bytes on their way from one channel to another.

    Attributes:
        waiting: what was received and not sent yet.
        is_done: whether all was sent, or no more can be.
    """

    def __init__(self, source: Channel, target: Channel) -> None:
        self._source, self._target = source, target
        self.waiting = memoryview(b"")
        self._is_ended = False
        self.is_done = False

    @property
    def wants_input(self) -> bool:
        """Whether more should be received."""
        return not self.waiting and not self._is_ended

    @property
    def has_output(self) -> bool:
        """Whether something is to be sent."""
        return bool(self.waiting) and not self.is_done

    def receive(self) -> None:
        """Receive what has arrived, once all before was sent; a broken channel has ended."""
        if not self.wants_input:
            return
        try:
            self.waiting = memoryview(self._source.receive())
        except BlockingIOError:
            return
        except OSError:
            pass
        self._is_ended = not self.waiting

    def send(self) -> None:
        """Send as much as the system takes, and the end if that was received."""
        if self.is_done:
            return
        try:
            while self.waiting:
                self.waiting = self.waiting[self._target.send([self.waiting]) :]
        except BlockingIOError:
            return
        except OSError:
            self.waiting, self._is_ended = memoryview(b""), True
        if self._is_ended:
            self.is_done = True
            self._target.end_output()


def _check_readable(path: str) -> None:
    with open(path, "rb"):  # noqa: PTH123 - pathlib is slow to import
        pass


def _is_setup(data: memoryview) -> bool:
    """Whether an executor begins with its setup message; a client that it refuses gets a hangup."""
    return len(data) >= HEADER.size and HEADER.unpack_from(data)[1] == OpCode.SETUP


def _context(certificate: str, key: str | None, authority: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # To renegotiate, one would have to read in order to write.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        message = f"cannot use the certificate {certificate}"
        raise ExecutorError(f"{message}{f' with {key}' if key else ''}: {error}") from error
    if authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(authority)
        except OSError as error:
            raise ExecutorError(f"cannot use the authority {authority}: {error}") from error
    return context


def _listen(address: str) -> socket.socket:
    """Listen at HOST:PORT, at :PORT or PORT of the loopback interface."""
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ExecutorError(f"{address} is not HOST:PORT, :PORT or PORT")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        family, _, _, _, place = found[0]
        return socket.create_server(place[:2], family=family, backlog=_MOST_CLIENTS)
    except OSError as error:
        raise ExecutorError(f"cannot listen on {address}: {error}") from error
