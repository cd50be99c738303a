"""The address limit of a JITDylib: position-dependent code beside code that may be anywhere."""

import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import TargetOutOfRangeError
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.lljit import LLJIT, LLJITBuilder
from jitlink.orc import FailedToMaterializeError
from tests.toolchain import compile_c, require, run

# Other code holds no addresses in 32 bits, so that its memory can be anywhere.
pytestmark = pytest.mark.machine("x86_64")

LOW = 1 << 31
PIE, NO_PIE = ["-O1", "-fPIE"], ["-O1", "-fno-pic"]

# Each refers to data of the other in 32 bits.
MAIN = """
extern int shared;
int table[4] = {1, 2, 3, 4};
int at(long i);
int main(void) { return 10 * at(2) + shared; }
"""
TABLE = """
extern int table[];
int shared = 5;
int at(long i) { return table[i]; }
"""
LATER = "extern int table[]; int later(long i) { return table[i] + 100; }"


def main_object() -> Path:
    return compile_c(MAIN, "gcc", PIE)


def table_object() -> Path:
    return compile_c(TABLE, "gcc", NO_PIE)


def archive(directory: Path, *members: Path) -> Path:
    path = directory / "libtable.a"
    run([require("ar"), "rcs", path, *members])
    return path


def test_gcc_links_the_program_without_pie(tmp_path: Path) -> None:
    program = tmp_path / "program"
    run([require("gcc"), "-no-pie", main_object(), table_object(), "-o", program])
    assert subprocess.run([program], check=False).returncode == 35


def test_an_archive_of_position_dependent_code(tmp_path: Path) -> None:
    with LLJIT() as jit:
        jit.add_object(main_object())
        jit.add_archive(archive(tmp_path, table_object()))
        main = jit.lookup("main")
        assert main < LOW
        assert main() == 35


def test_a_library_of_an_archive_of_position_dependent_code(tmp_path: Path) -> None:
    with jitlink.load(main_object(), archive(tmp_path, table_object())) as library:
        assert library.main() == 35
    with jitlink.load(archive(tmp_path, main_object(), table_object())) as library:
        assert library.main() == 35


@pytest.mark.parametrize("is_first", [True, False])
def test_objects_that_are_added_one_by_one(is_first: bool) -> None:
    other = compile_c("int other(void) { return 7; }", "gcc", PIE)
    objects = [table_object(), main_object()]
    with LLJIT() as jit:
        for each in objects if is_first else reversed(objects):
            jit.add_object(each)
        jit.add_object(other)
        # Linked alone, before what it belongs to.
        assert jit.lookup("other")() == 7
        assert jit.main.address_limit == LOW
        assert jit.lookup("main")() == 35


def test_what_is_linked_later_is_low_too() -> None:
    later = compile_c(LATER, "gcc", PIE)
    with LLJIT() as jit:
        jit.add_object(main_object())
        jit.add_object(table_object())
        assert jit.lookup("main")() == 35
        jit.add_object(later)
        function = jit.lookup("later")
        assert function < LOW
        assert function(1) == 102


def test_position_dependent_code_that_comes_too_late() -> None:
    data = compile_c("int table[4] = {1, 2, 3, 4};", "gcc", PIE)
    narrow = """
    asm(".data; narrow: .long table; .text");
    int other[2];
    int get(long i) { return other[i]; }
    extern int narrow;
    int address(void) { return narrow; }
    """
    with LLJIT() as jit:
        jit.add_object(data)
        jit.lookup("table")
        jit.add_object(table_object())
        # Its instructions are executed elsewhere, but there is no place for an address of data.
        assert jit.lookup("at")(2) == 3
        jit.add_object(compile_c(narrow, "gcc", NO_PIE))
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("address")
        reason = caught.value.reason
        assert isinstance(reason, TargetOutOfRangeError)
        assert reason.target == "table"
        assert "with address_limit=1 << 31 (-no-pie" in str(reason)


