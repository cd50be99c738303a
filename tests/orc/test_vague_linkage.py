"""Variables with vague linkage: one definition in linked code and in the process's libraries."""

import ctypes
from pathlib import Path

import pytest

from jitlink.executor import SelfExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError, JITDylib
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import Outcome, execute, linked_command, run_native
from tests.toolchain import CompilerName, compile_c, require, run

HEADER = """
#include <string>
struct counter {
    inline static int value = 10;
    inline static std::string text = "abc";
};
inline int &next() {
    static int number = (++counter::value, 100);
    return number;
}
template <class T> struct box { static int items; };
template <class T> int box<T>::items = 1;
struct __attribute__((visibility("hidden"))) own { inline static int value = 1; };
inline const int limits[2] = {1, 2};
"""
LIBRARY = """
extern "C" int bump() {
    counter::text += "!";
    own::value++;
    int sum = ++next();
    sum += ++counter::value;
    return sum + ++box<int>::items;
}
extern "C" const void *address(int which) {
    const void *all[] = {&counter::value, &next(), &box<int>::items, &own::value};
    return all[which];
}
"""
PROGRAM = r"""
#include <cstdio>
extern "C" int bump();
extern "C" const void *address(int which);
int main() {
    int first = bump();
    std::printf("%d %d %d %s %d %d\n", first, counter::value, next(), counter::text.c_str(),
                box<int>::items, own::value);
    const void *all[] = {&counter::value, &next(), &box<int>::items, &own::value};
    for (int n = 0; n < 4; n++) std::printf("%d", address(n) == all[n]);
    return limits[1];
}
"""
EXPECTED = Outcome(2, "115 12 101 abc! 2 1\n1110", "")


def compile_cxx(text: str, compiler: CompilerName, *flags: str) -> Path:
    return compile_c(HEADER + text, compiler, ("-std=c++17", *flags), suffix=".cpp")


def shared_library(directory: Path, compiled: Path, name: str = "libvague.so") -> Path:
    library = directory / name
    run([require("g++"), "-shared", compiled, "-o", library])
    return library


@pytest.mark.parametrize("flag", ["-fPIC", "-fPIE"])
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_library_and_a_program_share_them(
    compiler: CompilerName, level: str, flag: str, tmp_path: Path
) -> None:
    library = shared_library(tmp_path, compile_cxx(LIBRARY, compiler, level, "-fPIC"))
    program = compile_cxx(PROGRAM, compiler, level, flag)
    native = link_native("vague.cpp", [program, library], f"-Wl,-rpath,{tmp_path}")
    assert run_native(native) == EXPECTED
    command = linked_command([program, Path("-preload"), library])
    assert execute(command) == EXPECTED


def test_weak_variables_that_are_not_unique(tmp_path: Path) -> None:
    flags = ("-O1", "-fPIC", "-fno-gnu-unique")
    library = shared_library(tmp_path, compile_cxx(LIBRARY, "gcc", *flags))
    program = compile_cxx(PROGRAM, "gcc", *flags)
    command = linked_command([program, Path("-preload"), library])
    assert execute(command) == EXPECTED


def test_a_guard_that_a_library_hides(tmp_path: Path) -> None:
    script = tmp_path / "version"
    script.write_text("{ global: bump; address; _ZN7counter*; _ZN3box*; _ZZ4next*; local: *; };")
    library = tmp_path / "libguard.so"
    compiled = compile_cxx(LIBRARY, "gcc", "-O1", "-fPIC", "-fno-gnu-unique")
    run([require("g++"), "-shared", compiled, "-o", library, f"-Wl,--version-script={script}"])
    symbols = run([require("nm"), "-D", "--defined-only", library])
    assert "_ZZ4nextvE6number" in symbols
    assert "_ZGV" not in symbols
    program = compile_cxx(PROGRAM, "gcc", "-O1", "-fPIC")
    outcome = execute(linked_command([program, Path("-preload"), library]))
    # Both initialise a variable of their own.
    assert outcome.output.endswith("\n1010")


