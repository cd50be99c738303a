"""Linker-script symbols: the bounds of a program's segments, and its ELF header."""

import ctypes

import pytest

from jitlink.errors import TargetOutOfRangeError
from tests.linking import Linker
from tests.toolchain import compile_c

SOURCE = """
extern char _etext[], __etext[], _edata[], __bss_start[], _end[];
extern const unsigned char __ehdr_start[] __attribute__((visibility("hidden")));
extern const unsigned char __executable_start[];
int data = 1;
int zeros[100];
const char text[] = "constant";
char *bound(int number) {
    char *all[] = { _etext, __etext, _edata, __bss_start, _end };
    return all[number];
}
char *place(int number) {
    char *all[] = { (char *)place, (char *)&data, (char *)zeros, (char *)(zeros + 100) };
    return all[number];
}
const unsigned char *header(void) { return __ehdr_start; }
const unsigned char *start(void) { return __executable_start; }
"""


def test_bounds_and_header() -> None:
    with Linker() as linker:
        linked = linker.link(compile_c(SOURCE, flags=("-fPIC",)))
        bound = linked.function("bound", ctypes.c_int64, ctypes.c_int)
        place = linked.function("place", ctypes.c_int64, ctypes.c_int)
        etext, other_etext, edata, bss_start, end = (bound(n) for n in range(5))
        code, data, zeros, zeros_end = (place(n) for n in range(4))
        assert code < etext == other_etext
        assert data < edata <= bss_start <= zeros
        assert zeros_end <= end < zeros_end + 64
        header = linked.function("header")()
        assert linked.function("start")() == header
        content = ctypes.string_at(header, 64)
        assert content[:7] == b"\x7fELF\x02\x01\x01"
        # A shared object for x86-64, with a header of 64 bytes and nothing else.
        fields = [int.from_bytes(content[at : at + 2], "little") for at in (16, 18, 52, 56, 60)]
        assert fields == [3, 62, 64, 0, 0]


def test_a_program_without_data() -> None:
    source = "extern char _end[], _edata[], __bss_start[]; char *f(void) { return _end; }"
    more = " char *g(void) { return _edata; } char *h(void) { return __bss_start; }"
    with Linker() as linker:
        linked = linker.link(compile_c(source + more, flags=("-fPIC",)))
        end = linked.function("f")()
        assert end == linked.function("g")() == linked.function("h")()
        assert end >= linked.address("h")


def test_names_without_an_underscore_are_not_defined() -> None:
    source = compile_c("extern char end[]; char *f(void) { return end; }", "gcc", ("-fno-pic",))
    with Linker() as linker, pytest.raises(TargetOutOfRangeError, match="to end at"):
        linker.link(source, externals={"end": 1 << 62})


def test_a_definition_in_the_program_has_precedence() -> None:
    source = compile_c("char _end[4] = {7}; char f(void) { return _end[0]; }", flags=("-fPIC",))
    user = compile_c("extern char _end[]; char g(void) { return _end[0]; }", flags=("-fPIC",))
    with Linker() as linker:
        linked = linker.link(user, source)
        assert linked.function("g", ctypes.c_int8)() == 7
