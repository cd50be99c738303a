"""`load` and its libraries: functions, variables, and the lifetime of their memory."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import DuplicateDefinitionError, InputError, UndefinedSymbolError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.exports import Exports
from jitlink.graph import LinkGraph
from jitlink.library import ClosedLibraryError
from jitlink.link import PassConfiguration
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from tests.orc.jits import archived, collect_garbage, compiled

ADD = "int counter = 5; int add(int x, int y) { counter++; return x + y; }"
USER = "int add(int, int); int twice(int x) { return add(x, x); }"


class Counted(SelfExecutorProcessControl):
    """The executor of this process, with an address space of its own."""

    def __init__(self) -> None:
        self.space = AddressSpace((64 << 20,), resident_size=0)
        super().__init__(InProcessMemoryManager(self.space))

    @property
    def used_size(self) -> int:
        """Bytes of memory that links hold."""
        return sum(each.used_size for each in self.space.reservations)


@pytest.fixture
def executor() -> Iterator[Counted]:
    made = Counted()
    yield made
    collect_garbage()
    left = made.used_size
    made.space.close()
    assert left == 0


def test_functions_and_variables(executor: Counted) -> None:
    with jitlink.load(compiled(ADD), executor=executor) as library:
        assert library.add(2, 3) == 5
        assert library.add is library.add
        assert library.function("add") is not library.add
        assert library.variable("counter", ctypes.c_int).value == 6
        assert library["add"] == library.address("add")
        assert set(library) >= {"add", "counter"}
        assert len(library) == len(set(library))
        assert "add" in library
        assert "subtract" not in library
        assert library.linked_files == [str(compiled(ADD))]
        with pytest.raises(AttributeError, match="subtract"):
            _ = library.subtract
        with pytest.raises(UndefinedSymbolError) as caught:
            library.address("subtract")
        assert caught.value.names == ("subtract",)


SLOW_END = """
#include <unistd.h>
extern volatile int ended;
int f(void) { return 1; }
__attribute__((destructor)) static void end(void) { usleep(100000); ended++; }
"""


def test_finalisers_have_run_when_a_library_is_closed() -> None:
    ended = ctypes.c_int()
    definitions = {"ended": ctypes.addressof(ended)}
    library = jitlink.load(compiled(SLOW_END), definitions=definitions)
    assert library.f() == 1
    library.close()
    assert ended.value == 1
    with jitlink.load(compiled(SLOW_END), definitions=definitions) as library:
        function = library.f
    # The code is freed with its last function, whose end waits for nothing.
    assert ended.value == 1
    assert function() == 1
    del function, library
    while ended.value == 1:
        time.sleep(0.01)
    assert ended.value == 2


def test_a_library_may_be_closed_by_code_that_another_one_calls() -> None:
    ended = ctypes.c_int()
    inner = jitlink.load(compiled(SLOW_END), definitions={"ended": ctypes.addressof(ended)})

    def close() -> int:
        inner.close()
        return ended.value

    close_it = ctypes.CFUNCTYPE(ctypes.c_int)(close)
    source = "int close_it(void); int g(void) { return close_it(); }"
    at_end = (
        "int close_it(void); extern int result;"
        "__attribute__((destructor)) static void end(void) { result = close_it(); }"
    )
    with jitlink.load(compiled(source), definitions={"close_it": close_it}) as outer:
        assert outer.g() == 1
    inner = jitlink.load(compiled(SLOW_END), definitions={"ended": ctypes.addressof(ended)})
    result = ctypes.c_int()
    place = ctypes.addressof(result)
    jitlink.load(compiled(at_end), definitions={"close_it": close_it, "result": place}).close()
    assert result.value == 2


def test_a_closed_library(executor: Counted) -> None:
    library = jitlink.load(compiled(ADD), executor=executor)
    assert library.add(1, 1) == 2
    library.close()
    library.close()
    assert executor.used_size == 0
    assert len(library) == 0
    with pytest.raises(ClosedLibraryError):
        library.address("add")
    with pytest.raises(AttributeError):
        _ = library.add


@pytest.mark.parametrize("kind", ["function", "attribute", "variable"])
def test_functions_and_variables_keep_the_memory_alive(executor: Counted, kind: str) -> None:
    library = jitlink.load(compiled(ADD), executor=executor)
    objects: list[object] = [
        library.variable("counter", ctypes.c_int)
        if kind == "variable"
        else library.function("add") if kind == "function" else library.add
    ]  # fmt: skip
    library.close()
    del library
    collect_garbage()
    assert executor.used_size > 0
    objects.clear()
    collect_garbage()
    assert executor.used_size == 0


def test_an_unreferenced_library_is_collected(executor: Counted) -> None:
    for _ in range(5):
        assert jitlink.load(compiled(ADD), executor=executor).add(1, 2) == 3
    collect_garbage()
    assert executor.used_size == 0


COLLECTING = """
import gc, sys, time
import jitlink
from jitlink.memory.address_space import PROCESS

def used_size():
    return sum(each.used_size for each in PROCESS.reservations)

gc.disable()
jitlink.load(sys.argv[1])
before = used_size()
if sys.argv[2] == "private":
    library = jitlink.load(sys.argv[1], configure=lambda graph, passes: None)
else:
    library = jitlink.load(sys.argv[1])
library.itself = library
del library
# A collection while memory is allocated.
assert used_size() > before
with PROCESS._lock:
    gc.collect()
end = time.monotonic() + 30
while used_size() > before and time.monotonic() < end:
    time.sleep(0.001)
