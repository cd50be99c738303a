"""x86-64: edge kinds, their fixups, GOT entries, stubs and relaxation.

Instructions address data by a signed 32-bit displacement from the *end* of the displacement field,
so the kinds named PCRel and Branch subtract 4 where relocations in objects have an addend of -4.
The small code model holds addresses in 32 bits or reaches them within 2 GiB of the program counter,
the large one holds them in 64 bits. Code compiled without -fPIC or -fPIE holds absolute addresses
in 32-bit fields; `graph.address_limit` makes the memory manager allocate within their range.

A pointer jump stub is ``jmp *pointer(%rip)``, six bytes. Loads of a GOT entry, calls and jumps
through one, and calls to stubs are relaxed to refer to their target directly if it is in range.

Edge kinds keep LLVM's names (JITLink/x86_64.h). Specification: System V psABI, AMD64
supplement, chapter 4.4 and appendix B.2 (linker optimisation).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jitlink.arch.reentry import Jump
from jitlink.fixups import Advice, Check, Fixup, FixupTable, in_range, resolved
from jitlink.graph import LinkGraph
from jitlink.graph.columns import BoolArray, Int64Array, UInt8Array, rows_where
from jitlink.graph.edges import INVALID, KEEP_ALIVE, EdgeKind
from jitlink.memory.tls_module import TLSValue
from jitlink.passes.got_plt import BypassTargets, GotPltSpec, bypass_stubs
from jitlink.passes.init_fini import CrtiCrtn
from jitlink.passes.tls import TLSGOTEntry


class X86_64EdgeKind(EdgeKind):  # noqa: N801 - the architecture's name
    """Edge kinds of x86-64; `FIXUPS` has their fixups."""

    INVALID = INVALID, "INVALID RELOCATION"
    KEEP_ALIVE = KEEP_ALIVE, "Keep-Alive"
    POINTER64 = 2, "Pointer64"
    POINTER32 = 3, "Pointer32"
    POINTER32_SIGNED = 4, "Pointer32Signed"
    POINTER16 = 5, "Pointer16"
    POINTER8 = 6, "Pointer8"
    DELTA64 = 7, "Delta64"
    DELTA32 = 8, "Delta32"
    DELTA16 = 9, "Delta16"
    DELTA8 = 10, "Delta8"
    NEG_DELTA64 = 11, "NegDelta64"
    NEG_DELTA32 = 12, "NegDelta32"
    SIZE64 = 13, "Size64"
    SIZE32 = 14, "Size32"
    DELTA64_FROM_GOT = 15, "Delta64FromGOT"
    BRANCH_PCREL32 = 16, "BranchPCRel32"
    PCREL32 = 17, "PCRel32"
    BRANCH_PCREL32_TO_PTR_JUMP_STUB = 18, "BranchPCRel32ToPtrJumpStub"
    BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE = 19, "BranchPCRel32ToPtrJumpStubBypassable"
    REQUEST_GOT_AND_TRANSFORM_TO_DELTA32 = 20, "RequestGOTAndTransformToDelta32"
    REQUEST_GOT_AND_TRANSFORM_TO_DELTA64 = 21, "RequestGOTAndTransformToDelta64"
    REQUEST_GOT_AND_TRANSFORM_TO_DELTA64_FROM_GOT = (
        22, "RequestGOTAndTransformToDelta64FromGOT")  # fmt: skip
    PCREL32_GOT_LOAD_RELAXABLE = 23, "PCRel32GOTLoadRelaxable"
    PCREL32_GOT_LOAD_REX_RELAXABLE = 24, "PCRel32GOTLoadREXRelaxable"
    REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE = (
        25, "RequestGOTAndTransformToPCRel32GOTLoadREXRelaxable")  # fmt: skip
    REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_RELAXABLE = (
        26, "RequestGOTAndTransformToPCRel32GOTLoadRelaxable")  # fmt: skip
    # LLVM differs: it has none of the kinds below, whose relocations it refuses.
    POINTER32_EITHER = 27, "Pointer32Either"
    DELTA32_FROM_GOT = 28, "Delta32FromGOT"
    DELTA64_TO_GOT = 29, "Delta64ToGOT"
    DELTA32_TO_GOT = 30, "Delta32ToGOT"
    REQUEST_GOT_AND_TRANSFORM_TO_DELTA32_FROM_GOT = (
        31, "RequestGOTAndTransformToDelta32FromGOT")  # fmt: skip
    REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT = (
        32, "RequestStubAndTransformToDelta64FromGOT")  # fmt: skip
    PCREL32_GOT_LOAD_REX2_RELAXABLE = 33, "PCRel32GOTLoadREX2Relaxable"
    REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX2_RELAXABLE = (
        34, "RequestGOTAndTransformToPCRel32GOTLoadREX2Relaxable")  # fmt: skip
    # TLS. LLVM has only the first, which is for TLSGD and not for TLS descriptors.
    REQUEST_TLS_DESC_IN_GOT_AND_TRANSFORM_TO_DELTA32 = (
        35, "RequestTLSDescInGOTAndTransformToDelta32")  # fmt: skip
    REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_DELTA32 = (
        36, "RequestDTPMODInGOTAndTransformToDelta32")  # fmt: skip
    REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_DELTA32 = (
        37, "RequestTPOFFInGOTAndTransformToDelta32")  # fmt: skip
    REQUEST_TLS_DESCRIPTOR_IN_GOT_AND_TRANSFORM_TO_DELTA32 = (
        38, "RequestTLSDescriptorInGOTAndTransformToDelta32")  # fmt: skip
    TPOFF64 = 39, "TPOFF64"
    TPOFF32 = 40, "TPOFF32"
    DTPOFF64 = 41, "DTPOFF64"
    DTPOFF32 = 42, "DTPOFF32"
    DTPMOD64 = 43, "DTPMOD64"


K = X86_64EdgeKind
_PCREL = "S + A - P - 4"
_ABSOLUTE_CODE = Advice(
    "compile with -fPIC, or with -mcmodel=large for code that must be position-dependent"
)
_THROUGH_GOT = Advice("compile with -fPIC", outside_only=True)
_LARGE_CODE = Advice("compile with -mcmodel=large")

FIXUPS = FixupTable(
    [
        Fixup(K.POINTER64, "S + A", 8, summary="pointer"),
        Fixup(
            K.POINTER32, "S + A", 4, Check.UNSIGNED,
            summary="pointer, zero-extended", advice=_ABSOLUTE_CODE,
        ),
        Fixup(
            K.POINTER32_SIGNED, "S + A", 4, Check.SIGNED,
            summary="pointer, sign-extended", advice=_ABSOLUTE_CODE,
        ),
        Fixup(K.POINTER32_EITHER, "S + A", 4, Check.EITHER, summary="pointer, not extended"),
        Fixup(K.POINTER16, "S + A", 2, Check.EITHER, summary="pointer of real-mode code"),
        Fixup(K.POINTER8, "S + A", 1, Check.EITHER, summary="address in a byte"),
        Fixup(K.DELTA64, "S + A - P", 8, summary="distance from the place"),
        Fixup(
            K.DELTA32, "S + A - P", 4, Check.SIGNED,
            summary="distance from the place", advice=_THROUGH_GOT,
        ),
        Fixup(K.DELTA16, "S + A - P", 2, Check.SIGNED, summary="distance from the place"),
        Fixup(K.DELTA8, "S + A - P", 1, Check.SIGNED, summary="distance from the place"),
        Fixup(K.NEG_DELTA64, "P - S + A", 8, summary="distance back to the target"),
        Fixup(K.NEG_DELTA32, "P - S + A", 4, Check.SIGNED, summary="distance back to the target"),
        Fixup(K.SIZE64, "Z + A", 8, summary="size of the target"),
        Fixup(K.SIZE32, "Z + A", 4, Check.UNSIGNED, summary="size of the target"),
        Fixup(K.DELTA64_FROM_GOT, "S + A - GOT", 8, summary="distance from the GOT"),
        Fixup(K.DELTA32_FROM_GOT, "S + A - GOT", 4, Check.SIGNED, summary="distance from the GOT"),
        Fixup(K.DELTA64_TO_GOT, "GOT + A - P", 8, summary="distance to the GOT"),
        Fixup(K.DELTA32_TO_GOT, "GOT + A - P", 4, Check.SIGNED, summary="distance to the GOT"),
        Fixup(
            K.PCREL32, _PCREL, 4, Check.SIGNED,
            summary="operand relative to %rip", advice=_THROUGH_GOT,
        ),
        Fixup(
            K.BRANCH_PCREL32, _PCREL, 4, Check.SIGNED,
            summary="call or jump", advice=_LARGE_CODE,
        ),
        Fixup(
            K.BRANCH_PCREL32_TO_PTR_JUMP_STUB, _PCREL, 4, Check.SIGNED,
            summary="call or jump to a stub",
        ),
        Fixup(
            K.BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE, _PCREL, 4, Check.SIGNED,
            summary="call or jump to a stub that may be bypassed",
        ),
        Fixup(
            K.PCREL32_GOT_LOAD_RELAXABLE, _PCREL, 4, Check.SIGNED,
            summary="GOT load, call or jump without REX prefix that may be relaxed",
        ),
        Fixup(
            K.PCREL32_GOT_LOAD_REX_RELAXABLE, _PCREL, 4, Check.SIGNED,
            summary="GOT load with REX prefix that may be relaxed",
        ),
        Fixup(
            K.PCREL32_GOT_LOAD_REX2_RELAXABLE, _PCREL, 4, Check.SIGNED,
            summary="GOT load with REX2 prefix that may be relaxed",
        ),
        Fixup(K.TPOFF64, "S + A - TP", 8, summary="offset from the thread pointer"),
        Fixup(K.TPOFF32, "S + A - TP", 4, Check.SIGNED, summary="offset from the thread pointer"),
        Fixup(K.DTPOFF64, "S + A - DTP", 8, summary="offset in the TLS block"),
        Fixup(K.DTPOFF32, "S + A - DTP", 4, Check.SIGNED, summary="offset in the TLS block"),
        Fixup(K.DTPMOD64, "MODULE + A", 8, summary="module ID of the graph's TLS module"),
        *(
            Fixup(
                kind, "", width,
                summary="request for a GOT entry or stub; transformed to the kind it names",
            )
            for kind, width in (
                (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32, 4),
                (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64, 8),
                (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64_FROM_GOT, 8),
                (K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32_FROM_GOT, 4),
                (K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_RELAXABLE, 4),
                (K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE, 4),
                (K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX2_RELAXABLE, 4),
                (K.REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT, 8),
                (K.REQUEST_TLS_DESC_IN_GOT_AND_TRANSFORM_TO_DELTA32, 4),
                (K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_DELTA32, 4),
                (K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_DELTA32, 4),
                (K.REQUEST_TLS_DESCRIPTOR_IN_GOT_AND_TRANSFORM_TO_DELTA32, 4),
            )
        ),
    ],
)  # fmt: skip

GOT_PLT = GotPltSpec(
    got_requests={
        K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32: K.DELTA32,
        K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64: K.DELTA64,
        K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64_FROM_GOT: K.DELTA64_FROM_GOT,
        K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32_FROM_GOT: K.DELTA32_FROM_GOT,
        K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_RELAXABLE: K.PCREL32_GOT_LOAD_RELAXABLE,
        K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE: (
            K.PCREL32_GOT_LOAD_REX_RELAXABLE
        ),
        K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX2_RELAXABLE: (
            K.PCREL32_GOT_LOAD_REX2_RELAXABLE
        ),
    },
    stub_requests={
        K.REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT: K.DELTA64_FROM_GOT,
        K.BRANCH_PCREL32: K.BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE,
    },
    # A call needs a stub only if its target is outside the graph; a PLT offset always needs one.
    external_only=frozenset({K.BRANCH_PCREL32}),
    got_users=frozenset(
        {K.DELTA64_FROM_GOT, K.DELTA32_FROM_GOT, K.DELTA64_TO_GOT, K.DELTA32_TO_GOT}
    ),
    pointer=K.POINTER64,
    pointer_size=8,
    stub=b"\xff\x25\0\0\0\0",
    stub_edges=((K.PCREL32, 2, 0),),
    stub_alignment=1,
)

_V = TLSValue
TLS_GOT_REQUESTS: dict[EdgeKind, TLSGOTEntry] = {
    K.REQUEST_TLS_DESC_IN_GOT_AND_TRANSFORM_TO_DELTA32: TLSGOTEntry(
        (_V.DTPMOD, _V.DTPOFF), K.DELTA32
    ),
    K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_DELTA32: TLSGOTEntry(
        (_V.DTPMOD, _V.DTPOFF), K.DELTA32, per_module=True
    ),
    K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_DELTA32: TLSGOTEntry((_V.TPOFF,), K.DELTA32),
    K.REQUEST_TLS_DESCRIPTOR_IN_GOT_AND_TRANSFORM_TO_DELTA32: TLSGOTEntry((_V.TLSDESC,), K.DELTA32),
}
"""GOT entries of the TLS models: the argument of `__tls_get_addr` in general and local dynamic, an
offset from the thread pointer in initial exec, and TLS descriptors."""

APPLY_IRELATIVE = bytes.fromhex(
    "53 41 54 41 55"  # push %rbx; push %r12; push %r13
    "48 89 fb 4c 8d 24 37"  # mov %rdi, %rbx; lea (%rdi,%rsi), %r12
    "4c 39 e3 73 0f"  # 1: cmp %r12, %rbx; jae 2f
    "ff 13"  # call *(%rbx)
    "48 8b 4b 08 48 89 01"  # mov 8(%rbx), %rcx; mov %rax, (%rcx)
    "48 83 c3 10 eb ec"  # add $16, %rbx; jmp 1b
    "31 c0 ba 01 00 00 00"  # 2: xor %eax, %eax; mov $1, %edx
    "41 5d 41 5c 5b c3"  # pop %r13; pop %r12; pop %rbx; ret
)
"""Calls the resolver in each 16-byte pair of its arguments and stores the result through the
second pointer of the pair; returns the one zero byte of SPS success, in %rax and %rdx."""

# nop (12 times); sub rsp, 8 | add rsp, 8; ret
CRTI_CRTN = CrtiCrtn(b"\x90" * 12 + b"\x48\x83\xec\x08", b"\x48\x83\xc4\x08\xc3", K.POINTER64)

# jmp rel32
JUMP = Jump(b"\xe9\0\0\0\0", ((K.BRANCH_PCREL32, 1, 0),))

BRANCHES = frozenset(
    {
        K.BRANCH_PCREL32,
        K.BRANCH_PCREL32_TO_PTR_JUMP_STUB,
        K.BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE,
    }
)
"""The edge kinds of direct calls and jumps."""

ABSOLUTE_KINDS = frozenset((K.POINTER32, K.POINTER32_SIGNED, K.POINTER32_EITHER))
"""The edge kinds that hold an absolute address in 32 bits."""
IS_ABSOLUTE = np.zeros(len(X86_64EdgeKind), np.bool_)
"""Whether an edge kind holds an absolute address in 32 bits (bool, one per kind)."""
IS_ABSOLUTE[list(ABSOLUTE_KINDS)] = True


# Relaxation. All functions below process many edges at once: `code` is the working memory of their
# blocks, `at` the index in it of each edge's 32-bit field.

_MOV, _TEST, _LEA, _MOV_IMM, _GROUP1_IMM, _TEST_IMM = 0x8B, 0x85, 0x8D, 0xC7, 0x81, 0xF7
_GROUP5, _CALL_MODRM, _JMP_MODRM, _CALL, _JMP, _ADDR32, _NOP = (
    0xFF, 0x15, 0x25, 0xE8, 0xE9, 0x67, 0x90)  # fmt: skip
_RIP_MASK, _RIP_RELATIVE = 0xC7, 0x05
_REX, _REX_MASK, _REX_W, _REX_REGISTERS, _REX2 = 0x40, 0xF0, 0x08, 0x05, 0xD5
_LONGEST_INSTRUCTION = 15

_LEGACY, _OPERAND_SIZE, _ADDRESS_SIZE = 0x80, 1, 2
_LEGACY_PREFIXES = np.zeros(256, np.uint8)
"""Flags by byte value: of all legacy prefixes, and of those that matter to relaxation."""
_LEGACY_PREFIXES[[0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3]] = _LEGACY
_LEGACY_PREFIXES[0x66] |= _OPERAND_SIZE
_LEGACY_PREFIXES[0x67] |= _ADDRESS_SIZE


class _Encoding(NamedTuple):
    """The prefix that the instructions of an edge kind have, directly before the opcode.

    Attributes:
        size: its size in bytes.
        first: its first byte, except for the bits that `mask` clears.
        mask: see `first`.
        registers: bits of its last byte that extend the reg field of ModRM; the bits two below
            extend the r/m field.
        reserved: bits of its last byte that must be zero, as they select another opcode map.
    """

    size: int
    first: int = 0
    mask: int = 0
    registers: int = 0
    reserved: int = 0


_ENCODINGS: dict[EdgeKind, _Encoding] = {
    K.PCREL32_GOT_LOAD_RELAXABLE: _Encoding(0),
    K.PCREL32_GOT_LOAD_REX_RELAXABLE: _Encoding(1, _REX, _REX_MASK, registers=0x04),
    K.PCREL32_GOT_LOAD_REX2_RELAXABLE: _Encoding(2, _REX2, 0xFF, registers=0x44, reserved=0x80),
}


def relax(graph: LinkGraph) -> None:
    r"""Bypass GOT entries and stubs whose targets are in range (pre-fixup pass).

    ========================= ============================ =========================
    instruction               target within 2 GiB          target below 2 GiB
    ========================= ============================ =========================
    mov f@GOT(%rip), reg      lea f(%rip), reg             mov $f, reg
    test reg, f@GOT(%rip)                                  test $f, reg
    add f@GOT(%rip), reg ...                               add $f, reg ...
    call \*f@GOT(%rip)         addr32 call f
    jmp \*f@GOT(%rip)          jmp f; nop
    call stub, jmp stub       call f, jmp f
    ========================= ============================ =========================

    Prefixes before the bytes that change stay, and must mean the same for the new instruction. A
    byte there that looks like a prefix may also be the end of the instruction before, so a form is
    left as it is if there may be

    - REX.W and an operand-size prefix before a call: ``addr32`` would separate REX.W from the
      opcode, which makes it void, and a processor that obeys the other prefix would truncate the
      program counter to 16 bits. In the general dynamic TLS model, -fno-plt gives
      ``data16 rex.W call *__tls_get_addr@GOTPCREL(%rip)``.
    - An operand-size prefix without REX.W: an immediate operand would have two bytes.
    - An address-size prefix before ``mov``: ``lea`` would truncate the address to 32 bits.
    """
    targets = BypassTargets(graph, GOT_PLT)
    if targets.any:
        bypass_stubs(graph, targets, GOT_PLT, FIXUPS)
        for kind, encoding in _ENCODINGS.items():
            _relax_loads(graph, targets, kind, encoding)


def _relax_loads(
    graph: LinkGraph, targets: BypassTargets, kind: EdgeKind, encoding: _Encoding
) -> None:
    """Rewrite the instructions of a kind's edges that can be relaxed."""
    edges, blocks = graph.edge_table, graph.block_table
    rows = rows_where(edges.kind == int(kind))
    rows = rows[(edges.addend[rows] == 0) & (edges.offset[rows] >= 2 + encoding.size)]
    target = targets.of(rows)
    rows, target = rows[target >= 0], target[target >= 0]
    rows_place = blocks.content[edges.block[rows]] + edges.offset[rows]
    for code, base, here in graph.contents.partition(rows_place):
        if code.flags.writeable:
            chosen, at = rows[here], rows_place[here] - base
            _relax_code(graph, targets, code, at, chosen, target[here], encoding)


