"""Programs with an allocator of their own: what the C library allocates for them is of it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import AllocatorError
from jitlink.runtime import ALLOCATION_FUNCTIONS
from tests.platform.programs import Build, Outcome, linked, objects
from tests.tool.command import archive, spawn
from tests.toolchain import CompilerName, ToolError, compile_c, require, run

BUILDS = [
    Build("gcc", ("-O0", "-fPIC", "-fno-builtin", "-D_GNU_SOURCE", "-w")),
    Build("gcc", ("-O2", "-fPIC", "-fno-builtin", "-D_GNU_SOURCE", "-D_FORTIFY_SOURCE=2", "-w")),
    Build("clang", ("-O2", "-fPIE", "-fno-builtin", "-D_GNU_SOURCE", "-w")),
]
C: CompilerName = "gcc"
FLAGS = ["-O1", "-fPIC", "-fno-builtin", "-D_GNU_SOURCE"]
HEADERS = "#include <stdlib.h>\n#include <string.h>\n#include <stdio.h>\n"
HEAP = (
    HEADERS
    + """
static char heap[1 << 16] __attribute__((aligned(16)));
static size_t used;
int freed;
void *malloc(size_t size) {
    void *place = heap + used;
    used += (size + 15) & ~(size_t)15;
    return place;
}
void free(void *place) {
    if (place && ((char *)place < heap || (char *)place >= heap + sizeof heap))
        abort();
    freed += place != 0;
}
"""
)
HEAP_WITH_REALLOC = HEAP + "void *realloc(void *p, size_t n) { return p ? 0 : malloc(n); }"
NAMED = HEADERS + 'extern int freed; int f(void) { free(strdup("x")); return freed; }'


def by_load(inputs: list[Path]) -> Outcome:
    code = f"import sys, jitlink; sys.exit(jitlink.load(*{list(map(str, inputs))!r}).main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def by_command(inputs: list[Path]) -> Outcome:
    return Outcome(*spawn(*inputs))


WAYS: dict[str, Callable[[list[Path]], Outcome]] = {
    "load": by_load,
    "LLJIT": linked,
    "command": by_command,
}


def static_program(inputs: list[Path], place: Path) -> Outcome:
    run([require("gcc"), "-static", *inputs, "-o", place])
    done = subprocess.run([place], capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_every_function_as_in_a_static_program(build: Build, way: str, tmp_path: Path) -> None:
    parts = objects("allocator.c", build, parts=2)
    native = static_program(parts, tmp_path / "program")
    assert native.status == 0
    assert "FOREIGN" not in native.output
    assert WAYS[way](parts) == native


def test_all_functions_are_the_jitdylib_s_own() -> None:
    """As far as the process has them; one without an allocator gets those of the process."""
    libc = ctypes.CDLL(None)
    names = [name for name in ALLOCATION_FUNCTIONS if hasattr(libc, name)]
    assert len(names) > 30
    rows = "".join(f"extern char {name}[];\n" for name in names)
    table = rows + f"char *table[] = {{{', '.join(names)}}};\n"
    user = compile_c(table, C, [*FLAGS, "-w"])
    own = ctypes.c_void_p * len(names)
    with jitlink.load(compile_c(HEAP_WITH_REALLOC, C, FLAGS), user) as lib:
        replaced = list(lib.variable("table", own))
    with jitlink.load(user) as lib:
        assert not set(lib.variable("table", own)) & set(replaced)
    assert all(replaced)


@pytest.mark.parametrize("is_archive", [False, True])
def test_the_allocator_is_elsewhere(tmp_path: Path, *, is_archive: bool) -> None:
    """In an archive of the program, and in a JITDylib that it is linked against."""
    user, allocator = objects("allocator.c", BUILDS[1], parts=2)
    native = static_program([user, allocator], tmp_path / "program")
    if is_archive:
        library = archive(tmp_path / "liballocator.a", allocator)
        for way in WAYS.values():
            assert way([user, library]) == native
    else:
        assert Outcome(*spawn(user, "-lheap", "-jd", "heap", allocator)) == native


def test_the_named_example() -> None:
    inputs = [compile_c(HEAP, C, FLAGS), compile_c(NAMED, C, FLAGS)]
    for order in (inputs, inputs[::-1]):
        with jitlink.load(*order) as lib:
            assert lib.f() == 1
    with jitlink.load(compile_c(HEAP + NAMED.removeprefix(HEADERS), C, FLAGS)) as lib:
        assert lib.f() == 1
    with jitlink.LLJIT() as jit:
        for path in inputs:
            jit.add_object(path)
        assert jit.lookup("f")() == 1


def test_an_allocator_that_nothing_has_extracted_yet(tmp_path: Path) -> None:
    """As natively: strdup of the C library refers to malloc, and so extracts it."""
    copies = compile_c(HEADERS + 'char *f(void) { return strdup("x"); }', C, FLAGS)
    frees = compile_c(
        HEADERS + "extern int freed; int g(char *s) { free(s); return freed; }", C, FLAGS
    )
    library = archive(tmp_path / "liballocator.a", compile_c(HEAP, C, FLAGS))
    with jitlink.LLJIT() as jit:
        jit.add_archive(library)
        jit.add_object(copies)
        jit.add_object(frees)
        copy = jit.lookup("f")
        copy.restype = ctypes.c_void_p
        text = copy()
        assert jit.lookup("g")(ctypes.c_void_p(text)) == 1


def test_two_libraries_have_two_allocators() -> None:
    with_allocator = [compile_c(HEAP, C, FLAGS), compile_c(NAMED, C, FLAGS)]
    without = compile_c(HEADERS + 'int f(void) { free(strdup("x")); return 7; }', C, FLAGS)
    with jitlink.load(*with_allocator) as first, jitlink.load(without) as second:
        with jitlink.load(*with_allocator) as third:
            assert [lib.f() for lib in (first, first, second, third)] == [1, 2, 7, 1]
        assert first.f() == 3


@pytest.mark.parametrize("name", ["realloc", "calloc", "aligned_alloc", "malloc_usable_size"])
def test_an_incomplete_allocator(name: str, tmp_path: Path) -> None:
    """Natively a duplicate definition: the C library defines all of them in one object."""
    user = compile_c(
        f"void *{name}(); int main(void) {{ return {name}(0, 8) != 0; }}", C, [*FLAGS, "-w"]
    )
    inputs = [compile_c(HEAP, C, FLAGS), user]
    with pytest.raises(ToolError, match=r"multiple definition of .malloc"):
        static_program(inputs, tmp_path / "program")
    with pytest.raises(AllocatorError, match=rf"malloc, and {name} of the process") as caught:
        jitlink.load(*inputs)
    assert caught.value.names == (name,)
    done = spawn(*inputs)
    assert (done.status, done.out) == (1, "")
    assert f"error: main defines malloc, and {name} of the process" in done.err


def test_without_free() -> None:
    """What is never freed may come from both."""
    source = HEAP.replace("void free(", "void release(")
    user = HEADERS + "int f(void) { return strdup(\"x\")[0] == 'x' && malloc(1); }"
    with jitlink.load(compile_c(source, C, FLAGS), compile_c(user, C, FLAGS)) as lib:
        assert lib.f() == 1
    frees = HEADERS + "void f(void) { free(malloc(1)); }"
    with pytest.raises(AllocatorError, match="free of the process"):
        jitlink.load(compile_c(source, C, FLAGS), compile_c(frees, C, FLAGS))


def test_functions_without_a_version() -> None:
    source = (
        "#include <wchar.h>\n"
        + HEADERS
        + """
