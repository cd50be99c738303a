"""Programs of thousands of objects, built by others: the same results as linked by g++.

They are those of the benchmark. JITLINK_LONG=1 runs them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.programs import RealProgram, grpc, llvm
from tests.runtime_programs.running import Outcome, execute, run_linked, run_native
from tests.toolchain import require, run

pytestmark = pytest.mark.skipif(
    os.environ.get("JITLINK_LONG") != "1", reason="takes a minute; JITLINK_LONG=1 runs it"
)

_MAIN = """
#include <cstdio>
extern "C" int bench_entry();
int main() { return std::printf("%d\\n", bench_entry()) == 3 ? 7 : 1; }
"""
# The libraries of a program are loaded by `load`'s caller.
_LOAD = """
import sys
from bench.programs import load_libraries
import jitlink
load_libraries(sys.argv[1].split())
print(jitlink.load(*sys.argv[2:]).bench_entry())
"""
_PROGRAMS = {"libLLVMOrcJIT.a": llvm, "libgrpc++.a": grpc}


@pytest.fixture(params=_PROGRAMS)
def program(request: pytest.FixtureRequest) -> RealProgram:
    require(request.param)
    return _PROGRAMS[request.param]()


def compiled(program: RealProgram, folder: Path) -> list[Path]:
    """The root, and an object with main."""
    for name, source in (("root", program.root), ("main", _MAIN)):
        (folder / f"{name}.cpp").write_text(source)
        options = ("-O1", "-fPIC", "-w", *program.options)
        run(["g++", *options, "-c", folder / f"{name}.cpp", "-o", folder / f"{name}.o"])
    return [folder / "root.o", folder / "main.o"]


def libraries(program: RealProgram) -> list[Path]:
    return [
        Path(run(["g++", f"-print-file-name={name}"]).strip()).resolve()
        for name in program.libraries
    ]


def test_a_program_and_a_library(program: RealProgram, tmp_path: Path) -> None:
    root, main = compiled(program, tmp_path)
    inputs = [root, main, *program.archives, *libraries(program)]
    # Archives may not be position-independent; the order of these is not that of references.
    group: list[str | Path] = ["-Wl,--start-group", *inputs, "-Wl,--end-group"]
    run(["g++", "-no-pie", *group, "-o", tmp_path / "native"])
    native = run_native(tmp_path / "native")
    assert native == Outcome(7, "42\n", "")
    assert run_linked(inputs) == native
    words = [" ".join(program.libraries), str(root), *map(str, program.archives)]
    assert execute([sys.executable, "-c", _LOAD, *words]) == Outcome(0, "42\n", "")
