"""Tracebacks of errors: what they keep alive, and which frames of them a user is shown.

A call of the public interface passes through the loop, tasks and futures, perhaps on another
thread, before an error leaves it. Those frames say nothing to a user. What is kept are the frames
of code outside of this package, such as those of a plugin or a generator; and all frames of an
unexpected exception that no such code has raised, because it is a fault of this package.

With the log ``jitlink.orc`` at the level DEBUG, tracebacks stay complete.
"""

from __future__ import annotations

import sys
from types import TracebackType

from jitlink.errors import JITLinkError
from jitlink.logs import Log

log = Log("jitlink.orc")

_INTERNAL = frozenset({"jitlink", "numpy", *sys.stdlib_module_names})
"""Packages whose frames are not those of a user."""


def shorten(error: BaseException) -> BaseException:
    """Remove the internal frames from the tracebacks of an error and of its causes.

    Returns:
        The error.
    """
    if log.is_on:
        return error
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.__traceback__ = _outside(each)
        each = each.__cause__
    return error


def _outside(error: BaseException) -> TracebackType | None:
    """The traceback of an error without internal frames."""
    frames = []
    entry = error.__traceback__
    while entry is not None:
        frames.append(entry)
        entry = entry.tb_next
    outside = [number for number, each in enumerate(frames) if not _is_internal(each)]
    if isinstance(error, JITLinkError):
        kept = [frames[number] for number in outside]
    else:
        # What the user's code has called is a part of its story.
        kept = frames[outside[0] :] if outside else frames
    following = None
    for each in reversed(kept):
        following = TracebackType(following, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return following


def _is_internal(entry: TracebackType) -> bool:
    module: str = entry.tb_frame.f_globals.get("__name__") or ""
    return module.partition(".")[0] in _INTERNAL


def clear_frames(error: BaseException) -> None:
    """Clear the local variables of the frames that an error has left; for where it is caught.

    The error may be kept for long, and must not keep alive what those refer to.
    """
    import traceback  # noqa: PLC0415 - only for errors

    first = error.__traceback__
    if first is not None:
        # The first frame is that of the caller, which still runs and cannot be cleared.
        error.__traceback__ = first.tb_next
        traceback.clear_frames(first.tb_next)
        shorten(error)
