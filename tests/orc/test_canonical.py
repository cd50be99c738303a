"""Position-dependent code that refers to the process's functions and data in 32 bits."""

import ctypes
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import TargetOutOfRangeError
from jitlink.lljit import LLJIT
from jitlink.memory.mapping import mapped_ranges
from jitlink.orc import FailedToMaterializeError
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import run_linked, run_native
from tests.toolchain import CompilerName, compile_c

# Other code holds no addresses in 32 bits, so that its memory can be anywhere.
pytestmark = pytest.mark.machine("x86_64")

LOW = 1 << 31
PLACES = {"here": (), "there": ("-oop-executor",)}
"""Options of the command: programs run in the process that links them, and in another one."""
NO_PIC = ["-O1", "-fno-pic"]

FUNCTIONS = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct hooks { void *(*take)(size_t); void (*give)(void *); };
static const struct hooks defaults = {malloc, free};
struct hooks hooks;
int (*convert)(const char *);
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(void) {
    int values[3] = {3, 1, 2};
    hooks.take = malloc;
    hooks.give = free;
    convert = atoi;
    char *text = hooks.take(5);
    strcpy(text, "42");
    qsort(values, 3, sizeof *values, compare);
    printf("%d %d %d\n", convert(text), values[0], hooks.take == defaults.take);
    fprintf(stderr, "to stderr\n");
    hooks.give(text);
    return hooks.give == free && defaults.give == free ? 3 : 1;
}
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_addresses_of_process_functions(compiler: CompilerName, place: str) -> None:
    compiled = compile_c(FUNCTIONS, compiler, NO_PIC)
    native = run_native(link_native("functions.c", [compiled], "-no-pie"))
    assert native == (3, "42 1 1\n", "to stderr\n")
    assert run_linked([compiled], options=PLACES[place]) == native


ADDRESS = "#include <stdlib.h>\nvoid *NAME(void) { return (void *)malloc; }"


def address_object(name: str, flag: str) -> Path:
    return compile_c(ADDRESS.replace("NAME", name), "gcc", ["-O1", flag])


def test_all_code_of_a_jitdylib_sees_one_address() -> None:
    with LLJIT() as jit:
        low = jit.create_jitdylib("low", address_limit=LOW)
        jit.add_object(address_object("narrow", "-fno-pic"), dylib=low)
        jit.add_object(address_object("wide", "-fPIC"), dylib=low)
        jit.add_object(address_object("other", "-fPIC"))
        narrow = jit.lookup("narrow", dylib=low)
        narrow.restype = ctypes.c_void_p
        address = narrow()
        assert address < LOW
        # Linked later, and through the GOT.
        wide = jit.lookup("wide", dylib=low)
        wide.restype = ctypes.c_void_p
        assert wide() == address
        # Another JITDylib has its own.
        other = jit.lookup("other")
        other.restype = ctypes.c_void_p
        assert other() > LOW
        take = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(address)
        ctypes.CDLL(None).free(ctypes.c_void_p(take(16)))


def test_a_canonical_entry_outlives_the_code_that_needed_it_first() -> None:
    with LLJIT() as jit:
        jit.main.limit_addresses(LOW)
        tracker = jit.create_resource_tracker()
        jit.add_object(address_object("narrow", "-fno-pic"), tracker)
        first = jit.lookup("narrow")
        first.restype = ctypes.c_void_p
        address = first()
        jit.remove(tracker)
        jit.add_object(address_object("again", "-fno-pic"))
        again = jit.lookup("again")
        again.restype = ctypes.c_void_p
        assert again() == address


def test_a_jitdylib_that_was_cleared_has_new_entries() -> None:
    with LLJIT() as jit:
        low = jit.create_jitdylib("low", address_limit=LOW)
        for name in ("first", "second"):
            jit.add_object(address_object(name, "-fno-pic"), dylib=low)
            function = jit.lookup(name, dylib=low)
            function.restype = ctypes.c_void_p
            take = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(function())
            ctypes.CDLL(None).free(ctypes.c_void_p(take(16)))
            low.clear()


