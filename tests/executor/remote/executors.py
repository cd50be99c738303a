"""jitlink's executor and LLVM's, started in every way."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jitlink.errors import ExecutorError
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.control import MemoryKind
from jitlink.executor.remote.process import own_executor
from tests.toolchain import require


class Setting(NamedTuple):
    """How an executor is started.

    Attributes:
        kind: ``jitlink``, or LLVM's version.
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


KINDS: tuple[MemoryKind, ...] = ("generic", "shared", "simple-remote")
SETTINGS = [
    Setting(kind, transport, memory)
    for kind in ("jitlink", "llvm22", "llvm19")
    for transport in ("pipes", "tcp")
    for memory in KINDS
    if (kind, memory) != ("llvm19", "simple-remote")
]
PIPES = [setting for setting in SETTINGS if setting.transport == "pipes"]


@contextmanager
def started(
    setting: Setting, *, timeout: float | None = 60
) -> Iterator[RemoteExecutorProcessControl]:
    """An executor, until the end of the with statement."""
    if setting.transport == "pipes":
        with RemoteExecutorProcessControl.launch(
            setting.program, memory=setting.memory, timeout=timeout
        ) as executor:
            yield executor
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([setting.program, f"listen=localhost:{port}"])
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
