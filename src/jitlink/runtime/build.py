"""Builds the runtime's objects from its C sources; ``script/runtime`` runs it.

The objects are committed, so that linking needs no compiler. A test builds them anew and compares:
the compiler is pinned, and neither paths nor dates get into the objects.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jitlink.executor.runtime_targets import RUNTIME_TARGETS, RuntimeTarget
from jitlink.runtime import emulated_library
from jitlink.runtime.objects import (
    ALLOCATION,
    EXECUTOR,
    OPTIONAL,
    PER_DYLIB,
    REMOTE,
    SHARED,
)

HERE = Path(__file__).parent
_FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-g0", "-Wall", "-Wextra", "-Werror",
    "-fno-sanitize=all", "-fno-stack-protector", "-fno-ident",
    # Exceptions and forced unwinding pass through the functions that call the program's code.
    "-fexceptions", "-fasynchronous-unwind-tables",
)  # fmt: skip


def build(destination: Path) -> None:
    """Compile all sources for all targets, into a directory for each target."""
    for target in RUNTIME_TARGETS.values():
        directory = destination / target.name
        directory.mkdir(parents=True, exist_ok=True)
        _build_executor(target, directory)
        for name in (*SHARED, *REMOTE, *OPTIONAL, *PER_DYLIB, *ALLOCATION):
            subprocess.run(_command(target, name, directory), cwd=HERE, check=True)
    emulated_library.build(destination)


EXECUTOR_SOURCES = (
    "protocol", "actions", "reservations", "memory", "shared_memory", "dylibs", "addresses",
    "access", "run", "registration", "crash", "sandbox", "system_calls", "sockets", "main",
)  # fmt: skip


def _build_executor(target: RuntimeTarget, directory: Path) -> None:
    """Link the executor.

    It exports what debuggers look for. Its other names are hidden: they would take the place of
    those of libraries, and linked code would find them.
    """
    triple = target.name.replace("-linux", "-unknown-linux")
    sources = [f"executor/{name}.c" for name in EXECUTOR_SOURCES]
    words = [*_compiler(target), *_FLAGS, f'-DJITLINK_TRIPLE="{triple}"', *sources]
    words += ["-fvisibility=hidden", "-rdynamic", "-s", "-ldl", "-lpthread"]
    words += ["-o", str(directory / EXECUTOR)]
    subprocess.run(words, cwd=HERE, check=True)


def _compiler(target: RuntimeTarget) -> list[str]:
    versioned = f"{target.name}.{target.oldest_library}"
    mapped = f"-ffile-prefix-map={HERE}=."
    return [sys.executable, "-m", "ziglang", "cc", "-target", versioned, mapped]


def _command(target: RuntimeTarget, name: str, directory: Path) -> list[str]:
    return [*_compiler(target), *_FLAGS, "-c", f"{name}.c", "-o", str(directory / f"{name}.o")]


if __name__ == "__main__":
    build(HERE)
