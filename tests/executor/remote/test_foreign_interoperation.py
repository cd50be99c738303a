"""jitlink's executors of other processors with LLVM's controller, and LLVM's with jitlink's.

The oracle is the program that a cross compiler has linked, under the same emulator.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from jitlink.executor.runtime_targets import runtime_target
from tests.executor.remote.executors import FOREIGN_MACHINES, KINDS
from tests.executor.remote.foreign import executor_command
from tests.executor.remote.interoperation import SOURCES, SQLITE, TLS_FLAG
from tests.foreign_packages import foreign_archive, foreign_root
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import Outcome, execute
from tests.toolchain import CompilerName, compile_c, require

LONG = os.environ.get("JITLINK_LONG") == "1"
HELLO = ("one", "two words", "")
# LLVM's executor, and what its own needs: it is linked statically with the rest of LLVM.
PACKAGES = (
    "llvm-22",
    "libatomic1",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libz3-4",
    "libzstd1",
    "zlib1g",
)
LLVM = "usr/lib/llvm-22/bin/llvm-jitlink-executor"


def compiled(source: Path, target: str) -> Path:
    compiler: CompilerName = "clang" if source.suffix == ".cpp" else "gcc"
    return compile_c(source, compiler, ("-O1", "-fPIC", TLS_FLAG), target=target)


def expected(inputs: list[Path], arguments: tuple[str, ...], target: str, *words: str) -> Outcome:
    """What the program does by itself."""
    program = link_native("program.c", inputs, *words, "-lm", "-ldl", "-lpthread", target=target)
    return execute([*executor_command(target)[:-1], str(program), *arguments])


@pytest.mark.parametrize("memory", KINDS)
@pytest.mark.parametrize("machine", FOREIGN_MACHINES)
def test_llvm_jitlink_drives_jitlinks_executor(machine: str, memory: str, tmp_path: Path) -> None:
    target = f"{machine}-linux-gnu"
    # It takes the path of a program, and no arguments.
    script = tmp_path / "executor"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(executor_command(target))} "$@"\n')
    script.chmod(0o755)
    inputs = [compiled(SOURCES / "hello.c", target)]
    words = [f"-oop-executor={script}", f"-use-memmgr={memory}", *map(str, inputs)]
    done = execute([str(require("llvm-jitlink-22")), *words, "-args", "program", *HELLO])
    assert done.output
    assert done == expected(inputs, HELLO, target)


@pytest.fixture(name="llvm")
def _llvm(machine: str) -> list[str]:
    """The command of LLVM's executor for a machine."""
    row = runtime_target(f"{machine}-linux-gnu")
    assert row is not None
    root = foreign_root(row.name, *PACKAGES)
    libraries = f"LD_LIBRARY_PATH=/usr/lib/{row.name}"
    return [str(require(row.emulator)), "-E", libraries, "-L", str(root), str(root / LLVM)]


@pytest.mark.skipif(not LONG, reason="downloads packages; JITLINK_LONG=1 runs it")
@pytest.mark.parametrize("memory", KINDS)
@pytest.mark.parametrize("name", ["hello", "C++", "sqlite3"])
@pytest.mark.parametrize("machine", FOREIGN_MACHINES)
def test_llvms_executor(
    machine: str, name: str, memory: str, llvm: list[str], tmp_path: Path
) -> None:
    target = f"{machine}-linux-gnu"
    database = str(tmp_path / "file.db")
    source, arguments = {
        "hello": (SOURCES / "hello.c", HELLO),
        "C++": (SOURCES / "language.cpp", ("last",)),
        "sqlite3": (SQLITE / "sqlite_shell.c", (database, str(SQLITE / "script.sql"))),
    }[name]
    inputs = [compiled(source, target)]
    if name == "sqlite3":
        inputs.append(foreign_archive(target, "libsqlite3-dev", "libsqlite3.a"))
    native = expected(inputs, arguments, target, *(["-lstdc++"] if name == "C++" else []))
    assert native.output
    Path(database).unlink(missing_ok=True)
    words = [f"-oop-executor={shlex.join(llvm)}", f"-use-memmgr={memory}", *map(str, inputs)]
    command = [sys.executable, "-W", "error", "-m", "jitlink", *words]
    assert execute([*command, "-args", "program", *arguments]) == native
