"""ObjectLinkingLayer: links objects and graphs into JITDylibs, watched by plugins.

For each link, in this order:

1. `Plugin.notify_loaded` of every plugin, in order of addition, then `Plugin.prepare`;
2. `Plugin.modify_pass_config` of every plugin; the graph's own passes are in the lists;
3. the passes, as `jitlink.link.link` describes them; the first one turns definitions that hold
   elsewhere into references, so passes see what will be linked;
4. `Plugin.notify_emitted` of every plugin, when the code is in executor memory but nobody who
   waits for it has been told;
5. or, if anything fails on the way, `Plugin.notify_failed` of every plugin, once, whichever of
   the others it has been called for. The link's memory has been released by then.

Objects that are needed together are one link. If that fails, each is linked by itself, with all
these calls of its own.

A link is watched by the plugins that the layer had when it began. When resources are released
or change owner, `notify_removing_resources` (before the memory goes) and
`notify_transferring_resources` (after the memory changed owner) of the plugins that the layer
has then are called, in reverse order of addition.

An exception in a plugin fails the link that it is called for, and nothing else. Where there is
nothing left to fail, in notify_failed and while resources are released, everything else is done
first, and the exception becomes a note of the link's error or is raised to the caller.

Plugins are called on the session's thread: they must not wait for anything that happens there.

LLVM differs: its notify_loaded comes with no plugin told of failures before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from jitlink.errors import JITLinkError
from jitlink.graph import LinkGraph
from jitlink.inputs import Input, InputFile, SymbolRules, open_input
from jitlink.link import PassConfiguration
from jitlink.link import link as link_graph
from jitlink.memory.manager import FinalizedAlloc, JITLinkMemoryManager
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError, raise_first
from jitlink.orc.interface import JITSymbolFlags, ResourceManager, ResourceTracker
from jitlink.orc.link_context import LayerContext, MaterializationContext
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.objects import CommonSizes, Exported, GraphUnit, ObjectBatch, ObjectUnit
from jitlink.orc.session import ExecutionSession
from jitlink.targets.registry import default_passes


class Plugin:
    """Base of what watches and changes links; every method may be left as it is.

    Attributes:
        defines_symbols: whether its passes may change which names a graph defines. Links are
            faster if no plugin's do.
    """

    defines_symbols = True

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add passes to a link, or take some away."""

    def notify_loaded(self, responsibility: MaterializationResponsibility) -> None:
        """A link begins."""

    async def prepare(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        """Do what must be waited for before the passes run; the link waits, and others go on."""

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """A link is complete and its code in executor memory.

        What is to be released with it is kept under ``responsibility.tracker``.
        """

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
        auto_claim: whether a link may define strong symbols that were not promised, such as
            those that a plugin adds. If not, they are an `UnexpectedDefinitionError`. Weak ones
            are always taken on if there is no other definition.
        phony_externals: whether symbols that nobody defines get an address all the same, that of
            zeros in reach of the code; calling one faults.
        executable_stack: whether objects whose code needs executable stacks are linked; those of
            all threads of the executor are then made executable. None: such objects are linked,
            and the stacks stay as they are, for code that does not run.
        override_flags: what holds where the flags of an object's definitions are not those
            that were promised: the promise's, or, by default, the object's.
        adds_initializer_symbols: whether what has initialisers promises a symbol that stands for
            them; a platform, which looks it up, wants it so.
        symbol_rules: applied to all objects that are read, before anything is promised; to be
            set before any are added.
    """

    def __init__(
        self, session: ExecutionSession, memory: JITLinkMemoryManager | None = None
    ) -> None:
        self.session = session
        self.memory = memory or session.executor.memory_manager
        self.batch_objects = True
        self.auto_claim = False
        self.phony_externals = False
        self.executable_stack: bool | None = False
        self.override_flags = False
        self.adds_initializer_symbols = False
        self.symbol_rules: SymbolRules | None = None
        self._plugins: list[Plugin] = []
        self._numbers = itertools.count()
        self._allocs: dict[ResourceTracker, list[FinalizedAlloc]] = {}
        self._commons: WeakKeyDictionary[JITDylib, CommonSizes] = WeakKeyDictionary()
        session.run(lambda: session.resource_managers.append(self))

    def add_plugin(self, plugin: Plugin) -> None:
        """Let a plugin watch all links that begin from now on."""
        self.session.run(lambda: self._plugins.append(plugin))

    def remove_plugin(self, plugin: Plugin) -> None:
        """Let a plugin watch no further links, and no releases.

        Raises:
            ValueError: the layer has no such plugin.
        """
        self.session.run(lambda: self._plugins.remove(plugin))

    def add_object(
        self, dylib: JITDylib, source: Input, tracker: ResourceTracker | None = None
    ) -> None:
        """Add an object; it is linked when one of its symbols is looked up.

        Args:
            dylib: where to.
            source: path or bytes; the file must not be changed before it is linked.
            tracker: what owns it, by default the JITDylib's default tracker.

        Raises:
            InputError: the object cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        self.add_objects(dylib, [self._open(source)], tracker)

    def _open(self, source: Input) -> InputFile:
        if isinstance(source, bytearray | memoryview):
            # The caller may change these before they are linked.
            source = bytes(source)
        return open_input(source, next(self._numbers))

    def add_objects(
        self, dylib: JITDylib, files: Sequence[InputFile], tracker: ResourceTracker | None = None
    ) -> None:
        """Add objects; each is linked when one of its symbols is looked up.

        Raises:
            InputError: an object cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.

        After an error none of them has been added.
        """
        if files:
            batch = ObjectBatch(files, self.symbol_rules)
            self.session.run(lambda: self.define_objects(dylib, batch, tracker))

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """`add_objects`, for callers on the session's thread."""
        definitions = batch.definitions_for(dylib)
        if len(batch.files) > 1:
            # All or none: the last one may be refused, and then the first must not be there.
            for file, symbols in zip(batch.files, definitions, strict=True):
                dylib.resolve_precedence(symbols, file.name)
        initializers = batch.initializers if self.adds_initializer_symbols else {}
        for number, symbols in enumerate(definitions):
            part, marker = [(batch, number)], initializers.get(number)
            if marker is not None:
                promised = {**symbols, marker: JITSymbolFlags.SIDE_EFFECTS_ONLY}
                dylib.add_unit(ObjectUnit(self, part, promised, [marker]), tracker)
            elif symbols:
                dylib.add_unit(ObjectUnit(self, part, symbols), tracker)
        batch.note_definitions(dylib, self.common_sizes(dylib))

    def common_sizes(self, dylib: JITDylib) -> CommonSizes:
        """Sizes of the common symbols of a JITDylib; for the session's thread."""
        sizes = self._commons.get(dylib)
        if sizes is None:
            sizes = self._commons[dylib] = CommonSizes()
        return sizes

    def add_graph(
        self, dylib: JITDylib, graph: LinkGraph, tracker: ResourceTracker | None = None
    ) -> None:
        """Add a graph that was built by hand; the layer owns it from now on.

        Raises:
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.define(GraphUnit(self, graph), tracker)

    # On the session's thread

    async def emit(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: Exported | None = None,
    ) -> None:
        """Link a graph for a responsibility.

        Args:
            responsibility: what the graph is to define. It is not told if the link fails: let
                the error leave `MaterializationUnit.materialize`.
            graph: the graph.
            exported: what the graph defines, if the responsibility is for just that, less what
                is defined elsewhere or was removed; the rest becomes references then.

        Raises:
            UnexpectedDefinitionError: the graph defines what the responsibility is not for.
            MissingDefinitionsError: it does not define what the responsibility is for.
            JITLinkError: the link failed otherwise. The plugins have been told.
        """
        is_watched = any(plugin.defines_symbols for plugin in self._plugins)
        context = MaterializationContext(self, responsibility, graph, exported, is_watched)
        await self.link(responsibility, graph, context)

    async def link(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        context: LayerContext,
    ) -> None:
        """Link a graph in a context; `emit` is this in the context of what the graph defines.

        Raises:
            JITLinkError: the link failed. The plugins have been notified.
        """
        plugins = tuple(self._plugins)
        try:
            for plugin in plugins:
                plugin.notify_loaded(responsibility)
            for plugin in plugins:
                await plugin.prepare(responsibility, graph)
            config = default_passes(graph)
            if config.needs_executable_stack:
                await context.provide_executable_stack(config.needs_executable_stack)
            context.add_first_passes(config)
            for plugin in plugins:
                plugin.modify_pass_config(responsibility, graph, config)
            context.add_last_passes(config)
            alloc = await link_graph(graph, context, config, self.memory)
            await self._emitted(responsibility, context, alloc, plugins)
        except BaseException as error:
            for failure in _call_all(plugins, lambda each: each.notify_failed(responsibility)):
                error.add_note(str(failure))
            raise

    async def emit_object(
        self, responsibility: MaterializationResponsibility, source: Input
    ) -> None:
        """Link an object, given as path or bytes, for a responsibility.

        Raises:
            InputError: the object cannot be read.
            JITLinkError: as for `emit`.
        """
        batch = ObjectBatch([self._open(source)], self.symbol_rules)
        builder, _ = batch.take([0])
        builder.resolver.finish()
        await self.emit(responsibility, builder.target_graph)

    async def _emitted(
        self,
        responsibility: MaterializationResponsibility,
        context: LayerContext,
        alloc: FinalizedAlloc,
        plugins: Sequence[Plugin],
    ) -> None:
        try:
            for plugin in plugins:
                plugin.notify_emitted(responsibility)
            tracker = responsibility.tracker
            responsibility.notify_emitted(context.groups())
        except BaseException as error:
            try:
                await self.memory.deallocate([alloc])
            except JITLinkError as other:
                error.add_note(str(other))
            raise
        self._allocs.setdefault(tracker, []).append(alloc)

    def keep_memory(self, dylib: JITDylib) -> None:
        """Leave all memory of a JITDylib as it is for ever, and run no deallocate actions."""

        def keep() -> None:
            for tracker in dylib.trackers:
                for alloc in self._allocs.pop(tracker, []):
                    alloc.release()

        self.session.run(keep)

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release the memory of everything that was emitted under a key.

        Raises:
            SessionError: a plugin failed, or memory could not be released; all else was done.
        """
        errors = _call_all(
            self._plugins[::-1], lambda each: each.notify_removing_resources(dylib, key)
        )
        allocs = self._allocs.pop(key, [])
        if allocs:
            try:
                await self.memory.deallocate(allocs)
            except JITLinkError as error:
                errors.append(error)
        raise_first(errors)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Keep under one key what was emitted under another.

        Raises:
            SessionError: a plugin failed; all others have been told.
        """
        allocs = self._allocs.pop(source, [])
        if allocs:
            self._allocs.setdefault(destination, []).extend(allocs)
        errors = _call_all(
            self._plugins[::-1],
            lambda each: each.notify_transferring_resources(dylib, destination, source),
        )
        raise_first(errors)


def _call_all(plugins: Sequence[Plugin], call: Callable[[Plugin], None]) -> list[JITLinkError]:
    """Call plugins, all of them, and return what they raised."""
    errors: list[JITLinkError] = []
    for plugin in plugins:
        try:
            call(plugin)
        except JITLinkError as error:
            errors.append(error)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            failure = SessionError(f"a plugin failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            errors.append(failure)
    return errors
