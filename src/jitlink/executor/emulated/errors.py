"""What can become of a call of emulated code.

The classes are those of executors that are other processes, with the same attributes. What ends a
call there ends the process; an emulated machine lives on, with the memory that the call has left.
"""

from __future__ import annotations

from jitlink.executor.emulated.machines import (
    SIGABRT,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGSYS,
    SIGTRAP,
)
from jitlink.executor.remote.errors import (
    Crash,
    ExecutorCrashedError,
    ExecutorExitedError,
    ExecutorTimeoutError,
    backtrace,
)

_NAMES = {
    SIGILL: "SIGILL",
    SIGTRAP: "SIGTRAP",
    SIGABRT: "SIGABRT",
    SIGBUS: "SIGBUS",
    SIGFPE: "SIGFPE",
    SIGSEGV: "SIGSEGV",
    SIGSYS: "SIGSYS",
}


class EmulatedCrashError(ExecutorCrashedError):
    """Emulated code did what the machine cannot do, or has called ``abort``.

    Attributes:
        signal: number of the signal that Linux would send.
        cause: what happened.
        fault_address: the address that could not be accessed, or of the instruction that could not
            be executed; None for ``abort``.
        registers: the contents of the registers, by name.
        frames: what code the machine was in, the innermost first.
    """

    def __init__(self, number: int, cause: str, crash: Crash) -> None:
        super().__init__(number, crash=crash)
        self.cause = cause
        where = f"{_NAMES[number]}: {cause}"
        self.args = (f"emulated code was stopped by {where}{backtrace(crash.frames)}",)


class EmulatedTimeoutError(ExecutorTimeoutError):
    """Emulated code has reached a limit of time or of steps.

    Attributes:
        seconds: the limit of time; 0 if it was that of steps.
        steps: the limit of steps; 0 if it was that of time.
        registers: the contents of the registers, by name.
        frames: what code the machine was in, the innermost first.
    """

    def __init__(self, seconds: float, steps: int, crash: Crash) -> None:
        super().__init__(seconds)
        limit = f"after {steps} instructions" if steps else f"after {seconds:g} s"
        self.args = (f"emulated code was stopped {limit}{backtrace(crash.frames)}",)
        self.steps = steps
        self.registers = dict(crash.registers)
        self.frames = tuple(crash.frames)


class EmulatedExitError(ExecutorExitedError):
    """Emulated code has called ``exit``, which ends the call.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.args = (f"emulated code has exited with status {status}",)
