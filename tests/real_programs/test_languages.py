"""Real programs in other languages than C: what their run times ask of a process.

They run with JITLINK_LONG=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real_programs.test_real_programs import SOURCES
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import run_linked, run_native
from tests.toolchain import compile_c, require, run

pytestmark = pytest.mark.skipif(
    os.environ.get("JITLINK_LONG") != "1", reason="takes minutes; JITLINK_LONG=1 runs it"
)


def test_goroutines_of_a_c_archive(tmp_path: Path) -> None:
    archive = tmp_path / "libarchive.a"
    source = SOURCES / "archive.go"
    run([require("go"), "build", "-buildmode=c-archive", "-o", archive, source])
    caller = "int Squares(int); int main(void) { return Squares(8); }"
    inputs = [compile_c(caller, "gcc", ("-O1", "-fPIC")), archive]
    native = run_native(link_native("goroutines.c", inputs, "-lpthread"), ["one", "two words"])
    assert native.status == 8
    assert native.output.startswith("[0 1 4 9 16 25 36 49] [one two words]\nrecovered: runtime")
    assert run_linked(inputs, ["one", "two words"]) == native


def test_fortran_with_lapack_openmp_and_nested_functions(tmp_path: Path) -> None:
    compiler = require("gfortran-12")
    compiled, program = tmp_path / "solve.o", tmp_path / "solve"
    run([compiler, "-O0", "-fopenmp", "-c", SOURCES / "solve.f90", "-o", compiled])
    archives = [require("liblapack.a"), require("libblas.a")]
    run([compiler, "-fopenmp", compiled, *archives, "-o", program])
    native = run_native(program)
    assert native.output == "info 0    28.482434476083\n  123.00\n"
    libraries = [Path(f"-l{name}") for name in ("gfortran", "gomp", "quadmath")]
    inputs = [compiled, *archives, *libraries]
    linked = run_linked(inputs, options=["-executable-stack"])
    assert linked == native
    refused = run_linked(inputs)
    assert refused.status == 1
    assert "needs executable stacks" in refused.errors
