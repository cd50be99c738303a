"""CIEs of `.eh_frame` sections: what those of FDEs have in common.

Quirks: the size of the pointers in an FDE is encoded only in the augmentation of its CIE. GNU as
writes CIEs of version 3 for RISC-V, which LLVM refuses.

Specification: Linux Standard Base, "Exception Frames"; DWARF 5, section 6.4.1.
"""

from __future__ import annotations

DW_EH_PE_OMIT = 0xFF
_ENCODED_SIZES = {0x00: 0, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_VERSIONS = (1, 3, 4)


def size_of_pointers(cie: bytes, pointer_size: int) -> int:
    """Size in bytes of the function pointers in the FDEs of a CIE.

    Args:
        cie: the whole record.
        pointer_size: size of a pointer of the architecture, in bytes.

    Returns:
        The size; 0 if the CIE is malformed or not supported.
    """
    try:
        return _read(cie, pointer_size)
    except IndexError:
        return 0


def _read(content: bytes, pointer_size: int) -> int:
    """`size_of_pointers`; raises IndexError if the CIE is truncated."""
    position = 16 if content[:4] == b"\xff\xff\xff\xff" else 8
    version = content[position]
    end = content.find(b"\0", position + 1)
    if version not in _VERSIONS or end < 0:
        return 0
    augmentation = content[position + 1 : end]
    position = end + 1
    if version == 4:
        position += 2
    position = _skip_leb(content, _skip_leb(content, position))
    position = position + 1 if version == 1 else _skip_leb(content, position)
    if not augmentation.startswith(b"z"):
        return pointer_size if augmentation in (b"", b"eh") else 0
    position = _skip_leb(content, position)
    size = pointer_size
    for letter in augmentation[1:]:
        if letter == ord("R"):
            size = _encoded_size(content[position], pointer_size)
            position += 1
        elif letter == ord("L"):
            position += 1
        elif letter == ord("P"):
            position += 1 + _encoded_size(content[position], pointer_size)
        elif letter not in b"SBG":
            return 0
    return size


def _encoded_size(encoding: int, pointer_size: int) -> int:
    """Size in bytes of a pointer of a DW_EH_PE encoding; raises IndexError if it has none."""
    if encoding == DW_EH_PE_OMIT or encoding & 0xF not in _ENCODED_SIZES:
        raise IndexError(encoding)
    return _ENCODED_SIZES[encoding & 0xF] or pointer_size


def _skip_leb(content: bytes, position: int) -> int:
    while content[position] & 0x80:
        position += 1
    return position + 1
