"""Programs that link libraries share the variables of these with an executable that copies them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import jitlink
from tests.toolchain import IS_EMULATED, report_missing, run, zig_command

# Of Debian, as the one is that an emulator runs.
PYTHON = Path(sys.executable if IS_EMULATED else "/usr/bin/python3")
# Where a library has each name, where the program's dynamic linker finds it, and the answer.
CODE = """
import os, sys
from jitlink.executor.program_variables import program_variables
from jitlink.memory.dynamic_linker import dlopen, dlsym
process, library = dlopen(None, os.RTLD_NOW), dlopen(sys.argv[1].encode(), os.RTLD_NOW)
names = [name.encode() for name in sys.argv[2:]]
own, used = ([dlsym(handle, name) for name in names] for handle in (library, process))
for name, *found in zip(names, own, used, program_variables(process, own, used)):
    print(name.decode(), *found)
"""
LOOKUP = """
import os
from jitlink.executor import SelfExecutorProcessControl
from jitlink.link import run_in_process
from jitlink.memory.dynamic_linker import dlopen, dlsym
executor, library = SelfExecutorProcessControl(), dlopen(b"libc.so.6", os.RTLD_NOW)
version = {"x86_64": "GLIBC_2.2.5", "aarch64": "GLIBC_2.17"}[os.uname().machine]
names = ["environ", f"environ@{version}", "getenv", "no_such_symbol"]
used = [dlsym(dlopen(None, os.RTLD_NOW), name.split("@")[0].encode()) for name in names]
print(run_in_process(executor.lookup_symbols(names, library)) == used)
"""
FUNCTION = "int Py_OptimizeFlag(void) { return 1; }"
VARIABLE = "int Py_OptimizeFlag = 1;"


def output(*words: str, packages: Sequence[Path] = ()) -> str:
    """What Debian's Python prints, which finds packages in directories beside jitlink."""
    if not PYTHON.exists():
        report_missing(str(PYTHON), "python3-minimal")
    paths = [Path(jitlink.__file__).parent.parent, *packages]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [str(PYTHON), "-c", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def found(library: str, *names: str) -> dict[str, list[str]]:
    """For each symbol: where the library has it, where the process has it, and the result."""
    rows = [line.split() for line in output(CODE, library, *names).splitlines()]
    return {name: addresses for name, *addresses in rows}


def test_the_copies_of_an_executable() -> None:
    """What is looked up in the C library is what the C library uses."""
    rows = found("libc.so.6", "environ", "getenv", "optind", "no_such_symbol")
    assert [name for name, (_, used, result) in rows.items() if result != used] == []
    if rows["environ"][0] == rows["environ"][1]:
        report_missing(f"position-dependent code in {PYTHON}")
    assert [name for name, (own, used, _) in rows.items() if own != used] == ["environ"]
    # A pointer to a function of the program may lead to its PLT, which nothing else has to use.
    own, _, result = found("libm.so.6", "sin")["sin"]
    assert result == own


def test_lookups_in_a_library() -> None:
    """An executor finds what the library uses."""
    version = "import sys; print(sys.version_info[:2])"
    if output(version) != f"{sys.version_info[:2]}\n":
        pytest.skip(f"{PYTHON} is of another version, and cannot use NumPy of this one")
    numpy = Path(np.__file__).parent.parent
    assert output(LOOKUP, packages=[numpy]) == "True\n"


@pytest.mark.parametrize(("source", "is_replaced"), [(FUNCTION, False), (VARIABLE, True)])
def test_a_variable_of_the_program(source: str, is_replaced: bool, tmp_path: Path) -> None:
    """It takes the place of a variable of a library, and not of a function."""
    file, library = tmp_path / "own.c", tmp_path / "libown.so"
    file.write_text(source)
    run([*zig_command("cc"), "-shared", "-fPIC", file, "-o", library])
    own, used, result = found(str(library), "Py_OptimizeFlag")["Py_OptimizeFlag"]
    assert own != used
    assert result == (used if is_replaced else own)
