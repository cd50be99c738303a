"""The command: `python -m bench [ROW ...]`, from the repository's root."""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import platform
import pstats
import sys
import sysconfig
import time
from importlib import metadata

from bench import report
from bench.measure import (
    Cell,
    Memory,
    Settings,
    measure_row,
    once,
    peak_memory,
    warmed,
)
from bench.peers import Peer, PeerError
from bench.registry import PEERS
from bench.workloads import ROWS, Workload, WorkloadError, workload

_MEMORY_ROWS = ("isel", "100k-fs", "1m-symbols", "100k-groups", "llvm", "grpc")
_PROFILE_LINES = 40


def main() -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args()
    try:
        if options.once:
            print(json.dumps(once(*options.once)))
        elif options.profile:
            _profile(options.profile)
        else:
            _measure(options)
    except (PeerError, WorkloadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; else all")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=9, help="samples per cell (%(default)s)")
    parser.add_argument(
        "--budget", type=float, default=10.0, metavar="SECONDS",
        help="a peer drops out of a row after this time (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--slow", action="store_true",
        help="also measure, once, peers on rows that take minutes",
    )  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--profile", metavar="ROW", help="profile jitlink on a row instead")
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    return parser


def _measure(options: argparse.Namespace) -> None:
    rows = _chosen("row", options.rows or ROWS, ROWS)
    names = _chosen("peer", options.peers.split(","), tuple(PEERS))
    settings = Settings(options.repeats, options.budget, options.slow)
    titles = {name: PEERS[name].title for name in names}
    peers, absent = _present(names)

    workloads: dict[str, Workload] = {}
    cells: dict[str, dict[str, Cell]] = {}
    for name in rows:
        _progress(name)
        try:
            row = workload(name)
        except WorkloadError as error:
            cells[name] = {peer: Cell(note=f"no input: {error}") for peer in names}
            continue
        workloads[name] = row
        found = measure_row(row, peers, settings)
        cells[name] = {peer: found.get(peer) or absent[peer] for peer in names}

    measured: dict[str, dict[str, Memory | str]] = {}
    for name in () if options.no_memory else _MEMORY_ROWS:
        if name in workloads:
            use = workloads[name].use
            measured[name] = {
                peer: use.value
                if use not in PEERS[peer].uses
                else _memory(peer, name, absent, settings)
                for peer in names
            }

    print(f"{_interpreter()}; {_policy(settings)}\n")
    base = "jitlink" if "jitlink" in peers else next(iter(peers), None)
    print(report.medians(cells, titles))
    if base is not None:
        print(report.ratios(cells, titles, base))
    print(report.growth(cells, titles))
    if measured:
        print(report.memories(measured, titles, workloads))
    print(report.holdings(workloads.values()))
    print(report.targets(cells, measured, titles, workloads))


def _chosen(what: str, wanted: list[str] | tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    for name in wanted:
        if name not in known:
            raise WorkloadError(f"no {what} {name!r}; there are {', '.join(known)}")
    return [name for name in known if name in wanted]


def _present(names: list[str]) -> tuple[dict[str, Peer], dict[str, Cell]]:
    """The available peers, and for the others the cell with the reason."""
    peers: dict[str, Peer] = {}
    absent: dict[str, Cell] = {}
    for name in names:
        peer = PEERS[name]()
        if reason := peer.missing():
            absent[name] = Cell(note=f"missing: {reason}")
        else:
            peers[name] = peer
    return peers, absent


def _memory(peer: str, row: str, absent: dict[str, Cell], settings: Settings) -> Memory | str:
    if peer in absent:
        return absent[peer].note
    if row in PEERS[peer].slow and not settings.slow:
        return "only with --slow"
    _progress(f"memory: {peer}, {row}")
    return peak_memory(peer, row)


def _interpreter() -> str:
    # Optimised by a profile (PGO), CPython runs small rows 6 to 8 % faster.
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    build = "with" if "--enable-optimizations" in arguments else "without"
    python = f"{platform.python_implementation()} {platform.python_version()} {build} PGO"
    return f"{platform.machine()}, {python}, NumPy {metadata.version('numpy')}"


def _policy(settings: Settings) -> str:
    return (
        f"medians of {settings.repeats} interleaved samples, {settings.budget:g} s at most per "
        "cell; garbage collector on, collected before each sample, frozen after warm-up"
    )


def _profile(row: str) -> None:
    _chosen("row", [row], ROWS)
    peer = PEERS["jitlink"]()
    if reason := peer.missing():
        raise PeerError(f"jitlink is missing: {reason}")
    link = warmed(peer, workload(row))
    gc.collect()
    gc.freeze()
    begin = time.perf_counter()
    linked = link()
    elapsed = time.perf_counter() - begin
    linked.release()
    print(f"{row}: {elapsed * 1e3:.2f} ms without the profiler\n")
    gc.collect()
    profile = cProfile.Profile()
    linked = profile.runcall(link)
    linked.release()
    statistics = pstats.Stats(profile)
    for order in ("tottime", "cumulative"):
        statistics.sort_stats(order).print_stats(_PROFILE_LINES)


def _progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
