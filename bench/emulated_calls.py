"""Times calls of emulated code, beside what Unicorn itself takes for the same code.

``python -m bench.emulated_calls`` prints microseconds a call, the smallest of several rounds.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jitlink
from jitlink.executor import Emulated

_SOURCE = """
int add(int a, int b) { return a + b; }
int sum(const int *p, int n) { int s = 0; while (n--) s += *p++; return s; }
int python(int); int call(int x) { return python(x); }
"""
_ROUNDS, _CALLS = 7, 3000


def _time(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(_CALLS):
            function()
        best = min(best, time.perf_counter() - start)
    return best / _CALLS * 1e6


def main() -> None:
    """Print a line for each machine."""
    print("microseconds      Unicorn   numbers   buffer    from C to Python and back")
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "calls.c")
        source.write_text(_SOURCE)
        for name in ("x86_64", "aarch64", "riscv64", "riscv32"):
            path = source.with_suffix(f".{name}.o")
            target = f"{name}-linux-musl"
            words = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O1", "-c"]
            subprocess.run([*words, str(source), "-o", str(path)], check=True)
            print(f"{name:16}" + "".join(f"{each:10.1f}" for each in _measure(name, path)))


def _measure(name: str, path: Path) -> list[float]:
    """Times of Unicorn alone, and of calls with numbers, with a buffer, and back to Python."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    definitions = {"python": (lambda x: x, prototype)}
    with (
        Emulated(name) as machine,
        jitlink.load(path, executor=machine, definitions=definitions) as lib,
    ):
        lib.add.argtypes = [ctypes.c_int, ctypes.c_int]
        add, total, call = lib.add, lib.sum, lib.call
        buffer = jitlink.In((ctypes.c_int32 * 4)(1, 2, 3, 4))
        add(1, 2)
        processor = machine.processor
        engine, end = processor._uc, processor.return_address  # noqa: SLF001 - compared with
        # Where calls push the return address, there is none; elsewhere the register has it still.
        start = lib["add"] if processor.machine.link else end
        return [
            _time(lambda: engine.emu_start(start, end)),
            _time(lambda: add(3, 4)),
            _time(lambda: total(buffer, 4)),
            _time(lambda: call(3)),
        ]


if __name__ == "__main__":
    main()
