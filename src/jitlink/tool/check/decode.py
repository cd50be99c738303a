"""Instructions as LLVM's MC layer decodes them: their lengths, and their numbered operands.

Each architecture has a module for the operands of its instructions. Those of AArch64 and RISC-V are
tables of encodings, which need no package. Instructions in no table, and those of x86-64, are
decoded with Capstone, which is imported on use.

LLVM differs: only the operands of instructions that commonly have relocations are known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from jitlink.tool.check.expressions import UnknownPlaceError

if TYPE_CHECKING:
    from jitlink.tool.check.encodings import EncodingTable

Operands = tuple[int | None, ...]
"""The operands of an instruction: a number, or None for one that is not an immediate."""


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        size: its length in bytes.
        text: its description.
        operands: its operands as LLVM's MCInst numbers them; None if they are unknown.
    """

    size: int
    text: str
    operands: Operands | None

    def known_operands(self) -> Operands:
        """Its operands.

        Raises:
            UnknownPlaceError: they are unknown.
        """
        if self.operands is None:
            raise UnknownPlaceError(f"The operands of '{self.text}' are not known")
        return self.operands


class Architecture(NamedTuple):
    """The decoders of an architecture.

    Attributes:
        capstone: names of Capstone's architecture and of its modes.
        module: the module for its operands.
        encodings: name of the table of encodings there, or None.
        reader: name of the function there that converts Capstone's instructions, or None.
    """

    capstone: tuple[str, tuple[str, ...]]
    module: str
    encodings: str | None = None
    reader: str | None = None


_PACKAGE = "jitlink.tool.check"
_ARM64 = Architecture(("CS_ARCH_ARM64", ("CS_MODE_ARM",)), f"{_PACKAGE}.aarch64", "ENCODINGS")
_RISCV32, _RISCV64 = (
    Architecture(
        ("CS_ARCH_RISCV", (f"CS_MODE_RISCV{bits}", "CS_MODE_RISCVC")),
        f"{_PACKAGE}.riscv",
        f"ENCODINGS{bits}",
    )
    for bits in (32, 64)
)
_ARCHITECTURES = {
    "x86_64": Architecture(
        ("CS_ARCH_X86", ("CS_MODE_64",)), f"{_PACKAGE}.x86_64", reader="mc_instruction"
    ),
    "aarch64": _ARM64,
    # Its instructions are little-endian.
    "aarch64_be": _ARM64,
    "riscv64": _RISCV64,
    "riscv32": _RISCV32,
}
"""By the first part of the target triple."""

LONGEST_INSTRUCTION = 16
"""The maximum length of an instruction on any architecture, in bytes."""


class Decoder:
    """Decodes the instructions of a target.

    Args:
        triple: its target triple.

    Raises:
        UnknownPlaceError: there is no decoder for it.
    """

    def __init__(self, triple: str) -> None:
        name = triple.partition("-")[0]
        architecture = _ARCHITECTURES.get(name)
        if architecture is None:
            raise UnknownPlaceError(f"Instructions of {name} cannot be decoded")
        self._architecture = architecture
        module = importlib.import_module(architecture.module)
        self._encodings: EncodingTable | None = None
        self._read: Callable[[Any], Instruction] = _plain
        if architecture.encodings:
            self._encodings = getattr(module, architecture.encodings)
        if architecture.reader:
            self._read = getattr(module, architecture.reader)

    def decode(self, code: bytes, address: int) -> Instruction | None:
        """The first instruction of some code, or None if the code is invalid.

        Args:
            code: the bytes.
            address: their address.

        Raises:
            UnknownPlaceError: Capstone is needed, and is not installed.
        """
        found = self._encodings.find(code) if self._encodings else None
        if found is not None:
            return Instruction(*found)
        for each in _disassembler(*self._architecture.capstone).disasm(code, address, 1):
            return self._read(each)
        return None


def _plain(instruction: Any) -> Instruction:  # noqa: ANN401 - untyped
    """An instruction of Capstone's, without operands."""
    text = f"{instruction.mnemonic} {instruction.op_str}".strip()
    return Instruction(int(instruction.size), text, None)


@cache
def _disassembler(architecture: str, modes: tuple[str, ...]) -> Any:  # noqa: ANN401 - untyped
    try:
        capstone: Any = importlib.import_module("capstone")
    except ImportError as error:
        raise UnknownPlaceError(
            "Decoding an instruction needs Capstone: pip install 'jitlink[check]'"
        ) from error
    mode = sum(getattr(capstone, each) for each in modes)
    disassembler = capstone.Cs(getattr(capstone, architecture), mode)
    disassembler.detail = True
    return disassembler
