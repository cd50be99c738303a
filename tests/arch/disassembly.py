"""Disassembly by llvm-mc."""

import re
from pathlib import Path

from tests.toolchain import require, run


def disassemble(code: bytes, directory: Path, triple: str = "x86_64") -> list[str]:
    """The instructions of code, those of x86-64 in AT&T syntax, with single spaces."""
    source = directory / "code.txt"
    source.write_text(" ".join(f"{byte:#04x}" for byte in code))
    command: list[str | Path] = [
        require("llvm-mc-22"),
        "--disassemble",
        f"--triple={triple}",
        source,
    ]
    lines = [line.split("#")[0].strip() for line in run(command).splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line and not line.startswith(".")]
