"""Start-up objects of C compilers, crt1.o and its kin, among the inputs.

The command line is that which the compiler's driver gives the linker, without the options that are
GNU ld's own.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink.lljit import LLJIT
from tests.tool.command import spawn
from tests.toolchain import compile_c, require, run

PROGRAM = """
#include <cstdio>
#include <string>
struct Object {
    Object() { std::puts("constructed"); }
    ~Object() { std::puts("destroyed"); }
} object;
extern "C" {
__attribute__((weak)) void _ITM_registerTMCloneTable(void *, std::size_t);
__attribute__((constructor)) static void begin(void) { std::puts("begin"); }
__attribute__((destructor)) static void end(void) { std::puts("end"); }
void say_init(void) { std::puts("init"); }
void say_fini(void) { std::puts("fini"); }
}
__asm__(".section .init,\\"ax\\",@progbits; call say_init;"
        ".section .fini,\\"ax\\",@progbits; call say_fini; .text");
// Whether the denormal result of a multiplication is flushed to zero.
static int flushes(void) { volatile double tiny = 1e-200; return tiny * 1e-120 == 0; }
int main(int argc, char **argv) {
    try {
        throw std::string(argc == 2 ? argv[1] : "none");
    } catch (const std::string &text) {
        std::printf("main %s %d\\n", text.c_str(), flushes());
    }
    return 7;
}
"""
OPTIONS_WITH_VALUE = ("-plugin", "-m", "-dynamic-linker", "-z", "-o")


def linker_line(driver: Path, flags: list[str], objects: list[Path]) -> list[str]:
    """What a driver passes to the linker: objects, libraries and their directories."""
    command: list[str | Path] = [driver, "-###", *flags, *objects, "-o", "native"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    line = next(each for each in printed.splitlines() if "crtn.o" in each)
    words: list[str] = []
    rest = iter(shlex.split(line)[1:])
    for word in rest:
        if word in OPTIONS_WITH_VALUE:
            next(rest)
        elif word.startswith(("-L", "-l")) or not word.startswith("-"):
            words.append(word)
    return words


@pytest.mark.parametrize(
    "line",
    [
        "g++",
        "g++ -pie",
        "g++ -no-pie",
        "g++ -static",
        "g++ -static-pie",
        "g++ -shared-libgcc",
        "g++ -static-libgcc",
        "g++ -ffast-math",
        "clang++-22",
        "clang++-22 -static",
    ],
)
def test_whole_lines(line: str, tmp_path: Path) -> None:
    name, *flags = line.split()
    # clang is found beside its C driver.
    driver = require("g++") if name == "g++" else require("clang-22").with_name(name)
    source = tmp_path / "program.cpp"
    source.write_text(PROGRAM)
    program = tmp_path / "program.o"
    run([require("g++"), "-O1", "-fPIC", "-c", source, "-o", program])
    run([driver, *flags, program, "-o", tmp_path / "native"])
    native = subprocess.run(
        [tmp_path / "native", "argument"], capture_output=True, text=True, check=False
    )
    words = linker_line(driver, flags, [program])
    assert sum("crt" in word for word in words) >= 5
    done = spawn(*words, "-args", "program", "argument")
    assert (done.status, done.out, done.err) == (native.returncode, native.stdout, "")
    assert done.out.splitlines()[-1] == "fini"
    assert ("main argument 1" in done.out) == ("-ffast-math" in flags)


def startup_objects(*objects: Path) -> list[Path]:
    gcc = require("gcc")

    def find(name: str) -> Path:
        return Path(run([gcc, f"-print-file-name={name}"]).strip())

    first = [find(name) for name in ("Scrt1.o", "crti.o", "crtbeginS.o")]
    return [*first, *objects, find("crtendS.o"), find("crtn.o")]


LIBRARY = """
int calls;
__attribute__((constructor)) static void begin(void) { calls = 10 * calls + 2; }
__asm__(".section .init,\\"ax\\",@progbits; call say_init; .text");
void say_init(void) { calls = 10 * calls + 1; }
int value(void) { return calls; }
int main(void) { return 0; }
"""


def test_in_libraries() -> None:
    files = startup_objects(compile_c(LIBRARY, "gcc", ("-fPIC",)))
    with jitlink.load(*files) as lib:
        assert lib.value() == 12


@pytest.mark.parametrize("batches", [True, False])
def test_in_sessions(batches: bool) -> None:
    with LLJIT() as jit:
        jit.layer.batch_objects = batches
        for file in startup_objects(compile_c(LIBRARY, "gcc", ("-fPIC",))):
            jit.add_object(file)
        jit.initialize()
        assert jit.lookup("value")() == 12
        jit.initialize()
        assert jit.lookup("value")() == 12


def test_profiles_of_gprof(tmp_path: Path) -> None:
    """gcrt1.o takes the bounds of the code from the linker, and writes gmon.out."""
    source = tmp_path / "program.c"
    source.write_text("int main(void) { return 3; }")
    run([require("gcc"), "-pg", "-fPIC", "-c", source], cwd=tmp_path)
    words = linker_line(require("gcc"), ["-pg"], [tmp_path / "program.o"])
    assert any(word.endswith("gcrt1.o") for word in words)
    assert spawn(*words, cwd=tmp_path).status == 3
    profile = (tmp_path / "gmon.out").read_bytes()
    assert profile[:4] == b"gmon"
    low, high = (int.from_bytes(profile[at : at + 8], "little") for at in (21, 29))
    assert 0 < high - low < 1 << 20


def test_relocatable_output_with_all_of_them(tmp_path: Path) -> None:
    files = startup_objects(compile_c(LIBRARY, "gcc", ("-fPIC",)))
    run([require("ld"), "-r", *files, "-o", tmp_path / "all.o"])
    with jitlink.load(tmp_path / "all.o") as lib:
        assert lib.value() == 12
