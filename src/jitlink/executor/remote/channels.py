"""Byte streams to executors: pipes and sockets, whose descriptors do not block."""

from __future__ import annotations

import contextlib
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence

RECEIVED_AT_ONCE = 1 << 20
"""Bytes that are read at once."""


class Channel(ABC):
    """A byte stream in both directions; its descriptors do not block.

    Attributes:
        incoming: descriptor to read from; -1 once that is closed, because the system uses the
            numbers of closed descriptors again.
        outgoing: descriptor to write to, likewise.
    """

    incoming: int
    outgoing: int

    def receive(self) -> bytes:
        """What has arrived, or a part of it; nothing at the end.

        Raises:
            BlockingIOError: nothing has arrived.
            OSError: the stream is broken.
        """
        return os.read(self.incoming, RECEIVED_AT_ONCE)

    def send(self, buffers: Sequence[memoryview]) -> int:
        """Send the beginning of these buffers; returns how many bytes.

        After a `BlockingIOError` the next call begins with the same bytes.

        Raises:
            BlockingIOError: nothing can be sent now.
            OSError: the stream is broken.
        """
        return os.writev(self.outgoing, buffers)

    @abstractmethod
    def end_output(self) -> None:
        """Let the other side see the end of what is written."""

    @abstractmethod
    def close(self) -> None:
        """Close the descriptors; a second call does nothing."""


class PipeChannel(Channel):
    """Two pipes, whose ends belong to the channel."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        for descriptor in (incoming, outgoing):
            os.set_blocking(descriptor, False)

    def end_output(self) -> None:
        """Close the descriptor to write to."""
        outgoing, self.outgoing = self.outgoing, -1
        if outgoing >= 0:
            os.close(outgoing)

    def close(self) -> None:
        """Close both descriptors."""
        self.end_output()
        incoming, self.incoming = self.incoming, -1
        if incoming >= 0:
            os.close(incoming)


class SocketChannel(Channel):
    """A connected stream socket, which belongs to the channel."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            # Calls are small, and each waits for its result.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = connected
        self.incoming = self.outgoing = connected.fileno()

    def end_output(self) -> None:
        """Shut down the output."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self.incoming = self.outgoing = -1
        self._socket.close()
