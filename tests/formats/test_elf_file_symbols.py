"""Symbols of shared objects in files, by address."""

import ctypes
from pathlib import Path

import pytest

from jitlink.errors import ObjectError
from jitlink.executor.code_map import LibraryFiles
from jitlink.formats.elf_file_symbols import FileSymbols
from jitlink.memory.mapping import mapped_ranges
from tests.mutations import Region, mutants
from tests.toolchain import compile_c, run, zig_command

SOURCE = """
__attribute__((visibility("hidden"), noinline)) int hidden(int x) { return x + 1; }
static __attribute__((noinline)) int local(int x) { return hidden(x) * 3; }
int data[4] = {1};
int function(int x) { return local(x) + data[0]; }
"""
NAMES = ("printf", "qsort", "malloc", "getenv", "puts")


def test_functions_of_this_process() -> None:
    files, process = LibraryFiles(mapped_ranges()), ctypes.CDLL(None)
    for name in NAMES:
        address = ctypes.cast(process[name], ctypes.c_void_p).value
        assert address is not None
        for offset in (0, 1, 5):
            found = files.describe(address + offset)
            assert found.offset == offset
            # The C library has several names for some functions.
            assert name in found.symbol
            assert "libc" in found.file


def _shared(place: Path, *flags: str) -> bytes:
    linked = compile_c(SOURCE, "gcc", ("-O1", "-fPIC"))
    path = place / "lib.so"
    run([*zig_command("ld.lld"), "-shared", *flags, linked, "-o", path])
    return path.read_bytes()


@pytest.mark.parametrize("is_stripped", [False, True])
def test_hidden_functions(is_stripped: bool, tmp_path: Path) -> None:
    data = _shared(tmp_path, *(["-s"] if is_stripped else []))
    symbols = FileSymbols(memoryview(data), "lib.so")
    names = {symbol.name for n in range(1 << 14) if (symbol := symbols.find(n)) is not None}
    expected = {"function", "data"} if is_stripped else {"function", "data", "hidden", "local"}
    assert names >= {"function", "data"}
    assert names & {"function", "data", "hidden", "local"} == expected


def test_damaged_files(tmp_path: Path) -> None:
    whole = _shared(tmp_path)
    headers = int.from_bytes(whole[40:48], "little")
    regions = [Region(0, 64, 2), Region(headers, len(whole) - headers, 2), Region(0, headers, 1)]
    for size in (*range(0, len(whole), 37), 3, 63, 64):
        with pytest.raises(ObjectError):
            FileSymbols(memoryview(whole[:size]), "lib.so")
    for mutant in mutants(whole, regions, 2000):
        try:
            symbols = FileSymbols(memoryview(mutant), "lib.so")
        except ObjectError:
            continue
        for place in (0, 0x1000, (1 << 64) - 1):
            symbols.find(place)
            symbols.address_of(place)
