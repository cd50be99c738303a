"""Builds the runtime's objects from its C sources; ``script/runtime`` runs it.

The objects are committed, so that linking needs no compiler. A test builds them anew and compares:
the compiler is pinned, and neither paths nor dates get into the objects.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jitlink.runtime.objects import ALLOCATION, DIRECTORIES, PER_DYLIB, REMOTE, SHARED

HERE = Path(__file__).parent
_FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-g0", "-Wall", "-Wextra", "-Werror",
    "-fno-sanitize=all", "-fno-stack-protector", "-fno-ident",
    # Exceptions and forced unwinding pass through the functions that call the program's code.
    "-fexceptions", "-fasynchronous-unwind-tables",
)  # fmt: skip
# The oldest C library whose functions are used by their present names.
_VERSIONS = {"x86_64-linux-gnu": "x86_64-linux-gnu.2.17"}


def build(destination: Path) -> None:
    """Compile all sources for all targets, into a directory for each target."""
    for target in dict.fromkeys(DIRECTORIES.values()):
        directory = destination / target
        directory.mkdir(parents=True, exist_ok=True)
        for name in (*SHARED, *REMOTE, *PER_DYLIB, *ALLOCATION):
            subprocess.run(_command(target, name, directory), cwd=HERE, check=True)


def _command(target: str, name: str, directory: Path) -> list[str]:
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", _VERSIONS[target]]
    mapped = f"-ffile-prefix-map={HERE}=."
    return [*compiler, *_FLAGS, mapped, "-c", f"{name}.c", "-o", str(directory / f"{name}.o")]


if __name__ == "__main__":
    build(HERE)
