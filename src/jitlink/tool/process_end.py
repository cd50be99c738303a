"""The end of a process that the command owns.

Python's exit handlers run, then C's. The interpreter is not finalised in between: that takes longer
than linking a small program, and C's exit handlers may call Python.
"""

from __future__ import annotations

import atexit
import ctypes
import sys
from contextlib import suppress
from typing import NoReturn


def end_process(status: int) -> NoReturn:
    """End this process by C's `exit`, after the functions that are registered with `atexit`.

    Args:
        status: the exit status, 0 to 255.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public function
    for stream in (sys.stdout, sys.stderr):
        # A stream may be None; errors were reported when the command ended.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    # PyDLL keeps the GIL: C's handlers may call Python.
    ctypes.PyDLL(None).exit(status)
    raise AssertionError("exit has returned")
