"""What can become of an executor that is another process."""

from __future__ import annotations

import signal

from jitlink.errors import ExecutorError

_MOST_QUOTED = 2000
"""Characters of an executor's standard error that a message quotes."""


class ProtocolError(ExecutorError):
    """A message of an executor that breaks the protocol."""


class ExecutorDisconnectedError(ExecutorError):
    """The connection to an executor has ended, and with it all calls.

    Attributes:
        stderr: the end of what the executor has written to its standard error, if that is known.
    """

    def __init__(self, message: str, stderr: str = "") -> None:
        quoted = stderr.strip()[-_MOST_QUOTED:]
        super().__init__(f"{message}; its standard error: {quoted}" if quoted else message)
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

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int, stderr: str = "") -> None:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        super().__init__(f"the executor was ended by {name}", stderr)
        self.signal = number


class ExecutorTimeoutError(ExecutorDisconnectedError):
    """A call took too long, and its executor was ended.

    Attributes:
        seconds: how long the call was given.
    """

    def __init__(self, seconds: float, stderr: str = "") -> None:
        super().__init__(f"a call did not return within {seconds:g} s; it was stopped", stderr)
        self.seconds = seconds
