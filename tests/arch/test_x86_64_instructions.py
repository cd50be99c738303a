"""Where instructions begin and end, compared with Capstone on code of real libraries."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from jitlink.arch.x86_64_instructions import decode, instruction_with_field
from jitlink.graph import LinkGraph, MemProt
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from tests.toolchain import require

_LEAST = 500
"""How many displacements of four bytes each archive has at least."""


def _functions(graph: LinkGraph) -> Iterator[bytes]:
    """The code of all functions of a graph whose sizes are known."""
    for section in graph.section_list:
        if not section.mem_prot & MemProt.EXEC:
            continue
        for symbol in section.symbols:
            if symbol.is_callable and symbol.size:
                yield bytes(symbol.block.content[symbol.offset : symbol.offset + symbol.size])


@pytest.mark.parametrize("name", ["libz.a", "libzstd.a", "liblua5.4.a"])
def test_all_instructions_of_an_archive(name: str) -> None:
    reader = InputReader()
    reader.add([open_input(require(name))], all_load=True)
    capstone: Any = importlib.import_module("capstone")
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    disassembler.detail = True
    fields = 0
    for code in _functions(reader.target_graph):
        for each in disassembler.disasm(code, 0):
            found, encoding = decode(code, each.address), each.encoding
            text = (each.mnemonic, each.op_str, each.bytes.hex())
            assert found is not None, text
            assert found.end == each.address + each.size, text
            if encoding.modrm_offset:
                assert found.modrm == each.address + encoding.modrm_offset, text
            if encoding.disp_offset:
                assert found.displacement == each.address + encoding.disp_offset, text
                # Capstone halves it where a prefix halves the size of operands.
                assert found.displacement_size == encoding.disp_size or 0x66 in each.prefix, text
                fields += encoding.disp_size == 4
            if encoding.imm_offset and each.address + encoding.imm_offset != found.immediate:
                # An immediate of one byte that is part of the opcode, as in cmpltsd.
                assert encoding.imm_size == 1, text
    assert fields > _LEAST


@pytest.mark.parametrize(
    ("code", "field"),
    [
        ("660f38001511223344", 5),  # pshufb 0x44332211(%rip), %xmm2
        ("660f3a0f151122334405", 5),  # palignr $5, 0x44332211(%rip), %xmm2
        ("f2480f38f10511223344", 6),  # crc32q 0x44332211(%rip), %rax
        ("66480f3a22051122334401", 6),  # pinsrq $1, 0x44332211(%rip), %xmm0
    ],
)
def test_opcodes_after_two_escapes(code: str, field: int) -> None:
    """Few archives have any."""
    data = bytes.fromhex(code)
    found = instruction_with_field(data, field)
    assert found is not None
    assert (found.displacement, found.displacement_size, found.end) == (field, 4, len(data))
    assert found.modrm == field - 1


def test_what_is_no_field() -> None:
    code = bytes.fromhex("488b0511223344c3")  # mov 0x44332211(%rip), %rax; ret
    assert instruction_with_field(code, 3) is not None
    for position in (0, 1, 2, 4, 5, 7, 8, 100):
        assert instruction_with_field(code, position) is None


@pytest.mark.parametrize(
    "code",
    [
        "06",
        "62",
        "d548",
        "8fe87800",
        "66" * 16 + "90",
        "488b05112233",
        "0f",
        "40488b0500000000",
        "48668b0500000000",
        "660f78c002038b0500000000",
        "8b0500000000eb",
        "8b0500000000ebf9",
    ],
    ids=[
        "invalid",
        "evex",
        "rex2",
        "xop",
        "prefixes",
        "cut",
        "escape",
        "two-rex",
        "prefix-behind-rex",
        "two-immediates",
        "cut-behind",
        "entered",
    ],
)
def test_what_is_not_decoded(code: str) -> None:
    content = bytes.fromhex(code)
    assert not [field for field in range(len(content)) if instruction_with_field(content, field)]
