"""Many threads that link at once, from the first use of the package on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.toolchain import compile_c

COUNTS = """
#include <stdio.h>
static int alive;
static __thread int calls = 3;
__attribute__((constructor)) static void begin(void) { ++alive; }
__attribute__((destructor)) static void end(void) { --alive; }
int sum(int a, int b) {
    char text[20];
    snprintf(text, sizeof text, "%d", a + b);
    return ++calls > 3 && *text && alive == 1 ? a + b : -1;
}
"""
# Threads change as often as the interpreter can: at each of its checks.
THREADS = """
import sys, threading
sys.setswitchinterval(1e-6)
way, path, number = sys.argv[1], sys.argv[2], 6
together, errors, seen = threading.Barrier(number), [], set()
def load(a, b):
    import jitlink
    library = jitlink.load(path)
    seen.add(library._code.session)
    assert library.sum(a, b) == a + b
    if b % 2:
        library.close()
def create(a, b):
    import jitlink
    with jitlink.LLJIT() as jit:
        seen.add(jit.session.executor)
        jit.add_object(path)
        jit.initialize()
        assert jit.lookup("sum")(a, b) == a + b
def work(thread):
    try:
        together.wait()
        for round in range(6):
            (load if way == "load" else create)(thread, round)
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work, args=(each,)) for each in range(number)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if errors:
    raise errors[0]
assert len(seen) == 1, seen
"""


@pytest.mark.parametrize("way", ["load", "create"])
def test_threads_that_link_at_once(way: str) -> None:
    path = compile_c(COUNTS, "zig", ("-O1", "-fPIC"))
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", THREADS, way, path],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
