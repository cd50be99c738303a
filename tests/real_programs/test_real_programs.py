"""Real programs from Debian's static archives: linked in memory they behave as they do natively."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.runtime_programs.building import link_native
from tests.runtime_programs.programs import SOURCES as FEATURES
from tests.runtime_programs.running import Outcome, run_linked, run_native
from tests.toolchain import CompilerName, compile_c, require

SOURCES = Path(__file__).with_name("sources")
_PYTHON_DIRECTORY = Path("/usr/lib/python3.11/config-3.11-x86_64-linux-gnu")


def _outcomes(
    inputs: Sequence[Path], native: Path, arguments: Sequence[str | Path]
) -> tuple[Outcome, Outcome]:
    words = [str(each) for each in arguments]
    return run_native(native, words), run_linked(inputs, words)


def _c_program(name: str, libraries: Sequence[Path], *flags: str) -> tuple[list[Path], Path]:
    compiled = compile_c(SOURCES / name, "gcc", ("-O2", "-fPIC", *flags))
    inputs = [compiled, *libraries]
    return inputs, link_native(name, inputs, "-lm", "-ldl", "-lpthread")


def test_lua_runs_a_script_with_coroutines_and_errors() -> None:
    inputs, program = _c_program("lua_interpreter.c", [require("liblua5.4.a")])
    native, linked = _outcomes(inputs, program, [SOURCES / "script.lua", "one"])
    assert "5050\ttrue\tone" in native.output
    assert "stack traceback" in native.errors
    assert linked == native


def test_sqlite_works_on_a_file_from_8_threads(tmp_path: Path) -> None:
    inputs, program = _c_program("sqlite_shell.c", [require("libsqlite3.a")])
    script = SOURCES / "script.sql"
    native = run_native(program, [str(tmp_path / "native.db"), str(script)])
    linked = run_linked(inputs, [str(tmp_path / "linked.db"), str(script)])
    assert "40|140|80\nok" in native.output
    assert linked == native
    # Each reads the database of the other.
    assert run_native(program, [str(tmp_path / "linked.db"), str(script)]) == run_linked(
        inputs, [str(tmp_path / "native.db"), str(script)]
    )


def test_zstd_compresses_and_restores_100_megabytes() -> None:
    inputs, program = _c_program("zstd_stream.c", [require("libzstd.a")])
    native, linked = _outcomes(inputs, program, [])
    assert native.output.startswith(f"{100 << 20} bytes")
    assert linked == native


def python_program() -> tuple[list[Path], Path]:
    archive = _PYTHON_DIRECTORY / "libpython3.11-pic.a"
    if not archive.exists():
        require("libpython3.11.a")
    libraries = [archive, *(require(f"lib{each}.a") for each in ("expat", "z"))]
    compiled = compile_c(SOURCES / "python.c", "gcc", ("-O2", "-fPIC"))
    # Extension modules that are shared libraries refer to functions of the program.
    words = ("-rdynamic", "-lm", "-ldl", "-lutil", "-lpthread")
    return [compiled, *libraries], link_native("python.c", [compiled, *libraries], *words)


def test_python_imports_starts_threads_and_raises() -> None:
    inputs, program = python_program()
    # Without the environment of the tests, and with Debian's modules.
    words: list[str | Path] = ["-I", "-S", SOURCES / "python_script", "x"]
    native, linked = _outcomes(inputs, program, words)
    assert "thread raised ValueError in a thread" in native.output
    assert "RuntimeError: the end" in native.errors
    assert linked == native


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", ["text", "threads", "streams"])
def test_the_static_cxx_library(name: str, compiler: CompilerName) -> None:
    source = FEATURES / f"{name}.cpp"
    parts = 2 if name == "streams" else 1
    flags = ("-O2", "-fPIC", "-std=c++17")
    objects = [compile_c(source, compiler, (*flags, f"-DPART={n + 1}")) for n in range(parts)]
    libraries = [require(f"lib{each}.a") for each in ("stdc++", "gcc", "gcc_eh")]
    words = ("-static-libstdc++", "-static-libgcc", "-lpthread")
    program = link_native(f"{name}.cpp", objects, *words)
    native, linked = _outcomes([*objects, *libraries], program, [])
    assert native.output
    assert linked == native
