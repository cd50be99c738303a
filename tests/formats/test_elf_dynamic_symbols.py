"""Dynamic symbols of shared objects in files, looked up by name."""

import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from jitlink.errors import ObjectError
from jitlink.executor.shared_libraries import find_library
from jitlink.formats.elf_dynamic_symbols import DynamicSymbols
from jitlink.memory.mapping import mapped_ranges
from tests.mutations import Region, elf_regions, mutants
from tests.toolchain import compile_c, require, run, zig_command

SOURCE = """
int function(void) { return 1; }
int data = 2;
__attribute__((weak)) int weak(void) { return 3; }
__attribute__((visibility("hidden"))) int hidden(void) { return 4; }
static int local(void) { return 5; }
int outside(void);
int user(void) { return outside() + local() + hidden(); }
"""
DEFINED = ("function", "data", "weak", "user")
OTHERS = ("hidden", "local", "outside", "absent", "functio", "function_", "")
TARGETS = (
    "x86_64-linux-gnu",
    "aarch64_be-linux-gnu",
    "riscv64-linux-gnu",
    "x86-linux-gnu",
    "powerpc-linux-gnueabi",
)


def _shared(place: Path, style: str, target: str = "x86_64-linux-gnu") -> bytes:
    linked = compile_c(SOURCE, "zig", ("-O1", "-fPIC"), target=target)
    path = place / "lib.so"
    run([*zig_command("ld.lld"), "-shared", f"--hash-style={style}", linked, "-o", path])
    return path.read_bytes()


@cache
def _kept(style: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        return _shared(Path(place), style)


@pytest.mark.parametrize("style", ["gnu", "sysv"])
@pytest.mark.parametrize("target", TARGETS)
def test_names_by_both_hash_tables(style: str, target: str, tmp_path: Path) -> None:
    symbols = DynamicSymbols(memoryview(_shared(tmp_path, style, target)), "lib.so")
    assert [name for name in (*DEFINED, *OTHERS) if symbols.defines(name)] == list(DEFINED)


def _loaded(prefix: str) -> Path:
    paths = {Path(each.path) for each in mapped_ranges()}
    return next(each for each in sorted(paths) if each.name.startswith(prefix))


def test_all_symbols_of_the_c_library() -> None:
    assert find_library("c")
    path = _loaded("libc.so")
    listed = subprocess.run(
        [require("nm"), "-D", "--defined-only", path], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    names = {row[-1].partition("@")[0] for row in rows if row[-2] != "A"}
    symbols = DynamicSymbols(memoryview(path.read_bytes()), str(path))
    assert len(names) > 2000
    assert [name for name in sorted(names) if not symbols.defines(name)] == []
    assert not any(symbols.defines(f"{name}_jitlink") for name in names)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF", b"!<arch>\n", b"\x7fELF\2\1\1" + bytes(9) + b"\3\0", bytes(4096)],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ObjectError):
        DynamicSymbols(memoryview(data), "lib.so")
    relocatable = compile_c(SOURCE).read_bytes()
    with pytest.raises(ObjectError, match="not a shared object"):
        DynamicSymbols(memoryview(relocatable), "a.o")


def _look_up(data: bytes) -> bool:
    """Whether look-ups in a hostile file end without an error."""
    try:
        symbols = DynamicSymbols(memoryview(data), "lib.so")
        for name in (*DEFINED, *OTHERS):
            symbols.defines(name)
    except ObjectError:
        return False
    return True


@pytest.mark.parametrize("style", ["gnu", "sysv"])
def test_mutants_and_truncations(style: str) -> None:
    data = _kept(style)
    (phnum,) = struct.unpack_from("<H", data, 56)
    sections = [each for each in elf_regions(data) if each.start + each.size <= len(data)]
    # Of the file, the tables are little.
    regions = [*sections, Region(64, 56 * phnum, 40), Region(64, 1024, 80)]
    outcomes = [_look_up(mutant) for mutant in mutants(data, regions, 2000)]
    assert {*outcomes} == {True, False}
    cuts = [_look_up(data[:size]) for size in range(0, len(data), 8)]
    assert not all(cuts)


def _section(data: bytes | bytearray, number: int) -> tuple[int, int]:
    """Position and size of the section of a type."""
    shoff, shnum = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    rows = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + 64 * n) for n in range(shnum)]
    row = next(row for row in rows if row[1] == number)
    return row[4], row[5]


def test_cyclic_chains() -> None:
    data = bytearray(_kept("sysv"))
    start, _ = _section(data, 5)
    buckets, count = struct.unpack_from("<II", data, start)
    for row in range(count):
        # Every chain leads to the same symbol for ever.
        struct.pack_into("<I", data, start + 8 + 4 * (buckets + row), 1)
    assert not DynamicSymbols(memoryview(data), "lib.so").defines("absent")


def test_chains_without_an_end() -> None:
    data = bytearray(_kept("gnu"))
    start, size = _section(data, 0x6FFFFFF6)
    buckets, _, words, _ = struct.unpack_from("<IIII", data, start)
    chains = start + 16 + 8 * words + 4 * buckets
    data[start + 16 : start + 16 + 8 * words] = b"\xff" * (8 * words)
    data[chains : start + size] = bytes(start + size - chains)
    padded = bytes(data) + bytes(1 << 16)
    assert not DynamicSymbols(memoryview(padded), "lib.so").defines("function")
