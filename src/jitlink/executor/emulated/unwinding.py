"""Finds callers by the unwind information of linked code.

`.eh_frame` sections are read from the machine's memory when a backtrace is needed, and only the
record for one program counter is interpreted.

Quirks: what cannot be understood, such as DWARF expressions, ends the backtrace; nothing is raised.

Specification: DWARF 5, section 6.4; Linux Standard Base, "Exception Frames".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jitlink.errors import ExecutorError
from jitlink.executor.code_map import CodeMap
from jitlink.executor.emulated.processor import Processor
from jitlink.passes.cie import DW_EH_PE_OMIT

_PC_RELATIVE, _INDIRECT = 0x10, 0x80
_FORMATS = {0x02: "H", 0x03: "I", 0x04: "Q", 0x0A: "h", 0x0B: "i", 0x0C: "q"}
_MOST_BITS = 63
"""Bits of a LEB128 number that another byte may follow."""
_SAME, _OFFSET, _REGISTER, _UNDEFINED = range(4)


class _NotUnderstoodError(Exception):
    """Unwind information that is malformed or not supported."""


class _Reader:
    """Reads numbers from a section.

    Args:
        data: its bytes.
        address: its address.
        order: ``<`` or ``>``.
        pointer_size: bytes of a pointer.
        place: where to begin.
    """

    def __init__(
        self, data: bytes, address: int, order: str, pointer_size: int, place: int = 0
    ) -> None:
        self.data, self.address, self.order = data, address, order
        self.pointer_size, self.place = pointer_size, place

    def at(self, place: int) -> _Reader:
        """A reader of the same section that begins elsewhere."""
        return _Reader(self.data, self.address, self.order, self.pointer_size, place)

    def number(self, kind: str) -> int:
        """A number in a format of `struct`."""
        size = struct.calcsize(kind)
        try:
            (value,) = struct.unpack_from(self.order + kind, self.data, self.place)
        except (struct.error, OverflowError) as error:
            raise _NotUnderstoodError(str(error)) from None
        self.place += size
        return int(value)

    def leb(self, *, signed: bool = False) -> int:
        """A LEB128 number."""
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > _MOST_BITS:
                raise _NotUnderstoodError("a number of more than 64 bits")
        return value - (1 << shift) if signed and byte & 0x40 else value

    def text(self) -> bytes:
        """Characters up to a null."""
        end = self.data.find(b"\0", self.place)
        if end < 0:
            raise _NotUnderstoodError("a string does not end")
        found, self.place = self.data[self.place : end], end + 1
        return found

    def pointer(self, encoding: int, *, is_size: bool = False) -> int:
        """A pointer of a DW_EH_PE encoding; or a size, which only its format applies to."""
        place = self.address + self.place
        if encoding & 0xF == 0:
            value = self.number("Q" if self.pointer_size == 8 else "I")
        elif encoding & 0xF in _FORMATS:
            value = self.number(_FORMATS[encoding & 0xF])
        else:
            raise _NotUnderstoodError(f"encoding {encoding:#x}")
        if is_size:
            return value
        if encoding & 0x70 == _PC_RELATIVE:
            value += place
        elif encoding & 0x70:
            raise _NotUnderstoodError(f"encoding {encoding:#x}")
        return value & ((1 << 8 * self.pointer_size) - 1)


class _Cie(NamedTuple):
    """What the records of several functions have in common."""

    code_factor: int
    data_factor: int
    return_register: int
    encoding: int
    has_augmentation: bool
    program: bytes


class _Rules:
    """How the registers of a caller are found: the rows of DWARF's table of unwind rules."""

    def __init__(self) -> None:
        self.cfa_register, self.cfa_offset = -1, 0
        self.registers: dict[int, tuple[int, int]] = {}

    def copy(self) -> _Rules:
        """The same rules, to be changed on their own."""
        other = _Rules()
        other.cfa_register, other.cfa_offset = self.cfa_register, self.cfa_offset
        other.registers = dict(self.registers)
        return other