def _relax_code(
    graph: LinkGraph,
    targets: BypassTargets,
    code: UInt8Array,
    at: Int64Array,
    rows: Int64Array,
    target: Int64Array,
    encoding: _Encoding,
) -> None:
    edges = graph.edge_table
    place = graph.block_table.address[edges.block[rows]].view(np.int64) + edges.offset[rows]
    address = targets.addresses[target]
    near = in_range(address - place - 4, 32) & resolved(graph, target)
    opcode, modrm = code[at - 2], code[at - 1]
    rex, legacy = _prefixes(code, at - 2, edges.offset[rows] - 2, encoding)
    has_operand = (modrm & _RIP_MASK) == _RIP_RELATIVE
    if encoding.size:
        has_operand &= (code[at - 2 - encoding.size] & encoding.mask) == encoding.first
        has_operand &= (rex & encoding.reserved) == 0

    load = has_operand & (opcode == _MOV) & near & ((legacy & _ADDRESS_SIZE) == 0)
    code[at[load] - 2] = _LEA
    _retarget(graph, rows[load], target[load], K.PCREL32)
    if encoding.size == 0:
        branch = near & (opcode == _GROUP5)
        voids = ((rex & _REX_W) != 0) & ((legacy & _OPERAND_SIZE) != 0)
        _relax_branches(graph, code, at, rows, target, branch, modrm, voids)
    # Only an address that sign-extends from 32 bits can be an immediate operand.
    low = has_operand & in_range(address, 32) & resolved(graph, target)
    immediate = low & ~load & ((opcode == _MOV) | (opcode == _TEST) | _is_group1(opcode))
    if encoding.size:
        immediate &= ((legacy & _OPERAND_SIZE) == 0) | ((rex & _REX_W) != 0)
    else:
        # What looks like a REX prefix may be the end of another instruction.
        immediate &= ((legacy & _OPERAND_SIZE) == 0) & ((rex & _REX_REGISTERS) == 0)
    if immediate.any():
        _relax_to_immediate(code, at[immediate], opcode[immediate], modrm[immediate], encoding)
        _retarget(graph, rows[immediate], target[immediate], K.POINTER32_SIGNED)


