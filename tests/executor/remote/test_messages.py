"""Messages are found in what is received, however it is cut; what is none is refused."""

import pytest

from jitlink.executor import ProtocolError
from jitlink.executor.remote.messages import HEADER, Message, MessageReader, OpCode
from tests.executor.remote.fake import encoded

MESSAGES = [
    Message(OpCode.SETUP, 0, 0, b"setup"),
    Message(OpCode.CALL_WRAPPER, 7, 0x1234, b""),
    Message(OpCode.RESULT, 7, 0, bytes(300)),
    Message(OpCode.HANGUP, 0, 0, b"\0"),
]
STREAM = b"".join(message.header() + message.payload for message in MESSAGES)


def test_the_header_is_as_specified() -> None:
    message = Message(OpCode.CALL_WRAPPER, 2, 0x10203, b"abc")
    words = [int.from_bytes(message.header()[n : n + 8], "little") for n in range(0, 32, 8)]
    assert words == [35, 3, 2, 0x10203]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_messages_may_be_cut_anywhere(cut: int) -> None:
    reader = MessageReader()
    assert reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:]) == MESSAGES
    reader.end()


def test_messages_may_arrive_byte_by_byte() -> None:
    reader = MessageReader()
    received = [m for n in range(len(STREAM)) for m in reader.feed(STREAM[n : n + 1])]
    assert received == MESSAGES


def test_only_the_low_byte_of_the_opcode_counts() -> None:
    (message,) = MessageReader().feed(encoded(0x101))
    assert message.opcode is OpCode.HANGUP


def test_a_message_may_have_as_many_bytes_as_the_limit() -> None:
    message = encoded(1, payload=bytes(16))
    assert len(MessageReader(limit=len(message)).feed(message)) == 1
    with pytest.raises(ProtocolError, match="more than the limit"):
        MessageReader(limit=len(message) - 1).feed(message)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HEADER.pack(31, 1, 0, 0), "at offset 48 .* has 31 bytes, fewer than its header"),
        (HEADER.pack(0, 1, 0, 0), "has 0 bytes"),
        (HEADER.pack(1001, 1, 0, 0), "has 1001 bytes, more than the limit of 1000"),
        (HEADER.pack((1 << 64) - 1, 1, 0, 0), "more than the limit"),
        (encoded(4), "unknown opcode 4"),
        (encoded(255), "unknown opcode 255"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, reason: str) -> None:
    reader = MessageReader(limit=1000)
    assert len(reader.feed(encoded(1, payload=bytes(16)))) == 1
    with pytest.raises(ProtocolError, match=reason):
        reader.feed(data)


def test_the_end_within_a_message_is_an_error() -> None:
    reader = MessageReader()
    reader.feed(STREAM[:-1])
    with pytest.raises(ProtocolError, match="ended within a message, 32 bytes after its start"):
        reader.end()
