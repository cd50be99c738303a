"""When Python ends: handlers of Python's `atexit`, exit handlers, finalisers, and their order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform.jits import compiled
from tests.platform.programs import ROOT
from tests.toolchain import compile_c, require, run

# Its functions must not be called when the static objects were destroyed.
STRINGS = """
#include <cstdio>
#include <cstdlib>
#include <string>
static std::string text("a text that is too long to be stored without an allocation");
struct Witness { ~Witness() { std::puts("destroyed"); std::fflush(stdout); } };
static Witness witness;
static void leave() { std::printf("exit handler, %zu\\n", text.size()); std::fflush(stdout); }
extern "C" int length() { return text.size(); }
extern "C" int begin() { return std::atexit(leave); }
"""
ORDER = """
import atexit, os, sys
def show(*words):
    print(*words, flush=True)
class AtTeardown:
    def __init__(self, function, write=os.write):
        self.function, self.write = function, write
    def __del__(self):
        self.write(1, b"teardown %d\\n" % self.function())
atexit.register(lambda: show("registered before", library.length()))
if sys.argv[1].endswith(".o"):
    import jitlink
    library = jitlink.load(sys.argv[1])
else:
    import ctypes
    library = ctypes.CDLL(sys.argv[1])
atexit.register(lambda: show("registered after", library.length()))
library.begin()
at_teardown = AtTeardown(library.length)
show("end of the script")
"""


def _script(text: str, *words: str | Path) -> tuple[int, list[str], str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", text, *map(str, words)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_order_is_that_of_a_shared_library(tmp_path: Path) -> None:
    path = compile_c(STRINGS, "gcc", ("-O1", "-fPIC"), suffix=".cpp")
    shared = tmp_path / "library.so"
    run([require("g++"), "-shared", path, "-o", shared])
    native = _script(ORDER, shared)
    assert native == (
        0,
        [
            "end of the script",
            "registered after 58",
            "registered before 58",
            "teardown 58",
            "exit handler, 58",
            "destroyed",
        ],
        "",
    )
    assert _script(ORDER, path) == native


CALLBACKS = """
import atexit, ctypes, sys
def show(*words):
    print(*words, flush=True)
atexit.register(show, "registered before")
import jitlink
from jitlink.lljit import LLJIT
NOTE = ctypes.CFUNCTYPE(None, ctypes.c_int)
atexit.register(show, "registered after")
note = NOTE(lambda number: show("note", number))
address = ctypes.cast(note, ctypes.c_void_p).value
way, *paths = sys.argv[1:]
if way == "load":
    kept = jitlink.load(paths[0], definitions={"note": address})
elif way == "harness":
    kept = jitlink.harness(paths[0], mocks={"note": (lambda number: show("note", number), NOTE)})
else:
    kept = jit = LLJIT()
    host = jit.session.create_jitdylib("host")
    jit.main.add_to_link_order(host)
    value = address if way == "address" else (lambda number: show("note", number), NOTE)
    host.define({"note": value})
    jit.add_object(paths[0])
    jit.initialize()
show("end of the script")
atexit.register(show, "registered last")
"""
LIFE = (
    "static void at_exit(void) { note(2); }"
    "BEGIN(begin) { note(1); atexit(at_exit); } END(end) { note(3); }"
)


@pytest.mark.parametrize("way", ["load", "harness", "address", "function"])
def test_python_functions_are_called_after_the_last_handler(way: str) -> None:
    status, output, errors = _script(CALLBACKS, way, compiled(LIFE))
    assert (status, errors) == (0, "")
    assert output == [
        "note 1",
        "end of the script",
        "registered last",
        "registered after",
        "registered before",
        "note 2",
        "note 3",
    ]


INDIRECT = """
import ctypes, sys
from jitlink.lljit import LLJIT
jit = LLJIT()
middle = jit.create_jitdylib("middle")
jit.define({"note": (lambda n: print(n, flush=True), ctypes.CFUNCTYPE(None, ctypes.c_int))},
           dylib=middle)
