"""AArch64: the operands of the instructions that commonly have relocations.

Quirks: offsets of branches and of literals are in instructions, those of ``adr`` in bytes and of
``adrp`` in pages; unsigned offsets of loads and stores are in units of the access size. A register
that is written back or modified is two operands. Aliases (``mov``, ``cmp``) are decoded as the
instructions that they abbreviate.

Specification: Arm Architecture Reference Manual for A-profile, chapter C4 "A64 Instruction Set
Encoding"; the order of operands is that of LLVM's AArch64InstrFormats.td.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitlink.tool.check.encodings import EncodingTable

_Row = tuple[str, str, str]

# Integer loads and stores: size, V and opc of each.
_ACCESSES = {
    "strb": ("00", "0", "00"), "ldrb": ("00", "0", "01"), "ldrsb": ("00", "0", "10"),
    "ldrsbw": ("00", "0", "11"), "strh": ("01", "0", "00"), "ldrh": ("01", "0", "01"),
    "ldrsh": ("01", "0", "10"), "ldrshw": ("01", "0", "11"), "str w": ("10", "0", "00"),
    "ldr w": ("10", "0", "01"), "ldrsw": ("10", "0", "10"), "str x": ("11", "0", "00"),
    "ldr x": ("11", "0", "01"), "str b": ("00", "1", "00"), "ldr b": ("00", "1", "01"),
    "str q": ("00", "1", "10"), "ldr q": ("00", "1", "11"), "str h": ("01", "1", "00"),
    "ldr h": ("01", "1", "01"), "str s": ("10", "1", "00"), "ldr s": ("10", "1", "01"),
    "str d": ("11", "1", "00"), "ldr d": ("11", "1", "01"),
}  # fmt: skip
_LITERALS = {
    "ldr w": ("00", "0"), "ldr x": ("01", "0"), "ldrsw": ("10", "0"), "ldr s": ("00", "1"),
    "ldr d": ("01", "1"), "ldr q": ("10", "1"),
}  # fmt: skip
# Pairs: opc and V.
_PAIRS = {
    "w": ("00", "0"), "x": ("10", "0"), "s": ("00", "1"), "d": ("01", "1"), "q": ("10", "1"),
}  # fmt: skip
_ARITHMETIC = {"add": "00", "adds": "01", "sub": "10", "subs": "11"}
_LOGIC = {"and": "00", "orr": "01", "eor": "10", "ands": "11"}


def _branches() -> Iterator[_Row]:
    yield "b", "imm.s", "000101 imm:26"
    yield "bl", "imm.s", "100101 imm:26"
    yield "b.cond", "cond imm.s", "01010100 imm:19 0 cond:4"
    for name, bit in (("cbz", "0"), ("cbnz", "1")):
        yield name, "r imm.s", f"sf:1 011010{bit} imm:19 rt:5"
    for name, bit in (("tbz", "0"), ("tbnz", "1")):
        yield name, "r bit imm.s", f"bit[5] 011011{bit} bit[4:0] imm:14 rt:5"
    for name, opc in (("br", "0000"), ("blr", "0001"), ("ret", "0010")):
        yield name, "r", f"1101011{opc} 11111 000000 rn:5 00000"


def _addresses() -> Iterator[_Row]:
    yield "adr", "r imm.s", "0 imm[1:0] 10000 imm[20:2] rd:5"
    yield "adrp", "r imm.s", "1 imm[1:0] 10000 imm[20:2] rd:5"
    for name, op in _ARITHMETIC.items():
        yield name, "r r imm sh*12", f"sf:1 {op} 100010 sh:1 imm:12 rn:5 rd:5"
    for name, opc in (("movn", "00"), ("movz", "10")):
        # Only 64-bit registers have halfwords beyond bit 32.
        yield name, "r imm hw*16", f"0 {opc} 100101 0 hw:1 imm:16 rd:5"
        yield name, "r imm hw*16", f"1 {opc} 100101 hw:2 imm:16 rd:5"
    yield "movk", "r r imm hw*16", "0 11 100101 0 hw:1 imm:16 rd:5"
    yield "movk", "r r imm hw*16", "1 11 100101 hw:2 imm:16 rd:5"


def _accesses() -> Iterator[_Row]:
    for name, (opc, vector) in _LITERALS.items():
        yield name, "r imm.s", f"{opc} 011 {vector} 00 imm:19 rt:5"
    yield "prfm", "hint imm.s", "11 011 0 00 imm:19 hint:5"
    for name, (size, vector, opc) in _ACCESSES.items():
        start = f"{size} 111 {vector}"
        yield name, "r r imm", f"{start} 01 {opc} imm:12 rn:5 rt:5"
        yield f"{name} unscaled", "r r imm.s", f"{start} 00 {opc} 0 imm:9 00 rn:5 rt:5"
        for index, bits in (("post-index", "01"), ("pre-index", "11")):
            yield f"{name} {index}", "r r r imm.s", f"{start} 00 {opc} 0 imm:9 {bits} rn:5 rt:5"
        for option in ("010", "011", "110", "111"):
            bits = f"{start} 00 {opc} 1 rm:5 {option} s:1 10 rn:5 rt:5"
            yield f"{name} register", f"r r r #{option[0]} s", bits
    yield "prfm", "hint r imm", "11 111 0 01 10 imm:12 rn:5 hint:5"
    for register, (opc, vector) in _PAIRS.items():
        for name, load in (("stp", "0"), ("ldp", "1")):
            start = f"{opc} 101 {vector}"
            end = f"{load} imm:7 rt2:5 rn:5 rt:5"
            yield f"{name} {register}", "r r r imm.s", f"{start} 010 {end}"
            yield f"{name} {register} post-index", "r r r r imm.s", f"{start} 001 {end}"
            yield f"{name} {register} pre-index", "r r r r imm.s", f"{start} 011 {end}"


def _calculations() -> Iterator[_Row]:
    for name, op in _ARITHMETIC.items():
        for sf, amount in (("0", "0 shift[4:0]"), ("1", "shift[5:0]")):
            start, end = f"{sf} {op} 01011", f"0 rm:5 {amount} rn:5 rd:5"
            yield name, "r r r shift", f"{start} 0 shift[6] {end}"
            yield name, "r r r shift+128", f"{start} 10 {end}"
        for amount in ("101", "11 x:1"):
            yield "reserved", "!", f"sf:1 {op} 01011001 rm:5 kind:3 {amount} rn:5 rd:5"
        yield name, "r r r extend", f"sf:1 {op} 01011001 rm:5 extend:6 rn:5 rd:5"
    for name, opc in _LOGIC.items():
        for sf, amount, n in (("0", "0 shift[4:0]", "0"), ("1", "shift[5:0]", "n:1")):
            yield name, "r r r shift", f"{sf} {opc} 01010 shift[7:6] n:1 rm:5 {amount} rn:5 rd:5"
            immediate = f"{n} imm:12" if n == "0" else "imm:13"
            yield name, "r r imm", f"{sf} {opc} 100100 {immediate} rn:5 rd:5"
    for name, opc in (("sbfm", "00"), ("ubfm", "10")):
        yield name, "r r immr imms", f"1 {opc} 100110 1 immr:6 imms:6 rn:5 rd:5"
        yield name, "r r immr imms", f"0 {opc} 100110 0 0 immr:5 0 imms:5 rn:5 rd:5"
    for name, op, op2 in (
        ("csel", "0", "0"), ("csinc", "0", "1"), ("csinv", "1", "0"), ("csneg", "1", "1"),
    ):  # fmt: skip
        yield name, "r r r cond", f"sf:1 {op} 011010100 rm:5 cond:4 0 {op2} rn:5 rd:5"
    for name, bit in (("madd", "0"), ("msub", "1")):
        yield name, "r r r r", f"sf:1 0011011000 rm:5 {bit} ra:5 rn:5 rd:5"


def _system() -> Iterator[_Row]:
    for number in (0, 7, 8, 10, 12, 14, *range(24, 32), 39, 40):
        # Hints that are instructions of their own in LLVM, such as nop and paciasp.
        yield f"hint {number}", "", f"11010101000000110010 {number:07b} 11111"
    yield "hint", "imm", "11010101000000110010 imm:7 11111"
    yield "mrs", "r imm+32768", "110101010011 imm:15 rt:5"
    yield "msr", "imm+32768 r", "110101010001 imm:15 rt:5"
    for name, opc, low in (("svc", "000", "01"), ("brk", "001", "00"), ("hlt", "010", "00")):
        yield name, "imm", f"11010100 {opc} imm:16 000 {low}"


ENCODINGS = EncodingTable((*_branches(), *_addresses(), *_accesses(), *_calculations(), *_system()))
