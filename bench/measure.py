"""The measurements: peers interleaved, row by row, and single measurements in child processes.

All peers of a row are warmed first (and the entry's result checked), then measured in rounds, so
that a disturbance affects all of them. Each round is in another order (the same in every run),
because a peer that starts a process leaves cold caches to the next one. A peer that has used up its
time budget for the row drops out of the remaining rounds.

The garbage collector runs before each sample, outside the timed region, and stays enabled within
it, as in a program that links. What exists after the warm-up is frozen: else each collection would
visit the objects of all modules of all peers, and evict from the caches what a program that links
has there, at the expense of the small rows of every peer in this process.

Memory, and rows that take minutes, are measured in a new process per measurement, after a link of
the smallest row there to exclude one-time costs.
"""

from __future__ import annotations

import ctypes
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.peers import Linked, Peer, PeerError, memory
from bench.registry import PEERS
from bench.workloads import Workload, workload

_SLOW_LIMIT_SECONDS = 300
_RESET_PEAK = "5"  # to /proc/self/clear_refs: the peak starts again from what is resident now


@dataclass
class Cell:
    """One peer on one row: samples in seconds, and a note about them."""

    samples: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def seconds(self) -> float | None:
        """The median; None without samples."""
        return statistics.median(self.samples) if self.samples else None


@dataclass(frozen=True)
class Memory:
    """In bytes: the peak of the process that linked, and its growth during the link.

    `growth` is None for linkers that are processes of their own.
    """

    peak: int
    growth: int | None


@dataclass(frozen=True)
class Settings:
    """Samples and seconds per cell, and whether to measure slow peers."""

    repeats: int
    budget: float
    slow: bool


def measure_row(row: Workload, peers: Mapping[str, Peer], settings: Settings) -> dict[str, Cell]:
    """The cells of one row, by peer."""
    cells = {name: Cell() for name in peers}
    links: dict[str, Callable[[], Linked]] = {}
    for name, peer in peers.items():
        try:
            prepared = _prepared(peer, row, settings)
        except Exception as error:  # noqa: BLE001  # the other peers continue
            cells[name].note = f"failed: {_one_line(error)}"
            continue
        if isinstance(prepared, Cell):
            cells[name] = prepared
        else:
            links[name] = prepared
    gc.collect()
    gc.freeze()
    _measure_rounds(row, links, cells, settings)
    gc.unfreeze()
    for name in links:
        if (number := len(cells[name].samples)) < settings.repeats:
            cells[name].note = f"{number} samples"
    return cells


def _measure_rounds(
    row: Workload,
    links: dict[str, Callable[[], Linked]],
    cells: dict[str, Cell],
    settings: Settings,
) -> None:
    """Add samples to the cells; peers that fail are removed from the links."""
    spent = dict.fromkeys(links, 0.0)
    order = random.Random(row.name)
    for _ in range(settings.repeats):
        round_ = [name for name in links if spent[name] < settings.budget]
        order.shuffle(round_)
        for name in round_:
            begin = time.perf_counter()
            try:
                cells[name].samples.append(_sample(links[name]))
            except Exception as error:  # noqa: BLE001  # the other peers continue
                cells[name] = Cell(note=f"failed: {_one_line(error)}")
                del links[name]
            spent[name] += time.perf_counter() - begin


def _prepared(peer: Peer, row: Workload, settings: Settings) -> Cell | Callable[[], Linked]:
    """A function that links the row, or the cell if that is not to be repeated here."""
    if row.use not in peer.uses:
        return Cell(note=row.use.value)
    if row.name in peer.slow:
        return _slow_cell(peer.name, row) if settings.slow else Cell(note="only with --slow")
    if row.fills_tls and peer.is_in_process:
        return partial(_in_new_process, peer.name, row.name)
    return warmed(peer, row)


def _in_new_process(peer: str, row: str) -> Linked:
    return Linked(None, seconds=_in_child("time", peer, row)["seconds"])


def warmed(peer: Peer, row: Workload) -> Callable[[], Linked]:
    """The row's link function, after one link whose result has been called and compared.

    Raises PeerError for a wrong result, and the peer's exceptions.
    """
    link = peer.prepare(row)
    linked = link()
    try:
        result = linked.result
        if result is None and linked.address is not None and row.expected is not None:
            result = ctypes.CFUNCTYPE(ctypes.c_int)(linked.address)()
        if result is not None and result != row.expected:
            raise PeerError(f"{row.entry}() returned {result}, not {row.expected}")
    finally:
        linked.release()
    return link


def _sample(link: Callable[[], Linked]) -> float:
    gc.collect()
    begin = time.perf_counter()
    linked = link()
    elapsed = time.perf_counter() - begin
    linked.release()
    return elapsed if linked.seconds is None else linked.seconds


def _slow_cell(peer: str, row: Workload) -> Cell:
    try:
        figures = _in_child("time", peer, row.name)
    except PeerError as error:
        return Cell(note=str(error))
    return Cell([figures["seconds"]], "1 sample, in a process of its own")


def peak_memory(peer: str, row: str) -> Memory | str:
    """The memory of one link in a new process, or the reason for a missing figure."""
    try:
        figures = _in_child("memory", peer, row)
    except PeerError as error:
        return str(error)
    growth = figures.get("growth")
    return Memory(int(figures["peak"]), None if growth is None else int(growth))


def _in_child(what: str, peer: str, row: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench", "--once", what, peer, row]
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False,
            timeout=_SLOW_LIMIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PeerError(f"more than {_SLOW_LIMIT_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise PeerError(f"failed: {lines[-1]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def once(what: str, name: str, row_name: str) -> dict[str, float]:
    """One link in this process, warmed on the smallest row: its "seconds", or "peak" and "growth".

    Raises PeerError if the peer is missing, and the peer's exceptions.
    """
    peer = PEERS[name]()
    if reason := peer.missing():
        raise PeerError(reason)
    peer.watch_memory = what == "memory"
    warmed(peer, workload("tiny"))
    link = peer.prepare(workload(row_name))
    if what == "time":
        gc.collect()
        gc.freeze()
        return {"seconds": _sample(link)}
    _trim_heap()
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before = memory("self", "VmRSS")
    linked = link()
    peak = memory("self", "VmHWM")
    linked.release()
    if linked.peak_bytes is not None:
        return {"peak": linked.peak_bytes}
    return {"peak": peak, "growth": peak - before}


def _trim_heap() -> None:
    # Else the link would reuse memory that its preparation has freed.
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _one_line(error: Exception) -> str:
    lines: Iterable[str] = str(error).strip().splitlines()
    text = next(iter(lines), "")
    text = text if isinstance(error, PeerError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 120 else f"{text[:117]}..."
