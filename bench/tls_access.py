"""The cost of an access to a thread-local variable: in linked code, and in a shared library.

Prints nanoseconds for each access model, of the same object linked natively and in memory, and
their ratio; the samples alternate, and the minimum of each counts.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import jitlink

_MODELS = {
    "general dynamic": ("-fPIC",),
    "local dynamic": ("-fPIC", "-ftls-model=local-dynamic"),
    "initial exec": ("-fPIC", "-ftls-model=initial-exec"),
    "descriptors": ("-fPIC", "-mtls-dialect=gnu2"),
}
_ACCESSES, _SAMPLES = 10_000_000, 5
_SOURCE = """
static __thread long other = 1;
__thread long variable = 1;
__attribute__((noinline, noipa)) long *place(void) { return &variable; }
__attribute__((noinline, noipa)) long *other_place(void) { return &other; }
long run(long count) {
    long sum = *other_place();
    for (long i = 0; i < count; ++i)
        sum += *place();
    return sum;
}
"""
_Run = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)


def _compiled(flags: tuple[str, ...], place: Path) -> tuple[Path, Path]:
    """The object, and the shared library that the system's linker links from it."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise SystemExit("bench: gcc is missing")
    source, made, library = place / "access.c", place / "access.o", place / "access.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O2", *flags, "-c", source, "-o", made], check=True)
    subprocess.run([compiler, "-shared", made, "-o", library], check=True)
    return made, library


def _sample(address: int) -> float:
    start = time.perf_counter()
    _Run(address)(_ACCESSES)
    return (time.perf_counter() - start) / _ACCESSES * 1e9


def main() -> None:
    """Print the table."""
    print(f"{'model':16} {'native':>8} {'linked':>8} {'ratio':>6}  ns/access")
    for model, flags in _MODELS.items():
        with tempfile.TemporaryDirectory() as place:
            made, library = _compiled(flags, Path(place))
            native = ctypes.CDLL(str(library))
            with jitlink.load(made) as linked:
                there = ctypes.cast(native.run, ctypes.c_void_p).value or 0
                pairs = [(_sample(there), _sample(linked.address("run"))) for _ in range(_SAMPLES)]
        one, other = (min(column) for column in zip(*pairs, strict=True))
        print(f"{model:16} {one:8.2f} {other:8.2f} {other / one:6.2f}")


if __name__ == "__main__":
    main()
