"""Per-dylib functions, which `jitlink.load` links with the program."""

from __future__ import annotations

import ctypes
import mmap
import time
import weakref
from collections.abc import Iterator

import pytest

import jitlink
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration, run_in_process
from jitlink.lljit import LLJIT
from tests.orc.units import time_limit
from tests.platform.jits import compiled

NOTE = ctypes.CFUNCTYPE(None, ctypes.c_int)
PROGRAM = """
static void at_exit(void) { note(2); }
void begin(void) { note(1); atexit(at_exit); }
void *self(void) { return jit_dlopen(0, 1); }
"""
OTHER = "int other(void) { return 5; }"


class Notes:
    """The numbers that linked code has noted."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._function = NOTE(self.numbers.append)
        self.definitions = {"note": ctypes.cast(self._function, ctypes.c_void_p).value or 0}

    def wait_for(self, numbers: list[int]) -> None:
        """Wait until those were noted: a library's end does not wait for its exit handlers."""
        while self.numbers != numbers:
            time.sleep(0.001)


@pytest.fixture
def notes() -> Iterator[Notes]:
    with time_limit():
        yield Notes()


@pytest.mark.parametrize("others", [0, 1])
def test_exit_handlers_run_when_the_library_is_released(notes: Notes, others: int) -> None:
    paths = [compiled(PROGRAM), compiled(OTHER)][: others + 1]
    library = jitlink.load(*paths, definitions=notes.definitions)
    library.begin()
    assert notes.numbers == [1]
    assert library.linked_files == [str(path) for path in paths]
    assert {"atexit", "jit_dlopen", "__dso_handle"}.isdisjoint(library)
    library.close()
    del library
    notes.wait_for([1, 2])


@pytest.mark.parametrize("others", [0, 1])
def test_each_library_has_a_handle_of_its_own(notes: Notes, others: int) -> None:
    paths = [compiled(PROGRAM), compiled(OTHER)][: others + 1]
    handles = set()
    libraries = [jitlink.load(*paths, definitions=notes.definitions) for _ in range(3)]
    for library in libraries:
        opened = library.function("self")
        opened.restype = ctypes.c_void_p
        handles.add(opened())
    assert None not in handles
    assert len(handles) == 3


def test_a_program_of_several_objects_is_one_link(notes: Notes) -> None:
    graphs: list[str] = []

    def configure(graph: LinkGraph, _config: PassConfiguration) -> None:
        graphs.append(graph.name)

    paths = [compiled(PROGRAM), compiled(OTHER)]
    library = jitlink.load(*paths, definitions=notes.definitions, configure=configure)
    library.begin()
    assert graphs == [str(paths[0])]


@pytest.mark.parametrize("binding", ["", "__attribute__((weak)) "])
def test_definitions_of_the_program_override_them(notes: Notes, binding: str) -> None:
    own = compiled(
        f"{binding}int atexit(void (*f)(void)) {{ note(7); return 0; }}"
        "void *copy(void) { return jit_dlsym(jit_dlopen(0, 1), 0); }"
    )
    library = jitlink.load(compiled(PROGRAM), own, definitions=notes.definitions)
    library.begin()
    library.close()
    del library
    assert notes.numbers == [1, 7]


def test_weak_references_find_them_too(notes: Notes) -> None:
    source = (
        "__attribute__((weak)) int atexit(void (*)(void));"
        "static void f(void) { note(3); } int has(void) { return atexit ? !atexit(f) : 0; }"
    )
    library = jitlink.load(compiled(source), compiled(OTHER), definitions=notes.definitions)
    found = library.has()
    library.close()
    del library
    assert found == 1
    notes.wait_for([3])


def test_definitions_take_their_place(notes: Notes) -> None:
    taken: list[object] = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(taken.append)
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    library = jitlink.load(
        compiled(PROGRAM), compiled(OTHER), definitions=notes.definitions | {"atexit": address}
    )
    library.begin()
    assert len(taken) == 1


def test_an_object_that_refers_to_its_handle_is_one_link(notes: Notes) -> None:
    graphs: list[str] = []

    def configure(graph: LinkGraph, _config: PassConfiguration) -> None:
        graphs.append(graph.name)

    source = (
        "int __cxa_atexit(void (*)(int), long, void *); extern char __dso_handle;"
        "void begin(void) { __cxa_atexit(note, 5, &__dso_handle); }"
    )
    path = compiled(source)
    library = jitlink.load(path, definitions=notes.definitions, configure=configure)
    library.begin()
    library.close()
    del library
    notes.wait_for([5])
    assert graphs == [str(path)]


@pytest.mark.parametrize("others", [0, 1])
def test_handlers_of_all_kinds_run_the_last_one_first(others: int) -> None:
    # Without definitions, so that the names of a single object are not indexed.
    source = (
        "int __cxa_atexit(void (*)(long), long, void *); extern char __dso_handle;"
        "static int *digits; static void put(long digit) { *digits = *digits * 10 + digit; }"
        "static void two(void) { put(2); } static void four(void) { put(4); }"
        "void begin(int *place) { digits = place;"
        "__cxa_atexit(put, 1, &__dso_handle); atexit(two);"
        "__cxa_atexit(put, 3, &__dso_handle); atexit(four); }"
    )
    paths = [compiled(source), compiled(OTHER)][: others + 1]
    with time_limit():
        for _ in range(3):
            digits = ctypes.c_int()
            library = jitlink.load(*paths)
            library.begin(ctypes.byref(digits))
            library.close()
            del library
            while digits.value < 1000:
                time.sleep(0.001)
            assert digits.value == 4321


def test_nothing_keeps_the_graph_of_what_is_loaded(notes: Notes) -> None:
    source = "extern char __dso_handle; void *handle(void) { return &__dso_handle; }"
    graphs: list[weakref.ref[LinkGraph]] = []

    def configure(graph: LinkGraph, _config: PassConfiguration) -> None:
        graphs.append(weakref.ref(graph))

    library = jitlink.load(compiled(source), configure=configure, definitions=notes.definitions)
    assert library.address("handle")
    assert [graph() for graph in graphs] == [None]


AUXILIARY = """
static unsigned long page_size;
BEGIN(int argc, char **argv, char **envp) {
    if (envp != argv + argc + 1)
        return;
    while (*envp)
        ++envp;
    for (unsigned long *each = (unsigned long *)(envp + 1); each[0]; each += 2)
        if (each[0] == 6)  /* AT_PAGESZ */
            page_size = each[1];
}
int found(void) { return page_size; }
"""


def test_constructors_find_the_auxiliary_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiled(AUXILIARY.replace("BEGIN", "__attribute__((constructor)) static void begin"))
    assert jitlink.load(path).found() == mmap.PAGESIZE
    # This moves the process's environment away from its auxiliary vector.
    monkeypatch.setenv("JITLINK_ADDED", "value")
    assert jitlink.load(path).found() == mmap.PAGESIZE
    with LLJIT(platform=True) as jit:
        jit.add_object(path)
        jit.initialize()
        assert jit.lookup("found")() == mmap.PAGESIZE


def test_main_finds_the_auxiliary_vector_without_a_platform() -> None:
    source = AUXILIARY.replace("BEGIN", "int main").replace("return;", "return -1;")
    path = compiled(source.replace("}\nint found", "return page_size;\n}\nint found"))
    with LLJIT(platform=False) as jit:
        jit.add_object(path)
        main = jit.lookup("main")
        executor = jit.session.executor
        assert run_in_process(executor.run_as_main(main, ["program", "x"])) == mmap.PAGESIZE