class Unwinder:
    """Finds callers in an emulated machine.

    Args:
        processor: the processor.
        code: what has been linked into the machine.
    """

    def __init__(self, processor: Processor, code: CodeMap) -> None:
        self._processor, self._code = processor, code

    def caller(self, registers: dict[str, int], *, is_innermost: bool) -> dict[str, int] | None:
        """The registers of a caller, or None if there is no unwind information for the code.

        Args:
            registers: those of the code, by the machine's names.
            is_innermost: whether the program counter is that of an instruction that has not been
                executed; elsewhere it is a return address.

        Raises:
            ExecutorError: memory of the stack cannot be read, or the information is not understood.
        """
        machine = self._processor.machine
        pc = registers[machine.pc] - (0 if is_innermost else 1)
        try:
            found = self._find(self._code.frames_of(pc), pc)
            return None if found is None else self._apply(*found, registers)
        except _NotUnderstoodError as error:
            raise ExecutorError(f"the unwind information for {pc:#x}: {error}") from None

    def _find(self, blocks: Sequence[tuple[int, int]], pc: int) -> tuple[_Cie, _Rules] | None:
        """The record of a function, and its rules at a program counter."""
        if not blocks:
            return None
        machine = self._processor.machine
        order = "<" if machine.byte_order == "little" else ">"
        start = blocks[0][0]
        data = self._processor.read(start, blocks[-1][0] + blocks[-1][1] - start)
        reader = _Reader(data, start, order, machine.pointer_size)
        for place, size in blocks:
            for record, record_end in _records(reader, place - start, place - start + size):
                identity = record.place
                distance = record.number("I")
                if not distance:
                    continue
                cie = _read_cie(reader.at(identity - distance))
                first = record.pointer(cie.encoding)
                count = record.pointer(cie.encoding, is_size=True)
                if first <= pc < first + count:
                    if cie.has_augmentation:
                        # In this order: reading moves the place.
                        skipped = record.leb()
                        record.place += skipped
                    rules = _Rules()
                    self._run(cie, cie.program, rules, first, pc, _Rules(), order)
                    program = data[record.place : record_end]
                    self._run(cie, program, rules, first, pc, rules.copy(), order)
                    return cie, rules
        return None

    def _run(
        self,
        cie: _Cie,
        program: bytes,
        rules: _Rules,
        location: int,
        pc: int,
        initial: _Rules,
        order: str,
    ) -> None:
        """Carry out call frame instructions up to a program counter."""
        reader = _Reader(program, 0, order, self._processor.machine.pointer_size)
        state = _State(reader, cie, rules, initial, [])
        while reader.place < len(program):
            operation = reader.number("B")
            kind, low = operation & 0xC0, operation & 0x3F
            if kind == 0x40 or operation in {0x01, 0x02, 0x03, 0x04}:
                if kind == 0x40:
                    location += low * cie.code_factor
                elif operation == 0x01:
                    location = reader.pointer(cie.encoding)
                else:
                    step = {0x02: "B", 0x03: "H", 0x04: "I"}[operation]
                    location += reader.number(step) * cie.code_factor
                if location > pc:
                    return
            elif kind == 0x80:
                rules.registers[low] = _OFFSET, reader.leb() * cie.data_factor
            elif kind == 0xC0:
                _restore(rules, initial, low)
            else:
                instruction = _INSTRUCTIONS.get(operation)
                if instruction is None:
                    raise _NotUnderstoodError(f"instruction {operation:#x}")
                instruction(state)

    def _apply(self, cie: _Cie, rules: _Rules, registers: dict[str, int]) -> dict[str, int]:
        """The registers of the caller."""
        machine = self._processor.machine
        names, mask = machine.dwarf_registers, (1 << 8 * machine.pointer_size) - 1

        def name_of(number: int) -> str:
            return names[number] if 0 <= number < len(names) else ""

        def value_of(number: int) -> int:
            if not name_of(number):
                raise _NotUnderstoodError(f"register {number}")
            return registers[name_of(number)]

        cfa = (value_of(rules.cfa_register) + rules.cfa_offset) & mask
        found = dict(registers)
        found[machine.stack] = cfa
        for number, (rule, operand) in rules.registers.items():
            name = name_of(number)
            if rule == _OFFSET:
                place = (cfa + operand) & mask
                data = self._processor.read(place, machine.pointer_size)
                value = int.from_bytes(data, machine.byte_order)
            elif rule == _REGISTER:
                value = value_of(operand)
            else:
                continue
            if name:
                found[name] = value
        rule, _ = rules.registers.get(cie.return_register, (_SAME, 0))
        is_outermost = rule == _UNDEFINED
        found[machine.pc] = 0 if is_outermost else found.get(name_of(cie.return_register), 0)
        return found


def _records(reader: _Reader, place: int, end: int) -> Iterator[tuple[_Reader, int]]:
    """The records of a part of a section, without their lengths, and their ends."""
    while place + 4 <= end:
        record = reader.at(place)
        length = record.number("I")
        if not length:
            return
        if length == 0xFFFFFFFF:
            length = record.number("Q")
        place = record.place + length
        yield record, place


