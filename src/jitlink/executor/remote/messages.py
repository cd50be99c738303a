"""Messages of the SimpleRemoteEPC protocol.

A message is a header of four little-endian 64-bit words, and a payload::

    size        of the whole message in bytes, header included
    opcode      `OpCode`; of which the low byte counts
    sequence    number of a call; a result has that of its call
    tag         what is called: in the executor the address of a wrapper function, in the
                controller that of a variable of the executor that stands for a handler;
                of a result its `ResultKind`, in which only newer executors have another than 0

The executor begins with a setup message. After that both sides make calls, whose results come in
any order, until one of them hangs up or closes the connection.

Specification: llvm/ExecutionEngine/Orc/Shared/SimpleRemoteEPCUtils.h and SimpleRemoteEPC.h.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from jitlink.executor.remote.errors import ProtocolError

HEADER = struct.Struct("<QQQQ")
DEFAULT_LIMIT = 1 << 32
"""Bytes of the largest message that is accepted by default."""


class OpCode(IntEnum):
    """What a message is."""

    SETUP = 0
    HANGUP = 1
    RESULT = 2
    CALL_WRAPPER = 3


class ResultKind(IntEnum):
    """What the payload of a result is."""

    VALUE = 0
    OUT_OF_BAND_ERROR = 1


class Message(NamedTuple):
    """One message."""

    opcode: OpCode
    sequence: int
    tag: int
    payload: bytes

    def header(self) -> bytes:
        """The bytes that precede the payload."""
        return header_of(self.opcode, self.sequence, self.tag, len(self.payload))


def header_of(opcode: OpCode, sequence: int, tag: int, size: int) -> bytes:
    """The bytes that precede a payload of a size in bytes."""
    return HEADER.pack(HEADER.size + size, opcode, sequence, tag)


class MessageReader:
    """Splits what is received into messages.

    Args:
        limit: bytes of the largest message that is accepted.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._received = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with these bytes, which follow those before.

        Raises:
            ProtocolError: they are no messages; nothing more can be read.
        """
        self._buffer += data
        self._received += len(data)
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            size, opcode, sequence, tag = HEADER.unpack_from(self._buffer, start)
            self._check(size, opcode, self._received - len(self._buffer) + start)
            end = start + size
            if len(self._buffer) < end:
                break
            payload = bytes(memoryview(self._buffer)[start + HEADER.size : end])
            messages.append(Message(OpCode(opcode & 0xFF), sequence, tag, payload))
            start = end
        if start:
            del self._buffer[:start]
        return messages

    def _check(self, size: int, opcode: int, offset: int) -> None:
        where = f"at offset {offset} of what the executor has sent"
        if size < HEADER.size:
            raise ProtocolError(f"a message {where} has {size} bytes, fewer than its header")
        if size > self._limit:
            raise ProtocolError(
                f"a message {where} has {size} bytes, more than the limit of {self._limit}"
            )
        if opcode & 0xFF > max(OpCode):
            raise ProtocolError(f"a message {where} has the unknown opcode {opcode & 0xFF}")

    def end(self) -> None:
        """Check that what was received ended with a message.

        Raises:
            ProtocolError: it ended within one.
        """
        if self._buffer:
            raise ProtocolError(
                f"the connection ended within a message, {len(self._buffer)} bytes after its start",
                is_truncation=True,
            )
