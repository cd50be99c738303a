"""`-harness`: the same outcomes as llvm-jitlink, and the rules that go further."""

import shutil
import subprocess
from pathlib import Path

import pytest

from jitlink.tool.options import CommandLineError, parse
from tests.tool.command import Command, Done, archive, compile_to, error, spawn

SOURCES = {
    "local": "static __attribute__((used)) int f(void) { return 1; } int a(void) { return f(); }",
    "local2": "static __attribute__((used)) int f(void) { return 2; } int b(void) { return f(); }",
    "global": "int f(void) { return 3; } int c(void) { return f(); }",
    "weak": "__attribute__((weak)) int f(void) { return 4; } int d(void) { return f(); }",
    "main": "int main(void) { return 13; }",
    "needs": "void undefined(void); int e(void) { undefined(); return 1; } int g(void) "
    "{ return 21; }",
    # Harnesses.
    "calls": "int f(void); int main(void) { return f(); }",
    "mocks": "int f(void) { return 50; } int c(void); int main(void) { return c(); }",
    "weakly": "__attribute__((weak)) int f(void) { return 51; } int c(void); "
    "int main(void) { return c(); }",
    "own": "int main(void) { return 12; }",
    "guess": "int g(void); int main(void) { return g(); }",
    "common": "extern int x; int use(void); int main(void) { return use() + x; }",
    "tentative": "int x; int use(void) { return x = 6; }",
}


@pytest.fixture(autouse=True)
def _objects(tmp_path: Path) -> None:
    for name, source in SOURCES.items():
        compile_to(tmp_path / f"{name}.o", source, "zig", "-O0", "-fcommon")
    archive(tmp_path / "libglobal.a", tmp_path / "global.o")
    archive(tmp_path / "liblocal.a", tmp_path / "local.o")
    archive(tmp_path / "libweak.a", tmp_path / "weak.o")
    shutil.copy("calls.o", "same.o")


# Words, and the exit status of both.
SAME = (
    ("local.o -harness calls.o", 1),
    ("global.o -harness calls.o", 3),
    ("weak.o -harness calls.o", 4),
    ("local.o local2.o -harness calls.o", 1),
    ("local.o global.o -harness calls.o", 1),
    ("weak.o local.o -harness calls.o", 1),
    ("global.o -harness mocks.o", 50),
    ("global.o -harness weakly.o", 51),
    ("global.o weak.o -harness mocks.o", 50),
    ("main.o -harness own.o", 12),
    ("main.o -harness local.o", 13),
    ("own.o -harness own.o", 12),
    ("-entry b local.o local2.o -harness own.o", 2),
    ("local.o local2.o main.o -harness global.o", 13),
    ("libglobal.a -harness calls.o", 3),
    ("liblocal.a -harness calls.o", 1),
    ("needs.o -harness guess.o", 1),
    ("-phony-externals needs.o -harness guess.o", 21),
    ("-noexec local.o -harness calls.o", 0),
    ("local.o -harness calls.o -args a b", 1),
    ("local.o -harness calls.o own.o", 1),
    ("global.o global.o -harness own.o", 1),
    ("local.o -harness", 1),
    ("-harness calls.o", 1),
    ("local.o -harness absent.o", 1),
    ("local.o -harness=calls.o", 1),
    ("local.o -harness calls.o -noexec", 1),
    ("local.o -harness libglobal.a", 1),
    ("local.o -abs f=0x10 -harness calls.o", 1),
    ("local.o -alias f=a -harness calls.o", 1),
)


@pytest.mark.parametrize(("words", "status"), SAME)
def test_same_verdict_as_llvm_jitlink(words: str, status: int, llvm_jitlink: Path) -> None:
    peer = subprocess.run([llvm_jitlink, *words.split()], capture_output=True, check=False)
    ours = spawn(*words.split())
    failed = bool(peer.stderr)
    assert (peer.returncode, ours.status) == (status, status)
    assert ours.err.startswith("jitlink: error: ") is failed


# Words, jitlink's exit status, and that of llvm-jitlink, which has no rules for these.
DIFFERENT = (
    ("global.o weak.o -harness calls.o", 3, 1),
    ("weak.o global.o -harness calls.o", 3, 1),
    ("tentative.o -harness common.o", 12, 1),
    ("libweak.a -harness calls.o", 4, 1),
    # Calls of a local function name no symbol.
    ("local.o -entry a -harness mocks_local.o", 50, 1),
)


