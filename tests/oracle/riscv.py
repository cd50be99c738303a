"""Targets of relocated fields of RISC-V objects, decoded from the linked bytes.

The counterpart of `references`. An address is computed by two instructions; the relocation of the
second refers to the label of the first, so the symbols of the object are needed. The code must not
be relaxed.

Specification: RISC-V ELF psABI, chapter "Relocations"; RISC-V Instruction Set Manual, volume I.
"""

from typing import NamedTuple

from jitlink.arch.riscv_relax import align, relax
from jitlink.link import PassConfiguration
from tests.oracle.elf_file import ElfFile, ElfRelocation, ElfSection
from tests.oracle.memory import Memory, Target

R_64, R_BRANCH, R_JAL, R_CALL, R_CALL_PLT, R_GOT_HI20 = 2, 16, 17, 18, 19, 20
R_PCREL_HI20, R_PCREL_LO12_I, R_PCREL_LO12_S, R_ALIGN, R_RELAX, R_PLT32 = 23, 24, 25, 43, 51, 59
R_GOT32_PCREL = 41
R_TLS_GOT_HI20, R_TLS_GD_HI20, R_TPREL_HI20, R_TPREL_LO12_I, R_TPREL_LO12_S = 21, 22, 29, 30, 31
TLS_RELOCATIONS = {
    21: "R_RISCV_TLS_GOT_HI20",
    22: "R_RISCV_TLS_GD_HI20",
    29: "R_RISCV_TPREL_HI20",
    30: "R_RISCV_TPREL_LO12_I",
    31: "R_RISCV_TPREL_LO12_S",
    32: "R_RISCV_TPREL_ADD",
    62: "R_RISCV_TLSDESC_HI20",
}

# Bytes that a linker may change for a relocation, by type; 4 for the others.
_WIDTHS = {
    0: 0, 2: 8, 18: 8, 19: 8, 33: 1, 34: 2, 36: 8, 37: 1, 38: 2, 40: 8, 43: 0, 44: 2, 45: 2,
    51: 0, 52: 1, 53: 1, 54: 1, 55: 2, 60: 10, 61: 10,
}  # fmt: skip
# Calls may go through stubs, and pointers hold any address.
_ANYWHERE = frozenset({R_64, R_CALL, R_CALL_PLT, R_GOT_HI20, R_PLT32, R_GOT32_PCREL})
_PCREL_HI20 = frozenset({R_GOT_HI20, R_PCREL_HI20, R_TLS_GOT_HI20, R_TLS_GD_HI20})
_AUIPC, _LUI, _ADDI, _JALR = 0x17, 0x37, 0x13, 0x67
_LOADS = {0x2003: 4, 0x3003: 8}


class Hi20(NamedTuple):
    """The HI20 of an address; the target is decoded with its LO12."""

    register: int


Meaning = Target | Hi20


def reaches_any_address(kind: int) -> bool:
    """Whether a relocation of this type is in range of every address."""
    return kind in _ANYWHERE


def touched(relocation: ElfRelocation) -> range:
    """Offsets in the section of the bytes that a linker may change for a relocation."""
    width = _WIDTHS.get(relocation.type, 4)
    return range(relocation.offset, relocation.offset + width)


def follow(memory: Memory, address: int) -> Target:
    """The target of a jump to an address, which may be a stub."""
    if not any(address in each for each in memory.stubs):
        return address
    load = memory.integer(address + 4, 4, signed=False)
    return memory.load(_hi20(memory, address) + _signed(load >> 20, 12))


def keep_code(passes: PassConfiguration) -> None:
    """Switch off relaxation, except alignment."""
    passes.post_prune[passes.post_prune.index(relax)] = align


