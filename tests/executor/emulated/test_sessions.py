"""Harness, command, thread-local storage, initialisers and libraries with emulated machines."""

import ctypes as c
import subprocess
import sys
from pathlib import Path

import pytest

import jitlink
from jitlink import LLJIT
from jitlink.errors import ExecutorError, TLSError
from jitlink.executor import Emulated
from jitlink.link import run_in_process
from jitlink.memory.tls_module import TLSABI, TLSModuleSpec, TLSRelocation, TLSValue
from jitlink.orc import IndirectStubsManager, lazy_reexports
from tests.executor.emulated.machines import LITTLE, MACHINES, build, loaded

DRIVER = """
int sensor(int channel);
__attribute__((noinline)) static int scale(int x) { return 3 * x; }
__attribute__((noinline)) int helper(int x) { return x + 1; }
int read_all(int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += scale(sensor(i));
  return sum;
}
int use(int x) { return 2 * helper(x); }
"""
FUNCTION = c.CFUNCTYPE(c.c_int, c.c_int)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_harness(machine: str) -> None:
    path = build(DRIVER, machine, "-fno-inline", "-fno-ipa-cp")
    mocks = {"sensor": (lambda channel: channel + 10, FUNCTION)}
    with Emulated(machine) as executor:
        with jitlink.harness(path, mocks=mocks, executor=executor) as tested:
            assert tested.read_all(3) == 3 * (10 + 11 + 12)
            assert tested.use(3) == 8
        more = {**mocks, "helper": (lambda _x: 100, FUNCTION)}
        with jitlink.harness(path, mocks=more, executor=executor) as tested:
            assert tested.use(3) == 200


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("model", ["local-exec", "initial-exec", "local-dynamic", "global-dynamic"])
def test_thread_local_variables(machine: str, model: str) -> None:
    source = """
    _Thread_local int first = 7, second;
    _Thread_local long long third __attribute__((aligned(32))) = 5;
    int next(void) { second += 10; return ++first + second; }
    int *place(void) { return &first; }
    int aligned(void) { return (int)((__UINTPTR_TYPE__)&third % 32) + (int)third; }
    """
    flags = ("-fno-pic",) if model == "local-exec" else ("-fPIC",)
    with loaded(source, machine, None, f"-ftls-model={model}", *flags) as (_, lib):
        # Python has an attribute of the name.
        function = lib.function("next")
        assert [function() for _ in range(3)] == [18, 29, 40]
        assert lib.aligned() == 5
        lib.place.restype = c.c_void_p
        assert lib.place() == lib["first"]


@pytest.mark.parametrize("machine", LITTLE)
def test_variables_of_another_link(machine: str) -> None:
    one = build("_Thread_local int shared = 3; int get(void) { return shared; }", machine, "-fPIC")
    two = build("extern _Thread_local int shared; int bump(void) { return ++shared; }", machine)
    with Emulated(machine) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(one)
        assert jit.lookup("get")() == 3
        jit.add_object(two)
        assert jit.lookup("bump")() == 4
        assert jit.lookup("get")() == 4


def test_a_module_without_variables() -> None:
    spec = TLSModuleSpec("empty", relocations=[TLSRelocation(TLSValue.TPOFF)])
    with Emulated("riscv64") as machine:
        assert machine.memory_manager.tls is not None
        with pytest.raises(TLSError, match="has no thread-local variables of module 1"):
            run_in_process(machine.memory_manager.tls.load(spec, TLSABI(lambda _: b"", 0)))


@pytest.mark.parametrize("machine", MACHINES)
def test_initialisers_and_exit_handlers(machine: str) -> None:
    source = """
    #include <stdlib.h>
    void note(int);
    static void handler(void) { note(4); }
    __attribute__((constructor(101))) static void early(void) { note(1); }
    __attribute__((constructor)) static void start(void) { note(2); atexit(handler); }
    __attribute__((destructor)) static void end(void) { note(5); }
    void work(void) { note(3); }
    """
    seen: list[int] = []
    definitions = {"note": (seen.append, c.CFUNCTYPE(None, c.c_int))}
    with loaded(source, machine, definitions) as (_, lib):
        lib.work()
        assert seen == [1, 2, 3]
        del lib
    assert seen == [1, 2, 3, 4, 5]


def test_many_links_leave_nothing() -> None:
    path = build(DRIVER, "aarch64")
    with Emulated("aarch64") as executor:
        before = None
        for _ in range(5):
            definitions = {"sensor": (lambda x: x, FUNCTION)}
            with jitlink.load(path, executor=executor, definitions=definitions) as lib:
                assert lib.use(1) == 4
            del lib
            mapped = executor.processor.mapped_ranges()
            assert before in {None, tuple(mapped)}
            before = tuple(mapped)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_lazy_functions(machine: str) -> None:
    body = build("double f(double a, int x) { return a + x; }", machine)
    user = build("double f(double, int); int g(int x) { return f(0.5, x) * 2; }", machine)
    with Emulated(machine) as executor, LLJIT(executor=executor) as jit:
        stubs = IndirectStubsManager(jit.layer)
        bodies = jit.create_jitdylib("bodies")
        jit.main.define(lazy_reexports(stubs, bodies, {"f": "f"}))
        jit.add_object(user)
        function = jit.lookup("g")
        jit.add_object(body, dylib=bodies)
        assert [function(3), function(4)] == [7, 9]


def run_command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jitlink", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_command(machine: str) -> None:
    source = """
    #include <stdio.h>
    #include <stdlib.h>
    int main(int argc, char **argv) {
      printf("%d %s", argc, argv[argc - 1]);
      fprintf(stderr, "an error\\n");
      if (argc > 1) abort();
      exit(argc + 20);
    }
    """
    path = build(source, machine, "-g")
    done = run_command("-emulate", path, "-args", "program")
    assert (done.returncode, done.stdout, done.stderr) == (21, "1 program", "an error\n")
    done = run_command("-emulate", path, "-args", "program", "one")
    assert done.returncode == 1
    assert "error: emulated code was stopped by SIGABRT: abort" in done.stderr
    assert " main + " in done.stderr


def test_options_that_exclude_one_another() -> None:
    path = build("int main(void) { return 0; }", "aarch64")
    done = run_command("-emulate", "-oop-executor", path)
    assert done.returncode == 1
    assert "-emulate: the program runs in an emulated machine, or in another process" in done.stderr


def test_without_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unicorn", None)
    with pytest.raises(ExecutorError, match=r"needs Unicorn: install jitlink\[emulator\]"):
        Emulated("aarch64")


def test_nothing_imports_unicorn() -> None:
    code = "import sys, jitlink.executor as e; e.Emulated; assert 'unicorn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
