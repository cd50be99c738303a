"""What another process costs: links, calls, large code, and the start of an executor.

Each table compares, in rounds that alternate, this process, jitlink's executor and LLVM's, all with
the same controller, and where it can, llvm-jitlink with its own executor. Medians count; ratios are
to the first column. A link of sqlite3 includes that its function is found, not that it runs.
"""

from __future__ import annotations

import ctypes
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jitlink
from bench.commands import WALL_TIME
from bench.peers import PeerError
from bench.workloads import CACHE, workload
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.memory_kinds import MemoryKind

_ROUNDS = 15
_CALLS = 2000
_LARGE = 100 << 20
_LLVM_EXECUTOR = "llvm-jitlink-executor-22"
_KINDS: tuple[MemoryKind, ...] = ("shared", "simple-remote", "generic")
_SOURCE = """
int callback(int);
int add(int a, int b) { return a + b; }
double mix(double a, struct { long x, y; } b, int c) { return a + b.x + b.y + c; }
long sum(const char *data, long size) { long s = 0; while (size--) s += data[size]; return s; }
int call_python(int x) { return callback(x); }
"""
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


def _measured(what: Mapping[str, Callable[[], float]], rounds: int = _ROUNDS) -> dict[str, float]:
    """Medians of samples that are taken in rounds, each in another order."""
    samples: dict[str, list[float]] = {name: [] for name in what}
    order, generator = list(what), random.Random(1)
    for name in order:
        what[name]()  # What happens once is excluded.
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            samples[name].append(what[name]())
    return {name: statistics.median(each) for name, each in samples.items()}


def _timed(action: Callable[[], object], count: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(count):
        action()
    return (time.perf_counter() - start) / count


def _print(title: str, medians: Mapping[str, float], unit: str, scale: float) -> None:
    print(f"\n{title}")
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"  {name:34} {seconds * scale:10.2f} {unit}  {seconds / first:7.2f}x")


def _compiled(name: str, text: str, compiler: Sequence[str]) -> Path:
    folder = CACHE / "executors"
    folder.mkdir(parents=True, exist_ok=True)
    source, made = folder / name, folder / f"{name}.o"
    source.write_text(text)
    subprocess.run([*compiler, "-c", source, "-o", made], check=True)
    return made


def _executors(stack: ExitStack) -> dict[str, RemoteExecutorProcessControl]:
    """An executor of jitlink and, if it is installed, one of LLVM."""
    launch = RemoteExecutorProcessControl.launch
    found = {"jitlink-executor": stack.enter_context(launch())}
    llvm = shutil.which(_LLVM_EXECUTOR)
    if llvm is None:
        print(f"{_LLVM_EXECUTOR} is missing (Debian package llvm-22)")
    else:
        found[_LLVM_EXECUTOR] = stack.enter_context(launch(llvm, memory="shared"))
    return found


def links() -> None:
    """Link the whole of sqlite3."""
    row = workload("sqlite3")

    def link(executor: RemoteExecutorProcessControl | None) -> float:
        start = time.perf_counter()
        library = jitlink.load(*row.paths, all_load=True, executor=executor)
        library.address(row.entry)
        seconds = time.perf_counter() - start
        library.close()
        return seconds

    with ExitStack() as stack:
        executors = _executors(stack)
        what: dict[str, Callable[[], float]] = {"in process": lambda: link(None)}
        for name, executor in executors.items():
            what[f"{name}, shared"] = partial(link, executor)
        what |= _llvm_jitlink([*map(str, row.paths), f"-entry={row.entry}"])
        _print("sqlite3, linked (ms)", _measured(what), "ms", 1e3)


def _llvm_jitlink(arguments: Sequence[str]) -> dict[str, Callable[[], float]]:
    program, executor = shutil.which("llvm-jitlink-22"), shutil.which(_LLVM_EXECUTOR)
    if program is None or executor is None:
        return {}

    def link(*options: str) -> float:
        command = [program, *options, "-show-times", "-all_load", *arguments]
        # The status is that of the function, which is run.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        times = WALL_TIME.findall(done.stderr)
        if not times:
            raise PeerError(f"llvm-jitlink printed no times: {done.stderr}")
        return float(times[-1])

    remote = f"-oop-executor={executor}", "-use-memmgr=shared"
    return {"llvm-jitlink -oop-executor": lambda: link(*remote)}


def calls() -> None:
    """Call small functions, and have one call Python."""
    made = _compiled("calls.c", _SOURCE, ("clang-22", "-O1", "-fPIC", "-w"))
    data = bytes(4096)
    definitions = {"callback": (lambda x: x, _Callback)}
    kinds: dict[str, dict[str, Callable[[], float]]] = {}
    with ExitStack() as stack:
        for name, executor in _executors(stack).items():
            loaded = jitlink.load(made, executor=executor, definitions=definitions)
            library = stack.enter_context(loaded)
            for kind, action in {
                "two ints": partial(library.add, 1, 2),
                "4096 bytes": partial(library.sum, data, len(data)),
                "a function that calls Python": partial(library.call_python, 1),
            }.items():
                kinds.setdefault(kind, {})[name] = partial(_timed, action, _CALLS)
        for kind, what in kinds.items():
            medians = _measured(what, 5)
            _print(f"one call: {kind} (µs)", medians, "µs", 1e6)
            rates = ", ".join(f"{name} {1 / s:,.0f}/s" for name, s in medians.items())
            print(f"  {rates}")


def large() -> None:
    """Link 100 MB of code through each memory manager."""
    text = f".text\n.globl bench_entry\nbench_entry: ret\n.fill {_LARGE}, 1, 0x90\n"
    made = _compiled("large.s", text, ("clang-22",))

    def link(executor: RemoteExecutorProcessControl | None) -> float:
        start = time.perf_counter()
        with jitlink.load(made, executor=executor) as library:
            library.address("bench_entry")
            return time.perf_counter() - start

    with ExitStack() as stack:
        what: dict[str, Callable[[], float]] = {"in process": lambda: link(None)}
        for kind in _KINDS:
            executor = stack.enter_context(RemoteExecutorProcessControl.launch(memory=kind))
            what[f"jitlink-executor, {kind}"] = partial(link, executor)
        _print("100 MB of code, linked (ms)", _measured(what, 5), "ms", 1e3)


def start() -> None:
    """Start an executor, until calls can be made."""

    def launch(*command: str) -> float:
        begin = time.perf_counter()
        with RemoteExecutorProcessControl.launch(*command):
            return time.perf_counter() - begin

    what: dict[str, Callable[[], float]] = {"jitlink-executor": launch}
    llvm = shutil.which(_LLVM_EXECUTOR)
    if llvm is not None:
        what[_LLVM_EXECUTOR] = lambda: launch(llvm)
    _print("start of an executor (ms)", _measured(what), "ms", 1e3)


def main() -> None:
    """Print the tables."""
    links()
    calls()
    large()
    start()


if __name__ == "__main__":
    main()
