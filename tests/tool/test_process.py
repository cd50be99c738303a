"""What a program finds in the process that the command runs it in."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runtime_programs.building import build
from tests.runtime_programs.programs import SOURCES, Case, read_program
from tests.runtime_programs.running import linked_command
from tests.tool.command import compile_to, shared_library, spawn
from tests.toolchain import report_missing

BUFFERED_BY_PYTHON = {**os.environ, "PYTHONUNBUFFERED": ""}
UNBUFFERED_BY_PYTHON = {**os.environ, "PYTHONUNBUFFERED": "1"}

# Prints what a library finds when it is loaded, and what a program and its child process find.
OPENBLAS_VARIABLE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
extern char found_by_library[];
static const char *find(char **environment) {
    for (; *environment; ++environment)
        if (!strncmp(*environment, "OPENBLAS_NUM_THREADS=", 21)) return *environment + 21;
    return "none";
}
int main(int argc, char **argv, char **given) {
    const char *value = getenv("OPENBLAS_NUM_THREADS");
    printf("%s %s %s %s\\n", found_by_library, value ? value : "none", find(environ), find(given));
    fflush(stdout);
    execl("/bin/sh", "sh", "-c", "echo ${OPENBLAS_NUM_THREADS-none}", (char *)NULL);
    return 1;
}
"""
OPENBLAS_VARIABLE_OF_LIBRARY = """
#include <stdio.h>
#include <stdlib.h>
char found_by_library[99];
__attribute__((constructor)) static void find(void) {
    const char *value = getenv("OPENBLAS_NUM_THREADS");
    snprintf(found_by_library, sizeof found_by_library, "%s", value ? value : "none");
}
"""

# As pip installs it.
SCRIPT = """
import sys
from jitlink.tool.main import run
if __name__ == "__main__":
    sys.exit(run())
"""

LEAVES = """
#include <pthread.h>
#include <stdio.h>
int lazy(int);
int main(void) { printf("%d\\n", lazy(6)); pthread_exit(0); }
"""


def _commands(name: str) -> tuple[list[str], list[str]]:
    program = read_program(SOURCES / name)
    built = build(Case(program, "gcc", "-O0", True, (), ()))
    return [str(built.native)], linked_command(built.inputs)


@pytest.mark.parametrize("environment", [BUFFERED_BY_PYTHON, UNBUFFERED_BY_PYTHON], ids="BU")
@pytest.mark.parametrize("words", [b"", b"some words"])
def test_streams_are_buffered_as_natively(environment: dict[str, str], words: bytes) -> None:
    native, linked = (
        subprocess.run(command, input=words, env=environment, capture_output=True, check=True)
        for command in _commands("stdio_buffers.c")
    )
    assert linked.stdout == native.stdout
    assert native.stdout.startswith(b"written at once")


def _on_terminal(command: list[str]) -> bytes:
    main, other = pty.openpty()
    with open(main, "rb", buffering=0) as terminal, open(other, "rb") as program_side:  # noqa: PTH123
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=program_side, env=UNBUFFERED_BY_PYTHON,
            check=True,
        )  # fmt: skip
        assert done.returncode == 0
        return terminal.read(1000)


