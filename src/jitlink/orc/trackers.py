"""What is done with all that a resource tracker owns: it is removed, or transferred."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from jitlink.logs import Log
from jitlink.orc.errors import ResourceTrackerDefunctError, raise_first
from jitlink.orc.interface import ResourceManager, ResourceTracker, Session

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib

T = TypeVar("T")
log = Log("jitlink.orc")


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


class TrackedResources(ResourceManager, Generic[T]):
    """Resources of any class, told apart by identity: a resource manager, or what one consists of.

    For the driver thread.
    """

    def __init__(self) -> None:
        # In order of addition; by identity, since not all resources can be hashed.
        self._held: dict[ResourceTracker, dict[int, T]] = {}

    def __iter__(self) -> Iterator[T]:
        """All resources."""
        return (resource for held in self._held.values() for resource in held.values())

    @property
    def keys(self) -> list[ResourceTracker]:
        """The keys under which there are resources."""
        return list(self._held)

    def under(self, key: ResourceTracker) -> list[T]:
        """The resources under a key, in order of addition."""
        return list(self._held.get(key, {}).values())

    def add(self, key: ResourceTracker, resource: T) -> None:
        """Hold a resource under a key."""
        self._held.setdefault(key, {})[id(resource)] = resource

    def discard(self, key: ResourceTracker, resource: T) -> None:
        """Stop holding a resource, if it is held under a key."""
        held = self._held.get(key, {})
        if held.pop(id(resource), None) is not None and not held:
            del self._held[key]

    def take(self, key: ResourceTracker) -> list[T]:
        """Stop holding what is under a key; returns that."""
        return list(self._held.pop(key, {}).values())

    def transfer(self, destination: ResourceTracker, source: ResourceTracker) -> list[T]:
        """Hold what is under a key under another one; returns that."""
        moved = self._held.pop(source, {})
        if moved:
            self._held.setdefault(destination, {}).update(moved)
        return list(moved.values())

    def clear(self) -> None:
        """Stop holding anything."""
        self._held.clear()

    async def handle_remove_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        key: ResourceTracker,
    ) -> None:
        """Stop holding what is under a key."""
        self.take(key)

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Hold what is under a key under another one."""
        self.transfer(destination, source)
