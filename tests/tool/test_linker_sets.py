"""Linker sets and `-u` in real programs, beside the same objects linked natively."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink.inputs import open_input
from jitlink.lljit import LLJIT
from jitlink.orc import IndirectStubsManager, ObjectLinkingLayer
from jitlink.orc.lazy import LazyHiddenObjectLayer, SymbolTransform
from tests.tool.command import archive, compile_to, error, spawn
from tests.toolchain import require, run

MAIN = """
#include <stdio.h>
int twice(int);
int main(void) {
    int sum = 0;
    for (int i = 0; i < 5; ++i) sum += twice(i);
    printf("%d\\n", sum);
    return 0;
}
"""
PARTS = {
    "main": MAIN,
    "twice": """
        static int is_odd(int x) { return x & 1; }
        int twice(int x) { return is_odd(x) ? 2 * x : x + x; }
        int unused(int x) { return x; }
    """,
    "never": "int never(int x) { return x + 1; }",
}


def compile_parts(place: Path, compiler: str, *flags: str) -> list[Path]:
    """Compile the parts in a directory of their own, which instrumented objects remember."""
    objects = []
    for name, text in PARTS.items():
        (place / f"{name}.c").write_text(text)
        run([require(compiler), "-O1", "-fPIC", *flags, "-c", f"{name}.c"], cwd=place)
        objects.append(place / f"{name}.o")
    return objects


def execute(command: Sequence[object], place: Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=place,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    "option", [["-u", "{}"], ["-u{}"], ["--undefined={}"], ["-undefined", "{}"]]
)
def test_profile_of_clang(option: list[str], tmp_path: Path) -> None:
    """The runtime is an archive member that only -u extracts, as the compiler's driver does."""
    objects = compile_parts(tmp_path, "clang-22", "-fprofile-instr-generate", "-fcoverage-mapping")
    clang, profdata = require("clang-22"), require("llvm-profdata-22")
    run([clang, "-fprofile-instr-generate", *objects, "-o", "native"], cwd=tmp_path)
    words = [each.format("__llvm_profile_runtime") for each in option]
    runtime = require("libclang_rt.profile-x86_64.a")
    linked = [sys.executable, "-m", "jitlink", *words, *objects, runtime]
    shown = {}
    for kind, command in (("native", ["./native"]), ("linked", linked)):
        raw, merged = f"{kind}.profraw", f"{kind}.profdata"
        assert execute(command, tmp_path, LLVM_PROFILE_FILE=raw) == "20\n"
        run([profdata, "merge", raw, "-o", merged], cwd=tmp_path)
        shown[kind] = run([profdata, "show", "--all-functions", "--counts", merged], cwd=tmp_path)
    assert shown["linked"] == shown["native"]
    assert "Total functions: 5" in shown["native"]


@pytest.mark.parametrize("form", ["load", "batches", "single", "lazy"])
def test_counters_of_clang(form: str, tmp_path: Path) -> None:
    """The runtime sees the counters of all objects, those that nothing refers to included."""
    objects = compile_parts(tmp_path, "clang-22", "-fprofile-instr-generate")
    runtime = require("libclang_rt.profile-x86_64.a")
    begin, end = "__llvm_profile_begin_counters", "__llvm_profile_end_counters"
    if form == "load":
        with jitlink.load(*objects, runtime, roots=[begin, end]) as lib:
            lib.twice(1)
            counters = _words(lib.exports[begin], lib.exports[end])
    else:
        with LLJIT() as jit:
            jit.layer.batch_objects = form == "batches"
            layer: ObjectLinkingLayer | LazyHiddenObjectLayer = jit.layer
            if form == "lazy":
                stubs = IndirectStubsManager(jit.layer)
                layer = LazyHiddenObjectLayer(jit.layer, SymbolTransform(is_lazy=True), stubs)
            layer.add_objects(jit.main, [open_input(each) for each in objects])
            jit.add_archive(runtime)
            assert jit.lookup("twice")(1) == 2
            counters = _words(jit.lookup(begin), jit.lookup(end))
    # main, with its loop; is_odd; twice, with its condition; unused; never.
    assert sorted(counters) == [0, 0, 0, 0, 1, 1, 1]