def test_a_terminal_is_line_buffered() -> None:
    native, linked = map(_on_terminal, _commands("stdio_buffers.c"))
    assert linked == native
    assert native.startswith(b"first -1")


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_descriptor(closed: int) -> None:
    for command in _commands("stdio_buffers.c"):
        done = subprocess.run(
            command, env=UNBUFFERED_BY_PYTHON, preexec_fn=lambda: os.close(closed), check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # Without standard output, it cannot write.
        assert done.returncode == closed


def test_a_program_of_lazy_functions_may_leave_its_main_thread() -> None:
    main, lazy = Path("main.o"), Path("lazy.o")
    compile_to(main, LEAVES, "zig", "-fPIC")
    compile_to(lazy, "int lazy(int x) { return 7 * x; }", "zig", "-fPIC")
    assert spawn(main, "-lazy", lazy) == (0, "42\n", "")


NAMES = """
import ctypes, sys
from jitlink.lljit import LLJIT
name = ctypes.c_char_p.in_dll(ctypes.CDLL(None), "program_invocation_name")
before = name.value
with LLJIT() as jit:
    jit.add_object(sys.argv[1])
    for argv in (["one/two"], []):
        assert jit.platform.run_main(jit.main, jit.lookup("main"), argv) == 7
        assert name.value == before
    jit.session.wait(jit.session.executor.run_as_main(jit.lookup("main"), ["three"]))
    assert name.value == before
"""


def test_the_name_of_the_process_is_restored() -> None:
    source = """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <stdio.h>
    int main(int argc) { return puts(argc ? program_invocation_short_name : "none"), 7; }
    """
    path = compile_to(Path("name.o"), source, "zig", "-fPIC")
    done = subprocess.run(
        [sys.executable, "-c", NAMES, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "two\nnone\nthree\n", "")


def test_a_program_without_arguments_is_named_by_its_first_input() -> None:
    source = """
    #include <assert.h>
    int main(int argc, char **argv) { assert(argc); return 0; }
    """
    Path("folder").mkdir()
    path = compile_to(Path("folder/failing.o"), source, "gcc", "-fPIC")
    done = spawn(path)
    assert done.err.startswith("failing.o: ")
    assert "Assertion `argc' failed" in done.err
    assert spawn(path, "-args", "some/program").status == 0


@pytest.mark.parametrize("value", [None, "", "1", "3"])
@pytest.mark.parametrize("start", [("-m", "jitlink"), ("script",), ("numpy_first",)], ids=str)
def test_the_number_of_threads_that_the_environment_gives_openblas_is_as_it_was(
    start: tuple[str, ...], value: str | None
) -> None:
    Path("script").write_text(SCRIPT)
    Path("numpy_first").write_text(f"import numpy{SCRIPT}")
    program = compile_to(Path("program.o"), OPENBLAS_VARIABLE, "zig", "-fPIC")
    library = shared_library(Path("libfinds.so"), OPENBLAS_VARIABLE_OF_LIBRARY)
    environment = _environment(OPENBLAS_NUM_THREADS=value)
    command = [sys.executable, *start, str(program), f"-L{library.parent.resolve()}", "-lfinds"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    expected = "none" if value is None else value
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == f"{' '.join([expected] * 4)}\n{expected}\n"


@pytest.mark.parametrize(("value", "expected"), [(None, 1), ("1", 1), ("2", 2)])
def test_numpy_starts_no_threads_unless_the_user_wants_them(
    value: str | None, expected: int
) -> None:
    if (os.cpu_count() or 1) < expected:
        report_missing("a second processor, without which OpenBLAS starts no threads")
    source = """
    #include <dirent.h>
    int main(void) {
        DIR *tasks = opendir("/proc/self/task");
        int entries = 0;
        while (readdir(tasks)) ++entries;
        return entries - 2;
    }
    """
    program = compile_to(Path("program.o"), source, "zig", "-fPIC")
    command = [sys.executable, "-m", "jitlink", str(program)]
    environment = _environment(OPENBLAS_NUM_THREADS=value)
    assert subprocess.run(command, env=environment, check=False).returncode == expected


def test_the_openblas_of_a_program_has_its_usual_number_of_threads() -> None:
    # A second OpenBLAS: another file is another library.
    installed = sorted(Path(np.__file__).parent.with_name("numpy.libs").glob("*openblas*.so"))
    if not installed:
        report_missing("an OpenBLAS of NumPy's own, as in the wheels of PyPI")
    library = Path(f"{installed[0].name}.copy.so").resolve()
    for each in installed[0].parent.iterdir():
        # What it needs is found beside it.
        library.with_name(each.name).symlink_to(each)
    shutil.copyfile(installed[0], library)
    name = "scipy_openblas_get_num_threads64_"
    source = f"int {name}(void); int main(void) {{ return {name}(); }}"
    program = compile_to(Path("program.o"), source, "zig", "-fPIC")
    command = [sys.executable, "-m", "jitlink", str(program), str(library)]
    native = f"import ctypes; raise SystemExit(ctypes.CDLL({str(library)!r}).{name}())"
    environment = _environment(OPENBLAS_NUM_THREADS=None)
    expected = subprocess.run([sys.executable, "-c", native], env=environment, check=False)
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.stderr, done.returncode) == (b"", expected.returncode)
    assert done.returncode >= 1


def _environment(**changes: str | None) -> dict[str, str]:
    """The environment with changes; None removes a variable."""
    changed = {**os.environ, **changes}
    return {name: value for name, value in changed.items() if value is not None}
