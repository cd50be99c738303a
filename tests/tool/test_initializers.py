"""Programs with initialisers, exit handlers and exceptions, in one JITDylib or several."""

import subprocess
from pathlib import Path

import pytest

from tests.tool.command import Command, Done, archive, compile_to, spawn
from tests.toolchain import compile_c, require

SAYS = """
#include <stdio.h>
static void say(const char *what) {{ printf("%s {name}\\n", what); fflush(stdout); }}
__attribute__((constructor)) static void begin(void) {{ say("begin"); }}
__attribute__((destructor)) static void end(void) {{ say("end"); }}
{code}
"""
MAIN = "int one(int); int main(int count, char **words) { say(words[0]); return one(count); }"
ONE = 'int two(int); int one(int x) { say("calls"); return two(x) + 1; }'
TWO = 'int two(int x) { say("called"); return 2 * x; }'
START = 'int start(void) { say("start"); return 9; }'
OPENS = """
#include <dlfcn.h>
int main(void) {
    void *other = dlopen("other", RTLD_NOW);
    int status = ((int (*)(void))dlsym(other, "start"))();
    dlclose(other);
    say("closed other, in");
    return status;
}
"""
# For two JITDylibs: an initialiser and a function construct an `Object`.
THROWS = """
#include <cstdio>
#include <stdexcept>
struct Object {
    const char *name;
    Object(const char *name) : name(name) { std::printf("make %s\\n", name); }
    ~Object() { std::printf("drop %s\\n", name); }
};
static Object object("static of thrower");
int risk(int x) {
    static Object local("local of thrower");
    Object passing("passing");
    if (x > 1)
        throw std::runtime_error("too much");
    return x;
}
"""
CATCHES = """
#include <cstdio>
#include <stdexcept>
int risk(int x);
int main(int count, char **words) {
    try {
        return risk(count);
    } catch (const std::runtime_error &error) {
        std::printf("caught %s\\n", error.what());
        return 7;
    }
}
"""


@pytest.fixture(autouse=True)
def _files(_here: None) -> None:
    codes = {"main": MAIN, "one": ONE, "two": TWO, "other": START, "opens": OPENS}
    for name, code in codes.items():
        source = SAYS.format(name=name, code=code)
        compile_to(Path(f"{name}.o"), source, "zig", "-O0", "-fPIC")
    compile_to(Path("plain.o"), "int two(int x) { return 2 * x; }")


def _lines(done: Done) -> list[str]:
    assert done.err == ""
    return done.out.splitlines()


ORDERS = [
    "main.o -lone -jd one one.o -ltwo -jd two two.o",
    "main.o -lone -ltwo -jd two two.o -jd one one.o -ltwo",
    "main.o -ltwo -lone -jd one one.o -ltwo -jd two two.o",
]


# The order of initialisers does not depend on that of the libraries in the command.
@pytest.mark.parametrize("words", ORDERS)
def test_libraries_are_initialised_first_and_finalised_last(words: str) -> None:
    done = spawn(*words.split(), "-args", "run")
    assert done.status == 3
    assert _lines(done) == [
        "begin two", "begin one", "begin main",
        "run main", "calls one", "called two",
        "end main", "end one", "end two",
    ]  # fmt: skip


def test_llvms_runtime_does_the_same() -> None:
    runtime = ("-orc-runtime", require("liborc_rt-x86_64.a"))
    words = ("main.o", "one.o", "two.o", "-args", "run")
    done = spawn(*runtime, *words)
    assert _lines(done) == [
        "begin main",
        "begin one",
        "begin two",
        "run main",
        "calls one",
        "called two",
    ]
    command: list[str | Path] = [require("llvm-jitlink-22"), "-num-threads=0", *runtime, *words]
    peer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.status, done.out) == (peer.returncode, peer.stdout)
    done = spawn("-slab-allocate=64Kb", *runtime, *words)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("jitlink: error: the slab of 0x10000 bytes")


def test_noexec_runs_no_initialisers(command: Command) -> None:
    words = "main.o -lone -jd one one.o -ltwo -jd two two.o -noexec -show-linked-files"
    assert _lines(command(*words.split())) == [
        f"Linking {name}.o" for name in ("main", "one", "two")
    ]


def test_a_dylib_that_main_is_not_linked_against_is_initialised_by_dlopen() -> None:
    done = spawn("opens.o", "-jd", "other", "other.o")
    assert done.status == 9
    assert _lines(done) == [
        "begin opens", "begin other", "start other", "end other", "closed other, in opens",
        "end opens",
    ]  # fmt: skip