int f(void) {
    wchar_t *text = 0;
    size_t size = 0;
    FILE *stream = open_wmemstream(&text, &size);
    fputws(L"wide", stream);
    fclose(stream);
    free(text);
    return (int)size;
}"""
    )
    user = compile_c(source, C, FLAGS)
    with jitlink.load(user) as lib:
        assert lib.f() == 4
    with pytest.raises(AllocatorError, match="open_wmemstream of the process uses another"):
        jitlink.load(compile_c(HEAP, C, FLAGS), user)


def test_definitions_of_the_program_prevail() -> None:
    own = HEADERS + 'char *strdup(const char *s) { (void)s; return "mine"; }'
    user = HEADERS + 'int f(void) { return strdup("x")[0] + *strndup("y", 3); }'
    inputs = [compile_c(text, C, FLAGS) for text in (HEAP, own, user)]
    with jitlink.load(*inputs) as lib:
        assert lib.f() == ord("m") + ord("y")
    with jitlink.LLJIT() as jit:
        for path in inputs:
            jit.add_object(path)
        assert jit.lookup("f")() == ord("m") + ord("y")


def test_given_allocators() -> None:
    """One that tests give is used where it is whole, and no error where it is not."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    allocated: list[int] = []
    freed: list[int] = []

    def malloc(size: int) -> int:
        allocated.append(libc.malloc(size))
        return allocated[-1]

    def free(place: int) -> None:
        freed.append(place)
        libc.free(place)

    prototypes = (
        ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p),
    )
    given = {"malloc": (malloc, prototypes[0]), "free": (free, prototypes[1])}
    user = compile_c(
        HEADERS + 'int f(void) { free(strdup("x")); free(realloc(0, 3)); return 1; }', C, FLAGS
    )
    with jitlink.load(user, definitions=given) as lib:
        assert lib.f() == 1
        assert (len(allocated), len(freed)) == (1, 2)
    with jitlink.load(user, definitions={"malloc": given["malloc"]}) as lib:
        assert lib.f() == 1
    assert (len(allocated), len(freed)) == (1, 2)


def test_without_the_process() -> None:
    inputs = [compile_c(HEAP, C, FLAGS), compile_c(NAMED, C, FLAGS)]
    with pytest.raises(jitlink.UndefinedSymbolError, match="strdup"):
        jitlink.load(*inputs, process_symbols=False)


def test_demangled_names(tmp_path: Path) -> None:
    source = tmp_path / "names.cpp"
    source.write_text("""
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
int main() {
  int status = 7;
  char *name = abi::__cxa_demangle("St6vectorIiSaIiEE", nullptr, nullptr, &status);
  std::printf("%s %d\\n", name, status);
  size_t size = std::strlen(name) + 1;
  char *before = name;
  name = abi::__cxa_demangle("i", name, &size, &status);
  std::printf("%s %d %d\\n", name, status, name == before);
  size = 4;
  name = abi::__cxa_demangle("St3mapIiSsSt4lessIiESaISt4pairIKiSsEEE", name, &size, nullptr);
  std::printf("%s %d\\n", name, size > std::strlen(name));
  std::printf("%d\\n", abi::__cxa_demangle("not mangled", nullptr, nullptr, &status) == nullptr);
  std::printf("%d\\n", status);
  abi::__cxa_demangle("i", before, nullptr, &status);
  std::printf("%d\\n", status);
  std::free(name);
  return 0;
}
""")
    user = tmp_path / "names.o"
    run([require("g++"), "-O1", "-fPIC", "-c", source, "-o", user])
    allocator = objects("allocator.c", BUILDS[0], parts=2)[1]
    program = tmp_path / "program"
    run([require("g++"), "-static", user, allocator, "-o", program])
    native = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    done = spawn(user, allocator)
    assert (done.status, done.out, done.err) == (0, native, "")
