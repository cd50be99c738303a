"""Images as ELF: the file by LLVM's readelf, the tables as a dynamic linker looks names up."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitlink.errors import AllocationError
from jitlink.formats.elf_image import DynamicSymbols, ImageLayout, ProgramHeaders, elf_hash
from jitlink.formats.elf_layout import (
    DT_HASH,
    DT_NULL,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    ELFCLASS32,
    ELFCLASS64,
    Identity,
)
from jitlink.memory.images import ImageSymbols
from tests.toolchain import require, run

X86_64 = Identity(62, ELFCLASS64, "little")
PAGE = 4096
SIZE = 1 << 20
BIAS = 0x7F00_0000_0000


def symbols(
    names: list[str], first: int = BIAS, *, absolute: bool = False, weak: bool = False
) -> ImageSymbols:
    count = len(names)
    addresses = np.arange(count, dtype=np.uint64) * np.uint64(16) + np.uint64(first)
    columns = (np.full(count, value) for value in (True, weak, absolute, False))
    return ImageSymbols(names, addresses, np.full(count, 8, np.uint64), *columns)


class Tables:
    """The tables of an image, and lookups there by the rules of the gABI."""

    def __init__(self, size: int = SIZE, identity: Identity = X86_64) -> None:
        self.layout = ImageLayout(identity, PAGE, size, has_symbols=True)
        self.memory = bytearray(self.layout.tables_size)
        content = self.layout.write(0)[PAGE:]
        self.memory[: len(content)] = content
        self.symbols = DynamicSymbols(self.layout, memoryview(self.memory), BIAS, "soname")
        dynamic = np.frombuffer(self.memory, identity.layout.dynamic, 7)
        tags = dict(zip(dynamic["tag"].tolist(), dynamic["value"].tolist(), strict=True))
        assert tags[DT_NULL] == 0
        self.tags = {tag: value - self.layout.tables for tag, value in tags.items()}
        self.string_size = tags[DT_STRSZ]

    def string(self, offset: int) -> bytes:
        start = self.tags[DT_STRTAB] + offset
        return bytes(self.memory[start : self.memory.index(0, start)])

    @property
    def soname(self) -> bytes:
        """What DT_SONAME says."""
        table = np.frombuffer(self.memory, self.layout.identity.layout.dynamic, 7)
        (offset,) = table["value"][table["tag"] == DT_SONAME].tolist()
        return self.string(offset)

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        """Value, section and binding of a defined symbol."""
        records = self.layout.identity.layout
        words = np.frombuffer(self.memory, records.word, -1, self.tags[DT_HASH])
        buckets, count = words[:2].tolist()
        table = np.frombuffer(self.memory, records.symbol, count, self.tags[DT_SYMTAB])
        row = int(words[2 + elf_hash(name) % buckets])
        while row:
            assert row < count
            value, section = int(table["value"][row]), int(table["shndx"][row])
            is_visible = section and not int(table["other"][row])
            if is_visible and self.string(int(table["name"][row])) == name:
                return value, section, int(table["info"][row]) >> 4
            row = int(words[2 + buckets + row])
        return None


def test_the_file_by_readelf(tmp_path: Path) -> None:
    for address in (0, 0x10000000):
        layout = ImageLayout(X86_64, PAGE, SIZE, has_symbols=True)
        path = tmp_path / "image.so"
        path.write_bytes(layout.write(address))
        printed = run([require("llvm-readelf-22"), "-W", "-h", "-l", "-d", path])
        assert "DYN (Shared object file)" in printed
        rows = re.findall(r"^  (LOAD|NULL|DYNAMIC|GNU_STACK) (.*)$", printed, re.MULTILINE)
        kinds = ["LOAD", "NULL", "NULL", "NULL", "NULL", "LOAD", "DYNAMIC", "GNU_STACK"]
        assert [kind for kind, _ in rows] == kinds
        loads = [row.split() for kind, row in rows if kind == "LOAD"]
        first, last = ([int(word, 16) for word in row[:5]] for row in loads)
        assert first[:2] == [0, address]
        assert last[0] == PAGE
        assert last[1] + last[4] == address + SIZE
        assert [row[5] for row in loads] == ["R", "RW"]
        assert "(SYMTAB)" in printed
        assert "(HASH)" in printed


def test_an_image_without_symbols_has_one_page_of_tables() -> None:
    layout = ImageLayout(X86_64, PAGE, SIZE, has_symbols=False)
    assert layout.tables_size == PAGE
    symbols_of = DynamicSymbols(layout, memoryview(bytearray(PAGE)), BIAS, "soname")
    with pytest.raises(AllocationError, match=r"room for 0 more dynamic symbols"):
        symbols_of.define(symbols(["name"]))


@pytest.mark.parametrize("size", [0, PAGE, 2 * PAGE])
def test_sizes_without_room_for_memory(size: int) -> None:
    with pytest.raises(ValueError, match="too small"):
        ImageLayout(X86_64, PAGE, size, has_symbols=True)


def test_32_bit_images_are_not_written() -> None:
    with pytest.raises(ValueError, match="64-bit"):
        ImageLayout(Identity(3, ELFCLASS32, "little"), PAGE, SIZE, has_symbols=True)


@pytest.mark.parametrize("name", [b"", b"a", b"printf", b"_ZSt4cout", b"\xff" * 40, b"x" * 5000])
def test_the_hash_is_that_of_the_gabi(name: bytes) -> None:
    expected = 0
    for character in name:
        expected = ((expected << 4) + character) & 0xFFFFFFFF
        high = expected & 0xF0000000
        if high:
            expected ^= high >> 24
        expected &= ~high
    assert elf_hash(name) == expected


def test_segments_are_listed_by_their_type_and_size() -> None:
    layout = ImageLayout(X86_64, PAGE, SIZE, has_symbols=True)
    page = bytearray(layout.write(0x1000)[:PAGE])
    headers = ProgramHeaders(layout, memoryview(page), 0x1000)
    rows = np.frombuffer(page, X86_64.layout.program_header, 8, X86_64.layout.header.itemsize)
    assert rows["type"].tolist()[:6] == [1, 0, 0, 0, 0, 1]
    headers.list_segment(1, 0x8000, 0x3000)
    row = rows[2]
    assert (row["type"], row["flags"], row["vaddr"], row["memsz"]) == (1, 5, 0xA000, 0x3000)
    assert row["filesz"] == 0
    headers.list_segment(1, 0x8000, 0x1000)
    assert (row["type"], row["memsz"]) == (1, 0x1000)
    headers.list_segment(1, 0x8000, 0)
    assert (row["type"], row["memsz"]) == (0, 0)
    # A garbage collector does not search the tables.
    assert rows["flags"].tolist()[5:7] == [4, 4]


def test_symbols_that_are_added_removed_and_added_again() -> None:
    tables = Tables()
    first, second = symbols(["one", "two"]), symbols(["three"], BIAS + 0x100, weak=True)
    tables.symbols.define(first)
    assert tables.find(b"one") == (0, 1, 1)
    assert tables.find(b"two") == (16, 1, 1)
    assert tables.find(b"three") is None
    tables.symbols.define(second)
    assert tables.find(b"three") == (0x100, 1, 2)
    tables.symbols.remove(first)
    assert tables.find(b"one") is None
    assert tables.find(b"three") == (0x100, 1, 2)
    tables.symbols.define(symbols(["one"], BIAS + 0x300))
    assert tables.find(b"one") == (0x300, 1, 1)
    # The place of the name is used again.
    assert tables.symbols.count == 4
    assert tables.soname == b"soname"


def test_a_removed_symbol_keeps_its_place() -> None:
    """A lookup on another thread, which has found it already, gets the address that it had."""
    tables = Tables()
    tables.symbols.define(symbols(["one"], BIAS + 0x100))
    table = np.frombuffer(tables.memory, X86_64.layout.symbol, 2, tables.tags[DT_SYMTAB])
    before = table.copy()
    tables.symbols.remove(symbols(["one"], BIAS + 0x100))
    assert tables.find(b"one") is None
    changed = [name for name in table.dtype.names or () if (table[name] != before[name]).any()]
    assert changed == ["other"]


def test_the_first_definition_of_a_name_prevails_until_it_is_removed() -> None:
    tables = Tables()
    first, second = symbols(["name", "name"]), symbols(["name"], BIAS + 0x100)
    tables.symbols.define(first)
    tables.symbols.define(second)
    assert tables.find(b"name") == (0, 1, 1)
    tables.symbols.remove(second)
    assert tables.find(b"name") == (0, 1, 1)
    tables.symbols.remove(first)
    assert tables.find(b"name") is None


def test_absolute_symbols_are_not_relocated() -> None:
    tables = Tables()
    tables.symbols.define(symbols(["five"], 5, absolute=True))
    assert tables.find(b"five") == (5, 0xFFF1, 1)


def test_names_of_any_bytes() -> None:
    tables = Tables()
    names = ["n" * 100_000, "\udcff\udc80", "größe", "has\0null"]
    tables.symbols.define(symbols(names))
    assert tables.find(b"n" * 100_000) == (0, 1, 1)
    assert tables.find(b"\xff\x80") == (16, 1, 1)
    assert tables.find("größe".encode()) == (32, 1, 1)
    assert tables.find(b"has") is None


def test_no_more_symbols_or_names_than_there_is_room_for() -> None:
    tables = Tables()
    limit = tables.layout.symbol_limit - 1
    tables.symbols.define(symbols([f"s{n}" for n in range(limit - 1)]))
    with pytest.raises(AllocationError, match=r"room for 1 more .* not for 2 and 8 bytes"):
        tables.symbols.define(symbols(["one", "two"]))
    assert tables.find(b"one") is None
    tables.symbols.define(symbols(["one"]))
    assert tables.find(b"one") == (0, 1, 1)
    assert tables.find(f"s{limit - 2}".encode()) == (16 * (limit - 2), 1, 1)
    others = Tables()
    with pytest.raises(AllocationError, match="bytes of their names"):
        others.symbols.define(symbols(["x" * others.layout.string_limit]))


def test_other_byte_orders() -> None:
    tables = Tables(identity=Identity(22, ELFCLASS64, "big"))
    tables.symbols.define(symbols(["one", "two"]))
    assert tables.find(b"two") == (16, 1, 1)


@given(st.lists(st.lists(st.text(max_size=20))))
def test_every_name_is_found(batches: list[list[str]]) -> None:
    tables = Tables()
    expected: dict[str, int] = {}
    for number, names in enumerate(batches):
        start = BIAS + 0x10000 * (number + 1)
        tables.symbols.define(symbols(names, start))
        for index, name in enumerate(names):
            if "\0" not in name:
                expected.setdefault(name, start + 16 * index - BIAS)
    for name, value in expected.items():
        assert tables.find(name.encode()) == (value, 1, 1)
    assert tables.symbols.count == len(expected) + 1
