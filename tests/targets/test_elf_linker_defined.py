"""Linker-script symbols: the bounds of a program's segments, and its ELF header."""

import ctypes

import pytest

import jitlink
from jitlink.errors import UndefinedSymbolError, UnsupportedObjectError
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


def test_names_of_programs() -> None:
    source = """
    extern char end[], _end[], etext[], _etext[], edata[], _edata[], data_start[], __data_start[];
    int data[3] = {1, 2, 3}, zeros[30];
    int same(void) {
        return end == _end && etext == _etext && edata == _edata && data_start == __data_start;
    }
    int inside(void) {
        return data_start <= (char *)data && (char *)(data + 3) <= edata
            && edata <= (char *)zeros && (char *)(zeros + 30) <= end && end - data_start < 4096;
    }
    """
    # Position-dependent code refers to them in 32 bits, so they must be as near as the rest.
    with Linker() as linker:
        linked = linker.link(compile_c(source, flags=("-fPIC",)))
        assert linked.function("same", ctypes.c_int)() == 1
        assert linked.function("inside", ctypes.c_int)() == 1
    with jitlink.load(compile_c(source, "gcc", ("-fno-pic",))) as lib:
        assert (lib.same(), lib.inside()) == (1, 1)


def test_thread_local_data_is_no_part_of_the_segments() -> None:
    source = """
    extern char _end[], __data_start[];
    _Thread_local int variable = 5; int data = 1;
    int size(void) { return _end - __data_start; }
    int value(void) { return variable + data; }
    """
    with jitlink.load(compile_c(source, flags=("-fPIC",))) as lib:
        assert (lib.size(), lib.value()) == (4, 6)


ARRAYS = """
typedef void (*function)(void);
extern function __preinit_array_start[], __preinit_array_end[];
extern function __init_array_start[], __init_array_end[], __fini_array_start[], __fini_array_end[];
int calls[3];
static void early(void) { calls[0] = 10 * calls[0] + 1; }
static void middle(void) { calls[0] = 10 * calls[0] + 2; }
static void plain(void) { calls[0] = 10 * calls[0] + 3; }
#define IN(name) __attribute__((section(name), used)) static function
IN(".init_array") a = plain;
IN(".init_array.200") b = middle;
IN(".init_array.101") c = early;
IN(".fini_array") d = plain;
int run(void) {
    calls[0] = 0;
    for (function *each = __init_array_start; each < __init_array_end; ++each) (*each)();
    return calls[0];
}
int finalizers(void) { return __fini_array_end - __fini_array_start; }
int preinitializers(void) { return __preinit_array_end - __preinit_array_start; }
"""


def test_bounds_of_arrays() -> None:
    with jitlink.load(compile_c(ARRAYS, flags=("-fPIC",))) as lib:
        # The initialisers have run before, once.
        assert lib.variable("calls", ctypes.c_int * 3)[0] == 123
        assert lib.run() == 123
        assert (lib.finalizers(), lib.preinitializers()) == (1, 0)


def test_arrays_that_are_called_backwards_have_no_bounds() -> None:
    more = 'static void old(void) {} IN(".ctors") e = old;'
    source = compile_c(ARRAYS + more, flags=("-fPIC",))
    with pytest.raises(UnsupportedObjectError, match=r"\.ctors is called backwards"):
        jitlink.load(source)


def test_start_and_size_of_sections() -> None:
    source = """
    int first __attribute__((section(".mine"))) = 1;
    int numbers[4] __attribute__((section(".mine"))) = {1, 2, 3, 4};
    __asm__(".data; .globl start, size");
    __asm__(".data; start: .quad .startof.(.mine); size: .quad .sizeof.(.mine)");
    extern int *start;
    extern long size;
    int sum(void) { int r = 0; for (long n = 0; n < size / 4; ++n) r += start[n]; return r; }
    """
    with jitlink.load(compile_c(source, "gcc", ("-fPIC",))) as lib:
        assert lib.sum() == 11


def test_they_are_never_those_of_the_process() -> None:
    weak = "extern char _DYNAMIC[] __attribute__((weak)), __start_absent[] __attribute__((weak));"
    source = compile_c(f"{weak} int f(void) {{ return !_DYNAMIC && !__start_absent; }}")
    with jitlink.load(source) as lib:
        assert lib.f() == 1
    # Python exports these, with its own addresses.
    for name in ("_IO_stdin_used", "_start", "_fini", "_init"):
        reference = compile_c(f"extern char {name}[]; char *f(void) {{ return {name}; }}")
        with pytest.raises(UndefinedSymbolError):
            jitlink.load(reference)


def test_a_definition_in_the_program_has_precedence() -> None:
    source = compile_c("char _end[4] = {7}; char f(void) { return _end[0]; }", flags=("-fPIC",))
    user = compile_c("extern char _end[]; char g(void) { return _end[0]; }", flags=("-fPIC",))
    with Linker() as linker:
        linked = linker.link(user, source)
        assert linked.function("g", ctypes.c_int8)() == 7
