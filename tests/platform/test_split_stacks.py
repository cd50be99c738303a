"""Code with split stacks (`-fsplit-stack`): `__morestack` as a compiler driver provides it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import UndefinedSymbolError
from jitlink.platform import split_stacks
from tests.platform.programs import Outcome, linked
from tests.toolchain import compile_c, require, run

DEEP = """
static int deep(int n) {
    volatile char frame[4096];
    for (unsigned each = 0; each < sizeof frame; each += 512)
        frame[each] = (char)n;
    return n ? deep(n - 1) + (frame[512] == (char)n) : 0;
}
"""
PROGRAM = (
    DEEP
    + """
#include <pthread.h>
#include <stdio.h>
static void *work(void *unused) {
    printf("thread: %d\\n", deep(5000));
    return unused;
}
int main(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    printf("main: %d\\n", deep(20000));
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 17);
    pthread_create(&thread, &attributes, work, 0);
    pthread_join(thread, 0);
    return 3;
}
"""
)
# What is compiled so that it does not split its stack has to find one that is large enough.
LIMIT = 'ulimit -s 8192; exec "$@"'


def limited(command: Sequence[str | Path]) -> Outcome:
    """The outcome of a command with a stack of 8 MiB: 80 MiB are needed."""
    done = subprocess.run(
        ["sh", "-c", LIMIT, "sh", *command], capture_output=True, text=True, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def compiled(source: str, *flags: str) -> Path:
    require("gcc")
    require("libgcc.a")
    return compile_c(source, "gcc", ["-O0", "-fsplit-stack", *flags])


@pytest.mark.parametrize("flags", [("-fPIC",), ("-fPIE",), ("-fPIC", "-O2", "-fno-inline")])
def test_as_natively(flags: tuple[str, ...], tmp_path: Path) -> None:
    path, program = compiled(PROGRAM, *flags), tmp_path / "program"
    run([require("gcc"), "-fsplit-stack", path, "-o", program])
    native = limited([program])
    assert native == Outcome(3, "main: 20000\nthread: 5000\n", "")
    assert limited([sys.executable, "-m", "jitlink", path]) == native
    assert linked([path]) == native
    code = f"import jitlink; raise SystemExit(jitlink.load({str(path)!r}).main())"
    assert limited([sys.executable, "-c", code]) == native


def test_a_program_in_parts(tmp_path: Path) -> None:
    """One part splits its stack, and another one, which does not, creates the thread."""
    split = compiled(DEEP + "int go(int n) { return deep(n); }", "-fPIC")
    plain = compile_c(
        """
#include <pthread.h>
#include <stdio.h>
int go(int);
static void *work(void *unused) {
    printf("thread: %d\\n", go(5000));
    return unused;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, work, 0);
    pthread_join(thread, 0);
    printf("main: %d\\n", go(20000));
    return 4;
}
""",
        "gcc",
        ["-O1", "-fPIC"],
    )
    program = tmp_path / "program"
    run([require("gcc"), "-fsplit-stack", plain, split, "-o", program])
    native = limited([program])
    assert native == Outcome(4, "thread: 5000\nmain: 20000\n", "")
    for order in ((plain, split), (split, plain)):
        assert limited([sys.executable, "-m", "jitlink", *order]) == native


def test_libraries_come_and_go() -> None:
    path = compiled(DEEP + "int go(int n) { return deep(n); }", "-fPIC")
    for _ in range(3):
        with jitlink.load(path) as lib, jitlink.load(path) as other:
            assert lib.go(20000) == other.go(20000) == 20000


def test_definitions_of_a_program_prevail() -> None:
    own = """
    .globl __morestack
__morestack:
    ret
    .section .note.GNU-stack, "", @progbits
"""
    caller = "extern char __morestack[];\nvoid *f(void) { return __morestack; }"
    paths = [compile_c(own, suffix=".s"), compile_c(caller, "gcc", ["-O1", "-fPIC"])]
    with jitlink.load(*paths) as lib:
        lib.f.restype = ctypes.c_void_p
        assert lib.f() == lib["__morestack"]


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiled(DEEP + "int go(int n) { return deep(n); }", "-fPIC")
    monkeypatch.setattr(split_stacks, "support_archives", lambda _machine: [])
    message = "__morestack is usually in libgcc.a, which is beside gcc"
    with pytest.raises(UndefinedSymbolError, match=message):
        jitlink.load(path)
