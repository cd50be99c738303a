"""Programs that link libraries share the variables of these with an executable that copies them."""

import os
import subprocess
from pathlib import Path

import pytest

import jitlink
from tests.toolchain import report_missing, run, zig_command

PYTHON = Path("/usr/bin/python3")
CODE = """
import os, sys
from jitlink.executor.program_variables import program_variables
from jitlink.memory.dynamic_linker import dlopen, dlsym
process, library = dlopen(None, os.RTLD_NOW), dlopen(sys.argv[1].encode(), os.RTLD_NOW)
names = [name.encode() for name in sys.argv[2:]]
own, used = ([dlsym(handle, name) for name in names] for handle in (library, process))
for name, *found in zip(names, own, used, program_variables(process, names, own)):
    print(name.decode(), *found)
"""
FUNCTION = "int Py_OptimizeFlag(void) { return 1; }"
VARIABLE = "int Py_OptimizeFlag = 1;"


def found(library: str, *names: str) -> dict[str, list[str]]:
    """For each symbol: where the library has it, where the process has it, and the result."""
    if not PYTHON.exists():
        report_missing(str(PYTHON), "python3-minimal")
    source = Path(jitlink.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [str(PYTHON), "-c", CODE, library, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {name: addresses for name, *addresses in rows}


def test_the_copies_of_an_executable() -> None:
    """What is looked up in the C library is what the C library uses."""
    rows = found("libc.so.6", "environ", "getenv", "optind", "no_such_symbol")
    assert [name for name, (_, used, result) in rows.items() if result != used] == []
    if rows["environ"][0] == rows["environ"][1]:
        pytest.skip(f"{PYTHON} is position-independent, and has no copies")
    assert [name for name, (own, used, _) in rows.items() if own != used] == ["environ"]


@pytest.mark.parametrize(("source", "is_replaced"), [(FUNCTION, False), (VARIABLE, True)])
def test_a_variable_of_the_program(source: str, is_replaced: bool, tmp_path: Path) -> None:
    """It takes the place of a variable of a library, and not of a function."""
    file, library = tmp_path / "own.c", tmp_path / "libown.so"
    file.write_text(source)
    run([*zig_command("cc"), "-shared", "-fPIC", file, "-o", library])
    own, used, result = found(str(library), "Py_OptimizeFlag")["Py_OptimizeFlag"]
    assert own != used
    assert result == (used if is_replaced else own)
