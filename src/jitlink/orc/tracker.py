"""Resource trackers: what can be removed from a JITDylib as one.

Whatever is defined under a tracker is removed or moved with it: its symbols, and what
`ResourceManager`s (object layers, plugins) hold under its key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition
    from jitlink.orc.dylib import JITDylib


class ResourceManager(ABC):
    """Whoever holds resources under the keys of trackers. Called on the session's thread."""

    @abstractmethod
    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release everything that is held under a key."""

    @abstractmethod
    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Hold under `destination` what was held under `source`."""

    def handle_remove_jitdylib(self, dylib: JITDylib) -> None:  # noqa: B027 - optional
        """A JITDylib was removed, after all its trackers."""


class ResourceTracker:
    """An owner of definitions in one JITDylib.

    Attributes:
        dylib: the JITDylib.
        definitions: what it owns, in order of definition; for the session's thread.
    """

    def __init__(self, dylib: JITDylib) -> None:
        self.dylib = dylib
        self.definitions: dict[Definition, None] = {}
        self._moved_to: ResourceTracker | None = None
        self._defunct = False

    def __repr__(self) -> str:
        return f"<ResourceTracker of {self.dylib.name}{' (defunct)' if self._defunct else ''}>"

    @property
    def current(self) -> ResourceTracker | None:
        """The tracker that now owns what this one did; None if it was removed."""
        last = self
        while last._moved_to is not None:
            last = last._moved_to
        if last is not self:
            # Shortened, so that a long row of transfers is gone through once.
            self._moved_to = last
        return None if last.is_defunct else last

    @property
    def is_defunct(self) -> bool:
        """Whether it was removed, or what it owned was moved to another."""
        return self._defunct

    def retire(self, moved_to: ResourceTracker | None = None) -> None:
        """Make it defunct; for the session."""
        self._defunct = True
        self._moved_to = moved_to

    def remove(self) -> None:
        """Remove all definitions and release all resources.

        Lookups that wait for one of them fail; links that are making them are stopped.

        Raises:
            JITLinkError: resources could not be released; the definitions are gone all the same.
        """
        self.dylib.session.wait(self.remove_async())

    async def remove_async(self) -> None:
        """The asynchronous form of `remove`."""
        await self.dylib.session.remove_tracker(self)

    def transfer_to(self, destination: ResourceTracker) -> None:
        """Give everything to another tracker of the same JITDylib; this one is then defunct.

        Raises:
            ValueError: the other one is of another JITDylib.
            ResourceTrackerDefunctError: either was removed.
        """
        session = self.dylib.session
        session.run(lambda: session.transfer_tracker(destination, self))
