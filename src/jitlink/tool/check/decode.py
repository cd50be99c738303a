"""Instructions as LLVM's MC layer sees them: how long they are, and their numbered operands.

Of each architecture a module says what its instructions' operands are. Those of AArch64 and
RISC-V are tables of encodings, which need nothing else; everything else, and x86-64, is decoded
with Capstone, which is imported when it is needed.

LLVM differs: operands are known of the instructions that relocated code is made of, not of all.
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
"""The operands of an instruction: a number, or None for one that is no immediate."""


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        size: its length in bytes.
        text: what it is, for people.
        operands: its operands as LLVM's MCInst numbers them; None if they are not known.
    """

    size: int
    text: str
    operands: Operands | None

    def known_operands(self) -> Operands:
        """Its operands.

        Raises:
            UnknownPlaceError: they are not known.
        """
        if self.operands is None:
            raise UnknownPlaceError(f"The operands of '{self.text}' are not known")
        return self.operands


class Architecture(NamedTuple):
    """How the instructions of an architecture are decoded.

    Attributes:
        capstone: names of Capstone's architecture and of its modes.
        module: the module that knows its operands.
        encodings: name of the table of its instructions there, or None.
        reader: name of the function there that makes sense of what Capstone says, or None.
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
    # Instructions are little-endian there, too.
    "aarch64_be": _ARM64,
    "riscv64": _RISCV64,
    "riscv32": _RISCV32,
}
"""By the first part of the target triple."""

LONGEST_INSTRUCTION = 16
"""No architecture has longer ones, in bytes."""


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
        """The first instruction of some code, or None if it is none.

        Args:
            code: the bytes.
            address: where they are.

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
    """An instruction of Capstone's that is in no table."""
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
