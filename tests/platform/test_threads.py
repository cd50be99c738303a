"""Code that is linked finds no threads of jitlink's own while it runs."""

from __future__ import annotations

import subprocess
import sys

from tests.platform.programs import ROOT
from tests.toolchain import compile_c

COUNTS = """
#include <dirent.h>
static int at_start;
int thread_count(void) {
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;
    for (struct dirent *each; (each = readdir(tasks));)
        count += each->d_name[0] != '.';
    closedir(tasks);
    return count;
}
__attribute__((constructor)) static void begin(void) { at_start = thread_count(); }
__attribute__((destructor)) static void end(void) { at_start = -1; }
int main(void) { return 10 * at_start + thread_count(); }
"""

LIBRARIES = """
import sys
import jitlink
libraries = []
for number in range(3):
    libraries.append(jitlink.load(sys.argv[1]))
    print(*(library.main() for library in libraries))
with jitlink.load(sys.argv[1]) as library:
    print(library.main())
for number in range(20):
    # Its finaliser runs on a thread of its own.
    del library
    library = jitlink.load(sys.argv[1])
    print(library.main())
del libraries
"""

# A thread of the session is started by what is handed over to it while another thread drives it.
PROGRAM = """
import sys, threading
from jitlink.lljit import LLJIT
from jitlink.tasks import sleep
async def step():
    await sleep(0)
    return threading.get_ident()
with LLJIT(platform=True) as jit:
    jit.add_object(sys.argv[1])
    for _ in range(20):
        address = jit.lookup("main")
        assert jit.session.wait(step(), may_drive=False) != threading.get_ident()
        print(jit.platform.run_main(jit.main, address, ["program"]))
"""

# A program without a platform has no initialisers that run.
BARE_PROGRAM = """
import sys
from jitlink.lljit import LLJIT
from jitlink.link import run_in_process
with LLJIT(platform=False) as jit:
    jit.add_object(sys.argv[1])
    address = jit.lookup("main")
    print(run_in_process(jit.session.executor.run_as_main(address, ["program"])))
"""


def _run(script: str) -> list[str]:
    path = compile_c(COUNTS, "zig", ("-O1", "-fPIC"))
    # NumPy's OpenBLAS starts one for each further processor.
    environment = {"PYTHONPATH": str(ROOT / "src"), "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_libraries_find_one_thread() -> None:
    assert _run(LIBRARIES) == ["11", "11 11", "11 11 11", "11", *["11"] * 20]


def test_a_program_finds_one_thread() -> None:
    # The initialisers run for the first time in each run, because all is closed after it.
    assert _run(PROGRAM) == ["11"] * 20


def test_a_program_without_a_platform_finds_one_thread() -> None:
    assert _run(BARE_PROGRAM) == ["1"]
