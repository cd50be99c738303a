"""The end of a process that a command has had to itself.

What runs at the end of a Python process runs, and then what does at the end of any process. The
interpreter is not taken apart in between: that takes longer than linking a small program, and C's
exit handlers may still call Python.
"""

from __future__ import annotations

import atexit
import ctypes
import sys
from contextlib import suppress
from typing import NoReturn


def end_process(status: int) -> NoReturn:
    """End this process as C's `exit` does, after the functions that Python's `atexit` was given.

    Args:
        status: the exit status, 0 to 255.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - has no other name
    for stream in (sys.stdout, sys.stderr):
        # None where there is none; an error has been told when the command ended.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    # C's handlers may call Python, so the lock of the interpreter is kept.
    ctypes.PyDLL(None).exit(status)
    raise AssertionError("exit has returned")
