"""Runs a program that is linked by an LLJIT with a platform, as a process of its own.

Arguments: a JSON list of JITDylibs, each a name and a list of inputs (objects and archives), the
first one being the program; then the program's arguments.
"""

from __future__ import annotations

import json
import sys

from jitlink.lljit import LLJIT


def main(description: str, arguments: list[str]) -> int:
    """Link and run; returns the exit status."""
    dylibs = json.loads(description)
    with LLJIT(platform=True) as jit:
        assert jit.platform is not None
        program = jit.main
        for number, (name, inputs) in enumerate(dylibs):
            dylib = program if number == 0 else jit.create_jitdylib(name)
            for path in inputs:
                if path.endswith(".a"):
                    jit.add_archive(path, dylib=dylib)
                else:
                    jit.add_object(path, dylib=dylib)
            if number and not name.startswith("./"):
                program.add_to_link_order(dylib)
        address = jit.lookup("main")
        return jit.platform.run_main(program, address, [dylibs[0][0], *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
