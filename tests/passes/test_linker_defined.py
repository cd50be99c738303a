"""Encapsulation symbols span all that a link has under a name of a section."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from pathlib import Path

import pytest

import jitlink
from tests.linking import Linker
from tests.toolchain import compile_c, run

CONSTANT = 'const int one __attribute__((section("set"), used)) = 1;'
WRITABLE = 'int twenty __attribute__((section("set"), used)) = 20;'
ZEROS = 'int zero[3] __attribute__((section("set"), used));'
SUM = """
extern int __start_set[], __stop_set[];
int sum(void) {
    int result = 0;
    for (int *each = __start_set; each < __stop_set; ++each)
        result += *each;
    return result;
}
int count(void) { return __stop_set - __start_set; }
"""
MAIN = SUM + "int main(void) { return sum() + 100 * (count() != 5); }"


def objects(*sources: str) -> list[Path]:
    return [compile_c(source, flags=["-O1", "-fPIC"]) for source in sources]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_elements_of_any_protection(order: tuple[int, ...]) -> None:
    files = objects(CONSTANT, WRITABLE, ZEROS, SUM)
    with jitlink.load(*[files[each] for each in order]) as lib:
        assert (lib.sum(), lib.count()) == (21, 5)
        lib.variable("twenty", ctypes.c_int).value = 40
        assert lib.sum() == 41


def test_the_same_as_natively(tmp_path: Path, gcc: Path) -> None:
    program = tmp_path / "program"
    files = objects(CONSTANT, WRITABLE, ZEROS, MAIN)
    run([gcc, "-o", program, *files])
    native = subprocess.run([program], check=False).returncode
    with jitlink.load(*files) as lib:
        assert lib.main() == native == 21


def test_of_one_protection_the_section_keeps_it() -> None:
    with Linker() as linker:
        linked = linker.link(*objects(CONSTANT, CONSTANT.replace("one", "two"), SUM))
        section = linked.graph.find_section_by_name("set")
        assert section is not None
        assert str(section.mem_prot) == "R--"
        assert linked.function("sum", ctypes.c_int)() == 2


def test_what_is_not_loaded_is_no_element() -> None:
    comment = '__asm__(".pushsection set,\\"\\",@progbits; .long 7; .popsection");'
    with jitlink.load(*objects(comment, CONSTANT, SUM)) as lib:
        assert (lib.sum(), lib.count()) == (1, 1)


def test_code_and_writable_data_stay_apart() -> None:
    code = '__attribute__((section("set"), used)) int seven(void) { return 7; }'
    with jitlink.load(*objects(code, WRITABLE, SUM)) as lib:
        assert lib.seven() == 7
