"""Commands with the same effect in llvm-jitlink: same exit status, same linked objects."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.tool.command import Command, Done, archive, compile_to, shared_library, spawn
from tests.toolchain import require, run

CALLER = """
int helper(int), other(void);
int main(int count, char **words) { return count > 1 ? other() : helper(4); }
"""
HELPER = """
int counter;
static int next(int x) { return x + 1; }
int helper(int x) { counter++; return next(x) * 2; }
int other(void) { return 5; }
"""
BLOB = "extern const char blob[], tail[]; int main(void) { return blob[0] + (tail - blob); }"
ONLY_OTHER = "int other(void) { return 9; }"
FAILURE = 1
# Graphs that llvm-jitlink links for lazy functions.
_INTERNAL = re.compile(r"__orc_reentry_graph|<indirect stubs|liborc_rt|^<")


@pytest.fixture(autouse=True)
def _files(_here: None) -> None:
    caller = compile_to(Path("caller.o"), CALLER, "zig", "-fPIC")
    helper = compile_to(Path("helper.o"), HELPER, "zig", "-fPIC")
    compile_to(Path("other.o"), ONLY_OTHER, "zig", "-fPIC")
    needless = compile_to(Path("needless.o"), "int needless;", "zig", "-fPIC")
    compile_to(Path("blob.o"), BLOB, "zig", "-fPIC")
    compile_to(Path("puts.o"), 'int puts(const char *); int main(void) { return puts("x") < 0; }')
    Path("lib").mkdir()
    archive(Path("lib/libhelper.a"), helper, needless)
    archive(Path("main.a"), caller, helper)
    Path("data").write_bytes(b"hello")
    Path("helper.tbd").write_text("--- !tapi-tbd\ntbd-version: 4\n...\n")


def llvm_jitlink(*words: str) -> Done:
    command = [str(require("llvm-jitlink-22")), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


def linked(output: str) -> set[str]:
    """The objects that were linked; llvm-jitlink numbers members."""
    names = re.findall(r"^Linking (.*)$", output, re.MULTILINE)
    return {re.sub(r"\[\d+\]", "", name) for name in names if not _INTERNAL.search(name)}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("caller.o helper.o", 10),
        ("--noexec=true caller.o helper.o", 0),
        # JITDylibs see their link order.
        ("caller.o -jd a helper.o", FAILURE),
        ("caller.o -la -jd a helper.o", 10),
        ("-jd a caller.o helper.o", 10),
        ("-jd a caller.o -jd b helper.o", FAILURE),
        ("-jd a caller.o -lb -jd b helper.o", 10),
        ("caller.o -lmain -jd a helper.o", FAILURE),
        ("-jd a caller.o -lmain -jd b helper.o", FAILURE),
        ("helper.o -jd a caller.o -lmain", 10),
        ("caller.o -la -jd a -lb -jd b helper.o", FAILURE),
        ("caller.o helper.o -jd a other.o", 10),
        ("caller.o -la -lb -jd a other.o -jd b helper.o -jd c", 10),
        ("caller.o -lb -la -jd a other.o -jd b helper.o -args x y", 5),
        ("caller.o -la -lb -jd a other.o -jd b helper.o -args x y", 9),
        ("caller.o -jd a helper.o -entry other", 5),
        # -L is for one JITDylib.
        ("caller.o -lhelper -Llib", 10),
        ("-Llib caller.o -jd a -lhelper", FAILURE),
        ("caller.o -la -jd a -Llib -lhelper", 10),
        ("caller.o -lhelper -L nothing", FAILURE),
        ("caller.o lib/libhelper.a helper.o", 10),
        ("main.a", 10),
        ("caller.o -all_load lib/libhelper.a", 10),
        ("caller.o -ObjC lib/libhelper.a", 10),
        # Symbols of hidden libraries are for their own JITDylib.
        ("caller.o -hidden-lhelper -Llib", 10),
        ("caller.o -hidden-l helper -Llib", 10),
        ("caller.o -load_hidden lib/libhelper.a", 10),
        ("caller.o -load_hidden=lib/libhelper.a", 10),
        ("caller.o -la -jd a -load_hidden lib/libhelper.a", FAILURE),
        ("caller.o -la -jd a lib/libhelper.a", 10),
        ("caller.o -hidden-lnone -Llib", FAILURE),
        ("caller.o -load_hidden helper.o", FAILURE),
        # Only Mach-O has interfaces.
        ("caller.o -weak_library helper.tbd", FAILURE),
        ("caller.o -weak_library none.tbd", FAILURE),
        ("caller.o -weak-lhelper -Llib", FAILURE),
        ("caller.o helper.o -weak-la -jd a", FAILURE),
        # Symbols.
        ("-alias a:helper=b:helper -alias a:other=b:other -jd a caller.o -jd b helper.o", 10),
        ("-jd a caller.o -alias helper=b:helper -alias other=b:helper -jd b helper.o", 10),
        ("caller.o -alias helper=none:helper", FAILURE),
        ("caller.o helper.o -alias helper", FAILURE),
        ("puts.o -no-process-syms", FAILURE),
        ("puts.o -no-process-syms=false", 0),
        ("caller.o helper.o -no-process-syms", 10),
        ("caller.o helper.o -abs unused=0x10 -jd a -abs unused=16", 10),
        ("caller.o helper.o -abs helper=1", FAILURE),
        # Sections from files.
        ("blob.o -sectcreate .blob,data@blob=0,tail=4", 108),
        ("blob.o -sectcreate .blob,data@blob=0,tail=0x4", 108),
        ("blob.o -sectcreate .blob,data@blob=0", FAILURE),
        ("blob.o -sectcreate .blob,data", FAILURE),
        ("blob.o -sectcreate .blob,none@blob=0,tail=4", FAILURE),
        ("blob.o -sectcreate .blob", FAILURE),
        ("blob.o -sectcreate ,data", FAILURE),
        ("blob.o -sectcreate .blob,data@blob=x,tail=4", FAILURE),
        ("blob.o -la -jd a -sectcreate .blob,data@blob=1,tail=2", 102),
        ("blob.o -jd a -sectcreate .blob,data@blob=1,tail=2", FAILURE),
        # Threads, memory managers and targets.
        ("caller.o helper.o -num-threads=0", 10),
        ("caller.o helper.o -num-threads 3", 10),
        ("caller.o helper.o -num-threads=many", FAILURE),
        ("caller.o helper.o -use-memmgr=shared", 10),
        ("caller.o helper.o -use-memmgr=none", FAILURE),
        ("caller.o helper.o -triple x86_64-linux-gnu", 10),
        ("caller.o helper.o -triple aarch64-linux-gnu", 10),
        ("caller.o helper.o -triple x86_64-pc-windows-msvc", FAILURE),
        ("caller.o helper.o -triple arm64-apple-darwin", FAILURE),
        # Options without effect.
        ("caller.o helper.o -speculate=simple", 10),
        ("caller.o helper.o -speculate=none -speculate-order none.csv", 10),
        ("caller.o helper.o -record-lazy-execs no/such/folder", 10),
        ("caller.o helper.o -speculate=often", FAILURE),
        # Files.
        ("caller.o helper.o -write-symtab=no/such/folder", FAILURE),
        ("-symbolicate-with=none data", FAILURE),
        ("-symbolicate-with=data none", FAILURE),
        ("-symbolicate-with=data data", 0),
        ("-symbolicate-with=data", FAILURE),
    ],
)
def test_same_verdict(command: Command, words: str, status: int) -> None:
    options = words.split()
    # Words after -args are the program's.
    show = [] if "-symbolicate-with" in words else ["-show-linked-files"]
    ours, theirs = command(*show, *options), llvm_jitlink(*show, *options)
    assert (ours.status, theirs.status) == (status, status), (ours, theirs)
    if status != FAILURE:
        assert linked(ours.out) == linked(theirs.out)
        assert bool(ours.err) == bool(theirs.err)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("caller.o other.o -preload ./libshared.so", 104),
        ("caller.o other.o -preload=./none.so", FAILURE),
        ("caller.o other.o", FAILURE),
        ("caller.o other.o -no-process-syms -preload ./libshared.so", FAILURE),
        ("caller.o other.o -no-process-syms -L. -lshared", 104),
        ("caller.o -la -jd a -L. -lshared other.o", 104),
        ("caller.o -la -jd a -L. -lshared other.o -no-process-syms", FAILURE),
        ("caller.o other.o -lshared -search-sys-lib", 104),
        ("caller.o other.o -lshared", FAILURE),
    ],
)
def test_same_verdict_with_shared_libraries(
    words: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_library(Path("libshared.so"), "int helper(int x) { return x + 100; }")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(Path.cwd()))
    options = words.split()
    ours, theirs = spawn(*options), llvm_jitlink(*options)
    assert (ours.status, theirs.status) == (status, status), (ours, theirs)


@pytest.mark.parametrize(
    "words",
    [
        "caller.o -lazy helper.o",
        "-lazy caller.o helper.o",
        "-lazy caller.o -lazy helper.o",
        "-lazy=false caller.o -lazy=true helper.o",
        "caller.o -lazy -lhelper -Llib",
        "caller.o -lazy lib/libhelper.a",
        "caller.o -lazy -hidden-lhelper -Llib",
        "caller.o -la -jd a -lazy helper.o",
        "-lazy caller.o -lb -jd b -lazy helper.o -lazy needless.o",
    ],
)
def test_same_lazy_functions(command: Command, words: str) -> None:
    options = [*words.split(), "-show-linked-files", "-speculate=simple", "-num-threads=1"]
    ours = command(*options, "-record-lazy-execs", "ours")
    theirs = llvm_jitlink(
        "-orc-runtime", str(require("liborc_rt-x86_64.a")), *options, "-record-lazy-execs=theirs"
    )
    assert (ours.status, theirs.status) == (10, 10), (ours, theirs)
    assert linked(ours.out) <= linked(theirs.out)
    assert Path("ours").read_text() == Path("theirs").read_text()
    # Each reads the other's record.
    options += ["-speculate-order", "ours"]
    assert llvm_jitlink("-orc-runtime", str(require("liborc_rt-x86_64.a")), *options).status == 10
    assert command(*options[:-1], "theirs").status == 10


def test_same_symbol_table(command: Command) -> None:
    words = ("caller.o", "helper.o", "-noexec", "-write-symtab")
    assert command(*words, "ours").status == llvm_jitlink(*words, "theirs").status == 0
    tables = [_symbols(Path(name).read_text()) for name in ("ours", "theirs")]
    assert tables[0] == tables[1]
    assert ("helper.o", "next") in tables[0] or ("helper.o", "helper") in tables[0]


def _symbols(table: str) -> set[tuple[str, str]]:
    """Objects and names of a symbol table."""
    found, file = set(), ""
    for line in table.splitlines():
        if line.startswith('"'):
            file = line.strip('"')
        else:
            address, name = line.split(" ")
            assert re.fullmatch("0x[0-9a-f]+", address)
            found.add((file, name))
    return found


BACKTRACE = """
no address
#0 0x1005
#1 1000 \n#2 0x1004 more
0x1005
\t 0xfff
 at 0x1fff
