"""Symbols of shared objects in files, by address."""

import ctypes
import os
from functools import partial
from pathlib import Path

import pytest

from jitlink.errors import ObjectError
from jitlink.executor.code_map import CodeLocation, LibraryFiles
from jitlink.formats.elf_file_symbols import FileSymbols
from jitlink.memory.mapping import MappedRange, mapped_ranges
from tests.mutations import Region, mutants
from tests.toolchain import compile_c, run, zig_command

SOURCE = """
__attribute__((visibility("hidden"), noinline)) int hidden(int x) { return x + 1; }
static __attribute__((noinline)) int local(int x) { return hidden(x) * 3; }
int data[4] = {1};
int function(int x) { return local(x) + data[0]; }
"""
SYMBOL_TABLES = (2, 11)
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


def _read(data: bytes, start: int, size: int) -> bytes:
    return data[start : start + size]


def _symbols_of(data: bytes) -> FileSymbols:
    return FileSymbols(partial(_read, data), len(data), "lib.so")


def _shared(place: Path, *flags: str) -> bytes:
    linked = compile_c(SOURCE, "gcc", ("-O1", "-fPIC"))
    path = place / "lib.so"
    run([*zig_command("ld.lld"), "-shared", *flags, linked, "-o", path])
    return path.read_bytes()


@pytest.mark.parametrize("is_stripped", [False, True])
def test_hidden_functions(is_stripped: bool, tmp_path: Path) -> None:
    data = _shared(tmp_path, *(["-s"] if is_stripped else []))
    symbols = _symbols_of(data)
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
            _symbols_of(whole[:size])
    for mutant in mutants(whole, regions, 2000):
        try:
            symbols = _symbols_of(mutant)
        except ObjectError:
            continue
        for place in (0, 0x1000, (1 << 64) - 1):
            symbols.find(place)
            if (address := symbols.address_of(place)) is not None:
                symbols.find(address)


def test_a_file_that_is_truncated_meanwhile(tmp_path: Path) -> None:
    whole = _shared(tmp_path)
    for size in (63, 64, 1 << 10, len(whole) - 1):
        with pytest.raises(ObjectError, match="it was truncated"):
            FileSymbols(partial(_read, whole[:size]), len(whole), "lib.so")


def test_tables_with_holes(tmp_path: Path) -> None:
    whole = bytearray(_shared(tmp_path))
    start, count = int.from_bytes(whole[40:48], "little"), int.from_bytes(whole[60:62], "little")
    for section in range(start, start + 64 * count, 64):
        if whole[section + 4] in SYMBOL_TABLES:
            whole[section + 32 : section + 40] = (24 << 40).to_bytes(8, "little")
    with pytest.raises(ObjectError, match="more than the limit"):
        FileSymbols(partial(_read, bytes(whole)), 1 << 50, "lib.so")


def test_addresses_wrap(tmp_path: Path) -> None:
    """A segment whose addresses end beyond the address space is one of a file all the same."""
    whole = bytearray(_shared(tmp_path))
    start, count = int.from_bytes(whole[32:40], "little"), int.from_bytes(whole[56:58], "little")
    for segment in range(start, start + 56 * count, 56):
        whole[segment + 16 : segment + 24] = b"\xff" * 8
    symbols = _symbols_of(bytes(whole))
    address = symbols.address_of(16)
    assert address == 15
    symbols.find(address)


@pytest.mark.parametrize("kind", ["directory", "device", "pipe", "missing", "null"])
def test_what_is_no_regular_file_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = {"directory": str(tmp_path), "device": "/dev/null", "pipe": str(tmp_path / "pipe")}
    paths |= {"missing": "/missing", "null": "/a\0b"}
    monkeypatch.setattr(os, "open", None)
    files = LibraryFiles([MappedRange(0x1000, 0x2000, "r-xp", paths[kind])])
    assert files.describe(0x1010) == CodeLocation(0x1010, offset=0x10, file=paths[kind])
