"""Program properties, in the notes of `.note.gnu.property` sections, and `.note.GNU-stack`.

Specification: "Linux Extensions to gABI" (NT_GNU_PROPERTY_TYPE_0). A note is three words (sizes
of name and descriptor, type), the name and the descriptor; the descriptor is a sequence of
properties: type, size and data, each padded to the size of an address. An object needs executable
stacks if its section `.note.GNU-stack`, which is no note and has no content, is executable.

LLVM differs: JITLink ignores `.note.GNU-stack`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from jitlink.errors import ObjectError
from jitlink.graph import Block, LinkGraph
from jitlink.graph.sections import distinct_contents

SECTION = ".note.gnu.property"
STACK_SECTION = ".note.GNU-stack"
NT_GNU_PROPERTY_TYPE_0 = 5
_GNU = b"GNU\0"


def objects_with_executable_stack(graph: LinkGraph) -> list[str]:
    """Display names of the objects of a graph that need executable stacks."""
    found: list[str] = []
    for ordinal in graph.section_list.ordinals_named(STACK_SECTION):
        if graph.section_list.is_executable(ordinal):
            rows = graph.section_list[ordinal].block_rows()
            origins = graph.block_table.origin[rows].tolist()
            found += [graph.origins[origin] for origin in origins if origin >= 0]
    return found


def has_property_bit(graph: LinkGraph, kind: int, bit: int) -> bool:
    """Whether any object of a graph has a bit set in a property of a type.

    Args:
        graph: the graph, before any pass.
        kind: type of the property, whose data is one word.
        bit: mask of the bit.

    Raises:
        ObjectError: a note is malformed.
    """
    return any(
        word & bit
        for block, content in distinct_contents(graph, SECTION)
        for word in _properties(graph, block, content, kind)
    )


def _properties(graph: LinkGraph, block: Block, content: bytes, kind: int) -> Iterator[int]:
    """The words of all properties of a type in a section's content."""
    order = "<" if graph.endianness == "little" else ">"
    position = 0
    try:
        while position < len(content):
            name_size, size, note = struct.unpack_from(f"{order}III", content, position)
            name = content[position + 12 : position + 12 + name_size]
            start = position + 12 + -(-name_size // 4) * 4
            if start + size > len(content):
                raise _malformed(graph, block, position)
            if note == NT_GNU_PROPERTY_TYPE_0 and name == _GNU:
                yield from _words(content[start : start + size], order, graph.pointer_size, kind)
            position = start + -(-size // graph.pointer_size) * graph.pointer_size
    except struct.error as error:
        raise _malformed(graph, block, position) from error


def _words(descriptor: bytes, order: str, alignment: int, kind: int) -> Iterator[int]:
    position = 0
    while position < len(descriptor):
        found, size = struct.unpack_from(f"{order}II", descriptor, position)
        if found == kind:
            yield struct.unpack_from(f"{order}I", descriptor, position + 8)[0]
        position += 8 + -(-size // alignment) * alignment


def _malformed(graph: LinkGraph, block: Block, position: int) -> ObjectError:
    file = graph.origin_name(block.row)
    return ObjectError(f"{SECTION}+{position:#x}: note is malformed", file=file)
