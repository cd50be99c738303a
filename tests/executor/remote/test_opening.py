"""What is left of an executor that could not be opened."""

import gc
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from jitlink.errors import ExecutorError
from jitlink.executor import RemoteExecutorProcessControl, Sandbox
from jitlink.executor.remote.sandbox import FEATURES
from tests.executor.remote.listening import PROGRAM
from tests.executor.remote.resources import is_free_soon, open_descriptors


@pytest.mark.serial("counts descriptors of this process")
@pytest.mark.parametrize("name", ["jitlink executor", "jitlink executor stderr"])
@pytest.mark.parametrize("sandbox", [None, Sandbox(accept=FEATURES)])
def test_a_controller_without_threads(
    name: str, sandbox: Sandbox | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error, and no process is left, nor what was made for it."""
    start, processes = threading.Thread.start, list[int]()
    popen = subprocess.Popen.__init__

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    def begin(process: subprocess.Popen[bytes], *words: Any, **options: Any) -> None:  # noqa: ANN401
        popen(process, *words, **options)
        processes.append(process.pid)

    gc.collect()
    before = open_descriptors()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", begin)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ExecutorError, match="can't start new thread"):
        RemoteExecutorProcessControl.launch(PROGRAM, sandbox=sandbox)
    (process,) = processes
    with pytest.raises(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
    assert not list(tmp_path.iterdir())
    assert is_free_soon(lambda: open_descriptors() <= before)
