"""Executors that this process starts, and how they end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from jitlink.errors import ExecutorError
from jitlink.executor.remote.process import ChildProcess
from tests.orc.units import time_limit


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def started(path: Path) -> ChildProcess:
    """A process that has written a word to its standard error."""
    child = ChildProcess([path])
    while "ready" not in child.stderr:
        time.sleep(0.001)
    return child


def test_a_process_that_ignores_interrupts_is_killed(tmp_path: Path) -> None:
    with time_limit():
        lines = ("trap '' INT", "echo ready >&2", "exec sleep 600")
        child = started(script(tmp_path / "executor", *lines))
        assert child.wait(0) is None
        child.stop()
        assert child.wait(0) == -signal.SIGKILL
        # One that has ended is no error.
        child.stop()
        child.kill()
        child.channel.close()


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ExecutorError, match=f"cannot start the executor {path}: "):
            ChildProcess([path])
