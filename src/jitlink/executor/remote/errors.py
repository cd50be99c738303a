"""What can become of an executor that is another process."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from jitlink.errors import ExecutorError

if TYPE_CHECKING:
    from jitlink.executor.code_map import CodeLocation

_MOST_QUOTED = 2000
"""Characters of an executor's standard error that a message quotes."""
_MOST_FRAMES = 32
"""Frames that a message shows."""

CRASH_SIGNALS = {
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    11: "SIGSEGV",
    31: "SIGSYS",
}
"""The signals of which jitlink's executor sends reports: Linux's, whatever this system is."""


class Crash(NamedTuple):
    """What an executor has reported of a crash.

    Attributes:
        fault_address: see `ExecutorCrashedError`, as for the others.
        registers: by name.
        frames: the innermost first.
    """

    fault_address: int | None = None
    registers: Mapping[str, int] = {}
    frames: Sequence[CodeLocation] = ()


class ProtocolError(ExecutorError):
    """A message of an executor that breaks the protocol.

    Attributes:
        is_truncation: whether all there is to it is that the connection ended within it.
    """

    def __init__(self, message: str, *, is_truncation: bool = False) -> None:
        super().__init__(message)
        self.is_truncation = is_truncation


class ExecutorDisconnectedError(ExecutorError):
    """The connection to an executor has ended, and with it all calls.

    Attributes:
        stderr: the end of what the executor has written to its standard error, if that is known.
    """

    def __init__(self, message: str, stderr: str = "", details: str = "") -> None:
        quoted = stderr.strip()[-_MOST_QUOTED:]
        text = f"{message}; its standard error: {quoted}" if quoted else message
        super().__init__(text + details)
        self.stderr = stderr


class ExecutorExitedError(ExecutorDisconnectedError):
    """An executor has exited, by itself or because linked code has called ``exit``.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int, stderr: str = "") -> None:
        super().__init__(f"the executor has exited with status {status}", stderr)
        self.status = status


class ExecutorCrashedError(ExecutorDisconnectedError):
    """A signal has ended an executor.

    The registers and the frames are known if jitlink's executor was ended by a signal of the
    processor or of ``abort``, and the program has no handler of its own for it.

    Attributes:
        signal: its number.
        fault_address: the address that could not be accessed, or of the instruction that could not
            be executed; None if the signal was sent, or the processor does not say.
        registers: the contents of the thread's registers, by name.
        frames: what code the thread was in, the innermost first. The address of all but that is a
            return address, and the source line that of the call.
    """

    def __init__(self, number: int, stderr: str = "", crash: Crash | None = None) -> None:
        try:
            name = CRASH_SIGNALS.get(number) or signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        found = crash or Crash()
        where = "" if found.fault_address is None else f" at address {found.fault_address:#x}"
        super().__init__(
            f"the executor was ended by {name}{where}", stderr, backtrace(found.frames)
        )
        self.signal = number
        self.fault_address = found.fault_address
        self.registers = dict(found.registers)
        self.frames = tuple(found.frames)


class ExecutorInterruptedError(ExecutorDisconnectedError):
    """A call was interrupted and did not return, and its executor was ended."""

    def __init__(self, stderr: str = "") -> None:
        super().__init__("a call was interrupted; it was stopped, and the executor ended", stderr)


class ExecutorRestartedError(ExecutorDisconnectedError):
    """Something of an executor's process that has ended, used after the executor was restarted.

    Attributes:
        address: the address that was used; None if it was something else.
    """

    def __init__(self, message: str, *, address: int | None = None) -> None:
        super().__init__(message)
        self.address = address

    @classmethod
    def of_address(cls, address: int) -> ExecutorRestartedError:
        """The error about an address of the process that has ended."""
        message = f"{address:#x} is an address of an executor that has ended, and was restarted"
        return cls(f"{message}: look the symbol up again", address=address)


class ExecutorTimeoutError(ExecutorDisconnectedError):
    """A call took too long, and its executor was ended.

    Attributes:
        seconds: how long the call was given.
    """

    def __init__(self, seconds: float, stderr: str = "") -> None:
        super().__init__(f"a call did not return within {seconds:g} s; it was stopped", stderr)
        self.seconds = seconds


def backtrace(frames: Sequence[CodeLocation]) -> str:
    """Lines for a message, as debuggers show a backtrace."""
    lines: list[str] = []
    number = 0
    for frame, group in groupby(frames):
        # A recursion.
        count = len(list(group))
        if len(lines) < _MOST_FRAMES:
            repeated = f" ({count} times)" if count > 1 else ""
            lines.append(f"\n#{number:<2} {frame}{repeated}")
            number += count
    left = len(frames) - number
    return "".join([*lines, f"\n({left} more frames)"] if left else lines)
