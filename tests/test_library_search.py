"""Which libraries of this machine define undefined symbols, and what errors say of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink import library_search
from jitlink.errors import DefiningLibrary, UndefinedSymbolError
from jitlink.library_search import LibrarySearch
from jitlink.lljit import LLJIT
from tests.mutations import archive_regions, mutants
from tests.tool.command import Done, archive, error, shared_library, spawn
from tests.toolchain import HOST_TARGET, MACHINE, compile_c, run, zig_command

OTHER_MACHINE = "x86_64" if MACHINE == "aarch64" else "aarch64"
HERE, ELSEWHERE = f"{MACHINE}-unknown-linux-gnu", f"{OTHER_MACHINE}-unknown-linux-gnu"
SOURCE = "int searched_{0}(void) {{ return 1; }} int searched_all(void) {{ return 2; }}"
CALLER = "int searched_one(void); int main(void) { return searched_one(); }"


@pytest.fixture(autouse=True)
def _no_other_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIBRARY_PATH", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)


def _source(name: str) -> str:
    return SOURCE.format(name)


def _archive(place: Path, name: str = "one", target: str = HOST_TARGET) -> Path:
    return archive(place, compile_c(_source(name), target=target))


def _found(place: Path, *names: str, triple: str = HERE) -> dict[str, list[tuple[str, str]]]:
    """Base names and options of what is found, by name."""
    found = LibrarySearch(triple, (str(place),))(names or ("searched_one",))
    return {
        name: [(Path(each.path).name, each.option) for each in those]
        for name, those in found.items()
    }


def test_shared_and_static_libraries(tmp_path: Path) -> None:
    shared_library(tmp_path / "libshared.so", _source("shared"))
    shared_library(tmp_path / "libversion.so.2.1", _source("version"))
    shared_library(tmp_path / "module.so", _source("module"))
    _archive(tmp_path / "libstatic.a", "static")
    names = [f"searched_{each}" for each in ("shared", "version", "module", "static", "none")]
    assert _found(tmp_path, *names) == {
        "searched_shared": [("libshared.so", "-lshared")],
        "searched_version": [("libversion.so.2.1", "")],
        "searched_static": [("libstatic.a", "-lstatic")],
    }


def test_what_the_option_finds(tmp_path: Path) -> None:
    # The archive precedes, as for the command; it has only one of the names.
    shared_library(tmp_path / "libboth.so", _source("one"))
    archive(tmp_path / "libboth.a", compile_c("int searched_all(void) { return 2; }"))
    assert _found(tmp_path, "searched_one", "searched_all") == {
        "searched_one": [("libboth.so", "")],
        "searched_all": [("libboth.a", "-lboth")],
    }
    later = tmp_path / "later"
    later.mkdir()
    _archive(later / "libboth.a", "later")
    search = LibrarySearch(HERE, (str(tmp_path), str(later)))
    assert search(["searched_later"]) == {
        "searched_later": (DefiningLibrary(str(later / "libboth.a")),)
    }


def test_names_of_one_file(tmp_path: Path) -> None:
    shared_library(tmp_path / "libone.so.1.2", _source("one"))
    (tmp_path / "libone.so.1").symlink_to("libone.so.1.2")
    (tmp_path / "libone.so").symlink_to("libone.so.1")
    os.link(tmp_path / "libone.so.1.2", tmp_path / "libalso.so.4")
    (tmp_path / "libloop.so").symlink_to("libloop.so")
    assert _found(tmp_path) == {"searched_one": [("libone.so", "-lone")]}


def test_the_best_of_several(tmp_path: Path) -> None:
    for name in ("longest", "longer", "long", "short"):
        shared_library(tmp_path / f"lib{name}.so", _source(name))
    names = ("searched_all", "searched_longest")
    assert _found(tmp_path, *names)["searched_all"] == [
        ("liblongest.so", "-llongest"),
        ("liblong.so", "-llong"),
        ("libshort.so", "-lshort"),
    ]


def test_only_definitions_for_others(tmp_path: Path) -> None:
    text = "int searched_far(void); static int searched_in(void) { return searched_far(); }"
    text += " int searched_out(void) { return searched_in(); }"
    shared_library(tmp_path / "libs.so", text)
    archive(tmp_path / "liba.a", compile_c(text, "gcc", ("-O0",)))
    found = _found(tmp_path, "searched_far", "searched_in", "searched_out")
    assert found == {"searched_out": [("liba.a", "-la"), ("libs.so", "-ls")]}


def test_libraries_of_the_same_machine(tmp_path: Path) -> None:
    target = f"{OTHER_MACHINE}-linux-gnu"
    member = compile_c(_source("one"), flags=("-fPIC",), target=target)
    archive(tmp_path / "libarm.a", member)
    run([*zig_command("cc", target), "-shared", member, "-o", tmp_path / "libarms.so"])
    _archive(tmp_path / "libhere.a")
    assert _found(tmp_path) == {"searched_one": [("libhere.a", "-lhere")]}
    assert _found(tmp_path, triple=ELSEWHERE) == {
        "searched_one": [("libarm.a", "-larm"), ("libarms.so", "-larms")]
    }
    caller = compile_c(CALLER, target=target)
    done = spawn("-noexec", caller, f"-L{tmp_path}")
    assert f"; searched_one is in {tmp_path}/libarm.a (-larm) or " in done.err


def test_files_that_are_no_libraries(tmp_path: Path) -> None:
    (tmp_path / "libtext.so").write_text("INPUT(libother.so)")
    (tmp_path / "libempty.a").write_bytes(b"")
    (tmp_path / "libobject.a").write_bytes(compile_c(_source("one")).read_bytes())
    (tmp_path / "libdirectory.a").mkdir()
    (tmp_path / "libgone.so").symlink_to("nowhere")
    os.mkfifo(tmp_path / "libpipe.so")
    run([*zig_command("ar"), "rcS", tmp_path / "libindex.a", compile_c(_source("one"))])
    assert _found(tmp_path) == {}


def test_thin_archives(tmp_path: Path) -> None:
    (tmp_path / "a.o").write_bytes(compile_c(_source("one")).read_bytes())
    run([*zig_command("ar"), "rcsT", "libthin.a", "a.o"], cwd=tmp_path)
    assert _found(tmp_path) == {"searched_one": [("libthin.a", "-lthin")]}
    (tmp_path / "a.o").unlink()
    os.mkfifo(tmp_path / "a.o")
    assert _found(tmp_path) == {}


def test_hostile_archives_are_skipped(tmp_path: Path) -> None:
    data = _archive(tmp_path / "a").read_bytes()
    shared = shared_library(tmp_path / "s", _source("one")).read_bytes()
    for number, mutant in enumerate(mutants(data, archive_regions(data), 300)):
        (tmp_path / f"lib{number}.a").write_bytes(mutant)
    for size in range(0, len(data), 16):
        (tmp_path / f"libcut{size}.a").write_bytes(data[:size])
    for size in range(0, len(shared), 128):
        (tmp_path / f"libcut{size}.so").write_bytes(shared[:size])
    assert len(_found(tmp_path)["searched_one"]) == 3


def test_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_search, "system_directories", lambda _machine: [])
    _archive(tmp_path / "liba.a", "other")
    _archive(tmp_path / "libb.a")
    assert _found(tmp_path)
    for name, enough in (("_MOST_FILES", 2), ("_MOST_ENTRIES", 2), ("_MOST_INDEX_BYTES", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(library_search, name, enough)
            assert _found(tmp_path)
            patch.setattr(library_search, name, 1)
            assert len(_found(tmp_path, "searched_one", "searched_other")) < 2


def test_directories_of_the_dynamic_linker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / each for each in ("path", "direct", "included")]
    for place in places:
        place.mkdir()
        _archive(place / f"lib{place.name}.a", place.name)
    (tmp_path / "main.conf").write_text(
        f"# comment\n{places[1]} # another\n\ninclude *.d\ninclude main.conf\n/none\n"
    )
    (tmp_path / "x.d").write_text(f"{places[2]}\ninclude {tmp_path}/main.conf\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{places[0]}:/nowhere")
    monkeypatch.setattr(library_search, "_LOADER_CONFIGURATION", str(tmp_path / "main.conf"))
    names = [f"searched_{place.name}" for place in places]
    found = LibrarySearch(HERE)(names)
    assert found == {
        name: (DefiningLibrary(f"{place}/lib{place.name}.a"),)
        for name, place in zip(names, places, strict=True)
    }


def test_directories_of_the_system() -> None:
    # Python needs the C library.
    (library,) = LibrarySearch(HERE)(["gnu_get_libc_version"])["gnu_get_libc_version"]
    assert Path(library.path).name in {"libc.so.6", "libc.so"}
    assert LibrarySearch(ELSEWHERE)(["searched_one"]) == {}


# Errors


def _message(link: Callable[[], object]) -> str:
    with pytest.raises(UndefinedSymbolError) as caught:
        link()
    assert caught.value.names == ("searched_one",)
    (library,) = caught.value.libraries["searched_one"]
    assert str(caught.value).endswith(f"; searched_one is in {library}")
    assert pickle.loads(pickle.dumps(caught.value)).libraries == caught.value.libraries
    return str(library)


def test_errors_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _archive(tmp_path / "libone.a")
    caller = compile_c(CALLER)
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.load(caller)
    assert not caught.value.libraries
    monkeypatch.setenv("LIBRARY_PATH", str(tmp_path))
    expected = f"{tmp_path}/libone.a (-lone)"
    assert _message(lambda: jitlink.load(caller)) == expected
    with LLJIT() as jit:
        jit.add_object(caller)
        assert _message(lambda: jit.lookup("main")) == expected
    with LLJIT() as jit:
        jit.main.define(jitlink.orc.ReExports({"main": "searched_one"}))
        assert _message(lambda: jit.lookup("main")) == expected
    with jitlink.load(caller, tmp_path / "libone.a") as library:
        assert library.main() == 1


@pytest.mark.parametrize("options", [(), ("-noexec",)])
def test_errors_of_the_command(options: Sequence[str], tmp_path: Path) -> None:
    shared_library(tmp_path / "libone.so", _source("one"))
    caller = tmp_path / "caller.o"
    caller.write_bytes(compile_c(CALLER).read_bytes())
    words = [*options, "caller.o", "-L."]
    assert spawn(*words, cwd=tmp_path) == error(
        "undefined symbol: searched_one (referenced by caller.o); "
        "searched_one is in ./libone.so (-lone)"
    )
    assert spawn(*words, "-lone", cwd=tmp_path) == Done(int(not options), "", "")


def test_only_reported_errors_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[str]] = []

    def search(_self: LibrarySearch, names: Sequence[str]) -> dict[str, tuple[DefiningLibrary]]:
        calls.append(names)
        return {}

    monkeypatch.setattr(LibrarySearch, "__call__", search)
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.load(compile_c(CALLER))
    assert not calls
    assert str(caught.value) == str(caught.value)
    assert calls == [["searched_one"]]


def test_links_without_errors_do_not_import_the_search() -> None:
    text = f"""
import sys, jitlink
with jitlink.load({str(compile_c(_source("one")))!r}) as library:
    assert library.searched_one() == 1
assert "jitlink.library_search" not in sys.modules
assert "jitlink.formats.elf_dynamic_symbols" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", text], check=True)
