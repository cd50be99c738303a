"""TLS modules, read back by LLVM's readelf."""

import re
from pathlib import Path

import pytest

from jitlink.formats.elf_layout import ELFCLASS64, Identity
from jitlink.formats.elf_tls_module import AARCH64, AARCH64_BE, RISCV32, RISCV64, TLSModuleFormat
from jitlink.memory.tls_module import (
    UNDEFINED_SYMBOL,
    TLSModuleSpec,
    TLSRelocation,
    TLSSymbol,
    TLSValue,
)
from jitlink.targets.elf_x86_64 import TLS_EDGE_KINDS
from tests.toolchain import require, run

V = TLSValue
RELOCATIONS = (
    TLSRelocation(V.DTPMOD),
    TLSRelocation(V.DTPOFF, "", 8),
    TLSRelocation(V.TPOFF, "variable", -16),
    TLSRelocation(V.TLSDESC, "other", 4),
    TLSRelocation(V.DTPMOD, UNDEFINED_SYMBOL),
)
AARCH64_TYPES = ("TLS_DTPMOD64", "TLS_DTPREL64", "TLS_TPREL64", "TLSDESC", "TLS_DTPMOD64")


def readelf(place: Path, content: bytes, *options: str) -> str:
    path = place / "module.so"
    path.write_bytes(content)
    return run([require("llvm-readelf-22"), "-W", *options, path])


def test_exported_variables(tmp_path: Path) -> None:
    exported = [TLSSymbol("first", 0, 4), TLSSymbol("größe", 96, 8)]
    spec = TLSModuleSpec("name", b"content", 104, 8, RELOCATIONS, symbols=exported)
    symbols = readelf(tmp_path, TLS_EDGE_KINDS.abi.write_module(spec), "--dyn-syms")
    for name, offset, size in exported:
        row = rf"{offset:016x} +{size} TLS +GLOBAL DEFAULT +1 {name}"
        assert re.search(row, symbols)
    assert "UND variable" in symbols


def test_relocations_and_their_symbols(tmp_path: Path) -> None:
    spec = TLSModuleSpec("name", b"content", 100, 8, RELOCATIONS, ("needed",))
    content = TLS_EDGE_KINDS.abi.write_module(spec)
    printed = readelf(tmp_path, content, "--dyn-relocations")
    rows = re.findall(r"^([0-9a-f]+) +[0-9a-f]+ (R_\S+) +(.*)$", printed, re.MULTILINE)
    first = int(rows[0][0], 16)
    assert [(int(place, 16) - first, kind) for place, kind, _ in rows] == [
        (0, "R_X86_64_DTPMOD64"),
        (8, "R_X86_64_DTPOFF64"),
        (16, "R_X86_64_TPOFF64"),
        (24, "R_X86_64_TLSDESC"),
        (40, "R_X86_64_DTPMOD64"),
    ]
    assert [re.sub(r"^0+\b ", "", rest).strip() for _, _, rest in rows] == [
        "0",
        "8",
        "variable - 10",
        "other + 4",
        f"{UNDEFINED_SYMBOL} + 0",
    ]
    symbols = readelf(tmp_path, content, "--dyn-syms")
    for line in ("100 TLS     GLOBAL DEFAULT     1 name", "0 TLS     GLOBAL DEFAULT   UND variable",
                 f"0 TLS     WEAK   DEFAULT   UND {UNDEFINED_SYMBOL}",
                 "48 OBJECT  GLOBAL DEFAULT     1 jitlink_tls_values"):  # fmt: skip
        assert line in symbols
    dynamic = readelf(tmp_path, content, "-d")
    assert "Shared library: [needed]" in dynamic
    assert "Library soname: [name]" in dynamic


