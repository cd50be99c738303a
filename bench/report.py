"""The tables, in Markdown: medians, ratios, contents of the rows, memory, growth, and the targets.

`-` is a missing figure; a number in brackets refers to a note below the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.measure import Cell, Memory
from bench.workloads import Use, Workload

Cells = Mapping[str, Mapping[str, Cell]]
Memories = Mapping[str, Mapping[str, Memory | str]]

# Each pair differs by a factor of ten in sections and relocations, or in objects.
_GROWTH = (
    ("1k", "10k"),
    ("10k", "100k"),
    ("1k-fs", "10k-fs"),
    ("10k-fs", "100k-fs"),
    ("10-objects", "100-objects"),
    ("100-objects", "1000-objects"),
    ("1k-members", "10k-members"),
    ("100k-symbols", "1m-symbols"),
    ("10k-groups", "100k-groups"),
)
_TOPOLOGY = ("tree", "cycle")
_MAXIMUM_GROWTH = 12.0
_MAXIMUM_MEMORY = 3.0
_MAXIMUM_COMMAND_SECONDS = 0.018  # above an interpreter with NumPy


class _SpeedTarget(NamedTuple):
    """How many times as fast as a peer jitlink is to be on a row."""

    row: str
    peer: str
    ratio: float


_SPEED_TARGETS = (
    _SpeedTarget("tiny", "libllvm", 0.8),
    _SpeedTarget("sqlite3", "libllvm", 1),
    _SpeedTarget("sqlite3", "mold", 0.85),
    _SpeedTarget("isel", "libllvm", 2),
    _SpeedTarget("isel", "mold", 1),
    _SpeedTarget("1k", "libllvm", 1.3),
    _SpeedTarget("1k-fs", "libllvm", 3),
    _SpeedTarget("10k", "libllvm", 4),
    _SpeedTarget("10k-fs", "libllvm", 25),
    _SpeedTarget("100k", "libllvm", 11),
    _SpeedTarget("100k-fs", "mold", 1.8),
    _SpeedTarget("10-objects", "libllvm", 0.85),
    _SpeedTarget("1000-objects", "libllvm", 3),
    _SpeedTarget("tree", "libllvm", 1),
    _SpeedTarget("cycle", "libllvm", 1),
    _SpeedTarget("1k-members", "libllvm", 1),
    _SpeedTarget("10k-members", "libllvm", 1),
    _SpeedTarget("100k-symbols", "libllvm", 1),
    _SpeedTarget("1m-symbols", "libllvm", 1),
    _SpeedTarget("10k-groups", "libllvm", 1),
    _SpeedTarget("100k-groups", "libllvm", 1),
    _SpeedTarget("llvm", "ld", 1),
    _SpeedTarget("grpc", "ld", 1),
    _SpeedTarget("session-1000", "libllvm", 1),
    _SpeedTarget("jit-loop", "libllvm", 0.6),
    _SpeedTarget("reused-session-1", "libllvm", 0.6),
    _SpeedTarget("reused-session-1000", "libllvm", 1.5),
)


@dataclass
class _Notes:
    """Numbered texts; equal texts have one number."""

    numbers: dict[str, int] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        if not text:
            return ""
        number = self.numbers.setdefault(text, len(self.numbers) + 1)
        return f" [{number}]"

    def lines(self) -> list[str]:
        return [f"[{number}] {text}" for text, number in self.numbers.items()]


def medians(cells: Cells, titles: Mapping[str, str]) -> str:
    """The table of medians in milliseconds."""
    notes = _Notes()
    rows = []
    for row, by_peer in cells.items():
        figures = [
            ("-" if cell.seconds is None else _short(cell.seconds * 1e3)) + notes.mark(cell.note)
            for cell in (by_peer[peer] for peer in titles)
        ]
        rows.append([row, *figures])
    return _section("Medians, ms", ["row", *titles.values()], rows, notes.lines())


def ratios(cells: Cells, titles: Mapping[str, str], base: str) -> str:
    """The table of each peer's median over the base's: above 1, the base is faster."""
    others = [peer for peer in titles if peer != base]
    rows = [
        [row, *(_ratio(_seconds(cells, row, peer), _seconds(cells, row, base)) for peer in others)]
        for row in cells
    ]
    heads = ["row", *(titles[peer] for peer in others)]
    return _section(f"Ratios, peer / {titles[base]}", heads, rows)


def holdings(workloads: Iterable[Workload]) -> str:
    """The table of the contents of each row's files."""
    heads = ["row", "files", "objects", "sections", "relocations", "symbols", "KiB", "loaded KiB"]
    rows = []
    for workload in workloads:
        held = workload.counts
        numbers = (held.files, held.objects, held.sections, held.relocations, held.symbols)
        loaded = sum(held.loaded.values()) + held.zero_filled
        sizes = (_short(held.stored / 1024), _short(loaded / 1024))
        rows.append([workload.name, *(f"{number:,}" for number in numbers), *sizes])
    return _section("Contents of the rows", heads, rows)


