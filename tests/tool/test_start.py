"""A command imports only the modules that it needs: imports dominate the cost of a small link."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tool.command import compile_to

# For code of another process.
_FOR_EXECUTORS = (
    "jitlink.abi", "jitlink.executor.code_map", "jitlink.executor.remote",
    "jitlink.formats.dwarf_lines", "jitlink.formats.elf_file_symbols", "jitlink.orc.code_map",
    "jitlink.orc.restart", "jitlink.orc.unit_record", "jitlink.runtime.patching",
    "jitlink.runtime.remote_callbacks", "jitlink.runtime.remote_calls",
    "jitlink.runtime.remote_memory", "jitlink.runtime.tls_loader",
)  # fmt: skip
# Of the standard library: what NumPy imports, too, does not count.
_SLOW_TO_IMPORT = (
    "argparse", "asyncio", "dataclasses", "difflib", "inspect", "json", "logging", "pathlib",
    "resource", "signal", "string", "textwrap", "traceback", "urllib", "zlib",
)  # fmt: skip
# For other commands, other architectures, errors, or tests.
_NOT_FOR_HELLO = (
    "capstone", "numpy.testing", "numpy.typing", "typing_extensions", "zstandard",
    *_SLOW_TO_IMPORT, *_FOR_EXECUTORS,
    "jitlink.arch.aarch64", "jitlink.arch.riscv", "jitlink.arch.x86_64_reentry", "jitlink.library",
    "jitlink.orc.aliases", "jitlink.orc.call_sites", "jitlink.orc.lazy", "jitlink.orc.reentry",
    "jitlink.orc.stubs",
    "jitlink.targets.elf_aarch64", "jitlink.targets.elf_riscv",
    "jitlink.formats.archive", "jitlink.formats.compression", "jitlink.formats.crel",
    "jitlink.formats.elf_shared_object", "jitlink.formats.elf_tls_module",
    "jitlink.memory.segment_alloc", "jitlink.memory.slab",
    "jitlink.compilers", "jitlink.library_search",
    "jitlink.harnesses", "jitlink.names.demangling", "jitlink.names.spelling",
    "jitlink.names.providers", "jitlink.orc.harness", "jitlink.orc.suggestions",
    "jitlink.tool.backtraces", "jitlink.tool.check", "jitlink.tool.graph_dot",
    "jitlink.tool.graph_json", "jitlink.tool.inspection", "jitlink.tool.link_facts",
    "jitlink.tool.link_map", "jitlink.tool.object_facts", "jitlink.tool.progress",
    "jitlink.tool.trace", "jitlink.tool.options.help_page", "jitlink.tool.lazy",
    "jitlink.tool.options.manual", "jitlink.tool.output_file", "jitlink.tool.relocation_reference",
    "jitlink.tool.section_contents", "jitlink.tool.sections", "jitlink.tool.times",
    "jitlink.tool.self_relocations",
)  # fmt: skip
_NOT_FOR_LINKING = (
    *_NOT_FOR_HELLO, "jitlink.platform.elf", "jitlink.platform.dlfcn", "jitlink.platform.plugin",
)  # fmt: skip
_NOT_FOR_HELP = ("asyncio", "ctypes", "logging", "numpy", "jitlink.graph", "jitlink.orc")


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["hello.o"], _NOT_FOR_HELLO),
        (["-noexec", "hello.o", "-show-linked-files"], _NOT_FOR_LINKING),
        (["-help"], _NOT_FOR_HELP),
        (["-version"], _NOT_FOR_HELP),
        (["-nonsense"], _NOT_FOR_HELP),
    ],
)
def test_nothing_is_imported_that_the_command_does_not_use(
    words: list[str], unwanted: tuple[str, ...]
) -> None:
    compile_to(Path("hello.o"), "int main(void) { return 0; }")
    before = _modules("import numpy") if "numpy" not in unwanted else _modules("pass")
    after = _modules(f"from jitlink.tool.main import main; main({words})")
    assert "jitlink.tool.main" in after
    assert sorted((after - before) & set(unwanted)) == []


def test_nothing_is_imported_for_executors_that_a_library_does_not_use() -> None:
    compile_to(Path("hello.o"), "int answer(void) { return 42; }")
    modules = _modules("import jitlink; assert jitlink.load('hello.o').answer() == 42")
    assert "jitlink.library" in modules
    assert sorted(modules & set(_FOR_EXECUTORS)) == []


def test_a_library_imports_no_more_of_the_standard_library_than_it_uses() -> None:
    compile_to(Path("hello.o"), "int answer(void) { return 42; }")
    modules = _modules("import jitlink; assert jitlink.load('hello.o').answer() == 42")
    modules -= _modules("import numpy")
    assert sorted(modules & set(_SLOW_TO_IMPORT)) == []


def _modules(code: str) -> set[str]:
    """The modules that are imported after some code has run."""
    report = "import sys; print('\\n', *sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())
