"""Directories and support libraries of the compilers that are installed on this machine.

Compilers emit calls of support functions, for arithmetic that the processor lacks. These are in
a static library in the compiler's own directory: ``libgcc.a`` for gcc, ``libclang_rt.builtins``
for clang, which has it in one of two directories, with and without the architecture in its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_GCC_ROOTS = ("/usr/lib/gcc", "/usr/lib/gcc-cross")
_GCC_VENDORS = ("linux-gnu", "pc-linux-gnu", "redhat-linux", "unknown-linux-gnu")
_CLANG_PARENTS = ("/usr/lib/clang", "/usr/lib64/clang", "/usr/local/lib/clang")


def gcc_directories(machine: str) -> list[str]:
    """The directory of the newest gcc for an architecture, for each spelling of its triple.

    Compilers that run on this machine come first, then cross compilers.
    """
    parents = (f"{root}/{machine}-{vendor}" for root in _GCC_ROOTS for vendor in _GCC_VENDORS)
    return [newest[0] for parent in parents if (newest := _by_version(parent))]


def support_archives(machine: str) -> list[str]:
    """Paths of the compilers' support libraries for an architecture, in order of preference."""
    candidates = [
        *(f"{directory}/libgcc.a" for directory in gcc_directories(machine)),
        *(
            f"{directory}/{place}"
            for directory in _clang_directories()
            for place in (
                f"lib/linux/libclang_rt.builtins-{machine}.a",
                f"lib/{machine}-unknown-linux-gnu/libclang_rt.builtins.a",
                f"lib/{machine}-pc-linux-gnu/libclang_rt.builtins.a",
            )
        ),
    ]
    return [path for path in candidates if os.path.isfile(path)]  # noqa: PTH113 - pathlib is slow to import


def _clang_directories() -> Iterator[str]:
    for root in _by_version("/usr/lib", "llvm-"):
        yield from _by_version(f"{root}/lib/clang")
    for parent in _CLANG_PARENTS:
        yield from _by_version(parent)


def _by_version(parent: str, prefix: str = "") -> list[str]:
    """The directories whose names begin with `prefix`, newest version first."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(prefix)]  # noqa: PTH208
    except OSError:
        return []
    numbers = {name: tuple(map(int, re.findall(r"\d+", name))) for name in names}
    return [f"{parent}/{name}" for name in sorted(names, key=lambda n: numbers[n], reverse=True)]
