"""An executor that a test plays: it sends what it likes, and shows what it is sent."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from typing import Any, Self

from jitlink import tasks
from jitlink.executor.remote.channels import SocketChannel
from jitlink.executor.remote.connection import Connection
from jitlink.executor.remote.dialects import Service
from jitlink.executor.remote.messages import HEADER, Message, MessageReader, OpCode
from jitlink.sps import WrapperFunctionResult
from jitlink.sps.services import SETUP, Setup

SETUP_PAYLOAD = SETUP.serialize(Setup("x86_64-unknown-linux-gnu", 4096, {}, {"one": 1}))


def encoded(opcode: int, sequence: int = 0, tag: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a message."""
    return HEADER.pack(HEADER.size + len(payload), opcode, sequence, tag) + payload


def messages_of(source: socket.socket) -> Iterator[Message]:
    """The messages that arrive, until the end of the connection."""
    reader = MessageReader()
    while data := source.recv(1 << 16):
        yield from reader.feed(data)


def receive(messages: Iterator[Message]) -> Message:
    """The next message; raises EOFError at the end of the connection."""
    for message in messages:
        return message
    raise EOFError


def services_of(dialect: Any) -> Iterator[Service[Any]]:  # noqa: ANN401 - or a part of one
    """The services of a dialect."""
    for field in fields(dialect):
        value = getattr(dialect, field.name)
        if is_dataclass(value):
            yield from services_of(value)
        elif isinstance(value, Service):
            yield value


class FakeExecutor:
    """One end of a connection; the other one is a `Connection`.

    Attributes:
        connection: the other end.
    """

    def __init__(self, *, sets_up: bool = True, limit: int = 1 << 20) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self._socket = ours
        self._messages = messages_of(ours)
        self.connection = Connection(SocketChannel(theirs), limit=limit)
        if sets_up:
            self.send(encoded(OpCode.SETUP, payload=SETUP_PAYLOAD))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
        self.connection.close(5)

    def send(self, data: bytes) -> None:
        """Send bytes, messages or not; they may not all be read."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def receive(self) -> Message:
        """The next message."""
        return receive(self._messages)

    def call(self, tag: int, data: bytes = b"") -> Future[WrapperFunctionResult]:
        """Have the other end call, on a thread of its own."""
        future: Future[WrapperFunctionResult] = Future()

        def call() -> None:
            try:
                future.set_result(tasks.run(self.connection.call(tag, data)))
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future

    def send_part(self, data: bytes) -> None:
        """Send bytes, and go away."""
        self.send(data)
        self.close()

    def answer(self, message: Message, payload: bytes) -> None:
        """Send the result of a call."""
        self.send(encoded(OpCode.RESULT, message.sequence, payload=payload))

    def reset(self) -> None:
        """Close the connection such that the other side sees an error."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
