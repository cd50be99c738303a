"""Whether the calling thread collects garbage.

A collection may come anywhere, also where the thread holds a lock. What is called by one must
not wait for a lock that something else may hold: what it has to do is for another thread.
"""

from __future__ import annotations

import gc
import threading


class _Collections:
    """Takes note of the interpreter's collections, of which there is one at a time."""

    thread: int | None = None

    def __call__(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002 - the interface
        """Called by the interpreter when a collection starts and when it stops."""
        self.thread = threading.get_ident() if phase == "start" else None


_collections = _Collections()
gc.callbacks.append(_collections)


def is_collecting() -> bool:
    """Whether the calling thread is in the middle of collecting garbage."""
    return _collections.thread == threading.get_ident()