def test_the_entry_points_own_dylib_is_initialised() -> None:
    done = spawn("opens.o", "-jd", "other", "other.o", "-entry", "start")
    assert done.status == 9
    assert _lines(done) == ["begin opens", "begin other", "start other", "end other", "end opens"]
    # If main is linked against it, it is initialised in the link order.
    words = "main.o -lone -ltwo -jd one one.o -ltwo -jd two two.o -entry two"
    done = spawn(*words.split())
    assert [line for line in _lines(done) if line.startswith("begin")] == [
        "begin two", "begin one", "begin main",
    ]  # fmt: skip


@pytest.mark.parametrize("lazy", [(), ("-lazy",)])
def test_exceptions_and_static_objects_across_dylibs(lazy: tuple[str, ...]) -> None:
    catcher, thrower = (compile_c(text, "gcc", suffix=".cpp") for text in (CATCHES, THROWS))
    words: list[str | Path] = [catcher, "-lthrower", "-jd", "thrower", *lazy, thrower]
    quiet, loud = (spawn(*words, "-args", *["word"] * count) for count in (1, 2))
    assert (quiet.status, loud.status) == (1, 7)
    passing = ["make passing", "drop passing"]
    ends = ["drop local of thrower", "drop static of thrower"]
    begins = ["make static of thrower", "make local of thrower"]
    assert _lines(quiet) == [*begins, *passing, *ends]
    assert _lines(loud) == [*begins, *passing, "caught too much", *ends]


def test_lazy_objects_with_initialisers_are_not_lazy() -> None:
    show = "-show-linked-files"
    words = (show, "main.o", "-lazy", "one.o", "-lazy", "plain.o", "-args", "run")
    for more in ((), ("-speculate=none",), ("-num-threads=0",)):
        done = spawn(*more, *words)
        assert done.status == 3
        lines = _lines(done)
        # Python flushes its buffer at exit.
        assert [each for each in lines if not each.startswith("Linking")] == [
            "begin main", "begin one", "run main", "calls one", "end one", "end main",
        ]  # fmt: skip
        linked = [each for each in lines if each.startswith("Linking")]
        assert sorted(linked) == ["Linking main.o", "Linking one.o", "Linking plain.o"]


@pytest.mark.parametrize("ending", ["return 5;", "exit(5);"])
def test_finalisers_may_call_lazy_functions(ending: str) -> None:
    code = f"""
    #include <stdlib.h>
    int two(int);
    __attribute__((destructor)) static void late(void) {{ printf("two is %d\\n", two(1)); }}
    int main(void) {{ say("run"); {ending} }}
    """
    compile_to(Path("ends.o"), SAYS.format(name="ends", code=code), "zig", "-O0", "-fPIC")
    record = ("-speculate=simple", "-num-threads=1", "-record-lazy-execs=calls")
    for more in ((), record):
        done = spawn("ends.o", "-lazy", "plain.o", *more)
        assert done.status == 5
        assert sorted(_lines(done)) == ["begin ends", "end ends", "run ends", "two is 2"]
    assert Path("calls").read_text() == "main, two$orc_fnbody\n"


@pytest.mark.parametrize("option", ["-hidden-lboth", "-lboth", "-lazy -lboth"])
def test_archive_members_are_initialised_in_all_layers(option: str) -> None:
    archive(Path("libboth.a"), Path("one.o"), Path("two.o"))
    done = spawn("main.o", "-L.", *option.split(), "-args", "run")
    assert done.status == 3
    assert _lines(done) == [
        "begin main", "begin one", "begin two", "run main", "calls one", "called two",
        "end two", "end one", "end main",
    ]  # fmt: skip


def test_on_exit_handlers_run_at_the_end_of_the_process() -> None:
    code = """
    #include <stdlib.h>
    static void last(int status, void *word) { printf("%d: %s\\n", status, (char *)word); }
    int main(void) { on_exit(last, "and out"); printf("kept back, "); return 4; }
    """
    compile_to(Path("leaves.o"), "#include <stdio.h>" + code, "zig", "-O0", "-fPIC")
    done = spawn("leaves.o", "-show-linked-files")
    assert (done.status, done.err) == (4, "")
    assert sorted(_lines(done)) == ["Linking leaves.o", "kept back, 4: and out"]


def test_symbol_tables_have_no_initializer_symbols(command: Command) -> None:
    assert command("two.o", "-entry", "two", "-write-symtab", "table").status == 0
    assert "__inits" not in Path("table").read_text()
