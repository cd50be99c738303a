"""RISC-V ABI variants: the attributes of objects, and whether objects can call each other.

The ELF header's e_flags say which registers carry floating-point arguments and whether the base
instruction set is the small one (RVE). The section ``.riscv.attributes`` says how the stack is
aligned, how atomic accesses are mapped to instructions and what x3 is used for. Extensions of the
instruction set may differ: an object may test at run time for an extension that another one
requires.

Quirks: attributes that a file lacks are compatible with all values. Even tags have numbers, odd
ones strings.

Specification: RISC-V ELF psABI, "e_flags" and "Attributes"; the general layout of attribute
sections is that of the Arm ABI ("Build Attributes").
"""

from __future__ import annotations

from collections.abc import Iterator

from jitlink.errors import ObjectError, UnsupportedObjectError
from jitlink.graph import Block, LinkGraph
from jitlink.graph.sections import distinct_contents

SECTION = ".riscv.attributes"
EF_RISCV_FLOAT_ABI, EF_RISCV_RVE = 0x6, 0x8
TAG_STACK_ALIGN, TAG_ARCH, TAG_ATOMIC_ABI, TAG_X3_REG_USAGE = 4, 5, 14, 16

_FLOAT_ABIS = ("soft", "single-precision", "double-precision", "quad-precision")
_VENDOR = b"riscv\0"
_TAG_FILE = 1
_NUMBER_BITS = 64
_A6C, _A6S, _A7 = 1, 2, 3
_NAMES = {
    TAG_STACK_ALIGN: "stack alignment",
    TAG_ATOMIC_ABI: "mapping of atomic accesses",
    TAG_X3_REG_USAGE: "use of x3",
}


def check_abi(graph: LinkGraph) -> None:
    """Refuse objects that cannot call each other (pre-prune pass).

    Raises:
        ObjectError: an attribute section is malformed.
        UnsupportedObjectError: two objects are for different ABIs, or one is for another word size.
    """
    _check_flags(graph)
    first: dict[int, tuple[int, str]] = {}
    for block, content in distinct_contents(graph, SECTION):
        _check_attributes(graph, block, content, first)


def _check_flags(graph: LinkGraph) -> None:
    mask = EF_RISCV_FLOAT_ABI | EF_RISCV_RVE
    for name, flags in zip(graph.origins, graph.origin_flags, strict=False):
        differing = (flags ^ graph.origin_flags[0]) & mask
        if differing & EF_RISCV_FLOAT_ABI:
            abis = [_FLOAT_ABIS[(bits >> 1) & 3] for bits in (flags, graph.origin_flags[0])]
            what = f"{abis[0]} floating-point arguments, unlike {graph.origins[0]} ({abis[1]})"
            raise UnsupportedObjectError(f"is for {what}", file=name)
        if differing:
            what = "16 registers (RVE)" if flags & EF_RISCV_RVE else "32 registers"
            raise UnsupportedObjectError(f"is for {what}, unlike {graph.origins[0]}", file=name)


def _check_attributes(
    graph: LinkGraph, block: Block, content: bytes, first: dict[int, tuple[int, str]]
) -> None:
    file = graph.origin_name(block.row)
    try:
        attributes = dict(_attributes(content))
    except (IndexError, ValueError):
        raise ObjectError(f"section {SECTION} is malformed", file=file) from None
    arch = attributes.get(TAG_ARCH)
    bits = 8 * graph.pointer_size
    if isinstance(arch, bytes) and not arch.startswith(b"rv%d" % bits):
        message = f"is for {arch.decode(errors='replace')}, not for rv{bits}"
        raise UnsupportedObjectError(message, file=file)
    for tag, name in _NAMES.items():
        value = attributes.get(tag, 0)
        if not isinstance(value, int) or value == 0:
            continue
        if tag == TAG_ATOMIC_ABI and value == _A6S:
            continue  # Compatible with both A6C and A7.
        other, other_file = first.setdefault(tag, (value, file))
        if other != value:
            message = f"{name} is {value}, but {other} in {other_file}"
            raise UnsupportedObjectError(message, file=file)


def _attributes(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Tags and values of a whole file; IndexError or ValueError if they are malformed."""
    if content[:1] != b"A":
        raise ValueError
    position = 1
    while position < len(content):
        end = _end(content, position, len(content), position)
        if content.startswith(_VENDOR, position + 4, end):
            yield from _subsections(content, position + 4 + len(_VENDOR), end)
        position = end


def _end(content: bytes, position: int, limit: int, start: int) -> int:
    """The end of a region that begins at `start` and has its size at `position`."""
    if position + 4 > limit:
        raise ValueError
    end = start + int.from_bytes(content[position : position + 4], "little")
    if not position + 4 <= end <= limit:
        raise ValueError
    return end


def _subsections(content: bytes, position: int, limit: int) -> Iterator[tuple[int, int | bytes]]:
    while position < limit:
        tag, body = _uleb128(content, position)
        end = _end(content, body, limit, position)
        if tag == _TAG_FILE:
            yield from _values(content, body + 4, end)
        position = end


def _values(content: bytes, position: int, limit: int) -> Iterator[tuple[int, int | bytes]]:
    while position < limit:
        tag, position = _uleb128(content, position)
        value: int | bytes
        if tag & 1:
            end = content.index(b"\0", position, limit)
            value, position = content[position:end], end + 1
        else:
            value, position = _uleb128(content, position)
        if position > limit:
            raise ValueError
        yield tag, value


def _uleb128(content: bytes, position: int) -> tuple[int, int]:
    """A number and where it ends; IndexError if it does not, ValueError beyond 64 bits."""
    value = shift = 0
    while shift < _NUMBER_BITS:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError
