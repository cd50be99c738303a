"""jitlink's executor and LLVM's, started in every way."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jitlink.errors import ExecutorError
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.control import OnCrash
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.executor.remote.process import own_executor
from tests.executor.remote.foreign import executor_command
from tests.toolchain import HOST_TARGET, require

FOREIGN_MACHINES = ("aarch64", "riscv64")


class Setting(NamedTuple):
    """How an executor is started.

    Attributes:
        kind: ``jitlink``, LLVM's version, or another processor, for jitlink's in an emulator.
        transport: ``pipes`` or ``tcp``.
        memory: how its memory is managed.
    """

    kind: str
    transport: str
    memory: MemoryKind

    def __str__(self) -> str:
        return f"{self.kind}-{self.transport}-{self.memory}"

    @property
    def program(self) -> str:
        """The path of the executor."""
        if self.kind == "jitlink":
            own = own_executor()
            assert own is not None
            return own
        return str(require(f"llvm-jitlink-executor-{self.kind.removeprefix('llvm')}"))

    @property
    def target(self) -> str:
        """The target of the code that it runs."""
        return f"{self.kind}-linux-gnu" if self.kind in FOREIGN_MACHINES else HOST_TARGET

    @property
    def command(self) -> list[str]:
        """The command that starts it, without the word for its connection."""
        if self.kind in FOREIGN_MACHINES:
            return executor_command(self.target)
        return [self.program]


KINDS: tuple[MemoryKind, ...] = ("generic", "shared", "simple-remote")
SETTINGS = [
    Setting(kind, transport, memory)
    for kind in ("jitlink", "llvm22", "llvm19")
    for transport in ("pipes", "tcp")
    for memory in KINDS
    if (kind, memory) != ("llvm19", "simple-remote")
]
FOREIGN = [Setting(machine, "pipes", kind) for machine in FOREIGN_MACHINES for kind in KINDS]
PIPES = [setting for setting in SETTINGS if setting.transport == "pipes"]


@contextmanager
def started(
    setting: Setting, *, timeout: float | None = 60, on_crash: OnCrash = "raise"
) -> Iterator[RemoteExecutorProcessControl]:
    """An executor, until the end of the with statement."""
    if setting.transport == "pipes":
        with RemoteExecutorProcessControl.launch(
            setting.command, memory=setting.memory, timeout=timeout, on_crash=on_crash
        ) as executor:
            yield executor
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*setting.command, f"listen=localhost:{port}"])
    try:
        with _connect(port, setting.memory, timeout) as executor:
            yield executor
        server.wait(20)
    finally:
        server.kill()
        server.wait()


def _connect(port: int, memory: MemoryKind, timeout: float | None) -> RemoteExecutorProcessControl:
    """Connect to an executor that has just been started."""
    end = time.monotonic() + 20
    while True:
        try:
            return RemoteExecutorProcessControl.connect(
                "127.0.0.1", port, memory=memory, timeout=timeout
            )
        except ExecutorError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