def growth(cells: Cells, titles: Mapping[str, str]) -> str:
    """The table of time ratios between rows that differ by a factor of ten, or in topology only."""
    rows = [
        [
            f"{large} / {small}",
            *(
                _ratio(_seconds(cells, large, peer), _seconds(cells, small, peer))
                for peer in titles
            ),
        ]
        for small, large in (*_GROWTH, _TOPOLOGY)
        if small in cells and large in cells
    ]
    return _section("Growth, time ratios", ["rows", *titles.values()], rows) if rows else ""


def memories(
    measured: Memories, titles: Mapping[str, str], workloads: Mapping[str, Workload]
) -> str:
    """The table of peak memory; a linker's own process has no growth."""
    notes = _Notes()
    rows = []
    for row, by_peer in measured.items():
        figures = []
        for peer in titles:
            found = by_peer[peer]
            if isinstance(found, str):
                figures.append(f"-{notes.mark(found)}")
            elif found.growth is None:
                figures.append(_short(found.peak / 1e6))
            else:
                times = _short(found.growth / workloads[row].counts.stored)
                figures.append(
                    f"{_short(found.peak / 1e6)} (+{_short(found.growth / 1e6)}, {times}x)"
                )
        rows.append([row, *figures])
    title = "Peak memory, MB (growth during the link, as multiple of the input files)"
    return _section(title, ["row", *titles.values()], rows, notes.lines())


def targets(
    cells: Cells,
    measured: Memories,
    titles: Mapping[str, str],
    workloads: Mapping[str, Workload],
) -> str:
    """The targets for jitlink, and whether this run met them."""
    lines = [
        *_speed_targets(cells, titles),
        *_command_target(cells),
        *_growth_targets(cells),
        *_memory_targets(measured, workloads),
    ]
    return "\n".join(["## Targets", "", *lines, ""]) if lines else ""


def _speed_targets(cells: Cells, titles: Mapping[str, str]) -> Iterable[str]:
    for row, name, least in _SPEED_TARGETS:
        own, peer = _seconds(cells, row, "jitlink"), _seconds(cells, row, name)
        if own and peer:
            times = f"{_short(peer / own)} times as fast as {titles[name]}"
            yield _verdict(f"{row}: {times}, at least {least:g}", met=peer / own >= least)


def _command_target(cells: Cells) -> Iterable[str]:
    own, floor = _seconds(cells, "command", "jitlink"), _seconds(cells, "command", "floor")
    if own and floor:
        more = f"{_short((own - floor) * 1e3)} ms more than an interpreter with NumPy"
        text = f"command: {more}, at most {_MAXIMUM_COMMAND_SECONDS * 1e3:g}"
        yield _verdict(text, met=own - floor <= _MAXIMUM_COMMAND_SECONDS)


def _growth_targets(cells: Cells) -> Iterable[str]:
    for small, large in (*_GROWTH, _TOPOLOGY):
        least, most = _seconds(cells, small, "jitlink"), _seconds(cells, large, "jitlink")
        if least and most:
            limit = 1.0 if (small, large) == _TOPOLOGY else _MAXIMUM_GROWTH
            text = f"{large} / {small}: {_short(most / least)}, at most {limit:g}"
            yield _verdict(text, met=most / least <= limit)


def _memory_targets(measured: Memories, workloads: Mapping[str, Workload]) -> Iterable[str]:
    for row, by_peer in measured.items():
        found, peer = by_peer.get("jitlink"), by_peer.get("lld")
        if workloads[row].use is Use.PROGRAM:
            if isinstance(found, Memory) and isinstance(peer, Memory):
                text = (
                    f"{row}: {_short(found.peak / peer.peak)} times the memory of ld.lld, at most 1"
                )
                yield _verdict(text, met=found.peak <= peer.peak)
        elif isinstance(found, Memory) and found.growth is not None:
            # The input mapping is part of the growth and does not count.
            stored = workloads[row].counts.stored
            times = (found.growth - stored) / stored
            text = f"{row}: {_short(times)} times the file size beyond the input, less than"
            yield _verdict(f"{text} {_MAXIMUM_MEMORY:g}", met=times < _MAXIMUM_MEMORY)


def _verdict(text: str, met: bool) -> str:
    return f"- {'met' if met else 'MISSED'}: {text}"


def _seconds(cells: Cells, row: str, peer: str) -> float | None:
    cell = cells.get(row, {}).get(peer)
    return cell.seconds if cell else None


def _ratio(above: float | None, below: float | None) -> str:
    return _short(above / below) if above is not None and below else "-"


def _short(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _section(title: str, heads: list[str], rows: list[list[str]], notes: Sequence[str] = ()) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        " | ".join(
            text.ljust(width) if index == 0 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (heads, *rows)
    ]
    rule = "-|-".join("-" * width for width in widths)
    table = [f"| {lines[0]} |", f"|-{rule}-|", *(f"| {line} |" for line in lines[1:])]
    below = [*(f"{note}  " for note in notes), ""] if notes else []
    return "\n".join([f"## {title}", "", *table, "", *below])
