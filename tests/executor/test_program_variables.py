"""Programs that link libraries share the variables of these with an executable that copies them."""

import os
import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink import tasks
from jitlink.executor import SelfExecutorProcessControl, self_process
from jitlink.memory.dynamic_linker import dlopen, dlsym
from tests.toolchain import report_missing

PYTHON = Path("/usr/bin/python3")
# Where a library has each name, where the program's dynamic linker finds it, and the answer.
CODE = """
import os
from jitlink.executor.program_variables import program_variable
from jitlink.memory.dynamic_linker import dlopen, dlsym
process = dlopen(None, os.RTLD_NOW)
for word in "c:environ c:getenv c:optind c:no_such_symbol m:sin".split():
    library, name = word.encode().split(b":")
    own = dlsym(dlopen(b"lib%s.so.6" % library, os.RTLD_NOW), name)
    print(name.decode(), own, dlsym(process, name), program_variable(process, name, own))
"""


def test_the_copies_of_an_executable() -> None:
    """What is looked up in the C library is what the C library uses."""
    if not PYTHON.exists():
        report_missing(str(PYTHON), "python3-minimal")
    source = Path(jitlink.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [str(PYTHON), "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = {name: places for name, *places in map(str.split, done.stdout.splitlines())}
    if rows["environ"][0] == rows["environ"][1]:
        report_missing(f"position-dependent code in {PYTHON}")
    own, used, found = rows.pop("environ")
    assert found == used != own
    # Pointers to functions of the program lead to its PLT, which nothing else has to use.
    own, _, found = rows.pop("sin")
    assert found == own
    assert all(len(set(places)) == 1 for places in rows.values())
    assert rows.keys() == {"getenv", "optind", "no_such_symbol"}


def test_libraries_are_asked_by_way_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def program_variable(process: int, name: bytes, address: int) -> int:
        asked.append((process, name))
        return address + 1

    monkeypatch.setattr(self_process, "program_variable", program_variable)
    executor = SelfExecutorProcessControl.shared()
    library = tasks.run(executor.load_dylib("libc.so.6"))
    (plain,) = tasks.run(executor.lookup_symbols(["environ"]))
    (own,) = tasks.run(executor.lookup_symbols(["environ"], library))
    assert asked == [(dlopen(None, os.RTLD_NOW), b"environ")]
    assert plain is not None
    assert own == dlsym(library, b"environ") + 1
