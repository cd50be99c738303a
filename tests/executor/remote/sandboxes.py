"""What tests of sandboxes share: directories inside and outside, and executors."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jitlink
from jitlink.executor import RemoteExecutorProcessControl, Sandbox
from jitlink.executor.remote.process import own_executor
from tests.executor.remote.forbidden import PRELUDE
from tests.toolchain import compile_c


class Place:
    """Directories inside and outside of a sandbox, and a process that it must not reach."""

    def __init__(self, path: Path) -> None:
        self.outside, self.read, self.write = (path / name for name in ("outside", "in", "work"))
        for directory in (self.outside, self.read, self.write):
            directory.mkdir()
            (directory / "file").write_text("content")
        for name in ("removed", "renamed"):
            (self.outside / name).write_text("content")
        (self.read / "link").symlink_to(self.outside / "file")
        self.memory = ctypes.create_string_buffer(b"content", 64)
        self.listening = socket.create_server(("127.0.0.1", 0))

    def compiled(self, body: str) -> Path:
        source = f"{PRELUDE}\nint act(void) {{ {body}\n return 0; }}"
        return compile_c(source, "gcc", ("-O1", "-fPIC"))

    @property
    def environment(self) -> dict[str, int]:
        """What acts read: it differs from run to run, and their objects do not."""
        return {
            "CONTROLLER": os.getpid(),
            "PLACE": ctypes.addressof(self.memory),
            "PORT": self.listening.getsockname()[1],
        }

    def sandbox(self, **settings: object) -> Sandbox:
        usual = {"memory": 256 << 20, "read": [self.read], "write": [self.write]}
        return Sandbox(**{**usual, **settings})  # type: ignore[arg-type]


@contextmanager
def launched(sandbox: Sandbox | None) -> Iterator[RemoteExecutorProcessControl]:
    """An executor, in a sandbox or without one."""
    with RemoteExecutorProcessControl.launch(sandbox=sandbox, timeout=60) as executor:
        yield executor


def outcome(compiled: Path, sandbox: Sandbox | None) -> int:
    """What an act returns: 0, or the number of the error."""
    with launched(sandbox) as executor, jitlink.load(compiled, executor=executor) as library:
        result: int = library.act()
    return result


def launcher(place: Place, words: str = "", before: str = "") -> Path:
    """A program that starts jitlink's executor."""
    script = place.outside.parent / "executor"
    script.write_text(f'#!/bin/sh\nexec {before} {own_executor()} "$@" {words}\n')
    script.chmod(0o755)
    return script
