"""The operands of instructions as LLVM's disassembler numbers them."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.toolchain import require

_INSTRUCTION = re.compile(
    r"encoding: \[(.*?)\](?:\s+[#/;]+\s+fixup .*?kind: \S+)?\s*(?:[#/;]+\s*)?"
    r"<MCInst #\d+ (\w+)((?:\s+(?:[#/;]+\s*)?<MCOperand [^>]*>)*)>"
)
_FIELD = "A"
_OPERAND = re.compile(r"<MCOperand (\w+):? ?(\S*?)>")
_FEATURES = {"riscv64": "+m,+a,+f,+d,+c", "riscv32": "+m,+a,+f,+d,+c"}


class MCInst(NamedTuple):
    """One instruction.

    Attributes:
        name: LLVM's name of its form.
        operands: its operands, None for one that is not an immediate.
    """

    name: str
    operands: tuple[int | None, ...]


def disassemble(architecture: str, codes: Sequence[bytes]) -> list[tuple[bytes, MCInst]]:
    """The valid instructions of some pieces of code, each with its bytes.

    The bytes of fields that LLVM would relocate are zero.
    """
    command: list[str | Path] = [
        require("llvm-mc-22"), "--disassemble", f"--triple={architecture}", "--show-inst",
        "--show-encoding", f"--mattr={_FEATURES.get(architecture, '')}",
    ]  # fmt: skip
    text = "\n".join(" ".join(f"{byte:#04x}" for byte in code) for code in codes)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return [
        (
            bytes(0 if byte == _FIELD else int(byte, 16) for byte in code.split(",")),
            MCInst(name, _operands(operands)),
        )
        for code, name, operands in _INSTRUCTION.findall(done.stdout.replace("\n", " "))
    ]


def _operands(text: str) -> tuple[int | None, ...]:
    return tuple(int(value) if kind == "Imm" else None for kind, value in _OPERAND.findall(text))
