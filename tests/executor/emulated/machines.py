"""Machines, and code for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jitlink
from jitlink import Library
from jitlink.executor import Emulated
from tests.toolchain import compile_c

MACHINES = ("x86_64", "aarch64", "aarch64_be", "riscv64", "riscv32")
LITTLE = tuple(each for each in MACHINES if each != "aarch64_be")
SOURCES = Path(__file__).parent / "sources"
_FLAGS = ("-fno-stack-protector",)


def build(source: str | Path, machine: str, *flags: str) -> Path:
    """An object of the pinned compiler, which has headers of a C library for all machines."""
    target = f"{machine}-linux-musl"
    return compile_c(source, "zig", ("-O1", *_FLAGS, *flags), target=target)


@contextmanager
def loaded(
    source: str | Path,
    machine: str,
    definitions: Mapping[str, Any] | None = None,
    *flags: str,
    **options: Any,  # noqa: ANN401 - those of Emulated
) -> Iterator[tuple[Emulated, Library]]:
    """A machine with code in it."""
    path = build(source, machine, *flags)
    with (
        Emulated(machine, **options) as executor,
        jitlink.load(path, executor=executor, definitions=definitions) as library,
    ):
        yield executor, library
