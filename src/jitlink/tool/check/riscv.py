"""RISC-V: the operands of RV32 and RV64 instructions of the I, M, A, F, D and C extensions.

Quirks: offsets of branches and jumps are in bytes. The operand of ``lui`` and ``auipc`` is the 20
encoded bits, that of ``c.lui`` its six bits extended to 20. Compressed instructions are not
expanded; a register that is read and written is two operands.

Specification: RISC-V Instruction Set Manual, volume I, chapters "RV32/64G Instruction Set
Listings" and "C Extension"; the order of operands is that of LLVM's RISCVInstrInfo*.td.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitlink.tool.check.encodings import EncodingTable

_Row = tuple[str, str, str]
_BRANCHES = {"beq": "000", "bne": "001", "blt": "100", "bge": "101", "bltu": "110", "bgeu": "111"}
_LOADS = {
    "lb": ("000", "0000011"), "lh": ("001", "0000011"), "lw": ("010", "0000011"),
    "ld": ("011", "0000011"), "lbu": ("100", "0000011"), "lhu": ("101", "0000011"),
    "lwu": ("110", "0000011"), "flw": ("010", "0000111"), "fld": ("011", "0000111"),
}  # fmt: skip
_STORES = {
    "sb": ("000", "0100011"), "sh": ("001", "0100011"), "sw": ("010", "0100011"),
    "sd": ("011", "0100011"), "fsw": ("010", "0100111"), "fsd": ("011", "0100111"),
}  # fmt: skip
_IMMEDIATES = {
    "addi": ("000", "0010011"), "slti": ("010", "0010011"), "sltiu": ("011", "0010011"),
    "xori": ("100", "0010011"), "ori": ("110", "0010011"), "andi": ("111", "0010011"),
    "addiw": ("000", "0011011"), "jalr": ("000", "1100111"),
}  # fmt: skip
_REGISTERS = {
    name: (funct7, funct3, opcode)
    for funct7, opcode, names in (
        ("0000000", "0110011", ("add", "sll", "slt", "sltu", "xor", "srl", "or", "and")),
        ("0000001", "0110011", ("mul", "mulh", "mulhsu", "mulhu", "div", "divu", "rem", "remu")),
        ("0100000", "0110011", ("sub", "", "", "", "", "sra", "", "")),
        ("0000000", "0111011", ("addw", "sllw", "", "", "", "srlw", "", "")),
        ("0000001", "0111011", ("mulw", "", "", "", "divw", "divuw", "remw", "remuw")),
        ("0100000", "0111011", ("subw", "", "", "", "", "sraw", "", "")),
    )
    for funct3, name in ((f"{number:03b}", each) for number, each in enumerate(names))
    if name
}


_ONLY64 = frozenset({"ld", "sd", "lwu", "addiw"})


def _general(bits: int) -> Iterator[_Row]:
    """32-bit instructions."""
    yield "lui", "r imm", "imm:20 rd:5 0110111"
    yield "auipc", "r imm", "imm:20 rd:5 0010111"
    yield "jal", "r imm.s", "imm[20|10:1|11|19:12] rd:5 1101111"
    for name, funct3 in _BRANCHES.items():
        yield name, "r r imm.s", f"imm[12|10:5] rs2:5 rs1:5 {funct3} imm[4:1|11] 1100011"
    for name, (funct3, opcode) in (*_LOADS.items(), *_IMMEDIATES.items()):
        if bits == 64 or name not in _ONLY64:
            yield name, "r r imm.s", f"imm:12 rs1:5 {funct3} rd:5 {opcode}"
    for name, (funct3, opcode) in _STORES.items():
        if bits == 64 or name not in _ONLY64:
            yield name, "r r imm.s", f"imm[11:5] rs2:5 rs1:5 {funct3} imm[4:0] {opcode}"
    for name, (funct7, funct3, opcode) in _REGISTERS.items():
        if bits == 64 or not name.endswith("w"):
            yield name, "r r r", f"{funct7} rs2:5 rs1:5 {funct3} rd:5 {opcode}"
    yield "ecall", "", "00000000000000000000000001110011"
    yield "ebreak", "", "00000000000100000000000001110011"
    yield "fence", "pred succ", "0000 pred:4 succ:4 00000 000 00000 0001111"


def _shifts(bits: int) -> Iterator[_Row]:
    """Shifts by an immediate, whose width depends on that of registers."""
    width = 6 if bits == 64 else 5
    for name, kind, funct3 in (("slli", "0", "001"), ("srli", "0", "101"), ("srai", "1", "101")):
        start = f"0{kind}{'0' * (10 - width)}"
        yield name, "r r shamt", f"{start} shamt:{width} rs1:5 {funct3} rd:5 0010011"
        if bits == 64:
            yield f"{name}w", "r r shamt", f"0{kind}00000 shamt:5 rs1:5 {funct3} rd:5 0011011"


_COMPRESSED: tuple[_Row, ...] = (
    ("c.nop", "", "000 0 00000 00000 01"),
    ("c.nop", "imm.s", "000 imm[5] 00000 imm[4:0] 01"),
    ("c.addi", "r r imm.s", "000 imm[5] rd:5 imm[4:0] 01"),
    ("c.li", "r imm.s", "010 imm[5] rd:5 imm[4:0] 01"),
    ("c.addi16sp", "r r imm.s", "011 imm[9] 00010 imm[4|6|8:7|5] 01"),
    ("c.lui", "r imm.s20", "011 imm[5] rd:5 imm[4:0] 01"),
    ("c.srli", "r r imm", "100 imm[5] 00 rd:3 imm[4:0] 01"),
    ("c.srai", "r r imm", "100 imm[5] 01 rd:3 imm[4:0] 01"),
    ("c.andi", "r r imm.s", "100 imm[5] 10 rd:3 imm[4:0] 01"),
    ("c.sub", "r r r", "100 0 11 rd:3 00 rs2:3 01"),
    ("c.xor", "r r r", "100 0 11 rd:3 01 rs2:3 01"),
    ("c.or", "r r r", "100 0 11 rd:3 10 rs2:3 01"),
    ("c.and", "r r r", "100 0 11 rd:3 11 rs2:3 01"),
    ("c.j", "imm.s", "101 imm[11|4|9:8|10|6|7|3:1|5] 01"),
    ("c.beqz", "r imm.s", "110 imm[8|4:3] rs1:3 imm[7:6|2:1|5] 01"),
    ("c.bnez", "r imm.s", "111 imm[8|4:3] rs1:3 imm[7:6|2:1|5] 01"),
    ("c.slli", "r r imm", "000 imm[5] rd:5 imm[4:0] 10"),
    ("c.fldsp", "r r imm", "001 imm[5] rd:5 imm[4:3|8:6] 10"),
    ("c.lwsp", "r r imm", "010 imm[5] rd:5 imm[4:2|7:6] 10"),
    ("c.ebreak", "", "100 1 00000 00000 10"),
    ("reserved", "!", "100 0 00000 00000 10"),
    ("c.jr", "r", "100 0 rs1:5 00000 10"),
    ("c.jalr", "r", "100 1 rs1:5 00000 10"),
    ("c.mv", "r r", "100 0 rd:5 rs2:5 10"),
    ("c.add", "r r r", "100 1 rd:5 rs2:5 10"),
    ("c.fsdsp", "r r imm", "101 imm[5:3|8:6] rs2:5 10"),
    ("c.swsp", "r r imm", "110 imm[5:2|7:6] rs2:5 10"),
    ("c.fld", "r r imm", "001 imm[5:3] rs1:3 imm[7:6] rd:3 00"),
    ("c.lw", "r r imm", "010 imm[5:3] rs1:3 imm[2|6] rd:3 00"),
    ("c.fsd", "r r imm", "101 imm[5:3] rs1:3 imm[7:6] rs2:3 00"),
    ("c.sw", "r r imm", "110 imm[5:3] rs1:3 imm[2|6] rs2:3 00"),
)
_COMPRESSED64: tuple[_Row, ...] = (
    ("c.addiw", "r r imm.s", "001 imm[5] rd:5 imm[4:0] 01"),
    ("c.subw", "r r r", "100 1 11 rd:3 00 rs2:3 01"),
    ("c.addw", "r r r", "100 1 11 rd:3 01 rs2:3 01"),
    ("c.ldsp", "r r imm", "011 imm[5] rd:5 imm[4:3|8:6] 10"),
    ("c.sdsp", "r r imm", "111 imm[5:3|8:6] rs2:5 10"),
    ("c.ld", "r r imm", "011 imm[5:3] rs1:3 imm[7:6] rd:3 00"),
    ("c.sd", "r r imm", "111 imm[5:3] rs1:3 imm[7:6] rs2:3 00"),
)
_COMPRESSED32: tuple[_Row, ...] = (
    # On RV32 shift amounts with bit 5 are reserved.
    ("reserved", "!", "100 1 0 kind:1 rd:3 imm:5 01"),
    ("reserved", "!", "000 1 rd:5 imm:5 10"),
    ("c.jal", "imm.s", "001 imm[11|4|9:8|10|6|7|3:1|5] 01"),
    ("c.flwsp", "r r imm", "011 imm[5] rd:5 imm[4:2|7:6] 10"),
    ("c.fswsp", "r r imm", "111 imm[5:2|7:6] rs2:5 10"),
    ("c.flw", "r r imm", "011 imm[5:3] rs1:3 imm[2|6] rd:3 00"),
    ("c.fsw", "r r imm", "111 imm[5:3] rs1:3 imm[2|6] rs2:3 00"),
)

# Before c.addi4spn, whose encoding includes the all-zero halfword, an illegal instruction.
_STACK_ADDRESS: tuple[_Row, ...] = (
    ("unimp", "", "0000000000000000"),
    ("c.addi4spn", "r r imm", "000 imm[5:4|9:6|2|3] rd:3 00"),
)

ENCODINGS64, ENCODINGS32 = (
    EncodingTable((*_general(bits), *_shifts(bits), *compressed, *_COMPRESSED, *_STACK_ADDRESS))
    for bits, compressed in ((64, _COMPRESSED64), (32, _COMPRESSED32))
)