def _words(begin: int, end: int) -> list[int]:
    """The counters between the addresses that two functions return."""
    function = ctypes.CFUNCTYPE(ctypes.c_size_t)
    first, last = function(begin)(), function(end)()
    return list((ctypes.c_uint64 * ((last - first) // 8)).from_address(first))


def test_coverage_of_gcc(tmp_path: Path) -> None:
    objects = compile_parts(tmp_path, "gcc", "--coverage")
    run([require("gcc"), "--coverage", *objects, "-o", "native"], cwd=tmp_path)
    linked = [sys.executable, "-m", "jitlink", *objects, require("libgcov.a")]
    counts = []
    for command in (["./native"], linked):
        assert execute(command, tmp_path) == "20\n"
        files = sorted(tmp_path.glob("*.gcda"))
        counts.append({file.name: file.read_bytes() for file in files})
        for file in files:
            file.unlink()
    assert counts[0] == counts[1]
    assert len(counts[0]) == 3


INITCALLS = """
typedef int (*initcall_t)(void);
#define initcall(function, level) \\
    static initcall_t call_##function __attribute__((used, section("initcall" #level))) = function
"""
KERNEL = """
#include <stdio.h>
typedef int (*initcall_t)(void);
#define run(level, result) do { \\
    extern initcall_t __start_initcall##level[], __stop_initcall##level[]; \\
    for (initcall_t *call = __start_initcall##level; call < __stop_initcall##level; ++call) \\
        result = 10 * result + (*call)(); \\
} while (0)
int main(void) {
    int result = 0;
    run(1, result);
    run(6, result);
    printf("%d\\n", result);
    return 0;
}
"""


def driver(place: Path, number: int) -> Path:
    source = INITCALLS + (
        f"static int probe(void) {{ return {number}; }} initcall(probe, 6);"
        f"static int early(void) {{ return {number + 5}; }} initcall(early, 1);"
    )
    return compile_to(place / f"driver{number}.o", source, "zig", "-fPIC")


@pytest.mark.parametrize("marks", [(), (0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_initcalls_of_drivers(marks: tuple[int, ...], tmp_path: Path) -> None:
    """Nothing but the set leads to a driver, as in Linux; any input may be lazy."""
    drivers = [driver(tmp_path, number) for number in range(3)]
    kernel = compile_to(tmp_path / "kernel.o", KERNEL, "zig", "-fPIC")
    run([require("gcc"), kernel, *drivers, "-o", tmp_path / "native"])
    native = execute([tmp_path / "native"], tmp_path)
    words: list[str | Path] = [kernel]
    for number, each in enumerate(drivers):
        words += ["-lazy", each] if number in marks else [each]
    done = spawn(*words)
    assert (done.status, done.out, done.err) == (0, native, "")
    assert native == "567012\n"
    assert spawn("-noexec", *words).err == ""


def test_what_u_names_is_linked(tmp_path: Path) -> None:
    plugin = """
    #include <stdio.h>
    int plugin;
    __attribute__((constructor)) static void begin(void) { puts("plugin"); }
    """
    main = compile_to(tmp_path / "main.o", "int main(void) { return 0; }")
    library = archive(tmp_path / "lib.a", compile_to(tmp_path / "plugin.o", plugin))
    assert spawn(main, library).out == ""
    assert spawn(main, library, "-u", "plugin").out == "plugin\n"
    # As with GNU ld, it is no error if nothing defines it.
    assert spawn(main, library, "-u", "absent").status == 0


def test_u_belongs_to_a_jitdylib(tmp_path: Path) -> None:
    main = compile_to(tmp_path / "main.o", "extern int two; int main(void) { return two; }")
    library = archive(
        tmp_path / "lib.a",
        compile_to(tmp_path / "one.o", "extern int two; int one = 1, *also = &two;"),
        compile_to(tmp_path / "two.o", "int two = 2;"),
    )
    done = spawn("-show-linked-files", main, "-l", "other", "-jd", "other", "-u", "one", library)
    assert done.status == 2
    assert "one.o" in done.out


def test_u_needs_a_name(tmp_path: Path) -> None:
    main = compile_to(tmp_path / "main.o", "int main(void) { return 0; }")
    assert spawn(main, "-undefined=") == error("-undefined: a symbol needs a name")


def test_bounds_of_the_image_span_all_objects(tmp_path: Path) -> None:
    """Objects to which nothing leads are in the image too, as in a static link."""
    main = """
    extern char __data_start[], _end[], __bss_start[], _edata[];
    extern int *place(int);
    int own = 1;
    int main(void) {
        for (int n = 0; n < 2; ++n) {
            char *at = (char *)place(n);
            if (at < __data_start || at >= _end || (at >= __bss_start) != n) return 1;
        }
        return _end - __data_start < 1 << 20 && _edata <= __bss_start ? 42 : 2;
    }
    """
    other = "static int data[3] = {1, 2}, zeros[5]; int *place(int n) { return n ? zeros : data; }"
    objects = [
        compile_to(tmp_path / "main.o", main, "zig", "-fPIC"),
        compile_to(tmp_path / "other.o", other, "zig", "-fPIC"),
    ]
    run([require("gcc"), *objects, "-o", tmp_path / "native"])
    assert subprocess.run([tmp_path / "native"], check=False).returncode == 42
    assert spawn(*objects).status == 42
    library = archive(tmp_path / "lib.a", objects[1])
    assert spawn(objects[0], library).status == 42
    # A definition of the command or of an object takes precedence.
    assert spawn(*objects, "-abs", "_end=0").status == 1
