"""What executors take of the system, for tests that nothing of it is left."""

import gc
import time
from collections.abc import Callable
from pathlib import Path


def shared_files(pid: int | str = "*") -> set[Path]:
    """The shared memory of an executor, or of all, that has a name.

    Tests that were killed may have left some, and the system uses the identifiers of their
    processes again: what is there before a test is not its own.
    """
    return set(Path("/dev/shm").glob(f"jitlink_{pid}_*"))


def open_descriptors() -> set[str]:
    """The numbers of this process's descriptors."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def is_free_soon(is_free: Callable[[], bool]) -> bool:
    """Wait until something is free: threads with nothing left to do may still be ending."""
    end = time.monotonic() + 60
    while not is_free():
        if time.monotonic() > end:
            return False
        gc.collect()
        time.sleep(0.05)
    return True
