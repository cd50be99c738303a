"""Builds the C library of emulated machines from its sources in ``emulated/``.

For each machine and ABI a directory has the archive, and the object of which each JITDylib has its
own copy. They are committed like the other objects of the runtime.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "emulated"
PER_DYLIB_OBJECT = "dylib_exit"
ARCHIVE = "libc.a"
_FLAGS = (
    "-std=gnu11", "-O2", "-fPIC", "-g0", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
    "-fno-sanitize=all", "-fno-stack-protector", "-fno-ident", "-fasynchronous-unwind-tables",
    # Functions that are not used by a program are not linked into it.
    "-ffunction-sections", "-fdata-sections",
)  # fmt: skip
TARGETS: Mapping[str, Sequence[str]] = {
    "x86_64-none": ("x86_64-freestanding",),
    "aarch64-none": ("aarch64-freestanding",),
    "aarch64_be-none": ("aarch64_be-freestanding",),
    "riscv64-none": ("riscv64-freestanding", "-mcpu=baseline_rv64", "-mabi=lp64d"),
    "riscv32-none": ("riscv32-freestanding", "-mcpu=generic_rv32+m+a+f+d+c", "-mabi=ilp32d"),
    "riscv32-ilp32": ("riscv32-freestanding", "-mcpu=generic_rv32+m+a+c", "-mabi=ilp32"),
}
"""Targets and further options of the compiler, by directory."""


COMPILER_SUPPORT = "libcompiler_rt.a"
WITH_COMPILER_SUPPORT = ("aarch64_be-none", "riscv32-none", "riscv32-ilp32")
"""Where no compiler that is likely to be installed has a support library: that of the pinned one is
built, with division of 64 bits and arithmetic of floating-point numbers."""


def build(destination: Path) -> None:
    """Compile the sources for all machines, into a directory for each."""
    sources = sorted(SOURCES.glob("*.c"))
    for name, (target, *options) in TARGETS.items():
        directory = destination / name
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            mapped = f"-ffile-prefix-map={SOURCES}=."
            words = [*_tool("cc"), "-target", target, *options, mapped, *_FLAGS, "-c"]
            for source in sources:
                out = f"{source.stem}.o"
                subprocess.run([*words, str(source), "-o", out], cwd=scratch, check=True)
            objects = [f"{each.stem}.o" for each in sources if each.stem != PER_DYLIB_OBJECT]
            _archive(directory / ARCHIVE, objects, scratch)
            own = f"{PER_DYLIB_OBJECT}.o"
            (directory / own).write_bytes((Path(scratch) / own).read_bytes())
            if name in WITH_COMPILER_SUPPORT:
                _build_compiler_support(directory, target, options, scratch)


def _build_compiler_support(
    directory: Path, target: str, options: Sequence[str], scratch: str
) -> None:
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "lib" / "compiler_rt.zig"
    # The ABI is that of the processor's features here.
    features = [option for option in options if option.startswith("-mcpu=")]
    # With `ar`, because the compiler names members by their temporary paths.
    name = "compiler_rt.o"
    words = [*_tool("build-obj"), str(source), "-target", target, *features]
    words += ["-O", "ReleaseSmall", "-fPIC", "-ffunction-sections", "-fstrip"]
    words.append(f"-femit-bin={Path(scratch) / name}")
    subprocess.run(words, cwd=scratch, check=True)
    _archive(directory / COMPILER_SUPPORT, [name], scratch)


def _archive(path: Path, objects: Sequence[str], directory: str) -> None:
    """Write an archive of objects of a directory, without dates and owners."""
    path.unlink(missing_ok=True)
    subprocess.run([*_tool("ar"), "rcsD", str(path), *objects], cwd=directory, check=True)


def _tool(name: str) -> list[str]:
    return [sys.executable, "-m", "ziglang", name]


if __name__ == "__main__":
    build(HERE)
