r"""x86-64: instructions whose operand is out of reach are executed elsewhere.

Code refers to a variable, or holds its address, in 32 bits. If the variable is farther away, the
instruction is replaced by a jump to code that does the same with the address from a pointer, and
jumps back::

    mov environ(%rip), %rax     jmp 1f; nop; nop
    2: ...                      2: ...
                                1: lea -128(%rsp), %rsp; push %rbx
                                   mov pointer(%rip), %rbx
                                   mov (%rbx), %rax
                                   pop %rbx; lea 128(%rsp), %rsp
                                   jmp 2b

The red zone stays as it is, and no flag changes. A signal handler that unwinds finds no frame for
the code.

What is not certain to be the same is not rewritten: the whole function is decoded, and instructions
that use the stack pointer, have two fields that relocations change or are entered elsewhere than at
their beginning, as behind a LOCK prefix, stay as they are.

Specification: System V psABI, AMD64 supplement, chapter 3.2.2, "The Stack Frame" (red zone).
"""

from __future__ import annotations

import numpy as np

from jitlink.arch.direct_access import OutOfLine
from jitlink.arch.x86_64 import BRANCHES, FIXUPS
from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.arch.x86_64_instructions import Instruction, instruction_with_field
from jitlink.fixup_errors import enclosing_symbol
from jitlink.graph import Block, LinkGraph, MemLifetime, MemProt
from jitlink.graph.columns import rows_where
from jitlink.graph.edges import FIRST_RELOCATION
from jitlink.graph.tables import DEFINED, REMOVED

_RBX, _RSP, _RBP, _RSI, _RDI = 3, 4, 5, 6, 7
_SCRATCH = (_RBX, _RSI, _RDI)
"""Registers that need no REX prefix, and no displacement as a base."""
_REX, _REX_W, _REX_R, _REX_X, _REX_B = 0x40, 8, 4, 2, 1
_SHORTEST = 5
_SKIP_RED_ZONE, _RESTORE = b"\x48\x8d\x64\x24\x80", b"\x48\x8d\xa4\x24\x80\0\0\0"
_PUSH, _POP, _LOAD, _LEA, _STORE, _JUMP = 0x50, 0x58, 0x8B, 0x8D, 0x89, b"\xe9\0\0\0\0"
_MOV_IMMEDIATE, _GROUP1, _TEST_GROUP, _TEST_RAX, _TEST = 0xC7, 0x81, 0xF7, 0xA9, 0x85
_GROUP5, _POP_MEMORY, _CMPXCHG16B, _SYSTEM = 0xFF, 0x8F, 0xC7, 0x01
_ADDRESSES = frozenset({K.POINTER32, K.POINTER32_SIGNED, K.POINTER32_EITHER})
_IS_ENTRY = np.zeros(len(K), np.bool_)
"""Whether an edge kind may hold the address of code, or the distance to it (bool, one per kind)."""
_IS_ENTRY[[*BRANCHES, *_ADDRESSES, K.POINTER64, K.DELTA32, K.PCREL32]] = True


def out_of_line(graph: LinkGraph, row: int) -> OutOfLine | None:
    """The code for the instruction of an edge; see `DirectAccess.out_of_line`."""
    edges = graph.edge_table
    block, offset = Block(graph, int(edges.block[row])), int(edges.offset[row])
    function = enclosing_symbol(block, offset)
    if function is None or block.is_zero_fill:
        return None
    start = int(graph.symbol_table.value[function.row])
    end = start + int(function.size)
    code = bytes(block.content[start : end if end > offset else block.size])
    found = instruction_with_field(code, offset - start)
    if found is None or found.end - found.start < _SHORTEST or not found.is_legacy:
        return None
    first, last = start + found.start, start + found.end
    here = (edges.block == block.row) & (edges.kind >= FIRST_RELOCATION) & (edges.offset < last)
    here &= edges.offset + FIXUPS.widths[edges.kind] > first
    if np.count_nonzero(here) != 1 or _is_entered_within(graph, block, first, last):
        return None
    is_absolute = int(edges.kind[row]) in _ADDRESSES
    addend = int(edges.addend[row])
    if found.displacement == offset - start:
        is_relative = code[found.modrm] & 0xC7 == _RBP
        if is_relative == is_absolute:
            return None
        if is_relative:
            addend += found.end - found.displacement
            addend -= 4 if int(edges.kind[row]) == K.PCREL32 else 0
        body = _with_memory_operand(code, found)
    else:
        body = _with_immediate(code, found) if is_absolute else None
    if body is None:
        return None
    content, pointer = body
    content += _JUMP
    return OutOfLine(first, last, addend, content, pointer, len(content) - 4)


def _is_entered_within(graph: LinkGraph, block: Block, start: int, end: int) -> bool:
    """Whether a symbol or an edge leads into an instruction, behind its beginning."""
    table, edges = graph.symbol_table, graph.edge_table
    # A symbol that has been removed, because no edge refers to it, says where code is entered, too.
    is_defined = (table.kind == DEFINED) | (table.kind == REMOVED)
    value = table.value.view(np.int64)
    if (is_defined & (table.block == block.row) & (value > start) & (value < end)).any():
        return True
    rows = rows_where(_IS_ENTRY[edges.kind] & (table.block[edges.target] == block.row))
    at = value[edges.target[rows]] + edges.addend[rows]
    # The distance in a branch counts from the end of its field, that in data from anywhere.
    sections = graph.block_table.section[edges.block[rows]]
    is_code = (graph.section_list.prots()[sections] & int(MemProt.EXEC)) != 0
    is_distance = edges.kind[rows] == int(K.DELTA32)
    at[is_distance] += 4
    is_loaded = graph.section_lifetimes()[sections] != MemLifetime.NO_ALLOC
    return bool((is_loaded & (is_code | ~is_distance) & (at > start) & (at < end)).any())