def _read_cie(reader: _Reader) -> _Cie:
    length = reader.number("I")
    if length == 0xFFFFFFFF:
        length = reader.number("Q")
    end = reader.place + length
    reader.number("I")
    version = reader.number("B")
    augmentation = reader.text()
    if version == 4:
        reader.number("H")
    code_factor, data_factor = reader.leb(), reader.leb(signed=True)
    return_register = reader.number("B") if version == 1 else reader.leb()
    encoding = 0
    if augmentation.startswith(b"z"):
        size = reader.leb()
        behind = reader.place + size
        encoding = _read_encoding(augmentation[1:], reader)
        reader.place = behind
    elif augmentation:
        raise _NotUnderstoodError(f"augmentation {augmentation!r}")
    return _Cie(
        code_factor,
        data_factor,
        return_register,
        encoding,
        augmentation.startswith(b"z"),
        reader.data[reader.place : end],
    )


def _read_encoding(letters: bytes, reader: _Reader) -> int:
    """The encoding of addresses, from the data of an augmentation."""
    encoding = 0
    for letter in letters:
        if letter == ord("R"):
            encoding = reader.number("B")
        elif letter == ord("L"):
            reader.number("B")
        elif letter == ord("P"):
            personality = reader.number("B")
            if personality != DW_EH_PE_OMIT:
                reader.pointer(personality & ~_INDIRECT, is_size=True)
    return encoding


def _restore(rules: _Rules, initial: _Rules, register: int) -> None:
    if register in initial.registers:
        rules.registers[register] = initial.registers[register]
    else:
        rules.registers.pop(register, None)


class _State(NamedTuple):
    """What call frame instructions work on."""

    reader: _Reader
    cie: _Cie
    rules: _Rules
    initial: _Rules
    saved: list[_Rules]

    def set_rule(self, rule: int, operand: int = 0) -> None:
        """Set the rule of the register whose number follows."""
        self.rules.registers[self.reader.leb()] = rule, operand

    def set_offset(self, *, signed: bool) -> None:
        """Set the rule of a register that is saved at an offset from the CFA."""
        register = self.reader.leb()
        self.rules.registers[register] = (
            _OFFSET,
            self.reader.leb(signed=signed) * self.cie.data_factor,
        )

    def set_cfa(self, *, signed: bool) -> None:
        """Set the register and the offset of the CFA."""
        self.rules.cfa_register = self.reader.leb()
        self.set_cfa_offset(signed=signed)

    def set_cfa_register(self) -> None:
        """Set the register of the CFA."""
        self.rules.cfa_register = self.reader.leb()

    def set_cfa_offset(self, *, signed: bool) -> None:
        """Set the offset of the CFA, which has a factor if it is signed."""
        factor = self.cie.data_factor if signed else 1
        self.rules.cfa_offset = self.reader.leb(signed=signed) * factor

    def set_register(self) -> None:
        """Set the rule of a register that another one holds."""
        register = self.reader.leb()
        self.rules.registers[register] = _REGISTER, self.reader.leb()

    def remember(self) -> None:
        """Save all rules."""
        self.saved.append(self.rules.copy())

    def restore_all(self) -> None:
        """Restore the rules that were saved last."""
        if not self.saved:
            raise _NotUnderstoodError("a state is restored that was not saved")
        before, rules = self.saved.pop(), self.rules
        rules.cfa_register, rules.cfa_offset = before.cfa_register, before.cfa_offset
        rules.registers = before.registers


def _nothing(_state: _State) -> None:
    """DW_CFA_nop; also DW_CFA_AARCH64_negate_ra_state, because nothing is signed here."""


_INSTRUCTIONS: Mapping[int, Callable[[_State], object]] = {
    0x00: _nothing,
    0x05: lambda state: state.set_offset(signed=False),
    0x06: lambda state: _restore(state.rules, state.initial, state.reader.leb()),
    0x07: lambda state: state.set_rule(_UNDEFINED),
    0x08: lambda state: state.set_rule(_SAME),
    0x09: _State.set_register,
    0x0A: _State.remember,
    0x0B: _State.restore_all,
    0x0C: lambda state: state.set_cfa(signed=False),
    0x0D: _State.set_cfa_register,
    0x0E: lambda state: state.set_cfa_offset(signed=False),
    0x11: lambda state: state.set_offset(signed=True),
    0x12: lambda state: state.set_cfa(signed=True),
    0x13: lambda state: state.set_cfa_offset(signed=True),
    0x2D: _nothing,
    0x2E: lambda state: state.reader.leb(),  # DW_CFA_GNU_args_size
}
"""Call frame instructions that are not of the location, in DWARF's order."""
