"""What JITs do with sessions, for all peers that have them: add, look up, call and remove.

A peer implements `Session`; the rest is the same for all. Objects are in memory, as a compiler
leaves them. The end of a session, and in a session that stays the removal of the object, are not
timed.
"""

from __future__ import annotations

import ctypes
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bench.peers import Linked
from bench.workloads import Use, Workload

USES = frozenset({Use.SESSION, Use.LOOP, Use.REUSED, Use.LAZY})
ARCHIVE_SUFFIX = ".a"
_Function = ctypes.CFUNCTYPE(ctypes.c_int)


class Session(ABC):
    """A session of a peer, which links objects and removes them while it lives."""

    @abstractmethod
    def link(self, objects: Sequence[bytes], archives: Sequence[Path], entry: str) -> Linked:
        """Add objects one by one, and archives; look up a function.

        The objects have a resource tracker of their own, if the peer has trackers; `release`
        removes it. Raises the peer's exceptions.
        """

    def link_lazily(self, bodies: Mapping[str, bytes], root: bytes, entry: str) -> Linked:
        """Add objects, lazy functions whose bodies they have, and the root; look up the entry.

        Each object is given by the name of its only function, and linked when that is first called.
        Raises NotImplementedError without lazy functions, and the peer's exceptions.
        """
        raise NotImplementedError(Use.LAZY.value)

    @abstractmethod
    def close(self) -> None:
        """End the session."""


S = TypeVar("S", bound=Session)


def prepared(open_session: Callable[[], Session], workload: Workload) -> Callable[[], Linked]:
    """`Peer.prepare` for the uses that are sessions'."""
    paths, entry = workload.paths, workload.entry
    objects = {path.stem: path.read_bytes() for path in paths if path.suffix != ARCHIVE_SUFFIX}
    archives = [path for path in paths if path.suffix == ARCHIVE_SUFFIX]
    if workload.use is Use.REUSED:
        return _in_reused(open_session(), objects, archives, entry)

    def link(session: Session) -> Linked:
        match workload.use:
            case Use.LOOP:
                return Linked(None, result=_loop(session, objects))
            case Use.LAZY:
                return Linked(None, result=_lazy(session, objects, entry))
        return session.link([*objects.values()], archives, entry)

    return lambda: in_new_session(open_session, link)


def in_new_session(open_session: Callable[[], S], link: Callable[[S], Linked]) -> Linked:
    """Link in a session that ends when the result is released, or with an error."""
    session = open_session()
    try:
        linked = link(session)
    except BaseException:
        session.close()
        raise

    def release() -> None:
        linked.release()
        session.close()

    return Linked(linked.address, release, linked.result)


def _in_reused(
    session: Session, objects: Mapping[str, bytes], archives: Sequence[Path], entry: str
) -> Callable[[], Linked]:
    inputs = [*objects.values()]

    def link() -> Linked:
        return session.link(inputs, archives, entry)

    weakref.finalize(link, session.close)
    return link


def _loop(session: Session, objects: Mapping[str, bytes]) -> int:
    """The sum of the results of functions that are each added, called and removed."""
    total = 0
    for name, data in objects.items():
        linked = session.link([data], (), name)
        total += _Function(linked.address or 0)()
        linked.release()
    return total


def _lazy(session: Session, objects: Mapping[str, bytes], entry: str) -> int:
    """The result of the entry, which calls all the lazy functions."""
    (_, root), *bodies = objects.items()
    linked = session.link_lazily(dict(bodies), root, entry)
    result: int = _Function(linked.address or 0)()
    linked.release()
    return result
