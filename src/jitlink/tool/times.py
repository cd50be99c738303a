"""How long the phases of a command took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Span(NamedTuple):
    """A duration, in seconds.

    Attributes:
        user: processor time in user mode.
        system: processor time in the kernel.
        wall: wall-clock time.
    """

    user: float
    system: float
    wall: float


class PhaseTimes:
    """A stopwatch for each phase, in the order in which they were first measured."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Measure a phase, also if it fails."""
        before = _now()
        try:
            yield
        finally:
            after = _now()
            self.spans[phase] = Span(
                after.user - before.user, after.system - before.system, after.wall - before.wall
            )

    def table(self) -> str:
        """The times as lines of text, each terminated: seconds and shares of the total."""
        total = Span(
            sum(span.user for span in self.spans.values()),
            sum(span.system for span in self.spans.values()),
            sum(span.wall for span in self.spans.values()),
        )
        columns = ("User Time", "System Time", "User+System", "Wall Time")
        head = "  ".join(f"{f'--{column}--':^18}" for column in columns)
        lines = [f"{head}  --- Name ---"]
        for name, span in (*self.spans.items(), ("Total", total)):
            cells = "  ".join(map(_cell, _numbers(span), _numbers(total)))
            lines.append(f"{cells}  {name}")
        return "".join(f"{line}\n" for line in lines)


def _now() -> Span:
    import resource  # noqa: PLC0415 - not every system has it

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Span(usage.ru_utime, usage.ru_stime, time.perf_counter())


def _numbers(span: Span) -> tuple[float, ...]:
    return span.user, span.system, span.user + span.system, span.wall


def _cell(seconds: float, total: float) -> str:
    share = 100 * seconds / total if total else 0.0
    return f"{seconds:9.4f} ({share:5.1f}%)"
