"""Executors for other processors, under an emulator: what depends on the processor."""

import ctypes as c
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink import tasks
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorExitedError,
    ExecutorTimeoutError,
    RemoteExecutorProcessControl,
)
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.lljit import LLJIT
from tests.executor.remote.executors import (
    FOREIGN,
    FOREIGN_MACHINES,
    KINDS,
    Setting,
    started,
)
from tests.executor.remote.foreign import executor_command
from tests.toolchain import compile_c, cross_compiler, require, run

SETTINGS = [*FOREIGN, *(Setting(machine, "tcp", "generic") for machine in FOREIGN_MACHINES)]


def compiled(source: str, setting: Setting) -> Path:
    return compile_c(source, "gcc", ("-O1", "-fPIC"), target=setting.target)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_what_it_says_of_itself(setting: Setting) -> None:
    with started(setting) as executor:
        assert executor.triple == f"{setting.kind}-unknown-linux-gnu"
        assert executor.page_size == 4096
        found = tasks.run(executor.lookup_symbols(["malloc", "no_such_symbol"]))
        assert [address is not None for address in found] == [True, False]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_code_where_other_code_was(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor, platform=False) as jit:
        addresses = set()
        for number in range(20):
            tracker = jit.create_resource_tracker()
            source = f"int f(void) {{ return {1000 + number % 4}; }}"
            jit.add_object(compiled(source, setting), tracker)
            address = int(jit.lookup("f"))
            addresses.add(address)
            result = jit.session.wait(executor.run_as_void_function(address))
            assert result == 1000 + number % 4
            jit.remove(tracker)
        # Otherwise the system chooses addresses.
        assert len(addresses) <= 4 or setting.memory == "generic"


CODE_OR_DATA = [("int f(void) { return 1; }", True), ("int f = 1;", False)]


def _link(command: Sequence[str], source: str, setting: Setting) -> None:
    """Link a source, of which nothing runs."""
    with (
        RemoteExecutorProcessControl.launch(command, memory=setting.memory, timeout=60) as executor,
        LLJIT(executor=executor, platform=False) as jit,
    ):
        jit.add_object(compiled(source, setting))
        jit.lookup("f")


@pytest.mark.parametrize("memory", KINDS)
@pytest.mark.parametrize(("source", "is_code"), CODE_OR_DATA)
def test_instruction_caches_of_aarch64_are_maintained(
    source: str, is_code: bool, memory: MemoryKind, tmp_path: Path
) -> None:
    """The emulator needs that for nothing, so its log tells: what it has translated was run."""
    log = tmp_path / "log"
    setting = Setting("aarch64", "pipes", memory)
    emulator, *rest = setting.command
    command = [emulator, "-d", "in_asm", "-dfilter", "0x1000000+0x1000000", "-D", str(log), *rest]
    _link(command, source, setting)
    code = log.read_text()
    assert "bl  " in code
    for instruction in ("cvau, ", "ivau, ", "isb"):
        assert (instruction in code) == is_code


FLUSH = r"""
#include <stdlib.h>
#include <fcntl.h>
#include <unistd.h>
int __riscv_flush_icache(void *start, void *end, unsigned long flags) {
  int file = open(getenv("FLUSHES"), O_CREAT | O_WRONLY | O_APPEND, 0600);
  int is_written = write(file, start < end && !flags ? "+" : "-", 1) == 1;
  close(file);
  return is_written - 1;
}
"""


@pytest.mark.parametrize("memory", KINDS)
@pytest.mark.parametrize(("source", "is_code"), CODE_OR_DATA)
def test_instruction_caches_of_riscv_are_maintained(
    source: str, is_code: bool, memory: MemoryKind, tmp_path: Path
) -> None:
    """For all processors, which is a function of the C library."""
    setting = Setting("riscv64", "pipes", memory)
    emulator, *rest = setting.command
    preloaded, flushes = tmp_path / "flush.so", tmp_path / "flushes"
    function = compile_c(FLUSH, "gcc", ("-O1", "-fPIC"), target=setting.target)
    run([require(cross_compiler(setting.target)), "-shared", "-o", preloaded, function])
    flushes.touch()
    variables = ["-E", f"LD_PRELOAD={preloaded}", "-E", f"FLUSHES={flushes}"]
    _link([emulator, *variables, *rest], source, setting)
    assert flushes.read_text() == ("+" if is_code else "")


ENDS = {
    "crash": ("*(volatile int *)0 = 1;", ExecutorCrashedError, "ended by SIGSEGV"),
    "code that is written": ("*(volatile int *)f = 1;", ExecutorCrashedError, "ended by SIGSEGV"),
    "abort": ("abort();", ExecutorCrashedError, "ended by SIGABRT"),
    "exit": ("exit(7);", ExecutorExitedError, "exited with status 7"),
    "loop": ('for (;;) __asm__ volatile("");', ExecutorTimeoutError, "did not return within 2 s"),
    "kill": ("raise(SIGKILL);", ExecutorCrashedError, "ended by SIGKILL"),
}