def _prefixes(
    code: UInt8Array, opcode: Int64Array, room: Int64Array, encoding: _Encoding
) -> tuple[UInt8Array, UInt8Array]:
    """The prefixes that instructions have or, where that is uncertain, may have.

    Args:
        code: working memory.
        opcode: indices in it of the opcodes.
        room: how many bytes of the block there are before each of these.
        encoding: the prefixes that are certain.

    Returns:
        The bits of the REX prefix or of the last byte of REX2, 0 if there is none, and flags of
        the legacy prefixes (uint8 each).
    """
    size = np.full(len(opcode), encoding.size)
    if encoding.size:
        rex = code[opcode - 1]
    else:
        rex = np.where(room > 0, code[opcode - 1], 0).astype(np.uint8)
        rex[(rex & _REX_MASK) != _REX] = 0
        size[rex != 0] = 1
    legacy = np.zeros(len(opcode), np.uint8)
    rows = np.arange(len(opcode))
    first, room = opcode - size, room - size
    for back in range(1, _LONGEST_INSTRUCTION):
        rows = rows[room[rows] >= back]
        flags = _LEGACY_PREFIXES[code[first[rows] - back]]
        rows, flags = rows[flags != 0], flags[flags != 0]
        if not len(rows):
            break
        legacy[rows] |= flags
    return rex, legacy


