"""Targets of relocated fields of x86-64 objects, decoded from the linked bytes.

Two linkers may refer to one target in different ways: directly, through a stub, or through a GOT
entry, and where the ABI allows it they rewrite the instruction. `meaning` decodes a field, by its
relocation type, into a value that is the same for all equivalent references.

Specification: System V psABI, AMD64 supplement, table 4.9 and appendix B.2; Intel 64 and IA-32
Architectures Software Developer's Manual, volume 2.
"""

from collections.abc import Callable
from typing import NamedTuple

from tests.oracle.elf_file import ElfRelocation
from tests.oracle.memory import Memory, Target


class Operation(NamedTuple):
    """An instruction whose operand was read through the GOT before relaxation.

    Attributes:
        name: `mov`, `test`, `call`, `jmp`, or number of the arithmetic operation (0 to 7).
        register: number of the register operand; -1 if there is none.
        is_wide: whether the operands are 64-bit.
        operand: value of the operand.
    """

    name: str | int
    register: int
    is_wide: bool
    operand: Target


class GotDistance(NamedTuple):
    """The distance of a target from the GOT."""

    offset: int


Meaning = Target | Operation | GotDistance

TLS_RELOCATIONS = {
    19: "R_X86_64_TLSGD",
    20: "R_X86_64_TLSLD",
    21: "R_X86_64_DTPOFF32",
    22: "R_X86_64_GOTTPOFF",
    23: "R_X86_64_TPOFF32",
    34: "R_X86_64_GOTPC32_TLSDESC",
    35: "R_X86_64_TLSDESC_CALL",
}

_NONE, _GOTPCRELX, _REX_GOTPCRELX, _CODE_4_GOTPCRELX = 0, 41, 42, 43
# Size in bytes of the instruction's prefix.
_PREFIXES = {_GOTPCRELX: 0, _REX_GOTPCRELX: 1, _CODE_4_GOTPCRELX: 2}
# Width in bytes and signedness, by relocation type.
_ABSOLUTE = {1: (8, False), 10: (4, False), 11: (4, True), 12: (2, False), 14: (1, False)}
_RELATIVE = {2: 4, 4: 4, 13: 2, 15: 1, 24: 8, 39: 4, 40: 4}
_GOT_ENTRY_RELATIVE = {9: 4, 28: 8, 46: 4, 49: 4}
_GOT_ENTRY_FROM_GOT = {3: 4, 27: 8, 30: 8}
_FROM_GOT = {25: 8, 31: 8}
_TO_GOT = {26: 4, 29: 8}
_SIZE = {32: 4, 33: 8}
# Relocations that may go through stubs or GOT entries are in range of any address.
_ANYWHERE = frozenset({1, 4, 31, 40, *_PREFIXES, *_GOT_ENTRY_RELATIVE, *_GOT_ENTRY_FROM_GOT})


def reaches_any_address(kind: int) -> bool:
    """Whether a relocation of this type is in range of every address."""
    return kind in _ANYWHERE


def touched(relocation: ElfRelocation) -> range:
    """Offsets in the section of the bytes that a linker may change for a relocation."""
    kind, offset = relocation.type, relocation.offset
    if kind == _NONE:
        return range(offset, offset)
    if kind in _PREFIXES:
        return range(offset - 2 - _PREFIXES[kind], offset + 4)
    if kind in _ABSOLUTE:
        return range(offset, offset + _ABSOLUTE[kind][0])
    for widths in (
        _RELATIVE,
        _GOT_ENTRY_RELATIVE,
        _GOT_ENTRY_FROM_GOT,
        _FROM_GOT,
        _TO_GOT,
        _SIZE,
    ):
        if kind in widths:
            return range(offset, offset + widths[kind])
    raise LookupError(f"relocation type {kind}")


def meaning(memory: Memory, place: int, relocation: ElfRelocation) -> Meaning:
    """The target of the field at an address.

    Raises:
        LookupError: nothing is at the target, or the instruction is unknown.
    """
    kind, addend = relocation.type, relocation.addend
    if kind in _PREFIXES:
        return _Instruction(memory, place, _PREFIXES[kind]).decode()
    if kind in _ABSOLUTE:
        width, signed = _ABSOLUTE[kind]
        return memory.follow(memory.integer(place, width, signed=signed) - addend)
    if kind in _SIZE:
        return memory.integer(place, _SIZE[kind])
    for widths, base, read in _rules(memory, place):
        if kind in widths:
            return read(base() + memory.integer(place, widths[kind]) - addend)
    raise LookupError(f"relocation type {kind}")