far 0x90000000
large 0xfffffffffffffffff
nearly 0x80001fff
"""
TABLE = """
"first.o"
0x1000 main
0x1000 again
rubbish
0xzz rubbish
2000
"second.o"
1fff long name
"""


def test_same_symbolicated_backtraces(command: Command) -> None:
    Path("trace").write_text(BACKTRACE)
    Path("trace2").write_text("last line 0x1001")
    Path("table").write_text(TABLE)
    words = ("-symbolicate-with", "table", "trace", "trace2")
    ours = command(*words)
    assert ours == llvm_jitlink(*words)
    assert "#0 0x1005 again + 5 (first.o)\n" in ours.out
    assert " at 0x1fff long name (second.o)\n" in ours.out


def test_same_section_contents(command: Command) -> None:
    # Symbols that do not overlap: else llvm-jitlink does not terminate.
    source = """
    .globl main, value, zeros
    .type main, @function
    .text
    main: leaq value(%rip), %rax
    movl (%rax), %eax
    ret
    .size main, .-main
    .data
    .byte 0
    value: .long 7
    .size value, 4
    .bss
    zeros: .zero 20
    .size zeros, 20
    """
    Path("a.s").write_text(source)
    run([require("clang-22"), "-c", "-target", "x86_64-linux-gnu", "a.s"])
    words = ("a.o", "-slab-allocate=1Mb", "-slab-address=0x10000000", "-noexec")
    show = "-show-relocated-section-contents"
    ours, theirs = command(*words, show), llvm_jitlink(*words, "-slab-page-size=4096", show)
    assert (ours.status, theirs.status) == (0, 0)
    assert ours.out.startswith("Relocated section contents for a.o:\n")
    bytes_of = [_contents(each.out) for each in (ours, theirs)]
    assert set(bytes_of[0]) == set(bytes_of[1]) == {".text", ".data", ".bss"}
    assert bytes_of[0][".bss"] == bytes_of[1][".bss"] == ["00"] * 20
    assert bytes_of[0][".data"][-4:] == bytes_of[1][".data"][-4:] == ["07", "00", "00", "00"]
    assert len(bytes_of[0][".text"]) == len(bytes_of[1][".text"]) == 10


def _contents(output: str) -> dict[str, list[str]]:
    """The bytes of each section that has some."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.endswith(" content:"):
            name = line.removesuffix(" content:")
        elif line.startswith("0x"):
            found.setdefault(name, []).extend(line.partition(": ")[2].split())
    return found


