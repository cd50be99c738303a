"""What is done with all that a resource tracker owns: it is removed, or transferred."""

from __future__ import annotations

import logging

from jitlink.orc.errors import ResourceTrackerDefunctError, raise_first
from jitlink.orc.interface import ResourceTracker, Session

log = logging.getLogger("jitlink.orc")


async def remove_tracker(session: Session, tracker: ResourceTracker) -> None:
    """Remove a tracker's symbols and release its resources; nothing if it is defunct."""
    dylib = tracker.dylib
    # The default tracker of a JITDylib that is being removed is defunct before it is empty.
    if tracker.is_defunct and tracker not in dylib.trackers:
        return
    owned = list(tracker.definitions)
    if owned:
        count = sum(len(definition.flags) for definition in owned)
        log.debug("removing a tracker of %s (symbols: %d)", dylib.name, count)
    tracker.make_defunct()
    dylib.trackers.pop(tracker, None)
    if tracker is dylib.default_tracker and dylib.is_open:
        dylib.replace_default_tracker()
    for definition in owned:
        dylib.erase(definition)
    dylib.hidden_names.remove(tracker)
    unfinished = [definition for definition in owned if definition.is_in_progress]
    if unfinished:
        error = ResourceTrackerDefunctError(dylib.name)
        responsibilities = {definition.responsibility: None for definition in unfinished}
        session.fail(unfinished, error)
        for responsibility in responsibilities:
            if responsibility is not None:
                responsibility.fail_queries(ResourceTrackerDefunctError(dylib.name))
    errors: list[Exception] = []
    for manager in reversed(session.resource_managers):
        try:
            await manager.handle_remove_resources(dylib, tracker)
        except Exception as failure:  # noqa: BLE001 - the others are still to be notified
            errors.append(failure)
    raise_first(errors)


def transfer_tracker(
    session: Session, destination: ResourceTracker, source: ResourceTracker
) -> None:
    """Transfer everything that one tracker owns to another."""
    dylib = source.dylib
    if destination.dylib is not dylib:
        raise ValueError("resources cannot be transferred to another JITDylib")
    if destination.is_defunct or source.is_defunct:
        raise ResourceTrackerDefunctError(dylib.name)
    if destination is source:
        return
    for definition in source.definitions:
        definition.tracker = destination
    destination.definitions |= source.definitions
    source.definitions = {}
    source.make_defunct(moved_to=destination)
    dylib.hidden_names.transfer(destination, source)
    if dylib.trackers.pop(source, source) is None:
        dylib.trackers.setdefault(destination)
    if source is dylib.default_tracker:
        dylib.replace_default_tracker()
    errors: list[Exception] = []
    for manager in reversed(session.resource_managers):
        try:
            manager.handle_transfer_resources(dylib, destination, source)
        except Exception as failure:  # noqa: BLE001 - the others are still to be notified
            errors.append(failure)
    raise_first(errors)
