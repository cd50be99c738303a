"""Shared objects without code, read back by LLVM's readelf."""

import re
from pathlib import Path

import pytest

from jitlink.formats.elf_layout import (
    ELFCLASS32,
    ELFCLASS64,
    PF_R,
    PF_W,
    PF_X,
    SHN_ABS,
    STT_FUNC,
    Identity,
)
from jitlink.formats.elf_shared_object import Relocation, SharedObject, Symbol, write_shared_object
from tests.toolchain import require, run

X86_64 = Identity(62, ELFCLASS64, "little")


def readelf(place: Path, contents: SharedObject, *options: str) -> str:
    path = place / "library.so"
    path.write_bytes(write_shared_object(X86_64, contents))
    return run([require("llvm-readelf-22"), "-W", *options, path])


def test_functions_are_absolute_symbols(tmp_path: Path) -> None:
    functions = {"PyInit_a": 0x7FFF12345678, "PyInit_b": 0x1000}
    symbols = [Symbol(name, STT_FUNC, section=SHN_ABS, value=v) for name, v in functions.items()]
    printed = readelf(tmp_path, SharedObject("/a/name.o", symbols=symbols), "--dyn-syms", "-d")
    assert "00007fff12345678     0 FUNC    GLOBAL DEFAULT   ABS PyInit_a" in printed
    assert "0000000000001000     0 FUNC    GLOBAL DEFAULT   ABS PyInit_b" in printed
    assert "Library soname: [/a/name.o]" in printed
    # Without relocations there is no table of them.
    assert "RELA" not in printed


def test_dependencies_in_their_order(tmp_path: Path) -> None:
    printed = readelf(tmp_path, SharedObject("scope", ["first", "größe", "second"]), "-d")
    needed = [line.split("[")[1] for line in printed.splitlines() if "NEEDED" in line]
    assert needed == ["first]", "größe]", "second]"]


@pytest.mark.parametrize(("access", "printed"), [(PF_R | PF_W, "RW"), (PF_R | PF_W | PF_X, "RWE")])
def test_access_to_stacks(access: int, printed: str, tmp_path: Path) -> None:
    segments = readelf(tmp_path, SharedObject("name", stack_access=access), "-l")
    (row,) = (line.split() for line in segments.splitlines() if "GNU_STACK" in line)
    assert row[6] == printed


def test_32_bit_shared_objects(tmp_path: Path) -> None:
    path = tmp_path / "name.so"
    contents = SharedObject("name", ["first"], [Symbol("weak", 1, 2)], 4, [Relocation(0, 1, 0, -4)])
    path.write_bytes(write_shared_object(Identity(243, ELFCLASS32, "little"), contents))
    printed = run([require("llvm-readelf-22"), "-h", "-d", "--dyn-relocations", path])
    assert re.search("Class: +ELF32", printed)
    assert re.search(r"R_RISCV_32 +00000000 +weak - 4", printed)
    assert "[first]" in printed
