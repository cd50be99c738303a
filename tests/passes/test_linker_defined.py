"""Encapsulation symbols span all that a link has under a name of a section."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import ObjectError
from tests.linking import Linker
from tests.toolchain import compile_c, require, run

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


LINKED = """
__asm__(".section .text.{name},\\"ax\\",@progbits; .globl {name}; {name}: mov ${value},%eax; ret");
__asm__(".section set,\\"ao\\",@progbits,.text.{name},unique,{value}; .long {value}; .text");
"""


def linked(name: str, value: int) -> str:
    """A function, and an element of the set that is linked to it (SHF_LINK_ORDER)."""
    return LINKED.format(name=name, value=value)


def test_linked_elements_live_and_die_with_what_they_are_linked_to() -> None:
    dead = linked("dead", 9).replace(".globl dead;", "")
    source = linked("one", 1) + dead + linked("two", 2) + SUM
    with jitlink.load(*objects(source)) as lib:
        assert (lib.sum(), lib.count(), lib.one(), lib.two()) == (3, 2, 1, 2)


def test_linked_elements_are_in_the_order_of_what_they_are_linked_to(tmp_path: Path) -> None:
    # The sections of the functions are created in another order than those of the elements.
    first = '__asm__(".section .text.two,\\"ax\\",@progbits; .section .text.one,\\"ax\\"; .text");'
    digits = SUM.replace("result += *each", "result = 10 * result + *each")
    source = first + linked("one", 1) + linked("two", 2) + digits
    main = source + "int main(void) { return sum(); }"
    files, program = objects(main), tmp_path / "program"
    run([require("gcc"), "-o", program, *files])
    native = subprocess.run([program], check=False).returncode
    with jitlink.load(*files) as lib:
        assert lib.main() == native == 21


def test_retained_elements_are_kept() -> None:
    retained = '__asm__(".section .kept,\\"aR\\",@progbits; .long 77; .text");'
    with Linker() as linker:
        graph = linker.link(*objects(retained + "int f(void) { return 1; }")).graph
        section = graph.find_section_by_name(".kept")
        assert section is not None
        assert [bytes(block.content)[0] for block in section.blocks] == [77]


def test_a_link_to_a_section_that_does_not_exist() -> None:
    content = bytearray(objects(linked("one", 1))[0].read_bytes())
    shoff, count = (
        int.from_bytes(content[40:48], "little"),
        int.from_bytes(content[60:62], "little"),
    )
    for index in range(count):
        at = shoff + 64 * index
        if int.from_bytes(content[at + 8 : at + 16], "little") & 0x80:
            content[at + 40 : at + 44] = (0xFFFF).to_bytes(4, "little")
    with pytest.raises(ObjectError, match="refers to a section that does not exist"):
        jitlink.load(bytes(content))