@pytest.mark.parametrize("setting", FOREIGN, ids=str)
@pytest.mark.parametrize("end", ENDS)
def test_an_executor_that_ends(end: str, setting: Setting) -> None:
    body, kind, message = ENDS[end]
    source = f"#include <signal.h>\n#include <stdlib.h>\nint f(void) {{ {body} return 0; }}"
    with (
        started(setting, timeout=2 if end == "loop" else 60) as executor,
        jitlink.load(compiled(source, setting), executor=executor) as library,
    ):
        with pytest.raises(kind, match=message):
            library.f()
        assert not executor.is_alive
    assert executor.process is not None
    assert executor.process.wait(1) is not None


@pytest.mark.parametrize("setting", FOREIGN, ids=str)
def test_initialisers_and_exit_handlers(setting: Setting, tmp_path: Path) -> None:
    source = r"""
    #include <fcntl.h>
    #include <stdlib.h>
    #include <unistd.h>
    static char path[200];
    static int initialised;
    __attribute__((constructor)) static void first(void) { initialised = 42; }
    static void leave(const char *text) {
      int file = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);
      write(file, text, 1);
      close(file);
    }
    static void at_exit(void) { leave("e"); }
    __attribute__((destructor)) static void last(void) { leave("d"); }
    void begin(const char *name) {
      for (int i = 0; (path[i] = name[i]); i++) {}
      atexit(at_exit);
    }
    int state(void) { return initialised; }
    """
    trace = tmp_path / "trace"
    with started(setting) as executor:
        with jitlink.load(compiled(source, setting), executor=executor) as library:
            library.begin(str(trace).encode())
            assert library.state() == 42
            assert not trace.exists()
        assert trace.read_text() == "ed"


@pytest.mark.parametrize("setting", FOREIGN, ids=str)
def test_dlopen_of_a_jitdylib(setting: Setting) -> None:
    source = r"""
    #include <dlfcn.h>
    int f(int n) { return dlsym(dlopen("main", RTLD_NOW), "f") == (void *)f ? n : -1; }
    """
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compiled(source, setting))
        jit.initialize()
        assert jit.session.wait(executor.run_as_int_function(int(jit.lookup("f")), 7)) == 7


@pytest.mark.parametrize("setting", FOREIGN, ids=str)
def test_exceptions_through_linked_frames(setting: Setting) -> None:
    source = r"""
    #include <stdexcept>
    #include <stdlib.h>
    #include <string.h>
    static int compare(const void *a, const void *b) {
      int x = *(const int *)a, y = *(const int *)b;
      if (x == 13 || y == 13) throw std::runtime_error("thirteen");
      return x - y;
    }
    extern "C" int sort(int *numbers, int count, char *text) try {
      // The exception passes through frames of the C library.
      qsort(numbers, count, sizeof *numbers, compare);
      return 0;
    } catch (const std::exception &error) {
      strcpy(text, error.what());
      return 1;
    }
    """
    path = compile_c(source, "clang", ("-O1", "-fPIC"), suffix=".cpp", target=setting.target)
    with started(setting) as executor, jitlink.load(path, executor=executor) as library:
        numbers, text = (c.c_int * 4)(4, 1, 3, 2), c.create_string_buffer(20)
        assert library.sort(numbers, 4, text) == 0
        assert list(numbers) == [1, 2, 3, 4]
        numbers[2] = 13
        assert library.sort(numbers, 4, text) == 1
        assert text.value == b"thirteen"


@pytest.mark.parametrize("memory", KINDS)
def test_large_pages(memory: str, tmp_path: Path) -> None:
    """An executor of this machine, which believes that its pages are larger than those here."""
    preloaded = tmp_path / "pages.so"
    source = Path(__file__).with_name("pages.c")
    run([require("gcc"), "-shared", "-fPIC", "-o", preloaded, source])
    native = executor_command("x86_64-linux-gnu")
    command = ["env", f"LD_PRELOAD={preloaded}", *native]
    program = r"""
    #include <stdio.h>
    #include <string.h>
    static char zeros[100000];
    static const char text[] = "text";
    static __thread int own = 3;
    int counter = 5;
    int f(int add) {
      char buffer[20];
      snprintf(buffer, sizeof buffer, "%s %d", text, own++);
      return (counter += add) + zeros[99999] + (int)strlen(buffer);
    }
    const char *message(void) { return text; }
    """
    kind = next(each for each in KINDS if each == memory)
    with RemoteExecutorProcessControl.launch(command, memory=kind, timeout=60) as executor:
        assert executor.page_size == 1 << 16 > os.sysconf("SC_PAGESIZE")
        path = compile_c(program, "gcc", ("-O1", "-fPIC"))
        for _ in range(3):
            with jitlink.load(path, executor=executor) as library:
                assert library.f(2) == 13
                assert library.variable("counter", c.c_int).value == 7
                library.message.restype = c.c_char_p
                assert library.message() == b"text"
                assert tasks.run(executor.place_arguments(["a", "b"])).argc == 2
