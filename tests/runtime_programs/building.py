"""Compiles a program's objects, and links them as a native program: the oracle.

Objects and programs are cached in `.cache`, as those of `tests.toolchain` are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from tests.runtime_programs.programs import Case, Program
from tests.toolchain import (
    HOST_TARGET,
    IS_EMULATED,
    CompilerName,
    compile_c,
    cross_compiler,
    require,
    run,
    zig_command,
)

_CACHE = Path(__file__).parents[2] / ".cache" / "programs"
_GFORTRAN = "gfortran-12"
_RUST_INPUT = re.compile(r'"([^"]*\.(?:rlib|rcgu\.o))"')
# The process has loaded libm, with the versions of its functions for this processor.
_IN_PROCESS = frozenset({"m"})


@dataclass(frozen=True)
class Built:
    """A program that can be run both ways.

    Attributes:
        inputs: objects and archives, for linking in memory.
        native: the program that the compiler has linked from the same objects.
    """

    inputs: tuple[Path, ...]
    native: Path


def build(case: Case, target: str = HOST_TARGET) -> Built:
    """Compile and link a case; a missing tool skips the test.

    Args:
        case: the case.
        target: the target; for others than this machine, cases of C and C++ only.

    Raises:
        ToolError: a tool failed.
    """
    if case.compiler == "rustc":
        return _build_rust(case)
    if case.compiler == "gfortran":
        return _build_fortran(case)
    return _build_c(case, target)


def cached(name: str, parts: Sequence[str | bytes], make: Callable[[Path], None]) -> Path:
    """A directory that is named by the hash of its inputs, and filled if it does not exist."""
    digest = hashlib.sha256()
    for part in (str(_CACHE), *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    place = _CACHE / f"{name}-{digest.hexdigest()[:32]}"
    if not place.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=_CACHE))
        try:
            make(staging)
            try:
                staging.rename(place)
            except OSError:
                # Another process was faster.
                if not place.exists():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return place


def _archive(members: Sequence[Path]) -> Path:
    def make(place: Path) -> None:
        # All members have the source's name.
        copies = [shutil.copy(each, place / f"{n}.o") for n, each in enumerate(members)]
        run(["ar", "rcs", place / "lib.a", *copies])

    return cached("archive", [str(each) for each in members], make) / "lib.a"


def link_native(name: str, inputs: Sequence[Path], *words: str, target: str = HOST_TARGET) -> Path:
    """The program that the system's compiler links from objects and archives.

    Args:
        name: name of the source, whose suffix selects the language's libraries.
        inputs: objects and archives.
        words: options after the inputs.
        target: the target; for others than this machine, programs in C only.
    """
    is_host = target == HOST_TARGET
    driver = "g++" if name.endswith(".cpp") else "gcc"
    command = [
        str(require(driver if is_host else cross_compiler(target))),
        *map(str, inputs),
        *words,
        "-o",
    ]

    def make(place: Path) -> None:
        run([*command, place / "program"])

    return cached(Path(name).stem, command, make) / "program"


# C and C++


def _build_c(case: Case, target: str) -> Built:
    program = case.program
    flags = (case.level, "-fPIC" if case.is_pic else "-fno-pic", "-fexceptions", *case.flags)
    compiler = cast("CompilerName", case.compiler)
    objects = [
        compile_c(
            program.source,
            compiler,
            (*flags, *_standard(program), f"-DPART={part}"),
            target=target,
        )
        for part in range(1, program.parts + 1)
    ]
    inputs = [objects[0], _archive(objects[1:])] if program.in_archive else objects
    is_host = target == HOST_TARGET
    driver = _driver(program, case.compiler) if is_host else [str(require(cross_compiler(target)))]
    # Code for a fixed position cannot refer to data of a shared C++ library.
    is_static = program.is_cxx and not case.is_pic
    words = ["-pie" if case.is_pic else "-no-pie"]
    words += ["-static-libstdc++"] if is_static else []
    # The driver for C links C++, too.
    words += ["-lstdc++"] if program.is_cxx and not is_host else []
    words += [f"-l{each}" for each in program.links]
    command = [*driver, *map(str, inputs), *words, "-lpthread", "-o"]

    def make(place: Path) -> None:
        run([*command, place / "program"])

    native = cached(program.source.stem, command, make) / "program"
    place = "" if is_host else f"{target}/"
    needed = [each for each in program.links if each not in _IN_PROCESS]
    archives = [require(f"{place}lib{each}.a") for each in needed]
    if is_static:
        archives.append(require("libstdc++.a"))
    if program.needs_library and case.compiler == "zig":
        archives += _zig_library()
    return Built((*inputs, *archives), native)


def _standard(program: Program) -> list[str]:
    return ["-std=c++17"] if program.is_cxx else []


def _driver(program: Program, compiler: str) -> list[str]:
    if compiler == "zig" and (program.needs_library or not program.is_cxx):
        tool = "c++" if program.is_cxx else "cc"
        return zig_command(tool)
    if compiler == "clang":
        mode = ["--driver-mode=g++"] if program.is_cxx else []
        # Another machine's only in an emulator.
        target = [f"--target={HOST_TARGET}"] if IS_EMULATED else []
        return [str(require("clang-22")), *mode, *target]
    # The pinned compiler's objects use the process's C++ runtime, too.
    return [str(require("g++" if program.is_cxx else "gcc"))]


@cache
def _zig_library() -> tuple[Path, ...]:
    """The pinned compiler's C++ library, without the unwinder, which the process has."""
    compiled = compile_c('extern "C" int main() {}', "zig", ("-O0",), suffix=".cpp")
    command = [*zig_command("c++"), "-v", str(compiled)]
    folder = str(_CACHE.parent / "zig")
    places = {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [*command, "-o", str(Path(place) / "program")],
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            check=True,
        )
    # With -v it prints the command that links.
    return tuple(Path(each) for each in re.findall(r"\S+/libc\+\+(?:abi)?\.a", done.stderr))


