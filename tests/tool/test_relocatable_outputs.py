"""Outputs of `ld -r`: they link, and behave, as the objects that they were made of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import jitlink
from tests.tool.command import spawn
from tests.toolchain import compile_c, require, run

FIRST = """
#include <cstdio>
#include <string>
inline int shared() { static int count = 0; return ++count; }
struct A { A() { std::puts("A"); } ~A() { std::puts("~A"); } };
static A a __attribute__((init_priority(300)));
int other();
extern const int __start_set[], __stop_set[];
__attribute__((section("set"), used)) static const int one = 1;
int main() {
    try {
        throw std::string("thrown");
    } catch (const std::string &text) {
        int size = __stop_set - __start_set;
        std::printf("%s %d %d %d\\n", text.c_str(), shared(), other(), size);
    }
    return 7;
}
"""
SECOND = """
#include <cstdio>
inline int shared() { static int count = 0; return ++count; }
struct B { B() { std::puts("B"); } ~B() { std::puts("~B"); } };
static B plain;
static B early __attribute__((init_priority(200)));
__attribute__((constructor)) static void begin() { std::puts("begin"); }
__attribute__((section("set"), used)) static const int two = 2;
thread_local int variable = 3;
int other() { return shared() + variable; }
"""

LINKERS = {
    "ld": ["ld", "-r"],
    "unique": ["ld", "-r", "--unique"],
    "groups": ["ld", "-r", "--force-group-allocation"],
    "commons": ["ld", "-r", "-d"],
    "mold": ["mold", "-r"],
    "lld": ["ld.lld-22", "-r"],
}


def compiled(place: Path, name: str, source: str) -> Path:
    (place / f"{name}.cpp").write_text(source)
    flags = ["-O1", "-fPIC", "-ffunction-sections"]
    run([require("g++"), *flags, "-c", f"{name}.cpp"], cwd=place)
    return place / f"{name}.o"


@pytest.mark.parametrize("linker", LINKERS)
def test_the_same_as_the_objects(linker: str, tmp_path: Path) -> None:
    objects = [compiled(tmp_path, "first", FIRST), compiled(tmp_path, "second", SECOND)]
    run([require("g++"), *objects, "-o", tmp_path / "native"])
    native = subprocess.run([tmp_path / "native"], capture_output=True, text=True, check=False)
    assert native.returncode == 7
    name, *flags = LINKERS[linker]
    run([require(name), *flags, *objects, "-o", tmp_path / "both.o"])
    run([require(name), *flags, objects[1], "-o", tmp_path / "one.o"])
    commands = [[tmp_path / "both.o"], [objects[0], tmp_path / "one.o"]]
    # What was in a group is a second strong definition then, natively too.
    for words in commands[:1] if linker == "groups" else commands:
        done = spawn(*words)
        assert (done.status, done.out, done.err) == (7, native.stdout, "")


def test_hidden_symbols_that_were_made_local(tmp_path: Path) -> None:
    part = compile_c(
        '__attribute__((visibility("hidden"))) int helper(void) { return 4; }'
        "int api(void) { return helper(); }",
        flags=("-fPIC",),
    )
    main = compile_c(
        "int api(void); int helper(void) { return 30; }int both(void) { return api() + helper(); }",
        flags=("-fPIC",),
    )
    whole, local = tmp_path / "whole.o", tmp_path / "local.o"
    run([require("ld"), "-r", part, "-o", whole])
    run([require("objcopy"), "--localize-hidden", whole, local])
    with jitlink.load(main, local) as lib:
        assert lib.both() == 34
