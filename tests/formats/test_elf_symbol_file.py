"""Symbol files, read back by other tools."""

from pathlib import Path

import numpy as np
import pytest

from jitlink.formats.elf_layout import ELFCLASS64, Identity
from jitlink.formats.elf_symbol_file import write_symbol_file
from jitlink.memory.images import ImageSymbols
from tests.toolchain import require, run

BIAS = 0x7F00_0000_0000


def symbols(*names: str) -> ImageSymbols:
    count = len(names)
    addresses = np.arange(count, dtype=np.uint64) * np.uint64(16) + np.uint64(BIAS + 0x1000)
    is_callable = np.arange(count) % 2 == 0
    no = np.zeros(count, bool)
    return ImageSymbols(names, addresses, np.full(count, 8, np.uint64), is_callable, no, no, no)


@pytest.mark.parametrize(
    "identity", [Identity(62, ELFCLASS64, "little"), Identity(22, ELFCLASS64, "big")]
)
def test_symbols(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "symbols"
    path.write_bytes(write_symbol_file(identity, symbols("one", "zwölf", "has\0null"), BIAS))
    printed = run([require("llvm-readelf-22"), "-W", "-s", "-S", path])
    rows = [line.split() for line in printed.splitlines() if "GLOBAL" in line]
    assert [(int(row[1], 16), *row[2:4], row[-1]) for row in rows] == [
        (0x1000, "8", "FUNC", "one"),
        (0x1010, "8", "OBJECT", "zwölf"),
        (0x1020, "8", "FUNC", "has?null"),
    ]
    # The section has all of all symbols, and nothing else.
    (text,) = (line.split() for line in printed.splitlines() if " .text " in line)
    assert [int(word, 16) for word in (text[4], text[6])] == [0x1000, 0x28]
    for section in (".text", ".symtab", ".strtab", ".shstrtab"):
        assert section in printed


def test_no_symbols(tmp_path: Path) -> None:
    path = tmp_path / "symbols"
    path.write_bytes(write_symbol_file(Identity(62, ELFCLASS64, "little"), symbols(), BIAS))
    assert "GLOBAL" not in run([require("llvm-readelf-22"), "-W", "-s", path])
