"""The search for inputs, their kinds, and linker scripts."""

import os
import re
from pathlib import Path

import pytest

from jitlink.errors import InputError, UnknownFormatError
from jitlink.library_search import system_directories
from jitlink.tool.libraries import InputCollector, script_files
from jitlink.tool.options import CommandLineError, InputArgument
from tests.tool.command import archive, compile_to, shared_library


@pytest.fixture
def object_file(tmp_path: Path) -> Path:
    return compile_to(tmp_path / "f.o", "int f(void) { return 1; }")


def _collect(*names: str, directories: tuple[Path, ...] = ()) -> InputCollector:
    collector = InputCollector([str(each) for each in directories])
    for name in names:
        kind, rest = ("library", name[2:]) if name.startswith("-l") else ("file", name)
        collector.add(InputArgument("library" if kind == "library" else "file", rest))
    return collector


def _names(collector: InputCollector) -> list[str]:
    return [file.name for file in collector.files]


def _empty_archive(place: Path) -> Path:
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"!<arch>\n")
    return place


def test_first_directory_is_preferred(tmp_path: Path) -> None:
    first = _empty_archive(tmp_path / "first" / "libx.a")
    second = _empty_archive(tmp_path / "second" / "libx.a")
    assert _names(_collect("-lx", directories=(first.parent, second.parent))) == [str(first)]
    assert _names(_collect("-lx", directories=(second.parent, first.parent))) == [str(second)]


def test_order_of_inputs_is_kept(tmp_path: Path, object_file: Path) -> None:
    library = _empty_archive(tmp_path / "libx.a")
    found = _collect("-lx", str(object_file), "-lx", directories=(tmp_path,))
    assert _names(found) == [str(library), str(object_file), str(library)]


def test_static_library_comes_before_shared_one(tmp_path: Path) -> None:
    shared = shared_library(tmp_path / "libx.so", "int x;")
    assert _collect("-lx", directories=(tmp_path,)).dylibs == [str(shared)]
    static = _empty_archive(tmp_path / "libx.a")
    both = _collect("-lx", directories=(tmp_path,))
    assert (_names(both), both.dylibs) == ([str(static)], [])


def test_earlier_shared_library_comes_before_later_static_one(tmp_path: Path) -> None:
    static = _empty_archive(tmp_path / "later" / "libx.a")
    shared = shared_library(tmp_path / "libx.so", "int x;")
    assert _collect("-lx", directories=(tmp_path, static.parent)).dylibs == [str(shared)]


def test_a_process_has_one_c_library(tmp_path: Path) -> None:
    _empty_archive(tmp_path / "libm.a")
    shared = shared_library(tmp_path / "libm.so", "int x;")
    found = _collect("-lm", directories=(tmp_path,))
    assert (_names(found), found.dylibs) == ([], [str(shared)])


def test_libraries_of_the_process_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitlink.library_search.system_directories", list)
    (path,) = _collect("-lc").dylibs
    assert re.search(r"/libc\.so\.\d+$|/ld-musl|/libc\.so$", path)


def test_unknown_library_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(CommandLineError) as caught:
        _collect("-lno-such", directories=(tmp_path,))
    assert caught.value.option == "l"
    assert str(caught.value).startswith(f"-l: no library no-such in {tmp_path}, ")


def test_directory_must_be_one(object_file: Path) -> None:
    with pytest.raises(CommandLineError, match=f"-L: {object_file} is not a directory"):
        _collect(directories=(object_file,))


def test_shared_object_by_name_is_one_of_this_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_library(tmp_path / "libx.so", "int x;")
    monkeypatch.chdir(tmp_path)
    assert _collect("libx.so").dylibs == ["./libx.so"]


def test_system_directories_exist_and_follow_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBRARY_PATH", f"{tmp_path}{os.pathsep}{tmp_path / 'none'}{os.pathsep}")
    directories = system_directories()
    assert directories[0] == str(tmp_path)
    assert str(tmp_path / "none") not in directories
    assert all(Path(each).is_dir() for each in directories)


# Linker scripts


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("GROUP ( a.o b.o )", ["a.o", "b.o"]),
        ("INPUT(a.o,b.o -lm);", ["a.o", "b.o", "-lm"]),
        ("/* GNU ld script */ OUTPUT_FORMAT(elf64-x86-64)\nGROUP(x AS_NEEDED(y))", ["x", "y"]),
        ('INPUT("a b.o")', ["a b.o"]),
        ("INPUT()", []),
        ("INPUT(a) INPUT(b)", ["a", "b"]),
        ("INPUT(GROUP)", ["GROUP"]),
    ],
)
def test_script(text: str, files: list[str]) -> None:
    assert script_files(text, "x") == files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GROUP ( a.o", "x: linker script ends within GROUP"),
        ("GROUP a.o )", "x: linker script has 'GROUP' where no file is named"),
        ("INPUT(a) )", "x: linker script has '\\)' where no file is named"),
        ("INPUT(a ( b ))", "x: linker script has '\\(' where no file is named"),
        ("INPUT(a) SECTIONS { }", "x: linker script has 'SECTIONS' where no file is named"),
        ('INPUT("a', "x: linker script has an open comment or quote"),
    ],
)
def test_unsupported_script(text: str, message: str) -> None:
    with pytest.raises(UnknownFormatError, match=f"^{message}$"):
        script_files(text, "x")


def test_script_stands_for_what_it_names(tmp_path: Path, object_file: Path) -> None:
    library = archive(tmp_path / "liby.a", object_file)
    (tmp_path / "libx.a").write_text("/* short */ GROUP ( liby.a -ly AS_NEEDED ( f.o ) )")
    found = _collect("-lx", str(tmp_path / "libx.a"), directories=(tmp_path,))
    assert _names(found) == [str(library), str(library), str(object_file)] * 2


def test_script_may_not_include_itself(tmp_path: Path) -> None:
    (tmp_path / "libx.so").write_text("INPUT ( -ly )")
    (tmp_path / "liby.a").write_text("INPUT ( libx.so )")
    with pytest.raises(InputError, match=r"libx\.so: the linker script includes itself"):
        _collect("-lx", directories=(tmp_path,))


def test_scripts_of_the_system_are_supported() -> None:
    found = _collect("-lm", "-lc")
    assert found.dylibs
    assert all(file.name.endswith(".a") for file in found.files)


@pytest.mark.parametrize("text", ["int main(void) { return 0; }", "", "GROUPED ( x )", "GROUP"])
def test_other_text_is_left_to_the_reader_of_objects(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert _names(_collect(str(tmp_path / "x"))) == [str(tmp_path / "x")]
