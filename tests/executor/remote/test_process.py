"""Executors that this process starts, and how they end."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from jitlink.errors import ExecutorError
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorExitedError,
    ProtocolError,
    RemoteExecutorProcessControl,
)
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


def ended(path: Path) -> ChildProcess:
    child = ChildProcess([path])
    with time_limit():
        assert child.wait(50) is not None
    child.channel.close()
    return child


def test_all_that_was_written_before_the_end_is_kept(tmp_path: Path) -> None:
    lines = ("head -c 300000 /dev/zero | tr '\\0' x >&2", "echo the end >&2", "kill -9 $$")
    for number in range(10):
        child = ended(script(tmp_path / f"executor{number}", *lines))
        assert child.stderr.endswith("xxxthe end\n")
        # Not all of it.
        assert 64 << 10 <= len(child.stderr) < 200_000


def test_descendants_that_hold_standard_error(tmp_path: Path) -> None:
    lines = ("sleep 600 &", "echo $! >&2", "echo the end >&2", "exit 3")
    child = ended(script(tmp_path / "executor", *lines))
    assert child.wait(0) == 3
    pid, _, rest = child.stderr.partition("\n")
    assert rest == "the end\n"
    os.kill(int(pid), signal.SIGKILL)


def test_characters_that_are_written_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("printf 'ready\\303' >&2", "sleep 0.2", "printf '\\251\\377.\\303' >&2")
    child = ended(script(tmp_path / "executor", *lines))
    assert child.stderr == "ready\u00e9\ufffd.\ufffd"
    child._reader.join(20)
    assert capsys.readouterr().err == child.stderr


class _Broken(io.StringIO):
    def write(self, text: str, /) -> int:
        raise LookupError(text)


@pytest.mark.parametrize("stream", [None, _Broken()])
def test_standard_error_of_this_process_that_cannot_be_written(
    stream: io.StringIO | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    lines = ("head -c 300000 /dev/zero >&2", "echo the end >&2")
    assert ended(script(tmp_path / "executor", *lines)).stderr.endswith("the end\n")


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        ("kill -9 $$", ExecutorCrashedError, "SIGKILL; its standard error: bye"),
        ("exit 4", ExecutorExitedError, "status 4; its standard error: bye"),
        ("exit 0", ProtocolError, "ended within a message, 5 bytes after its start"),
    ],
)
def test_a_process_that_ends_within_a_message(
    end: str, kind: type[ExecutorError], message: str, tmp_path: Path
) -> None:
    # The second one of the descriptors.
    lines = ("printf abcde > /proc/$$/fd/${1##*,}", "echo bye >&2", end)
    with pytest.raises(kind, match=message):
        RemoteExecutorProcessControl.launch(script(tmp_path / "executor", *lines))