@pytest.mark.parametrize(("form", "order"), [(AARCH64, "little"), (AARCH64_BE, "big")])
def test_modules_for_aarch64(form: TLSModuleFormat, order: str, tmp_path: Path) -> None:
    content = form.write(TLSModuleSpec("name", b"content", 100, 8, RELOCATIONS))
    header = readelf(tmp_path, content, "--file-header", "--segments", "--dyn-relocations")
    assert re.search("Machine: +AArch64", header)
    assert f"2's complement, {order} endian" in header
    assert {line.split()[-1] for line in header.splitlines() if " LOAD " in line} == {"0x10000"}
    kinds = re.findall(r"R_AARCH64_\S+", header)
    assert kinds == [f"R_AARCH64_{each}" for each in AARCH64_TYPES]


@pytest.mark.parametrize("alignment", [1, 2, 8, 64, 4096, 1 << 14, 1 << 21, 1 << 29])
@pytest.mark.parametrize("content", [b"", b"x" * 9, b"y" * 10_000])
def test_segments_of_any_alignment(alignment: int, content: bytes, tmp_path: Path) -> None:
    size = len(content) + 50
    data = TLS_EDGE_KINDS.abi.write_module(
        TLSModuleSpec("name", content, size, alignment, RELOCATIONS[:1])
    )
    # Neither zeros nor the gap before an aligned address take space.
    assert len(data) < len(content) + 0x2000
    printed = readelf(tmp_path, data, "-l")
    rows = {
        line.split()[0]: [int(each, 16) for each in line.split() if each.startswith("0x")]
        for line in printed.splitlines()
        if line.split()[:1] in (["TLS"], ["LOAD"])
    }
    offset, address, _, file_size, memory_size, wanted = rows["TLS"]
    assert (file_size, memory_size, wanted) == (len(content), size, alignment)
    assert address % alignment == 0
    assert data[offset : offset + file_size] == content
    load_offset, load_address, _, load_size, _, page = rows["LOAD"]
    assert (load_offset, load_size) == (0, len(data))
    assert load_address % page == 0
    assert address - offset == load_address


def test_modules_without_a_tls_block(tmp_path: Path) -> None:
    printed = readelf(
        tmp_path,
        TLS_EDGE_KINDS.abi.write_module(TLSModuleSpec("name", relocations=RELOCATIONS[2:])),
        "-l",
    )
    assert "TLS" not in printed
    assert "GNU_STACK" in printed
    assert "RWE" not in printed


def test_modules_of_other_byte_orders_and_classes(tmp_path: Path) -> None:
    types = {V.DTPMOD: 1}
    big = TLSModuleFormat(Identity(22, ELFCLASS64, "big"), 0x1000, types)
    printed = readelf(tmp_path, big.write(TLSModuleSpec("name", b"1", 8, 8, RELOCATIONS[:1])), "-h")
    assert "2's complement, big endian" in printed


@pytest.mark.parametrize(("form", "bits", "float_abi"), [(RISCV64, 64, 4), (RISCV32, 32, 0)])
def test_modules_for_risc_v(
    form: TLSModuleFormat, bits: int, float_abi: int, tmp_path: Path
) -> None:
    relocations = [each for each in RELOCATIONS if each.value is not V.TLSDESC]
    spec = TLSModuleSpec("name", b"content", 100, 8, relocations)
    printed = readelf(
        tmp_path, form.write(spec, float_abi), "-h", "--dyn-relocations", "--segments"
    )
    assert re.search(f"Class: +ELF{bits}", printed)
    assert re.search("Machine: +RISC-V", printed)
    assert re.search(rf"Flags: +{float_abi:#x}", printed)
    rows = re.findall(r"^([0-9a-f]+) +[0-9a-f]+ (R_\S+)", printed, re.MULTILINE)
    types = [f"R_RISCV_TLS_{each}{bits}" for each in ("DTPMOD", "DTPREL", "TPREL", "DTPMOD")]
    assert [kind for _, kind in rows] == types
    places = [int(place, 16) for place, _ in rows]
    assert places == [places[0] + bits // 8 * n for n in range(4)]