def test_a_function_that_is_defined_again_elsewhere() -> None:
    user = compile_c("int part(void); int (*get(void))(void) { return part; }", "gcc", NO_PIC)
    again = compile_c("int part(void); int (*get2(void))(void) { return part; }", "gcc", NO_PIC)
    with LLJIT() as jit:
        library = jit.create_jitdylib("library")
        jit.main.add_to_link_order(library)
        for number, name in ((1, "get"), (2, "get2")):
            tracker = library.create_resource_tracker()
            part = compile_c(f"int part(void) {{ return {number}; }}", "gcc", ["-O1", "-fPIC"])
            filler = compile_c(f"int filler{number}[{number * 5000}] = {{1}};", "gcc", ["-fPIC"])
            jit.add_object(filler, dylib=library)
            jit.lookup(f"filler{number}", dylib=library)
            jit.add_object(part, tracker)
            jit.add_object(user if number == 1 else again)
            get = jit.lookup(name)
            get.restype = ctypes.CFUNCTYPE(ctypes.c_int)
            assert get()() == number
            jit.remove(tracker)


def test_python_functions_have_canonical_entries() -> None:
    source = (
        "int call(int); int (*pointer)(int); int go(int x) { pointer = call; return pointer(x); }"
    )
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    with jitlink.load(
        compile_c(source, "gcc", NO_PIC), definitions={"call": prototype(lambda x: x + 1)}
    ) as library:
        assert library.go(41) == 42


CXX = r"""
#include <cstdio>
#include <stdexcept>
#include <streambuf>
#include <typeinfo>
struct mine : std::runtime_error {
    using std::runtime_error::runtime_error;
    virtual int number() { return 5; }
};
struct buffer : std::streambuf {
    int overflow(int c) override { return c; }
};
int go(int k) {
    try {
        if (k == 0) throw 42;
        if (k == 1) throw mine("mine");
        throw std::out_of_range("range");
    } catch (int i) {
        return i;
    } catch (mine &m) {
        return m.number();
    } catch (std::exception &e) {
        return typeid(e) == typeid(std::out_of_range) ? 7 : 8;
    }
}
std::exception *make() { return new mine("x"); }
int main() {
    std::exception *e = make();
    buffer b;
    std::printf("%d %d %d %d %d %d\n", go(0), go(1), go(2), dynamic_cast<mine *>(e) != nullptr,
                dynamic_cast<std::logic_error *>(e) != nullptr, b.sputc('a'));
    delete e;
    return 0;
}
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_virtual_tables_and_type_information(level: str, place: str) -> None:
    compiled = compile_c(CXX, "gcc", [level, "-fno-pic"], suffix=".cpp")
    native = run_native(link_native("classes.cpp", [compiled], "-no-pie"))
    assert native.output == "42 5 7 1 0 97\n"
    assert run_linked([compiled], options=PLACES[place]) == native


def test_standard_streams_are_copied_for_data_and_the_copies_are_read_only() -> None:
    with jitlink.load(narrow_reference("stderr")) as library:
        address = library.narrow_address()
        original = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr").value
        assert ctypes.c_void_p.from_address(address).value == original
        (place,) = (each for each in mapped_ranges() if each.start <= address < each.end)
        assert place.permissions == "r--p"


def test_a_standard_stream_that_code_assigns_to() -> None:
    source = """
    #include <stdio.h>
    int other[2];
    int at(long i) { return other[i]; }
    void *exchange(FILE *next) { FILE *before = stderr; stderr = next; return before; }
    """
    variable = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr")
    with jitlink.load(compile_c(source, "gcc", NO_PIC)) as library:
        exchange = library.exchange
        exchange.argtypes, exchange.restype = (ctypes.c_void_p,), ctypes.c_void_p
        before = exchange(0x1234)
        assert variable.value == 0x1234
        assert exchange(before) == 0x1234
        assert variable.value == before


VARIABLES = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
char **initial;
static int count(char **p) {
    int n = 0;
    for (; *p; p++) n += !strncmp(*p, "JITLINK_TEST=", 13);
    return n;
}
int is_environment(char ***p) { return p == &environ; }
char ***address(void) { return &environ; }
int main(int argc, char **argv) {
    char *words[] = {"x", "-a", "-b", "7", NULL};
    int options = 0;
    initial = environ;
    setenv("JITLINK_TEST", "1", 1);
    printf("%d %d\n", count(environ), is_environment(address()));
    while (getopt(4, words, "ab:") != -1) {
        options += optind;
        if (optarg) printf("%s\n", optarg);
    }
    printf("%d\n", options);
    optind += 3;
    environ = NULL;
    printf("%d %d\n", optind, getenv("JITLINK_TEST") != NULL);
    environ = initial;
    return environ == initial;
}
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_variables_of_the_process(compiler: CompilerName, level: str, place: str) -> None:
    compiled = compile_c(VARIABLES, compiler, [level, "-fno-pic"])
    native = run_native(link_native("variables.c", [compiled], "-no-pie"))
    assert native == (1, "1 1\n7\n6\n7 0\n", "")
    assert run_linked([compiled], options=PLACES[place]) == native


STREAMS = r"""
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>
int main(int argc, char **) {
    std::cout << "hello " << 42 << std::endl << std::hex << 255 << '\n';
    std::cerr << "error" << std::endl;
    std::ostringstream text;
    text << std::setw(5) << 3.5;
    std::ostream &chosen = argc > 100 ? std::cerr : std::cout;
    chosen << text.str() << std::endl;
    int number = 0;
    std::cin >> number;
    std::cout << number << std::cin.fail() << std::ifstream("/nonexistent").is_open() << "\n";
    return &chosen == &std::cout;
}
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_streams_of_the_cxx_library(compiler: CompilerName, level: str, place: str) -> None:
    compiled = compile_c(STREAMS, compiler, [level, "-fno-pic"], suffix=".cpp")
    native = run_native(link_native("streams.cpp", [compiled], "-no-pie"))
    assert native == (1, "hello 42\nff\n  3.5\n010\n", "error\n")
    assert run_linked([compiled], options=PLACES[place]) == native