assert used_size() == before
"""


@pytest.mark.parametrize("session", ["shared", "private"])
def test_a_library_is_collected_while_a_lock_is_held(session: str) -> None:
    words = [sys.executable, "-c", COLLECTING, str(compiled(ADD)), session]
    subprocess.run(words, check=True, timeout=60)


SESSIONS = """
import jitlink, sys
from jitlink.library import _shared

with jitlink.load(sys.argv[1], configure=lambda graph, config: None) as library:
    assert library.add(2, 3) == 5
print(len(_shared))
"""


def test_a_library_with_a_session_of_its_own_creates_no_other() -> None:
    words = [sys.executable, "-c", SESSIONS, str(compiled(ADD))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_kept_code_stays_in_memory() -> None:
    executor = Counted()
    library = jitlink.load(compiled(ADD), executor=executor)
    address = library.address("add")
    library.keep()
    library.close()
    del library
    collect_garbage()
    assert executor.used_size > 0
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)(2, 2) == 4


def test_archives_and_objects(executor: Counted, tmp_path: Path) -> None:
    unused = compiled("int unused(void) { return 1; }")
    archive = archived(tmp_path / "lib.a", compiled(ADD), unused)
    with jitlink.load(compiled(USER), archive, executor=executor) as library:
        assert library.twice(4) == 8
        assert "unused" not in library
    with jitlink.load(compiled(USER), archive, all_load=True, executor=executor) as library:
        assert library.unused() == 1
    with jitlink.load(compiled(USER).read_bytes(), archive.read_bytes()) as library:
        assert library.twice(5) == 10


def test_definitions_and_aliases(executor: Counted) -> None:
    c_abs = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value or 0
    source = compiled("int magnitude(int); int f(int x) { return magnitude(x) + 1; }")
    definitions = {"magnitude": c_abs}
    with jitlink.load(
        source, definitions=definitions, aliases={"g": "f"}, executor=executor
    ) as library:
        assert library.f(-4) == library.g(-4) == 5
        assert library["g"] == library["f"]
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.load(source, aliases={"g": "h"}, executor=executor)
    assert caught.value.names == ("h",)


def test_process_symbols(executor: Counted) -> None:
    source = compiled("int getpid(void); int f(void) { return getpid(); }")
    with jitlink.load(source, executor=executor) as library:
        assert library.f() == os.getpid()
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.load(source, process_symbols=False, executor=executor)
    assert caught.value.names == ("getpid",)
    assert caught.value.referrers == {"getpid": (str(source),)}
    assert executor.used_size == 0


def test_phony_externals(executor: Counted) -> None:
    source = compiled("int absent(void); void *f(void) { return absent; }")
    with jitlink.load(
        source, phony_externals=True, process_symbols=False, executor=executor
    ) as library:
        library.f.restype = ctypes.c_void_p
        assert library.f()


def test_passes(executor: Counted) -> None:
    seen: list[str] = []

    def configure(graph: LinkGraph, passes: PassConfiguration) -> None:
        seen.append(graph.name)
        passes.post_prune.append(
            lambda graph: seen.extend(each.name for each in graph.defined_symbols)
        )

    with jitlink.load(compiled(ADD), configure=configure, executor=executor):
        assert seen[0] == str(compiled(ADD))
        assert {"add", "counter"} <= set(seen)


def test_a_pass_that_fails(executor: Counted) -> None:
    def fail(graph: LinkGraph) -> None:
        raise LookupError(graph.name)

    with pytest.raises(LookupError):
        jitlink.load(
            compiled(ADD),
            configure=lambda graph, passes: passes.post_allocation.append(fail),  # noqa: ARG005
            executor=executor,
        )
    assert executor.used_size == 0


def test_a_file_name_with_a_null_byte() -> None:
    with pytest.raises(InputError, match=r"null (byte|character)"):
        jitlink.load("a\0b.o")


def test_errors_are_raised_unwrapped(executor: Counted, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        jitlink.load(tmp_path / "missing.o", executor=executor)
    with pytest.raises(InputError):
        jitlink.load(b"not an object", executor=executor)
    with pytest.raises(DuplicateDefinitionError) as caught:
        jitlink.load(compiled(ADD), compiled(ADD + "int z;"), executor=executor)
    assert caught.value.name in {"add", "counter"}
    assert executor.used_size == 0


def test_thread_local_variables_are_those_of_the_calling_thread() -> None:
    source = compiled("_Thread_local int counter = 5; int count(void) { return ++counter; }")
    with jitlink.load(source) as library:
        assert library.count() == 6
        assert library.variable("counter", ctypes.c_int).value == 6
        seen: list[int] = []
        thread = threading.Thread(
            target=lambda: seen.append(library.variable("counter", ctypes.c_int).value)
        )
        thread.start()
        thread.join()
        assert seen == [5]
    with jitlink.LLJIT() as jit:
        jit.add_object(source)
        assert jit.lookup("count")() == 6
        assert ctypes.c_int.from_address(jit.lookup("counter")).value == 6


@pytest.mark.parametrize("count", [3, 30])
def test_rows_of_few_and_of_many_names(count: int) -> None:
    callers = [f"int shared(void); int f{n}(void) {{ return shared() + {n}; }}" for n in range(30)]
    sources = [
        "int shared(void) { return 100; } static int hidden; int *g(void) { return &hidden; }"
    ]
    paths = [compiled(source) for source in [*sources, *callers]]
    with jitlink.load(*paths) as library:
        exports, names = library.exports, ["shared", *(f"f{n}" for n in range(count - 1))]
        assert isinstance(exports, Exports)
        rows = exports.rows([*names, "hidden", "missing"])
        assert sorted(rows) == sorted(names)
        assert rows == {name: exports.row(name) for name in names}
        for name in ("hidden", "missing"):
            with pytest.raises(KeyError):
                exports.row(name)
