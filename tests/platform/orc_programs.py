"""Programs that run with LLVM's ORC runtime, under llvm-jitlink and under jitlink."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.platform.programs import Build, Outcome, _run, objects
from tests.toolchain import require

GCC = Build("gcc", ("-O2", "-fPIC"))
CLANG = Build("clang", ("-O2", "-fPIC"))
RUNTIME = "liborc_rt-x86_64.a"

Dylibs = Sequence[tuple[str, Sequence[Path]]]
"""Names and objects of JITDylibs; the first one is the program, whose name is main."""


def runtime() -> Path:
    """LLVM's ORC runtime."""
    return require(RUNTIME)


def parts(name: str, build: Build, count: int) -> list[Path]:
    """The objects of a program that is for this runtime only."""
    return objects(f"../orc_runtime/{name}", build, count)


def under_llvm(dylibs: Dylibs, arguments: Sequence[str] = ()) -> Outcome:
    """The outcome of a program that llvm-jitlink links."""
    command = [str(require("llvm-jitlink-22")), f"-orc-runtime={runtime()}"]
    for name, paths in dylibs:
        command += [] if name == "main" else ["-jd", name]
        command += map(str, paths)
    return _run([*command, *(["-args", *arguments] if arguments else [])])


def under_jitlink(dylibs: Dylibs, arguments: Sequence[str] = ()) -> Outcome:
    """The outcome of the same program, linked by jitlink."""
    runner = Path(__file__).with_name("orc_runner.py")
    description = json.dumps([(name, list(map(str, paths))) for name, paths in dylibs])
    words = [str(runtime()), description, *arguments]
    return _run([sys.executable, "-W", "error", str(runner), *words])
