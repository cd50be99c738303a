"""The interface of peers, which link a row's files to a callable address.

A peer prepares a row once (encodes names, builds stub libraries) and returns a function that does
one link, which is timed; the release of the result is not. Each peer has a module, listed in
`registry.py`.
"""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.workloads import Use, Workload


class PeerError(Exception):
    """A peer could not link a row; the message is the peer's own."""


def _nothing() -> None:
    pass


@dataclass
class Linked:
    """The result of one link.

    `address` is the entry's in this process, None if the peer has none. `result` is set if the row
    includes that the entry is called. `seconds` is set if the peer times itself; `peak_bytes` if it
    ran in a process of its own whose memory was watched.
    """

    address: int | None
    release: Callable[[], None] = _nothing
    result: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None


class Peer(ABC):
    """One linker: `name` is its name on the command line, `title` heads its column."""

    name: str
    title: str
    # Rows that are slow with this peer: measured only on request, once, in a process of their own.
    slow: frozenset[str] = frozenset()
    # Whether it links in this process.
    is_in_process = False
    # What it can do with a row's files.
    uses: frozenset[Use] = frozenset({Use.LOAD})
    # Whether to measure `Linked.peak_bytes`, at the expense of the time.
    watch_memory = False

    @abstractmethod
    def missing(self) -> str | None:
        """The reason why the peer cannot run here, or None."""

    @abstractmethod
    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """Do the untimed work; the returned function does one link. Both may raise."""


def run(command: Sequence[str | Path], watch_memory: bool = False) -> tuple[str, int | None]:
    """Run a command; returns its standard error and, if watched, its peak memory in bytes.

    Raises PeerError, with the last line of that text, if the command fails.
    """
    null = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=null, stdout=null, stderr=subprocess.PIPE, text=True
    ) as process:
        peak = _watch(process) if watch_memory else None
        _, errors = process.communicate()
    if process.returncode:
        lines = errors.strip().splitlines() or [f"exit status {process.returncode}"]
        raise PeerError(f"{Path(command[0]).name}: {lines[-1]}")
    return errors, peak


def _watch(process: subprocess.Popen[str]) -> int:
    # Not ru_maxrss, which includes the peak of the process that forked.
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid, "VmHWM"))
        time.sleep(0.0001)
    return peak


def memory(pid: int | str, figure: str) -> int:
    """A figure of /proc/PID/status in bytes; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith(f"{figure}:"):
            return int(line.split()[1]) * 1024
    return 0
