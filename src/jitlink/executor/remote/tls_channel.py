"""A byte stream over TLS.

The `ssl` module encrypts; the executor itself has no TLS, the command ``jitlink-executor`` adds it
(`jitlink.executor.remote.command`).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence

from jitlink.executor.remote.channels import SocketChannel

_RECORD = 1 << 14
"""Bytes of the largest TLS record, of which one is received or sent at a time."""


class TLSChannel(SocketChannel):
    """A TLS connection whose handshake is done; it belongs to the channel.

    What is ready to be read may be part of a record only, which is the same as nothing. OpenSSL
    reads no more than the record that it returns, so what is left is seen by a selector.
    """

    def __init__(self, connected: ssl.SSLSocket) -> None:
        super().__init__(connected)
        self._tls = connected
        # A connection of OpenSSL is not for several threads at once.
        self._lock = threading.Lock()
        self._unsent = b""

    def receive(self) -> bytes:
        """The content of a record; nothing at the end, whether or not that was announced."""
        with self._lock, _blocking_as_error():
            return self._tls.recv(_RECORD)

    def send(self, buffers: Sequence[memoryview]) -> int:
        """Send a record with the beginning of these buffers."""
        with self._lock:
            # A record that was encrypted already must be sent as it is.
            self._unsent = self._unsent or _first_bytes(buffers, _RECORD)
            with _blocking_as_error():
                sent = self._tls.send(self._unsent)
            self._unsent = b""
            return sent

    def end_output(self) -> None:
        """Shut down the output, without an announcement: a hangup precedes it."""
        with contextlib.suppress(OSError):
            # That of the class ends TLS in both directions.
            socket.socket.shutdown(self._tls, socket.SHUT_WR)


def _first_bytes(buffers: Sequence[memoryview], most: int) -> bytes:
    """The beginning of buffers, so that small ones share a record."""
    taken = bytearray()
    for buffer in buffers:
        taken += buffer[: most - len(taken)]
        if len(taken) == most:
            break
    return bytes(taken)


@contextlib.contextmanager
def _blocking_as_error() -> Iterator[None]:
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
        raise BlockingIOError from error