def test_same_self_relocations(command: Command) -> None:
    source = """
    .globl main
    .type main, @function
    .text
    main: leaq .Lmain(%rip), %rax
    // An instruction that ends with the same number, which is not a displacement.
    .byte 0x05
    .long -12
    xorl %eax, %eax
    ret
    .size main, .-main
    .set .Lmain, main
    """
    Path("a.s").write_text(source)
    run([require("clang-22"), "-c", "-target", "x86_64-linux-gnu", "a.s"])
    pytest.importorskip("capstone")
    words = ("a.o", "-noexec", "-show-graphs=a.o")
    for option, count in (("-add-self-relocations", 1), ("-add-self-relocations=false", 0)):
        ours, theirs = command(*words, option), llvm_jitlink(*words, option)
        edges = [re.findall(r"\(block \+ .*kind = .*", each.out) for each in (ours, theirs)]
        assert edges[0] == edges[1]
        assert len(edges[0]) == count


def test_same_sessions_shown(command: Command) -> None:
    words = ("caller.o", "-la", "-jd", "a", "helper.o", "-show-init-es", "-show-entry-es")
    ours, theirs = command(*words), llvm_jitlink(*words)
    assert ours.status == theirs.status == 10
    states = [re.findall(r"^ +(?:\S+ +)?(never searched|ready) +(\S+)", ours.out, re.MULTILINE)]
    states.append(
        [
            (state.lower().replace("-", " "), name)
            for name, state in re.findall(r'"(\S+)": .*\] (\S+)', theirs.out)
        ]
    )
    assert states[0] == states[1]
    assert ("never searched", "helper") in states[0]
    assert ("ready", "helper") in states[0]


def test_same_failures_shown(command: Command) -> None:
    words = ("caller.o", "-show-err-failed-to-materialize")
    ours, theirs = command(*words), llvm_jitlink(*words)
    assert ours.status == theirs.status == 1
    assert [len(each.err.splitlines()) for each in (ours, theirs)] == [2, 2]
    assert "failed to materialize main in main" in ours.err
    assert "Failed to materialize symbols: { (main, { main }) }" in theirs.err
