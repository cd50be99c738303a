"""Decoded instructions, compared with LLVM's disassembler."""

import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jitlink.tool.check import aarch64, decode, riscv
from jitlink.tool.check.decode import Decoder
from jitlink.tool.check.encodings import EncodingTable
from jitlink.tool.check.expressions import UnknownPlaceError
from tests.oracle.elf_file import ElfFile
from tests.tool.check.mc import MCInst, disassemble
from tests.toolchain import compile_c

INSTRUCTIONS = Path(__file__).parent / "instructions"
TABLES = {
    "aarch64": aarch64.ENCODINGS,
    "riscv64": riscv.ENCODINGS64,
    "riscv32": riscv.ENCODINGS32,
}


def _code(architecture: str) -> bytes:
    """The machine code of the committed instructions."""
    source = (INSTRUCTIONS / f"{architecture}.s").read_text()
    made = compile_c(source, "zig", suffix=".s", target=f"{architecture}-linux-musl")
    elf = ElfFile(made.read_bytes())
    return next(elf.content(each) for each in elf.sections if each.name == ".text")


@pytest.mark.parametrize("architecture", ["x86_64", *TABLES])
def test_operands_are_those_of_llvm(architecture: str) -> None:
    code = _code(architecture)
    decoder, position = Decoder(f"{architecture}-unknown-linux-gnu"), 0
    found = []
    while position < len(code):
        instruction = decoder.decode(code[position : position + 16], 0x1000 + position)
        assert instruction is not None, code[position:][:8].hex()
        end = position + instruction.size
        found.append((instruction.size, instruction.operands))
        position = end
    expected = disassemble(architecture, [code])
    assert len(expected) > 9
    assert found == [(len(each), instruction.operands) for each, instruction in expected]


@pytest.mark.parametrize("architecture", TABLES)
def test_tables_are_right_with_random_fields(architecture: str) -> None:
    """Every row, with random bits in its fields."""
    table = TABLES[architecture]
    bits = random.Random(4)
    words = [
        (bits.getrandbits(8 * row.size) & ~row.mask | row.bits).to_bytes(row.size, "little")
        for row in table.rows
        for _ in range(40)
    ]
    expected = dict(disassemble(architecture, words))
    wrong = [_difference(table, word, expected[word]) for word in words if word in expected]
    assert not list(filter(None, wrong))
    decoded = [word for word in words if table.find(word)]
    # The rows decode few words that LLVM rejects: some immediates of logical instructions.
    assert len([word for word in decoded if word not in expected]) < len(decoded) // 100


def _difference(table: EncodingTable, word: bytes, expected: MCInst) -> str:
    found = table.find(word)
    if found is None or found[2] != expected.operands:
        return f"{word.hex()}: {found}, not {expected}"
    return ""


def test_every_row_is_reached() -> None:
    """No row is shadowed by those before it."""
    for table in TABLES.values():
        bits = random.Random(5)
        for row in table.rows:
            words = [
                (bits.getrandbits(8 * row.size) & ~row.mask | row.bits).to_bytes(4, "little")
                for _ in range(64)
            ]
            found = [table.find(word) for word in words]
            assert any(each and each[1].startswith(row.name) for each in found) or (
                row.operands is None and None in found
            ), row


def test_instructions_in_no_table_have_a_length_but_no_operands() -> None:
    # fmadd d0, d1, d2, d3
    instruction = Decoder("aarch64-linux").decode(bytes.fromhex("200c421f"), 0)
    assert instruction is not None
    assert instruction.size == 4
    with pytest.raises(UnknownPlaceError, match=r"The operands of 'fmadd .*' are not known"):
        instruction.known_operands()


def test_invalid_instructions() -> None:
    assert Decoder("x86_64-linux").decode(b"\x06", 0) is None
    assert Decoder("aarch64-linux").decode(b"\xff\xff\xff\xff", 0) is None
    assert Decoder("riscv64-linux").decode(b"\x00\x00", 0) is not None
    assert Decoder("riscv64-linux").decode(b"\xff\xff\xff\xff", 0) is None
    assert Decoder("aarch64-linux").decode(b"\x1f\x20\x03", 0) is None


def test_instructions_of_big_endian_objects_are_little_endian() -> None:
    instruction = Decoder("aarch64_be-linux").decode(bytes.fromhex("1f2003d5"), 0)
    assert instruction is not None
    assert instruction.operands == ()


def test_architectures_without_a_decoder() -> None:
    with pytest.raises(UnknownPlaceError, match="Instructions of hexagon cannot be decoded"):
        Decoder("hexagon-unknown-elf")


def test_without_capstone_the_tables_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: dict[str, ModuleType | None] = {"capstone": None}
    monkeypatch.setattr(sys, "modules", {**sys.modules, **missing})
    decode._disassembler.cache_clear()
    assert Decoder("aarch64-linux").decode(bytes.fromhex("1f2003d5"), 0) is not None
    with pytest.raises(UnknownPlaceError, match=r"needs Capstone: pip install 'jitlink\[check\]'"):
        Decoder("x86_64-linux").decode(b"\xc3", 0)
