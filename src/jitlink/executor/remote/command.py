"""The command ``jitlink-executor``: runs jitlink's own executor in place of this process.

With a certificate it stays in between: see `jitlink.executor.remote.tls_server`.
"""

from __future__ import annotations

import os
import sys

from jitlink.executor.remote.process import own_executor


def main() -> int:
    """Run the executor with the words of this command; returns only if it has not become it."""
    path, words = own_executor(), sys.argv[1:]
    if path is not None and any(word.startswith("--tls-") for word in words):
        # Imported on use: it takes longer than an executor needs to start.
        from jitlink.executor.remote.tls_server import run  # noqa: PLC0415

        return run(path, words)
    if path is not None:
        os.execv(path, ["jitlink-executor", *words])
    sys.stderr.write("jitlink-executor: there is no executor for this machine\n")
    return 1
