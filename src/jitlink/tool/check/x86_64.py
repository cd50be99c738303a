"""x86-64: from Capstone's operands to those of LLVM's MCInst.

A memory operand is five operands: base, scale, index, displacement, segment. A register that is
modified is two. The operand of a branch is its displacement. The last operand of conditional jumps,
moves and ``set`` is the number of their condition.

Quirks: the short forms with the accumulator have only an immediate operand; a shift by one has
none. An immediate operand is signed if it is a byte, or shorter than the other operand. A lock
prefix is an instruction of its own.

Specification: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2; the order
of operands is that of LLVM's X86Instr*.td.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jitlink.tool.check.decode import Instruction, Operands

_REGISTER, _IMMEDIATE, _MEMORY = 1, 2, 3
"""Capstone's kinds of operands."""

_CONDITIONS = {
    name: number
    for number, names in enumerate(
        ("o", "no", "b c nae", "ae nb nc", "e z", "ne nz", "be na", "a nbe",
         "s", "ns", "p pe", "np po", "l nge", "ge nl", "le ng", "g nle")
    )
    for name in names.split()
}  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MODIFYING = _words(
    "add or adc sbb and sub xor inc dec neg not rol ror rcl rcr shl sal shr sar imul bts btr btc "
    "addss addsd addps addpd subss subsd subps subpd mulss mulsd mulps mulpd divss divsd divps "
    "divpd minss minsd maxss maxsd andps andpd andnps andnpd orps orpd xorps xorpd pand pandn por "
    "pxor paddb paddw paddd paddq psubb psubw psubd psubq pcmpeqb pcmpeqw pcmpeqd punpcklbw "
    "punpckldq punpcklqdq unpcklps unpcklpd shufps shufpd bswap shld shrd movhlps movlhps "
    "cvtsi2ss cvtsi2sd"
)
"""Instructions whose first operand, if it is a register, is read and written."""

_PLAIN = _words(
    "mov movabs lea cmp test push pop call jmp ret movzx movsx movsxd movss movsd movaps movups "
    "movapd movupd movdqa movdqu movd movq cvttss2si cvttsd2si ucomiss ucomisd comiss comisd "
    "pshufd mul div idiv bt nop"
)
"""Instructions whose operands in LLVM are those of the assembly text."""

_WITHOUT_OPERANDS = _words("ret leave cdq cqo cdqe cwde ud2 int3 syscall endbr64 hlt")

_MODIFYING_MOVES = frozenset({"movss", "movsd"})
"""Moves that keep a part of the destination register if the source is a register."""

_UNSIGNED_BYTES = _words(
    "rol ror rcl rcr shl sal shr sar bt bts btr btc shld shrd pshufd shufps shufpd"
)
"""Instructions whose immediate byte is unsigned."""

_ON_ACCUMULATOR = frozenset(
    [opcode | low for opcode in range(0, 0x40, 8) for low in (4, 5)] + [0xA8, 0xA9]
)
_MOVES_AT_OFFSET = frozenset(range(0xA0, 0xA4))
_SHIFTS_WITHOUT_COUNT = frozenset(range(0xD0, 0xD4))
_LOCK = "lock "
_PREFIXES = ("notrack ", "bnd ")


def mc_instruction(instruction: Any) -> Instruction:  # noqa: ANN401 - untyped
    """Convert an instruction of Capstone's to LLVM's operands."""
    name, size = str(instruction.mnemonic), int(instruction.size)
    if name.startswith(_LOCK):
        return Instruction(1, _LOCK.strip(), ())
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    text = f"{instruction.mnemonic} {instruction.op_str}".strip()
    return Instruction(size, text, _operands(instruction, name))


def _operands(instruction: Any, name: str) -> Operands | None:  # noqa: ANN401
    """The operands of an instruction, or None if they are unknown."""
    stem, condition = _condition(name)
    if stem in {"j", "set"}:
        return (*_explicit(instruction, name), condition)
    if stem == "cmov":
        return (None, *_explicit(instruction, name), condition)
    if name in _WITHOUT_OPERANDS and not instruction.operands:
        return ()
    if name not in _MODIFYING and name not in _PLAIN:
        return None
    return tuple(_implied(instruction, name)) + tuple(_explicit(instruction, name))


def _condition(name: str) -> tuple[str, int | None]:
    """The stem of a conditional instruction's name, and the number of the condition."""
    for stem in ("j", "set", "cmov"):
        if name.startswith(stem) and name[len(stem) :] in _CONDITIONS:
            return stem, _CONDITIONS[name[len(stem) :]]
    return name, None


def _implied(instruction: Any, name: str) -> Iterator[None]:  # noqa: ANN401
    """The tied operand of a modified register."""
    operands = instruction.operands
    if _opcode(instruction) in _ON_ACCUMULATOR or not operands:
        return
    to_register = operands[0].type == _REGISTER
    if name == "imul":
        # With one operand the product is in other registers; with three the first is only written.
        modifies = len(operands) == 2
    elif name in _MODIFYING_MOVES:
        modifies = len(operands) == 2 and operands[1].type == _REGISTER
    else:
        modifies = name in _MODIFYING
    if to_register and modifies:
        yield None


def _opcode(instruction: Any) -> int | None:  # noqa: ANN401
    """The opcode of an instruction with a one-byte opcode, or None."""
    opcode = instruction.opcode
    return None if any(opcode[1:]) or opcode[0] in {0x0F, 0} else int(opcode[0])


def _explicit(instruction: Any, name: str) -> Iterator[int | None]:  # noqa: ANN401
    opcode = _opcode(instruction)
    for number, operand in enumerate(instruction.operands):
        if operand.type == _MEMORY and opcode in _MOVES_AT_OFFSET:
            yield from (operand.mem.disp, None)
        elif operand.type == _MEMORY:
            yield from (None, operand.mem.scale, None, operand.mem.disp, None)
        elif operand.type == _IMMEDIATE:
            if opcode not in _SHIFTS_WITHOUT_COUNT:
                yield _immediate(instruction, name)
        elif not _is_implicit(opcode, number):
            yield None


def _is_implicit(opcode: int | None, number: int) -> bool:
    """Whether a register of the assembly text is not encoded."""
    if opcode in _SHIFTS_WITHOUT_COUNT:
        return number == 1
    return opcode in _ON_ACCUMULATOR or opcode in _MOVES_AT_OFFSET


def _immediate(instruction: Any, name: str) -> int:  # noqa: ANN401
    """The immediate operand as it is encoded."""
    start, size = instruction.imm_offset, instruction.imm_size
    first = instruction.operands[0]
    if size == 1:
        signed = name not in _UNSIGNED_BYTES
    else:
        signed = first.type == _IMMEDIATE or first.size != size
    return int.from_bytes(instruction.bytes[start : start + size], "little", signed=signed)