def _with_scratch(scratch: int, parts: bytes) -> tuple[bytes, int]:
    """Code that has the address in a scratch register, and the offset of the pointer's distance."""
    load = bytes((_REX | _REX_W, _LOAD, scratch << 3 | _RBP))
    before = _SKIP_RED_ZONE + bytes((_PUSH + scratch,)) + load
    after = bytes((_POP + scratch,)) + _RESTORE
    return before + bytes(4) + parts + after, len(before)


def _with_memory_operand(code: bytes, found: Instruction) -> tuple[bytes, int] | None:
    """Code of an instruction whose memory operand has the address as displacement."""
    modrm, opcode, rex = code[found.modrm], code[found.opcode], found.rex
    mode, operand = modrm >> 6, modrm >> 3 & 7
    base, index, scale = modrm & 7, None, 0
    if base == _RSP:
        sib = code[found.modrm + 1]
        base, scale = sib & 7, sib >> 6
        index = sib >> 3 & 7 | (8 if rex & _REX_X else 0)
        index = None if index == _RSP else index
    has_base = mode == 2
    full_base = base | (8 if rex & _REX_B else 0)
    if (
        found.has_address_size_prefix
        or (has_base and full_base == _RSP)
        or _uses_stack(found, opcode, operand)
        or (_operand_is_register(found, opcode) and operand == _RSP and not rex & _REX_R)
    ):
        return None
    used = {index} | ({full_base} if has_base else set())
    if not rex & _REX_R:
        # Without any REX prefix, a byte register of these numbers is part of another one.
        used |= {operand} if rex else {operand, operand & 3}
    scratch = next((each for each in _SCRATCH if each not in used), None)
    if scratch is None:
        return None
    add_base = b""
    if has_base:
        prefix = _REX | _REX_W | (_REX_X if full_base >= 8 else 0)
        add_base = bytes((prefix, _LEA, scratch << 3 | _RSP, base << 3 | scratch))
    moved = bytearray(code[found.start : found.modrm])
    if rex:
        moved[found.rex_position - found.start] &= ~_REX_B
    if index is None:
        moved.append(operand << 3 | scratch)
    else:
        moved += bytes((operand << 3 | _RSP, scale << 6 | (index & 7) << 3 | scratch))
    moved += code[found.immediate : found.end]
    return _with_scratch(scratch, add_base + bytes(moved))


def _uses_stack(found: Instruction, opcode: int, operand: int) -> bool:
    """Whether an instruction uses the stack, the scratch register or more than its operand."""
    if found.map == 0:
        return opcode == _POP_MEMORY or (opcode == _GROUP5 and operand >= 2)
    return found.map == 1 and opcode in {_CMPXCHG16B, _SYSTEM}


def _operand_is_register(found: Instruction, opcode: int) -> bool:
    """Whether the reg field of ModRM may be a general purpose register."""
    if found.map == 0:
        groups = (0x80, 0x81, 0x83, 0xC0, 0xC1, 0xC6, 0xC7, 0xF6, 0xF7, 0xFE, 0xFF)
        return opcode not in groups and not 0xD0 <= opcode <= 0xDF
    is_vector = opcode < 0x30 or 0x50 <= opcode < 0x80 or opcode >= 0xD0
    return found.map > 1 or not is_vector or opcode in {0x2C, 0x2D}


def _with_immediate(code: bytes, found: Instruction) -> tuple[bytes, int] | None:
    """Code of an instruction that has the address as immediate operand."""
    opcode, rex = code[found.opcode], found.rex
    if found.map or found.has_legacy_prefix:
        return None
    if 0xB8 <= opcode <= 0xBF and not rex & _REX_W:
        return _load_address(opcode & 7, rex)
    operand = bytearray(code[found.modrm : found.immediate] if found.modrm >= 0 else b"\xc0")
    if opcode == _MOV_IMMEDIATE and operand[0] >= 0xC0 and rex & _REX_W:
        return _load_address(operand[0] & 7, rex)
    if opcode & 0xC7 == 5 or opcode == _TEST_RAX:
        # The operand is %rax whatever the prefix says.
        replacement, rex = opcode & 0x38 | 1, rex & ~_REX_B
    elif opcode == _GROUP1:
        replacement = operand[0] & 0x38 | 1
    elif opcode in {_MOV_IMMEDIATE, _TEST_GROUP}:
        replacement = _STORE
    else:
        return None
    if opcode in {_TEST_RAX, _TEST_GROUP}:
        replacement = _TEST
    scratch = _scratch_beside(operand, rex)
    if scratch is None or not rex & _REX_W:
        return None
    operand[0] = operand[0] & 0xC7 | scratch << 3
    return _with_scratch(scratch, bytes((rex & ~_REX_R, replacement)) + bytes(operand))


def _load_address(register: int, rex: int) -> tuple[bytes, int]:
    """Code that loads the address into a register."""
    prefix = _REX | _REX_W | (_REX_R if rex & _REX_B else 0)
    return bytes((prefix, _LOAD, register << 3 | _RBP)) + bytes(4), 3


def _scratch_beside(operand: bytes | bytearray, rex: int) -> int | None:
    """A register that a register or memory operand does not use; None if it uses the stack."""
    mode, base = operand[0] >> 6, operand[0] & 7
    used = {base}
    if mode != 3 and base == _RSP:
        base = operand[1] & 7
        used = {base, operand[1] >> 3 & 7}
    is_relative = operand[0] & 0xC7 == _RBP
    if (base == _RSP and not rex & _REX_B) or is_relative:
        return None
    return next(each for each in _SCRATCH if each not in used)
