"""Program properties of objects, and malformed notes."""

import struct
from typing import Literal

import pytest

from jitlink.errors import ObjectError
from jitlink.formats.elf_notes import NT_GNU_PROPERTY_TYPE_0, SECTION, has_property_bit
from jitlink.graph import LinkGraph, MemProt

FEATURES, OTHER = 0xC0000000, 0xC0000002
ByteOrder = Literal["little", "big"]


def note(
    descriptor: bytes, kind: int = NT_GNU_PROPERTY_TYPE_0, name: bytes = b"GNU\0", order: str = "<"
) -> bytes:
    return struct.pack(f"{order}III", len(name), len(descriptor), kind) + name + descriptor


def word(kind: int, bits: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}IIII", kind, 4, bits, 0)


def graph_of(*contents: bytes, endianness: ByteOrder = "little") -> LinkGraph:
    graph = LinkGraph("a.o", "none", endianness=endianness)
    section = graph.create_section(SECTION, MemProt.READ)
    for content in contents:
        graph.create_content_block(section, content)
    return graph


@pytest.mark.parametrize(("bits", "found"), [(0, False), (1, True), (2, False), (3, True)])
def test_bits_are_found(bits: int, found: bool) -> None:
    assert has_property_bit(graph_of(note(word(FEATURES, bits))), FEATURES, 1) is found
    big = note(word(FEATURES, bits, ">"), order=">")
    assert has_property_bit(graph_of(big, endianness="big"), FEATURES, 1) is found


def test_any_object_and_any_property_counts() -> None:
    two = note(word(OTHER, 1) + word(FEATURES, 1))
    assert has_property_bit(graph_of(note(word(FEATURES, 2)), two), FEATURES, 1)
    assert not has_property_bit(graph_of(note(word(OTHER, 1))), FEATURES, 1)
    assert has_property_bit(graph_of(note(b"abcdefgh", 1) + two), FEATURES, 1)


def test_other_notes_are_ignored() -> None:
    assert not has_property_bit(graph_of(), FEATURES, 1)
    assert not has_property_bit(graph_of(b""), FEATURES, 1)
    for other in (note(word(FEATURES, 1), 1), note(word(FEATURES, 1), name=b"Go\0\0")):
        assert not has_property_bit(graph_of(other), FEATURES, 1)


WHOLE = note(word(FEATURES, 0))


@pytest.mark.parametrize(
    "content",
    [
        WHOLE[:5],
        WHOLE[:-4],
        WHOLE + b"\1",
        struct.pack("<III", 0xFFFFFFFF, 0, 5) + b"GNU\0",
        struct.pack("<III", 4, 0xFFFFFFFF, 5) + b"GNU\0",
        note(struct.pack("<I", FEATURES)),
        note(struct.pack("<II", FEATURES, 4)),
    ],
)
def test_malformed_notes_are_refused(content: bytes) -> None:
    with pytest.raises(ObjectError, match="malformed") as caught:
        has_property_bit(graph_of(content), FEATURES, 1)
    assert caught.value.file == "a.o"