def _rules(
    memory: Memory, place: int
) -> list[tuple[dict[int, int], Callable[[], int], Callable[[int], Meaning]]]:
    def at_place() -> int:
        return place

    def at_got() -> int:
        if memory.got is None:
            raise LookupError("no GOT")
        return memory.got

    def from_got(address: int) -> Meaning:
        return GotDistance(address - at_got())

    return [
        (_RELATIVE, at_place, memory.follow),
        (_GOT_ENTRY_RELATIVE, at_place, memory.load),
        (_GOT_ENTRY_FROM_GOT, at_got, memory.load),
        (_FROM_GOT, at_got, memory.follow),
        (_TO_GOT, at_place, from_got),
    ]


class _Instruction:
    """An instruction around a 32-bit field, as compiled or relaxed."""

    def __init__(self, memory: Memory, place: int, prefix: int) -> None:
        self.memory = memory
        self.place = place
        self.opcode, self.modrm = (memory.integer(place - n, 1, signed=False) for n in (2, 1))
        # The register fields' high bits, and the width.
        self.reg_high, self.rm_high, self.is_wide = 0, 0, False
        if prefix == 1:
            rex = memory.integer(place - 3, 1)
            self.reg_high, self.rm_high = (rex >> 2 & 1) << 3, (rex & 1) << 3
            self.is_wide = bool(rex & 8)
        elif prefix == 2:
            payload = memory.integer(place - 3, 1)
            self.reg_high = (payload >> 2 & 1) << 3 | (payload >> 6 & 1) << 4
            self.rm_high = (payload & 1) << 3 | (payload >> 4 & 1) << 4
            self.is_wide = bool(payload & 8)

    def decode(self) -> Operation:
        """The operation of the instruction, in any form."""
        field = self.memory.integer(self.place, 4)
        after = self.place + 4 + field
        if (self.opcode, self.modrm) == (0x67, 0xE8):
            return self._branch("call", self.memory.follow(after))
        if self.opcode == 0xE9:
            # The jump is one byte shorter than the original, so a one-byte nop follows.
            if self.memory.integer(self.place + 3, 1, signed=False) != 0x90:
                raise LookupError(f"jmp without nop at {self.place - 2:#x}")
            distance = self.memory.integer(self.place - 1, 4)
            return self._branch("jmp", self.memory.follow(self.place + 3 + distance))
        if self.modrm & 0xC7 == 0x05:
            return self._relative(after)
        if self.modrm & 0xC0 == 0xC0:
            return self._immediate(field)
        raise self._unknown()

    def _relative(self, address: int) -> Operation:
        register = self.reg_high | self.modrm >> 3 & 7
        if self.opcode == 0x8D:
            return self._on_register("mov", register, self.memory.follow(address))
        operand = self.memory.load(address)
        if self.opcode == 0xFF and register & 7 in {2, 4}:
            return self._branch("call" if register & 7 == 2 else "jmp", operand)
        if self.opcode == 0x8B:
            return self._on_register("mov", register, operand)
        if self.opcode == 0x85:
            return self._on_register("test", register, operand)
        if self.opcode & 0xC7 == 0x03:
            return self._on_register(self.opcode >> 3, register, operand)
        raise self._unknown()

    def _immediate(self, value: int) -> Operation:
        register = self.rm_high | self.modrm & 7
        extension = self.modrm >> 3 & 7
        if self.opcode == 0x81:
            return self._on_register(extension, register, self.memory.follow(value))
        if extension == 0 and self.opcode in {0xC7, 0xF7}:
            name = "mov" if self.opcode == 0xC7 else "test"
            return self._on_register(name, register, self.memory.follow(value))
        raise self._unknown()

    def _on_register(self, name: str | int, register: int, operand: Target) -> Operation:
        if isinstance(operand, int):
            operand &= (1 << (64 if self.is_wide else 32)) - 1
        return Operation(name, register, self.is_wide, operand)

    def _branch(self, name: str, target: Target) -> Operation:
        return Operation(name, -1, True, target)

    def _unknown(self) -> LookupError:
        return LookupError(f"instruction {self.opcode:02x} {self.modrm:02x} at {self.place - 2:#x}")
