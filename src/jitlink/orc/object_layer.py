"""ObjectLinkingLayer: links objects and graphs into JITDylibs, and notifies plugins.

For each link, in this order:

1. `Plugin.notify_loaded` of every plugin, in order of addition, then `Plugin.prepare`;
2. `Plugin.modify_pass_config` of every plugin; the graph's own passes are in the lists;
3. the passes, as `jitlink.link.link` describes them; the first one turns overridden definitions
   into references, so that passes see what will be linked;
4. `Plugin.notify_emitted` of every plugin, when the code is in executor memory but before the
   lookups that wait for it are notified;
5. or, if anything fails, `Plugin.notify_failed` of every plugin, once, whichever of the other
   methods have been called. The link's memory has been deallocated by then.

Objects that are needed together are one link. If that fails, each is linked by itself, with all
these calls of its own.

A link notifies the plugins that the layer had when the link began. When resources are released or
transferred, the plugins that the layer has then are notified, in reverse order of addition:
`notify_removing_resources` before the memory is deallocated, `notify_transferring_resources` after
it was transferred.

An exception in a plugin fails the link that it is called for, and nothing else. In notify_failed,
and while resources are released, everything else is done first, and the exception becomes a note of
the link's error or is raised to the caller.

Plugins are called on the driver thread, for which they must not wait.

LLVM differs: there, a link can fail before notify_loaded without any notification.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

from jitlink.errors import JITLinkError, TargetOutOfRangeError
from jitlink.graph import LinkGraph
from jitlink.input_reader import SymbolRules
from jitlink.inputs import Input, InputFile, open_input
from jitlink.link import PassConfiguration
from jitlink.link import link as link_graph
from jitlink.memory.manager import FinalizedAlloc, JITLinkMemoryManager
from jitlink.orc.canonical import CanonicalSymbols
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError, raise_first
from jitlink.orc.interface import (
    JITSymbolFlags,
    ResourceManager,
    ResourceTracker,
)
from jitlink.orc.link_context import LayerContext, MaterializationContext, UnplacedNames
from jitlink.orc.linker_sets import LinkerSets
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_batch import ObjectBatch, read_batch
from jitlink.orc.object_unit import GraphUnit, ObjectPart, ObjectUnit
from jitlink.orc.objects import CommonSizes, ExportedSymbols
from jitlink.orc.session import ExecutionSession
from jitlink.orc.vague_linkage import bind_variables
from jitlink.targets.registry import default_passes, target_of_graph


class Plugin:
    """Base class of plugins, which observe and change links; every method is optional.

    Attributes:
        defines_symbols: whether its passes may change which names a graph defines. Links are
            faster if those of no plugin do.
    """

    defines_symbols = True

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add passes to a link, or remove some."""

    def notify_loaded(self, responsibility: MaterializationResponsibility) -> None:
        """A link begins."""

    async def prepare(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        """Await what the passes need; the link waits, while other links proceed."""

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """A link is complete, and its code is in executor memory.

        Resources that are to be released with it belong to ``responsibility.tracker``.
        """

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """A link has failed; the plugin must release what it has allocated for it."""

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """The resources under a key are about to be released."""

    def notify_transferring_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """The resources under one key are now under another."""


class ObjectLinkingLayer(ResourceManager):
    """Links objects and graphs into the JITDylibs of one session.

    Args:
        session: the session.
        memory: the memory manager, by default the executor's.

    Attributes:
        session: the session.
        memory: the memory manager.
        batch_objects: whether objects of one JITDylib and tracker that are needed at the same
            time are linked as one graph.
        auto_claim: whether a link may define strong symbols that its responsibility is not for,
            such as those that a plugin adds. If not, they are an `UnexpectedDefinitionError`. Weak
            ones are always claimed if there is no other definition.
        phony_externals: whether undefined symbols get an address, that of zeros within reach of the
            code; calling one faults.
        executable_stack: whether objects whose code needs executable stacks are linked; those of
            all threads of the executor are then made executable. None: such objects are linked,
            and the stacks stay as they are, for code that does not run.
        writable_code: whether sections may be both writable and executable in memory.
        unplaced: names that are defined without an address, for code that does not run; references
            to them are like those to phony externals.
        override_flags: which flags prevail if those of a graph's definitions are not those of its
            responsibility: the responsibility's, or, by default, the graph's.
        adds_initializer_symbols: whether units with initialisers define an initializer symbol, for
            a platform to look up.
        symbol_rules: rules that are applied to all objects that are read; to be set before any
            are added.
    """

    def __init__(
        self, session: ExecutionSession, memory: JITLinkMemoryManager | None = None
    ) -> None:
        self.session = session
        self.memory = memory or session.executor.memory_manager
        self._is_executors_memory = self.memory is session.executor.memory_manager
        self.batch_objects = True
        self.auto_claim = False
        self.phony_externals = False
        self.executable_stack: bool | None = False
        self.writable_code = False
        self.override_flags = False
        self.unplaced: UnplacedNames | None = None
        self.adds_initializer_symbols = False
        self.symbol_rules: SymbolRules | None = None
        self.canonical = CanonicalSymbols(self)
        self._plugins: list[Plugin] = []
        self._numbers = itertools.count()
        self._allocs: dict[ResourceTracker, list[FinalizedAlloc]] = {}
        self._commons: WeakKeyDictionary[JITDylib, CommonSizes] = WeakKeyDictionary()
        self._linker_sets: WeakKeyDictionary[JITDylib, LinkerSets] = WeakKeyDictionary()
        session.run(lambda: session.resource_managers.append(self))

    def add_plugin(self, plugin: Plugin) -> None:
        """Add a plugin, for all links that begin from now on."""
        self.session.run(lambda: self._plugins.append(plugin))

    def remove_plugin(self, plugin: Plugin) -> None:
        """Remove a plugin; links that have begun still notify it.

        Raises:
            ValueError: the layer has no such plugin.
        """
        self.session.run(lambda: self._plugins.remove(plugin))

    def add_object(
        self, dylib: JITDylib, source: Input, tracker: ResourceTracker | None = None
    ) -> None:
        """Add an object; it is linked when one of its symbols is looked up.

        Args:
            dylib: the JITDylib.
            source: path or bytes; the file must not be changed before it is linked.
            tracker: its owner, by default the JITDylib's default tracker.

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

        After an error none of them was added.
        """
        if files:
            batch = read_batch(files, self.symbol_rules)
            self.session.run(lambda: self.define_objects(dylib, batch, tracker))

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """`add_objects`, for callers on the driver thread."""
        definitions = batch.definitions_for(dylib)
        if len(batch.files) > 1:
            # All or none: check all of them before the first is added.
            for file, symbols in zip(batch.files, definitions, strict=True):
                dylib.resolve_precedence(symbols, file.name)
        for number, symbols in enumerate(definitions):
            initializers, others = self.side_effects(batch, number)
            defined = {**symbols, **others} if others else symbols
            if defined:
                part = ObjectPart(batch, number)
                dylib.add_unit(ObjectUnit(self, [part], defined, initializers), tracker)
        self.record(dylib, batch, tracker)

    def side_effects(
        self, batch: ObjectBatch, number: int
    ) -> tuple[Sequence[str], Mapping[str, JITSymbolFlags]]:
        """The symbols that an object defines for side effects only.

        Returns:
            The initializer symbols among them, and all of them with flags.
        """
        initializers = batch.initializers if self.adds_initializer_symbols else {}
        if number not in initializers and number not in batch.elements:
            return (), {}
        names = (initializers.get(number), batch.element_symbol(number))
        flags = {name: JITSymbolFlags.SIDE_EFFECTS_ONLY for name in names if name is not None}
        return [initializers[number]] if number in initializers else (), flags

    def record(self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None) -> None:
        """Record objects that were added, for those that are added later."""
        batch.record_definitions(dylib, self.common_sizes(dylib), tracker)
        for number, names in batch.elements.items():
            symbol = batch.element_symbol(number)
            if symbol is not None:
                self.linker_sets(dylib).add(dylib, names, symbol)

    def linker_sets(self, dylib: JITDylib) -> LinkerSets:
        """The linker sets of a JITDylib; for the driver thread."""
        sets = self._linker_sets.get(dylib)
        if sets is None:
            sets = self._linker_sets[dylib] = LinkerSets()
        return sets

    def common_sizes(self, dylib: JITDylib) -> CommonSizes:
        """Sizes of the common symbols of a JITDylib; for the driver thread."""
        sizes = self._commons.get(dylib)
        if sizes is None:
            sizes = self._commons[dylib] = CommonSizes()
        return sizes

    def add_graph(
        self, dylib: JITDylib, graph: LinkGraph, tracker: ResourceTracker | None = None
    ) -> None:
        """Add a graph; the layer owns it from now on.

        Raises:
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        unit = GraphUnit(self, graph)
        limit = target_of_graph(graph).address_limit(graph)
        dylib.define(unit, tracker)
        self.session.run(lambda: dylib.limit_addresses(limit))

    # On the driver thread

    async def emit(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: ExportedSymbols | None = None,
    ) -> None:
        """Link a graph for a responsibility.

        Args:
            responsibility: the responsibility for the graph's definitions. It does not fail if the
                link does: let `MaterializationUnit.materialize` raise the error.
            graph: the graph.
            exported: the graph's definitions, if the responsibility is for these, or for fewer
                because some were overridden or removed; those become references.

        Raises:
            UnexpectedDefinitionError: the graph defines symbols that the responsibility is not for.
            MissingDefinitionsError: it does not define all symbols that the responsibility is for.
            JITLinkError: the link failed otherwise. The plugins have been notified.
        """
        may_change = any(plugin.defines_symbols for plugin in self._plugins)
        context = MaterializationContext(self, responsibility, graph, exported, may_change)
        await self.link(responsibility, graph, context)

    async def link(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        context: LayerContext,
    ) -> None:
        """Link a graph in a context; `emit` does so in a `MaterializationContext`.

        Raises:
            JITLinkError: the link failed. The plugins have been notified.
        """
        plugins = tuple(self._plugins)
        try:
            for plugin in plugins:
                plugin.notify_loaded(responsibility)
            for plugin in plugins:
                await plugin.prepare(responsibility, graph)
            await bind_variables(graph, responsibility.dylib)
            config = default_passes(graph)
            if context.writable_code:
                graph.writable_code = True
            if config.needs_executable_stack:
                await context.provide_executable_stack(config.needs_executable_stack)
            context.add_first_passes(config)
            for plugin in plugins:
                plugin.modify_pass_config(responsibility, graph, config)
            context.add_last_passes(config)
            context.fixups = config.fixups
            alloc = await link_graph(graph, context, config, self.memory)
            await self._emitted(responsibility, context, alloc, plugins)
        except BaseException as error:
            if isinstance(error, TargetOutOfRangeError):
                context.advise(error)
            for failure in _call_all(plugins, lambda plugin: plugin.notify_failed(responsibility)):
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
        """Never deallocate the memory of a JITDylib, nor run its deallocate actions."""

        def keep() -> None:
            for tracker in dylib.trackers:
                for alloc in self._allocs.pop(tracker, []):
                    alloc.release()

        self.session.run(keep)

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Deallocate the memory of everything that was emitted under a key.

        Raises:
            SessionError: a plugin failed, or memory could not be deallocated; everything else was
                done.
        """
        errors = _call_all(
            self._plugins[::-1], lambda plugin: plugin.notify_removing_resources(dylib, key)
        )
        allocs = self._allocs.pop(key, [])
        if allocs:
            try:
                await self.memory.deallocate(allocs)
            except JITLinkError as error:
                errors.append(error)
        raise_first(errors)

    def restart_obstacles(self) -> list[str]:
        """Memory that another manager than the executor's allocates."""
        is_own = self._is_executors_memory
        return [] if is_own else ["what is in memory of a manager that is not the executor's"]

    def handle_restart(self) -> None:
        """Use the memory of the process that was started."""
        self.memory = self.session.executor.memory_manager
        self.canonical = CanonicalSymbols(self)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Transfer the memory that was emitted under one key to another.

        Raises:
            SessionError: a plugin failed; all others have been notified.
        """
        allocs = self._allocs.pop(source, [])
        if allocs:
            self._allocs.setdefault(destination, []).extend(allocs)
        errors = _call_all(
            self._plugins[::-1],
            lambda plugin: plugin.notify_transferring_resources(dylib, destination, source),
        )
        raise_first(errors)


def _call_all(plugins: Sequence[Plugin], call: Callable[[Plugin], None]) -> list[JITLinkError]:
    """Call all plugins, and return the errors that they raised."""
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
