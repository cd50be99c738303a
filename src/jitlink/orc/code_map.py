"""The record of what is linked into an executor, for backtraces."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from jitlink.executor.code_map import CodeMap, LinkedGraph
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import Plugin


class CodeMapPlugin(Plugin):
    """Records links, from their fixups until their code is removed.

    Args:
        code: where they are recorded: `ExecutorProcessControl.code_map`.
    """

    defines_symbols = False

    def __init__(self, code: CodeMap) -> None:
        self._code = code
        # Also of links that fail after they were emitted.
        self._of_link: WeakKeyDictionary[MaterializationResponsibility, LinkedGraph] = (
            WeakKeyDictionary()
        )
        self._emitted: dict[ResourceTracker, list[LinkedGraph]] = {}

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Keep what describes a graph, and record it before its code can run."""

        def keep(graph: LinkGraph) -> None:
            self._of_link[responsibility] = LinkedGraph(graph)

        def record(_graph: LinkGraph) -> None:
            self._code.add(self._of_link[responsibility])

        # Dead-stripping removes debug information.
        config.pre_prune.append(keep)
        config.post_fixup.append(record)

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Keep the record for as long as the code."""
        linked = self._of_link[responsibility]
        self._emitted.setdefault(responsibility.tracker, []).append(linked)

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Remove the record of a link."""
        failed = self._of_link.pop(responsibility, None)
        if failed is not None:
            self._code.remove(failed)
            emitted = self._emitted.get(responsibility.tracker, [])
            if failed in emitted:
                emitted.remove(failed)

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
        """Remove the records of code that is removed."""
        for linked in self._emitted.pop(key, ()):
            self._code.remove(linked)

    def notify_transferring_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Keep the records under another tracker."""
        moved = self._emitted.pop(source, None)
        if moved:
            self._emitted.setdefault(destination, []).extend(moved)
