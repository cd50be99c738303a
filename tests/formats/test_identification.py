"""Files that are no inputs are named for what they are, with what to do about them."""

from __future__ import annotations

from pathlib import Path

import pytest

import jitlink
from jitlink.errors import InputError, UnknownFormatError, UnsupportedObjectError
from jitlink.formats.identification import describe, describe_elf_type
from jitlink.tool.main import main
from tests.toolchain import compile_c, require, run

SOURCE = "int main(void) { return 0; }\n"


def refused(path: Path, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        jitlink.load(path)
    assert caught.value.file == str(path)
    with jitlink.LLJIT() as jit, pytest.raises(kind, match=message):
        jit.add_object(path)


def compiled(place: Path, *command: str | Path) -> Path:
    source = place.with_suffix(".c")
    source.write_text(SOURCE)
    run([*command, source, "-o", place])
    return place


def test_llvm_bitcode(tmp_path: Path, clang: Path) -> None:
    place = compiled(tmp_path / "bitcode.o", clang, "-flto", "-c")
    refused(place, UnknownFormatError, "LLVM bitcode, not machine code: compile it without -flto")


def test_slim_lto_objects(tmp_path: Path, gcc: Path) -> None:
    slim = compiled(tmp_path / "slim.o", gcc, "-flto", "-c")
    refused(slim, UnsupportedObjectError, "compile it without -flto, or with -ffat-lto-objects")
    fat = compiled(tmp_path / "fat.o", gcc, "-flto", "-ffat-lto-objects", "-c")
    with jitlink.load(fat) as lib:
        assert lib.main() == 0
    # Of several the right one is named.
    with pytest.raises(UnsupportedObjectError) as caught:
        jitlink.load(fat, compile_c("int f(void) { return 1; }"), slim)
    assert caught.value.file == str(slim)


@pytest.mark.parametrize(
    "target", ["x86_64-apple-darwin", "x86_64-pc-windows-msvc", "aarch64-windows"]
)
def test_objects_of_other_systems(tmp_path: Path, clang: Path, target: str) -> None:
    place = compiled(tmp_path / "other.o", clang, f"--target={target}", "-c")
    kind = "Mach-O file" if "darwin" in target else "COFF object"
    refused(place, UnknownFormatError, f"a {kind}, which is not supported")


def test_programs_and_libraries(tmp_path: Path, gcc: Path) -> None:
    refused(
        compiled(tmp_path / "libx.so", gcc, "-shared", "-fPIC"),
        UnsupportedObjectError,
        "a shared library or an executable, .*CDLL",
    )
    refused(compiled(tmp_path / "pie", gcc), UnsupportedObjectError, "a shared library or an exec")
    refused(
        compiled(tmp_path / "program", gcc, "-no-pie"), UnsupportedObjectError, "an executable, not"
    )


def test_texts(tmp_path: Path) -> None:
    place = tmp_path / "source.c"
    for text in (SOURCE, "// " + 600 * "ü", "ü" * 255 + " ü" * 10):
        place.write_text(text)
        refused(place, UnknownFormatError, "a text file, .*: source code must be compiled first")
    place.write_text("#!/bin/sh\n")
    refused(place, UnknownFormatError, "a script")
    place.write_bytes(b"")
    refused(place, UnknownFormatError, "an empty file")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "source.c"
    place.write_text(SOURCE)
    assert main([str(place)]) == 1
    expected = (
        f"jitlink: error: {place}: a text file, not a relocatable object: source code must be"
    )
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\0asm\1\0\0\0", "a WebAssembly module"),
        (b"MZ\x90\0", "a Windows program"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\xff\xfe\0\1", "not an object file of a known format"),
        (b"\x80", "not an object file of a known format"),
        (b"text\0", "not an object file of a known format"),
    ],
)
def test_other_files(data: bytes, text: str) -> None:
    assert describe(memoryview(data)).startswith(text)


def test_other_elf_types() -> None:
    assert describe_elf_type(4) == "a core file, not a relocatable object"
    assert describe_elf_type(0) == "an ELF file of type 0, not a relocatable object"


def test_members_of_archives(tmp_path: Path, gcc: Path) -> None:
    slim = compiled(tmp_path / "slim.o", gcc, "-flto", "-c")
    archive = tmp_path / "libslim.a"
    run([require("ar"), "rcS", archive, slim])
    with pytest.raises(UnsupportedObjectError, match=r"libslim.a\(slim.o\): has GCC's"):
        jitlink.load(archive, all_load=True)
