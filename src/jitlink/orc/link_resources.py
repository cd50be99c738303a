"""Plugins that have a resource for each link, as long as its code is in executor memory."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import Plugin
from jitlink.orc.trackers import TrackedResources

T = TypeVar("T")


class _Link(Generic[T]):
    """A link: its resource, and once it is complete the tracker that owns its code."""

    __slots__ = ("resource", "tracker")

    def __init__(self, resource: T) -> None:
        self.resource = resource
        self.tracker: ResourceTracker | None = None


class LinkResources(Plugin, Generic[T]):
    """A plugin with a resource for each link, or for some.

    `keep` gives a link its resource, from `modify_pass_config` on. When the link is complete, the
    resource is held under the tracker that owns the code. It is released before the code is
    removed, or because the link fails, which may also be after `notify_emitted`.
    """

    def __init__(self) -> None:
        self._links: WeakKeyDictionary[MaterializationResponsibility, _Link[T]]
        self._links = WeakKeyDictionary()
        self._resources: TrackedResources[T] = TrackedResources()

    def resources(self, dylib: JITDylib) -> TrackedResources[T]:  # noqa: ARG002 - for subclasses
        """The resources of complete links into a JITDylib, and perhaps of others."""
        return self._resources

    def keep(self, responsibility: MaterializationResponsibility, resource: T) -> None:
        """Give a link its resource."""
        self._links[responsibility] = _Link(resource)

    def kept(self, responsibility: MaterializationResponsibility) -> T | None:
        """The resource of a link, if it has one."""
        link = self._links.get(responsibility)
        return None if link is None else link.resource

    def release(self, resource: T) -> None:
        """Release a resource; twice if a link fails after its code was removed."""

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Hold the resource of a link under its tracker."""
        link = self._links.get(responsibility)
        if link is not None:
            link.tracker = responsibility.tracker
            self.resources(responsibility.dylib).add(link.tracker, link.resource)

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Release the resource of a link."""
        link = self._links.pop(responsibility, None)
        if link is None:
            return
        # It may have been transferred since it was held, or removed.
        tracker = None if link.tracker is None else link.tracker.current
        if tracker is not None:
            self.resources(responsibility.dylib).discard(tracker, link.resource)
        self.release(link.resource)

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release the resources of code that is removed."""
        for resource in self.resources(dylib).take(key):
            self.release(resource)

    def notify_transferring_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Hold the resources under another tracker."""
        self.resources(dylib).transfer(destination, source)