jit.add_object(sys.argv[1], dylib=middle)
jit.main.add_to_link_order(middle)
jit.add_object(sys.argv[2])
jit.initialize()
"""


def test_what_calls_python_through_its_dependencies_is_closed_in_time() -> None:
    inner = compiled("void inner(void) { note(1); } END(end) { note(2); }")
    outer = compiled("void inner(void); END(end) { inner(); }")
    assert _script(INDIRECT, inner, outer) == (0, ["1", "2"], "")


TWO = """
import ctypes, sys
from jitlink.lljit import LLJIT
def fail(number):
    print("note", number, flush=True)
    raise ValueError(number)
jits = []
for number in (1, 2):
    jit = LLJIT()
    jit.define({"note": (lambda n, number=number: fail(10 * number + n),
                         ctypes.CFUNCTYPE(None, ctypes.c_int))})
    jit.add_object(sys.argv[1])
    jits.append(jit)
    jit.initialize()
"""


def test_the_last_session_is_closed_first_and_errors_are_shown() -> None:
    status, output, errors = _script(TWO, compiled("END(end) { note(3); }"))
    assert (status, output) == (0, ["note 23", "note 13"])
    assert errors.count("Traceback") == 2
    assert "ValueError: 23" in errors


CLEARED = """
import atexit, os, sys
from tests.platform.jits import NotingJIT
import ctypes
from jitlink.lljit import LLJIT
note = (lambda number: print(number, flush=True), ctypes.CFUNCTYPE(None, ctypes.c_int))
def new():
    jit = LLJIT()
    jit.define({"note": note})
    jit.add_object(sys.argv[1])
    jit.initialize()
    return jit
jit = new()
if sys.argv[2] == "clear":
    atexit._clear()
    print("cleared", flush=True)
else:
    atexit._run_exitfuncs()
    print("run", flush=True)
other = new()
other.close() if len(sys.argv) > 3 else None
print("end", flush=True)
if sys.argv[2] == "clear":
    os._exit(0)
"""


def test_a_cleared_list_of_handlers_closes_nothing() -> None:
    # As in the children of a process that forks with multiprocessing.
    path = compiled("END(end) { note(3); }")
    assert _script(CLEARED, path, "clear") == (0, ["cleared", "end"], "")


def test_handlers_may_run_before_the_end() -> None:
    path = compiled("END(end) { note(3); }")
    assert _script(CLEARED, path, "run") == (0, ["3", "run", "end", "3"], "")
    assert _script(CLEARED, path, "run", "close") == (0, ["3", "run", "3", "end"], "")


# A finaliser that the C library's exit handlers run when there is no interpreter any more.
LOADS = """
#include <dlfcn.h>
#include <stdio.h>
static void *session, *library;
int begin(void) {
    session = dlopen(0, RTLD_NOW);
    library = dlopen("libm.so.6", RTLD_NOW);
    return session && library;
}
__attribute__((destructor)) static void end(void) {
    printf("%d, %d, %d, %d\\n", dlclose(session), !!dlsym(library, "cos"), dlclose(library),
           !!dlopen("libm.so.6", RTLD_NOW));
    printf("%s\\n", dlerror());
    fflush(stdout);
}
"""
LOADED = """
import sys, jitlink
library = jitlink.load(sys.argv[1])
print(library.begin(), flush=True)
"""


def test_the_session_cannot_be_asked_when_the_interpreter_has_ended() -> None:
    path = compile_c(LOADS, "zig", ("-O1", "-fPIC"))
    message = "the session has ended with its interpreter"
    assert _script(LOADED, path) == (0, ["1", "-1, 1, 0, 0", message], "")


# Without a GIL, handlers may be deleted when Python has ended all other threads.
LATE = f"""
{CALLBACKS}
import threading, time
from jitlink.orc.driver import _all_roles
def hold():
    with list(_all_roles)[0]._lock:
        held.set()
        time.sleep(1000)
held = threading.Event()
threading.Thread(target=hold, daemon=True).start()
held.wait()
sys.is_finalizing = lambda: True
"""


def test_no_thread_is_waited_for_that_has_ended_in_a_session() -> None:
    status, output, errors = _script(LATE, "load", compiled(LIFE))
    assert (status, errors) == (0, "")
    assert output[-2:] == ["note 2", "note 3"]
