"""Programs that link libraries share the variables of these with an executable that copies them."""

import os
import subprocess
from pathlib import Path

import pytest

import jitlink
from tests.toolchain import report_missing

PYTHON = Path("/usr/bin/python3")
CODE = """
import os
from jitlink.executor.program_variables import program_variable
from jitlink.memory.dynamic_linker import dlopen, dlsym
process, library = dlopen(None, os.RTLD_NOW), dlopen(b"libc.so.6", os.RTLD_NOW)
for name in (b"environ", b"getenv", b"optind", b"no_such_symbol"):
    own, used = dlsym(library, name), dlsym(process, name)
    print(name.decode(), own == used, program_variable(process, name, own) == used)
"""


def test_the_copies_of_an_executable() -> None:
    """What is looked up in the C library is what the C library uses."""
    if not PYTHON.exists():
        report_missing(str(PYTHON), "python3-minimal")
    source = Path(jitlink.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [str(PYTHON), "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _, is_used in rows if is_used != "True"] == []
    if rows[0][1] == "True":
        pytest.skip(f"{PYTHON} is position-independent, and has no copies")
    assert [name for name, is_one, _ in rows if is_one != "True"] == ["environ"]
