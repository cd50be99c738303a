"""ObjectLinkingLayer: links objects and graphs into JITDylibs, watched by plugins.

For each link, in this order:

1. `Plugin.notify_loaded` of every plugin, in order of addition;
2. `Plugin.modify_pass_config` of every plugin; the graph's own passes are in the lists;
3. the passes, as `jitlink.link.link` describes them;
4. `Plugin.notify_emitted` of every plugin, when the code is in executor memory but nobody who
   waits for it has been told;
5. or, if anything fails on the way, `Plugin.notify_failed` of every plugin.

When resources are released or change owner, `notify_removing_resources` and
`notify_transferring_resources` are called in reverse order of addition. An exception in a
plugin fails the link that it is called for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jitlink.graph import LinkGraph
from jitlink.inputs import InputFile
from jitlink.link import JITLinkContext, PassConfiguration, link
from jitlink.memory.manager import FinalizedAlloc, JITLinkMemoryManager
from jitlink.orc.definition import Definition
from jitlink.orc.dependencies import dependence_groups
from jitlink.orc.dylib import JITDylib
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility, SymbolDependenceGroup
from jitlink.orc.objects import (
    Exported,
    GraphUnit,
    ObjectBatch,
    ObjectUnit,
    discard_overridden,
)
from jitlink.orc.session import ExecutionSession
from jitlink.orc.symbols import LookupKind, SymbolState
from jitlink.orc.tracker import ResourceManager, ResourceTracker
from jitlink.passes.prune import mark_exported_live
from jitlink.targets.registry import default_passes


class Plugin:
    """Base of what watches and changes links; every method may be left as it is."""

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add passes to a link, or take some away."""

    def notify_loaded(self, responsibility: MaterializationResponsibility) -> None:
        """A link begins."""

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """A link is complete and its code in executor memory."""

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """A link has failed; what was set up for it is to be undone."""

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """What was emitted under a key is about to be released."""

    def notify_transferring_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """What was emitted under one key is now under another."""


class ObjectLinkingLayer(ResourceManager):
    """Links into one session.

    Args:
        session: the session.
        memory: where the memory comes from, by default the executor's memory manager.

    Attributes:
        batch_objects: whether objects of one JITDylib and owner that are needed at the same
            time are linked as one graph.
        auto_claim: whether a link may define strong symbols that were not promised.
    """

    def __init__(
        self, session: ExecutionSession, memory: JITLinkMemoryManager | None = None
    ) -> None:
        self.session = session
        self.memory = memory or session.executor.memory_manager
        self.batch_objects = True
        self.auto_claim = False
        self._plugins: list[Plugin] = []
        self._allocs: dict[ResourceTracker, list[FinalizedAlloc]] = {}
        session.run(lambda: session.resource_managers.append(self))

    def add_plugin(self, plugin: Plugin) -> None:
        """Let a plugin watch all links that begin from now on."""
        self.session.run(lambda: self._plugins.append(plugin))

    def remove_plugin(self, plugin: Plugin) -> None:
        """Let a plugin watch no further links."""
        self.session.run(lambda: self._plugins.remove(plugin))

    def add_objects(
        self, dylib: JITDylib, files: Sequence[InputFile], tracker: ResourceTracker | None = None
    ) -> None:
        """Add objects; they are linked when one of their symbols is looked up.

        Raises:
            InputError: an object cannot be read; none has been added.
            DuplicateDefinitionError: a strong definition exists already.
        """
        if files:
            self.session.run(lambda: self.define_objects(dylib, files, tracker))

    def define_objects(
        self, dylib: JITDylib, files: Sequence[InputFile], tracker: ResourceTracker | None = None
    ) -> None:
        """`add_objects`, for callers on the session's thread."""
        batch = ObjectBatch(files)
        if len(files) == 1:
            dylib.add_unit(ObjectUnit(self, [(batch, 0)], batch.definitions[0]), tracker)
            return
        for number, symbols in enumerate(batch.definitions):
            if symbols:
                dylib.add_unit(ObjectUnit(self, [(batch, number)], symbols), tracker)

    def add_graph(
        self, dylib: JITDylib, graph: LinkGraph, tracker: ResourceTracker | None = None
    ) -> None:
        """Add a graph that was built by hand; the layer owns it from now on."""
        dylib.define(GraphUnit(self, graph), tracker)

    # On the session's thread

    async def emit(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: Exported,
    ) -> None:
        """Link a graph, which exports what is named, for a responsibility.

        Raises:
            JITLinkError: the link failed, and its plugins have been told.
        """
        plugins = tuple(self._plugins)
        context = _LayerContext(responsibility, graph, exported)
        try:
            for plugin in plugins:
                plugin.notify_loaded(responsibility)
            config = default_passes(graph)
            config.pre_prune.insert(0, context.claim)
            for plugin in plugins:
                plugin.modify_pass_config(responsibility, graph, config)
            alloc = await link(graph, context, config, self.memory)
            await self._emitted(responsibility, context, alloc, plugins)
        except BaseException:
            for plugin in plugins:
                plugin.notify_failed(responsibility)
            raise

    async def _emitted(
        self,
        responsibility: MaterializationResponsibility,
        context: _LayerContext,
        alloc: FinalizedAlloc,
        plugins: Sequence[Plugin],
    ) -> None:
        try:
            for plugin in plugins:
                plugin.notify_emitted(responsibility)
            tracker = responsibility.tracker
            responsibility.notify_emitted(context.groups())
        except BaseException:
            await self.memory.deallocate([alloc])
            raise
        self._allocs.setdefault(tracker, []).append(alloc)

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release the memory of everything that was emitted under a key."""
        for plugin in reversed(self._plugins):
            plugin.notify_removing_resources(dylib, key)
        allocs = self._allocs.pop(key, [])
        if allocs:
            await self.memory.deallocate(allocs)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Keep under one key what was emitted under another."""
        allocs = self._allocs.pop(source, [])
        if allocs:
            self._allocs.setdefault(destination, []).extend(allocs)
        for plugin in reversed(self._plugins):
            plugin.notify_transferring_resources(dylib, destination, source)


class _LayerContext(JITLinkContext):
    """Links one graph into the JITDylib of a responsibility."""

    def __init__(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: Exported,
    ) -> None:
        self.responsibility = responsibility
        self.dylib = responsibility.dylib
        self._graph = graph
        self._exported = exported
        self._found: dict[str, Definition] = {}

    def claim(self, graph: LinkGraph) -> None:
        """Make the graph define what the responsibility is for, and nothing else."""
        discard_overridden(graph, self.responsibility, self._exported)

    def mark_live(self, graph: LinkGraph) -> None:
        """Keep what the responsibility is for."""
        mark_exported_live(graph)

    def notify_resolved(self, graph: LinkGraph) -> None:
        """Announce the addresses of what the graph exports."""
        self.responsibility.notify_resolved(self._exported.addresses(graph))

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Search the JITDylib's link order."""
        dylib = self.responsibility.dylib
        self._found = await look_up(
            dylib.session, dylib.link_order, names, SymbolState.RESOLVED, LookupKind.STATIC
        )
        return {name: each.addresses.get(name, 0) for name, each in self._found.items()}

    def groups(self) -> list[SymbolDependenceGroup]:
        """What the symbols of the graph need that is not ready yet."""
        unready = {
            name: definition
            for name, definition in self._found.items()
            if definition.state < SymbolState.READY
        }
        if not unready:
            return []
        return dependence_groups(self._graph, self._exported, unready)
