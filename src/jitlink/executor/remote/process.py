"""Starting an executor as a child process, and what becomes of it."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Sequence
from functools import partial

from jitlink.errors import ExecutorError
from jitlink.executor.remote.channels import Channel, PipeChannel
from jitlink.executor.remote.connection import MakeError, maker_of
from jitlink.executor.remote.errors import (
    ExecutorCrashedError,
    ExecutorExitedError,
    ExecutorInterruptedError,
    ExecutorTimeoutError,
    ProtocolError,
)
from jitlink.executor.runtime_targets import RUNTIME_TARGETS
from jitlink.host import MACHINE, is_linux

_KEPT_STDERR = 64 << 10
"""Bytes of standard error that are kept."""
_POLLING_INTERVAL = 0.02
_EXIT_TIMEOUT = 2.0
"""Seconds that a child has to exit once its connection has ended."""
_INTERRUPT_TIMEOUT = 0.5
"""Seconds that a child has to end once it was interrupted."""

_PRECISE = ProtocolError | ExecutorTimeoutError | ExecutorInterruptedError
"""Errors that say more than how the process has ended."""

PROGRAMS = ("llvm-jitlink-executor", "llvm-jitlink-executor-22", "llvm-jitlink-executor-19")
"""LLVM's executors that are looked for on the search path, in this order."""


def own_executor(machine: str | None = None) -> str | None:
    """The path of jitlink's own executor for a machine; None if there is none.

    Args:
        machine: a processor architecture, such as ``aarch64``, whose executor an emulator can run
            here; by default this machine's.
    """
    target = RUNTIME_TARGETS.get((machine or MACHINE, "linux"))
    if not is_linux() or target is None:
        return None
    package = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
    path = os.path.join(package, "runtime", target.name, "jitlink-executor")  # noqa: PTH118
    return path if os.access(path, os.X_OK) else None


def default_executor() -> str:
    """The path of an executor for this machine.

    Raises:
        ExecutorError: there is none.
    """
    candidates = (own_executor(), *map(shutil.which, PROGRAMS))
    found = next((path for path in candidates if path is not None), None)
    if found is None:
        message = f"there is no executor for this machine, and none of {', '.join(PROGRAMS)}"
        raise ExecutorError(f"{message} is installed")
    return found


class ChildProcess:
    """An executor that this process has started.

    It is in a process group of its own, so that a Ctrl-C at the terminal does not reach it. What
    it writes to its standard error appears on this process's, and the end of that is kept.

    Args:
        command: path of the executor, or of an emulator for it, and arguments. The one that names
            the descriptors is added behind them.
        descriptors: further descriptors that it inherits, by the same numbers.

    Attributes:
        channel: the connection's byte stream.

    Raises:
        ExecutorError: it cannot be started.
    """

    def __init__(
        self, command: Sequence[str | os.PathLike[str]], descriptors: Sequence[int] = ()
    ) -> None:
        # Guards what is kept: a thread that holds it has either read nothing or kept it.
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        words = [os.fspath(word) for word in command]
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                to_child, from_us = _pipe(theirs, ours)
                to_us, from_child = _pipe(ours, theirs)
                self._process = subprocess.Popen(
                    [*words, f"filedescs={to_child},{from_child}"],
                    pass_fds=(to_child, from_child, *descriptors),
                    stderr=subprocess.PIPE,
                    process_group=0,
                )
                ours.callback(self._discard)
                name = "jitlink executor stderr"
                self._reader = threading.Thread(target=self._copy_stderr, name=name, daemon=True)
                self._reader.start()
            except (OSError, RuntimeError, ValueError) as error:
                raise ExecutorError(f"cannot start the executor {words[0]}: {error}") from error
            ours.pop_all()
        self.channel: Channel = PipeChannel(to_us, from_us)

    @property
    def pid(self) -> int:
        """Its process identifier."""
        return self._process.pid

    def auxiliary_vector(self) -> bytes:
        """Its auxiliary vector; empty if the system does not show it."""
        return self._proc_file("auxv")

    def mappings(self) -> bytes:
        """The system's list of what it maps; empty if the system does not show it."""
        return self._proc_file("maps")

    def _proc_file(self, name: str) -> bytes:
        try:
            with open(f"/proc/{self.pid}/{name}", "rb") as file:  # noqa: PTH123 - slow to import
                return file.read()
        except OSError:
            return b""

    @property
    def stderr(self) -> str:
        """The end of what it has written to its standard error."""
        with self._lock:
            return b"".join(self._kept).decode("utf-8", "replace")

    def _copy_stderr(self) -> None:
        assert self._process.stderr is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError), self._process.stderr as source:
            readable = select.poll()
            readable.register(source, select.POLLIN)
            data = b"-"
            while data:
                readable.poll()
                with self._lock:
                    data = os.read(source.fileno(), 1 << 16)
                    self._keep(data)
                _write_stderr(decoder.decode(data, final=not data))

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        size = sum(map(len, self._kept))
        while size - len(self._kept[0]) > _KEPT_STDERR:
            size -= len(self._kept.popleft())

    def _finish_stderr(self) -> None:
        """Wait until all that the process has written is kept; it has ended."""
        self._reader.join(_INTERRUPT_TIMEOUT)
        end = time.monotonic() + _EXIT_TIMEOUT
        # Grandchildren may hold it open; or this process is busy.
        while self._reader.is_alive() and self._has_more() and time.monotonic() < end:
            self._reader.join(_POLLING_INTERVAL)

    def _has_more(self) -> bool:
        """Whether it has written to its standard error what has not been read."""
        # Not every system has them, and it may still connect to executors.
        import fcntl  # noqa: PLC0415
        import termios  # noqa: PLC0415

        assert self._process.stderr is not None
        waiting = array("i", [0])
        with self._lock, contextlib.suppress(OSError, ValueError):
            fcntl.ioctl(self._process.stderr, termios.FIONREAD, waiting)
        return waiting[0] > 0

    def explain(self, error: ExecutorError) -> MakeError:
        """Wait for the process to end, and say why a connection that has ended did so."""
        status = self.wait(_EXIT_TIMEOUT)
        if status is None:
            self.kill()
        # A process that dies may leave a message half sent.
        is_cut = isinstance(error, ProtocolError) and error.is_truncation and status != 0
        if status is None or (isinstance(error, _PRECISE) and not is_cut):
            return maker_of(error, self.stderr)
        if status < 0:
            return partial(ExecutorCrashedError, -status, self.stderr)
        return partial(ExecutorExitedError, status, self.stderr)

    def interrupt(self) -> None:
        """Interrupt the process, as Ctrl-C does."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Interrupt the process, and kill it if that does not end it."""
        self.interrupt()
        if self.wait(_INTERRUPT_TIMEOUT) is None:
            self.kill()

    def wait(self, timeout: float) -> int | None:
        """The exit status, negative for a signal; None if it runs on.

        Args:
            timeout: seconds to wait.
        """
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._finish_stderr()
        return status

    def kill(self) -> None:
        """Kill it, and wait for it."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _discard(self) -> None:
        """End the process, whose standard error no thread reads."""
        self.kill()
        assert self._process.stderr is not None
        self._process.stderr.close()


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe: the descriptors of its ends, which two stacks close."""
    ends = os.pipe()
    for stack, descriptor in zip((reader, writer), ends, strict=True):
        stack.callback(os.close, descriptor)
    return ends


def _write_stderr(text: str) -> None:
    # A program may have replaced it by anything; the executor must be able to write all the same.
    with contextlib.suppress(Exception):
        stream = sys.stderr
        stream.write(text)
        stream.flush()
