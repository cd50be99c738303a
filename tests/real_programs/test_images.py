"""Real programs that ask the dynamic linker about themselves, or load libraries that need them.

They run with JITLINK_LONG=1.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.real_programs.test_real_programs import SOURCES, python_program
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import Outcome, linked_command, run_linked, run_native
from tests.toolchain import compile_c, require, run

pytestmark = pytest.mark.skipif(
    os.environ.get("JITLINK_LONG") != "1", reason="takes minutes; JITLINK_LONG=1 runs it"
)


def check(
    inputs: Sequence[Path], native: Path, *arguments: str | Path, exports: bool = True
) -> Outcome:
    """Run a program both ways; what it does must be the same."""
    words = [str(each) for each in arguments]
    expected = run_native(native, words)
    assert run_linked(inputs, words, options=["-rdynamic"] * exports) == expected
    return expected


def test_a_garbage_collector_finds_the_roots_of_a_program() -> None:
    inputs = [compile_c(SOURCES / "collector.c", "gcc", ("-O1", "-fPIC")), require("libgc.a")]
    native = link_native("collector.c", inputs, "-lpthread", "-ldl")
    outcome = check(inputs, native, exports=False)
    assert outcome.output == "100000 4999950000 49950000 77\n1\n"


def test_python_imports_extension_modules_that_are_shared_libraries() -> None:
    inputs, native = python_program()
    outcome = check(inputs, native, "-I", "-S", SOURCES / "extension_modules_script")
    assert outcome.output == "2.1 [1, 2] b'text'\n42 slept\nTrue\n"


def test_perl_loads_modules_that_are_shared_libraries() -> None:
    flags = run([require("perl"), "-MExtUtils::Embed", "-e", "ccopts"]).split()
    compiled = compile_c(SOURCES / "perl.c", "gcc", ("-O1", "-fPIC", *flags))
    inputs = [compiled, require("libperl.a")]
    words = ("-rdynamic", "-lm", "-ldl", "-lpthread", "-lcrypt")
    native = link_native("perl.c", inputs, *words)
    libraries = [*inputs, Path("-lm"), Path("-lcrypt")]
    outcome = check(libraries, native, SOURCES / "script.pl", "an argument")
    assert "55 4 3 9dd4e461268c8034f5c8564e155c67a6 an argument\ncaught 5\n" in outcome.output
    assert "the end" in outcome.errors
    assert outcome.status == 255


@pytest.mark.parametrize("suffix", ["", "-shared"])
def test_the_run_time_of_d_finds_its_program(suffix: str, tmp_path: Path) -> None:
    compiler = require("ldc2")
    compiled, joined = tmp_path / "objects.o", tmp_path / "joined.o"
    source = SOURCES / "objects.d"
    run([compiler, "-c", "-relocation-model=pic", source, f"-of={compiled}"])
    run([compiler, compiled, f"-of={tmp_path / 'native'}"])
    # The list of modules has the elements of both objects.
    registration = next(Path("/usr/lib").rglob("ldc_rt.dso.o"))
    run([require("ld"), "-r", compiled, registration, "-o", joined])
    libraries = [Path(f"-l{name}-ldc{suffix}") for name in ("phobos2", "druntime")]
    expected = run_native(tmp_path / "native")
    assert expected == (0, "module objects\nthrown\n0 bad\n", "")
    assert run_linked([joined, *libraries, Path("-lz")]) == expected


def test_backtraces_of_rust_name_functions(tmp_path: Path) -> None:
    library = tmp_path / "libpanics.a"
    words = ("--crate-type", "staticlib", "-C", "opt-level=1", "--edition", "2021")
    run([require("rustc"), *words, SOURCES / "panics.rs", "-o", library])
    source = "int panics(int); int main(void) { return panics(3); }"
    inputs = [compile_c(source, "gcc", ("-fPIC",)), library]
    native = link_native("panics.c", inputs, "-lpthread", "-ldl", "-lm")
    environment = {**os.environ, "RUST_BACKTRACE": "1"}
    options = ["-symbol-file", str(tmp_path / "symbols")]
    frames = []
    for command in ([str(native)], linked_command(inputs, options)):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 101
        names = re.findall(r"^ +\d+: (.*)$", done.stderr, re.MULTILINE)
        frames.append(
            [
                name
                for name in names
                if name in {"inner", "middle", "panics", "main"} or name.startswith("panics::")
            ]
        )
    assert frames[0] == ["panics::inner", "panics::middle", "panics", "main"]
    assert frames[1] == frames[0]


def test_address_sanitizer_names_the_module() -> None:
    source = "#include <stdlib.h>\nint main(void) { char *p = malloc(10); p[12] = 1; return *p; }"
    compiled = compile_c(source, "gcc", ("-fPIC", "-fsanitize=address"))
    library = run([require("gcc"), "-print-file-name=libasan.so"]).strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(Path(library).resolve()),
        "ASAN_OPTIONS": "symbolize=0,detect_leaks=0",
    }
    command = linked_command([compiled])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "heap-buffer-overflow" in done.stderr
    assert "#0" in done.stderr
    first = next(line for line in done.stderr.splitlines() if "#0" in line)
    assert "(program+0x" in first