def _is_group1(opcode: UInt8Array) -> BoolArray:
    """Whether opcodes are ``add``, ``or``, ... ``cmp`` of a register and a memory operand."""
    of_group: BoolArray = (opcode & 0xC7) == 0x03
    return of_group


def _relax_branches(
    graph: LinkGraph,
    code: UInt8Array,
    at: Int64Array,
    rows: Int64Array,
    target: Int64Array,
    is_branch: BoolArray,
    modrm: UInt8Array,
    voids_prefix: BoolArray,
) -> None:
    """Rewrite calls and jumps; `voids_prefix` says where a prefix of a call must not be voided."""
    call, jump = is_branch & (modrm == _CALL_MODRM), is_branch & (modrm == _JMP_MODRM)
    call &= ~voids_prefix
    code[at[call] - 2], code[at[call] - 1] = _ADDR32, _CALL
    _retarget(graph, rows[call], target[call], K.BRANCH_PCREL32)
    # The direct jump is one byte shorter: its displacement begins one byte earlier.
    code[at[jump] - 2], code[at[jump] + 3] = _JMP, _NOP
    graph.edge_table.offset[rows[jump]] -= 1
    _retarget(graph, rows[jump], target[jump], K.BRANCH_PCREL32)


def _relax_to_immediate(
    code: UInt8Array,
    at: Int64Array,
    opcode: UInt8Array,
    modrm: UInt8Array,
    encoding: _Encoding,
) -> None:
    register = modrm >> 3 & 7
    operation = np.where(_is_group1(opcode), opcode & 0x38, 0).astype(np.uint8)
    code[at - 1] = 0xC0 | operation | register
    code[at - 2] = np.where(
        opcode == _MOV, _MOV_IMM, np.where(opcode == _TEST, _TEST_IMM, _GROUP1_IMM)
    )
    if encoding.size:
        # The register moves from the reg field to the r/m field, and so do its upper bits.
        upper = np.uint8(encoding.registers)
        prefix = code[at - 3]
        code[at - 3] = (prefix & ~(upper | upper >> 2)) | ((prefix & upper) >> 2)


def _retarget(graph: LinkGraph, rows: Int64Array, target: Int64Array, kind: EdgeKind) -> None:
    graph.edge_table.target[rows] = target
    graph.edge_table.kind[rows] = kind