def test_jitdylibs_of_one_session_share_them_along_the_link_order() -> None:
    first = compile_cxx(LIBRARY, "gcc", "-O1", "-fPIC")
    other = LIBRARY.replace("bump", "bump2").replace("address", "address2")
    second = compile_cxx(other, "gcc", "-O1", "-fPIC")
    with LLJIT() as jit:
        library, apart = jit.create_jitdylib("library"), jit.create_jitdylib("apart")
        jit.main.add_to_link_order(library)
        jit.add_object(first, dylib=library)
        jit.add_object(second)
        jit.add_object(second, dylib=apart)
        for dylib, name in ((library, "bump"), (jit.main, "bump2"), (apart, "bump2")):
            jit.lookup(name, dylib=dylib)
            jit.initialize(dylib)
        value = "_ZN7counter5valueE"
        assert jit.lookup(value) == jit.lookup(value, dylib=library)
        assert jit.lookup(value) != jit.lookup(value, dylib=apart)
        assert jit.lookup("bump", dylib=library)() == 2 + 12 + 101
        assert jit.lookup("bump2")() == 3 + 13 + 102
        assert jit.lookup("bump2", dylib=apart)() == 2 + 12 + 101


def test_position_dependent_code_keeps_its_own(tmp_path: Path) -> None:
    library = shared_library(tmp_path, compile_cxx(LIBRARY, "gcc", "-O1", "-fPIC"))
    program = compile_cxx(PROGRAM, "gcc", "-O1", "-fno-pic")
    outcome = execute(linked_command([program, Path("-preload"), library]))
    assert outcome.output.endswith("\n0000")


def variable_user(name: str, *flags: str, also: str = "") -> Path:
    text = f'extern "C" int *{name}() {{ return &counter::value; }} {also}'
    return compile_cxx(text, "gcc", "-O1", *flags)


def address_from(jit: LLJIT, name: str, dylib: JITDylib) -> int:
    function = jit.lookup(name, dylib=dylib)
    function.restype = ctypes.c_void_p
    address: int = function()
    return address


def test_code_that_cannot_reach_those_of_position_dependent_code_keeps_its_own() -> None:
    with LLJIT() as jit:
        low = jit.create_jitdylib("low")
        jit.main.add_to_link_order(low)
        jit.add_object(variable_user("narrow", "-fno-pic"), dylib=low)
        jit.add_object(variable_user("wide", "-fPIE"))
        assert address_from(jit, "narrow", low) < 1 << 31
        assert address_from(jit, "wide", jit.main) > 1 << 31


def test_what_is_not_ready_is_not_used() -> None:
    failing = """
    extern "C" int *second();
    extern "C" int *caller() { return second(); }
    asm(".data; .globl narrow; narrow: .byte far; .text");
    """
    with LLJIT() as jit:
        library = jit.create_jitdylib("library")
        jit.main.add_to_link_order(library)
        library.add_to_link_order(jit.main)
        jit.define({"far": 0x12345678}, dylib=library)
        jit.add_object(variable_user("first", "-fPIC", also=failing), dylib=library)
        jit.add_object(variable_user("second", "-fPIC"))
        # It links the second one, while its own variable has an address already, and fails.
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("first", dylib=library)
        assert "far" in str(caught.value)
        assert ctypes.c_int.from_address(address_from(jit, "second", jit.main)).value == 10


def test_a_link_without_such_variables_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look_up = SelfExecutorProcessControl.lookup_symbols

    async def record(
        executor: SelfExecutorProcessControl, names: list[str], dylib: int | None = None
    ) -> list[int | None]:
        asked.extend(names)
        return await look_up(executor, names, dylib)

    monkeypatch.setattr(SelfExecutorProcessControl, "lookup_symbols", record)
    text = """
    struct shape { virtual ~shape() {} virtual int sides() { return 3; } };
    template <class T> T twice(T x) { return x + x; }
    extern "C" int go() { shape s; return twice(s.sides()); }
    """
    compiled = compile_c(text, "gcc", ("-O1", "-fPIC"), suffix=".cpp")
    with LLJIT() as jit:
        jit.add_object(compiled)
        assert jit.lookup("go")() == 6
    assert not [name for name in asked if "shape" in name or "twice" in name]
