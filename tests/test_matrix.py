"""A program of two objects, from three compilers with all options that change its relocations.

Each combination is linked in process and checks itself; some are run by the command too.
"""

import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

import jitlink
from tests.toolchain import COMPILERS, HOST_TARGET, CompilerName, compile_c

_PROGRAMS = Path(__file__).parent / "programs"
_SOURCES = (_PROGRAMS / "matrix_main.c", _PROGRAMS / "matrix_parts.c")

_OPTIMISATIONS = ("-O0", "-O1", "-O2", "-O3")
_POSITIONS = {"pic": ("-fPIC",), "pie": ("-fPIE",), "nonpic": ("-fno-pic", "-fno-pie")}
# Some data of the program, initialised and not, is above the threshold of the medium code model.
_MODELS = {
    "small": ("-mcmodel=small",),
    "medium": ("-mcmodel=medium", "-mlarge-data-threshold=512"),
    "large": ("-mcmodel=large",),
}
_SECTIONS = {"whole": (), "sections": ("-ffunction-sections", "-fdata-sections")}


def _combinations() -> Iterator[tuple[str, CompilerName, tuple[str, ...]]]:
    for compiler, level, position, model, sections in product(
        COMPILERS, _OPTIMISATIONS, _POSITIONS, _MODELS, _SECTIONS
    ):
        name = f"{compiler}{level}-{position}-{model}-{sections}"
        flags = (level, *_POSITIONS[position], *_MODELS[model], *_SECTIONS[sections])
        yield name, compiler, flags


_MATRIX = {name: (compiler, flags) for name, compiler, flags in _combinations()}
# The command starts an interpreter for each, so only a few combinations are run by it.
_BY_COMMAND = [name for number, name in enumerate(_MATRIX) if number % 13 == 0]


def _objects(name: str) -> list[str]:
    compiler, flags = _MATRIX[name]
    # The pinned compiler generates only position-independent code for glibc.
    is_zig_nonpic = compiler == "zig" and "-fno-pic" in flags
    target = "x86_64-linux-musl" if is_zig_nonpic else HOST_TARGET
    return [str(compile_c(source, compiler, flags, target=target)) for source in _SOURCES]


@pytest.mark.parametrize("name", _MATRIX)
def test_program_checks_itself(name: str) -> None:
    with jitlink.load(*_objects(name)) as library:
        assert library.check() == 0


@pytest.mark.parametrize("name", _BY_COMMAND)
def test_command_runs_program(name: str) -> None:
    words = [sys.executable, "-m", "jitlink", *_objects(name), "-args", "one", "two words"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        102,
        "hello one\nhello two words\n",
        "",
    )


def test_matrix_has_all_kinds_of_addressing() -> None:
    kinds: set[str] = set()
    for path in {path for name in _MATRIX for path in _objects(name)}:
        graph = jitlink.create_link_graph(Path(path).read_bytes(), path)
        present = set(graph.edge_table.kind.tolist())
        kinds |= {kind.name for kind in graph.edge_kinds if kind.value in present}
    assert kinds == {
        "BRANCH_PCREL32",
        "DELTA32",
        "DELTA32_TO_GOT",
        "DELTA64",
        "DELTA64_FROM_GOT",
        "DELTA64_TO_GOT",
        "POINTER32",
        "POINTER32_SIGNED",
        "POINTER64",
        "REQUEST_GOT_AND_TRANSFORM_TO_DELTA32",
        "REQUEST_GOT_AND_TRANSFORM_TO_DELTA64_FROM_GOT",
        "REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE",
        "REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT",
    }


_FAR_DATA = """
extern char **environ;
static int own;
int *address(void) { return &own; }
int main(void) { return environ != 0; }
"""


def test_data_of_the_process_is_in_reach_of_nonpic_code() -> None:
    with jitlink.load(compile_c(_FAR_DATA, "gcc", ("-O1", "-fno-pic", "-fno-pie"))) as library:
        assert library["main"] < 1 << 31
        assert library.main() == 1
