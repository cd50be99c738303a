"""The FDEs of a linked `.eh_frame`, with addresses instead of encoded pointers.

Linkers may merge, drop and reorder records, so sections are compared function by function. Only
the forms that compilers emit are supported.

Specification: Linux Standard Base, "Exception Frames".
"""

from typing import NamedTuple

from tests.oracle.memory import Memory, Target

_PCREL, _INDIRECT, _OMIT = 0x10, 0x80, 0xFF
_ABSOLUTE = 0x0
_SIZES = {0x2: 2, 0x3: 4, 0x4: 8, 0xA: 2, 0xB: 4, 0xC: 8}
_SIGNED = 0x8
_DW_CFA_NOP = b"\0"


class Cie(NamedTuple):
    """The content of a CIE.

    Attributes:
        augmentation: its augmentation string.
        factors: code and data alignment factors and return address register, as encoded.
        personality: the personality routine; None if there is none.
        instructions: initial instructions, without padding.
        pointers: encoding of pointers to functions.
        data: encoding of pointers to language-specific data.
    """

    augmentation: bytes
    factors: bytes
    personality: Target | None
    instructions: bytes
    pointers: int
    data: int


class Frame(NamedTuple):
    """The content of an FDE, with its CIE.

    Attributes:
        start: address of the function.
        size: its size in bytes.
        language_data: address of the language-specific data; 0 if there is none.
        instructions: instructions, without padding.
        cie: its CIE.
    """

    start: int
    size: int
    language_data: int
    instructions: bytes
    cie: Cie


def size_of(memory: Memory, encoding: int) -> int:
    """Size in bytes of a pointer of an encoding."""
    kind = encoding & 0xF
    return memory.pointer_size if kind == _ABSOLUTE else _SIZES[kind]


class _Cursor:
    def __init__(self, memory: Memory, position: int) -> None:
        self.memory = memory
        self.position = position

    def take(self, size: int) -> bytes:
        content = self.memory.read(self.position, size)
        if content is None:
            raise LookupError(f"nothing at {self.position:#x}")
        self.position += size
        return content

    def integer(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def leb(self) -> bytes:
        """A LEB128 number, still encoded."""
        encoded = self.take(1)
        while encoded[-1] & 0x80:
            encoded += self.take(1)
        return encoded

    def string(self) -> bytes:
        text = b""
        while (byte := self.take(1)) != b"\0":
            text += byte
        return text

    def pointer(self, encoding: int) -> int:
        place = self.position
        value = self.integer(size_of(self.memory, encoding), signed=bool(encoding & _SIGNED))
        if value == 0:
            return 0
        value += place if encoding & 0x70 == _PCREL else 0
        value &= (1 << 8 * self.memory.pointer_size) - 1
        if encoding & _INDIRECT:
            value = self.memory.integer(value, self.memory.pointer_size, signed=False)
        return value


def read_frames(memory: Memory, section: range | None) -> list[Frame]:
    """All FDEs of a section, in order of function.

    Raises:
        LookupError: the section is malformed or of an unsupported form.
    """
    frames: list[Frame] = []
    known: dict[int, Cie] = {}
    cursor = _Cursor(memory, section.start if section else 0)
    while section and cursor.position < section.stop:
        start = cursor.position
        length = cursor.integer(4)
        if length == 0:
            break
        end = cursor.position + length
        cie = cursor.position - cursor.integer(4)
        if cie == start + 4:
            known[start] = _read_cie(memory, cursor.position, end)
        else:
            if cie not in known:
                known[cie] = _read_cie_at(memory, cie)
            frames.append(_read_frame(cursor, end, known[cie]))
        cursor.position = end
    return sorted(frames)


def _read_cie_at(memory: Memory, start: int) -> Cie:
    length = memory.integer(start, 4)
    if memory.integer(start + 4, 4) != 0:
        raise LookupError(f"no CIE at {start:#x}")
    return _read_cie(memory, start + 8, start + 4 + length)


def _read_cie(memory: Memory, position: int, end: int) -> Cie:
    cursor = _Cursor(memory, position)
    version = cursor.integer(1)
    augmentation = cursor.string()
    factors = cursor.leb() + cursor.leb()
    factors += cursor.take(1) if version == 1 else cursor.leb()
    personality: Target | None = None
    pointers, data = 0, _OMIT
    if augmentation.startswith(b"z"):
        cursor.leb()
    for letter in augmentation[1:].decode():
        match letter:
            case "R":
                pointers = cursor.integer(1)
            case "L":
                data = cursor.integer(1)
            case "P":
                personality = memory.follow(cursor.pointer(cursor.integer(1)))
            case "S":
                pass
            case _:
                raise LookupError(f"augmentation {augmentation!r}")
    instructions = cursor.take(end - cursor.position).rstrip(_DW_CFA_NOP)
    return Cie(augmentation, factors, personality, instructions, pointers, data)


def _read_frame(cursor: _Cursor, end: int, cie: Cie) -> Frame:
    start = cursor.pointer(cie.pointers)
    size = cursor.integer(size_of(cursor.memory, cie.pointers))
    language_data = 0
    if cie.augmentation.startswith(b"z"):
        cursor.leb()
        if cie.data != _OMIT:
            language_data = cursor.pointer(cie.data)
    instructions = cursor.take(end - cursor.position).rstrip(_DW_CFA_NOP)
    return Frame(start, size, language_data, instructions, cie)
