"""`-l:FILE`, `-Bstatic`, `-Bdynamic` and groups: as GNU ld has them, by position."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tool.command import archive, shared_library, spawn
from tests.toolchain import ToolError, compile_c, require, run

LIBRARY = "int which_{name}(void) {{ return {value}; }}"
MAIN = """
#include <stdio.h>
int which_x(void), which_y(void);
int main(void) {
    printf("%d %d\\n", which_x(), which_y());
    return 0;
}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two directories: the first has x of both kinds, and y as an archive; the second both of y.

    The value of each is its own.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    for number, (directory, name, is_shared) in enumerate(
        [
            (first, "x", False),
            (first, "x", True),
            (first, "y", False),
            (second, "y", False),
            (second, "y", True),
            (second, "x", False),
        ]
    ):
        source = LIBRARY.format(name=name, value=number + 1)
        if is_shared:
            shared_library(directory / f"lib{name}.so", source)
        else:
            archive(directory / f"lib{name}.a", compile_c(source))
    (first / "odd.name").write_bytes((second / "liby.a").read_bytes())
    return tmp_path


WORDS = [
    "-Bstatic -lx -ly",
    "-Bdynamic -lx -ly",
    "-Bstatic -lx -Bdynamic -ly",
    "-Bdynamic -lx -Bstatic -ly",
    "-dn -lx -dy -ly",
    "-non_shared -ly -call_shared -lx",
    "-Bdynamic -l:libx.a -ly",
    "-l:libx.so -l:liby.a",
    "-l:odd.name -l:libx.a",
    "--start-group -Bstatic -ly -lx --end-group -Bdynamic",
    "-static -lx -ly -Bdynamic",
    "-Bdynamic -Bstatic -lx -Bdynamic -Bdynamic -ly",
]


@pytest.mark.parametrize("directories", [("first", "second"), ("second", "first")])
@pytest.mark.parametrize("words", WORDS)
def test_as_with_gnu_ld(words: str, directories: tuple[str, str], place: Path) -> None:
    main = compile_c(MAIN)
    searched = [f"-L{place / each}" for each in directories]
    program = place / "program"
    options = [f"-Wl,{w}" if w.startswith(("-B", "-d", "--", "-n", "-c", "-s")) else w
               for w in words.split()]  # fmt: skip
    paths = [f"-Wl,-rpath,{place / each}" for each in directories]
    # -L applies to every -l, whether it comes before or after it.
    run([require("gcc"), main, *options, *searched, *paths, "-Wl,-Bdynamic", "-o", program])
    native = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert spawn(main, *words.split(), *searched) == (0, native, "")


def test_what_is_missing(place: Path) -> None:
    main, first = compile_c(MAIN), place / "first"
    for words, what in (
        (["-Bstatic", "-lnone"], "no static library none in "),
        (["-Bdynamic", "-lnone"], "no library none in "),
        (["-l:none.a"], "no file none.a in "),
        (["-l:libx"], "no file libx in "),
        (["-Bstatic", "-lgcc_s"], "no static library gcc_s in "),
    ):
        done = spawn(main, *words, f"-L{first}")
        assert (done.status, done.out) == (1, "")
        assert f"error: -l: {what}{first}" in done.err
        with pytest.raises(ToolError, match="cannot find"):
            run([require("gcc"), main, *[f"-Wl,{w}" for w in words], f"-L{first}"])


def test_a_shared_library_by_its_file_name_where_only_static_ones_may_be(place: Path) -> None:
    main, first = compile_c(MAIN), place / "first"
    done = spawn(main, "-Bstatic", "-l:libx.so", "-ly", f"-L{first}")
    assert (done.status, done.out) == (1, "")
    assert f"error: -l: {first}/libx.so is a shared library, behind -Bstatic" in done.err
    with pytest.raises(ToolError, match="attempted static link of dynamic object"):
        run([require("gcc"), main, "-Wl,-Bstatic", "-l:libx.so", "-ly", f"-L{first}"])


def test_the_c_library_is_the_process_s(place: Path) -> None:
    """A second copy would have a heap, streams and an environment of its own."""
    main = compile_c(MAIN)
    done = spawn(main, "-Bstatic", "-lx", "-ly", "-lm", "-lpthread", "-lc", f"-L{place / 'first'}")
    assert done == (0, "1 3\n", "")


def test_the_static_c_plus_plus_library(tmp_path: Path) -> None:
    """With it, the program's own operator new is that of the library's code, too."""
    require("libstdc++.a")
    source = tmp_path / "program.cpp"
    source.write_text("""
#include <cstdio>
#include <cstdlib>
#include <new>
#include <sstream>
static long balance, count;
void *operator new(std::size_t size) { ++balance; ++count; return std::malloc(size); }
void operator delete(void *place) noexcept { balance -= place != nullptr; std::free(place); }
void operator delete(void *place, std::size_t) noexcept { operator delete(place); }
int main() {
  {
    std::ostringstream stream;
    for (int each = 0; each < 100; ++each)
      stream << each << ' ';
    std::printf("%zu\\n", stream.str().size());
  }
  std::printf("%d %ld\\n", count > 2, balance);
}
""")
    user, program = tmp_path / "program.o", tmp_path / "program"
    run([require("g++"), "-O1", "-fPIC", "-c", source, "-o", user])
    run([require("g++"), "-static", user, "-o", program])
    native = run([program])
    for library in (["-Bstatic", "-lstdc++"], ["-l:libstdc++.a"]):
        assert spawn(user, *library) == (0, native, "")


def test_scripts_and_hidden_libraries(place: Path) -> None:
    first = place / "first"
    (first / "libscript.so").write_text("INPUT(-lx -l:liby.a)\n")
    main = compile_c(MAIN)
    assert spawn(main, "-Bdynamic", "-lscript", f"-L{first}") == (0, "2 3\n", "")
    assert spawn(main, "-hidden-l:libx.a", "-ly", f"-L{first}") == (0, "1 3\n", "")


def test_the_libraries_of_a_script_that_is_named_as_a_file(place: Path) -> None:
    main, first, script = compile_c(MAIN), place / "first", place / "script"
    script.write_text("INPUT(-lx -ly)\n")
    searched = [f"-L{first}", f"-L{place / 'second'}"]
    for flags in (["-Bstatic"], ["-Bdynamic"], ["-Bstatic", "-l:libx.a", "-Bdynamic"]):
        words = [f"-Wl,{w}" if w.startswith("-B") else w for w in flags]
        program = place / "program"
        last = [f"-Wl,-rpath,{first}", "-Wl,-Bdynamic", "-o"]
        run([require("gcc"), main, *words, script, *searched, *last, program])
        native = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        assert spawn(main, *flags, script, *searched) == (0, native, "")


def test_values_of_the_flags(place: Path) -> None:
    main = compile_c(MAIN)
    words = ["-Bdynamic", "-Bstatic=false", "-lx", "-ly", f"-L{place / 'first'}"]
    assert spawn(main, *words) == (0, "2 3\n", "")
