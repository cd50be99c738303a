"""Every error in a command is one line, and exit status 1."""

import re
import shutil
from pathlib import Path

import pytest

from jitlink.executor import SelfExecutorProcessControl
from jitlink.memory import InProcessMemoryManager
from tests.tool.command import Command, archive, compile_to, error
from tests.toolchain import compile_c, run, zig_command

MISSING = "No such file or directory"
FOREIGN = (
    "code for aarch64 cannot run in this process, which is x86_64; "
    "-oop-executor runs it in another one, -noexec links it without running it"
)
NO_MAIN = "no input defines main, the function to call; -entry names another one"
UNKNOWN = "not an object file of a known format"
TEXT = "a text file, not a relocatable object: source code must be compiled first"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with valid and invalid files, which the tests only read."""
    place = tmp_path_factory.mktemp("errors")
    caller = "int helper(int); int main(void) { return helper(4); }"
    content = compile_to(place / "good.o", caller).read_bytes()
    compile_to(place / "helper.o", "int helper(int x) { return x * 2; }")
    compile_to(place / "again.o", "int helper(int x) { return x * 3; }")
    compile_to(place / "needy.o", "int lacking(void); int main(void) { return lacking(); }")
    arm = compile_c("int helper(int x) { return x; }", target="aarch64-linux-gnu")
    shutil.copy(arm, place / "arm.o")
    archive(place / "libhelper.a", place / "helper.o")
    shutil.copy(place / "libhelper.a", place / "libagain.a")
    run([*zig_command("ar"), "rcs", place / "libarm.a", place / "arm.o"])
    texts = {
        "text.c": "int main(void) { return 0; }", "words": "good.o -nonsense", "data": "hello",
        "loop": "@loop", "order": "main, helper\nmain\n", "quote.o": "OUTPUT_FORMAT(x) 'x",
        "libloop.so": "INPUT(libloop.so)", "libodd.so": "INPUT(a) SEARCH(b)",
        "lib.tbd": "--- !tapi-tbd",
    }  # fmt: skip
    for name, text in texts.items():
        (place / name).write_text(text)
    contents = {
        "empty.o": b"", "header.o": b"\x7fELF\2\1\1", "noise.a": b"!<arch>\nnoise",
        "cut.o": content[: len(content) // 2], "empty.a": b"!<arch>\n",
        "broken.so": content[:16] + b"\3\0" + content[18:],
        "executable": content[:16] + b"\2\0" + content[18:],
        "zeros": bytes(4096), "cut.a": (place / "libhelper.a").read_bytes()[:-100],
        "binary": b"a\0b",
    }  # fmt: skip
    for name, data in contents.items():
        (place / name).write_bytes(data)
    (place / "folder").mkdir()
    return place


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # Missing inputs.
        ("", "no input files; -help says how the command is used"),
        ("-noexec", "no input files; -help says how the command is used"),
        ("-", f"-: {MISSING}"),
        ("none.o", f"none.o: {MISSING}"),
        ("good.o none.o", f"none.o: {MISSING}"),
        ("folder", "folder: Is a directory"),
        ("data/x.o", "data/x.o: Not a directory"),
        ("good.o -- -noexec", f"-noexec: {MISSING}"),
        # Files that are not inputs.
        ("text.c", f"text.c: {TEXT}"),
        ("empty.o", "empty.o: an empty file"),
        ("zeros", f"zeros: {UNKNOWN}"),
        ("header.o", "header.o, offset 0x0: not a complete ELF header"),
        ("cut.o", None),
        ("executable", None),
        ("broken.so", None),
        (
            "noise.a",
            "noise.a, offset 0x8: a member's header lies outside the archive of 13 bytes",
        ),
        ("good.o cut.a", None),
        (
            "empty.a",
            NO_MAIN,
        ),
        ("quote.o", None),
        # Code for other processors.
        ("arm.o -entry helper", FOREIGN),
        (
            "good.o arm.o -noexec",
            (
                "arm.o, offset 0x0: not an ELF object of the same machine, class and byte order "
                "as the others"
            ),
        ),
        ("good.o libarm.a", FOREIGN),
        ("good.o -all_load libarm.a", FOREIGN),
        ("good.o -lazy libarm.a", None),
        ("libarm.a -entry helper", FOREIGN),
        # Libraries.
        ("good.o -lnone -L.", None),
        ("good.o -Lnone", "-L: none is not a directory"),
        ("good.o -L data", "-L: data is not a directory"),
        ("good.o -hidden-lnone", None),
        ("good.o -load_hidden helper.o", "-load_hidden: helper.o is not a static archive"),
        ("good.o -load_hidden none.a", f"none.a: {MISSING}"),
        ("good.o -weak-lnone -L.", None),
        (
            "good.o -weak_library lib.tbd",
            "-weak_library: lib.tbd cannot be an interface that ELF objects are linked against",
        ),
        ("good.o -weak_library none.tbd", f"none.tbd: {MISSING}"),
        ("good.o -hidden-la -jd a", "-hidden-l: a is a JITDylib"),
        ("good.o -weak-la -jd a", "-weak-l: a is a JITDylib"),
        ("good.o -L. -lloop", "./libloop.so: the linker script includes itself"),
        ("good.o libodd.so", "libodd.so: linker script has 'SEARCH' where no file is named"),
        ("good.o -preload none.so", None),
        ("good.o -preload text.c", None),
        # Unknown options, and invalid values.
        ("good.o -nonsense", "unknown option -nonsense; -help lists all options"),
        ("good.o --show-adrs", "unknown option -show-adrs; did you mean -show-addrs?"),
        ("good.o -entry", "-entry: needs a value: -entry NAME"),
        ("good.o -noexec=maybe", "-noexec: 'maybe' is neither true nor false"),
        ("good.o -args=x", "-args: takes the words that follow it"),
        ("good.o -abs x", "-abs: 'x' is not of the form NAME=ADDRESS"),
        ("good.o -abs x=y", "-abs: 'y' is not a number"),
        ("good.o -abs x=0x10000000000000000", "-abs: 0x10000000000000000 does not fit 64 bits"),
        ("good.o -alias x", "-alias: 'x' is not of the form NEW=OLD"),
        ("good.o -show-graphs (", None),
        ("good.o -num-threads two", "-num-threads: 'two' is not a number"),
        ("good.o -speculate often", "-speculate: 'often' is not one of none, simple"),
        (
            "good.o -use-memmgr mine",
            "-use-memmgr: 'mine' is not one of default, generic, simple-remote, shared",
        ),
        (
            "good.o -slab-allocate big",
            "-slab-allocate: 'big' is not a size, such as 64Kb, 10Mb or 1Gb",
        ),
        ("good.o -slab-allocate 0", "-slab-allocate: 0 is not a possible size"),
        ("good.o -slab-address 0x1000", "-slab-address: there is no slab without -slab-allocate"),
        ("good.o -slab-page-size 64", "-slab-page-size: there is no slab without -slab-allocate"),
        (
            "good.o -slab-allocate 1Mb -slab-address 1",
            "slab address 0x1 is not a multiple of 0x1000",
        ),
        ("good.o -slab-allocate 1Mb -slab-page-size 48", "page size 48 is not a power of two"),
        ("@loop", "response file loop includes itself"),
        ("@words", "unknown option -nonsense; -help lists all options"),
        ("@folder", "response file folder: Is a directory"),
        ("@binary", "response file binary is not a text file"),
        # JITDylibs.
        ("good.o -jd a helper.o -jd a", "-jd: there is a JITDylib a already"),
        ("good.o -jd main helper.o", "-jd: there is a JITDylib main already"),
        ("good.o -jd", "-jd: needs a value: -jd NAME"),
        ("good.o -jd=", "-jd: a JITDylib needs a name"),
        ("good.o -jd a helper.o", "undefined symbol: helper (referenced by good.o)"),
        ("good.o -alias helper=b:x -jd a", "-alias: there is no JITDylib b"),
        # Sections.
        (
            "good.o -sectcreate x",
            "-sectcreate: 'x' is not of the form SECTION,FILE[@NAME=OFFSET,...]",
        ),
        ("good.o -sectcreate x,none", f"none: {MISSING}"),
        ("good.o -sectcreate x,folder", "folder: Is a directory"),
        ("good.o -sectcreate x,data@a=b", "-sectcreate: 'b' is not a number"),
        (
            "good.o -sectcreate x,data@a",
            "-sectcreate: 'a' is not of the form SECTION,FILE[@NAME=OFFSET,...]",
        ),
        ("good.o -sectcreate x,data@a=1,a=2", "-sectcreate: a is given twice"),
        (
            "good.o -sectcreate x,data@a=6",
            "-sectcreate: offset 6 of a is outside of data, which has 5 bytes",
        ),
        (
            "good.o -sectcreate x,data@main=0",
            "duplicate definition of symbol main: in good.o and in orc_sectcreate_x",
        ),
        # Symbols.
        ("good.o", "undefined symbol: helper (referenced by good.o)"),
        (
            "helper.o",
            NO_MAIN,
        ),
        (
            "good.o helper.o -entry none -noexec",
            "no input defines none, the function to call; -entry names another one",
        ),
        (
            "good.o helper.o again.o",
            "duplicate definition of symbol helper: in helper.o and in again.o",
        ),
        (
            "good.o helper.o -lazy again.o",
            "duplicate definition of symbol helper: in helper.o and in again.o",
        ),
        (
            "good.o helper.o -abs helper=1",
            "duplicate definition of symbol helper: in helper.o and in an -abs option",
        ),
        (
            "good.o helper.o -abs a=1 -abs b=1 -abs a=1",
            "duplicate definition of symbol a: in an -abs option and in another -abs option",
        ),
        (
            "good.o helper.o -alias a=helper -alias a=main",
            "duplicate definition of symbol a: in an -alias option and in another -alias option",
        ),
        (
            "good.o helper.o -alias main=helper",
            "duplicate definition of symbol main: in good.o and in an -alias option",
        ),
        ("good.o -alias helper=none", "undefined symbol: none (referenced by alias helper)"),
        (
            "good.o -all_load libhelper.a libagain.a",
            (
                "duplicate definition of symbol helper: in libhelper.a(helper.o) and in "
                "libagain.a(helper.o)"
            ),
        ),
        (
            "good.o helper.o -triple i686-pc-windows-msvc",
            "-triple: good.o is not an object or archive for i686-pc-windows-msvc",
        ),
        # Lazy inputs.
        ("good.o helper.o -lazy", "-lazy: no input follows that could be linked lazily"),
        (
            "-lazy needy.o",
            (
                "main in main was called and could not be linked: undefined symbol: lacking "
                "(referenced by needy.o)"
            ),
        ),
        ("good.o -lazy helper.o -speculate simple -speculate-order none", f"none: {MISSING}"),
        (
            "good.o -lazy helper.o -speculate simple -speculate-order order",
            "order: line 2 is not of the form JITDYLIB, FUNCTION",
        ),
        (
            "good.o -lazy helper.o -speculate simple -record-lazy-execs none/x",
            f"cannot write none/x: {MISSING}",
        ),
        # Output files, and backtraces.
        ("good.o helper.o -write-symtab none/x", f"cannot write none/x: {MISSING}"),
        ("good.o helper.o -write-symtab folder", "cannot write folder: Is a directory"),
        ("-symbolicate-with none data", f"none: {MISSING}"),
        ("-symbolicate-with data none", f"none: {MISSING}"),
        ("-symbolicate-with data", "no input files; -help says how the command is used"),
        # Runtimes and executors.
        ("good.o -orc-runtime rt.a", "rt.a: No such file or directory"),
        (
            "good.o -oop-executor=none",
            f"cannot start the executor none: [Errno 2] {MISSING}: 'none'",
        ),
        (
            "good.o -perf-support",
            "-perf-support: linked code cannot be registered with the profiler perf",
        ),
    ],
)
def test_one_line(
    command: Command,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    message: str | None,
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    manager = SelfExecutorProcessControl.shared().memory_manager
    assert isinstance(manager, InProcessMemoryManager)
    count = manager.finalized_count
    done = command(*words.split())
    if message is not None:
        assert done == error(message)
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(r"jitlink: error: [^\n]+\n", done.err)
    assert "internal error" not in done.err
    assert "Traceback" not in done.err
    assert manager.finalized_count == count
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", f": {MISSING}"),
        ("line\nfeed.o", f"line\\x0afeed.o: {MISSING}"),
        ("\udcff.o", f"\\xff.o: {MISSING}"),
        ("nul\0.o", None),
        ("-write-symtab=nul\0", None),
        ("-preload=nul\0", None),
    ],
)
def test_odd_names(command: Command, folder: Path, word: str, message: str | None) -> None:
    done = command(folder / "good.o", folder / "helper.o", word)
    if message is not None:
        assert done == error(message)
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(r"jitlink: error: [^\n]+\n", done.err)
    assert "internal error" not in done.err
