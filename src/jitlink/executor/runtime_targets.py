"""The targets for which the runtime and jitlink's executor are built: a row each.

Specification: names and places of Debian, which has a C library for other architectures in
``/usr/TARGET``, and of qemu's user-mode emulators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class RuntimeTarget(NamedTuple):
    """One target.

    Attributes:
        name: the target as compilers have it, and the directory with what is built for it.
        oldest_library: the oldest version of the C library that has all functions that are used, by
            their present names.
        interpreter: the path of the dynamic linker, as executables of the target have it.
        emulator: qemu's program that runs its executables on other machines.
        package: the Debian package with a C++ library for other machines to run them with, which
            needs those of the C library and the unwinder.
    """

    name: str
    oldest_library: str
    interpreter: str
    emulator: str
    package: str

    @property
    def architecture(self) -> str:
        """The processor architecture, as Linux has it."""
        return self.name.partition("-")[0]


RUNTIME_TARGETS: Mapping[tuple[str, str], RuntimeTarget] = {
    ("x86_64", "linux"): RuntimeTarget(
        "x86_64-linux-gnu", "2.17", "/lib64/ld-linux-x86-64.so.2",
        "qemu-x86_64", "libstdc++6-amd64-cross",
    ),
    ("aarch64", "linux"): RuntimeTarget(
        "aarch64-linux-gnu", "2.17", "/lib/ld-linux-aarch64.so.1",
        "qemu-aarch64", "libstdc++6-arm64-cross",
    ),
    ("riscv64", "linux"): RuntimeTarget(
        "riscv64-linux-gnu", "2.27", "/lib/ld-linux-riscv64-lp64d.so.1",
        "qemu-riscv64", "libstdc++6-riscv64-cross",
    ),
}  # fmt: skip
"""The targets, by architecture and system."""


_ALIASES = {"amd64": "x86_64", "arm64": "aarch64", "riscv64gc": "riscv64"}
"""Names of architectures in triples of other tools, such as Rust's."""


def runtime_target(triple: str) -> RuntimeTarget | None:
    """The row of a target triple, such as ``x86_64-unknown-linux-gnu``; None if there is none."""
    architecture, *rest = triple.split("-")
    system = next((part for part in rest if part.startswith("linux")), "")
    return RUNTIME_TARGETS.get((_ALIASES.get(architecture, architecture), system))