# Fortran


def _build_fortran(case: Case) -> Built:
    compiler = require(_GFORTRAN)
    source = case.program.source
    position = ("-fPIC", "-pie") if case.is_pic else ("-fno-pic", "-no-pie")
    words = [str(compiler), case.level, *case.flags]

    def make(place: Path) -> None:
        shutil.copy(source, place)
        run([*words, position[0], "-c", source.name, "-o", "program.o"], cwd=place)
        run([*words, position[1], "-static-libgfortran", "program.o", "-o", "program"], cwd=place)

    parts: list[str | bytes] = [
        run([compiler, "--version"]),
        *words,
        *position,
        source.read_bytes(),
    ]
    place = cached(source.stem, parts, make)
    libraries = [require(f"lib{each}.a") for each in ("gfortran", "quadmath", "gcc")]
    return Built((place / "program.o", *libraries), place / "program")


# Rust


def _build_rust(case: Case) -> Built:
    compiler = require("rustc")
    source = case.program.source
    level = "-Copt-level=3" if case.level == "-O2" else "-Copt-level=0"
    model = "pic" if case.is_pic else "static"
    words = [str(compiler), "--edition=2021", level, f"-Crelocation-model={model}", *case.flags]

    def make(place: Path) -> None:
        shutil.copy(source, place)
        options = ["-Csave-temps", "-Cdebuginfo=0", "--print=link-args"]
        line = run([*words, *options, source.name, "-o", "program"], cwd=place)
        inputs = _RUST_INPUT.findall(line)
        for each in place.iterdir():
            if each.name not in {*inputs, "program"}:
                each.unlink() if each.is_file() else shutil.rmtree(each)
        for number, name in enumerate(name for name in inputs if name.endswith(".rlib")):
            (place / f"{number:02}.a").symlink_to(name)

    parts: list[str | bytes] = [run([compiler, "--version"]), *words, source.read_bytes()]
    place = cached(source.stem, parts, make)
    inputs = [*sorted(place.glob("*.o")), *sorted(place.glob("*.a"))]
    return Built(tuple(inputs), place / "program")
