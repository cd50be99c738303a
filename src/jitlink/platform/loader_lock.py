"""The lock of a dynamic linker: a thread opens and closes JITDylibs, whose code may do so, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jitlink.executor.callback_errors import Raised, callback_errors, calls_under_way


class LoaderLock:
    """A lock that initialisers and finalisers can take which run while it is held.

    The thread that holds it can take it again. Code of another process runs while that thread
    waits, and what it calls here runs on other threads: these can take the lock if they are called
    by the code that was run last.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        # The threads that have taken it, and the calls of code that they make: the last one can
        # take the lock once more.
        self._owners: list[int] = []
        self._running: list[Raised] = []

    def __enter__(self) -> None:
        thread, calls = threading.get_ident(), calls_under_way()
        with self._changed:
            self._changed.wait_for(lambda: self._admits(thread, calls))
            self._owners.append(thread)

    def __exit__(self, *_exception: object) -> None:
        thread = threading.get_ident()
        with self._changed:
            # Not always the last one: a call that is lost ends before what it has called.
            last = max(at for at, owner in enumerate(self._owners) if owner == thread)
            del self._owners[last]
            self._changed.notify_all()

    def _admits(self, thread: int, calls: Sequence[Raised]) -> bool:
        if not self._owners or self._owners[-1] == thread:
            return True
        return bool(self._running) and any(call is self._running[-1] for call in calls)

    @contextmanager
    def running_code(self) -> Iterator[None]:
        """Run code of the executor while the lock is held; raises as `callback_errors` does."""
        with callback_errors() as call:
            with self._changed:
                self._running.append(call)
                self._changed.notify_all()
            try:
                yield
            finally:
                with self._changed:
                    # By identity: calls without an exception are equal lists.
                    self._running = [each for each in self._running if each is not call]