@pytest.mark.parametrize(("words", "ours", "theirs"), DIFFERENT)
def test_where_the_rules_go_further(
    words: str, ours: int, theirs: int, llvm_jitlink: Path, tmp_path: Path
) -> None:
    compile_to(tmp_path / "mocks_local.o", "int f(void) { return 50; }", "zig", "-O0")
    peer = subprocess.run([llvm_jitlink, *words.split()], capture_output=True, check=False)
    assert (spawn(*words.split()).status, peer.returncode) == (ours, theirs)


# With several JITDylibs, or with lazy or hidden inputs.
LAYERED = (
    ("calls.o -lp -jd p global.o -harness mocks_all.o", 50),
    ("calls.o -lp -jd p local.o -harness needs_f.o", 1),
    ("-lazy global.o -harness mocks.o", 50),
    ("-lazy local.o -harness calls.o", 1),
    ("-L. -hidden-lglobal -harness mocks.o", 50),
    ("-L. -lazy -lglobal -harness mocks.o", 50),
)


@pytest.mark.parametrize(("words", "status"), LAYERED)
def test_rules_hold_in_all_layers_and_dylibs(words: str, status: int, tmp_path: Path) -> None:
    overrides = "int f(void) { return 50; } int c(void); int harness(void) { return c(); }"
    compile_to(tmp_path / "mocks_all.o", overrides, "zig", "-O0")
    refers = "int f(void); int harness(void) { return f(); }"
    compile_to(tmp_path / "needs_f.o", refers, "zig", "-O0")
    assert spawn(*words.split()) == Done(status, "", "")


def test_the_harness_is_seen_by_other_dylibs(llvm_jitlink: Path) -> None:
    words = ["-lp", "-jd", "p", "global.o", "-harness", "mocks.o"]
    peer = subprocess.run([llvm_jitlink, *words], capture_output=True, check=False)
    assert (spawn(*words).status, peer.returncode) == (50, 1)


def test_ambiguity_names_both_files(command: Command) -> None:
    assert command("local.o", "local2.o", "-harness", "calls.o") == error(
        "the harness refers to f, which is a local symbol that more than one object defines: "
        "local.o and local2.o"
    )


def test_hostile_names_are_one_line(command: Command, tmp_path: Path) -> None:
    odd = '.globl main\nmain: jmp "odd\\nname"\n'
    local = '.type "odd\\nname", @function\n"odd\\nname": mov $5, %eax\nret\n'
    for name, text in (("odd.o", odd), ("one.o", local), ("two.o", local)):
        source = tmp_path / name.replace(".o", ".s")
        source.write_text(".text\n" + text)
        compile_to(tmp_path / name, source)
    assert command("one.o", "-harness", "odd.o").status == 5
    done = command("one.o", "two.o", "-harness", "odd.o")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "odd\\nname" in done.err


def test_the_option_takes_files_up_to_args() -> None:
    line = parse(["a.o", "-harness", "h.o", "-", "i.o", "-args", "-harness", "x"])
    assert (line.harness, line.arguments) == (["h.o", "-", "i.o"], ["-harness", "x"])
    assert parse(["a.o", "--harness", "h.o", "--", "-noexec"]).harness == ["h.o", "-noexec"]
    with pytest.raises(CommandLineError, match="-noexec must stand before it"):
        parse(["a.o", "-harness", "h.o", "-noexec"])
    with pytest.raises(CommandLineError, match="takes the words that follow it"):
        parse(["a.o", "-harness=h.o"])


def test_a_harness_for_another_processor_is_refused(command: Command, tmp_path: Path) -> None:
    foreign = compile_to(
        tmp_path / "foreign.o", "int main(void) { return 0; }", "zig", "-target", "riscv64-linux"
    )
    done = command("local.o", "-harness", foreign)
    assert (done.status, done.out) == (1, "")
    assert "code for riscv64 cannot run in this process" in done.err


def test_linked_objects_of_a_harness(command: Command) -> None:
    done = command("global.o", "local.o", "-show-linked-files", "-harness", "mocks.o")
    assert done == Done(50, "Linking mocks.o\nLinking global.o\n", "")