def narrow_reference(name: str) -> Path:
    """Code with the address of a variable in 32 bits of data, which cannot be moved elsewhere."""
    source = f"""
    asm(".data; narrow: .long {name}; .text");
    int table[2] = {{1, 2}};
    int at(long i) {{ return table[i]; }}
    extern int narrow; int narrow_address(void) {{ return narrow; }}
    """
    return compile_c(source, "gcc", NO_PIC)


def test_a_variable_of_the_process_is_named() -> None:
    with pytest.raises(TargetOutOfRangeError) as caught:
        jitlink.load(narrow_reference("environ"))
    message = str(caught.value)
    assert caught.value.target == "environ"
    assert "section .data" in message
    assert "is a variable of " in message
    assert "libc.so.6" in message
    assert "compile with -fPIC" in message


def test_data_of_another_jitdylib() -> None:
    data = compile_c("int there[2] = {1, 2};", "gcc", ["-fPIC"])
    user = compile_c("extern int there[]; int at(long i) { return there[i]; }", "gcc", NO_PIC)
    narrow = narrow_reference("there")
    with LLJIT() as jit:
        library = jit.create_jitdylib("library")
        jit.add_object(data, dylib=library)
        jit.main.add_to_link_order(library)
        jit.add_object(user)
        assert jit.lookup("at")(1) == 2
        other = jit.create_jitdylib("other")
        other.add_to_link_order(library)
        jit.add_object(narrow, dylib=other)
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("narrow_address", dylib=other)
        assert "is data of JITDylib library: link that below 2 GiB" in str(caught.value.reason)
    with LLJIT() as jit:
        library = jit.create_jitdylib("library", address_limit=LOW)
        jit.add_object(data, dylib=library)
        jit.main.add_to_link_order(library)
        jit.add_object(narrow)
        assert jit.lookup("narrow_address")() == jit.lookup("there", dylib=library)


def test_weak_references_to_nothing_stay_null() -> None:
    source = """
    extern int absent(void) __attribute__((weak));
    int table[2];
    int at(long i) { return table[i]; }
    int is_there(void) { return &absent != 0; }
    """
    with jitlink.load(compile_c(source, "gcc", NO_PIC)) as library:
        assert library.is_there() == 0
