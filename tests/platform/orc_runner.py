"""Runs a program with LLVM's ORC runtime, as llvm-jitlink does, in a process of its own.

Arguments: path of the runtime; a JSON list of JITDylibs, each a name and a list of objects, the
first one being the program; then the program's arguments.
"""

from __future__ import annotations

import json
import sys

from jitlink.lljit import LLJIT
from jitlink.platform import ORCRuntimePlatform, orc_runtime


def main(runtime: str, description: str, arguments: list[str]) -> int:
    """Link and run; returns the exit status."""
    with LLJIT(platform=orc_runtime(runtime)) as jit:
        assert isinstance(jit.platform, ORCRuntimePlatform)
        for number, (name, paths) in enumerate(json.loads(description)):
            dylib = jit.create_jitdylib(name) if number else jit.main
            for path in paths:
                jit.add_object(path, dylib=dylib)
        return jit.platform.run_program(jit.main, "main", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