@pytest.mark.parametrize("is_of_session", [True, False])
def test_the_limit_can_be_asked_for(is_of_session: bool) -> None:
    with LLJIT(address_limit=LOW if is_of_session else NO_ADDRESS_LIMIT) as jit:
        dylib = jit.main if is_of_session else jit.create_jitdylib("low", address_limit=LOW)
        jit.add_object(compile_c("int table[4] = {1, 2, 3, 4};", "gcc", PIE), dylib=dylib)
        assert jit.lookup("table", dylib=dylib) < LOW
        jit.add_object(table_object(), dylib=dylib)
        assert jit.lookup("at", dylib=dylib)(2) == 3


def test_the_builder_asks_for_it() -> None:
    with LLJITBuilder().set_address_limit(LOW).create() as jit:
        assert jit.main.address_limit == LOW


def test_a_library_can_be_limited() -> None:
    data = compile_c("int table[4] = {1, 2, 3, 4};", "gcc", PIE)
    with (
        jitlink.load(data, address_limit=LOW) as low,
        jitlink.load(table_object(), definitions=low) as library,
    ):
        assert low["table"] < LOW
        assert library.at(3) == 4


def test_the_limit_is_settled_by_the_first_link() -> None:
    with LLJIT() as jit:
        jit.add_object(compile_c("int first(void) { return 1; }", "gcc", PIE))
        jit.lookup("first")
        jit.add_object(
            compile_c("int t[2] = {1, 2}; int in(long i) { return t[i]; }", "gcc", NO_PIE)
        )
        assert jit.main.address_limit == NO_ADDRESS_LIMIT
        assert jit.lookup("in")(1) == 2
        # Still in reach of what was linked first.
        jit.add_object(compile_c("int third(void) { return 3; }", "gcc", PIE))
        assert jit.lookup("third") > LOW


MULTIVERSIONED = """
#include <stddef.h>
__attribute__((target_clones("avx2", "default"))) int triple(int x) { return 3 * x; }
int table[3] = {1, 2, 3};
int (*pointer)(int) = triple;
int at(long i) { return table[i] + triple(i) + (pointer == triple ? 100 : 0); }
int sse2(void) { __builtin_cpu_init(); return __builtin_cpu_supports("sse2") != 0; }
"""
CPU = 'int sse2_too(void) { __builtin_cpu_init(); return __builtin_cpu_supports("sse2") != 0; }'


@pytest.mark.parametrize("flags", [PIE, NO_PIE], ids=["pie", "no-pie"])
def test_multiversioned_functions(flags: list[str]) -> None:
    # __cpu_model, of libgcc, is hidden and thus referred to in 32 bits by all code.
    with jitlink.load(compile_c(MULTIVERSIONED, "gcc", flags)) as library:
        assert library.at(2) == 109
        assert library.sse2() == 1


def test_support_functions_of_high_and_low_code_in_one_session() -> None:
    with LLJIT() as jit:
        low = jit.create_jitdylib("low")
        jit.add_object(compile_c(CPU, "gcc", PIE))
        jit.add_object(compile_c(MULTIVERSIONED, "gcc", NO_PIE), dylib=low)
        assert jit.lookup("sse2_too")() == 1
        assert jit.lookup("sse2", dylib=low)() == 1


DLSYM = """
#include <dlfcn.h>
extern int table[];
int main(void) {
    int (*at)(long) = dlsym(RTLD_DEFAULT, "at");
    return at == 0 ? 1 : at(2) + table[1];
}
"""


@pytest.mark.parametrize("flags", [PIE, NO_PIE], ids=["pie", "no-pie"])
def test_runtime_objects_are_in_reach(flags: list[str]) -> None:
    objects = [compile_c(DLSYM, "gcc", flags), compile_c(TABLE, "gcc", NO_PIE)]
    objects.append(compile_c("int table[4] = {1, 2, 3, 4};", "gcc", PIE))
    with jitlink.load(*objects) as library:
        assert library.main() == 5
    with LLJIT() as jit:
        for each in objects:
            jit.add_object(each)
        assert jit.lookup("main")() == 5
