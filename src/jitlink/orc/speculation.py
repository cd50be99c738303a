"""Speculation: bodies of lazy functions are linked in the background before they are called.

A function is worth it as soon as its stub is there, because something that was linked refers to
it. What a former run has called goes first, in that order; the rest follows as it comes. One body
is looked up at a time, with a pause before each, so that a thread that waits for something else is
held up by one link at most.

A body that cannot be linked is left: its call fails as it would have failed.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Iterable, Sequence
from contextvars import Context

from jitlink.orc.session import ExecutionSession
from jitlink.orc.stubs import Body
from jitlink.tasks import Task

log = logging.getLogger(__name__)

_PAUSE = 0.001
"""Seconds before each link."""


class Speculator:
    """Links bodies in the background; a listener of an `IndirectStubsManager`.

    Args:
        session: where the bodies are.
        suggestions: names of JITDylibs and of bodies in them, in the order in which they are
            likely to be called.
    """

    def __init__(
        self, session: ExecutionSession, suggestions: Iterable[tuple[str, str]] = ()
    ) -> None:
        self._session = session
        self._ranks: dict[tuple[str, str], int] = {}
        for rank, suggestion in enumerate(suggestions):
            self._ranks.setdefault(suggestion, rank)
        self._waiting: set[Body] = set()
        self._queue: list[tuple[int, int, Body]] = []
        self._numbers = itertools.count()
        self._task: Task[None] | None = None
        self._is_scheduled = False

    def stubs_made(self, bodies: Sequence[Body]) -> None:
        """Take note of bodies that may be called."""
        for body in bodies:
            if body not in self._waiting:
                self._waiting.add(body)
                rank = self._ranks.get((body.dylib.name, body.name), len(self._ranks))
                heapq.heappush(self._queue, (rank, next(self._numbers), body))
        self._schedule()

    def stub_called(self, body: Body) -> None:
        """Leave a body to the call."""
        self._waiting.discard(body)

    def stop(self) -> None:
        """Link nothing more; from any thread."""
        self._session.run(self._forget)

    def _forget(self) -> None:
        self._waiting.clear()
        self._queue.clear()

    # On the session's thread

    def _schedule(self) -> None:
        if self._queue and not self._is_scheduled:
            self._is_scheduled = True
            self._session.call_later(_PAUSE, self._begin)

    def _begin(self) -> None:
        self._task = self._session.begin(self._link_next(), Context())

    async def _link_next(self) -> None:
        try:
            body = self._next()
            if body is not None:
                await self._session.lookup_async(body.dylib, body.name)
        except Exception as error:  # noqa: BLE001 - the call will tell
            log.debug("not linked before its call: %s", error)
        finally:
            self._is_scheduled = False
            if not self._session.is_ending:
                self._schedule()

    def _next(self) -> Body | None:
        while self._queue:
            _, _, body = heapq.heappop(self._queue)
            if body in self._waiting:
                self._waiting.discard(body)
                return body
        return None