def meaning(
    memory: Memory, place: int, relocation: ElfRelocation, elf: ElfFile, section: ElfSection
) -> Meaning:
    """The target of the field at an address.

    Raises:
        LookupError: nothing is at the target, or the instruction is unknown.
    """
    match relocation.type:
        case 1 | 2:
            width = 4 * relocation.type
            return follow(memory, memory.integer(place, width, signed=False) - relocation.addend)
        case 18 | 19:
            jump = memory.integer(place + 4, 4, signed=False)
            if jump & 0x7F != _JALR:
                raise LookupError(f"no jalr at {place + 4:#x}")
            target = _hi20(memory, place) + _signed(jump >> 20, 12)
            if target == place and elf.symbols[relocation.symbol].shndx == 0:
                # With ld.lld a call of an undefined weak symbol calls itself.
                return 0
            return follow(memory, target - relocation.addend)
        case 17:
            return follow(memory, place + _jump(memory.integer(place, 4, signed=False)))
        case 59:
            return follow(memory, place + memory.integer(place, 4) - relocation.addend)
        case 41:
            return memory.load(place + memory.integer(place, 4) - relocation.addend)
        case 20 | 21 | 22 | 29:
            # The target is decoded with its LO12.
            return Hi20(memory.integer(place, 4, signed=False) >> 7 & 31)
        case 24 | 30 | 31:
            decode = _lo12 if relocation.type == R_PCREL_LO12_I else _local_exec
            return decode(memory, place, relocation, elf, section)
    raise LookupError(f"relocation type {relocation.type}")


def _lo12(
    memory: Memory, place: int, relocation: ElfRelocation, elf: ElfFile, section: ElfSection
) -> Meaning:
    """The target of an address whose LO12 is at `place`."""
    label = elf.symbols[relocation.symbol]
    code = memory.integer(place, 4, signed=False)
    address = _hi20(memory, place - relocation.offset + label.value) + _signed(code >> 20, 12)
    size = _LOADS.get(code & 0x707F)
    if elf.sections[label.shndx] is not section:
        raise LookupError("HI20 in another section")
    hi20_types = {
        each.offset: each.type for each in elf.relocations(section) if each.type in _PCREL_HI20
    }
    if hi20_types[label.value] == R_TLS_GOT_HI20 and size:
        return memory.variable(memory.integer(address, memory.pointer_size))
    if hi20_types[label.value] == R_TLS_GD_HI20:
        return memory.indexed_variable(address)
    if hi20_types[label.value] == R_GOT_HI20 and size:
        return memory.load(address)
    return follow(memory, address)


def _local_exec(
    memory: Memory, place: int, relocation: ElfRelocation, elf: ElfFile, section: ElfSection
) -> Meaning:
    """The variable of a TPREL_LO12 at `place`, whose TPREL_HI20 is the last one of its symbol."""
    before = [
        each for each in elf.relocations(section)
        if each.type == R_TPREL_HI20 and each.offset < relocation.offset
        and (each.symbol, each.addend) == (relocation.symbol, relocation.addend)
    ]  # fmt: skip
    if not before:
        raise LookupError("no TPREL_HI20")
    high = memory.integer(place - relocation.offset + before[-1].offset, 4, signed=False)
    code = memory.integer(place, 4, signed=False)
    low = code >> 20 if relocation.type == R_TPREL_LO12_I else code >> 25 << 5 | code >> 7 & 31
    offset = _signed(high & 0xFFFFF000, 32) + _signed(low, 12)
    return memory.variable(offset) - relocation.addend


def _hi20(memory: Memory, place: int) -> int:
    code = memory.integer(place, 4, signed=False)
    value = _signed(code & 0xFFFFF000, 32)
    if code & 0x7F == _AUIPC:
        return place + value
    if code & 0x7F == _LUI:
        return value
    raise LookupError(f"neither auipc nor lui at {place:#x}")


def _jump(code: int) -> int:
    """The distance in a `jal`."""
    value = (code >> 21 & 0x3FF) << 1 | (code >> 20 & 1) << 11 | (code >> 12 & 0xFF) << 12
    return _signed(value | (code >> 31) << 20, 21)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
