"""Link times of objects for other processors: ``python -m bench.architectures``.

One C source, functions that call one another, is compiled for each processor and linked in this
process, without being run. Prints the time per relocation compared with x86-64, and the growth of
the time on RISC-V, whose code is relaxed, with the number of functions.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.link import JITLinkContext, link, run_in_process
from jitlink.memory import InProcessMemoryManager, JITLinkDylib

COMPILERS = {
    "x86-64": ["gcc"],
    "aarch64": ["aarch64-linux-gnu-gcc-12"],
    "riscv64": ["riscv64-linux-gnu-gcc-12"],
}
CACHE = Path(".cache/bench/architectures")
REPEATS = 9


def source(functions: int) -> str:
    """C functions that each call two others, and a table of their addresses."""
    lines = [f"int f{n}(int x);" for n in range(functions)]
    for n in range(functions):
        a, b = (7 * n + 1) % functions, (3 * n + 2) % functions
        lines.append(f"int f{n}(int x) {{ return x < {n} ? f{a}(x + 1) : f{b}(x - 1) + {n}; }}")
    names = ", ".join(f"f{n}" for n in range(functions))
    lines.append(f"int (*table[])(int) = {{ {names} }};")
    return "\n".join(lines)


def compiled(processor: str, functions: int) -> Path:
    """The object for a processor, compiled once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    code, target = CACHE / f"f{functions}.c", CACHE / f"{processor}-{functions}.o"
    if not target.exists():
        code.write_text(source(functions))
        subprocess.run([*COMPILERS[processor], "-O1", "-c", code, "-o", target], check=True)
    return target


class Alone(JITLinkContext):
    """Links graphs without externals."""

    dylib = JITLinkDylib("bench")

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Resolve all names to null."""
        return dict.fromkeys(names, 0)


def measure(path: Path) -> tuple[float, int]:
    """Median seconds of a link, and the number of relocations of the object."""
    samples = []
    relocations = 0
    for _ in range(REPEATS):
        start = time.perf_counter()
        builder = InputReader()
        builder.add([open_input(str(path))])
        relocations = builder.target_graph.edge_table.rows
        builder.resolver.finish()
        manager = InProcessMemoryManager()
        context = Alone()
        graph = builder.target_graph
        alloc = run_in_process(link(graph, context, builder.target.configure(graph), manager))
        samples.append(time.perf_counter() - start)
        run_in_process(manager.deallocate([alloc]))
    return statistics.median(samples), relocations


def compare(functions: int) -> None:
    """Print the time per relocation of each processor."""
    print(f"{functions} functions, microseconds per relocation:")
    base = None
    for processor in COMPILERS:
        seconds, relocations = measure(compiled(processor, functions))
        each = 1e6 * seconds / relocations
        base = base or each
        print(f"  {processor:8} {relocations:8} relocations {each:6.3f}  {each / base:4.2f}x")


def curve(sizes: Sequence[int]) -> None:
    """Print the growth of the time with relaxation."""
    print("riscv64 with relaxation:")
    for functions in sizes:
        seconds, _ = measure(compiled("riscv64", functions))
        each = 1e6 * seconds / functions
        print(f"  {functions:6} functions {1e3 * seconds:8.2f} ms  {each:6.2f} us each")


def main() -> int:
    """Print both tables."""
    compare(3000)
    curve([1000, 3000, 10000, 30000])
    return 0


if __name__ == "__main__":
    sys.exit(main())
