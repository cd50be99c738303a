"""Programs that every controller runs in every executor."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.executor.remote.executors import Setting
from tests.platform.orc_programs import runtime
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import Outcome, execute, run_native
from tests.toolchain import compile_c, require

SOURCES = Path(__file__).parents[2] / "programs" / "interoperation"
SQLITE = Path(__file__).parents[2] / "real_programs" / "sources"
TLS_FLAG = "-ftls-model=global-dynamic"
"""LLVM's runtime has no other model."""


class Program(NamedTuple):
    """A program.

    Attributes:
        inputs: its objects and archives.
        native: the program that the system's linker links from them.
        arguments: its arguments, the first one not included.
    """

    inputs: tuple[Path, ...]
    native: Path
    arguments: tuple[str, ...]


def program(name: str, scratch: Path) -> Program:
    """A program: hello with arguments, C++ with all that needs a runtime, or an archive.

    Args:
        name: ``hello``, ``C++`` or ``sqlite3``.
        scratch: directory in which it may create files.
    """
    source, archives, arguments = {
        "hello": (SOURCES / "hello.c", (), ("one", "two words", "")),
        "C++": (SOURCES / "language.cpp", (), ("last",)),
        "sqlite3": (
            SQLITE / "sqlite_shell.c",
            ("libsqlite3.a",),
            (str(scratch / "file.db"), str(SQLITE / "script.sql")),
        ),
    }[name]
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC", TLS_FLAG))
    inputs = (compiled, *map(require, archives))
    native = link_native(source.name, list(inputs), "-lm", "-ldl", "-lpthread")
    return Program(inputs, native, arguments)


class Controller(NamedTuple):
    """What links a program and has an executor run it.

    Attributes:
        name: of the controller.
        has_orc_runtime: whether it is given LLVM's ORC runtime.
    """

    name: str
    has_orc_runtime: bool = False

    def __str__(self) -> str:
        return f"{self.name}{' with liborc_rt' if self.has_orc_runtime else ''}"

    @property
    def is_llvm(self) -> bool:
        """Whether it is LLVM's."""
        return self.name == "llvm-jitlink"


CONTROLLERS = (
    Controller("library"),
    Controller("command"),
    Controller("command", has_orc_runtime=True),
    Controller("llvm-jitlink"),
    Controller("llvm-jitlink", has_orc_runtime=True),
)
HANGS = -1000
"""The status of a controller that does not end."""
_IDLE = "jitlink-executor: nothing was to be done for as long as the timeout\n"
_SECONDS, _HANG_SECONDS = 120, 4
_LIBRARY = """
import sys
from jitlink.executor import RemoteExecutorProcessControl as Remote
from jitlink.lljit import LLJIT
where, memory, inputs, arguments = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4:]
host, _, port = where.rpartition(":")
executor = (
    Remote.connect(host, int(port), memory=memory)
    if port.isdigit()
    else Remote.launch(where, memory=memory)
)
with executor, LLJIT(executor=executor) as jit:
    for path in inputs:
        (jit.add_archive if path.endswith(".a") else jit.add_object)(path)
    main = int(jit.lookup("main"))
    status = jit.platform.run_main(jit.main, main, ["program", *arguments])
sys.exit(status)
"""


def run(controller: Controller, setting: Setting, program: Program) -> Outcome:
    """Run a program; what it prints is its own output, wherever it appears."""
    if setting.transport == "pipes":
        return _run(controller, setting.program, setting.memory, program)
    # LLVM 22's controller waits for the end of the connection before it ends.
    is_own = setting.kind == "jitlink"
    more = ["--timeout=1"] if controller.is_llvm and is_own else []
    seconds = _HANG_SECONDS if controller.is_llvm and not is_own else _SECONDS
    with _listening([setting.program, *more]) as (address, server):
        try:
            done = _run(controller, address, setting.memory, program, seconds)
        except subprocess.TimeoutExpired:
            done = Outcome(HANGS, "", "")
            server.kill()
        output, errors = server.communicate(timeout=20)
    errors = errors.replace(_IDLE, "")
    output = "".join(line for line in output.splitlines(True) if "listening on" not in line)
    return Outcome(done.status, done.output + output, done.errors + errors)


def _run(
    controller: Controller, where: str, memory: str, program: Program, seconds: float = _SECONDS
) -> Outcome:
    if controller.name == "library":
        inputs = ",".join(map(str, program.inputs))
        words = [sys.executable, "-W", "error", "-c", _LIBRARY, where, memory, inputs]
        return execute([*words, *program.arguments])
    option = "-oop-executor" if where.startswith("/") else "-oop-executor-connect"
    words = [f"{option}={where}", f"-use-memmgr={memory}", *map(str, program.inputs)]
    if controller.has_orc_runtime:
        words.insert(0, f"-orc-runtime={runtime()}")
    words += ["-args", "program", *program.arguments]
    if not controller.is_llvm:
        return execute([sys.executable, "-W", "error", "-m", "jitlink", *words])
    return execute([str(require("llvm-jitlink-22")), *words], seconds=seconds)


def expected(program: Program) -> Outcome:
    """What the program does natively."""
    return run_native(program.native, program.arguments)


@contextmanager
def _listening(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of an executor that listens, and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*command, f"listen=127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 20
        # It takes one connection, which must be the controller's.
        while not _is_listened_at(port) and time.monotonic() < end:
            time.sleep(0.002)
        yield f"127.0.0.1:{port}", server
    finally:
        server.kill()
        server.communicate()


def _is_listened_at(port: int) -> bool:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    columns = [line.split() for line in lines]
    return any(each[1].endswith(f":{port:04X}") and each[3] == "0A" for each in columns)
