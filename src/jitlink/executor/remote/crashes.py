"""Reports of crashes: what an executor sends when a signal is about to end it.

jitlink's executor sends one if the controller has asked for that. It is a call with a tag, and is
not answered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jitlink.errors import ExecutorError
from jitlink.executor.code_map import CodeLocation, CodeMap, describe_code
from jitlink.executor.remote.connection import MakeError, maker_of
from jitlink.executor.remote.errors import (
    CRASH_SIGNALS,
    Crash,
    ExecutorCrashedError,
    ExecutorInterruptedError,
    ExecutorTimeoutError,
)
from jitlink.executor.remote.process import ChildProcess
from jitlink.memory.mapping import parse_mappings
from jitlink.sps import BOOL, CHARS, INT32, STRING, UINT64, Optional, Record, SPSError, Tuple
from jitlink.sps import Sequence as SPSSequence

_STOPPED = ExecutorTimeoutError | ExecutorInterruptedError
_MOST_FRAMES = 128
"""How many frames a report has at most."""


class _Report(NamedTuple):
    """A report as it is sent."""

    signal: int
    address: int | None
    registers: list[tuple[str, int]]
    frames: list[tuple[int, bool]]
    mappings: bytes


_REPORT = Record(
    _Report,
    INT32,
    Optional(UINT64),
    SPSSequence(Tuple(STRING, UINT64)),
    SPSSequence(Tuple(UINT64, BOOL)),
    CHARS,
)


class CrashReports:
    """Takes an executor's report, and says why its connection has ended.

    It belongs to the executor, and has no reference to it.

    Args:
        process: the executor's process, if it is a child.
        code: what has been linked into it.
    """

    def __init__(self, process: ChildProcess | None, code: CodeMap) -> None:
        self._process, self._code = process, code
        self._report: _Report | None = None

    def receive(self, payload: bytes) -> None:
        """Take a report; one that cannot be read is none."""
        with contextlib.suppress(SPSError):
            self._report = _REPORT.deserialize(payload)

    def explain(self, error: ExecutorError) -> MakeError:
        """Why the connection has ended: see `Connection`."""
        process, report = self._process, self._report
        make_error = maker_of(error) if process is None else process.explain(error)
        if report is None or not self._is_of_report(report, error):
            return make_error
        stderr = "" if process is None else process.stderr
        return partial(ExecutorCrashedError, report.signal, stderr, self._describe(report))

    def _is_of_report(self, report: _Report, error: ExecutorError) -> bool:
        """Whether the signal of a report is what has ended the executor."""
        if report.signal not in CRASH_SIGNALS or isinstance(error, _STOPPED):
            return False
        return self._process is None or self._process.wait(0) == -report.signal

    def _describe(self, report: _Report) -> Crash:
        frames = report.frames[:_MOST_FRAMES]
        # A return address may be that of the next function.
        places = [counter if is_exact else max(counter - 1, 0) for counter, is_exact in frames]
        located: Sequence[CodeLocation]
        try:
            located = describe_code(places, self._code, parse_mappings(report.mappings))
        except Exception:  # noqa: BLE001 - the crash matters more than its description
            located = [CodeLocation(place) for place in places]
        return Crash(
            report.address,
            dict(report.registers),
            tuple(
                each._replace(address=counter, offset=each.offset + counter - each.address)
                for each, (counter, _) in zip(located, frames, strict=True)
            ),
        )
