"""Objects that need executable stacks are refused by name, or get them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import ExecutableStackError, ExecutorError
from jitlink.executor import stacks
from jitlink.lljit import LLJIT
from jitlink.memory.mapping import mapped_ranges
from tests.runtime_programs.building import link_native
from tests.tool.command import archive, compile_to, error, spawn
from tests.toolchain import cross_compiler, require, run

# gcc calls a nested function whose address is taken through code on the stack.
NESTED = """
#include <pthread.h>
#include <stdio.h>
static int __attribute__((noinline)) apply(int (*f)(int), int x) { return f(x); }
int go(int k) {
    int add(int x) { return x + k; }
    return apply(add, 10);
}
static void *work(void *unused) {
    printf("thread: %d\\n", go(7));
    return unused;
}
int main(int argc, char **argv) {
    pthread_t thread;
    printf("main: %d\\n", go(argc));
    pthread_create(&thread, 0, work, 0);
    pthread_join(thread, 0);
    return 3;
}
"""
FORTRAN = """
program p
  integer :: k
  k = 7
  print *, apply(add, 10)
contains
  integer function add(x)
    integer, intent(in) :: x
    add = x + k
  end function
  integer function apply(f, x)
    interface
      integer function f(x)
        integer, intent(in) :: x
      end function
    end interface
    integer, intent(in) :: x
    apply = f(x)
  end function
end program
"""
ADVICE = (
    "the code needs executable stacks, as where the address of a nested function is taken; "
    "-executable-stack (executable_stack=True in Python) gives them to all threads"
)
CALLER = "int go(int); int main(void) { return go(1); }"


@pytest.fixture
def nested() -> Path:
    return compile_to(Path("nested.o"), NESTED, "gcc", "-O0", "-fPIC")


@pytest.fixture
def nested_member() -> Path:
    source = NESTED.replace("int main", "int unused")
    return compile_to(Path("member.o"), source, "gcc", "-O0", "-fPIC")


def test_a_program_with_nested_functions(nested: Path) -> None:
    assert spawn(nested) == error(f"nested.o: {ADVICE}")
    native = subprocess.run(
        [link_native("nested.c", [nested])], capture_output=True, text=True, check=False
    )
    assert spawn(nested, "-executable-stack", "-args", "nested") == (3, native.stdout, "")
    assert native.stdout == "main: 11\nthread: 17\n"
    # Nothing runs, so nothing is made executable and nothing refused.
    assert spawn(nested, "-noexec") == (0, "", "")


def test_a_program_without_nested_functions_has_no_executable_stack() -> None:
    source = """
    #include <stdio.h>
    #include <string.h>
    int main(void) {
        char line[1000];
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            if (strstr(line, "[stack]"))
                puts(strstr(line, "rwxp") ? "executable" : "not executable");
        return 0;
    }
    """
    plain = compile_to(Path("plain.o"), source, "gcc")
    assert spawn(plain) == (0, "not executable\n", "")
    assert spawn(plain, "-executable-stack").out == "not executable\n"


def test_a_fortran_program_with_internal_procedures() -> None:
    compiler = require("gfortran-12")
    source, compiled, native = Path("p.f90"), Path("p.o"), Path("native")
    source.write_text(FORTRAN)
    run([compiler, "-O0", "-fPIC", "-c", source, "-o", compiled])
    run([compiler, compiled, "-o", native])
    libraries = [require(f"lib{name}.a") for name in ("gfortran", "quadmath", "gcc")]
    expected = run([native.absolute()])
    assert spawn(compiled, *libraries) == error(f"p.o: {ADVICE}")
    assert spawn(compiled, *libraries, "-executable-stack") == (0, expected, "")


def test_only_members_that_are_linked_count(nested_member: Path) -> None:
    library = archive(Path("lib.a"), nested_member)
    plain = compile_to(Path("plain.o"), "int main(void) { return 4; }", "gcc", "-fPIC")
    caller = compile_to(Path("caller.o"), CALLER, "gcc", "-fPIC")
    assert spawn(plain, library).status == 4
    assert spawn(caller, library) == error(f"lib.a(member.o): {ADVICE}")
    assert spawn(caller, library, "-executable-stack").status == 11


def _stack_is_executable() -> bool:
    return any(each.path == "[stack]" and "x" in each.permissions for each in mapped_ranges())


def test_libraries_are_refused_and_stacks_stay_as_they_are(nested: Path) -> None:
    source = NESTED.replace("int go", "static int go").replace("int main", "int other")
    other = compile_to(Path("other.o"), source, "gcc", "-O0", "-fPIC")
    before = _stack_is_executable()
    with pytest.raises(ExecutableStackError) as caught:
        jitlink.load(nested, other)
    assert caught.value.files == ("nested.o", "other.o")
    assert str(caught.value).startswith("nested.o and 1 more: the code needs executable stacks")
    with LLJIT() as jit:
        jit.add_object(nested)
        with pytest.raises(jitlink.JITLinkError) as failed:
            jit.lookup("go")
        assert isinstance(failed.value.__cause__, ExecutableStackError)
    assert _stack_is_executable() == before


PYTHON = """
import sys, threading
import jitlink
from jitlink.lljit import LLJIT
from jitlink.memory.mapping import mapped_ranges
def show():
    stacks = [each.permissions for each in mapped_ranges() if each.path == "[stack]"]
    print(stacks, flush=True)
begin = threading.Event()
library = None
def early():
    begin.wait()
    print(library.go(1))
thread = threading.Thread(target=early)
thread.start()
show()
if sys.argv[2] == "load":
    library = jitlink.load(sys.argv[1], executable_stack=True)
elif sys.argv[2] == "harness":
    library = jitlink.harness(sys.argv[1], executable_stack=True)
else:
    jit = jitlink.LLJITBuilder().set_executable_stack(True).create()
    jit.add_object(sys.argv[1])
    class library:
        go = jit.lookup("go")
print(library.go(2))
begin.set()
thread.join()
late = threading.Thread(target=lambda: print(library.go(3)))
late.start()
late.join()
show()
"""


@pytest.mark.parametrize("way", ["load", "harness", "builder"])
def test_stacks_of_all_threads_become_executable(nested: Path, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PYTHON, str(nested), way],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = ["['rw-p']", "12", "11", "13", "['rwxp']"]
    assert (done.stdout.split("\n")[:-1], done.stderr) == (expected, "")


def test_a_library_of_which_glibc_says_no(nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes) -> int:
        raise ExecutorError(f"no library of {bool(data)}")

    monkeypatch.setattr(stacks, "load_module", refuse)
    stacks.make_stacks_executable.cache_clear()
    with pytest.raises(ExecutorError, match=r"cannot be made executable: no library.*GLIBC_TUN"):
        jitlink.load(nested, executable_stack=True)


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "riscv64-linux-gnu"])
def test_other_architectures(target: str) -> None:
    compiler = require(cross_compiler(target))
    source = Path("other.c")
    source.write_text(NESTED)
    run([compiler, "-O0", "-c", source.absolute(), "-o", Path("other.o").absolute()])
    assert spawn("other.o", "-noexec", "-phony-externals") == (0, "", "")
    graph = jitlink.create_link_graph(Path("other.o").read_bytes(), "other.o")
    assert jitlink.default_passes(graph).needs_executable_stack == ["other.o"]
