"""The command ``jitlink-executor``: runs jitlink's own executor in place of this process."""

from __future__ import annotations

import os
import sys

from jitlink.executor.remote.process import own_executor


def main() -> int:
    """Run the executor with the words of this command; returns only if there is none."""
    path = own_executor()
    if path is not None:
        os.execv(path, ["jitlink-executor", *sys.argv[1:]])
    sys.stderr.write("jitlink-executor: there is no executor for this machine\n")
    return 1
