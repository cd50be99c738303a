"""The toolchain of the tests: compilation, the cache, peers, and missing peers."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import toolchain
from tests.toolchain import CompilerName, ToolError, compile_c, require

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
EM_AARCH64 = 183
EM_X86_64 = 62


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    objects = tmp_path / "objects"
    monkeypatch.setattr(toolchain, "_OBJECTS", objects)
    return objects


def elf_machine(path: Path) -> int:
    header = path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[16:18], "little") == 1, "not a relocatable object"
    return int.from_bytes(header[18:20], "little")


def test_every_compiler_compiles_every_language(compiler: CompilerName) -> None:
    sources = {
        ".c": "int f(int a) { return a + 1; }",
        ".cpp": "struct S { int v; int get() const; }; int S::get() const { return v; }",
        ".s": ".globl f\nf: ret\n",
        ".S": "#define NAME f\n.globl NAME\nNAME: ret\n",
    }
    for suffix, text in sources.items():
        assert elf_machine(compile_c(text, compiler, suffix=suffix)) == EM_X86_64


@pytest.mark.parametrize("source", sorted(EXAMPLES.glob("*.c")), ids=lambda path: path.name)
def test_examples_compile_without_warnings(source: Path, compiler: CompilerName) -> None:
    compiled = compile_c(source, compiler, ["-Wall", "-Wextra", "-Werror", "-O1"])
    assert compiled.name == source.with_suffix(".o").name
    assert elf_machine(compiled) == EM_X86_64


def test_the_pinned_compiler_has_other_targets() -> None:
    assert elf_machine(compile_c("int f;", target="aarch64-linux-gnu")) == EM_AARCH64


def test_gcc_has_no_other_target() -> None:
    with pytest.raises(ValueError, match="aarch64"):
        compile_c("int f;", "gcc", suffix=".cpp", target="aarch64-linux-gnu")


def test_debug_information_is_generated_only_on_request() -> None:
    source = "int f(void) { return 0; }"
    plain, debug = compile_c(source), compile_c(source, flags=["-g"])
    assert b".debug_info" not in plain.read_bytes()
    assert b".debug_info" in debug.read_bytes()
    assert str(debug.parent).encode() in debug.read_bytes()
    assert debug.with_suffix(".c").read_text() == source


def test_nothing_is_compiled_twice(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compile_c("int f;", flags=["-O1"])
    assert first.is_relative_to(empty_cache)

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("compiled again")

    monkeypatch.setattr(toolchain, "run", refuse)
    assert compile_c("int f;", flags=["-O1"]) == first
    with pytest.raises(AssertionError, match="compiled again"):
        compile_c("int f;", flags=["-O2"])


def test_the_cache_distinguishes_headers_and_flags(empty_cache: Path, tmp_path: Path) -> None:
    source, header = tmp_path / "f.c", tmp_path / "f.h"
    source.write_text('#include "f.h"\nint f(void) { return VALUE; }\n')
    header.write_text("#define VALUE 1\n")
    first = compile_c(source)
    header.write_text("#define VALUE 2\n")
    second = compile_c(source)
    header.write_text("#define VALUE 1\n")
    assert compile_c(source) == first
    assert first.read_bytes() != second.read_bytes()
    assert len({first, second, compile_c(source, flags=["-O2"])}) == 3
    assert len(list(empty_cache.iterdir())) == 3


def test_runs_at_the_same_time_share_one_object(empty_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        compiled = list(pool.map(lambda _: compile_c("int shared;"), range(8)))
    assert len(set(compiled)) == 1
    assert elf_machine(compiled[0]) == EM_X86_64
    assert [path.name for path in empty_cache.iterdir()] == [compiled[0].parent.name]


def test_a_refused_source_is_an_error_and_leaves_nothing(
    compiler: CompilerName, empty_cache: Path
) -> None:
    with pytest.raises(ToolError) as caught:
        compile_c("int f(void) { return missing; }", compiler)
    assert caught.value.status != 0
    assert "missing" in caught.value.output
    assert "source.c" in caught.value.command
    assert list(empty_cache.iterdir()) == []


@pytest.mark.parametrize("peer", ["clang-22", "gcc", "gdb", "ld.lld-22", "llvm-jitlink-22", "mold"])
def test_a_program_that_is_found_can_be_run(peer: str) -> None:
    assert os.access(require(peer), os.X_OK)


def test_llvm_programs_are_of_one_version(clang: Path, lld: Path, llvm_jitlink: Path) -> None:
    for program in (clang, lld, llvm_jitlink):
        assert " 22." in toolchain.run([program, "--version"])


def test_archives_are_archives(debian_archive: Path) -> None:
    with debian_archive.open("rb") as file:
        assert file.read(8) == b"!<arch>\n"


@pytest.mark.parametrize("peer", ["no-such-program", "libno-such-archive.a"])
def test_a_missing_peer_is_skipped_or_fails(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JITLINK_REQUIRE_PEERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match=peer):
        require(peer)
    monkeypatch.setenv("JITLINK_REQUIRE_PEERS", "1")
    with pytest.raises(pytest.fail.Exception, match=peer):
        require(peer)


def test_every_peer_has_a_debian_package_that_ci_installs() -> None:
    assert set(toolchain.DEBIAN_ARCHIVES) <= toolchain.DEBIAN_PACKAGES.keys()
    installed = (ROOT / ".ci" / "run").read_text().split()
    assert set(toolchain.DEBIAN_PACKAGES.values()) <= set(installed)
